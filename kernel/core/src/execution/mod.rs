//! Execution: requests, sessions, waits, watches, mounts; on every member it applies what is
//! committed.

mod action;
pub mod view;

pub use action::{
    ClientEvent, ConnectionId, ConsensusEvent, ExecutionAction, ExecutionConfig, ExecutionStatus,
    Progress, StreamId,
};
