//! What hashing promises.

use folkmoot_rendezvous::Rendezvous;
use folkmoot_sdk::testing::TestCluster;

#[test]
fn a_member_that_joins_takes_its_share_and_a_lost_one_gives_it_back() {
    let cluster = TestCluster::vacant(9, 1000).check(&Rendezvous);
    let before: Vec<Vec<String>> = places(&cluster);
    let cluster = cluster.join("new", "").check(&Rendezvous);
    assert_eq!(cluster.moves(), cluster.counts()["new"]);
    assert!((60..140).contains(&cluster.moves()), "{}", cluster.moves());
    assert_eq!(places(&cluster.lose("new").check(&Rendezvous)), before);
}

#[test]
fn shares_follow_capacity() {
    let capacity = |cluster: TestCluster, name, capacity| {
        cluster.with_member(name, |member| member.capacity[0] = capacity)
    };
    let cluster = TestCluster::vacant(3, 2000);
    let cluster = capacity(capacity(cluster, "a", 20_000), "b", 20_000);
    let cluster = capacity(cluster, "c", 40_000).check(&Rendezvous);
    assert!(
        (950..1050).contains(&cluster.counts()["c"]),
        "{:?}",
        cluster.counts()
    );
}

fn places(cluster: &TestCluster) -> Vec<Vec<String>> {
    let partitions = cluster.input().partitions().len();
    let names = |partition| cluster.members_of(partition).into_iter().map(str::to_owned);
    (0..partitions)
        .map(|partition| names(partition).collect())
        .collect()
}
