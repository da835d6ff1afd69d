//! Rules R1–R5, R9: what is logged, in which order, on which state, at which time.

use folkmoot_proto::batch::Batch;
use folkmoot_proto::client::{NotAdmitted, Operation, ServerFrame};
use folkmoot_proto::entry::EntryKind;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{LogTime, RequestId};

use super::clients::{Client, create, replies};
use super::cluster::{Cluster, Proposals, assert_same_state, member};
use crate::execution::ExecutionAction;
use crate::state::View;

fn created() -> Result<Outcome, Refusal> {
    Ok(Outcome::Created { sequence: None })
}

fn exists(path: &str) -> Result<Outcome, Refusal> {
    Err(Refusal::NodeExists {
        path: path.to_owned(),
    })
}

/// The transactions of the last entry.
fn last_txns(cluster: &Cluster) -> Vec<folkmoot_proto::batch::Txn> {
    let entry = cluster.log.last().expect("an entry");
    assert_eq!(entry.kind, EntryKind::Batch);
    Batch::decode(&entry.payload).expect("a batch").txns
}

#[test]
fn a_session_writes_at_any_member_and_all_have_it() {
    let mut cluster = Cluster::new(3);
    for id in 1..=3 {
        let mut client = cluster.open(member(id));
        let path = format!("/a{id}");
        assert_eq!(cluster.call(&mut client, create(&path)), created());
        assert_eq!(cluster.call(&mut client, create(&path)), exists(&path));
        assert_same_state(&cluster);
    }
}

#[test]
pub(super) fn r1_a_refusal_is_logged_with_its_reply_and_takes_its_place() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.call(&mut client, create("/a")).expect("created");
    assert_eq!(cluster.call(&mut client, create("/a")), exists("/a"));
    let txns = last_txns(&cluster);
    let origin = txns[0].origin.as_ref().expect("a request's");
    assert_eq!(
        (origin.request, &origin.reply),
        (RequestId(2), &exists("/a"))
    );
    assert!(txns[0].effects.is_empty());
}

/// The scenario of rule R1: what a refusal rested on is lost with its leader, and so is the refusal.
#[test]
pub(super) fn r1_no_refusal_is_told_that_rests_on_what_is_lost() {
    let mut cluster = Cluster::new(3);
    let mut other = cluster.open(member(2));
    let mut client = cluster.open(member(1));
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut other, create("/a"));
    cluster.run();
    cluster.send(&mut client, create("/a"));
    cluster.run();
    assert_eq!(cluster.frames(&client), []);
    cluster.proposals = Proposals::Commit;
    cluster.elect(member(3));
    cluster.run();
    let next = RequestId(1);
    assert_eq!(cluster.frames(&client), [ServerFrame::Rewind { next }]);
    cluster.send_as(&client, next, create("/a"));
    cluster.run();
    assert_eq!(replies(&cluster.frames(&client)), [(1, created())]);
}

#[test]
pub(super) fn r2_only_the_next_request_is_executed_and_a_gap_is_told_once() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    for id in 2..5 {
        let now = cluster.now;
        let request = folkmoot_proto::client::Request {
            id: RequestId(id),
            acked_up_to: RequestId::ZERO,
            guards: Vec::new(),
            operation: create(&format!("/n{id}")),
        };
        let execution = &mut cluster.member(member(1)).execution;
        execution.lead_request(member(2), client.session, client.epoch, request);
        let _ = now;
    }
    cluster.run();
    assert!(cluster.state(member(1)).node("/n2").is_none());
    assert!(cluster.state(member(1)).node("/n4").is_none());
}

#[test]
pub(super) fn r2_what_is_behind_an_unadmitted_request_is_not_admitted_either() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.depose();
    cluster.send(&mut client, create("/a"));
    cluster.send(&mut client, create("/b"));
    cluster.run();
    let id = RequestId(1);
    let reason = NotAdmitted::NoLeader;
    assert_eq!(
        cluster.frames(&client),
        [ServerFrame::NotAdmitted { id, reason }]
    );
    // The second one arrives late, once there is a leader.
    cluster.elect(member(1));
    cluster.run();
    let next = id;
    assert_eq!(cluster.frames(&client), [ServerFrame::Rewind { next }]);
    cluster.send_as(&client, RequestId(2), create("/b"));
    cluster.run();
    assert_eq!(cluster.frames(&client), []);
    cluster.send_as(&client, RequestId(1), create("/a"));
    cluster.send_as(&client, RequestId(2), create("/b"));
    cluster.run();
    let both = [(1, created()), (2, created())];
    assert_eq!(replies(&cluster.frames(&client)), both);
}

/// A leader's word that was long on its way names what is answered by now.
#[test]
pub(super) fn r2_a_late_rewind_does_not_go_behind_what_is_answered() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.call(&mut client, create("/a")).expect("created");
    let now = cluster.now();
    let (session, epoch) = (client.session, client.epoch);
    let execution = &mut cluster.member(member(2)).execution;
    execution.rewound(now, session, epoch, RequestId(1));
    execution.not_admitted(session, epoch, RequestId(1), NotAdmitted::Overloaded);
    cluster.run();
    assert_eq!(cluster.frames(&client), []);
    cluster.call(&mut client, create("/b")).expect("created");
}

#[test]
pub(super) fn r2_work_lost_with_a_stream_is_asked_for_again() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.member(member(2)).cut_off = true;
    cluster.send(&mut client, create("/a"));
    cluster.run();
    cluster.member(member(2)).cut_off = false;
    cluster.lose_stream(member(1), member(2));
    let next = RequestId(1);
    assert_eq!(cluster.frames(&client), [ServerFrame::Rewind { next }]);
    cluster.send_as(&client, next, create("/a"));
    cluster.run();
    assert_eq!(replies(&cluster.frames(&client)), [(1, created())]);
}

#[test]
pub(super) fn r2_work_that_nobody_knows_to_be_lost_is_asked_for_again_after_a_while() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.member(member(2)).cut_off = true;
    cluster.send(&mut client, create("/a"));
    cluster.run();
    cluster.member(member(2)).cut_off = false;
    cluster.pass_ms(5000);
    let next = RequestId(1);
    assert_eq!(cluster.frames(&client), [ServerFrame::Rewind { next }]);
}

/// Two batches are in flight and a third fills; the first is refused, and with it all three.
#[test]
pub(super) fn r3_a_refused_batch_takes_all_that_was_executed_on_it() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    cluster.proposals = Proposals::Hold;
    for path in ["/a", "/b", "/c"] {
        cluster.send(&mut client, create(path));
        cluster.run();
    }
    assert_eq!(cluster.proposed.len(), 2);
    cluster.proposals = Proposals::Commit;
    cluster.refuse_one();
    cluster.commit_one();
    let next = RequestId(1);
    assert_eq!(cluster.frames(&client), [ServerFrame::Rewind { next }]);
    assert!(cluster.state(member(1)).node("/b").is_none());
    for (id, path) in [(1, "/a"), (2, "/b"), (3, "/c")] {
        cluster.send_as(&client, RequestId(id), create(path));
    }
    cluster.run();
    let all = [(1, created()), (2, created()), (3, created())];
    assert_eq!(replies(&cluster.frames(&client)), all);
    assert_same_state(&cluster);
}

/// What is proposed anew must not be thrown away for the refusal of a batch that is older.
#[test]
pub(super) fn r3_nothing_is_executed_before_every_older_batch_is_answered() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    let mut other = cluster.open(member(1));
    cluster.proposals = Proposals::Hold;
    for path in ["/a", "/b"] {
        cluster.send(&mut client, create(path));
        cluster.run();
    }
    assert_eq!(cluster.proposed.len(), 2);
    cluster.refuse_one();
    cluster.send(&mut other, create("/c"));
    cluster.run();
    assert_eq!(cluster.proposed.len(), 1, "the older one alone");
    cluster.commit_one();
    assert_eq!(cluster.proposed.len(), 1, "the one of the other client");
    cluster.commit_one();
    assert_eq!(replies(&cluster.frames(&other)), [(1, created())]);
    assert!(cluster.state(member(1)).node("/b").is_none());
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r3_nothing_is_executed_before_what_was_appended_is_applied() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut client, create("/a"));
    cluster.run();
    cluster.send(&mut client, create("/b"));
    cluster.run();
    // The first is appended and not applied here when the second is refused.
    cluster.member(member(1)).lags = true;
    cluster.commit_one();
    cluster.refuse_one();
    cluster.proposals = Proposals::Commit;
    assert_eq!(cluster.frames(&client), []);
    let status = cluster.member(member(1)).execution.status();
    assert_eq!(status.overlay_txns, 0);
    cluster.member(member(1)).lags = false;
    cluster.run();
    let frames = cluster.frames(&client);
    assert_eq!(replies(&frames), [(1, created())]);
    let next = RequestId(2);
    assert_eq!(frames.last(), Some(&ServerFrame::Rewind { next }));
}

#[test]
pub(super) fn r4_a_new_leader_executes_nothing_before_its_own_first_entry() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.call(&mut client, create("/a")).expect("created");
    // Member 3 has not applied "/a" when it is elected.
    cluster.member(member(3)).lags = true;
    cluster.call(&mut client, create("/b")).expect("created");
    cluster.elect(member(3));
    cluster.send(&mut client, create("/b"));
    cluster.run();
    assert_eq!(cluster.member(member(3)).execution.status().overlay_txns, 0);
    cluster.member(member(3)).lags = false;
    cluster.run();
    assert_eq!(replies(&cluster.frames(&client)), [(3, exists("/b"))]);
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r5_what_is_proposed_decodes_to_what_was_applied() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    cluster.call(&mut client, create("/a")).expect("created");
    let is_stop = |other: &(_, ExecutionAction)| matches!(other.1, ExecutionAction::Stop { .. });
    assert!(!cluster.others.iter().any(is_stop), "{:?}", cluster.others);
    assert_same_state(&cluster);
}

#[test]
pub(super) fn r6_an_entry_that_does_not_apply_stops_the_member() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.call(&mut client, create("/a")).expect("created");
    let mut entry = cluster.log.last().expect("an entry").clone();
    entry.index = entry.index.next();
    cluster.log.push(entry);
    cluster.run();
    assert!(matches!(
        cluster.others.as_slice(),
        [(_, ExecutionAction::Stop { .. })]
    ));
    assert_eq!(cluster.member(member(1)).execution.poll_timeout(), None);
}

#[test]
pub(super) fn r9_the_log_clock_goes_on_where_the_last_leader_left_it() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.pass_ms(3000);
    cluster.call(&mut client, create("/a")).expect("created");
    let before = cluster.state(member(1)).log_time();
    assert!(before >= LogTime(3000), "{before}");
    // A long time without a leader does not count, nor does the new leader's uptime.
    cluster.depose();
    cluster.pass_ms(60_000);
    cluster.elect(member(3));
    cluster.run();
    cluster
        .call_anew(&mut client, create("/b"))
        .expect("created");
    let after = cluster.state(member(1)).log_time();
    assert!(
        after >= before && after.0 < before.0 + 100,
        "{before} {after}"
    );
}

#[test]
fn a_batch_is_cut_while_fewer_than_two_are_in_flight() {
    let mut cluster = Cluster::new(3);
    let mut clients: Vec<Client> = (0..4).map(|_| cluster.open(member(1))).collect();
    cluster.proposals = Proposals::Hold;
    for (number, client) in clients.iter_mut().enumerate() {
        cluster.send(client, create(&format!("/{number}")));
        cluster.run();
    }
    assert_eq!(cluster.proposed.len(), 2);
    cluster.commit_one();
    // What waited went into one batch.
    let waited = cluster.proposed.back().expect("a batch");
    let batch = Batch::decode(&waited.payload).expect("a batch");
    assert_eq!(batch.txns.len(), 2);
}

#[test]
fn execution_stops_at_a_full_batch_and_goes_on_after_a_commit() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.proposals = Proposals::Hold;
    for number in 0..6 {
        let set = Operation::Create {
            path: format!("/{number}"),
            data: vec![7; 200 * 1024],
            kind: folkmoot_proto::client::NodeKind::PERSISTENT,
        };
        cluster.send(&mut client, set);
        cluster.run();
    }
    let executed = cluster.member(member(1)).execution.status().overlay_txns;
    assert_eq!((cluster.proposed.len(), executed), (2, 4));
    cluster.commit_one();
    let executed = cluster.member(member(1)).execution.status().overlay_txns;
    assert_eq!(executed, 4);
}
