//! A read barrier's index covers everything that anyone saw committed before it was asked for
//! (Raft §8, thesis §6.4; rule R20).

use std::collections::BTreeMap;

use folkmoot_proto::LogIndex;
use folkmoot_proto::peer::ReadContext;

use crate::violation::{Checked, Violation};

#[derive(Debug, Default)]
pub(crate) struct ReadBarrier {
    asked: BTreeMap<(u64, u64, u64), LogIndex>,
}

fn key(context: ReadContext) -> (u64, u64, u64) {
    (context.member.0, context.run, context.sequence)
}

impl ReadBarrier {
    /// A barrier is asked for when entries up to `committed` were committed.
    pub(crate) fn asked(&mut self, context: ReadContext, committed: LogIndex) {
        self.asked.insert(key(context), committed);
    }

    /// The barrier holds at `index`.
    pub(crate) fn ready(&mut self, context: ReadContext, index: LogIndex) -> Checked {
        match self.asked.remove(&key(context)) {
            Some(committed) if index >= committed => Ok(()),
            Some(committed) => Err(Violation::new(
                "read_barrier",
                format!("{context:?} holds at entry {index}, {committed} was committed before"),
            )),
            None => Err(Violation::new(
                "read_barrier",
                format!("{context:?} is answered and was not asked for, or twice"),
            )),
        }
    }

    /// The barrier was lost: it may not hold afterwards.
    pub(crate) fn lost(&mut self, context: ReadContext) {
        self.asked.remove(&key(context));
    }
}
