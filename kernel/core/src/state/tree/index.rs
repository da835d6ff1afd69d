//! Finding a child by its parent and name.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::NodeId;

/// Hash tables of a tree. One table of a million nodes takes 100 ms to grow; of 256, each takes less
/// than one.
const SHARDS: usize = 256;

/// Which node is the child of which, by name. The names are the tree's.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<HashTable<NodeId>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
        }
    }
}

impl Index {
    /// The child for which `is_it` holds.
    pub(super) fn find(
        &self,
        parent: NodeId,
        name: &[u8],
        mut is_it: impl FnMut(NodeId) -> bool,
    ) -> Option<NodeId> {
        let hash = hash(parent, name);
        let shard = self.shards.get(shard_of(hash))?;
        shard.find(hash, |&id| is_it(id)).copied()
    }

    /// Adds a child. `parent_of` and `name_of` say what the others are, for a table that grows.
    pub(super) fn insert<'a>(
        &mut self,
        parent: NodeId,
        name: &[u8],
        id: NodeId,
        parent_of: impl Fn(NodeId) -> NodeId,
        name_of: impl Fn(NodeId) -> &'a [u8],
    ) {
        let hash_of = hash(parent, name);
        if let Some(shard) = self.shards.get_mut(shard_of(hash_of)) {
            shard.insert_unique(hash_of, id, |&id| hash(parent_of(id), name_of(id)));
        }
    }

    /// Removes a child.
    pub(super) fn remove(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        let hash = hash(parent, name);
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else {
            return;
        };
        match shard.find_entry(hash, |&found| found == id) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => panic!("a node of the tree is not in its index"),
        }
    }
}

/// The seed is fixed, so that a run repeats itself: names come from clients that are authenticated.
fn hash(parent: NodeId, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, u64::from(parent.0))
}

/// Bits that a table uses neither for its buckets nor for its tags.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}
