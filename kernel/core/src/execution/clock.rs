//! The two clocks of a leader: the log clock, and the clock by which sessions are declared dead.

use folkmoot_proto::{LogTime, Tick};

/// The log clock (rule R9): the last applied log time plus the leader's monotonic time since its
/// first apply of the term. It stands still while the cluster has no leader, so that no duration
/// is cut short by a change of leader, and no wall clock reaches it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogClock {
    base: LogTime,
    since: Tick,
}

impl LogClock {
    /// A clock that goes on from `base` at `now`, the moment of the first apply of the term.
    pub(super) fn starting(base: LogTime, now: Tick) -> Self {
        Self { base, since: now }
    }

    /// The log time at `now`.
    pub(super) fn at(self, now: Tick) -> LogTime {
        self.base.plus_millis(now.millis_since(self.since))
    }

    /// The first moment at which the log time is `time` or later.
    pub(super) fn tick_of(self, time: LogTime) -> Tick {
        self.since.plus_millis(time.0.saturating_sub(self.base.0))
    }
}

/// The longest time between two looks at the clock that counts in full, in milliseconds. A leader
/// with sessions looks at least this often; a longer gap means that its own process stood still.
pub(super) const PULSE_MS: u64 = 100;

/// The leader's monotonic clock without the stalls of its own process (rule R16): a gap between
/// two looks counts as [`PULSE_MS`] at most, so whatever kept the leader from hearing of a session
/// extends that session's deadline. It never runs faster than the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveClock {
    active: Tick,
    seen: Tick,
}

impl ActiveClock {
    /// A clock that begins to run at `now`.
    pub(super) fn starting(now: Tick) -> Self {
        Self {
            active: Tick::ZERO,
            seen: now,
        }
    }

    /// Looks at the monotonic clock; answers the active time.
    pub(super) fn look(&mut self, now: Tick) -> Tick {
        let gap = now.0.saturating_sub(self.seen.0);
        self.active = Tick(self.active.0.saturating_add(gap.min(PULSE_MS * 1000)));
        self.seen = self.seen.max(now);
        self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_clock_goes_on_from_the_last_applied_time() {
        let clock = LogClock::starting(LogTime(700), Tick(5_000_000));
        assert_eq!(clock.at(Tick(5_000_000)), LogTime(700));
        assert_eq!(clock.at(Tick(5_030_999)), LogTime(730));
        assert_eq!(clock.tick_of(LogTime(730)), Tick(5_030_000));
        assert_eq!(clock.tick_of(LogTime(1)), Tick(5_000_000));
    }

    #[test]
    fn r16_a_stall_of_the_own_process_does_not_age_sessions() {
        let mut clock = ActiveClock::starting(Tick(1_000));
        assert_eq!(clock.look(Tick(51_000)), Tick(50_000));
        assert_eq!(clock.look(Tick(10_051_000)), Tick(150_000));
        assert_eq!(clock.look(Tick(10_051_000)), Tick(150_000));
    }
}
