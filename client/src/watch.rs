//! Watches as streams.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use folkmoot_proto::client::{Change, SnapshotNode, WatchScope};
use folkmoot_proto::{WatchId, Zxid};
use futures_core::Stream;
use tokio::sync::mpsc;

use crate::check;
use crate::core::WatchNews;
use crate::driver::{Command, Key, WatchSink, news_bytes};
use crate::error::WatchError;
use crate::session::Session;

/// What to watch.
///
/// ```
/// use folkmoot_client::WatchOptions;
/// let below_jobs = WatchOptions::recursive("/jobs").with_data();
/// let one_node = WatchOptions::node("/config");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// Where.
    pub path: String,
    /// Which changes.
    pub scope: WatchScope,
    /// Changes after this zxid (exclusive); none: from when the watch is in place.
    pub from: Option<Zxid>,
    /// Whether changes carry the nodes' values.
    pub data: bool,
}

impl WatchOptions {
    fn of(path: &str, scope: WatchScope) -> Self {
        Self {
            path: path.to_owned(),
            scope,
            from: None,
            data: false,
        }
    }

    /// The node itself: created, set, deleted. It need not be there.
    #[must_use]
    pub fn node(path: &str) -> Self {
        Self::of(path, WatchScope::Node)
    }

    /// The node's children, and the node.
    #[must_use]
    pub fn children(path: &str) -> Self {
        Self::of(path, WatchScope::Children)
    }

    /// Everything at or below the path.
    #[must_use]
    pub fn recursive(path: &str) -> Self {
        Self::of(path, WatchScope::Recursive)
    }

    /// Changes after this zxid, as an earlier watch's [`Watch::position`] gives it.
    #[must_use]
    pub fn from(mut self, zxid: Zxid) -> Self {
        self.from = Some(zxid);
        self
    }

    /// Changes carry the nodes' values.
    #[must_use]
    pub fn with_data(mut self) -> Self {
        self.data = true;
        self
    }
}

/// All changes that one transaction made to what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The transaction.
    pub zxid: Zxid,
    /// Its changes, in order.
    pub changes: Vec<Change>,
}

/// The nodes that are watched, as of one zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The zxid: the watch tells every change after it.
    pub zxid: Zxid,
    /// The nodes, in path order.
    pub nodes: Vec<SnapshotNode>,
}

/// A watch: a stream of transactions, each whole, in order, none lost and none repeated, over any
/// number of reconnects (rule R29). A change is told before any answer of the session that reflects
/// it (rule R28). It ends with an error, or when it is dropped; where it can go on from
/// [`Watch::position`], [`WatchError::is_retryable`] says so.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    key: Key,
    news: mpsc::UnboundedReceiver<WatchNews>,
    waiting: Arc<AtomicUsize>,
    held: VecDeque<WatchNews>,
    position: Zxid,
    over: bool,
}

impl Session {
    /// Watches for changes. It returns when the watch is in place: a change that is made after
    /// that is told, and told before any reply that reflects it.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::WatchOptions;
    /// let mut watch = session.watch(WatchOptions::children("/workers")).await?;
    /// while let Some(transaction) = watch.next().await {
    ///     for change in transaction?.changes {
    ///         println!("{:?} {}", change.kind, change.path);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// No path, too many watches, or history after `from` is gone on every member that can be
    /// reached: these are [`WatchError::Ended`] and [`WatchError::Compacted`]. While no member
    /// attaches the session it waits, whatever `request_timeout` says.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, WatchError> {
        let mut watch = self.begin_watch(options, false)?;
        match watch.first().await? {
            WatchNews::Began(zxid) => watch.position = zxid,
            news => watch.held.push_back(news),
        }
        Ok(watch)
    }

    /// The nodes as of one zxid, and every change after it. The snapshot is held in memory whole.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::WatchOptions;
    /// let options = WatchOptions::recursive("/services").with_data();
    /// let (snapshot, mut changes) = session.watch_and_read(options).await?;
    /// println!("{} nodes", snapshot.nodes.len());
    /// while let Some(transaction) = changes.next().await {
    ///     println!("{:?}", transaction?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Session::watch`].
    pub async fn watch_and_read(
        &self,
        options: WatchOptions,
    ) -> Result<(Snapshot, Watch), WatchError> {
        let mut watch = self.begin_watch(options, true)?;
        loop {
            if let WatchNews::Snapshot { zxid, nodes } = watch.first().await? {
                watch.position = zxid;
                return Ok((Snapshot { zxid, nodes }, watch));
            }
        }
    }

    fn begin_watch(&self, options: WatchOptions, snapshot: bool) -> Result<Watch, WatchError> {
        check::watch(&options.path)?;
        let (sender, news) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sink = WatchSink {
            news: sender,
            waiting: Arc::clone(&waiting),
        };
        let key = self.key();
        let watch = folkmoot_proto::client::Watch {
            id: WatchId::ZERO,
            path: options.path,
            scope: options.scope,
            from: options.from,
            with_snapshot: snapshot,
            with_data: options.data,
        };
        self.command(Command::Watch { key, watch, sink })
            .map_err(|error| match error {
                crate::error::Unanswered::SessionEnded { expired, .. } => {
                    WatchError::SessionEnded { expired }
                }
                _ => WatchError::TaskGone,
            })?;
        let session = self.clone();
        let held = VecDeque::new();
        let position = options.from.unwrap_or_default();
        Ok(Watch {
            session,
            key,
            news,
            waiting,
            held,
            position,
            over: false,
        })
    }
}

impl Watch {
    /// Everything up to this zxid was told: where another watch can go on.
    #[must_use]
    pub fn position(&self) -> Zxid {
        self.position
    }

    /// The next transaction; none after the watch ended. Cancel safe: nothing is lost if the
    /// future is dropped. What was not taken counts, and ends the watch above 16 MiB.
    pub async fn next(&mut self) -> Option<Result<Transaction, WatchError>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    async fn first(&mut self) -> Result<WatchNews, WatchError> {
        match self.news.recv().await {
            None => Err(WatchError::TaskGone),
            Some(WatchNews::Over(error)) => Err(error),
            Some(news) => {
                self.waiting.fetch_sub(news_bytes(&news), Ordering::Relaxed);
                Ok(news)
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Transaction, WatchError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            let news = match self.held.pop_front() {
                Some(news) => Some(news),
                None => match self.news.poll_recv(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(news) => {
                        let bytes = news.as_ref().map_or(0, news_bytes);
                        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                        news
                    }
                },
            };
            match news {
                Some(WatchNews::Events { zxid, changes }) => {
                    self.position = zxid;
                    return Poll::Ready(Some(Ok(Transaction { zxid, changes })));
                }
                Some(WatchNews::Progress(zxid) | WatchNews::Began(zxid)) => {
                    self.position = self.position.max(zxid);
                }
                Some(WatchNews::Snapshot { .. }) => {}
                Some(WatchNews::Over(error)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.over = true;
                    return Poll::Ready(Some(Err(WatchError::TaskGone)));
                }
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<Transaction, WatchError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.session.command(Command::EndWatch { key: self.key });
        }
    }
}
