//! Requests that the kernel executes itself.

use folkmoot_proto::client::Operation;
use folkmoot_proto::effect::{Effect, WaitEndCause};
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{RequestId, SessionId, Ticket};

use super::asking;
use super::components;
use super::detection;
use super::draft::Draft;
use super::groups;
use super::operations::{self, check_count, parse};
use super::partitions;
use super::sessions::end_session;
use crate::state::View;

/// Executes an operation that needs no guest. After a refusal the caller rolls the draft back.
pub(super) fn execute(
    draft: &mut Draft,
    session: SessionId,
    request: RequestId,
    operation: Operation,
) -> Result<Outcome, Refusal> {
    match operation {
        Operation::Create { path, data, kind } => {
            let owner = operations::owner_of(kind, session);
            let created = operations::create(draft, &path, data, owner, kind.sequential)?;
            Ok(Outcome::Created {
                sequence: created.sequence,
            })
        }
        Operation::Set {
            path,
            data,
            expected,
        } => {
            let version = operations::set(draft, &path, data, expected)?;
            Ok(Outcome::Set { version })
        }
        Operation::Delete { path, expected } => {
            operations::delete(draft, &path, expected)?;
            Ok(Outcome::Deleted)
        }
        Operation::Multi { operations } => operations::multi(draft, session, operations),
        Operation::Sync => Ok(Outcome::Synced),
        Operation::CancelWait { request } => cancel_wait(draft, session, request),
        Operation::AcknowledgeCompletions { tickets } => acknowledge(draft, session, tickets),
        Operation::CloseSession => {
            end_session(draft, session, false)?;
            Ok(Outcome::SessionClosed)
        }
        Operation::UploadChunk {
            digest,
            size,
            offset,
            data,
        } => components::take_chunk(draft, session, digest, (size, offset), data),
        Operation::Install { digest, name } => {
            components::begin_install(draft, session, request, digest, name)
        }
        Operation::Unmount { path } => unmount(draft, &path),
        Operation::RemoveComponent { digest } => components::remove(draft, digest),
        Operation::Group {
            group,
            member,
            operation,
        } => groups::execute(draft, session, (&group, &member), operation),
        Operation::Map { group, operation } => {
            partitions::execute(draft, (session, request), &group, operation)
        }
        Operation::ChooseDetector { group, choice } => {
            detection::choose(draft, &group, choice.as_ref())
        }
        Operation::TryPolicy { choice } => asking::begin_try(draft, (session, request), choice),
        Operation::Invoke { mount, .. } | Operation::Mount { path: mount, .. } => {
            panic!("a call of {mount} was taken for a native operation")
        }
    }
}

fn cancel_wait(
    draft: &mut Draft,
    session: SessionId,
    request: RequestId,
) -> Result<Outcome, Refusal> {
    let Some(wait) = draft.view().wait_of_request(session, request).cloned() else {
        return Ok(Outcome::NothingToCancel);
    };
    draft.end_wait(&wait, WaitEndCause::Cancelled, Refusal::WaitCancelled)?;
    Ok(Outcome::Cancelled)
}

/// Drops the completions that are kept; one that is not there was acknowledged before.
fn acknowledge(
    draft: &mut Draft,
    session: SessionId,
    mut tickets: Vec<Ticket>,
) -> Result<Outcome, Refusal> {
    let waits_max = usize::try_from(draft.view().limits().session_waits_max).unwrap_or(usize::MAX);
    check_count("tickets of an acknowledgement", tickets.len(), waits_max)?;
    tickets.sort_unstable();
    tickets.dedup();
    tickets.retain(|ticket| draft.view().completion(session, *ticket).is_some());
    if !tickets.is_empty() {
        draft.effect(Effect::DropCompletions { session, tickets })?;
    }
    Ok(Outcome::Acknowledged)
}

/// Removes a mount with its waits; its nodes stay.
fn unmount(draft: &mut Draft, path: &str) -> Result<Outcome, Refusal> {
    let path = parse(path)?;
    let Some(mount) = draft.view().mount_at(path.as_str()).map(|mount| mount.id) else {
        return Err(Refusal::UnknownMount {
            mount: path.to_string(),
        });
    };
    for ticket in draft.view().waits_of_mount(mount) {
        if let Some(wait) = draft.view().wait(ticket).cloned() {
            draft.end_wait(&wait, WaitEndCause::MountRemoved, Refusal::MountRemoved)?;
        }
    }
    draft.effect(Effect::RemoveMount { mount })?;
    Ok(Outcome::Unmounted)
}
