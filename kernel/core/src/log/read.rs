//! Reading entries back.

use bytes::Bytes;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::{Incarnation, LogIndex};

use super::format::{Run, StoredRecord};
use super::index::RunPlace;
use super::{DiskError, Log, LogReader, LogRecord, SegmentNumber};

/// Why entries could not be read back. Both mean that a durable entry can not be had: the process
/// stops, and recovery judges the damage at the next start (rule R23).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogReadError {
    /// The disk's error.
    #[error("the log could not be read: {0}")]
    Disk(#[from] DiskError),
    /// The bytes are not those that were written.
    #[error("segment {segment} is damaged at byte {offset}")]
    Damaged {
        /// The segment.
        segment: SegmentNumber,
        /// Where the damaged run begins.
        offset: u64,
    },
}

impl Log {
    /// Entries `from..=to`, in order, at most `bytes_max` bytes of payload (but at least one entry).
    /// Empty if the log does not have `from` (any more).
    ///
    /// # Errors
    ///
    /// When the disk fails or has other bytes than were written.
    pub fn read(
        &self,
        reader: &dyn LogReader,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogReadError> {
        let to = to.min(self.last);
        let mut taken = Taken {
            next: from,
            to,
            bytes_left: bytes_max,
            is_full: false,
            entries: Vec::new(),
        };
        // What is not durable yet is in memory, and overrules what the index has in its place.
        let unwritten = self
            .unwritten
            .front()
            .map_or(LogIndex(u64::MAX), |(_, first)| first.index);
        if from < unwritten {
            for place in self.index.from(from) {
                if taken.is_full || taken.next >= unwritten || place.first > taken.next {
                    break;
                }
                for entry in read_run(reader, place, self.config.incarnation)? {
                    if entry.index < unwritten && entry.index <= place.last {
                        taken.take(entry);
                    }
                }
            }
        }
        for (_, entry) in &self.unwritten {
            taken.take(entry.clone());
        }
        Ok(taken.entries)
    }
}

/// Collects entries from a first one on, without gaps: at least one, then as bytes allow.
struct Taken {
    next: LogIndex,
    to: LogIndex,
    bytes_left: usize,
    is_full: bool,
    entries: Vec<Entry>,
}

impl Taken {
    fn take(&mut self, entry: Entry) {
        if self.is_full || entry.index != self.next || entry.index > self.to {
            return;
        }
        if entry.payload.len() > self.bytes_left && !self.entries.is_empty() {
            self.is_full = true;
            return;
        }
        self.bytes_left = self.bytes_left.saturating_sub(entry.payload.len());
        self.next = entry.index.next();
        self.is_full = self.next > self.to;
        self.entries.push(entry);
    }
}

/// The entries that a run adds, those that it truncates itself left out.
fn read_run(
    reader: &dyn LogReader,
    place: &RunPlace,
    incarnation: Incarnation,
) -> Result<Vec<Entry>, LogReadError> {
    let damaged = LogReadError::Damaged {
        segment: place.segment,
        offset: place.offset,
    };
    let bytes = Bytes::from(reader.read(place.segment, place.offset, place.bytes)?);
    let Some(run) = Run::decode(place.segment, place.offset, &bytes, incarnation) else {
        return Err(damaged);
    };
    let Ok(records) = run.decode_records() else {
        return Err(damaged);
    };
    let mut entries: Vec<Entry> = Vec::new();
    for record in records {
        match record {
            StoredRecord::Asked(LogRecord::Entry(entry)) => entries.push(entry),
            StoredRecord::Asked(LogRecord::Truncate { last }) => {
                entries.retain(|entry| entry.index <= last);
            }
            StoredRecord::Asked(LogRecord::SnapshotInstalled { .. }) => entries.clear(),
            StoredRecord::Asked(
                LogRecord::HardState { .. }
                | LogRecord::Repaired { .. }
                | LogRecord::Admitted
                | LogRecord::PeerMet { .. },
            )
            | StoredRecord::Damaged { .. } => {}
        }
    }
    Ok(entries)
}
