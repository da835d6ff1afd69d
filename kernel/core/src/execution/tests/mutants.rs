//! Each rule is taken out in turn, and its test is seen to fail. A switch is on for the whole
//! process, so this runs alone: `cargo test -p folkmoot-core --features mutants --lib mutants`.

use std::panic::catch_unwind;

use super::partitions::{moves, plans, telling};
use super::{
    bounds, r01_r09_log as log, r10_r13_waits as waits, r14_r16_sessions as sessions,
    r16_expiry_under_load as load, r28_streams, r43_detectors::verdicts,
};
use crate::mutation::{Mutation, switch_off, switch_on};

const TESTS: &[(Mutation, fn())] = &[
    (
        Mutation::RefusalsUnlogged,
        log::r1_a_refusal_is_logged_with_its_reply_and_takes_its_place,
    ),
    (
        Mutation::AcceptGap,
        log::r2_only_the_next_request_is_executed_and_a_gap_is_told_once,
    ),
    (
        Mutation::KeepOverlay,
        log::r3_a_refused_batch_takes_all_that_was_executed_on_it,
    ),
    (
        Mutation::ExecuteBeforeOwnEntry,
        log::r4_a_new_leader_executes_nothing_before_its_own_first_entry,
    ),
    (
        Mutation::ProposeUnchecked,
        log::r5_what_is_proposed_decodes_to_what_was_applied,
    ),
    (
        Mutation::NoThrottle,
        sessions::r7_a_mount_that_faults_again_and_again_is_throttled,
    ),
    (
        Mutation::LogClockRestarts,
        log::r9_the_log_clock_goes_on_where_the_last_leader_left_it,
    ),
    (
        Mutation::ExecuteRepeated,
        waits::r10_a_retry_of_what_is_in_the_overlay_has_no_second_effect,
    ),
    (
        Mutation::DeadWaitCompleted,
        waits::r11_a_deadline_ends_a_wait_and_the_next_one_gets_the_grant,
    ),
    (
        Mutation::SessionEndUntold,
        waits::r12_a_closing_session_frees_what_it_held_whether_the_plugin_works_or_not,
    ),
    (
        Mutation::FaultLosesEvent,
        waits::r12_a_closing_session_frees_what_it_held_whether_the_plugin_works_or_not,
    ),
    (
        Mutation::GuardByPresence,
        waits::r13_a_guard_holds_only_for_the_grant_it_names,
    ),
    (
        Mutation::KeepInstances,
        sessions::r14_an_instance_forgets_an_overlay_that_was_thrown_away,
    ),
    (
        Mutation::KeepInstanceAfterRejection,
        sessions::r14_an_instance_forgets_a_call_that_was_rolled_back,
    ),
    (
        Mutation::IgnoreEpoch,
        sessions::r15_requests_of_an_older_attachment_are_refused,
    ),
    (
        Mutation::ExpiredByHearsay,
        sessions::r15_only_a_committed_entry_says_that_a_session_is_over,
    ),
    (
        Mutation::TouchWithoutQuorum,
        sessions::r16_no_heartbeat_is_acknowledged_without_a_quorum,
    ),
    (
        Mutation::ExpireUnconfirmed,
        load::r16_nobody_expires_before_a_round_that_began_after_the_deadline,
    ),
    (
        Mutation::UploadsStay,
        bounds::r31_an_upload_that_does_not_go_on_is_dropped,
    ),
    (
        Mutation::ReplyBeforeEvents,
        r28_streams::r28_events_come_before_the_reply_that_reflects_them,
    ),
    (
        Mutation::KeepToken,
        moves::r33_a_write_of_a_former_owner_is_refused,
    ),
    (
        Mutation::OwnerByName,
        moves::r34_a_returning_id_gets_its_partitions_anew,
    ),
    (
        Mutation::ForceByDeadline,
        moves::r35_an_owner_loses_by_force_only_what_its_lease_can_not_hold,
    ),
    (
        Mutation::LeaseWithoutPosition,
        telling::r35_a_lease_goes_on_only_by_what_its_client_has_taken_in,
    ),
    (
        Mutation::LateReportTaken,
        moves::r36_what_is_said_of_an_older_move_does_nothing,
    ),
    (
        Mutation::CancelRevoking,
        moves::r36_a_move_that_revokes_can_not_be_cancelled,
    ),
    (
        Mutation::StalePlan,
        plans::r37_a_plan_for_what_has_changed_moves_nothing,
    ),
    (
        Mutation::NoBudget,
        plans::r37_no_more_moves_begin_than_the_budget_allows,
    ),
    (
        Mutation::NoOfflineDelay,
        moves::r38_a_member_that_is_back_in_time_gets_the_same_partitions,
    ),
    (
        Mutation::SplitKeepsToken,
        moves::r39_the_parts_of_a_split_have_a_token_of_their_own,
    ),
    (
        Mutation::PromoteUnready,
        moves::r40_only_a_replica_that_has_caught_up_is_promoted,
    ),
    (
        Mutation::SuspectTakes,
        plans::r41_a_suspect_member_gets_nothing_new_and_keeps_what_it_has,
    ),
    (
        Mutation::PermitForgotten,
        moves::r42_two_permits_are_counted_together,
    ),
    (
        Mutation::VerdictOfOldTouch,
        verdicts::r43_a_later_touch_voids_what_was_said,
    ),
    (
        Mutation::VerdictOfOldAttachment,
        verdicts::r43_a_later_attachment_voids_what_was_said,
    ),
    (
        Mutation::VerdictOfOldTerm,
        verdicts::r43_what_was_said_to_a_former_leader_is_void,
    ),
    (
        Mutation::StaleVerdict,
        verdicts::r43_what_was_said_counts_for_a_second,
    ),
    (
        Mutation::HoldPastCeiling,
        verdicts::r43_a_session_is_held_up_to_the_ceiling,
    ),
    (
        Mutation::NoBrake,
        verdicts::r43_many_sessions_do_not_expire_at_once,
    ),
    (
        Mutation::AnswersOvertakeWatches,
        r28_streams::r28_a_grant_comes_behind_what_a_resumed_watch_missed,
    ),
];

#[test]
fn every_rule_that_is_taken_out_is_missed() {
    std::panic::set_hook(Box::new(|_| {}));
    let passes = |(mutation, test): &&(Mutation, fn())| {
        switch_on(*mutation);
        let outcome = catch_unwind(test);
        switch_off();
        outcome.is_ok()
    };
    let unseen: Vec<_> = TESTS
        .iter()
        .filter(passes)
        .map(|(mutation, _)| mutation.name())
        .collect();
    drop(std::panic::take_hook());
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
}
