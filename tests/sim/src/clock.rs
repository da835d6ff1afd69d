//! The clocks of one process: each runs a little too fast or too slow, and the wall clock jumps.

use folkmoot_proto::{Now, Tick, WallTime};

use crate::dice::Dice;
use crate::time::Moment;

/// The documented drift ρ between clocks (rule R16), in millionths. Every simulated clock stays
/// within half of it to each side, so that any two are within it.
pub(crate) const DRIFT_PPM: u64 = 10_000;

/// A process' clocks. The monotonic one counts suspend, as rule R16 asks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Moment,
    offset: u64,
    rate_ppm: u64,
    wall_offset_ms: i64,
}

impl Clock {
    /// The clocks of a process that starts at `started`.
    pub(crate) fn new(dice: &mut Dice, started: Moment) -> Self {
        let half = DRIFT_PPM / 2;
        Self {
            started,
            offset: dice.below(1 << 40),
            rate_ppm: 1_000_000 - half + dice.below(2 * half + 1),
            wall_offset_ms: dice.below(120_000) as i64 - 60_000,
        }
    }

    /// What the monotonic clock shows.
    pub(crate) fn tick(&self, now: Moment) -> Tick {
        let elapsed = u128::from(now.micros_since(self.started));
        Tick(self.offset + (elapsed * u128::from(self.rate_ppm) / 1_000_000) as u64)
    }

    /// What both clocks show.
    pub(crate) fn now(&self, now: Moment) -> Now {
        let since_2026 = 1_767_225_600_000_i64 + (now.0 / 1000) as i64;
        Now {
            tick: self.tick(now),
            wall: WallTime((since_2026 + self.wall_offset_ms).max(0) as u64),
        }
    }

    /// The first instant at which the monotonic clock shows `tick` or more.
    pub(crate) fn moment_of(&self, tick: Tick) -> Moment {
        let local = u128::from(tick.0.saturating_sub(self.offset));
        let micros = (local * 1_000_000).div_ceil(u128::from(self.rate_ppm));
        self.started
            .plus_micros(micros.min(u128::from(u64::MAX)) as u64)
    }

    /// The wall clock is set to another time.
    pub(crate) fn jump(&mut self, millis: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_shown_at_its_moment_and_not_before() {
        for seed in 0..50 {
            let clock = Clock::new(&mut Dice::new(seed, "clock"), Moment(500));
            let tick = Tick(clock.tick(Moment(500)).0 + 123_457);
            let at = clock.moment_of(tick);
            assert!(clock.tick(at) >= tick);
            assert!(clock.tick(Moment(at.0 - 1)) < tick);
        }
    }
}
