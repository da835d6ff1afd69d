//! What a leader sends, and what a follower takes.

use folkmoot_core::consensus::{Action, Consensus, LogRead, LogReadId, ProposeRefused};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::LogIndex;
use folkmoot_proto::peer::{AppendConflict, ConsensusMessage};

use crate::fixtures::*;

/// R17: appends go to the peers before they are on the leader's own disk, and the leader counts
/// itself only when they are.
#[test]
fn r17_a_leader_sends_first_and_counts_itself_when_durable() {
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1000), member(3), append_ok(4, 1, 3));
    drain(&mut machine);
    machine.propose(at(1001), batch(4, 2, 3)).unwrap();
    let actions = drain(&mut machine);
    let write = persist_id(&actions);
    assert_eq!(sent(&actions).len(), 2);
    machine.handle_message(at(1002), member(2), append_ok(4, 1, 4));
    assert_eq!(machine.status().commit_index, index(3), "one disk of three");
    machine.handle_durable(at(1003), write);
    assert_eq!(machine.status().commit_index, index(4));
    assert_eq!(committed(&drain(&mut machine)), [4]);
}

/// R17: two followers are a quorum without the leader's disk, but it hands out nothing that it
/// does not have on disk itself.
#[test]
fn r17_what_is_committed_is_applied_when_durable_here() {
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1000), member(3), append_ok(4, 1, 3));
    machine.propose(at(1001), batch(4, 2, 3)).unwrap();
    let write = persist_id(&drain(&mut machine));
    for peer in [2, 3] {
        machine.handle_message(at(1002), member(peer), append_ok(4, 1, 4));
    }
    assert_eq!(machine.status().commit_index, index(4));
    assert!(committed(&drain(&mut machine)).is_empty());
    machine.handle_durable(at(1003), write);
    assert_eq!(committed(&drain(&mut machine)), [4]);
}

/// Raft §5.4.2: that an entry of an earlier term is on a quorum does not commit it.
#[test]
fn entries_of_earlier_terms_are_committed_by_one_of_the_own_term() {
    let (mut machine, write) = leader(3, &[2, 3]);
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 3));
    assert_eq!(machine.status().commit_index, LogIndex::ZERO);
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 4));
    assert_eq!(machine.status().commit_index, LogIndex::ZERO);
    machine.handle_durable(at(1000), write);
    assert_eq!(committed(&drain(&mut machine)), [1, 2, 3, 4]);
}

/// R19: when nothing follows that could carry the commit index, a heartbeat does, to each as far
/// as it has acknowledged (rule R18).
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn r19_commit_is_told_at_once() {
    let (mut machine, write) = leader(3, &[3]);
    machine.handle_durable(at(1000), write);
    drain(&mut machine);
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 3));
    assert_eq!(sent(&drain(&mut machine)), [(2, heartbeat(4, 3, 1))]);
    machine.handle_message(at(1001), member(3), append_ok(4, 1, 2));
    machine.handle_message(at(1001), member(3), append_ok(4, 1, 3));
    drain(&mut machine);
    machine.propose(at(1002), batch(4, 2, 3)).unwrap();
    let commit = |(to, message)| match message {
        ConsensusMessage::Append { commit, .. } => Some((to, commit.0)),
        _ => None,
    };
    let commits: Vec<_> = sent(&drain(&mut machine))
        .into_iter()
        .filter_map(commit)
        .collect();
    assert_eq!(commits, [(2, 3), (3, 3)]);
}

/// R18: a heartbeat of a commit index overtakes the append.
#[test]
fn r18_commit_is_clamped_to_what_is_verified_in_this_term() {
    let mut machine = follower(3, &[2, 2, 3]);
    let tell = |machine: &mut Consensus, message| {
        machine.handle_message(at(0), member(2), message);
        let actions = drain(machine);
        if actions
            .iter()
            .any(|action| matches!(action, Action::Persist { .. }))
        {
            machine.handle_durable(at(0), persist_id(&actions));
        }
        machine.status().commit_index.0
    };
    assert_eq!(
        tell(&mut machine, heartbeat(5, 4, 1)),
        0,
        "nothing is verified"
    );
    assert_eq!(tell(&mut machine, append(5, (2, 2), 4, &[])), 2);
    assert_eq!(tell(&mut machine, append(5, (2, 2), 4, &[entry(3, 2)])), 3);
    assert_eq!(tell(&mut machine, heartbeat(5, 4, 2)), 3);
    assert_eq!(
        tell(&mut machine, append(5, (3, 2), 1, &[entry(4, 5)])),
        3,
        "never back"
    );
    assert_eq!(tell(&mut machine, heartbeat(5, 4, 3)), 4);
    // A new term verifies anew.
    assert_eq!(tell(&mut machine, append(5, (4, 5), 4, &[entry(5, 5)])), 4);
    assert_eq!(tell(&mut machine, heartbeat(6, 5, 1)), 4);
}

/// An old message with fewer entries must not take away what a newer one brought (Raft §5.3).
#[test]
fn a_late_append_truncates_nothing() {
    let mut machine = follower(3, &[3]);
    let all = [entry(3, 3), entry(4, 3)];
    machine.handle_message(at(0), member(2), append(3, (2, 3), 0, &all));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1), write);
    assert_eq!(sent(&drain(&mut machine)), [(2, append_ok(3, 1, 4))]);
    machine.handle_message(at(2), member(2), append(3, (2, 3), 0, &all[..1]));
    let actions = drain(&mut machine);
    assert_eq!(records(&actions), []);
    assert_eq!(sent(&actions), [(2, append_ok(3, 1, 4))]);
    assert_eq!(machine.last_appended(), index(4));
}

/// R24: truncation is a record, in the same write as what takes its place.
#[test]
fn r24_a_conflicting_entry_truncates_by_a_record() {
    let mut machine = follower(3, &[2, 2, 2]);
    let new = [entry(3, 3), entry(4, 3)];
    machine.handle_message(at(0), member(2), append(3, (2, 2), 0, &new));
    let records = records(&drain(&mut machine));
    let [third, fourth] = new;
    assert_eq!(
        records,
        [
            LogRecord::Truncate { last: index(2) },
            LogRecord::Entry(third),
            LogRecord::Entry(fourth)
        ]
    );
}

#[test]
fn a_follower_says_where_its_log_differs() {
    for (terms, prev, own, first) in [
        (&[2, 2][..], (7, 3), None, 4),
        (&[2, 2, 2], (4, 3), Some(2), 2),
        (&[1, 1, 2, 2, 3], (5, 3), Some(2), 4),
    ] {
        let mut machine = follower(4, terms);
        machine.handle_message(at(0), member(2), append(4, prev, 0, &[]));
        let answer = append_conflict(4, prev.0, own, first);
        assert_eq!(sent(&drain(&mut machine)), [(2, answer)]);
    }
}

/// Raft §5.3: a term at a time instead of an entry at a time.
#[test]
fn a_conflict_is_repaired_a_term_at_a_time() {
    // Leader: 1: boot, 2..=5 of terms 1 1 4 4, and the no-op at 6.
    let next = |answer: ConsensusMessage| {
        let (mut machine, _) = leader(4, &[1, 1, 4, 4]);
        machine.handle_message(at(1000), member(2), answer);
        let sent = sent(&drain(&mut machine));
        match sent.as_slice() {
            [
                (
                    2,
                    ConsensusMessage::Append {
                        prev_index,
                        entries,
                        ..
                    },
                ),
            ] => Some((prev_index.0, entries.len())),
            [] => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        next(append_conflict(5, 5, None, 3)),
        Some((2, 4)),
        "shorter"
    );
    assert_eq!(
        next(append_conflict(5, 5, Some(3), 4)),
        Some((3, 3)),
        "a term we have not"
    );
    assert_eq!(
        next(append_conflict(5, 5, Some(1), 2)),
        Some((3, 3)),
        "our last of its term"
    );
    assert_eq!(
        next(append_conflict(5, 4, None, 3)),
        None,
        "not an answer to this probe"
    );
}

/// Appends are sent ahead, up to the limit of bytes in flight, and on as they are acknowledged.
#[test]
fn appends_are_pipelined_up_to_a_limit() {
    let mut machine = {
        let mut config = config(1);
        config.inflight_bytes_max = 3 * (64 + 5);
        let log = log(3, 3, &[3]);
        elected(Consensus::recover(config, log, 1, at(0)).unwrap())
    };
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 3));
    drain(&mut machine);
    let mut to_2 = Vec::new();
    for zxid in 2..8 {
        machine.propose(at(1001), batch(4, zxid, zxid + 1)).unwrap();
        let sent = sent(&drain(&mut machine));
        to_2.push(sent.iter().filter(|(to, _)| *to == 2).count());
    }
    assert_eq!(to_2, [1, 1, 1, 0, 0, 0]);
    machine.handle_message(at(1002), member(2), append_ok(4, 1, 5));
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
    assert_eq!((prev_index.0, entries.len()), (6, 3));
}

fn elected(mut machine: Consensus) -> Consensus {
    machine.handle_timeout(at(1000));
    drain(&mut machine);
    machine.handle_message(at(1000), member(2), vote_reply(4, true, true));
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1000), write);
    machine.handle_message(at(1000), member(2), vote_reply(4, false, true));
    drain(&mut machine);
    machine
}

/// Appends that were lost with a stream are seen by the heartbeats' answers, and sent again from
/// where the follower's log ends.
#[test]
fn lost_appends_are_sent_again() {
    let mut machine = settled_leader(3, &[3]);
    machine.propose(at(1000), batch(4, 2, 3)).unwrap();
    machine.propose(at(1000), batch(4, 3, 4)).unwrap();
    drain(&mut machine);
    let mut again = Vec::new();
    for round in 2..=6 {
        let now = at(1000 + 50 * (round - 1));
        machine.handle_timeout(now);
        drain(&mut machine);
        machine.handle_message(now, member(2), heartbeat_reply(4, round, 3));
        for (to, message) in sent(&drain(&mut machine)) {
            if let ConsensusMessage::Append {
                prev_index,
                entries,
                ..
            } = message
            {
                again.push((round, to, prev_index.0, entries.len()));
            }
        }
    }
    // After three heartbeats' time; then as a probe, once in so long.
    assert_eq!(again, [(4, 2, 3, 2)]);
    machine.handle_message(at(1260), member(2), append_ok(4, 6, 5));
    machine.propose(at(1261), batch(4, 4, 5)).unwrap();
    assert!(sent(&drain(&mut machine)).iter().any(|(to, _)| *to == 2));
}

/// A lost acknowledgement is asked for without sending the entries again.
#[test]
fn a_lost_acknowledgement_is_asked_for() {
    let mut machine = settled_leader(3, &[3]);
    machine.propose(at(1000), batch(4, 2, 3)).unwrap();
    drain(&mut machine);
    machine.handle_timeout(at(1050));
    machine.handle_message(at(1050), member(2), heartbeat_reply(4, 2, 4));
    machine.handle_timeout(at(1250));
    drain(&mut machine);
    machine.handle_message(at(1250), member(2), heartbeat_reply(4, 3, 4));
    let question = ConsensusMessage::Append {
        term: term(4),
        prev_index: index(4),
        prev_term: term(4),
        commit: index(3),
        round: 3,
        entries: vec![],
    };
    assert_eq!(sent(&drain(&mut machine)), [(2, question)]);
}

/// A peer whose acknowledgements were lost while its flight was full can not be asked about an
/// entry that the log no longer has: it gets a snapshot, and is not forgotten.
#[test]
fn a_lost_acknowledgement_of_compacted_entries_ends_in_a_snapshot() {
    let mut machine = {
        let mut config = config(1);
        config.inflight_bytes_max = 64 + 5;
        elected(Consensus::recover(config, log(3, 3, &[3]), 1, at(0)).unwrap())
    };
    for peer in [2, 3] {
        machine.handle_message(at(1000), member(peer), append_ok(4, 1, 3));
    }
    drain(&mut machine);
    for zxid in 2..5 {
        machine.propose(at(1001), batch(4, zxid, zxid + 1)).unwrap();
        let write = persist_id(&drain(&mut machine));
        machine.handle_durable(at(1001), write);
        machine.handle_message(at(1001), member(2), append_ok(4, 1, zxid + 2));
    }
    assert!(committed(&drain(&mut machine)).ends_with(&[6]));
    machine.log_compacted(at(1002), index(6));
    machine.handle_timeout(at(1050));
    machine.handle_message(at(1050), member(3), heartbeat_reply(4, 2, 4));
    drain(&mut machine);
    machine.handle_timeout(at(1300));
    drain(&mut machine);
    machine.handle_message(at(1300), member(3), heartbeat_reply(4, 3, 4));
    assert_eq!(
        drain(&mut machine),
        [Action::SnapshotNeeded { to: member(3) }]
    );
}

/// R25: a peer that got its snapshot and is slow to make its record durable says in its heartbeats'
/// answers how far it is, and is not sent another one.
#[test]
fn r25_a_snapshot_is_not_sent_again_while_its_record_is_written() {
    let mut machine = settled_leader(3, &[3]);
    machine.log_compacted(at(1000), index(3));
    machine.handle_message(at(1001), member(3), append_conflict(4, 2, None, 1));
    assert_eq!(
        drain(&mut machine),
        [Action::SnapshotNeeded { to: member(3) }]
    );
    machine.snapshot_sent(at(1010), member(3));
    let mut appends = Vec::new();
    for round in 2..=12 {
        let now = at(1000 + 50 * (round - 1));
        machine.handle_timeout(now);
        machine.handle_message(now, member(2), heartbeat_reply(4, round, 3));
        machine.handle_message(now, member(3), heartbeat_reply(4, round, 3));
        let actions = drain(&mut machine);
        assert!(!actions.contains(&Action::SnapshotNeeded { to: member(3) }));
        let to_it = sent(&actions).into_iter().filter_map(|sent| match sent {
            (3, ConsensusMessage::Append { prev_index, .. }) => Some(prev_index.0),
            _ => None,
        });
        appends.extend(to_it);
    }
    assert_eq!(appends, [3, 3, 3], "asked from behind the snapshot");
}

/// Entries that left memory are read back for a peer; those that left the log are a snapshot's.
#[test]
fn old_entries_are_read_back_or_a_snapshot_is_needed() {
    let mut recovered = log(3, 3, &[2, 2, 3, 3]);
    recovered.recent.drain(..3);
    let mut machine = elected(recover(1, recovered));
    machine.handle_message(at(1000), member(2), append_conflict(4, 5, None, 2));
    let read = |id, from, to| Action::ReadLog {
        id: LogReadId(id),
        from: index(from),
        to: index(to),
        bytes_max: 1024 * 1024,
    };
    assert_eq!(drain(&mut machine), [read(1, 2, 3)]);
    machine.handle_log_read(
        at(1001),
        LogRead {
            id: LogReadId(1),
            entries: vec![entry(2, 2)],
        },
    );
    let sent = sent(&drain(&mut machine));
    assert_eq!(sent, [(2, append(4, (1, 0), 0, &[entry(2, 2)]))]);
    machine.handle_message(at(1002), member(2), append_ok(4, 1, 2));
    assert_eq!(drain(&mut machine), [read(2, 3, 3)]);
    machine.handle_log_read(
        at(1003),
        LogRead {
            id: LogReadId(2),
            entries: vec![],
        },
    );
    assert_eq!(
        drain(&mut machine),
        [Action::SnapshotNeeded { to: member(2) }]
    );
}

/// A read for a peer is waited for, however often the peer answers meanwhile.
#[test]
fn entries_are_read_back_once() {
    let mut recovered = log(3, 3, &[2, 2, 3, 3]);
    recovered.recent.drain(..3);
    let mut machine = elected(recover(1, recovered));
    machine.handle_message(at(1000), member(2), append_conflict(4, 5, None, 2));
    let mut reads = Vec::new();
    for round in 2..=12 {
        machine.handle_timeout(at(1000 + 50 * round));
        machine.handle_message(
            at(1000 + 50 * round),
            member(2),
            heartbeat_reply(4, round, 0),
        );
        for action in drain(&mut machine) {
            if let Action::ReadLog { id, .. } = action {
                reads.push(id);
            }
        }
    }
    assert_eq!(reads, [LogReadId(1)]);
    let entries = vec![entry(2, 2)];
    let id = LogReadId(1);
    machine.handle_log_read(at(1700), LogRead { id, entries });
    let [
        (
            2,
            ConsensusMessage::Append {
                prev_index,
                entries,
                ..
            },
        ),
    ] = &sent(&drain(&mut machine))[..]
    else {
        panic!("no append");
    };
    assert_eq!((*prev_index, &entries[..]), (index(1), &[entry(2, 2)][..]));
}

/// A read that is not wanted any more is waited for, too: at most one is under way for each peer.
#[test]
fn a_peer_that_moves_on_does_not_begin_another_read() {
    let mut recovered = log(3, 3, &[2, 2, 3, 3]);
    recovered.recent.drain(..4);
    let mut machine = elected(recover(1, recovered));
    let mut reads = Vec::new();
    let mut tell = |machine: &mut Consensus, message| {
        machine.handle_message(at(1000), member(2), message);
        let actions = drain(machine);
        let new = actions.iter().filter_map(|action| match action {
            Action::ReadLog { id, from, .. } => Some((id.0, from.0)),
            _ => None,
        });
        reads.extend(new);
        actions
    };
    tell(&mut machine, append_conflict(4, 5, Some(2), 3));
    tell(&mut machine, append_conflict(4, 3, None, 2));
    tell(&mut machine, append_conflict(4, 3, None, 2));
    // The log no longer has what was asked for first; that is not what the peer needs.
    let unwanted = LogRead {
        id: LogReadId(1),
        entries: vec![],
    };
    machine.handle_log_read(at(1001), unwanted);
    let actions = drain(&mut machine);
    assert_eq!(reads, [(1, 4)]);
    assert!(
        matches!(
            actions[..],
            [Action::ReadLog {
                id: LogReadId(2),
                from: LogIndex(2),
                ..
            }]
        ),
        "{actions:?}"
    );
}

/// A peer whose disk lost what it acknowledged, and that does not know, is sent it again.
#[test]
fn what_a_peer_lost_unnoticed_is_sent_again() {
    let mut machine = settled_leader(3, &[3]);
    machine.propose(at(1000), batch(4, 2, 3)).unwrap();
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 4));
    drain(&mut machine);
    machine.propose(at(1001), batch(4, 3, 4)).unwrap();
    drain(&mut machine);
    let mut firsts = Vec::new();
    for round in 2..=20 {
        let now = at(1000 + 50 * round);
        machine.handle_timeout(now);
        machine.handle_message(now, member(2), heartbeat_reply(4, round, 0));
        machine.handle_message(now, member(3), heartbeat_reply(4, round, 0));
        for (to, message) in sent(&drain(&mut machine)) {
            if let (2, ConsensusMessage::Append { prev_index, .. }) = (to, message) {
                firsts.push(prev_index.0);
                let answer = append_conflict(4, prev_index.0, None, 3);
                if prev_index.0 > 2 {
                    machine.handle_message(now, member(2), answer);
                }
            }
        }
    }
    assert_eq!(firsts.first(), Some(&4), "{firsts:?}");
    assert!(firsts.contains(&2), "{firsts:?}");
}

/// R17: an acknowledgement of what the peer has lost since is not counted: it is on no disk.
#[test]
fn r17_an_acknowledgement_is_not_counted_when_the_peer_lost_the_entry() {
    let mut machine = settled_leader(3, &[3]);
    machine.propose(at(1000), batch(4, 2, 3)).unwrap();
    let write = persist_id(&drain(&mut machine));
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 4));
    // Member 2 starts again without the entry, and is asked about it.
    machine.handle_timeout(at(1250));
    machine.handle_message(at(1250), member(3), heartbeat_reply(4, 2, 0));
    machine.handle_message(at(1250), member(2), heartbeat_reply(4, 2, 0));
    drain(&mut machine);
    machine.handle_message(at(1251), member(2), append_conflict(4, 4, None, 4));
    let again = sent(&drain(&mut machine));
    assert!(
        matches!(&again[..], [(2, ConsensusMessage::Append { entries, .. })] if entries.len() == 1),
        "{again:?}"
    );
    machine.handle_durable(at(1252), write);
    assert_eq!(machine.status().commit_index, index(3), "one disk of three");
    machine.handle_message(at(1253), member(2), append_ok(4, 1, 4));
    assert_eq!(machine.status().commit_index, index(4));
}

/// What a correct leader can not have sent is dropped without an answer.
#[test]
fn nonsense_is_dropped() {
    for entries in [
        vec![entry(4, 3)],
        vec![entry(3, 2)],
        vec![entry(3, 9)],
        vec![entry(3, 3), entry(5, 3)],
        vec![entry(3, 3), entry(3, 3)],
    ] {
        let mut machine = follower(3, &[3]);
        machine.handle_message(at(0), member(2), append(3, (2, 3), 9, &entries));
        let actions = drain(&mut machine);
        assert_eq!(
            (sent(&actions), records(&actions)),
            (vec![], vec![]),
            "{entries:?}"
        );
        assert_eq!(machine.last_appended(), index(2));
    }
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1000), member(2), append_ok(4, 1, 99));
    machine.handle_message(at(1000), member(2), append_ok(4, 77, 3));
    machine.handle_message(at(1000), member(9), append_ok(4, 1, 3));
    assert_eq!(drain(&mut machine), []);
    assert_eq!(machine.status().commit_index, index(3));
    machine.handle_timeout(at(1300));
    drain(&mut machine);
    machine.handle_message(at(1300), member(2), heartbeat_reply(4, 2, u64::MAX));
    machine.handle_message(
        at(1300),
        member(3),
        append_conflict(4, u64::MAX, None, u64::MAX),
    );
    let mut follower = follower(3, &[3]);
    let beyond = append(3, (u64::MAX, 3), 9, &[entry(3, 3)]);
    follower.handle_message(at(0), member(2), beyond);
    assert_eq!(drain(&mut follower).len(), 1, "that it follows a leader");
}

/// What a leader appends and neither the peers nor its own disk have settled is limited; one batch
/// always has room.
#[test]
fn unsettled_entries_have_a_cap() {
    let mut config = config(1);
    config.cache_bytes_max = 2 * (64 + 5) - 1;
    let mut machine = elected(Consensus::recover(config, log(3, 3, &[3]), 1, at(0)).unwrap());
    // The no-op takes 64 bytes.
    let first = machine.propose(at(1001), batch(4, 2, 3));
    assert_eq!(first, Ok(index(4)));
    let write = persist_id(&drain(&mut machine));
    let full = machine.propose(at(1001), batch(4, 3, 4));
    assert_eq!(full, Err(ProposeRefused::Full));
    for peer in [2, 3] {
        machine.handle_message(at(1002), member(peer), append_ok(4, 1, 4));
    }
    let full = machine.propose(at(1002), batch(4, 3, 4));
    assert_eq!(
        full,
        Err(ProposeRefused::Full),
        "the own disk has nothing of it"
    );
    machine.handle_durable(at(1003), write);
    assert_eq!(machine.propose(at(1003), batch(4, 3, 4)), Ok(index(5)));
}

/// An acknowledgement of an earlier term's entries says nothing in this one.
#[test]
fn answers_of_earlier_terms_are_not_counted() {
    let (mut machine, write) = leader(3, &[3]);
    machine.handle_durable(at(1000), write);
    machine.handle_message(at(1000), member(2), append_ok(3, 1, 3));
    let late = ConsensusMessage::AppendReply {
        term: term(3),
        round: 1,
        result: Err(AppendConflict {
            prev_index: index(2),
            term: None,
            first_index: index(1),
        }),
        counts: true,
    };
    machine.handle_message(at(1000), member(2), late);
    assert_eq!(machine.status().commit_index, LogIndex::ZERO);
}

#[test]
#[should_panic(expected = "two leaders in term 3")]
fn a_second_leader_in_a_term_stops_the_member() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    machine.handle_message(at(0), member(3), heartbeat(3, 0, 1));
}

#[test]
#[should_panic(expected = "entry 2 is committed")]
fn a_leader_without_a_committed_entry_stops_the_member() {
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), append(3, (2, 3), 2, &[]));
    machine.handle_message(at(0), member(3), append(5, (1, 0), 0, &[entry(2, 4)]));
}
