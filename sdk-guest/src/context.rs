//! What a call can see and do.

use serde::de::DeserializeOwned;

use crate::host::{Created, HostCalls, Node, Stat, TreeError};
use crate::ids::{LogTime, SessionId, Ticket, Zxid};
use crate::operation::to_json;
use crate::rejection::Rejection;

/// In which transaction a call is. As the WIT's `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// The session that calls; none for events.
    pub session: Option<SessionId>,
    /// The transaction.
    pub zxid: Zxid,
    /// Its time.
    pub now: LogTime,
}

/// The transaction, as a plugin sees it. Nothing outlives the call but what is written here.
pub struct Context<'a> {
    host: &'a mut dyn HostCalls,
    call: CallContext,
}

impl<'a> Context<'a> {
    /// The context of one call, for whoever runs recipes.
    #[must_use]
    pub fn new(host: &'a mut dyn HostCalls, call: CallContext) -> Self {
        Self { host, call }
    }

    /// The session that calls; none for an event.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.call.session
    }

    /// The session that calls.
    ///
    /// # Errors
    ///
    /// A rejection `no-session` in an event, where nobody calls.
    pub fn caller(&self) -> Result<SessionId, Rejection> {
        self.call
            .session
            .ok_or_else(|| Rejection::new("no-session", "no session calls here"))
    }

    /// The transaction: the fencing token of each node that this call creates.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.call.zxid
    }

    /// The ticket of this call, if it answers with a wait.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.call.zxid.0)
    }

    /// The transaction's time. There is no other clock.
    #[must_use]
    pub fn now(&self) -> LogTime {
        self.call.now
    }

    /// The tree below the mount, to read.
    #[must_use]
    pub fn tree(&self) -> Tree<'_> {
        Tree { host: self.host }
    }

    /// The tree below the mount, to write.
    #[must_use]
    pub fn tree_mut(&mut self) -> TreeMut<'_> {
        TreeMut { host: self.host }
    }

    /// The sessions of clients.
    #[must_use]
    pub fn sessions(&mut self) -> Sessions<'_> {
        Sessions { host: self.host }
    }

    /// The requests that this mount has answered with a wait.
    #[must_use]
    pub fn waits(&mut self) -> Waits<'_> {
        Waits { host: self.host }
    }

    /// Events at a later time.
    #[must_use]
    pub fn timers(&mut self) -> Timers<'_> {
        Timers { host: self.host }
    }

    /// 64 bits that a recording of the call repeats. They are no secret.
    #[must_use]
    pub fn random(&mut self) -> u64 {
        self.host.random()
    }

    /// A line for the operator's log of the member that runs the call.
    pub fn log(&mut self, message: impl core::fmt::Display) {
        self.host.log(&message.to_string());
    }
}

impl core::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Context")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

/// The tree below the mount, to read. Paths are relative to the mount, without a slash in front.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    host: &'a dyn HostCalls,
}

impl Tree<'_> {
    /// A node; none if there is none.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`].
    pub fn node(&self, path: &str) -> Result<Option<Node>, TreeError> {
        match self.host.read(path) {
            Ok(node) => Ok(Some(node)),
            Err(TreeError::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's stat, which is cheaper than the node; none if there is none.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`].
    pub fn stat(&self, path: &str) -> Result<Option<Stat>, TreeError> {
        self.host.stat(path)
    }

    /// The names of the children of `path` in order, behind `after`, at most `limit` (and at most
    /// 1,000). None if there is no such node.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`].
    pub fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        match self.host.children(path, after, limit) {
            Err(TreeError::NoNode) => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// A node's value as JSON; none if there is no node.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`]; [`TreeError::Other`] `bad-value` if it is not such JSON.
    pub fn read_json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, TreeError> {
        self.node(path)?
            .map(|node| serde_json::from_slice(&node.data).map_err(|_| bad_value()))
            .transpose()
    }

    /// A node's value as a number in decimal digits; 0 if there is no node.
    ///
    /// # Errors
    ///
    /// [`TreeError::BadPath`]; [`TreeError::Other`] `bad-value` if it is no such number.
    pub fn read_u64(&self, path: &str) -> Result<u64, TreeError> {
        Ok(self.read_json(path)?.unwrap_or(0))
    }

    /// A node's value as a number in decimal digits, with a sign if it is negative; 0 if there is no
    /// node.
    ///
    /// # Errors
    ///
    /// As [`Tree::read_u64`].
    pub fn read_i64(&self, path: &str) -> Result<i64, TreeError> {
        Ok(self.read_json(path)?.unwrap_or(0))
    }
}

/// The tree below the mount, to write. All of it takes effect with the transaction, or nothing.
pub struct TreeMut<'a> {
    host: &'a mut dyn HostCalls,
}

impl TreeMut<'_> {
    /// Creates a node that stays until it is deleted.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::create`].
    pub fn create(&mut self, path: &str, data: impl Into<Vec<u8>>) -> Result<Zxid, TreeError> {
        self.host
            .create(path, data.into(), false)
            .map(|created| created.zxid)
    }

    /// Creates a node with the parent's counter behind its name.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::create`].
    pub fn create_sequential(
        &mut self,
        path: &str,
        data: impl Into<Vec<u8>>,
    ) -> Result<Created, TreeError> {
        self.host.create(path, data.into(), true)
    }

    /// Creates a node that the kernel deletes with the session `owner`. Its zxid is a fencing token.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::create_ephemeral`].
    pub fn create_ephemeral(
        &mut self,
        path: &str,
        data: impl Into<Vec<u8>>,
        owner: SessionId,
    ) -> Result<Zxid, TreeError> {
        self.host
            .create_ephemeral(path, data.into(), owner, false)
            .map(|created| created.zxid)
    }

    /// As [`TreeMut::create_ephemeral`], with the parent's counter behind its name.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::create_ephemeral`].
    pub fn create_ephemeral_sequential(
        &mut self,
        path: &str,
        data: impl Into<Vec<u8>>,
        owner: SessionId,
    ) -> Result<Created, TreeError> {
        self.host.create_ephemeral(path, data.into(), owner, true)
    }

    /// Creates a node if there is none yet.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::create`], but that a node is there already.
    pub fn ensure(&mut self, path: &str) -> Result<(), TreeError> {
        match self.host.create(path, Vec::new(), false) {
            Ok(_) | Err(TreeError::NodeExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value; answers the version afterwards.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::set`].
    pub fn set(&mut self, path: &str, data: impl Into<Vec<u8>>) -> Result<u64, TreeError> {
        self.host.set(path, data.into(), None)
    }

    /// Sets a node's value, or creates the node with it.
    ///
    /// # Errors
    ///
    /// As [`HostCalls::set`] and [`HostCalls::create`].
    pub fn put(&mut self, path: &str, data: impl Into<Vec<u8>>) -> Result<(), TreeError> {
        let data = data.into();
        match self.host.stat(path)? {
            Some(_) => self.host.set(path, data, None).map(|_| ()),
            None => self.host.create(path, data, false).map(|_| ()),
        }
    }

    /// As [`TreeMut::put`], with JSON.
    ///
    /// # Errors
    ///
    /// As [`TreeMut::put`], or [`TreeError::Other`] `bad-value` if it has no JSON.
    pub fn write_json<T: serde::Serialize + ?Sized>(
        &mut self,
        path: &str,
        value: &T,
    ) -> Result<(), TreeError> {
        self.put(path, to_json(value).map_err(|_| bad_value())?)
    }

    /// As [`TreeMut::put`], with a number in decimal digits.
    ///
    /// # Errors
    ///
    /// As [`TreeMut::put`].
    pub fn write_u64(&mut self, path: &str, number: u64) -> Result<(), TreeError> {
        self.put(path, number.to_string())
    }

    /// As [`TreeMut::put`], with a number in decimal digits.
    ///
    /// # Errors
    ///
    /// As [`TreeMut::put`].
    pub fn write_i64(&mut self, path: &str, number: i64) -> Result<(), TreeError> {
        self.put(path, number.to_string())
    }

    /// Deletes a node without children; false if there was none.
    ///
    /// # Errors
    ///
    /// [`TreeError::NotEmpty`], [`TreeError::BadPath`].
    pub fn delete(&mut self, path: &str) -> Result<bool, TreeError> {
        match self.host.delete(path, None) {
            Ok(()) => Ok(true),
            Err(TreeError::NoNode) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The sessions of clients.
pub struct Sessions<'a> {
    host: &'a mut dyn HostCalls,
}

impl Sessions<'_> {
    /// Whether the session is open at this point of the transaction.
    #[must_use]
    pub fn is_open(&self, session: SessionId) -> bool {
        self.host.session_is_open(session)
    }

    /// Asks for an event when the session ends; false if it is not open, and none will come.
    pub fn follow(&mut self, session: SessionId) -> bool {
        self.host.follow(session)
    }
}

/// The requests that this mount has answered with a wait.
pub struct Waits<'a> {
    host: &'a mut dyn HostCalls,
}

impl Waits<'_> {
    /// Ends a wait with JSON that [`to_json`] made, or with a rejection. False if it is over
    /// already: go on to the next.
    pub fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool {
        self.host.complete(ticket, outcome)
    }
}

/// Events at a later time.
pub struct Timers<'a> {
    host: &'a mut dyn HostCalls,
}

impl Timers<'_> {
    /// Has an event come once, at `due` or after it. A timer of that name is replaced.
    ///
    /// # Errors
    ///
    /// [`TreeError::TooLarge`]: the mount has as many timers as it may.
    pub fn set(
        &mut self,
        name: &str,
        due: LogTime,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), TreeError> {
        self.host.set_timer(name, due, payload.into())
    }

    /// Takes a timer back; false if there is none of that name.
    pub fn cancel(&mut self, name: &str) -> bool {
        self.host.cancel_timer(name)
    }
}

fn bad_value() -> TreeError {
    TreeError::Other("bad-value".to_owned())
}
