//! Rules R20, R27, R31, R32: reads, state hashes, components, what a session may own.

use folkmoot_proto::client::{
    AttachRefused, ClientFrame, Operation, Query, Read, ReadOutcome, ReadRefusal, ServerFrame,
};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, LogIndex, ReadId, RequestId, Zxid};

use super::clients::{create, create_ephemeral};
use super::cluster::{Cluster, Proposals, assert_same_state, member};
use crate::execution::ExecutionAction;
use crate::state::View;

fn get(id: u64, path: &str, after: RequestId, linearizable: bool) -> ClientFrame {
    ClientFrame::Read(Read {
        id: ReadId(id),
        after,
        linearizable,
        query: Query::Get {
            path: path.to_owned(),
        },
    })
}

fn reads(frames: &[ServerFrame]) -> Vec<(u64, bool)> {
    let read = |frame: &ServerFrame| match frame {
        ServerFrame::ReadReply { id, result, .. } => {
            Some((id.0, matches!(result, Ok(ReadOutcome::Node { .. }))))
        }
        _ => None,
    };
    frames.iter().filter_map(read).collect()
}

#[test]
pub(super) fn r20_a_read_is_served_behind_the_request_that_it_names() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    let id = cluster.send(&mut client, create("/a"));
    cluster.frame(member(2), client.stream, get(1, "/a", id, false));
    cluster.frame(
        member(2),
        client.stream,
        get(2, "/a", RequestId::ZERO, false),
    );
    cluster.run();
    assert_eq!(reads(&cluster.frames(&client)), [(2, false)]);
    cluster.commit_one();
    assert_eq!(reads(&cluster.frames(&client)), [(1, true)]);
}

/// The client moves, asks again for two answers, and reads behind the second.
#[test]
pub(super) fn r20_a_read_after_a_move_waits_for_the_answer_too() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    for path in ["/a", "/b"] {
        cluster.call(&mut client, create(path)).expect("created");
    }
    let moved = cluster.resume(&client, member(3));
    cluster.send_as(&moved, RequestId(1), create("/a"));
    cluster.frame(member(3), moved.stream, get(1, "/b", RequestId(2), false));
    cluster.run();
    assert_eq!(reads(&cluster.frames(&moved)), []);
    cluster.send_as(&moved, RequestId(2), create("/b"));
    cluster.run();
    let frames = cluster.frames(&moved);
    assert!(
        matches!(
            frames.as_slice(),
            [ServerFrame::Reply { .. }, ServerFrame::ReadReply { .. }]
        ),
        "{frames:?}"
    );
}

#[test]
pub(super) fn r20_a_linearizable_read_waits_for_its_index_and_asks_again_when_it_is_lost() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    let reader = cluster.open(member(3));
    cluster.member(member(3)).lags = true;
    cluster.call(&mut client, create("/a")).expect("created");
    cluster.hold_barriers = true;
    cluster.frame(
        member(3),
        reader.stream,
        get(1, "/a", RequestId::ZERO, true),
    );
    cluster.run();
    cluster.elect(member(2));
    cluster.hold_barriers = false;
    cluster.run();
    assert_eq!(reads(&cluster.frames(&reader)), []);
    cluster.frame(
        member(3),
        reader.stream,
        get(2, "/a", RequestId::ZERO, true),
    );
    cluster.run();
    cluster.answer_barriers();
    cluster.run();
    assert_eq!(reads(&cluster.frames(&reader)), []);
    cluster.member(member(3)).lags = false;
    cluster.run();
    assert_eq!(reads(&cluster.frames(&reader)).last(), Some(&(2, true)));
}

#[test]
pub(super) fn r20_a_linearizable_read_without_a_leader_is_refused() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.depose();
    cluster.frame(
        member(2),
        client.stream,
        get(1, "/a", RequestId::ZERO, true),
    );
    cluster.run();
    let frames = cluster.frames(&client);
    assert!(
        matches!(
            frames.as_slice(),
            [ServerFrame::ReadReply {
                result: Err(ReadRefusal::NoLeader),
                ..
            }]
        ),
        "{frames:?}"
    );
}

/// A snapshot replaces the state of a member, and with it the machine: it goes on in the same run.
#[test]
pub(super) fn r20_a_machine_that_takes_over_uses_no_name_of_a_barrier_again() {
    let mut cluster = Cluster::new(3);
    let reader = cluster.open(member(2));
    cluster.hold_barriers = true;
    cluster.frame(
        member(2),
        reader.stream,
        get(1, "/a", RequestId::ZERO, true),
    );
    cluster.run();
    let (_, before) = cluster.barriers.pop_front().expect("a barrier");
    cluster.replace_machine(member(2));
    let reader = cluster.resume(&reader, member(2));
    cluster.barriers.clear();
    cluster.frame(
        member(2),
        reader.stream,
        get(2, "/a", RequestId::ZERO, true),
    );
    cluster.run();
    let (_, after) = cluster.barriers.pop_front().expect("a barrier");
    assert!(after.sequence > before.sequence, "{before:?} {after:?}");
}

#[test]
pub(super) fn r27_one_other_state_is_an_alarm_and_a_majority_takes_the_member_out() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    while cluster.log.len() < 1023 {
        cluster.call(&mut client, Operation::Sync).expect("synced");
        client.acked = RequestId(client.next.0 - 1);
    }
    cluster.call(&mut client, Operation::Sync).expect("synced");
    assert_eq!(cluster.others, []);
    let index = LogIndex(1024);
    let told = |cluster: &mut Cluster, from| {
        let execution = &mut cluster.member(member(1)).execution;
        execution.hash_told(from, index, Zxid(1), 1);
        cluster.run();
    };
    told(&mut cluster, member(2));
    let alarm = ExecutionAction::HashAlarm {
        peer: member(2),
        index,
    };
    assert_eq!(cluster.others, [(member(1), alarm)]);
    told(&mut cluster, member(3));
    assert!(matches!(
        cluster.others.last(),
        Some((_, ExecutionAction::Stop { .. }))
    ));
}

#[test]
pub(super) fn r31_a_bad_component_is_refused_and_its_upload_goes() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let bytes = b"bad ".repeat(2000);
    let digest = Digest::of(&bytes);
    let chunk = |offset: u32, data: &[u8]| Operation::UploadChunk {
        digest,
        size: 8000,
        offset,
        data: data.to_vec(),
    };
    let (first, second) = bytes.split_at(5000);
    assert_eq!(
        cluster.call(&mut client, chunk(0, first)),
        Ok(Outcome::ChunkTaken)
    );
    let gap = cluster.call(&mut client, chunk(5001, &second[1..]));
    assert!(
        matches!(gap, Err(Refusal::ComponentRefused { .. })),
        "{gap:?}"
    );
    let name = "bad".to_owned();
    let install = Operation::Install { digest, name };
    let early = cluster.call(&mut client, install.clone());
    assert!(
        matches!(early, Err(Refusal::ComponentRefused { .. })),
        "{early:?}"
    );
    assert_eq!(
        cluster.call(&mut client, chunk(5000, second)),
        Ok(Outcome::ChunkTaken)
    );
    let waiting = cluster.call(&mut client, install);
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    let completion = cluster.next_frame(&client);
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
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r31_an_unfinished_upload_goes_with_its_session() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let digest = Digest([3; 32]);
    let chunk = Operation::UploadChunk {
        digest,
        size: 9000,
        offset: 0,
        data: vec![1; 4096],
    };
    cluster.call(&mut client, chunk).expect("taken");
    cluster.send(&mut client, Operation::CloseSession);
    cluster.run();
    assert!(cluster.state(member(1)).upload(digest).is_none());
    assert_eq!(cluster.state(member(1)).counters().component_bytes, 0);
}

#[test]
pub(super) fn r31_mounts_neither_nest_nor_take_what_is_not_installed() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "lock", "/a");
    cluster.call(&mut client, create("/b")).expect("created");
    cluster.install_and_mount(&mut client, "hostile", "/b/c");
    let digest = Digest::of(b"lock");
    let mut mount = |path: &str, digest| {
        let path = path.to_owned();
        let config = Vec::new();
        cluster.call(
            &mut client,
            Operation::Mount {
                path,
                digest,
                config,
            },
        )
    };
    for path in ["/a/x", "/b"] {
        let refused = mount(path, digest);
        assert!(
            matches!(refused, Err(Refusal::MountExists { .. })),
            "{refused:?}"
        );
    }
    let refused = mount("/folkmoot/x", digest);
    assert!(
        matches!(refused, Err(Refusal::Reserved { .. })),
        "{refused:?}"
    );
    let refused = mount("/d", Digest([9; 32]));
    assert!(
        matches!(refused, Err(Refusal::UnknownComponent { .. })),
        "{refused:?}"
    );
    assert_eq!(mount("/a", Digest::of(b"hostile")), Ok(Outcome::Mounted));
}

#[test]
pub(super) fn r32_what_a_session_owns_is_capped_when_it_is_made() {
    let limits = Limits {
        session_ephemerals_max: 2,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    for path in ["/a", "/b"] {
        cluster
            .call(&mut client, create_ephemeral(path))
            .expect("created");
    }
    let refused = cluster.call(&mut client, create_ephemeral("/c"));
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
}

/// A session whose end did not fit would live for ever.
#[test]
pub(super) fn r32_the_largest_session_ends_in_one_entry() {
    let limits = Limits {
        txn_bytes_max: 512 * 1024,
        value_bytes_max: 64 * 1024,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    let name = "n".repeat(200);
    let mut nodes = 0;
    loop {
        client.acked = RequestId(client.next.0 - 1);
        match cluster.call(&mut client, create_ephemeral(&format!("/h/{name}{nodes}"))) {
            Ok(_) => nodes += 1,
            Err(Refusal::TooLarge { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    let mut waits = 0;
    let payload = vec![7; 1024];
    loop {
        client.acked = RequestId(client.next.0 - 1);
        let wait = Operation::Invoke {
            mount: "/h".to_owned(),
            operation: "wait".to_owned(),
            payload: payload.clone(),
        };
        match cluster.call(&mut client, wait) {
            Ok(_) => waits += 1,
            Err(Refusal::TooLarge { .. }) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(nodes > 400 && waits > 200, "{nodes} {waits}");
    assert_eq!(
        cluster.call(&mut client, Operation::CloseSession),
        Ok(Outcome::SessionClosed)
    );
    let left = cluster.state(member(1)).children("/h", None, 10_000);
    assert!(!left.iter().any(|path| path.starts_with(&name)));
}

#[test]
fn a_bad_timeout_is_refused_before_anything_is_logged() {
    let mut cluster = Cluster::new(1);
    let before = cluster.log.len();
    let stream = cluster.new_stream();
    let secret = cluster.new_secret();
    let timeout_ms = 10;
    cluster.frame(member(1), stream, ClientFrame::Open { secret, timeout_ms });
    cluster.run();
    let frames = cluster.frames_of(stream);
    assert!(
        matches!(
            frames.as_slice(),
            [ServerFrame::AttachRefused(AttachRefused::BadTimeout { .. })]
        ),
        "{frames:?}"
    );
    assert_eq!(cluster.log.len(), before);
}
