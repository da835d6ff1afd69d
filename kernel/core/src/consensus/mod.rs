//! Raft, with pre-vote, check-quorum, ReadIndex, leadership transfer and pipelined append.

mod action;

pub use action::{
    Action, ConsensusConfig, ConsensusStatus, LogRead, LogReadId, PeerProgress, PersistId,
    ProposeRefused, ProposedBatch, RecoveredLog, Role,
};
