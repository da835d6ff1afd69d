//! What a checkpoint and a snapshot hold: the whole state as records, each a key and a value.
//!
//! Storage and network carry records as bytes; only `kernel/core` reads and writes them.

use bytes::Bytes;

use crate::{ClusterId, LogIndex, LogTime, Term, Zxid};

/// One record to be written, or, without a value, removed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct RecordChange {
    /// Its key: a tag and what the tag says.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Where in the log a state stands.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StateMeta {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last entry applied.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The last transaction applied.
    pub zxid: Zxid,
    /// The last log time applied.
    pub log_time: LogTime,
    /// The hash of the state (rule R27): a checkpoint is verified by it when it is loaded.
    pub state_hash: u64,
    /// The replicated feature level (rule R5).
    pub feature_level: u32,
    /// The bootstrap entry's payload (rule R21).
    pub bootstrap: Bytes,
}
