//! The checkpoint store on real files.

#![allow(clippy::unwrap_used, reason = "a test that fails here says so")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore};
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{ClusterId, LogIndex, LogTime, Term, Zxid};
use folkmoot_storage::FjallStore;

fn meta(index: u64) -> StateMeta {
    StateMeta {
        cluster: ClusterId([3; 16]),
        index: LogIndex(index),
        term: Term(2),
        zxid: Zxid(index * 5),
        log_time: LogTime(index * 7),
        state_hash: index * 11,
        feature_level: 1,
        bootstrap: Bytes::from_static(b"the members"),
    }
}

fn put(key: &str, value: &str) -> RecordChange {
    RecordChange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn remove(key: &str) -> RecordChange {
    RecordChange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: None,
    }
}

fn open(folder: &Path) -> FjallStore {
    FjallStore::open(folder).unwrap()
}

fn loaded(store: &FjallStore) -> (u64, BTreeMap<Bytes, Bytes>) {
    let (meta, records) = store.load().unwrap().unwrap();
    let records = records.map(|record| {
        let record = record.unwrap();
        (record.key, record.value.unwrap())
    });
    (meta.index.0, records.collect())
}

fn records<const N: usize>(pairs: [(&'static str, &'static str); N]) -> BTreeMap<Bytes, Bytes> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    pairs
        .into_iter()
        .map(|(key, value)| (bytes(key), bytes(value)))
        .collect()
}

#[test]
fn empty_store_has_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.current(), None);
    assert!(store.load().unwrap().is_none());
    assert_eq!(store.prepared().unwrap(), None);
}

/// Rule R26: a delta moves records and position as one, over restarts.
#[test]
fn delta_is_there_after_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store
        .write_delta(meta(10), vec![put("a", "1"), put("b", "2"), put("c", "3")])
        .unwrap();
    store
        .write_delta(meta(20), vec![put("b", "4"), remove("a")])
        .unwrap();
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.current(), Some(&meta(20)));
    assert_eq!(loaded(&store), (20, records([("b", "4"), ("c", "3")])));
}

/// Rule R25: a snapshot is nothing, then prepared, then current; each step outlives a restart.
#[test]
fn snapshot_replaces_state_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.write_delta(meta(10), vec![put("old", "1")]).unwrap();

    let mut writer = store.begin_full(meta(50)).unwrap();
    writer.write(vec![put("a", "1"), put("b", "2")]).unwrap();
    writer.write(vec![put("c", "3")]).unwrap();
    assert_eq!(store.prepared().unwrap(), None);
    writer.finish().unwrap();
    assert_eq!(store.prepared().unwrap(), Some(meta(50)));
    assert_eq!(loaded(&store), (10, records([("old", "1")])));
    drop(store);

    let mut store = open(folder.path());
    assert_eq!(store.prepared().unwrap(), Some(meta(50)));
    assert_eq!(store.current(), Some(&meta(10)));
    store.install_prepared().unwrap();
    assert_eq!(store.prepared().unwrap(), None);
    assert_eq!(
        loaded(&store),
        (50, records([("a", "1"), ("b", "2"), ("c", "3")]))
    );
    assert_eq!(store.install_prepared(), Err(CheckpointError::NotPrepared));
    store
        .write_delta(meta(60), vec![put("d", "4"), remove("a")])
        .unwrap();
    drop(store);

    let store = open(folder.path());
    assert_eq!(
        loaded(&store),
        (60, records([("b", "2"), ("c", "3"), ("d", "4")]))
    );
    let states = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(states, 2, "one state and its pointer");
}

#[test]
fn unfinished_or_discarded_snapshot_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut writer = store.begin_full(meta(5)).unwrap();
    writer.write(vec![put("a", "1")]).unwrap();
    drop(writer);
    assert_eq!(store.prepared().unwrap(), None);

    let mut writer = store.begin_full(meta(6)).unwrap();
    writer.write(vec![put("a", "1")]).unwrap();
    writer.finish().unwrap();
    store.discard_prepared().unwrap();
    assert_eq!(store.prepared().unwrap(), None);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A crash between the switch and the removal of the prepared pointer.
#[test]
fn half_installed_snapshot_is_current() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut writer = store.begin_full(meta(5)).unwrap();
    writer.write(vec![put("a", "1")]).unwrap();
    writer.finish().unwrap();
    let prepared = std::fs::read(folder.path().join("prepared")).unwrap();
    store.install_prepared().unwrap();
    drop(store);
    std::fs::write(folder.path().join("prepared"), prepared).unwrap();

    let mut store = open(folder.path());
    assert_eq!(store.current(), Some(&meta(5)));
    assert_eq!(store.prepared().unwrap(), None);
    store.discard_prepared().unwrap();
    assert_eq!(loaded(&store), (5, records([("a", "1")])));
}

#[test]
fn full_state_refuses_disorder_and_removals() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut writer = store.begin_full(meta(5)).unwrap();
    writer.write(vec![put("b", "1")]).unwrap();
    assert_eq!(
        writer.write(vec![put("b", "1")]),
        Err(CheckpointError::Disordered)
    );
    drop(writer);
    let mut writer = store.begin_full(meta(5)).unwrap();
    assert_eq!(
        writer.write(vec![remove("c")]),
        Err(CheckpointError::Removal)
    );
}

#[test]
fn damaged_pointer_or_missing_state_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.write_delta(meta(10), vec![put("a", "1")]).unwrap();
    drop(store);
    let pointer = folder.path().join("current");
    let good = std::fs::read(&pointer).unwrap();
    for bad in [
        "",
        "state-1",
        "../../etc\n",
        "state-zz\n",
        "state-00000000000000ff\n",
    ] {
        std::fs::write(&pointer, bad).unwrap();
        let refused = FjallStore::open(folder.path()).map(|_| ());
        assert!(
            matches!(refused, Err(CheckpointError::Damaged { .. })),
            "{bad:?}: {refused:?}"
        );
    }
    std::fs::write(&pointer, good).unwrap();
    assert_eq!(loaded(&open(folder.path())), (10, records([("a", "1")])));
}

/// Whatever end of fjall's journal is lost, what is found is one of the states that were written.
#[test]
fn cut_journal_gives_an_earlier_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    for index in 1..=20 {
        let value = index.to_string();
        store
            .write_delta(meta(index), vec![put("a", &value), put("b", &value)])
            .unwrap();
    }
    drop(store);
    let state = folder.path().join("state-0000000000000001");
    let journal = std::fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (used / 2..=used).step_by(97) {
        let mut bytes = whole.clone();
        bytes.truncate(cut);
        std::fs::write(&journal, &bytes).unwrap();
        let store = open(folder.path());
        let (index, records) = loaded(&store);
        let value = index.to_string();
        assert!(
            records.values().all(|found| *found == value.as_bytes()),
            "{index}: {records:?}"
        );
        seen.insert(index);
    }
    assert!(seen.len() > 3, "{seen:?}");
}
