//! How sessions end, whoever decides it.

use std::collections::BTreeMap;

use folkmoot_proto::effect::{Effect, MountEvent, WaitEndCause};
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{MountId, SessionId};

use super::draft::Draft;
use super::groups::live_node_removed;
use super::operations::delete_unchecked;
use crate::mutation::{self, Mutation};
use crate::state::View;

/// Closes an open session with everything that it owns: ephemeral nodes, waits and unfinished
/// uploads go in this very transaction, and the plugins concerned hear of it afterwards, whether
/// they work or not (rule R12). It always fits, by the caps on what a session may own (rule R32).
pub(in crate::execution) fn end_session(
    draft: &mut Draft,
    session: SessionId,
    expired: bool,
) -> Result<(), Refusal> {
    end_waits(draft, session)?;
    let mut removed: BTreeMap<MountId, Vec<String>> = BTreeMap::new();
    for mount in draft.view().followers(session) {
        removed.insert(mount, Vec::new());
    }
    for path in draft.view().ephemerals(session) {
        if let Some((mount, relative)) = below_mount(draft, &path) {
            removed.entry(mount).or_default().push(relative);
        }
        delete_unchecked(draft, &path)?;
        live_node_removed(draft, &path, expired)?;
    }
    for digest in draft.view().uploads_of_session(session) {
        draft.effect(Effect::DropUpload { digest })?;
    }
    draft.effect(Effect::CloseSession { session, expired })?;
    if mutation::is_on(Mutation::SessionEndUntold) {
        return Ok(());
    }
    for (mount, removed) in removed {
        draft.queue_event(mount, MountEvent::SessionClosed { session, removed })?;
    }
    Ok(())
}

fn end_waits(draft: &mut Draft, session: SessionId) -> Result<(), Refusal> {
    for ticket in draft.view().waits_of_session(session) {
        let Some(wait) = draft.view().wait(ticket).cloned() else {
            continue;
        };
        draft.effect(Effect::EndWait { ticket })?;
        draft.tell_wait_ended(&wait, WaitEndCause::SessionEnded)?;
    }
    Ok(())
}

/// The mount above a node, and the node's path relative to it.
fn below_mount(draft: &Draft, path: &str) -> Option<(MountId, String)> {
    let mount = draft.view().mount_covering(path)?;
    let relative = path.strip_prefix(mount.path.as_str())?;
    Some((mount.id, relative.trim_start_matches('/').to_owned()))
}
