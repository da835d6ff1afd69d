//! Each rule of the log taken out, by its switch: the checks of the log find it.
//!
//! In a test binary of its own, since a switch is on for a whole process.

#![cfg(feature = "mutants")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test that fails here says so; not every check of the log is used"
)]

#[path = "log/crash.rs"]
mod crash;
#[path = "log/damage.rs"]
mod damage;
#[path = "log/disk.rs"]
mod disk;
#[path = "log/world.rs"]
mod world;

use std::panic::catch_unwind;

use folkmoot_core::mutation::{Mutation, switch_off, switch_on};

fn crashes() {
    let mut seen = crash::Seen::default();
    for seed in 1..=12 {
        crash::crash_everywhere(seed, 60, &mut seen);
    }
}

fn losses() {
    damage::every_byte_of_earlier_drains(damage::Kind::Flip);
}

#[test]
fn every_mutant_of_the_log_is_found() {
    let checks: [(Mutation, fn()); 5] = [
        (Mutation::TrustPageCache, crashes),
        (Mutation::LostIsTorn, losses),
        (Mutation::RecycleUncovered, crashes),
        (Mutation::HeaderWithoutVote, losses),
        (Mutation::CheckpointAheadStarts, damage::checkpoint_ahead),
    ];
    for (mutation, check) in checks {
        switch_on(mutation);
        let survived = catch_unwind(check).is_ok();
        switch_off();
        assert!(!survived, "{mutation:?} was not found");
    }
}
