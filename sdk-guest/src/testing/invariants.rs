//! What the kernel insists upon, whoever planned.

use std::collections::{BTreeMap, BTreeSet};

use crate::rebalancer::{
    Draft, Input, Intent, Liveness, MemberRow, Partition, PartitionRow, Plan, Row,
};

/// How a plan breaks the invariants, in words; empty for a plan that the kernel takes.
///
/// Each partition that should change goes to distinct members that may have it, its leader is
/// the pinned one and no member that is gone or newly away, and nobody gets more than it may have.
/// Each that lacks replicas and does not change is told to be unplaced.
#[must_use]
pub fn violations(input: &Input, plan: &Plan) -> Vec<String> {
    let mut check = Check {
        input,
        rules: Draft::from_scratch(input),
        found: Vec::new(),
    };
    let mut targets: BTreeMap<PartitionRow, &[MemberRow]> = BTreeMap::new();
    for assignment in plan.assignments() {
        if targets
            .insert(assignment.partition, assignment.members)
            .is_some()
        {
            check.tell(assignment.partition, "is assigned twice");
        }
        check.assignment(&input.partition(assignment.partition), assignment.members);
    }
    let unplaced: BTreeSet<PartitionRow> = plan.unplaced().map(|it| it.partition).collect();
    for partition in input.partitions() {
        let target = targets.get(&partition.row).copied();
        check.completeness(&partition, target, unplaced.contains(&partition.row));
    }
    check.capacities(&targets, &unplaced);
    check.found
}

struct Check<'a> {
    input: &'a Input,
    /// Asked for its zone limits alone.
    rules: Draft<'a>,
    found: Vec<String>,
}

impl Check<'_> {
    fn tell(&mut self, partition: PartitionRow, what: &str) {
        self.found
            .push(format!("partition {}: {what}", partition.place()));
    }

    fn assignment(&mut self, partition: &Partition, target: &[MemberRow]) {
        let row = partition.row;
        let Some(leader) = target.first().copied() else {
            return self.tell(row, "is assigned to nobody");
        };
        if target.iter().collect::<BTreeSet<_>>().len() < target.len() {
            self.tell(row, "has two replicas on a member");
        }
        if target.len() > partition.copies as usize {
            self.tell(row, "has too many replicas");
        }
        if partition.pin.is_some_and(|pin| pin != leader) {
            self.tell(row, "is led beside its pin");
        }
        if partition.frozen && partition.leader().is_some_and(|it| self.is_live(it)) {
            self.tell(row, "is frozen");
        }
        for member in target {
            self.member(partition, *member);
        }
        self.zones(partition, target);
        let stand_in = partition.replicas.iter().find(|replica| {
            replica.ready && self.is_live(replica.member) && target.contains(&replica.member)
        });
        if !self.is_live(leader) && partition.pin.is_none() && stand_in.is_some() {
            self.tell(row, "is led by a member that is not live");
        }
    }

    fn member(&mut self, partition: &Partition, member: MemberRow) {
        let there = &self.input.members()[member];
        let had = partition.replicas.iter().any(|it| it.member == member);
        let name = there.name.clone();
        let tell = |check: &mut Self, what| check.tell(partition.row, &format!("{what} {name}"));
        if there.liveness == Liveness::Gone {
            tell(self, "is assigned to the lost");
        } else if !had && !there.takes() {
            tell(self, "is newly assigned to the unavailable");
        }
        if !partition.allows(member) && !partition.frozen {
            tell(self, "may not be at");
        }
    }

    fn zones(&mut self, partition: &Partition, target: &[MemberRow]) {
        let mut counts = BTreeMap::new();
        for member in target {
            *counts.entry(self.input.zone(*member)).or_insert(0) += 1;
        }
        let limit = self.rules.zone_limit(partition);
        if !partition.frozen && counts.values().any(|count| *count > limit) {
            self.tell(partition.row, "has too many replicas in a zone");
        }
    }

    fn completeness(&mut self, partition: &Partition, target: Option<&[MemberRow]>, told: bool) {
        let present = partition.replicas.iter();
        let present = present
            .filter(|it| self.input.members()[it.member].liveness != Liveness::Gone)
            .count();
        let has = target.map_or(present, <[_]>::len);
        if !told && has < partition.copies as usize && !(partition.frozen && has > 0) {
            self.tell(
                partition.row,
                "lacks replicas, and is not told to be unplaced",
            );
        }
        let drains = partition.replicas.iter().any(|it| {
            let member = &self.input.members()[it.member];
            member.liveness == Liveness::Live && member.intent == Intent::Drain
        });
        if !told && drains && target.is_none() && self.has_elsewhere(partition) {
            self.tell(partition.row, "stays on a member that drains");
        }
    }

    /// Whether some member without the partition could take it, but for its capacity.
    fn has_elsewhere(&self, partition: &Partition) -> bool {
        let unlimited = |member: &crate::rebalancer::Member| {
            member.max.is_none() && member.capacity.iter().all(|it| *it == u64::MAX)
        };
        let single = partition.copies == 1 && partition.pin.is_none() && !partition.frozen;
        let members = self.input.members().iter();
        single
            && members
                .into_iter()
                .any(|(row, member)| member.takes() && unlimited(member) && partition.allows(row))
    }

    /// Nobody who gets something has more than it may have.
    ///
    /// What is told to be unplaced and stays where it may not be does not count: it waits there for
    /// a place.
    fn capacities(
        &mut self,
        targets: &BTreeMap<PartitionRow, &[MemberRow]>,
        unplaced: &BTreeSet<PartitionRow>,
    ) {
        let members = self.input.members();
        let mut sums = crate::rebalancer::Each::filled(members.len(), ([0_u64; 4], 0_u32, false));
        for partition in self.input.partitions() {
            let had: Vec<MemberRow> = partition.replicas.iter().map(|it| it.member).collect();
            let waits = unplaced.contains(&partition.row);
            let stays = if waits { &[] } else { had.as_slice() };
            let target = targets.get(&partition.row).copied().unwrap_or(stays);
            for member in target {
                let (weights, count, gets) = &mut sums[*member];
                for (sum, weight) in weights.iter_mut().zip(partition.weights) {
                    *sum = sum.saturating_add(weight);
                }
                *count += 1;
                *gets |= !had.contains(member);
            }
        }
        for (row, (weights, count, gets)) in sums.iter() {
            let member = &members[row];
            let over = weights
                .iter()
                .zip(member.capacity)
                .any(|(sum, cap)| *sum > cap);
            if *gets && (over || member.max.is_some_and(|max| *count > max)) {
                self.found
                    .push(format!("member {} gets too much", member.name));
            }
        }
    }

    fn is_live(&self, member: MemberRow) -> bool {
        self.input.members()[member].liveness == Liveness::Live
    }
}
