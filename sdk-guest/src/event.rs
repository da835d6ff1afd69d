//! What a plugin hears without a client's call.

use crate::ids::{LogTime, SessionId, Ticket};

/// What happened. As the WIT's `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session that the mount follows has ended, and its nodes are gone.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// The paths of its nodes below the mount, which went with it.
        removed: Vec<String>,
    },
    /// The kernel has ended a wait, and its client has its answer.
    WaitEnded {
        /// The wait.
        ticket: Ticket,
        /// The session that waited.
        session: SessionId,
        /// Why.
        cause: WaitEndCause,
        /// What the plugin gave when the wait began.
        memo: Vec<u8>,
    },
    /// A timer is due.
    Timer {
        /// Its name.
        name: String,
        /// When it was due.
        due: LogTime,
        /// What the plugin gave.
        payload: Vec<u8>,
    },
    /// Events were lost: look at the tree and begin anew.
    Resync,
    /// Something that a later version knows. To ignore it is right.
    Other {
        /// What happened.
        kind: String,
        /// What is known of it: JSON.
        payload: Vec<u8>,
    },
}

/// Why the kernel has ended a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitEndCause {
    /// Its deadline passed.
    Deadline,
    /// Its session ended.
    SessionEnded,
    /// Its client cancelled it.
    Cancelled,
    /// Something that a later version knows.
    Other(String),
}
