//! Policies to compare: the standard ones, and models of what other systems do.
//!
//! The models are written from the systems' descriptions and keep what decides movement and
//! balance; they are not the systems. All are asked under the same delay and budget.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use folkmoot_bounded_load::BoundedLoad;
use folkmoot_load_aware::LoadAware;
use folkmoot_rendezvous::Rendezvous;
use folkmoot_sdk::rebalancer::prelude::*;
use folkmoot_sticky_balanced::StickyBalanced;

/// A policy as a function.
pub type Policy = fn(&Input) -> Result<Plan, Rejection>;

/// The standard policies, and the models.
pub const POLICIES: [(&str, Policy); 8] = [
    ("sticky-balanced", |input| {
        StickyBalanced::default().plan(input)
    }),
    ("rendezvous", |input| Rendezvous.plan(input)),
    ("bounded-load", |input| BoundedLoad::default().plan(input)),
    ("load-aware", |input| LoadAware::default().plan(input)),
    ("helix-crushed", |input| Ok(crushed(input))),
    ("helix-waged", |input| Ok(waged(input))),
    ("kafka-uniform", |input| Ok(uniform(input))),
    ("orphans-only", |input| Ok(orphans_only(input))),
];

/// The policy of that name; none if there is none.
#[must_use]
pub fn policy(name: &str) -> Option<Policy> {
    let found = POLICIES.iter().find(|(known, _)| *known == name);
    found.map(|(_, policy)| *policy)
}

/// Helix's CRUSHED: CRUSH, here by straw2 over zones and members, and then "card dealing": whoever
/// has more than its share hands cards on to whoever comes next in the card's own order. It keeps
/// nothing of where things are, but what those that are absent within the delay have.
fn crushed(input: &Input) -> Plan {
    let mut draft = Draft::from_scratch(input);
    let share = share(input);
    for bounded in [true, false] {
        for partition in input.partitions() {
            let mut order: Vec<(Reverse<u64>, MemberRow)> = input
                .members()
                .iter()
                .map(|(row, member)| (Reverse(mix(partition.key, member.key)), row))
                .collect();
            order.sort_unstable();
            for (_, member) in order {
                if !draft.lacks(partition.row) {
                    break;
                }
                if bounded && draft.held(member).count >= share {
                    continue;
                }
                if draft.can_place(partition.row, member) {
                    draft.place(partition.row, member);
                } else {
                    draft.retain(partition.row, member);
                }
            }
        }
    }
    for partition in input.partitions() {
        draft.settle_leader(partition.row);
    }
    draft.into_plan("dealt")
}

/// Helix's WAGED: partitions one by one, the heaviest first, each to the member with the best
/// score: evenness of weight and of count, and a bonus for where it is.
fn waged(input: &Input) -> Plan {
    let mut draft = Draft::from_scratch(input);
    let takers = input
        .members()
        .values()
        .iter()
        .filter(|it| it.takes())
        .count()
        .max(1) as f64;
    let weight = |partition: &Partition| partition.weights[0] * u64::from(partition.copies);
    let total: u64 = input.partitions().map(|it| weight(&it)).sum();
    let count: u32 = input.partitions().map(|it| it.copies).sum();
    let (mean_weight, mean_count) = (total as f64 / takers, f64::from(count) / takers);
    let mut order: Vec<Partition> = input.partitions().collect();
    order.sort_by_key(|partition| (Reverse(partition.weights[0]), partition.key));
    for partition in order {
        for replica in partition.replicas {
            // Those that are away can not be placed again, only kept.
            if !input.members()[replica.member].takes() {
                draft.retain(partition.row, replica.member);
            }
        }
        while draft.lacks(partition.row) {
            let score = |row: MemberRow| {
                let held = draft.held(row);
                let had = partition.replicas.iter().any(|it| it.member == row);
                let weight = (held.weights[0] + partition.weights[0]) as f64 / mean_weight;
                let count = f64::from(held.count + 1) / mean_count;
                2.0 * f64::from(u8::from(had)) + 6.0 * room(weight) + room(count)
            };
            let candidates = draft.candidates(partition.row);
            let best = candidates.max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)));
            let Some(best) = best else { break };
            draft.place(partition.row, best);
        }
        draft.settle_leader(partition.row);
    }
    draft.into_plan("scored")
}

/// Near 1 below the mean, near 0 above it, and steep between.
fn room(used: f64) -> f64 {
    0.5 - 0.5 * (8.0 * (used - 1.0)).tanh()
}

/// Kafka's uniform assignor with static membership (KIP-848, KIP-345): whoever has more than its
/// share lets the last of it go, and the free ones are dealt out. It knows no zones, and no weights.
fn uniform(input: &Input) -> Plan {
    let present = |row: &MemberRow| input.members()[*row].liveness != Liveness::Gone;
    let drains = |row: &MemberRow| input.members()[*row].intent == Intent::Drain;
    let members: Vec<MemberRow> = input.members().rows().collect();
    let members: Vec<MemberRow> = members
        .into_iter()
        .filter(|row| present(row) && !drains(row))
        .collect();
    let replicas: u32 = input.partitions().map(|it| it.copies).sum();
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX).max(1);
    let (least, mut spare) = (replicas / count, replicas % count);
    let mut held: BTreeMap<MemberRow, u32> = members.iter().map(|row| (*row, 0)).collect();
    let mut targets: Vec<Vec<MemberRow>> = Vec::new();
    for partition in input.partitions() {
        let mut kept = Vec::new();
        for replica in partition.replicas {
            let Some(held) = held.get_mut(&replica.member) else {
                continue;
            };
            let extra = *held == least && spare > 0;
            if *held < least || extra {
                spare -= u32::from(extra);
                *held += 1;
                kept.push(replica.member);
            }
        }
        targets.push(kept);
    }
    let mut plan = Plan::new();
    for (partition, target) in input.partitions().zip(&mut targets) {
        while target.len() < partition.copies as usize {
            let free = held.iter().filter(|(row, _)| !target.contains(row));
            let free = free.filter(|(row, _)| input.members()[**row].takes());
            let Some(row) = free
                .min_by_key(|(row, held)| (**held, **row))
                .map(|it| *it.0)
            else {
                plan.leave_unplaced(partition.row, 1, "nobody is left");
                break;
            };
            *held.entry(row).or_default() += 1;
            target.push(row);
        }
        let same = target.len() == partition.replicas.len()
            && partition
                .replicas
                .iter()
                .all(|it| target.contains(&it.member));
        if !same && !target.is_empty() {
            plan.assign(partition.row, target, 0, "dealt");
        }
    }
    plan
}

/// Gives what has no place to whoever has least, and moves nothing else.
fn orphans_only(input: &Input) -> Plan {
    let mut draft = Draft::keep(input);
    for partition in input.partitions() {
        while draft.lacks(partition.row) {
            let candidates = draft.candidates(partition.row);
            let Some(member) = candidates.min_by_key(|row| draft.held(*row).weights[0]) else {
                break;
            };
            draft.place(partition.row, member);
        }
    }
    draft.into_plan("it had no place")
}

/// What each member should have, rounded up.
fn share(input: &Input) -> u32 {
    let present =
        |member: &&Member| member.liveness != Liveness::Gone && member.intent != Intent::Drain;
    let members = input.members().values().iter().filter(present).count();
    let replicas: u32 = input.partitions().map(|it| it.copies).sum();
    replicas.div_ceil(u32::try_from(members).unwrap_or(u32::MAX).max(1))
}
