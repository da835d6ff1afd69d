//! How much of a silence the observer was fit to hear.

use folkmoot_sdk::detector::{Observer, Subject};

/// After a stall, touches that waited in other processes need this long to arrive.
const AFTER_STALL_MS: f64 = 500.0;
/// A touch is so long on its way from the member that got it to the leader: members send them on
/// together, and a quorum round follows.
const FORWARD_MS: f64 = 100.0;
/// After an election, clients of the member that fell need so many intervals to notice, and to come
/// to another.
const INTERVALS_AFTER_ELECTION: f64 = 3.0;

/// The part of the subject's silence that the observer may have caused, in milliseconds: touches
/// that are on their way, as long as its process runs late, and that come when it stood still.
#[must_use]
pub fn missed_ms(subject: &Subject, observer: &Observer) -> f64 {
    let late_ms = FORWARD_MS.max(observer.lag_ms.max(observer.fsync_ms) as f64);
    let since_stall_ms = observer.since_stall_ms as f64;
    let silent_ms = subject.silent_ms as f64;
    let stalled_ms = if since_stall_ms < silent_ms {
        since_stall_ms.min(AFTER_STALL_MS)
    } else {
        0.0
    };
    (late_ms + stalled_ms).min(silent_ms)
}

/// The part of the subject's silence that is evidence against it, in milliseconds: what is left
/// when the observer's part is taken off, and, as long as a new leader has not heard of it, the time
/// that clients need to find a member again. `interval_ms` is how often the subject touches.
#[must_use]
pub fn silence_ms(subject: &Subject, observer: &Observer, interval_ms: f64) -> f64 {
    if subject.declared_pause_ms > 0 {
        return 0.0;
    }
    let heard_ms = subject.silent_ms as f64 - missed_ms(subject, observer);
    let settling_ms = if is_unheard(subject, observer) {
        INTERVALS_AFTER_ELECTION * interval_ms
    } else {
        0.0
    };
    (heard_ms - settling_ms).max(0.0)
}

/// Whether a new leader has not heard of the subject yet.
#[must_use]
pub fn is_unheard(subject: &Subject, observer: &Observer) -> bool {
    observer.since_elected_ms <= subject.silent_ms
}

/// What the kernel grants the subject by itself for the observer's sake, in milliseconds: deadlines
/// leave out a stall and begin anew with a leader, and a leader that runs late expires late.
#[must_use]
pub fn granted_ms(subject: &Subject, observer: &Observer) -> f64 {
    if is_unheard(subject, observer) {
        return f64::INFINITY;
    }
    let has_stalled = observer.since_stall_ms <= subject.silent_ms;
    let stall_ms = if has_stalled { observer.stall_ms } else { 0 };
    stall_ms.saturating_add(observer.lag_ms) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn silent(silent_ms: u64) -> Subject {
        Subject {
            silent_ms,
            timeout_ms: 10_000,
            ..Subject::default()
        }
    }

    fn fit() -> Observer {
        Observer {
            since_elected_ms: 1_000_000,
            since_stall_ms: u64::MAX,
            ..Observer::default()
        }
    }

    #[test]
    fn a_fit_observer_heard_all_but_what_is_on_its_way() {
        assert_eq!(silence_ms(&silent(4_000), &fit(), 2_000.0), 3_900.0);
    }

    #[test]
    fn what_a_leader_missed_is_no_evidence() {
        let woke = |since_stall_ms| Observer {
            stall_ms: 8_000,
            since_stall_ms,
            ..fit()
        };
        assert_eq!(silence_ms(&silent(2_500), &woke(300), 2_000.0), 2_100.0);
        assert_eq!(silence_ms(&silent(2_500), &woke(2_000), 2_000.0), 1_900.0);
        assert_eq!(silence_ms(&silent(2_500), &woke(2_500), 2_000.0), 2_400.0);
        let late = Observer {
            lag_ms: 3_000,
            ..fit()
        };
        assert_eq!(silence_ms(&silent(4_000), &late, 2_000.0), 1_000.0);
    }

    #[test]
    fn a_new_leader_waits_for_clients_to_find_a_member() {
        let elected = Observer {
            since_elected_ms: 7_000,
            ..fit()
        };
        assert_eq!(silence_ms(&silent(7_000), &elected, 2_000.0), 900.0);
        assert_eq!(silence_ms(&silent(6_999), &elected, 2_000.0), 6_899.0);
    }

    #[test]
    fn the_kernel_grants_what_the_observer_took() {
        let woke = |since_stall_ms| Observer {
            stall_ms: 8_000,
            since_stall_ms,
            lag_ms: 100,
            ..fit()
        };
        assert_eq!(granted_ms(&silent(2_500), &woke(2_500)), 8_100.0);
        assert_eq!(granted_ms(&silent(2_500), &woke(2_501)), 100.0);
        let elected = Observer {
            since_elected_ms: 2_500,
            ..fit()
        };
        assert_eq!(granted_ms(&silent(2_500), &elected), f64::INFINITY);
        assert_eq!(granted_ms(&silent(2_499), &elected), 0.0);
    }

    #[test]
    fn a_declared_pause_is_no_silence() {
        let declared = Subject {
            declared_pause_ms: 1,
            ..silent(9_000)
        };
        assert_eq!(silence_ms(&declared, &fit(), 2_000.0), 0.0);
    }

    proptest! {
        #[test]
        fn evidence_is_part_of_the_silence(
            silent_ms in 0_u64..100_000,
            since_elected_ms in 0_u64..100_000,
            lag_ms in 0_u64..20_000,
            since_stall_ms in 0_u64..100_000,
            interval_ms in 0.0..20_000.0_f64,
        ) {
            let observer = Observer { since_elected_ms, lag_ms, since_stall_ms, ..Observer::default() };
            let heard_ms = silence_ms(&silent(silent_ms), &observer, interval_ms);
            prop_assert!((0.0..=silent_ms as f64).contains(&heard_ms));
        }
    }
}
