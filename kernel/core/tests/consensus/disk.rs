//! A member's disk: what was written, and how much of it is synced.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use folkmoot_core::consensus::{PersistId, RecoveredLog};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Zxid};

/// The log's records: those that survive a crash, and those that are still to be synced.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    synced: Vec<LogRecord>,
    pending: VecDeque<(PersistId, Vec<LogRecord>)>,
    /// The checkpoint; the log was recycled up to it.
    pub(crate) checkpoint: Option<StateMeta>,
    pub(crate) wiped: bool,
    pub(crate) damaged_up_to: Option<LogIndex>,
}

/// What the records add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    pub(crate) base: (LogIndex, Term, Zxid),
    pub(crate) bootstrap: Bytes,
    pub(crate) entries: Vec<Entry>,
    pub(crate) repaired: bool,
    pub(crate) admitted: bool,
    pub(crate) peers_met: BTreeMap<MemberId, Incarnation>,
    pub(crate) installed: Option<StateMeta>,
}

impl Disk {
    /// A disk that holds these records, of a member that was admitted.
    pub(crate) fn of(mut synced: Vec<LogRecord>) -> Self {
        synced.insert(0, LogRecord::Admitted);
        Self {
            synced,
            ..Self::default()
        }
    }

    /// A folder that was made empty after the cluster had begun.
    pub(crate) fn wiped() -> Self {
        Self {
            wiped: true,
            ..Self::default()
        }
    }

    pub(crate) fn write(&mut self, id: PersistId, records: Vec<LogRecord>) {
        self.pending.push_back((id, records));
    }

    /// Syncs the oldest write.
    pub(crate) fn sync_one(&mut self) -> Option<PersistId> {
        let (id, records) = self.pending.pop_front()?;
        self.synced.extend(records);
        Some(id)
    }

    /// Loses what was not synced, but for the `kept` oldest records of it.
    pub(crate) fn crash(&mut self, kept: usize) {
        let pending = std::mem::take(&mut self.pending);
        let records = pending.into_iter().flat_map(|(_, records)| records);
        self.synced.extend(records.take(kept));
    }

    /// Loses the last entries that were synced, at most `lost` and none that the checkpoint covers.
    /// Term and vote are kept apart and survive.
    pub(crate) fn damage(&mut self, lost: usize) {
        let log = self.written();
        let kept = log
            .entries
            .len()
            .saturating_sub(lost)
            .max(usize::from(log.base.0.0 == 0));
        let last = LogIndex(log.base.0.0 + kept as u64);
        self.damaged_up_to = log.entries.last().map(|entry| entry.index);
        self.synced.push(LogRecord::Truncate { last });
    }

    pub(crate) fn pending_records(&self) -> usize {
        self.pending.iter().map(|(_, records)| records.len()).sum()
    }

    /// The log that the running machine has: everything that it wrote.
    pub(crate) fn written(&self) -> Replayed {
        let pending = self.pending.iter().flat_map(|(_, records)| records);
        self.replay(self.synced.iter().chain(pending))
    }

    /// Whether a crash at this moment leaves the entry on this disk.
    pub(crate) fn has(&self, entry: &Entry) -> bool {
        let log = self.replay(self.synced.iter());
        entry.index <= log.base.0 || log.entries.contains(entry)
    }

    /// The log as it is found after a crash.
    pub(crate) fn recover(&self) -> RecoveredLog {
        let log = self.replay(self.synced.iter());
        let (base_index, _, base_zxid) = log.base;
        let mut term_runs: Vec<(LogIndex, Term)> = Vec::new();
        for entry in &log.entries {
            if term_runs.last().is_none_or(|(_, term)| *term != entry.term) {
                term_runs.push((entry.index, entry.term));
            }
        }
        let base = [log.installed.clone(), self.checkpoint.clone()];
        let base = base
            .into_iter()
            .flatten()
            .find(|meta| meta.index == base_index);
        let applied = self
            .checkpoint
            .as_ref()
            .map_or(LogIndex::ZERO, |meta| meta.index);
        RecoveredLog {
            is_new: self.synced.is_empty(),
            term: log.term,
            vote: log.vote,
            base,
            bootstrap: log.bootstrap,
            applied: applied.max(base_index),
            // The last two only, so that older ones are read back.
            recent: log.entries.iter().rev().take(2).rev().cloned().collect(),
            term_runs,
            last_index: log.entries.last().map_or(base_index, |entry| entry.index),
            last_zxid: log
                .entries
                .last()
                .map_or(base_zxid, |entry| entry.last_zxid),
            damaged_up_to: self.damaged_up_to.filter(|_| !log.repaired),
            wiped: self.wiped,
            admitted: log.admitted,
            peers_met: log.peers_met,
        }
    }

    fn replay<'a>(&'a self, records: impl Iterator<Item = &'a LogRecord>) -> Replayed {
        let mut log = Replayed::default();
        for record in records {
            match record.clone() {
                LogRecord::HardState { term, vote } => (log.term, log.vote) = (term, vote),
                LogRecord::Entry(entry) => {
                    if entry.index == LogIndex(1) {
                        log.bootstrap = entry.payload.clone();
                    }
                    log.entries.push(entry);
                }
                LogRecord::Truncate { last } => log.entries.retain(|entry| entry.index <= last),
                LogRecord::SnapshotInstalled { meta } => {
                    log.base = (meta.index, meta.term, meta.zxid);
                    log.bootstrap = meta.bootstrap.clone();
                    log.entries.clear();
                    log.installed = Some(meta);
                }
                LogRecord::Repaired { .. } => log.repaired = true,
                LogRecord::Admitted => log.admitted = true,
                LogRecord::PeerMet {
                    member,
                    incarnation,
                } => drop(log.peers_met.insert(member, incarnation)),
            }
        }
        if let Some(checkpoint) = self
            .checkpoint
            .as_ref()
            .filter(|meta| meta.index > log.base.0)
        {
            log.base = (checkpoint.index, checkpoint.term, checkpoint.zxid);
            log.entries.retain(|entry| entry.index > checkpoint.index);
        }
        log
    }
}
