//! How the mounts of a leader behave: a breaker and a share of execution time for each (rule R7).

use std::collections::BTreeMap;

use folkmoot_proto::{MountId, Tick};

/// Faults in a row after which a mount's breaker opens. Fewer may be one client's bad luck.
const FAULTS_BEFORE_OPEN: u32 = 3;
/// How long a breaker is open at first, in milliseconds; it doubles with each further fault.
const OPEN_MS_MIN: u64 = 100;
/// How long a breaker is open at most, in milliseconds.
const OPEN_MS_MAX: u64 = 10_000;
/// The part of time that all guests may take together, in thousandths: what is left is enough to
/// apply, to serve and to expire whatever the guests do.
const GUESTS_SHARE_PERMILLE: u64 = 800;
/// Time that a mount may take beyond its share in one go, in microseconds: 20 calls at their
/// budget of 10 ms.
const BURST_MICROS: u64 = 200_000;
/// A mount that was not called for so long does not count when time is shared, in microseconds.
const ACTIVE_MICROS: u64 = 1_000_000;

/// The mounts' faults and time, in the leader's memory alone: a change of leader starts anew.
#[derive(Debug, Default)]
pub(super) struct MountHealth {
    mounts: BTreeMap<MountId, Health>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    faults: u32,
    closed_until: Tick,
    event_after: Tick,
    event_faults: u32,
    debt_micros: u64,
    debt_at: Tick,
    called_at: Tick,
}

impl MountHealth {
    /// Whether calls of clients are turned away: the breaker is open, or the share is used up.
    pub(super) fn is_throttled(&mut self, mount: MountId, now: Tick) -> bool {
        let rate = self.share_permille(now);
        let Some(health) = self.mounts.get_mut(&mount) else {
            return false;
        };
        health.pay(now, rate);
        now < health.closed_until || health.debt_micros > BURST_MICROS
    }

    /// Notes a call of a client.
    pub(super) fn called(&mut self, mount: MountId, now: Tick, micros: u64, faulted: bool) {
        let rate = self.share_permille(now);
        let health = self.mounts.entry(mount).or_default();
        health.pay(now, rate);
        health.debt_micros = health.debt_micros.saturating_add(micros);
        health.called_at = now;
        if !faulted {
            health.faults = 0;
            return;
        }
        health.faults = health.faults.saturating_add(1);
        if let Some(beyond) = health.faults.checked_sub(FAULTS_BEFORE_OPEN) {
            health.closed_until = now.plus_millis(back_off_ms(beyond));
        }
    }

    /// Notes that an event was handed over; a fault is retried with back-off.
    pub(super) fn event_handled(&mut self, mount: MountId, now: Tick, micros: u64, faulted: bool) {
        let rate = self.share_permille(now);
        let health = self.mounts.entry(mount).or_default();
        health.pay(now, rate);
        health.debt_micros = health.debt_micros.saturating_add(micros);
        health.called_at = now;
        if faulted {
            health.event_after = now.plus_millis(back_off_ms(health.event_faults));
            health.event_faults = health.event_faults.saturating_add(1);
        } else {
            health.event_faults = 0;
        }
    }

    /// When the mount's next event may be handed over.
    pub(super) fn event_due(&self, mount: MountId, now: Tick) -> Tick {
        let rate = self.share_permille(now);
        let Some(mut health) = self.mounts.get(&mount).copied() else {
            return Tick::ZERO;
        };
        health.pay(now, rate);
        let over = health.debt_micros.saturating_sub(BURST_MICROS);
        let affordable = Tick(now.0.saturating_add(over.saturating_mul(1000) / rate));
        health
            .event_after
            .max(if over > 0 { affordable } else { Tick::ZERO })
    }

    /// Forgets mounts that are not there.
    pub(super) fn retain(&mut self, is_there: impl Fn(MountId) -> bool) {
        self.mounts.retain(|mount, _| is_there(*mount));
    }

    /// Forgets a mount.
    pub(super) fn forget(&mut self, mount: MountId) {
        self.mounts.remove(&mount);
    }

    fn share_permille(&self, now: Tick) -> u64 {
        let is_active = |health: &&Health| now.0.saturating_sub(health.called_at.0) < ACTIVE_MICROS;
        let active = self.mounts.values().filter(is_active).count().max(1);
        (GUESTS_SHARE_PERMILLE / u64::try_from(active).unwrap_or(u64::MAX)).max(1)
    }
}

impl Health {
    fn pay(&mut self, now: Tick, rate_permille: u64) {
        let elapsed = now.0.saturating_sub(self.debt_at.0);
        let paid = elapsed.saturating_mul(rate_permille) / 1000;
        self.debt_micros = self.debt_micros.saturating_sub(paid);
        self.debt_at = now;
    }
}

fn back_off_ms(doublings: u32) -> u64 {
    OPEN_MS_MIN
        .saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX))
        .min(OPEN_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: MountId = MountId(7);

    fn ms(millis: u64) -> Tick {
        Tick::ZERO.plus_millis(10_000 + millis)
    }

    #[test]
    fn a_breaker_opens_after_three_faults_in_a_row_and_backs_off() {
        let mut health = MountHealth::default();
        for _ in 0..2 {
            health.called(MOUNT, ms(0), 0, true);
            assert!(!health.is_throttled(MOUNT, ms(0)));
        }
        health.called(MOUNT, ms(0), 0, true);
        assert!(health.is_throttled(MOUNT, ms(99)));
        assert!(!health.is_throttled(MOUNT, ms(100)));
        health.called(MOUNT, ms(100), 0, true);
        assert!(health.is_throttled(MOUNT, ms(299)));
        health.called(MOUNT, ms(300), 0, false);
        health.called(MOUNT, ms(300), 0, true);
        assert!(!health.is_throttled(MOUNT, ms(300)));
    }

    #[test]
    fn r7_a_mount_over_its_share_is_throttled_and_the_others_are_not() {
        let mut health = MountHealth::default();
        let other = MountId(9);
        for call in 0..100 {
            health.called(MOUNT, ms(call * 10), 10_000, false);
            health.called(other, ms(call * 10), 10, false);
        }
        assert!(health.is_throttled(MOUNT, ms(1000)));
        assert!(!health.is_throttled(other, ms(1000)));
        assert!(health.event_due(MOUNT, ms(1000)) > ms(1000));
        assert!(!health.is_throttled(MOUNT, ms(3000)));
    }

    #[test]
    fn a_faulting_event_is_retried_later_each_time() {
        let mut health = MountHealth::default();
        health.event_handled(MOUNT, ms(0), 0, true);
        assert_eq!(health.event_due(MOUNT, ms(0)), ms(100));
        health.event_handled(MOUNT, ms(100), 0, true);
        assert_eq!(health.event_due(MOUNT, ms(100)), ms(300));
        health.event_handled(MOUNT, ms(300), 0, false);
        assert_eq!(health.event_due(MOUNT, ms(300)), ms(300));
    }
}
