//! Short scripts for rules that a whole cluster shows too seldom, or not at all: each is a few steps
//! of one machine, and says what is wrong if its rule does not hold.

mod components;
mod consensus;
mod detection;
mod execution;
mod leader;
mod log;
mod maps;
mod plugins;
mod scale;
mod sessions;

pub use scale::scale;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The rule that it holds.
    pub rule: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub run: fn() -> Result<(), String>,
}

const fn scenario(
    rule: &'static str,
    name: &'static str,
    run: fn() -> Result<(), String>,
) -> Scenario {
    Scenario { rule, name, run }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    scenario(
        "R19",
        "commit_is_told_at_once",
        consensus::commit_is_told_at_once,
    ),
    scenario(
        "R19",
        "a_leader_without_a_quorum_steps_down",
        consensus::a_leader_without_a_quorum_steps_down,
    ),
    scenario(
        "R8",
        "contact_counts_from_sending",
        consensus::contact_counts_from_sending,
    ),
    scenario(
        "R17",
        "a_vote_waits_for_the_disk",
        consensus::a_vote_waits_for_the_disk,
    ),
    scenario(
        "R18",
        "an_earlier_terms_entry_is_not_counted",
        consensus::an_earlier_terms_entry_is_not_counted,
    ),
    scenario(
        "R20",
        "a_read_waits_for_a_round",
        consensus::a_read_waits_for_a_round,
    ),
    scenario(
        "R23",
        "a_damaged_member_has_no_vote",
        consensus::a_damaged_member_has_no_vote,
    ),
    scenario(
        "R23",
        "lost_data_is_told_from_a_torn_tail",
        log::lost_data_is_told_from_a_torn_tail,
    ),
    scenario(
        "R25",
        "a_checkpoint_ahead_of_its_log_is_refused",
        log::a_checkpoint_ahead_of_its_log_is_refused,
    ),
    scenario(
        "R3",
        "a_refused_batch_takes_the_overlay_with_it",
        execution::a_refused_batch_takes_the_overlay_with_it,
    ),
    scenario("R6", "effects_are_strict", execution::effects_are_strict),
    scenario(
        "R7",
        "a_mount_that_faults_is_left_alone",
        plugins::a_mount_that_faults_is_left_alone,
    ),
    scenario("R11", "a_dead_wait_is_gone", plugins::a_dead_wait_is_gone),
    scenario(
        "R12",
        "a_sessions_end_is_heard_in_spite_of_faults",
        plugins::a_sessions_end_is_heard_in_spite_of_faults,
    ),
    scenario(
        "R14",
        "an_instance_goes_with_the_overlay",
        plugins::an_instance_goes_with_the_overlay,
    ),
    scenario(
        "R15",
        "an_older_attachment_is_not_heard",
        sessions::an_older_attachment_is_not_heard,
    ),
    scenario(
        "R15",
        "only_a_committed_entry_ends_a_session",
        sessions::only_a_committed_entry_ends_a_session,
    ),
    scenario(
        "R16",
        "a_heartbeat_waits_for_a_quorum",
        sessions::a_heartbeat_waits_for_a_quorum,
    ),
    scenario(
        "R16",
        "a_session_expires_behind_a_round",
        sessions::a_session_expires_behind_a_round,
    ),
    scenario(
        "R32",
        "a_sessions_end_fits_one_entry",
        sessions::a_sessions_end_fits_one_entry,
    ),
    scenario(
        "R35",
        "a_lease_waits_for_what_was_told",
        maps::a_lease_waits_for_what_was_told,
    ),
    scenario(
        "R43",
        "no_hold_goes_past_the_ceiling",
        detection::no_hold_goes_past_the_ceiling,
    ),
    scenario(
        "R43",
        "an_old_verdict_holds_nobody",
        detection::an_old_verdict_holds_nobody,
    ),
    scenario(
        "R43",
        "a_later_touch_voids_a_verdict",
        detection::a_later_touch_voids_a_verdict,
    ),
    scenario(
        "R43",
        "a_later_attachment_voids_a_verdict",
        detection::a_later_attachment_voids_a_verdict,
    ),
    scenario(
        "R43",
        "a_later_term_voids_a_verdict",
        detection::a_later_term_voids_a_verdict,
    ),
    scenario(
        "R43",
        "many_sessions_do_not_expire_at_once",
        detection::many_sessions_do_not_expire_at_once,
    ),
    scenario(
        "R31",
        "a_component_that_is_none_is_refused",
        components::a_component_that_is_none_is_refused,
    ),
    scenario(
        "R31",
        "an_upload_that_does_not_go_on_goes",
        components::an_upload_that_does_not_go_on_goes,
    ),
];
