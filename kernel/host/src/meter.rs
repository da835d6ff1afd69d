//! What a call has used: time, memory, host calls. All worlds have it in common.

use std::time::Duration;

use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::limits::LOG_LINE_BYTES_MAX;
use crate::state::Stop;

/// How often the time of a call is looked at: each tick, since the time of one piece is capped.
const TICKS_TO_LOOK: u64 = 1;

/// Counts what the calls of one instance use.
pub(crate) struct Meter {
    host_calls: u32,
    host_calls_max: u32,
    /// The last line that the call has logged: after a panic, its text.
    last_line: Option<String>,
    /// What the call has worked.
    time: CallTime,
    time_max: Duration,
    pub(crate) memory: MemoryLimit,
}

impl Meter {
    /// The time of the first call begins.
    pub(crate) fn new(millis: u64, memory_bytes: usize, host_calls: u32) -> Self {
        let time_max = Duration::from_millis(millis);
        Self {
            host_calls: 0,
            host_calls_max: host_calls,
            last_line: None,
            time: CallTime::begin(time_max),
            time_max,
            memory: MemoryLimit {
                bytes: 0,
                bytes_max: memory_bytes,
                denied: false,
            },
        }
    }

    /// Begins a call of the guest: what the last one has used is forgotten, but for its time.
    pub(crate) fn begin(&mut self) {
        self.host_calls = 0;
        self.last_line = None;
        self.memory.denied = false;
    }

    /// The time of a call begins.
    pub(crate) fn begin_time(&mut self) {
        self.time = CallTime::begin(self.time_max);
    }

    /// Looks at the time, as each tick of the engine does: whether the call has some left.
    fn has_time_left(&mut self) -> bool {
        self.time.look(thread_time())
    }

    /// Counts a host call.
    pub(crate) fn count_host_call(&mut self) -> Result<(), Stop> {
        self.host_calls += 1;
        if self.host_calls > self.host_calls_max {
            return Err(Stop::HostCalls {
                limit: self.host_calls_max,
            });
        }
        Ok(())
    }

    /// Counts a line for the operator's log, and cuts it.
    pub(crate) fn take_line(&mut self, mut line: String) -> Result<&str, Stop> {
        self.count_host_call()?;
        line.truncate(line.floor_char_boundary(LOG_LINE_BYTES_MAX));
        Ok(self.last_line.insert(line))
    }

    /// The last line that the call has logged.
    pub(crate) fn last_line(&self) -> Option<&str> {
        self.last_line.as_deref()
    }
}

/// What a store holds whose calls are metered.
pub(crate) trait Metered: 'static {
    fn meter(&mut self) -> &mut Meter;

    /// Whether the call is to end although it has time left.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Has a store keep to its meter's memory and time.
pub(crate) fn limit<T: Metered>(store: &mut Store<T>, hostcall_bytes_max: usize) {
    store.limiter(|state| &mut state.meter().memory);
    store.set_hostcall_fuel(hostcall_bytes_max);
    // Before instantiation too: a component's start function is a guest like any other.
    store.set_epoch_deadline(TICKS_TO_LOOK);
    store.epoch_deadline_callback(|mut store| {
        let state = store.data_mut();
        if state.meter().has_time_left() && !state.is_stopped() {
            Ok(UpdateDeadline::Continue(TICKS_TO_LOOK))
        } else {
            Err(Trap::Interrupt.into())
        }
    });
}

/// The time of a call of a warm instance begins.
pub(crate) fn begin_time<T: Metered>(store: &mut Store<T>) {
    store.data_mut().meter().begin_time();
    store.set_epoch_deadline(TICKS_TO_LOOK);
}

/// Counts the linear memories of an instance together.
pub(crate) struct MemoryLimit {
    bytes: usize,
    bytes_max: usize,
    /// Whether growth was denied in this call: a guest that gives up then has run out of memory.
    denied: bool,
}

impl MemoryLimit {
    pub(crate) fn was_denied(&self) -> bool {
        self.denied
    }

    /// Bytes that the instance has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bytes_max {
            self.denied = true;
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool has a limit for each table.
        Ok(true)
    }
}

/// The time of a call.
///
/// What counts is the time that its thread has worked: on a machine that is short of cores, a call
/// that waits for one has done nothing wrong. A virtual machine that was stopped is charged to the
/// thread as work, in one piece between two looks; so a piece counts for a third of the limit at
/// most, and no call is stopped for one alone. A guest that loops is looked at each tick.
struct CallTime {
    left: Duration,
    piece_max: Duration,
    looked: Duration,
}

impl CallTime {
    fn begin(limit: Duration) -> Self {
        Self {
            left: limit,
            piece_max: limit / 3,
            looked: thread_time(),
        }
    }

    /// Takes off what the thread has worked since the last look; whether something is left.
    fn look(&mut self, worked: Duration) -> bool {
        let piece = worked.saturating_sub(self.looked).min(self.piece_max);
        self.looked = worked;
        self.left = self.left.saturating_sub(piece);
        !self.left.is_zero()
    }
}

/// What the calling thread has worked since it began.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_stopped_for_a_single_piece_of_time() {
        let mut time = CallTime::begin(Duration::from_millis(9));
        let begun = time.looked;
        let after = |millis| begun + Duration::from_millis(millis);
        assert!(time.look(after(10_000)), "the machine was stopped");
        assert!(time.look(after(10_005)));
        assert!(!time.look(after(10_009)));
    }

    #[test]
    fn a_call_that_works_is_stopped_at_its_limit() {
        let mut time = CallTime::begin(Duration::from_millis(10));
        let begun = time.looked;
        let stopped = (1..).find(|millis| !time.look(begun + Duration::from_millis(*millis)));
        assert_eq!(stopped, Some(10));
    }
}
