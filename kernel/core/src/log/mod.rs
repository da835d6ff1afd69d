//! The write-ahead log, sans-IO: records, segments, recovery.

mod record;

pub use record::LogRecord;
