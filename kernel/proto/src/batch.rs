//! The payload of a log entry: one batch of transactions (group commit), in a compact encoding.
//!
//! Transaction `i` has zxid `first_zxid + i`; log time and wall time are the batch's. Each
//! transaction can be decoded alone.

use crate::effect::Effect;
use crate::reply::Reply;
use crate::{LogTime, RequestId, SessionId, Term, Ticket, WallTime, Zxid};

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The term in which it was executed (rule R3).
    pub term: Term,
    /// The last zxid of the state on which it was executed (rule R3).
    pub base_zxid: Zxid,
    /// The zxid of its first transaction: `base_zxid + 1`.
    pub first_zxid: Zxid,
    /// The log time of its transactions (rule R9).
    pub log_time: LogTime,
    /// The leader's wall time, for `ctime` and `mtime`.
    pub wall_time: WallTime,
    /// At least one.
    pub txns: Vec<Txn>,
}

/// One transaction: all of it takes effect at its zxid, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The request that it answers; none for the kernel's own (expiry, timers, events, attach).
    pub origin: Option<Origin>,
    /// What it changes.
    pub effects: Vec<Effect>,
    /// Waits that it ends, with their outcomes.
    pub completions: Vec<Completion>,
}

/// The request that a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session.
    pub session: SessionId,
    /// The request; it takes its place in the session's order here.
    pub request: RequestId,
    /// The replies up to this one are dropped (rule R10).
    pub acked_up_to: RequestId,
    /// The answer given in place, a refusal too (rule R1).
    pub reply: Reply,
}

/// The outcome of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The wait.
    pub ticket: Ticket,
    /// The session that waits.
    pub session: SessionId,
    /// The request that waits.
    pub request: RequestId,
    /// The outcome.
    pub reply: Reply,
}
