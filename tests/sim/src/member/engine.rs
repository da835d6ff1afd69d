//! The execution of a member: the real one, or the plain one of clusters of consensus alone.

use folkmoot_core::execution::ExecutionAction;
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{Now, Tick};

use super::ToExecution;
use super::plain::PlainEngine;

#[derive(Debug)]
pub(crate) enum Engine {
    Plain(Box<PlainEngine>),
}

impl Engine {
    /// Gives it an input that is not the process' own business.
    pub(crate) fn handle(&mut self, now: Now, input: ToExecution) -> Result<(), String> {
        match (self, input) {
            (Self::Plain(plain), ToExecution::Consensus(event)) => {
                plain.handle_consensus(now.tick, event)
            }
            (Self::Plain(_), _) => Ok(()),
        }
    }

    /// One step; whether it should be called again at once.
    pub(crate) fn step(&mut self, now: Now) -> bool {
        match self {
            Self::Plain(plain) => {
                plain.step(now.tick);
                false
            }
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<ExecutionAction> {
        match self {
            Self::Plain(plain) => plain.poll_action(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        match self {
            Self::Plain(plain) => plain.poll_timeout(),
        }
    }

    /// Where the applied state stands.
    pub(crate) fn meta(&self) -> StateMeta {
        match self {
            Self::Plain(plain) => plain.meta().clone(),
        }
    }

    /// What changed since the last checkpoint, as records.
    pub(crate) fn changes(&mut self) -> Vec<RecordChange> {
        match self {
            Self::Plain(plain) => plain.records(),
        }
    }

    /// The whole state, as records in the order of their keys.
    pub(crate) fn snapshot(&mut self) -> Vec<RecordChange> {
        match self {
            Self::Plain(plain) => plain.records(),
        }
    }
}
