//! Watches of the clients that are attached to this member.
//!
//! Nothing here is replicated. A watcher is told of whole transactions, in the order of their zxids,
//! each once (rule R29), from the zxid on that it asked for (exclusive). One that can not be told
//! all is ended with the reason (rule R30): nothing is skipped.
//!
//! A watcher begins behind, with a snapshot or with what the history has, and is told more as its
//! client takes it; then it is *live*, and told each transaction as it is applied. Frames leave by
//! [`Watches::poll_frame`] in the order in which they must be sent. A live watcher's events of a
//! transaction are there when [`Watches::on_txn`] returns, so a caller that takes them before it
//! sends the transaction's reply keeps rule R28. Until a watcher that begins in the past is live,
//! what is sent on its stream is held back: [`Watches::hold_back`].

mod history;
mod holds;
mod scopes;
mod telling;
mod watcher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_proto::client::{ServerFrame, Watch, WatchEnd};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::{NodePath, Tick, WatchId, Zxid};

use self::history::History;
pub(super) use self::holds::HeldTooMuch;
use self::holds::Holds;
use self::scopes::Scopes;
use self::watcher::{Phase, Watcher};
use super::StreamId;
use crate::mutation::{self, Mutation};
use crate::state::{AppliedTxn, NodeChange, State};

/// A watch of a session's stream.
type WatcherKey = (StreamId, WatchId);

/// Chunks that a watcher is told at once when it begins: enough that most are live at once.
const FIRST_CHUNKS: usize = 16;

/// How long a watcher may take nothing of its snapshot, in milliseconds: as long as a listing.
const SNAPSHOT_IDLE_MS_MAX: u64 = 10_000;

/// A watch frame that its client has not taken.
#[derive(Debug)]
struct Queued {
    watch: WatchId,
    serial: u64,
    bytes: usize,
}

/// The watches on this member.
#[derive(Debug)]
pub struct Watches {
    watchers: BTreeMap<WatcherKey, Watcher>,
    scopes: Scopes,
    history: History,
    holds: Holds,
    /// Some stream is held back from no longer.
    released: bool,
    /// The last transaction that watchers know of.
    applied: Zxid,
    /// Watchers that are behind and can be told more.
    behind: BTreeSet<WatcherKey>,
    /// Watchers that are behind until a view can be opened.
    without_view: BTreeSet<WatcherKey>,
    /// For each stream, the watch frames that its client has not taken.
    queued: BTreeMap<StreamId, VecDeque<Queued>>,
    /// Distinguishes watchers that have one name after the other.
    next_serial: u64,
    frames: VecDeque<(StreamId, ServerFrame)>,
    budget: u32,
    watches_max: usize,
}

impl Watches {
    /// No watches, and no history before `applied`, which is what the state has applied: what
    /// happened before a start, or before an installed snapshot, can not be told (rule R30).
    #[must_use]
    pub fn new(limits: &Limits, applied: Zxid) -> Self {
        let floor = match mutation::is_on(Mutation::WatchesOverSnapshot) {
            true => Zxid::ZERO,
            false => applied,
        };
        Self {
            watchers: BTreeMap::new(),
            scopes: Scopes::default(),
            history: History::new(floor, limits.watch_history_bytes_max as usize),
            holds: Holds::new(limits),
            released: false,
            applied,
            behind: BTreeSet::new(),
            without_view: BTreeSet::new(),
            next_serial: 0,
            queued: BTreeMap::new(),
            frames: VecDeque::new(),
            budget: limits.watcher_bytes_max,
            watches_max: limits.session_watches_max as usize,
        }
    }

    /// How many watches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// The oldest zxid from which a watch can resume here.
    #[must_use]
    pub fn floor(&self) -> Zxid {
        self.history.floor()
    }

    /// The next frame to send. Frames of one stream leave in order.
    pub fn poll_frame(&mut self) -> Option<(StreamId, ServerFrame)> {
        self.frames.pop_front()
    }

    /// Begins a watch on a stream. What can not begin ends at once, with a frame that says why.
    pub fn register(&mut self, state: &mut State, stream: StreamId, watch: &Watch) {
        let key = (stream, watch.id);
        if let Err(error) = NodePath::check(&watch.path) {
            return self.end_frame(key, WatchEnd::BadPath { error });
        }
        let mut of_stream = self.watchers.range((stream, WatchId::ZERO)..);
        let of_stream = of_stream.by_ref().take_while(|((of, _), _)| *of == stream);
        if of_stream.count() >= self.watches_max || self.watchers.contains_key(&key) {
            return self.end_frame(key, WatchEnd::TooMany);
        }
        self.next_serial += 1;
        let watcher = Watcher::new(watch, self.next_serial, self.applied);
        self.scopes.insert(&watcher.path, watcher.scope, key);
        if watcher.phase == Phase::CatchingUp {
            self.holds.begin(key);
        }
        self.watchers.insert(key, watcher);
        self.behind.insert(key);
        for _ in 0..FIRST_CHUNKS {
            if self.behind.contains(&key) {
                self.tell_more(state, key);
            }
        }
    }

    /// Ends a watch at its client's wish; nothing happens if it is over.
    pub fn unwatch(&mut self, state: &mut State, stream: StreamId, watch: WatchId) {
        self.end(state, (stream, watch), WatchEnd::Unwatched);
    }

    /// Forgets the watches of a stream that ended, and what was to be sent on it.
    pub fn close_stream(&mut self, state: &mut State, stream: StreamId) {
        let of_stream = self.watchers.range((stream, WatchId::ZERO)..);
        let of_stream = of_stream.take_while(|((of, _), _)| *of == stream);
        let keys: Vec<_> = of_stream.map(|(&key, _)| key).collect();
        for key in keys {
            self.remove(state, key);
        }
        self.holds.forget(stream);
        self.queued.remove(&stream);
        self.frames.retain(|(of, _)| *of != stream);
    }

    /// A stream's client took `bytes` of what was sent.
    pub fn drained(&mut self, stream: StreamId, mut bytes: usize) {
        let Some(queue) = self.queued.get_mut(&stream) else {
            return;
        };
        while bytes > 0
            && let Some(front) = queue.front_mut()
        {
            let taken = bytes.min(front.bytes);
            bytes -= taken;
            front.bytes -= taken;
            let key = (stream, front.watch);
            if let Some(watcher) = self.watchers.get_mut(&key)
                && watcher.serial == front.serial
            {
                watcher.queued_bytes -= taken;
                watcher.idle_since = None;
                if watcher.is_behind() {
                    self.behind.insert(key);
                }
            }
            if front.bytes == 0 {
                queue.pop_front();
            }
        }
        if queue.is_empty() {
            self.queued.remove(&stream);
        }
    }

    /// Tells live watchers of a transaction that was applied, and keeps it for others.
    pub fn on_txn(&mut self, state: &mut State, txn: &AppliedTxn) {
        self.history.push(txn);
        let mut told: BTreeMap<WatcherKey, Vec<&NodeChange>> = BTreeMap::new();
        for change in &txn.changes {
            self.scopes.visit(&change.path, |key| {
                told.entry(key).or_default().push(change);
            });
        }
        for (key, changes) in told {
            self.tell_live(state, key, txn.zxid, &changes);
        }
        self.applied = txn.zxid;
    }

    /// Tells watchers that are behind more, as far as their clients take it: at most `chunks_max`
    /// chunks. True if there is more to tell at once.
    pub fn pump(&mut self, state: &mut State, chunks_max: usize) -> bool {
        self.behind.append(&mut self.without_view);
        for _ in 0..chunks_max {
            let Some(&key) = self.behind.first() else {
                return false;
            };
            self.tell_more(state, key);
        }
        !self.behind.is_empty()
    }

    /// Ends watchers whose clients have taken nothing of their snapshots in a long time: the view of
    /// a snapshot is one of few, and keeps what changes. Called now and then; a watcher's time
    /// begins with the first call that finds it so.
    pub fn end_idle_snapshots(&mut self, state: &mut State, now: Tick) {
        let mut idle = Vec::new();
        for (key, watcher) in &mut self.watchers {
            if matches!(watcher.phase, Phase::Reading(_)) {
                let since = *watcher.idle_since.get_or_insert(now);
                if now.millis_since(since) > SNAPSHOT_IDLE_MS_MAX {
                    idle.push(*key);
                }
            }
        }
        for key in idle {
            let limit = self.budget;
            self.end(state, key, WatchEnd::TooSlow { limit });
        }
    }

    /// Tells the live watchers that have nothing newer how far they are (rule R29). The mark is
    /// behind all events that it covers.
    pub fn mark_progress(&mut self) {
        let keys: Vec<_> = self.watchers.keys().copied().collect();
        for key in keys {
            self.tell_progress(key);
        }
    }
}

/// What a stream is sent beside its watches' frames.
impl Watches {
    /// A stream's client resumes a session: what it is sent is held back until the client has asked
    /// for the watches that it resumes ([`Watches::resumed`]) and they have caught up.
    /// The session is owed so many bytes of answers.
    pub(super) fn resumes(&mut self, stream: StreamId, owed: usize) {
        self.holds.announce(stream, owed);
    }

    /// A stream's client has asked for all watches that it resumes.
    pub(super) fn resumed(&mut self, stream: StreamId) {
        let frames = self.holds.announced(stream);
        self.release(stream, frames);
    }

    /// Gives a frame back that may be sent now. One that would overtake events is kept, and leaves
    /// by [`Watches::poll_frame`] behind them.
    ///
    /// # Errors
    ///
    /// More is held back than a session can be owed.
    pub(super) fn hold_back(
        &mut self,
        stream: StreamId,
        frame: ServerFrame,
    ) -> Result<Option<ServerFrame>, HeldTooMuch> {
        self.holds.hold(stream, frame)
    }

    /// Whether what is sent on a stream is held back.
    pub(super) fn holds_back(&self, stream: StreamId) -> bool {
        self.holds.has(stream)
    }

    /// Whether a stream that was held back from is so no longer, since this was asked.
    pub(super) fn take_released(&mut self) -> bool {
        core::mem::take(&mut self.released)
    }

    /// The session of a stream is over: watches that have not caught up end, and what was held back
    /// leaves. If the client has not asked for its watches, they can not be ended before that, and
    /// it stays unsaid.
    pub(super) fn finish(&mut self, state: &mut State, stream: StreamId) {
        for watch in self.holds.behind(stream) {
            self.end(state, (stream, watch), WatchEnd::SessionEnded);
        }
        self.holds.forget(stream);
    }

    /// Nothing is held back for this watcher any more.
    fn caught_up(&mut self, key: WatcherKey) {
        let frames = self.holds.end(key);
        self.release(key.0, frames);
    }

    fn release(&mut self, stream: StreamId, frames: VecDeque<ServerFrame>) {
        self.released |= !self.holds.has(stream);
        self.frames
            .extend(frames.into_iter().map(|frame| (stream, frame)));
    }
}
