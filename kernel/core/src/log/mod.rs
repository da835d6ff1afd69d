//! The write-ahead log, sans-IO: records become runs of segments, operations go out to a [`Disk`],
//! and what is durable comes back.
//!
//! One drain takes all that is queued, as far as it fits the segment, and is one run and one write
//! (group commit). One write is under way at a time; the next segment is prepared beside it.
//! `format` has the bytes, `recovery` what is believed of them after a crash.
//!
//! ```text
//! append(id, records)                      poll_op() → disk → handle_done(op, result)
//!                                          poll_durable() → the last id that is durable
//! ```

mod bytes;
mod disk;
mod evidence;
mod format;
mod index;
mod read;
mod record;
mod recover_error;
mod recovery;
mod segments;
mod tail;
mod term_runs;

use std::collections::VecDeque;

use folkmoot_proto::entry::Entry;
use folkmoot_proto::{ClusterId, Incarnation, LogIndex, MemberId};

pub use bytes::{Malformed, decode_state_meta, encode_state_meta};
pub use disk::{
    BLOCK_BYTES, Disk, DiskError, DiskOp, DiskOpKind, LogFile, LogReader, OpId, SegmentNumber,
};
pub use read::LogReadError;
pub use record::LogRecord;
pub use recover_error::RecoverError;
pub use recovery::{Recovered, SnapshotStep};

use crate::consensus::{PersistId, RecoveredLog};
use format::{DurableMark, Run, SegmentHeader, StoredRecord};
use index::{RunIndex, RunSpan};
use segments::Segments;
use tail::Tail;

/// Whose log it is and how it behaves.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// Which life of its data folder.
    pub incarnation: Incarnation,
    /// Bytes of a segment, whole blocks: 64 MiB in production, 8 MiB in `dev` and tests. An entry
    /// must fit in one: [`LogConfig::entry_bytes_max`].
    pub segment_bytes: u64,
    /// Bytes of recent entries that recovery hands out.
    pub recent_bytes_max: usize,
}

impl LogConfig {
    /// Bytes of the largest payload of an entry that fits a segment whose header repeats a
    /// bootstrap entry of `bootstrap_bytes`.
    #[must_use]
    pub const fn entry_bytes_max(&self, bootstrap_bytes: usize) -> usize {
        let header = SegmentHeader::bytes_with(bootstrap_bytes, format::PEERS_MET_MAX);
        (self.segment_bytes as usize)
            .saturating_sub(header + format::RUN_HEADER_BYTES + format::ENTRY_OVERHEAD_BYTES)
    }
}

/// How a log begins that is made anew. Until an entry is there, recovery gives an empty log and says
/// which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOrigin {
    /// As far as the member knows the cluster is being bootstrapped: consensus appends entry 1 from
    /// the bootstrap file. Until a [`LogRecord::Admitted`] the log says at every start that nobody
    /// else has confirmed that (rule R21).
    Bootstrap,
    /// The member's folder was lost. The log says so at every start (rule R21).
    Wiped,
}

/// The disk failed, and with it the process (rule R22): nothing is retried, and what was appended
/// and not reported as durable may or may not be there at the next start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log could not {operation}: {error}")]
pub struct LogFailed {
    /// What was to be done.
    pub operation: String,
    /// Why it was not.
    pub error: DiskError,
}

/// What waits to be written.
#[derive(Debug)]
enum Queued {
    Record(LogRecord),
    /// All records of this id are in front.
    EndOf(PersistId),
}

/// The write under way.
#[derive(Debug)]
struct Writing {
    op: OpId,
    span: RunSpan,
    segment: SegmentNumber,
    /// Where the run begins, and its bytes with padding.
    offset: u64,
    bytes: usize,
    /// How far the log is durable when this is done.
    durable: DurableMark,
    /// The last id whose records are all in this run or before it.
    completes: Option<PersistId>,
    /// Entries of `unwritten` with at most this sequence are in this run.
    up_to: u64,
}

/// A log that is written.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    /// Operations to be done one by one before the log is started (rule R22).
    startup: VecDeque<DiskOpKind>,
    segments: Segments,
    index: RunIndex,
    /// The end of what was submitted.
    tail: Tail,
    durable: DurableMark,
    /// The last entry that was appended.
    last: LogIndex,
    queue: VecDeque<Queued>,
    /// Entries that are not durable yet, with their sequence among all that were appended.
    unwritten: VecDeque<(u64, Entry)>,
    appended: u64,
    drained: u64,
    writing: Option<Writing>,
    maintaining: Option<OpId>,
    starting: Option<OpId>,
    next_op: OpId,
    completed: Option<PersistId>,
    /// A checkpoint here is durable.
    covered: LogIndex,
    failed: bool,
}

impl Log {
    /// A log in an empty folder, or in one in which a creation did not end
    /// ([`RecoverError::NoLog`]). It is started once its first segment is there.
    #[must_use]
    pub fn create(config: LogConfig, origin: LogOrigin) -> (Self, RecoveredLog) {
        let first = SegmentNumber(1);
        let file = LogFile::Segment(first);
        let tail = Tail::empty(origin == LogOrigin::Wiped);
        let header = tail.segment_header(&config, first, DurableMark::default());
        let (data, chain) = header.encode();
        let mut segments = Segments::new(config.segment_bytes, first, VecDeque::new());
        segments.current.begin(data.len() as u64, chain);
        let startup = VecDeque::from([
            DiskOpKind::CreateZeroed {
                file,
                bytes: config.segment_bytes,
            },
            DiskOpKind::Write {
                file,
                offset: 0,
                data,
            },
        ]);
        let state = recovery::recovered_empty(&tail);
        (
            Self::new(config, startup, segments, RunIndex::default(), tail),
            state,
        )
    }

    fn new(
        config: LogConfig,
        startup: VecDeque<DiskOpKind>,
        segments: Segments,
        index: RunIndex,
        tail: Tail,
    ) -> Self {
        assert!(
            config.segment_bytes.is_multiple_of(BLOCK_BYTES as u64)
                && config.entry_bytes_max(tail.bootstrap.len()) >= BLOCK_BYTES,
            "segments of {} bytes are too short or no whole blocks",
            config.segment_bytes
        );
        Self {
            config,
            startup,
            segments,
            index,
            durable: DurableMark {
                run: tail.run,
                last: tail.last,
            },
            last: tail.last,
            tail,
            queue: VecDeque::new(),
            unwritten: VecDeque::new(),
            appended: 0,
            drained: 0,
            writing: None,
            maintaining: None,
            starting: None,
            next_op: OpId(1),
            completed: None,
            covered: LogIndex::ZERO,
            failed: false,
        }
    }

    /// Whether all that was recovered is known to be durable. No message leaves the member before
    /// (rule R22).
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.startup.is_empty() && self.starting.is_none()
    }

    /// The last entry that was appended.
    #[must_use]
    pub const fn last_index(&self) -> LogIndex {
        self.last
    }

    /// Whether records were appended that are not durable yet.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.writing.is_some() || !self.queue.is_empty()
    }

    /// Queues records. [`Log::poll_durable`] reports `id` when they are all on disk, in the order
    /// of the calls.
    ///
    /// # Panics
    ///
    /// When a record does not continue the log: an entry that does not follow the last one, a
    /// truncation to an entry that is not there or below a checkpoint (rule R24), or an entry that
    /// fits no segment.
    pub fn append(&mut self, id: PersistId, records: Vec<LogRecord>) {
        for record in records {
            self.admit(&record);
            self.queue.push_back(Queued::Record(record));
        }
        self.queue.push_back(Queued::EndOf(id));
    }

    fn admit(&mut self, record: &LogRecord) {
        let bytes = format::encoded_bytes(record);
        let bytes_max = self.config.entry_bytes_max(self.tail.bootstrap.len());
        assert!(
            bytes <= bytes_max + format::ENTRY_OVERHEAD_BYTES,
            "a record of {bytes} bytes fits no segment of {} bytes",
            self.config.segment_bytes
        );
        self.appended += 1;
        match record {
            LogRecord::Entry(entry) => {
                assert!(
                    entry.index == self.last.next(),
                    "entry {} does not follow {}",
                    entry.index,
                    self.last
                );
                self.last = entry.index;
                self.unwritten.push_back((self.appended, entry.clone()));
            }
            LogRecord::Truncate { last } => {
                assert!(
                    self.covered <= *last && *last <= self.last,
                    "truncation to {last}: the log ends at {}, a checkpoint is at {}",
                    self.last,
                    self.covered
                );
                self.last = *last;
                while self
                    .unwritten
                    .back()
                    .is_some_and(|(_, entry)| entry.index > *last)
                {
                    self.unwritten.pop_back();
                }
            }
            LogRecord::SnapshotInstalled { meta } => {
                self.last = meta.index;
                self.unwritten.clear();
            }
            LogRecord::HardState { .. }
            | LogRecord::Repaired { .. }
            | LogRecord::Admitted
            | LogRecord::PeerMet { .. } => {}
        }
    }

    /// Lets segments go that a checkpoint covers: it holds all entries up to `up_to`, and is durable
    /// (rule R24). For a snapshot, that is after [`LogRecord::SnapshotInstalled`] is durable and the
    /// snapshot is the current state.
    pub fn compact(&mut self, up_to: LogIndex) {
        self.covered = self.covered.max(up_to);
    }

    /// The next operation for the disk, if there is one. Submit it, and report its end with
    /// [`Log::handle_done`].
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        if self.failed || self.starting.is_some() {
            return None;
        }
        if let Some(kind) = self.startup.pop_front() {
            let op = self.number(kind);
            self.starting = Some(op.id);
            return Some(op);
        }
        if self.writing.is_none()
            && let Some(op) = self.drain()
        {
            return Some(op);
        }
        if self.maintaining.is_some() {
            return None;
        }
        let maintenance = self.segments.poll_maintenance(self.covered)?;
        if let Some(gone) = maintenance.gone {
            self.index.forget_segment(gone);
        }
        let op = self.number(maintenance.kind);
        self.maintaining = Some(op.id);
        Some(op)
    }

    /// Takes the end of an operation.
    ///
    /// # Errors
    ///
    /// When the operation failed: the process must end (rule R22). No further operation is given.
    ///
    /// # Panics
    ///
    /// When the operation is not under way.
    pub fn handle_done(
        &mut self,
        id: OpId,
        result: Result<(), DiskError>,
    ) -> Result<(), LogFailed> {
        if self.starting == Some(id) {
            self.starting = None;
            return result.map_err(|error| self.fail("prepare its segments", error));
        }
        if self.maintaining == Some(id) {
            self.maintaining = None;
            result.map_err(|error| self.fail("prepare a segment", error))?;
            self.segments.maintenance_done();
            return Ok(());
        }
        let Some(writing) = self.writing.take_if(|writing| writing.op == id) else {
            panic!("operation {} is not under way", id.0);
        };
        result.map_err(|error| self.fail("write", error))?;
        self.written(&writing);
        Ok(())
    }

    fn fail(&mut self, operation: &str, error: DiskError) -> LogFailed {
        self.failed = true;
        LogFailed {
            operation: operation.to_owned(),
            error,
        }
    }

    fn written(&mut self, writing: &Writing) {
        self.segments.current.begun = true;
        self.index.add(
            &writing.span,
            writing.segment,
            writing.offset,
            writing.bytes,
        );
        while self
            .unwritten
            .front()
            .is_some_and(|(sequence, _)| *sequence <= writing.up_to)
        {
            self.unwritten.pop_front();
        }
        self.durable = writing.durable;
        self.completed = writing.completes.or(self.completed);
    }

    /// The last id whose records, and those of all before it, are durable, if it was not reported
    /// yet. Durability is of the log as it was then: a later truncation is the caller's to know.
    pub fn poll_durable(&mut self) -> Option<PersistId> {
        self.completed.take()
    }

    fn number(&mut self, kind: DiskOpKind) -> DiskOp {
        let id = self.next_op;
        self.next_op = OpId(id.0 + 1);
        DiskOp { id, kind }
    }

    /// Makes one run of what is queued, as far as it fits the segment; none if nothing is queued or
    /// the next segment is not prepared yet.
    fn drain(&mut self) -> Option<DiskOp> {
        while let Some(Queued::EndOf(id)) = self.queue.front() {
            self.completed = Some(*id);
            self.queue.pop_front();
        }
        let Some(Queued::Record(first)) = self.queue.front() else {
            return None;
        };
        let first_bytes = format::encoded_bytes(first);
        if self.records_room() < first_bytes && !self.segments.advance() {
            return None;
        }
        let room = self.records_room();
        assert!(
            first_bytes <= room,
            "{first_bytes} bytes do not fit {room} of a fresh segment"
        );
        Some(self.write_run(room))
    }

    /// Bytes of records that the current segment still takes.
    fn records_room(&self) -> usize {
        let header = if self.segments.current.end == 0 {
            SegmentHeader::bytes_with(self.tail.bootstrap.len(), self.tail.peers_met.len())
        } else {
            0
        };
        (self.segments.room() as usize).saturating_sub(header + format::RUN_HEADER_BYTES)
    }

    fn write_run(&mut self, room: usize) -> DiskOp {
        let segment = self.segments.current.number;
        let write_offset = self.segments.current.end;
        let mut data = Vec::new();
        if write_offset == 0 {
            let header = self
                .tail
                .segment_header(&self.config, segment, self.durable);
            (data, self.segments.current.chain) = header.encode();
        }
        let offset = write_offset + data.len() as u64;
        let start = Run::begin(&mut data);
        let (span, completes) = self.take_queued(room, &mut data);
        self.tail.run += 1;
        let header =
            self.tail
                .run_header(segment, offset, self.segments.current.chain, self.durable);
        self.tail.hash = Run::finish(&header, self.config.incarnation, start, &mut data);
        let current = &mut self.segments.current;
        current.chain = self.tail.hash;
        current.end = write_offset + data.len() as u64;
        current.highest = current.highest.max(span.highest);
        let durable = DurableMark {
            run: self.tail.run,
            last: self.tail.last,
        };
        let bytes = data.len() - start;
        let file = LogFile::Segment(segment);
        let op = self.number(DiskOpKind::Write {
            file,
            offset: write_offset,
            data,
        });
        let (op_id, up_to) = (op.id, self.drained);
        self.writing = Some(Writing {
            op: op_id,
            span,
            segment,
            offset,
            bytes,
            durable,
            completes,
            up_to,
        });
        op
    }

    /// Moves records from the queue to the end of `data`, at most `room` bytes.
    fn take_queued(&mut self, room: usize, data: &mut Vec<u8>) -> (RunSpan, Option<PersistId>) {
        let end_max = data.len() + room;
        let mut span = RunSpan::default();
        let mut completes = None;
        while let Some(queued) = self.queue.pop_front() {
            match queued {
                Queued::EndOf(id) => completes = Some(id),
                Queued::Record(record) => {
                    if data.len() + format::encoded_bytes(&record) > end_max {
                        self.queue.push_front(Queued::Record(record));
                        break;
                    }
                    let record = StoredRecord::Asked(record);
                    record.encode(data);
                    span.record(&record);
                    if let Err(error) = self.tail.apply(&record) {
                        panic!("a record was admitted that does not continue the log: {error}");
                    }
                    self.drained += 1;
                }
            }
        }
        (span, completes)
    }
}
