//! How good expiry is: sessions that expired though their clients live, and how long a crash takes
//! to end its session.

use crate::leader::{CEILING_TIMEOUTS, Expiry, LOOK_MS, Watcher};
use crate::suspicion::percentile;
use crate::trace::{Leaders, Session, Trace};

/// The quality of expiry on a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expiries {
    /// Crashes whose session expired.
    pub crashes: u64,
    /// Sessions that expired though their client lives.
    pub mistaken: u64,
    /// From the crash to the expiry, in timeouts: half of the crashes, and 99 in 100.
    pub p50_timeouts: f64,
    /// The same, of 99 in 100.
    pub p99_timeouts: f64,
    /// Expired before their timeout was over. A bug of the kernel's model where it is not 0, as are
    /// the next two.
    pub before_floor: u64,
    /// Expired after the ceiling, though not for the brake.
    pub after_ceiling: u64,
    /// Expired though a heartbeat had come to a member in time, or its leader was elected less than
    /// a timeout ago: the observer was sick, not the client.
    pub by_sick_observer: u64,
}

/// Measures expiry.
#[derive(Debug)]
pub(crate) struct ExpiryWatcher<'a> {
    trace: &'a Trace,
    seen: Expiries,
    /// Of each crash, in thousandths of its timeout.
    detections: Vec<u64>,
}

impl<'a> ExpiryWatcher<'a> {
    pub(crate) fn new(trace: &'a Trace) -> Self {
        Self {
            trace,
            seen: Expiries::default(),
            detections: Vec::new(),
        }
    }

    pub(crate) fn expiries(mut self) -> Expiries {
        self.seen.crashes = self.detections.len() as u64;
        self.seen.p50_timeouts = percentile(&mut self.detections, 50) as f64 / 1000.0;
        self.seen.p99_timeouts = percentile(&mut self.detections, 99) as f64 / 1000.0;
        self.seen
    }
}

impl Watcher for ExpiryWatcher<'_> {
    fn heard(&mut self, _session: usize, _at_ms: u64) {}

    fn judged(&mut self, _session: usize, _at_ms: u64, _suspicion: f64, _suspect: bool) {}

    fn expired(&mut self, expiry: Expiry) {
        let Some(session) = self.trace.sessions.get(expiry.session) else {
            return;
        };
        let timeout_ms = session.timeout_ms;
        self.seen.before_floor += u64::from(expiry.silent_ms < timeout_ms);
        // An expiry waits for a quorum round, which takes as long as the leader runs late.
        let late_ms = self.trace.leaders.lags.iter().map(|(_, most_ms)| *most_ms);
        let slack_ms = LOOK_MS + late_ms.max().unwrap_or(0);
        let is_after = expiry.silent_ms > CEILING_TIMEOUTS * timeout_ms + slack_ms;
        self.seen.after_ceiling += u64::from(is_after && !expiry.was_braked);
        let leaders = &self.trace.leaders;
        let active_ms = leaders.active_ms(expiry.at_ms);
        let in_time = |at_ms| active_ms - leaders.active_ms(at_ms) < timeout_ms;
        let elected_ms = leaders.elected_before(expiry.at_ms);
        let is_young = elected_ms > 0 && in_time(elected_ms);
        self.seen.by_sick_observer +=
            u64::from(ignored_touch(session, leaders, expiry.at_ms) || is_young);
        match session.died_ms {
            Some(died_ms) if died_ms <= expiry.at_ms => {
                self.detections
                    .push((expiry.at_ms - died_ms) * 1000 / timeout_ms.max(1));
            }
            _ => self.seen.mistaken += 1,
        }
    }
}

/// Whether a touch had come to a member before the session's deadline, and the leader did not know.
fn ignored_touch(session: &Session, leaders: &Leaders, at_ms: u64) -> bool {
    let known = session
        .touches
        .partition_point(|touch| touch.known_ms <= at_ms);
    let last = known
        .checked_sub(1)
        .and_then(|last| session.touches.get(last));
    let next = session.touches.get(known);
    last.zip(next).is_some_and(|(last, next)| {
        let after_ms = leaders.active_ms(next.arrived_ms) - leaders.active_ms(last.arrived_ms);
        next.arrived_ms <= at_ms && after_ms < session.timeout_ms
    })
}
