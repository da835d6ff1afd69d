//! Suspicions in the records of members (rule R41).

use super::*;
use crate::execution::tests::cluster::Proposals;

#[test]
fn r41_a_suspicion_is_told_and_taken_back() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    watched.pass(900, suspect_silent);
    let record = watched.record("g", "a");
    assert_eq!((record.state, record.suspect), (MemberState::Suspect, true));
    assert!(
        record.why.starts_with("suspected: silent for"),
        "{}",
        record.why
    );
    assert!(
        record.incarnation.is_some() && watched.lives(&client),
        "it takes nothing"
    );
    for _ in 0..6 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    assert!(watched.record("g", "a").suspect, "it is to be calm first");
    for _ in 0..3 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    let record = watched.record("g", "a");
    assert_eq!(
        (record.state, record.why.as_str()),
        (MemberState::Alive, "heard-again")
    );
    assert_same_state(&watched.cluster);
}

/// Each change is an entry of the log: a member that is late with every touch is not told of with
/// every touch.
#[test]
fn r41_a_member_that_flaps_is_told_of_seldom() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    let before = watched.record_version("g", "a");
    for _ in 0..40 {
        watched.beat(&client);
        watched.pass(700, suspect_silent);
    }
    assert_eq!(watched.record_version("g", "a"), before + 1);
}

#[test]
fn r41_a_new_leader_takes_back_what_the_former_one_told() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 3_000);
    watched.pass(1_100, suspect_silent);
    assert!(watched.record("g", "a").suspect);
    watched.cluster.elect(member(3));
    watched.cluster.run();
    watched.pass(400, suspect_silent);
    assert!(
        watched.record("g", "a").suspect,
        "it was not heard of since"
    );
    for _ in 0..8 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    assert!(!watched.record("g", "a").suspect);
}

#[test]
fn r41_without_a_detector_nobody_is_suspected() {
    let mut watched = Watched::new();
    watched.join("g", "a", 10_000);
    watched.pass(3_000, suspect_silent);
    assert!(watched.record("g", "a").suspect);
    assert_eq!(watched.choose("", "", None), CHOSEN);
    watched.pass_unanswered(500);
    assert!(!watched.record("g", "a").suspect);
}

/// The transaction that tells of it is thrown away with its overlay.
#[test]
fn r41_a_suspicion_whose_entry_is_lost_is_told_anew() {
    let mut watched = Watched::new();
    watched.join("g", "a", 10_000);
    watched.cluster.proposals = Proposals::Hold;
    watched.pass(3_000, suspect_silent);
    watched.cluster.refuse_one();
    watched.cluster.proposals = Proposals::Commit;
    assert!(!watched.record("g", "a").suspect);
    watched.pass(500, suspect_silent);
    assert!(watched.record("g", "a").suspect);
}
