//! Calls of guests: inside the transaction, bounded, and with nothing left of those that fail.

use folkmoot_proto::client::{Operation, Request};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::OPERATION_NAME_BYTES_MAX;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, MountId, NodePath, Now, RequestId, SessionId, Ticket, Zxid};

use super::draft::Draft;
use super::operations::{self, check_count, parse};
use crate::execution::view::{Scope, TxnView, refusal_of};
use crate::execution::{Execution, ExecutionAction};
use crate::mutation::{self, Mutation};
use crate::plugin::{
    CallContext, CallResult, Discard, FaultKind, GuestCall, GuestOutcome, InstanceKey, PluginFault,
    PluginRuntime, RECIPE, world_of,
};
use crate::state::kernel_nodes::{self, is_reserved};
use crate::state::{Component, Mount, View, reply_bytes};

impl Execution {
    /// Executes a request that calls a guest. After a refusal the caller rolls the draft back.
    pub(super) fn call_for(
        &mut self,
        now: Now,
        draft: Draft,
        session: SessionId,
        request: Request,
        plugins: &mut dyn PluginRuntime,
    ) -> (Draft, Result<Outcome, Refusal>) {
        match request.operation {
            Operation::Invoke {
                mount,
                operation,
                payload,
            } => {
                let call = GuestCall::Invoke { operation, payload };
                self.invoke(now, draft, (session, request.id), &mount, call, plugins)
            }
            Operation::Mount {
                path,
                digest,
                config,
            } => self.mount(draft, session, &path, (digest, config), plugins),
            other => panic!("{other:?} calls no guest"),
        }
    }

    fn invoke(
        &mut self,
        now: Now,
        draft: Draft,
        (session, request): (SessionId, RequestId),
        path: &str,
        call: GuestCall,
        plugins: &mut dyn PluginRuntime,
    ) -> (Draft, Result<Outcome, Refusal>) {
        let mount = match self.callable(now, &draft, path, &call, plugins) {
            Ok(mount) => mount,
            Err(refusal) => return (draft, Err(refusal)),
        };
        let (mut draft, result, wrote) =
            self.call_guest(draft, &mount, Some(session), call, plugins);
        let micros = plugins.last_call_micros();
        let faulted = result.is_err();
        if let Some(leader) = &mut self.leader {
            leader.health.called(mount.id, now.tick, micros, faulted);
        }
        let reply = match result {
            Ok(Ok(GuestOutcome::Reply(bytes))) => Ok(Outcome::Invoked(bytes)),
            Ok(Ok(GuestOutcome::Wait { deadline, memo })) => draft
                .begin_wait(session, request, mount.id, deadline, memo)
                .map(|()| Outcome::Waiting(Ticket(draft.stamp().zxid.0))),
            Ok(Ok(GuestOutcome::Done)) => Err(fault_refusal(&contract("no outcome"))),
            Ok(Err(rejection)) => Err(refusal_of(rejection)),
            Err(fault) => Err(fault_refusal(&fault)),
        };
        let limit = u64::from(draft.view().limits().value_bytes_max);
        let too_large = |message: String| {
            Err(fault_refusal(&PluginFault {
                kind: FaultKind::TooLarge,
                message,
            }))
        };
        let reply = match draft.check_reply(&reply) {
            _ if reply_bytes(&reply) > limit => {
                too_large(format!("a reply has at most {limit} bytes"))
            }
            Err(refusal) if reply.is_ok() => too_large(refusal.to_string()),
            _ => reply,
        };
        let rolled_back = reply.is_err() && (wrote || faulted);
        if rolled_back && !mutation::is_on(Mutation::KeepInstanceAfterRejection) {
            plugins.discard(Discard::Mount(mount.id));
        }
        (draft, reply)
    }

    /// The mount at `path`, if it can be called now.
    fn callable(
        &mut self,
        now: Now,
        draft: &Draft,
        path: &str,
        call: &GuestCall,
        plugins: &dyn PluginRuntime,
    ) -> Result<Mount, Refusal> {
        if let GuestCall::Invoke { operation, .. } = call {
            let what = "bytes of an operation's name";
            check_count(what, operation.len(), OPERATION_NAME_BYTES_MAX)?;
        }
        let path = parse(path)?;
        let Some(mount) = draft.view().mount_at(path.as_str()).cloned() else {
            return Err(Refusal::UnknownMount {
                mount: path.to_string(),
            });
        };
        if !plugins.is_ready(mount.digest) && !mutation::is_on(Mutation::CallLoading) {
            return Err(Refusal::PluginLoading { mount: mount.path });
        }
        let throttled = self.leader.as_mut();
        let throttled =
            throttled.is_some_and(|leader| leader.health.is_throttled(mount.id, now.tick));
        if throttled && !mutation::is_on(Mutation::NoThrottle) {
            return Err(Refusal::MountThrottled { mount: mount.path });
        }
        Ok(mount)
    }

    /// Calls a guest with the draft; answers the draft, the result, and whether the call wrote. A
    /// call whose writes do not fit is a fault.
    pub(super) fn call_guest(
        &mut self,
        draft: Draft,
        mount: &Mount,
        session: Option<SessionId>,
        call: GuestCall,
        plugins: &mut dyn PluginRuntime,
    ) -> (Draft, CallResult, bool) {
        let scope = Scope {
            context: CallContext {
                session,
                zxid: draft.stamp().zxid,
                now: draft.stamp().log_time,
            },
            mount: mount.id,
            root: root_of(mount),
            read_only: call == GuestCall::Configure,
        };
        let key = InstanceKey {
            mount: mount.id,
            version: mount.version,
            term: self.leader_term(),
            digest: mount.digest,
        };
        let view = TxnView::new(draft, scope);
        let (view, result) = plugins.call(key, &mount.config, call, view);
        let wrote = view.wrote();
        let (draft, lines) = view.into_parts();
        for line in lines {
            self.act(ExecutionAction::GuestLog {
                mount: mount.path.clone(),
                line,
            });
        }
        let result = if draft.has_overflowed() {
            Err(PluginFault {
                kind: FaultKind::TooLarge,
                message: "the call wrote more than a transaction may hold".to_owned(),
            })
        } else {
            result
        };
        (draft, result, wrote)
    }

    /// Makes a mount, or gives one another component or configuration, once the plugin has taken
    /// the configuration, and has brought the nodes of another state version to its own. What it
    /// wrote and the mount's new version are one transaction. The way back is another upgrade.
    fn mount(
        &mut self,
        draft: Draft,
        session: SessionId,
        path: &str,
        (digest, config): (Digest, Vec<u8>),
        plugins: &mut dyn PluginRuntime,
    ) -> (Draft, Result<Outcome, Refusal>) {
        let mount = match mountable(&draft, path, digest, config) {
            Ok(mount) => mount,
            Err(refusal) => return (draft, Err(refusal)),
        };
        if !plugins.is_ready(digest) {
            return (draft, Err(Refusal::PluginLoading { mount: mount.path }));
        }
        let call = check_of(&draft, &mount);
        let id = mount.id;
        let (mut draft, result, wrote) =
            self.call_guest(draft, &mount, Some(session), call, plugins);
        let reply = match result {
            Ok(Ok(_)) => put_mount(&mut draft, mount),
            Ok(Err(rejection)) => Err(refusal_of(rejection)),
            Err(fault) => Err(fault_refusal(&fault)),
        };
        if reply.is_err() && wrote {
            plugins.discard(Discard::Mount(id));
        }
        (draft, reply)
    }
}

/// What is to be mounted, if it can be: at a path of its own, neither above nor below another.
fn mountable(draft: &Draft, path: &str, digest: Digest, config: Vec<u8>) -> Result<Mount, Refusal> {
    let path = parse(path)?;
    if path.is_root() || is_reserved(path.as_str()) {
        return Err(Refusal::Reserved {
            path: path.to_string(),
        });
    }
    let limits = draft.view().limits();
    let value_max = usize::try_from(limits.value_bytes_max).unwrap_or(usize::MAX);
    check_count("bytes of a configuration", config.len(), value_max)?;
    let Some(component) = draft.view().component(digest) else {
        return Err(Refusal::UnknownComponent {
            digest: digest.to_string(),
        });
    };
    let world = world_of(&component.description);
    if world != RECIPE {
        let reason = format!("it is a {world}, and only a {RECIPE} can be mounted");
        return Err(Refusal::ComponentRefused { reason });
    }
    let zxid = draft.stamp().zxid;
    let id = match draft.view().mount_at(path.as_str()) {
        Some(mount) => mount.id,
        None => new_mount(draft, &path, zxid)?,
    };
    let mount = Mount {
        id,
        path: path.to_string(),
        digest,
        config,
        version: zxid,
    };
    // Every client can read it as a node, which has the limits of any.
    let bytes = kernel_nodes::mount_bytes(&mount);
    check_count("bytes of a mount's node", bytes, value_max)?;
    Ok(mount)
}

fn new_mount(draft: &Draft, path: &NodePath, zxid: Zxid) -> Result<MountId, Refusal> {
    let view = draft.view();
    let above = view.mount_covering(path.as_str());
    if let Some(mount) = above.or_else(|| view.mount_within(path.as_str())) {
        return Err(Refusal::MountExists {
            mount: mount.path.clone(),
        });
    }
    let mounts_max = u64::from(view.limits().mounts_max);
    operations::check_limit(
        "mounts of the cluster",
        view.counters().mounts + 1,
        mounts_max,
    )?;
    if view
        .node(path.as_str())
        .is_some_and(|node| node.is_ephemeral())
    {
        return Err(Refusal::EphemeralParent {
            path: path.to_string(),
        });
    }
    Ok(MountId(zxid.0))
}

/// The call by which a plugin takes a mount over.
fn check_of(draft: &Draft, mount: &Mount) -> GuestCall {
    let state_version = |digest: Digest| {
        let component = draft.view().component(digest);
        component.map_or(0, Component::state_version)
    };
    let before = draft.view().mount(mount.id);
    let from = before.map(|before| state_version(before.digest));
    match from {
        Some(from_state_version) if from_state_version != state_version(mount.digest) => {
            GuestCall::Migrate { from_state_version }
        }
        _ => GuestCall::Configure,
    }
}

fn put_mount(draft: &mut Draft, mount: Mount) -> Result<Outcome, Refusal> {
    if draft.view().node(&mount.path).is_none() {
        operations::create(draft, &mount.path, Vec::new(), None, false)?;
    }
    draft.effect(Effect::PutMount {
        mount: mount.id,
        path: mount.path,
        digest: mount.digest,
        config: mount.config,
        version: mount.version,
    })?;
    Ok(Outcome::Mounted)
}

fn root_of(mount: &Mount) -> NodePath {
    let Ok(root) = NodePath::parse(&mount.path) else {
        panic!(
            "mount {} is at {:?}, which is no path",
            mount.id, mount.path
        );
    };
    root
}

fn contract(what: &str) -> PluginFault {
    PluginFault {
        kind: FaultKind::Contract,
        message: what.to_owned(),
    }
}

fn fault_refusal(fault: &PluginFault) -> Refusal {
    Refusal::PluginFault {
        kind: fault.kind.name().to_owned(),
        message: fault.message.clone(),
    }
}
