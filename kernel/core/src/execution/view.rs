//! What a guest sees of a transaction.

use folkmoot_proto::batch::Completion;
use folkmoot_proto::client::Stat;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::NAME_BYTES_MAX;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{LogTime, MountId, NodePath, SessionId, Ticket, Zxid};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::leader::draft::Draft;
use super::leader::operations;
use crate::mutation::{self, Mutation};
use crate::plugin::{CallContext, Rejection};
use crate::state::View;

/// Names in one answer of [`TxnView::children`].
pub const CHILDREN_MAX: u32 = 1000;
/// Lines that one call may log; further ones are dropped.
pub const LOG_LINES_MAX: usize = 64;
/// Bytes of one logged line; the rest is cut.
pub const LOG_LINE_BYTES_MAX: usize = 1024;

/// The view that a guest's call has of its transaction: the tree below its mount, sessions, waits
/// and timers. It owns state and overlay while the call runs. Paths are relative to the mount,
/// without a slash in front; the empty path is the mount itself.
#[derive(Debug)]
pub struct TxnView(Box<TxnViewInner>);

/// Boxed, so that moving the view in and out of a runtime moves a pointer.
#[derive(Debug)]
struct TxnViewInner {
    draft: Draft,
    context: CallContext,
    mount: MountId,
    root: NodePath,
    read_only: bool,
    randoms: u64,
    log: Vec<String>,
    wrote: bool,
}

/// What a view is made for.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// The call's context.
    pub(super) context: CallContext,
    /// The mount.
    pub(super) mount: MountId,
    /// Its path.
    pub(super) root: NodePath,
    /// Whether writes are refused, as in `configure`.
    pub(super) read_only: bool,
}

impl TxnView {
    /// The view of one call.
    pub(super) fn new(draft: Draft, scope: Scope) -> Self {
        Self(Box::new(TxnViewInner {
            draft,
            context: scope.context,
            mount: scope.mount,
            root: scope.root,
            read_only: scope.read_only,
            randoms: 0,
            log: Vec::new(),
            wrote: false,
        }))
    }

    /// The transaction and the call's log lines, after the call.
    pub(super) fn into_parts(self) -> (Draft, Vec<String>) {
        (self.0.draft, self.0.log)
    }

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

    /// What the transaction does so far: its effects, and the waits that it completes.
    #[must_use]
    pub fn written(&self) -> (&[Effect], &[Completion]) {
        self.0.draft.written()
    }

    /// Makes a call and undoes it: nothing of it is left, and the call itself can follow. A warm
    /// instance must do what a fresh one does (rule R14), and a runtime can find out by this.
    pub fn rehearse<R>(&mut self, call: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.0.draft.mark();
        let (randoms, lines, wrote) = (self.0.randoms, self.0.log.len(), self.0.wrote);
        let result = call(self);
        self.0.draft.roll_back(mark);
        self.0.log.truncate(lines);
        (self.0.randoms, self.0.wrote) = (randoms, wrote);
        result
    }

    /// A node's value and stat.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`] and [`TreeError::NoNode`].
    pub fn read(&self, path: &str) -> Result<(Vec<u8>, Stat), TreeError> {
        let path = self.absolute(path)?;
        let node = self.0.draft.view().node(path.as_str());
        let node = node.ok_or(TreeError::NoNode)?;
        Ok((node.data.to_vec(), node.stat))
    }

    /// Creates a node, sequential where asked; the zxid is its `czxid`, and the name its last
    /// component as created. A grant is a node made so (rule R13).
    ///
    /// # Errors
    ///
    /// Why it was refused; then nothing happened.
    pub fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError> {
        self.create_owned(path, data, None, sequential)
    }

    /// As [`TxnView::create`], for a node that is deleted with the session `owner`, which must be
    /// open: it may be another than the caller's (rule R13).
    ///
    /// # Errors
    ///
    /// Why it was refused; then nothing happened.
    pub fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: SessionId,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError> {
        self.create_owned(path, data, Some(owner), sequential)
    }

    /// Sets a value; answers the version afterwards.
    ///
    /// # Errors
    ///
    /// Why it was refused; then nothing happened.
    pub fn set(
        &mut self,
        path: &str,
        data: Vec<u8>,
        expected: Option<u64>,
    ) -> Result<u64, TreeError> {
        let path = self.absolute(path)?;
        self.begin_write()?;
        Ok(operations::set(
            &mut self.0.draft,
            path.as_str(),
            data,
            expected,
        )?)
    }

    /// Deletes a node without children.
    ///
    /// # Errors
    ///
    /// Why it was refused; then nothing happened.
    pub fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError> {
        if path.is_empty() {
            return Err(TreeError::BadPath);
        }
        let path = self.absolute(path)?;
        self.begin_write()?;
        Ok(operations::delete(
            &mut self.0.draft,
            path.as_str(),
            expected,
        )?)
    }

    /// Names of children, sorted, after `after`, at most `limit` (and at most [`CHILDREN_MAX`]).
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`] and [`TreeError::NoNode`].
    pub fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        let path = self.absolute(path)?;
        let view = self.0.draft.view();
        view.node(path.as_str()).ok_or(TreeError::NoNode)?;
        let limit = usize::try_from(limit.min(CHILDREN_MAX)).unwrap_or(usize::MAX);
        Ok(view.children(path.as_str(), after, limit))
    }

    /// Whether a session is open at this point of the transaction.
    #[must_use]
    pub fn session_is_open(&self, session: SessionId) -> bool {
        self.0.draft.view().session(session).is_some()
    }

    /// Asks to hear of a session's end; false if it is not open, or if writes are refused.
    pub fn follow(&mut self, session: SessionId) -> bool {
        let mount = self.0.mount;
        if !self.session_is_open(session) || self.begin_write().is_err() {
            return false;
        }
        if self.0.draft.view().followers(session).contains(&mount) {
            return true;
        }
        let follow = Effect::FollowSession { mount, session };
        self.0.draft.effect(follow).is_ok()
    }

    /// Completes a wait of this mount; false if it is gone already (rule R11), or if writes are
    /// refused.
    pub fn complete(&mut self, ticket: Ticket, result: Result<Vec<u8>, Rejection>) -> bool {
        let Some(wait) = self.0.draft.view().wait(ticket).cloned() else {
            return mutation::is_on(Mutation::DeadWaitCompleted);
        };
        if wait.mount != self.0.mount || self.begin_write().is_err() {
            return false;
        }
        let reply = result.map(Outcome::Invoked).map_err(refusal_of);
        self.0.draft.complete(&wait, reply).is_ok()
    }

    /// Sets a timer, in place of one of that name. It comes after this transaction's time, so that a
    /// handler that sets its timer anew does not run without end.
    ///
    /// # Errors
    ///
    /// [`TreeError::TooLarge`] and [`TreeError::ReadOnly`].
    pub fn set_timer(
        &mut self,
        name: &str,
        due: LogTime,
        payload: Vec<u8>,
    ) -> Result<(), TreeError> {
        let mount = self.0.mount;
        let limits = self.0.draft.view().limits();
        let timers_max = usize::try_from(limits.mount_timers_max).unwrap_or(usize::MAX);
        let payload_max = usize::try_from(limits.value_bytes_max).unwrap_or(usize::MAX);
        if name.len() > NAME_BYTES_MAX || payload.len() > payload_max {
            return Err(TreeError::TooLarge {
                what: "bytes of a timer",
            });
        }
        let view = self.0.draft.view();
        if view.timer(mount, name).is_none()
            && view.timers_of_mount(mount, timers_max).len() >= timers_max
        {
            return Err(TreeError::TooLarge {
                what: "timers of a mount",
            });
        }
        self.begin_write()?;
        Ok(self.0.draft.effect(Effect::SetTimer {
            mount,
            name: name.to_owned(),
            due: due.max(self.0.context.now.plus_millis(1)),
            payload,
        })?)
    }

    /// Cancels a timer; false if there is none of that name, or if writes are refused.
    pub fn cancel_timer(&mut self, name: &str) -> bool {
        let mount = self.0.mount;
        if self.0.draft.view().timer(mount, name).is_none() || self.begin_write().is_err() {
            return false;
        }
        let cancel = Effect::CancelTimer {
            mount,
            name: name.to_owned(),
        };
        self.0.draft.effect(cancel).is_ok()
    }

    /// 64 bits that depend on the zxid and on how often this was asked in the call.
    pub fn random(&mut self) -> u64 {
        self.0.randoms += 1;
        xxh3_64_with_seed(&self.0.context.zxid.0.to_le_bytes(), self.0.randoms)
    }

    /// A line for the operator's log, not replicated.
    pub fn log(&mut self, message: &str) {
        if self.0.log.len() < LOG_LINES_MAX {
            let end = message.floor_char_boundary(LOG_LINE_BYTES_MAX);
            self.0
                .log
                .push(message.get(..end).unwrap_or_default().to_owned());
        }
    }

    fn create_owned(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError> {
        let absolute = self.absolute_prefix(path, sequential)?;
        self.begin_write()?;
        let draft = &mut self.0.draft;
        let created = operations::create(draft, &absolute, data, owner, sequential)?;
        let name = created.path.rsplit('/').next().unwrap_or_default();
        Ok((draft.stamp().zxid, name.to_owned()))
    }

    fn begin_write(&mut self) -> Result<(), TreeError> {
        if self.0.read_only {
            return Err(TreeError::ReadOnly);
        }
        self.0.wrote = true;
        Ok(())
    }

    /// The tree's path of a path relative to the mount: never outside the mount, since a path has
    /// no `..`.
    fn absolute(&self, relative: &str) -> Result<NodePath, TreeError> {
        self.0.root.join(relative).map_err(|_| TreeError::BadPath)
    }

    /// As [`TxnView::absolute`], for what a number may be appended to: the name itself may be empty.
    fn absolute_prefix(&self, relative: &str, sequential: bool) -> Result<String, TreeError> {
        if relative.is_empty() || relative.starts_with('/') {
            return Err(TreeError::BadPath);
        }
        if !sequential {
            return Ok(self.absolute(relative)?.to_string());
        }
        let sample = self.absolute(&format!("{relative}0"))?;
        Ok(sample
            .as_str()
            .strip_suffix('0')
            .unwrap_or_default()
            .to_owned())
    }
}

/// What a client is told of a guest's rejection.
pub(super) fn refusal_of(rejection: Rejection) -> Refusal {
    Refusal::Rejected {
        code: rejection.code,
        message: rejection.message,
        details: rejection.details,
    }
}

impl From<Refusal> for TreeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoNode { .. } => Self::NoNode,
            Refusal::NodeExists { .. } => Self::NodeExists,
            Refusal::NoParent { .. } => Self::NoParent,
            Refusal::NotEmpty { .. } => Self::NotEmpty,
            Refusal::BadVersion { actual, .. } => Self::BadVersion { actual },
            Refusal::EphemeralParent { .. } => Self::EphemeralParent,
            Refusal::OwnerNotOpen => Self::OwnerNotOpen,
            Refusal::TooLarge { .. } => Self::TooLarge {
                what: "the transaction, or what it writes",
            },
            _ => Self::BadPath,
        }
    }
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
