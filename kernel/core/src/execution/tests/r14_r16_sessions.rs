//! Rules R7, R14–R16: warm instances, attachments, touches and expiry.

use folkmoot_proto::client::{AttachRefused, Operation, ServerFrame};
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{RequestId, SessionId};

use super::clients::{Client, create, create_ephemeral, invoke, replies};
use super::cluster::{Cluster, Proposals, assert_same_state, member};
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
pub(super) fn r7_a_mount_that_faults_again_and_again_is_throttled() {
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
pub(super) fn r14_an_instance_forgets_an_overlay_that_was_thrown_away() {
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
pub(super) fn r14_an_instance_forgets_a_call_that_was_rolled_back() {
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
pub(super) fn r15_requests_of_an_older_attachment_are_refused() {
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
pub(super) fn r15_a_member_serves_only_what_it_has_applied() {
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
    cluster.watches_resumed(&moved);
    assert_eq!(moved.next, RequestId(3));
    // Both answers are given again, in order, when they are asked for.
    for (id, path) in [(1, "/a"), (2, "/b")] {
        cluster.send_as(&moved, RequestId(id), create(path));
    }
    cluster.run();
    let told = replies(&cluster.frames(&moved));
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
}

/// The leader has executed a session's end that is not committed: nobody is told of it yet.
#[test]
pub(super) fn r15_only_a_committed_entry_says_that_a_session_is_over() {
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
pub(super) fn r15_a_session_that_is_over_is_told_by_any_member_that_knows() {
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
pub(super) fn r15_a_session_that_never_was_is_told_after_a_quorum_round() {
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
pub(super) fn r15_a_wrong_secret_is_refused() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    client.secret = cluster.new_secret();
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    let refused = ServerFrame::AttachRefused(AttachRefused::WrongSecret);
    assert_eq!(cluster.frames_of(stream), [refused]);
}

#[test]
pub(super) fn r16_a_silent_session_expires_and_takes_its_nodes_with_it() {
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
pub(super) fn r16_an_acknowledged_heartbeat_holds_the_session() {
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
pub(super) fn r16_no_heartbeat_is_acknowledged_without_a_quorum() {
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
pub(super) fn r16_a_touch_that_came_in_time_holds_the_expiry() {
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
pub(super) fn r16_touches_of_a_closing_session_are_not_acknowledged() {
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
pub(super) fn r16_a_new_leader_gives_every_session_its_whole_timeout() {
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
pub(super) fn r16_a_stall_of_the_leader_expires_nobody() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.now = cluster.now.plus_millis(60_000);
    cluster.run();
    cluster.pass_ms(1_000);
    assert!(cluster.state(member(1)).session(client.session).is_some());
}

/// The overlay with an expiry is lost: the session is there again, and expires later.
#[test]
pub(super) fn r16_an_expiry_that_is_lost_is_decided_again() {
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
