//! What clients did to registers, with the times at which they asked and heard.

use crate::time::Moment;

/// What was done to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A value was written; every value is written once.
    Write(u64),
    /// A value was read; 0 if there was none.
    Read(u64),
}

/// One operation on a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) act: Act,
    pub(crate) asked: Moment,
    /// None while the outcome is not known.
    pub(crate) heard: Option<Moment>,
}

/// The operations on each register.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) registers: Vec<Vec<Operation>>,
}

impl History {
    pub(crate) fn new(registers: usize) -> Self {
        Self {
            registers: vec![Vec::new(); registers],
        }
    }

    /// An operation begins; the answer names it for `heard`.
    pub(crate) fn asked(&mut self, register: usize, act: Act, now: Moment) -> usize {
        self.registers[register].push(Operation {
            act,
            asked: now,
            heard: None,
        });
        self.registers[register].len() - 1
    }

    /// It was done.
    pub(crate) fn done(&mut self, register: usize, operation: usize, now: Moment) {
        self.registers[register][operation].heard = Some(now);
    }

    /// Its outcome is known: what was read, or that it was done.
    pub(crate) fn heard(&mut self, register: usize, operation: usize, act: Act, now: Moment) {
        let operation = &mut self.registers[register][operation];
        operation.act = act;
        operation.heard = Some(now);
    }
}
