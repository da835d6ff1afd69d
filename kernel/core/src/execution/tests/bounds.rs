//! Nothing that clients or plugins do makes the cluster, a mount or a session stand still: what is
//! proposed and forwarded fits a frame (rule R5), what is due gets its turn whatever else there is
//! to do (rules R7, R12, R16), and what waits has a bound.

use folkmoot_proto::client::{
    ClientFrame, NodeKind, Operation, Query, Read, ReadRefusal, ServerFrame,
};
use folkmoot_proto::limits::{BATCH_BYTES_TARGET, FRAME_BYTES_MAX, Limits};
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, LogIndex, ReadId, RequestId, Ticket, frame};

use super::clients::{Client, create, invoke, replies};
use super::cluster::{Cluster, Proposals, member};
use crate::execution::ExecutionAction;
use crate::state::View;

fn value(path: &str, bytes: usize) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: vec![7; bytes],
        kind: NodeKind {
            ephemeral: false,
            sequential: true,
        },
    }
}

fn call_with(mount: &str, operation: &str, payload: Vec<u8>) -> Operation {
    Operation::Invoke {
        mount: mount.to_owned(),
        operation: operation.to_owned(),
        payload,
    }
}

/// R26: what has changed since the last checkpoint has a limit, at which no more entries are asked
/// for until it is taken.
#[test]
fn r26_a_checkpoint_that_falls_behind_holds_entries_back() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.member(member(1)).execution.config.dirty_bytes_max = 50_000;
    for _ in 0..20 {
        let before = cluster.member(member(1)).execution.has_room_behind();
        assert_eq!(before, Some(LogIndex(cluster.log.len() as u64)));
        cluster.send(&mut client, value("/v", 2000));
        cluster.run();
    }
    for _ in 0..10 {
        cluster.send(&mut client, value("/v", 2000));
        cluster.run();
    }
    let execution = &mut cluster.member(member(1)).execution;
    assert_eq!(execution.has_room_behind(), None);
    assert!(!execution.state_mut().take_delta().changes.is_empty());
    assert_eq!(
        execution.has_room_behind(),
        Some(execution.state().position().index)
    );
}

/// A transaction of 4 MB comes behind others that have begun to fill a batch.
#[test]
fn r5_a_batch_fits_a_frame_whatever_comes_together() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    cluster.proposals = Proposals::Hold;
    for _ in 0..2 {
        cluster.send(&mut client, create("/a"));
        cluster.run();
    }
    for _ in 0..200 {
        cluster.send(&mut client, value("/v", 1000));
    }
    cluster.send(&mut client, call_with("/h", "write", vec![4]));
    cluster.send(&mut client, create("/b"));
    cluster.run();
    while let Some(batch) = cluster.proposed.front() {
        let bytes = batch.payload.len();
        let txns = batch.last_zxid.0 - batch.base_zxid.0;
        assert!(bytes < FRAME_BYTES_MAX * 9 / 10, "{bytes} bytes");
        assert!(
            txns == 1 || bytes <= BATCH_BYTES_TARGET + 4096,
            "{bytes} bytes of {txns}"
        );
        cluster.commit_one();
    }
    assert_eq!(replies(&cluster.frames(&client)).len(), 204);
}

#[test]
fn r5_what_a_plugin_writes_and_what_it_answers_fit_one_transaction_together() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    let reply = cluster.call(&mut client, call_with("/h", "write-and-reply", vec![4]));
    assert!(
        matches!(reply, Err(Refusal::PluginFault { .. })),
        "{reply:?}"
    );
    assert!(cluster.state(member(1)).node("/h/w0").is_none());
    let reply = cluster.call(&mut client, call_with("/h", "write-and-reply", vec![2]));
    assert!(matches!(reply, Ok(Outcome::Invoked(_))), "{reply:?}");
}

/// Each timer fits a transaction; the four that are due together do not.
#[test]
fn r12_timers_that_do_not_fit_one_transaction_fire_all_the_same() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    for name in 0..5 {
        let payload = vec![name; 1_000_000];
        cluster
            .call(&mut client, call_with("/h", "timer", payload))
            .expect("set");
    }
    cluster.pass_ms(1000);
    assert_eq!(cluster.member(member(1)).plugins.heard.len(), 5);
}

#[test]
fn r2_requests_on_their_way_to_the_leader_fit_a_frame() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let mut sent = Vec::new();
    for _ in 0..8 {
        cluster.send(&mut client, value("/v", 1_000_000));
    }
    let execution = &mut cluster.member(member(2)).execution;
    while let Some(action) = execution.poll_action() {
        sent.push(action);
    }
    let requests = sent.iter().filter_map(|action| match action {
        ExecutionAction::ToPeer { message, .. } => Some(message),
        _ => None,
    });
    let mut count = 0;
    for message in requests {
        let bytes = frame::to_bytes(message).expect("bytes").len();
        assert!(bytes < FRAME_BYTES_MAX * 9 / 10, "{bytes} bytes");
        if let ExecutionMessage::Requests { requests, .. } = message {
            count += requests.len();
        }
    }
    assert_eq!(count, 8);
    cluster.send(&mut client, value("/v", FRAME_BYTES_MAX - 1000));
    cluster.run();
    let closing = cluster.frames(&client).pop();
    assert!(
        matches!(closing, Some(ServerFrame::Closing { .. })),
        "{closing:?}"
    );
}

fn upload(cluster: &mut Cluster, client: &mut Client, bytes: &[u8]) -> Operation {
    let digest = Digest::of(bytes);
    let chunk = Operation::UploadChunk {
        digest,
        size: u32::try_from(bytes.len()).expect("small"),
        offset: 0,
        data: bytes.to_vec(),
    };
    assert_eq!(cluster.call(client, chunk), Ok(Outcome::ChunkTaken));
    Operation::Install {
        digest,
        name: "a component".to_owned(),
    }
}

/// One component is refused, and tried again under the same leader.
#[test]
fn r31_a_component_that_was_refused_is_examined_again() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    for _ in 0..2 {
        let install = upload(&mut cluster, &mut client, b"bad");
        let waiting = cluster.call(&mut client, install);
        assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
        let completion = cluster.next_frame(&client);
        assert!(
            matches!(
                completion,
                Some(ServerFrame::Completion { reply: Err(_), .. })
            ),
            "{completion:?}"
        );
    }
}

/// A component describes itself at more length than its node may have: whoever installs it hears so,
/// and nothing is left of it.
#[test]
fn r31_a_component_that_can_not_be_installed_is_refused_at_once() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.hold_examinations = true;
    let install = upload(&mut cluster, &mut client, b"lock");
    let waiting = cluster.call(&mut client, install);
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    let (now, digest) = (cluster.now(), Digest::of(b"lock"));
    let execution = &mut cluster.member(member(1)).execution;
    execution.handle_examined(now, digest, Ok("x".repeat(1024 * 1024)));
    cluster.run();
    let completion = cluster.frames(&client).pop();
    assert!(
        matches!(
            completion,
            Some(ServerFrame::Completion {
                reply: Err(Refusal::ComponentRefused { .. }),
                ..
            })
        ),
        "{completion:?}"
    );
    assert!(cluster.state(member(1)).upload(digest).is_none());
    let execution = &cluster.member(member(1)).execution;
    let leader = execution.leader.as_ref().expect("it leads");
    assert!(leader.examining.is_empty());
}

/// A configuration of control characters takes six bytes for each in JSON.
#[test]
fn a_configuration_fits_the_node_that_shows_it() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let digest = cluster.install(&mut client, "lock");
    let mut mount = |config: Vec<u8>| {
        let path = "/lock".to_owned();
        let mount = Operation::Mount {
            path,
            digest,
            config,
        };
        cluster.call(&mut client, mount)
    };
    let refused = mount(vec![1; 200_000]);
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(mount(vec![1; 100_000]), Ok(Outcome::Mounted));
    assert_eq!(mount(vec![b'x'; 1_000_000]), Ok(Outcome::Mounted));
}

/// Many sessions wait at one mount, which is removed.
#[test]
fn r32_the_waits_of_a_mount_end_in_one_transaction() {
    let limits = Limits {
        txn_bytes_max: 16 * 1024,
        value_bytes_max: 8 * 1024,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut admin = cluster.open(member(1));
    cluster.install_and_mount(&mut admin, "hostile", "/h");
    let mut waiting = 0;
    for _ in 0..30 {
        let mut client = cluster.open(member(1));
        for _ in 0..7 {
            let reply = cluster.call(&mut client, invoke("/h", "wait"));
            waiting += u32::from(matches!(reply, Ok(Outcome::Waiting(_))));
        }
    }
    assert!(waiting > 50, "{waiting} wait");
    let path = "/h".to_owned();
    let unmounted = cluster.call(&mut admin, Operation::Unmount { path });
    assert_eq!(unmounted, Ok(Outcome::Unmounted));
    assert_eq!(cluster.state(member(1)).counters().waits, 0);
}

/// The leader goes during the examination, and nothing else happens in the cluster.
#[test]
fn r31_a_new_leader_examines_what_its_predecessor_did_not() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(3));
    cluster.hold_examinations = true;
    let install = upload(&mut cluster, &mut client, b"lock");
    let waiting = cluster.call(&mut client, install);
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    cluster.hold_examinations = false;
    cluster.elect(member(2));
    cluster.run();
    let completion = cluster.frames(&client).pop();
    assert!(
        matches!(
            completion,
            Some(ServerFrame::Completion {
                reply: Ok(Outcome::Installed),
                ..
            })
        ),
        "{completion:?}"
    );
}

#[test]
pub(super) fn r31_an_upload_that_does_not_go_on_is_dropped() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    let digest = Digest([3; 32]);
    let chunk = |offset| Operation::UploadChunk {
        digest,
        size: 20_000,
        offset,
        data: vec![1; 5000],
    };
    cluster.call(&mut client, chunk(0)).expect("taken");
    let pass = |cluster: &mut Cluster, seconds: u64| {
        for _ in 0..seconds / 5 {
            cluster.heartbeat(&client, 1);
            cluster.pass_ms(5000);
        }
    };
    pass(&mut cluster, 50);
    cluster.elect(member(2));
    pass(&mut cluster, 5);
    let again = cluster.resume(&client, member(2));
    let mut client = Client {
        next: RequestId(2),
        ..again
    };
    assert_eq!(
        cluster.call_anew(&mut client, chunk(5000)),
        Ok(Outcome::ChunkTaken)
    );
    let pass = |cluster: &mut Cluster, seconds: u64| {
        for _ in 0..seconds / 5 {
            cluster.heartbeat(&client, 1);
            cluster.pass_ms(5000);
        }
    };
    pass(&mut cluster, 50);
    assert!(cluster.state(member(1)).upload(digest).is_some());
    pass(&mut cluster, 15);
    assert!(cluster.state(member(1)).upload(digest).is_none());
    assert_eq!(cluster.state(member(3)).counters().component_bytes, 0);
}

#[test]
fn r32_a_session_has_few_uploads_and_their_chunks_are_large() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let mut taken = 0;
    for number in 0..20 {
        let chunk = Operation::UploadChunk {
            digest: Digest([number; 32]),
            size: 10_000,
            offset: 0,
            data: vec![0; 5000],
        };
        taken += u32::from(cluster.call(&mut client, chunk).is_ok());
    }
    assert_eq!(taken, 8);
    let tiny = Operation::UploadChunk {
        digest: Digest([1; 32]),
        size: 10_000,
        offset: 5000,
        data: vec![0],
    };
    let refused = cluster.call(&mut client, tiny);
    assert!(
        matches!(refused, Err(Refusal::ComponentRefused { .. })),
        "{refused:?}"
    );
}

/// One session's reads wait for what never comes; another's are served.
#[test]
fn r2_reads_of_one_session_leave_room_for_those_of_others() {
    let mut cluster = Cluster::new(1);
    let client = cluster.open(member(1));
    let other = cluster.open(member(1));
    let read = |id: u64, after: u64| {
        ClientFrame::Read(Read {
            id: ReadId(id),
            after: RequestId(after),
            linearizable: false,
            query: Query::Exists {
                path: "/".to_owned(),
            },
        })
    };
    for id in 0..20_000 {
        cluster.frame(member(1), client.stream, read(id, u64::MAX));
    }
    cluster.frame(member(1), other.stream, read(1, 0));
    cluster.run();
    let served = cluster.frames(&other);
    assert!(
        matches!(
            served.as_slice(),
            [ServerFrame::ReadReply { result: Ok(_), .. }]
        ),
        "{served:?}"
    );
    let refused = cluster.frames(&client);
    assert!(
        matches!(
            refused.first(),
            Some(ServerFrame::ReadReply {
                result: Err(ReadRefusal::TooManyReads),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn r7_an_acknowledgement_names_no_more_than_a_session_can_have() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let acknowledge = |count: u64| Operation::AcknowledgeCompletions {
        tickets: (0..count).map(Ticket).collect(),
    };
    assert_eq!(
        cluster.call(&mut client, acknowledge(1000)),
        Ok(Outcome::Acknowledged)
    );
    let refused = cluster.call(&mut client, acknowledge(100_000));
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
}
