//! A map as the command tells it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `folkmoot partition map GROUP --output json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Map {
    pub(super) partitions: Vec<Partition>,
    pub(super) breaker: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u32,
    owner: Option<Owner>,
    movement: Option<Movement>,
    why: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    member: String,
    lives: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Movement {
    phase: String,
}

impl Partition {
    fn owner(&self) -> Option<&str> {
        let owner = self.owner.as_ref().filter(|owner| owner.lives);
        owner.map(|owner| owner.member.as_str())
    }
}

impl Map {
    /// Whether every partition has an owner that lives, and nothing is under way.
    pub(super) fn is_settled(&self) -> bool {
        let settled = |of: &Partition| of.owner().is_some() && of.movement.is_none();
        self.partitions.iter().all(settled)
    }

    /// The partitions that a member owns.
    pub(super) fn owned_by(&self, member: &str) -> Vec<u32> {
        let owned = self.partitions.iter();
        let owned = owned.filter(|of| of.owner() == Some(member));
        owned.map(|of| of.partition).collect()
    }

    /// Partitions with an owner that lives.
    pub(super) fn owned(&self) -> usize {
        let owned = self.partitions.iter().filter(|of| of.owner().is_some());
        owned.count()
    }

    /// Partitions whose owners are letting go.
    pub(super) fn revoking(&self) -> usize {
        let movements = self.partitions.iter().filter_map(|of| of.movement.as_ref());
        movements.filter(|of| of.phase == "revoking").count()
    }

    /// The most that a member owns, and the fewest, of those that own something.
    pub(super) fn most_and_fewest(&self) -> (usize, usize) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in self.partitions.iter().filter_map(Partition::owner) {
            *counts.entry(owner).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        (most, counts.values().min().copied().unwrap_or(0))
    }

    /// What has another owner than `before`: how many, and who gave how many to whom and why.
    pub(super) fn moved_since(&self, before: &Self) -> (usize, Vec<String>) {
        let mut ways: BTreeMap<(&str, &str, &str), Vec<u32>> = BTreeMap::new();
        let was: BTreeMap<u32, Option<&str>> = before
            .partitions
            .iter()
            // Whether it lives by now or not.
            .map(|of| (of.partition, of.owner.as_ref().map(|of| of.member.as_str())))
            .collect();
        for of in &self.partitions {
            let from = was.get(&of.partition).copied().flatten();
            if let Some(to) = of.owner()
                && from != Some(to)
            {
                let way = (from.unwrap_or("nobody"), to, of.why.as_str());
                ways.entry(way).or_default().push(of.partition);
            }
        }
        let count = ways.values().map(Vec::len).sum();
        let lines = ways.iter().map(|((from, to, why), partitions)| {
            let partitions: Vec<String> = partitions.iter().map(u32::to_string).collect();
            format!("{from} to {to}: {} ({why})", partitions.join(" "))
        });
        (count, lines.collect())
    }
}
