//! The keys that an overlay has changed: found by hash, since each transaction looks a dozen of them
//! up, and walked in order, for what lists children or what is due. They are never walked by hash.

use core::hash::{Hash, Hasher};
use core::ops::Bound;
use std::collections::BTreeSet;

use folkmoot_proto::Zxid;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::key::Key;
use super::value::Value;

#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The transaction that wrote it last.
    pub(super) zxid: Zxid,
    /// None: removed.
    pub(super) value: Option<Value>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    by_key: HashTable<(Key, Slot)>,
    /// The same keys.
    order: BTreeSet<Key>,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Slot> {
        if self.by_key.is_empty() {
            return None;
        }
        let found = self.by_key.find(hash(key), |(of, _)| of == key)?;
        Some(&found.1)
    }

    /// Puts a slot in place of the one before it.
    pub(super) fn insert(&mut self, key: Key, slot: Slot) -> Option<Slot> {
        let hashed = hash(&key);
        if let Some((_, present)) = self.by_key.find_mut(hashed, |(of, _)| *of == key) {
            return Some(core::mem::replace(present, slot));
        }
        self.order.insert(key.clone());
        self.by_key
            .insert_unique(hashed, (key, slot), |(of, _)| hash(of));
        None
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Slot> {
        let found = self.by_key.find_entry(hash(key), |(of, _)| of == key);
        let ((_, slot), _) = found.ok()?.remove();
        self.order.remove(key);
        Some(slot)
    }

    /// The slots from `from` on, in the order of their keys.
    pub(super) fn range_from(&self, from: Bound<&Key>) -> impl Iterator<Item = (&Key, &Slot)> {
        let keys = self.order.range((from, Bound::Unbounded));
        keys.filter_map(|key| Some((key, self.get(key)?)))
    }
}

fn hash(key: &Key) -> u64 {
    let mut hasher = KeyHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Hashes keys: paths by xxh3, numbers by a multiplication. An overlay has thousands of keys, not
/// millions, so that nobody gains by keys that collide.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl KeyHasher {
    /// An odd number without a pattern: the golden ratio's.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn add(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(Self::FACTOR);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.add(xxh3_64(bytes));
    }

    fn write_u8(&mut self, number: u8) {
        self.add(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.add(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes its buckets from the low bits and its marks from the high ones.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::key::PathKey;

    fn slot(zxid: u64) -> Slot {
        Slot {
            zxid: Zxid(zxid),
            value: None,
        }
    }

    #[test]
    fn slots_are_found_and_walked_in_order() {
        let mut slots = Slots::default();
        let key = |path: &str| Key::Node(PathKey::new(path));
        let paths = ["/b", "/a/x", "/a", "/c/d", "/", "/a-"];
        for (at, path) in (1..).zip(paths) {
            assert!(slots.insert(key(path), slot(at)).is_none());
        }
        let before = slots.insert(key("/a"), slot(9)).map(|slot| slot.zxid);
        assert_eq!(before, Some(Zxid(3)));
        assert_eq!(slots.get(&key("/a")).map(|slot| slot.zxid), Some(Zxid(9)));
        assert!(slots.remove(&key("/b")).is_some());
        assert!(slots.remove(&key("/b")).is_none());
        let walked = |from: Bound<&Key>| -> Vec<Key> {
            slots.range_from(from).map(|(key, _)| key.clone()).collect()
        };
        let all: Vec<Key> = ["/", "/a", "/a/x", "/a-", "/c/d"].map(key).into();
        assert_eq!(walked(Bound::Unbounded), all);
        assert_eq!(walked(Bound::Included(&key("/a"))), all[1..]);
        assert_eq!(walked(Bound::Excluded(&key("/a"))), all[2..]);
    }

    #[test]
    fn numbers_that_follow_each_other_have_hashes_apart() {
        let marks: BTreeSet<u64> = (0..1024_u64)
            .map(|request| hash(&Key::Event(folkmoot_proto::MountId(7), request)) & 4095)
            .collect();
        assert!(marks.len() > 800, "{} of 4,096 places", marks.len());
    }
}
