//! The committed state.

use core::ops::{Bound, ControlFlow};
use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapError};
use folkmoot_proto::{LogIndex, LogTime, Term, Zxid};

use super::apply::Stamp;
use super::kernel_nodes;
use super::key::{Key, PathKey};
use super::store::Store;
use super::value::{Counters, Directory, Node, NodeFixed, NodeRecord, Value};
use super::view::View;

/// The replicated state, as far as this member has applied the log.
#[derive(Debug)]
pub struct State {
    bootstrap: Bootstrap,
    bootstrap_bytes: Bytes,
    position: Position,
    counters: Counters,
    records: BTreeMap<Key, Value>,
}

/// Where in the log a state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last entry applied.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The last transaction applied.
    pub zxid: Zxid,
    /// The last log time applied (rule R9).
    pub log_time: LogTime,
}

impl State {
    /// The state before entry 1, which `bootstrap` is the payload of.
    ///
    /// # Errors
    ///
    /// What is wrong with `bootstrap`.
    pub fn new(bootstrap: Bytes) -> Result<Self, BootstrapError> {
        let mut state = Self {
            bootstrap: Bootstrap::from_bytes(&bootstrap)?,
            bootstrap_bytes: bootstrap,
            position: Position::default(),
            counters: Counters::default(),
            records: BTreeMap::new(),
        };
        let bootstrap = state.bootstrap.clone();
        kernel_nodes::make_first(&mut state, &bootstrap);
        Ok(state)
    }

    /// Where in the log this state stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Moves the position, whose entry was applied.
    pub(super) fn move_to(&mut self, position: Position) {
        self.position = position;
    }

    /// The bootstrap entry's payload.
    #[must_use]
    pub fn bootstrap_bytes(&self) -> &Bytes {
        &self.bootstrap_bytes
    }

    fn change_node(&mut self, path: &str, change: impl FnOnce(&mut NodeRecord)) {
        let Some(Value::Node(node)) = self.records.get_mut(&Key::Node(PathKey::new(path))) else {
            panic!("no node at {path} to change");
        };
        change(node);
    }
}

impl View for State {
    fn zxid(&self) -> Zxid {
        self.position.zxid
    }

    fn log_time(&self) -> LogTime {
        self.position.log_time
    }

    fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn value(&self, key: &Key) -> Option<&Value> {
        self.records.get(key)
    }

    fn scan<'a>(
        &'a self,
        from: &Key,
        visit: &mut dyn FnMut(&'a Key, &'a Value) -> ControlFlow<()>,
    ) {
        let _ = self
            .records
            .range(from..)
            .try_for_each(|(key, value)| visit(key, value));
    }

    fn node(&self, path: &str) -> Option<Node<'_>> {
        match self.records.get(&Key::Node(PathKey::new(path)))? {
            Value::Node(node) => Some(node.as_node()),
            _ => None,
        }
    }

    fn children(&self, path: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut from = match after {
            Some(name) => PathKey::child(path, name).after_subtree(),
            None => PathKey::child(path, ""),
        };
        while names.len() < limit {
            let range = (Bound::Excluded(Key::Node(from)), Bound::Unbounded);
            match self.records.range(range).next() {
                Some((Key::Node(found), _)) if found.is_within(path) => {
                    names.push(found.name().to_owned());
                    from = found.after_subtree();
                }
                _ => break,
            }
        }
        names
    }
}

impl Store for State {
    fn put(&mut self, key: Key, value: Option<Value>) {
        let before = match &value {
            Some(value) => self.records.insert(key.clone(), value.clone()),
            None => self.records.remove(&key),
        };
        self.counters.count(&key, before.as_ref(), value.as_ref());
    }

    fn insert_node(&mut self, path: &str, fixed: NodeFixed, data: &[u8]) {
        let node = Value::Node(Box::new(NodeRecord::new(fixed, data)));
        self.put(Key::Node(PathKey::new(path)), Some(node));
    }

    fn set_data(&mut self, path: &str, data: &[u8], version: u64, stamp: Stamp) {
        self.change_node(path, |node| node.set_data(data, version, stamp));
    }

    fn set_directory(&mut self, path: &str, directory: Directory) {
        self.change_node(path, |node| node.directory = directory);
    }

    fn remove_node(&mut self, path: &str) {
        self.put(Key::Node(PathKey::new(path)), None);
    }
}
