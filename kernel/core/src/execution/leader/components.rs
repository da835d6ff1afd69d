//! Components on their way into the cluster (rule R31).

use std::collections::BTreeMap;

use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::{
    CHUNK_BYTES_MAX, NAME_BYTES_MAX, SESSION_UPLOADS_MAX, UPLOAD_CHUNK_BYTES_MIN, UPLOADS_MAX,
};
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, Now, RequestId, SessionId, Ticket};

use super::detection;
use super::draft::{Draft, KERNEL_MOUNT};
use super::operations::{check_count, check_limit};
use crate::execution::{Execution, ExecutionAction};
use crate::mutation::{self, Mutation};
use crate::plugin::world_of;
use crate::policy::PolicyWorld;
use crate::state::{Upload, View, kernel_nodes};

/// How long an installation may wait for its examination, in milliseconds: ten times what the
/// largest component takes to compile.
const INSTALL_DEADLINE_MS: u64 = 300_000;

/// Takes the next chunk of an upload, given its `(size, offset)`.
pub(super) fn take_chunk(
    draft: &mut Draft,
    session: SessionId,
    digest: Digest,
    (size, offset): (u32, u32),
    data: Vec<u8>,
) -> Result<Outcome, Refusal> {
    check_count("bytes of a chunk", data.len(), CHUNK_BYTES_MAX)?;
    if draft.view().component(digest).is_some() {
        return Ok(Outcome::ChunkTaken);
    }
    let upload = draft.view().upload(digest);
    if let Some(upload) = upload
        && upload.session != session
    {
        return Err(refused(
            "another session uploads this component: wait for it",
        ));
    }
    let (received, known_size) = upload.map_or((0, size), |of| (of.received, of.size));
    if size != known_size || upload.is_some_and(|upload| upload.sealed.is_some()) {
        return Err(refused("the upload has another size, or is sealed"));
    }
    let end = u32::try_from(data.len())
        .ok()
        .and_then(|len| offset.checked_add(len));
    if end.is_none_or(|end| end > size || end == offset) {
        return Err(refused(
            "the chunk is empty, or goes beyond the component's size",
        ));
    }
    if offset != received {
        let reason = format!("the chunk begins at {offset}, expected is {received}");
        return Err(Refusal::ComponentRefused { reason });
    }
    if end != Some(size) && data.len() < UPLOAD_CHUNK_BYTES_MIN {
        return Err(refused("the chunk is small, and not the last one"));
    }
    if received == 0 {
        check_room(draft, session, size)?;
    }
    draft.effect(Effect::PutChunk {
        digest,
        session,
        size,
        offset,
        data,
    })?;
    Ok(Outcome::ChunkTaken)
}

/// Room for a whole component is checked when its upload begins.
fn check_room(draft: &Draft, session: SessionId, size: u32) -> Result<(), Refusal> {
    let limits = draft.view().limits();
    let uploads = draft.view().uploads();
    let of_session = uploads.iter().filter(|(_, of)| of.session == session);
    check_count(
        "uploads of a session",
        of_session.count() + 1,
        SESSION_UPLOADS_MAX,
    )?;
    check_count("uploads of all sessions", uploads.len() + 1, UPLOADS_MAX)?;
    let promised = uploads.into_iter();
    let promised: u64 = promised
        .map(|(_, upload)| u64::from(upload.size - upload.received))
        .sum();
    let total = draft.view().counters().component_bytes + promised + u64::from(size);
    let of_one = u64::from(limits.component_bytes_max);
    check_limit("bytes of a component", u64::from(size), of_one)?;
    check_limit(
        "bytes of all components",
        total,
        limits.components_bytes_max,
    )
}

/// Seals a whole upload; the request waits until it was examined, its digest first: here that
/// would hold up all other requests (rule R7).
pub(super) fn begin_install(
    draft: &mut Draft,
    session: SessionId,
    request: RequestId,
    digest: Digest,
    name: String,
) -> Result<Outcome, Refusal> {
    check_count("bytes of a component's name", name.len(), NAME_BYTES_MAX)?;
    if draft.view().component(digest).is_some() {
        return Ok(Outcome::Installed);
    }
    let upload = draft.view().upload(digest);
    let Some(upload) = upload.filter(|upload| upload.session == session) else {
        return Err(Refusal::UnknownComponent {
            digest: digest.to_string(),
        });
    };
    if upload.sealed.is_some() {
        return Err(refused("it is being installed already"));
    }
    if upload.received != upload.size {
        return Err(refused("its upload is not whole"));
    }
    let deadline = draft.stamp().log_time.plus_millis(INSTALL_DEADLINE_MS);
    draft.begin_wait(session, request, KERNEL_MOUNT, Some(deadline), Vec::new())?;
    let ticket = Ticket(draft.stamp().zxid.0);
    draft.effect(Effect::SealUpload {
        digest,
        name,
        ticket,
    })?;
    Ok(Outcome::Waiting(ticket))
}

/// Removes a component that no mount, no map and no choice of a failure detector has (rule R31).
pub(super) fn remove(draft: &mut Draft, digest: Digest) -> Result<Outcome, Refusal> {
    if draft.view().component(digest).is_none() {
        return Err(Refusal::UnknownComponent {
            digest: digest.to_string(),
        });
    }
    if let Some(by) = user_of(draft.view(), digest) {
        return Err(Refusal::ComponentInUse { by });
    }
    draft.effect(Effect::RemoveComponent { digest })?;
    Ok(Outcome::ComponentRemoved)
}

/// Something that has the component.
fn user_of(view: &impl View, digest: Digest) -> Option<String> {
    let mut mounts = view.mounts().into_iter();
    let mount = mounts.find(|mount| mount.digest == digest);
    let mut maps = view.maps().into_iter().filter_map(|map| view.map(map));
    let map = maps.find(|map| {
        let policy = map.config.policy.as_ref();
        policy.is_some_and(|choice| choice.digest == digest)
    });
    mount
        .map(|mount| format!("the mount at {}", mount.path))
        .or_else(|| map.map(|map| format!("the partition map of {}", map.group)))
        .or_else(|| detection::user_of(view, digest))
}

/// The world of an installed policy.
pub(super) fn world_of_policy(view: &impl View, digest: Digest) -> Result<PolicyWorld, Refusal> {
    let Some(component) = view.component(digest) else {
        return Err(Refusal::UnknownComponent {
            digest: digest.to_string(),
        });
    };
    PolicyWorld::of(&world_of(&component.description)).ok_or_else(|| Refusal::WrongWorld {
        digest: digest.to_string(),
        world: "policy".to_owned(),
    })
}

/// Whether a component is installed and a policy of that world.
pub(super) fn check_policy(
    draft: &Draft,
    digest: Digest,
    world: PolicyWorld,
) -> Result<(), Refusal> {
    let is_of = world_of_policy(draft.view(), digest);
    if matches!(is_of, Err(Refusal::UnknownComponent { .. })) || is_of == Ok(world) {
        return is_of.map(|_| ());
    }
    Err(Refusal::WrongWorld {
        digest: digest.to_string(),
        world: world.name().to_owned(),
    })
}

fn refused(reason: &str) -> Refusal {
    Refusal::ComponentRefused {
        reason: reason.to_owned(),
    }
}

impl Execution {
    /// Asks for the examination of every sealed upload that is committed and not being examined:
    /// a new leader begins them anew.
    pub(in crate::execution) fn examine_sealed(&mut self) {
        if self.leader.is_none() {
            return;
        }
        let uploads = self.state().uploads().into_iter();
        let ticket = |upload: &Upload| upload.sealed.as_ref().map(|sealed| sealed.ticket);
        let sealed: BTreeMap<Digest, Ticket> = uploads
            .filter_map(|(digest, upload)| Some((digest, ticket(upload)?)))
            .collect();
        let Some(leader) = &mut self.leader else {
            return;
        };
        let before = core::mem::replace(&mut leader.examining, sealed.clone());
        for (digest, ticket) in sealed {
            if before.get(&digest) != Some(&ticket) {
                let bytes = self.state().component_bytes(digest).into();
                self.act(ExecutionAction::ExamineComponent { digest, bytes });
            }
        }
    }

    /// Drops uploads that do not go on, and those whose installation nobody waits for any more.
    pub(super) fn run_due_uploads(&mut self, now: Now) {
        let time = self.txn_log_time(now);
        if !self.may_execute()
            || mutation::is_on(Mutation::UploadsStay)
            || self.speculative().due_uploads(time).is_empty()
        {
            return;
        }
        self.kernel_txn(now, |draft| {
            let time = draft.stamp().log_time;
            for digest in draft.view().due_uploads(time) {
                draft.effect(Effect::DropUpload { digest })?;
            }
            Ok(())
        });
    }

    /// Installs or refuses an examined component, and completes the request that waits for it. The
    /// result is about these bytes, whoever uploaded them.
    pub(super) fn run_examined(
        &mut self,
        now: Now,
        digest: Digest,
        result: Result<String, String>,
    ) {
        self.kernel_txn(now, |draft| {
            let mark = draft.mark();
            let installed = finish_install(draft, digest, result);
            // What can not be installed is refused: whoever waits for it hears why.
            installed.or_else(|refusal| {
                draft.roll_back(mark);
                finish_install(draft, digest, Err(refusal.to_string()))
            })
        });
    }
}

fn finish_install(
    draft: &mut Draft,
    digest: Digest,
    result: Result<String, String>,
) -> Result<(), Refusal> {
    let upload = draft.view().upload(digest);
    let Some(sealed) = upload.and_then(|upload| upload.sealed.clone()) else {
        return Ok(());
    };
    let result = match result {
        Err(_) if mutation::is_on(Mutation::InstallRefused) => Ok(String::new()),
        result => result,
    };
    let reply = match result {
        Ok(description) => {
            let (name, size) = (&sealed.name, upload.map_or(0, |upload| upload.size));
            let bytes = kernel_nodes::component_bytes(name, size, &description);
            let value_max = u64::from(draft.view().limits().value_bytes_max);
            check_limit("bytes of a component's node", bytes as u64, value_max)?;
            draft.effect(Effect::PutComponent {
                digest,
                description,
            })?;
            Ok(Outcome::Installed)
        }
        Err(reason) => {
            draft.effect(Effect::DropUpload { digest })?;
            Err(Refusal::ComponentRefused { reason })
        }
    };
    match draft.view().wait(sealed.ticket).cloned() {
        Some(wait) => draft.complete(&wait, reply),
        None => Ok(()),
    }
}
