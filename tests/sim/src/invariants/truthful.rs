//! A reply tells the truth about the state in which the request took its place (rules R1, R6, R13):
//! what is said to be done is among the effects, what is said to be in the way is in the way, a
//! refusal changes nothing, and a request with guards takes effect only while they hold.

use folkmoot_proto::Zxid;
use folkmoot_proto::batch::Txn;
use folkmoot_proto::client::{Guard, NodeKind, Operation, Request};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::partition::partition_of_owner_path;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};

use super::maps;
use crate::client::worker::GROUP;
use crate::oracle::Oracle;
use crate::violation::{Checked, Violation};

/// `txn`, which answers `request`, is about to be applied.
pub(crate) fn check(oracle: &Oracle, zxid: Zxid, txn: &Txn, request: &Request) -> Checked {
    let Some(origin) = &txn.origin else {
        return Ok(());
    };
    let reply = &origin.reply;
    if reply.is_err() && !txn.effects.is_empty() {
        return wrong(zxid, request, reply, "the refusal has effects");
    }
    if reply.is_ok()
        && let Some(guard) = request.guards.iter().find(|guard| !holds(oracle, guard))
    {
        return wrong(zxid, request, reply, &format!("{guard:?} does not hold"));
    }
    let true_refusal = match reply {
        Err(refusal) => refused(oracle, refusal),
        Ok(_) => true,
    };
    if !true_refusal {
        return wrong(zxid, request, reply, "the refusal is not true");
    }
    if let Ok(outcome) = reply
        && !done(oracle, &request.operation, outcome, &txn.effects)
    {
        return wrong(
            zxid,
            request,
            reply,
            &format!("the effects are {:?}", txn.effects),
        );
    }
    Ok(())
}

/// Whether a node with that `czxid` is there (rule R13), or an owner with that token (rule R33).
pub(crate) fn holds(oracle: &Oracle, guard: &Guard) -> bool {
    current(oracle, &guard.path) == Some(guard.token)
}

/// The token that holds at a path.
fn current(oracle: &Oracle, path: &str) -> Option<Zxid> {
    match partition_of_owner_path(path) {
        Some((group, partition)) if group == GROUP => maps::owns(oracle, partition),
        _ => oracle.tree.now(path).map(|node| node.czxid),
    }
}

fn wrong(zxid: Zxid, request: &Request, reply: &Reply, what: &str) -> Checked {
    Err(Violation::new(
        "truthful",
        format!("zxid {zxid}: {request:?} is answered {reply:?}, but {what}"),
    ))
}

fn refused(oracle: &Oracle, refusal: &Refusal) -> bool {
    let tree = &oracle.tree;
    match refusal {
        Refusal::NoNode { path } => tree.now(path).is_none(),
        Refusal::NodeExists { path } => tree.exists(path),
        Refusal::NoParent { path } => !tree.exists(path),
        Refusal::NotEmpty { path } => tree.has_children(path),
        Refusal::BadVersion {
            path,
            expected,
            actual,
        } => expected != actual && tree.now(path).is_some_and(|node| node.version == *actual),
        Refusal::GuardFailed {
            path,
            token,
            current,
        } => {
            let czxid = self::current(oracle, path);
            czxid == *current && czxid != Some(*token)
        }
        Refusal::EphemeralParent { path } => {
            tree.now(path).is_some_and(|node| node.owner.is_some())
        }
        _ => true,
    }
}

/// Whether the effects are those of an operation that was done so.
fn done(oracle: &Oracle, operation: &Operation, outcome: &Outcome, effects: &[Effect]) -> bool {
    let version = |path: &str| oracle.tree.now(path).map(|node| node.version);
    let as_expected =
        |path: &str, expected: &Option<u64>| expected.is_none() || version(path) == *expected;
    match (operation, outcome) {
        (Operation::Create { path, data, kind }, Outcome::Created { sequence }) => {
            creates(effects, path, data, *kind, *sequence)
        }
        (
            Operation::Set {
                path,
                data,
                expected,
            },
            Outcome::Set { version: after },
        ) => {
            let sets = |effect: &Effect| {
                matches!(effect, Effect::SetNode { path: set, data: to, version }
                    if set == path && to == data && version == after)
            };
            as_expected(path, expected) && effects.len() == 1 && effects.iter().any(sets)
        }
        (Operation::Delete { path, expected }, Outcome::Deleted) => {
            let deletes = |effect: &Effect| matches!(effect, Effect::DeleteNode { path: deleted, .. } if deleted == path);
            as_expected(path, expected) && effects.len() == 1 && effects.iter().any(deletes)
        }
        (Operation::Multi { operations }, Outcome::Multi(outcomes)) => {
            operations.len() == outcomes.len()
        }
        (Operation::Sync, Outcome::Synced) => effects.is_empty(),
        (Operation::CloseSession, Outcome::SessionClosed) => true,
        (Operation::Invoke { .. }, Outcome::Invoked(_) | Outcome::Waiting(_)) => true,
        (Operation::CancelWait { .. }, Outcome::Cancelled | Outcome::NothingToCancel) => true,
        (Operation::AcknowledgeCompletions { .. }, Outcome::Acknowledged) => true,
        (Operation::UploadChunk { .. }, Outcome::ChunkTaken) => true,
        (Operation::Install { .. }, Outcome::Installed | Outcome::Waiting(_)) => true,
        (Operation::Mount { .. }, Outcome::Mounted) => true,
        (Operation::Group { .. }, Outcome::GroupChanged) => true,
        (Operation::ChooseDetector { .. }, Outcome::DetectorChosen)
        | (Operation::TryPolicy { .. }, Outcome::Waiting(_)) => true,
        (
            Operation::Map { .. },
            Outcome::MapChanged
            | Outcome::Reported { .. }
            | Outcome::Permitted { .. }
            | Outcome::Planned(_)
            | Outcome::Waiting(_),
        ) => true,
        (Operation::Unmount { .. }, Outcome::Unmounted)
        | (Operation::RemoveComponent { .. }, Outcome::ComponentRemoved) => true,
        _ => false,
    }
}

fn creates(
    effects: &[Effect],
    path: &str,
    data: &[u8],
    kind: NodeKind,
    sequence: Option<u64>,
) -> bool {
    let name = match sequence {
        Some(number) => format!("{path}{number:020}"),
        None => path.to_owned(),
    };
    let created = |effect: &Effect| {
        matches!(effect, Effect::CreateNode { path: created, data: with, owner, .. }
            if *created == name && with == data && owner.is_some() == kind.ephemeral)
    };
    sequence.is_some() == kind.sequential && effects.len() == 1 && effects.iter().any(created)
}
