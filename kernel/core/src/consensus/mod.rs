//! Raft, with pre-vote, check-quorum, ReadIndex, leadership transfer and pipelined append.
//!
//! [`Consensus`] is a plain machine: inputs are pushed with the time at which they were dequeued
//! (rule R8), then [`Consensus::poll_action`] is drained until it is empty, and the shell calls
//! [`Consensus::handle_timeout`] at [`Consensus::poll_timeout`]. It knows members, terms and
//! entries; what an entry's payload means is not its business.
//!
//! What leaves and when (rule R17): a leader's appends go to the peers at the same time as to its
//! own disk. Everything else that a member says rests on its term and vote, so it waits in the
//! [`outbox`] until the hard state is durable; an acknowledgement also waits for its entries.
//! `Committed` entries are those that are both committed and durable here.
//!
//! Who is believed (rules R21, R23): a member whose folder was wiped, or whose log lost data below
//! its durable mark, may have broken promises that it does not remember. It follows and receives
//! entries, and all its answers say that they do not count. A damaged member begins with a raised
//! term, which makes the others elect a leader without it; as soon as its durable log matches that
//! leader's through an entry of the leader's own term it holds again everything that was committed
//! before, writes [`LogRecord::Repaired`], and counts. A wiped member never does in this life of
//! its folder: it comes back by a change of the members.
//!
//! - `admission`: whether a member without a past has none.
//! - `election`: timeouts, votes, coming into office and leaving it.
//! - `replication`: what a leader sends, counts and commits; `progress`: what it knows of one peer.
//! - `follower`: what is appended and acknowledged, and the repair of a damaged log.
//! - `delivery`: what is handed to execution, and reading old entries back.
//! - `snapshot`: catching up where the log is gone.
//! - `reads`: read barriers; `transfer`: handing leadership over.
//! - `outbox`, `log_view`, `configuration`: what is not durable yet, what is in the log, who votes;
//!   `backlog`: what somebody has been given and is not done with.

mod action;
mod admission;
mod backlog;
mod configuration;
mod delivery;
mod election;
mod follower;
mod log_view;
mod outbox;
mod progress;
mod reads;
mod replication;
mod snapshot;
mod transfer;

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::{LogIndex, MemberId, Term, Tick, Zxid};
use rand_core::SeedableRng as _;
use rand_pcg::Pcg64Mcg;

pub use action::{
    Action, ConsensusConfig, ConsensusStatus, LogRead, LogReadId, PeerProgress, PersistId,
    ProposeRefused, ProposedBatch, RecoverError, RecoveredLog, Role, Stall,
};
pub use reads::READS_PENDING_MAX;

use self::admission::Admission;
use self::backlog::Backlog;
use self::configuration::Configuration;
use self::follower::{Damage, Following};
use self::log_view::LogView;
use self::outbox::{Milestone, Outbox};
use self::replication::Leader;
use crate::log::LogRecord;
use crate::mutation::{self, Mutation};

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
    rng: Pcg64Mcg,
    /// The time of the newest input.
    now: Tick,
    configuration: Configuration,
    term: Term,
    vote: Option<MemberId>,
    standing: Standing,
    /// The leader of `term`, once this member has heard of it, and that term.
    leader_in_term: Option<(Term, MemberId)>,
    /// What this member has of the leader of `term`.
    following: Following,
    election_deadline: Tick,
    log: LogView,
    commit: LogIndex,
    out: Outbox,
    /// The last entry that was handed to execution.
    handed: LogIndex,
    /// What of that execution has not applied.
    unapplied: Backlog,
    /// The entries that are read back to be handed to execution.
    handing: Option<LogReadId>,
    next_log_read: LogReadId,
    /// Read barriers that the leader was asked for, and when it was asked last.
    forwarded_reads: BTreeMap<ReadContext, Tick>,
    wiped: bool,
    admission: Admission,
    damage: Option<Damage>,
}

/// Where a member stands in its term.
#[derive(Debug)]
enum Standing {
    Follower,
    /// With those who would vote for it.
    PreCandidate(Vec<MemberId>),
    /// With those who voted for it; itself once its vote is durable.
    Candidate(Vec<MemberId>),
    Leader(Box<Leader>),
}

impl Consensus {
    /// Begins the log of a new cluster's member, with entry 1, or continues the log that there is.
    /// `bootstrap` is the bootstrap file: the payload of entry 1 in every member's log.
    ///
    /// # Errors
    ///
    /// When the log contradicts itself or has lost entry 1 unnoticed, or the bootstrap does not name
    /// the members, or not this one.
    ///
    /// # Panics
    ///
    /// When a log that is said to be new has a term, a vote, entries or damage.
    pub fn start(
        config: ConsensusConfig,
        mut log: RecoveredLog,
        bootstrap: Bytes,
        seed: u64,
        now: Tick,
    ) -> Result<Self, RecoverError> {
        let begins = log.bootstrap(&bootstrap)?;
        let mut consensus = Self::recover(config, log, seed, now)?;
        if begins {
            consensus.append_own(bootstrap_entry(bootstrap));
        }
        Ok(consensus)
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
        let configuration = configuration_of(&config, &log)?;
        // Nobody else counts on what a cluster's only member has promised.
        let is_admitted = log.admitted || configuration.is_alone(config.member);
        let base = log
            .base
            .map_or((LogIndex::ZERO, Term::ZERO), |meta| (meta.index, meta.term));
        let inconsistent = |what| RecoverError::Inconsistent { what };
        if log.applied < base.0 || log.applied > log.last_index {
            return Err(inconsistent("the applied entry is not in the log"));
        }
        let view = LogView::recovered(
            base,
            log.term_runs,
            log.recent,
            log.last_index,
            log.last_zxid,
        )
        .map_err(inconsistent)?;
        if view.last_term() > log.term {
            return Err(inconsistent(
                "the last entry's term is beyond the hard state's",
            ));
        }
        let mut consensus = Self {
            rng: Pcg64Mcg::seed_from_u64(seed),
            now,
            configuration,
            term: log.term,
            vote: log.vote,
            standing: Standing::Follower,
            leader_in_term: None,
            following: Following::default(),
            election_deadline: now,
            log: view,
            commit: log.applied,
            out: Outbox::new(log.last_index),
            handed: log.applied,
            unapplied: Backlog::default(),
            handing: None,
            next_log_read: LogReadId(1),
            forwarded_reads: BTreeMap::new(),
            wiped: log.wiped,
            admission: Admission::new(is_admitted, log.peers_met, now),
            damage: None,
            config,
        };
        if let Some(up_to) = log.damaged_up_to
            && !consensus.wiped
        {
            consensus.begin_damaged(up_to);
        }
        if !consensus.configuration.is_alone(consensus.config.member) {
            consensus.postpone_election();
        }
        Ok(consensus)
    }

    /// A peer's message. Messages may be lost, late, doubled and out of order; `from` must be
    /// authenticated.
    pub fn handle_message(&mut self, now: Tick, from: MemberId, message: ConsensusMessage) {
        self.begin_message(now, &message);
        match message {
            ConsensusMessage::VoteRequest {
                term,
                pre,
                last_index,
                last_term,
                transfer,
            } => {
                let has_our_log = self.is_covered_by(last_index, last_term);
                match pre {
                    true => self.handle_pre_vote_request(from, term, has_our_log),
                    false => self.handle_vote_request(from, term, has_our_log, transfer),
                }
            }
            ConsensusMessage::VoteReply { term, pre, granted } => {
                self.handle_vote_reply(from, term, pre, granted);
            }
            ConsensusMessage::Append {
                term,
                prev_index,
                prev_term,
                commit,
                round,
                entries,
            } => {
                if self.hear_leader(from, term, round) {
                    self.handle_append(prev_index, prev_term, commit, entries);
                }
            }
            ConsensusMessage::AppendReply {
                term,
                round,
                result,
                counts,
            } => {
                if self.hear_follower(from, term, round, counts) {
                    self.handle_append_reply(from, result, counts);
                }
            }
            ConsensusMessage::Heartbeat {
                term,
                commit,
                round,
            } => {
                if self.hear_leader(from, term, round) {
                    self.handle_heartbeat(from, commit, round);
                }
            }
            ConsensusMessage::HeartbeatReply {
                term,
                round,
                verified,
                counts,
            } => {
                if self.hear_follower(from, term, round, counts) {
                    self.handle_heartbeat_reply(from, round, verified);
                }
            }
            ConsensusMessage::TimeoutNow { term } => self.handle_timeout_now(from, term),
            ConsensusMessage::ReadRequest { term, context } => {
                self.handle_read_request(from, term, context);
            }
            ConsensusMessage::ReadReply {
                term,
                context,
                index,
            } => self.handle_read_reply(term, context, index),
            ConsensusMessage::Introduce { incarnation } => self.handle_introduce(from, incarnation),
            ConsensusMessage::Introduced { known } => self.handle_introduced(from, known),
        }
    }

    /// Everything persisted up to `id`, and `id` itself, is on disk.
    pub fn handle_durable(&mut self, now: Tick, id: PersistId) {
        self.begin(now);
        for milestone in self.out.made_durable(id) {
            match milestone {
                Milestone::SnapshotInstalled(meta) => self.finish_install(meta),
                Milestone::Repaired => self.finish_repair(),
                Milestone::Admitted => self.finish_admission(),
                Milestone::PeerMet(peer) => self.finish_meeting(peer),
            }
        }
        self.count_own_vote();
        self.advance_commit();
        self.deliver();
        self.acknowledge();
        self.repair();
    }

    /// Appends a batch if this member leads the batch's term and the chain holds (rule R3).
    ///
    /// # Errors
    ///
    /// Why it was not appended; the log is as before.
    pub fn propose(&mut self, now: Tick, batch: ProposedBatch) -> Result<LogIndex, ProposeRefused> {
        self.begin(now);
        let term = batch.term;
        let Standing::Leader(leader) = &self.standing else {
            return Err(ProposeRefused::NotLeading { term });
        };
        if term != self.term {
            return Err(ProposeRefused::NotLeading { term });
        }
        let last = self.log.last_zxid();
        if batch.base_zxid != last && !mutation::is_on(Mutation::AppendUnchained) {
            return Err(ProposeRefused::Chain {
                base: batch.base_zxid,
                last,
            });
        }
        if !leader.has_room(batch.payload.len(), self.config.cache_bytes_max) {
            return Err(ProposeRefused::Full);
        }
        let index = self.log.last_index().next();
        self.append_own(Entry {
            index,
            term,
            last_zxid: batch.last_zxid,
            kind: EntryKind::Batch,
            payload: batch.payload,
        });
        self.send_appends_to_all();
        Ok(index)
    }

    /// Time has come to `poll_timeout`, or passed it.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.begin(now);
        if matches!(self.standing, Standing::Leader(_)) {
            self.lead_on();
        } else {
            self.ask_reads_again();
            self.introduce();
            if self.now >= self.election_deadline {
                match self.is_electable() {
                    true => self.stand_for_pre_vote(),
                    // It can not do anything about it, but those who wait for the leader must know.
                    false => self.become_follower(self.term, None),
                }
            }
        }
    }

    /// When to call `handle_timeout`; changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        if let Standing::Leader(leader) = &self.standing {
            return Some(leader.heartbeat_due());
        }
        let others = [self.introduction_due(), self.next_read_retry()];
        let due = others.into_iter().flatten().min();
        Some(due.map_or(self.election_deadline, |due| {
            due.min(self.election_deadline)
        }))
    }

    /// The next thing to do. Drained after every input, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.poll()
    }

    /// What this member knows.
    #[must_use]
    pub fn status(&self) -> ConsensusStatus {
        let (role, peers) = match &self.standing {
            Standing::Follower => (Role::Follower, Vec::new()),
            Standing::PreCandidate(_) => (Role::PreCandidate, Vec::new()),
            Standing::Candidate(_) => (Role::Candidate, Vec::new()),
            Standing::Leader(leader) => (Role::Leader, leader.peers_at(self.now)),
        };
        ConsensusStatus {
            role,
            term: self.term,
            leader: self.leader(),
            last_index: self.log.last_index(),
            durable_index: self.out.durable(),
            commit_index: self.commit,
            may_vote: self.may_vote(),
            voters: self.configuration.voters().to_vec(),
            peers,
        }
    }

    /// The last entry in the log, durable or not: what a `ProposeRefused` event carries (rule R3).
    #[must_use]
    pub fn last_appended(&self) -> LogIndex {
        self.log.last_index()
    }

    /// Takes the time of an input. A leader that has lost its quorum meanwhile leaves office before
    /// it does anything else (rule R19): a process that was stopped finds queued inputs first, and
    /// its timeout later.
    fn begin(&mut self, now: Tick) {
        self.now = self.now.max(now);
        self.check_quorum();
    }

    /// Takes the time of a message. A follower's answer is counted before the quorum is asked for.
    fn begin_message(&mut self, now: Tick, message: &ConsensusMessage) {
        match message {
            ConsensusMessage::AppendReply { .. } | ConsensusMessage::HeartbeatReply { .. } => {
                self.now = self.now.max(now);
            }
            _ => self.begin(now),
        }
    }

    /// Whether this member's votes and acknowledgements count (rules R21, R23).
    fn may_vote(&self) -> bool {
        let may_have = self.wiped || !self.admission.is_admitted;
        let lost_all = may_have && !mutation::is_on(Mutation::WipedVotes);
        let lost_some = self.damage.is_some() && !mutation::is_on(Mutation::DamagedVotes);
        !lost_all && !lost_some
    }

    /// Writes entries and what must go before them to the log.
    fn persist(&mut self, records: Vec<LogRecord>) {
        self.out.persist(self.now, records, self.log.last_index());
    }

    /// Writes term and vote.
    fn persist_hard_state(&mut self) {
        self.persist(vec![LogRecord::HardState {
            term: self.term,
            vote: self.vote,
        }]);
    }

    /// Appends an entry that this member made.
    fn append_own(&mut self, entry: Entry) {
        if let Standing::Leader(leader) = &mut self.standing {
            leader.appended(&entry);
        }
        self.log.append(entry.clone());
        self.persist(vec![LogRecord::Entry(entry)]);
    }
}

/// The members, as the log names them; this one among them.
fn configuration_of(
    config: &ConsensusConfig,
    log: &RecoveredLog,
) -> Result<Configuration, RecoverError> {
    if log.bootstrap.is_empty() && log.wiped {
        return Ok(Configuration::default());
    }
    let configuration = Configuration::from_bootstrap(&Bootstrap::from_bytes(&log.bootstrap)?);
    if !configuration.is_voter(config.member) {
        return Err(RecoverError::NotAMember {
            member: config.member,
            voters: configuration.voters().to_vec(),
        });
    }
    Ok(configuration)
}
