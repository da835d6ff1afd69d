//! Running seeds, one or many, and saying what came of it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::Options;
use crate::seen::Seen;
use crate::violation::Violation;
use crate::world::World;

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash over everything that happened.
    pub trace_hash: u64,
    /// How much happened.
    pub events: u64,
    /// Interesting events.
    pub seen: Seen,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
}

/// Lives the world of one seed.
#[must_use]
pub fn run_seed(seed: u64, options: &Options) -> Report {
    catch_quietly();
    let mut world = World::new(seed, options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => Some(Violation::new(
            "assertion",
            PANIC.with_borrow_mut(std::mem::take),
        )),
    };
    Report {
        seed,
        trace_hash: world.ctx.trace.hash(),
        events: world.ctx.trace.events(),
        seen: world.ctx.seen,
        violation,
    }
}

/// Lives the worlds of `seeds` on `threads` threads and gives each report to `done`, in no
/// particular order, until it answers false.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    options: &Options,
    threads: usize,
    done: impl FnMut(Report) -> bool + Send,
) {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new((done, true));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = run_seed(seed, options);
                    let mut guard = done.lock().unwrap_or_else(PoisonError::into_inner);
                    let (done, more) = &mut *guard;
                    *more = *more && done(report);
                    if !*more {
                        return;
                    }
                }
            });
        }
    });
}

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    /// Whether this thread lives a world.
    static LIVES: RefCell<bool> = const { RefCell::new(false) };
}

/// An assertion of the kernel that fails in a world is a finding: it is kept, not printed.
fn catch_quietly() {
    static HOOK: Once = Once::new();
    LIVES.set(true);
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if LIVES.with_borrow(|lives| *lives) {
                PANIC.set(info.to_string().replace('\n', " "));
            } else {
                before(info);
            }
        }));
    });
}
