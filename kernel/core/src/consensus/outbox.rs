//! What goes out, and what must wait for the disk before it does (rule R17).

use std::collections::VecDeque;

use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, MemberId, Tick};

use super::{Action, PersistId};
use crate::log::LogRecord;
use crate::mutation::{self, Mutation};

/// Messages that may wait for the disk. Beyond it they are lost, as a network may lose them: a
/// stalled disk must not fill the memory with answers to heartbeats.
const HELD_MESSAGES_MAX: usize = 1024;

/// The actions, in order, and the queue of writes that are not durable.
#[derive(Debug)]
pub(super) struct Outbox {
    actions: VecDeque<Action>,
    next_persist: PersistId,
    in_flight: VecDeque<Write>,
    /// The last entry of the log, *as the log is at present*, that is on disk.
    durable: LogIndex,
    /// The newest hard state that is not durable.
    hard_state: Option<PersistId>,
    /// Messages that rest on a hard state that is not durable.
    held: VecDeque<Held>,
}

/// One `Persist` that is not durable.
#[derive(Debug)]
struct Write {
    id: PersistId,
    since: Tick,
    /// The last entry that is durable with it; lowered when entries are truncated meanwhile.
    last: LogIndex,
    milestone: Option<Milestone>,
}

/// A record that means something the moment it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Milestone {
    /// The log continues a snapshot (rule R25).
    SnapshotInstalled(StateMeta),
    /// The damaged part of the log is repaired (rule R23).
    Repaired,
    /// This member may vote (rule R21).
    Admitted,
    /// A peer's first life is known (rule R21).
    PeerMet(MemberId),
}

#[derive(Debug)]
struct Held {
    until: PersistId,
    to: MemberId,
    message: ConsensusMessage,
}

impl Outbox {
    /// For a log that is on disk up to `durable`.
    pub(super) fn new(durable: LogIndex) -> Self {
        Self {
            actions: VecDeque::new(),
            next_persist: PersistId(1),
            in_flight: VecDeque::new(),
            durable,
            hard_state: None,
            held: VecDeque::new(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Since when the oldest write is under way.
    pub(super) fn writing_since(&self) -> Option<Tick> {
        self.in_flight.front().map(|write| write.since)
    }

    /// Whether the hard state is on disk.
    pub(super) fn hard_state_is_durable(&self) -> bool {
        self.hard_state.is_none()
    }

    /// Sends once the hard state on which the message rests is durable.
    pub(super) fn send(&mut self, to: MemberId, message: ConsensusMessage) {
        let is_vote = matches!(message, ConsensusMessage::VoteReply { .. });
        match self.hard_state {
            Some(until) if !(is_vote && mutation::is_on(Mutation::VoteBeforeDurable)) => {
                if self.held.len() < HELD_MESSAGES_MAX {
                    self.held.push_back(Held { until, to, message });
                }
            }
            _ => self.push(Action::Send { to, message }),
        }
    }

    /// Writes records; `last` is the log's last entry with them.
    pub(super) fn persist(&mut self, now: Tick, records: Vec<LogRecord>, last: LogIndex) {
        let id = self.next_persist;
        self.next_persist = PersistId(id.0 + 1);
        let mut milestone = None;
        for record in &records {
            match record {
                LogRecord::HardState { .. } => self.hard_state = Some(id),
                LogRecord::SnapshotInstalled { meta } => {
                    milestone = Some(Milestone::SnapshotInstalled(meta.clone()));
                }
                LogRecord::Repaired { .. } => milestone = Some(Milestone::Repaired),
                LogRecord::Admitted => milestone = Some(Milestone::Admitted),
                LogRecord::PeerMet { member, .. } => milestone = Some(Milestone::PeerMet(*member)),
                LogRecord::Entry(_) | LogRecord::Truncate { .. } => {}
            }
        }
        self.in_flight.push_back(Write {
            id,
            since: now,
            last,
            milestone,
        });
        self.push(Action::Persist { id, records });
    }

    /// The entries after `last` are no longer in the log: that an earlier write of them becomes
    /// durable says nothing of those that take their place.
    pub(super) fn truncated(&mut self, last: LogIndex) {
        if mutation::is_on(Mutation::DurableByIndexAlone) {
            return;
        }
        self.durable = self.durable.min(last);
        for write in &mut self.in_flight {
            write.last = write.last.min(last);
        }
    }

    /// The log was replaced by a snapshot, of which nothing is durable before its record is; of
    /// the log before it, what is durable up to `committed` stays true.
    pub(super) fn replaced(&mut self, committed: LogIndex) {
        self.durable = self.durable.min(committed);
        for write in &mut self.in_flight {
            write.last = LogIndex::ZERO;
        }
    }

    /// Everything up to `id` is on disk. Releases what waited for it, and answers the milestones
    /// that are passed.
    pub(super) fn made_durable(&mut self, id: PersistId) -> Vec<Milestone> {
        let mut milestones = Vec::new();
        while self.in_flight.front().is_some_and(|write| write.id <= id) {
            if let Some(write) = self.in_flight.pop_front() {
                self.durable = self.durable.max(write.last);
                milestones.extend(write.milestone);
            }
        }
        if self.hard_state.is_some_and(|waits_for| waits_for <= id) {
            self.hard_state = None;
        }
        while self.held.front().is_some_and(|held| held.until <= id) {
            if let Some(Held { to, message, .. }) = self.held.pop_front() {
                self.push(Action::Send { to, message });
            }
        }
        milestones
    }
}
