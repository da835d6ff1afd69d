//! What the kernel knows of sessions' silence, and how far it lets anybody judge it (rule R43):
//! `execution` keeps it on the leader, and the trials of failure detectors have the same rules.

mod arrivals;
mod brake;

pub use arrivals::{Figures, History};
pub use brake::{BRAKE_TIMEOUTS, Brake};

/// The timeouts after which a silent session expires whatever a failure detector says.
pub const CEILING_TIMEOUTS: u64 = 3;
/// Between two questions to a failure detector, in milliseconds, at the least.
pub const LOOK_MS: u64 = 100;
