//! What the log asks of a disk, and what a disk may do to it.
//!
//! The log numbers its operations (`Log::poll_op`); a disk carries them out and
//! reports each one once. At most one write and one maintenance operation are under way at a time,
//! and they concern different files, so that a disk may finish them in either order.
//!
//! # Durability
//!
//! **An operation that was reported as done is durable**: data, length and the folder's entry are
//! on stable storage, whatever happens next. An operation that was submitted and not reported is
//! *open*. At a crash (of the process or of the machine) an open operation leaves this behind:
//!
//! - `CreateZeroed`: no file, or a file of any length up to the one asked for, all zeros (and the
//!   file that had the name before, or not).
//! - `Write`: each 512-byte sector of it holds, each for itself, its old or its new bytes. The file
//!   keeps its length: writes stay within it.
//! - `Rename`: the old or the new name, and what had the new name before is there or replaced.
//!   Never neither name.
//! - `Remove`: the file is there or not.
//!
//! Changes of names take effect in their order: one that was reported takes all earlier ones with it
//! to stable storage, those of an earlier process too.
//!
//! After a crash of the process alone a reader may moreover *see* bytes of an open write (or names
//! of an open rename) that stable storage does not have, and which a later crash of the machine
//! takes away again, sector by sector, unless they are written and reported once more (rule R22).
//! So bytes that were read back are no proof of durability.
//!
//! A failed operation may have left anything that an open one may leave. It ends the process:
//! nothing is retried (rule R22).

/// The unit in which the log writes: what a disk may tear is smaller (512 bytes).
pub const BLOCK_BYTES: usize = 4096;

/// Names an operation; rises by 1, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Numbers a segment, from 1, rising; a number is never given to other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The next number.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl core::fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// A file of the log's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogFile {
    /// A segment, written or prepared. The name says which number it is for; a recycled file still
    /// holds another segment's bytes.
    Segment(SegmentNumber),
    /// Where recovery copies the last segment's valid part before it takes the segment's name
    /// (rule R22). What a crash leaves of it means nothing.
    Copy,
}

impl core::fmt::Display for LogFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "segment {number}"),
            Self::Copy => f.write_str("the recovery copy"),
        }
    }
}

/// One operation. Done means durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOp {
    /// Its name.
    pub id: OpId,
    /// What to do.
    pub kind: DiskOpKind,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOpKind {
    /// Makes a file of `bytes` zeros, in place of one of that name.
    CreateZeroed {
        /// The file.
        file: LogFile,
        /// Its length: whole blocks.
        bytes: u64,
    },
    /// Writes whole blocks within the file's length.
    Write {
        /// The file.
        file: LogFile,
        /// Where: a multiple of [`BLOCK_BYTES`].
        offset: u64,
        /// What: a multiple of [`BLOCK_BYTES`].
        data: Vec<u8>,
    },
    /// Gives a file another name, atomically, in place of one that has it.
    Rename {
        /// The file.
        from: LogFile,
        /// Its name afterwards.
        to: LogFile,
    },
    /// Removes a file.
    Remove {
        /// The file.
        file: LogFile,
    },
}

impl core::fmt::Display for DiskOpKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::CreateZeroed { file, bytes } => write!(f, "create {file} of {bytes} bytes"),
            Self::Write { file, offset, data } => {
                write!(f, "write {} bytes at {offset} of {file}", data.len())
            }
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Remove { file } => write!(f, "remove {file}"),
        }
    }
}

/// Why a disk did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space is left.
    #[error("no space is left")]
    Full,
    /// The file is not there.
    #[error("{file} is not there")]
    Missing {
        /// The file.
        file: LogFile,
    },
    /// The file is shorter than what was asked for.
    #[error("{file} ends before byte {end}")]
    Short {
        /// The file.
        file: LogFile,
        /// Where the read or write would have ended.
        end: u64,
    },
    /// The system's error.
    #[error("{reason}")]
    Io {
        /// What the system says.
        reason: String,
    },
}

/// Carries out numbered operations: files, or the simulator's memory.
pub trait Disk {
    /// Begins an operation.
    fn submit(&mut self, op: DiskOp);

    /// An operation that has ended, each one once.
    fn poll_done(&mut self) -> Option<(OpId, Result<(), DiskError>)>;
}

/// Reads the log's files, at the start of a process and for entries that left the cache. It blocks.
pub trait LogReader {
    /// All segments with their lengths, in any order.
    ///
    /// # Errors
    ///
    /// When the folder can not be read.
    fn segments(&self) -> Result<Vec<(SegmentNumber, u64)>, DiskError>;

    /// `bytes` bytes of a segment from `offset`.
    ///
    /// # Errors
    ///
    /// When the file is missing, shorter, or can not be read.
    fn read(&self, segment: SegmentNumber, offset: u64, bytes: usize)
    -> Result<Vec<u8>, DiskError>;
}
