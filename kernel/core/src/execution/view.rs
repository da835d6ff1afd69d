//! What a guest sees of a transaction.

use folkmoot_proto::client::Stat;
use folkmoot_proto::{LogTime, SessionId, Ticket, Zxid};

use crate::plugin::{CallContext, Rejection};

/// The view that a guest's call has of its transaction: the tree below its mount, sessions, waits
/// and timers. It owns state and overlay while the call runs. Paths are relative to the mount,
/// without a slash in front; the empty path is the mount itself.
#[derive(Debug)]
pub struct TxnView(Box<TxnViewInner>);

/// Boxed, so that moving the view in and out of a runtime moves a pointer.
#[derive(Debug)]
struct TxnViewInner {
    context: CallContext,
    wrote: bool,
}

impl TxnView {
    /// The call's context.
    #[must_use]
    pub fn context(&self) -> CallContext {
        self.0.context
    }

    /// Whether the call has written anything: nodes, completions, timers or follows.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.0.wrote
    }
}

/// The signatures below are the seam; their bodies follow with the execution machine.
pub trait GuestView {
    /// A node's value and stat.
    fn read(&self, path: &str) -> Result<(Vec<u8>, Stat), TreeError>;
    /// Creates a node, sequential where asked; the zxid is its `czxid`, and the name its last
    /// component as created. A grant is a node made so (rule R13).
    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError>;
    /// Creates a node that is deleted with `owner`, which must be an open session (rule R13).
    fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: SessionId,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError>;
    /// Sets a value; answers the version afterwards.
    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError>;
    /// Deletes a node without children.
    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError>;
    /// Names of children, sorted, after `after`, at most `limit` (and at most 1,000).
    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError>;
    /// Whether a session is open.
    fn session_is_open(&self, session: SessionId) -> bool;
    /// Asks to hear of a session's end; false if it is not open.
    fn follow(&mut self, session: SessionId) -> bool;
    /// Completes a wait of this mount; false if it is gone already (rule R11).
    fn complete(&mut self, ticket: Ticket, result: Result<Vec<u8>, Rejection>) -> bool;
    /// Sets a timer, in place of one of that name.
    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError>;
    /// Cancels a timer; false if there is none of that name.
    fn cancel_timer(&mut self, name: &str) -> bool;
    /// 64 bits that depend on the zxid and on how often this was asked in the call.
    fn random(&mut self) -> u64;
    /// A line for the operator's log, not replicated.
    fn log(&mut self, message: &str);
}

/// Why an operation of a guest on its tree was refused, as the WIT's `tree-error`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path is not valid, or leaves the mount.
    #[error("not a path below the mount")]
    BadPath,
    /// No node is there.
    #[error("no node")]
    NoNode,
    /// A node is there already.
    #[error("a node is there already")]
    NodeExists,
    /// The parent is missing.
    #[error("no parent")]
    NoParent,
    /// The node has children.
    #[error("the node has children")]
    NotEmpty,
    /// The node has another version.
    #[error("the node has version {actual}")]
    BadVersion {
        /// The node's version.
        actual: u64,
    },
    /// Ephemeral nodes have no children.
    #[error("ephemeral nodes have no children")]
    EphemeralParent,
    /// The owner is no open session.
    #[error("the owner is no open session")]
    OwnerNotOpen,
    /// A limit.
    #[error("over the limit of {what}")]
    TooLarge {
        /// What is limited.
        what: &'static str,
    },
    /// Writes are not allowed in this call (`configure`).
    #[error("writes are not allowed here")]
    ReadOnly,
}
