//! Votes, terms, and who may lead.

use folkmoot_core::consensus::{Action, Consensus, ProposeRefused, Role, Stall};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::{LogIndex, Zxid};

use crate::fixtures::*;

fn timeout_now(in_term: u64) -> ConsensusMessage {
    ConsensusMessage::TimeoutNow {
        term: term(in_term),
    }
}

fn transfer_vote_request(in_term: u64, last: (u64, u64)) -> ConsensusMessage {
    ConsensusMessage::VoteRequest {
        term: term(in_term),
        pre: false,
        last_index: index(last.0),
        last_term: term(last.1),
        transfer: true,
    }
}

#[test]
fn a_follower_asks_first_whether_it_would_be_elected() {
    let mut machine = follower(3, &[1, 3]);
    let due = machine.poll_timeout().unwrap();
    assert!(due >= at(500) && due < at(1000), "{due}");
    machine.handle_timeout(due);
    let request = vote_request(4, true, (3, 3));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, request.clone()), (3, request)]
    );
    assert_eq!(machine.status().role, Role::PreCandidate);
    assert_eq!(machine.status().term, term(3));
}

#[test]
fn different_seeds_give_different_timeouts_and_one_seed_one() {
    let due = |seed| {
        let log = log(3, 1, &[]);
        let machine = folkmoot_core::consensus::Consensus::recover(config(1), log, seed, at(0));
        machine.unwrap().poll_timeout().unwrap()
    };
    assert_eq!(due(1), due(1));
    assert!((2..10).any(|seed| due(seed) != due(1)));
}

/// R17: neither a candidacy nor the candidate's own vote counts before it is durable.
#[test]
fn r17_a_candidacy_waits_for_its_vote_to_be_durable() {
    let mut machine = follower(3, &[1, 3]);
    machine.handle_timeout(at(1000));
    drain(&mut machine);
    machine.handle_message(at(1000), member(2), vote_reply(4, true, true));
    let actions = drain(&mut machine);
    let vote = LogRecord::HardState {
        term: term(4),
        vote: Some(member(1)),
    };
    assert_eq!(records(&actions), [vote]);
    assert_eq!(sent(&actions), []);
    machine.handle_durable(at(1001), persist_id(&actions));
    let request = vote_request(4, false, (3, 3));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, request.clone()), (3, request)]
    );
    assert_eq!(machine.status().role, Role::Candidate);
}

/// R17: a vote leaves only when it is on disk.
#[test]
fn r17_a_vote_waits_for_the_disk() {
    let mut machine = follower(3, &[1, 3]);
    machine.handle_message(at(0), member(2), vote_request(4, false, (3, 3)));
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), []);
    machine.handle_durable(at(1), persist_id(&actions));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, vote_reply(4, false, true))]
    );
}

#[test]
fn one_vote_a_term_and_it_survives_a_restart() {
    let mut voted = log(3, 4, &[1, 3]);
    voted.vote = Some(member(2));
    let mut machine = recover(1, voted);
    machine.handle_message(at(0), member(3), vote_request(4, false, (9, 3)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(4, false, false))]
    );
    machine.handle_message(at(0), member(2), vote_request(4, false, (3, 3)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, vote_reply(4, false, true))]
    );
}

/// Raft §5.4.1: the voter's log must not be longer or of a later term.
#[test]
fn a_candidate_with_a_shorter_log_gets_no_vote() {
    for (last, granted) in [
        ((2, 3), false),
        ((9, 2), false),
        ((3, 3), true),
        ((4, 3), true),
        ((2, 4), true),
    ] {
        for pre in [true, false] {
            let mut machine = follower(4, &[1, 3]);
            machine.handle_message(at(0), member(2), vote_request(5, pre, last));
            let actions = drain(&mut machine);
            if !pre {
                machine.handle_durable(at(0), persist_id(&actions));
            }
            let sent = sent(&[actions, drain(&mut machine)].concat());
            let reply_term = if pre && !granted { 4 } else { 5 };
            assert_eq!(
                sent,
                [(2, vote_reply(reply_term, pre, granted))],
                "{last:?}"
            );
        }
    }
}

/// A pre-vote promises nothing and changes nothing.
#[test]
fn a_pre_vote_leaves_the_term_alone() {
    let mut machine = follower(3, &[1, 3]);
    for candidate in [2, 3] {
        machine.handle_message(at(0), member(candidate), vote_request(4, true, (3, 3)));
    }
    let granted = vote_reply(4, true, true);
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), [(2, granted.clone()), (3, granted)]);
    assert_eq!(records(&actions), []);
    assert_eq!(machine.status().term, term(3));
}

/// Thesis §4.2.3: who hears a leader neither votes nor takes the candidate's term, unless the
/// leader itself asked for the election.
#[test]
fn who_hears_a_leader_holds_candidates_off() {
    let hearing = || {
        let mut machine = follower(3, &[1, 3]);
        machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
        drain(&mut machine);
        machine
    };
    for pre in [true, false] {
        let mut machine = hearing();
        machine.handle_message(at(499), member(3), vote_request(7, pre, (9, 6)));
        assert_eq!(sent(&drain(&mut machine)), [(3, vote_reply(3, pre, false))]);
        assert_eq!(machine.status().term, term(3));
    }
    let mut machine = hearing();
    machine.handle_message(at(500), member(3), vote_request(7, true, (9, 6)));
    assert_eq!(sent(&drain(&mut machine)), [(3, vote_reply(7, true, true))]);
    let mut machine = hearing();
    machine.handle_message(at(1), member(3), transfer_vote_request(4, (3, 3)));
    let actions = drain(&mut machine);
    machine.handle_durable(at(2), persist_id(&actions));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(4, false, true))]
    );
}

/// A leader that has its quorum is not deposed by a member that came back with a higher term.
#[test]
fn a_leader_in_contact_holds_candidates_off() {
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1100), member(3), vote_request(9, false, (9, 8)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(4, false, false))]
    );
    assert_eq!(machine.status().role, Role::Leader);
}

#[test]
fn an_elected_leader_appends_a_no_op_of_its_term() {
    let mut machine = follower(3, &[1, 3]);
    machine.handle_timeout(at(1000));
    drain(&mut machine);
    machine.handle_message(at(1000), member(2), vote_reply(4, true, true));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1000), write);
    drain(&mut machine);
    machine.handle_message(at(1000), member(3), vote_reply(4, false, true));
    let actions = drain(&mut machine);
    let first_index = index(4);
    let elected = Action::Elected {
        term: term(4),
        first_index,
    };
    let changed = Action::LeaderChanged {
        term: term(4),
        leader: Some(member(1)),
    };
    assert_eq!(actions[..2], [elected, changed]);
    // R3: it takes no zxid.
    let no_op = no_op(4, 4, 3);
    assert_eq!(records(&actions), [LogRecord::Entry(no_op.clone())]);
    let append = append(4, (3, 3), 0, &[no_op]);
    let heartbeat = heartbeat(4, 0, 1);
    assert_eq!(
        sent(&actions),
        [
            (2, heartbeat.clone()),
            (3, heartbeat),
            (2, append.clone()),
            (3, append)
        ]
    );
}

#[test]
fn a_single_voter_leads_at_once() {
    let mut machine = recover(1, log(1, 3, &[3]));
    assert_eq!(machine.poll_timeout(), Some(at(0)));
    machine.handle_timeout(at(0));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1), write);
    let write = persist_id(&drain(&mut machine));
    assert_eq!(machine.status().role, Role::Leader);
    machine.handle_durable(at(2), write);
    assert_eq!(committed(&drain(&mut machine)), [1, 2, 3]);
    // It hears itself for ever.
    machine.handle_timeout(at(100_000));
    assert_eq!(machine.status().role, Role::Leader);
}

/// R19: without a quorum for one election timeout a leader steps down, and sends nothing.
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn r19_a_leader_without_a_quorum_steps_down() {
    let mut machine = settled_leader(3, &[3]);
    machine.handle_timeout(at(1050));
    machine.handle_message(at(1060), member(2), heartbeat_reply(4, 2, 3));
    drain(&mut machine);
    machine.handle_timeout(at(1549));
    assert_eq!(machine.status().role, Role::Leader);
    drain(&mut machine);
    machine.handle_timeout(at(1550));
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), []);
    assert_eq!(actions[0], Action::Deposed { term: term(4) });
    assert_eq!(machine.status().leader, None);
}

/// R8: the process was stopped. The answers that wait for it are of long ago, and whatever input
/// comes first, it does not act as a leader.
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn r8_contact_counts_from_the_time_of_sending() {
    let mut machine = settled_leader(3, &[3]);
    machine.handle_timeout(at(1050));
    drain(&mut machine);
    machine.handle_message(at(1500), member(2), heartbeat_reply(4, 2, 3));
    assert_eq!(machine.status().role, Role::Leader);
    machine.handle_timeout(at(1550));
    assert_eq!(machine.status().role, Role::Follower);

    let mut machine = settled_leader(3, &[3]);
    let refused = machine.propose(at(11_000), batch(4, 2, 3));
    assert_eq!(refused, Err(ProposeRefused::NotLeading { term: term(4) }));
    assert_eq!(sent(&drain(&mut machine)), []);
}

/// R19: a follower of a higher term tells a deposed leader, and in round 0: were the round
/// repeated, it would count for the same member's rounds when it leads the higher term.
#[test]
fn r19_a_deposed_leader_is_told_the_term() {
    let mut machine = follower(5, &[3]);
    for message in [append(3, (2, 3), 0, &[]), heartbeat(3, 0, 7)] {
        machine.handle_message(at(0), member(2), message);
        let told = ConsensusMessage::HeartbeatReply {
            term: term(5),
            round: 0,
            verified: LogIndex::ZERO,
            counts: false,
        };
        assert_eq!(sent(&drain(&mut machine)), [(2, told)]);
    }
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1001), member(3), heartbeat_reply(5, 0, 0));
    assert_eq!(machine.status().role, Role::Follower);
    assert_eq!(machine.status().term, term(5));
}

#[test]
fn a_follower_that_hears_nothing_forgets_its_leader() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    drain(&mut machine);
    machine.handle_timeout(at(1000));
    let actions = drain(&mut machine);
    let lost = Action::LeaderChanged {
        term: term(3),
        leader: None,
    };
    assert_eq!(actions[0], lost);
    assert_eq!(machine.status().role, Role::PreCandidate);
}

/// The leader of a term that is new to a follower is its vote, too: after a restart it does not
/// vote for another in that term.
#[test]
fn a_leader_that_is_heard_of_counts_as_voted_for() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(6, 0, 1));
    let hard_state = LogRecord::HardState {
        term: term(6),
        vote: Some(member(2)),
    };
    assert_eq!(records(&drain(&mut machine)), [hard_state]);
}

#[test]
fn leadership_is_handed_to_a_member_that_has_the_whole_log() {
    let mut machine = settled_leader(3, &[3]);
    machine.transfer_leadership(at(1000), Some(member(3)));
    assert_eq!(sent(&drain(&mut machine)), []);
    let refused = machine.propose(at(1001), batch(4, 2, 3));
    assert_eq!(refused, Err(ProposeRefused::Full));
    machine.handle_message(at(1002), member(3), append_ok(4, 1, 3));
    assert!(sent(&drain(&mut machine)).contains(&(3, timeout_now(4))));
    // Not elected within an election timeout: it leads on.
    machine.handle_timeout(at(1050));
    machine.handle_message(at(1400), member(2), heartbeat_reply(4, 2, 3));
    machine.handle_timeout(at(1500));
    assert_eq!(machine.propose(at(1500), batch(4, 2, 3)), Ok(index(4)));
}

#[test]
fn who_is_asked_by_its_leader_stands_at_once() {
    let mut machine = follower(4, &[4]);
    machine.handle_message(at(0), member(2), timeout_now(4));
    assert_eq!(machine.status().role, Role::Follower, "it follows nobody");
    machine.handle_message(at(0), member(2), heartbeat(4, 0, 1));
    drain(&mut machine);
    machine.handle_message(at(1), member(3), timeout_now(4));
    machine.handle_message(at(1), member(2), timeout_now(3));
    assert_eq!(machine.status().role, Role::Follower);
    machine.handle_message(at(1), member(2), timeout_now(4));
    let actions = drain(&mut machine);
    machine.handle_durable(at(2), persist_id(&actions));
    let request = transfer_vote_request(5, (2, 4));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, request.clone()), (3, request)]
    );
}

/// Rounds of heartbeats, 50 ms each, that a peer answers; a settled leader's second is due at 1050.
fn lead_through(machine: &mut Consensus, rounds: core::ops::Range<u64>, matched: u64) {
    for round in rounds {
        let now = at(1000 + 50 * (round - 1));
        machine.handle_timeout(now);
        machine.handle_message(now, member(2), heartbeat_reply(4, round, matched));
    }
}

/// R19: a leader whose own disk or execution stalls hands leadership over.
#[test]
fn r19_a_stalled_leader_hands_over() {
    let mut machine = settled_leader(3, &[3]);
    lead_through(&mut machine, 2..42, 3);
    drain(&mut machine);
    machine.report_stall(at(3051), Stall::Execution);
    assert_eq!(sent(&drain(&mut machine)), [(2, timeout_now(4))]);

    let mut machine = settled_leader(3, &[3]);
    lead_through(&mut machine, 2..42, 3);
    machine.propose(at(3051), batch(4, 2, 3)).unwrap();
    machine.handle_message(at(3052), member(2), append_ok(4, 1, 4));
    lead_through(&mut machine, 42..51, 4);
    assert!(!sent(&drain(&mut machine)).contains(&(2, timeout_now(4))));
    machine.handle_timeout(at(3551));
    assert!(sent(&drain(&mut machine)).contains(&(2, timeout_now(4))));
}

/// R19: where all stall, leadership does not go round: a leader leads for a while before it hands
/// on what it was handed.
#[test]
fn r19_a_new_leader_does_not_hand_over_at_once() {
    let mut machine = settled_leader(3, &[3]);
    for round in 2..40 {
        lead_through(&mut machine, round..round + 1, 3);
        machine.report_stall(at(1001 + 50 * (round - 1)), Stall::Execution);
    }
    assert!(!sent(&drain(&mut machine)).contains(&(2, timeout_now(4))));
}

/// R3: what does not follow the last entry that was appended is refused, and all behind it.
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn r3_a_batch_is_chained() {
    let mut machine = settled_leader(3, &[3]);
    assert_eq!(machine.propose(at(1000), batch(4, 2, 4)), Ok(index(4)));
    let (base, last) = (Zxid(5), Zxid(4));
    let refused = machine.propose(at(1000), batch(4, 5, 6));
    assert_eq!(refused, Err(ProposeRefused::Chain { base, last }));
    let refused = machine.propose(at(1000), batch(4, 2, 3));
    let base = Zxid(2);
    assert_eq!(refused, Err(ProposeRefused::Chain { base, last }));
    let refused = machine.propose(at(1000), batch(3, 4, 5));
    assert_eq!(refused, Err(ProposeRefused::NotLeading { term: term(3) }));
    assert_eq!(machine.last_appended(), index(4));
    assert_eq!(machine.propose(at(1000), batch(4, 4, 5)), Ok(index(5)));
}

/// R21: an answer goes to whoever asks, and only voters' votes count.
#[test]
fn r21_strangers_are_answered_and_not_counted() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(9), vote_request(4, true, (2, 3)));
    assert_eq!(sent(&drain(&mut machine)), [(9, vote_reply(4, true, true))]);
    machine.handle_timeout(at(1000));
    for stranger in [8, 9] {
        machine.handle_message(at(1000), member(stranger), vote_reply(4, true, true));
    }
    assert_eq!(machine.status().role, Role::PreCandidate);
}
