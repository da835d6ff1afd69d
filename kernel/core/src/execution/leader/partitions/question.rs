//! What a rebalancer sees, as tables (`docs/plugins/policies.md`): some partitions a turn, so that a
//! large map holds nobody up (rule R19).

use core::ops::ControlFlow;
use std::collections::BTreeMap;

use folkmoot_proto::partition::{
    MapRecord, MemberNo, Owner, PartitionId, PartitionRecord, Replica, key_hash,
};
use folkmoot_proto::{LogTime, MapId, Zxid};

use super::roster::{Facts, Roster};
use crate::policy::{Cells, Table};
use crate::state::{Key, Value, View};

/// No row.
const NONE: u32 = u32::MAX;
/// Kinds of weight and capacity.
pub(super) const DIMENSIONS: usize = 4;
const WEIGHTS: [&str; DIMENSIONS] = ["weight", "weight-2", "weight-3", "weight-4"];
const CAPACITIES: [&str; DIMENSIONS] = ["capacity", "capacity-2", "capacity-3", "capacity-4"];

/// What the rows of a question are, and were when it was asked.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) members: Vec<(MemberNo, Option<Zxid>)>,
    pub(super) partitions: Vec<(PartitionId, Option<Owner>)>,
}

/// The tables that a rebalancer gets, as far as they are gathered: members as they were when it was
/// begun, each partition as it was when it was gathered.
#[derive(Debug)]
pub(super) struct Question {
    map: MapId,
    group: String,
    /// The partition to go on with; none when all are there.
    next: Option<PartitionId>,
    members: BTreeMap<MemberNo, Facts>,
    row_of: BTreeMap<MemberNo, u32>,
    partitions: Partitions,
    replicas: Replicas,
    allowed: Allowed,
    moves: Moves,
}

/// Columns of `partitions`.
#[derive(Debug, Default)]
struct Partitions {
    rows: Vec<(PartitionId, Option<Owner>)>,
    key: Vec<u64>,
    move_cost: Vec<u64>,
    pin: Vec<u32>,
    flags: Vec<u32>,
    weights: [Vec<u64>; DIMENSIONS],
}

/// Columns of `replicas`.
#[derive(Debug, Default)]
struct Replicas {
    partition: Vec<u32>,
    member: Vec<u32>,
    role: Vec<u32>,
    ready: Vec<u32>,
}

/// Columns of `allowed`.
#[derive(Debug, Default)]
struct Allowed {
    partition: Vec<u32>,
    member: Vec<u32>,
}

/// Columns of `moves`.
#[derive(Debug, Default)]
struct Moves {
    id: Vec<u64>,
    partition: Vec<u32>,
    from: Vec<u32>,
    to: Vec<u32>,
}

impl Question {
    /// One about a map, with its members.
    pub(super) fn new(view: &impl View, (map, record): (MapId, &MapRecord)) -> Self {
        let members = Roster::new(record).into_all(view, record);
        let row_of = members.keys().copied().zip(0..).collect();
        Self {
            map,
            group: record.group.clone(),
            next: Some(PartitionId(0)),
            members,
            row_of,
            partitions: Partitions::default(),
            replicas: Replicas::default(),
            allowed: Allowed::default(),
            moves: Moves::default(),
        }
    }

    /// Gathers the next partitions, at most `most` of them. True when all are there.
    pub(super) fn gather(&mut self, view: &impl View, most: usize) -> bool {
        let Some(first) = self.next.take() else {
            return true;
        };
        let map = self.map;
        let mut left = most;
        view.scan(&Key::Partition(map, first), &mut |key, value| {
            let (&Key::Partition(of, id), Value::Partition(record)) = (key, value) else {
                return ControlFlow::Break(());
            };
            if of != map {
                return ControlFlow::Break(());
            }
            if left == 0 {
                self.next = Some(id);
                return ControlFlow::Break(());
            }
            left -= 1;
            self.add(id, record);
            ControlFlow::Continue(())
        });
        self.next.is_none()
    }

    fn add(&mut self, id: PartitionId, record: &PartitionRecord) {
        let row = u32::try_from(self.partitions.rows.len()).unwrap_or(NONE);
        self.partitions.add(&self.group, id, record, &self.row_of);
        let members = (&self.members, &self.row_of);
        self.replicas.add(row, record, members);
        let allowed = record.spec.allowed.iter();
        for member in allowed.filter_map(|member| self.row_of.get(member)) {
            self.allowed.partition.push(row);
            self.allowed.member.push(*member);
        }
        self.moves.add(row, record, &self.row_of);
    }

    /// The tables, and what their rows are, given how many replicas are wanted, why it is asked, and
    /// when.
    pub(super) fn finish(self, replicas: u32, trigger: &str, now: LogTime) -> (Vec<Table>, Rows) {
        let members = self.members.iter();
        let rows = Rows {
            members: members
                .map(|(member, facts)| (*member, facts.incarnation))
                .collect(),
            partitions: self.partitions.rows.clone(),
        };
        let tables = vec![
            self.partitions.table(replicas),
            self.replicas.table(),
            member_table(&self.members, now),
            self.allowed.table(),
            self.moves.table(),
            request_table(self.map, trigger, now),
        ];
        (tables, rows)
    }
}

impl Partitions {
    fn add(
        &mut self,
        group: &str,
        id: PartitionId,
        record: &PartitionRecord,
        row_of: &BTreeMap<MemberNo, u32>,
    ) {
        let spec = &record.spec;
        let pin = spec.pin.and_then(|pin| row_of.get(&pin).copied());
        self.rows.push((id, record.assignment.owner));
        self.key.push(key_hash(format!("{group}/{id}").as_bytes()));
        self.move_cost.push(spec.move_cost);
        self.pin.push(pin.unwrap_or(NONE));
        self.flags.push(u32::from(spec.frozen));
        for (dimension, weights) in self.weights.iter_mut().enumerate() {
            weights.push(spec.weights.get(dimension).copied().unwrap_or_default());
        }
    }

    fn table(self, replicas: u32) -> Table {
        let ids = self.rows.iter().map(|(id, _)| u64::from(id.0));
        let mut table = Table::new("partitions", self.rows.len())
            .with("id", Cells::U64s(ids.collect()))
            .with("key", Cells::U64s(self.key))
            .with("replicas", Cells::U32s(vec![replicas; self.rows.len()]))
            .with("move-cost", Cells::U64s(self.move_cost))
            .with("pin", Cells::U32s(self.pin))
            .with("flags", Cells::U32s(self.flags));
        for (dimension, (name, weights)) in WEIGHTS.iter().zip(self.weights).enumerate() {
            if dimension == 0 || weights.iter().any(|weight| *weight > 0) {
                table = table.with(name, Cells::U64s(weights));
            }
        }
        table
    }
}

impl Replicas {
    /// Where a partition is; one that is moving is where it will be.
    fn add(
        &mut self,
        row: u32,
        record: &PartitionRecord,
        (members, row_of): (&BTreeMap<MemberNo, Facts>, &BTreeMap<MemberNo, u32>),
    ) {
        let of = &record.assignment;
        let mut add = |member: MemberNo, leads: bool| {
            let Some(member_row) = row_of.get(&member) else {
                return;
            };
            let lives = members.get(&member).and_then(|facts| facts.incarnation);
            let is_ready = |it: &Replica| it.ready && lives == Some(it.incarnation);
            let replica = of.replicas.iter().find(|replica| replica.member == member);
            self.partition.push(row);
            self.member.push(*member_row);
            self.role.push(u32::from(!leads));
            self.ready.push(u32::from(replica.is_some_and(is_ready)));
        };
        if let Some(movement) = &of.movement {
            for (place, member) in movement.target.iter().enumerate() {
                add(*member, place == 0);
            }
        } else {
            let owner = of.owner.map(|owner| owner.member);
            for replica in &of.replicas {
                add(replica.member, Some(replica.member) == owner);
            }
        }
    }

    fn table(self) -> Table {
        Table::new("replicas", self.partition.len())
            .with("partition", Cells::U32s(self.partition))
            .with("member", Cells::U32s(self.member))
            .with("role", Cells::U32s(self.role))
            .with("ready", Cells::U32s(self.ready))
    }
}

impl Allowed {
    fn table(self) -> Table {
        Table::new("allowed", self.partition.len())
            .with("partition", Cells::U32s(self.partition))
            .with("member", Cells::U32s(self.member))
    }
}

impl Moves {
    fn add(&mut self, row: u32, record: &PartitionRecord, row_of: &BTreeMap<MemberNo, u32>) {
        let of = &record.assignment;
        let Some(movement) = &of.movement else {
            return;
        };
        let first = movement.target.first();
        if let Some(first) = first.and_then(|member| row_of.get(member)) {
            let owner = of.owner.and_then(|owner| row_of.get(&owner.member));
            self.id.push(movement.id.0);
            self.partition.push(row);
            self.from.push(owner.copied().unwrap_or(NONE));
            self.to.push(*first);
        }
    }

    fn table(self) -> Table {
        let state = vec![0; self.id.len()];
        Table::new("moves", self.id.len())
            .with("id", Cells::U64s(self.id))
            .with("partition", Cells::U32s(self.partition))
            .with("from", Cells::U32s(self.from))
            .with("to", Cells::U32s(self.to))
            .with("state", Cells::U32s(state))
    }
}

fn member_table(facts: &BTreeMap<MemberNo, Facts>, now: LogTime) -> Table {
    let all = || facts.values();
    let live = |it: &Facts| match (it.lives(), it.is_awaited(now)) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    };
    let intent = |it: &Facts| match (it.draining, it.cordoned) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    };
    let key = |it: &Facts| key_hash(it.name.as_bytes());
    let mut table = Table::new("members", facts.len())
        .with(
            "name",
            Cells::Strings(all().map(|it| it.name.clone()).collect()),
        )
        .with("key", Cells::U64s(all().map(key).collect()))
        .with("live", Cells::U32s(all().map(live).collect()))
        .with(
            "topology",
            Cells::Strings(all().map(|it| it.zone.clone()).collect()),
        )
        .with("intent", Cells::U32s(all().map(intent).collect()));
    for (dimension, name) in CAPACITIES.iter().enumerate() {
        let capacities: Vec<u64> = all().map(|it| capacity(it, dimension)).collect();
        if capacities.iter().any(|capacity| *capacity != u64::MAX) {
            table = table.with(name, Cells::U64s(capacities));
        }
    }
    table
}

/// What a member can carry of a kind.
pub(super) fn capacity(of: &Facts, dimension: usize) -> u64 {
    of.capacity.get(dimension).copied().unwrap_or(u64::MAX)
}

fn request_table(map: MapId, trigger: &str, now: LogTime) -> Table {
    Table::new("request", 1)
        .with("trigger", Cells::Strings(vec![trigger.to_owned()]))
        .with("mode", Cells::U32s(vec![0]))
        .with("budget", Cells::U32s(vec![NONE]))
        .with("seed", Cells::U64s(vec![map.0]))
        .with("now", Cells::U64s(vec![now.0]))
}
