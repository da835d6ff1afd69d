//! The kernel's own nodes under `/folkmoot`, which every client can read and watch and only the
//! kernel writes: members, limits, mounts and plugins, each as JSON. They are made from the typed
//! records in the same transaction, so they are replicated and hashed as any node. Those of groups
//! and of failure detectors are written by ordinary effects.

use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::client::ChangeKind;
use folkmoot_proto::detector::DETECTORS;
use folkmoot_proto::group::GROUPS;
use folkmoot_proto::{Digest, MountId, WallTime, Zxid, split_last};

use super::applied::NodeChange;
use super::apply::Stamp;
use super::key::is_within;
use super::store::Store;
use super::value::{Component, Directory, Mount, NodeFixed};

/// The kernel's own directory.
pub const ROOT: &str = "/folkmoot";

const MEMBERS: &str = "/folkmoot/members";
const LIMITS: &str = "/folkmoot/limits";
const MOUNTS: &str = "/folkmoot/mounts";
const PLUGINS: &str = "/folkmoot/plugins";

/// The value of a mount's node.
#[derive(serde::Serialize)]
struct MountNode<'a> {
    path: &'a str,
    digest: Digest,
    config: &'a str,
    version: Zxid,
}

/// The value of an installed component's node.
#[derive(serde::Serialize)]
struct PluginNode<'a> {
    name: &'a str,
    size: u32,
    description: &'a str,
}

/// Whether only the kernel writes this path.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    is_within(path, ROOT)
}

/// Whether the node is made from a record, and so by no effect of its own: all of the kernel's, save
/// those of groups and the choices of failure detectors.
#[must_use]
pub(super) fn is_of_records(path: &str) -> bool {
    let is_of_groups = path != GROUPS && is_within(path, GROUPS);
    is_reserved(path) && !is_of_groups && !is_within(path, DETECTORS)
}

/// Makes the tree that a cluster begins with, as of zxid 0.
pub(super) fn make_first<S: Store>(store: &mut S, bootstrap: &Bootstrap) {
    let stamp = Stamp {
        zxid: Zxid::ZERO,
        log_time: folkmoot_proto::LogTime::ZERO,
        wall_time: bootstrap.created,
    };
    store.insert_node("/", fixed(stamp.zxid, stamp.wall_time), b"");
    let unheard = &mut Vec::new();
    for directory in [ROOT, MEMBERS, MOUNTS, PLUGINS, GROUPS] {
        put(store, stamp, directory, Vec::new(), unheard);
    }
    put(store, stamp, LIMITS, json(&bootstrap.limits), unheard);
    let mut members: Vec<_> = bootstrap.members.iter().collect();
    members.sort_by_key(|member| member.id);
    for member in members {
        let path = format!("{MEMBERS}/{}", member.id);
        put(store, stamp, &path, json(member), unheard);
    }
}

/// Bytes of a mount's node: JSON may need six for one of the configuration.
#[must_use]
pub fn mount_bytes(mount: &Mount) -> usize {
    mount_value(mount).len()
}

/// Bytes of an installed component's node.
#[must_use]
pub fn component_bytes(name: &str, size: u32, description: &str) -> usize {
    json(&PluginNode {
        name,
        size,
        description,
    })
    .len()
}

fn mount_value(mount: &Mount) -> Vec<u8> {
    json(&MountNode {
        path: &mount.path,
        digest: mount.digest,
        config: &String::from_utf8_lossy(&mount.config),
        version: mount.version,
    })
}

pub(super) fn put_mount<S: Store>(
    store: &mut S,
    stamp: Stamp,
    mount: &Mount,
    changes: &mut Vec<NodeChange>,
) {
    let path = format!("{MOUNTS}/{}", mount.id);
    put(store, stamp, &path, mount_value(mount), changes);
}

pub(super) fn remove_mount<S: Store>(
    store: &mut S,
    stamp: Stamp,
    mount: MountId,
    changes: &mut Vec<NodeChange>,
) {
    remove(store, stamp, format!("{MOUNTS}/{mount}"), changes);
}

pub(super) fn put_component<S: Store>(
    store: &mut S,
    stamp: Stamp,
    digest: Digest,
    component: &Component,
    changes: &mut Vec<NodeChange>,
) {
    let node = PluginNode {
        name: &component.name,
        size: component.size,
        description: &component.description,
    };
    let path = format!("{PLUGINS}/{digest}");
    put(store, stamp, &path, json(&node), changes);
}

pub(super) fn remove_component<S: Store>(
    store: &mut S,
    stamp: Stamp,
    digest: Digest,
    changes: &mut Vec<NodeChange>,
) {
    remove(store, stamp, format!("{PLUGINS}/{digest}"), changes);
}

fn fixed(zxid: Zxid, wall_time: WallTime) -> NodeFixed {
    NodeFixed {
        czxid: zxid,
        ctime: wall_time,
        owner: None,
    }
}

/// JSON of a value whose fields are written in the order of its type.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("plain values have JSON: {error}"),
    }
}

/// Creates a node, or sets its value if it is there.
fn put<S: Store>(
    store: &mut S,
    stamp: Stamp,
    path: &str,
    data: Vec<u8>,
    changes: &mut Vec<NodeChange>,
) {
    let version = store.node(path).map(|node| node.stat.version + 1);
    if let Some(version) = version {
        store.set_data(path, &data, version, stamp);
    } else {
        store.insert_node(path, fixed(stamp.zxid, stamp.wall_time), &data);
        count_child(store, stamp, path, true);
    }
    changes.push(NodeChange {
        path: path.to_owned(),
        kind: version.map_or(ChangeKind::Created, |_| ChangeKind::Set),
        data: data.into(),
        version: version.unwrap_or_default(),
    });
}

fn remove<S: Store>(store: &mut S, stamp: Stamp, path: String, changes: &mut Vec<NodeChange>) {
    store.remove_node(&path);
    count_child(store, stamp, &path, false);
    changes.push(NodeChange {
        path,
        kind: ChangeKind::Deleted,
        data: bytes::Bytes::new(),
        version: 0,
    });
}

/// Says in the parent that a child came or went.
fn count_child<S: Store>(store: &mut S, stamp: Stamp, path: &str, came: bool) {
    let Some((parent_path, _)) = split_last(path) else {
        return;
    };
    let Some(parent) = store.node(parent_path) else {
        panic!("the kernel's node {path} has no parent");
    };
    let children = parent.stat.num_children;
    let directory = Directory {
        pzxid: stamp.zxid,
        cversion: parent.stat.cversion + 1,
        children: if came { children + 1 } else { children - 1 },
        sequence: parent.sequence,
    };
    store.set_directory(parent_path, directory);
}
