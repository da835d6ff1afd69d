//! Applying effects: one code for replicas and for the leader's overlay (rule R5), absolute and
//! strict (rule R6).

mod components;
mod error;
mod maps;
mod mounts;
mod nodes;
mod sessions;

use folkmoot_proto::batch::Txn;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::{LogTime, Ticket, WallTime, Zxid};

pub use error::{ApplyError, NodeProblem};
pub use nodes::ephemeral_bytes;

use super::applied::NodeChange;
use super::store::Store;
use super::value::{Mount, Timer, Wait};
use crate::mutation::{self, Mutation};

/// Where and when a transaction takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its zxid.
    pub zxid: Zxid,
    /// Its log time (rule R9).
    pub log_time: LogTime,
    /// Its wall time, for `ctime` and `mtime`.
    pub wall_time: WallTime,
}

/// Applies one effect. After an error nothing of it is left, save in an overlay that is rolled back.
/// What it did to the kernel's own nodes is appended to `changes`.
pub(crate) fn apply_effect<S: Store>(
    store: &mut S,
    stamp: Stamp,
    effect: &Effect,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    match apply_strictly(store, stamp, effect, changes) {
        Err(ApplyError::Node { .. }) if mutation::is_on(Mutation::ApplyTolerantly) => Ok(()),
        applied => applied,
    }
}

fn apply_strictly<S: Store>(
    store: &mut S,
    stamp: Stamp,
    effect: &Effect,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    match effect {
        Effect::CreateNode {
            path,
            data,
            owner,
            parent_cversion,
            parent_sequence,
        } => {
            let counters = (*parent_cversion, *parent_sequence);
            nodes::create(store, stamp, path, data, *owner, counters)
        }
        Effect::SetNode {
            path,
            data,
            version,
        } => nodes::set(store, stamp, path, data, *version),
        Effect::DeleteNode {
            path,
            parent_cversion,
        } => nodes::delete(store, stamp, path, *parent_cversion),
        Effect::OpenSession {
            secret,
            timeout_ms,
            member,
        } => sessions::open(store, stamp, *secret, *timeout_ms, *member),
        Effect::AttachSession {
            session,
            epoch,
            member,
        } => sessions::attach(store, *session, *epoch, *member),
        Effect::CloseSession { session, .. } => sessions::close(store, *session),
        Effect::DropCompletions { session, tickets } => {
            sessions::drop_completions(store, *session, tickets)
        }
        Effect::BeginWait {
            session,
            request,
            mount,
            deadline,
            memo,
        } => sessions::begin_wait(
            store,
            Wait {
                ticket: Ticket(stamp.zxid.0),
                session: *session,
                request: *request,
                mount: *mount,
                deadline: *deadline,
                memo: memo.clone(),
            },
        ),
        Effect::EndWait { ticket } => sessions::end_wait(store, *ticket),
        Effect::FollowSession { mount, session } => mounts::follow(store, *mount, *session),
        Effect::SetTimer {
            mount,
            name,
            due,
            payload,
        } => {
            let timer = Timer {
                due: *due,
                payload: payload.clone(),
            };
            mounts::set_timer(store, *mount, name, timer)
        }
        Effect::CancelTimer { mount, name } => mounts::cancel_timer(store, *mount, name),
        Effect::QueueEvent { mount, event } => mounts::queue_event(store, *mount, event),
        Effect::DequeueEvents { mount, count } => mounts::dequeue_events(store, *mount, *count),
        Effect::PutMount {
            mount,
            path,
            digest,
            config,
            version,
        } => mounts::put(
            store,
            stamp,
            Mount {
                id: *mount,
                path: path.clone(),
                digest: *digest,
                config: config.clone(),
                version: *version,
            },
            changes,
        ),
        Effect::RemoveMount { mount } => mounts::remove(store, stamp, *mount, changes),
        Effect::PutChunk {
            digest,
            session,
            size,
            offset,
            data,
        } => components::put_chunk(store, stamp, *digest, *session, (*size, *offset), data),
        Effect::SealUpload {
            digest,
            name,
            ticket,
        } => components::seal_upload(store, *digest, name, *ticket),
        Effect::DropUpload { digest } => components::drop_upload(store, *digest),
        Effect::PutComponent {
            digest,
            description,
        } => components::install(store, stamp, *digest, description, changes),
        Effect::RemoveComponent { digest } => components::remove(store, stamp, *digest, changes),
        Effect::CreateMap { record, layout } => maps::create(store, stamp, record, layout),
        Effect::PutMap { map, record } => maps::put(store, stamp, *map, record),
        Effect::RemoveMap { map } => maps::remove(store, *map),
        Effect::PutLedger { map, ledger } => maps::put_ledger(store, *map, ledger),
        Effect::PutPartition {
            map,
            partition,
            record,
        } => maps::put_described(store, stamp, (*map, *partition), record),
        Effect::Assign {
            map,
            partition,
            assignment,
        } => maps::assign(store, stamp, (*map, *partition), assignment),
        Effect::SplitPartition {
            map,
            partition,
            parts,
        } => maps::split(store, stamp, (*map, *partition), parts),
    }
}

/// Applies what a transaction says beside its effects, after them: the request's place, its reply,
/// what it acknowledges, and completions.
pub(crate) fn finish_txn<S: Store>(
    store: &mut S,
    stamp: Stamp,
    txn: &Txn,
) -> Result<(), ApplyError> {
    for completion in &txn.completions {
        sessions::complete(store, stamp, txn, completion)?;
    }
    if let Some(origin) = &txn.origin {
        sessions::answer(store, stamp, txn, origin)?;
    }
    Ok(())
}
