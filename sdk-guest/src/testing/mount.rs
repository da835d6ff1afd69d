//! One mount with its clients.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::context::CallContext;
use crate::event::{Event, WaitEndCause};
use crate::host::{HostCalls as _, Node};
use crate::ids::{LogTime, SessionId, Ticket, Zxid};
use crate::operation::Outcome;
use crate::recipe::Recipe;
use crate::rejection::Rejection;
use crate::testing::runner::{Call, CallOutcome, Native, Runner};
use crate::testing::view::{State, StoredWait, View};

/// One mount with its clients, in memory. Each call is a transaction of its own.
///
/// Events are delivered at once, as long as [`Mount::hold_events`] was not asked for.
#[derive(Debug)]
pub struct Mount<R> {
    runner: R,
    configuration: Vec<u8>,
    state: State,
    zxid: Zxid,
    now: LogTime,
    events: VecDeque<Event>,
    ended: BTreeMap<Ticket, WaitEndCause>,
    hold_events: bool,
}

/// How a plugin answered a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// At once, with JSON.
    Reply(Value),
    /// Later; [`Mount::completion`] tells.
    Waits(Ticket),
    /// The plugin said no.
    Rejected(Rejection),
    /// A plugin fault, in words.
    Fault(String),
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// With JSON.
    Reply(Value),
    /// The plugin said no.
    Rejected(Rejection),
    /// The kernel ended it.
    Ended(WaitEndCause),
}

impl Mount<Native> {
    /// A mount of `R`, run natively, without configuration.
    #[must_use]
    pub fn of<R: Recipe>() -> Self {
        Self::with(Native::of::<R>())
    }
}

impl<R: Runner> Mount<R> {
    /// A mount without configuration.
    #[must_use]
    pub fn with(runner: R) -> Self {
        Self {
            runner,
            configuration: Vec::new(),
            state: State::new(),
            zxid: Zxid(0),
            now: LogTime(1_000),
            events: VecDeque::new(),
            ended: BTreeMap::new(),
            hold_events: false,
        }
    }

    /// Gives the mount a configuration, as a change of the mount does.
    ///
    /// # Errors
    ///
    /// The plugin's rejection; then the mount stays as it was.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        let before = std::mem::replace(&mut self.configuration, configuration.to_vec());
        self.runner.discard();
        let outcome = self.transaction(None, Call::Configure);
        if let CallOutcome::Rejected(rejection) = outcome {
            self.configuration = before;
            self.runner.discard();
            return Err(rejection);
        }
        Ok(())
    }

    /// Opens a session.
    pub fn open_session(&mut self) -> SessionId {
        self.zxid.0 += 1;
        let session = SessionId(self.zxid.0);
        self.state.sessions.insert(session);
        session
    }

    /// Ends a session: the kernel deletes its nodes and ends its waits, and the plugin hears of it.
    pub fn close_session(&mut self, session: SessionId) {
        self.zxid.0 += 1;
        self.state.sessions.remove(&session);
        let removed: Vec<String> = self
            .state
            .nodes
            .iter()
            .filter(|(_, node)| node.stat.owner == Some(session))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &removed {
            self.state.remove(path, self.zxid);
        }
        if self.state.follows.remove(&session) {
            self.events
                .push_back(Event::SessionClosed { session, removed });
        }
        self.end_waits(WaitEndCause::SessionEnded, |_, wait| {
            wait.session == session
        });
        self.settle();
    }

    /// Calls an operation for a session.
    pub fn invoke(&mut self, session: SessionId, operation: &str, payload: &[u8]) -> Answer {
        let call = Call::Invoke {
            operation: operation.to_owned(),
            payload: payload.to_vec(),
        };
        let answer = match self.transaction(Some(session), call) {
            CallOutcome::Answered(Outcome::Reply(reply)) => Answer::Reply(json(&reply)),
            CallOutcome::Answered(Outcome::Wait { deadline, memo }) => {
                let ticket = Ticket(self.zxid.0);
                let wait = StoredWait {
                    session,
                    deadline,
                    memo,
                };
                self.state.waits.insert(ticket, wait);
                Answer::Waits(ticket)
            }
            CallOutcome::Done => Answer::Fault("invoke gave no outcome".to_owned()),
            CallOutcome::Rejected(rejection) => Answer::Rejected(rejection),
            CallOutcome::Fault(message) => Answer::Fault(message),
        };
        self.settle();
        answer
    }

    /// Calls an operation that replies at once.
    ///
    /// # Panics
    ///
    /// If it does anything else.
    #[track_caller]
    pub fn call(&mut self, session: SessionId, operation: &str, arguments: Value) -> Value {
        match self.invoke(session, operation, arguments.to_string().as_bytes()) {
            Answer::Reply(reply) => reply,
            other => panic!("{operation} {arguments} should reply, and gave {other:?}"),
        }
    }

    /// Calls an operation that waits.
    ///
    /// # Panics
    ///
    /// If it does anything else.
    #[track_caller]
    pub fn call_and_wait(
        &mut self,
        session: SessionId,
        operation: &str,
        arguments: Value,
    ) -> Ticket {
        match self.invoke(session, operation, arguments.to_string().as_bytes()) {
            Answer::Waits(ticket) => ticket,
            other => panic!("{operation} {arguments} should wait, and gave {other:?}"),
        }
    }

    /// Calls an operation that the plugin rejects.
    ///
    /// # Panics
    ///
    /// If it does anything else.
    #[track_caller]
    pub fn call_rejected(
        &mut self,
        session: SessionId,
        operation: &str,
        arguments: Value,
    ) -> Rejection {
        match self.invoke(session, operation, arguments.to_string().as_bytes()) {
            Answer::Rejected(rejection) => rejection,
            other => panic!("{operation} {arguments} should be rejected, and gave {other:?}"),
        }
    }

    /// How a wait ended; none while it lasts.
    #[must_use]
    pub fn completion(&self, ticket: Ticket) -> Option<Completion> {
        if let Some(cause) = self.ended.get(&ticket) {
            return Some(Completion::Ended(cause.clone()));
        }
        Some(match self.state.completions.get(&ticket)? {
            Ok(reply) => Completion::Reply(json(reply)),
            Err(rejection) => Completion::Rejected(rejection.clone()),
        })
    }

    /// Whether a wait lasts.
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.state.waits.contains_key(&ticket)
    }

    /// A client cancels its wait; false if it is over.
    pub fn cancel_wait(&mut self, ticket: Ticket) -> bool {
        self.zxid.0 += 1;
        let cancelled = self.end_waits(WaitEndCause::Cancelled, |one, _| *one == ticket);
        self.settle();
        cancelled
    }

    /// Lets time pass: waits end at their deadlines, timers come.
    pub fn advance_millis(&mut self, millis: u64) {
        self.zxid.0 += 1;
        self.now = self.now.plus_millis(millis);
        let now = self.now;
        self.end_waits(WaitEndCause::Deadline, |_, wait| {
            wait.deadline.is_some_and(|deadline| deadline <= now)
        });
        self.queue_timers();
        self.settle();
    }

    /// Keeps events back from here on, as while a handler faults or its component is compiled.
    pub fn hold_events(&mut self) {
        self.hold_events = true;
    }

    /// Delivers the events that were held back, and from here on each at once.
    pub fn deliver_events(&mut self) {
        self.hold_events = false;
        self.settle();
    }

    /// All events that wait become one `resync`, as when too many are queued.
    pub fn lose_events(&mut self) {
        self.events.clear();
        self.events.push_back(Event::Resync);
        self.settle();
    }

    /// Throws the instance away, as the kernel may at any moment.
    pub fn discard_instance(&mut self) {
        self.runner.discard();
    }

    /// A node below the mount; none if there is none.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<Node> {
        let view = View::new(self.state.clone(), self.context(None));
        view.read(path).ok()
    }

    /// Names of the children of a node below the mount; empty if there is no such node.
    #[must_use]
    pub fn children(&self, path: &str) -> Vec<String> {
        let view = View::new(self.state.clone(), self.context(None));
        view.children(path, None, u32::MAX).unwrap_or_default()
    }

    /// What the plugin has logged, the oldest line first.
    #[must_use]
    pub fn log(&self) -> &[String] {
        &self.state.log
    }

    /// The time, on the log clock.
    #[must_use]
    pub fn now(&self) -> LogTime {
        self.now
    }

    fn context(&self, session: Option<SessionId>) -> CallContext {
        CallContext {
            session,
            zxid: self.zxid,
            now: self.now,
        }
    }

    /// Makes one call; what it wrote stays only if it was neither rejected nor faulty.
    fn transaction(&mut self, session: Option<SessionId>, call: Call) -> CallOutcome {
        self.zxid.0 += 1;
        let before = self.state.clone();
        let view = View::new(std::mem::take(&mut self.state), self.context(session));
        let (view, outcome) = self.runner.call(&self.configuration, call, view);
        let log = view.state.log.clone();
        self.state = match outcome {
            CallOutcome::Answered(_) | CallOutcome::Done => view.state,
            CallOutcome::Rejected(_) | CallOutcome::Fault(_) => before,
        };
        self.state.log = log;
        outcome
    }

    /// Delivers events in order.
    fn settle(&mut self) {
        while !self.hold_events
            && let Some(event) = self.events.pop_front()
        {
            match self.transaction(None, Call::Event(event.clone())) {
                CallOutcome::Done => {}
                other => panic!("the plugin should handle {event:?}, and gave {other:?}"),
            }
            self.queue_timers();
        }
    }

    fn end_waits(
        &mut self,
        cause: WaitEndCause,
        which: impl Fn(&Ticket, &StoredWait) -> bool,
    ) -> bool {
        let over: Vec<_> = self
            .state
            .waits
            .extract_if(.., |ticket, wait| which(ticket, wait))
            .collect();
        let any = !over.is_empty();
        for (ticket, wait) in over {
            self.ended.insert(ticket, cause.clone());
            self.events.push_back(Event::WaitEnded {
                ticket,
                session: wait.session,
                cause: cause.clone(),
                memo: wait.memo,
            });
        }
        any
    }

    fn queue_timers(&mut self) {
        let now = self.now;
        let due: Vec<_> = self
            .state
            .timers
            .extract_if(.., |_, (due, _)| *due <= now)
            .collect();
        for (name, (due, payload)) in due {
            self.events.push_back(Event::Timer { name, due, payload });
        }
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
