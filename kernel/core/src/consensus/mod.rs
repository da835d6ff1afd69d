//! Raft, with pre-vote, check-quorum, ReadIndex, leadership transfer and pipelined append.
//!
//! [`Consensus`] is a plain machine: inputs are pushed with the time at which they were dequeued
//! (rule R8), then [`Consensus::poll_action`] is drained until it is empty, and the shell calls
//! [`Consensus::handle_timeout`] at [`Consensus::poll_timeout`]. It knows members, terms and
//! entries; what an entry's payload means is not its business.

mod action;

use std::collections::VecDeque;

use bytes::Bytes;
use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, MemberId, Term, Tick, Zxid};

pub use action::{
    Action, ConsensusConfig, ConsensusStatus, LogRead, LogReadId, PeerProgress, PersistId,
    ProposeRefused, ProposedBatch, RecoverError, RecoveredLog, Role, Stall,
};

/// Entry 1 of every log, made of the bytes of the bootstrap file (rule R21). No leader appended it:
/// its term is 0.
#[must_use]
pub fn bootstrap_entry(payload: Bytes) -> Entry {
    Entry {
        index: LogIndex(1),
        term: Term::ZERO,
        last_zxid: Zxid::ZERO,
        kind: EntryKind::Bootstrap,
        payload,
    }
}

/// The consensus machine of one member.
#[derive(Debug)]
pub struct Consensus {
    config: ConsensusConfig,
    log: RecoveredLog,
    actions: VecDeque<Action>,
}

impl Consensus {
    /// Begins the log of a new cluster's member: entry 1 is persisted first. Only for a folder of
    /// which it is known that it never held this cluster's log (rule R21).
    ///
    /// # Errors
    ///
    /// When the bootstrap does not name the members, or not this one.
    pub fn bootstrap(
        config: ConsensusConfig,
        bootstrap: Bytes,
        seed: u64,
        now: Tick,
    ) -> Result<Self, RecoverError> {
        let log = RecoveredLog {
            term: Term::ZERO,
            vote: None,
            base: None,
            bootstrap,
            applied: LogIndex::ZERO,
            recent: Vec::new(),
            term_runs: Vec::new(),
            last_index: LogIndex::ZERO,
            last_zxid: Zxid::ZERO,
            damaged_up_to: None,
            wiped: false,
        };
        Self::recover(config, log, seed, now)
    }

    /// Continues a recovered log. `seed` makes the randomized timeouts; `now` is the time.
    ///
    /// # Errors
    ///
    /// When the log contradicts itself, or does not name this member.
    pub fn recover(
        config: ConsensusConfig,
        log: RecoveredLog,
        seed: u64,
        now: Tick,
    ) -> Result<Self, RecoverError> {
        let _ = (seed, now);
        if !log.bootstrap.is_empty() {
            let voters = Bootstrap::from_bytes(&log.bootstrap)?.voters();
            if !voters.contains(&config.member) {
                return Err(RecoverError::NotAMember {
                    member: config.member,
                    voters,
                });
            }
        }
        Ok(Self {
            config,
            log,
            actions: VecDeque::new(),
        })
    }

    /// A peer's message. Messages may be lost, late, doubled and out of order; `from` must be
    /// authenticated.
    pub fn handle_message(&mut self, now: Tick, from: MemberId, message: ConsensusMessage) {
        let _ = (now, from, message);
    }

    /// Everything persisted up to `id`, and `id` itself, is on disk.
    pub fn handle_durable(&mut self, now: Tick, id: PersistId) {
        let _ = (now, id);
    }

    /// The answer to a `ReadLog`.
    pub fn handle_log_read(&mut self, now: Tick, read: LogRead) {
        let _ = (now, read);
    }

    /// Appends a batch if this member leads the batch's term and the chain holds (rule R3).
    ///
    /// # Errors
    ///
    /// Why it was not appended; the log is as before.
    pub fn propose(&mut self, now: Tick, batch: ProposedBatch) -> Result<LogIndex, ProposeRefused> {
        let _ = now;
        Err(ProposeRefused::NotLeading { term: batch.term })
    }

    /// Asks for a read barrier (rule R20), on the leader or a follower. Answered once by
    /// `ReadReady` or `ReadLost`; a context is used once.
    pub fn read_barrier(&mut self, now: Tick, context: ReadContext) {
        let _ = now;
        self.actions.push_back(Action::ReadLost { context });
    }

    /// A snapshot's folder is complete and synced (rule R25). When its log record is durable,
    /// `SnapshotInstalled` follows. Answers false, and does nothing, if the log is as far already.
    pub fn snapshot_installed(&mut self, now: Tick, meta: StateMeta) -> bool {
        let _ = (now, meta);
        false
    }

    /// The peer got the whole snapshot: appends go on from there.
    pub fn snapshot_sent(&mut self, now: Tick, peer: MemberId) {
        let _ = (now, peer);
    }

    /// A snapshot's stream to the peer ended early: `SnapshotNeeded` follows again when the peer
    /// answers.
    pub fn snapshot_failed(&mut self, now: Tick, peer: MemberId) {
        let _ = (now, peer);
    }

    /// The log no longer has the entries up to `up_to`, which a durable checkpoint covers (rule
    /// R24).
    pub fn log_compacted(&mut self, now: Tick, up_to: LogIndex) {
        let _ = (now, up_to);
    }

    /// Hands leadership to `target`, or to the peer that is furthest (thesis §3.10). Proposals are
    /// refused meanwhile; given up after one election timeout. Without leadership it does nothing.
    pub fn transfer_leadership(&mut self, now: Tick, target: Option<MemberId>) {
        let _ = (now, target);
    }

    /// Something in this process stalls: a leader hands leadership over (rule R19).
    pub fn report_stall(&mut self, now: Tick, stall: Stall) {
        let _ = (now, stall);
    }

    /// Time has come to `poll_timeout`, or passed it.
    pub fn handle_timeout(&mut self, now: Tick) {
        let _ = now;
    }

    /// When to call `handle_timeout`; changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    /// The next thing to do. Drained after every input, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What this member knows.
    #[must_use]
    pub fn status(&self) -> ConsensusStatus {
        ConsensusStatus {
            role: Role::Follower,
            term: self.log.term,
            leader: None,
            last_index: self.log.last_index,
            durable_index: self.log.last_index,
            commit_index: self.log.applied,
            may_vote: false,
            voters: vec![self.config.member],
            peers: Vec::new(),
        }
    }

    /// The last entry in the log, durable or not: what a `ProposeRefused` event carries (rule R3).
    #[must_use]
    pub fn last_appended(&self) -> LogIndex {
        self.log.last_index
    }
}
