//! Judges rebalancers offline: the same churn for each, what they move against the least that could
//! have been moved, and how even it is afterwards.
//!
//! A [trace](trace::Trace) is what happens to members and loads. A simulated controller asks the
//! policy whenever something has changed, and makes the moves within a budget. Each plan is judged
//! against a [lower bound](bound): the fewest moves that lead from the policy's own state to one that
//! is as even as what it planned. Beside the standard policies there are [models](models) of what
//! other systems do.
//!
//! Everything follows from one seed.

pub mod bound;
mod controller;
mod flow;
pub mod models;
pub mod report;
mod svg;
pub mod trace;

pub use controller::{Measures, Sample, run};
pub use svg::{COLOURS, draw};

/// How a trial is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Members at the beginning.
    pub members: usize,
    /// Partitions.
    pub partitions: usize,
    /// What chance is made of.
    pub seed: u64,
    /// Seconds for which a member that is absent is waited for.
    pub delay_s: u64,
    /// Moves for balance that may be under way at once; recovery has no limit.
    pub budget: usize,
}

impl Options {
    /// Twelve members and 240 partitions: the flows for the bounds take a while with more.
    pub const DEFAULT: Self = Self {
        members: 12,
        partitions: 240,
        seed: 1,
        delay_s: 60,
        budget: 16,
    };
}
