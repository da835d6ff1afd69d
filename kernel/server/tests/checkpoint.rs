//! Restarts from a checkpoint, and catching up by a snapshot (rules R25, R26).

#![cfg(test)]

mod support;

use std::time::Duration;

use folkmoot_proto::client::MemberStatus;
use folkmoot_server::CheckpointPolicy;
use folkmoot_server::tls::CLIENT_ALPN;
use support::client::{Client, endpoint, within};
use support::cluster::Cluster;

/// A checkpoint at every look at the triggers.
const OFTEN: CheckpointPolicy = CheckpointPolicy {
    log_bytes: 1,
    dirty_bytes: 1,
    interval: Duration::ZERO,
};
/// Values of this size fill a segment of a test's log with ten.
const LARGE: usize = 768 * 1024;

async fn connect(cluster: &Cluster, index: usize) -> Client {
    let identity = cluster.authority.client();
    let endpoint = endpoint(&cluster.authority.pem(), &identity, CLIENT_ALPN);
    Client::connect(&endpoint, cluster.client_address(index)).await
}

fn log_files(cluster: &Cluster, index: usize) -> Vec<std::ffi::OsString> {
    let folder = cluster.configs[index].data.join("log");
    let entries = std::fs::read_dir(folder).expect("a log");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    names.sort();
    names
}

/// Waits until both members have applied the same.
async fn agree(one: &mut Client, other: &mut Client) -> (MemberStatus, MemberStatus) {
    within(async {
        loop {
            let (one, other) = (one.status().await, other.status().await);
            if one.applied_zxid == other.applied_zxid {
                return (one, other);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Rule R26: checkpoint and log tail together are the state, after old segments went.
#[tokio::test]
async fn r26_a_restart_is_a_checkpoint_and_the_logs_tail() {
    let mut cluster = Cluster::new(1);
    cluster.checkpoint = OFTEN;
    cluster.start_all();
    let mut client = connect(&cluster, 0).await;
    let mut session = client.session().await;
    let first = log_files(&cluster, 0);
    let mut made = 0;
    within(async {
        while log_files(&cluster, 0).contains(&first[0]) {
            session.create(&format!("/n{made}"), &vec![1; LARGE]).await;
            made += 1;
        }
    })
    .await;
    let before = client.status().await;
    cluster.stop(0);
    cluster.checkpoint = CheckpointPolicy::default();
    cluster.start(0).expect("it starts from its checkpoint");

    let client = connect(&cluster, 0).await;
    let mut session = client.resume(&session).await;
    for node in 0..made {
        let value = session.get(&format!("/n{node}")).await;
        assert_eq!(value.map(|value| value.len()), Some(LARGE), "/n{node}");
    }
    assert!(connect(&cluster, 0).await.status().await.applied_zxid >= before.applied_zxid);
}

/// Rule R7: what execution has applied makes room for what it is handed next, of which all together
/// is more than may wait for it.
#[tokio::test]
async fn r07_what_is_applied_makes_room() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let client = connect(&cluster, 0).await;
    let mut session = client.session().await;
    for node in 0..32 {
        within(session.create(&format!("/n{node}"), &vec![1; LARGE])).await;
    }
}

/// Rule R25: a member that was away for longer than the others' logs reach gets a snapshot, and
/// starts again on it.
#[tokio::test]
async fn r25_a_member_that_was_away_too_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.checkpoint = OFTEN;
    cluster.start_all();
    let mut client = connect(&cluster, 0).await;
    let leader = usize::try_from(client.leader().await.0 - 1).expect("small");
    let away = (leader + 1) % 3;
    cluster.stop(away);

    let mut on_leader = connect(&cluster, leader).await;
    let mut session = on_leader.session().await;
    let first = [leader, (leader + 2) % 3].map(|index| (index, log_files(&cluster, index)));
    let is_there = |cluster: &Cluster| {
        first
            .iter()
            .any(|(index, files)| log_files(cluster, *index).contains(&files[0]))
    };
    let mut made = 0;
    within(async {
        // What the leader keeps in memory must be too little as well.
        while is_there(&cluster) || made < 32 {
            session.create(&format!("/n{made}"), &vec![1; LARGE]).await;
            made += 1;
        }
    })
    .await;

    cluster.start(away).expect("it starts on its old folder");
    let mut back = connect(&cluster, away).await;
    let (here, there) = agree(&mut back, &mut on_leader).await;
    assert_eq!(here.state_hash, there.state_hash);
    let mut session = back.resume(&session).await;
    assert!(session.get_resuming(&back, "/n0").await.is_some());
    session.create("/through-it", b"1").await;

    cluster.stop(away);
    cluster.start(away).expect("it starts on the snapshot");
    let mut back = connect(&cluster, away).await;
    let (here, there) = agree(&mut back, &mut on_leader).await;
    assert_eq!(here.state_hash, there.state_hash);
}
