//! What the kernel knows of sessions' silence, whoever judges it: `execution` keeps it on the leader,
//! and the trials of failure detectors keep the same of the traces that they judge on.

mod arrivals;

pub use arrivals::{Figures, History};

/// The timeouts after which a silent session expires whatever a failure detector says (rule R43).
pub const CEILING_TIMEOUTS: u64 = 3;
/// Between two questions to a failure detector, in milliseconds, at the least.
pub const LOOK_MS: u64 = 100;
