//! Which run of which segment holds an entry.

use std::collections::VecDeque;

use folkmoot_proto::LogIndex;

use super::format::StoredRecord;
use super::{LogRecord, SegmentNumber};

/// What a run does to the log's entries, taken as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunSpan {
    /// Entries of earlier runs after this one go; none go if there is none.
    keeps: Option<LogIndex>,
    /// The first and the last entry that the run adds.
    adds: Option<(LogIndex, LogIndex)>,
    /// The highest index that occurs in the run, truncated later or not.
    pub(crate) highest: LogIndex,
}

impl RunSpan {
    /// Takes the run's next record into account.
    pub(crate) fn record(&mut self, record: &StoredRecord) {
        match record {
            StoredRecord::Asked(LogRecord::Entry(entry)) => {
                let first = self.adds.map_or(entry.index, |(first, _)| first);
                self.adds = Some((first, entry.index));
                self.highest = self.highest.max(entry.index);
            }
            StoredRecord::Asked(LogRecord::Truncate { last }) => self.truncate(*last),
            StoredRecord::Asked(LogRecord::SnapshotInstalled { meta }) => {
                self.truncate(LogIndex::ZERO);
                self.highest = self.highest.max(meta.index);
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

    fn truncate(&mut self, last: LogIndex) {
        match self.adds {
            Some((first, end)) if first <= last => self.adds = Some((first, end.min(last))),
            _ => {
                self.adds = None;
                self.keeps = Some(self.keeps.map_or(last, |keeps| keeps.min(last)));
            }
        }
    }
}

/// A run that holds entries `first..=last`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunPlace {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u64,
    /// With padding.
    pub(crate) bytes: usize,
}

/// The runs that hold the log's entries: contiguous, rising.
#[derive(Debug, Default)]
pub(crate) struct RunIndex {
    places: VecDeque<RunPlace>,
}

impl RunIndex {
    /// Adds a durable run.
    pub(crate) fn add(
        &mut self,
        span: &RunSpan,
        segment: SegmentNumber,
        offset: u64,
        bytes: usize,
    ) {
        if let Some(last) = span.keeps {
            self.truncate(last);
        }
        if let Some((first, last)) = span.adds {
            self.places.push_back(RunPlace {
                first,
                last,
                segment,
                offset,
                bytes,
            });
        }
    }

    fn truncate(&mut self, last: LogIndex) {
        while self.places.back().is_some_and(|place| place.first > last) {
            self.places.pop_back();
        }
        if let Some(place) = self.places.back_mut() {
            place.last = place.last.min(last);
        }
    }

    /// Forgets the runs of a segment that goes: the oldest one.
    pub(crate) fn forget_segment(&mut self, segment: SegmentNumber) {
        while self
            .places
            .front()
            .is_some_and(|place| place.segment <= segment)
        {
            self.places.pop_front();
        }
    }

    /// The run that holds an entry, and those after it.
    pub(crate) fn from(&self, index: LogIndex) -> impl Iterator<Item = &RunPlace> {
        let start = self.places.partition_point(|place| place.last < index);
        self.places
            .range(start..)
            .skip_while(move |place| place.first > index)
    }

    /// The runs, from the last to the first.
    pub(crate) fn backwards(&self) -> impl Iterator<Item = &RunPlace> {
        self.places.iter().rev()
    }
}
