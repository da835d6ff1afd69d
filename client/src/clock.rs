//! The clock on which a client counts its lease: monotonic, and counting suspend (rule R16).

use folkmoot_proto::Tick;

/// Microseconds since the machine was started, the time that it was suspended included. A laptop
/// that sleeps, or a virtual machine that is stopped, must not keep a lock that ended meanwhile.
pub(crate) fn now() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    Tick(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
