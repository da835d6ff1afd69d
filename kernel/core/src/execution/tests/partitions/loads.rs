//! Measured loads: who is heard, what a policy sees of them, and when it is asked because of them.

use folkmoot_proto::Zxid;
use folkmoot_proto::client::ClientFrame;
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::limits::{Limits, MAP_NAMED_MAX};
use folkmoot_proto::partition::{MapOperation, PartitionId, PartitionLoad};

use super::super::cluster::member;
use super::plans::{
    assign, everything_to_the_first, keeps_all, planned_by, plans_for, strings, u32s, with_policy,
};
use super::{GROUP, Shards, config};
use crate::policy::{Cells, PolicyAnswer, PolicyCall, PolicyFailure, Table};

/// What a question shows of loads: of each partition how much and how old, if it has the columns.
fn shown(call: &PolicyCall) -> Option<Vec<(f64, u64)>> {
    let mut tables = call.tables.iter().flatten();
    let table = tables
        .find(|table| table.name == "partitions")
        .expect("a table");
    match (table.column("load"), table.column("load-age")) {
        (Some(Cells::F64s(loads)), Some(Cells::U64s(ages))) => {
            assert_eq!(
                (loads.len(), ages.len()),
                (table.rows as usize, loads.len())
            );
            Some(loads.iter().copied().zip(ages.iter().copied()).collect())
        }
        (None, None) => None,
        other => panic!("{other:?}"),
    }
}

fn trigger(call: &PolicyCall) -> &str {
    &strings(call, "request", "trigger")[0]
}

fn again(after_ms: u64) -> Vec<Table> {
    vec![Table::new("again", 1).with("after", Cells::U64s(vec![after_ms]))]
}

/// A map with a policy that has given everything to the first worker, `a`.
fn settled(partitions: u32, workers: usize) -> Shards {
    settle(with_policy(config(), partitions, workers), partitions)
}

fn settle(mut shards: Shards, partitions: u32) -> Shards {
    shards.pass(200);
    shards.answer_all(|call| {
        assert_eq!(shown(call), None, "nothing is known yet");
        everything_to_the_first(call)
    });
    assert_eq!(shards.counts().get("a"), Some(&(partitions as usize)));
    shards
}

impl Shards {
    fn send_loads(&mut self, name: &str, group: &str, loads: Vec<PartitionLoad>) {
        let worker = self.workers.get(name).expect("a worker").clone();
        let group = group.to_owned();
        let frame = ClientFrame::Loads { group, loads };
        self.cluster.frame(worker.member, worker.stream, frame);
        self.cluster.run();
    }

    pub(super) fn send_load(&mut self, name: &str, partition: u32, token: Zxid, load: u64) {
        let load = PartitionLoad {
            partition: PartitionId(partition),
            token,
            load,
        };
        self.send_loads(name, GROUP, vec![load]);
    }

    /// The owner of a partition says what it measures.
    fn measure(&mut self, partition: u32, load: u64) {
        let (name, owner) = self.owner(partition).expect("an owner");
        self.send_load(&name, partition, owner.token, load);
    }

    /// The next question, and after how many milliseconds it is asked; none within so many.
    fn next_question(&mut self, within_ms: u64) -> Option<(u64, PolicyCall)> {
        for passed in (0..=within_ms).step_by(100) {
            if let Some((_, _, call)) = self.questions().pop() {
                return Some((passed, call));
            }
            self.pass(100);
        }
        None
    }

    /// As [`Shards::next_question`], with the answer to it.
    fn answer_next(
        &mut self,
        within_ms: u64,
        policy: impl Fn(&PolicyCall) -> PolicyAnswer,
    ) -> Option<(u64, PolicyCall)> {
        for passed in (0..=within_ms).step_by(100) {
            if let Some((at, id, call)) = self.questions().pop() {
                self.answer((at, id), policy(&call));
                return Some((passed, call));
            }
            self.pass(100);
        }
        None
    }
}

#[test]
fn a_policy_sees_what_owners_measured_and_how_old_it_is() {
    let mut shards = settled(2, 2);
    shards.pass(3_000);
    shards.measure(0, 700);
    shards.measure(0, 800);
    let (passed, call) = shards.answer_next(20_000, keeps_all).expect("a question");
    assert_eq!(trigger(&call), "load");
    let loads = shown(&call).expect("loads");
    let (load, age) = loads[0];
    assert_eq!((load, loads[1]), (800.0, (0.0, u64::MAX)));
    assert!((passed - 100..=passed).contains(&age), "{age} of {passed}");
    // It is the partition's load, and stays with it.
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.group("a", drain).is_ok());
    let to_the_second = |_: &PolicyCall| Ok(assign(&[(0, &[1]), (1, &[1])]));
    shards.answer_all(to_the_second);
    assert_eq!(shards.owner_name(0).as_deref(), Some("b"));
    let preview = MapOperation::Plan { policy: None };
    assert!(shards.ask(preview).is_ok());
    let (_, call) = shards.next_question(200).expect("the preview");
    let loads = shown(&call).expect("loads");
    assert!(loads[0].0 == 800.0 && loads[0].1 > age, "{loads:?}");
}

#[test]
fn only_the_present_owner_is_heard() {
    let mut shards = settled(2, 2);
    let token = shards.token(0);
    shards.send_load("a", 0, Zxid(token.0 - 1), 1);
    shards.send_load("a", 0, Zxid(token.0 + 1), 1);
    shards.send_load("b", 0, token, 1);
    shards.send_load("a", 9, token, 1);
    shards.send_loads("a", "others", Vec::new());
    shards.send_loads("a", GROUP, Vec::new());
    assert_eq!(shards.next_question(15_000), None);
    // By an incarnation that is over: the token is the present one still, and nobody owns.
    shards.close("a");
    shards.join("a");
    shards.send_load("a", 0, token, 1);
    shards.answer_all(|call| {
        assert_eq!(shown(call), None);
        keeps_all(call)
    });
    assert_ne!(shards.token(0), token);
    shards.measure(0, 5);
    let (_, call) = shards.next_question(15_000).expect("a question");
    assert_eq!(shown(&call).expect("loads")[0].0, 5.0);
}

#[test]
fn more_loads_than_a_frame_may_have_and_no_groups_name_end_the_stream() {
    let mut shards = settled(1, 2);
    let load = PartitionLoad {
        partition: PartitionId(0),
        token: shards.token(0),
        load: 1,
    };
    let stream = |shards: &Shards, name: &str| shards.workers[name].stream;
    shards.send_loads("a", GROUP, vec![load; MAP_NAMED_MAX]);
    let (a, b) = (stream(&shards, "a"), stream(&shards, "b"));
    assert!(!shards.cluster.closed.contains(&a));
    shards.send_loads("a", GROUP, vec![load; MAP_NAMED_MAX + 1]);
    assert!(shards.cluster.closed.contains(&a));
    shards.send_loads("b", "no/name", Vec::new());
    assert!(shards.cluster.closed.contains(&b));
}

#[test]
fn a_new_leader_knows_of_no_loads_until_they_are_reported() {
    let mut shards = settled(1, 1);
    shards.measure(0, 3);
    let (_, call) = shards.answer_next(15_000, keeps_all).expect("a question");
    assert_eq!(shown(&call).expect("loads")[0].0, 3.0);
    shards.elect(member(2));
    let (_, call) = shards.answer_next(1_000, keeps_all).expect("a question");
    assert_eq!((trigger(&call), shown(&call)), ("request", None));
    shards.measure(0, 4);
    let (_, call) = shards.next_question(15_000).expect("a question");
    assert_eq!(shown(&call).expect("loads")[0].0, 4.0);
}

#[test]
fn a_policy_is_asked_because_of_loads_every_ten_seconds_at_most() {
    let mut shards = settled(1, 1);
    let mut asked_at = Vec::new();
    for tenth in 0..400 {
        if tenth % 5 == 0 {
            shards.measure(0, tenth);
        }
        let waiting = shards.answer_waiting(|call| {
            assert_eq!(trigger(call), "load");
            keeps_all(call)
        });
        if waiting > 0 {
            asked_at.push(tenth * 100);
        }
        shards.pass(100);
    }
    let apart = asked_at.windows(2).map(|two| two[1] - two[0]);
    assert!(apart.clone().all(|ms| ms >= 10_000), "{asked_at:?}");
    assert!((3..=4).contains(&asked_at.len()), "{asked_at:?}");
    // Once nobody reports any more, nobody is asked.
    assert!(shards.answer_next(15_000, keeps_all).is_some());
    assert_eq!(shards.next_question(30_000), None);
}

/// R19: a question about a large map is put together over several turns.
#[test]
fn loads_are_asked_about_once_where_a_question_takes_many_turns() {
    let limits = Limits {
        value_bytes_max: 8 * 1024,
        txn_bytes_max: 16 * 1024,
        ..Limits::default()
    };
    let shards = plans_for(Shards::with_limits(limits, 1), config(), 1_000);
    let mut shards = settle(shards, 1_000);
    shards.measure(999, 7);
    shards.measure(3, 5);
    let (_, call) = shards.answer_next(15_000, keeps_all).expect("a question");
    let loads = shown(&call).expect("loads").into_iter().zip(0..);
    let known = loads.filter(|((_, age), _)| *age < u64::MAX);
    let known: Vec<_> = known.map(|((load, _), row)| (row, load)).collect();
    assert_eq!(known, [(3, 5.0), (999, 7.0)]);
    assert_eq!(shards.next_question(15_000), None);
}

/// Each load has the policy move the partition: it is on the second worker while the load is odd.
fn by_load(call: &PolicyCall) -> PolicyAnswer {
    let load = shown(call).map_or(0.0, |loads| loads[0].0);
    let to = [u32::from(load % 2.0 == 1.0)];
    Ok(assign(&[(0, to.as_slice())]))
}

#[test]
fn a_policy_that_moves_for_new_loads_is_not_at_fault() {
    let mut shards = settled(1, 2);
    shards.measure(0, 1);
    // Others come while it plans.
    let question = shards.next_question(15_000).map(|(_, call)| call);
    let plan = by_load(&question.expect("a question"));
    shards.measure(0, 2);
    let asked = shards.cluster.member(member(1)).execution.policy_calls;
    shards.answer((member(1), crate::policy::PolicyCallId(asked)), plan);
    shards.pass(1_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("b"));
    assert_eq!(shards.next_question(5_000), None, "there are new loads");
    shards.obedient = false;
    let asked = shards.answer_next(15_000, by_load);
    assert_eq!(
        asked.map(|(_, call)| trigger(&call).to_owned()).as_deref(),
        Some("load")
    );
    // Others come while its plan is carried out.
    shards.pass(100);
    shards.measure(0, 3);
    shards.obedient = true;
    shards.pass(1_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
    assert!(shards.answer_next(15_000, by_load).is_some());
    shards.pass(1_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("b"));
    assert_eq!(shards.map().1.breaker, None);
}

#[test]
fn a_policy_that_plans_anew_for_the_same_loads_is_not_asked_any_more() {
    let mut shards = settled(1, 2);
    shards.measure(0, 1);
    let elsewhere = |call: &PolicyCall| {
        let leads = u32s(call, "replicas", "member")[0];
        Ok(assign(&[(0, &[1 - leads])]))
    };
    assert!(shards.answer_next(15_000, elsewhere).is_some());
    shards.answer_all(elsewhere);
    let breaker = shards.map().1.breaker.expect("an open breaker");
    assert!(breaker.contains("plans anew"), "{breaker}");
    shards.measure(0, 2);
    assert_eq!(shards.next_question(30_000), None, "nor for others");
}

#[test]
fn loads_of_a_frozen_map_are_shown_once_it_is_not_frozen_any_more() {
    let mut shards = settled(1, 1);
    assert!(shards.ask(MapOperation::Freeze { frozen: true }).is_ok());
    shards.answer_all(keeps_all);
    shards.measure(0, 6);
    assert_eq!(shards.next_question(30_000), None);
    assert!(shards.ask(MapOperation::Freeze { frozen: false }).is_ok());
    let (_, call) = shards.next_question(1_000).expect("a question");
    assert_eq!(shown(&call).expect("loads")[0].0, 6.0);
}

#[test]
fn a_split_forgets_the_load_of_what_is_no_more() {
    let mut shards = settled(1, 1);
    shards.measure(0, 6);
    let split = MapOperation::Split {
        partition: PartitionId(0),
    };
    assert!(shards.ask(split).is_ok());
    let (_, call) = shards.next_question(1_000).expect("a question");
    assert_eq!(shown(&call), None);
}

#[test]
fn a_policy_that_wants_to_be_asked_again_is_within_bounds() {
    let mut shards = settled(1, 1);
    shards.measure(0, 1);
    let wants = |after_ms| move |_: &PolicyCall| Ok(again(after_ms));
    assert!(shards.answer_next(15_000, wants(5_000)).is_some());
    for (wanted, bounds) in [(0, 5_000..=5_100), (u64::MAX, 1_000..=1_100)] {
        let (passed, call) = shards.answer_next(10_000, wants(wanted)).expect("again");
        assert!(bounds.contains(&passed), "after {passed} ms");
        assert_eq!(trigger(&call), "load");
    }
    assert_eq!(shards.next_question(590_000), None);
    let (passed, _) = shards.answer_next(20_000, keeps_all).expect("again");
    assert!((9_000..=11_000).contains(&passed), "after {passed} ms");
    assert_eq!(shards.next_question(20_000), None, "it was asked once");
}

#[test]
fn a_policy_that_faults_on_a_load_is_asked_less_and_then_no_more() {
    let mut shards = settled(1, 1);
    shards.measure(0, 1);
    let fault = || PolicyFailure::Fault {
        kind: "trap".to_owned(),
        message: "it trapped".to_owned(),
    };
    assert!(shards.answer_next(15_000, |_| Err(fault())).is_some());
    shards.answer_all(|_| Err(fault()));
    assert!(shards.map().1.breaker.is_some());
    shards.measure(0, 2);
    assert_eq!(shards.next_question(30_000), None);
}

#[test]
fn a_flood_of_loads_goes_no_further_than_its_member() {
    let mut shards = settled(1, 1);
    for load in 1..=1_100 {
        shards.measure(0, load);
    }
    let (_, call) = shards.answer_next(20_000, keeps_all).expect("a question");
    let seen = shown(&call).expect("loads")[0].0;
    assert_eq!(seen, 1_024.0, "the last that its member took");
    shards.measure(0, 7);
    let (_, call) = shards.answer_next(20_000, keeps_all).expect("a question");
    assert_eq!(shown(&call).expect("loads")[0].0, 7.0);
}

#[test]
fn a_policy_that_needs_no_loads_is_not_asked_for_them() {
    let shards = planned_by("rebalancer-1", Shards::without_map(2), config(), 2);
    let mut shards = settle(shards, 2);
    shards.measure(0, 700);
    assert!(shards.next_question(30_000).is_none());
    // It sees them when it is asked for something else.
    let preview = MapOperation::Plan { policy: None };
    assert!(shards.ask(preview).is_ok());
    let (_, call) = shards.next_question(200).expect("the preview");
    assert_eq!(shown(&call).expect("loads")[0].0, 700.0);
}
