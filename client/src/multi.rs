//! Transactions of several operations.

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Guard, NodeKind, SubOperation};
use folkmoot_proto::reply::SubOutcome;

use crate::session::created_path;

/// Operations that take effect together, or not at all. Each sees the ones before it; all guards
/// are judged before the first.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::{Multi, NodeKind};
/// let done = session
///     .multi(
///         Multi::new()
///             .check("/config", Some(7))
///             .create("/jobs/job-", "{}", NodeKind { ephemeral: false, sequential: true })
///             .set("/config", "changed", Some(7)),
///     )
///     .await?;
/// println!("made {:?} at {}", done.created(1), done.zxid);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multi {
    operations: Vec<SubOperation>,
    guards: Vec<Guard>,
}

impl Multi {
    /// No operation yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole takes effect only while this grant is the current one (rule R13).
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Holds if a node is there, with that version where one is named.
    #[must_use]
    pub fn check(self, path: &str, expected: Option<u64>) -> Self {
        self.with(SubOperation::Check {
            path: path.to_owned(),
            expected,
        })
    }

    /// Creates a node.
    #[must_use]
    pub fn create(self, path: &str, data: impl Into<Vec<u8>>, kind: NodeKind) -> Self {
        self.with(SubOperation::Create {
            path: path.to_owned(),
            data: data.into(),
            kind,
        })
    }

    /// Sets a node's value.
    #[must_use]
    pub fn set(self, path: &str, data: impl Into<Vec<u8>>, expected: Option<u64>) -> Self {
        self.with(SubOperation::Set {
            path: path.to_owned(),
            data: data.into(),
            expected,
        })
    }

    /// Deletes a node without children.
    #[must_use]
    pub fn delete(self, path: &str, expected: Option<u64>) -> Self {
        self.with(SubOperation::Delete {
            path: path.to_owned(),
            expected,
        })
    }

    fn with(mut self, operation: SubOperation) -> Self {
        self.operations.push(operation);
        self
    }

    /// The paths that creations name; empty for other operations.
    pub(crate) fn created_paths(&self) -> Vec<String> {
        let paths = self.operations.iter().map(|operation| match operation {
            SubOperation::Create { path, .. } => path.clone(),
            _ => String::new(),
        });
        paths.collect()
    }

    pub(crate) fn into_parts(self) -> (Vec<SubOperation>, Vec<Guard>) {
        (self.operations, self.guards)
    }
}

/// What a [`Multi`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiDone {
    /// The transaction; the `czxid` of what it created.
    pub zxid: Zxid,
    /// One outcome for each operation.
    pub outcomes: Vec<SubOutcome>,
    paths: Vec<String>,
}

impl MultiDone {
    pub(crate) fn new(zxid: Zxid, outcomes: Vec<SubOutcome>, paths: Vec<String>) -> Self {
        Self {
            zxid,
            outcomes,
            paths,
        }
    }

    /// The path that the operation at `index` created; none if it created none.
    #[must_use]
    pub fn created(&self, index: usize) -> Option<String> {
        created_path(self.paths.get(index)?, self.outcomes.get(index)?)
    }
}
