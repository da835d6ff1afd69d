//! The bytes of a segment.
//!
//! A segment is a header and runs, each from a block's start (4 KiB) and padded with zeros to
//! whole blocks. A run is what one drain of the queue wrote. All numbers are little-endian; hashes
//! are XXH3-64 with the incarnation as seed (the header's: 0), over all that follows the hash.
//!
//! ```text
//! header   0 hash   8 "FMLOGSEG"  16 version u32     20 header's bytes u32, whole blocks
//!         24 cluster [16]         40 member          48 incarnation
//!         56 segment's number     64 term            72 vote (0: none)
//!         80 last run before      88 its hash (0: none)
//!         96 last entry before   104 known durable run   112 known durable entry
//!        120 damaged up to (0: not)   128 flags u8 (1: wiped, 2: not admitted)
//!        129 number of peers met u8   130 0 u16          132 bootstrap's length u32
//!        136 bootstrap entry's payload, then of each peer met: member, incarnation (rule R21)
//!
//! run      0 hash   8 "FMRN"      12 records' bytes u32
//!         16 segment's number     24 offset in it
//!         32 run's number         40 hash of the run before, or of this segment's header
//!         48 known durable run    56 known durable entry
//!         64 term                 72 vote (0: none)  80 last entry     (after this run)
//!         88 records: tag u8, body's length u32, body
//! ```
//!
//! A run's number rises by 1 through all segments. Its chain (rule R23) is the hash of the run
//! before, which begins anew at each header; the header has the hash of the last run before it. So
//! the old bytes of a recycled file, which name another segment, never continue a chain, and bytes
//! of another life of the folder do not even validate.
//!
//! A run can be judged without what is before it, so that recovery knows, from what is readable
//! behind a damage, how far the log had been durable, and the last vote.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::{ClusterId, Incarnation, LogIndex, MemberId, Term, Zxid};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::bytes::{
    Fields, Malformed, PutFields, decode_state_meta, encode_state_meta, length_u32,
};
use super::{BLOCK_BYTES, LogRecord, SegmentNumber};

/// The version of this layout.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a run before its records.
pub(crate) const RUN_HEADER_BYTES: usize = 88;
/// Bytes of a record before its body.
pub(crate) const RECORD_HEADER_BYTES: usize = 5;
/// Bytes of an entry's record beside its payload.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + 3 * 8 + 1;

const HEADER_FIXED_BYTES: usize = 136;
const HEADER_MAGIC: &[u8; 8] = b"FMLOGSEG";
const RUN_MAGIC: &[u8; 4] = b"FMRN";
const FLAG_WIPED: u32 = 1;
const FLAG_NOT_ADMITTED: u32 = 2;
/// Where the number of peers met begins in the flags.
const PEERS_MET_SHIFT: u32 = 8;
/// Peers whose lives a log keeps.
pub(crate) const PEERS_MET_MAX: usize = 16;
const PEER_MET_BYTES: usize = 16;
const HASH_BYTES: usize = 8;

/// How far the log is known to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurableMark {
    /// The last durable run.
    pub(crate) run: u64,
    /// The last entry of the log after it.
    pub(crate) last: LogIndex,
}

/// A segment's header: what must outlive the segments before it (rule R24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    pub(crate) incarnation: Incarnation,
    pub(crate) number: SegmentNumber,
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    /// The last run before this segment, 0 if there is none, and its hash.
    pub(crate) last_run: u64,
    pub(crate) last_hash: u64,
    /// The last entry before this segment.
    pub(crate) last: LogIndex,
    pub(crate) durable: DurableMark,
    pub(crate) damaged_up_to: Option<LogIndex>,
    pub(crate) wiped: bool,
    pub(crate) admitted: bool,
    pub(crate) bootstrap: Bytes,
    pub(crate) peers_met: BTreeMap<MemberId, Incarnation>,
}

/// Why a block holds no header of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// It is not a header, or a torn or damaged one.
    Invalid,
    /// It says that another version wrote it.
    Version(u32),
}

impl SegmentHeader {
    /// Bytes of a header with a bootstrap entry of this length and so many peers: whole blocks.
    pub(crate) const fn bytes_with(bootstrap: usize, peers_met: usize) -> usize {
        let variable = bootstrap + peers_met * PEER_MET_BYTES;
        (HEADER_FIXED_BYTES + variable).next_multiple_of(BLOCK_BYTES)
    }

    /// The header's bytes, and its hash.
    pub(crate) fn encode(&self) -> (Vec<u8>, u64) {
        let bytes = Self::bytes_with(self.bootstrap.len(), self.peers_met.len());
        let mut out = Vec::with_capacity(bytes);
        out.put_u64(0);
        out.extend_from_slice(HEADER_MAGIC);
        out.put_u32(VERSION);
        out.put_u32(length_u32(bytes));
        out.extend_from_slice(&self.cluster.0);
        out.put_u64(self.member.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.number.0);
        out.put_u64(self.term.0);
        out.put_vote(self.vote);
        out.put_u64(self.last_run);
        out.put_u64(self.last_hash);
        out.put_u64(self.last.0);
        out.put_u64(self.durable.run);
        out.put_u64(self.durable.last.0);
        out.put_u64(self.damaged_up_to.map_or(0, |index| index.0));
        out.put_u32(self.flags());
        out.put_long(&self.bootstrap);
        for (member, incarnation) in &self.peers_met {
            out.put_u64(member.0);
            out.put_u64(incarnation.0);
        }
        let hash = put_hash(&mut out, xxh3_64);
        out.resize(bytes, 0);
        (out, hash)
    }

    fn flags(&self) -> u32 {
        let wiped = if self.wiped { FLAG_WIPED } else { 0 };
        let not_admitted = if self.admitted { 0 } else { FLAG_NOT_ADMITTED };
        wiped | not_admitted | length_u32(self.peers_met.len()) << PEERS_MET_SHIFT
    }

    /// Reads the header at a segment's start; also its bytes and its hash.
    pub(crate) fn decode(segment: &Bytes) -> Result<(Self, usize, u64), NoHeader> {
        let mut fields = Fields::new(segment.clone());
        let invalid = |_| NoHeader::Invalid;
        let hash = fields.u64().map_err(invalid)?;
        if fields.bytes(HEADER_MAGIC.len()).map_err(invalid)? != HEADER_MAGIC[..] {
            return Err(NoHeader::Invalid);
        }
        let version = fields.u32().map_err(invalid)?;
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        let bytes = fields.u32().map_err(invalid)? as usize;
        let header = Self::decode_fields(&mut fields).map_err(invalid)?;
        let used =
            HEADER_FIXED_BYTES + header.bootstrap.len() + header.peers_met.len() * PEER_MET_BYTES;
        let hashed = segment.get(HASH_BYTES..used).ok_or(NoHeader::Invalid)?;
        if xxh3_64(hashed) != hash || bytes != used.next_multiple_of(BLOCK_BYTES) {
            return Err(NoHeader::Invalid);
        }
        Ok((header, bytes, hash))
    }

    fn decode_fields(fields: &mut Fields) -> Result<Self, Malformed> {
        let mut header = Self {
            cluster: fields.cluster()?,
            member: MemberId(fields.u64()?),
            incarnation: Incarnation(fields.u64()?),
            number: SegmentNumber(fields.u64()?),
            term: Term(fields.u64()?),
            vote: fields.vote()?,
            last_run: fields.u64()?,
            last_hash: fields.u64()?,
            last: fields.index()?,
            durable: DurableMark {
                run: fields.u64()?,
                last: fields.index()?,
            },
            damaged_up_to: match fields.index()? {
                LogIndex::ZERO => None,
                index => Some(index),
            },
            wiped: false,
            admitted: false,
            bootstrap: Bytes::new(),
            peers_met: BTreeMap::new(),
        };
        let flags = fields.u32()?;
        header.wiped = flags & FLAG_WIPED != 0;
        header.admitted = flags & FLAG_NOT_ADMITTED == 0;
        let length = fields.u32()? as usize;
        header.bootstrap = fields.copied(length)?;
        for _ in 0..flags >> PEERS_MET_SHIFT {
            let member = MemberId(fields.u64()?);
            header.peers_met.insert(member, Incarnation(fields.u64()?));
        }
        Ok(header)
    }
}

/// A run's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunHeader {
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u64,
    pub(crate) run: u64,
    pub(crate) previous_hash: u64,
    pub(crate) durable: DurableMark,
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    pub(crate) last: LogIndex,
}

/// A run that validates by itself.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) header: RunHeader,
    pub(crate) hash: u64,
    pub(crate) records: Bytes,
}

impl Run {
    /// Bytes of the run with its padding.
    pub(crate) const fn bytes(&self) -> usize {
        (RUN_HEADER_BYTES + self.records.len()).next_multiple_of(BLOCK_BYTES)
    }

    /// Leaves room for the header of a run at the end of `out`, which ends at a block. Its records
    /// are appended then, and [`Run::finish`] completes it.
    pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.resize(start + RUN_HEADER_BYTES, 0);
        start
    }

    /// Completes the run that begins at `start` of `out`; gives its hash.
    pub(crate) fn finish(
        header: &RunHeader,
        incarnation: Incarnation,
        start: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let run = out.split_at_mut(start).1;
        let (place, records) = run.split_at_mut(RUN_HEADER_BYTES);
        let mut fields = Vec::with_capacity(RUN_HEADER_BYTES);
        fields.put_u64(0);
        fields.extend_from_slice(RUN_MAGIC);
        fields.put_u32(length_u32(records.len()));
        fields.put_u64(header.segment.0);
        fields.put_u64(header.offset);
        fields.put_u64(header.run);
        fields.put_u64(header.previous_hash);
        fields.put_u64(header.durable.run);
        fields.put_u64(header.durable.last.0);
        fields.put_u64(header.term.0);
        fields.put_vote(header.vote);
        fields.put_u64(header.last.0);
        place.copy_from_slice(&fields);
        let hash = put_hash(run, |bytes| xxh3_64_with_seed(bytes, incarnation.0));
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        hash
    }

    /// The run that begins at `offset` of `segment`, whose bytes from there on are `bytes`; none if
    /// there is no valid one that was written for this place.
    pub(crate) fn decode(
        segment: SegmentNumber,
        offset: u64,
        bytes: &Bytes,
        incarnation: Incarnation,
    ) -> Option<Self> {
        let mut fields = Fields::new(bytes.clone());
        let hash = fields.u64().ok()?;
        if fields.bytes(RUN_MAGIC.len()).ok()? != RUN_MAGIC[..] {
            return None;
        }
        let length = fields.u32().ok()? as usize;
        let header = Self::decode_fields(&mut fields).ok()?;
        if header.segment != segment || header.offset != offset {
            return None;
        }
        let records = fields.bytes(length).ok()?;
        let hashed = bytes.get(HASH_BYTES..RUN_HEADER_BYTES + length)?;
        (xxh3_64_with_seed(hashed, incarnation.0) == hash).then_some(Self {
            header,
            hash,
            records,
        })
    }

    fn decode_fields(fields: &mut Fields) -> Result<RunHeader, Malformed> {
        Ok(RunHeader {
            segment: SegmentNumber(fields.u64()?),
            offset: fields.u64()?,
            run: fields.u64()?,
            previous_hash: fields.u64()?,
            durable: DurableMark {
                run: fields.u64()?,
                last: fields.index()?,
            },
            term: Term(fields.u64()?),
            vote: fields.vote()?,
            last: fields.index()?,
        })
    }

    /// The run's records, in order.
    pub(crate) fn decode_records(&self) -> Result<Vec<StoredRecord>, Malformed> {
        let mut fields = Fields::new(self.records.clone());
        let mut records = Vec::new();
        while !fields.is_empty() {
            let tag = fields.u8()?;
            let length = fields.u32()? as usize;
            records.push(StoredRecord::decode(tag, fields.bytes(length)?)?);
        }
        Ok(records)
    }
}

/// What a run holds: what consensus asked for, and what recovery notes for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredRecord {
    Asked(LogRecord),
    /// Recovery found that data up to here was lost (rule R23). It outlives the evidence.
    Damaged {
        up_to: LogIndex,
    },
}

/// The tags of records. Never reuse one.
mod tag {
    pub(super) const HARD_STATE: u8 = 1;
    pub(super) const ENTRY: u8 = 2;
    pub(super) const TRUNCATE: u8 = 3;
    pub(super) const SNAPSHOT_INSTALLED: u8 = 4;
    pub(super) const REPAIRED: u8 = 5;
    pub(super) const DAMAGED: u8 = 6;
    pub(super) const ADMITTED: u8 = 7;
    pub(super) const PEER_MET: u8 = 8;
}

impl StoredRecord {
    /// Appends the record to `out`:
    ///
    /// - 1 hard state: term, vote (0: none)
    /// - 2 entry: index, term, last zxid (8 each), kind (1), payload
    /// - 3 truncate, 5 repaired, 6 damaged: index
    /// - 4 snapshot installed: [`encode_state_meta`]
    /// - 7 admitted: nothing
    /// - 8 peer met: member, incarnation (8 each)
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Asked(LogRecord::HardState { term, vote }) => {
                out.push(tag::HARD_STATE);
                out.put_u32(16);
                out.put_u64(term.0);
                out.put_vote(*vote);
            }
            Self::Asked(LogRecord::Entry(entry)) => {
                out.push(tag::ENTRY);
                let body = ENTRY_OVERHEAD_BYTES - RECORD_HEADER_BYTES + entry.payload.len();
                out.put_u32(length_u32(body));
                out.put_u64(entry.index.0);
                out.put_u64(entry.term.0);
                out.put_u64(entry.last_zxid.0);
                out.push(entry.kind as u8);
                out.extend_from_slice(&entry.payload);
            }
            Self::Asked(LogRecord::Truncate { last }) => put_index(out, tag::TRUNCATE, *last),
            Self::Asked(LogRecord::SnapshotInstalled { meta }) => {
                out.push(tag::SNAPSHOT_INSTALLED);
                out.put_long(&encode_state_meta(meta));
            }
            Self::Asked(LogRecord::Repaired { up_to }) => put_index(out, tag::REPAIRED, *up_to),
            Self::Damaged { up_to } => put_index(out, tag::DAMAGED, *up_to),
            Self::Asked(LogRecord::Admitted) => {
                out.push(tag::ADMITTED);
                out.put_u32(0);
            }
            Self::Asked(LogRecord::PeerMet {
                member,
                incarnation,
            }) => {
                out.push(tag::PEER_MET);
                out.put_u32(16);
                out.put_u64(member.0);
                out.put_u64(incarnation.0);
            }
        }
    }

    fn decode(tag: u8, body: Bytes) -> Result<Self, Malformed> {
        if tag == tag::SNAPSHOT_INSTALLED {
            let meta = decode_state_meta(body)?;
            return Ok(Self::Asked(LogRecord::SnapshotInstalled { meta }));
        }
        let mut fields = Fields::new(body);
        if tag == tag::ENTRY {
            return Ok(Self::Asked(LogRecord::Entry(Entry {
                index: fields.index()?,
                term: Term(fields.u64()?),
                last_zxid: Zxid(fields.u64()?),
                kind: entry_kind(fields.u8()?)?,
                payload: fields.rest(),
            })));
        }
        let record = match tag {
            tag::HARD_STATE => Self::Asked(LogRecord::HardState {
                term: Term(fields.u64()?),
                vote: fields.vote()?,
            }),
            tag::TRUNCATE => Self::Asked(LogRecord::Truncate {
                last: fields.index()?,
            }),
            tag::REPAIRED => Self::Asked(LogRecord::Repaired {
                up_to: fields.index()?,
            }),
            tag::DAMAGED => Self::Damaged {
                up_to: fields.index()?,
            },
            tag::ADMITTED => Self::Asked(LogRecord::Admitted),
            tag::PEER_MET => Self::Asked(LogRecord::PeerMet {
                member: MemberId(fields.u64()?),
                incarnation: Incarnation(fields.u64()?),
            }),
            _ => return Err(Malformed("its tag is unknown")),
        };
        if !fields.is_empty() {
            return Err(Malformed("it has more bytes than it should"));
        }
        Ok(record)
    }
}

/// Bytes of a record as encoded.
pub(crate) fn encoded_bytes(record: &LogRecord) -> usize {
    match record {
        LogRecord::HardState { .. } | LogRecord::PeerMet { .. } => RECORD_HEADER_BYTES + 16,
        LogRecord::Admitted => RECORD_HEADER_BYTES,
        LogRecord::Entry(entry) => ENTRY_OVERHEAD_BYTES + entry.payload.len(),
        LogRecord::Truncate { .. } | LogRecord::Repaired { .. } => RECORD_HEADER_BYTES + 8,
        LogRecord::SnapshotInstalled { meta } => {
            RECORD_HEADER_BYTES + encode_state_meta(meta).len()
        }
    }
}

fn entry_kind(byte: u8) -> Result<EntryKind, Malformed> {
    [EntryKind::NoOp, EntryKind::Bootstrap, EntryKind::Batch]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
        .ok_or(Malformed("its kind of entry is unknown"))
}

fn put_index(out: &mut Vec<u8>, tag: u8, index: LogIndex) {
    out.push(tag);
    out.put_u32(8);
    out.put_u64(index.0);
}

/// Puts the hash of what follows it at the front of `bytes`.
fn put_hash(bytes: &mut [u8], hash: impl Fn(&[u8]) -> u64) -> u64 {
    let (place, hashed) = bytes.split_at_mut(HASH_BYTES);
    let hash = hash(hashed);
    place.copy_from_slice(&hash.to_le_bytes());
    hash
}
