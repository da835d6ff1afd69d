//! What a follower appends, acknowledges and takes for committed (Raft §5.3).

use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::{AppendConflict, ConsensusMessage};
use folkmoot_proto::{LogIndex, MemberId, Term, Tick};

use super::configuration::Configuration;
use super::{Consensus, ConsensusConfig, Standing};
use crate::log::LogRecord;
use crate::mutation::{self, Mutation};

/// What a member has of the leader of its term. Forgotten with the term, and with the process.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// How far the log is known to be the leader's (rule R18).
    pub(super) verified: LogIndex,
    /// The leader's newest round.
    round: u64,
    /// The newest round of a heartbeat that was answered.
    answered_round: u64,
    /// How far entries were acknowledged.
    pub(super) acknowledged: LogIndex,
    heard_at: Option<Tick>,
}

/// A log that lost data below its durable mark (rule R23).
#[derive(Debug)]
pub(super) struct Damage {
    up_to: LogIndex,
    /// `Repaired` is on its way to the disk.
    is_repaired: bool,
}

impl Following {
    /// Whether the leader was heard within one election timeout.
    pub(super) fn heard_within(&self, config: &ConsensusConfig, now: Tick) -> bool {
        self.heard_at
            .is_some_and(|at| now.millis_since(at) < config.election_timeout_ms)
    }
}

impl Consensus {
    /// A message of a leader has come. Answers whether it is this term's; a deposed leader is told
    /// the term (rule R19). That answer has round 0, which no round has: were it to repeat the
    /// round, it would be an answer in *this* term to a round of an earlier one.
    pub(super) fn hear_leader(&mut self, from: MemberId, term: Term, round: u64) -> bool {
        if term < self.term {
            self.out.send(
                from,
                ConsensusMessage::HeartbeatReply {
                    term: self.term,
                    round: 0,
                    verified: LogIndex::ZERO,
                    counts: false,
                },
            );
            return false;
        }
        if term > self.term || self.leader() != Some(from) {
            let other = self.leader().filter(|_| term == self.term);
            assert!(
                other.is_none(),
                "two leaders in term {term}: {other:?} and {from}"
            );
            self.become_follower(term, Some(from));
        }
        self.following.heard_at = Some(self.now);
        self.following.round = self.following.round.max(round);
        self.postpone_election();
        true
    }

    pub(super) fn handle_heartbeat(&mut self, from: MemberId, commit: LogIndex, round: u64) {
        self.follow_commit(commit);
        if round <= self.following.answered_round {
            return;
        }
        self.following.answered_round = round;
        self.out.send(
            from,
            ConsensusMessage::HeartbeatReply {
                term: self.term,
                round,
                verified: self.following.verified,
                counts: self.may_vote(),
            },
        );
    }

    pub(super) fn handle_append(
        &mut self,
        prev_index: LogIndex,
        prev_term: Term,
        commit: LogIndex,
        entries: Vec<Entry>,
    ) {
        let Some(founders) = self.examine(prev_index, prev_term, &entries) else {
            return;
        };
        if let Some(conflict) = self.conflict_at(prev_index, prev_term) {
            return self.answer_append(Err(conflict));
        }
        if let Some(configuration) = founders {
            self.configuration = configuration;
        }
        let end = LogIndex(prev_index.0 + entries.len() as u64);
        self.take_entries(entries);
        self.following.verified = self.following.verified.max(end).max(self.commit);
        self.follow_commit(commit);
        let acknowledgeable = self.acknowledgeable();
        if acknowledgeable >= end {
            self.following.acknowledged = acknowledgeable;
            self.answer_append(Ok(acknowledgeable));
        }
        self.repair();
    }

    /// Whether what came is a piece of a log that a correct leader of this term can have; what
    /// is not is dropped. Answers the members, if entry 1 is in it and they were not known.
    fn examine(
        &self,
        prev_index: LogIndex,
        prev_term: Term,
        entries: &[Entry],
    ) -> Option<Option<Configuration>> {
        let (mut index, mut term) = (prev_index, prev_term);
        prev_index.0.checked_add(entries.len() as u64)?;
        let mut founders = None;
        for entry in entries {
            let is_first = entry.index == LogIndex(1);
            let is_bootstrap = entry.kind == EntryKind::Bootstrap;
            if entry.index != index.next()
                || entry.term < term
                || entry.term > self.term
                || is_bootstrap != is_first
            {
                return None;
            }
            if is_bootstrap && self.configuration.is_empty() {
                let bootstrap = Bootstrap::from_bytes(&entry.payload).ok()?;
                founders = Some(Configuration::from_bootstrap(&bootstrap));
            }
            (index, term) = (entry.index, entry.term);
        }
        Some(founders)
    }

    /// Where the log does not match the leader's. What is committed here is in the log of every
    /// later leader (Raft §5.4.3), so it needs no comparison; that it differs can not be.
    fn conflict_at(&self, prev_index: LogIndex, prev_term: Term) -> Option<AppendConflict> {
        let own = self.log.term_at(prev_index);
        if prev_index <= self.commit {
            self.assert_same_as_committed(prev_index, prev_term);
            return None;
        }
        if own == Some(prev_term) {
            return None;
        }
        let first_index = match own {
            Some(_) => self.log.run_start(prev_index).max(self.commit.next()),
            None => self.log.last_index().next(),
        };
        Some(AppendConflict {
            prev_index,
            term: own,
            first_index,
        })
    }

    fn assert_same_as_committed(&self, index: LogIndex, term: Term) {
        let own = self.log.term_at(index);
        assert!(
            own.is_none_or(|own| own == term),
            "entry {index} is committed with term {own:?}, and the leader of term {} has it with \
             term {term}",
            self.term,
        );
    }

    /// Appends what the log does not have. Only an entry of another term makes it drop its own:
    /// an old message with fewer entries must not (Raft §5.3).
    fn take_entries(&mut self, entries: Vec<Entry>) {
        let mut records = Vec::new();
        for entry in entries {
            if entry.index <= self.commit {
                self.assert_same_as_committed(entry.index, entry.term);
                continue;
            }
            if entry.index <= self.log.last_index() {
                if self.log.term_at(entry.index) == Some(entry.term) {
                    continue;
                }
                records.push(self.truncate_before(entry.index));
            }
            self.log.append(entry.clone());
            records.push(LogRecord::Entry(entry));
        }
        if !records.is_empty() {
            self.persist(records);
        }
    }

    /// Drops the entries from `index` on, which another leader left here (rule R24).
    fn truncate_before(&mut self, index: LogIndex) -> LogRecord {
        assert!(
            index > self.commit && index > self.following.verified,
            "the leader of term {} would truncate from entry {index}: commit {}, verified {}",
            self.term,
            self.commit,
            self.following.verified,
        );
        let last = super::log_view::before(index);
        self.log.truncate(last);
        self.out.truncated(last);
        LogRecord::Truncate { last }
    }

    /// Takes the leader's commit index, no further than the log is known to be the leader's: the
    /// heartbeat's stream overtakes the appends' (rule R18).
    fn follow_commit(&mut self, commit: LogIndex) {
        let known = if mutation::is_on(Mutation::CommitUnverified) {
            self.log.last_index()
        } else {
            self.following.verified
        };
        self.commit = self.commit.max(commit.min(known));
        self.deliver();
    }

    /// How far entries may be acknowledged (rule R17).
    fn acknowledgeable(&self) -> LogIndex {
        if mutation::is_on(Mutation::AckBeforeDurable) {
            return self.following.verified;
        }
        self.following.verified.min(self.out.durable())
    }

    /// Acknowledges what has become durable.
    pub(super) fn acknowledge(&mut self) {
        let acknowledgeable = self.acknowledgeable();
        if self.leader().is_some() && acknowledgeable > self.following.acknowledged {
            self.following.acknowledged = acknowledgeable;
            self.answer_append(Ok(acknowledgeable));
        }
    }

    fn answer_append(&mut self, result: Result<LogIndex, AppendConflict>) {
        let Some(leader) = self.leader().filter(|_| !self.leads()) else {
            return;
        };
        self.out.send(
            leader,
            ConsensusMessage::AppendReply {
                term: self.term,
                round: self.following.round,
                result,
                counts: self.may_vote(),
            },
        );
    }

    /// Whether this member leads.
    pub(super) fn leads(&self) -> bool {
        matches!(self.standing, Standing::Leader(_))
    }

    /// Begins with a damaged log. The raised term deposes a leader that rests on this member's
    /// former acknowledgements, and the next one is elected without this member (rule R23).
    pub(super) fn begin_damaged(&mut self, up_to: LogIndex) {
        self.damage = Some(Damage {
            up_to,
            is_repaired: false,
        });
        self.term = self.term.next();
        self.vote = None;
        self.persist_hard_state();
    }

    /// Declares a damaged log repaired once it durably matches the leader's through an entry of
    /// the leader's own term: everything committed before that election is below it.
    pub(super) fn repair(&mut self) {
        let matched = self.following.verified.min(self.out.durable());
        let Some(damage) = &mut self.damage else {
            return;
        };
        if damage.is_repaired || self.log.term_at(matched) != Some(self.term) {
            return;
        }
        damage.is_repaired = true;
        let up_to = damage.up_to;
        self.persist(vec![LogRecord::Repaired { up_to }]);
    }

    /// The repair is durable: from here on this member counts, for what it has already
    /// acknowledged too.
    pub(super) fn finish_repair(&mut self) {
        self.damage = None;
        self.postpone_election();
        self.following.acknowledged = LogIndex::ZERO;
    }
}
