//! Little-endian fields, written to and read from the log's bytes.

use bytes::Bytes;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{ClusterId, LogIndex, LogTime, MemberId, Term, Zxid};

/// Bytes with a valid hash that do not say anything this version knows: written by a newer version,
/// or by a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log record: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// Takes fields from the front of bytes.
pub(crate) struct Fields {
    rest: Bytes,
}

impl Fields {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.rest.len() {
            return Err(Malformed("it ends too early"));
        }
        Ok(self.rest.split_to(count))
    }

    /// Bytes of their own: what outlives a segment's content must not keep all of it in memory.
    pub(crate) fn copied(&mut self, count: usize) -> Result<Bytes, Malformed> {
        self.bytes(count)
            .map(|bytes| Bytes::copy_from_slice(&bytes))
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn cluster(&mut self) -> Result<ClusterId, Malformed> {
        self.array().map(ClusterId)
    }

    pub(crate) fn index(&mut self) -> Result<LogIndex, Malformed> {
        self.u64().map(LogIndex)
    }

    /// A member, 0 for none.
    pub(crate) fn vote(&mut self) -> Result<Option<MemberId>, Malformed> {
        Ok(match self.u64()? {
            0 => None,
            member => Some(MemberId(member)),
        })
    }
}

/// Appends fields to bytes.
pub(crate) trait PutFields {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_vote(&mut self, vote: Option<MemberId>);
    fn put_long(&mut self, bytes: &[u8]);
}

impl PutFields for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_vote(&mut self, vote: Option<MemberId>) {
        self.put_u64(vote.map_or(0, |member| member.0));
    }

    fn put_long(&mut self, bytes: &[u8]) {
        self.put_u32(length_u32(bytes.len()));
        self.extend_from_slice(bytes);
    }
}

/// A length as it is stored.
///
/// # Panics
///
/// Beyond 4 GiB, which no limit allows.
pub(crate) fn length_u32(bytes: usize) -> u32 {
    let Ok(length) = u32::try_from(bytes) else {
        panic!("{bytes} bytes do not fit a record");
    };
    length
}

/// Bytes of a [`StateMeta`] before its bootstrap entry.
const STATE_META_FIXED_BYTES: usize = 16 + 5 * 8 + 4 + 4;

/// How a [`StateMeta`] is kept, in the log and beside a checkpoint: cluster (16 bytes), index, term,
/// zxid, log time, state hash (8 each), feature level (4), length of the bootstrap entry (4), the
/// bootstrap entry.
#[must_use]
pub fn encode_state_meta(meta: &StateMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(STATE_META_FIXED_BYTES + meta.bootstrap.len());
    out.extend_from_slice(&meta.cluster.0);
    out.put_u64(meta.index.0);
    out.put_u64(meta.term.0);
    out.put_u64(meta.zxid.0);
    out.put_u64(meta.log_time.0);
    out.put_u64(meta.state_hash);
    out.put_u32(meta.feature_level);
    out.put_long(&meta.bootstrap);
    out
}

/// Reads what [`encode_state_meta`] wrote.
///
/// # Errors
///
/// When it is something else.
pub fn decode_state_meta(bytes: Bytes) -> Result<StateMeta, Malformed> {
    let mut fields = Fields::new(bytes);
    let cluster = fields.cluster()?;
    let index = fields.index()?;
    let term = Term(fields.u64()?);
    let zxid = Zxid(fields.u64()?);
    let log_time = LogTime(fields.u64()?);
    let state_hash = fields.u64()?;
    let feature_level = fields.u32()?;
    let length = fields.u32()? as usize;
    let bootstrap = fields.copied(length)?;
    if !fields.is_empty() {
        return Err(Malformed(
            "a state's position has more bytes than it should",
        ));
    }
    Ok(StateMeta {
        cluster,
        index,
        term,
        zxid,
        log_time,
        state_hash,
        feature_level,
        bootstrap,
    })
}
