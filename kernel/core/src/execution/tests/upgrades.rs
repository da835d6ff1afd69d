//! Mounts that get another component, and components that are not needed any more.

use folkmoot_proto::client::Operation;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, MountId};

use super::clients::{Client, invoke};
use super::cluster::{Cluster, Proposals, assert_same_state, member};
use crate::state::{Key, View};

fn mount(digest: Digest, config: &[u8]) -> Operation {
    Operation::Mount {
        path: "/h".to_owned(),
        digest,
        config: config.to_vec(),
    }
}

/// A cluster with components of the state versions that end their names, the first at `/h`.
fn with_versions(names: &[&str]) -> (Cluster, Client, Vec<Digest>) {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let digests = names
        .iter()
        .map(|name| cluster.install(&mut client, name))
        .collect::<Vec<_>>();
    let first = mount(digests[0], b"");
    assert_eq!(cluster.call(&mut client, first), Ok(Outcome::Mounted));
    (cluster, client, digests)
}

/// What the last migration left: the version that it came from.
fn migrated_from(cluster: &Cluster) -> Option<u8> {
    let node = cluster.state(member(3)).node("/h/migrated")?;
    node.data.first().copied()
}

fn mounted(cluster: &Cluster) -> Digest {
    cluster
        .state(member(3))
        .mount_at("/h")
        .expect("a mount")
        .digest
}

#[test]
fn an_upgrade_migrates_in_its_transaction_and_so_does_the_way_back() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "hostile-2"]);
    assert_eq!(migrated_from(&cluster), None);
    let entries = cluster.log.len();
    assert_eq!(
        cluster.call(&mut client, mount(digests[1], b"")),
        Ok(Outcome::Mounted)
    );
    assert_eq!(cluster.log.len(), entries + 1);
    assert_eq!(
        (migrated_from(&cluster), mounted(&cluster)),
        (Some(1), digests[1])
    );
    assert_eq!(
        cluster.call(&mut client, mount(digests[0], b"")),
        Ok(Outcome::Mounted)
    );
    assert_eq!(
        (migrated_from(&cluster), mounted(&cluster)),
        (Some(2), digests[0])
    );
    assert_same_state(&cluster);
}

#[test]
fn a_migration_that_is_refused_or_faults_leaves_the_mount_as_it_was() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "hostile-2"]);
    let rejected = cluster.call(&mut client, mount(digests[1], b"reject"));
    assert!(
        matches!(rejected, Err(Refusal::Rejected { .. })),
        "{rejected:?}"
    );
    let faulted = cluster.call(&mut client, mount(digests[1], b"trap"));
    assert!(
        matches!(faulted, Err(Refusal::PluginFault { .. })),
        "{faulted:?}"
    );
    assert_eq!(
        (migrated_from(&cluster), mounted(&cluster)),
        (None, digests[0])
    );
    let called = cluster.call(&mut client, invoke("/h", "write"));
    assert!(matches!(called, Ok(Outcome::Invoked(_))), "{called:?}");
}

#[test]
fn a_component_of_the_same_state_version_migrates_nothing() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "hostile-b-1"]);
    assert_eq!(
        cluster.call(&mut client, mount(digests[1], b"")),
        Ok(Outcome::Mounted)
    );
    assert_eq!(
        (migrated_from(&cluster), mounted(&cluster)),
        (None, digests[1])
    );
}

#[test]
fn a_policy_can_not_be_mounted_nor_take_a_mount_over() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "rebalancer-1"]);
    let elsewhere = Operation::Mount {
        path: "/p".to_owned(),
        digest: digests[1],
        config: Vec::new(),
    };
    for operation in [mount(digests[1], b""), elsewhere] {
        let refused = cluster.call(&mut client, operation);
        assert!(
            matches!(&refused, Err(Refusal::ComponentRefused { reason }) if reason.contains("rebalancer")),
            "{refused:?}"
        );
    }
    assert_eq!(mounted(&cluster), digests[0]);
    assert!(cluster.state(member(1)).mount_at("/p").is_none());
}

/// Who waits at a mount, and what it has to hear, is the next version's.
#[test]
fn waits_and_timers_outlive_an_upgrade() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "hostile-2"]);
    let waits = cluster.call(&mut client, invoke("/h", "wait"));
    assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    cluster
        .call(&mut client, invoke("/h", "timer"))
        .expect("set");
    assert_eq!(
        cluster.call(&mut client, mount(digests[1], b"")),
        Ok(Outcome::Mounted)
    );
    let mount = cluster.state(member(1)).mount_at("/h").expect("a mount").id;
    assert_eq!(cluster.state(member(1)).waits_of_mount(mount).len(), 1);
    cluster.pass_ms(1000);
    assert_eq!(cluster.member(member(1)).plugins.heard.len(), 1);
}

#[test]
fn r31_a_component_goes_when_it_is_removed_and_not_while_a_mount_needs_it() {
    let (mut cluster, mut client, digests) = with_versions(&["hostile-1", "hostile-2"]);
    let remove = |digest| Operation::RemoveComponent { digest };
    let used = cluster.call(&mut client, remove(digests[0]));
    assert!(
        matches!(used, Err(Refusal::ComponentInUse { .. })),
        "{used:?}"
    );
    assert_eq!(
        cluster.call(&mut client, mount(digests[1], b"")),
        Ok(Outcome::Mounted)
    );
    let removed = cluster.call(&mut client, remove(digests[0]));
    assert_eq!(removed, Ok(Outcome::ComponentRemoved));
    let again = cluster.call(&mut client, remove(digests[0]));
    assert!(
        matches!(again, Err(Refusal::UnknownComponent { .. })),
        "{again:?}"
    );
    let state = cluster.state(member(3));
    assert!(state.chunk_offsets(digests[0]).is_empty());
    assert_eq!(state.counters().component_bytes, 9);
    assert_same_state(&cluster);
    let digest = cluster.install(&mut client, "hostile-1");
    assert_eq!(
        cluster.call(&mut client, mount(digest, b"")),
        Ok(Outcome::Mounted)
    );
}

/// The leader looks for events among the mounts that have some, however many mounts there are.
#[test]
fn r12_only_mounts_with_events_are_looked_through_for_them() {
    let (mut cluster, mut client, _) = with_versions(&["hostile-1"]);
    let queues = |cluster: &Cluster| {
        let mut queues = 0;
        cluster
            .state(member(1))
            .scan(&Key::EventQueue(MountId::ZERO), &mut |key, _| {
                queues += u32::from(matches!(key, Key::EventQueue(_)));
                core::ops::ControlFlow::Continue(())
            });
        queues
    };
    cluster
        .call(&mut client, invoke("/h", "timer"))
        .expect("set");
    cluster.member(member(1)).plugins.faults_left = 1;
    cluster.pass_ms(520);
    assert_eq!(queues(&cluster), 1);
    cluster.pass_ms(1000);
    assert_eq!(cluster.member(member(1)).plugins.heard.len(), 1);
    assert_eq!(queues(&cluster), 0);
}

/// The bytes of a component are not looked through where requests are executed.
#[test]
fn r7_what_an_upload_is_worth_is_found_by_its_examination() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let digest = Digest([9; 32]);
    let chunk = Operation::UploadChunk {
        digest,
        size: 5,
        offset: 0,
        data: b"other".to_vec(),
    };
    assert_eq!(cluster.call(&mut client, chunk), Ok(Outcome::ChunkTaken));
    let name = "other".to_owned();
    let waiting = cluster.call(&mut client, Operation::Install { digest, name });
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    assert!(cluster.state(member(1)).component(digest).is_none());
    assert!(cluster.state(member(1)).upload(digest).is_none());
}

/// A mount is not throttled for another one that had its id in an overlay that was dropped.
#[test]
fn a_dropped_mounts_health_is_not_anothers() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open_for(member(1), 300_000);
    let mut other = cluster.open_for(member(1), 300_000);
    let hostile = cluster.install(&mut client, "hostile");
    let memory = cluster.install(&mut client, "memory");
    let mount = |path: &str, digest| Operation::Mount {
        path: path.to_owned(),
        digest,
        config: Vec::new(),
    };
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut client, mount("/h", hostile));
    for _ in 0..6 {
        cluster.send(&mut client, invoke("/h", "trap"));
    }
    cluster.run();
    let first = cluster.proposed.front().expect("a batch").base_zxid.next();
    cluster.refuse_one();
    cluster.proposed.clear();
    // Those behind it are refused as well.
    for _ in 0..8 {
        let term = folkmoot_proto::Term(2);
        let last_appended = folkmoot_proto::LogIndex(cluster.log.len() as u64);
        cluster.consensus(
            member(1),
            crate::execution::ConsensusEvent::ProposeRefused {
                reason: crate::consensus::ProposeRefused::Full,
                term,
                last_appended,
            },
        );
    }
    cluster.run();
    cluster.proposals = Proposals::Commit;
    let mounted = cluster.call(&mut other, mount("/m", memory));
    assert_eq!(mounted, Ok(Outcome::Mounted));
    let state = cluster.state(member(1));
    let id = state.mount_at("/m").expect("a mount").id;
    assert_eq!(id.0, first.0, "it has the id of the one that was dropped");
    let added = cluster.call(&mut other, invoke("/m", "add"));
    assert!(matches!(added, Ok(Outcome::Invoked(_))), "{added:?}");
}
