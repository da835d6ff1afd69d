//! The shell of a member: it feeds the sans-IO machines of `folkmoot-core` with what comes from
//! sockets, disk and clocks, and carries out what they ask for.
//!
//! Three threads (rule R7): *network* runs a current-thread tokio runtime with the QUIC endpoints
//! and the consensus machine; *execution* runs the execution machine and the guests; *log* writes
//! and syncs. Checkpoints, snapshots, compilation and policies are on others. On every thread the loop is the
//! same: take all events there are, read the clock, step, then flush once.

mod checkpoint;
mod clock;
pub mod config;
mod data;
mod error;
mod execution;
mod fatal;
mod folder;
mod log;
mod network;
mod plugins;
mod policies;
mod server;
mod snapshots;
mod state_access;
mod threads;
pub mod tls;
mod transport;

pub use config::{ConfigError, ServerConfig};
pub use error::{RunError, StartError};
pub use folkmoot_host::Compiler;
pub use server::{CheckpointPolicy, Server, ServerOptions, ThreadLayout};
pub use transport::EndpointError;
