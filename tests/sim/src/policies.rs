//! Policies that worlds run natively: a standard one, and foolish ones that the kernel has to outlive
//! (rule R37). The kernel never waits for one; an answer takes its time, or never comes.

use folkmoot_core::policy::{
    Cells, Column, PolicyAnswer, PolicyCall, PolicyFailure, PolicyWorld, Table,
};
use folkmoot_fixed_timeout::FixedTimeout;
use folkmoot_phi_accrual::PhiAccrual;
use folkmoot_proto::Digest;
use folkmoot_sdk::detector::{FailureDetector, assess_tables};
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

/// A failure detector that worlds know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detector {
    /// Says what it likes.
    Foolish,
    /// The standard adaptive one.
    Phi,
    /// The standard plain one.
    Fixed,
}

impl Detector {
    pub(crate) const ALL: [Self; 3] = [Self::Foolish, Self::Phi, Self::Fixed];

    /// The bytes that stand for the component.
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Foolish => b"a detector that says what it likes, natively",
            Self::Phi => b"phi-accrual, natively",
            Self::Fixed => b"fixed-timeout, natively",
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
    if let Some(detector) = Detector::of(digest) {
        return Some(format!(
            "{{\"world\":\"failure-detector\",\"name\":\"{detector:?}\"}}"
        ));
    }
    let planner = Planner::of(digest)?;
    Some(format!(
        "{{\"world\":\"rebalancer\",\"name\":\"{planner:?}\",\"needs\":[\"partitions.load\"]}}"
    ))
}

/// Whether a question shows what owners measured.
pub(crate) fn shows_loads(call: &PolicyCall) -> bool {
    let mut tables = call.tables.iter().flatten();
    tables.any(|table| table.column("load").is_some())
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
    if call.tables.is_none() {
        return Some(Ok(Vec::new()));
    }
    Some(match call.world {
        PolicyWorld::Rebalancer => plan(call, dice),
        PolicyWorld::FailureDetector => assess(call, dice),
    })
}

fn assess(call: &PolicyCall, dice: &mut Dice) -> PolicyAnswer {
    match Detector::of(call.digest) {
        None => Err(PolicyFailure::NotReady),
        Some(Detector::Foolish) => Ok(assess_foolishly(call, dice)),
        Some(Detector::Phi) => assess_by(&PhiAccrual::default(), call),
        Some(Detector::Fixed) => assess_by(&FixedTimeout::default(), call),
    }
}

fn assess_by(detector: &impl FailureDetector, call: &PolicyCall) -> PolicyAnswer {
    let tables: Vec<table::Table> = call.tables.iter().flatten().map(to_sdk).collect();
    // What the kernel gives is always what a policy can take.
    let verdicts = assess_tables(detector, &tables).unwrap_or_else(|error| panic!("{error:?}"));
    Ok(verdicts.iter().map(from_sdk).collect())
}

/// Suspects and holds whom it likes, and speaks of touches that never were.
fn assess_foolishly(call: &PolicyCall, dice: &mut Dice) -> Vec<Table> {
    let subjects = call
        .tables
        .iter()
        .flatten()
        .find(|table| table.name == "subjects");
    let column = |name: &str| match subjects.and_then(|table| table.column(name)) {
        Some(Cells::U64s(cells)) => cells.as_slice(),
        _ => &[],
    };
    let mut rows: Vec<(u64, u64)> = Vec::new();
    for (key, touch) in column("key").iter().zip(column("touch")) {
        match dice.below(10) {
            0 => {}
            1 => rows.push((*key, touch + 1)),
            _ => rows.push((*key, *touch)),
        }
    }
    let one_of = |dice: &mut Dice, choices: &[u64]| dice.pick(choices).copied().unwrap_or(0);
    let holds = rows.iter().map(|_| one_of(dice, &[0, 0, 500, 60_000]));
    let holds: Vec<u64> = holds.collect();
    let suspect = rows.iter().map(|_| u32::from(dice.chance(500)));
    let suspect: Vec<u32> = suspect.collect();
    let verdicts = Table::new("verdicts", rows.len())
        .with(
            "key",
            Cells::U64s(rows.iter().map(|(key, _)| *key).collect()),
        )
        .with(
            "touch",
            Cells::U64s(rows.iter().map(|(_, touch)| *touch).collect()),
        )
        .with("suspicion", Cells::F64s(vec![1.0; rows.len()]))
        .with("suspect", Cells::U32s(suspect))
        .with("hold-ms", Cells::U64s(holds));
    vec![verdicts]
}

fn plan(call: &PolicyCall, dice: &mut Dice) -> PolicyAnswer {
    let Some(planner) = Planner::of(call.digest) else {
        return Err(PolicyFailure::NotReady);
    };
    let tables: Vec<table::Table> = call.tables.iter().flatten().map(to_sdk).collect();
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
