//! The log on a disk that crashes, tears and rots.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails here says so"
)]

mod crash;
mod damage;
mod disk;
mod golden;
mod world;

use crash::{Seen, crash_everywhere};
use damage::Kind;

/// Rules R22 and R24: whatever a crash leaves of the open operations, at any of them, and again at
/// any operation of the restart, what was reported as durable is there, and nothing half is.
#[test]
fn survives_crash_at_every_operation() {
    let mut seen = Seen::default();
    for seed in 1..=6 {
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
        seen.recycled,
    ] {
        assert!(count >= 5, "{seen:?}");
    }
}

/// Rule R23: whatever byte of the last drain is wrong or missing, that drain is cut or whole.
#[test]
fn torn_tail_is_cut() {
    for kind in Kind::ALL {
        damage::every_byte_of_last_drain(kind);
    }
}

/// Rule R23: damage to any byte of an earlier drain is told, with how far, and the vote is known.
#[test]
fn lost_data_is_told() {
    for kind in Kind::ALL {
        damage::every_byte_of_earlier_drains(kind);
    }
}

/// Rule R24: a checkpoint and the header of a segment behind it stand for the segments before.
#[test]
fn covered_data_may_be_damaged() {
    for kind in Kind::ALL {
        damage::every_byte_of_covered_drains(kind);
    }
}

/// Rule R23: a missing or damaged segment is told or refused, never taken for the log's end.
#[test]
fn lost_segment_is_told() {
    damage::every_byte_of_headers();
    damage::missing_segments();
}

/// Rule R23: the note of a loss outlives the evidence, at every crash of the restart.
#[test]
fn note_of_loss_survives_crashes() {
    damage::crash_while_noting_loss();
}

/// Rule R25: a checkpoint ahead of the log without the snapshot's record refuses the start.
#[test]
fn checkpoint_ahead_is_refused() {
    damage::checkpoint_ahead();
}
