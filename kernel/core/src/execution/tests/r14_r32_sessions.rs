//! Rules R7, R14–R16, R20, R27, R28, R31, R32: instances, attachments, touches, reads, components.

use folkmoot_proto::client::{
    AttachRefused, ClientFrame, Operation, Query, Read, ReadOutcome, ReadRefusal, ServerFrame,
};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, LogIndex, ReadId, RequestId, SessionId, Zxid};

use super::cluster::{
    Client, Cluster, Proposals, assert_same_state, create, create_ephemeral, invoke, member,
    replies,
};
use crate::execution::ExecutionAction;
use crate::state::View;

fn total(cluster: &mut Cluster, client: &mut Client) -> u64 {
    match cluster.call(client, invoke("/m", "add")) {
        Ok(Outcome::Invoked(total)) => {
            u64::from_be_bytes(total.as_slice().try_into().expect("a total"))
        }
        other => panic!("no total: {other:?}"),
    }
}

#[test]
fn r7_a_mount_that_faults_again_and_again_is_throttled() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    for _ in 0..3 {
        let fault = cluster.call(&mut client, invoke("/h", "trap"));
        assert!(
            matches!(fault, Err(Refusal::PluginFault { .. })),
            "{fault:?}"
        );
    }
    let throttled = cluster.call(&mut client, invoke("/h", "trap"));
    assert!(
        matches!(throttled, Err(Refusal::MountThrottled { .. })),
        "{throttled:?}"
    );
    cluster.pass_ms(200);
    let fault = cluster.call(&mut client, invoke("/h", "trap"));
    assert!(
        matches!(fault, Err(Refusal::PluginFault { .. })),
        "{fault:?}"
    );
    assert!(cluster.state(member(1)).node("/h/trace").is_none());
}

#[test]
fn r14_an_instance_forgets_an_overlay_that_was_thrown_away() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "memory", "/m");
    assert_eq!(total(&mut cluster, &mut client), 1);
    cluster.proposals = Proposals::Hold;
    let id = cluster.send(&mut client, invoke("/m", "add"));
    cluster.run();
    cluster.refuse_one();
    cluster.proposals = Proposals::Commit;
    cluster.frames(&client);
    cluster.send_as(&client, id, invoke("/m", "add"));
    cluster.run();
    let (_, reply) = replies(&cluster.frames(&client)).pop().expect("a reply");
    assert_eq!(reply, Ok(Outcome::Invoked(2_u64.to_be_bytes().to_vec())));
}

#[test]
fn r14_an_instance_forgets_a_call_that_was_rolled_back() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "memory", "/m");
    let rejected = cluster.call(&mut client, invoke("/m", "reject"));
    assert!(
        matches!(rejected, Err(Refusal::Rejected { .. })),
        "{rejected:?}"
    );
    assert_eq!(total(&mut cluster, &mut client), 1);
}

#[test]
fn a_guest_stays_in_its_mount_and_within_a_transaction() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    let escaped = cluster.call(&mut client, invoke("/h", "escape"));
    assert_eq!(escaped, Ok(Outcome::Invoked(vec![1; 5])));
    let flood = cluster.call(&mut client, invoke("/h", "flood"));
    assert!(
        matches!(&flood, Err(Refusal::PluginFault { kind, .. }) if kind == "too-large"),
        "{flood:?}"
    );
    let wrong = cluster.call(&mut client, invoke("/h", "wrong"));
    assert!(
        matches!(wrong, Err(Refusal::PluginFault { .. })),
        "{wrong:?}"
    );
    assert_eq!(
        cluster.state(member(1)).children("/h", None, 10),
        Vec::<String>::new()
    );
}

/// The scenario of rule R15: the client moves while its requests are queued at the old member.
#[test]
fn r15_requests_of_an_older_attachment_are_refused() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.call(&mut client, create("/a")).expect("created");
    let moved = cluster.resume(&client, member(3));
    assert!(moved.epoch > client.epoch);
    let stale = folkmoot_proto::client::Request {
        id: RequestId(2),
        acked_up_to: RequestId::ZERO,
        guards: Vec::new(),
        operation: create("/stale"),
    };
    let (session, epoch) = (client.session, client.epoch);
    cluster
        .member(member(1))
        .execution
        .lead_request(member(2), session, epoch, stale);
    cluster.run();
    assert!(cluster.state(member(1)).node("/stale").is_none());
    let old = cluster.frames(&client);
    assert!(
        matches!(old.as_slice(), [ServerFrame::Closing { .. }]),
        "{old:?}"
    );
    assert!(cluster.closed.contains(&client.stream));
}

#[test]
fn r15_a_member_serves_only_what_it_has_applied() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.call(&mut client, create("/a")).expect("created");
    cluster.member(member(3)).lags = true;
    cluster.call(&mut client, create("/b")).expect("created");
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    assert_eq!(cluster.frames_of(stream), []);
    cluster.member(member(3)).lags = false;
    cluster.run();
    let moved = cluster.attached(member(3), stream, client.secret);
    assert_eq!(moved.next, RequestId(3));
    // Both answers are told again, in order, since neither is acknowledged.
    let told = replies(&cluster.frames(&moved));
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
}

/// The leader has executed a session's end that is not committed: nobody is told of it yet.
#[test]
fn r15_only_a_committed_entry_says_that_a_session_is_over() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut client, Operation::CloseSession);
    cluster.run();
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    assert_eq!(cluster.frames_of(stream), []);
    // The end is lost with its leader, and the session lives.
    cluster.proposals = Proposals::Commit;
    cluster.elect(member(1));
    cluster.run();
    cluster.attached(member(3), stream, client.secret);
}

#[test]
fn r15_a_session_that_is_over_is_told_by_any_member_that_knows() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.send(&mut client, Operation::CloseSession);
    cluster.run();
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    let refused = ServerFrame::AttachRefused(AttachRefused::UnknownSession);
    assert_eq!(cluster.frames_of(stream), [refused]);
    assert!(cluster.closed.contains(&stream));
}

#[test]
fn r15_a_session_that_never_was_is_told_after_a_quorum_round() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    client.session = SessionId(1_000_000);
    cluster.hold_barriers = true;
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    assert_eq!(cluster.frames_of(stream), []);
    cluster.answer_barriers();
    cluster.run();
    let refused = ServerFrame::AttachRefused(AttachRefused::UnknownSession);
    assert_eq!(cluster.frames_of(stream), [refused]);
}

#[test]
fn r15_a_wrong_secret_is_refused() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    client.secret = cluster.new_secret();
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    let refused = ServerFrame::AttachRefused(AttachRefused::WrongSecret);
    assert_eq!(cluster.frames_of(stream), [refused]);
}

#[test]
fn r16_a_silent_session_expires_and_takes_its_nodes_with_it() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster
        .call(&mut client, create_ephemeral("/e"))
        .expect("created");
    cluster.pass_ms(9_900);
    assert!(cluster.state(member(1)).node("/e").is_some());
    cluster.pass_ms(200);
    assert!(cluster.state(member(1)).node("/e").is_none());
    assert_eq!(
        cluster.frames(&client),
        [ServerFrame::SessionEnded { expired: true }]
    );
    assert_same_state(&cluster);
}

#[test]
fn r16_an_acknowledged_heartbeat_holds_the_session() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    for sequence in 1..=4 {
        cluster.pass_ms(6_000);
        cluster.heartbeat(&client, sequence);
        cluster.run();
        cluster.pass_ms(100);
    }
    assert_eq!(cluster.acknowledged(&client), [1, 2, 3, 4]);
    assert!(cluster.state(member(1)).session(client.session).is_some());
}

#[test]
fn r16_no_heartbeat_is_acknowledged_without_a_quorum() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    cluster.hold_barriers = true;
    cluster.heartbeat(&client, 1);
    cluster.run();
    cluster.pass_ms(200);
    assert_eq!(cluster.acknowledged(&client), Vec::<u64>::new());
    cluster.answer_barriers();
    cluster.run();
    assert_eq!(cluster.acknowledged(&client), [1]);
}

#[test]
fn r16_a_touch_that_came_in_time_holds_the_expiry() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.hold_barriers = true;
    cluster.pass_ms(9_950);
    cluster.heartbeat(&client, 1);
    cluster.run();
    cluster.pass_ms(1_000);
    assert!(cluster.state(member(1)).session(client.session).is_some());
    cluster.hold_barriers = false;
    cluster.answer_barriers();
    cluster.run();
    assert_eq!(cluster.acknowledged(&client), [1]);
}

#[test]
fn r16_touches_of_a_closing_session_are_not_acknowledged() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut client, Operation::CloseSession);
    cluster.run();
    cluster.heartbeat(&client, 1);
    cluster.pass_ms(100);
    assert_eq!(cluster.acknowledged(&client), Vec::<u64>::new());
}

#[test]
fn r16_a_new_leader_gives_every_session_its_whole_timeout() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.pass_ms(9_000);
    cluster.elect(member(3));
    cluster.run();
    cluster.pass_ms(9_000);
    assert!(cluster.state(member(1)).session(client.session).is_some());
    cluster.pass_ms(2_000);
    assert!(cluster.state(member(1)).session(client.session).is_none());
}

#[test]
fn r16_a_stall_of_the_leader_expires_nobody() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.now = cluster.now.plus_millis(60_000);
    cluster.run();
    cluster.pass_ms(1_000);
    assert!(cluster.state(member(1)).session(client.session).is_some());
}

/// The overlay with an expiry is lost: the session is there again, and expires later.
#[test]
fn r16_an_expiry_that_is_lost_is_decided_again() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    cluster.pass_ms(10_100);
    cluster.refuse_one();
    cluster.proposals = Proposals::Commit;
    cluster.run();
    assert!(cluster.state(member(1)).session(client.session).is_some());
    cluster.pass_ms(10_100);
    assert!(cluster.state(member(1)).session(client.session).is_none());
}

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
fn r20_a_read_is_served_behind_the_request_that_it_names() {
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

#[test]
fn r20_a_linearizable_read_waits_for_its_index_and_asks_again_when_it_is_lost() {
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
fn r20_a_linearizable_read_without_a_leader_is_refused() {
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

#[test]
fn r27_one_other_state_is_an_alarm_and_a_majority_takes_the_member_out() {
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
fn r31_a_bad_component_is_refused_and_its_upload_goes() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let bytes = b"bad component".to_vec();
    let digest = Digest::of(&bytes);
    let chunk = |offset: u32, data: &[u8]| Operation::UploadChunk {
        digest,
        size: 13,
        offset,
        data: data.to_vec(),
    };
    assert_eq!(
        cluster.call(&mut client, chunk(0, b"bad ")),
        Ok(Outcome::ChunkTaken)
    );
    let gap = cluster.call(&mut client, chunk(5, b"omponent"));
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
        cluster.call(&mut client, chunk(4, b"component")),
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
fn r31_an_unfinished_upload_goes_with_its_session() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let digest = Digest([3; 32]);
    let chunk = Operation::UploadChunk {
        digest,
        size: 9,
        offset: 0,
        data: vec![1; 4],
    };
    cluster.call(&mut client, chunk).expect("taken");
    cluster.send(&mut client, Operation::CloseSession);
    cluster.run();
    assert!(cluster.state(member(1)).upload(digest).is_none());
    assert_eq!(cluster.state(member(1)).counters().component_bytes, 0);
}

#[test]
fn r31_mounts_neither_nest_nor_take_what_is_not_installed() {
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
fn r32_what_a_session_owns_is_capped_when_it_is_made() {
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
fn r32_the_largest_session_ends_in_one_entry() {
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
