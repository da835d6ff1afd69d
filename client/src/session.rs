//! A session and its typed operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use folkmoot_proto::client::{Guard, NodeKind, Operation, Query, ReadOutcome, Stat};
use folkmoot_proto::reply::{Outcome, SubOutcome};
use folkmoot_proto::{SessionId, Zxid};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::asked::{Asked, Pending, Unheard};
use crate::call::Call;
use crate::check;
use crate::clock;
use crate::core::{LeaseView, Standing};
use crate::driver::{BACKLOG_MAX, Command, Key, Opened, ReadResult, RequestResult};
use crate::error::{CallError, ReadError, Unanswered, WriteError};
use crate::lock::Turns;
use crate::multi::{Multi, MultiDone};
use crate::standing::StandingChanges;

/// A session: a handle, cheap to clone, of the task that owns it.
///
/// Requests take their place in the session's order when their future is first polled, and answers
/// come in that order; so many may be under way at once. Each has exactly one outcome, over lost
/// connections and failovers, as long as the session lives. Dropping a future does not take its
/// request back. Reads follow the writes that were submitted before them on any handle, but are not
/// held up by calls that wait.
///
/// A path has at most 1,024 bytes, a value by default 1 MiB, a request 4 MiB and 16 guards; what is
/// over a limit is refused with an error that names it.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::NodeKind;
///
/// session.create("/config", "", NodeKind::PERSISTENT).await?;
/// // Both are under way at once, and take effect in this order.
/// let (first, second) = tokio::join!(
///     session.set("/config", "old", Some(0)),
///     session.set("/config", "new", Some(1)),
/// );
/// assert!(first?.zxid < second?.zxid);
/// assert_eq!(session.get("/config").await?.data, b"new");
/// // What others have written meanwhile is seen by a linearizable read.
/// let everything = session.linearizable().children("/").await?;
/// println!("{:?} as of {}", everything.names, everything.zxid);
/// session.close().await?; // ephemeral nodes and locks go at once
/// # Ok(()) }
/// ```
///
/// When the last handle is dropped, heartbeats stop, and the session expires after its timeout;
/// [`Session::close`] ends it at once.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    guards: Arc<[Guard]>,
    linearizable: bool,
}

struct Shared {
    id: SessionId,
    timeout: Duration,
    request_timeout: Option<Duration>,
    commands: mpsc::UnboundedSender<Command>,
    permits: Semaphore,
    lease: watch::Receiver<LeaseView>,
    next_key: AtomicU64,
    turns: Mutex<Turns>,
}

/// A node that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its value.
    pub data: Vec<u8>,
    /// Its stat.
    pub stat: Stat,
    /// What the member had applied when it was read.
    pub zxid: Zxid,
}

/// The children of a node, as of one zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Children {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// The node's stat.
    pub stat: Stat,
    /// The zxid.
    pub zxid: Zxid,
}

/// A node that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path, with the number that was appended for a sequential node.
    pub path: String,
    /// Its `czxid`, which is a fencing token.
    pub zxid: Zxid,
}

/// A node whose value was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version after it.
    pub version: u64,
    /// The transaction.
    pub zxid: Zxid,
}

impl Session {
    pub(crate) fn new(
        opened: Opened,
        commands: mpsc::UnboundedSender<Command>,
        lease: watch::Receiver<LeaseView>,
        request_timeout: Option<Duration>,
    ) -> Self {
        let shared = Shared {
            id: opened.session,
            timeout: opened.timeout,
            request_timeout,
            commands,
            permits: Semaphore::new(BACKLOG_MAX),
            lease,
            next_key: AtomicU64::new(1),
            turns: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            guards: Arc::from([]),
            linearizable: false,
        }
    }

    /// The session's id: the zxid of the transaction that opened it.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.shared.id
    }

    /// The timeout that the cluster granted.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// The same session; every write through this handle carries the guard: it takes effect only
    /// while a node with that `czxid` is at that path (rule R13).
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::{Guard, NodeKind};
    /// let leader = session.create("/leader", "me", NodeKind::EPHEMERAL).await?;
    /// let as_leader = session.guarded_by(Guard { path: leader.path, token: leader.zxid });
    /// as_leader.set("/config", "new", None).await?; // refused once /leader is another one
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn guarded_by(&self, guard: Guard) -> Self {
        let mut guards = self.guards.to_vec();
        guards.push(guard);
        Self {
            guards: guards.into(),
            ..self.clone()
        }
    }

    /// The same session; every read through this handle is linearizable: it reflects all that was
    /// done anywhere before it was asked. Without it a read may be served by a member that lags,
    /// but never older than what this session has seen or written.
    #[must_use]
    pub fn linearizable(&self) -> Self {
        Self {
            linearizable: true,
            ..self.clone()
        }
    }

    /// How the session stands, by this machine's clock.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.shared.lease.borrow().standing_at(clock::now())
    }

    /// How long no heartbeat was acknowledged, where that is longer than it may take: counted from
    /// the sending of the last one that was.
    pub(crate) fn unacknowledged_for(&self) -> Duration {
        let (view, now) = (*self.shared.lease.borrow(), clock::now());
        if view.standing_at(now) == Standing::Safe {
            return Duration::ZERO;
        }
        let part = self.shared.timeout * 2 / 3;
        let since = Duration::from_micros(view.jeopardy_at.0).saturating_sub(part);
        Duration::from_micros(now.0).saturating_sub(since)
    }

    /// What the clock allows to rest on the session's lease.
    pub(crate) fn lease(&self) -> watch::Receiver<LeaseView> {
        self.shared.lease.clone()
    }

    /// The session's standing, and every change of it: the jeopardy signal. Jeopardy begins when
    /// two thirds of the session's timeout have passed without an acknowledged heartbeat.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) {
    /// let mut changes = session.standing_changes();
    /// while let Some(standing) = changes.next().await {
    ///     println!("now {standing:?}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn standing_changes(&self) -> StandingChanges {
        StandingChanges::new(self.shared.lease.clone())
    }

    /// A node's value and stat.
    ///
    /// # Errors
    ///
    /// No node is there, or the path is none.
    pub async fn get(&self, path: &str) -> Result<Node, ReadError> {
        match self
            .read(Query::Get {
                path: path.to_owned(),
            })
            .await?
        {
            (zxid, ReadOutcome::Node { data, stat }) => Ok(Node { data, stat, zxid }),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// A node's stat; none if no node is there.
    ///
    /// # Errors
    ///
    /// The path is none.
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>, ReadError> {
        match self
            .read(Query::Exists {
                path: path.to_owned(),
            })
            .await?
        {
            (_, ReadOutcome::Exists(stat)) => Ok(stat),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// The names of all children of a node, as of one zxid, whatever their number.
    ///
    /// # Errors
    ///
    /// No node is there, or the member has as many listings open as it may.
    pub async fn children(&self, path: &str) -> Result<Children, ReadError> {
        self.list(path, None, 0).await
    }

    /// At most `limit` names of children that sort after `after`. Each page is of a zxid of its
    /// own; [`Session::children`] gives all of one.
    ///
    /// # Errors
    ///
    /// As [`Session::children`].
    pub async fn children_page(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Children, ReadError> {
        self.list(path, after, limit.max(1)).await
    }

    async fn list(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Children, ReadError> {
        let (path, after) = (path.to_owned(), after.map(str::to_owned));
        match self.read(Query::Children { path, after, limit }).await? {
            (zxid, ReadOutcome::Children { names, stat, .. }) => Ok(Children { names, stat, zxid }),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Creates a node. The parent must be there. A sequential node has a number in 20 digits
    /// appended to its name, larger than that of every earlier one below the same parent; an
    /// ephemeral one goes with the session.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::NodeKind;
    /// let kind = NodeKind { ephemeral: true, sequential: true };
    /// let worker = session.create("/workers/worker-", "10.0.0.7:80", kind).await?;
    /// println!("{} with token {}", worker.path, worker.zxid);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A node is there already (unless it is sequential), the parent is missing or ephemeral, or
    /// the value is over the cluster's limit.
    pub async fn create(
        &self,
        path: &str,
        data: impl Into<Vec<u8>>,
        kind: NodeKind,
    ) -> Result<Created, WriteError> {
        let operation = Operation::Create {
            path: path.to_owned(),
            data: data.into(),
            kind,
        };
        match self.request(operation).await? {
            (zxid, Outcome::Created { sequence }) => Ok(Created {
                path: numbered(path, sequence),
                zxid,
            }),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Sets a node's value; with `expected`, only if it has that version.
    ///
    /// # Errors
    ///
    /// No node is there, it has another version, or the value is over the cluster's limit.
    pub async fn set(
        &self,
        path: &str,
        data: impl Into<Vec<u8>>,
        expected: Option<u64>,
    ) -> Result<Written, WriteError> {
        let operation = Operation::Set {
            path: path.to_owned(),
            data: data.into(),
            expected,
        };
        match self.request(operation).await? {
            (zxid, Outcome::Set { version }) => Ok(Written { version, zxid }),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Deletes a node without children; with `expected`, only if it has that version.
    ///
    /// # Errors
    ///
    /// No node is there, it has children, or another version.
    pub async fn delete(&self, path: &str, expected: Option<u64>) -> Result<Zxid, WriteError> {
        let operation = Operation::Delete {
            path: path.to_owned(),
            expected,
        };
        match self.request(operation).await? {
            (zxid, Outcome::Deleted) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// All operations of a [`Multi`], or none.
    ///
    /// # Errors
    ///
    /// [`Refusal::MultiRefused`](crate::Refusal::MultiRefused) names the operation that was refused; a guard that does not hold
    /// is [`Refusal::GuardFailed`](crate::Refusal::GuardFailed).
    pub async fn multi(&self, multi: Multi) -> Result<MultiDone, WriteError> {
        let paths = multi.created_paths();
        let mut guards = self.guards.to_vec();
        let (operations, own) = multi.into_parts();
        guards.extend(own);
        match self
            .request_with(Operation::Multi { operations }, guards)
            .await?
        {
            (zxid, Outcome::Multi(outcomes)) => Ok(MultiDone::new(zxid, outcomes, paths)),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// When it returns, everything that the cluster had accepted before it is applied where this
    /// session reads.
    ///
    /// # Errors
    ///
    /// The session ended, or no answer came in time.
    pub async fn sync(&self) -> Result<Zxid, WriteError> {
        match self.request(Operation::Sync).await? {
            (zxid, Outcome::Synced) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Calls the plugin of a mount, and waits for its reply. A call may wait in the cluster, as a
    /// contended acquire of a lock does: that takes as long as it takes, and the configuration's
    /// `request_timeout` bounds only the time until the cluster says that it waits. Dropping the
    /// future cancels the wait; what the plugin did meanwhile stands, so use
    /// [`Session::begin_call`] where that matters.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let reply = session.call("/counters", "add", r#"{"name": "visits", "amount": 1}"#).await?;
    /// println!("{}", String::from_utf8_lossy(&reply));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The plugin's rejection, its fault, or the kernel's refusal.
    pub async fn call(
        &self,
        mount: &str,
        operation: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Vec<u8>, CallError> {
        self.begin_call(mount, operation, payload)
            .await?
            .reply()
            .await
    }

    /// Takes a call's place in the session's order, and returns at once: the call can be awaited,
    /// and cancelled with its outcome known.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use folkmoot_client::Cancelled;
    ///
    /// let mut call = session.begin_call("/locks", "acquire", r#"{"name": "deploy"}"#).await?;
    /// match tokio::time::timeout(Duration::from_secs(5), call.reply()).await {
    ///     Ok(reply) => println!("{}", String::from_utf8_lossy(&reply?)),
    ///     Err(_) => match call.cancel().await? {
    ///         Cancelled::InTime => println!("given up"),
    ///         Cancelled::TooLate(reply) => println!("after all: {}", String::from_utf8_lossy(&reply)),
    ///     },
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The payload is over the limit, or the session's task is gone.
    pub async fn begin_call(
        &self,
        mount: &str,
        operation: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Call, CallError> {
        let operation = Operation::Invoke {
            mount: mount.to_owned(),
            operation: operation.to_owned(),
            payload: payload.into(),
        };
        self.submit_call(operation, None)
    }

    /// Closes the session: its ephemeral nodes go in the same transaction. Its lease is over, and what
    /// its members own of partitions is lost, when this is asked, before the cluster hears of it.
    ///
    /// # Errors
    ///
    /// It had expired before, or no answer came in time.
    pub async fn close(&self) -> Result<(), WriteError> {
        match self.request_with(Operation::CloseSession, Vec::new()).await {
            Ok(_) => Ok(()),
            // The reply was lost, and a member said that the session is no more.
            Err(WriteError::Unanswered(Unanswered::SessionEnded { expired: false, .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a write-class request, and waits for its answer.
    pub(crate) async fn request(&self, operation: Operation) -> RequestResult {
        self.request_with(operation, self.guards.to_vec()).await
    }

    async fn request_with(&self, operation: Operation, guards: Vec<Guard>) -> RequestResult {
        let _permit = self.shared.permits.acquire().await;
        let mut answer = self.submit(operation, guards)?;
        answer.reply(self.request_timeout()).await
    }

    /// How long an answer in its place may take.
    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.shared.request_timeout
    }

    /// Takes a request's place in the session's order.
    pub(crate) fn submit(
        &self,
        operation: Operation,
        guards: Vec<Guard>,
    ) -> Result<Pending, WriteError> {
        self.submit_as(operation, guards, None, None)
    }

    fn submit_as(
        &self,
        operation: Operation,
        guards: Vec<Guard>,
        key: Option<Key>,
        unheard: Option<Unheard>,
    ) -> Result<Pending, WriteError> {
        check::request(&operation, &guards)?;
        let (asked, pending) = Asked::new(key, unheard);
        self.command(Command::Request {
            operation,
            guards,
            asked,
        })?;
        Ok(pending)
    }

    /// A call, and what is done with its answer if nobody hears it.
    pub(crate) fn submit_call(
        &self,
        operation: Operation,
        unheard: Option<Unheard>,
    ) -> Result<Call, CallError> {
        let key = self.key();
        let pending = self.submit_as(operation, self.guards.to_vec(), Some(key), unheard)?;
        Ok(Call::new(self.clone(), key, pending))
    }

    async fn read(&self, query: Query) -> ReadResult {
        check::query(&query)?;
        let _permit = self.shared.permits.acquire().await;
        let (answer, receiver) = oneshot::channel();
        let linearizable = self.linearizable;
        self.command(Command::Read {
            linearizable,
            query,
            answer,
        })?;
        self.bounded(receiver).await?
    }

    /// Waits for an answer as long as the configuration allows.
    async fn bounded<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Unanswered> {
        let answer = match self.shared.request_timeout {
            None => answer.await,
            Some(after) => match tokio::time::timeout(after, answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(Unanswered::TimedOut { after }),
            },
        };
        answer.map_err(|_| Unanswered::TaskGone)
    }

    /// Hands a command to the session's task.
    pub(crate) fn command(&self, command: Command) -> Result<(), Unanswered> {
        self.shared
            .commands
            .send(command)
            .map_err(|_| match self.standing() {
                Standing::Ended { expired } => Unanswered::SessionEnded {
                    expired,
                    sent: false,
                },
                _ => Unanswered::TaskGone,
            })
    }

    /// The turns of this session's locks among its own tasks.
    pub(crate) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.shared
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a call or a watch that no other has.
    pub(crate) fn key(&self) -> Key {
        self.shared.next_key.fetch_add(1, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

/// The path of a created node: a sequential one has its number in 20 digits behind it.
pub(crate) fn numbered(path: &str, sequence: Option<u64>) -> String {
    match sequence {
        Some(sequence) => format!("{path}{sequence:020}"),
        None => path.to_owned(),
    }
}

pub(crate) fn misfit(reply: &impl std::fmt::Debug) -> Unanswered {
    Unanswered::Misfit {
        reply: format!("{reply:?}"),
    }
}

/// The outcomes of a `multi` with the paths of what it created.
pub(crate) fn created_path(path: &str, outcome: &SubOutcome) -> Option<String> {
    match outcome {
        SubOutcome::Created { sequence } => Some(numbered(path, *sequence)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use folkmoot_proto::Tick;

    use super::*;
    use crate::WatchOptions;

    /// A session without a task: what it asks stays in the queue until a test answers.
    pub(crate) fn unattended(
        request_timeout: Option<Duration>,
    ) -> (Session, mpsc::UnboundedReceiver<Command>) {
        let (commands, asked) = mpsc::unbounded_channel();
        let view = LeaseView {
            standing: Standing::Safe,
            jeopardy_at: Tick(u64::MAX),
            over_at: Tick(u64::MAX),
        };
        let opened = Opened {
            session: SessionId(7),
            timeout: Duration::from_secs(10),
        };
        let (_, lease) = watch::channel(view);
        let session = Session::new(opened, commands, lease, request_timeout);
        (session, asked)
    }

    #[tokio::test]
    async fn what_fits_no_frame_does_not_reach_the_sessions_task() {
        let (session, mut asked) = unattended(Some(Duration::from_millis(10)));
        let long = "v".repeat(6 << 20);
        assert!(matches!(
            session.get(&long).await,
            Err(ReadError::Refused(crate::ReadRefusal::BadPath { .. }))
        ));
        assert!(matches!(
            session.watch(WatchOptions::node(&long)).await,
            Err(crate::WatchError::Ended(crate::WatchEnd::BadPath { .. }))
        ));
        let guarded = session.guarded_by(Guard {
            path: long,
            token: Zxid(7),
        });
        assert!(matches!(
            guarded.sync().await,
            Err(WriteError::Refused(crate::Refusal::BadPath { .. }))
        ));
        assert!(asked.try_recv().is_err(), "something was asked");
    }
}
