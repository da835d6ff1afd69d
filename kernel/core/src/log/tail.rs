//! Where a log ends: all that its next run or its next segment's header states.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::entry::EntryKind;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term};

use super::bytes::Malformed;
use super::format::{DurableMark, PEERS_MET_MAX, RunHeader, SegmentHeader, StoredRecord};
use super::{LogConfig, LogRecord, SegmentNumber};
use crate::mutation::{self, Mutation};

/// The end of a log after some run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    /// The last entry.
    pub(crate) last: LogIndex,
    /// The last run, 0 before the first.
    pub(crate) run: u64,
    /// Its hash, 0 before the first.
    pub(crate) hash: u64,
    pub(crate) damaged_up_to: Option<LogIndex>,
    pub(crate) wiped: bool,
    pub(crate) admitted: bool,
    pub(crate) bootstrap: Bytes,
    pub(crate) peers_met: BTreeMap<MemberId, Incarnation>,
}

impl Tail {
    /// The end of a log that was just made.
    pub(crate) const fn empty(wiped: bool) -> Self {
        Self {
            term: Term::ZERO,
            vote: None,
            last: LogIndex::ZERO,
            run: 0,
            hash: 0,
            damaged_up_to: None,
            wiped,
            admitted: false,
            bootstrap: Bytes::new(),
            peers_met: BTreeMap::new(),
        }
    }

    /// The end of the log before a segment.
    pub(crate) fn before(header: &SegmentHeader) -> Self {
        Self {
            term: header.term,
            vote: header.vote,
            last: header.last,
            run: header.last_run,
            hash: header.last_hash,
            damaged_up_to: header.damaged_up_to,
            wiped: header.wiped,
            admitted: header.admitted,
            bootstrap: header.bootstrap.clone(),
            peers_met: header.peers_met.clone(),
        }
    }

    /// Whether a segment continues this log: nothing is missing in between (rule R23).
    pub(crate) const fn is_continued_by(&self, header: &SegmentHeader) -> bool {
        header.last_run == self.run && header.last_hash == self.hash
    }

    /// Takes the log's next record into account.
    pub(crate) fn apply(&mut self, record: &StoredRecord) -> Result<(), Malformed> {
        match record {
            StoredRecord::Asked(LogRecord::HardState { term, vote }) => {
                self.term = *term;
                self.vote = *vote;
            }
            StoredRecord::Asked(LogRecord::Entry(entry)) => {
                if entry.index != self.last.next() {
                    return Err(Malformed(
                        "it holds an entry that does not follow the last one",
                    ));
                }
                self.last = entry.index;
                if entry.kind == EntryKind::Bootstrap {
                    self.bootstrap = Bytes::copy_from_slice(&entry.payload);
                }
            }
            StoredRecord::Asked(LogRecord::Truncate { last }) => {
                if *last > self.last {
                    return Err(Malformed("it truncates to an entry that is not there"));
                }
                self.last = *last;
            }
            StoredRecord::Asked(LogRecord::SnapshotInstalled { meta }) => {
                self.last = meta.index;
                self.bootstrap = meta.bootstrap.clone();
            }
            StoredRecord::Asked(LogRecord::Repaired { up_to }) => {
                self.damaged_up_to = self.damaged_up_to.filter(|damaged| damaged > up_to);
            }
            StoredRecord::Asked(LogRecord::Admitted) => self.admitted = true,
            StoredRecord::Asked(LogRecord::PeerMet {
                member,
                incarnation,
            }) => {
                self.peers_met.insert(*member, *incarnation);
                if self.peers_met.len() > PEERS_MET_MAX {
                    return Err(Malformed("it holds more peers than a cluster has"));
                }
            }
            StoredRecord::Damaged { up_to } => {
                self.damaged_up_to = self.damaged_up_to.max(Some(*up_to));
            }
        }
        Ok(())
    }

    /// The header of a segment that begins here (rule R24).
    pub(crate) fn segment_header(
        &self,
        config: &LogConfig,
        number: SegmentNumber,
        durable: DurableMark,
    ) -> SegmentHeader {
        let (term, vote) = self.stated_hard_state();
        SegmentHeader {
            cluster: config.cluster,
            member: config.member,
            incarnation: config.incarnation,
            number,
            term,
            vote,
            last_run: self.run,
            last_hash: self.hash,
            last: self.last,
            durable,
            damaged_up_to: self.damaged_up_to,
            wiped: self.wiped,
            admitted: self.admitted,
            bootstrap: self.bootstrap.clone(),
            peers_met: self.peers_met.clone(),
        }
    }

    /// The header of the run that ends here and follows `previous_hash`.
    pub(crate) fn run_header(
        &self,
        segment: SegmentNumber,
        offset: u64,
        previous_hash: u64,
        durable: DurableMark,
    ) -> RunHeader {
        let (term, vote) = self.stated_hard_state();
        RunHeader {
            segment,
            offset,
            run: self.run,
            previous_hash,
            durable,
            term,
            vote,
            last: self.last,
        }
    }

    fn stated_hard_state(&self) -> (Term, Option<MemberId>) {
        if mutation::is_on(Mutation::HeaderWithoutVote) {
            return (Term::ZERO, None);
        }
        (self.term, self.vote)
    }
}
