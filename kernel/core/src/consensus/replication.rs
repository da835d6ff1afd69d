//! What a leader sends to its peers, counts and commits (Raft §5.3, §5.4; thesis §10.2.1).

use std::collections::{BTreeMap, VecDeque};

use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::{AppendConflict, ConsensusMessage};
use folkmoot_proto::{LogIndex, MemberId, Tick};

use super::backlog::Backlog;
use super::configuration::Configuration;
use super::log_view::{before, entry_bytes};
use super::progress::{Flow, Progress, Resend};
use super::reads::PendingRead;
use super::transfer::Transfer;
use super::{Action, Consensus, ConsensusConfig, LogReadId, PeerProgress, Standing};
use crate::mutation::{self, Mutation};

/// Rounds whose sending time is remembered. Read rounds follow each other at the round trip's pace,
/// so this is one election timeout of them at 0.1 ms; an older answer says nothing of contact.
const ROUNDS_REMEMBERED_MAX: usize = 8192;

/// Appends that made no difference for so many heartbeats are sent again. More than one, since a
/// heartbeat overtakes a large append.
const RESEND_AFTER_HEARTBEATS: u64 = 3;

/// A leader's own part of the machine, for one term.
#[derive(Debug)]
pub(super) struct Leader {
    /// The no-op that began the term.
    pub(super) first_index: LogIndex,
    pub(super) peers: BTreeMap<MemberId, Progress>,
    /// The newest round (rule R16); the first is 1.
    pub(super) round: u64,
    /// (Round, when it was sent), rising.
    rounds: VecDeque<(u64, Tick)>,
    pub(super) since: Tick,
    heartbeat_due: Tick,
    pub(super) reads: VecDeque<PendingRead>,
    pub(super) transfer: Option<Transfer>,
    /// Own entries that are not both committed and durable here, with their bytes.
    unsettled: Backlog,
}

impl Leader {
    pub(super) fn new(
        config: &ConsensusConfig,
        first_index: LogIndex,
        peers: &[MemberId],
        now: Tick,
    ) -> Self {
        let progress = |peer: &MemberId| (*peer, Progress::new(first_index, now));
        Self {
            first_index,
            peers: peers.iter().map(progress).collect(),
            round: 0,
            rounds: VecDeque::new(),
            since: now,
            heartbeat_due: now.plus_millis(config.heartbeat_ms),
            reads: VecDeque::new(),
            transfer: None,
            unsettled: Backlog::default(),
        }
    }

    pub(super) fn heartbeat_due(&self) -> Tick {
        self.heartbeat_due
    }

    pub(super) fn take_reads(&mut self) -> VecDeque<PendingRead> {
        std::mem::take(&mut self.reads)
    }

    /// Whether a batch may be appended: not while leadership is handed over, nor while too much of
    /// what was appended waits for the peers or for the own disk. One batch always has room.
    pub(super) fn has_room(&self, payload_bytes: usize, bytes_max: usize) -> bool {
        let fits = self.unsettled.bytes() + payload_bytes <= bytes_max;
        self.transfer.is_none() && (fits || self.unsettled.is_empty())
    }

    pub(super) fn appended(&mut self, entry: &Entry) {
        self.unsettled.add(entry);
    }

    /// The entries up to `index` are handed out.
    pub(super) fn settled(&mut self, index: LogIndex) {
        self.unsettled.done(index);
    }

    /// The newest round that a quorum has answered.
    pub(super) fn quorum_round(&self, configuration: &Configuration) -> u64 {
        let answered = |member| match self.peers.get(&member) {
            Some(progress) => progress.acked_round,
            None => self.round,
        };
        configuration
            .quorum_value(|member| Some(answered(member)))
            .unwrap_or_default()
    }

    /// Whether a quorum answered rounds that were sent within the last election timeout. A new
    /// leader has one election timeout to get there.
    pub(super) fn has_contact(
        &self,
        config: &ConsensusConfig,
        configuration: &Configuration,
        now: Tick,
    ) -> bool {
        let heard = |member| match self.peers.get(&member) {
            Some(progress) => progress.contact.unwrap_or(self.since).max(self.since),
            None => now,
        };
        configuration
            .quorum_value(|member| Some(heard(member)))
            .is_some_and(|contact| now.millis_since(contact) < config.election_timeout_ms)
    }

    /// What is known of the peers, for operators.
    pub(super) fn peers_at(&self, now: Tick) -> Vec<PeerProgress> {
        let of = |(member, progress): (&MemberId, &Progress)| PeerProgress {
            member: *member,
            match_index: progress.match_index,
            last_contact_ms: progress.contact.map(|contact| now.millis_since(contact)),
        };
        self.peers.iter().map(of).collect()
    }

    fn sending_time(&self, round: u64) -> Option<Tick> {
        let found = self
            .rounds
            .binary_search_by_key(&round, |(round, _)| *round)
            .ok()?;
        self.rounds.get(found).map(|(_, at)| *at)
    }
}

/// What a peer is told of the commit index: no more than it has acknowledged (rule R18).
fn commit_for(progress: &Progress, commit: LogIndex) -> LogIndex {
    if mutation::is_on(Mutation::CommitUnverified) {
        return commit;
    }
    commit.min(progress.match_index)
}

impl Consensus {
    /// A heartbeat is due, or a transfer has taken too long.
    pub(super) fn lead_on(&mut self) {
        self.end_overdue_transfer();
        self.watch_own_disk();
        if let Standing::Leader(leader) = &self.standing
            && self.now >= leader.heartbeat_due
        {
            self.begin_round();
        }
    }

    /// Begins a round: a heartbeat to every peer, whose answers also confirm touches and reads
    /// (rules R16, R20).
    pub(super) fn begin_round(&mut self) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        leader.round += 1;
        leader.rounds.push_back((leader.round, self.now));
        if leader.rounds.len() > ROUNDS_REMEMBERED_MAX {
            leader.rounds.pop_front();
        }
        leader.heartbeat_due = self.now.plus_millis(self.config.heartbeat_ms);
        for (peer, progress) in &mut leader.peers {
            progress.told_commit = commit_for(progress, self.commit);
            self.out.send(
                *peer,
                ConsensusMessage::Heartbeat {
                    term: self.term,
                    commit: progress.told_commit,
                    round: leader.round,
                },
            );
        }
    }

    pub(super) fn send_appends_to_all(&mut self) {
        for peer in self.peers() {
            self.send_appends(peer);
        }
    }

    /// Sends a peer what it lacks, as far as its flow allows.
    pub(super) fn send_appends(&mut self, to: MemberId) {
        while let Some(entries) = self.next_entries(to) {
            self.send_append(to, entries);
        }
    }

    /// What the next append to a peer carries: none if none may be sent, or if the entries must be
    /// fetched first.
    fn next_entries(&mut self, to: MemberId) -> Option<Vec<Entry>> {
        let Standing::Leader(leader) = &mut self.standing else {
            return None;
        };
        let progress = leader.peers.get_mut(&to)?;
        let (from, last) = (progress.next_index, self.log.last_index());
        let is_probe = matches!(progress.flow, Flow::Probe { .. });
        let has_what_to_say = from <= last || is_probe;
        if !has_what_to_say || !progress.may_send(&self.config) {
            return None;
        }
        if from <= self.log.base_index() {
            progress.flow = Flow::Snapshot;
            self.out.push(Action::SnapshotNeeded { to });
            return None;
        }
        let bytes_max = self.config.append_bytes_max;
        let cached = self.log.cached(from, last, bytes_max);
        if cached.is_none() {
            let id = self.next_log_read;
            self.next_log_read = LogReadId(id.0 + 1);
            progress.reading = Some((id, from));
            self.out.push(Action::ReadLog {
                id,
                from,
                to: before(self.log.cached_first()),
                bytes_max,
            });
        }
        cached
    }

    /// Sends entries from the peer's `next_index` on, maybe none. Appends need not wait for this
    /// member's disk (rule R17): its term is durable since before it was elected.
    pub(super) fn send_append(&mut self, to: MemberId, entries: Vec<Entry>) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&to) else {
            return;
        };
        let prev_index = before(progress.next_index);
        let Some(prev_term) = self.log.term_at(prev_index) else {
            return;
        };
        let last = LogIndex(prev_index.0 + entries.len() as u64);
        progress.sent(self.now, last, entries.iter().map(entry_bytes).sum());
        progress.told_commit = commit_for(progress, self.commit);
        self.out.push(Action::Send {
            to,
            message: ConsensusMessage::Append {
                term: self.term,
                prev_index,
                prev_term,
                commit: progress.told_commit,
                round: leader.round,
                entries,
            },
        });
    }

    /// A follower has answered. Takes note of the round, and says whether the rest of the answer is
    /// for this leader in this term.
    pub(super) fn hear_follower(
        &mut self,
        from: MemberId,
        term: folkmoot_proto::Term,
        round: u64,
        counts: bool,
    ) -> bool {
        if term > self.term {
            self.become_follower(term, None);
            return false;
        }
        let Standing::Leader(leader) = &mut self.standing else {
            return false;
        };
        if term < self.term || round == 0 || round > leader.round {
            return false;
        }
        let sent_at = if mutation::is_on(Mutation::ContactFromReceipt) {
            Some(self.now)
        } else {
            leader.sending_time(round)
        };
        let Some(progress) = leader.peers.get_mut(&from) else {
            return false;
        };
        if counts {
            progress.acked_round = progress.acked_round.max(round);
            progress.contact = progress.contact.max(sent_at);
        }
        self.check_quorum();
        self.leads()
    }

    pub(super) fn handle_append_reply(
        &mut self,
        from: MemberId,
        result: Result<LogIndex, AppendConflict>,
        counts: bool,
    ) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&from) else {
            return;
        };
        match result {
            Ok(index) if index <= self.log.last_index() => {
                progress.matched(self.now, index, counts);
                if progress.flow == Flow::Snapshot && index >= self.log.base_index() {
                    progress.probe_from(index.next());
                }
            }
            Ok(_) => return,
            Err(conflict) => {
                if !progress.conflicted(&conflict, counts, &self.log) {
                    return;
                }
            }
        }
        self.advance_commit();
        self.send_appends(from);
        self.tell_commit();
        self.finish_transfer();
        self.complete_reads();
    }

    pub(super) fn handle_heartbeat_reply(
        &mut self,
        from: MemberId,
        round: u64,
        verified: LogIndex,
    ) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&from) else {
            return;
        };
        let resend_ms = self.config.heartbeat_ms * RESEND_AFTER_HEARTBEATS;
        let verified = verified.min(self.log.last_index());
        match progress.heard(self.now, round, verified, resend_ms) {
            Resend::No => {}
            Resend::Entries => self.send_appends(from),
            // The question names the entry before it. Once that is compacted it can not be asked,
            // and acknowledgements that were lost would keep the flight full for ever.
            Resend::Question if self.log.term_at(before(progress.next_index)).is_none() => {
                progress.probe_from(progress.next_index);
                self.send_appends(from);
            }
            Resend::Question => self.send_append(from, Vec::new()),
        }
        self.leave_snapshot(from, verified);
        self.complete_reads();
    }

    /// Commits what a quorum has on disk, this member only with what it has on disk itself (rule
    /// R17), and only by counting an entry of its own term (Raft §5.4.2, Figure 8). Followers are
    /// told at once (rule R19).
    pub(super) fn advance_commit(&mut self) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let own = if mutation::is_on(Mutation::LeaderCountsUndurable) {
            self.log.last_index()
        } else {
            self.out.durable()
        };
        let on_disk = |member| match leader.peers.get(&member) {
            Some(progress) => progress.counted_index,
            None => own,
        };
        let on_quorum = self
            .configuration
            .quorum_value(|member| Some(on_disk(member)));
        let Some(commit) = on_quorum.filter(|index| *index > self.commit) else {
            return;
        };
        let is_own_term = self.log.term_at(commit) == Some(self.term);
        if !is_own_term && !mutation::is_on(Mutation::CommitEarlierTerm) {
            return;
        }
        self.commit = commit;
        self.deliver();
        self.send_appends_to_all();
        self.tell_commit();
        self.complete_reads();
    }

    /// Tells the commit index to the peers to which no append has just carried it, as far as they
    /// may know of it.
    fn tell_commit(&mut self) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        if mutation::is_on(Mutation::SilentCommit) {
            return;
        }
        for (peer, progress) in &mut leader.peers {
            let commit = commit_for(progress, self.commit);
            if progress.told_commit < commit {
                progress.told_commit = commit;
                self.out.send(
                    *peer,
                    ConsensusMessage::Heartbeat {
                        term: self.term,
                        commit,
                        round: leader.round,
                    },
                );
            }
        }
    }
}
