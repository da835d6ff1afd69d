//! A mount in memory, so that an author's unit test reads well.
//!
//! [`Mount`] does for one mount what the kernel does: transactions that take effect as a whole or
//! not at all, sessions and their ephemeral nodes, waits, timers, and the queue of events.
//!
//! The calls go to a [`Runner`]: the recipe itself natively, or whatever else can run it, so that
//! the same scenarios can be run with the Wasm component.
//!
//! For rebalancers there is [`TestCluster`], which holds what they plan against the kernel's
//! [invariants](violations).

mod cluster;
mod invariants;
mod mount;
mod runner;
mod view;

pub use cluster::TestCluster;
pub use invariants::violations;
pub use mount::{Answer, Completion, Mount};
pub use runner::{Call, CallOutcome, Native, Runner};
pub use view::View;
