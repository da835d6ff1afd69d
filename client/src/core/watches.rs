//! Watches: whole transactions, in order, over any number of streams (rules R28–R30).

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::client::{Change, SnapshotNode, Watch, WatchEnd};
use folkmoot_proto::{MemberId, WatchId, Zxid};

use super::{Members, Violation};
use crate::error::WatchError;

/// What a watch has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WatchNews {
    /// It is in place: every change after this zxid will be told.
    Began(Zxid),
    /// The nodes as of one zxid, whole.
    Snapshot {
        zxid: Zxid,
        nodes: Vec<SnapshotNode>,
    },
    /// One transaction's changes, whole.
    Events { zxid: Zxid, changes: Vec<Change> },
    /// Everything up to this zxid was told.
    Progress(Zxid),
    /// It ended.
    Over(WatchError),
}

/// What follows from a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequence {
    pub(crate) news: Vec<(WatchId, WatchNews)>,
    /// Another member may have the history that this one has not.
    pub(crate) try_elsewhere: bool,
    /// A whole transaction or a mark was seen up to here.
    pub(crate) seen: Option<Zxid>,
}

#[derive(Debug)]
struct State {
    watch: Watch,
    /// The end of the last whole transaction; none before the beginning is known.
    position: Option<Zxid>,
    /// What the session had seen when the watch was first sent: where it begins if the stream is
    /// lost before a member said where.
    fallback: Option<Zxid>,
    began: bool,
    /// The snapshot arrived whole, or none is wanted.
    snapshot_done: bool,
    nodes: Vec<SnapshotNode>,
    /// The transaction that is arriving, and its changes so far.
    half: Option<(Zxid, Vec<Change>)>,
    /// The members that have no history from `position`.
    compacted_at: BTreeSet<MemberId>,
    /// How often that was said, by whichever member.
    compacted_answers: usize,
    sent: bool,
}

/// The watches of a session.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    states: BTreeMap<WatchId, State>,
    last: WatchId,
    /// Ended here, and not yet told to the member.
    unwatch: Vec<WatchId>,
}

/// What to send for a watch.
pub(crate) enum WatchFrame {
    Watch(Watch),
    Unwatch(WatchId),
}

impl Watches {
    /// Takes a watch; its id is given here.
    pub(crate) fn submit(&mut self, mut watch: Watch) -> WatchId {
        self.last = self.last.next();
        watch.id = self.last;
        let state = State {
            position: watch.from,
            fallback: None,
            began: false,
            snapshot_done: !watch.with_snapshot,
            nodes: Vec::new(),
            half: None,
            compacted_at: BTreeSet::new(),
            compacted_answers: 0,
            sent: false,
            watch,
        };
        self.states.insert(self.last, state);
        self.last
    }

    /// Nobody listens to a watch any more.
    pub(crate) fn end(&mut self, id: WatchId) {
        if self.states.remove(&id).is_some_and(|state| state.sent) {
            self.unwatch.push(id);
        }
    }

    /// A new stream: every watch begins again behind its last whole transaction. A half one is
    /// thrown away (rule R29).
    pub(crate) fn attached(&mut self) {
        self.unwatch.clear();
        for state in self.states.values_mut() {
            state.half = None;
            state.nodes.clear();
            state.sent = false;
        }
    }

    pub(crate) fn poll(&mut self, last_seen: Zxid) -> Option<WatchFrame> {
        if let Some(id) = self.unwatch.pop() {
            return Some(WatchFrame::Unwatch(id));
        }
        let state = self.states.values_mut().find(|state| !state.sent)?;
        state.sent = true;
        let mut watch = state.watch.clone();
        watch.with_snapshot = !state.snapshot_done;
        watch.from = if watch.with_snapshot {
            None
        } else {
            state.position.or(state.fallback)
        };
        state.fallback.get_or_insert(last_seen);
        Some(WatchFrame::Watch(watch))
    }

    pub(crate) fn handle_events(
        &mut self,
        id: WatchId,
        zxid: Zxid,
        changes: Vec<Change>,
        last: bool,
    ) -> Result<Consequence, Violation> {
        let Some(state) = self.states.get_mut(&id) else {
            // An event that crossed an `Unwatch`.
            return Ok(Consequence::default());
        };
        if !state.snapshot_done || state.position.is_some_and(|position| zxid <= position) {
            return Err(Violation::EventOutOfOrder { watch: id, zxid });
        }
        match &mut state.half {
            Some((half, held)) if *half == zxid => held.extend(changes),
            Some(_) => return Err(Violation::EventOutOfOrder { watch: id, zxid }),
            half => *half = Some((zxid, changes)),
        }
        let mut consequence = Consequence::default();
        if last && let Some((_, changes)) = state.half.take() {
            state.begin(id, zxid, &mut consequence);
            state.moved_to(zxid, &mut consequence);
            consequence
                .news
                .push((id, WatchNews::Events { zxid, changes }));
        }
        Ok(consequence)
    }

    pub(crate) fn handle_snapshot(
        &mut self,
        id: WatchId,
        zxid: Zxid,
        nodes: Vec<SnapshotNode>,
        last: bool,
    ) -> Result<Consequence, Violation> {
        let mut consequence = Consequence::default();
        let Some(state) = self.states.get_mut(&id) else {
            return Ok(consequence);
        };
        if state.snapshot_done {
            return Err(Violation::EventOutOfOrder { watch: id, zxid });
        }
        state.nodes.extend(nodes);
        if last {
            state.snapshot_done = true;
            let nodes = std::mem::take(&mut state.nodes);
            state.begin(id, zxid, &mut consequence);
            state.moved_to(zxid, &mut consequence);
            consequence
                .news
                .push((id, WatchNews::Snapshot { zxid, nodes }));
        }
        Ok(consequence)
    }

    pub(crate) fn handle_progress(
        &mut self,
        id: WatchId,
        zxid: Zxid,
    ) -> Result<Consequence, Violation> {
        let mut consequence = Consequence::default();
        let Some(state) = self.states.get_mut(&id) else {
            return Ok(consequence);
        };
        if state.half.is_some() {
            return Err(Violation::EventOutOfOrder { watch: id, zxid });
        }
        // Before a snapshot is whole, a mark says nothing of it.
        if state.snapshot_done {
            state.begin(id, zxid, &mut consequence);
            if state.position.is_none_or(|position| position < zxid) {
                state.moved_to(zxid, &mut consequence);
                consequence.news.push((id, WatchNews::Progress(zxid)));
            }
        }
        Ok(consequence)
    }

    pub(crate) fn handle_ended(
        &mut self,
        id: WatchId,
        reason: WatchEnd,
        at: MemberId,
        members: &Members,
    ) -> Consequence {
        let mut consequence = Consequence::default();
        let Some(state) = self.states.get_mut(&id) else {
            return consequence;
        };
        let error = match reason {
            WatchEnd::Compacted { floor } => {
                state.compacted_at.insert(at);
                state.compacted_answers += 1;
                // Each move tries another member first, so after as many of them as there are
                // members, those that did not say it can not be reached.
                let asked_all = members.iter().all(|at| state.compacted_at.contains(at));
                if !asked_all && state.compacted_answers < members.len() {
                    consequence.try_elsewhere = true;
                    return consequence;
                }
                WatchError::Compacted { floor }
            }
            reason => WatchError::Ended(reason),
        };
        self.states.remove(&id);
        consequence.news.push((id, WatchNews::Over(error)));
        consequence
    }

    /// The session is over.
    pub(crate) fn drain(&mut self) -> Vec<WatchId> {
        let left = self.states.keys().copied().collect();
        self.states.clear();
        left
    }
}

impl State {
    fn begin(&mut self, id: WatchId, zxid: Zxid, consequence: &mut Consequence) {
        if !std::mem::replace(&mut self.began, true) {
            let from = self.position.unwrap_or(zxid);
            consequence.news.push((id, WatchNews::Began(from)));
        }
    }

    fn moved_to(&mut self, zxid: Zxid, consequence: &mut Consequence) {
        self.position = Some(zxid);
        self.compacted_at.clear();
        self.compacted_answers = 0;
        consequence.seen = Some(zxid);
    }
}
