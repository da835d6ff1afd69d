//! Where a member keeps its state between restarts: the checkpoint (rule R26), and the snapshot
//! that is about to replace it (rule R25). Storage does it with files, the simulator in memory.
//!
//! Records are opaque bytes here. Whoever loads a state verifies it by [`StateMeta::state_hash`]:
//! a store may have lost the end of it without noticing.
//!
//! A snapshot becomes the state in three steps, each durable before the next: [`FullWriter::finish`]
//! makes it *prepared*; the log's [`crate::log::LogRecord::SnapshotInstalled`] makes it *count*; and
//! [`CheckpointStore::install_prepared`] makes it the current state. A member that stops in between
//! is told by `Log::recover` which of the two last steps to take at its next start.

use folkmoot_proto::record::{RecordChange, StateMeta};

/// Bytes of changes that a caller lets pile up before it writes a delta, at most: a delta is one
/// batch and is held in memory as a whole.
pub const DELTA_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No space is left.
    #[error("no space is left for the checkpoint")]
    Full,
    /// What is there is no checkpoint, or not one of this version.
    #[error("the checkpoint is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Keys of a full state come in rising order, each one once.
    #[error("keys of a full state must rise")]
    Disordered,
    /// A full state has records only, no removals.
    #[error("a full state has no removals")]
    Removal,
    /// There is no prepared state.
    #[error("no snapshot is prepared")]
    NotPrepared,
    /// The system's or the library's error.
    #[error("checkpoint: {reason}")]
    Io {
        /// What it says.
        reason: String,
    },
}

/// The records of a state, in rising order of their keys; each has a value.
pub type Records<'a> = Box<dyn Iterator<Item = Result<RecordChange, CheckpointError>> + 'a>;

/// Keeps one state, and at most one prepared to replace it. Methods block until what they did is
/// durable.
pub trait CheckpointStore {
    /// Where the current state stands; none before the first checkpoint.
    fn current(&self) -> Option<&StateMeta>;

    /// Where the prepared state stands, if there is one and it is whole.
    ///
    /// # Errors
    ///
    /// When the store can not be read.
    fn prepared(&self) -> Result<Option<StateMeta>, CheckpointError>;

    /// The current state's records; none before the first checkpoint.
    ///
    /// # Errors
    ///
    /// When the store can not be read.
    fn load(&self) -> Result<Option<(StateMeta, Records<'_>)>, CheckpointError>;

    /// Applies changes to the current state and moves it to `meta`, as one: after a crash either
    /// all is there, position included, or nothing (rule R26).
    ///
    /// # Errors
    ///
    /// When it was not written; the current state may be the old or the new one then, and the
    /// store must be opened again.
    fn write_delta(
        &mut self,
        meta: StateMeta,
        changes: Vec<RecordChange>,
    ) -> Result<(), CheckpointError>;

    /// Begins a full state beside the current one; one that was prepared before goes.
    ///
    /// # Errors
    ///
    /// When the store can not be written.
    fn begin_full(&mut self, meta: StateMeta) -> Result<Box<dyn FullWriter>, CheckpointError>;

    /// Makes the prepared state the current one (rule R25: only after the log's record of it is
    /// durable).
    ///
    /// # Errors
    ///
    /// When none is prepared or the switch failed: then the old state is current.
    fn install_prepared(&mut self) -> Result<(), CheckpointError>;

    /// Drops the prepared state, if there is one.
    ///
    /// # Errors
    ///
    /// When the store can not be written.
    fn discard_prepared(&mut self) -> Result<(), CheckpointError>;
}

/// Writes a full state. Dropped before `finish`, it leaves nothing that counts.
pub trait FullWriter: Send {
    /// Adds records: keys rise within a call and from call to call, and each has a value.
    ///
    /// # Errors
    ///
    /// When they do not, or they could not be written.
    fn write(&mut self, records: Vec<RecordChange>) -> Result<(), CheckpointError>;

    /// Makes the state durable, and prepared.
    ///
    /// # Errors
    ///
    /// When it could not be written: it is not prepared then.
    fn finish(self: Box<Self>) -> Result<(), CheckpointError>;
}
