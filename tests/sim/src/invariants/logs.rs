//! What each member's log holds, as far as it was told to write it: the ground on which the
//! invariants of consensus stand.

use std::collections::{BTreeMap, VecDeque};

use folkmoot_core::consensus::PersistId;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::{LogIndex, MemberId, Term};
use xxhash_rust::xxh3::xxh3_64;

/// An entry, as far as it matters whether two are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) term: Term,
    pub(crate) payload: u64,
}

impl Print {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            term: entry.term,
            payload: xxh3_64(&entry.payload) ^ entry.last_zxid.0 ^ ((entry.kind as u64) << 56),
        }
    }
}

/// One member's log: the entries after `base`.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberLog {
    base: LogIndex,
    base_term: Term,
    entries: Vec<Print>,
    /// How far the member was told that its disk has it.
    durable: LogIndex,
    /// Writes under way: what is durable when they are, as the log is now.
    under_way: VecDeque<(PersistId, LogIndex)>,
}

impl MemberLog {
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.base.0 + self.entries.len() as u64)
    }

    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) fn base(&self) -> LogIndex {
        self.base
    }

    /// The entry at `index`; none if it is not after the base or not there.
    pub(crate) fn at(&self, index: LogIndex) -> Option<Print> {
        let place = index.0.checked_sub(self.base.0 + 1)?;
        self.entries.get(place as usize).copied()
    }

    /// The term at `index`, the base's too.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        match index == self.base {
            true => Some(self.base_term),
            false => self.at(index).map(|print| print.term),
        }
    }

    fn restart(&mut self, base: LogIndex, base_term: Term) {
        *self = Self {
            base,
            base_term,
            entries: Vec::new(),
            durable: base,
            under_way: VecDeque::new(),
        };
    }

    fn truncate(&mut self, last: LogIndex) {
        let keep = last.0.saturating_sub(self.base.0);
        self.entries.truncate(keep as usize);
        self.durable = self.durable.min(last);
        for (_, durable) in &mut self.under_way {
            *durable = (*durable).min(last);
        }
    }

    fn write(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Entry(entry) => {
                self.entries.push(Print::of(entry));
                assert!(
                    self.last() == entry.index,
                    "entry {} is written behind entry {}",
                    entry.index,
                    self.last().0 - 1
                );
            }
            LogRecord::Truncate { last } => self.truncate(*last),
            LogRecord::SnapshotInstalled { meta } => {
                let under_way = std::mem::take(&mut self.under_way);
                self.restart(meta.index, meta.term);
                self.durable = LogIndex::ZERO;
                self.under_way = under_way
                    .into_iter()
                    .map(|(id, _)| (id, LogIndex::ZERO))
                    .collect();
            }
            LogRecord::HardState { .. }
            | LogRecord::Repaired { .. }
            | LogRecord::Admitted
            | LogRecord::PeerMet { .. } => {}
        }
    }
}

/// The logs of all members.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    logs: BTreeMap<MemberId, MemberLog>,
}

impl Logs {
    pub(crate) fn of(&self, member: MemberId) -> Option<&MemberLog> {
        self.logs.get(&member)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &MemberLog)> {
        self.logs.iter().map(|(member, log)| (*member, log))
    }

    /// Whether a majority has all of `member`'s log on disk without it.
    pub(crate) fn covered_without(&self, member: MemberId) -> bool {
        let Some(mine) = self.logs.get(&member) else {
            return false;
        };
        let last = mine.last();
        let holders = self.logs.iter().filter(|(other, log)| {
            **other != member && log.durable >= last && log.term_at(last) == mine.term_at(last)
        });
        holders.count() > self.logs.len() / 2
    }

    /// A member starts with what it recovered.
    pub(crate) fn recovered(
        &mut self,
        member: MemberId,
        base: (LogIndex, Term),
        entries: &[Print],
    ) {
        let log = self.logs.entry(member).or_default();
        log.restart(base.0, base.1);
        log.entries.extend_from_slice(entries);
        log.durable = log.last();
    }

    /// A member writes a record; more of the same drain may follow before `written`.
    pub(crate) fn write(&mut self, member: MemberId, record: &LogRecord) {
        self.logs.entry(member).or_default().write(record);
    }

    /// A member has written all records of `id`.
    pub(crate) fn written(&mut self, member: MemberId, id: PersistId) {
        let log = self.logs.entry(member).or_default();
        log.under_way.push_back((id, log.last()));
    }

    /// A member was told that everything up to `id` is on its disk.
    pub(crate) fn durable(&mut self, member: MemberId, id: PersistId) {
        let log = self.logs.entry(member).or_default();
        while log.under_way.front().is_some_and(|(first, _)| *first <= id) {
            if let Some((_, durable)) = log.under_way.pop_front() {
                log.durable = log.durable.max(durable);
            }
        }
    }
}
