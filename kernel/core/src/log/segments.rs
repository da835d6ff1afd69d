//! The segments' files: the one that is written, the one prepared for afterwards, and those that
//! are full and go once a checkpoint covers them.

use std::collections::VecDeque;

use folkmoot_proto::LogIndex;

use super::{DiskOpKind, LogFile, SegmentNumber};
use crate::mutation::{self, Mutation};

/// Covered segments that stay, to be recycled: zeroing a new one costs as much as filling it. A peer
/// that is behind may read them meanwhile.
const SPARES_MAX: usize = 4;

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
        let first = *self
            .closed
            .front()
            .filter(|first| is_covered(first, covered))?;
        let covered_too_many = self
            .closed
            .get(SPARES_MAX)
            .is_some_and(|next| is_covered(next, covered));
        if first.bytes == self.full_bytes && !covered_too_many {
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

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 8192;

    /// Segments 1 to `count` are full, of entries 10 each; the one behind is written.
    fn full_segments(count: u64) -> Segments {
        let closed = (1..=count).map(|number| ClosedSegment {
            number: SegmentNumber(number),
            bytes: FULL,
            highest: LogIndex(number * 10),
        });
        let mut segments = Segments::new(FULL, SegmentNumber(count + 1), closed.collect());
        segments.current.begin(4096, 0);
        segments
    }

    fn poll(segments: &mut Segments, covered: u64) -> Option<DiskOpKind> {
        let maintenance = segments.poll_maintenance(LogIndex(covered))?;
        segments.maintenance_done();
        Some(maintenance.kind)
    }

    const fn segment(number: u64) -> LogFile {
        LogFile::Segment(SegmentNumber(number))
    }

    /// Rule R24: what no checkpoint covers stays.
    #[test]
    fn makes_new_file_while_nothing_is_covered() {
        let mut segments = full_segments(3);
        let created = DiskOpKind::CreateZeroed {
            file: segment(5),
            bytes: FULL,
        };
        assert_eq!(poll(&mut segments, 9), Some(created));
        assert_eq!(poll(&mut segments, 9), None);
    }

    #[test]
    fn recycles_oldest_covered_segment() {
        let mut segments = full_segments(3);
        let recycled = DiskOpKind::Rename {
            from: segment(1),
            to: segment(5),
        };
        assert_eq!(poll(&mut segments, 20), Some(recycled));
        assert_eq!(poll(&mut segments, 20), None);
        assert!(segments.advance());
        let recycled = DiskOpKind::Rename {
            from: segment(2),
            to: segment(6),
        };
        segments.current.begin(4096, 0);
        assert_eq!(poll(&mut segments, 20), Some(recycled));
    }

    #[test]
    fn removes_covered_segments_beyond_the_spares() {
        let mut segments = full_segments(7);
        assert_eq!(
            poll(&mut segments, 70),
            Some(DiskOpKind::Rename {
                from: segment(1),
                to: segment(9)
            })
        );
        for number in [2, 3] {
            assert_eq!(
                poll(&mut segments, 70),
                Some(DiskOpKind::Remove {
                    file: segment(number)
                })
            );
        }
        assert_eq!(poll(&mut segments, 70), None);
    }

    #[test]
    fn removes_covered_copy_of_odd_length() {
        let mut segments = full_segments(2);
        segments.closed[0].bytes = 4096;
        let created = DiskOpKind::CreateZeroed {
            file: segment(4),
            bytes: FULL,
        };
        assert_eq!(poll(&mut segments, 10), Some(created));
        assert_eq!(
            poll(&mut segments, 10),
            Some(DiskOpKind::Remove { file: segment(1) })
        );
        assert_eq!(poll(&mut segments, 10), None);
    }

    #[test]
    fn does_nothing_before_the_header_is_durable() {
        let mut segments = full_segments(3);
        segments.current.begun = false;
        assert_eq!(poll(&mut segments, 30), None);
    }
}
