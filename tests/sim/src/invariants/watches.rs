//! Watches are told everything, in order, once: each transaction that changed what is watched, with
//! its changes as they were made, no gap and no repeat, across streams and members; nothing is
//! overtaken by a reply that reflects it (rules R28–R30).

use folkmoot_proto::client::{Change, SnapshotNode, WatchScope};
use folkmoot_proto::{WatchId, Zxid};

use crate::client::watcher::Watcher;
use crate::oracle::Oracle;
use crate::oracle::tree::is_kernels;
use crate::violation::{Checked, Violation};

fn wrong(id: WatchId, watcher: &Watcher, what: String) -> Checked {
    let Watcher {
        path,
        scope,
        position,
        ..
    } = watcher;
    Err(Violation::new(
        "watches",
        format!("watch {id} of {path} ({scope:?}), told up to {position:?}: {what}"),
    ))
}

/// The next transaction after `from` that the watch must be told of.
fn next(oracle: &Oracle, watcher: &Watcher, from: Zxid, to: Zxid) -> Option<(Zxid, Vec<Change>)> {
    oracle.changes(from, to).find_map(|(zxid, changes)| {
        let covered: Vec<Change> = changes
            .iter()
            .filter(|change| watcher.covers(&change.path))
            .map(|change| Change {
                path: change.path.clone(),
                kind: change.kind,
                data: change.data.clone(),
                version: change.version,
            })
            .collect();
        (!covered.is_empty()).then_some((zxid, covered))
    })
}

/// The watch was told of a whole transaction.
pub(crate) fn told(
    oracle: &Oracle,
    id: WatchId,
    watcher: &Watcher,
    zxid: Zxid,
    changes: &[Change],
) -> Checked {
    let Some(position) = watcher.position else {
        return wrong(
            id,
            watcher,
            format!("zxid {zxid} comes before its snapshot"),
        );
    };
    if zxid <= position {
        return wrong(id, watcher, format!("zxid {zxid} is told again"));
    }
    match next(oracle, watcher, position, zxid) {
        Some((expected, made)) if expected == zxid && made == changes => Ok(()),
        expected => wrong(
            id,
            watcher,
            format!("zxid {zxid} is told with {changes:?}, expected is {expected:?}"),
        ),
    }
}

/// The watch was told that nothing is missing up to `zxid`, or a reply at `zxid` came.
pub(crate) fn complete(oracle: &Oracle, id: WatchId, watcher: &Watcher, zxid: Zxid) -> Checked {
    let Some(position) = watcher.position else {
        return Ok(());
    };
    match next(oracle, watcher, position, zxid) {
        None => Ok(()),
        Some((missing, _)) => wrong(
            id,
            watcher,
            format!("zxid {zxid} is reflected, and zxid {missing} was not told"),
        ),
    }
}

/// The watch's snapshot is whole.
pub(crate) fn snapshot(
    oracle: &Oracle,
    id: WatchId,
    watcher: &Watcher,
    zxid: Zxid,
    nodes: &[SnapshotNode],
) -> Checked {
    let mut expected: Vec<(String, Vec<u8>, u64)> = Vec::new();
    for path in paths(oracle, watcher, zxid) {
        if let Some(node) = oracle.tree.at(&path, zxid) {
            expected.push((path, node.data.clone(), node.version));
        }
    }
    let told = nodes
        .iter()
        .filter(|node| node.path != "/" && !is_kernels(&node.path));
    let mut told: Vec<_> = told
        .map(|node| (node.path.clone(), node.data.clone(), node.stat.version))
        .collect();
    expected.sort();
    told.sort();
    if expected == told {
        return Ok(());
    }
    wrong(
        id,
        watcher,
        format!("its snapshot at zxid {zxid} has {told:?}, the tree had {expected:?}"),
    )
}

fn paths(oracle: &Oracle, watcher: &Watcher, zxid: Zxid) -> Vec<String> {
    let mut paths = vec![watcher.path.clone()];
    if watcher.scope == WatchScope::Node {
        return paths;
    }
    let mut place = 0;
    while let Some(parent) = paths.get(place).cloned() {
        let names = oracle.tree.children_at(&parent, zxid);
        paths.extend(names.into_iter().map(|name| format!("{parent}/{name}")));
        place += 1;
        if watcher.scope == WatchScope::Children {
            break;
        }
    }
    paths
}
