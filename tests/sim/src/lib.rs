//! Deterministic simulation of whole clusters: the kernel's own code under virtual time, with
//! simulated disks, network, clocks and clients, all decided by one seed.
//!
//! A world is tried by faults first, and every invariant is checked at every step; then it is
//! healed and must make progress. The same seed gives the same [`Report::trace_hash`]. A failure
//! is reproduced by its seed alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a simulator stops at its own mistakes, as tests do"
)]
#![allow(dead_code, reason = "what whole members need is there before they are")]

mod carriage;
mod client;
mod clock;
mod ctx;
mod dice;
mod disk;
mod faults;
mod history;
mod invariants;
mod member;
mod network;
mod oracle;
mod policies;
mod run;
mod runtime;
pub mod scenarios;
mod seen;
mod store;
mod time;
mod trace;
mod violation;
mod wires;
mod world;

pub use run::{Report, run_seed, run_seeds};
pub use seen::{Event, Seen};
pub use violation::Violation;

/// Which parts of a member are the kernel's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Consensus; log and execution are small models.
    Consensus,
    /// Consensus and the log on a simulated disk; execution is a small model.
    Log,
    /// All of it.
    Whole,
}

/// How a world is lived.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Simulated seconds; the last quarter is without faults.
    pub seconds: u64,
    /// Which parts are the kernel's own.
    pub layers: Layers,
    /// Print what happens.
    pub verbose: bool,
    /// What runs the standard plugins in place of their native code: a runtime that has the
    /// component of each of [`standard_plugins`] under the digest that is given there.
    pub guests: Option<MakeGuests>,
}

/// Makes a runtime for one process of a member.
pub type MakeGuests = fn() -> Box<dyn folkmoot_core::plugin::PluginRuntime>;

/// The plugins of every world that clusters have too: their names and the digests that stand for
/// their components.
#[must_use]
pub fn standard_plugins() -> [(&'static str, folkmoot_proto::Digest); 2] {
    use runtime::Known;
    [
        ("lock", Known::Lock.digest()),
        ("counter", Known::Counter.digest()),
    ]
}
