//! Operations on the tree, as clients and guests make them: each is checked against what the
//! transaction sees, and becomes effects.

use folkmoot_proto::client::{Guard, NodeKind, SubOperation};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::{GUARDS_MAX, MULTI_OPERATIONS_MAX};
use folkmoot_proto::reply::{Outcome, Refusal, SubOutcome};
use folkmoot_proto::{NodePath, PathError, SessionId, split_last};

use super::draft::Draft;
use crate::mutation::{self, Mutation};
use crate::state::kernel_nodes::is_reserved;
use crate::state::{View, ephemeral_bytes};

/// Characters of a bad path that its refusal repeats.
const ECHO_CHARS: usize = 128;

/// What the end of a session writes for an ephemeral node beside its path, which is there twice: in
/// its deletion, and in what its mount hears. Half a transaction is for these, half for the
/// session's waits (rule R32).
const DELETION_BYTES: u64 = 64;

/// What a creation gave.
#[derive(Debug)]
pub(in crate::execution) struct Created {
    /// The path as created.
    pub(in crate::execution) path: String,
    /// The number that was appended, for a sequential node.
    pub(in crate::execution) sequence: Option<u64>,
}

/// Creates a node at `path`, to which a sequential node's number is appended, with its session as
/// `owner` if it is ephemeral.
pub(in crate::execution) fn create(
    draft: &mut Draft,
    path: &str,
    data: Vec<u8>,
    owner: Option<SessionId>,
    sequential: bool,
) -> Result<Created, Refusal> {
    check_value(draft, &data)?;
    let (path, sequence) = if sequential {
        sequential_path(draft, path)?
    } else {
        (writable(path)?, None)
    };
    let Some((parent_path, _)) = path.split_last() else {
        return Err(Refusal::NodeExists {
            path: path.to_string(),
        });
    };
    let Some(parent) = draft.view().node(parent_path) else {
        return Err(Refusal::NoParent {
            path: parent_path.to_owned(),
        });
    };
    if parent.is_ephemeral() {
        return Err(Refusal::EphemeralParent {
            path: parent_path.to_owned(),
        });
    }
    let parent_cversion = parent.stat.cversion + 1;
    if draft.view().node(path.as_str()).is_some() {
        return Err(Refusal::NodeExists {
            path: path.to_string(),
        });
    }
    if let Some(owner) = owner {
        check_owner(draft, owner, path.as_str())?;
    }
    draft.effect(Effect::CreateNode {
        path: path.to_string(),
        data,
        owner,
        parent_cversion,
        parent_sequence: sequence.map(|number| number + 1),
    })?;
    Ok(Created {
        path: path.to_string(),
        sequence,
    })
}

/// Sets a node's value; answers its version afterwards.
pub(in crate::execution) fn set(
    draft: &mut Draft,
    path: &str,
    data: Vec<u8>,
    expected: Option<u64>,
) -> Result<u64, Refusal> {
    check_value(draft, &data)?;
    let path = writable(path)?;
    let version = version_of(draft, path.as_str(), expected)? + 1;
    draft.effect(Effect::SetNode {
        path: path.to_string(),
        data,
        version,
    })?;
    Ok(version)
}

/// Deletes a node without children.
pub(in crate::execution) fn delete(
    draft: &mut Draft,
    path: &str,
    expected: Option<u64>,
) -> Result<(), Refusal> {
    let path = writable(path)?;
    if path.is_root() || draft.view().mount_at(path.as_str()).is_some() {
        return Err(Refusal::Undeletable {
            path: path.to_string(),
        });
    }
    version_of(draft, path.as_str(), expected)?;
    let has_children = |node: crate::state::Node<'_>| node.stat.num_children > 0;
    if draft.view().node(path.as_str()).is_some_and(has_children) {
        return Err(Refusal::NotEmpty {
            path: path.to_string(),
        });
    }
    delete_unchecked(draft, path.as_str())
}

/// Deletes a node that is known to be there and to have no children.
pub(in crate::execution) fn delete_unchecked(draft: &mut Draft, path: &str) -> Result<(), Refusal> {
    let parent = split_last(path).and_then(|(parent, _)| draft.view().node(parent));
    let cversion = parent.map(|parent| parent.stat.cversion);
    let Some(cversion) = cversion else {
        panic!("{path} is in the tree, and its parent is not");
    };
    draft.effect(Effect::DeleteNode {
        path: path.to_owned(),
        parent_cversion: cversion + 1,
    })
}

/// All of them or none; each sees the ones before it.
pub(in crate::execution) fn multi(
    draft: &mut Draft,
    session: SessionId,
    operations: Vec<SubOperation>,
) -> Result<Outcome, Refusal> {
    check_count(
        "operations of a multi",
        operations.len(),
        MULTI_OPERATIONS_MAX,
    )?;
    let mut outcomes = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let outcome = sub_operation(draft, session, operation);
        outcomes.push(outcome.map_err(|refusal| Refusal::MultiRefused {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            reason: refusal.to_string(),
            code: refusal.code().to_owned(),
        })?);
    }
    Ok(Outcome::Multi(outcomes))
}

fn sub_operation(
    draft: &mut Draft,
    session: SessionId,
    operation: SubOperation,
) -> Result<SubOutcome, Refusal> {
    match operation {
        SubOperation::Check { path, expected } => {
            let path = parse(&path)?;
            version_of(draft, path.as_str(), expected)?;
            Ok(SubOutcome::Checked)
        }
        SubOperation::Create { path, data, kind } => {
            let created = create(draft, &path, data, owner_of(kind, session), kind.sequential)?;
            Ok(SubOutcome::Created {
                sequence: created.sequence,
            })
        }
        SubOperation::Set {
            path,
            data,
            expected,
        } => {
            let version = set(draft, &path, data, expected)?;
            Ok(SubOutcome::Set { version })
        }
        SubOperation::Delete { path, expected } => {
            delete(draft, &path, expected)?;
            Ok(SubOutcome::Deleted)
        }
    }
}

/// The owner of a node of this kind that `session` creates.
pub(in crate::execution) fn owner_of(kind: NodeKind, session: SessionId) -> Option<SessionId> {
    kind.ephemeral.then_some(session)
}

/// Whether all guards hold in what the transaction sees before its first write (rule R13).
pub(in crate::execution) fn check_guards(draft: &Draft, guards: &[Guard]) -> Result<(), Refusal> {
    check_count("guards of a request", guards.len(), GUARDS_MAX)?;
    for guard in guards {
        let path = parse(&guard.path)?;
        let current = draft.view().grant(path.as_str());
        let holds = if mutation::is_on(Mutation::GuardByPresence) {
            current.is_some()
        } else {
            current == Some(guard.token)
        };
        if !holds {
            return Err(Refusal::GuardFailed {
                path: guard.path.clone(),
                token: guard.token,
                current,
            });
        }
    }
    Ok(())
}

/// A path, or why the text is none.
pub(in crate::execution) fn parse(text: &str) -> Result<NodePath, Refusal> {
    NodePath::parse(text).map_err(|error| bad_path(text, error))
}

/// Refuses a count over its cap.
pub(in crate::execution) fn check_count(
    what: &str,
    actual: usize,
    limit: usize,
) -> Result<(), Refusal> {
    let as_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    check_limit(what, as_u64(actual), as_u64(limit))
}

/// Refuses a figure over its cap.
pub(in crate::execution) fn check_limit(
    what: &str,
    actual: u64,
    limit: u64,
) -> Result<(), Refusal> {
    if actual <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge {
        what: what.to_owned(),
        limit,
        actual,
    })
}

fn bad_path(text: &str, error: PathError) -> Refusal {
    Refusal::BadPath {
        path: text.chars().take(ECHO_CHARS).collect(),
        error,
    }
}

/// A path that clients and guests may write.
fn writable(text: &str) -> Result<NodePath, Refusal> {
    let path = parse(text)?;
    if is_reserved(path.as_str()) {
        return Err(Refusal::Reserved {
            path: path.to_string(),
        });
    }
    Ok(path)
}

/// The parent's next number appended to `prefix`, in 20 digits.
fn sequential_path(draft: &Draft, prefix: &str) -> Result<(NodePath, Option<u64>), Refusal> {
    let with_number = |number: u64| format!("{prefix}{number:020}");
    let sample = writable(&with_number(0))?;
    let Some((parent, _)) = sample.split_last() else {
        return Err(bad_path(prefix, PathError::NotAbsolute));
    };
    let Some(node) = draft.view().node(parent) else {
        return Err(Refusal::NoParent {
            path: parent.to_owned(),
        });
    };
    Ok((writable(&with_number(node.sequence))?, Some(node.sequence)))
}

pub(super) fn check_value(draft: &Draft, data: &[u8]) -> Result<(), Refusal> {
    let limit = usize::try_from(draft.view().limits().value_bytes_max).unwrap_or(usize::MAX);
    check_count("bytes of a value", data.len(), limit)
}

/// Whether `owner` is open and may own one more ephemeral node at `path` (rule R32).
pub(super) fn check_owner(draft: &Draft, owner: SessionId, path: &str) -> Result<(), Refusal> {
    let Some(session) = draft.view().session(owner) else {
        return Err(Refusal::OwnerNotOpen);
    };
    if mutation::is_on(Mutation::EphemeralsUncapped) {
        return Ok(());
    }
    let limits = draft.view().limits();
    let count = u64::from(session.ephemerals) + 1;
    let count_max = u64::from(limits.session_ephemerals_max);
    check_limit("ephemeral nodes of a session", count, count_max)?;
    let paths = session.ephemeral_bytes + ephemeral_bytes(path);
    let bytes = paths * 2 + count * DELETION_BYTES;
    let what = "bytes that a session's end writes for its ephemeral nodes";
    check_limit(what, bytes, u64::from(limits.txn_bytes_max / 2))
}

/// The node's version, if it is as expected.
fn version_of(draft: &Draft, path: &str, expected: Option<u64>) -> Result<u64, Refusal> {
    let Some(node) = draft.view().node(path) else {
        return Err(Refusal::NoNode {
            path: path.to_owned(),
        });
    };
    match expected {
        Some(expected) if expected != node.stat.version => Err(Refusal::BadVersion {
            path: path.to_owned(),
            expected,
            actual: node.stat.version,
        }),
        _ => Ok(node.stat.version),
    }
}
