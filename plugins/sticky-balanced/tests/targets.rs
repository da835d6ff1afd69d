//! The targets of the policy, where they are exact.

use folkmoot_sdk::testing::TestCluster;
use folkmoot_sticky_balanced::StickyBalanced;

fn policy() -> StickyBalanced {
    StickyBalanced::default()
}

fn spread<'a>(counts: impl IntoIterator<Item = &'a usize>) -> usize {
    let counts: Vec<usize> = counts.into_iter().copied().collect();
    let most = counts.iter().max().copied().unwrap_or_default();
    most - counts.iter().min().copied().unwrap_or_default()
}

#[test]
fn a_lost_member_moves_what_it_had_and_nothing_else() {
    let cluster = TestCluster::new(7, 100).lose("b").check(&policy());
    assert_eq!(cluster.moves(), 15);
    let left: Vec<usize> = cluster
        .counts()
        .into_values()
        .filter(|it| *it > 0)
        .collect();
    assert_eq!((left.len(), spread(&left)), (6, 1));
}

#[test]
fn a_new_member_gets_its_share_and_nothing_else_moves() {
    let cluster = TestCluster::new(7, 100).join("new", "").check(&policy());
    assert_eq!(cluster.moves(), 12, "the share is 12.5");
    assert_eq!(spread(cluster.counts().values()), 1);
}

#[test]
fn shares_follow_capacity() {
    let cluster = TestCluster::vacant(3, 120)
        .with_member("a", |member| member.capacity[0] = 300)
        .with_member("b", |member| member.capacity[0] = 200)
        .with_member("c", |member| member.capacity[0] = 100)
        .check(&policy());
    let counts = cluster.counts();
    assert_eq!((counts["a"], counts["b"], counts["c"]), (60, 40, 20));
}

#[test]
fn a_member_that_comes_back_in_time_moves_nothing() {
    let cluster = TestCluster::new(5, 103).check(&policy());
    let cluster = cluster.away("c").check(&policy());
    assert_eq!(cluster.moves(), 0);
    assert_eq!(cluster.back("c").check(&policy()).moves(), 0);
}

#[test]
fn measured_load_moves_nothing() {
    let mut cluster = TestCluster::new(5, 100).check(&policy());
    for (partition, load) in
        (0..100).map(|partition| (partition, 0.9 + (partition % 21) as f64 / 100.0))
    {
        cluster = cluster.load(partition, load);
    }
    assert_eq!(cluster.check(&policy()).moves(), 0);
}

#[test]
fn replicas_and_leaders_are_even() {
    let cluster = TestCluster::vacant(9, 100)
        .copies(3)
        .zones(&["x", "y", "z"]);
    let cluster = cluster.check(&policy());
    assert!(spread(cluster.counts().values()) <= 1);
    assert!(spread(cluster.leaders().values()) <= 1);
    let cluster = cluster.lose("a").check(&policy());
    assert!(cluster.moves() <= 34, "the zone's other two take it all");
    let leaders: Vec<usize> = cluster
        .leaders()
        .into_values()
        .filter(|it| *it > 0)
        .collect();
    assert!(spread(&leaders) <= 1, "{leaders:?}");
    let again = cluster.check(&policy());
    assert_eq!((again.moves(), again.leader_moves()), (0, 0));
}

/// Where the only member that lacks something can not take from the one that has too much, a third
/// one makes room.
#[test]
fn room_is_made_by_a_chain() {
    let mut cluster = TestCluster::new(2, 12).join("c", "");
    for partition in (0..12).step_by(2) {
        cluster = cluster.allow(partition, &["a", "b"]);
    }
    // `a` has the even ones, which may not be at `c`.
    let cluster = cluster.check(&policy());
    assert_eq!(
        spread(cluster.counts().values()),
        0,
        "{:?}",
        cluster.counts()
    );
    assert_eq!(
        cluster.moves(),
        6,
        "two to the new one, and two more that make room for it"
    );
}

#[test]
fn weights_come_within_the_slack() {
    let mut cluster = TestCluster::vacant(5, 200);
    for partition in 0..200 {
        let weight = 1 + (partition as u64 * 7919) % 50;
        cluster = cluster.with_partition(partition, |spec| spec.weights[0] = weight);
    }
    let cluster = cluster.check(&policy());
    let score = &cluster.plan().scores()[0];
    assert!(score.after < 0.05, "{score:?}");
    let cluster = cluster.join("new", "").check(&policy());
    let score = &cluster.plan().scores()[0];
    assert!(score.after <= 0.1, "{score:?}");
    assert!(cluster.moves() < 200 / 5, "{}", cluster.moves());
    assert_eq!(cluster.check(&policy()).moves(), 0);
}
