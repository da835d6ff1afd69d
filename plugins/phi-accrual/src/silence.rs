//! How long the silences of a client are that lives.
//!
//! A mixture: most intervals are normally distributed, with the mean that was measured and a spread
//! that fits the 99th percentile; one in [`PAUSES`] is a pause, and what a pause adds falls off
//! exponentially, with a scale that explains the variance which the bulk does not. Three figures
//! and no history are enough for it, so that a kernel can keep them for 100,000 sessions.

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
/// φ where the probability is too small for a number.
const PHI_MAX: f64 = 300.0;

/// The distribution of one subject's silences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Silence {
    mean_ms: f64,
    spread_ms: f64,
    pause_ms: f64,
}

impl Silence {
    /// The distribution that has these figures.
    #[must_use]
    pub fn of(arrivals: &Arrivals) -> Self {
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
        }
    }

    /// −log10 of the probability that a silence lasts as long as this or longer. Grows with it.
    #[must_use]
    pub fn phi(&self, silent_ms: f64) -> f64 {
        let late_ms = silent_ms - self.mean_ms;
        let regular = (1.0 - PAUSES) * normal_tail(late_ms / self.spread_ms);
        let paused = PAUSES * (-late_ms.max(0.0) / self.pause_ms).exp();
        let phi = -(regular + paused).log10();
        if phi.is_finite() {
            phi.max(0.0)
        } else {
            PHI_MAX
        }
    }
}

/// The probability that a normally distributed value is so many standard deviations above its mean
/// or more, to 2 parts in 10,000: the logistic approximation of Bowling and others (2009).
fn normal_tail(sds: f64) -> f64 {
    1.0 / (1.0 + (1.5976 * sds + 0.070_566 * sds.powi(3)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn regular() -> Arrivals {
        Arrivals {
            n: 500,
            mean_ms: 2_000.0,
            sd_ms: 50.0,
            p99_ms: 2_000.0 + P99_SDS * 50.0,
        }
    }

    #[test]
    fn phi_is_the_logarithm_of_a_probability() {
        let silence = Silence::of(&regular());
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
        let (calm, pausing) = (Silence::of(&regular()), Silence::of(&pauses));
        assert!(pausing.phi(5_000.0) < calm.phi(5_000.0) / 5.0);
    }

    proptest! {
        #[test]
        fn phi_is_finite_and_grows_with_the_silence(
            mean_ms in 0.0..1e6_f64,
            sd_ms in 0.0..1e6_f64,
            p99_ms in 0.0..1e6_f64,
            silent_ms in 0.0..1e9_f64,
            more_ms in 0.0..1e6_f64,
        ) {
            let silence = Silence::of(&Arrivals { n: 9, mean_ms, sd_ms, p99_ms });
            let (phi, later) = (silence.phi(silent_ms), silence.phi(silent_ms + more_ms));
            prop_assert!(phi.is_finite() && phi >= 0.0);
            prop_assert!(later >= phi, "{phi} at {silent_ms}, {later} after {more_ms} more");
        }
    }
}
