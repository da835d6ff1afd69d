//! The write-ahead log, sans-IO: records, segments, recovery.
//!
//! ```text
//! Log::create(config, origin) -> (Log, RecoveredLog)         an empty folder
//! Log::recover(config, reader, current, prepared) -> Result<(Log, RecoveredLog, SnapshotStep)>
//! log.poll_op() -> Option<DiskOp>          log.handle_done(id, result) -> Result<(), LogFailed>
//! log.is_started() -> bool                 before that, no message leaves the member (rule R22)
//! log.append(PersistId, Vec<LogRecord>)    log.poll_durable() -> Option<PersistId>  (cumulative)
//! log.read(reader, from, to, bytes_max) -> Result<Vec<Entry>, LogReadError>
//! log.compact(up_to: LogIndex)             a checkpoint at up_to is durable (rule R24)
//! ```

mod disk;
mod record;

pub use disk::{
    BLOCK_BYTES, Disk, DiskError, DiskOp, DiskOpKind, LogFile, LogReader, OpId, SegmentNumber,
};
pub use record::LogRecord;

use folkmoot_proto::{ClusterId, Incarnation, MemberId};

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
    /// must fit in one.
    pub segment_bytes: u64,
    /// Bytes of recent entries that recovery hands out.
    pub recent_bytes_max: usize,
}
