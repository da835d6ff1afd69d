//! Members of groups: how they join, and what is kept of them when they go.

use folkmoot_proto::client::{Guard, NodeKind, Operation};
use folkmoot_proto::group::{GroupOperation, MemberRecord, MemberSpec, MemberState};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{SessionSecret, Zxid};

use super::cluster::{Cluster, assert_same_state, member};
use crate::state::View;

fn group(operation: GroupOperation) -> Operation {
    Operation::Group {
        group: "workers".to_owned(),
        member: "w1".to_owned(),
        operation,
    }
}

fn join_with(predecessor: Option<SessionSecret>) -> Operation {
    group(GroupOperation::Join {
        spec: MemberSpec::at("10.0.0.1:80"),
        predecessor,
    })
}

fn join() -> Operation {
    join_with(None)
}

const CHANGED: Result<Outcome, Refusal> = Ok(Outcome::GroupChanged);

fn record(cluster: &Cluster) -> MemberRecord {
    let node = cluster
        .state(member(3))
        .node("/folkmoot/groups/workers/members/w1");
    serde_json::from_slice(node.expect("a record").data).expect("a member's record")
}

fn incarnation(cluster: &Cluster) -> Option<Zxid> {
    let node = cluster
        .state(member(3))
        .node("/folkmoot/groups/workers/live/w1");
    node.map(|node| node.stat.czxid)
}

/// A write that takes effect only while the member is this incarnation.
fn guarded_write(incarnation: Zxid) -> (Guard, Operation) {
    let guard = Guard {
        path: "/folkmoot/groups/workers/live/w1".to_owned(),
        token: incarnation,
    };
    let create = Operation::Create {
        path: "/proof".to_owned(),
        data: Vec::new(),
        kind: NodeKind::PERSISTENT,
    };
    (guard, create)
}

#[test]
fn a_member_lives_as_long_as_its_session() {
    let mut cluster = Cluster::new(3);
    let mut worker = cluster.open(member(2));
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    let joined = record(&cluster);
    assert_eq!(joined.state, MemberState::Alive);
    assert_eq!(joined.incarnation, incarnation(&cluster));
    assert_eq!(joined.session, Some(worker.session));
    let closed = cluster.call(&mut worker, Operation::CloseSession);
    assert_eq!(closed, Ok(Outcome::SessionClosed));
    let gone = record(&cluster);
    assert_eq!(
        (gone.state, gone.why.as_str()),
        (MemberState::Gone, "session-closed")
    );
    assert_eq!((gone.incarnation, incarnation(&cluster)), (None, None));
    assert!(
        gone.offline_until.is_some(),
        "its work waits for it (rule R38)"
    );
    assert_same_state(&cluster);
}

/// R34: a paused worker whose id was started again elsewhere has nothing in common with the new one.
#[test]
fn r34_a_returning_id_is_a_new_incarnation() {
    let mut cluster = Cluster::new(3);
    let mut paused = cluster.open(member(1));
    assert_eq!(cluster.call(&mut paused, join()), CHANGED);
    let before = incarnation(&cluster).expect("it lives");
    let mut started = cluster.open(member(2));
    let lives = Err(Refusal::MemberLives {
        group: "workers".to_owned(),
        member: "w1".to_owned(),
    });
    assert_eq!(cluster.call(&mut started, join()), lives);
    let wrong = join_with(Some(SessionSecret([9; 32])));
    assert_eq!(cluster.call(&mut started, wrong), lives);
    assert_eq!(incarnation(&cluster), Some(before), "nothing happened");
    let with_secret = join_with(Some(paused.secret));
    assert_eq!(cluster.call(&mut started, with_secret), CHANGED);
    let after = incarnation(&cluster).expect("it lives");
    assert!(after > before);
    assert!(cluster.state(member(3)).session(paused.session).is_none());
    let (guard, write) = guarded_write(before);
    let refused = cluster.call_guarded(&mut started, vec![guard], write);
    assert!(
        matches!(refused, Err(Refusal::GuardFailed { .. })),
        "{refused:?}"
    );
    let (guard, write) = guarded_write(after);
    let done = cluster.call_guarded(&mut started, vec![guard], write);
    assert_eq!(done, Ok(Outcome::Created { sequence: None }));
}

#[test]
fn the_same_session_changes_what_it_said_and_stays_the_same_incarnation() {
    let mut cluster = Cluster::new(3);
    let mut worker = cluster.open(member(2));
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    let before = incarnation(&cluster);
    let spec = MemberSpec {
        zone: "b".to_owned(),
        ..MemberSpec::at("10.0.0.2:80")
    };
    let predecessor = None;
    let again = group(GroupOperation::Join { spec, predecessor });
    assert_eq!(cluster.call(&mut worker, again), CHANGED);
    assert_eq!(incarnation(&cluster), before);
    assert_eq!(record(&cluster).zone, "b");
}

#[test]
fn draining_is_a_wish_that_outlives_the_session() {
    let mut cluster = Cluster::new(3);
    let (mut worker, mut operator) = (cluster.open(member(2)), cluster.open(member(1)));
    let drain = |drain| group(GroupOperation::Drain { drain });
    let unknown = cluster.call(&mut operator, drain(true));
    assert!(
        matches!(unknown, Err(Refusal::UnknownMember { .. })),
        "{unknown:?}"
    );
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    assert_eq!(cluster.call(&mut operator, drain(true)), CHANGED);
    assert_eq!(record(&cluster).state, MemberState::Draining);
    let leave = group(GroupOperation::Leave);
    assert!(
        cluster.call(&mut operator, leave.clone()).is_err(),
        "it is not its own to leave"
    );
    assert_eq!(cluster.call(&mut worker, leave), CHANGED);
    assert_eq!(record(&cluster).state, MemberState::Gone);
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    assert_eq!(record(&cluster).state, MemberState::Draining);
    assert_eq!(cluster.call(&mut operator, drain(false)), CHANGED);
    assert_eq!(record(&cluster).state, MemberState::Alive);
}

#[test]
fn a_member_says_how_it_is_and_how_long_to_wait_for_it() {
    let mut cluster = Cluster::new(3);
    let mut worker = cluster.open(member(2));
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    let report = |restart_delay_ms| {
        group(GroupOperation::Report {
            healthy: false,
            restart_delay_ms: Some(restart_delay_ms),
        })
    };
    let too_long = cluster.call(&mut worker, report(u64::MAX));
    assert!(
        matches!(too_long, Err(Refusal::TooLarge { .. })),
        "{too_long:?}"
    );
    assert_eq!(cluster.call(&mut worker, report(120_000)), CHANGED);
    assert!(!record(&cluster).healthy);
    let before = cluster.state(member(3)).log_time();
    let _ = cluster.call(&mut worker, Operation::CloseSession);
    let until = record(&cluster).offline_until.expect("its work waits");
    assert!(until >= before.plus_millis(120_000));
}

#[test]
fn what_is_kept_of_a_member_that_is_gone_can_be_forgotten() {
    let mut cluster = Cluster::new(3);
    let mut worker = cluster.open(member(2));
    let forget = group(GroupOperation::Forget);
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    assert!(
        cluster.call(&mut worker, forget.clone()).is_err(),
        "it lives"
    );
    assert_eq!(
        cluster.call(&mut worker, group(GroupOperation::Leave)),
        CHANGED
    );
    assert_eq!(cluster.call(&mut worker, forget.clone()), CHANGED);
    let unknown = cluster.call(&mut worker, forget);
    assert!(
        matches!(unknown, Err(Refusal::UnknownMember { .. })),
        "{unknown:?}"
    );
}

#[test]
fn names_and_facts_are_checked_and_nothing_is_left_of_a_refusal() {
    let mut cluster = Cluster::new(3);
    let mut worker = cluster.open(member(2));
    let bad_spec = group(GroupOperation::Join {
        spec: MemberSpec {
            capacity: vec![0],
            ..MemberSpec::at("a")
        },
        predecessor: None,
    });
    let bad_name = Operation::Group {
        group: "a/b".to_owned(),
        member: "w1".to_owned(),
        operation: GroupOperation::Leave,
    };
    for bad in [bad_spec, bad_name] {
        let refused = cluster.call(&mut worker, bad);
        assert!(
            matches!(refused, Err(Refusal::BadMember { .. })),
            "{refused:?}"
        );
    }
    let groups = cluster
        .state(member(3))
        .node("/folkmoot/groups")
        .expect("it is there");
    assert_eq!(groups.stat.num_children, 0);
}

/// R32: what the end of a session writes of its memberships fits its transaction.
#[test]
fn r32_a_session_has_so_many_memberships() {
    let max = folkmoot_proto::limits::SESSION_MEMBERSHIPS_MAX;
    assert_eq!(joined_until_refused(Limits::default()), max);
    let small = Limits {
        value_bytes_max: 8 * 1024,
        txn_bytes_max: 16 * 1024,
        ..Limits::default()
    };
    let joined = joined_until_refused(small);
    assert!((1..max).contains(&joined), "{joined}");
}

/// What a member says of itself is a node's value, and has its limit.
#[test]
fn what_a_member_says_of_itself_fits_a_value() {
    let limits = Limits {
        value_bytes_max: 4 * 1024,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut worker = cluster.open(member(1));
    let join = |bytes| {
        let mut spec = MemberSpec::at("a");
        spec.meta.insert("k".to_owned(), "v".repeat(bytes));
        let predecessor = None;
        group(GroupOperation::Join { spec, predecessor })
    };
    let refused = cluster.call(&mut worker, join(4 * 1024));
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(cluster.call(&mut worker, join(2 * 1024)), CHANGED);
}

/// R12: a session ends whatever the limit of values: what is kept of its member is the kernel's.
#[test]
fn r12_a_member_goes_with_its_session_where_values_are_small() {
    let limits = Limits {
        value_bytes_max: 64,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(3, limits);
    let mut worker = cluster.open(member(2));
    assert_eq!(cluster.call(&mut worker, join()), CHANGED);
    let closed = cluster.call(&mut worker, Operation::CloseSession);
    assert_eq!(closed, Ok(Outcome::SessionClosed));
    assert_eq!(record(&cluster).state, MemberState::Gone);
}

/// How many groups one session can be a member of, which then ends with all of them.
fn joined_until_refused(limits: Limits) -> usize {
    let mut cluster = Cluster::with_limits(3, limits);
    let mut worker = cluster.open(member(2));
    let name = "n".repeat(100);
    let join = |number: usize| Operation::Group {
        group: format!("{name}{number}"),
        member: name.clone(),
        operation: GroupOperation::Join {
            spec: MemberSpec {
                zone: name.clone(),
                ..MemberSpec::at(name.clone())
            },
            predecessor: None,
        },
    };
    let mut joined = 0;
    let refused = loop {
        match cluster.call(&mut worker, join(joined)) {
            CHANGED => joined += 1,
            refused => break refused,
        }
    };
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
    let closed = cluster.call(&mut worker, Operation::CloseSession);
    assert_eq!(closed, Ok(Outcome::SessionClosed));
    assert_same_state(&cluster);
    joined
}
