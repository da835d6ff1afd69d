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
    health: Health,
}

/// How well the process of a clock runs. Moments are the active clock's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// By how much it was late at worst of late, in milliseconds, and when.
    lag: Option<(u64, Tick)>,
    /// How long it last stood still, in milliseconds, and when that was over.
    stall: Option<(u64, Tick)>,
}

/// A lag is told of for so long, in milliseconds.
const LAG_MS: u64 = 10_000;

impl Health {
    /// By how much it was late at worst in the last 10 s.
    pub(super) fn lag_ms(self, active: Tick) -> u64 {
        let lag = self.lag.filter(|(_, at)| active.millis_since(*at) < LAG_MS);
        lag.map_or(0, |(lag_ms, _)| lag_ms)
    }

    /// How long it last stood still.
    pub(super) fn stall_ms(self) -> u64 {
        self.stall.map_or(0, |(stall_ms, _)| stall_ms)
    }

    /// Since when that is over; `u64::MAX` if it never stood still.
    pub(super) fn since_stall_ms(self, active: Tick) -> u64 {
        let since = |(_, at)| active.millis_since(at);
        self.stall.map_or(u64::MAX, since)
    }

    fn looked(&mut self, gap_ms: u64, active: Tick) {
        let lag_ms = gap_ms.saturating_sub(PULSE_MS / 2);
        if lag_ms > 0 && lag_ms >= self.lag_ms(active) {
            self.lag = Some((lag_ms, active));
        }
        if gap_ms > PULSE_MS {
            self.stall = Some((gap_ms, active));
        }
    }
}

impl ActiveClock {
    /// A clock that begins to run at `now`.
    pub(super) fn starting(now: Tick) -> Self {
        Self {
            active: Tick::ZERO,
            seen: now,
            health: Health::default(),
        }
    }

    /// How well its process runs.
    pub(super) fn health(&self) -> Health {
        self.health
    }

    /// Looks at the monotonic clock; answers the active time.
    pub(super) fn look(&mut self, now: Tick) -> Tick {
        let gap = now.0.saturating_sub(self.seen.0);
        self.active = Tick(self.active.0.saturating_add(gap.min(PULSE_MS * 1000)));
        self.seen = self.seen.max(now);
        self.health.looked(gap / 1000, self.active);
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

    #[test]
    fn a_clock_knows_how_well_its_process_runs() {
        let mut clock = ActiveClock::starting(Tick(0));
        clock.look(Tick(50_000));
        let health = clock.health();
        assert_eq!((health.lag_ms(Tick(50_000)), health.stall_ms()), (0, 0));
        assert_eq!(health.since_stall_ms(Tick(50_000)), u64::MAX);
        clock.look(Tick(130_000));
        let active = clock.look(Tick(4_130_000));
        let health = clock.health();
        assert_eq!((health.lag_ms(active), health.stall_ms()), (3_950, 4_000));
        assert_eq!(health.since_stall_ms(active.plus_millis(7)), 7);
        assert_eq!(health.lag_ms(active.plus_millis(LAG_MS)), 0);
    }
}
