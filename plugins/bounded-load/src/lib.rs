//! The standard policy `bounded-load`: consistent hashing with bounded loads.
//!
//! Members have points on a ring, and a partition goes clockwise from its hash to the first member
//! that has less than its bound, which is its share and some part more (Mirrokni, Thorup and
//! Zadimoghaddam 2018). Partitions come in the order of their hashes. It is nearly as stable as a
//! plain ring, and nobody has more than its bound.

use folkmoot_sdk::rebalancer::prelude::*;
use serde::Deserialize;
use serde_json::json;

/// Points of an average member: enough for shares within some 10 %, which the bound cuts further.
const POINTS: f64 = 100.0;

/// Consistent hashing with bounded loads.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundedLoad {
    /// By which part a member may have more than its share.
    slack: f64,
}

impl Default for BoundedLoad {
    fn default() -> Self {
        Self { slack: 0.25 }
    }
}

impl Rebalancer for BoundedLoad {
    fn describe() -> PolicyDescription {
        let summary = "A ring of hashes, on which nobody has more than its share and some slack.";
        PolicyDescription::new("bounded-load", env!("CARGO_PKG_VERSION"), summary)
            .needs("partitions.key")
            .needs("members.key")
            .configured_by(json!({
                "type": "object",
                "properties": {
                    "slack": {
                        "type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 0.25,
                    },
                },
                "additionalProperties": false,
            }))
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        *self = configuration(bytes)?;
        if self.slack > 0.0 && self.slack <= 10.0 {
            return Ok(());
        }
        let message = "slack is above 0 and at most 10";
        Err(Rejection::new("bad-configuration", message))
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        let mut draft = match input.request.mode {
            Mode::Full => Draft::from_scratch(input),
            Mode::Place => Draft::keep(input),
        };
        let ring = Ring::new(input, self.slack);
        let mut order: Vec<(u64, PartitionRow)> = input
            .partitions()
            .map(|partition| (partition.key, partition.row))
            .collect();
        order.sort_unstable();
        for (key, partition) in order {
            // Whom the bound keeps out may still be the only one that can have it.
            ring.place(&mut draft, key, partition, true);
            ring.place(&mut draft, key, partition, false);
            draft.settle_leader(partition);
        }
        Ok(draft.into_plan("the ring leads there"))
    }
}

folkmoot_sdk::export_rebalancer!(BoundedLoad);

struct Ring {
    /// In the order of hashes.
    points: Vec<(u64, MemberRow)>,
    bounds: Each<MemberRow, u32>,
}

impl Ring {
    fn new(input: &Input, slack: f64) -> Self {
        let weights = weights(input);
        let sum: f64 = weights.values().iter().sum();
        let present = weights
            .values()
            .iter()
            .filter(|weight| **weight > 0.0)
            .count();
        let replicas: f64 = input.partitions().map(|it| f64::from(it.copies)).sum();
        let share = |weight: f64| if sum > 0.0 { weight / sum } else { 0.0 };
        let mut points = Vec::new();
        for (row, weight) in weights.iter() {
            let count = (POINTS * present as f64 * share(*weight)).round();
            let key = input.members()[row].key;
            points.extend((0..whole(count)).map(|point| (mix(u64::from(point), key), row)));
        }
        points.sort_unstable();
        let bound = |weight: &f64| whole((replicas * share(*weight) * (1.0 + slack)).ceil());
        let bounds = Each::of(weights.values().iter().map(bound).collect());
        Self { points, bounds }
    }

    /// Goes clockwise from the partition's hash. Who is away, or gets nothing, keeps what it has.
    fn place(&self, draft: &mut Draft, key: u64, partition: PartitionRow, bounded: bool) {
        if !draft.lacks(partition) {
            return;
        }
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at(start);
        for (_, member) in after.iter().chain(before) {
            if bounded && draft.held(*member).count >= self.bounds[*member] {
                continue;
            }
            if draft.can_place(partition, *member) {
                draft.place(partition, *member);
            } else {
                draft.retain(partition, *member);
            }
            if !draft.lacks(partition) {
                return;
            }
        }
    }
}

/// What members are counted by: their capacity, or equal parts where some have no limit.
fn weights(input: &Input) -> Each<MemberRow, f64> {
    let present =
        |member: &Member| member.liveness != Liveness::Gone && member.intent != Intent::Drain;
    let members = input.members().values();
    let mut there = members.iter().filter(|member| present(member));
    let limited = there.all(|member| member.capacity[0] != u64::MAX);
    let weight = |member: &Member| match (present(member), limited) {
        (false, _) => 0.0,
        (true, true) => member.capacity[0] as f64,
        (true, false) => 1.0,
    };
    Each::of(members.iter().map(weight).collect())
}

fn whole(count: f64) -> u32 {
    count as u32
}
