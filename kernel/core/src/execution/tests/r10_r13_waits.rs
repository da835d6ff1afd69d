//! Rules R10–R13: exactly once, waits, what plugins hear, guards.

use folkmoot_proto::client::{ClientFrame, Guard, NodeKind, Operation, Request, ServerFrame};
use folkmoot_proto::effect::{MountEvent, WaitEndCause};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{RequestId, Ticket, Zxid};

use super::clients::{Client, create, create_ephemeral, invoke, replies};
use super::cluster::{Cluster, Proposals, assert_same_state, member};
use crate::state::View;

fn locked(cluster: &mut Cluster, client: &mut Client) -> Zxid {
    token(&cluster.call(client, invoke("/lock", "acquire")))
}

fn token(reply: &Reply) -> Zxid {
    match reply {
        Ok(Outcome::Invoked(token)) => Zxid(u64::from_be_bytes(
            token.as_slice().try_into().expect("a token"),
        )),
        other => panic!("not granted: {other:?}"),
    }
}

fn waits(cluster: &mut Cluster, client: &mut Client) -> Ticket {
    match cluster.call(client, invoke("/lock", "acquire")) {
        Ok(Outcome::Waiting(ticket)) => ticket,
        other => panic!("does not wait: {other:?}"),
    }
}

/// A completion among frames.
fn completion(frames: &[ServerFrame]) -> Option<(Ticket, Reply)> {
    frames.iter().find_map(|frame| match frame {
        ServerFrame::Completion { ticket, reply, .. } => Some((*ticket, reply.clone())),
        _ => None,
    })
}

fn lock_cluster() -> (Cluster, Client, Client) {
    let mut cluster = Cluster::new(3);
    let mut first = cluster.open(member(2));
    let second = cluster.open(member(3));
    cluster.install_and_mount(&mut first, "lock", "/lock");
    (cluster, first, second)
}

#[test]
pub(super) fn r10_a_retry_gets_the_first_outcome_and_no_second_effect() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let sequential = Operation::Create {
        path: "/n".to_owned(),
        data: Vec::new(),
        kind: NodeKind {
            ephemeral: false,
            sequential: true,
        },
    };
    let first = cluster.call(&mut client, sequential.clone());
    // The reply is lost with the connection; the client resumes elsewhere and asks again.
    let moved = cluster.resume(&client, member(3));
    cluster.send_as(&moved, RequestId(1), sequential);
    cluster.run();
    assert_eq!(replies(&cluster.frames(&moved)), [(1, first)]);
    assert_eq!(cluster.state(member(1)).children("/", None, 10).len(), 2);
}

#[test]
pub(super) fn r10_a_retry_of_what_is_under_way_is_answered_once_it_is_applied() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut client, create("/a"));
    cluster.run();
    let stream = cluster.ask_resume(&client, member(3));
    cluster.run();
    cluster.proposals = Proposals::Commit;
    cluster.commit_one();
    if !cluster.proposed.is_empty() {
        cluster.commit_one();
    }
    let moved = cluster.attached(member(3), stream, client.secret);
    cluster.watches_resumed(&moved);
    cluster.send_as(&moved, RequestId(1), create("/a"));
    cluster.run();
    let created = Ok(Outcome::Created { sequence: None });
    assert_eq!(replies(&cluster.frames(&moved)), [(1, created)]);
}

/// The reply is lost with the stream to the leader, which has executed the request.
#[test]
pub(super) fn r10_a_retry_of_what_is_in_the_overlay_has_no_second_effect() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.proposals = Proposals::Hold;
    let id = cluster.send(&mut client, create("/a"));
    cluster.run();
    cluster.lose_stream(member(1), member(2));
    let frames = cluster.frames(&client);
    assert_eq!(frames, [ServerFrame::Rewind { next: id }]);
    cluster.send_as(&client, id, create("/a"));
    cluster.run();
    cluster.proposals = Proposals::Commit;
    cluster.commit_one();
    let created = Ok(Outcome::Created { sequence: None });
    assert_eq!(replies(&cluster.frames(&client)), [(1, created)]);
    assert_eq!(cluster.log.len(), 4, "{:?}", cluster.log);
}

#[test]
pub(super) fn r10_opening_again_with_the_same_secret_gives_the_same_session() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    let stream = cluster.new_stream();
    let open = ClientFrame::Open {
        secret: client.secret,
        timeout_ms: 10_000,
    };
    cluster.frame(member(3), stream, open);
    cluster.run();
    let again = cluster.attached(member(3), stream, client.secret);
    assert_eq!(again.session, client.session);
    assert_eq!(cluster.state(member(1)).counters().sessions, 1);
}

#[test]
pub(super) fn r10_a_session_at_its_cap_of_replies_takes_no_more_until_it_acknowledges() {
    let limits = Limits {
        session_replies_max: 3,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    for path in ["/a", "/b", "/c"] {
        assert!(cluster.call(&mut client, create(path)).is_ok());
    }
    cluster.send_as(&client, RequestId(4), create("/d"));
    cluster.run();
    let frames = cluster.frames(&client);
    assert!(
        matches!(frames.as_slice(), [ServerFrame::NotAdmitted { .. }]),
        "{frames:?}"
    );
    client.acked = RequestId(1);
    cluster.send_as(&client, RequestId(4), create("/d"));
    cluster.run();
    let created = Ok(Outcome::Created { sequence: None });
    assert_eq!(replies(&cluster.frames(&client)), [(4, created)]);
    // None that is not acknowledged was dropped.
    assert!(
        cluster
            .state(member(1))
            .reply(client.session, RequestId(1))
            .is_none()
    );
    assert!(
        cluster
            .state(member(1))
            .reply(client.session, RequestId(2))
            .is_some()
    );
}

#[test]
pub(super) fn r10_completions_are_kept_until_acknowledged() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    locked(&mut cluster, &mut first);
    let ticket = waits(&mut cluster, &mut second);
    cluster
        .call(&mut first, invoke("/lock", "release"))
        .expect("released");
    let told = completion(&cluster.frames(&second));
    assert_eq!(told.as_ref().map(|(of, _)| *of), Some(ticket));
    // Again after moving, as it is not acknowledged.
    let mut moved = cluster.resume(&second, member(1));
    assert_eq!(completion(&cluster.frames(&moved)), told);
    let tickets = vec![ticket, ticket, Ticket(1)];
    let acknowledge = Operation::AcknowledgeCompletions { tickets };
    assert_eq!(
        cluster.call(&mut moved, acknowledge),
        Ok(Outcome::Acknowledged)
    );
    let again = cluster.resume(&moved, member(3));
    assert_eq!(completion(&cluster.frames(&again)), None);
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r11_a_contended_acquire_is_granted_in_the_transaction_that_releases() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    let first_token = locked(&mut cluster, &mut first);
    let ticket = waits(&mut cluster, &mut second);
    cluster
        .call(&mut first, invoke("/lock", "release"))
        .expect("released");
    let (of, reply) = completion(&cluster.frames(&second)).expect("a grant");
    assert_eq!(of, ticket);
    let holder = cluster
        .state(member(1))
        .node("/lock/holder")
        .expect("a holder")
        .stat;
    assert_eq!(holder.czxid, token(&reply));
    assert_eq!(holder.ephemeral_owner, Some(second.session));
    assert!(holder.czxid > first_token);
}

#[test]
pub(super) fn r11_a_wait_survives_a_change_of_leader() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    locked(&mut cluster, &mut first);
    waits(&mut cluster, &mut second);
    cluster.elect(member(3));
    cluster.run();
    cluster
        .call_anew(&mut first, invoke("/lock", "release"))
        .expect("released");
    assert!(completion(&cluster.frames(&second)).is_some());
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r11_a_deadline_ends_a_wait_and_the_next_one_gets_the_grant() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    let mut third = cluster.open(member(1));
    locked(&mut cluster, &mut first);
    let due = cluster.state(member(1)).log_time().plus_millis(700);
    let waiting = cluster.call(&mut second, invoke("/lock", &format!("acquire-by:{due}")));
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    waits(&mut cluster, &mut third);
    cluster.pass_ms(1000);
    let (_, reply) = completion(&cluster.frames(&second)).expect("an end");
    assert_eq!(reply, Err(Refusal::DeadlinePassed));
    // Its place in the queue is still there: completing it gives `gone`, and the next is granted.
    cluster
        .call(&mut first, invoke("/lock", "release"))
        .expect("released");
    let (_, reply) = completion(&cluster.frames(&third)).expect("a grant");
    token(&reply);
    assert_eq!(completion(&cluster.frames(&second)), None);
}

#[test]
pub(super) fn r11_a_wait_is_cancelled_once() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    locked(&mut cluster, &mut first);
    waits(&mut cluster, &mut second);
    let cancel = Operation::CancelWait {
        request: RequestId(1),
    };
    cluster.send(&mut second, cancel.clone());
    cluster.run();
    let frames = cluster.frames(&second);
    assert_eq!(replies(&frames), [(2, Ok(Outcome::Cancelled))]);
    let (_, reply) = completion(&frames).expect("an end");
    assert_eq!(reply, Err(Refusal::WaitCancelled));
    assert_eq!(
        cluster.call(&mut second, cancel),
        Ok(Outcome::NothingToCancel)
    );
}

#[test]
pub(super) fn r11_unmounting_ends_the_waits() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    locked(&mut cluster, &mut first);
    waits(&mut cluster, &mut second);
    let path = "/lock".to_owned();
    let unmounted = cluster.call(&mut first, Operation::Unmount { path });
    assert_eq!(unmounted, Ok(Outcome::Unmounted));
    let (_, reply) = completion(&cluster.frames(&second)).expect("an end");
    assert_eq!(reply, Err(Refusal::MountRemoved));
    assert!(cluster.state(member(1)).node("/lock").is_some());
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r11_waits_and_unacknowledged_outcomes_have_one_cap() {
    let limits = Limits {
        session_waits_max: 2,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    // The installation's outcome is one of the two.
    let waiting = cluster.call(&mut client, invoke("/h", "wait"));
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    let refused = cluster.call(&mut client, invoke("/h", "wait"));
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
}

#[test]
pub(super) fn r12_a_closing_session_frees_what_it_held_whether_the_plugin_works_or_not() {
    let mut cluster = Cluster::new(3);
    let mut owner = cluster.open(member(2));
    let mut admin = cluster.open(member(1));
    cluster.install_and_mount(&mut admin, "hostile", "/h");
    cluster
        .call(&mut owner, invoke("/h", "follow"))
        .expect("followed");
    cluster.member(member(1)).plugins.faults_left = 2;
    cluster.send(&mut owner, Operation::CloseSession);
    cluster.run();
    let frames = cluster.frames(&owner);
    assert_eq!(replies(&frames), [(2, Ok(Outcome::SessionClosed))]);
    assert_eq!(
        frames.last(),
        Some(&ServerFrame::SessionEnded { expired: false })
    );
    assert!(cluster.state(member(3)).node("/h/owned").is_none());
    // The handler has faulted and is asked again until it works, with nothing left of the faults.
    assert_eq!(cluster.member(member(1)).plugins.heard, []);
    cluster.pass_ms(1000);
    let heard = cluster.member(member(1)).plugins.heard.clone();
    let closed = MountEvent::SessionClosed {
        session: owner.session,
        removed: vec!["owned".to_owned()],
    };
    assert_eq!(heard, [closed]);
    let children = cluster.state(member(2)).children("/h", None, 10);
    assert_eq!(children.len(), 1, "{children:?}");
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r12_events_outlive_their_leader_and_a_loading_component() {
    let mut cluster = Cluster::new(3);
    let mut owner = cluster.open(member(2));
    let mut admin = cluster.open(member(1));
    cluster.install_and_mount(&mut admin, "hostile", "/h");
    cluster
        .call(&mut owner, invoke("/h", "follow"))
        .expect("followed");
    cluster.member(member(1)).plugins.loading = true;
    cluster.send(&mut owner, Operation::CloseSession);
    cluster.run();
    let refused = cluster.call(&mut admin, invoke("/h", "wait"));
    let mount = "/h".to_owned();
    assert_eq!(refused, Err(Refusal::PluginLoading { mount }));
    cluster.elect(member(3));
    cluster.run();
    assert_eq!(cluster.member(member(3)).plugins.heard.len(), 1);
}

#[test]
pub(super) fn r12_a_mount_hears_of_ended_waits_and_timers() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    let before = cluster.state(member(1)).log_time();
    cluster
        .call(&mut client, invoke("/h", "timer"))
        .expect("set");
    let request = client.next;
    cluster
        .call(&mut client, invoke("/h", "wait"))
        .expect("waits");
    cluster.send(&mut client, Operation::CancelWait { request });
    cluster.pass_ms(600);
    let heard = cluster.member(member(1)).plugins.heard.clone();
    let [
        MountEvent::WaitEnded { cause, .. },
        MountEvent::Timer { name, due, .. },
    ] = heard.as_slice()
    else {
        panic!("{heard:?}");
    };
    assert_eq!((*cause, name.as_str()), (WaitEndCause::Cancelled, "t"));
    assert!(due.0 >= before.0 + 500);
}

#[test]
pub(super) fn r12_a_queue_at_its_cap_becomes_one_resync() {
    let limits = Limits {
        mount_events_max: 2,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    cluster.install_and_mount(&mut client, "hostile", "/h");
    let mut requests = Vec::new();
    for _ in 0..4 {
        requests.push(client.next);
        cluster
            .call(&mut client, invoke("/h", "wait"))
            .expect("waits");
    }
    cluster.member(member(1)).plugins.loading = true;
    for request in requests {
        cluster.send(&mut client, Operation::CancelWait { request });
    }
    cluster.run();
    cluster.member(member(1)).plugins.loading = false;
    cluster.run();
    let heard = cluster.member(member(1)).plugins.heard.clone();
    assert_eq!(heard.first(), Some(&MountEvent::Resync), "{heard:?}");
    assert_eq!(heard.len(), 2);
}

#[test]
pub(super) fn r13_a_guard_holds_only_for_the_grant_it_names() {
    let (mut cluster, mut first, mut second) = lock_cluster();
    let stale = locked(&mut cluster, &mut first);
    waits(&mut cluster, &mut second);
    cluster
        .call(&mut first, invoke("/lock", "release"))
        .expect("released");
    let (_, reply) = completion(&cluster.frames(&second)).expect("a grant");
    let current = token(&reply);
    for (token, operation, holds) in [(stale, "/x", false), (current, "/y", true)] {
        let request = Request {
            id: first.next,
            acked_up_to: RequestId::ZERO,
            guards: vec![Guard {
                path: "/lock/holder".to_owned(),
                token,
            }],
            operation: create(operation),
        };
        first.next = first.next.next();
        let stream = first.stream;
        cluster.frame(member(2), stream, ClientFrame::Request(request));
        cluster.run();
        let frames = cluster.frames(&first);
        let (_, reply) = replies(&frames).pop().expect("a reply");
        assert_eq!(reply.is_ok(), holds, "{reply:?}");
    }
}

#[test]
pub(super) fn r13_guards_of_a_multi_see_the_state_before_it() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster
        .call(&mut client, create_ephemeral("/grant"))
        .expect("created");
    let token = cluster
        .state(member(1))
        .node("/grant")
        .expect("a node")
        .stat
        .czxid;
    let delete_and_create = Operation::Multi {
        operations: vec![
            folkmoot_proto::client::SubOperation::Delete {
                path: "/grant".to_owned(),
                expected: None,
            },
            folkmoot_proto::client::SubOperation::Create {
                path: "/grant".to_owned(),
                data: Vec::new(),
                kind: NodeKind::EPHEMERAL,
            },
        ],
    };
    for (id, holds) in [(2, true), (3, false)] {
        let request = Request {
            id: RequestId(id),
            acked_up_to: RequestId::ZERO,
            guards: vec![Guard {
                path: "/grant".to_owned(),
                token,
            }],
            operation: delete_and_create.clone(),
        };
        let stream = client.stream;
        cluster.frame(member(1), stream, ClientFrame::Request(request));
        cluster.run();
        let (_, reply) = replies(&cluster.frames(&client)).pop().expect("a reply");
        assert_eq!(reply.is_ok(), holds, "{reply:?}");
    }
}
