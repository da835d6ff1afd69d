//! Every rule of consensus taken out in turn: the tests that hold it must fail without it. Prints
//! rule, switch, and what found it: a test by name, or the first seed of the random schedules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect fails"
)]
#![allow(dead_code, reason = "the modules are those of the other target")]
#![allow(unused_imports, reason = "the modules are those of the other target")]

mod cluster;
mod disk;
mod figures;
mod fixtures;
mod rules_election;
mod rules_replication;
mod schedule;
mod script;
mod stories;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use folkmoot_core::mutation::{Mutation, switch_off, switch_on};

use crate::schedule::Schedule;

/// Schedules that are tried before a mutation counts as not found by them.
const SEEDS_MAX: u64 = 5000;

/// A test that holds a rule.
type Check = (&'static str, fn());

/// What must find a mutation.
struct Case {
    mutation: Mutation,
    /// A test; random schedules if there is none.
    check: Option<Check>,
}

const CASES: &[Case] = &[
    by_check(
        Mutation::AppendUnchained,
        ("a batch is chained", rules_election::r3_a_batch_is_chained),
    ),
    by_check(
        Mutation::ContactFromReceipt,
        (
            "contact counts from the time of sending",
            rules_election::r8_contact_counts_from_the_time_of_sending,
        ),
    ),
    at_random(Mutation::VoteBeforeDurable),
    at_random(Mutation::AckBeforeDurable),
    at_random(Mutation::LeaderCountsUndurable),
    at_random(Mutation::DurableByIndexAlone),
    at_random(Mutation::ApplyUndurable),
    at_random(Mutation::CommitUnverified),
    by_check(
        Mutation::CommitEarlierTerm,
        (
            "Raft, Figure 8",
            figures::figure_8_an_earlier_terms_entry_on_a_majority_is_not_committed,
        ),
    ),
    by_check(
        Mutation::StayWithoutQuorum,
        (
            "a leader without a quorum steps down",
            rules_election::r19_a_leader_without_a_quorum_steps_down,
        ),
    ),
    by_check(
        Mutation::SilentCommit,
        (
            "commit is told at once",
            rules_replication::r19_commit_is_told_at_once,
        ),
    ),
    by_check(
        Mutation::ReadWithoutRound,
        (
            "a leader that is no longer one answers no read",
            stories::r20_a_leader_that_is_no_longer_one_answers_no_read,
        ),
    ),
    at_random(Mutation::ReadBeforeOwnEntry),
    at_random(Mutation::WipedVotes),
    at_random(Mutation::DamagedVotes),
];

const fn by_check(mutation: Mutation, check: Check) -> Case {
    Case {
        mutation,
        check: Some(check),
    }
}

const fn at_random(mutation: Mutation) -> Case {
    Case {
        mutation,
        check: None,
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let missed = CASES.iter().filter(|case| !is_found(case)).count();
    if missed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{missed} mutations were not found");
    ExitCode::FAILURE
}

fn is_found(case: &Case) -> bool {
    let mutation = case.mutation;
    let found = match case.check {
        Some((name, check)) => fails(mutation, check).then(|| format!("test: {name}")),
        None => seed_that_finds(mutation).map(|seed| format!("random schedule, seed {seed}")),
    };
    let by = found.as_deref().unwrap_or("NOT FOUND");
    println!("{:4} {:22} {by}", mutation.rule(), mutation.name());
    found.is_some()
}

/// Whether a check that holds without the mutation fails with it.
fn fails(mutation: Mutation, check: impl Fn()) -> bool {
    switch_off();
    let holds = catch_unwind(AssertUnwindSafe(&check)).is_ok();
    switch_on(mutation);
    let fails = catch_unwind(AssertUnwindSafe(&check)).is_err();
    switch_off();
    holds && fails
}

fn seed_that_finds(mutation: Mutation) -> Option<u64> {
    (0..SEEDS_MAX).find(|seed| {
        let voters = if seed % 4 == 3 { 5 } else { 3 };
        fails(mutation, || Schedule::new(voters, *seed).run())
    })
}
