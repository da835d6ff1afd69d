//! Policies for partition maps: which members should have which partitions.
//!
//! A policy gives a target, and the kernel makes and orders the moves. An author sees partitions and
//! members; a [`Draft`] holds what may stay where it is, and knows what is allowed:
//!
//! ```
//! use folkmoot_sdk::rebalancer::prelude::*;
//!
//! /// Gives each vacancy to the member that has the least.
//! #[derive(Default)]
//! struct LeastLoaded;
//!
//! impl Rebalancer for LeastLoaded {
//!     fn describe() -> PolicyDescription {
//!         PolicyDescription::new("least-loaded", "0.1.0", "Fills vacancies.")
//!     }
//!
//!     fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
//!         let mut draft = Draft::keep(input);
//!         for partition in input.partitions() {
//!             while draft.lacks(partition.row) {
//!                 let member = draft.candidates(partition.row).min_by_key(|m| draft.held(*m).count);
//!                 let Some(member) = member else { break };
//!                 draft.place(partition.row, member);
//!             }
//!         }
//!         Ok(draft.into_plan("placed"))
//!     }
//! }
//! folkmoot_sdk::export_rebalancer!(LeastLoaded);
//!
//! // And its test:
//! use folkmoot_sdk::testing::TestCluster;
//!
//! TestCluster::new(3, 12).lose("b").check(&LeastLoaded);
//! ```

mod draft;
mod hash;
mod input;
mod lists;
mod plan;
mod rows;

pub use draft::{Draft, Held};
pub use hash::mix;
pub use input::{
    DIMENSIONS, Input, Intent, Liveness, Load, Member, Mode, Move, MoveState, Partition,
    PartitionSpec, Replica, Request, Role, WEIGHT_MAX, Weights,
};
pub use plan::{Assignment, Plan, Score, Unplaced};
pub use rows::{Each, MemberRow, PartitionRow, Row, ZoneRow};

use crate::policy::{PolicyDescription, no_configuration};
use crate::rejection::Rejection;

/// What a rebalancer's file begins with.
pub mod prelude {
    pub use super::{
        Draft, Each, Input, Intent, Liveness, Member, MemberRow, Mode, Partition, PartitionRow,
        Plan, Rebalancer, Row, ZoneRow, mix,
    };
    pub use crate::policy::{PolicyDescription, configuration};
    pub use crate::rejection::Rejection;
}

/// A policy for partition maps.
///
/// It is pure: the same input gives the same plan, and what the plan asks for gives, asked again,
/// no move. The struct is its configuration.
pub trait Rebalancer: Default + 'static {
    /// What the policy is. The same at each call.
    fn describe() -> PolicyDescription;

    /// Takes the group's configuration: once for each instance, before [`Rebalancer::plan`], and
    /// once when the policy is chosen. A policy that has none refuses any.
    ///
    /// # Errors
    ///
    /// A rejection refuses the choice.
    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        no_configuration(configuration)
    }

    /// Says where partitions should be.
    ///
    /// # Errors
    ///
    /// A rejection: the kernel falls back to placing what has no owner.
    fn plan(&self, input: &Input) -> Result<Plan, Rejection>;
}
