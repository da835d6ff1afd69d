//! What is durable, what is lost, and who is believed after it (rules R17, R21, R23, R25).

use bytes::Bytes;
use folkmoot_core::consensus::{Action, Consensus, RecoverError, RecoveredLog, bootstrap_entry};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::peer::{AppendConflict, ConsensusMessage};
use folkmoot_proto::{Incarnation, LogIndex, Zxid};

use crate::fixtures::*;

fn uncounted_ok(in_term: u64, matched: u64) -> ConsensusMessage {
    ConsensusMessage::AppendReply {
        term: term(in_term),
        round: 1,
        result: Ok(index(matched)),
        counts: false,
    }
}

/// R17: entries are acknowledged when they are on disk, all at once.
#[test]
fn r17_an_acknowledgement_waits_for_the_disk() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), append(3, (2, 3), 0, &[entry(3, 3)]));
    let first = drain(&mut machine);
    machine.handle_message(at(0), member(2), append(3, (3, 3), 0, &[entry(4, 3)]));
    let second = drain(&mut machine);
    assert_eq!((sent(&first), sent(&second)), (vec![], vec![]));
    machine.handle_durable(at(1), persist_id(&first));
    assert_eq!(sent(&drain(&mut machine)), [(2, append_ok(3, 1, 3))]);
    machine.handle_durable(at(2), persist_id(&second));
    assert_eq!(sent(&drain(&mut machine)), [(2, append_ok(3, 1, 4))]);
}

/// R17: that a truncated entry has reached the disk says nothing of the one in its place.
#[test]
fn r17_durability_is_of_the_log_as_it_is() {
    let mut machine = follower(3, &[3]);
    let old = [entry(3, 3), entry(4, 3)];
    machine.handle_message(at(0), member(2), append(3, (2, 3), 0, &old));
    let of_old = persist_id(&drain(&mut machine));
    machine.handle_message(at(1), member(3), append(5, (2, 3), 0, &[entry(3, 5)]));
    let of_new = persist_id(&drain(&mut machine));
    machine.handle_durable(at(2), of_old);
    assert_eq!(machine.status().durable_index, index(2));
    machine.handle_durable(at(3), of_new);
    assert_eq!(machine.status().durable_index, index(3));
    let sent = sent(&drain(&mut machine));
    assert_eq!(sent, [2, 3].map(|matched| (3, append_ok(5, 1, matched))));
}

/// R17: what is committed is handed to execution once it is on this disk, and the term in which
/// that was learnt, too.
#[test]
fn r17_committed_entries_are_handed_out_when_durable() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), append(3, (2, 3), 3, &[entry(3, 3)]));
    let actions = drain(&mut machine);
    assert_eq!(machine.status().commit_index, index(3));
    assert_eq!(committed(&actions), [1, 2]);
    machine.handle_durable(at(1), persist_id(&actions));
    assert_eq!(committed(&drain(&mut machine)), [3]);

    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), append(4, (2, 3), 2, &[]));
    let actions = drain(&mut machine);
    assert!(committed(&actions).is_empty());
    machine.handle_durable(at(1), persist_id(&actions));
    assert_eq!(committed(&drain(&mut machine)), [1, 2]);
}

/// What is applied already is not handed out again; what is not in memory is read back.
#[test]
fn committed_entries_follow_what_is_applied() {
    let mut recovered = log(3, 3, &[2, 2, 3, 3]);
    recovered.recent.drain(..3);
    recovered.applied = index(1);
    let mut machine = recover(1, recovered);
    machine.handle_message(at(0), member(2), append(3, (5, 3), 5, &[]));
    let actions = drain(&mut machine);
    let Some(Action::ReadLog { id, from, to, .. }) = actions
        .iter()
        .find(|action| matches!(action, Action::ReadLog { .. }))
    else {
        panic!("{actions:?}");
    };
    assert_eq!((from.0, to.0), (2, 3));
    let entries = vec![entry(2, 2), entry(3, 2)];
    let read = folkmoot_core::consensus::LogRead { id: *id, entries };
    machine.handle_log_read(at(1), read);
    assert_eq!(committed(&drain(&mut machine)), [2, 3, 4, 5]);
}

/// R7: an execution that falls behind is handed no more than it has room for; what waits for it is
/// in the log and not in memory, and holds neither acknowledgements nor votes up.
#[test]
fn r07_an_execution_that_falls_behind_holds_nothing_else_up() {
    let mut config = config(1);
    (config.unapplied_bytes_max, config.cache_bytes_max) = (200, 150);
    let mut machine = Consensus::recover(config, log(3, 3, &[]), 1, at(0)).unwrap();
    let mut handed = Vec::new();
    for last in 2..=40 {
        let new = append(
            3,
            (last - 1, last.min(3) * u64::from(last > 2)),
            last,
            &[entry(last, 3)],
        );
        machine.handle_message(at(last), member(2), new);
        let actions = drain(&mut machine);
        handed.extend(committed(&actions));
        machine.handle_durable(at(last), persist_id(&actions));
        let actions = drain(&mut machine);
        assert!(sent(&actions).contains(&(2, append_ok(3, 1, last))));
        handed.extend(committed(&actions));
    }
    assert_eq!(handed, [1], "entry 1 alone is larger than the limit");
    machine.handle_message(at(5000), member(3), vote_request(4, true, (40, 3)));
    assert_eq!(sent(&drain(&mut machine)), [(3, vote_reply(4, true, true))]);
    // Entry by entry execution makes room, and what has left memory is read back.
    let mut reads = 0;
    for applied in 1..=40 {
        machine.handle_applied(at(5001), index(applied));
        let mut actions = drain(&mut machine);
        handed.extend(committed(&actions));
        while let Some(Action::ReadLog { id, from, .. }) = actions.last() {
            reads += 1;
            let entries = vec![entry(from.0, 3)];
            let read = folkmoot_core::consensus::LogRead { id: *id, entries };
            machine.handle_log_read(at(5001), read);
            actions = drain(&mut machine);
            handed.extend(committed(&actions));
        }
        let ahead = handed.len() as u64 - applied;
        assert!(ahead <= 3, "{ahead} entries of 68 bytes or more");
    }
    assert_eq!(handed, (1..=40).collect::<Vec<_>>());
    assert!(reads > 30, "{reads}");
}

/// R21: entry 1 is the bootstrap file, byte for byte, and is written first.
#[test]
fn r21_a_new_member_writes_entry_1_first() {
    let mut machine =
        Consensus::start(config(1), RecoveredLog::empty(), bootstrap(3), 1, at(0)).unwrap();
    let actions = drain(&mut machine);
    let first = bootstrap_entry(bootstrap(3));
    assert_eq!(records(&actions), [LogRecord::Entry(first)]);
    let voters: Vec<u64> = machine
        .status()
        .voters
        .iter()
        .map(|voter| voter.0)
        .collect();
    assert_eq!(voters, [1, 2, 3]);
}

#[test]
fn r21_a_log_that_does_not_name_this_member_is_refused() {
    let refused = Consensus::recover(config(4), log(3, 3, &[3]), 1, at(0));
    assert!(matches!(refused, Err(RecoverError::NotAMember { .. })));
    let refused = Consensus::start(
        config(1),
        RecoveredLog::empty(),
        Bytes::from_static(b"{}"),
        1,
        at(0),
    );
    assert!(matches!(refused, Err(RecoverError::Bootstrap(_))));
    let mut beyond = log(3, 3, &[3]);
    beyond.applied = index(3);
    let refused = Consensus::recover(config(1), beyond, 1, at(0));
    assert!(matches!(refused, Err(RecoverError::Inconsistent { .. })));
    let refused = Consensus::recover(config(1), log(3, 2, &[3]), 1, at(0));
    assert!(matches!(refused, Err(RecoverError::Inconsistent { .. })));
}

/// A member of three with a log that was just made, whose entry 1 is durable.
fn new_member() -> Consensus {
    let log = RecoveredLog::empty();
    let mut machine = Consensus::start(config(1), log, bootstrap(3), 1, at(0)).unwrap();
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(0), write);
    machine
}

fn introduced(known: u64) -> ConsensusMessage {
    let known = Incarnation(known);
    ConsensusMessage::Introduced { known }
}

/// R21: a member whose log was just made asks the others, again and again, and takes part once a
/// majority of them know this life of its folder, and that is on its disk.
#[test]
fn r21_a_new_member_votes_when_the_others_know_it() {
    let mut machine = new_member();
    let question = ConsensusMessage::Introduce {
        incarnation: Incarnation(1),
    };
    machine.handle_timeout(at(0));
    let to_both = [(2, question.clone()), (3, question.clone())];
    assert_eq!(sent(&drain(&mut machine)), to_both);
    machine.handle_message(at(1), member(2), introduced(1));
    machine.handle_message(at(1), member(2), introduced(1));
    assert_eq!(
        drain(&mut machine),
        [],
        "one of the others is no majority of them"
    );
    machine.handle_timeout(at(50));
    assert_eq!(sent(&drain(&mut machine)), [(3, question)]);
    machine.handle_message(at(60), member(3), introduced(1));
    let actions = drain(&mut machine);
    assert_eq!(records(&actions), [LogRecord::Admitted]);
    machine.handle_message(at(61), member(2), vote_request(1, true, (1, 0)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, vote_reply(0, true, false))],
        "that is not durable"
    );
    machine.handle_durable(at(62), persist_id(&actions));
    assert!(machine.status().may_vote);
    machine.handle_message(at(63), member(2), vote_request(1, true, (1, 0)));
    assert_eq!(sent(&drain(&mut machine)), [(2, vote_reply(1, true, true))]);
}

/// R21: a member of which another life is known follows, whatever the rest know.
#[test]
fn r21_a_member_of_which_another_life_is_known_is_not_admitted() {
    let mut machine = new_member();
    machine.handle_message(at(1), member(2), introduced(7));
    assert_eq!(drain(&mut machine), [Action::NotAdmitted { by: member(2) }]);
    for peer in [2, 3] {
        machine.handle_message(at(2), member(peer), introduced(1));
    }
    machine.handle_timeout(at(2000));
    assert_eq!(drain(&mut machine), []);
    assert!(!machine.status().may_vote);
}

/// R21: what is said of a peer is on disk, and stays so.
#[test]
fn r21_a_peer_is_known_by_its_first_life() {
    let mut machine = recover(1, log(3, 3, &[3]));
    let ask = |machine: &mut Consensus, life| {
        let incarnation = Incarnation(life);
        let message = ConsensusMessage::Introduce { incarnation };
        machine.handle_message(at(1), member(2), message);
        drain(machine)
    };
    let actions = ask(&mut machine, 5);
    let met = LogRecord::PeerMet {
        member: member(2),
        incarnation: Incarnation(5),
    };
    assert_eq!(records(&actions), [met]);
    assert_eq!(sent(&actions), []);
    assert_eq!(ask(&mut machine, 6), []);
    machine.handle_durable(at(2), persist_id(&actions));
    assert_eq!(sent(&drain(&mut machine)), [(2, introduced(5))]);
    assert_eq!(sent(&ask(&mut machine, 6)), [(2, introduced(5))]);
    let mut recovered = log(3, 3, &[3]);
    recovered.peers_met.insert(member(2), Incarnation(5));
    assert_eq!(
        sent(&ask(&mut recover(1, recovered), 6)),
        [(2, introduced(5))]
    );
}

/// R23: a log that lost entry 1, too, is not taken for a new one: its term and its vote are kept.
#[test]
fn r23_a_damaged_log_without_entry_1_is_no_new_one() {
    let damaged = RecoveredLog {
        is_new: false,
        term: term(2),
        vote: Some(member(3)),
        damaged_up_to: Some(index(500)),
        admitted: true,
        ..RecoveredLog::empty()
    };
    let mut machine = Consensus::start(config(1), damaged, bootstrap(3), 1, at(0)).unwrap();
    let actions = drain(&mut machine);
    let raised = LogRecord::HardState {
        term: term(3),
        vote: None,
    };
    assert_eq!(records(&actions), [raised]);
    machine.handle_durable(at(1), persist_id(&actions));
    machine.handle_message(at(2), member(2), vote_request(4, false, (9, 1)));
    let actions = drain(&mut machine);
    machine.handle_durable(at(3), persist_id(&actions));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(2, vote_reply(4, false, false))]
    );
    let all = entries(3, &[4]);
    machine.handle_message(at(4), member(3), append(4, (0, 0), 2, &all));
    let actions = drain(&mut machine);
    machine.handle_durable(at(5), persist_id(&actions));
    let actions = drain(&mut machine);
    machine.handle_durable(at(6), persist_id(&actions));
    assert!(machine.status().may_vote, "it is repaired");
}

/// R23: a log that has lost all it held, and does not know, begins no cluster: its term and its vote
/// would be forgotten.
#[test]
fn r23_a_log_that_lost_its_beginning_is_refused() {
    let lost = RecoveredLog {
        is_new: false,
        term: term(2),
        vote: Some(member(3)),
        ..RecoveredLog::empty()
    };
    let refused = Consensus::start(config(1), lost, bootstrap(3), 1, at(0));
    let expected = RecoverError::BeginningLost { term: term(2) };
    assert_eq!(refused.unwrap_err().to_string(), expected.to_string());
}

/// R23: nothing that has promised passes for a new log.
#[test]
fn r23_a_new_log_has_no_past() {
    let pasts: [fn(&mut RecoveredLog); 3] = [
        |log| log.term = term(1),
        |log| log.vote = Some(member(2)),
        |log| log.damaged_up_to = Some(index(3)),
    ];
    for past in pasts {
        let mut log = RecoveredLog::empty();
        past(&mut log);
        let started = std::panic::catch_unwind(|| {
            Consensus::start(config(1), log, bootstrap(3), 1, at(0)).is_ok()
        });
        assert!(started.is_err());
    }
}

fn wiped() -> RecoveredLog {
    RecoveredLog {
        bootstrap: Bytes::new(),
        recent: vec![],
        term_runs: vec![],
        last_index: LogIndex::ZERO,
        last_zxid: Zxid::ZERO,
        wiped: true,
        ..log(3, 0, &[])
    }
}

/// R21: a wiped member gets the log from entry 1 on and applies it; it neither stands nor votes,
/// and says of all its answers that they do not count.
#[test]
fn r21_a_wiped_member_receives_and_does_not_vote() {
    let mut machine = recover(1, wiped());
    machine.handle_timeout(at(2000));
    assert_eq!(drain(&mut machine), []);
    let mut machine = recover(1, wiped());
    machine.handle_message(at(0), member(2), append(4, (2, 4), 2, &[]));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1), write);
    let answer = ConsensusMessage::AppendReply {
        term: term(4),
        round: 1,
        result: Err(AppendConflict {
            prev_index: index(2),
            term: None,
            first_index: index(1),
        }),
        counts: false,
    };
    assert_eq!(sent(&drain(&mut machine)), [(2, answer)]);
    machine.handle_message(at(2), member(2), append(4, (0, 0), 2, &entries(3, &[4])));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(3), write);
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), [(2, uncounted_ok(4, 2))]);
    assert_eq!(committed(&actions), [1, 2]);
    assert_eq!(machine.status().voters.len(), 3);
    assert!(!machine.status().may_vote);
    machine.handle_timeout(at(2000));
    let lost = Action::LeaderChanged {
        term: term(4),
        leader: None,
    };
    assert_eq!(drain(&mut machine), [lost], "and it does not stand");
    machine.handle_message(at(9000), member(3), vote_request(9, true, (9, 8)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(4, true, false))]
    );
    machine.handle_message(at(9000), member(3), vote_request(9, false, (9, 8)));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(9001), write);
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(9, false, false))]
    );
}

/// R21: damage to a wiped member's new log is not repaired, since that would say that it counts.
#[test]
fn r21_a_wiped_member_that_is_damaged_stays_wiped() {
    let mut recovered = log(3, 4, &[3]);
    (recovered.wiped, recovered.damaged_up_to) = (true, Some(index(6)));
    let mut machine = recover(1, recovered);
    assert_eq!(drain(&mut machine), []);
    machine.handle_message(at(0), member(2), append(5, (2, 3), 0, &[no_op(3, 5, 2)]));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1), write);
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), [(2, uncounted_ok(5, 3))]);
    assert_eq!(records(&actions), []);
}

/// R21, R23: a leader sends to a member that does not count, and counts without it.
#[test]
fn r23_answers_that_do_not_count_are_not_counted() {
    let (mut machine, write) = leader(3, &[3]);
    machine.handle_durable(at(1000), write);
    drain(&mut machine);
    machine.read_barrier(at(1000), context(1, 1));
    drain(&mut machine);
    let beat = ConsensusMessage::HeartbeatReply {
        term: term(4),
        round: 2,
        verified: index(3),
        counts: false,
    };
    machine.handle_message(at(1001), member(2), beat);
    machine.handle_message(at(1001), member(2), uncounted_ok(4, 3));
    assert_eq!(machine.status().commit_index, LogIndex::ZERO);
    assert_eq!(machine.status().peers[0].match_index, index(3));
    assert_eq!(drain(&mut machine), []);
    machine.handle_timeout(at(1500));
    assert_eq!(
        machine.status().role,
        folkmoot_core::consensus::Role::Follower
    );
}

/// A peer that acknowledged entries and then lost its disk is sent them again.
#[test]
fn r21_a_peer_that_was_wiped_is_sent_everything_again() {
    let mut machine = settled_leader(3, &[3]);
    let beat = |round| ConsensusMessage::HeartbeatReply {
        term: term(4),
        round,
        verified: LogIndex::ZERO,
        counts: false,
    };
    machine.handle_timeout(at(1300));
    machine.handle_message(at(1300), member(3), append_ok(4, 2, 3));
    drain(&mut machine);
    machine.handle_message(at(1301), member(2), beat(2));
    assert_eq!(
        sent(&drain(&mut machine)).len(),
        1,
        "a probe behind what it had"
    );
    let conflict = ConsensusMessage::AppendReply {
        term: term(4),
        round: 2,
        result: Err(AppendConflict {
            prev_index: index(3),
            term: None,
            first_index: index(1),
        }),
        counts: false,
    };
    machine.handle_message(at(1302), member(2), conflict);
    let sent = sent(&drain(&mut machine));
    let [
        (
            2,
            ConsensusMessage::Append {
                prev_index,
                entries,
                ..
            },
        ),
    ] = sent.as_slice()
    else {
        panic!("{sent:?}");
    };
    assert_eq!((prev_index.0, entries.len()), (0, 3));
    assert_eq!(machine.status().commit_index, index(3));
}

/// R23: a member that lost data below its durable mark raises its term, so that the others elect a
/// leader without it; once its log matches that leader's through an entry of the leader's term it
/// says so on disk, and counts from then on.
#[test]
fn r23_a_damaged_member_counts_when_a_leader_elected_without_it_has_repaired_it() {
    let mut damaged = log(3, 4, &[3]);
    damaged.damaged_up_to = Some(index(6));
    let mut machine = recover(1, damaged);
    let raised = LogRecord::HardState {
        term: term(5),
        vote: None,
    };
    let actions = drain(&mut machine);
    assert_eq!(records(&actions), [raised]);
    machine.handle_durable(at(0), persist_id(&actions));
    assert!(machine.poll_timeout() > Some(at(500)), "it stands");
    // The leader of term 4, which may rest on acknowledgements that are lost, is deposed.
    machine.handle_message(at(1), member(2), heartbeat(4, 2, 9));
    let [(2, ConsensusMessage::HeartbeatReply { term: told, .. })] = sent(&drain(&mut machine))[..]
    else {
        panic!("no answer");
    };
    assert_eq!(told, term(5));
    machine.handle_message(at(2), member(3), vote_request(6, true, (9, 4)));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, vote_reply(5, true, false))]
    );
    // The leader of term 6 sends what was lost, first entries of earlier terms alone.
    machine.handle_message(at(3), member(3), append(6, (2, 3), 0, &[entry(3, 4)]));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(4), write);
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), [(3, uncounted_ok(6, 3))]);
    assert_eq!(records(&actions), []);
    machine.handle_message(at(5), member(3), append(6, (3, 4), 0, &[no_op(4, 6, 3)]));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(6), write);
    let actions = drain(&mut machine);
    assert_eq!(sent(&actions), [(3, uncounted_ok(6, 4))]);
    assert_eq!(records(&actions), [LogRecord::Repaired { up_to: index(6) }]);
    assert!(!machine.status().may_vote);
    machine.handle_durable(at(7), persist_id(&actions));
    assert_eq!(sent(&drain(&mut machine)), [(3, append_ok(6, 1, 4))]);
    assert!(machine.status().may_vote);
}

/// R25: a snapshot counts when its record is durable; execution goes on behind it.
#[test]
fn r25_a_snapshot_counts_when_its_record_is_durable() {
    let mut machine = follower(5, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(5, 0, 1));
    drain(&mut machine);
    let meta = meta(3, 50, 4, 70);
    assert!(machine.snapshot_installed(at(1), term(5), meta.clone()));
    let actions = drain(&mut machine);
    let record = LogRecord::SnapshotInstalled { meta: meta.clone() };
    assert_eq!(records(&actions), [record]);
    assert_eq!(
        machine.status().durable_index,
        LogIndex::ZERO,
        "nothing was committed here"
    );
    machine.handle_message(at(2), member(2), append(5, (50, 4), 51, &[entry(51, 5)]));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(3), persist_id(&actions));
    let installed = drain(&mut machine);
    assert_eq!(
        installed,
        [
            Action::SnapshotInstalled { meta: meta.clone() },
            Action::Send {
                to: member(2),
                message: append_ok(5, 1, 50)
            }
        ]
    );
    machine.handle_durable(at(4), write);
    assert_eq!(committed(&drain(&mut machine)), [51]);
    assert!(
        !machine.snapshot_installed(at(5), term(5), meta),
        "it is old"
    );
}

/// A snapshot of what the log holds is not needed: it would take acknowledged entries away.
#[test]
fn r25_a_snapshot_takes_no_acknowledged_entries_away() {
    let mut machine = follower(5, &[3, 4, 4, 4]);
    assert!(!machine.snapshot_installed(at(1), term(5), meta(3, 3, 4, 3)));
    assert_eq!(machine.last_appended(), index(5));
    assert!(machine.snapshot_installed(at(1), term(5), meta(3, 3, 5, 3)));
    assert_eq!(machine.last_appended(), index(3));
}

/// A leader of an earlier term than the snapshot's may not have what is in it.
#[test]
fn r25_a_snapshot_brings_the_term_of_its_offer() {
    let mut machine = follower(5, &[3]);
    machine.handle_message(at(0), member(2), append(5, (2, 3), 0, &[]));
    assert!(machine.snapshot_installed(at(1), term(6), meta(3, 50, 4, 70)));
    assert_eq!(machine.status().term, term(6));
    drain(&mut machine);
    machine.handle_message(at(2), member(2), append(5, (49, 4), 0, &[entry(50, 5)]));
    assert_eq!(machine.last_appended(), index(50));
}
