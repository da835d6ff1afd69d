//! What a rebalancer says, as tables (`docs/plugins/policies.md`), and the invariants that it must
//! keep.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::partition::{
    MapRecord, MemberNo, MoveReason, Owner, PartitionId, PartitionRecord,
};
use folkmoot_proto::{LogTime, MapId, Zxid};

use super::plan::{Plan, Planned, Target};
use super::question::{DIMENSIONS, Rows, capacity};
use super::roster::{Facts, Roster};
use crate::mutation::{self, Mutation};
use crate::policy::{Cells, Table};
use crate::state::View;

/// Scores that are told of a preview.
const SCORES_MAX: usize = 32;
/// Characters of a score's name.
const SCORE_NAME_MAX: usize = 64;

/// What a rebalancer's answer comes to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The plan, without what changes nothing.
    pub(super) plan: Plan,
    /// Something of it can not be done now: what it is about has changed since the question, or is moving
    /// to somebody else.
    pub(super) left_out: bool,
}

/// The plan that a rebalancer's answer is.
///
/// # Errors
///
/// The invariant that it breaks, or what is wrong with its tables: then nothing of it is done.
pub(super) fn read(
    answer: &[Table],
    rows: &Rows,
    view: &impl View,
    (map, record): (MapId, &MapRecord),
    roster: &mut Roster,
    now: LogTime,
) -> Result<Read, String> {
    let Some(assign) = answer.iter().find(|table| table.name == "assign") else {
        return Ok(Read::default());
    };
    let assigned = read_assign(assign, answer)?;
    let mut checks = Checks::new(view, (map, record), roster, now);
    let mut seen = BTreeSet::new();
    let mut plan = Plan::new();
    for row in assigned {
        let Some((partition, owner)) = rows.partitions.get(row.partition as usize).copied() else {
            return Err(format!("assign names row {} of partitions", row.partition));
        };
        if !seen.insert(partition) {
            return Err(format!("assign names partition {partition} twice"));
        }
        let member = |at: &u32| {
            let member = rows.members.get(*at as usize).copied();
            member.ok_or_else(|| format!("assign names row {at} of members"))
        };
        let members = row
            .members
            .iter()
            .map(member)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(target) = checks.target(partition, owner, members)? {
            plan.push(Planned {
                partition,
                target,
                priority: row.priority,
                says: row.says,
            });
        }
    }
    checks.check_capacities()?;
    Ok(Read {
        plan,
        left_out: checks.left_out,
    })
}

/// A row of `assign`.
struct Assigned {
    partition: u32,
    members: Vec<u32>,
    priority: u32,
    says: String,
}

fn read_assign(table: &Table, answer: &[Table]) -> Result<Vec<Assigned>, String> {
    let rows = table.rows as usize;
    let partition = u32s(table, "partition")?.ok_or("assign has no column partition")?;
    let members = u32s(table, "members")?.ok_or("assign has no column members")?;
    let offsets = u32s(table, "members.offsets")?.ok_or("assign has no column members.offsets")?;
    let priority = u32s(table, "priority")?;
    let reason = u32s(table, "reason")?;
    let per_row = [Some(partition), priority, reason];
    if per_row
        .into_iter()
        .flatten()
        .any(|cells| cells.len() != rows)
        || offsets.len() != rows + 1
    {
        return Err("a column of assign has not one cell for each row".to_owned());
    }
    let reasons = answer.iter().find(|table| table.name == "reasons");
    let texts = reasons.and_then(|table| table.column("text"));
    let text = |row: u32| match texts {
        Some(Cells::Strings(texts)) => texts.get(row as usize),
        _ => None,
    };
    let mut assigned = Vec::with_capacity(rows);
    for (row, (partition, ends)) in partition.iter().zip(offsets.windows(2)).enumerate() {
        let range = match *ends {
            [from, to] => from as usize..to as usize,
            _ => 0..0,
        };
        let members = members
            .get(range)
            .ok_or("assign.members.offsets go astray")?;
        let reason = reason.and_then(|cells| cells.get(row)).copied();
        let says = reason.and_then(text);
        assigned.push(Assigned {
            partition: *partition,
            members: members.to_vec(),
            priority: priority
                .and_then(|cells| cells.get(row))
                .copied()
                .unwrap_or_default(),
            says: says
                .map(|says| says.chars().take(200).collect())
                .unwrap_or_default(),
        });
    }
    Ok(assigned)
}

fn u32s<'a>(table: &'a Table, name: &str) -> Result<Option<&'a [u32]>, String> {
    match table.column(name) {
        None => Ok(None),
        Some(Cells::U32s(cells)) => Ok(Some(cells)),
        Some(_) => Err(format!("{}.{name} has another type than u32s", table.name)),
    }
}

/// The hard invariants.
struct Checks<'a, V: View> {
    view: &'a V,
    map: MapId,
    record: &'a MapRecord,
    roster: &'a mut Roster,
    now: LogTime,
    /// What each member has in each dimension, of those that the plan gives something.
    gains: BTreeSet<MemberNo>,
    /// What the plan says of partitions.
    planned: BTreeMap<PartitionId, Vec<MemberNo>>,
    /// Zones of members that can get partitions.
    zones: usize,
    /// A target was left out that may be one later.
    left_out: bool,
}

impl<'a, V: View> Checks<'a, V> {
    fn new(
        view: &'a V,
        (map, record): (MapId, &'a MapRecord),
        roster: &'a mut Roster,
        now: LogTime,
    ) -> Self {
        let all = roster.all(view, record);
        let takers = all.values().filter(|facts| facts.takes());
        let zones: BTreeSet<&str> = takers.map(Facts::zone).collect();
        let zones = zones.len();
        Self {
            view,
            map,
            record,
            roster,
            now,
            gains: BTreeSet::new(),
            planned: BTreeMap::new(),
            zones,
            left_out: false,
        }
    }

    /// The target that a row means, given the owner that it was asked about; none if it changes
    /// nothing, or if what it was asked about has changed since, which is no fault of the policy.
    fn target(
        &mut self,
        partition: PartitionId,
        owner: Option<Owner>,
        seen: Vec<(MemberNo, Option<Zxid>)>,
    ) -> Result<Option<Target>, String> {
        let Some(record) = self.view.partition(self.map, partition) else {
            return Ok(None);
        };
        let mut as_seen = seen.iter();
        let as_seen = as_seen.all(|(member, of)| self.facts(*member).incarnation == *of);
        if (!as_seen || record.assignment.owner != owner) && !mutation::is_on(Mutation::StalePlan) {
            self.left_out = true;
            return Ok(None);
        }
        let members: Vec<MemberNo> = seen.into_iter().map(|(member, _)| member).collect();
        self.check_members(partition, record, &members)?;
        let of = &record.assignment;
        let owner = of.owner.map(|owner| owner.member);
        let kept: Vec<MemberNo> = of.replicas.iter().map(|replica| replica.member).collect();
        let mut now = kept.clone();
        now.sort_by_key(|member| Some(*member) != owner);
        self.planned.insert(partition, members.clone());
        // Those who are gone and waited for get nothing new.
        let mut lives = Vec::with_capacity(members.len());
        let mut incarnations = Vec::with_capacity(members.len());
        for member in &members {
            if let Some(incarnation) = self.facts(*member).incarnation {
                lives.push(*member);
                incarnations.push(incarnation);
            }
        }
        let owns = self.owns(record);
        let expects = self
            .roster
            .expects(self.view, self.record, of.owner, self.now);
        if expects {
            return Ok(None);
        }
        if let Some(movement) = &of.movement {
            self.left_out |= !same_members(&movement.target, &lives);
            return Ok(None);
        }
        let same = owns && same_members(&now, &members);
        if same || lives.is_empty() {
            return Ok(None);
        }
        self.gains
            .extend(members.iter().filter(|member| !kept.contains(member)));
        let draining = owner.is_some_and(|owner| self.facts(owner).draining);
        let reason = match (owns, draining) {
            (false, _) => MoveReason::Recovery,
            (true, true) => MoveReason::Drain,
            (true, false) => MoveReason::Balance,
        };
        Ok(Some(Target {
            members: lives,
            incarnations,
            owner: of.owner,
            reason,
            replicas: members.len(),
        }))
    }

    fn facts(&mut self, member: MemberNo) -> &Facts {
        self.roster.of(self.view, self.record, member)
    }

    fn owns(&mut self, record: &PartitionRecord) -> bool {
        let owner = record.assignment.owner;
        owner.is_some_and(|owner| self.facts(owner.member).incarnation == Some(owner.incarnation))
    }

    fn check_members(
        &mut self,
        partition: PartitionId,
        record: &PartitionRecord,
        members: &[MemberNo],
    ) -> Result<(), String> {
        let refuse = |what: &str| Err(format!("partition {partition}: {what}"));
        let distinct: BTreeSet<&MemberNo> = members.iter().collect();
        if members.is_empty() {
            return refuse("it is given to nobody");
        }
        if distinct.len() != members.len() {
            return refuse("two replicas are on one member");
        }
        if members.len() > self.record.config.replicas as usize {
            return refuse("it has more replicas than it should");
        }
        let spec = &record.spec;
        let has = |member| {
            record
                .assignment
                .replicas
                .iter()
                .any(|of| of.member == member)
        };
        for member in members {
            let allowed = spec.allowed.is_empty() || spec.allowed.binary_search(member).is_ok();
            let facts = self.facts(*member);
            let name = facts.name.clone();
            if !allowed && !has(*member) {
                return refuse(&format!("{name} is not allowed to have it"));
            }
            if !has(*member) && !facts.takes() {
                return refuse(&format!("{name} does not take partitions now"));
            }
        }
        let leads = members.first().copied();
        let pinned = spec.pin.filter(|pin| self.facts(*pin).lives());
        if pinned.is_some() && leads != pinned {
            return refuse("it is pinned to another member");
        }
        if spec.frozen && self.owns(record) {
            let owner = record.assignment.owner.map(|owner| owner.member);
            if owner != leads {
                return refuse("it is frozen");
            }
        }
        self.check_zones(partition, record, members)
    }

    /// Replicas are in distinct zones where there are as many; else no zone has more than its part.
    fn check_zones(
        &mut self,
        partition: PartitionId,
        record: &PartitionRecord,
        members: &[MemberNo],
    ) -> Result<(), String> {
        if members.len() < 2 || self.zones == 0 || !record.spec.allowed.is_empty() {
            return Ok(());
        }
        let most = (self.record.config.replicas as usize).div_ceil(self.zones);
        let mut of_zone: BTreeMap<String, usize> = BTreeMap::new();
        for member in members {
            let zone = self.facts(*member).zone().to_owned();
            let count = of_zone.entry(zone).or_default();
            *count += 1;
            if *count > most {
                return Err(format!(
                    "partition {partition}: {count} replicas are in one zone"
                ));
            }
        }
        Ok(())
    }

    /// Nobody who gets something has more than it can carry, once the plan is carried out.
    fn check_capacities(&mut self) -> Result<(), String> {
        let gains = core::mem::take(&mut self.gains);
        for member in gains {
            let facts = self.facts(member).clone();
            if facts.capacity.is_empty() {
                continue;
            }
            let mut carried = [0_u64; DIMENSIONS];
            let held = self.view.held_by(self.map, member).into_iter();
            let given = self.planned.iter().filter(|(_, of)| of.contains(&member));
            let mut partitions: BTreeSet<PartitionId> = given.map(|(of, _)| *of).collect();
            partitions.extend(held.filter(|of| !self.planned.contains_key(of)));
            for partition in partitions {
                let record = self.view.partition(self.map, partition);
                let weights = record.map(|record| &record.spec.weights);
                for (sum, weight) in carried.iter_mut().zip(weights.into_iter().flatten()) {
                    *sum = sum.saturating_add(*weight);
                }
            }
            let over = (0..DIMENSIONS).any(|at| {
                carried
                    .get(at)
                    .is_some_and(|carried| *carried > capacity(&facts, at))
            });
            if over {
                return Err(format!("{} gets more than it can carry", facts.name));
            }
        }
        Ok(())
    }
}

/// Whether they are the same, and the same one leads.
fn same_members(a: &[MemberNo], b: &[MemberNo]) -> bool {
    let rest = |of: &[MemberNo]| {
        let mut rest: Vec<MemberNo> = of.iter().skip(1).copied().collect();
        rest.sort_unstable();
        rest
    };
    a.first() == b.first() && rest(a) == rest(b)
}

/// A plan as JSON, for an operator.
pub(super) fn describe(
    plan: &Plan,
    answer: &[Table],
    view: &impl View,
    (map, record): (MapId, &MapRecord),
) -> serde_json::Value {
    let name = |member: &MemberNo| record.members.get(member.0 as usize).cloned();
    let mut cost = 0_u64;
    let moves: Vec<serde_json::Value> = plan
        .iter()
        .map(|it| {
            let partition = view.partition(map, it.partition);
            let has = partition
                .map(|of| of.assignment.replicas.as_slice())
                .unwrap_or_default();
            let new = it
                .target
                .members
                .iter()
                .filter(|to| has.iter().all(|of| of.member != **to));
            let of_one = partition.map_or(0, |of| of.spec.move_cost);
            cost += of_one * u64::try_from(new.count()).unwrap_or(u64::MAX);
            serde_json::json!({
                "partition": it.partition,
                "from": it.target.owner.and_then(|owner| name(&owner.member)),
                "to": it.target.members.iter().filter_map(name).collect::<Vec<_>>(),
                "reason": it.target.reason,
                "says": it.says,
            })
        })
        .collect();
    let unplaced = answer.iter().find(|table| table.name == "unplaced");
    serde_json::json!({
        "moves": moves,
        "cost": cost,
        "unplaced": unplaced.map_or(0, |table| table.rows),
        "scores": scores(answer),
    })
}

/// What the policy optimises, before and after its plan; smaller is better.
fn scores(answer: &[Table]) -> Vec<serde_json::Value> {
    let Some(table) = answer.iter().find(|table| table.name == "scores") else {
        return Vec::new();
    };
    let numbers = |column| match table.column(column) {
        Some(Cells::F64s(numbers)) => numbers.as_slice(),
        _ => &[],
    };
    let Some(Cells::Strings(names)) = table.column("name") else {
        return Vec::new();
    };
    let rows = names.iter().zip(numbers("before")).zip(numbers("after"));
    let score = |((name, before), after): ((&String, &f64), &f64)| {
        let name: String = name.chars().take(SCORE_NAME_MAX).collect();
        serde_json::json!({ "name": name, "before": before, "after": after })
    };
    rows.take(SCORES_MAX).map(score).collect()
}
