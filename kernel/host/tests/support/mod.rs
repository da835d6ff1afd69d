//! Runs a guest's component on the SDK's mount in memory.

#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test binary uses a part of it, in tests"
)]

#[path = "../../../../xtask/src/guests.rs"]
mod guests;
pub(crate) mod member;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use folkmoot_core::plugin::{
    CallContext, Discard, GuestCall, GuestOutcome, InstanceKey, Rejection, TreeError,
};
use folkmoot_host::view::CallView;
use folkmoot_host::{CallLimits, Components, Sandbox, WasmRuntime};
use folkmoot_proto::client::Stat;
use folkmoot_proto::effect::{MountEvent, WaitEndCause};
use folkmoot_proto::{Digest, LogTime, MountId, SessionId, Term, Ticket, Zxid};
use folkmoot_sdk::host::{self as sdk_host, HostCalls};
use folkmoot_sdk::operation::Outcome;
use folkmoot_sdk::testing::{Call, CallOutcome, Runner, View};
use folkmoot_sdk::{event, ids, rejection};

/// The sandbox of this test process.
pub(crate) fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX
        .get_or_init(|| Sandbox::new().expect("a sandbox"))
        .clone()
}

/// The component of a guest, built on demand.
pub(crate) fn component(name: &str) -> Vec<u8> {
    static FOLDER: OnceLock<std::path::PathBuf> = OnceLock::new();
    let folder: &Path = FOLDER.get_or_init(|| guests::build_guests().expect("the guests"));
    let file = format!("{name}.wasm");
    let mut places = ["", "policies", "examples", "for-tests"].into_iter();
    let found = places.find_map(|place| std::fs::read(folder.join(place).join(&file)).ok());
    found.expect("a component")
}

/// Runs a component on the SDK's mount.
pub(crate) struct Wasm {
    runtime: WasmRuntime<MemoryView>,
    digest: Digest,
}

impl Wasm {
    pub(crate) fn of(name: &str) -> Self {
        Self::with_limits(name, CallLimits::default())
    }

    pub(crate) fn with_limits(name: &str, limits: CallLimits) -> Self {
        let bytes = component(name);
        let digest = Digest::of(&bytes);
        let components = Arc::new(Components::in_memory(sandbox()));
        components
            .prepare(digest, &bytes, &|| false)
            .expect("a component that compiles");
        Self {
            runtime: WasmRuntime::new(components, limits),
            digest,
        }
    }

    fn key(&self) -> InstanceKey {
        InstanceKey {
            mount: MountId(1),
            version: Zxid(1),
            term: Term(1),
            digest: self.digest,
        }
    }
}

impl Runner for Wasm {
    fn call(&mut self, configuration: &[u8], call: Call, view: View) -> (View, CallOutcome) {
        let call = match call {
            Call::Configure => GuestCall::Configure,
            Call::Invoke { operation, payload } => GuestCall::Invoke { operation, payload },
            Call::Event(event) => GuestCall::OnEvent {
                event: mount_event(event),
            },
        };
        let key = self.key();
        let (view, result) = self
            .runtime
            .call_guest(key, configuration, call, MemoryView(view));
        let outcome = match result {
            Ok(Ok(GuestOutcome::Reply(reply))) => CallOutcome::Answered(Outcome::Reply(reply)),
            Ok(Ok(GuestOutcome::Wait { deadline, memo })) => CallOutcome::Answered(Outcome::Wait {
                deadline: deadline.map(|deadline| ids::LogTime(deadline.0)),
                memo,
            }),
            Ok(Ok(GuestOutcome::Done)) => CallOutcome::Done,
            Ok(Err(rejection)) => CallOutcome::Rejected(sdk_rejection(rejection)),
            Err(fault) => CallOutcome::Fault(fault.to_string()),
        };
        (view.0, outcome)
    }

    fn discard(&mut self) {
        self.runtime.discard_instances(Discard::All);
    }
}

/// The SDK's view as the host's.
pub(crate) struct MemoryView(View);

impl CallView for MemoryView {
    fn context(&self) -> CallContext {
        let context = self.0.context();
        CallContext {
            session: context.session.map(|session| SessionId(session.0)),
            zxid: Zxid(context.zxid.0),
            now: LogTime(context.now.0),
        }
    }

    fn wrote(&self) -> bool {
        self.0.wrote()
    }

    fn read(&self, path: &str) -> Result<(Vec<u8>, Stat), TreeError> {
        let node = self.0.read(path).map_err(tree_error)?;
        let stat = Stat {
            czxid: Zxid(node.stat.czxid.0),
            mzxid: Zxid(node.stat.mzxid.0),
            pzxid: Zxid(node.stat.pzxid.0),
            version: node.stat.version,
            cversion: node.stat.cversion,
            ephemeral_owner: node.stat.owner.map(|owner| SessionId(owner.0)),
            num_children: node.stat.children,
            ..Stat::default()
        };
        Ok((node.data, stat))
    }

    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError> {
        let created = match owner {
            Some(owner) => {
                let owner = ids::SessionId(owner.0);
                self.0.create_ephemeral(path, data, owner, sequential)
            }
            None => self.0.create(path, data, sequential),
        };
        created
            .map(|created| (Zxid(created.zxid.0), created.name))
            .map_err(tree_error)
    }

    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError> {
        self.0.set(path, data, expected).map_err(tree_error)
    }

    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError> {
        self.0.delete(path, expected).map_err(tree_error)
    }

    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        self.0.children(path, after, limit).map_err(tree_error)
    }

    fn session_is_open(&self, session: SessionId) -> bool {
        self.0.session_is_open(ids::SessionId(session.0))
    }

    fn follow(&mut self, session: SessionId) -> bool {
        self.0.follow(ids::SessionId(session.0))
    }

    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool {
        self.0
            .complete(ids::Ticket(ticket.0), outcome.map_err(sdk_rejection))
    }

    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError> {
        self.0
            .set_timer(name, ids::LogTime(due.0), payload)
            .map_err(tree_error)
    }

    fn cancel_timer(&mut self, name: &str) -> bool {
        self.0.cancel_timer(name)
    }

    fn random(&mut self) -> u64 {
        self.0.random()
    }

    fn log(&mut self, message: &str) {
        self.0.log(message);
    }
}

fn tree_error(error: sdk_host::TreeError) -> TreeError {
    match error {
        sdk_host::TreeError::BadPath => TreeError::BadPath,
        sdk_host::TreeError::NoNode => TreeError::NoNode,
        sdk_host::TreeError::NodeExists => TreeError::NodeExists,
        sdk_host::TreeError::NoParent => TreeError::NoParent,
        sdk_host::TreeError::NotEmpty => TreeError::NotEmpty,
        sdk_host::TreeError::BadVersion { actual } => TreeError::BadVersion { actual },
        sdk_host::TreeError::EphemeralParent => TreeError::EphemeralParent,
        sdk_host::TreeError::OwnerNotOpen => TreeError::OwnerNotOpen,
        sdk_host::TreeError::TooLarge { .. } => TreeError::TooLarge { what: "a test" },
        sdk_host::TreeError::Other(_) => TreeError::ReadOnly,
    }
}

fn sdk_rejection(rejection: Rejection) -> rejection::Rejection {
    rejection::Rejection {
        code: rejection.code,
        message: rejection.message,
        details: rejection.details,
    }
}

fn mount_event(event: event::Event) -> MountEvent {
    match event {
        event::Event::SessionClosed { session, removed } => MountEvent::SessionClosed {
            session: SessionId(session.0),
            removed,
        },
        event::Event::WaitEnded {
            ticket,
            session,
            cause,
            memo,
        } => MountEvent::WaitEnded {
            ticket: Ticket(ticket.0),
            session: SessionId(session.0),
            cause: match cause {
                event::WaitEndCause::Deadline => WaitEndCause::Deadline,
                event::WaitEndCause::SessionEnded => WaitEndCause::SessionEnded,
                event::WaitEndCause::Cancelled => WaitEndCause::Cancelled,
                event::WaitEndCause::Other(_) => WaitEndCause::MountRemoved,
            },
            memo,
        },
        event::Event::Timer { name, due, payload } => MountEvent::Timer {
            name,
            due: LogTime(due.0),
            payload,
        },
        event::Event::Resync | event::Event::Other { .. } => MountEvent::Resync,
    }
}
