//! The shell of a member: it feeds the sans-IO machines of `folkmoot-core` with what comes from
//! sockets, disk and clocks, and carries out what they ask for.
//!
//! Three threads (rule R7): *network* runs a current-thread tokio runtime with the QUIC endpoints
//! and the consensus machine; *execution* runs the execution machine and the guests; *log* writes
//! and syncs. Checkpoints, snapshots and compilation are on others. On every thread the loop is the
//! same: take all events there are, read the clock, step, then flush once.

pub mod config;
mod error;
mod server;
pub mod tls;
mod transport;

pub use config::{ConfigError, ServerConfig};
pub use error::{RunError, StartError};
pub use server::{CheckpointPolicy, Server, ServerOptions};
pub use transport::EndpointError;
