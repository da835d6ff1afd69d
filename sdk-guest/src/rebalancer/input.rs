//! What a rebalancer sees.

use core::ops::Deref;
use std::collections::BTreeSet;

use super::rows::{Each, MemberRow, PartitionRow, Row, ZoneRow};
use crate::table::{Cell, NONE, Table, TableError, table};

/// Kinds of weight and capacity, such as memory and requests.
pub const DIMENSIONS: usize = 4;

/// A weight or a capacity in each dimension; 0 and [`u64::MAX`] in those that are not used. A
/// weight is at most [`WEIGHT_MAX`].
pub type Weights = [u64; DIMENSIONS];

/// The greatest weight, so that the sum of a million of them fits 63 bits.
pub const WEIGHT_MAX: u64 = 1 << 42;

const WEIGHTS: [&str; DIMENSIONS] = ["weight", "weight-2", "weight-3", "weight-4"];
const CAPACITIES: [&str; DIMENSIONS] = ["capacity", "capacity-2", "capacity-3", "capacity-4"];
/// The flag of a partition that must not be moved.
const FROZEN: u32 = 1;

/// Whether a member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is gone, and its replicas with it.
    Gone,
    /// It lives.
    Live,
    /// It is absent, but within the time that it is waited for: it keeps what it has, gets nothing,
    /// and leads nothing that a ready replica elsewhere could lead.
    Away,
}

/// What an operator wants of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It serves.
    Serve,
    /// It keeps what it has, and gets nothing.
    Cordon,
    /// It gives away what it has.
    Drain,
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// A hash of its name, the same for ever.
    pub key: u64,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Since when, in milliseconds on the log clock.
    pub since_ms: u64,
    /// What it can carry; [`u64::MAX`] where there is no limit.
    pub capacity: Weights,
    /// Where it is: `zone`, or `zone/rack`. Without one it is a zone of its own.
    pub topology: String,
    /// What an operator wants of it.
    pub intent: Intent,
    /// How many replicas it may have.
    pub max: Option<u32>,
}

impl Member {
    /// A live member that serves, without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, key: u64) -> Self {
        Self {
            name: name.into(),
            key,
            liveness: Liveness::Live,
            since_ms: 0,
            capacity: [u64::MAX; DIMENSIONS],
            topology: String::new(),
            intent: Intent::Serve,
            max: None,
        }
    }

    /// Whether it can get replicas.
    #[must_use]
    #[inline]
    pub fn takes(&self) -> bool {
        self.liveness == Liveness::Live && self.intent == Intent::Serve
    }

    /// The name of its zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        match self.topology.split('/').next() {
            None | Some("") => &self.name,
            Some(zone) => zone,
        }
    }
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It owns the partition.
    Leader,
    /// It follows.
    Follower,
}

/// A replica as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where.
    pub member: MemberRow,
    /// What it does.
    pub role: Role,
    /// Whether it could lead.
    pub ready: bool,
}

/// A measured load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// In the unit of the group's reports.
    pub value: f64,
    /// How old the report is, in milliseconds.
    pub age_ms: u64,
}

/// What a partition is, beside its replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionSpec {
    /// Its id in the group.
    pub id: u64,
    /// A hash of its id and group, the same for ever.
    pub key: u64,
    /// How many replicas it should have, the leader among them.
    pub copies: u32,
    /// What each replica weighs.
    pub weights: Weights,
    /// Its measured load; none if nothing was reported.
    pub load: Option<Load>,
    /// What it costs to move a replica, in the unit of the group, such as bytes.
    pub move_cost: u64,
    /// How long it has had no work, in milliseconds; 0 where that is not reported.
    pub idle_ms: u64,
    /// The only member that may lead it.
    pub pin: Option<MemberRow>,
    /// The member that should lead it, all else equal.
    pub affinity: Option<MemberRow>,
    /// It must not be moved.
    pub frozen: bool,
}

impl PartitionSpec {
    /// A partition of weight 1 that should have so many replicas.
    #[must_use]
    pub fn new(id: u64, key: u64, copies: u32) -> Self {
        Self {
            id,
            key,
            copies,
            weights: [1, 0, 0, 0],
            load: None,
            move_cost: 1,
            idle_ms: 0,
            pin: None,
            affinity: None,
            frozen: false,
        }
    }
}

/// A partition and its replicas.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    /// Its row.
    pub row: PartitionRow,
    /// What it is.
    pub spec: &'a PartitionSpec,
    /// Where it is; at most one leads.
    pub replicas: &'a [Replica],
    /// The only members that may have it, in ascending order; empty for all.
    pub allowed: &'a [MemberRow],
}

impl Partition<'_> {
    /// The member that leads it.
    #[must_use]
    pub fn leader(&self) -> Option<MemberRow> {
        let leader = self
            .replicas
            .iter()
            .find(|replica| replica.role == Role::Leader);
        leader.map(|replica| replica.member)
    }

    /// Whether the member may have it.
    #[must_use]
    pub fn allows(&self, member: MemberRow) -> bool {
        allows(self.allowed, member)
    }
}

impl Deref for Partition<'_> {
    type Target = PartitionSpec;

    fn deref(&self) -> &PartitionSpec {
        self.spec
    }
}

/// Whether a member is one of those that may have a partition.
#[inline]
pub(super) fn allows(allowed: &[MemberRow], member: MemberRow) -> bool {
    allowed.is_empty() || allowed.binary_search(&member).is_ok()
}

/// How a move is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveState {
    /// It is under way.
    UnderWay,
    /// It failed, not long ago.
    Failed,
}

/// A replica's move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The zxid with which it began.
    pub id: u64,
    /// The partition.
    pub partition: PartitionRow,
    /// Who gives the replica up; none if it is one more.
    pub from: Option<MemberRow>,
    /// Who gets it.
    pub to: MemberRow,
    /// How it is doing.
    pub state: MoveState,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A target for the whole group.
    #[default]
    Full,
    /// Places for what has none, and no move else.
    Place,
}

/// Why and how the policy is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What happened, such as `join`, `leave`, `drain`, `load` or `request`.
    pub trigger: String,
    /// What is asked for.
    pub mode: Mode,
    /// How many moves may begin before the next request; none for any number.
    pub budget: Option<u32>,
    /// What chance may be made of. The same for as long as nothing changes.
    pub seed: u64,
    /// Milliseconds on the log clock.
    pub now_ms: u64,
}

/// Everything that a rebalancer sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    members: Each<MemberRow, Member>,
    zones: Each<MemberRow, ZoneRow>,
    zone_count: usize,
    specs: Each<PartitionRow, PartitionSpec>,
    /// All replicas in the order of partitions, and where those of each begin and the last end.
    replicas: Vec<Replica>,
    replica_offsets: Vec<u32>,
    allowed: Vec<MemberRow>,
    allowed_offsets: Vec<u32>,
    moves: Vec<Move>,
    /// Why and how the policy is asked.
    pub request: Request,
}

impl Input {
    /// Members, and partitions without replicas. The order of members is that of their rows.
    #[must_use]
    pub fn new(members: Vec<Member>, partitions: Vec<PartitionSpec>) -> Self {
        let offsets = vec![0; partitions.len() + 1];
        let (zones, zone_count) = zones_of(&members);
        Self {
            members: Each::of(members),
            zones,
            zone_count,
            specs: Each::of(partitions),
            replicas: Vec::new(),
            replica_offsets: offsets.clone(),
            allowed: Vec::new(),
            allowed_offsets: offsets,
            moves: Vec::new(),
            request: Request::default(),
        }
    }

    /// The same with each partition's replicas, in the order of partitions.
    #[must_use]
    pub fn with_replicas<'a>(mut self, replicas: impl IntoIterator<Item = &'a [Replica]>) -> Self {
        (self.replicas, self.replica_offsets) = flatten(replicas, self.specs.len());
        self
    }

    /// The same with each partition's allowed members, in the order of partitions; empty for all.
    #[must_use]
    pub fn with_allowed<'a>(mut self, allowed: impl IntoIterator<Item = &'a [MemberRow]>) -> Self {
        (self.allowed, self.allowed_offsets) = flatten(allowed, self.specs.len());
        self
    }

    /// The same with moves.
    #[must_use]
    pub fn with_moves(mut self, moves: Vec<Move>) -> Self {
        self.moves = moves;
        self
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &Each<MemberRow, Member> {
        &self.members
    }

    /// A member's zone.
    #[must_use]
    #[inline]
    pub fn zone(&self, member: MemberRow) -> ZoneRow {
        self.zones[member]
    }

    /// How many zones there are.
    #[must_use]
    pub fn zone_count(&self) -> usize {
        self.zone_count
    }

    /// The partitions.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = Partition<'_>> {
        self.specs.rows().map(|row| self.partition(row))
    }

    /// What the partitions are, beside their replicas.
    #[must_use]
    pub fn specs(&self) -> &Each<PartitionRow, PartitionSpec> {
        &self.specs
    }

    /// What a partition is, beside its replicas.
    #[must_use]
    #[inline]
    pub fn spec(&self, row: PartitionRow) -> &PartitionSpec {
        &self.specs[row]
    }

    /// A partition.
    #[must_use]
    #[inline]
    pub fn partition(&self, row: PartitionRow) -> Partition<'_> {
        Partition {
            row,
            spec: self.spec(row),
            replicas: self.replicas(row),
            allowed: self.allowed(row),
        }
    }

    #[inline]
    pub(super) fn replicas(&self, row: PartitionRow) -> &[Replica] {
        part(&self.replicas, &self.replica_offsets, row)
    }

    /// The only members that may have it; empty for all.
    #[inline]
    pub(super) fn allowed(&self, row: PartitionRow) -> &[MemberRow] {
        part(&self.allowed, &self.allowed_offsets, row)
    }

    /// The moves under way, and those that failed not long ago.
    #[must_use]
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// The tables `partitions`, `replicas`, `members`, `allowed`, `moves` and `request`.
    #[must_use]
    pub fn to_tables(&self) -> Vec<Table> {
        vec![
            self.partition_table(),
            self.replica_table(),
            self.member_table(),
            self.allowed_table(),
            self.move_table(),
            self.request_table(),
        ]
    }

    /// The input from its tables.
    ///
    /// # Errors
    ///
    /// Tables or columns that are missing or not what they should be.
    pub fn from_tables(tables: &[Table]) -> Result<Self, TableError> {
        let partitions = table(tables, "partitions")?;
        let members = read_members(table(tables, "members")?)?;
        let member_count = count(members.len());
        let mut input = Self::new(members, read_partitions(partitions, member_count)?);
        let replicas = table(tables, "replicas")?;
        input.replica_offsets = read_offsets(replicas, partitions.rows)?;
        input.replicas = read_replicas(replicas, member_count)?;
        if let Ok(allowed) = table(tables, "allowed") {
            input.allowed_offsets = read_offsets(allowed, partitions.rows)?;
            let rows = allowed.rows_of("member", member_count, false)?;
            input.allowed = rows.iter().map(|row| MemberRow(*row)).collect();
            for row in input.specs.rows() {
                if !input.partition(row).allowed.is_sorted_by(|a, b| a < b) {
                    return Err(TableError::bad_value("allowed", "member", row.place()));
                }
            }
        }
        if let Ok(moves) = table(tables, "moves") {
            input.moves = read_moves(moves, partitions.rows, member_count)?;
        }
        if let Ok(request) = table(tables, "request") {
            input.request = read_request(request)?;
        }
        Ok(input)
    }

    fn partition_table(&self) -> Table {
        let specs = self.specs.values();
        let load = |spec: &PartitionSpec| spec.load.map_or(0.0, |load| load.value);
        let age = |spec: &PartitionSpec| spec.load.map_or(u64::MAX, |load| load.age_ms);
        let mut table = Table::new("partitions", count(specs.len()))
            .with("id", cells(specs, |spec| spec.id))
            .with("key", cells(specs, |spec| spec.key))
            .with("replicas", cells(specs, |spec| spec.copies))
            .with("load", cells(specs, load))
            .with("load-age", cells(specs, age))
            .with("move-cost", cells(specs, |spec| spec.move_cost))
            .with("idle", cells(specs, |spec| spec.idle_ms))
            .with("pin", cells(specs, |spec| or_none(spec.pin)))
            .with("affinity", cells(specs, |spec| or_none(spec.affinity)))
            .with(
                "flags",
                cells(specs, |spec| u32::from(spec.frozen) * FROZEN),
            );
        for (dimension, name) in WEIGHTS.iter().enumerate() {
            let column = cells(specs, |spec| dimension_of(&spec.weights, dimension));
            if dimension == 0 || column.iter().any(|weight| *weight != 0) {
                table = table.with(*name, column);
            }
        }
        table
    }

    fn replica_table(&self) -> Table {
        Table::new("replicas", count(self.replicas.len()))
            .with("partition", repeated(&self.replica_offsets))
            .with("member", cells(&self.replicas, |replica| replica.member.0))
            .with("role", cells(&self.replicas, |replica| replica.role as u32))
            .with(
                "ready",
                cells(&self.replicas, |replica| u32::from(replica.ready)),
            )
    }

    fn member_table(&self) -> Table {
        let members = self.members.values();
        let mut table = Table::new("members", count(members.len()))
            .with("name", cells(members, |member| member.name.clone()))
            .with("key", cells(members, |member| member.key))
            .with("live", cells(members, |member| member.liveness as u32))
            .with("since", cells(members, |member| member.since_ms))
            .with("topology", cells(members, |member| member.topology.clone()))
            .with("intent", cells(members, |member| member.intent as u32))
            .with("max", cells(members, |member| member.max.unwrap_or(NONE)));
        for (dimension, name) in CAPACITIES.iter().enumerate() {
            let column = cells(members, |member| dimension_of(&member.capacity, dimension));
            if column.iter().any(|capacity| *capacity != u64::MAX) {
                table = table.with(*name, column);
            }
        }
        table
    }

    fn allowed_table(&self) -> Table {
        Table::new("allowed", count(self.allowed.len()))
            .with("partition", repeated(&self.allowed_offsets))
            .with("member", cells(&self.allowed, |member| member.0))
    }

    fn move_table(&self) -> Table {
        Table::new("moves", count(self.moves.len()))
            .with("id", cells(&self.moves, |it| it.id))
            .with("partition", cells(&self.moves, |it| it.partition.0))
            .with("from", cells(&self.moves, |it| or_none(it.from)))
            .with("to", cells(&self.moves, |it| it.to.0))
            .with("state", cells(&self.moves, |it| it.state as u32))
    }

    fn request_table(&self) -> Table {
        Table::new("request", 1)
            .with("trigger", vec![self.request.trigger.clone()])
            .with("mode", vec![self.request.mode as u32])
            .with("budget", vec![self.request.budget.unwrap_or(NONE)])
            .with("seed", vec![self.request.seed])
            .with("now", vec![self.request.now_ms])
    }
}

fn read_members(table: &Table) -> Result<Vec<Member>, TableError> {
    let names = table.column::<String>("name")?;
    let keys = table.column::<u64>("key")?;
    let live = coded(
        table,
        "live",
        [Liveness::Gone, Liveness::Live, Liveness::Away],
    )?;
    let since = cells_or(table, "since", 0)?;
    let topology = table.optional::<String>("topology")?;
    let intents = [Intent::Serve, Intent::Cordon, Intent::Drain];
    let intents = coded_or(table, "intent", intents, Intent::Serve)?;
    let max = cells_or(table, "max", NONE)?;
    let capacities = weights(table, CAPACITIES, u64::MAX)?;
    let rows = names.iter().zip(keys).zip(live).zip(intents).enumerate();
    let members = rows.map(|(row, (((name, key), liveness), intent))| {
        let max = max.of(row);
        Member {
            name: name.clone(),
            key: *key,
            liveness,
            since_ms: since.of(row),
            capacity: weights_of(&capacities, row),
            topology: topology
                .and_then(|topology| topology.get(row))
                .cloned()
                .unwrap_or_default(),
            intent,
            max: (max != NONE).then_some(max),
        }
    });
    Ok(members.collect())
}

fn read_partitions(table: &Table, members: u32) -> Result<Vec<PartitionSpec>, TableError> {
    let ids = table.column::<u64>("id")?;
    let keys = table.column::<u64>("key")?;
    let copies = table.column::<u32>("replicas")?;
    let weights = weights(table, WEIGHTS, 0)?;
    let heavy = |column: &CellsOr<'_, u64>| {
        let mut cells = column.cells.unwrap_or_default().iter();
        cells.position(|weight| *weight > WEIGHT_MAX)
    };
    if let Some(row) = weights.iter().filter_map(heavy).min() {
        return Err(TableError::bad_value("partitions", "weight", row));
    }
    let loads = table.optional::<f64>("load")?;
    let ages = cells_or(table, "load-age", u64::MAX)?;
    let costs = cells_or(table, "move-cost", 1)?;
    let idle = cells_or(table, "idle", 0)?;
    let pins = rows_or_none(table, "pin", members)?;
    let affinities = rows_or_none(table, "affinity", members)?;
    let flags = cells_or(table, "flags", 0)?;
    let rows = ids.iter().zip(keys).zip(copies).enumerate();
    let specs = rows.map(|(row, ((id, key), copies))| {
        let age_ms = ages.of(row);
        let value = loads.and_then(|loads| loads.get(row)).copied();
        let value = value.filter(|_| age_ms != u64::MAX);
        PartitionSpec {
            id: *id,
            key: *key,
            copies: *copies,
            weights: weights_of(&weights, row),
            load: value.map(|value| Load { value, age_ms }),
            move_cost: costs.of(row),
            idle_ms: idle.of(row),
            pin: some_row(pins.of(row)),
            affinity: some_row(affinities.of(row)),
            frozen: flags.of(row) & FROZEN != 0,
        }
    });
    Ok(specs.collect())
}

fn read_replicas(table: &Table, members: u32) -> Result<Vec<Replica>, TableError> {
    let rows = table.rows_of("member", members, false)?;
    let roles = coded(table, "role", [Role::Leader, Role::Follower])?;
    let ready = coded_or(table, "ready", [false, true], true)?;
    let replicas = rows.iter().zip(roles).zip(ready);
    let replicas = replicas.map(|((row, role), ready)| Replica {
        member: MemberRow(*row),
        role,
        ready,
    });
    Ok(replicas.collect())
}

fn read_moves(table: &Table, partitions: u32, members: u32) -> Result<Vec<Move>, TableError> {
    let ids = table.column::<u64>("id")?;
    let rows = table.rows_of("partition", partitions, false)?;
    let from = table.rows_of("from", members, true)?;
    let to = table.rows_of("to", members, false)?;
    let states = coded(table, "state", [MoveState::UnderWay, MoveState::Failed])?;
    let moves = ids.iter().zip(rows).zip(from).zip(to).zip(states);
    let moves = moves.map(|((((id, partition), from), to), state)| Move {
        id: *id,
        partition: PartitionRow(*partition),
        from: some_row(*from),
        to: MemberRow(*to),
        state,
    });
    Ok(moves.collect())
}

fn read_request(table: &Table) -> Result<Request, TableError> {
    let trigger = table.optional::<String>("trigger")?;
    let mode = coded_or(table, "mode", [Mode::Full, Mode::Place], Mode::Full)?;
    let budget = table.optional::<u32>("budget")?.and_then(<[u32]>::first);
    // Its default is 0 as well: without rows there is no cell.
    let first = |cells: CellsOr<'_, u64>| cells.of(0);
    Ok(Request {
        trigger: trigger
            .and_then(<[String]>::first)
            .cloned()
            .unwrap_or_default(),
        mode: mode.first().copied().unwrap_or_default(),
        budget: budget.copied().filter(|budget| *budget != NONE),
        seed: first(cells_or(table, "seed", 0)?),
        now_ms: first(cells_or(table, "now", 0)?),
    })
}

/// Where the rows of each partition begin and the last end, from an ascending column `partition`.
fn read_offsets(table: &Table, partitions: u32) -> Result<Vec<u32>, TableError> {
    let rows = table.rows_of("partition", partitions, false)?;
    if let Some(row) = rows.windows(2).position(|pair| !pair.is_sorted()) {
        return Err(TableError::bad_value(&table.name, "partition", row + 1));
    }
    let mut offsets = Vec::with_capacity(partitions as usize + 1);
    let mut next = 0;
    for partition in 0..=partitions {
        while rows.get(next).is_some_and(|row| *row < partition) {
            next += 1;
        }
        offsets.push(count(next));
    }
    Ok(offsets)
}

/// The partition of each row, from where those of each begin.
fn repeated(offsets: &[u32]) -> Vec<u32> {
    let mut rows = Vec::new();
    for (partition, end) in offsets.iter().skip(1).enumerate() {
        rows.resize(*end as usize, count(partition));
    }
    rows
}

/// A column of codes from 0.
fn coded<T: Copy, const N: usize>(
    table: &Table,
    name: &str,
    meanings: [T; N],
) -> Result<Vec<T>, TableError> {
    let codes = table.column::<u32>(name)?;
    let meaning = |(row, code): (usize, &u32)| {
        meanings
            .get(*code as usize)
            .copied()
            .ok_or_else(|| TableError::bad_value(&table.name, name, row))
    };
    codes.iter().enumerate().map(meaning).collect()
}

fn coded_or<T: Copy, const N: usize>(
    table: &Table,
    name: &str,
    meanings: [T; N],
    default: T,
) -> Result<Vec<T>, TableError> {
    match table.optional::<u32>(name)? {
        Some(_) => coded(table, name, meanings),
        None => Ok(vec![default; table.len()]),
    }
}

/// A column that may be left out, and what its cells are then.
#[derive(Clone, Copy)]
struct CellsOr<'a, C> {
    cells: Option<&'a [C]>,
    default: C,
}

impl<C: Copy> CellsOr<'_, C> {
    #[inline]
    fn of(&self, row: usize) -> C {
        let cell = self.cells.and_then(|cells| cells.get(row));
        cell.copied().unwrap_or(self.default)
    }
}

fn cells_or<'a, C: Cell>(
    table: &'a Table,
    name: &str,
    default: C,
) -> Result<CellsOr<'a, C>, TableError> {
    let cells = table.optional(name)?;
    Ok(CellsOr { cells, default })
}

/// A column of members, or of none, that may be left out.
fn rows_or_none<'a>(
    table: &'a Table,
    name: &str,
    members: u32,
) -> Result<CellsOr<'a, u32>, TableError> {
    let cells = cells_or(table, name, NONE)?;
    if cells.cells.is_some() {
        table.rows_of(name, members, true)?;
    }
    Ok(cells)
}

fn weights<'a>(
    table: &'a Table,
    names: [&str; DIMENSIONS],
    default: u64,
) -> Result<[CellsOr<'a, u64>; DIMENSIONS], TableError> {
    let cells = None;
    let mut columns = [CellsOr { cells, default }; DIMENSIONS];
    for (column, name) in columns.iter_mut().zip(names) {
        column.cells = table.optional(name)?;
    }
    Ok(columns)
}

fn weights_of(columns: &[CellsOr<'_, u64>; DIMENSIONS], row: usize) -> Weights {
    columns.each_ref().map(|column| column.of(row))
}

/// Each member's zone, numbered in the order of their names, and how many there are.
fn zones_of(members: &[Member]) -> (Each<MemberRow, ZoneRow>, usize) {
    let names: BTreeSet<&str> = members.iter().map(Member::zone).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let zone = |member: &Member| {
        let place = names.binary_search(&member.zone());
        ZoneRow::at(place.unwrap_or_default())
    };
    (Each::of(cells(members, zone)), names.len())
}

fn flatten<'a, T: Copy + 'a>(
    lists: impl IntoIterator<Item = &'a [T]>,
    rows: usize,
) -> (Vec<T>, Vec<u32>) {
    let (mut all, mut offsets) = (Vec::new(), vec![0]);
    for list in lists.into_iter().take(rows) {
        all.extend_from_slice(list);
        offsets.push(count(all.len()));
    }
    offsets.resize(rows + 1, count(all.len()));
    (all, offsets)
}

#[inline]
fn part<'a, T>(all: &'a [T], offsets: &[u32], row: PartitionRow) -> &'a [T] {
    if all.is_empty() {
        return &[];
    }
    let bounds = offsets.get(row.place()).zip(offsets.get(row.place() + 1));
    bounds
        .and_then(|(from, to)| all.get(*from as usize..*to as usize))
        .unwrap_or_default()
}

fn cells<R, C>(rows: &[R], cell: impl Fn(&R) -> C) -> Vec<C> {
    rows.iter().map(cell).collect()
}

fn dimension_of(weights: &Weights, dimension: usize) -> u64 {
    weights.get(dimension).copied().unwrap_or_default()
}

fn or_none(row: Option<MemberRow>) -> u32 {
    row.map_or(NONE, |row| row.0)
}

fn some_row(row: u32) -> Option<MemberRow> {
    (row != NONE).then_some(MemberRow(row))
}

fn count(rows: usize) -> u32 {
    MemberRow::at(rows).0
}
