//! Short names for what tests are made of.

use bytes::Bytes;
use folkmoot_core::consensus::{
    Action, Consensus, ConsensusConfig, PersistId, ProposedBatch, RecoveredLog, bootstrap_entry,
};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::peer::{AppendConflict, ConsensusMessage, ReadContext};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{
    ClusterId, Incarnation, LogIndex, LogTime, MemberId, Term, Tick, WallTime, Zxid,
};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(crate) fn member(id: u64) -> MemberId {
    MemberId(id)
}

pub(crate) fn term(term: u64) -> Term {
    Term(term)
}

pub(crate) fn index(index: u64) -> LogIndex {
    LogIndex(index)
}

/// Milliseconds after the beginning.
pub(crate) fn at(ms: u64) -> Tick {
    Tick(0).plus_millis(ms)
}

pub(crate) fn config(id: u64) -> ConsensusConfig {
    ConsensusConfig::new(member(id), Incarnation(1), 1)
}

/// The payload of entry 1 of a cluster of members 1 to `voters`.
pub(crate) fn bootstrap(voters: u64) -> Bytes {
    let members = (1..=voters).map(|id| BootstrapMember {
        id: member(id),
        peer_address: format!("m{id}:1"),
        client_address: format!("m{id}:2"),
    });
    let bootstrap = Bootstrap {
        cluster: CLUSTER,
        created: WallTime(0),
        members: members.collect(),
        limits: Limits::default(),
    };
    bootstrap.to_bytes().into()
}

/// An entry whose payload and zxid say where it is from.
pub(crate) fn entry(at: u64, in_term: u64) -> Entry {
    Entry {
        index: index(at),
        term: term(in_term),
        last_zxid: Zxid(at),
        kind: EntryKind::Batch,
        payload: Bytes::from(format!("{at}/{in_term}")),
    }
}

pub(crate) fn no_op(at: u64, in_term: u64, last_zxid: u64) -> Entry {
    Entry {
        last_zxid: Zxid(last_zxid),
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
        ..entry(at, in_term)
    }
}

/// Entries 1 (the bootstrap entry) and then one of each of these terms.
pub(crate) fn entries(voters: u64, terms: &[u64]) -> Vec<Entry> {
    let mut entries = vec![bootstrap_entry(bootstrap(voters))];
    entries.extend(terms.iter().zip(2..).map(|(term, at)| entry(at, *term)));
    entries
}

/// A recovered log in hard state `in_term` with nothing applied: entry 1 and then one entry of each
/// of these terms.
pub(crate) fn log(voters: u64, in_term: u64, terms: &[u64]) -> RecoveredLog {
    let recent = entries(voters, terms);
    let mut term_runs: Vec<(LogIndex, Term)> = Vec::new();
    for entry in &recent {
        if term_runs.last().is_none_or(|(_, term)| *term != entry.term) {
            term_runs.push((entry.index, entry.term));
        }
    }
    let last = recent.last().unwrap().clone();
    RecoveredLog {
        is_new: false,
        term: term(in_term),
        vote: None,
        base: None,
        bootstrap: bootstrap(voters),
        applied: LogIndex::ZERO,
        recent,
        term_runs,
        last_index: last.index,
        last_zxid: last.last_zxid,
        damaged_up_to: None,
        wiped: false,
        admitted: true,
        peers_met: Default::default(),
    }
}

pub(crate) fn recover(id: u64, log: RecoveredLog) -> Consensus {
    Consensus::recover(config(id), log, 1, at(0)).unwrap()
}

/// Member 1 of three with a log of these terms, in hard state `in_term`.
pub(crate) fn follower(in_term: u64, terms: &[u64]) -> Consensus {
    recover(1, log(3, in_term, terms))
}

/// Member 1 of three that was elected at 1000 ms in the term after `in_term`, with its no-op sent
/// and written but not durable. Answers the write of the no-op.
pub(crate) fn leader(in_term: u64, terms: &[u64]) -> (Consensus, PersistId) {
    leader_of(3, in_term, terms)
}

pub(crate) fn leader_of(voters: u64, in_term: u64, terms: &[u64]) -> (Consensus, PersistId) {
    let mut machine = recover(1, log(voters, in_term, terms));
    machine.handle_timeout(at(1000));
    drain(&mut machine);
    for voter in 2..=voters / 2 + 1 {
        machine.handle_message(at(1000), member(voter), vote_reply(in_term + 1, true, true));
    }
    let write = persist_id(&drain(&mut machine));
    machine.handle_durable(at(1000), write);
    for voter in 2..=voters / 2 + 1 {
        machine.handle_message(
            at(1000),
            member(voter),
            vote_reply(in_term + 1, false, true),
        );
    }
    let actions = drain(&mut machine);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Elected { .. })),
        "not elected: {actions:?}"
    );
    let write = persist_id(&actions);
    (machine, write)
}

/// A leader as above whose no-op is committed by member 2 and itself; the entry's index is
/// `terms.len() + 2`.
pub(crate) fn settled_leader(in_term: u64, terms: &[u64]) -> Consensus {
    let (mut machine, write) = leader(in_term, terms);
    machine.handle_durable(at(1000), write);
    let no_op = terms.len() as u64 + 2;
    machine.handle_message(at(1000), member(2), append_ok(in_term + 1, 1, no_op));
    drain(&mut machine);
    assert_eq!(machine.status().commit_index, index(no_op));
    machine
}

/// Everything that the machine wants done.
pub(crate) fn drain(machine: &mut Consensus) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// The newest write among the actions.
pub(crate) fn persist_id(actions: &[Action]) -> PersistId {
    let writes = actions.iter().filter_map(|action| match action {
        Action::Persist { id, .. } => Some(*id),
        _ => None,
    });
    writes.last().expect("something is written")
}

/// The records that are written.
pub(crate) fn records(actions: &[Action]) -> Vec<LogRecord> {
    let writes = actions.iter().filter_map(|action| match action {
        Action::Persist { records, .. } => Some(records.clone()),
        _ => None,
    });
    writes.flatten().collect()
}

/// What is sent, and to whom.
pub(crate) fn sent(actions: &[Action]) -> Vec<(u64, ConsensusMessage)> {
    let sends = actions.iter().filter_map(|action| match action {
        Action::Send { to, message } => Some((to.0, message.clone())),
        _ => None,
    });
    sends.collect()
}

/// The indexes that are handed to execution.
pub(crate) fn committed(actions: &[Action]) -> Vec<u64> {
    let batches = actions.iter().filter_map(|action| match action {
        Action::Committed { entries } => Some(entries.iter().map(|entry| entry.index.0)),
        _ => None,
    });
    batches.flatten().collect()
}

pub(crate) fn batch(in_term: u64, base_zxid: u64, last_zxid: u64) -> ProposedBatch {
    ProposedBatch {
        term: term(in_term),
        base_zxid: Zxid(base_zxid),
        last_zxid: Zxid(last_zxid),
        payload: Bytes::from_static(b"batch"),
    }
}

pub(crate) fn vote_request(in_term: u64, pre: bool, last: (u64, u64)) -> ConsensusMessage {
    ConsensusMessage::VoteRequest {
        term: term(in_term),
        pre,
        last_index: index(last.0),
        last_term: term(last.1),
        transfer: false,
    }
}

pub(crate) fn vote_reply(in_term: u64, pre: bool, granted: bool) -> ConsensusMessage {
    ConsensusMessage::VoteReply {
        term: term(in_term),
        pre,
        granted,
    }
}

/// An append of round 1 in `in_term` behind (index, term).
pub(crate) fn append(
    in_term: u64,
    prev: (u64, u64),
    commit: u64,
    entries: &[Entry],
) -> ConsensusMessage {
    ConsensusMessage::Append {
        term: term(in_term),
        prev_index: index(prev.0),
        prev_term: term(prev.1),
        commit: index(commit),
        round: 1,
        entries: entries.to_vec(),
    }
}

pub(crate) fn append_ok(in_term: u64, round: u64, matched: u64) -> ConsensusMessage {
    ConsensusMessage::AppendReply {
        term: term(in_term),
        round,
        result: Ok(index(matched)),
        counts: true,
    }
}

pub(crate) fn append_conflict(
    in_term: u64,
    prev_index: u64,
    conflicting: Option<u64>,
    first_index: u64,
) -> ConsensusMessage {
    ConsensusMessage::AppendReply {
        term: term(in_term),
        round: 1,
        result: Err(AppendConflict {
            prev_index: index(prev_index),
            term: conflicting.map(Term),
            first_index: index(first_index),
        }),
        counts: true,
    }
}

pub(crate) fn heartbeat(in_term: u64, commit: u64, round: u64) -> ConsensusMessage {
    ConsensusMessage::Heartbeat {
        term: term(in_term),
        commit: index(commit),
        round,
    }
}

pub(crate) fn heartbeat_reply(in_term: u64, round: u64, verified: u64) -> ConsensusMessage {
    ConsensusMessage::HeartbeatReply {
        term: term(in_term),
        round,
        verified: index(verified),
        counts: true,
    }
}

pub(crate) fn context(id: u64, sequence: u64) -> ReadContext {
    ReadContext {
        member: member(id),
        run: 1,
        sequence,
    }
}

/// A state that ends with this entry.
pub(crate) fn meta(voters: u64, at: u64, in_term: u64, zxid: u64) -> StateMeta {
    StateMeta {
        cluster: CLUSTER,
        index: index(at),
        term: term(in_term),
        zxid: Zxid(zxid),
        log_time: LogTime(0),
        state_hash: 0,
        feature_level: 1,
        bootstrap: bootstrap(voters),
    }
}
