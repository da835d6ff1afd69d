//! A member's files: the write-ahead log's segments, and the checkpoint in fjall.
//!
//! - [`FileDisk`] carries the log's operations out with files; what they promise is said at
//!   [`folkmoot_core::log::Disk`].
//! - [`LogService`] recovers a log and runs it on a thread: drain, write, sync, report.
//! - [`FjallStore`] is the checkpoint store. No other crate knows fjall.
//!
//! The data folder itself, its lock and its owner, are the caller's.

mod aligned;
mod checkpoint;
mod disk;
mod service;

pub use checkpoint::FjallStore;
pub use disk::{FileDisk, make_private_folder};
pub use service::{LogCommand, LogDone, LogOpenError, LogPace, LogService, LogStopped};
