//! What the kernel does for a plugin, as a trait: in Wasm the imports stand behind it, natively
//! whatever runs the recipe.

use crate::ids::{LogTime, SessionId, Ticket, Zxid};
use crate::rejection::Rejection;

/// The calls that a plugin can make, as the WIT's imports say in full. Plugins do not use this
/// trait; they use [`crate::context::Context`]. Whoever runs recipes natively implements it.
///
/// Paths are relative to the mount, without a slash in front; the empty path is the mount itself.
pub trait HostCalls {
    /// A node's value and stat.
    ///
    /// # Errors
    ///
    /// [`TreeError::NoNode`], [`TreeError::BadPath`].
    fn read(&self, path: &str) -> Result<Node, TreeError>;

    /// A node's stat; none if there is no node.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`].
    fn stat(&self, path: &str) -> Result<Option<Stat>, TreeError> {
        match self.read(path) {
            Ok(node) => Ok(Some(node.stat)),
            Err(TreeError::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a node, with the parent's counter behind its name where it is sequential.
    ///
    /// # Errors
    ///
    /// Any [`TreeError`] but those of versions and owners.
    fn create(&mut self, path: &str, data: Vec<u8>, sequential: bool)
    -> Result<Created, TreeError>;

    /// Creates a node that is deleted with `owner`, which must be an open session.
    ///
    /// # Errors
    ///
    /// Any [`TreeError`] but those of versions.
    fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: SessionId,
        sequential: bool,
    ) -> Result<Created, TreeError>;

    /// Sets a value; answers the version afterwards.
    ///
    /// # Errors
    ///
    /// [`TreeError::NoNode`], [`TreeError::BadVersion`], [`TreeError::TooLarge`],
    /// [`TreeError::BadPath`].
    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError>;

    /// Deletes a node without children.
    ///
    /// # Errors
    ///
    /// [`TreeError::NoNode`], [`TreeError::NotEmpty`], [`TreeError::BadVersion`],
    /// [`TreeError::BadPath`].
    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError>;

    /// Names of children, sorted, behind `after`, at most `limit` (and at most 1,000).
    ///
    /// # Errors
    ///
    /// [`TreeError::NoNode`], [`TreeError::BadPath`].
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

    /// Ends a wait of this mount; false if it is over already.
    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool;

    /// Sets a timer, in place of one of that name.
    ///
    /// # Errors
    ///
    /// [`TreeError::TooLarge`].
    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError>;

    /// Takes a timer back; false if there is none of that name.
    fn cancel_timer(&mut self, name: &str) -> bool;

    /// 64 bits that depend on the transaction and on how often this was asked in it.
    fn random(&mut self) -> u64;

    /// A line for the operator's log.
    fn log(&mut self, message: &str);
}

/// A node as it is at this point of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its value.
    pub data: Vec<u8>,
    /// What is known of it.
    pub stat: Stat,
}

/// What is known of a node beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created it: its fencing token, where the node is a grant.
    pub czxid: Zxid,
    /// The transaction that last set its value.
    pub mzxid: Zxid,
    /// The transaction that last created or deleted a child.
    pub pzxid: Zxid,
    /// How often its value was set.
    pub version: u64,
    /// How often a child was created or deleted.
    pub cversion: u64,
    /// The session with which it goes, for an ephemeral node.
    pub owner: Option<SessionId>,
    /// How many children it has.
    pub children: u64,
}

/// A node that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The transaction: the node's `czxid`.
    pub zxid: Zxid,
    /// The last component of its path as it was created.
    pub name: String,
}

/// Why an operation on the tree was refused. It had no effect.
///
/// With `?` it becomes a [`Rejection`] that has the error's name as its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// Not a path below the mount.
    BadPath,
    /// No node is there.
    NoNode,
    /// A node is there already.
    NodeExists,
    /// The parent is missing.
    NoParent,
    /// The node has children.
    NotEmpty,
    /// The node has another version than was expected.
    BadVersion {
        /// The node's version.
        actual: u64,
    },
    /// The parent is ephemeral, and can have no children.
    EphemeralParent,
    /// The owner is not an open session.
    OwnerNotOpen,
    /// A limit of the cluster.
    TooLarge {
        /// What is limited.
        what: String,
    },
    /// Something that this version has no name for.
    Other(String),
}

impl TreeError {
    /// The error's name, in kebab-case.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::BadPath => "bad-path",
            Self::NoNode => "no-node",
            Self::NodeExists => "node-exists",
            Self::NoParent => "no-parent",
            Self::NotEmpty => "not-empty",
            Self::BadVersion { .. } => "bad-version",
            Self::EphemeralParent => "ephemeral-parent",
            Self::OwnerNotOpen => "owner-not-open",
            Self::TooLarge { .. } => "too-large",
            Self::Other(code) => code,
        }
    }
}

impl core::fmt::Display for TreeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadPath => f.write_str("not a path below the mount"),
            Self::NoNode => f.write_str("no node is there"),
            Self::NodeExists => f.write_str("a node is there already"),
            Self::NoParent => f.write_str("the parent is missing"),
            Self::NotEmpty => f.write_str("the node has children"),
            Self::BadVersion { actual } => write!(f, "the node has version {actual}"),
            Self::EphemeralParent => f.write_str("ephemeral nodes have no children"),
            Self::OwnerNotOpen => f.write_str("the owner is no open session"),
            Self::TooLarge { what } => write!(f, "over the limit of {what}"),
            Self::Other(code) => f.write_str(code),
        }
    }
}

impl core::error::Error for TreeError {}
