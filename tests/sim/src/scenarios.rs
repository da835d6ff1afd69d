//! Short scripts for rules that a whole cluster shows too seldom, or not at all: each is a few steps
//! of one machine, and says what is wrong if its rule does not hold.

mod consensus;
mod execution;
mod log;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub run: fn() -> Result<(), String>,
}

const fn scenario(name: &'static str, run: fn() -> Result<(), String>) -> Scenario {
    Scenario { name, run }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    scenario("commit_is_told_at_once", consensus::commit_is_told_at_once),
    scenario(
        "a_leader_without_a_quorum_steps_down",
        consensus::a_leader_without_a_quorum_steps_down,
    ),
    scenario(
        "contact_counts_from_sending",
        consensus::contact_counts_from_sending,
    ),
    scenario(
        "a_vote_waits_for_the_disk",
        consensus::a_vote_waits_for_the_disk,
    ),
    scenario(
        "an_earlier_terms_entry_is_not_counted",
        consensus::an_earlier_terms_entry_is_not_counted,
    ),
    scenario(
        "a_read_waits_for_a_round",
        consensus::a_read_waits_for_a_round,
    ),
    scenario(
        "a_damaged_member_has_no_vote",
        consensus::a_damaged_member_has_no_vote,
    ),
    scenario(
        "lost_data_is_told_from_a_torn_tail",
        log::lost_data_is_told_from_a_torn_tail,
    ),
    scenario(
        "a_checkpoint_ahead_of_its_log_is_refused",
        log::a_checkpoint_ahead_of_its_log_is_refused,
    ),
    scenario(
        "a_refused_batch_takes_the_overlay_with_it",
        execution::a_refused_batch_takes_the_overlay_with_it,
    ),
    scenario("effects_are_strict", execution::effects_are_strict),
];
