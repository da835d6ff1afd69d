//! Rule R6: an effect is absolute, and refused where its precondition does not hold. Rule R3: a
//! batch is applied on the state that it was executed on, and on no other.

use folkmoot_core::state::{ApplyError, NodeProblem, Stamp, View};
use folkmoot_proto::batch::{Completion, Origin, Txn};
use folkmoot_proto::effect::{Effect, MountEvent};
use folkmoot_proto::entry::EntryKind;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{
    ConnEpoch, Digest, LogIndex, LogTime, MemberId, MountId, RequestId, SecretHash, SessionId,
    Term, Ticket, Zxid,
};

use crate::leader::{Leader, new_state};

fn create(path: &str, owner: Option<SessionId>, parent_cversion: u64) -> Effect {
    Effect::CreateNode {
        path: path.into(),
        data: b"x".to_vec(),
        owner,
        parent_cversion,
        parent_sequence: None,
    }
}

fn set(path: &str, version: u64) -> Effect {
    Effect::SetNode {
        path: path.into(),
        data: b"y".to_vec(),
        version,
    }
}

fn delete(path: &str, parent_cversion: u64) -> Effect {
    Effect::DeleteNode {
        path: path.into(),
        parent_cversion,
    }
}

fn of(effects: Vec<Effect>) -> Txn {
    Txn {
        effects,
        ..Txn::default()
    }
}

/// Session 1, with an ephemeral `/e` and a wait with ticket 4; `/a` and `/a/b`.
fn leader() -> Leader {
    let mut leader = Leader::new();
    let root = leader.state.node("/").map_or(0, |root| root.stat.cversion);
    let open = Effect::OpenSession {
        secret: SecretHash([1; 32]),
        timeout_ms: 5_000,
        member: MemberId(1),
    };
    let begin_wait = Txn {
        origin: Some(origin(1, 0)),
        effects: vec![Effect::BeginWait {
            session: SessionId(1),
            request: RequestId(1),
            mount: MountId::ZERO,
            deadline: None,
            memo: vec![],
        }],
        completions: vec![],
    };
    for txn in [
        of(vec![open]),
        of(vec![create("/a", None, root + 1), create("/a/b", None, 1)]),
        of(vec![create("/e", Some(SessionId(1)), root + 2)]),
        begin_wait,
    ] {
        leader.execute_txn(txn);
    }
    leader
}

fn origin(request: u64, acked_up_to: u64) -> Origin {
    Origin {
        session: SessionId(1),
        request: RequestId(request),
        acked_up_to: RequestId(acked_up_to),
        reply: Ok(Outcome::Synced),
    }
}

fn node(path: &str, problem: NodeProblem) -> ApplyError {
    ApplyError::Node {
        path: path.into(),
        problem,
    }
}

/// Each wrong transaction, and why.
fn wrong(root: u64) -> Vec<(Txn, ApplyError)> {
    let session = SessionId(1);
    let nobody = SessionId(99);
    let mount = MountId(77);
    let digest = Digest([9; 32]);
    let version = |expected, got| NodeProblem::BadVersion { expected, got };
    let counter = |expected, got| NodeProblem::BadCounter { expected, got };
    let no_mount = ApplyError::BadMount {
        mount,
        problem: "no such mount",
    };
    let effects = vec![
        (
            create("/a", None, root + 1),
            node("/a", NodeProblem::Exists),
        ),
        (create("/", None, 1), node("/", NodeProblem::Exists)),
        (create("/x/y", None, 1), node("/x/y", NodeProblem::NoParent)),
        (
            create("/e/y", None, 1),
            node("/e/y", NodeProblem::EphemeralParent),
        ),
        (create("/x/", None, 1), node("/x/", NodeProblem::BadPath)),
        (
            create("/folkmoot/x", None, 5),
            node("/folkmoot/x", NodeProblem::Reserved),
        ),
        (
            create("/x", None, root),
            node("/x", counter(root + 1, root)),
        ),
        (
            create("/x", Some(nobody), root + 1),
            ApplyError::NoSession { session: nobody },
        ),
        (set("/x", 1), node("/x", NodeProblem::Missing)),
        (set("/a", 2), node("/a", version(1, 2))),
        (set("/a", 0), node("/a", version(1, 0))),
        (delete("/x", root + 1), node("/x", NodeProblem::Missing)),
        (delete("/a", root + 1), node("/a", NodeProblem::NotEmpty)),
        (delete("/a/b", 5), node("/a/b", counter(2, 5))),
        (
            Effect::OpenSession {
                secret: SecretHash([1; 32]),
                timeout_ms: 5_000,
                member: MemberId(1),
            },
            ApplyError::SecretInUse { session },
        ),
        (
            Effect::AttachSession {
                session,
                epoch: ConnEpoch(3),
                member: MemberId(1),
            },
            ApplyError::BadEpoch {
                session,
                expected: ConnEpoch(2),
                got: ConnEpoch(3),
            },
        ),
        (
            Effect::CloseSession {
                session,
                expired: true,
            },
            ApplyError::SessionOwns {
                session,
                ephemerals: 1,
                waits: 1,
            },
        ),
        (
            Effect::DropCompletions {
                session,
                tickets: vec![Ticket(4)],
            },
            ApplyError::BadCompletion {
                session,
                ticket: Ticket(4),
            },
        ),
        (
            Effect::EndWait { ticket: Ticket(3) },
            ApplyError::BadWait {
                ticket: Ticket(3),
                problem: "it is over, or never was",
            },
        ),
        (Effect::FollowSession { mount, session }, no_mount.clone()),
        (
            Effect::QueueEvent {
                mount,
                event: MountEvent::Resync,
            },
            no_mount.clone(),
        ),
        (
            Effect::SetTimer {
                mount,
                name: "t".into(),
                due: LogTime(1),
                payload: vec![],
            },
            no_mount.clone(),
        ),
        (Effect::RemoveMount { mount }, no_mount),
        (
            Effect::DropUpload { digest },
            ApplyError::BadComponent {
                digest,
                problem: "no upload",
            },
        ),
        (
            Effect::RemoveComponent { digest },
            ApplyError::BadComponent {
                digest,
                problem: "it is not installed",
            },
        ),
    ];
    let effects = effects.into_iter();
    let mut wrong: Vec<_> = effects.map(|(it, why)| (of(vec![it]), why)).collect();
    wrong.extend(wrong_beside_effects());
    wrong
}

fn wrong_beside_effects() -> Vec<(Txn, ApplyError)> {
    let session = SessionId(1);
    let answered = |origin| Txn {
        origin: Some(origin),
        ..Txn::default()
    };
    let completion = Completion {
        ticket: Ticket(4),
        session,
        request: RequestId(1),
        reply: Ok(Outcome::Synced),
    };
    vec![
        (
            answered(origin(1, 0)),
            ApplyError::NotNextRequest {
                session,
                expected: RequestId(2),
                got: RequestId(1),
            },
        ),
        (
            answered(origin(3, 0)),
            ApplyError::NotNextRequest {
                session,
                expected: RequestId(2),
                got: RequestId(3),
            },
        ),
        (
            answered(origin(2, 2)),
            ApplyError::BadAcknowledgement {
                session,
                from: RequestId(0),
                to: RequestId(1),
                got: RequestId(2),
            },
        ),
        (
            Txn {
                completions: vec![completion],
                ..Txn::default()
            },
            ApplyError::BadWait {
                ticket: Ticket(4),
                problem: "it was completed and not ended",
            },
        ),
    ]
}

#[test]
fn what_does_not_hold_is_refused_and_leaves_nothing() {
    let mut leader = leader();
    let root = leader.state.node("/").map_or(0, |root| root.stat.cversion);
    for (txn, why) in wrong(root) {
        let stamp = leader.stamp();
        let counters = leader.state.counters();
        assert_eq!(leader.state.apply_txn(stamp, &txn), Err(why), "{txn:?}");
        assert_eq!(leader.stamp(), stamp, "{txn:?}");
        assert_eq!(leader.state.counters(), counters, "{txn:?}");
    }
    // What holds goes on as if nothing had been.
    leader.execute_txn(of(vec![set("/a", 1), delete("/a/b", 2)]));
    leader.cut();
    leader.apply_all();
    let mut replica = new_state();
    for entry in &leader.entries {
        replica.apply_entry(entry).expect("it applies");
    }
    assert_eq!(replica.state_hash(), leader.state.base().state_hash());
}

/// The same, in entries: a member whose state is another one stops.
#[test]
fn an_entry_that_does_not_hold_is_an_error() {
    let root = new_state().node("/").map_or(0, |root| root.stat.cversion);
    for (txn, why) in wrong(root + 2) {
        let mut leader = leader();
        leader.cut();
        leader.apply_all();
        let entry = leader.forge(txn);
        assert_eq!(leader.state.base_mut().apply_entry(&entry), Err(why));
    }
}

#[test]
fn zxids_of_the_overlay_neither_repeat_nor_jump_and_time_does_not_go_back() {
    let mut leader = leader();
    let stamp = leader.stamp();
    let txn = of(vec![set("/a", 1)]);
    for (zxid, log_time) in [(6, stamp.log_time), (4, stamp.log_time), (5, LogTime(1))] {
        let wrong = Stamp {
            zxid: Zxid(zxid),
            log_time,
            ..stamp
        };
        assert!(leader.state.apply_txn(wrong, &txn).is_err());
    }
    assert_eq!(leader.state.apply_txn(stamp, &txn), Ok(()));
}

#[test]
fn an_entry_out_of_its_place_is_an_error() {
    let mut leader = leader();
    leader.cut();
    let batch = leader.entries[1].clone();
    let mut state = new_state();
    let next = state.apply_entry(&batch);
    assert_eq!(
        next,
        Err(ApplyError::NotNextEntry {
            expected: LogIndex(1),
            got: LogIndex(2)
        })
    );
    assert_eq!(state.apply_entry(&leader.entries[0]), Ok(vec![]));
    let mut other = batch.clone();
    other.term = Term(2);
    assert!(matches!(
        state.apply_entry(&other),
        Err(ApplyError::BadTerm { .. })
    ));
    let mut other = batch.clone();
    other.last_zxid = Zxid(5);
    assert!(matches!(
        state.apply_entry(&other),
        Err(ApplyError::BadEnd { .. })
    ));
    let mut state = new_state();
    assert_eq!(state.apply_entry(&leader.entries[0]), Ok(vec![]));
    let mut second = batch.clone();
    second.kind = EntryKind::Bootstrap;
    assert_eq!(state.apply_entry(&second), Err(ApplyError::BadBootstrap));
    let mut cut = batch.clone();
    cut.payload.truncate(cut.payload.len() - 1);
    assert!(matches!(
        state.apply_entry(&cut),
        Err(ApplyError::Malformed(_))
    ));
    assert!(state.apply_entry(&batch).is_ok());
    let mut again = batch;
    again.index = LogIndex(3);
    let (base, applied) = (Zxid(0), Zxid(4));
    assert_eq!(
        state.apply_entry(&again),
        Err(ApplyError::Chain { base, applied })
    );
}
