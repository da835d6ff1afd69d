//! The log on a disk that crashes, tears and rots.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails here says so"
)]

mod crash;
mod disk;
mod world;

use crash::{Seen, crash_everywhere};

/// Rules R22 and R24: whatever a crash leaves of the open operations, at any of them, and again at
/// any operation of the restart, what was reported as durable is there, and nothing half is.
#[test]
fn survives_crash_at_every_operation() {
    let mut seen = Seen::default();
    for seed in 1..=4 {
        crash_everywhere(seed, 60, &mut seen);
    }
    println!("{seen:?}");
    assert!(seen.crashes > 1000, "{seen:?}");
    for count in [
        seen.lost_something,
        seen.kept_more,
        seen.truncations,
        seen.checkpoints,
        seen.snapshots,
    ] {
        assert!(count > 5, "{seen:?}");
    }
}
