//! What a draft keeps and allows, and what the invariants find.

use folkmoot_sdk::rebalancer::prelude::*;
use folkmoot_sdk::table::{Table, TableError};
use folkmoot_sdk::testing::{TestCluster, violations};

/// Gives each vacancy to the member that has the least.
#[derive(Default)]
struct LeastLoaded;

impl Rebalancer for LeastLoaded {
    fn describe() -> PolicyDescription {
        PolicyDescription::new("least-loaded", "0.1.0", "Fills vacancies.")
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        let mut draft = Draft::keep(input);
        for partition in input.partitions() {
            while draft.lacks(partition.row) {
                let candidates = draft.candidates(partition.row);
                let Some(member) = candidates.min_by_key(|row| draft.held(*row).count) else {
                    break;
                };
                draft.place(partition.row, member);
            }
        }
        Ok(draft.into_plan("placed"))
    }
}

#[test]
fn vacancies_are_filled_and_the_rest_stays() {
    let cluster = TestCluster::new(3, 12).lose("b").check(&LeastLoaded);
    assert_eq!(cluster.moves(), 4);
    assert_eq!(cluster.counts()["b"], 0);
    assert_eq!(cluster.check(&LeastLoaded).moves(), 0);
}

#[test]
fn who_is_away_keeps_what_it_has_but_does_not_lead_what_another_could() {
    let cluster = TestCluster::vacant(3, 9).copies(2).check(&LeastLoaded);
    let led = cluster.leaders()["b"];
    let cluster = cluster.away("b").check(&LeastLoaded);
    assert_eq!((cluster.moves(), cluster.leader_moves()), (0, led));
    assert_eq!(cluster.leaders()["b"], 0);
    let alone = TestCluster::new(3, 9).away("b").check(&LeastLoaded);
    assert_eq!((alone.moves(), alone.leaders()["b"]), (0, 3));
}

#[test]
fn who_drains_gives_everything_away_but_what_has_no_other_place() {
    let cluster = TestCluster::new(3, 9).allow(1, &["b"]).drain("b");
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!(cluster.counts()["b"], 1);
    assert_eq!(cluster.members_of(1), ["b"]);
}

#[test]
fn who_is_cordoned_keeps_what_it_has_and_gets_nothing() {
    let cluster = TestCluster::new(3, 9).cordon("b").lose("c");
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!((cluster.counts()["a"], cluster.counts()["b"]), (6, 3));
}

#[test]
fn replicas_are_in_distinct_zones_where_there_are_as_many() {
    let cluster = TestCluster::vacant(6, 30).copies(3).zones(&["x", "y", "z"]);
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!(cluster.moves(), 90);
    let cluster = cluster.lose("c").lose("f").check(&LeastLoaded);
    assert_eq!(cluster.moves(), 30, "two zones take the third replica");
    let cluster = cluster.join("g", "z").check(&LeastLoaded);
    assert_eq!(cluster.moves(), 30, "and give it back");
}

#[test]
fn a_pin_is_obeyed_or_the_partition_waits() {
    let cluster = TestCluster::new(3, 9).copies(2).pin(0, "b");
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!(cluster.members_of(0)[0], "b");
    let cluster = cluster.lose("b").check(&LeastLoaded);
    assert_eq!(cluster.plan().unplaced().count(), 1);
    assert_eq!(cluster.members_of(0), ["a"], "it is left alone");
}

#[test]
fn what_is_frozen_stays() {
    let frozen = |spec: &mut _| {
        let spec: &mut folkmoot_sdk::rebalancer::PartitionSpec = spec;
        spec.frozen = true;
    };
    let cluster = TestCluster::new(3, 9).with_partition(1, frozen).drain("b");
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!(cluster.members_of(1), ["b"]);
    let cluster = cluster.lose("b").check(&LeastLoaded);
    assert_ne!(cluster.members_of(1), ["b"], "but with its member");
    assert_eq!(cluster.members_of(1).len(), 1);
}

#[test]
fn nobody_gets_more_than_it_can_carry() {
    let cluster = TestCluster::vacant(3, 30)
        .with_member("a", |member| member.max = Some(2))
        .with_member("b", |member| member.capacity[0] = 5);
    let cluster = cluster.check(&LeastLoaded);
    assert_eq!((cluster.counts()["a"], cluster.counts()["b"]), (2, 5));
    let full = TestCluster::vacant(1, 3).with_member("a", |member| member.max = Some(2));
    assert_eq!(full.check(&LeastLoaded).plan().unplaced().count(), 1);
}

#[test]
fn a_move_under_way_counts_as_done() {
    use folkmoot_sdk::rebalancer::{Move, MoveState};
    let cluster = TestCluster::new(3, 9);
    let under_way = Move {
        id: 7,
        partition: PartitionRow(0),
        from: Some(MemberRow(0)),
        to: MemberRow(2),
        state: MoveState::UnderWay,
    };
    let input = cluster.input().with_moves(vec![under_way]);
    assert_eq!(Input::from_tables(&input.to_tables()), Ok(input.clone()));
    let draft = Draft::keep(&input);
    assert_eq!(draft.members_of(PartitionRow(0)), [MemberRow(2)]);
    assert_eq!(draft.held(MemberRow(2)).count, 4);
}

/// Each way to break an invariant is found.
#[test]
fn illegal_plans_are_found() {
    let cluster = TestCluster::new(4, 8)
        .copies(2)
        .zones(&["x", "y"])
        .cordon("d")
        .allow(1, &["a", "b"])
        .pin(2, "c")
        .lose("b");
    let input = cluster.input();
    let found = |partition: u32, members: &[u32]| {
        let good = LeastLoaded.plan(&input).unwrap();
        let mut plan = Plan::new();
        let others = good.assignments();
        for it in others.filter(|it| it.partition != PartitionRow(partition)) {
            plan.assign(it.partition, it.members, it.priority, it.reason.to_owned());
        }
        for it in good.unplaced() {
            plan.leave_unplaced(it.partition, it.missing, it.reason.to_owned());
        }
        let members: Vec<MemberRow> = members.iter().map(|row| MemberRow(*row)).collect();
        plan.assign(PartitionRow(partition), &members, 0, "broken");
        violations(&input, &plan).join("; ")
    };
    assert_eq!(
        violations(&input, &LeastLoaded.plan(&input).unwrap()),
        [""; 0]
    );
    assert!(found(0, &[]).contains("to nobody"));
    assert!(found(0, &[0, 0]).contains("two replicas on a member"));
    assert!(found(0, &[0, 1]).contains("the lost b"));
    assert!(found(0, &[0, 3]).contains("the unavailable d"));
    assert!(found(0, &[0, 2]).contains("in a zone"));
    assert!(found(0, &[0, 2, 3]).contains("too many replicas"));
    assert!(found(1, &[2]).contains("may not be at c"));
    assert!(found(2, &[0]).contains("beside its pin"));
    let nothing = violations(&input, &Plan::new()).join("; ");
    assert!(nothing.contains("lacks replicas"), "{nothing}");
}

/// Tables that are not what they should be are refused by name.
#[test]
fn bad_tables_are_refused() {
    let good = TestCluster::new(3, 9)
        .allow(1, &["a", "b"])
        .input()
        .to_tables();
    let with = |name: &str, column: &str, data| {
        let mut tables = good.clone();
        let table = tables.iter_mut().find(|table| table.name == name).unwrap();
        let column = table.columns.iter_mut().find(|it| it.name == column);
        column.unwrap().data = data;
        Input::from_tables(&tables).unwrap_err().to_string()
    };
    use folkmoot_sdk::table::Data::{F64s, U32s};
    assert!(with("replicas", "member", U32s(vec![3; 9])).contains("a row beyond 3"));
    assert!(with("replicas", "role", U32s(vec![2; 9])).contains("without a meaning"));
    let descending = U32s((0..9).rev().collect());
    assert!(with("replicas", "partition", descending).contains("without a meaning"));
    assert!(with("allowed", "member", U32s(vec![1, 0])).contains("without a meaning"));
    assert!(with("partitions", "load", F64s(vec![f64::NAN; 9])).contains("not finite"));
    assert!(with("partitions", "pin", U32s(vec![9; 9])).contains("a row beyond 3"));
    let mut without: Vec<Table> = good.clone();
    without.retain(|table| table.name != "members");
    let expected = TableError::NoTable("members".to_owned());
    assert_eq!(Input::from_tables(&without), Err(expected));
}
