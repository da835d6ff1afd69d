//! The standard policy `sticky-balanced`: equal shares by capacity, with the least movement.
//!
//! What may stay, stays. Vacancies go where most is missing, zone before member. Then whoever has
//! more than its share gives to whoever has less, and nothing else moves:
//!
//! - Where all partitions weigh the same, a share is a whole number, and who gets the remainders is
//!   chosen so that the fewest replicas move. Then each move takes one from a member that has too
//!   many to one that has too few, which is the least there can be. Only where zones or allowed
//!   members are in the way is a replica moved to make room for another.
//! - Where weights differ, nothing moves while every member is within the slack. If one is not, all
//!   come within half of it, so that small changes afterwards move nothing.
//!
//! Leaders are balanced last, among the replicas, which moves no data.

mod leaders;
mod levels;
mod replicas;
mod shares;

use folkmoot_sdk::rebalancer::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::replicas::Balancer;

/// Rounds of balancing in a plan. One is enough, but where limits are in the way: then what moved
/// in one makes room for the next, until nothing moves.
const ROUNDS_MAX: usize = 16;

/// Equal shares by capacity, with the least movement.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyBalanced {
    /// Where weights differ: how far from its share a member may be, as a part of it.
    slack: f64,
}

impl Default for StickyBalanced {
    fn default() -> Self {
        Self { slack: 0.1 }
    }
}

impl Rebalancer for StickyBalanced {
    fn describe() -> PolicyDescription {
        let summary = "Equal shares by capacity, with the least movement.";
        PolicyDescription::new("sticky-balanced", env!("CARGO_PKG_VERSION"), summary)
            .needs("partitions.replicas")
            .configured_by(json!({
                "type": "object",
                "properties": {
                    "slack": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.1},
                },
                "additionalProperties": false,
            }))
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        *self = configuration(bytes)?;
        if (0.0..=1.0).contains(&self.slack) {
            return Ok(());
        }
        Err(Rejection::new(
            "bad-configuration",
            "slack is between 0 and 1",
        ))
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        let mut balancer = Balancer::new(Draft::keep(input), self.slack);
        let before = balancer.imbalance();
        balancer.fill();
        if input.request.mode == Mode::Full {
            for _ in 0..ROUNDS_MAX {
                if !balancer.level() {
                    break;
                }
                balancer = Balancer::new(balancer.into_draft(), self.slack);
                balancer.fill();
            }
        }
        let after = balancer.imbalance();
        let mut draft = balancer.into_draft();
        leaders::balance(&mut draft, input.request.mode);
        let mut plan = draft.into_plan("a member has more than its share");
        plan.score("imbalance", before, after);
        Ok(plan)
    }
}

folkmoot_sdk::export_rebalancer!(StickyBalanced);
