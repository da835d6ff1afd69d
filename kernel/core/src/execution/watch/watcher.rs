//! One watcher: what it watches, and how far it was told.

use folkmoot_proto::client::{Watch, WatchScope};
use folkmoot_proto::{Tick, Zxid};

use crate::mutation::{self, Mutation};
use crate::state::{Span, ViewId};

/// A watch of one client.
#[derive(Debug)]
pub(super) struct Watcher {
    /// No other watcher has it.
    pub(super) serial: u64,
    pub(super) path: String,
    pub(super) scope: WatchScope,
    pub(super) with_data: bool,
    pub(super) phase: Phase,
    /// Everything up to here was told, or is not wanted.
    pub(super) position: Zxid,
    /// Bytes of its frames that its client has not taken.
    pub(super) queued_bytes: usize,
    /// Since when its client is known to have taken nothing of its snapshot.
    pub(super) idle_since: Option<Tick>,
}

/// How a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It wants a snapshot, and has no view yet.
    Snapshot,
    /// It is told its snapshot from this view.
    Reading(ViewId),
    /// It is told what the history has.
    CatchingUp,
    /// It is told each transaction as it is applied.
    Live,
}

impl Watcher {
    pub(super) fn new(watch: &Watch, serial: u64, applied: Zxid) -> Self {
        let mut position = watch.from.unwrap_or(applied);
        if mutation::is_on(Mutation::ResumeInclusive) {
            position.0 = position.0.saturating_sub(1);
        }
        Self {
            serial,
            path: watch.path.clone(),
            scope: watch.scope,
            with_data: watch.with_data,
            phase: if watch.with_snapshot {
                Phase::Snapshot
            } else {
                Phase::CatchingUp
            },
            position,
            queued_bytes: 0,
            idle_since: None,
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.phase != Phase::Live
    }

    /// The part of the state that its snapshot is of.
    pub(super) fn span(&self) -> Span {
        match self.scope {
            WatchScope::Node => Span::Node(self.path.clone()),
            WatchScope::Children => Span::Children(self.path.clone()),
            WatchScope::Recursive => Span::Subtree(self.path.clone()),
        }
    }
}
