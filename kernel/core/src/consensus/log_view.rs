//! The log as consensus sees it: the term of every entry, and the recent entries themselves.

use std::collections::VecDeque;

use folkmoot_proto::entry::Entry;
use folkmoot_proto::{LogIndex, Term, Zxid};

/// What an entry costs beyond its payload, in bytes, where bytes are counted: its header and the
/// place it takes in a queue.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Bytes that an entry counts for.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD_BYTES
}

/// The index before `index`; that of 0 is 0.
pub(super) const fn before(index: LogIndex) -> LogIndex {
    LogIndex(index.0.saturating_sub(1))
}

/// The log after its base: terms of all entries, and a cache of those at the end.
#[derive(Debug)]
pub(super) struct LogView {
    /// The entry before the first one that the log still has; 0 at the beginning.
    base_index: LogIndex,
    base_term: Term,
    /// (First index, term) of each run of entries of one term, rising, all after the base.
    term_runs: Vec<(LogIndex, Term)>,
    last_index: LogIndex,
    /// The last zxid up to the last entry.
    last_zxid: Zxid,
    /// The entries at the end of the log, without gaps up to `last_index`.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
}

impl LogView {
    /// A log that begins after `base_index` and is empty.
    pub(super) fn after(base_index: LogIndex, base_term: Term, last_zxid: Zxid) -> Self {
        Self {
            base_index,
            base_term,
            term_runs: Vec::new(),
            last_index: base_index,
            last_zxid,
            cache: VecDeque::new(),
            cache_bytes: 0,
        }
    }

    /// A log as it was recovered; says what contradicts itself.
    pub(super) fn recovered(
        base: (LogIndex, Term),
        term_runs: Vec<(LogIndex, Term)>,
        recent: Vec<Entry>,
        last_index: LogIndex,
        last_zxid: Zxid,
    ) -> Result<Self, &'static str> {
        let (base_index, base_term) = base;
        if last_index < base_index {
            return Err("the log ends before the state on which it continues");
        }
        let runs_begin_at_base = match term_runs.first() {
            Some((first, term)) => *first == base_index.next() && *term >= base_term,
            None => last_index == base_index,
        };
        let mut pairs = term_runs.iter().zip(term_runs.iter().skip(1));
        let runs_rise = pairs.all(|(left, right)| left.0 < right.0 && left.1 < right.1);
        let runs_end = term_runs
            .last()
            .is_none_or(|(first, _)| *first <= last_index);
        if !runs_begin_at_base || !runs_rise || !runs_end {
            return Err("the terms do not cover the entries");
        }
        let mut view = Self {
            term_runs,
            last_index,
            ..Self::after(base_index, base_term, last_zxid)
        };
        let first = recent
            .first()
            .map_or(last_index.next(), |entry| entry.index);
        if first <= base_index || first.0 + recent.len() as u64 != last_index.0 + 1 {
            return Err("the recent entries do not end with the last one");
        }
        for (offset, entry) in recent.into_iter().enumerate() {
            let index = LogIndex(first.0 + offset as u64);
            if entry.index != index || view.term_at(index) != Some(entry.term) {
                return Err("the recent entries are not those of the terms");
            }
            view.cache_bytes += entry_bytes(&entry);
            view.cache.push_back(entry);
        }
        Ok(view)
    }

    /// The entry before the first one that the log still has.
    pub(super) fn base_index(&self) -> LogIndex {
        self.base_index
    }

    pub(super) fn last_index(&self) -> LogIndex {
        self.last_index
    }

    pub(super) fn last_term(&self) -> Term {
        self.term_runs
            .last()
            .map_or(self.base_term, |(_, term)| *term)
    }

    pub(super) fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The term of an entry; none if it is not in the log, neither as its base.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        if index < self.base_index || index > self.last_index {
            return None;
        }
        Some(self.run_of(index).map_or(self.base_term, |(_, term)| term))
    }

    /// The first entry of the run of one term in which `index` is.
    pub(super) fn run_start(&self, index: LogIndex) -> LogIndex {
        self.run_of(index)
            .map_or(self.base_index, |(first, _)| first)
    }

    /// The last entry with at most this term, as far as the log still knows.
    pub(super) fn last_with_term_at_most(&self, term: Term) -> LogIndex {
        match self.term_runs.iter().find(|(_, run)| *run > term) {
            Some((first, _)) => before(*first),
            None => self.last_index,
        }
    }

    /// The first entry that is in memory; the one after the last if none is.
    pub(super) fn cached_first(&self) -> LogIndex {
        self.cache
            .front()
            .map_or(self.last_index.next(), |entry| entry.index)
    }

    /// Entries `from..=to` from memory, at least one and otherwise at most `bytes_max` bytes of
    /// them; none if the first is not in memory.
    pub(super) fn cached(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Option<Vec<Entry>> {
        let offset = from.0.checked_sub(self.cached_first().0)? as usize;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self
            .cache
            .iter()
            .skip(offset)
            .take_while(|entry| entry.index <= to)
        {
            bytes += entry_bytes(entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// Appends the entry behind the last one.
    pub(super) fn append(&mut self, entry: Entry) {
        assert!(
            entry.index == self.last_index.next() && entry.term >= self.last_term(),
            "entry {} of term {} does not follow entry {} of term {}",
            entry.index,
            entry.term,
            self.last_index,
            self.last_term(),
        );
        if self
            .term_runs
            .last()
            .is_none_or(|(_, term)| *term != entry.term)
        {
            self.term_runs.push((entry.index, entry.term));
        }
        self.last_index = entry.index;
        self.last_zxid = entry.last_zxid;
        self.cache_bytes += entry_bytes(&entry);
        self.cache.push_back(entry);
    }

    /// Drops the entries after `last`. An entry must be appended next: where `last` is not in
    /// memory, its zxid is not known.
    pub(super) fn truncate(&mut self, last: LogIndex) {
        assert!(
            last >= self.base_index,
            "truncation to {last} is below the log's base {}",
            self.base_index,
        );
        while self.cache.back().is_some_and(|entry| entry.index > last) {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry_bytes(&entry);
            }
        }
        self.term_runs.retain(|(first, _)| *first <= last);
        self.last_index = self.last_index.min(last);
        if let Some(entry) = self.cache.back() {
            self.last_zxid = entry.last_zxid;
        }
    }

    /// The log no longer has the entries up to `up_to`; they leave memory too.
    pub(super) fn compact(&mut self, up_to: LogIndex) {
        let Some(term) = self.term_at(up_to) else {
            return;
        };
        self.base_index = up_to;
        self.base_term = term;
        let after = up_to.next();
        let ended = self.term_runs.partition_point(|(first, _)| *first <= up_to);
        let running = self.term_runs.drain(..ended).next_back();
        let next_run = self
            .term_runs
            .first()
            .map_or(self.last_index.next(), |(first, _)| *first);
        if let Some((_, term)) = running
            && after < next_run
        {
            self.term_runs.insert(0, (after, term));
        }
        self.drop_front(|entry, _| entry.index <= up_to);
    }

    /// Drops entries up to `up_to` from memory until it holds at most `bytes_max`.
    pub(super) fn evict(&mut self, up_to: LogIndex, bytes_max: usize) {
        self.drop_front(|entry, bytes| entry.index <= up_to && bytes > bytes_max);
    }

    fn drop_front(&mut self, goes: impl Fn(&Entry, usize) -> bool) {
        while self
            .cache
            .front()
            .is_some_and(|entry| goes(entry, self.cache_bytes))
        {
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&entry);
            }
        }
    }

    fn run_of(&self, index: LogIndex) -> Option<(LogIndex, Term)> {
        let runs = self.term_runs.partition_point(|(first, _)| *first <= index);
        self.term_runs.get(runs.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use folkmoot_proto::entry::EntryKind;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            last_zxid: Zxid(index * 10),
            kind: EntryKind::Batch,
            payload: Bytes::from_static(b"0123456789"),
        }
    }

    fn log(terms: &[u64]) -> LogView {
        let mut log = LogView::after(LogIndex::ZERO, Term::ZERO, Zxid::ZERO);
        for (offset, term) in terms.iter().enumerate() {
            log.append(entry(offset as u64 + 1, *term));
        }
        log
    }

    fn terms(log: &LogView) -> Vec<Option<u64>> {
        (0..=log.last_index().0 + 1)
            .map(|i| log.term_at(LogIndex(i)).map(|t| t.0))
            .collect()
    }

    #[test]
    fn terms_are_known_from_base_to_last() {
        let log = log(&[1, 1, 4, 4, 5]);
        assert_eq!(
            terms(&log),
            [Some(0), Some(1), Some(1), Some(4), Some(4), Some(5), None]
        );
        assert_eq!(log.run_start(LogIndex(4)), LogIndex(3));
        assert_eq!(log.last_with_term_at_most(Term(3)), LogIndex(2));
        assert_eq!(log.last_with_term_at_most(Term(0)), LogIndex(0));
        assert_eq!(log.last_with_term_at_most(Term(9)), LogIndex(5));
    }

    #[test]
    fn truncation_takes_the_zxid_back() {
        let mut log = log(&[1, 1, 4, 4, 5]);
        log.truncate(LogIndex(3));
        assert_eq!(terms(&log), [Some(0), Some(1), Some(1), Some(4), None]);
        assert_eq!(log.last_zxid(), Zxid(30));
        log.append(entry(4, 7));
        assert_eq!(log.last_term(), Term(7));
    }

    #[test]
    fn compaction_keeps_the_term_of_its_base() {
        for up_to in 0..=5 {
            let mut log = log(&[1, 1, 4, 4, 5]);
            let all = terms(&log);
            log.compact(LogIndex(up_to));
            for index in up_to..=6 {
                let term = log.term_at(LogIndex(index)).map(|term| term.0);
                assert_eq!(term, all[index as usize], "base {up_to}, entry {index}");
            }
            assert_eq!(log.cached_first(), LogIndex(up_to + 1));
            log.append(entry(6, 5));
            assert_eq!(log.last_term(), Term(5));
        }
    }

    #[test]
    fn reads_from_memory_keep_to_the_bytes_but_give_one_entry() {
        let log = log(&[1, 1, 1, 1]);
        let indexes = |entries: Vec<Entry>| entries.iter().map(|e| e.index.0).collect::<Vec<_>>();
        let read = |from, to, bytes| log.cached(LogIndex(from), LogIndex(to), bytes).map(indexes);
        assert_eq!(read(1, 4, 0), Some(vec![1]));
        assert_eq!(read(2, 4, 2 * 74), Some(vec![2, 3]));
        assert_eq!(read(2, 3, 9999), Some(vec![2, 3]));
        assert_eq!(read(5, 5, 9999), Some(vec![]));
    }

    #[test]
    fn eviction_stops_at_what_is_needed() {
        let mut log = log(&[1, 1, 1, 1]);
        log.evict(LogIndex(2), 74);
        assert_eq!(log.cached_first(), LogIndex(3));
        assert_eq!(log.cached(LogIndex(2), LogIndex(4), 9999), None);
        log.evict(LogIndex(4), 74);
        assert_eq!(log.cached_first(), LogIndex(4));
    }

    #[test]
    fn a_recovered_log_must_fit_together() {
        let recovered = |base: u64, runs: &[(u64, u64)], recent: &[Entry], last: u64| {
            let runs = runs.iter().map(|(i, t)| (LogIndex(*i), Term(*t))).collect();
            LogView::recovered(
                (LogIndex(base), Term(1)),
                runs,
                recent.to_vec(),
                LogIndex(last),
                Zxid(0),
            )
            .map(|log| terms(&log))
        };
        let fits = recovered(2, &[(3, 1), (4, 2)], &[entry(4, 2), entry(5, 2)], 5);
        assert_eq!(
            fits,
            Ok(vec![None, None, Some(1), Some(1), Some(2), Some(2), None])
        );
        assert!(recovered(2, &[], &[], 2).is_ok());
        assert!(recovered(2, &[], &[], 1).is_err());
        assert!(recovered(2, &[(4, 2)], &[], 5).is_err());
        assert!(recovered(2, &[(3, 2), (4, 1)], &[], 5).is_err());
        assert!(recovered(2, &[(3, 2), (9, 3)], &[], 5).is_err());
        assert!(recovered(2, &[(3, 1)], &[entry(4, 1)], 5).is_err());
        assert!(recovered(2, &[(3, 1)], &[entry(5, 2)], 5).is_err());
    }
}
