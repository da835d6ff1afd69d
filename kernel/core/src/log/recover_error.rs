//! Why a log can not be continued.

use folkmoot_proto::{ClusterId, Incarnation, LogIndex, MemberId, Term};

use super::bytes::Malformed;
use super::format::VERSION;
use super::{DiskError, LogReadError, SegmentNumber};

/// Why a log can not be continued. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The files could not be read.
    #[error("the log could not be read: {0}")]
    Disk(#[from] DiskError),
    /// No segment was ever begun: the folder is empty, or its creation did not end.
    #[error("there is no log")]
    NoLog,
    /// Runs are there, and no segment's header is readable.
    #[error("the log is damaged: the header of segment {segment} is not readable")]
    HeaderLost {
        /// The first segment.
        segment: SegmentNumber,
    },
    /// The log is another cluster's.
    #[error("the log belongs to cluster {found}, this member is of cluster {expected}")]
    OtherCluster {
        /// The log's cluster.
        found: ClusterId,
        /// The cluster that is configured.
        expected: ClusterId,
    },
    /// The log is another member's.
    #[error("the log belongs to member {found}, this is member {expected}")]
    OtherMember {
        /// The log's member.
        found: MemberId,
        /// The member that is configured.
        expected: MemberId,
    },
    /// The log is of another life of the folder.
    #[error("the log is of incarnation {found}, its folder of incarnation {expected}")]
    OtherIncarnation {
        /// The log's incarnation.
        found: Incarnation,
        /// The folder's.
        expected: Incarnation,
    },
    /// The log was written by another version of the program.
    #[error(
        "segment {segment} has format {found}, this program reads format {}",
        VERSION
    )]
    Version {
        /// The segment.
        segment: SegmentNumber,
        /// Its format.
        found: u32,
    },
    /// A run is as it was written and makes no sense to this version.
    #[error("segment {segment}, byte {offset}: {error}")]
    Malformed {
        /// The segment.
        segment: SegmentNumber,
        /// Where the run begins.
        offset: u64,
        /// What is wrong.
        error: Malformed,
    },
    /// A recent entry could not be read back.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// Entries between the checkpoint and the log are gone.
    #[error("the log begins behind entry {log_after}, the checkpoint stands at {checkpoint}")]
    Gap {
        /// The entry before the log's first one.
        log_after: LogIndex,
        /// The checkpoint's entry, 0 without one.
        checkpoint: LogIndex,
    },
    /// The checkpoint is ahead of the log, and no record says that a snapshot was installed (rule
    /// R25): the log's end was lost, or the checkpoint is another log's.
    #[error("the checkpoint stands at entry {checkpoint}, the log ends at {log}")]
    CheckpointAhead {
        /// The checkpoint's entry.
        checkpoint: LogIndex,
        /// The log's last entry.
        log: LogIndex,
    },
    /// The checkpoint's entry has another term in the log.
    #[error("the checkpoint has term {checkpoint} at entry {index}, the log has {log}")]
    CheckpointDiffers {
        /// The entry.
        index: LogIndex,
        /// Its term in the checkpoint.
        checkpoint: Term,
        /// Its term in the log.
        log: Term,
    },
    /// The log continues a snapshot that is neither current nor prepared (rule R25).
    #[error("the log continues the snapshot at entry {index}, which is not there")]
    SnapshotMissing {
        /// The snapshot's entry.
        index: LogIndex,
    },
}
