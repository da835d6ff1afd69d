//! How long the silences of a client are that lives.
//!
//! A mixture of three: most intervals are normally distributed, with the mean that was measured and
//! a spread that fits the 99th percentile; one in [`PAUSES`] is a pause, and what a pause adds falls
//! off exponentially, with a scale that explains the variance which the bulk does not; and one may
//! have been an outage that nobody has seen yet, so rarer the more intervals were seen. Four figures
//! and no history are enough for it, so that a kernel can keep them for 100,000 sessions.

use core::f64::consts::TAU;

use folkmoot_sdk::detector::Arrivals;

/// The share of intervals that are pauses. It is assumed, as too few are seen to count them: what
/// is measured is their second moment, and only the product of share and square of scale goes into
/// that. A wrong share moves φ by less than its logarithm.
const PAUSES: f64 = 0.01;
/// The 99th percentile of a normal distribution, in standard deviations from its mean.
const P99_SDS: f64 = 2.326;
/// No clock and no scheduler is more regular than this, in milliseconds.
const SPREAD_MIN_MS: f64 = 5.0;
/// A pause adds this many spreads at least. With one, the shoulder beyond the 99th percentile of
/// clients behind a full network is taken for much steeper than it is.
const PAUSE_SPREADS: f64 = 2.0;
/// What an outage that nobody has seen adds on average, in timeouts.
const UNSEEN_TIMEOUTS: f64 = 0.5;
/// Such an outage is taken to be at most one in so many intervals: a new cluster of two clients would
/// suspect nobody for an hour.
const UNSEEN_MIN: f64 = 1_000.0;
/// φ where the probability is too small for a number.
const PHI_MAX: f64 = 300.0;

/// The distribution of one subject's silences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Silence {
    mean_ms: f64,
    spread_ms: f64,
    pause_ms: f64,
    /// The share of intervals that are outages which nobody has seen.
    unseen: f64,
    unseen_ms: f64,
}

impl Silence {
    /// The distribution that has these figures, of a session with this timeout.
    #[must_use]
    pub fn of(arrivals: &Arrivals, timeout_ms: u64) -> Self {
        let spread_ms = ((arrivals.p99_ms - arrivals.mean_ms) / P99_SDS).max(SPREAD_MIN_MS);
        let unexplained = (arrivals.sd_ms * arrivals.sd_ms - spread_ms * spread_ms).max(0.0);
        // An exponential with scale s has a second moment of 2 s².
        let pause_ms = (unexplained / (2.0 * PAUSES))
            .sqrt()
            .max(PAUSE_SPREADS * spread_ms);
        Self {
            mean_ms: arrivals.mean_ms,
            spread_ms,
            pause_ms,
            unseen: 1.0 / f64::from(arrivals.n).max(UNSEEN_MIN),
            unseen_ms: UNSEEN_TIMEOUTS * timeout_ms.max(1) as f64,
        }
    }

    /// −log10 of the probability that a silence lasts as long as this or longer. Grows with it.
    #[must_use]
    pub fn phi(&self, silent_ms: f64) -> f64 {
        let late_ms = silent_ms - self.mean_ms;
        let regular = (1.0 - PAUSES) * normal_tail(late_ms / self.spread_ms);
        let [paused, unseen] = self.rare(late_ms.max(0.0));
        phi(regular + paused + unseen)
    }

    /// −log10 of the share of silences that would end within one interval more, if they went on to
    /// end as they do now: the mistakes that this much patience saves. Grows with the silence.
    ///
    /// Where it is the same for all, no client's detection could be had sooner at the price of
    /// another's, at as many mistakes in all. With φ the same for all, those whose silences thin
    /// out slowly are waited for as if waiting saved as much as with others.
    #[must_use]
    pub fn suspicion(&self, silent_ms: f64) -> f64 {
        let late_ms = (silent_ms - self.mean_ms).max(0.0);
        let regular = (1.0 - PAUSES) * normal_density(late_ms / self.spread_ms) / self.spread_ms;
        let [paused, unseen] = self.rare(late_ms);
        let ending = regular + paused / self.pause_ms + unseen / self.unseen_ms;
        phi(ending * self.mean_ms)
    }

    /// The probabilities of a pause and of an outage that are as long or longer.
    fn rare(&self, late_ms: f64) -> [f64; 2] {
        [
            PAUSES * (-late_ms / self.pause_ms).exp(),
            self.unseen * (-late_ms / self.unseen_ms).exp(),
        ]
    }
}

fn phi(probability: f64) -> f64 {
    let phi = -probability.log10();
    if phi.is_nan() {
        PHI_MAX
    } else {
        phi.clamp(0.0, PHI_MAX)
    }
}

/// The probability that a normally distributed value is so many standard deviations above its mean
/// or more, to 2 parts in 10,000: the logistic approximation of Bowling and others (2009).
fn normal_tail(sds: f64) -> f64 {
    1.0 / (1.0 + (1.5976 * sds + 0.070_566 * sds.powi(3)).exp())
}

fn normal_density(sds: f64) -> f64 {
    (-0.5 * sds * sds).exp() / TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn regular() -> Arrivals {
        Arrivals {
            n: 50_000,
            mean_ms: 2_000.0,
            sd_ms: 50.0,
            p99_ms: 2_000.0 + P99_SDS * 50.0,
        }
    }

    #[test]
    fn phi_is_the_logarithm_of_a_probability() {
        let silence = Silence::of(&regular(), 10_000);
        assert!((silence.phi(2_000.0) - 0.3).abs() < 0.01, "half are longer");
        let p99 = silence.phi(regular().p99_ms);
        assert!((1.8..2.1).contains(&p99), "one in a hundred is: {p99}");
    }

    #[test]
    fn whoever_paused_before_is_trusted_to_come_back() {
        let pauses = Arrivals {
            sd_ms: 300.0,
            ..regular()
        };
        let of = |arrivals| Silence::of(&arrivals, 10_000);
        let (calm, pausing) = (of(regular()), of(pauses));
        assert!(pausing.phi(5_000.0) < calm.phi(5_000.0) - 2.0);
    }

    #[test]
    fn the_longer_none_was_seen_the_less_likely_is_an_outage() {
        let of_n = |n| Silence::of(&Arrivals { n, ..regular() }, 10_000).phi(4_000.0);
        assert!((3.0..3.5).contains(&of_n(10)), "{}", of_n(10));
        assert!(of_n(5_000) > of_n(10), "{}", of_n(5_000));
        assert!(of_n(50_000) > 4.0, "{}", of_n(50_000));
    }

    #[test]
    fn who_takes_long_to_come_back_is_not_waited_for_as_long_as_phi_says() {
        let pauses = |sd_ms| Arrivals { sd_ms, ..regular() };
        let of = |arrivals| Silence::of(&arrivals, 10_000);
        let (short, long) = (of(pauses(100.0)), of(pauses(400.0)));
        let at_phi_3 = |silence: &Silence| {
            let mut silences_ms = (2_000..60_000).map(f64::from);
            let ms = silences_ms
                .find(|ms| silence.phi(*ms) >= 3.0)
                .unwrap_or(0.0);
            silence.suspicion(ms)
        };
        assert!(at_phi_3(&long) > at_phi_3(&short) + 0.4);
    }

    proptest! {
        #[test]
        fn both_are_finite_and_grow_with_the_silence(
            mean_ms in 0.0..1e6_f64,
            sd_ms in 0.0..1e6_f64,
            p99_ms in 0.0..1e6_f64,
            timeout_ms in 0_u64..1_000_000,
            silent_ms in 0.0..1e9_f64,
            more_ms in 0.0..1e6_f64,
        ) {
            let silence = Silence::of(&Arrivals { n: 9, mean_ms, sd_ms, p99_ms }, timeout_ms);
            for of in [Silence::phi, Silence::suspicion] {
                let (now, later) = (of(&silence, silent_ms), of(&silence, silent_ms + more_ms));
                prop_assert!(now.is_finite() && now >= 0.0);
                prop_assert!(later >= now, "{now} at {silent_ms}, {later} after {more_ms} more");
            }
        }
    }
}
