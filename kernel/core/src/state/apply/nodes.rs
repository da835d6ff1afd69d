//! Effects on nodes.

use folkmoot_proto::group::member_of_live_path;
use folkmoot_proto::limits::MEMBER_RECORD_BYTES_MAX;
use folkmoot_proto::{NodePath, SessionId, split_last};

use super::{ApplyError, NodeProblem, Stamp};
use crate::state::kernel_nodes;
use crate::state::key::{Key, PathKey};
use crate::state::store::{Store, write};
use crate::state::value::{Directory, NodeFixed, Session, Value};

fn refused(path: &str, problem: NodeProblem) -> ApplyError {
    ApplyError::Node {
        path: path.to_owned(),
        problem,
    }
}

/// Creates a node. `counters` are the parent's `cversion` afterwards and, for a sequential node, its
/// sequence afterwards.
pub(super) fn create<S: Store>(
    store: &mut S,
    stamp: Stamp,
    path: &str,
    data: &[u8],
    owner: Option<SessionId>,
    counters: (u64, Option<u64>),
) -> Result<(), ApplyError> {
    if NodePath::check(path).is_err() {
        return Err(refused(path, NodeProblem::BadPath));
    }
    let Some((parent_path, _)) = split_last(path) else {
        return Err(refused(path, NodeProblem::Exists));
    };
    not_reserved(path)?;
    if store.node(path).is_some() {
        return Err(refused(path, NodeProblem::Exists));
    }
    let Some(parent) = store.node(parent_path) else {
        return Err(refused(path, NodeProblem::NoParent));
    };
    if parent.is_ephemeral() {
        return Err(refused(path, NodeProblem::EphemeralParent));
    }
    let (cversion, sequence) = counters;
    expect_counter(path, parent.stat.cversion + 1, cversion)?;
    if let Some(sequence) = sequence {
        expect_counter(path, parent.sequence + 1, sequence)?;
    }
    let directory = Directory {
        pzxid: stamp.zxid,
        cversion,
        children: parent.stat.num_children + 1,
        sequence: sequence.unwrap_or(parent.sequence),
    };
    if let Some(owner) = owner {
        let Some(session) = store.session(owner) else {
            return Err(ApplyError::NoSession { session: owner });
        };
        let session = Session {
            ephemerals: session.ephemerals + 1,
            ephemeral_bytes: session.ephemeral_bytes + ephemeral_bytes(path),
            ..session.clone()
        };
        write(
            store,
            Key::Session(owner),
            Some(Value::Session(Box::new(session))),
        );
        let key = Key::EphemeralOf(owner, PathKey::new(path));
        store.put(key, Some(Value::Present));
    }
    let fixed = NodeFixed {
        czxid: stamp.zxid,
        ctime: stamp.wall_time,
        owner,
    };
    store.insert_node(path, fixed, data);
    store.set_directory(parent_path, directory);
    Ok(())
}

/// Sets a node's value.
pub(super) fn set<S: Store>(
    store: &mut S,
    stamp: Stamp,
    path: &str,
    data: &[u8],
    version: u64,
) -> Result<(), ApplyError> {
    not_reserved(path)?;
    let Some(node) = store.node(path) else {
        return Err(refused(path, NodeProblem::Missing));
    };
    let expected = node.stat.version + 1;
    if version != expected {
        let got = version;
        return Err(refused(path, NodeProblem::BadVersion { expected, got }));
    }
    store.set_data(path, data, version, stamp);
    Ok(())
}

/// Deletes a node without children.
pub(super) fn delete<S: Store>(
    store: &mut S,
    stamp: Stamp,
    path: &str,
    parent_cversion: u64,
) -> Result<(), ApplyError> {
    not_reserved(path)?;
    let Some(node) = store.node(path) else {
        return Err(refused(path, NodeProblem::Missing));
    };
    if node.stat.num_children > 0 {
        return Err(refused(path, NodeProblem::NotEmpty));
    }
    let owner = node.stat.ephemeral_owner;
    let Some((parent_path, _)) = split_last(path) else {
        return Err(refused(path, NodeProblem::Reserved));
    };
    let Some(parent) = store.node(parent_path) else {
        return Err(refused(path, NodeProblem::NoParent));
    };
    expect_counter(path, parent.stat.cversion + 1, parent_cversion)?;
    let directory = Directory {
        pzxid: stamp.zxid,
        cversion: parent_cversion,
        children: parent.stat.num_children - 1,
        sequence: parent.sequence,
    };
    if let Some(owner) = owner {
        let Some(session) = store.session(owner) else {
            return Err(ApplyError::NoSession { session: owner });
        };
        let session = Session {
            ephemerals: session.ephemerals - 1,
            ephemeral_bytes: session.ephemeral_bytes - ephemeral_bytes(path),
            ..session.clone()
        };
        write(
            store,
            Key::Session(owner),
            Some(Value::Session(Box::new(session))),
        );
        store.put(Key::EphemeralOf(owner, PathKey::new(path)), None);
    }
    store.remove_node(path);
    store.set_directory(parent_path, directory);
    Ok(())
}

fn not_reserved(path: &str) -> Result<(), ApplyError> {
    if kernel_nodes::is_of_records(path) {
        return Err(refused(path, NodeProblem::Reserved));
    }
    Ok(())
}

fn expect_counter(path: &str, expected: u64, got: u64) -> Result<(), ApplyError> {
    if got != expected {
        return Err(refused(path, NodeProblem::BadCounter { expected, got }));
    }
    Ok(())
}

/// What an ephemeral node counts for among what a session may own (rule R32): its path, and, of a
/// member's live node, what is written of the member when it goes.
#[must_use]
pub fn ephemeral_bytes(path: &str) -> u64 {
    let record = member_of_live_path(path).map_or(0, |_| MEMBER_RECORD_BYTES_MAX);
    (path.len() + record) as u64
}
