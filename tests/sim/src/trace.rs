//! The trace of a run: a hash over everything that happened, and its text where it is asked for.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

use crate::time::Moment;

/// Hashes what happens. Two runs of one seed have one hash, or something in the world is not
/// decided by the seed.
pub(crate) struct Trace {
    hasher: Box<Xxh3>,
    verbose: bool,
    events: u64,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} events)", self.events)
    }
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self {
            hasher: Box::new(Xxh3::new()),
            verbose,
            events: 0,
        }
    }

    /// Something happened: `facts` go into the hash, `text` is made only to be printed.
    pub(crate) fn note<const N: usize>(
        &mut self,
        now: Moment,
        what: &'static str,
        facts: [u64; N],
        text: impl FnOnce() -> String,
    ) {
        self.events += 1;
        self.hasher.update(what.as_bytes());
        self.hasher.update(&now.0.to_le_bytes());
        for fact in facts {
            self.hasher.update(&fact.to_le_bytes());
        }
        if self.verbose {
            println!("{now} {what:<10} {}", text());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.digest()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
