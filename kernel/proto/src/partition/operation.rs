//! What clients ask of a map, and what members say of their partitions.

use super::{Layout, MapConfig, PartitionId, PolicyChoice, WEIGHT_MAX};
use crate::Zxid;
use crate::group::check_name;
use crate::limits::MEMBER_CAPACITIES_MAX;

/// What an operator says of a partition. What is none stays as it is.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct PartitionChange {
    /// What each replica weighs, in up to 4 dimensions.
    pub weights: Option<Vec<u64>>,
    /// What it costs to move a replica, in a unit of the group's.
    pub move_cost: Option<u64>,
    /// The only member that may own it; the inner none takes the pin away.
    pub pin: Option<Option<String>>,
    /// The only members that may have it; empty for all.
    pub allowed: Option<Vec<String>>,
    /// Whether the policy must leave it where it is.
    pub frozen: Option<bool>,
}

impl PartitionChange {
    /// Whether it keeps the limits.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        if let Some(weights) = &self.weights {
            if !(1..=MEMBER_CAPACITIES_MAX).contains(&weights.len()) {
                return Err(format!(
                    "a partition has 1 to {MEMBER_CAPACITIES_MAX} weights"
                ));
            }
            if weights.iter().any(|weight| *weight > WEIGHT_MAX) {
                return Err(format!("a weight is at most {WEIGHT_MAX}"));
            }
        }
        if self.move_cost.is_some_and(|cost| cost > WEIGHT_MAX) {
            return Err(format!("a move's cost is at most {WEIGHT_MAX}"));
        }
        let pin = self.pin.iter().flatten();
        for member in pin.chain(self.allowed.iter().flatten()) {
            check_name("member", member)?;
        }
        if let (Some(Some(pin)), Some(allowed)) = (&self.pin, &self.allowed)
            && !allowed.is_empty()
            && !allowed.contains(pin)
        {
            return Err(format!("it is pinned to {pin}, which may not have it"));
        }
        Ok(())
    }
}

/// What a member says of a partition that it has, or is to have. What is not of the present move,
/// token and incarnation does nothing (rule R36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum PartitionReport {
    /// The replica has caught up, and could lead (rule R40).
    Ready {
        /// The partition.
        partition: PartitionId,
        /// The move that brought it.
        movement: Zxid,
    },
    /// The owner has let go: it serves the partition no more.
    Released {
        /// The partition.
        partition: PartitionId,
        /// The move that takes it away.
        movement: Zxid,
        /// The token that it had.
        token: Zxid,
    },
}

/// What the owner of a partition measured of it. It is a hint, which is not logged: what is not of the
/// present owner does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PartitionLoad {
    /// The partition.
    pub partition: PartitionId,
    /// The token by which it is owned.
    pub token: Zxid,
    /// How much work it is, in a unit of the group's own.
    pub load: u64,
}

/// What a client asks of a group's map.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum MapOperation {
    /// Gives a group, which is made if it is not there, a map.
    Create {
        /// How it is kept.
        config: MapConfig,
        /// Its partitions.
        layout: Layout,
    },
    /// Keeps it differently from now on. Moves that are under way go on.
    Configure {
        /// How.
        config: MapConfig,
    },
    /// Takes the map away. Every token dies.
    Remove,
    /// Says something of partitions.
    Change {
        /// Which.
        partitions: Vec<PartitionId>,
        /// What.
        change: PartitionChange,
    },
    /// Moves a partition, within the hard invariants and outside the budget.
    Move {
        /// The partition.
        partition: PartitionId,
        /// Who is to have it; the first is to own it.
        members: Vec<String>,
    },
    /// Ends a move that has not begun to revoke.
    CancelMove {
        /// The partition.
        partition: PartitionId,
    },
    /// Nothing is moved for balance any more, or again.
    Freeze {
        /// Which of the two.
        frozen: bool,
    },
    /// The plan that waits for approval may be made; a policy whose breaker is open is asked again.
    Approve,
    /// Splits a range in two halves (rule R39).
    Split {
        /// The partition.
        partition: PartitionId,
    },
    /// Has a policy plan, and does nothing of it. Waits; completed by [`crate::reply::Outcome::Planned`].
    Plan {
        /// Which policy; none: the map's, or the kernel's own plan, at once, where it has none.
        policy: Option<PolicyChoice>,
    },
    /// Whether all these members may stop at once; a yes is a permit that is kept for a while, and
    /// other permits are counted with it (rule R42).
    Permit {
        /// The members.
        members: Vec<String>,
        /// For how long, in milliseconds.
        ttl_ms: u64,
    },
    /// What a member says; its own session asks.
    Report {
        /// The member.
        member: String,
        /// What.
        reports: Vec<PartitionReport>,
    },
}

impl MapOperation {
    /// Bytes of its texts and lists.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let texts = |names: &[String]| names.iter().map(|name| name.len() + 16).sum::<usize>();
        let policy = |choice: &Option<PolicyChoice>| {
            let choice = choice.as_ref();
            choice.map_or(0, |choice| choice.configuration.len())
        };
        match self {
            Self::Create { config, layout } => {
                let names = match layout {
                    Layout::Names(names) => texts(names),
                    Layout::Ranges(_) => 0,
                };
                policy(&config.policy) + names
            }
            Self::Configure { config } => policy(&config.policy),
            Self::Plan { policy: choice } => policy(choice),
            Self::Change { partitions, change } => {
                let pin = change.pin.iter().flatten().map(String::len).sum::<usize>();
                let allowed = change.allowed.as_deref().map_or(0, texts);
                let weights = change.weights.as_ref().map_or(0, |of| of.len() * 8);
                partitions.len() * 4 + pin + allowed + weights
            }
            Self::Move { members, .. } | Self::Permit { members, .. } => texts(members),
            Self::Report { member, reports } => {
                member.len() + reports.len() * size_of::<PartitionReport>()
            }
            Self::Remove
            | Self::CancelMove { .. }
            | Self::Freeze { .. }
            | Self::Approve
            | Self::Split { .. } => 0,
        }
    }
}
