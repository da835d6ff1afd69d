//! The committed state.

use core::ops::ControlFlow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapError};
use folkmoot_proto::codec::Input;
use folkmoot_proto::{LogIndex, LogTime, Term, Zxid};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::Stamp;
use super::kernel_nodes;
use super::key::{Key, PathKey, encode_node_key};
use super::record::{
    RestoreError, decode_node, decode_value, encode_node, hash_buffer, hash_record,
};
use super::store::{Store, indexes};
use super::tree::{NodeId, Tree};
use super::value::{Counters, Directory, Node, NodeFixed, Value};
use super::view::View;
use super::views::Views;
use crate::mutation::{self, Mutation};

/// The replicated state, as far as this member has applied the log.
#[derive(Debug)]
pub struct State {
    pub(super) bootstrap: Bootstrap,
    bootstrap_bytes: Bytes,
    bootstrap_hash: u64,
    position: Position,
    counters: Counters,
    pub(super) tree: Tree,
    /// Everything but nodes, and the indexes.
    pub(super) records: BTreeMap<Key, Value>,
    /// The wrapping sum of the records' hashes (rule R27).
    records_hash: u64,
    /// What changed since the last delta was taken (rule R26); of the nodes, those that went. The
    /// tree knows the others.
    pub(super) dirty: BTreeSet<Key>,
    pub(super) dirty_bytes: usize,
    pub(super) views: Views,
    buffer: Vec<u8>,
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
        let cluster = Bootstrap::from_bytes(&bootstrap)?;
        let mut state = Self::empty(cluster.clone(), bootstrap);
        kernel_nodes::make_first(&mut state, &cluster);
        Ok(state)
    }

    /// Where in the log this state stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The bootstrap entry's payload.
    #[must_use]
    pub fn bootstrap_bytes(&self) -> &Bytes {
        &self.bootstrap_bytes
    }

    pub(super) fn bootstrap_hash(&self) -> u64 {
        self.bootstrap_hash
    }

    pub(super) fn records_hash(&self) -> u64 {
        self.records_hash
    }

    /// A state without a root.
    pub(super) fn empty(bootstrap: Bootstrap, bootstrap_bytes: Bytes) -> Self {
        Self {
            views: Views::new(bootstrap.limits.views_max as usize),
            bootstrap,
            bootstrap_hash: xxh3_64(&bootstrap_bytes),
            bootstrap_bytes,
            position: Position::default(),
            counters: Counters::default(),
            tree: Tree::default(),
            records: BTreeMap::new(),
            records_hash: 0,
            dirty: BTreeSet::new(),
            dirty_bytes: 0,
            buffer: Vec::new(),
        }
    }

    /// Moves the position, whose entry was applied.
    pub(super) fn move_to(&mut self, position: Position) {
        self.position = position;
    }

    /// Puts a record of a checkpoint in its place, with its indexes. Records come in rising order,
    /// so that a node's parent is there before it.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let of = Key::decode(key)?;
        if let Key::Node(path) = of {
            return self.restore_node(path, key, value);
        }
        let value = decode_value(&of, value)?;
        for (index, value) in indexes(&of, &value) {
            self.put(index, Some(value));
        }
        self.put(of, Some(value));
        Ok(())
    }

    fn restore_node(
        &mut self,
        path: PathKey,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), RestoreError> {
        let mut input = Input::new(value);
        let decoded = decode_node(&mut input);
        let decoded = decoded.and_then(|decoded| input.finish().map(|()| decoded));
        let (record, data) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                let key = Key::Node(path);
                return Err(RestoreError::Value { key, error });
            }
        };
        if !self.tree.restore(path.as_str(), &record, data) {
            let path = path.as_str().to_owned();
            return Err(RestoreError::BrokenTree { path });
        }
        if let Some(owner) = record.fixed.owner {
            self.put(Key::EphemeralOf(owner, path), Some(Value::Present));
        }
        self.counters.nodes += 1;
        // One value has one encoding, so these bytes are those that would be made of it.
        self.buffer.clear();
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        let hash = hash_buffer(key.len(), &mut self.buffer);
        self.records_hash = self.records_hash.wrapping_add(hash);
        Ok(())
    }

    fn node_to_change(&mut self, path: &str) -> NodeId {
        let Some(id) = self.tree.find_to_change(path) else {
            panic!("no node at {path} to change");
        };
        id
    }

    /// Takes a node's record out of the hash, and keeps it for open views, before it changes.
    fn before_node(&mut self, path: &str, id: NodeId) {
        let hash = self.hash_node(path, id);
        self.records_hash = self.records_hash.wrapping_sub(hash);
        if self.views.any_open() {
            let node = self.tree.node(id);
            let before = || Some(Value::Node(Box::new(node.to_record())));
            self.views.keep(&Key::Node(PathKey::new(path)), before);
        }
    }

    /// Puts a node's record into the hash and into the next delta, after it changed.
    fn after_node(&mut self, path: &str, id: NodeId) {
        let hash = self.hash_node(path, id);
        self.records_hash = self.records_hash.wrapping_add(hash);
        if self.tree.mark_dirty(id) {
            self.dirty_bytes += self.buffer.len();
        }
    }

    /// The hash of a node's record, which is left in the buffer.
    fn hash_node(&mut self, path: &str, id: NodeId) -> u64 {
        self.buffer.clear();
        encode_node_key(path, &mut self.buffer);
        let key_bytes = self.buffer.len();
        encode_node(&self.tree.node(id), &mut self.buffer);
        hash_buffer(key_bytes, &mut self.buffer)
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
        Some(self.tree.node(self.tree.find(path)?))
    }

    fn children(&self, path: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let Some(id) = self.tree.find(path) else {
            return Vec::new();
        };
        let children = self.tree.children_after(id, after).take(limit);
        children.map(|id| self.tree.name(id).to_owned()).collect()
    }
}

impl Store for State {
    fn put(&mut self, key: Key, value: Option<Value>) {
        let before = self.records.get(&key);
        self.counters.count(&key, before, value.as_ref());
        if key.is_record() {
            let is_kept = value.is_none() && mutation::is_on(Mutation::HashKeepsRemoved);
            if let Some(before) = before
                && !is_kept
            {
                let hash = hash_record(&key, before, &mut self.buffer);
                self.records_hash = self.records_hash.wrapping_sub(hash);
            }
            if self.views.any_open() {
                let before = || before.cloned();
                self.views.keep(&key, before);
            }
            let mut bytes = 0;
            if let Some(value) = &value {
                let hash = hash_record(&key, value, &mut self.buffer);
                self.records_hash = self.records_hash.wrapping_add(hash);
                bytes = self.buffer.len();
            }
            let is_left_out = matches!(key, Key::Completion(..))
                && mutation::is_on(Mutation::CheckpointWithoutCompletions);
            if !is_left_out && self.dirty.insert(key.clone()) {
                self.dirty_bytes += bytes;
            }
        }
        match value {
            Some(value) => self.records.insert(key, value),
            None => self.records.remove(&key),
        };
    }

    fn insert_node(&mut self, path: &str, fixed: NodeFixed, data: &[u8]) {
        if self.views.any_open() {
            self.views.keep(&Key::Node(PathKey::new(path)), || None);
        }
        let id = self.tree.insert(path, fixed, data);
        self.counters.nodes += 1;
        self.after_node(path, id);
    }

    fn set_data(&mut self, path: &str, data: &[u8], version: u64, stamp: Stamp) {
        let id = self.node_to_change(path);
        self.before_node(path, id);
        self.tree.set_data(id, data, version, stamp);
        self.after_node(path, id);
    }

    fn set_directory(&mut self, path: &str, directory: Directory) {
        let id = self.node_to_change(path);
        self.before_node(path, id);
        self.tree.set_directory(id, directory);
        self.after_node(path, id);
    }

    fn remove_node(&mut self, path: &str) {
        let id = self.node_to_change(path);
        self.before_node(path, id);
        self.tree.remove(id);
        self.counters.nodes -= 1;
        self.dirty.insert(Key::Node(PathKey::new(path)));
    }
}
