//! When a policy, or the kernel's own plan, is asked again: nothing that could be done is left for
//! ever, and who does nothing wrong keeps its breaker closed.

use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::partition::{MapConfig, MapOperation, PartitionId};
use folkmoot_proto::reply::Outcome;

use super::Shards;
use super::plans::{assign, keeps_all, u32s, with_policy};
use crate::policy::{Cells, PolicyAnswer, PolicyCall, Table};

const FIRST: PartitionId = PartitionId(0);

fn replicas(shards: &Shards) -> Vec<u32> {
    let replicas = shards.assignment(FIRST).replicas.into_iter();
    let mut members: Vec<u32> = replicas.map(|replica| replica.member.0).collect();
    members.sort_unstable();
    members
}

fn two_replicas() -> MapConfig {
    MapConfig {
        replicas: 2,
        offline_delay_ms: 2_000,
        ..MapConfig::default()
    }
}

fn one_replica() -> MapConfig {
    MapConfig {
        approval_percent: 100,
        ..MapConfig::default()
    }
}

fn live(call: &PolicyCall) -> &[u32] {
    u32s(call, "members", "live")
}

/// The last member that lives.
fn newest(call: &PolicyCall) -> u32 {
    let newest = live(call).iter().rposition(|live| *live == 1);
    u32::try_from(newest.expect("somebody lives")).expect("few")
}

/// A policy that keeps what it has, of those that live or are waited for, and fills up to two.
fn keeps_two(call: &PolicyCall) -> PolicyAnswer {
    let (live, intent) = (live(call), u32s(call, "members", "intent"));
    let had = u32s(call, "replicas", "member");
    let may = |row: &u32| {
        let row_live = live.get(*row as usize).copied();
        let stays = intent.get(*row as usize) == Some(&0);
        stays && (row_live == Some(1) || (row_live == Some(2) && had.contains(row)))
    };
    let mut to: Vec<u32> = (0..4).filter(may).collect();
    to.sort_by_key(|row| !had.contains(row));
    to.truncate(2);
    to.sort_by_key(|row| live.get(*row as usize) != Some(&1));
    Ok(assign(&[(0, &to)]))
}

/// The second worker joins while the first one catches up.
#[test]
fn who_joins_while_a_partition_moves_gets_a_replica_after_it() {
    let mut shards = Shards::without_map(1);
    shards.obedient = false;
    shards.create(two_replicas(), 4);
    shards.pass(500);
    shards.join("b");
    shards.pass(500);
    shards.obedient = true;
    shards.pass(10_000);
    assert_eq!(replicas(&shards), [0, 1]);
}

/// `c` takes over from `a`, which drains, while `b` is waited for; its delay ends meanwhile.
#[test]
fn who_was_waited_for_is_replaced_when_a_move_has_outlasted_that() {
    let mut shards = Shards::new(two_replicas(), 1, 2);
    shards.pass(2_000);
    shards.join("c");
    shards.join("d");
    shards.pass(500);
    let owner = shards.owner_name(0).expect("an owner");
    shards.obedient = false;
    shards.close(if owner == "a" { "b" } else { "a" });
    shards.pass(200);
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.ask_group(&owner, drain).is_ok());
    shards.pass(4_500);
    assert!(shards.assignment(FIRST).movement.is_some());
    shards.obedient = true;
    shards.pass(10_000);
    assert_eq!(replicas(&shards), [2, 3]);
}

/// The same with a policy, which has done nothing wrong.
#[test]
fn a_policy_may_replace_who_is_waited_for_no_more() {
    let mut shards = with_policy(two_replicas(), 1, 4);
    shards.pass(200);
    shards.answer_all(keeps_two);
    assert_eq!(replicas(&shards), [0, 1]);
    shards.obedient = false;
    shards.close("b");
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.ask_group("a", drain).is_ok());
    for _ in 0..2 {
        shards.pass(200);
        shards.answer_waiting(keeps_two);
    }
    shards.pass(4_000);
    shards.answer_waiting(keeps_two);
    shards.obedient = true;
    shards.answer_all(keeps_two);
    assert_eq!(shards.map().1.breaker, None);
    assert_eq!(replicas(&shards), [2, 3]);
}

/// Two of three replicas are given on purpose, and one of them goes for good.
#[test]
fn the_end_of_an_offline_delay_is_noticed_where_replicas_are_lacking_anyway() {
    let config = MapConfig {
        replicas: 3,
        ..two_replicas()
    };
    let mut shards = with_policy(config, 1, 3);
    shards.pass(200);
    shards.answer_all(keeps_two);
    shards.close("b");
    shards.answer_all(keeps_two);
    shards.pass(4_000);
    shards.answer_all(keeps_two);
    assert_eq!(replicas(&shards), [0, 2]);
}

/// A move to a policy's single target is given up; an operator's later move there is no plan's.
#[test]
fn what_a_plan_wanted_that_was_given_up_holds_no_question_back() {
    let config = MapConfig {
        prepare_timeout_ms: 2_000,
        ..two_replicas()
    };
    let mut shards = with_policy(config, 1, 2);
    let gives = |to: &'static [u32]| move |_: &PolicyCall| Ok(assign(&[(0, to)]));
    shards.pass(200);
    shards.answer_all(gives(&[0, 1]));
    shards.obedient = false;
    shards.join("c");
    shards.pass(200);
    shards.answer_waiting(gives(&[2]));
    shards.pass(3_100);
    assert!(shards.assignment(FIRST).movement.is_none());
    shards.answer_all(keeps_all);
    let to_c = MapOperation::Move {
        partition: FIRST,
        members: vec!["c".to_owned()],
    };
    shards.obedient = true;
    assert_eq!(shards.ask(to_c), Ok(Outcome::MapChanged));
    // For what the operator did, and for what is lacking once that is done.
    let asked = shards.answer_all(keeps_all);
    assert_eq!(replicas(&shards), [2]);
    assert!(asked > 1, "nobody asks for the other replica");
}

/// `c` joins while the first partition moves to `b`: what the policy says of it then can not be done,
/// and what it says of the second one can. Once that is done it is asked for the rest, which is no fault
/// of its.
fn moves_to_the_newest(second_too: bool, answers_late: bool) {
    let policy = |call: &PolicyCall| -> PolicyAnswer {
        let newest = newest(call);
        let second = if second_too && newest == 2 { 2 } else { 0 };
        Ok(assign(&[(0, &[newest]), (1, &[second]), (2, &[0])]))
    };
    let mut shards = with_policy(one_replica(), 3, 1);
    shards.pass(200);
    shards.answer_all(policy);
    shards.obedient = false;
    shards.join("b");
    shards.answer_all(policy);
    assert!(shards.assignment(FIRST).movement.is_some());
    shards.join("c");
    if answers_late {
        shards.pass(200);
        let questions = shards.questions();
        shards.obedient = true;
        shards.pass(100);
        assert!(shards.assignment(FIRST).movement.is_none());
        for (at, id, call) in questions {
            shards.answer((at, id), policy(&call));
        }
    }
    shards.answer_all(policy);
    shards.obedient = true;
    shards.pass(1_000);
    shards.answer_all(policy);
    assert_eq!(shards.map().1.breaker, None);
    assert_eq!(shards.owner_name(0).as_deref(), Some("c"));
}

#[test]
fn a_policy_may_plan_for_what_was_moving() {
    moves_to_the_newest(true, false);
}

#[test]
fn a_policy_may_plan_for_what_had_moved_when_its_answer_came() {
    moves_to_the_newest(true, true);
}

#[test]
fn a_policy_is_asked_for_what_was_moving_though_nothing_else_is_to_move() {
    moves_to_the_newest(false, false);
}

/// `b` begins to drain while the only partition moves to it; its load is reported before it has moved.
fn drains_while_it_is_moved_to(reports: bool) {
    let mut shards = Shards::new(MapConfig::default(), 1, 1);
    shards.pass(1_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
    shards.join("b");
    shards.pass(1_000);
    shards.obedient = false;
    let to_b = MapOperation::Move {
        partition: FIRST,
        members: vec!["b".to_owned()],
    };
    assert_eq!(shards.ask(to_b), Ok(Outcome::MapChanged));
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.ask_group("b", drain).is_ok());
    shards.pass(500);
    assert!(shards.assignment(FIRST).movement.is_some());
    if reports {
        shards.send_load("a", 0, shards.token(0), 7);
    }
    shards.obedient = true;
    shards.pass(5_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
}

#[test]
fn what_moves_to_a_member_that_drains_moves_on() {
    drains_while_it_is_moved_to(false);
    drains_while_it_is_moved_to(true);
}

/// It has itself asked each second while a move takes longer.
#[test]
fn a_policy_that_moves_to_and_fro_is_caught_though_it_wants_to_be_asked_again() {
    let mut shards = with_policy(one_replica(), 1, 2);
    shards.pass(200);
    let policy = |call: &PolicyCall| {
        let has = u32s(call, "replicas", "member").first().copied();
        let moves = u32s(call, "moves", "to").first().copied();
        let to = [moves.unwrap_or_else(|| 1 - has.unwrap_or(1))];
        let mut tables = assign(&[(0, to.as_slice())]);
        tables.push(Table::new("again", 1).with("after", Cells::U64s(vec![1_000])));
        Ok(tables)
    };
    let mut moving_for = 0;
    for _ in 0..200 {
        let moving = shards.assignment(FIRST).movement.is_some();
        moving_for = if moving { moving_for + 1 } else { 0 };
        shards.obedient = moving_for > 15;
        shards.answer_waiting(policy);
        shards.pass(100);
    }
    let breaker = shards.map().1.breaker.expect("an open breaker");
    assert!(breaker.contains("plans anew"), "{breaker}");
}
