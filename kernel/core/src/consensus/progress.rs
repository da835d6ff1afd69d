//! What a leader knows of one peer.

use std::collections::VecDeque;

use folkmoot_proto::peer::AppendConflict;
use folkmoot_proto::{LogIndex, Tick};

use super::log_view::{LogView, before};
use super::{ConsensusConfig, LogReadId};

/// What a leader knows of one peer.
#[derive(Debug)]
pub(super) struct Progress {
    /// How far the peer's log is known to be durable and the leader's. Follows a peer that lost
    /// its disk down again.
    pub(super) match_index: LogIndex,
    /// As far as the peer's answers count for the quorum; taken back with what the peer lost.
    pub(super) counted_index: LogIndex,
    /// The next entry to send.
    pub(super) next_index: LogIndex,
    pub(super) flow: Flow,
    /// The appends that are not acknowledged: their last entries and bytes.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    /// Entries that are read back from the log for this peer: the read, and the first of them. One
    /// at a time, even if they are not wanted any more when they come: a slow disk that is asked
    /// again whenever a peer is heard only falls behind further.
    pub(super) reading: Option<(LogReadId, LogIndex)>,
    /// The newest round that an answer which counts was given to.
    pub(super) acked_round: u64,
    /// The newest round that any heartbeat's answer was given to.
    heard_round: u64,
    /// When the newest round that counts was sent (rule R8).
    pub(super) contact: Option<Tick>,
    /// How far the peer said that its log matches, durable or not.
    verified: LogIndex,
    /// The commit index that the peer was told.
    pub(super) told_commit: LogIndex,
    /// When something was sent into silence, or acknowledged, last.
    moved_at: Tick,
}

/// How entries flow to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is not known where the logs match: one append at a time; when the last one was sent.
    Probe { sent_at: Option<Tick> },
    /// Appends are sent ahead of their answers.
    Stream,
    /// It needs what the log no longer has; a snapshot is on its way.
    Snapshot,
}

/// What to do about a peer after it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resend {
    /// Nothing.
    No,
    /// Send from `next_index`.
    Entries,
    /// The entries are there, only their acknowledgement is missing: ask for it.
    Question,
}

impl Progress {
    /// A peer of a new leader, whose log ends before `next_index`.
    pub(super) fn new(next_index: LogIndex, now: Tick) -> Self {
        Self {
            match_index: LogIndex::ZERO,
            counted_index: LogIndex::ZERO,
            next_index,
            flow: Flow::Probe { sent_at: None },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: None,
            acked_round: 0,
            heard_round: 0,
            contact: None,
            verified: LogIndex::ZERO,
            told_commit: LogIndex::ZERO,
            moved_at: now,
        }
    }

    /// Looks for the place where the logs match, from `next_index` on.
    pub(super) fn probe_from(&mut self, next_index: LogIndex) {
        self.next_index = next_index;
        self.flow = Flow::Probe { sent_at: None };
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Whether an append may be sent.
    pub(super) fn may_send(&self, config: &ConsensusConfig) -> bool {
        match self.flow {
            Flow::Probe { sent_at } => sent_at.is_none() && self.reading.is_none(),
            Flow::Stream => {
                self.reading.is_none() && self.in_flight_bytes < config.inflight_bytes_max
            }
            Flow::Snapshot => false,
        }
    }

    /// An append with entries up to `last` was sent.
    pub(super) fn sent(&mut self, now: Tick, last: LogIndex, bytes: usize) {
        match &mut self.flow {
            Flow::Probe { sent_at } => {
                *sent_at = Some(now);
                self.moved_at = now;
            }
            Flow::Stream => {
                if self.in_flight.is_empty() {
                    self.moved_at = now;
                }
                self.in_flight.push_back((last, bytes));
                self.in_flight_bytes += bytes;
                self.next_index = last.next();
            }
            Flow::Snapshot => {}
        }
    }

    /// The peer's log is durable and the leader's up to `index`.
    pub(super) fn matched(&mut self, now: Tick, index: LogIndex, counts: bool) {
        if counts {
            self.counted_index = self.counted_index.max(index);
        }
        if index > self.match_index {
            self.match_index = index;
            self.verified = self.verified.max(index);
            self.moved_at = now;
        }
        while self
            .in_flight
            .front()
            .is_some_and(|(last, _)| *last <= index)
        {
            if let Some((_, bytes)) = self.in_flight.pop_front() {
                self.in_flight_bytes -= bytes;
            }
        }
        let reaches_probe = index >= before(self.next_index);
        match self.flow {
            Flow::Probe { .. } if reaches_probe => {
                self.probe_from(index.next());
                self.flow = Flow::Stream;
            }
            Flow::Stream if reaches_probe => self.next_index = self.next_index.max(index.next()),
            _ => {}
        }
    }

    /// The peer's log does not match at the conflict. Answers whether that is news; an answer to
    /// an append of before the present probe is not. What a peer acknowledged stays so while entries
    /// flow: an answer that says otherwise is an old one. A probe is asked about the last entry that
    /// the peer is believed to have, so there it is believed, since its disk may have lost what it
    /// acknowledged; should that be an old answer, it costs another probe.
    pub(super) fn conflicted(
        &mut self,
        conflict: &AppendConflict,
        counts: bool,
        log: &LogView,
    ) -> bool {
        let is_current = match self.flow {
            Flow::Probe { .. } => conflict.prev_index == before(self.next_index),
            Flow::Stream => conflict.prev_index < self.next_index,
            Flow::Snapshot => false,
        };
        let is_below = conflict.prev_index <= self.match_index;
        if !is_current || (counts && is_below && self.flow == Flow::Stream) {
            return false;
        }
        if !counts || is_below {
            self.match_index = self.match_index.min(before(conflict.first_index));
            self.counted_index = self.counted_index.min(self.match_index);
            self.verified = self.match_index;
        }
        self.probe_from(first_to_try(conflict, log).max(self.match_index.next()));
        true
    }

    /// The peer answered a heartbeat of `round`: its log matches up to `verified`. Says what was
    /// lost on the way, if anything was: appends that made no difference for `resend_ms`.
    pub(super) fn heard(
        &mut self,
        now: Tick,
        round: u64,
        verified: LogIndex,
        resend_ms: u64,
    ) -> Resend {
        if round <= self.heard_round {
            return Resend::No;
        }
        self.heard_round = round;
        if verified > self.verified {
            self.moved_at = now;
        }
        self.verified = verified;
        let last_sent = before(self.next_index);
        match self.flow {
            // What it needs is being read: another read would only come later.
            Flow::Probe { .. } if self.reading.is_some() => Resend::No,
            Flow::Probe { sent_at } => match sent_at {
                Some(at) if now.millis_since(at) < resend_ms => Resend::No,
                // A snapshot counts there before its record is durable and it is acknowledged: what
                // the peer says of its log must not be asked for, nor sent, again.
                _ => {
                    self.probe_from(self.next_index.max(verified.next()));
                    Resend::Entries
                }
            },
            Flow::Stream => {
                let is_behind = verified < last_sent || self.match_index < last_sent;
                if !is_behind || now.millis_since(self.moved_at) < resend_ms {
                    return Resend::No;
                }
                self.moved_at = now;
                if verified >= last_sent {
                    return Resend::Question;
                }
                self.probe_from(verified.max(self.match_index).next());
                Resend::Entries
            }
            Flow::Snapshot => Resend::No,
        }
    }
}

/// The first entry at which the logs may match after a conflict: the peer's entries up to it have
/// at most the term that it told (Raft §5.3, the last paragraphs).
fn first_to_try(conflict: &AppendConflict, log: &LogView) -> LogIndex {
    let Some(term) = conflict.term else {
        return conflict.first_index.min(conflict.prev_index);
    };
    let agreeing = log.last_with_term_at_most(term);
    if agreeing >= conflict.first_index && log.term_at(agreeing) == Some(term) {
        agreeing.next().min(conflict.prev_index)
    } else {
        agreeing.next().min(conflict.first_index)
    }
}
