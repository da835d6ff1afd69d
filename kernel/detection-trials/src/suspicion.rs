//! How good suspicion is: the quality of service of failure detectors after Chen, Toueg and
//! Aguilera, "On the quality of service of failure detectors" (2002).
//!
//! A detector's suspicion is a number, and each threshold on it makes a detector of its own: one
//! run gives the whole curve of detection time against mistakes.

use crate::leader::{CEILING_TIMEOUTS, Expiry, Watcher};
use crate::trace::Trace;

/// Thresholds on a curve.
const THRESHOLDS: usize = 160;

/// A threshold's quality.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The threshold on the policy's suspicion.
    pub threshold: f64,
    /// From a crash to the suspicion, on average over the crashes, in milliseconds. That a new leader
    /// begins anew is not counted, as the session ends.
    pub detection_ms: f64,
    /// The same, of the slowest of a hundred.
    pub detection_p99_ms: f64,
    /// Suspicions of clients that live, for each hour of a session.
    pub mistakes_an_hour: f64,
    /// How long such a suspicion lasts, on average, in milliseconds.
    pub mistake_ms: f64,
}

impl Point {
    /// The share of its life for which a client is not suspected.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        1.0 - self.mistakes_an_hour * self.mistake_ms / 3_600_000.0
    }
}

/// The quality of a policy's suspicion on a trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// By threshold, lowest first; only those at which 99 of 100 crashes were detected within three
    /// timeouts, the others being counted with that.
    pub points: Vec<Point>,
    /// As the policy is configured: what it says of `suspect`, whatever its suspicion.
    pub configured: Point,
}

impl Curve {
    /// The shortest mean detection time at no more mistakes than this, between two points in
    /// proportion to the logarithm of mistakes.
    #[must_use]
    pub fn detection_ms(&self, mistakes_an_hour: f64) -> Option<f64> {
        let few = |point: &Point| point.mistakes_an_hour <= mistakes_an_hour;
        let at = self.points.iter().position(few)?;
        let after = self.points.get(at)?;
        let Some(before) = at.checked_sub(1).and_then(|at| self.points.get(at)) else {
            return Some(after.detection_ms);
        };
        if after.mistakes_an_hour <= 0.0 {
            return Some(after.detection_ms);
        }
        let part = (before.mistakes_an_hour / mistakes_an_hour).ln()
            / (before.mistakes_an_hour / after.mistakes_an_hour).ln();
        Some(before.detection_ms + part * (after.detection_ms - before.detection_ms))
    }
}

/// Follows one threshold over all sessions.
#[derive(Clone, Debug, Default)]
struct Tally {
    mistakes: u64,
    mistaken_ms: u64,
    detections_ms: Vec<u64>,
    /// Crashes that were not detected.
    missed: u64,
}

/// Measures suspicion.
#[derive(Debug)]
pub(crate) struct SuspicionWatcher<'a> {
    trace: &'a Trace,
    thresholds: Vec<f64>,
    tallies: Vec<Tally>,
    configured: Tally,
    sessions: Vec<Seen>,
}

/// What was said of a session. Of thresholds the lower ones are always passed first.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Since when it is suspected by each threshold that it passes.
    since: Vec<u64>,
    /// Since when it was suspected by each threshold when its client was first dead and suspected.
    detected: Vec<u64>,
    configured_since: Option<u64>,
    configured_detected: Option<u64>,
}

impl<'a> SuspicionWatcher<'a> {
    /// Thresholds between the two, evenly by their logarithm.
    pub(crate) fn new(trace: &'a Trace, (lowest, highest): (f64, f64)) -> Self {
        let step = (highest / lowest).ln() / (THRESHOLDS - 1) as f64;
        let threshold = |index| lowest * (step * index as f64).exp();
        Self {
            trace,
            thresholds: (0..THRESHOLDS).map(threshold).collect(),
            tallies: vec![Tally::default(); THRESHOLDS],
            configured: Tally::default(),
            sessions: vec![Seen::default(); trace.sessions.len()],
        }
    }

    pub(crate) fn curve(mut self) -> Curve {
        let crashes = self.end();
        let hours = self.trace.session_hours();
        let configured = self.configured.point(0.0, hours);
        let tallies = self.thresholds.iter().zip(self.tallies);
        let complete = tallies.filter(|(_, tally)| tally.missed * 100 <= crashes);
        Curve {
            points: complete
                .map(|(threshold, tally)| tally.point(*threshold, hours))
                .collect(),
            configured,
        }
    }

    /// Counts the crashes after which there was time enough for a detection, and gives their number.
    fn end(&mut self) -> u64 {
        let mut crashes = 0;
        for (index, session) in self.trace.sessions.iter().enumerate() {
            let Some(died_ms) = session.died_ms else {
                continue;
            };
            let late_ms = CEILING_TIMEOUTS * session.timeout_ms;
            if died_ms + late_ms >= self.trace.length_ms {
                continue;
            }
            crashes += 1;
            let Some(seen) = self.sessions.get(index) else {
                continue;
            };
            let detected = |since_ms: u64| since_ms.saturating_sub(died_ms);
            for (threshold, tally) in self.tallies.iter_mut().enumerate() {
                let since = seen.detected.get(threshold).copied();
                tally.detects(since.map(detected), late_ms);
            }
            let since = seen.configured_detected.map(detected);
            self.configured.detects(since, late_ms);
        }
        crashes
    }
}

impl Watcher for SuspicionWatcher<'_> {
    fn heard(&mut self, _session: usize, _at_ms: u64) {}

    fn judged(&mut self, session: usize, at_ms: u64, suspicion: f64, suspect: bool) {
        let lives = self
            .trace
            .sessions
            .get(session)
            .is_some_and(|of| of.lives(at_ms));
        let level = self
            .thresholds
            .partition_point(|threshold| *threshold <= suspicion);
        let Some(seen) = self.sessions.get_mut(session) else {
            return;
        };
        while seen.since.len() > level
            && let Some(since_ms) = seen.since.pop()
            && let Some(tally) = self.tallies.get_mut(seen.since.len())
        {
            tally.ends(lives, at_ms - since_ms);
        }
        seen.since.resize(level, at_ms);
        match (seen.configured_since, suspect) {
            (Some(since_ms), false) => {
                self.configured.ends(lives, at_ms - since_ms);
                seen.configured_since = None;
            }
            (None, true) => seen.configured_since = Some(at_ms),
            _ => {}
        }
        if !lives {
            let detected = seen.detected.len();
            seen.detected.extend(seen.since.iter().skip(detected));
            seen.configured_detected = seen.configured_detected.or(seen.configured_since);
        }
    }

    fn expired(&mut self, _expiry: Expiry) {}
}

impl Tally {
    fn ends(&mut self, lives: bool, after_ms: u64) {
        if lives {
            self.mistakes += 1;
            self.mistaken_ms += after_ms;
        }
    }

    fn detects(&mut self, after_ms: Option<u64>, late_ms: u64) {
        self.missed += u64::from(after_ms.is_none());
        self.detections_ms
            .push(after_ms.unwrap_or(late_ms).min(late_ms));
    }

    fn point(mut self, threshold: f64, hours: f64) -> Point {
        let detections = self.detections_ms.len().max(1) as f64;
        Point {
            threshold,
            detection_ms: self.detections_ms.iter().sum::<u64>() as f64 / detections,
            detection_p99_ms: percentile(&mut self.detections_ms, 99) as f64,
            mistakes_an_hour: self.mistakes as f64 / hours.max(f64::MIN_POSITIVE),
            mistake_ms: self.mistaken_ms as f64 / self.mistakes.max(1) as f64,
        }
    }
}

/// The value that so many in a hundred do not pass.
pub(crate) fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let at = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or(0)
}
