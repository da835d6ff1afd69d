//! Policies that worlds run natively: a standard one, and foolish ones that the kernel has to outlive
//! (rule R37). The kernel never waits for one; an answer takes its time, or never comes.

use folkmoot_core::policy::{Cells, Column, PolicyAnswer, PolicyCall, PolicyFailure, Table};
use folkmoot_proto::Digest;
use folkmoot_sdk::rebalancer::prelude::{Input, MemberRow, PartitionRow, Plan, Rebalancer, Row};
use folkmoot_sdk::table;
use folkmoot_sticky_balanced::StickyBalanced;

use crate::dice::Dice;

/// A policy that worlds know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planner {
    /// The standard policy.
    Sticky,
    /// Somewhere else each time.
    Random,
    /// Everything on one member.
    OneForAll,
    /// Members and partitions that are not there, and twice.
    Nonsense,
}

impl Planner {
    pub(crate) const ALL: [Self; 4] = [Self::Sticky, Self::Random, Self::OneForAll, Self::Nonsense];

    /// The bytes that stand for the component.
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Sticky => b"sticky-balanced, natively",
            Self::Random => b"somewhere else each time, natively",
            Self::OneForAll => b"everything on one member, natively",
            Self::Nonsense => b"nonsense, natively",
        }
    }

    pub(crate) fn digest(self) -> Digest {
        Digest::of(self.bytes())
    }

    fn of(digest: Digest) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.digest() == digest)
    }
}

/// What an examination of a policy's bytes finds.
pub(crate) fn examine(digest: Digest) -> Option<String> {
    let planner = Planner::of(digest)?;
    Some(format!(
        "{{\"world\":\"rebalancer\",\"name\":\"{planner:?}\"}}"
    ))
}

/// What the policy that is asked answers; nothing now and then, where policies fail.
pub(crate) fn answer(call: &PolicyCall, dice: &mut Dice, fails: bool) -> Option<PolicyAnswer> {
    if fails && dice.chance(20) {
        return None;
    }
    if fails && dice.chance(50) {
        return Some(Err(PolicyFailure::Fault {
            kind: "trap".to_owned(),
            message: "at random".to_owned(),
        }));
    }
    Some(plan(call, dice))
}

fn plan(call: &PolicyCall, dice: &mut Dice) -> PolicyAnswer {
    let Some(planner) = Planner::of(call.digest) else {
        return Err(PolicyFailure::NotReady);
    };
    let tables: Vec<table::Table> = call.tables.iter().map(to_sdk).collect();
    let input = Input::from_tables(&tables).unwrap_or_else(|error| panic!("{error}"));
    let plan = match planner {
        Planner::Sticky => StickyBalanced::default()
            .plan(&input)
            .map_err(|rejection| PolicyFailure::Rejected {
                code: rejection.code,
                message: rejection.message,
            })?,
        Planner::Random => each(&input, |_| dice.below(u64::MAX)),
        Planner::OneForAll => each(&input, |_| 0),
        Planner::Nonsense => nonsense(&input, dice),
    };
    Ok(plan.into_tables().iter().map(from_sdk).collect())
}

/// A plan that gives each partition to the members from some place on.
fn each(input: &Input, mut place: impl FnMut(PartitionRow) -> u64) -> Plan {
    let mut plan = Plan::new();
    let members: Vec<MemberRow> = input
        .members()
        .iter()
        .filter(|(_, member)| member.takes())
        .map(|(row, _)| row)
        .collect();
    if members.is_empty() {
        return plan;
    }
    for partition in input.partitions() {
        let first = place(partition.row) as usize % members.len();
        let wanted = (partition.spec.copies as usize).min(members.len());
        let chosen = members.iter().cycle().skip(first).take(wanted);
        plan.assign(
            partition.row,
            &chosen.copied().collect::<Vec<_>>(),
            0,
            "as it likes",
        );
    }
    plan
}

fn nonsense(input: &Input, dice: &mut Dice) -> Plan {
    let mut plan = Plan::new();
    for _ in 0..dice.between(1, 6) {
        let partition = PartitionRow::at(dice.below(input.partitions().len() as u64 + 2) as usize);
        let members = input.members().len() as u64 + 2;
        let member = MemberRow::at(dice.below(members) as usize);
        let other = MemberRow::at(dice.below(members) as usize);
        plan.assign(partition, &[member, other], 7, "nonsense");
    }
    plan
}

fn to_sdk(of: &Table) -> table::Table {
    let cells = |cells: &Cells| match cells.clone() {
        Cells::U32s(cells) => table::Data::U32s(cells),
        Cells::U64s(cells) => table::Data::U64s(cells),
        Cells::F64s(cells) => table::Data::F64s(cells),
        Cells::Strings(cells) => table::Data::Strings(cells),
        Cells::Other(bytes) => table::Data::Other(bytes),
    };
    let column = |column: &Column| table::Column {
        name: column.name.clone(),
        data: cells(&column.data),
    };
    table::Table {
        name: of.name.clone(),
        rows: of.rows,
        columns: of.columns.iter().map(column).collect(),
    }
}

fn from_sdk(of: &table::Table) -> Table {
    let cells = |data: &table::Data| match data.clone() {
        table::Data::U32s(cells) => Cells::U32s(cells),
        table::Data::U64s(cells) => Cells::U64s(cells),
        table::Data::F64s(cells) => Cells::F64s(cells),
        table::Data::Strings(cells) => Cells::Strings(cells),
        table::Data::Other(bytes) => Cells::Other(bytes),
    };
    let column = |column: &table::Column| Column {
        name: column.name.clone(),
        data: cells(&column.data),
    };
    Table {
        name: of.name.clone(),
        rows: of.rows,
        columns: of.columns.iter().map(column).collect(),
    }
}
