//! Entries that somebody has been given and is not done with.

use std::collections::VecDeque;

use folkmoot_proto::LogIndex;
use folkmoot_proto::entry::Entry;

use super::log_view::entry_bytes;

/// Entries that somebody has been given and is not done with, in order, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let bytes = entry_bytes(entry);
        self.entries.push_back((entry.index, bytes));
        self.bytes += bytes;
    }

    /// The entries up to `index` are done with.
    pub(super) fn done(&mut self, index: LogIndex) {
        while self.entries.front().is_some_and(|(own, _)| *own <= index) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}
