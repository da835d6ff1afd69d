//! Judges failure detectors on traces, offline: how fast they find crashes against how often they
//! are wrong, by themselves (`suspect`) and within the kernel's bounds (`expire`).
//!
//! [`judge`] runs a policy, by the trait by which the kernel asks it, over a [`trace`](trace::Trace)
//! with a model of the kernel's side. `docs/failure-detection.md` says how to read what comes out.

pub mod expiry;
pub mod leader;
pub mod plot;
pub mod recorded;
pub mod report;
pub mod suspicion;
pub mod trace;
pub mod worlds;

mod client;
mod dice;

use folkmoot_sdk::detector::FailureDetector;

use crate::expiry::{Expiries, ExpiryWatcher};
use crate::leader::Expiring;
use crate::suspicion::{Curve, SuspicionWatcher};
use crate::trace::Trace;

/// What a policy did on a trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// Of its suspicion.
    pub suspicion: Curve,
    /// Of its expiries.
    pub expiry: Expiries,
}

/// Runs a policy on a trace. Its suspicion is compared with thresholds between the two of `range`.
pub fn judge<D: FailureDetector>(trace: &Trace, policy: &D, range: (f64, f64)) -> Quality {
    Quality {
        suspicion: suspicion(trace, policy, range),
        expiry: expiries(trace, policy),
    }
}

/// How good its suspicion is, where no session of a client that lives expires.
pub fn suspicion<D: FailureDetector>(trace: &Trace, policy: &D, range: (f64, f64)) -> Curve {
    let mut watcher = SuspicionWatcher::new(trace, range);
    leader::run(trace, policy, Expiring::No, &mut watcher);
    watcher.curve()
}

/// How good its expiries are, within the kernel's bounds.
pub fn expiries<D: FailureDetector>(trace: &Trace, policy: &D) -> Expiries {
    let mut watcher = ExpiryWatcher::new(trace);
    leader::run(trace, policy, Expiring::Yes, &mut watcher);
    watcher.expiries()
}
