//! What is known of loads.

use folkmoot_sdk::rebalancer::prelude::*;

/// Loads, known or guessed, as parts of what a member should have.
#[derive(Debug)]
pub(crate) struct Loads {
    loads: Each<PartitionRow, f64>,
    /// What each member should have of the whole; 1 where it should have nothing.
    shares: Each<MemberRow, f64>,
    known: usize,
}

impl Loads {
    /// What was not reported lately counts as the mean of what was.
    pub(crate) fn of(input: &Input, stale_ms: u64) -> Self {
        let fresh = |partition: Partition| {
            let load = partition.load.filter(|load| load.age_ms <= stale_ms);
            load.map(|load| load.value.max(0.0))
        };
        let reported: Vec<Option<f64>> = input.partitions().map(fresh).collect();
        let known = reported.iter().flatten().count();
        let sum: f64 = reported.iter().flatten().sum();
        // With no load at all it is the number of partitions that counts.
        let mean = if sum > 0.0 { sum / known as f64 } else { 1.0 };
        let guess = |load: Option<f64>| load.filter(|_| sum > 0.0).unwrap_or(mean);
        let loads: Vec<f64> = reported.into_iter().map(guess).collect();
        let total: f64 = loads.iter().sum();
        Self {
            loads: Each::of(loads),
            shares: shares(input, total),
            known,
        }
    }

    /// The partition's load.
    pub(crate) fn load(&self, partition: PartitionRow) -> f64 {
        self.loads[partition]
    }

    /// The partition's load as a part of what the member should have.
    pub(crate) fn heat(&self, partition: PartitionRow, member: MemberRow) -> f64 {
        self.loads[partition] / self.shares[member]
    }

    /// Whether reports speak of at least half of the partitions.
    pub(crate) fn mostly_known(&self) -> bool {
        self.known * 2 >= self.loads.len()
    }
}

/// What each member should have, by capacity, or in equal parts where some have no limit.
fn shares(input: &Input, total: f64) -> Each<MemberRow, f64> {
    let members = input.members().values();
    let mut takers = members.iter().filter(|member| member.takes());
    let limited = takers.all(|member| member.capacity[0] != u64::MAX);
    let weight = |member: &Member| {
        if limited {
            member.capacity[0] as f64
        } else {
            1.0
        }
    };
    let takers = members.iter().filter(|member| member.takes());
    let sum: f64 = takers.map(weight).sum();
    let share = |member: &Member| {
        let share = total * weight(member) / sum;
        if member.takes() && share > 0.0 {
            share
        } else {
            1.0
        }
    };
    Each::of(members.iter().map(share).collect())
}
