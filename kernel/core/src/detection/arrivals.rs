//! What a leader keeps of how a session's touches arrive: some 130 bytes, whatever its age.

/// Intervals after which older ones count less: at one in two seconds, the last 17 minutes weigh
/// most.
const MEMORY: u32 = 500;
/// Buckets of excess over the mean, each √2 times as wide as the one before: the last begins at
/// 46 s.
const BUCKETS: usize = 32;
/// Where the second bucket begins, in milliseconds.
const FIRST_MS: f64 = 1.0;
/// Last intervals that are kept as they were.
const LAST: usize = 4;

/// The intervals between the touches of a session: the figures that a failure detector is shown.
/// Older ones count less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Intervals that the others rest on.
    pub n: u32,
    /// Their mean, in milliseconds.
    pub mean_ms: f64,
    /// Their standard deviation, in milliseconds.
    pub sd_ms: f64,
    /// 99 of 100 were no longer, in milliseconds; to √2 of the excess over the mean.
    pub p99_ms: f64,
}

/// The intervals of one session, each taken in once and not kept.
#[derive(Clone, Debug, Default)]
pub struct History {
    n: u32,
    mean_ms: f64,
    variance: f64,
    excess: [u16; BUCKETS],
    counted: u32,
    p99_excess_ms: f64,
    /// The last ones, each at its number modulo their count.
    last: [f64; LAST],
    added: usize,
}

impl History {
    /// One interval more, in milliseconds: finite, and not below 0.
    pub fn add(&mut self, interval_ms: f64) {
        if let Some(place) = self.last.get_mut(self.added % LAST) {
            *place = interval_ms;
        }
        self.added += 1;
        self.n = (self.n + 1).min(MEMORY);
        let weight = 1.0 / f64::from(self.n);
        let off = interval_ms - self.mean_ms;
        self.mean_ms += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.count(interval_ms - self.mean_ms);
    }

    fn count(&mut self, excess_ms: f64) {
        if self.counted == 2 * MEMORY {
            for count in &mut self.excess {
                *count /= 2;
            }
            self.counted = self.excess.iter().map(|count| u32::from(*count)).sum();
        }
        if let Some(count) = self.excess.get_mut(bucket(excess_ms)) {
            *count += 1;
        }
        self.counted += 1;
        self.p99_excess_ms = self.find_p99_excess_ms();
    }

    /// The last intervals, up to four, oldest first.
    pub fn last_ms(&self) -> impl Iterator<Item = f64> {
        let kept = self.added.min(LAST);
        let from = self.added - kept;
        (from..self.added).filter_map(|number| self.last.get(number % LAST).copied())
    }

    /// The figures of all of them.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            n: self.n,
            mean_ms: self.mean_ms,
            sd_ms: self.variance.sqrt(),
            p99_ms: self.mean_ms + self.p99_excess_ms,
        }
    }

    /// The excess that one interval in a hundred has or passes, interpolated within its bucket.
    fn find_p99_excess_ms(&self) -> f64 {
        let above = f64::from(self.counted) / 100.0;
        let mut seen = 0.0;
        for (bucket, count) in self.excess.iter().enumerate().rev() {
            let count = f64::from(*count);
            if seen + count >= above && count > 0.0 {
                let part = (seen + count - above) / count;
                return begin_ms(bucket) + part * (begin_ms(bucket + 1) - begin_ms(bucket));
            }
            seen += count;
        }
        0.0
    }
}

fn bucket(excess_ms: f64) -> usize {
    if excess_ms < FIRST_MS {
        return 0;
    }
    let bucket = 1 + (2.0 * (excess_ms / FIRST_MS).log2()) as usize;
    bucket.min(BUCKETS - 1)
}

fn begin_ms(bucket: usize) -> f64 {
    match bucket {
        0 => 0.0,
        _ => FIRST_MS * ((bucket - 1) as f64 / 2.0).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_the_intervals() {
        let mut history = History::default();
        for round in 0..1000 {
            history.add(if round % 50 == 0 { 2_400.0 } else { 2_000.0 });
        }
        let figures = history.figures();
        assert_eq!(figures.n, MEMORY);
        assert!((figures.mean_ms - 2_008.0).abs() < 5.0, "{figures:?}");
        assert!((figures.sd_ms - 56.0).abs() < 8.0, "{figures:?}");
        assert!((2_360.0..2_530.0).contains(&figures.p99_ms), "{figures:?}");
    }

    #[test]
    fn old_intervals_are_forgotten() {
        let mut history = History::default();
        (0..1000).for_each(|_| history.add(5_000.0));
        (0..5000).for_each(|_| history.add(1_000.0));
        let figures = history.figures();
        assert!((figures.mean_ms - 1_000.0).abs() < 2.0, "{figures:?}");
        assert!(figures.p99_ms < 1_010.0, "{figures:?}");
    }
    #[test]
    fn the_last_intervals_are_kept_in_their_order() {
        let mut history = History::default();
        assert_eq!(history.last_ms().count(), 0);
        (1..=3).for_each(|interval| history.add(f64::from(interval)));
        assert_eq!(history.last_ms().collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        (4..=9).for_each(|interval| history.add(f64::from(interval)));
        assert_eq!(history.last_ms().collect::<Vec<_>>(), [6.0, 7.0, 8.0, 9.0]);
    }
}
