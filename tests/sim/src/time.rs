//! Virtual time and the queue of what happens in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

/// An instant of the simulated world, in microseconds since it began. No process sees it: each has
/// clocks of its own, which are wrong in their own ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) const START: Self = Self(0);

    pub(crate) const fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    pub(crate) const fn plus_millis(self, millis: u64) -> Self {
        self.plus_micros(millis.saturating_mul(1000))
    }

    pub(crate) const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What is to happen, in order of time and, at one instant, in the order it was put in.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Moment,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn push(&mut self, at: Moment, event: E) {
        self.sequence += 1;
        self.heap.push(Reverse(Scheduled {
            at,
            sequence: self.sequence,
            event,
        }));
    }

    pub(crate) fn pop(&mut self) -> Option<(Moment, E)> {
        let Reverse(next) = self.heap.pop()?;
        Some((next.at, next.event))
    }
}

/// One stream: what is sent later does not arrive earlier.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fifo {
    last: Moment,
}

impl Fifo {
    /// The arrival of what would arrive at `at` if it were alone.
    pub(crate) fn arrival(&mut self, at: Moment) -> Moment {
        self.last = self.last.max(at);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pops_by_time_and_then_by_order_of_putting_in() {
        let mut queue = Queue::new();
        for (at, event) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            queue.push(Moment(at), event);
        }
        let popped: String = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert_eq!(popped, "abcd");
    }

    #[test]
    fn a_stream_keeps_its_order() {
        let mut stream = Fifo::default();
        assert_eq!(stream.arrival(Moment(5)), Moment(5));
        assert_eq!(stream.arrival(Moment(3)), Moment(5));
        assert_eq!(stream.arrival(Moment(9)), Moment(9));
    }
}
