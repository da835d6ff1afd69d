//! Watches over random histories: complete, in order, each change once (rules R29, R30), whatever
//! their clients take and when.

use std::collections::BTreeMap;

use folkmoot_core::execution::{StreamId, Watches};
use folkmoot_core::state::{AppliedTxn, State, View};
use folkmoot_proto::client::{Change, ChangeKind, ServerFrame, Watch, WatchEnd, WatchScope};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::{WatchId, Zxid, frame, split_last};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::leader::{Leader, Step, path_of};

/// What a client knows of one watch.
struct Client {
    watch: Watch,
    /// Whole transactions that it was told of.
    told: Vec<(Zxid, Vec<Change>)>,
    /// The beginning of one.
    half: Vec<Change>,
    /// The nodes of its snapshot, and its zxid.
    snapshot: BTreeMap<String, Vec<u8>>,
    snapshot_at: Option<Zxid>,
    /// Where it is.
    position: Zxid,
    ended: Option<WatchEnd>,
}

impl Client {
    fn new(watch: Watch, applied: Zxid) -> Self {
        Self {
            position: watch.from.unwrap_or(applied),
            watch,
            told: Vec::new(),
            half: Vec::new(),
            snapshot: BTreeMap::new(),
            snapshot_at: None,
            ended: None,
        }
    }

    fn take(&mut self, frame: ServerFrame) {
        assert!(self.ended.is_none(), "{frame:?} after the end");
        match frame {
            ServerFrame::WatchSnapshot {
                zxid, nodes, last, ..
            } => {
                assert!(self.snapshot_at.is_none() && self.told.is_empty());
                for node in nodes {
                    assert_eq!(self.snapshot.insert(node.path, node.data), None);
                }
                if last {
                    self.snapshot_at = Some(zxid);
                    self.position = zxid;
                }
            }
            ServerFrame::Events {
                zxid,
                changes,
                last,
                ..
            } => {
                assert!(zxid > self.position, "{zxid} after {}", self.position);
                self.half.extend(changes);
                if last {
                    self.told.push((zxid, core::mem::take(&mut self.half)));
                    self.position = zxid;
                }
            }
            ServerFrame::Progress { zxid, .. } => {
                assert!(zxid >= self.position && self.half.is_empty());
                self.position = zxid;
            }
            ServerFrame::WatchEnded { reason, .. } => self.ended = Some(reason),
            other => panic!("not of a watch: {other:?}"),
        }
    }

    fn wants(&self, path: &str) -> bool {
        let top = &self.watch.path;
        let is_child = split_last(path).is_some_and(|(parent, _)| parent == top);
        match self.watch.scope {
            WatchScope::Node => path == top,
            WatchScope::Children => path == top || is_child,
            WatchScope::Recursive => {
                let below = format!("{}/", top.trim_end_matches('/'));
                path == top || path.starts_with(&below)
            }
        }
    }

    /// What it must have been told, of all that happened.
    fn expected(&self, history: &[AppliedTxn]) -> Vec<(Zxid, Vec<Change>)> {
        let from = self.watch.from.filter(|_| !self.watch.with_snapshot);
        let from = self.snapshot_at.or(from);
        let started = from.unwrap_or(self.watch_began());
        let txns = history.iter();
        let txns = txns.filter(|txn| txn.zxid > started && txn.zxid <= self.position);
        let told = txns.map(|txn| {
            let changes = txn.changes.iter().filter(|change| self.wants(&change.path));
            let changes = changes.map(|change| Change {
                path: change.path.clone(),
                kind: change.kind,
                data: if self.watch.with_data {
                    change.data.to_vec()
                } else {
                    Vec::new()
                },
                version: change.version,
            });
            (txn.zxid, changes.collect::<Vec<_>>())
        });
        told.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    fn watch_began(&self) -> Zxid {
        self.watch.from.unwrap_or(Zxid::ZERO)
    }

    /// Its snapshot with every change that it was told put over it.
    fn replayed(&self) -> BTreeMap<String, Vec<u8>> {
        let mut nodes = self.snapshot.clone();
        for change in self.told.iter().flat_map(|(_, changes)| changes) {
            match change.kind {
                ChangeKind::Created => {
                    let before = nodes.insert(change.path.clone(), change.data.clone());
                    assert_eq!(before, None, "{}", change.path);
                }
                ChangeKind::Set => {
                    let before = nodes.insert(change.path.clone(), change.data.clone());
                    assert!(before.is_some(), "{}", change.path);
                }
                ChangeKind::Deleted => {
                    assert!(nodes.remove(&change.path).is_some(), "{}", change.path);
                }
            }
        }
        nodes
    }
}

/// A member that serves watches.
struct Member {
    leader: Leader,
    watches: Watches,
    history: Vec<AppliedTxn>,
    clients: BTreeMap<(StreamId, WatchId), Client>,
    over: Vec<Client>,
    next_watch: u64,
    /// Bytes sent and not taken, for each stream.
    sent: BTreeMap<StreamId, usize>,
}

impl Member {
    fn new(limits: &Limits) -> Self {
        Self {
            leader: Leader::new(),
            watches: Watches::new(limits, Zxid::ZERO),
            history: Vec::new(),
            clients: BTreeMap::new(),
            over: Vec::new(),
            next_watch: 1,
            sent: BTreeMap::new(),
        }
    }

    fn state(&mut self) -> &mut State {
        self.leader.state.base_mut()
    }

    fn apply(&mut self) {
        self.leader.cut();
        while let Some(applied) = self.leader.apply_one() {
            for txn in applied {
                self.watches.on_txn(self.leader.state.base_mut(), &txn);
                self.history.push(txn);
            }
        }
    }

    fn act(&mut self, (kind, a, b, c): Step) {
        let stream = StreamId(u64::from(a % 3));
        match kind % 8 {
            0 | 1 => self.register(stream, b, c),
            2 => {
                let mut of_stream = self.clients.keys().filter(|key| key.0 == stream);
                if let Some(&(_, watch)) = of_stream.next() {
                    self.watches
                        .unwatch(self.leader.state.base_mut(), stream, watch);
                }
            }
            3 => self.watches.mark_progress(),
            4 => drop(
                self.watches
                    .pump(self.leader.state.base_mut(), usize::from(b % 4)),
            ),
            5 => self.drain(stream, usize::from(b) * 8),
            6 if b.is_multiple_of(8) => {
                self.watches
                    .close_stream(self.leader.state.base_mut(), stream);
                let closed = |key: &(StreamId, WatchId)| key.0 == stream;
                let clients = core::mem::take(&mut self.clients);
                let (gone, stay): (BTreeMap<_, _>, _) =
                    clients.into_iter().partition(|(key, _)| closed(key));
                self.over.extend(gone.into_values());
                self.clients = stay;
                self.sent.remove(&stream);
            }
            _ => self.drain(stream, usize::MAX),
        }
        self.deliver();
    }

    fn register(&mut self, stream: StreamId, b: u8, c: u8) {
        let watch = Watch {
            id: WatchId(self.next_watch),
            path: if c.is_multiple_of(3) {
                "/".into()
            } else {
                path_of(b, c)
            },
            scope: match b % 3 {
                0 => WatchScope::Node,
                1 => WatchScope::Children,
                _ => WatchScope::Recursive,
            },
            from: (!c.is_multiple_of(4)).then(|| {
                let applied = self.leader.state.base().zxid().0;
                Zxid((applied + 3).saturating_sub(u64::from(c / 4)))
            }),
            with_snapshot: b.is_multiple_of(2),
            with_data: c.is_multiple_of(2) || b.is_multiple_of(2),
        };
        self.next_watch += 1;
        let applied = self.state().zxid();
        let mut client = Client::new(watch.clone(), applied);
        if watch.from.is_none() {
            client.watch.from = Some(applied);
        }
        if watch.with_snapshot {
            client.position = Zxid::ZERO;
        }
        self.clients.insert((stream, watch.id), client);
        self.watches
            .register(self.leader.state.base_mut(), stream, &watch);
    }

    fn drain(&mut self, stream: StreamId, bytes: usize) {
        let sent = self.sent.entry(stream).or_default();
        let taken = bytes.min(*sent);
        *sent -= taken;
        self.watches.drained(stream, taken);
    }

    /// Takes the frames that are to be sent.
    fn deliver(&mut self) {
        while let Some((stream, frame)) = self.watches.poll_frame() {
            let watch = match &frame {
                ServerFrame::Events { watch, .. }
                | ServerFrame::WatchSnapshot { watch, .. }
                | ServerFrame::Progress { watch, .. }
                | ServerFrame::WatchEnded { watch, .. } => *watch,
                other => panic!("not of a watch: {other:?}"),
            };
            let mut bytes = Vec::new();
            if let Err(error) = frame::encode(&frame, &mut bytes) {
                panic!("{error}");
            }
            *self.sent.entry(stream).or_default() += bytes.len();
            let key = (stream, watch);
            let Some(client) = self.clients.get_mut(&key) else {
                panic!("a frame for {key:?}, which is over");
            };
            client.take(frame);
            if client.ended.is_some() {
                self.over.extend(self.clients.remove(&key));
            }
        }
    }

    /// Takes everything until all watchers are live and up to date.
    fn settle(&mut self) {
        loop {
            for stream in 0..3 {
                self.drain(StreamId(stream), usize::MAX);
            }
            let more = self.watches.pump(self.leader.state.base_mut(), 1000);
            self.watches.mark_progress();
            self.deliver();
            if !more && self.sent.values().all(|&bytes| bytes == 0) {
                return;
            }
        }
    }
}

fn limits(history: u32, budget: u32) -> Limits {
    Limits {
        watch_history_bytes_max: history,
        watcher_bytes_max: budget,
        session_watches_max: 8,
        ..Limits::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn watchers_are_told_everything_once_and_in_order(
        steps in vec((any::<Step>(), any::<Step>()), 1..120),
        small_history in any::<bool>(),
        small_budget in any::<bool>(),
    ) {
        let history = if small_history { 2_000 } else { 1 << 20 };
        let budget = if small_budget { 600 } else { 1 << 20 };
        let mut member = Member::new(&limits(history, budget));
        for (step, act) in steps {
            member.leader.execute(step);
            if act.1 % 3 == 0 {
                member.apply();
                member.deliver();
            }
            if act.0 % 3 != 0 {
                member.act(act);
            }
        }
        member.apply();
        member.settle();
        let applied = member.leader.state.base().zxid();
        let over = member.over.iter();
        for client in over.chain(member.clients.values()) {
            if client.watch.with_snapshot && client.snapshot_at.is_none() {
                continue;
            }
            prop_assert_eq!(&client.told, &client.expected(&member.history));
            match &client.ended {
                Some(WatchEnd::Compacted { .. }) => prop_assert!(small_history),
                Some(WatchEnd::TooSlow { .. }) => prop_assert!(small_budget),
                _ => {}
            }
        }
        // Who is left is up to date, also if the last changes did not concern it.
        for client in member.clients.values() {
            prop_assert!(client.ended.is_none());
            prop_assert_eq!(client.position.max(applied), client.position);
            if client.watch.with_snapshot && client.watch.with_data {
                let state = member.leader.state.base();
                let now = nodes_of(state).into_iter().filter(|(path, _)| client.wants(path));
                prop_assert_eq!(client.replayed(), now.collect::<BTreeMap<_, _>>());
            }
        }
    }
}

fn nodes_of(state: &State) -> BTreeMap<String, Vec<u8>> {
    let mut nodes = BTreeMap::new();
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        for name in state.children(&path, None, usize::MAX) {
            paths.push(format!("{}/{name}", path.trim_end_matches('/')));
        }
        if let Some(node) = state.node(&path) {
            nodes.insert(path, node.data.to_vec());
        }
    }
    nodes
}

fn watch(id: u64, path: &str, from: Option<Zxid>) -> Watch {
    Watch {
        id: WatchId(id),
        path: path.into(),
        scope: WatchScope::Recursive,
        from,
        with_snapshot: false,
        with_data: true,
    }
}

fn frames(watches: &mut Watches) -> Vec<ServerFrame> {
    core::iter::from_fn(|| watches.poll_frame())
        .map(|(_, frame)| frame)
        .collect()
}

/// A member with some changes below `/a`.
fn busy_member(history: u32, budget: u32) -> Member {
    let mut member = Member::new(&limits(history, budget));
    member.leader.execute((0, 0, 0, 0));
    for _ in 0..20 {
        member.leader.execute((2, 0, 0, 0));
    }
    member.apply();
    member
}

/// Rule R30: what is gone is told, and by how much.
#[test]
fn history_that_is_gone_is_told() {
    let mut member = busy_member(500, 1 << 20);
    let floor = member.watches.floor();
    assert!(floor > Zxid::ZERO);
    for (id, from) in [(1, Zxid(floor.0 - 1)), (2, floor)] {
        let watch = watch(id, "/", Some(from));
        member
            .watches
            .register(member.leader.state.base_mut(), StreamId(1), &watch);
    }
    let frames = frames(&mut member.watches);
    let reason = WatchEnd::Compacted { floor };
    let ended = ServerFrame::WatchEnded {
        watch: WatchId(1),
        reason,
    };
    assert_eq!(frames[0], ended);
    assert!(
        matches!(frames[1], ServerFrame::Events { watch: WatchId(2), zxid, .. } if zxid == floor.next())
    );
    assert_eq!(member.watches.len(), 1);
}

/// Rule R30: a machine on a state that was installed tells nothing of what came before it.
#[test]
fn an_installed_state_has_no_history() {
    let mut member = busy_member(1 << 20, 1 << 20);
    let floor = member.leader.state.base().zxid();
    member.watches = Watches::new(&Limits::default(), floor);
    let early = watch(1, "/a", Some(Zxid(floor.0 - 1)));
    let first = watch(2, "/a", Some(floor));
    for watch in [early, first] {
        member
            .watches
            .register(member.leader.state.base_mut(), StreamId(1), &watch);
    }
    let compacted = ServerFrame::WatchEnded {
        watch: WatchId(1),
        reason: WatchEnd::Compacted { floor },
    };
    let told = ServerFrame::Progress {
        watch: WatchId(2),
        zxid: floor,
    };
    assert_eq!(frames(&mut member.watches), [compacted, told]);
}

/// Rule R29: a watch from a zxid in the future waits for it, and hears nothing before.
#[test]
fn a_watch_from_the_future_waits() {
    let mut member = busy_member(1 << 20, 1 << 20);
    let applied = member.leader.state.base().zxid();
    let future = watch(1, "/", Some(Zxid(applied.0 + 2)));
    member
        .watches
        .register(member.leader.state.base_mut(), StreamId(1), &future);
    for _ in 0..3 {
        member.watches.mark_progress();
        assert_eq!(frames(&mut member.watches), []);
        member.leader.execute((2, 0, 0, 0));
        member.apply();
    }
    let frames = frames(&mut member.watches);
    assert!(
        matches!(frames[..], [ServerFrame::Events { zxid, .. }] if zxid.0 == applied.0 + 3),
        "{frames:?}"
    );
}

/// A quiet watch hears how far it is, once, behind its events.
#[test]
fn progress_is_told_behind_events() {
    let mut member = busy_member(1 << 20, 1 << 20);
    let quiet = watch(1, "/z", None);
    member
        .watches
        .register(member.leader.state.base_mut(), StreamId(1), &quiet);
    frames(&mut member.watches);
    member.watches.drained(StreamId(1), 1000);
    member.leader.execute((2, 0, 0, 0));
    member.apply();
    member.watches.mark_progress();
    member.watches.mark_progress();
    let zxid = member.leader.state.base().zxid();
    let watch = WatchId(1);
    assert_eq!(
        frames(&mut member.watches),
        [ServerFrame::Progress { watch, zxid }]
    );
}

/// One that falls behind its budget is ended, and others go on.
#[test]
fn a_slow_watcher_is_ended_alone() {
    let mut member = busy_member(1 << 20, 400);
    for stream in [1, 2] {
        let watch = watch(1, "/", None);
        member
            .watches
            .register(member.leader.state.base_mut(), StreamId(stream), &watch);
    }
    for _ in 0..40 {
        member.leader.execute((2, 0, 6, 0));
        member.apply();
        member.watches.drained(StreamId(2), 400);
    }
    let mut ended = Vec::new();
    let mut told = 0;
    while let Some((stream, frame)) = member.watches.poll_frame() {
        match frame {
            ServerFrame::WatchEnded { reason, .. } => ended.push((stream, reason)),
            ServerFrame::Events { .. } if stream == StreamId(2) => told += 1,
            _ => {}
        }
    }
    assert_eq!(ended, [(StreamId(1), WatchEnd::TooSlow { limit: 400 })]);
    assert_eq!(told, 40);
    assert_eq!(member.watches.len(), 1);
}

/// The limits of a stream, and a name that is in use.
#[test]
fn too_many_watches_and_names_in_use_are_refused() {
    let mut member = busy_member(1 << 20, 1 << 20);
    for id in 1..=8 {
        let watch = watch(id, "/a", None);
        member
            .watches
            .register(member.leader.state.base_mut(), StreamId(1), &watch);
    }
    let is_refusal = |frame: &ServerFrame| {
        let reason = WatchEnd::TooMany;
        matches!(frame, ServerFrame::WatchEnded { reason: of, .. } if *of == reason)
    };
    assert!(!frames(&mut member.watches).iter().any(is_refusal));
    for (stream, id) in [(1, 9), (1, 8)] {
        let watch = watch(id, "/a", None);
        member
            .watches
            .register(member.leader.state.base_mut(), StreamId(stream), &watch);
        let frames = frames(&mut member.watches);
        assert!(
            matches!(&frames[..], [frame] if is_refusal(frame)),
            "{frames:?}"
        );
    }
    assert_eq!(member.watches.len(), 8);
    let bad = watch(1, "a", None);
    member
        .watches
        .register(member.leader.state.base_mut(), StreamId(2), &bad);
    assert!(matches!(
        frames(&mut member.watches)[..],
        [ServerFrame::WatchEnded {
            reason: WatchEnd::BadPath { .. },
            ..
        }]
    ));
}
