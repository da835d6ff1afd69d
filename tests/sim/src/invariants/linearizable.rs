//! Reads and writes of a register are linearizable: there is an order of them that keeps to what
//! was heard before what was asked, in which each read gives the value of the last write (Wing and
//! Gong 1993, with Lowe's memory of what was tried, 2017). This check trusts no zxid.
//!
//! An operation whose outcome is not known may take effect at any time after it was asked, or
//! never. Values are written once, so a write that nobody read the value of can be left out, and
//! one that was read took effect before that read was answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Act, Operation};
use crate::time::Moment;
use crate::violation::{Checked, Violation};

/// Checks one register's history. The value before the first write is 0.
pub(crate) fn check(register: usize, history: &[Operation]) -> Checked {
    let operations = prepared(history);
    let mut search = Search {
        operations: &operations,
        tried: BTreeSet::new(),
    };
    if search.finds_order() {
        return Ok(());
    }
    Err(Violation::new(
        "linearizable",
        format!(
            "register {register}: no order of its {} operations fits",
            operations.len()
        ),
    ))
}

/// An operation with an end, however late.
#[derive(Clone, Copy, Debug)]
struct Timed {
    act: Act,
    asked: Moment,
    heard: Moment,
}

/// Leaves out what can not matter, and gives every operation an end. Sorted by when it was asked.
fn prepared(history: &[Operation]) -> Vec<Timed> {
    let mut first_read: BTreeMap<u64, Moment> = BTreeMap::new();
    for operation in history {
        if let (Act::Read(value), Some(heard)) = (operation.act, operation.heard) {
            let first = first_read.entry(value).or_insert(heard);
            *first = heard.min(*first);
        }
    }
    let timed = history.iter().filter_map(|operation| {
        let heard = match (operation.act, operation.heard) {
            (_, Some(heard)) => heard,
            (Act::Write(value), None) => *first_read.get(&value)?,
            (Act::Read(_), None) => return None,
        };
        Some(Timed {
            act: operation.act,
            asked: operation.asked,
            heard,
        })
    });
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by_key(|operation| operation.asked);
    timed
}

struct Search<'a> {
    operations: &'a [Timed],
    /// What was tried before: how many of the first operations are done, which later ones are done
    /// too, and the register's value.
    tried: BTreeSet<(usize, Vec<usize>, u64)>,
}

/// A state of the search.
struct Step {
    /// All operations before this one are done.
    front: usize,
    /// Later ones that are done, sorted.
    ahead: Vec<usize>,
    value: u64,
}

impl Search<'_> {
    fn finds_order(&mut self) -> bool {
        let mut stack = vec![Step {
            front: 0,
            ahead: Vec::new(),
            value: 0,
        }];
        while let Some(step) = stack.pop() {
            if step.front == self.operations.len() {
                return true;
            }
            if !self
                .tried
                .insert((step.front, step.ahead.clone(), step.value))
            {
                continue;
            }
            self.continue_from(&step, &mut stack);
        }
        false
    }

    /// Every operation that may come next: asked before any other that is not done was heard.
    fn continue_from(&self, step: &Step, stack: &mut Vec<Step>) {
        let mut first_heard = Moment(u64::MAX);
        for place in step.front..self.operations.len() {
            let operation = self.operations[place];
            if operation.asked > first_heard {
                break;
            }
            if step.ahead.binary_search(&place).is_ok() {
                continue;
            }
            first_heard = first_heard.min(operation.heard);
            let value = match operation.act {
                Act::Write(value) => value,
                Act::Read(value) if value == step.value => value,
                Act::Read(_) => continue,
            };
            stack.push(after(step, place, value));
        }
    }
}

fn after(step: &Step, place: usize, value: u64) -> Step {
    let mut ahead = step.ahead.clone();
    let slot = ahead.binary_search(&place).unwrap_or_else(|slot| slot);
    ahead.insert(slot, place);
    let mut front = step.front;
    while ahead.first() == Some(&front) {
        ahead.remove(0);
        front += 1;
    }
    Step {
        front,
        ahead,
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(act: Act, asked: u64, heard: u64) -> Operation {
        Operation {
            act,
            asked: Moment(asked),
            heard: Some(Moment(heard)),
        }
    }

    #[test]
    fn overlapping_operations_may_take_effect_in_either_order() {
        let history = [
            operation(Act::Write(1), 0, 10),
            operation(Act::Write(2), 5, 15),
            operation(Act::Read(1), 16, 20),
        ];
        assert!(check(0, &history).is_ok());
    }

    #[test]
    fn finds_a_stale_read() {
        let history = [
            operation(Act::Write(1), 0, 10),
            operation(Act::Write(2), 11, 15),
            operation(Act::Read(1), 16, 20),
        ];
        assert!(check(0, &history).is_err());
    }

    #[test]
    fn finds_two_reads_that_disagree_on_the_order() {
        let history = [
            operation(Act::Write(1), 0, 100),
            operation(Act::Write(2), 0, 100),
            operation(Act::Read(2), 10, 20),
            operation(Act::Read(1), 30, 40),
            operation(Act::Read(2), 50, 60),
        ];
        assert!(check(0, &history).is_err());
    }

    #[test]
    fn a_write_of_unknown_outcome_may_have_happened_or_not() {
        let mut lost = operation(Act::Write(1), 0, 0);
        lost.heard = None;
        assert!(check(0, &[lost, operation(Act::Read(0), 50, 60)]).is_ok());
        assert!(check(0, &[lost, operation(Act::Read(1), 50, 60)]).is_ok());
        let flicker = [
            lost,
            operation(Act::Read(1), 50, 60),
            operation(Act::Read(0), 70, 80),
        ];
        assert!(check(0, &flicker).is_err());
    }
}
