//! What the store of an instance holds: the view of the call that runs, and what it has used.

use core::fmt;
use std::time::Duration;

use folkmoot_core::plugin::FaultKind;
use wasmtime::ResourceLimiter;

use crate::limits::{CallLimits, LOG_LINE_BYTES_MAX};
use crate::view::CallView;

/// The data of an instance's store.
pub(crate) struct CallState<V> {
    /// The transaction; none in `describe` and `configure`.
    view: Option<V>,
    limits: CallLimits,
    host_calls: u32,
    written_bytes: usize,
    /// The last line that the call has logged: after a panic, its text.
    last_line: Option<String>,
    /// What the call has worked.
    time: CallTime,
    pub(crate) memory: MemoryLimit,
}

/// Why the host ends a call. Wasmtime carries it out of the guest as the cause of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// More host calls than are granted.
    HostCalls { limit: u32 },
    /// More bytes written than are granted.
    Writes { limit: usize },
    /// A call to the kernel where there is no transaction.
    NoTransaction,
}

impl Stop {
    pub(crate) const fn kind(self) -> FaultKind {
        match self {
            Self::HostCalls { .. } => FaultKind::HostCalls,
            Self::Writes { .. } => FaultKind::TooLarge,
            Self::NoTransaction => FaultKind::Contract,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostCalls { limit } => write!(f, "more than {limit} host calls"),
            Self::Writes { limit } => write!(f, "more than {limit} bytes of writes"),
            Self::NoTransaction => {
                f.write_str("describe and configure may call nothing but the log")
            }
        }
    }
}

impl core::error::Error for Stop {}

impl<V: CallView> CallState<V> {
    pub(crate) fn new(limits: CallLimits) -> Self {
        Self {
            view: None,
            limits,
            host_calls: 0,
            written_bytes: 0,
            last_line: None,
            time: CallTime::begin(Duration::from_millis(limits.millis)),
            memory: MemoryLimit {
                bytes: 0,
                bytes_max: limits.memory_bytes,
                denied: false,
            },
        }
    }

    /// Begins a call: what the last one has used is forgotten.
    pub(crate) fn begin(&mut self, view: Option<V>) {
        self.view = view;
        self.host_calls = 0;
        self.written_bytes = 0;
        self.last_line = None;
        self.memory.denied = false;
    }

    /// The time of a call begins.
    pub(crate) fn begin_time(&mut self) {
        self.time = CallTime::begin(Duration::from_millis(self.limits.millis));
    }

    /// Looks at the time, as each tick of the engine does: whether the call has some left.
    pub(crate) fn has_time_left(&mut self) -> bool {
        self.time.look(thread_time())
    }

    /// Ends a call, and gives the view back.
    pub(crate) fn end(&mut self) -> Option<V> {
        self.view.take()
    }

    /// The last line that the call has logged.
    pub(crate) fn last_line(&self) -> Option<&str> {
        self.last_line.as_deref()
    }

    /// Counts a host call and gives the transaction.
    pub(crate) fn enter(&mut self) -> Result<&mut V, Stop> {
        self.count()?;
        self.view.as_mut().ok_or(Stop::NoTransaction)
    }

    /// As [`CallState::enter`], for one that writes so many bytes.
    pub(crate) fn enter_to_write(&mut self, bytes: usize) -> Result<&mut V, Stop> {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        if self.written_bytes > self.limits.write_bytes {
            return Err(Stop::Writes {
                limit: self.limits.write_bytes,
            });
        }
        self.enter()
    }

    /// A line for the operator's log.
    pub(crate) fn log(&mut self, mut message: String) -> Result<(), Stop> {
        self.count()?;
        message.truncate(message.floor_char_boundary(LOG_LINE_BYTES_MAX));
        match &mut self.view {
            Some(view) => view.log(&message),
            None => tracing::info!(target: "folkmoot::plugin", "{message}"),
        }
        self.last_line = Some(message);
        Ok(())
    }

    fn count(&mut self) -> Result<(), Stop> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return Err(Stop::HostCalls {
                limit: self.limits.host_calls,
            });
        }
        Ok(())
    }
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
