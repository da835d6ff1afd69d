//! The state as records: what changed since the last checkpoint, and the way back (rule R26).

use bytes::Bytes;
use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::record::{RecordChange, StateMeta};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::committed::{Position, State};
use super::key::{Key, encode_node_key};
use super::record::{RestoreError, encode_node, encode_value};

/// The highest replicated feature level that this version knows (rule R5).
pub const FEATURE_LEVEL: u32 = 1;

/// What a checkpoint writes, in one atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Where the state stands with it.
    pub meta: StateMeta,
    /// Records that changed since the last one was taken, by rising key.
    pub changes: Vec<RecordChange>,
}

impl State {
    /// Where the state stands, and its hash.
    #[must_use]
    pub fn meta(&self) -> StateMeta {
        let Position {
            index,
            term,
            zxid,
            log_time,
        } = self.position();
        StateMeta {
            cluster: self.bootstrap.cluster,
            index,
            term,
            zxid,
            log_time,
            state_hash: self.state_hash(),
            feature_level: FEATURE_LEVEL,
            bootstrap: self.bootstrap_bytes().clone(),
        }
    }

    /// The hash of the whole state (rule R27): equal at equal zxid on all members. It is kept up by
    /// every change, and independent of their order.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let position = self.position();
        let mut meta = [0; 28];
        let (numbers, level) = meta.split_at_mut(24);
        let values = [position.zxid.0, position.log_time.0, self.bootstrap_hash()];
        for (bytes, value) in numbers.chunks_exact_mut(8).zip(values) {
            bytes.copy_from_slice(&value.to_be_bytes());
        }
        level.copy_from_slice(&FEATURE_LEVEL.to_be_bytes());
        xxh3_64_with_seed(&meta, self.records_hash())
    }

    /// Bytes of the records that the next delta has, about.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Takes everything that changed since the last delta, or since the state was made or restored.
    /// Call it between two entries.
    #[must_use]
    pub fn take_delta(&mut self) -> Delta {
        self.dirty_bytes = 0;
        let mut changes = Vec::new();
        for id in self.tree.take_dirty() {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            encode_node_key(&self.tree.path(id), &mut key);
            encode_node(&self.tree.node(id), &mut value);
            changes.push(change(key, Some(value)));
        }
        for key in core::mem::take(&mut self.dirty) {
            if let Key::Node(path) = &key
                && self.tree.find(path.as_str()).is_some()
            {
                continue;
            }
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            let value = self.records.get(&key).map(|value| {
                let mut bytes = Vec::new();
                encode_value(value, &mut bytes);
                bytes
            });
            changes.push(change(bytes, value));
        }
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Delta {
            meta: self.meta(),
            changes,
        }
    }

    /// The state that was written as `records`, rising by key.
    ///
    /// # Errors
    ///
    /// If they are not exactly the records of the state that `meta` says.
    pub fn from_records(
        meta: &StateMeta,
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, RestoreError> {
        let bootstrap = Bootstrap::from_bytes(&meta.bootstrap)?;
        if bootstrap.cluster != meta.cluster {
            return Err(RestoreError::OtherCluster);
        }
        if meta.feature_level != FEATURE_LEVEL {
            return Err(RestoreError::FeatureLevel {
                has: meta.feature_level,
                knows: FEATURE_LEVEL,
            });
        }
        let mut state = Self::empty(bootstrap, meta.bootstrap.clone());
        let mut last = Bytes::new();
        for (key, value) in records {
            if last >= key {
                let key = Key::decode(&key)?;
                return Err(RestoreError::OutOfOrder { key });
            }
            state.restore(&key, &value)?;
            last = key;
        }
        if let Some(id) = state.tree.miscounted() {
            let path = state.tree.path(id);
            return Err(RestoreError::BrokenTree { path });
        }
        state.dirty.clear();
        state.dirty_bytes = 0;
        state.move_to(Position {
            index: meta.index,
            term: meta.term,
            zxid: meta.zxid,
            log_time: meta.log_time,
        });
        let actual = state.state_hash();
        if actual != meta.state_hash {
            return Err(RestoreError::Hash {
                expected: meta.state_hash,
                actual,
            });
        }
        Ok(state)
    }
}

fn change(key: Vec<u8>, value: Option<Vec<u8>>) -> RecordChange {
    RecordChange {
        key: key.into(),
        value: value.map(Bytes::from),
    }
}
