//! Members of one cluster in this process, as their clients see them.

#![cfg(test)]

mod support;

use support::client::{Client, endpoint, within};
use support::cluster::Cluster;

use folkmoot_server::tls::CLIENT_ALPN;

fn client_endpoint(cluster: &Cluster) -> quinn::Endpoint {
    endpoint(
        &cluster.authority.pem(),
        &cluster.authority.client(),
        CLIENT_ALPN,
    )
}

#[tokio::test]
async fn one_member_puts_and_gets() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let endpoint = client_endpoint(&cluster);
    let client = Client::connect(&endpoint, cluster.client_address(0)).await;
    let mut session = client.session().await;
    session.create("/a", b"1").await;
    assert_eq!(session.get("/a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(session.get("/b").await, None);
}

#[tokio::test]
async fn three_members_serve_through_each_and_keep_what_they_acknowledged() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let endpoint = client_endpoint(&cluster);
    for index in 0..3 {
        let client = Client::connect(&endpoint, cluster.client_address(index)).await;
        let mut session = client.session().await;
        session.create(&format!("/m{index}"), b"x").await;
        for seen in 0..=index {
            let path = format!("/m{seen}");
            assert_eq!(session.get(&path).await.as_deref(), Some(&b"x"[..]));
        }
    }
}

#[tokio::test]
async fn a_session_survives_its_leader_and_the_leader_comes_back() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let endpoint = client_endpoint(&cluster);
    let mut client = Client::connect(&endpoint, cluster.client_address(0)).await;
    let leader = client.leader().await;
    let leader_index = usize::try_from(leader.0 - 1).expect("small");
    let others: Vec<usize> = (0..3).filter(|index| *index != leader_index).collect();

    let on_leader = Client::connect(&endpoint, cluster.client_address(leader_index)).await;
    let mut session = on_leader.session().await;
    session.create("/before", b"1").await;
    cluster.stop(leader_index);

    let elsewhere = Client::connect(&endpoint, cluster.client_address(others[0])).await;
    let mut session = elsewhere.resume(&session).await;
    let before = session.get_resuming(&elsewhere, "/before").await;
    assert_eq!(before.as_deref(), Some(&b"1"[..]));
    session.create_resuming(&elsewhere, "/after", b"2").await;

    cluster
        .start(leader_index)
        .expect("it starts on its folder");
    cluster.stop(others[1]);
    let mut back = Client::connect(&endpoint, cluster.client_address(leader_index)).await;
    let mut session = back.resume(&session).await;
    let after = session.get_resuming(&back, "/after").await;
    assert_eq!(after.as_deref(), Some(&b"2"[..]));
    let status = within(async {
        loop {
            let (here, there) = (back.status().await, status_of(&cluster, others[0]).await);
            if here.applied_zxid == there.applied_zxid {
                return (here, there);
            }
        }
    })
    .await;
    assert_eq!(status.0.state_hash, status.1.state_hash);
}

/// Rule R21: a member whose machine was set up again has forgotten what it acknowledged. It does not
/// elect one who lacks that, although nothing in its folder says that it ever began.
#[tokio::test]
async fn r21_a_rebuilt_member_elects_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let endpoint = client_endpoint(&cluster);
    let mut client = Client::connect(&endpoint, cluster.client_address(0)).await;
    let leader = usize::try_from(client.leader().await.0 - 1).expect("small");
    let (rebuilt, behind) = ((leader + 1) % 3, (leader + 2) % 3);
    let on_leader = Client::connect(&endpoint, cluster.client_address(leader)).await;
    let mut session = on_leader.session().await;
    session.create("/before", b"1").await;
    cluster.stop(behind);
    session.create("/acknowledged", b"1").await;
    cluster.stop(rebuilt);
    cluster.rebuild(rebuilt);
    cluster.stop(leader);

    cluster
        .start(rebuilt)
        .expect("it starts on an empty folder");
    cluster.start(behind).expect("it starts on its folder");
    within(async {
        while status_of(&cluster, rebuilt).await.role != "recovering" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(status_of(&cluster, behind).await.leader, None);

    cluster.start(leader).expect("it starts on its folder");
    let client = Client::connect(&endpoint, cluster.client_address(behind)).await;
    let mut session = client.resume(&session).await;
    let value = session.get_resuming(&client, "/acknowledged").await;
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    assert_eq!(status_of(&cluster, rebuilt).await.role, "recovering");
}

async fn status_of(cluster: &Cluster, index: usize) -> folkmoot_proto::client::MemberStatus {
    let endpoint = client_endpoint(cluster);
    let mut client = Client::connect(&endpoint, cluster.client_address(index)).await;
    client.status().await
}
