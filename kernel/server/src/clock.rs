//! The process's clocks.

use folkmoot_proto::ids::Now;
use folkmoot_proto::{Tick, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Both clocks, now. Read it after the input was dequeued (rule R8).
///
/// The monotonic one counts suspend (`CLOCK_BOOTTIME`): a machine that slept has let its leases
/// run out.
#[must_use]
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let micros = |seconds: i64, nanos: i64| {
        let micros = seconds
            .saturating_mul(1_000_000)
            .saturating_add(nanos / 1000);
        u64::try_from(micros).unwrap_or(0)
    };
    Now {
        tick: Tick(micros(boot.tv_sec, boot.tv_nsec)),
        wall: WallTime(micros(wall.tv_sec, wall.tv_nsec) / 1000),
    }
}
