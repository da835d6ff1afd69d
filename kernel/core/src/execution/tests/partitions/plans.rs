//! Plans: what a policy is asked, and what becomes of what it says.

use std::cell::Cell;

use folkmoot_proto::Digest;
use folkmoot_proto::client::Operation;
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::limits::Limits;
use folkmoot_proto::partition::{Layout, MapConfig, MapOperation, PartitionId, PolicyChoice};
use folkmoot_proto::reply::Outcome;

use super::super::cluster::member;
use super::{Shards, config, refused_as};
use crate::policy::{Cells, PolicyAnswer, PolicyCall, PolicyFailure, Table};

/// A group whose map has a policy, and the component that it is said to be.
pub(super) fn with_policy(config: MapConfig, partitions: u32, workers: usize) -> Shards {
    plans_for(Shards::without_map(workers), config, partitions)
}

pub(super) fn plans_for(shards: Shards, config: MapConfig, partitions: u32) -> Shards {
    planned_by("rebalancer-by-load", shards, config, partitions)
}

pub(super) fn planned_by(
    component: &str,
    mut shards: Shards,
    config: MapConfig,
    partitions: u32,
) -> Shards {
    let digest = shards.cluster.install(&mut shards.admin, component);
    let policy = Some(PolicyChoice {
        digest,
        configuration: String::new(),
    });
    shards.create(MapConfig { policy, ..config }, partitions);
    shards
}

fn column<'a>(call: &'a PolicyCall, table: &str, column: &str) -> &'a Cells {
    let mut tables = call.tables.iter().flatten();
    let table = tables.find(|of| of.name == table).expect("a table");
    table.column(column).expect("a column")
}

pub(super) fn strings<'a>(call: &'a PolicyCall, table: &str, of: &str) -> &'a [String] {
    match column(call, table, of) {
        Cells::Strings(cells) => cells,
        other => panic!("{other:?}"),
    }
}

pub(super) fn u32s<'a>(call: &'a PolicyCall, table: &str, of: &str) -> &'a [u32] {
    match column(call, table, of) {
        Cells::U32s(cells) => cells,
        other => panic!("{other:?}"),
    }
}

/// Gives partitions, by row, to members, by row.
pub(super) fn assign(rows: &[(u32, &[u32])]) -> Vec<Table> {
    let mut offsets = vec![0];
    let mut members = Vec::new();
    for (_, of) in rows {
        members.extend_from_slice(of);
        offsets.push(u32::try_from(members.len()).expect("few"));
    }
    let table = Table::new("assign", rows.len())
        .with(
            "partition",
            Cells::U32s(rows.iter().map(|(row, _)| *row).collect()),
        )
        .with("members", Cells::U32s(members))
        .with("members.offsets", Cells::U32s(offsets));
    vec![table]
}

/// Everything goes to the first member that is live, whoever has it.
pub(super) fn everything_to_the_first(call: &PolicyCall) -> PolicyAnswer {
    let live = u32s(call, "members", "live");
    let first = live
        .iter()
        .position(|live| *live == 1)
        .expect("one that lives");
    let first = [u32::try_from(first).expect("few")];
    let partitions = u32s(call, "partitions", "replicas").len();
    let rows: Vec<(u32, &[u32])> = (0..)
        .take(partitions)
        .map(|row| (row, first.as_slice()))
        .collect();
    Ok(assign(&rows))
}

pub(super) fn keeps_all(_: &PolicyCall) -> PolicyAnswer {
    Ok(Vec::new())
}

#[test]
fn a_policy_sees_members_and_partitions_and_gives_targets() {
    let mut shards = with_policy(config(), 4, 2);
    shards.pass(200);
    let asked = shards.answer_all(|call| {
        assert_eq!(strings(call, "members", "name"), ["a", "b"]);
        assert_eq!(u32s(call, "partitions", "replicas"), [1; 4]);
        everything_to_the_first(call)
    });
    assert!(asked >= 1);
    assert_eq!(
        shards.counts().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), 4)]
    );
    assert_eq!(shards.map().1.breaker, None);
}

#[test]
pub(in crate::execution::tests) fn r37_a_plan_for_what_has_changed_moves_nothing() {
    let mut shards = with_policy(config(), 2, 3);
    shards.pass(200);
    shards.answer_all(everything_to_the_first);
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.group("a", drain).is_ok());
    shards.pass(200);
    let questions = shards.questions();
    let (at, id, call) = questions.into_iter().next_back().expect("a question");
    assert_eq!(u32s(&call, "members", "intent"), [2, 0, 0]);
    // While it plans, its target dies and comes back in another incarnation.
    shards.close("b");
    shards.join("b");
    let token = shards.token(0);
    shards.answer((at, id), Ok(assign(&[(0, &[1]), (1, &[2])])));
    shards.pass(100);
    assert_eq!(shards.token(0), token, "whom it was to get is no more");
    assert_eq!(
        shards.owner_name(1).as_deref(),
        Some("c"),
        "this one is as it was seen"
    );
}

/// Neither a policy that does not care, nor a plan that was made before, takes from a member that is
/// gone for a while what waits for it.
#[test]
fn r38_no_plan_gives_away_what_is_waited_for() {
    let resident = MapConfig {
        residence_ms: 5_000,
        ..config()
    };
    let mut shards = with_policy(resident, 2, 2);
    shards.pass(200);
    shards.answer_all(everything_to_the_first);
    shards.join("c");
    shards.pass(200);
    let questions = shards.questions();
    let (at, id, _) = questions.into_iter().next_back().expect("a question");
    // Planned while `a` lives; `a` is gone when it could be carried out.
    shards.answer((at, id), Ok(assign(&[(0, &[1]), (1, &[2])])));
    shards.pass(500);
    assert_eq!(
        shards.owner_name(0).as_deref(),
        Some("a"),
        "it has just come"
    );
    shards.close("a");
    shards.pass(6_000);
    shards.answer_all(everything_to_the_first);
    assert_eq!(shards.owned(), 0, "they wait");
    shards.join("a");
    shards.answer_all(keeps_all);
    assert_eq!(
        shards.counts().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), 2)]
    );
}

/// R19: a question about a large map is put together over several turns; what changes meanwhile is in
/// it.
#[test]
fn r19_a_question_is_gathered_over_turns_and_begun_anew_when_something_changes() {
    let limits = Limits {
        value_bytes_max: 8 * 1024,
        txn_bytes_max: 16 * 1024,
        ..Limits::default()
    };
    let shards = Shards::with_limits(limits, 1);
    let mut shards = plans_for(shards, config(), 1_000);
    shards.answer_all(keeps_all);
    shards.join("b");
    assert_eq!(shards.answer_waiting(keeps_all), 1);
    shards.join("c");
    shards.cluster.turn_after(150, member(1));
    assert_eq!(shards.questions().len(), 0, "it takes more than one turn");
    assert_eq!(
        shards.ask_group("b", GroupOperation::Drain { drain: true }),
        Ok(Outcome::GroupChanged)
    );
    let questions = shards.questions();
    let [(.., question)] = questions.as_slice() else {
        panic!("{} questions", questions.len());
    };
    assert_eq!(strings(question, "members", "name"), ["a", "b", "c"]);
    assert_eq!(u32s(question, "members", "intent"), [0, 2, 0]);
    let ids = Cells::U64s((0..1_000).collect());
    assert!(*column(question, "partitions", "id") == ids, "each once");
}

#[test]
fn r37_an_answer_to_a_former_leader_does_nothing() {
    let mut shards = with_policy(config(), 2, 2);
    shards.pass(200);
    let (at, id, call) = shards.questions().pop().expect("a question");
    shards.elect(member(2));
    shards.answer((at, id), everything_to_the_first(&call));
    shards.pass(100);
    assert_eq!(shards.owned(), 0);
}

#[test]
fn a_plan_that_breaks_an_invariant_is_refused_and_what_has_no_owner_is_placed_all_the_same() {
    let bad: [(&str, Vec<Table>); 9] = [
        ("twice", assign(&[(0, &[0]), (0, &[1])])),
        ("no such partition", assign(&[(9, &[0])])),
        ("no such member", assign(&[(0, &[9])])),
        ("nobody", assign(&[(0, &[])])),
        ("too many replicas", assign(&[(0, &[0, 1])])),
        ("one member twice", assign(&[(0, &[0, 0])])),
        ("no columns", vec![Table::new("assign", 1)]),
        (
            "another type",
            vec![Table::new("assign", 1).with("partition", Cells::F64s(vec![f64::NAN]))],
        ),
        (
            "too few cells",
            vec![
                Table::new("assign", 2)
                    .with("partition", Cells::U32s(vec![0]))
                    .with("members", Cells::U32s(vec![0]))
                    .with("members.offsets", Cells::U32s(vec![0, 1, 7])),
            ],
        ),
    ];
    for (what, answer) in bad {
        let mut shards = with_policy(config(), 4, 2);
        shards.pass(200);
        shards.answer_all(|_| Ok(answer.clone()));
        shards.pass(1_000);
        assert_eq!(shards.owned(), 4, "{what}");
        let (_, record) = shards.map();
        assert!(record.breaker.is_some(), "{what}: it is not asked any more");
    }
}

#[test]
fn a_map_takes_installed_rebalancers_alone() {
    let mut shards = with_policy(config(), 4, 2);
    let recipe = shards.cluster.install(&mut shards.admin, "hostile-1");
    let before = shards.map().1;
    let choice = |digest| {
        Some(PolicyChoice {
            digest,
            configuration: String::new(),
        })
    };
    for (digest, code) in [
        (recipe, "wrong-world"),
        (Digest([7; 32]), "unknown-component"),
    ] {
        let config = MapConfig {
            policy: choice(digest),
            ..config()
        };
        let configure = MapOperation::Configure {
            config: config.clone(),
        };
        let preview = MapOperation::Plan {
            policy: choice(digest),
        };
        for operation in [configure, preview] {
            let refused = shards.ask(operation);
            assert!(refused_as(&refused, code), "{refused:?}");
        }
        let create = MapOperation::Create {
            config,
            layout: Layout::Ranges(4),
        };
        let elsewhere = Operation::Map {
            group: "others".to_owned(),
            operation: create,
        };
        let refused = shards.cluster.call(&mut shards.admin, elsewhere);
        assert!(refused_as(&refused, code), "{refused:?}");
    }
    assert_eq!(shards.map().1, before);
}

#[test]
fn r31_a_component_stays_while_a_map_has_it() {
    let mut shards = with_policy(config(), 4, 2);
    let digest = shards.map().1.config.policy.expect("a policy").digest;
    let remove = || Operation::RemoveComponent { digest };
    let used = shards.cluster.call(&mut shards.admin, remove());
    assert!(refused_as(&used, "component-in-use"), "{used:?}");
    let text = used.expect_err("a refusal").to_string();
    assert!(text.contains("the partition map of shards"), "{text}");
    let without = MapOperation::Configure { config: config() };
    assert_eq!(shards.ask(without), Ok(Outcome::MapChanged));
    let removed = shards.cluster.call(&mut shards.admin, remove());
    assert_eq!(removed, Ok(Outcome::ComponentRemoved));
}

#[test]
fn a_policy_that_faults_is_asked_less_and_then_no_more() {
    let mut shards = with_policy(config(), 4, 2);
    shards.pass(200);
    let fault = || PolicyFailure::Fault {
        kind: "trap".to_owned(),
        message: "it trapped".to_owned(),
    };
    let asked = shards.answer_all(|_| Err(fault()));
    assert_eq!((asked, shards.owned()), (3, 4));
    let breaker = shards.map().1.breaker.expect("an open breaker");
    assert!(breaker.contains("it trapped"), "{breaker}");
    // An operator says that it is well again.
    assert!(shards.ask(MapOperation::Approve).is_ok());
    shards.pass(500);
    assert!(shards.answer_all(keeps_all) > 0);
    assert_eq!(shards.map().1.breaker, None);
}

#[test]
fn a_policy_that_does_not_answer_holds_nothing_up() {
    let mut shards = with_policy(config(), 4, 2);
    shards.pass(5_000);
    assert_eq!(shards.owned(), 4);
}

/// A policy that moves everything to and fro, though nothing has changed: where it gives as many
/// replicas as are wanted, and where it gives fewer.
#[test]
fn a_policy_that_plans_anew_for_a_target_that_is_reached_is_not_asked_any_more() {
    moves_to_and_fro(config());
    moves_to_and_fro(MapConfig {
        replicas: 2,
        ..config()
    });
}

fn moves_to_and_fro(config: MapConfig) {
    let mut shards = with_policy(config, 4, 2);
    shards.pass(200);
    let turn = Cell::new(0_u32);
    let asked = shards.answer_all(|_| {
        turn.set(turn.get() + 1);
        let to = [turn.get() % 2];
        let rows: Vec<(u32, &[u32])> = (0..4).map(|row| (row, to.as_slice())).collect();
        Ok(assign(&rows))
    });
    assert!(asked <= 4, "asked {asked} times");
    let breaker = shards.map().1.breaker.expect("an open breaker");
    assert!(breaker.contains("plans anew"), "{breaker}");
    assert_eq!(shards.owned(), 4);
}

/// An operator cancels a move of the plan: the policy wants it again, and is no worse for it.
#[test]
fn a_policy_may_plan_anew_for_what_an_operator_undid() {
    let mut shards = with_policy(MapConfig::default(), 1, 1);
    shards.pass(200);
    shards.answer_all(everything_to_the_first);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
    shards.obedient = false;
    shards.join("b");
    let to_the_second = |_: &PolicyCall| Ok(assign(&[(0, &[1])]));
    shards.answer_all(to_the_second);
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    let cancel = MapOperation::CancelMove {
        partition: PartitionId(0),
    };
    assert_eq!(shards.ask(cancel), Ok(Outcome::MapChanged));
    shards.answer_all(to_the_second);
    assert_eq!(shards.map().1.breaker, None);
    let again = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert!(again.id > movement.id);
}

#[test]
fn a_first_plan_that_moves_much_waits_for_approval() {
    let mut shards = Shards::new(config(), 10, 2);
    shards.pass(1_000);
    let before = shards.counts();
    let digest = shards.cluster.install(&mut shards.admin, "rebalancer-1");
    let policy = Some(PolicyChoice {
        digest,
        configuration: String::new(),
    });
    let swap = MapOperation::Configure {
        config: MapConfig { policy, ..config() },
    };
    assert!(shards.ask(swap).is_ok());
    shards.pass(200);
    shards.answer_all(everything_to_the_first);
    assert_eq!(shards.counts(), before);
    let breaker = shards.map().1.breaker.expect("it waits");
    assert!(breaker.contains("5 of 10"), "{breaker}");
    assert!(shards.ask(MapOperation::Approve).is_ok());
    shards.pass(500);
    shards.answer_all(everything_to_the_first);
    shards.pass(1_000);
    assert_eq!(shards.counts().len(), 1);
}

#[test]
pub(in crate::execution::tests) fn r37_no_more_moves_begin_than_the_budget_allows() {
    let few = MapConfig {
        balance_per_minute: 4,
        ..config()
    };
    let mut shards = with_policy(few, 12, 2);
    shards.pass(200);
    let to = Cell::new(0_u32);
    let policy = |to: u32| {
        move |call: &PolicyCall| {
            let partitions = u32s(call, "partitions", "replicas").len();
            let to = [to];
            let rows: Vec<(u32, &[u32])> = (0..)
                .take(partitions)
                .map(|row| (row, to.as_slice()))
                .collect();
            Ok(assign(&rows))
        }
    };
    shards.answer_all(policy(to.get()));
    assert_eq!(
        shards.counts().get("a"),
        Some(&12),
        "recovery has a budget of its own"
    );
    assert!(shards.ask(MapOperation::Approve).is_ok());
    shards.pass(200);
    let count = |shards: &mut Shards| shards.counts().get("b").copied().unwrap_or_default();
    shards.answer_waiting(policy(1));
    shards.pass(1_000);
    assert_eq!(count(&mut shards), 4);
    // A new leader has the same bucket.
    shards.elect(member(2));
    shards.pass(200);
    shards.answer_waiting(policy(1));
    shards.pass(1_000);
    assert_eq!(count(&mut shards), 4, "an election refills nothing");
    shards.pass(30_000);
    let later = count(&mut shards);
    assert!((5..=6).contains(&later), "{later}");
}

#[test]
fn a_frozen_map_is_planned_for_once_and_moves_when_it_is_not_frozen_any_more() {
    let config = MapConfig {
        offline_delay_ms: 1_000,
        ..config()
    };
    let mut shards = with_policy(config, 4, 2);
    shards.pass(200);
    let half = |_: &PolicyCall| Ok(assign(&[(0, &[0]), (1, &[0]), (2, &[1]), (3, &[1])]));
    shards.answer_all(half);
    let before = shards.counts();
    assert!(shards.ask(MapOperation::Freeze { frozen: true }).is_ok());
    shards.join("c");
    shards.pass(200);
    let asked = shards.answer_all(everything_to_the_first);
    assert!((1..=3).contains(&asked), "asked {asked} times");
    assert_eq!(shards.counts(), before);
    assert_eq!(
        shards.map().1.breaker,
        None,
        "it was not heard, and is not at fault"
    );
    // What loses its owner gets one all the same.
    shards.close("b");
    shards.pass(1_500);
    shards.answer_all(everything_to_the_first);
    shards.pass(1_000);
    assert_eq!(shards.owned(), 4);
    shards.join("b");
    assert!(shards.ask(MapOperation::Freeze { frozen: false }).is_ok());
    shards.pass(200);
    shards.answer_all(half);
    shards.pass(1_000);
    assert_eq!(shards.counts(), before);
}

#[test]
fn nothing_moves_when_nothing_changed_and_when_the_leader_changes() {
    let mut shards = with_policy(config(), 8, 2);
    shards.pass(200);
    // Keeps what has an owner, and gives the rest to the first.
    let sticky = |call: &PolicyCall| {
        let owned = u32s(call, "replicas", "partition").to_vec();
        let rows: Vec<(u32, &[u32])> = (0..8)
            .filter(|row| !owned.contains(row))
            .map(|row| (row, [0_u32].as_slice()))
            .collect();
        Ok(assign(&rows))
    };
    shards.answer_all(sticky);
    let tokens: Vec<_> = (0..8).map(|it| shards.token(it)).collect();
    for leader in [2, 3, 1] {
        shards.elect(member(leader));
        shards.pass(1_000);
        shards.answer_all(sticky);
    }
    let after: Vec<_> = (0..8).map(|it| shards.token(it)).collect();
    assert_eq!(after, tokens);
}

#[test]
pub(in crate::execution::tests) fn r41_a_suspect_member_gets_nothing_new_and_keeps_what_it_has() {
    let mut shards = Shards::new(config(), 4, 2);
    shards.pass(500);
    let report = GroupOperation::Report {
        healthy: false,
        restart_delay_ms: None,
    };
    assert!(shards.group("a", report).is_ok());
    shards.close("b");
    shards.pass(31_000);
    assert_eq!(
        shards.counts().get("a"),
        Some(&2),
        "what it has it keeps (rule R41)"
    );
    assert_eq!(shards.owned(), 2);
}
