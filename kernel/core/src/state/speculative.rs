//! The state that a leader executes on: the committed one, and over it what was executed here and
//! is not applied yet.

use core::ops::{Bound, ControlFlow};
use std::collections::VecDeque;

use folkmoot_proto::batch::Txn;
use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::{LogTime, Zxid, split_last};

use super::apply::{ApplyError, Stamp, apply_effect, finish_txn};
use super::committed::State;
use super::key::{Key, PathKey};
use super::slots::{Slot, Slots};
use super::store::Store;
use super::value::{Counters, Directory, Node, NodeFixed, NodeRecord, Value};
use super::view::View;

/// A committed state and the overlay over it. With an empty overlay it reads as the committed state.
#[derive(Debug)]
pub struct Speculative {
    base: State,
    overlay: Overlay,
}

/// What was executed and is not applied: changed keys, and how to take each change back.
#[derive(Debug, Default)]
struct Overlay {
    slots: Slots,
    /// Every write, oldest first.
    writes: VecDeque<Write>,
    /// Writes that were forgotten since their transactions were applied.
    forgotten: u64,
    /// The last transaction begun, its log time, and what is counted after it.
    tip: Option<Tip>,
    /// Transactions executed and not applied, oldest first.
    txns: VecDeque<Zxid>,
}

#[derive(Debug)]
struct Write {
    zxid: Zxid,
    key: Key,
    before: Option<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Tip {
    zxid: Zxid,
    log_time: LogTime,
    counters: Counters,
    /// Whether it is whole.
    finished: bool,
}

/// A point to which what was executed can be taken back.
#[derive(Debug)]
#[must_use]
pub struct Savepoint {
    writes: u64,
    tip: Option<Tip>,
    txns: usize,
}

impl Speculative {
    /// The committed state with an empty overlay.
    #[must_use]
    pub fn new(base: State) -> Self {
        Self {
            base,
            overlay: Overlay::default(),
        }
    }

    /// The committed state.
    #[must_use]
    pub fn base(&self) -> &State {
        &self.base
    }

    /// The committed state, to apply entries, to take deltas, and for consistent views. After each
    /// applied entry the overlay is told by [`Speculative::commit_through`].
    pub fn base_mut(&mut self) -> &mut State {
        &mut self.base
    }

    /// The committed state alone.
    #[must_use]
    pub fn into_base(self) -> State {
        self.base
    }

    /// Transactions in the overlay.
    #[must_use]
    pub fn overlay_txns(&self) -> usize {
        self.overlay.txns.len()
    }

    /// Applies one effect of the transaction at `stamp`: the next one, or the one that was begun by
    /// the effect before and is not finished.
    ///
    /// # Errors
    ///
    /// What does not hold. Something of the effect may be left: roll back to a savepoint.
    pub fn apply_effect(&mut self, stamp: Stamp, effect: &Effect) -> Result<(), ApplyError> {
        self.begin(stamp)?;
        apply_effect(self, stamp, effect, &mut Vec::new())
    }

    /// Ends a transaction whose effects were applied: the request's place, its reply and what it
    /// acknowledges, and completions.
    ///
    /// # Errors
    ///
    /// As [`Speculative::apply_effect`].
    pub fn finish_txn(&mut self, stamp: Stamp, txn: &Txn) -> Result<(), ApplyError> {
        self.begin(stamp)?;
        finish_txn(self, stamp, txn)?;
        if let Some(tip) = &mut self.overlay.tip {
            tip.finished = true;
        }
        Ok(())
    }

    /// Applies a whole transaction, by the same code as the replicas (rule R5).
    ///
    /// # Errors
    ///
    /// What does not hold; nothing of the transaction is left then.
    pub fn apply_txn(&mut self, stamp: Stamp, txn: &Txn) -> Result<(), ApplyError> {
        let savepoint = self.savepoint();
        let mut effects = txn.effects.iter();
        let applied = effects
            .try_for_each(|effect| self.apply_effect(stamp, effect))
            .and_then(|()| self.finish_txn(stamp, txn));
        if applied.is_err() {
            self.rollback(savepoint);
        }
        applied
    }

    /// Marks a point to come back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            writes: self.overlay.forgotten + self.overlay.writes.len() as u64,
            tip: self.overlay.tip,
            txns: self.overlay.txns.len(),
        }
    }

    /// Takes back everything that was executed since the savepoint. Savepoints made after it, and
    /// those made before the last [`Speculative::commit_through`], are void.
    pub fn rollback(&mut self, savepoint: Savepoint) {
        let overlay = &mut self.overlay;
        while overlay.forgotten + overlay.writes.len() as u64 > savepoint.writes {
            let Some(Write { key, before, .. }) = overlay.writes.pop_back() else {
                break;
            };
            match before {
                Some(slot) => overlay.slots.insert(key, slot),
                None => overlay.slots.remove(&key),
            };
        }
        overlay.tip = savepoint.tip;
        overlay.txns.truncate(savepoint.txns);
    }

    /// Forgets what the overlay holds of transactions up to `zxid`, which the base has applied.
    pub fn commit_through(&mut self, zxid: Zxid) {
        let overlay = &mut self.overlay;
        while overlay.txns.front().is_some_and(|&txn| txn <= zxid) {
            overlay.txns.pop_front();
        }
        while let Some(write) = overlay.writes.pop_front_if(|write| write.zxid <= zxid) {
            overlay.forgotten += 1;
            if overlay
                .slots
                .get(&write.key)
                .is_some_and(|slot| slot.zxid <= zxid)
            {
                overlay.slots.remove(&write.key);
            }
        }
        if overlay.txns.is_empty() {
            overlay.tip = None;
        }
    }

    /// Drops the overlay (rules R3, R4).
    pub fn reset(&mut self) {
        self.overlay = Overlay::default();
    }

    fn begin(&mut self, stamp: Stamp) -> Result<(), ApplyError> {
        let (zxid, log_time) = (self.zxid(), self.log_time());
        let open = self.overlay.tip.filter(|tip| !tip.finished);
        if open.is_some_and(|tip| tip.zxid == stamp.zxid) {
            return Ok(());
        }
        if open.is_some() || stamp.zxid != zxid.next() {
            return Err(ApplyError::NotNextTxn {
                expected: zxid.next(),
                got: stamp.zxid,
            });
        }
        if stamp.log_time < log_time {
            return Err(ApplyError::TimeWentBack {
                applied: log_time,
                got: stamp.log_time,
            });
        }
        self.overlay.tip = Some(Tip {
            zxid: stamp.zxid,
            log_time: stamp.log_time,
            counters: self.counters(),
            finished: false,
        });
        self.overlay.txns.push_back(stamp.zxid);
        Ok(())
    }
}

impl View for Speculative {
    fn zxid(&self) -> Zxid {
        self.overlay.tip.map_or(self.base.zxid(), |tip| tip.zxid)
    }

    fn log_time(&self) -> LogTime {
        self.overlay
            .tip
            .map_or(self.base.log_time(), |tip| tip.log_time)
    }

    fn bootstrap(&self) -> &Bootstrap {
        self.base.bootstrap()
    }

    fn counters(&self) -> Counters {
        self.overlay
            .tip
            .map_or(self.base.counters(), |tip| tip.counters)
    }

    fn value(&self, key: &Key) -> Option<&Value> {
        match self.overlay.slots.get(key) {
            Some(slot) => slot.value.as_ref(),
            None => self.base.value(key),
        }
    }

    fn scan<'a>(
        &'a self,
        from: &Key,
        visit: &mut dyn FnMut(&'a Key, &'a Value) -> ControlFlow<()>,
    ) {
        let mut over = self
            .overlay
            .slots
            .range_from(Bound::Included(from))
            .peekable();
        let mut stopped = false;
        self.base.scan(from, &mut |key, value| {
            while let Some((over_key, slot)) = over.next_if(|(over_key, _)| *over_key < key) {
                if let Some(value) = &slot.value
                    && visit(over_key, value).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match over.next_if(|(over_key, _)| *over_key == key) {
                Some((_, slot)) => match &slot.value {
                    Some(value) => visit(key, value),
                    None => ControlFlow::Continue(()),
                },
                None => visit(key, value),
            };
            stopped = flow.is_break();
            flow
        });
        if !stopped {
            let rest = over.filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)));
            let _ = { rest }.try_for_each(|(key, value)| visit(key, value));
        }
    }

    fn node(&self, path: &str) -> Option<Node<'_>> {
        if self.overlay.slots.is_empty() {
            return self.base.node(path);
        }
        match self.overlay.slots.get(&Key::Node(PathKey::new(path))) {
            Some(slot) => match &slot.value {
                Some(Value::Node(node)) => Some(node.as_node()),
                _ => None,
            },
            None => self.base.node(path),
        }
    }

    fn children(&self, path: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        if self.overlay.slots.is_empty() {
            return self.base.children(path, after, limit);
        }
        let mut names = Vec::new();
        let mut base = BaseChildren::new(&self.base, path, after, limit);
        let mut over = OverlayChildren::new(&self.overlay.slots, path, after);
        while names.len() < limit {
            let (from_base, from_over) = (base.peek(), over.peek());
            let take_over = match (from_base, from_over) {
                (None, None) => break,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(base_name), Some((over_name, _))) => {
                    if base_name == over_name {
                        base.advance();
                        continue;
                    }
                    over_name < base_name
                }
            };
            if take_over {
                if let Some((name, true)) = from_over {
                    names.push(name.to_owned());
                }
                over.advance();
            } else {
                names.extend(from_base.map(str::to_owned));
                base.advance();
            }
        }
        names
    }
}

impl Store for Speculative {
    fn put(&mut self, key: Key, value: Option<Value>) {
        let mut counters = self.counters();
        counters.count(&key, self.value(&key), value.as_ref());
        self.write_slot(key, value, counters);
    }

    fn insert_node(&mut self, path: &str, fixed: NodeFixed, data: &[u8]) {
        let node = Value::Node(Box::new(NodeRecord::new(fixed, data)));
        let mut counters = self.counters();
        counters.nodes += 1;
        self.write_slot(Key::Node(PathKey::new(path)), Some(node), counters);
    }

    fn set_data(&mut self, path: &str, data: &[u8], version: u64, stamp: Stamp) {
        let mut node = self.node_to_change(path);
        node.set_data(data, version, stamp);
        let node = Value::Node(Box::new(node));
        self.write_slot(Key::Node(PathKey::new(path)), Some(node), self.counters());
    }

    fn set_directory(&mut self, path: &str, directory: Directory) {
        let mut node = self.node_to_change(path);
        node.directory = directory;
        let node = Value::Node(Box::new(node));
        self.write_slot(Key::Node(PathKey::new(path)), Some(node), self.counters());
    }

    fn remove_node(&mut self, path: &str) {
        let mut counters = self.counters();
        counters.nodes -= 1;
        self.write_slot(Key::Node(PathKey::new(path)), None, counters);
    }
}

impl Speculative {
    fn write_slot(&mut self, key: Key, value: Option<Value>, counters: Counters) {
        let Some(tip) = &mut self.overlay.tip else {
            panic!("{key:?} is written outside a transaction");
        };
        tip.counters = counters;
        let zxid = tip.zxid;
        let before = self.overlay.slots.insert(key.clone(), Slot { zxid, value });
        self.overlay.writes.push_back(Write { zxid, key, before });
    }

    /// The node as it is to be written.
    fn node_to_change(&self, path: &str) -> NodeRecord {
        let key = Key::Node(PathKey::new(path));
        if let Some(slot) = self.overlay.slots.get(&key)
            && let Some(Value::Node(node)) = &slot.value
        {
            return NodeRecord::clone(node);
        }
        let Some(node) = self.node(path) else {
            panic!("no node at {path} to change");
        };
        node.to_record()
    }
}

/// The names of a base node's children, a page at a time.
struct BaseChildren<'a> {
    base: &'a State,
    path: &'a str,
    page: VecDeque<String>,
    page_names: usize,
    last: Option<String>,
    at_end: bool,
}

impl<'a> BaseChildren<'a> {
    /// Names of a page, where more than that are wanted.
    const PAGE_NAMES_MAX: usize = 256;

    fn new(base: &'a State, path: &'a str, after: Option<&str>, limit: usize) -> Self {
        let mut children = Self {
            base,
            path,
            page: VecDeque::new(),
            page_names: limit.clamp(1, Self::PAGE_NAMES_MAX),
            last: after.map(str::to_owned),
            at_end: false,
        };
        children.fill();
        children
    }

    fn peek(&self) -> Option<&str> {
        self.page.front().map(String::as_str)
    }

    fn advance(&mut self) {
        self.last = self.page.pop_front();
        self.fill();
    }

    fn fill(&mut self) {
        if !self.page.is_empty() || self.at_end {
            return;
        }
        let page = self
            .base
            .children(self.path, self.last.as_deref(), self.page_names);
        self.at_end = page.len() < self.page_names;
        self.page = page.into();
    }
}

/// The children of a node that the overlay has changed, by name, and whether each is there.
struct OverlayChildren<'a> {
    slots: &'a Slots,
    path: &'a str,
    front: Option<(&'a str, bool)>,
}

impl<'a> OverlayChildren<'a> {
    fn new(slots: &'a Slots, path: &'a str, after: Option<&str>) -> Self {
        let mut children = Self {
            slots,
            path,
            front: None,
        };
        children.seek(after);
        children
    }

    fn peek(&self) -> Option<(&'a str, bool)> {
        self.front
    }

    fn advance(&mut self) {
        if let Some((name, _)) = self.front {
            self.seek(Some(name));
        }
    }

    /// Finds the first child whose name is after `after`. What lies deeper is jumped over.
    fn seek(&mut self, after: Option<&str>) {
        let mut from = match after {
            Some(name) => PathKey::child(self.path, name).after_subtree(),
            None => PathKey::child(self.path, ""),
        };
        self.front = None;
        loop {
            let after = Key::Node(from);
            let mut slots = self.slots.range_from(Bound::Excluded(&after));
            let Some((Key::Node(found), slot)) = slots.next() else {
                return;
            };
            if !found.is_within(self.path) {
                return;
            }
            match split_last(found.as_str()) {
                Some((parent, name)) if parent == self.path => {
                    self.front = Some((name, slot.value.is_some()));
                    return;
                }
                Some(_) => from = found.child_of(self.path).after_subtree(),
                None => return,
            }
        }
    }
}
