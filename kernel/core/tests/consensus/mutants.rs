//! Every rule of consensus taken out in turn: random schedules must find each of them. Prints the
//! rule, the switch, and the seed at which it was found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect fails"
)]

#[allow(dead_code, reason = "the other target uses more of it")]
mod cluster;
#[allow(dead_code, reason = "the other target uses more of it")]
mod disk;
#[allow(dead_code, reason = "the other target uses more of it")]
mod fixtures;
mod schedule;

use std::panic::{AssertUnwindSafe, catch_unwind};

use folkmoot_core::mutation::{Mutation, switch_off, switch_on};

use crate::schedule::Schedule;

const SEEDS_MAX: u64 = 20_000;

fn seed_that_finds(mutation: Mutation) -> Option<u64> {
    (0..SEEDS_MAX).find(|seed| {
        switch_on(mutation);
        let voters = if seed % 4 == 3 { 5 } else { 3 };
        let outcome = catch_unwind(AssertUnwindSafe(|| Schedule::new(voters, *seed).run()));
        switch_off();
        outcome.is_err()
    })
}

#[test]
fn every_mutation_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for mutation in Mutation::ALL
        .iter()
        .filter(|m| MUTATIONS.contains(&m.name()))
    {
        let found = seed_that_finds(*mutation);
        eprintln!("{:4} {:22} {found:?}", mutation.rule(), mutation.name());
        if found.is_none() {
            missed.push(mutation.name());
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Those that can break what random schedules check. The rest break promptness, or R3 and R8, and
/// are checked by literal tests.
const MUTATIONS: &[&str] = &[
    "VoteBeforeDurable",
    "AckBeforeDurable",
    "LeaderCountsUndurable",
    "DurableByIndexAlone",
    "ApplyUndurable",
    "CommitUnverified",
    "CommitEarlierTerm",
    "ReadWithoutRound",
    "ReadBeforeOwnEntry",
    "WipedVotes",
    "DamagedVotes",
];
