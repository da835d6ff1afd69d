//! The transaction's view behind the calls that a recipe makes.

use folkmoot_core::plugin::{Rejection, TreeError, TxnView};
use folkmoot_proto::effect::{MountEvent, WaitEndCause};
use folkmoot_proto::{LogTime, SessionId, Ticket};

/// What a recipe sees, by one name.
mod sdk {
    pub(super) use folkmoot_sdk::context::CallContext;
    pub(super) use folkmoot_sdk::event::{Event, WaitEndCause};
    pub(super) use folkmoot_sdk::host::{Created, HostCalls, Node, Stat, TreeError};
    pub(super) use folkmoot_sdk::ids::{LogTime, SessionId, Ticket, Zxid};
    pub(super) use folkmoot_sdk::rejection::Rejection;
}

/// A view, as a recipe's host.
pub(super) struct Host<'a> {
    pub(super) view: &'a mut TxnView,
}

/// The context of a call.
pub(super) fn context(context: folkmoot_core::plugin::CallContext) -> sdk::CallContext {
    sdk::CallContext {
        session: context.session.map(|session| sdk::SessionId(session.0)),
        zxid: sdk::Zxid(context.zxid.0),
        now: sdk::LogTime(context.now.0),
    }
}

/// An event.
pub(super) fn event(event: MountEvent) -> sdk::Event {
    match event {
        MountEvent::SessionClosed { session, removed } => sdk::Event::SessionClosed {
            session: sdk::SessionId(session.0),
            removed,
        },
        MountEvent::WaitEnded {
            ticket,
            session,
            cause,
            memo,
        } => sdk::Event::WaitEnded {
            ticket: sdk::Ticket(ticket.0),
            session: sdk::SessionId(session.0),
            cause: match cause {
                WaitEndCause::Deadline => sdk::WaitEndCause::Deadline,
                WaitEndCause::SessionEnded => sdk::WaitEndCause::SessionEnded,
                WaitEndCause::Cancelled => sdk::WaitEndCause::Cancelled,
                WaitEndCause::MountRemoved => sdk::WaitEndCause::Other("mount-removed".to_owned()),
            },
            memo,
        },
        MountEvent::Timer { name, due, payload } => sdk::Event::Timer {
            name,
            due: sdk::LogTime(due.0),
            payload,
        },
        MountEvent::Resync => sdk::Event::Resync,
    }
}

impl sdk::HostCalls for Host<'_> {
    fn read(&self, path: &str) -> Result<sdk::Node, sdk::TreeError> {
        let (data, stat) = self.view.read(path).map_err(tree_error)?;
        Ok(sdk::Node {
            data,
            stat: sdk::Stat {
                czxid: sdk::Zxid(stat.czxid.0),
                mzxid: sdk::Zxid(stat.mzxid.0),
                pzxid: sdk::Zxid(stat.pzxid.0),
                version: stat.version,
                cversion: stat.cversion,
                owner: stat.ephemeral_owner.map(|owner| sdk::SessionId(owner.0)),
                children: stat.num_children,
            },
        })
    }

    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        sequential: bool,
    ) -> Result<sdk::Created, sdk::TreeError> {
        let created = self.view.create(path, data, sequential);
        let (zxid, name) = created.map_err(tree_error)?;
        Ok(sdk::Created {
            zxid: sdk::Zxid(zxid.0),
            name,
        })
    }

    fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: sdk::SessionId,
        sequential: bool,
    ) -> Result<sdk::Created, sdk::TreeError> {
        let owner = SessionId(owner.0);
        let created = self.view.create_ephemeral(path, data, owner, sequential);
        let (zxid, name) = created.map_err(tree_error)?;
        Ok(sdk::Created {
            zxid: sdk::Zxid(zxid.0),
            name,
        })
    }

    fn set(
        &mut self,
        path: &str,
        data: Vec<u8>,
        expected: Option<u64>,
    ) -> Result<u64, sdk::TreeError> {
        self.view.set(path, data, expected).map_err(tree_error)
    }

    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), sdk::TreeError> {
        self.view.delete(path, expected).map_err(tree_error)
    }

    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, sdk::TreeError> {
        self.view.children(path, after, limit).map_err(tree_error)
    }

    fn session_is_open(&self, session: sdk::SessionId) -> bool {
        self.view.session_is_open(SessionId(session.0))
    }

    fn follow(&mut self, session: sdk::SessionId) -> bool {
        self.view.follow(SessionId(session.0))
    }

    fn complete(&mut self, ticket: sdk::Ticket, outcome: Result<Vec<u8>, sdk::Rejection>) -> bool {
        let outcome = outcome.map_err(|rejection| Rejection {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details,
        });
        self.view.complete(Ticket(ticket.0), outcome)
    }

    fn set_timer(
        &mut self,
        name: &str,
        due: sdk::LogTime,
        payload: Vec<u8>,
    ) -> Result<(), sdk::TreeError> {
        let due = LogTime(due.0);
        self.view.set_timer(name, due, payload).map_err(tree_error)
    }

    fn cancel_timer(&mut self, name: &str) -> bool {
        self.view.cancel_timer(name)
    }

    fn random(&mut self) -> u64 {
        self.view.random()
    }

    fn log(&mut self, message: &str) {
        self.view.log(message);
    }
}

fn tree_error(error: TreeError) -> sdk::TreeError {
    match error {
        TreeError::BadPath => sdk::TreeError::BadPath,
        TreeError::NoNode => sdk::TreeError::NoNode,
        TreeError::NodeExists => sdk::TreeError::NodeExists,
        TreeError::NoParent => sdk::TreeError::NoParent,
        TreeError::NotEmpty => sdk::TreeError::NotEmpty,
        TreeError::BadVersion { actual } => sdk::TreeError::BadVersion { actual },
        TreeError::EphemeralParent => sdk::TreeError::EphemeralParent,
        TreeError::OwnerNotOpen => sdk::TreeError::OwnerNotOpen,
        TreeError::TooLarge { what } => sdk::TreeError::TooLarge {
            what: what.to_owned(),
        },
        TreeError::ReadOnly => sdk::TreeError::Other("read-only".to_owned()),
    }
}
