//! Entries of the replicated log.

use bytes::Bytes;

use crate::{LogIndex, Term, Zxid};

/// One entry. Its payload is made once: the same bytes go to the disk and to the peers.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Entry {
    /// Its place.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The last zxid up to and including this entry. An entry without transactions repeats that of
    /// the entry before it.
    pub last_zxid: Zxid,
    /// What the payload is.
    pub kind: EntryKind,
    /// The bytes.
    pub payload: Bytes,
}

/// What an entry's payload is. The discriminants are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry of a term; no payload (Raft §8).
    NoOp = 1,
    /// Entry 1: [`crate::bootstrap::Bootstrap`], byte for byte as the operator's file has it.
    Bootstrap = 2,
    /// [`crate::batch::Batch`].
    Batch = 3,
}
