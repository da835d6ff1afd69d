//! A log that keeps records as they are, for clusters of consensus alone: what is durable, and what
//! a crash takes. The encoded log has a simulated disk of its own.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use folkmoot_core::consensus::{LogRead, PersistId, RecoveredLog};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Zxid};

use super::LogAsk;
use crate::dice::Dice;

/// The durable part of a member's log, and what was written behind it and may be lost.
#[derive(Debug, Default)]
pub(crate) struct ModelLog {
    term: Term,
    vote: Option<MemberId>,
    base: Option<StateMeta>,
    bootstrap: Bytes,
    entries: VecDeque<Entry>,
    admitted: bool,
    peers_met: BTreeMap<MemberId, Incarnation>,
    pending: VecDeque<(PersistId, Vec<LogRecord>)>,
}

impl ModelLog {
    pub(crate) fn is_empty(&self) -> bool {
        self.bootstrap.is_empty()
    }

    /// The entry on whose state the log continues.
    pub(crate) fn base_index(&self) -> LogIndex {
        self.base.as_ref().map_or(LogIndex::ZERO, |base| base.index)
    }

    pub(crate) fn append(&mut self, id: PersistId, records: Vec<LogRecord>) {
        self.pending.push_back((id, records));
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// One sync: all that is pending is durable, up to the returned name.
    pub(crate) fn sync(&mut self) -> Option<PersistId> {
        let mut last = None;
        while let Some((id, records)) = self.pending.pop_front() {
            records.into_iter().for_each(|record| self.keep(record));
            last = Some(id);
        }
        last
    }

    /// A crash: of what is pending, any number of whole records from the front may be there.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> bool {
        let records: Vec<_> = self
            .pending
            .drain(..)
            .flat_map(|(_, records)| records)
            .collect();
        let kept = dice.below(records.len() as u64 + 1) as usize;
        let lost = records.len() - kept;
        for record in records.into_iter().take(kept) {
            self.keep(record);
        }
        lost > 0
    }

    /// The folder is emptied.
    pub(crate) fn wipe(&mut self) {
        *self = Self::default();
    }

    /// The entries up to `up_to` are covered by a checkpoint at `meta`.
    pub(crate) fn compact(&mut self, meta: &StateMeta) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= meta.index)
        {
            self.entries.pop_front();
        }
        self.base = Some(meta.clone());
    }

    pub(crate) fn read(&self, ask: LogAsk) -> LogRead {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in self.written() {
            let expected = LogIndex(ask.from.0 + entries.len() as u64);
            if entry.index != expected || entry.index > ask.to {
                continue;
            }
            bytes += entry.payload.len();
            if bytes > ask.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        ask.answer(entries)
    }

    /// What a start finds.
    pub(crate) fn recover(&self, applied: LogIndex, wiped: bool) -> RecoveredLog {
        let base = self.base.as_ref();
        let last = self.entries.back();
        let mut term_runs: Vec<(LogIndex, Term)> = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|(_, term)| *term != entry.term) {
                term_runs.push((entry.index, entry.term));
            }
        }
        let base_index = base.map_or(LogIndex::ZERO, |base| base.index);
        let base_zxid = base.map_or(Zxid::ZERO, |base| base.zxid);
        RecoveredLog {
            is_new: self.is_empty(),
            term: self.term,
            vote: self.vote,
            base: self.base.clone(),
            bootstrap: self.bootstrap.clone(),
            applied,
            recent: self.entries.iter().rev().take(8).rev().cloned().collect(),
            term_runs,
            last_index: last.map_or(base_index, |entry| entry.index),
            last_zxid: last.map_or(base_zxid, |entry| entry.last_zxid),
            damaged_up_to: None,
            wiped,
            admitted: self.admitted,
            peers_met: self.peers_met.clone(),
        }
    }

    /// All entries, those that are not durable yet too.
    fn written(&self) -> Vec<&Entry> {
        let mut written: Vec<&Entry> = self.entries.iter().collect();
        for record in self.pending.iter().flat_map(|(_, records)| records) {
            match record {
                LogRecord::Entry(entry) => written.push(entry),
                LogRecord::Truncate { last } => written.retain(|entry| entry.index <= *last),
                LogRecord::SnapshotInstalled { .. } => written.clear(),
                LogRecord::HardState { .. }
                | LogRecord::Repaired { .. }
                | LogRecord::Admitted
                | LogRecord::PeerMet { .. } => {}
            }
        }
        written
    }

    /// All durable entries after the base.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    fn keep(&mut self, record: LogRecord) {
        match record {
            LogRecord::HardState { term, vote } => (self.term, self.vote) = (term, vote),
            LogRecord::Entry(entry) => {
                if entry.kind == EntryKind::Bootstrap {
                    self.bootstrap = entry.payload.clone();
                }
                self.entries.push_back(entry);
            }
            LogRecord::Truncate { last } => {
                while self.entries.back().is_some_and(|entry| entry.index > last) {
                    self.entries.pop_back();
                }
            }
            LogRecord::SnapshotInstalled { meta } => {
                self.entries.clear();
                self.bootstrap = meta.bootstrap.clone();
                self.base = Some(meta);
            }
            LogRecord::Admitted => self.admitted = true,
            LogRecord::PeerMet {
                member,
                incarnation,
            } => drop(self.peers_met.insert(member, incarnation)),
            LogRecord::Repaired { .. } => {}
        }
    }
}
