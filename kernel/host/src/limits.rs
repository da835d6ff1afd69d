//! What one call may use.

/// Bytes that a guest hands over in one host call, or as its answer, before the host has looked at
/// them: a value at its limit and its path, with room to spare. Wasmtime's own default is 128 MiB.
pub const HOSTCALL_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one line in the operator's log.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Bytes of a fault's message: it is replicated with the reply.
pub const FAULT_MESSAGE_BYTES_MAX: usize = 2048;
/// Bytes of what a component says of itself.
pub const DESCRIPTION_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a policy's linear memories together.
pub const POLICY_MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What one call of a recipe may use. A call that goes over one of them is a plugin fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Units of fuel, about one for each Wasm instruction: reproducible, but no measure of time.
    /// A fresh instance has as much again to be made and configured.
    pub fuel: u64,
    /// Milliseconds that the thread works, looked at in ticks of one; for everything that a call does,
    /// the making of a fresh instance included. Waiting for a core does not count, and no single
    /// piece of work counts for more than a third of the limit.
    pub millis: u64,
    /// Host calls.
    pub host_calls: u32,
    /// Bytes of an instance's linear memories together.
    pub memory_bytes: usize,
    /// Bytes of the answer: a reply, a memo, or a rejection with its details.
    pub output_bytes: usize,
    /// Bytes of what is written: paths, values, outcomes of waits, payloads of timers.
    pub write_bytes: usize,
}

impl Default for CallLimits {
    /// 10 M fuel, 10 ms, 1,000 host calls, 16 MiB of memory, 1 MiB of answer (a value at its limit),
    /// 4 MiB of writes (a transaction at its limit).
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            millis: 10,
            host_calls: 1_000,
            memory_bytes: 16 * 1024 * 1024,
            output_bytes: 1024 * 1024,
            write_bytes: 4 * 1024 * 1024,
        }
    }
}

impl CallLimits {
    /// For `describe`, off the hot path: a hundred times the time and fuel, for guests whose start is
    /// slow. The memory is a call's: what could not be made for a call is not accepted.
    #[must_use]
    pub fn for_examination() -> Self {
        Self {
            fuel: 1_000_000_000,
            millis: 1_000,
            ..Self::default()
        }
    }

    /// As the default, with so much time that fuel always ends a call first: for simulators, where
    /// the same seed must give the same fault however busy the machine is.
    #[must_use]
    pub fn by_fuel_alone() -> Self {
        Self {
            millis: 600_000,
            ..Self::default()
        }
    }
}

/// What one call of a policy may use. There is no fuel: counting it makes a tight loop three times
/// as slow, and nothing of a policy's call must be the same on two machines. A call that goes over
/// one of them is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// As [`CallLimits::millis`].
    pub millis: u64,
    /// Bytes of an instance's linear memories together; at most [`POLICY_MEMORY_BYTES_MAX`].
    pub memory_bytes: usize,
    /// Bytes of the tables that it gives, as the host holds them: cells, names, and 24 bytes for
    /// each text.
    pub output_bytes: usize,
    /// Lines in the operator's log.
    pub log_lines: u32,
}

impl Default for PolicyLimits {
    /// 2 s, 256 MiB of memory, 32 MiB of tables (a million partitions that all change), 100 lines.
    fn default() -> Self {
        Self {
            millis: 2_000,
            memory_bytes: POLICY_MEMORY_BYTES_MAX,
            output_bytes: 32 * 1024 * 1024,
            log_lines: 100,
        }
    }
}
