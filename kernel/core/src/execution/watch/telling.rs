//! Making a watcher's frames.

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Change, ServerFrame, SnapshotNode, WatchEnd};
use folkmoot_proto::limits::CHUNK_BYTES_MAX;

use super::scopes::concerns;
use super::watcher::Phase;
use super::{Queued, WatcherKey, Watches};
use crate::mutation::{self, Mutation};
use crate::state::{NodeChange, State, ViewId};

/// What a frame, and each change or node in one, takes beside its texts and values. No more than
/// it takes encoded, so that what a client takes always covers what was counted.
const FIXED_BYTES: usize = 16;
/// Transactions of the history that are looked at in one go.
const CATCH_UP_TXNS: usize = 4096;

impl Watches {
    /// Tells a watcher that is behind a chunk more. It is taken out of those that can be told more
    /// if it is live, over, or has as much queued as it may.
    pub(super) fn tell_more(&mut self, state: &mut State, key: WatcherKey) {
        let Some(watcher) = self.watchers.get(&key) else {
            self.behind.remove(&key);
            return;
        };
        // Half of the budget, so that a watcher that becomes live has the other half.
        if watcher.queued_bytes > self.budget as usize / 2 {
            self.behind.remove(&key);
            return;
        }
        match watcher.phase {
            Phase::Snapshot => self.open_snapshot(state, key),
            Phase::Reading(view) => self.tell_snapshot(state, key, view),
            Phase::CatchingUp => self.tell_history(state, key),
            Phase::Live => drop(self.behind.remove(&key)),
        }
    }

    /// Tells a live watcher of the changes of a transaction, all of which concern it.
    pub(super) fn tell_live(
        &mut self,
        state: &mut State,
        key: WatcherKey,
        zxid: Zxid,
        changes: &[&NodeChange],
    ) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        if watcher.phase != Phase::Live || watcher.position >= zxid {
            return;
        }
        let with_data = watcher.with_data;
        let bytes: usize = changes.iter().map(|it| change_bytes(it, with_data)).sum();
        let queued = watcher.queued_bytes;
        if queued > 0 && queued + bytes > self.budget as usize {
            let limit = self.budget;
            return self.end(state, key, WatchEnd::TooSlow { limit });
        }
        watcher.position = zxid;
        self.push_events(key, zxid, changes, with_data);
    }

    /// Tells a live watcher how far it is, if it does not know and has nothing queued.
    pub(super) fn tell_progress(&mut self, key: WatcherKey) {
        let applied = self.applied;
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        let is_ready = watcher.phase == Phase::Live && watcher.queued_bytes == 0;
        let is_ready = is_ready || mutation::is_on(Mutation::ProgressAhead);
        if !is_ready || watcher.position >= applied {
            return;
        }
        watcher.position = applied;
        self.push_progress(key, applied);
    }

    /// Ends a watcher, if it is there.
    pub(super) fn end(&mut self, state: &mut State, key: WatcherKey, reason: WatchEnd) {
        if self.remove(state, key) {
            self.end_frame(key, reason);
            self.caught_up(key);
        }
    }

    /// Takes a watcher out; whether it was there.
    pub(super) fn remove(&mut self, state: &mut State, key: WatcherKey) -> bool {
        let Some(watcher) = self.watchers.remove(&key) else {
            return false;
        };
        if let Phase::Reading(view) = watcher.phase {
            state.close_view(view);
        }
        self.scopes.remove(&watcher.path, watcher.scope, key);
        self.behind.remove(&key);
        self.without_view.remove(&key);
        true
    }

    pub(super) fn end_frame(&mut self, (stream, watch): WatcherKey, reason: WatchEnd) {
        let frame = ServerFrame::WatchEnded { watch, reason };
        self.frames.push_back((stream, frame));
    }

    fn open_snapshot(&mut self, state: &mut State, key: WatcherKey) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        match state.open_view(watcher.span()) {
            Ok(view) => {
                watcher.phase = Phase::Reading(view);
                self.tell_snapshot(state, key, view);
            }
            Err(_) => {
                self.behind.remove(&key);
                self.without_view.insert(key);
            }
        }
    }

    fn tell_snapshot(&mut self, state: &mut State, key: WatcherKey, view: ViewId) {
        let chunk_bytes = self.chunk_bytes();
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        let Some(zxid) = state.view_meta(view).map(|meta| meta.zxid) else {
            panic!("the view of a watch's snapshot is open until it is read");
        };
        let mut nodes = Vec::new();
        let mut bytes = FIXED_BYTES;
        let last = state.read_view_nodes(view, &mut |path, node| {
            let data = if watcher.with_data { node.data } else { &[] };
            bytes += FIXED_BYTES + path.len() + data.len();
            nodes.push(SnapshotNode {
                path: path.to_owned(),
                data: data.to_vec(),
                stat: node.stat,
            });
            bytes < chunk_bytes
        });
        if last {
            state.close_view(view);
            watcher.phase = Phase::CatchingUp;
            watcher.position = zxid;
            self.holds.begin(key);
        }
        let frame = ServerFrame::WatchSnapshot {
            watch: key.1,
            zxid,
            nodes,
            last,
        };
        self.push(key, frame, bytes);
    }

    fn tell_history(&mut self, state: &mut State, key: WatcherKey) {
        let Some(watcher) = self.watchers.get(&key) else {
            return;
        };
        let with_data = watcher.with_data;
        let floor = self.history.floor();
        if watcher.position < floor && !mutation::is_on(Mutation::SkipCompacted) {
            return self.end(state, key, WatchEnd::Compacted { floor });
        }
        let mut position = watcher.position;
        for _ in 0..CATCH_UP_TXNS {
            let Some((zxid, changes)) = self.history.after(position) else {
                return self.go_live(key, position);
            };
            position = zxid;
            let changes = changes.iter();
            let watched =
                changes.filter(|change| concerns(watcher.scope, &watcher.path, &change.path));
            let watched: Vec<_> = watched.cloned().collect();
            if !watched.is_empty() {
                self.push_events(key, zxid, &watched.iter().collect::<Vec<_>>(), with_data);
                break;
            }
        }
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.position = position;
        }
    }

    /// A watcher was told all there is: it is told more as it comes, and hears that it is up to date.
    fn go_live(&mut self, key: WatcherKey, position: Zxid) {
        self.behind.remove(&key);
        let applied = self.applied;
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.phase = Phase::Live;
            watcher.position = position.max(applied);
            if position <= applied {
                self.push_progress(key, applied);
            }
        }
        self.caught_up(key);
    }

    fn push_progress(&mut self, key: WatcherKey, zxid: Zxid) {
        let frame = ServerFrame::Progress { watch: key.1, zxid };
        self.push(key, frame, FIXED_BYTES);
    }

    /// Sends the changes of one transaction, in as many frames as it takes.
    fn push_events(
        &mut self,
        key: WatcherKey,
        zxid: Zxid,
        changes: &[&NodeChange],
        with_data: bool,
    ) {
        let mut changes = changes.iter().peekable();
        while changes.peek().is_some() {
            let mut bytes = FIXED_BYTES;
            let mut chunk = Vec::new();
            // One at least, however little the budget is.
            while (chunk.is_empty() || bytes < self.chunk_bytes())
                && let Some(change) = changes.next()
            {
                bytes += change_bytes(change, with_data);
                chunk.push(Change {
                    path: change.path.clone(),
                    kind: change.kind,
                    data: if with_data {
                        change.data.to_vec()
                    } else {
                        vec![]
                    },
                    version: change.version,
                });
            }
            let frame = ServerFrame::Events {
                watch: key.1,
                zxid,
                changes: chunk,
                last: changes.peek().is_none(),
            };
            self.push(key, frame, bytes);
        }
    }

    /// Bytes of a frame, about: a watcher that is behind is told some frames ahead.
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES_MAX.min(self.budget as usize / 4)
    }

    fn push(&mut self, key: WatcherKey, frame: ServerFrame, bytes: usize) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        watcher.queued_bytes += bytes;
        let queued = Queued {
            watch: key.1,
            serial: watcher.serial,
            bytes,
        };
        self.queued.entry(key.0).or_default().push_back(queued);
        self.frames.push_back((key.0, frame));
    }
}

fn change_bytes(change: &NodeChange, with_data: bool) -> usize {
    let data = if with_data { change.data.len() } else { 0 };
    FIXED_BYTES + change.path.len() + data
}
