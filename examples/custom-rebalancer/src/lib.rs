//! A rebalancer of one's own: it fills members up one after the other, so that those that are empty
//! can be shut down. The standard ones spread instead.

use core::cmp::Reverse;

use folkmoot_sdk::rebalancer::prelude::*;
use serde::Deserialize;
use serde_json::json;

/// Fills members up, the fullest first. The struct is its configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FillUp {
    /// How many replicas a member should have; as many as it has room for, where nothing is said.
    at_most: Option<u32>,
}

impl Rebalancer for FillUp {
    fn describe() -> PolicyDescription {
        let summary = "Fills members up, the fullest first.";
        PolicyDescription::new("fill-up", env!("CARGO_PKG_VERSION"), summary).configured_by(json!({
            "type": "object",
            "properties": {"at_most": {"type": "integer", "minimum": 1}},
            "additionalProperties": false,
        }))
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        *self = configuration(bytes)?;
        Ok(())
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        // What may stay where it is stays: a move has its price.
        let mut draft = Draft::keep(input);
        for partition in input.partitions() {
            while draft.lacks(partition.row) {
                let count = |member: &MemberRow| draft.held(*member).count;
                let fits =
                    |member: &MemberRow| self.at_most.is_none_or(|most| count(member) < most);
                let fitting = draft.candidates(partition.row).filter(fits);
                let fullest = fitting.max_by_key(|member| (count(member), Reverse(*member)));
                // Where all are full, one gets more than it should: better there than nowhere.
                let any = || draft.candidates(partition.row).min_by_key(count);
                let Some(member) = fullest.or_else(any) else {
                    break;
                };
                draft.place(partition.row, member);
            }
        }
        Ok(draft.into_plan("the fullest member that has room for it"))
    }
}

folkmoot_sdk::export_rebalancer!(FillUp);
