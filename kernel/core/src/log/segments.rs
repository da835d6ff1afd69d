//! The segments' files: the one that is written, the one prepared for afterwards, and those that
//! are full and go once a checkpoint covers them.

use std::collections::VecDeque;

use folkmoot_proto::LogIndex;

use super::{DiskOpKind, LogFile, SegmentNumber};
use crate::mutation::{self, Mutation};

/// A segment that is written no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedSegment {
    pub(crate) number: SegmentNumber,
    /// Its file's length; a shorter one than others is not recycled.
    pub(crate) bytes: u64,
    /// The highest index that occurs in it, truncated later or not.
    pub(crate) highest: LogIndex,
}

/// The segment that is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentSegment {
    pub(crate) number: SegmentNumber,
    /// Where the next run goes; 0 while not even the header was submitted.
    pub(crate) end: u64,
    /// The hash that the next run follows; meaningful once the header was submitted.
    pub(crate) chain: u64,
    pub(crate) highest: LogIndex,
    /// Whether a write to it was done: its header can stand for the segments before it.
    pub(crate) begun: bool,
}

impl CurrentSegment {
    /// Its header is there, and nothing else.
    pub(crate) const fn begin(&mut self, header_bytes: u64, header_hash: u64) {
        self.end = header_bytes;
        self.chain = header_hash;
        self.begun = true;
    }

    pub(crate) const fn unwritten(number: SegmentNumber) -> Self {
        Self {
            number,
            end: 0,
            chain: 0,
            highest: LogIndex::ZERO,
            begun: false,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Segments {
    full_bytes: u64,
    pub(crate) current: CurrentSegment,
    closed: VecDeque<ClosedSegment>,
    prepared: Option<SegmentNumber>,
    /// What becomes prepared when the operation under way is done.
    preparing: Option<SegmentNumber>,
    next: SegmentNumber,
}

/// What is to be done beside the writing.
pub(crate) struct Maintenance {
    pub(crate) kind: DiskOpKind,
    /// A segment whose entries are no longer there.
    pub(crate) gone: Option<SegmentNumber>,
}

impl Segments {
    /// `current` is in place, of full length and unwritten; no file has a higher number.
    pub(crate) const fn new(
        full_bytes: u64,
        current: SegmentNumber,
        closed: VecDeque<ClosedSegment>,
    ) -> Self {
        Self {
            full_bytes,
            current: CurrentSegment::unwritten(current),
            closed,
            prepared: None,
            preparing: None,
            next: current.next(),
        }
    }

    /// Bytes left in the current segment.
    pub(crate) const fn room(&self) -> u64 {
        self.full_bytes - self.current.end
    }

    /// Goes on to the prepared segment; false if none is prepared yet.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(number) = self.prepared.take() else {
            return false;
        };
        self.closed.push_back(ClosedSegment {
            number: self.current.number,
            bytes: self.full_bytes,
            highest: self.current.highest,
        });
        self.current = CurrentSegment::unwritten(number);
        true
    }

    /// What is to be done, if nothing is under way. A checkpoint at `covered` is durable.
    pub(crate) fn poll_maintenance(&mut self, covered: LogIndex) -> Option<Maintenance> {
        if !self.current.begun {
            return None;
        }
        if self.prepared.is_none() {
            return Some(self.prepare(covered));
        }
        // One covered segment waits to be recycled; more than one, or one of odd length, goes.
        let first = *self
            .closed
            .front()
            .filter(|first| is_covered(first, covered))?;
        let second = self
            .closed
            .get(1)
            .is_some_and(|second| is_covered(second, covered));
        if first.bytes == self.full_bytes && !second {
            return None;
        }
        self.closed.pop_front();
        let kind = DiskOpKind::Remove {
            file: LogFile::Segment(first.number),
        };
        Some(Maintenance {
            kind,
            gone: Some(first.number),
        })
    }

    fn prepare(&mut self, covered: LogIndex) -> Maintenance {
        let number = self.next;
        self.next = number.next();
        self.preparing = Some(number);
        let to = LogFile::Segment(number);
        let full_bytes = self.full_bytes;
        let recycled = self
            .closed
            .pop_front_if(|first| first.bytes == full_bytes && is_covered(first, covered));
        match recycled {
            Some(old) => Maintenance {
                kind: DiskOpKind::Rename {
                    from: LogFile::Segment(old.number),
                    to,
                },
                gone: Some(old.number),
            },
            None => Maintenance {
                kind: DiskOpKind::CreateZeroed {
                    file: to,
                    bytes: full_bytes,
                },
                gone: None,
            },
        }
    }

    /// The maintenance under way is done.
    pub(crate) fn maintenance_done(&mut self) {
        if let Some(number) = self.preparing.take() {
            self.prepared = Some(number);
        }
    }
}

/// Rule R24: a segment goes only after the checkpoint that covers all of it is durable.
fn is_covered(segment: &ClosedSegment, covered: LogIndex) -> bool {
    segment.highest <= covered || mutation::is_on(Mutation::RecycleUncovered)
}
