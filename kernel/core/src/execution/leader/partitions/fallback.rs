//! The kernel's own plan, where no policy is chosen or the policy fails: what has no owner, or one
//! that drains, goes to whoever has the fewest. Nothing else moves (rule R37).

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::partition::{MapRecord, MemberNo, MoveReason, PartitionId, PartitionRecord};
use folkmoot_proto::{LogTime, MapId};

use super::plan::{Plan, Planned, Target};
use super::roster::{Facts, Roster};
use crate::state::View;

/// Whom to give what has no owner; where `orphans_only`, drains and missing replicas wait.
pub(super) fn plan(
    view: &impl View,
    (map, record): (MapId, &MapRecord),
    roster: &mut Roster,
    now: LogTime,
    orphans_only: bool,
) -> Plan {
    let facts = roster.all(view, record).clone();
    let takers = facts.iter().filter(|(_, of)| of.takes());
    let takers = takers.map(|(member, of)| {
        let count = view.held_by(map, *member).len();
        (*member, of.zone(), count)
    });
    let mut counts = Counts::of(takers);
    let mut plan = Plan::new();
    for partition in view.partitions(map) {
        let Some(of) = view.partition(map, partition) else {
            continue;
        };
        let target = target((record, of), &facts, now, &mut counts, orphans_only);
        plan.extend(target.map(|target| planned(partition, target)));
    }
    plan
}

fn planned(partition: PartitionId, target: Target) -> Planned {
    Planned {
        partition,
        target,
        priority: 0,
        says: "the kernel's own".to_owned(),
    }
}

fn target(
    (map, of): (&MapRecord, &PartitionRecord),
    facts: &BTreeMap<MemberNo, Facts>,
    now: LogTime,
    counts: &mut Counts<'_>,
    orphans_only: bool,
) -> Option<Target> {
    let assignment = &of.assignment;
    if assignment.movement.is_some() {
        return None;
    }
    let owner = assignment.owner;
    let lives = |member: MemberNo| facts.get(&member).and_then(|facts| facts.incarnation);
    let owns = owner.is_some_and(|owner| lives(owner.member) == Some(owner.incarnation));
    let had = assignment.replicas.iter().map(|replica| replica.member);
    let had: Vec<MemberNo> = had.chain(owner.map(|owner| owner.member)).collect();
    let awaited = |member: &MemberNo| {
        let facts = facts.get(member);
        facts.is_some_and(|facts| facts.lives() || facts.is_awaited(now))
    };
    if !owns && had.iter().any(awaited) {
        return None;
    }
    let drains = |member: MemberNo| facts.get(&member).is_some_and(|facts| facts.draining);
    let keeps = |member: &MemberNo| lives(*member).is_some() && !drains(*member);
    let leader = owner
        .map(|owner| owner.member)
        .filter(|member| owns && keeps(member));
    let mut members: Vec<MemberNo> = leader.into_iter().collect();
    let followers = had.iter().filter(|member| keeps(member));
    for member in followers {
        if !members.contains(member) {
            members.push(*member);
        }
    }
    let wanted = map.config.replicas as usize;
    let waits = had
        .iter()
        .filter(|member| !keeps(member) && !drains(**member) && awaited(member));
    let waits = waits.count();
    let wanted = wanted.saturating_sub(waits).max(1);
    let reason = match (owns, owner.is_some_and(|owner| drains(owner.member))) {
        (false, _) => MoveReason::Recovery,
        (true, true) => MoveReason::Drain,
        (true, false) => MoveReason::Balance,
    };
    if orphans_only && reason != MoveReason::Recovery {
        return None;
    }
    members.truncate(wanted);
    while members.len() < wanted {
        let Some(member) = fewest(facts, of, &members, counts) else {
            break;
        };
        counts.add(member);
        members.push(member);
    }
    if let Some(pin) = of.spec.pin.filter(|pin| lives(*pin).is_some()) {
        let takes = facts.get(&pin).is_some_and(Facts::takes);
        if !takes && !had.contains(&pin) {
            // It may go nowhere else, and goes nowhere now.
            return None;
        }
        members.retain(|member| *member != pin);
        members.insert(0, pin);
        members.truncate(wanted);
    }
    // Who is gone and waited for keeps its place.
    let has = |member: &&MemberNo| lives(**member).is_some() || !awaited(member);
    let mut unchanged: Vec<MemberNo> = had.iter().filter(has).copied().collect();
    unchanged.sort_unstable();
    unchanged.dedup();
    let mut sorted = members.clone();
    sorted.sort_unstable();
    if members.is_empty() || (owns && leader == members.first().copied() && sorted == unchanged) {
        return None;
    }
    let incarnations: Option<Vec<_>> = members.iter().map(|member| lives(*member)).collect();
    Some(Target {
        incarnations: incarnations?,
        replicas: members.len() + waits,
        members,
        owner,
        reason,
    })
}

/// How many replicas members have that take more.
struct Counts<'a> {
    /// Fewest first.
    by_count: BTreeSet<(usize, MemberNo)>,
    of: BTreeMap<MemberNo, usize>,
    zones: BTreeSet<&'a str>,
}

impl<'a> Counts<'a> {
    fn of(takers: impl Iterator<Item = (MemberNo, &'a str, usize)>) -> Self {
        let mut counts = Self {
            by_count: BTreeSet::new(),
            of: BTreeMap::new(),
            zones: BTreeSet::new(),
        };
        for (member, zone, count) in takers {
            counts.by_count.insert((count, member));
            counts.of.insert(member, count);
            counts.zones.insert(zone);
        }
        counts
    }

    /// One more.
    fn add(&mut self, member: MemberNo) {
        if let Some(count) = self.of.get_mut(&member) {
            self.by_count.remove(&(*count, member));
            *count += 1;
            self.by_count.insert((*count, member));
        }
    }
}

/// The member that has the fewest, of those that may have it: in another zone, where there is one.
fn fewest(
    facts: &BTreeMap<MemberNo, Facts>,
    of: &PartitionRecord,
    members: &[MemberNo],
    counts: &Counts<'_>,
) -> Option<MemberNo> {
    let zone = |member: &MemberNo| facts.get(member).map_or("", Facts::zone);
    let zones: Vec<&str> = members.iter().map(zone).collect();
    let allowed = |member: &MemberNo| {
        of.spec.allowed.is_empty() || of.spec.allowed.binary_search(member).is_ok()
    };
    let has_room = |member: &MemberNo, count: usize| {
        let capacity = facts.get(member).and_then(|facts| facts.capacity.first());
        let weight = of.spec.weights.first().copied().unwrap_or(1);
        capacity.is_none_or(|capacity| (count as u64 + 1).saturating_mul(weight) <= *capacity)
    };
    let mut in_same_zone = None;
    for (count, member) in &counts.by_count {
        if !allowed(member) || members.contains(member) || !has_room(member, *count) {
            continue;
        }
        if !zones.contains(&zone(member)) {
            return Some(*member);
        }
        if in_same_zone.is_none() {
            in_same_zone = Some(*member);
            if counts.zones.iter().all(|zone| zones.contains(zone)) {
                break;
            }
        }
    }
    in_same_zone
}
