//! What is believed of a log's files when a process starts.
//!
//! The chain of runs is followed from the first segment on, until a run or a segment is missing.
//! What is readable behind that says how far the log had been durable: if beyond the gap, data was
//! lost; else the gap is a torn tail, and is cut (rule R23). Loss of the very last run can not be
//! told from a torn tail, since nothing behind it speaks of it.
//!
//! Nothing is written before the caller has seen the outcome. Then, before the log is started, the
//! last segment's valid part is written anew to a file of its own that takes the segment's name, for
//! what was read may be in the page cache alone (rule R22); the segments before it were all durable
//! before the last one was begun. Writing goes on in a new file. Where data was lost the copy ends with a
//! note of it, so that it is known as long as it is not repaired, and what lies behind the loss
//! goes.

use std::collections::VecDeque;

use bytes::Bytes;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, Term, Zxid};

use super::evidence::{Evidence, run_at};
use super::format::{NoHeader, SegmentHeader, StoredRecord};
use super::index::{RunIndex, RunSpan};
use super::segments::{ClosedSegment, Segments};
use super::tail::Tail;
use super::term_runs::TermRuns;
use super::{
    BLOCK_BYTES, DiskOpKind, Log, LogConfig, LogFile, LogReadError, LogReader, LogRecord,
    RecoverError, SegmentNumber,
};
use crate::consensus::RecoveredLog;
use crate::mutation::{self, Mutation};

/// What the caller does with the checkpoint store's prepared snapshot, once the log is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// The snapshot counts: make it the current state, before that is loaded (rule R25).
    Install,
    /// It does not count, if there is one: drop it.
    Discard,
}

/// A log that was recovered.
#[derive(Debug)]
pub struct Recovered {
    /// The log. It has operations to be done before it is started.
    pub log: Log,
    /// What consensus begins with, once the log is started. Its `damaged_up_to` is the caller's to
    /// report: a cluster of one member can not repair it and should not go on.
    pub state: RecoveredLog,
    /// What becomes of a prepared snapshot, once the log is started.
    pub snapshot: SnapshotStep,
}

impl Log {
    /// Reads the log's files. `current` is where the checkpoint stands, `prepared` where a snapshot
    /// stands that may be about to replace it.
    ///
    /// # Errors
    ///
    /// When the member can not start with these files. Nothing was changed.
    pub fn recover(
        config: &LogConfig,
        reader: &dyn LogReader,
        current: Option<&StateMeta>,
        prepared: Option<&StateMeta>,
    ) -> Result<Recovered, RecoverError> {
        let covered = current.map_or(LogIndex::ZERO, |meta| meta.index);
        let mut scan = Scan::new(config, covered);
        let mut files = reader.segments()?;
        files.sort_unstable();
        for (number, bytes) in &files {
            let content = reader.read(*number, 0, usize::try_from(*bytes).unwrap_or(usize::MAX))?;
            scan.file(*number, Bytes::from(content))?;
        }
        let (base, state_meta, snapshot) = scan.base(current, prepared)?;
        let terms = scan
            .terms
            .after(base.as_ref().map_or(LogIndex::ZERO, |meta| meta.index));
        let mut log = scan.into_log(reader)?;
        log.compact(covered);
        let state = state(&log, reader, base, state_meta, terms)?;
        Ok(Recovered {
            log,
            state,
            snapshot,
        })
    }
}

/// What consensus begins with in an empty log.
pub(crate) fn recovered_empty(tail: &Tail) -> RecoveredLog {
    RecoveredLog {
        is_new: tail.run == 0,
        term: tail.term,
        vote: tail.vote,
        base: None,
        bootstrap: tail.bootstrap.clone(),
        applied: LogIndex::ZERO,
        recent: Vec::new(),
        term_runs: Vec::new(),
        last_index: tail.last,
        last_zxid: Zxid::ZERO,
        damaged_up_to: tail.damaged_up_to,
        wiped: tail.wiped,
        admitted: tail.admitted,
        peers_met: tail.peers_met.clone(),
    }
}

fn state(
    log: &Log,
    reader: &dyn LogReader,
    base: Option<StateMeta>,
    state_meta: Option<StateMeta>,
    term_runs: Vec<(LogIndex, Term)>,
) -> Result<RecoveredLog, RecoverError> {
    let base_index = base.as_ref().map_or(LogIndex::ZERO, |meta| meta.index);
    let recent = log.recent(reader, base_index)?;
    let last_zxid = if log.last_index() == base_index {
        base.as_ref().map_or(Zxid::ZERO, |meta| meta.zxid)
    } else if let Some(entry) = recent.last() {
        entry.last_zxid
    } else {
        let last = log.read(reader, log.last_index(), log.last_index(), 0)?;
        last.last().map_or(Zxid::ZERO, |entry| entry.last_zxid)
    };
    let mut state = recovered_empty(&log.tail);
    if let Some(meta) = &state_meta {
        state.applied = meta.index;
        state.bootstrap = meta.bootstrap.clone();
    }
    Ok(RecoveredLog {
        base,
        recent,
        term_runs,
        last_zxid,
        ..state
    })
}

impl Log {
    /// The last entries, as many as `recent_bytes_max` allows, none of them at or before `base`.
    fn recent(&self, reader: &dyn LogReader, base: LogIndex) -> Result<Vec<Entry>, LogReadError> {
        let mut from = self.last_index().next();
        let mut bytes = 0_usize;
        for place in self.index.backwards() {
            if bytes >= self.config.recent_bytes_max || place.last <= base {
                break;
            }
            bytes = bytes.saturating_add(place.bytes);
            from = place.first.max(base.next());
        }
        let mut entries = self.read(reader, from, self.last_index(), usize::MAX)?;
        let mut bytes = 0;
        let kept = entries.iter().rev().take_while(|entry| {
            bytes += entry.payload.len();
            bytes <= self.config.recent_bytes_max
        });
        let dropped = entries.len() - kept.count();
        entries.drain(..dropped);
        Ok(entries)
    }
}

/// Follows the chain through the files.
struct Scan<'a> {
    config: &'a LogConfig,
    /// A checkpoint here is durable.
    covered: LogIndex,
    /// None before the first segment with a header.
    tail: Option<Tail>,
    /// The last entry before the first segment.
    log_after: LogIndex,
    /// The segments of the chain; the last one may end before its file does.
    chain: VecDeque<ClosedSegment>,
    /// Where the last one's chain ends, and the hash that a next run would follow.
    end: ChainEnd,
    /// Segments with a header that the chain does not reach.
    beyond: Vec<SegmentNumber>,
    /// Files without a header of their own: prepared, or begun in vain.
    unused: Vec<SegmentNumber>,
    evidence: Evidence,
    index: RunIndex,
    terms: TermRuns,
    snapshot: Option<StateMeta>,
    highest_number: SegmentNumber,
}

#[derive(Clone, Copy, Default)]
struct ChainEnd {
    offset: u64,
    hash: u64,
}

impl<'a> Scan<'a> {
    fn new(config: &'a LogConfig, covered: LogIndex) -> Self {
        Self {
            config,
            covered,
            tail: None,
            log_after: LogIndex::ZERO,
            chain: VecDeque::new(),
            end: ChainEnd::default(),
            beyond: Vec::new(),
            unused: Vec::new(),
            evidence: Evidence::default(),
            index: RunIndex::default(),
            terms: TermRuns::default(),
            snapshot: None,
            highest_number: SegmentNumber(0),
        }
    }

    fn file(&mut self, number: SegmentNumber, content: Bytes) -> Result<(), RecoverError> {
        self.highest_number = number;
        let (header, header_bytes, hash) = match SegmentHeader::decode(&content) {
            Ok(decoded) if decoded.0.number == number => decoded,
            Err(NoHeader::Version(found)) => {
                return Err(RecoverError::Version {
                    segment: number,
                    found,
                });
            }
            Ok(_) | Err(NoHeader::Invalid) => {
                self.unused.push(number);
                self.evidence
                    .search(number, &content, 0, self.config.incarnation);
                return Ok(());
            }
        };
        self.check_owner(&header)?;
        let tail = match self.tail.take() {
            None => {
                self.log_after = header.last;
                Tail::before(&header)
            }
            Some(tail) if tail.is_continued_by(&header) => tail,
            Some(_) if header.last <= self.covered => {
                self.begin_anew();
                self.log_after = header.last;
                Tail::before(&header)
            }
            Some(tail) => {
                self.tail = Some(tail);
                self.beyond.push(number);
                self.evidence.header(&header);
                self.evidence
                    .search(number, &content, header_bytes, self.config.incarnation);
                return Ok(());
            }
        };
        self.end = ChainEnd {
            offset: header_bytes as u64,
            hash,
        };
        let (tail, highest) = self.follow(number, &content, tail)?;
        self.tail = Some(tail);
        let bytes = content.len() as u64;
        self.chain.push_back(ClosedSegment {
            number,
            bytes,
            highest,
        });
        let searched_from = usize::try_from(self.end.offset).unwrap_or(usize::MAX);
        self.evidence
            .search(number, &content, searched_from, self.config.incarnation);
        Ok(())
    }

    /// Forgets the segments so far: a segment follows whose header repeats what must outlive them
    /// (rule R24), and a checkpoint covers the rest. That a covered segment is damaged is no loss.
    fn begin_anew(&mut self) {
        let former = std::mem::replace(self, Self::new(self.config, self.covered));
        self.highest_number = former.highest_number;
        self.beyond = former.beyond;
        self.beyond
            .extend(former.chain.iter().map(|segment| segment.number));
        self.unused = former.unused;
    }

    fn check_owner(&self, header: &SegmentHeader) -> Result<(), RecoverError> {
        let (found, expected) = (header.cluster, self.config.cluster);
        if found != expected {
            return Err(RecoverError::OtherCluster { found, expected });
        }
        let (found, expected) = (header.member, self.config.member);
        if found != expected {
            return Err(RecoverError::OtherMember { found, expected });
        }
        let (found, expected) = (header.incarnation, self.config.incarnation);
        if found != expected {
            return Err(RecoverError::OtherIncarnation { found, expected });
        }
        Ok(())
    }

    /// Takes the runs of a segment as long as they follow each other; gives the log's end and the
    /// highest index in the segment.
    fn follow(
        &mut self,
        number: SegmentNumber,
        content: &Bytes,
        mut tail: Tail,
    ) -> Result<(Tail, LogIndex), RecoverError> {
        let mut highest = LogIndex::ZERO;
        loop {
            let ChainEnd { offset, hash } = self.end;
            let Some(run) = run_at(number, content, offset, self.config.incarnation) else {
                break;
            };
            if run.header.run != tail.run + 1 || run.header.previous_hash != hash {
                break;
            }
            let malformed = |error| RecoverError::Malformed {
                segment: number,
                offset,
                error,
            };
            let mut span = RunSpan::default();
            for record in run.decode_records().map_err(malformed)? {
                tail.apply(&record).map_err(malformed)?;
                span.record(&record);
                self.terms.record(&record);
                if let StoredRecord::Asked(LogRecord::SnapshotInstalled { meta }) = record {
                    self.snapshot = Some(meta);
                }
            }
            tail.run = run.header.run;
            tail.hash = run.hash;
            if !mutation::is_on(Mutation::HeaderWithoutVote) {
                assert!(
                    (tail.term, tail.vote) == (run.header.term, run.header.vote),
                    "run {} states another vote than its records",
                    tail.run
                );
            }
            highest = highest.max(span.highest);
            self.index.add(&span, number, offset, run.bytes());
            self.end = ChainEnd {
                offset: offset + run.bytes() as u64,
                hash: run.hash,
            };
        }
        Ok((tail, highest))
    }

    /// The state on which the log continues, the state that will be loaded, and what becomes of a
    /// prepared snapshot.
    fn base(
        &self,
        current: Option<&StateMeta>,
        prepared: Option<&StateMeta>,
    ) -> Result<(Option<StateMeta>, Option<StateMeta>, SnapshotStep), RecoverError> {
        let Some(tail) = &self.tail else {
            return Err(match self.unused.first() {
                Some(segment) if self.evidence.found => {
                    RecoverError::HeaderLost { segment: *segment }
                }
                _ => RecoverError::NoLog,
            });
        };
        let current_index = current.map_or(LogIndex::ZERO, |meta| meta.index);
        let (state_meta, step) = match &self.snapshot {
            Some(snapshot) if snapshot.index > current_index => {
                if prepared != Some(snapshot) {
                    return Err(RecoverError::SnapshotMissing {
                        index: snapshot.index,
                    });
                }
                (Some(snapshot), SnapshotStep::Install)
            }
            _ => (current, SnapshotStep::Discard),
        };
        let state_index = state_meta.map_or(LogIndex::ZERO, |meta| meta.index);
        let ahead = state_index > tail.last;
        if ahead && !mutation::is_on(Mutation::CheckpointAheadStarts) {
            return Err(RecoverError::CheckpointAhead {
                checkpoint: state_index,
                log: tail.last,
            });
        }
        if self.log_after > state_index && self.snapshot.is_none() {
            return Err(RecoverError::Gap {
                log_after: self.log_after,
                checkpoint: state_index,
            });
        }
        if let Some(meta) = state_meta
            && let Some(log) = self
                .terms
                .term(meta.index)
                .filter(|term| *term != meta.term)
            && !ahead
        {
            let (index, checkpoint) = (meta.index, meta.term);
            return Err(RecoverError::CheckpointDiffers {
                index,
                checkpoint,
                log,
            });
        }
        let recycled = self.log_after > LogIndex::ZERO;
        let base = match &self.snapshot {
            Some(snapshot) if !ahead => Some(snapshot),
            _ => state_meta.filter(|_| recycled || ahead),
        };
        Ok((base.cloned(), state_meta.cloned(), step))
    }

    /// The log that continues this one, and what is to be done before it is started.
    fn into_log(mut self, reader: &dyn LogReader) -> Result<Log, RecoverError> {
        let config = self.config;
        let (Some(mut tail), Some(mut last)) = (self.tail.take(), self.chain.pop_back()) else {
            return Err(RecoverError::NoLog);
        };
        let mut startup = VecDeque::new();
        let lost = self.evidence.durable_run > tail.run && !mutation::is_on(Mutation::LostIsTorn);
        if lost || !mutation::is_on(Mutation::TrustPageCache) {
            let end = usize::try_from(self.end.offset).unwrap_or(usize::MAX);
            let bytes = usize::try_from(last.bytes).unwrap_or(usize::MAX).min(end);
            let mut data = reader.read(last.number, 0, bytes)?;
            data.resize(data.len().next_multiple_of(BLOCK_BYTES), 0);
            if lost {
                self.evidence
                    .note_loss(config, &mut tail, last.number, self.end.hash, &mut data);
            }
            last.bytes = data.len() as u64;
            let (from, to) = (LogFile::Copy, LogFile::Segment(last.number));
            startup.push_back(DiskOpKind::CreateZeroed {
                file: from,
                bytes: last.bytes,
            });
            startup.push_back(DiskOpKind::Write {
                file: from,
                offset: 0,
                data,
            });
            startup.push_back(DiskOpKind::Rename { from, to });
        }
        self.chain.push_back(last);
        // Unused files are not used either: of them, too, nothing is known to be durable.
        for segment in self.beyond.into_iter().chain(self.unused) {
            startup.push_back(DiskOpKind::Remove {
                file: LogFile::Segment(segment),
            });
        }
        let current = self.highest_number.next();
        startup.push_back(DiskOpKind::CreateZeroed {
            file: LogFile::Segment(current),
            bytes: config.segment_bytes,
        });
        let segments = Segments::new(config.segment_bytes, current, self.chain);
        Ok(Log::new(
            config.clone(),
            startup,
            segments,
            self.index,
            tail,
        ))
    }
}
