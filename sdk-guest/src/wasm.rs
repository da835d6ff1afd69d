//! The component's side of the contract: the WIT's exports, made of a [`Recipe`], and its imports
//! as [`HostCalls`].

use core::cell::RefCell;
use core::marker::PhantomData;

use bindings::exports::folkmoot::plugin::guest;
use bindings::folkmoot::plugin::{log, random, sessions, timers, tree, types, waits};

use crate::context::CallContext;
use crate::event::{Event, WaitEndCause};
use crate::host::{Created, HostCalls, Node, Stat, TreeError};
use crate::ids::{LogTime, SessionId, Ticket, Zxid};
use crate::instance::Instance;
use crate::operation::Outcome;
use crate::recipe::Recipe;
use crate::rejection::Rejection;

/// What wit-bindgen makes of the WIT. Not part of the SDK's interface.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated: lifts and lowers values across the boundary"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "recipe",
        pub_export_macro: true,
        export_macro_name: "export_component",
    });
}

pub use bindings::export_component;

thread_local! {
    /// The instance of the recipe; a component has one thread.
    static INSTANCE: RefCell<Option<Instance>> = const { RefCell::new(None) };
}

/// The component that a recipe makes.
#[derive(Debug)]
pub struct Component<R>(PhantomData<R>);

impl<R: Recipe> guest::Guest for Component<R> {
    fn describe() -> String {
        log_panics();
        R::describe().to_json()
    }

    fn configure(configuration: Vec<u8>) -> Result<(), types::Rejection> {
        log_panics();
        let mut instance = Instance::of::<R>();
        instance.configure(&configuration)?;
        INSTANCE.set(Some(instance));
        Ok(())
    }

    fn invoke(
        context: guest::Context,
        operation: String,
        payload: Vec<u8>,
    ) -> Result<guest::Outcome, types::Rejection> {
        let outcome = with_instance(|instance| {
            instance.invoke(&mut Imports, context.into(), &operation, &payload)
        })?;
        Ok(match outcome {
            Outcome::Reply(reply) => guest::Outcome::Reply(reply),
            Outcome::Wait { deadline, memo } => guest::Outcome::Wait(guest::Wait {
                deadline: deadline.map(|deadline| deadline.0),
                memo,
            }),
        })
    }

    fn on_event(context: guest::Context, event: guest::Event) {
        let handled =
            with_instance(|instance| instance.on_event(&mut Imports, context.into(), event.into()));
        if let Err(rejection) = handled {
            panic!("the event could not be handled: {rejection}");
        }
    }

    fn migrate(context: guest::Context, from_state_version: u64) -> Result<(), types::Rejection> {
        with_instance(|instance| {
            instance.migrate(&mut Imports, context.into(), from_state_version)
        })?;
        Ok(())
    }
}

fn with_instance<T>(call: impl FnOnce(&Instance) -> T) -> T {
    INSTANCE.with_borrow(|instance| match instance {
        Some(instance) => call(instance),
        None => panic!("the instance was not configured"),
    })
}

/// Has a panic's text logged before the trap, which by itself says nothing.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::write(&panic.to_string())));
}

/// The imports of the component.
struct Imports;

impl HostCalls for Imports {
    fn read(&self, path: &str) -> Result<Node, TreeError> {
        let node = tree::get(path)?;
        Ok(Node {
            data: node.data,
            stat: node.stat.into(),
        })
    }

    fn stat(&self, path: &str) -> Result<Option<Stat>, TreeError> {
        Ok(tree::stat_of(path)?.map(Stat::from))
    }

    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        sequential: bool,
    ) -> Result<Created, TreeError> {
        if sequential {
            return Ok(tree::create_sequential(path, &data)?.into());
        }
        let zxid = tree::create(path, &data)?;
        Ok(created_as_asked(path, zxid))
    }

    fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: SessionId,
        sequential: bool,
    ) -> Result<Created, TreeError> {
        if sequential {
            return Ok(tree::create_ephemeral_sequential(path, &data, owner.0)?.into());
        }
        let zxid = tree::create_ephemeral(path, &data, owner.0)?;
        Ok(created_as_asked(path, zxid))
    }

    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError> {
        Ok(tree::set(path, &data, expected)?)
    }

    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError> {
        Ok(tree::delete(path, expected)?)
    }

    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        Ok(tree::children(path, after, limit)?)
    }

    fn session_is_open(&self, session: SessionId) -> bool {
        sessions::is_open(session.0)
    }

    fn follow(&mut self, session: SessionId) -> bool {
        sessions::follow(session.0)
    }

    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool {
        let outcome = outcome.map_err(types::Rejection::from);
        waits::complete(ticket.0, outcome.as_deref())
    }

    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError> {
        Ok(timers::set(name, due.0, &payload)?)
    }

    fn cancel_timer(&mut self, name: &str) -> bool {
        timers::cancel(name)
    }

    fn random(&mut self) -> u64 {
        random::next()
    }

    fn log(&mut self, message: &str) {
        log::write(message);
    }
}

fn created_as_asked(path: &str, zxid: u64) -> Created {
    let name = path.rsplit('/').next().unwrap_or_default();
    Created {
        zxid: Zxid(zxid),
        name: name.to_owned(),
    }
}

impl From<guest::Context> for CallContext {
    fn from(context: guest::Context) -> Self {
        Self {
            session: context.session.map(SessionId),
            zxid: Zxid(context.zxid),
            now: LogTime(context.now),
        }
    }
}

impl From<guest::Event> for Event {
    fn from(event: guest::Event) -> Self {
        match event {
            guest::Event::SessionClosed(closed) => Self::SessionClosed {
                session: SessionId(closed.session),
                removed: closed.removed,
            },
            guest::Event::WaitEnded(ended) => Self::WaitEnded {
                ticket: Ticket(ended.ticket),
                session: SessionId(ended.session),
                cause: ended.cause.into(),
                memo: ended.memo,
            },
            guest::Event::Timer(timer) => Self::Timer {
                name: timer.name,
                due: LogTime(timer.due),
                payload: timer.payload,
            },
            guest::Event::Resync => Self::Resync,
            guest::Event::Other(other) => Self::Other {
                kind: other.kind,
                payload: other.payload,
            },
        }
    }
}

impl From<guest::WaitEndCause> for WaitEndCause {
    fn from(cause: guest::WaitEndCause) -> Self {
        match cause {
            guest::WaitEndCause::Deadline => Self::Deadline,
            guest::WaitEndCause::SessionEnded => Self::SessionEnded,
            guest::WaitEndCause::Cancelled => Self::Cancelled,
            guest::WaitEndCause::Other(cause) => Self::Other(cause),
        }
    }
}

impl From<tree::Stat> for Stat {
    fn from(stat: tree::Stat) -> Self {
        Self {
            czxid: Zxid(stat.czxid),
            mzxid: Zxid(stat.mzxid),
            pzxid: Zxid(stat.pzxid),
            version: stat.version,
            cversion: stat.cversion,
            owner: stat.owner.map(SessionId),
            children: stat.children,
        }
    }
}

impl From<tree::Created> for Created {
    fn from(created: tree::Created) -> Self {
        Self {
            zxid: Zxid(created.zxid),
            name: created.name,
        }
    }
}

impl From<tree::TreeError> for TreeError {
    fn from(error: tree::TreeError) -> Self {
        match error {
            tree::TreeError::BadPath => Self::BadPath,
            tree::TreeError::NoNode => Self::NoNode,
            tree::TreeError::NodeExists => Self::NodeExists,
            tree::TreeError::NoParent => Self::NoParent,
            tree::TreeError::NotEmpty => Self::NotEmpty,
            tree::TreeError::BadVersion(actual) => Self::BadVersion { actual },
            tree::TreeError::EphemeralParent => Self::EphemeralParent,
            tree::TreeError::OwnerNotOpen => Self::OwnerNotOpen,
            tree::TreeError::TooLarge(what) => Self::TooLarge { what },
            tree::TreeError::Other(code) => Self::Other(code),
        }
    }
}

impl From<Rejection> for types::Rejection {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details,
        }
    }
}
