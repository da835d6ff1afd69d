//! Which terms a log's entries have.

use folkmoot_proto::{LogIndex, Term};

use super::LogRecord;
use super::format::StoredRecord;

/// Terms of entries, as (first index of the run, term), rising.
#[derive(Default)]
pub(crate) struct TermRuns {
    runs: Vec<(LogIndex, Term)>,
    last: LogIndex,
}

impl TermRuns {
    pub(crate) fn record(&mut self, record: &StoredRecord) {
        match record {
            StoredRecord::Asked(LogRecord::Entry(entry)) => {
                if self.runs.last().is_none_or(|(_, term)| *term != entry.term) {
                    self.runs.push((entry.index, entry.term));
                }
                self.last = entry.index;
            }
            StoredRecord::Asked(LogRecord::Truncate { last }) => {
                while self.runs.pop_if(|(first, _)| *first > *last).is_some() {}
                self.last = *last;
            }
            StoredRecord::Asked(LogRecord::SnapshotInstalled { meta }) => {
                self.runs.clear();
                self.last = meta.index;
            }
            StoredRecord::Asked(
                LogRecord::HardState { .. }
                | LogRecord::Repaired { .. }
                | LogRecord::Admitted
                | LogRecord::PeerMet { .. },
            )
            | StoredRecord::Damaged { .. } => {}
        }
    }

    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= index)?;
        (index <= self.last).then_some(run.1)
    }

    /// The runs of the entries after `base`.
    pub(crate) fn after(&self, base: LogIndex) -> Vec<(LogIndex, Term)> {
        let first = base.next();
        let before = self.term(first).map(|term| (first, term));
        let after = self
            .runs
            .iter()
            .copied()
            .filter(|(start, _)| *start > first);
        before.into_iter().chain(after).collect()
    }
}
