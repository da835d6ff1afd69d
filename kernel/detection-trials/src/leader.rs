//! The kernel's side, modelled: the leader that gathers what a policy sees, asks it, and does what
//! its verdicts and the kernel's own bounds allow.

use std::collections::VecDeque;

pub use folkmoot_core::detection::{BRAKE_TIMEOUTS, CEILING_TIMEOUTS, LOOK_MS};
use folkmoot_core::detection::{Brake, History};
use folkmoot_sdk::detector::{
    Arrivals, Assessment, Connection, FailureDetector, Observer, Sample, State, Subject, Verdict,
    Zone,
};

use crate::trace::{Session, Touch, Trace};

/// A quorum round of the leader takes this long.
const ROUND_MS: u64 = 50;
/// What expired is counted in its zone for this long.
const ZONE_WINDOW_MS: u64 = 60_000;
/// Stalls and lags are told for this long.
const LAG_WINDOW_MS: u64 = 10_000;

/// What happened, in the order in which it did. Times are the trace's, in milliseconds.
pub(crate) trait Watcher {
    /// The session was heard of.
    fn heard(&mut self, session: usize, at_ms: u64);
    /// The policy was asked, and says this of the session.
    fn judged(&mut self, session: usize, at_ms: u64, suspicion: f64, suspect: bool);
    /// The session expired.
    fn expired(&mut self, expiry: Expiry);
}

/// A session that the leader expired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    /// Which one.
    pub(crate) session: usize,
    /// When.
    pub(crate) at_ms: u64,
    /// How long it was silent on the leader's active clock, since its last known touch or since the
    /// leader was elected.
    pub(crate) silent_ms: u64,
    /// It was held back by the brake for mass expiry.
    pub(crate) was_braked: bool,
}

/// Whether sessions expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiring {
    /// As the kernel and the policy have it. A client whose session expired though it lives opens
    /// another with its next heartbeat.
    Yes,
    /// Never while the client lives, so that suspicion is seen alone.
    No,
}

/// Lets a leader live through the trace.
pub(crate) fn run<D: FailureDetector>(
    trace: &Trace,
    policy: &D,
    expiring: Expiring,
    watcher: &mut impl Watcher,
) {
    let mut leader = Leader::new(trace, expiring);
    let mut at_ms = 0;
    while at_ms < trace.length_ms {
        at_ms += LOOK_MS;
        if trace.leaders.stalls.iter().any(|stall| stall.has(at_ms)) {
            continue;
        }
        leader.look(at_ms, policy, watcher);
    }
}

/// A session in the leader's memory.
#[derive(Debug)]
struct Known {
    index: usize,
    next_touch: usize,
    touches: u64,
    opened_ms: u64,
    /// When its last touch arrived at a member, and when the leader knew, both on the active clock.
    arrived_ms: u64,
    heard_ms: u64,
    member: u64,
    history: History,
    /// Where its last touch arrived, and when, on that member's own clock.
    last: Option<(u64, u64)>,
    is_open: bool,
    is_suspected: bool,
    is_held: bool,
    was_braked: bool,
}

struct Leader<'a> {
    trace: &'a Trace,
    expiring: Expiring,
    /// Sessions that were opened and may be heard of again, and how many of the trace's those are.
    known: Vec<Known>,
    opened: usize,
    elected_ms: u64,
    brake: Brake,
    /// When sessions expired, and in which zone.
    expiries: VecDeque<(u64, u32)>,
    assessment: Assessment,
}

impl<'a> Leader<'a> {
    fn new(trace: &'a Trace, expiring: Expiring) -> Self {
        Self {
            trace,
            expiring,
            known: Vec::new(),
            opened: 0,
            elected_ms: 0,
            brake: Brake::default(),
            expiries: VecDeque::new(),
            assessment: Assessment::default(),
        }
    }

    fn look(&mut self, at_ms: u64, policy: &impl FailureDetector, watcher: &mut impl Watcher) {
        let elected_ms = self.trace.leaders.elected_before(at_ms);
        if elected_ms > self.elected_ms {
            self.elected_ms = elected_ms;
            self.forget();
        }
        self.take_touches(at_ms, watcher);
        self.known.retain(|known| {
            let session = self.trace.sessions.get(known.index);
            session.is_some_and(|session| !is_over(known, session, at_ms, self.expiring))
        });
        self.gather(at_ms);
        let verdicts = policy.assess(&self.assessment);
        self.obey(at_ms, verdicts, watcher);
    }

    /// A new leader has no histories; whom it has not heard of, it counts from its election.
    fn forget(&mut self) {
        let active_ms = self.trace.leaders.active_ms(self.elected_ms);
        for known in &mut self.known {
            known.history = History::default();
            known.last = None;
            known.arrived_ms = active_ms;
            known.heard_ms = active_ms;
        }
    }

    fn take_touches(&mut self, at_ms: u64, watcher: &mut impl Watcher) {
        let sessions = &self.trace.sessions;
        while let Some(session) = sessions.get(self.opened)
            && session.opened_ms() <= at_ms
        {
            self.known.push(Known::new(self.opened));
            self.opened += 1;
        }
        for known in &mut self.known {
            let Some(session) = sessions.get(known.index) else {
                continue;
            };
            while let Some(touch) = session.touches.get(known.next_touch)
                && touch.known_ms <= at_ms
            {
                known.take(touch, session.timeout_ms, self.trace);
                watcher.heard(known.index, at_ms);
            }
        }
    }

    fn gather(&mut self, at_ms: u64) {
        let trace = self.trace;
        let active_ms = trace.leaders.active_ms(at_ms);
        self.assessment.observer = observer(trace, at_ms, self.elected_ms);
        while let Some((expired_ms, _)) = self.expiries.front()
            && expired_ms + ZONE_WINDOW_MS < at_ms
        {
            self.expiries.pop_front();
        }
        let open = || self.known.iter().filter(|known| known.is_open);
        self.assessment.subjects.clear();
        let subjects = open().filter_map(|known| known.subject(trace, at_ms, active_ms));
        self.assessment.subjects.extend(subjects);
        self.assessment.samples.clear();
        let samples = open().zip(0..).flat_map(|(known, subject)| {
            let sample = move |interval_ms| Sample {
                subject,
                interval_ms,
            };
            known.history.last_ms().map(sample)
        });
        self.assessment.samples.extend(samples);
        let zones = trace.zones.iter().enumerate().map(|(zone, name)| {
            let zone = zone as u32;
            let there = || open().filter(|of| zone_of(trace, of.index) == zone);
            Zone {
                name: name.clone(),
                population: there().count() as u32,
                suspects: there().filter(|of| of.is_suspected).count() as u32,
                expired: self.expiries.iter().filter(|(_, of)| *of == zone).count() as u32,
            }
        });
        self.assessment.zones = zones.collect();
    }

    fn obey(&mut self, at_ms: u64, verdicts: Vec<Verdict>, watcher: &mut impl Watcher) {
        let active_ms = self.trace.leaders.active_ms(at_ms);
        // A session is looked at when a quorum round that began after its deadline has been made.
        let round_ms = ROUND_MS + lag_ms(self.trace, at_ms);
        let confirmed_ms = active_ms.saturating_sub(round_ms);
        let population = self.assessment.subjects.len();
        for verdict in verdicts {
            let index = verdict.key as usize;
            let Ok(row) = self.known.binary_search_by_key(&index, |known| known.index) else {
                continue;
            };
            let Some(known) = self.known.get_mut(row) else {
                continue;
            };
            if verdict.touch != known.touches {
                continue;
            }
            known.is_suspected = verdict.suspect;
            watcher.judged(index, at_ms, verdict.suspicion, verdict.suspect);
            let timeout_ms = self.trace.sessions.get(index).map_or(0, |of| of.timeout_ms);
            let silent_ms = confirmed_ms.saturating_sub(known.heard_ms);
            if self.expiring == Expiring::No || silent_ms < timeout_ms {
                known.is_held = false;
                continue;
            }
            known.is_held = verdict.hold_ms > 0 && silent_ms < CEILING_TIMEOUTS * timeout_ms;
            if known.is_held {
                continue;
            }
            let is_braked = self.brake.is_on(at_ms, population as u64);
            if is_braked && silent_ms < BRAKE_TIMEOUTS * timeout_ms {
                known.was_braked = true;
                continue;
            }
            self.brake.expired(at_ms);
            self.expiries.push_back((at_ms, zone_of(self.trace, index)));
            known.is_open = false;
            watcher.expired(Expiry {
                session: index,
                at_ms,
                silent_ms,
                was_braked: known.was_braked,
            });
        }
    }
}

impl Known {
    fn new(index: usize) -> Self {
        Self {
            index,
            next_touch: 0,
            touches: 0,
            opened_ms: 0,
            arrived_ms: 0,
            heard_ms: 0,
            member: 0,
            history: History::default(),
            last: None,
            is_open: false,
            is_suspected: false,
            is_held: false,
            was_braked: false,
        }
    }

    /// Intervals are those of the member that was touched, as in the kernel: there is none between
    /// touches of two members, and a leader that stood still makes none shorter.
    fn take(&mut self, touch: &Touch, timeout_ms: u64, trace: &Trace) {
        let arrived_ms = trace.leaders.active_ms(touch.arrived_ms);
        if !self.is_open {
            self.is_open = true;
            self.opened_ms = touch.known_ms;
            self.history = History::default();
            self.last = None;
        }
        let before = self.last.replace((touch.member, touch.arrived_ms));
        if let Some((member, since_ms)) = before
            && member == touch.member
            && touch.arrived_ms > since_ms
        {
            let interval_ms = touch.arrived_ms - since_ms;
            self.history
                .add(interval_ms.min(CEILING_TIMEOUTS * timeout_ms) as f64);
        }
        self.next_touch += 1;
        self.touches += 1;
        self.arrived_ms = self.arrived_ms.max(arrived_ms);
        self.heard_ms = trace.leaders.active_ms(touch.known_ms).max(self.heard_ms);
        self.member = touch.member;
        self.was_braked = false;
    }

    fn subject(&self, trace: &Trace, at_ms: u64, active_ms: u64) -> Option<Subject> {
        let session = trace.sessions.get(self.index)?;
        let figures = self.history.figures();
        Some(Subject {
            key: self.index as u64,
            touch: self.touches,
            class: session.class.clone(),
            zone: Some(session.zone),
            member: self.member,
            age_ms: at_ms - self.opened_ms,
            silent_ms: active_ms - self.arrived_ms,
            timeout_ms: session.timeout_ms,
            ceiling_ms: CEILING_TIMEOUTS * session.timeout_ms,
            state: match (self.is_held, self.is_suspected) {
                (true, _) => State::Held,
                (false, true) => State::Suspected,
                (false, false) => State::Fine,
            },
            arrivals: Arrivals {
                n: figures.n,
                mean_ms: figures.mean_ms,
                sd_ms: figures.sd_ms,
                p99_ms: figures.p99_ms,
            },
            rtt_ms: 0.0,
            connection: Connection::Open,
            declared_pause_ms: 0,
        })
    }
}

/// Whether the session is heard of no more. Where none expires, one that crashed is kept for two
/// timeouts, so that its detection is seen.
fn is_over(known: &Known, session: &Session, at_ms: u64, expiring: Expiring) -> bool {
    let has_more = known.next_touch < session.touches.len();
    match expiring {
        Expiring::Yes => !known.is_open && !has_more,
        Expiring::No => session
            .died_ms
            .is_some_and(|died| died + CEILING_TIMEOUTS * session.timeout_ms < at_ms && !has_more),
    }
}

fn zone_of(trace: &Trace, session: usize) -> u32 {
    trace
        .sessions
        .get(session)
        .map_or(0, |session| session.zone)
}

fn observer(trace: &Trace, at_ms: u64, elected_ms: u64) -> Observer {
    let past = trace
        .leaders
        .stalls
        .iter()
        .filter(|stall| stall.to_ms <= at_ms);
    let last = past.max_by_key(|stall| stall.to_ms);
    Observer {
        since_elected_ms: at_ms - elected_ms,
        lag_ms: lag_ms(trace, at_ms),
        stall_ms: last.map_or(0, |stall| stall.to_ms - stall.from_ms),
        since_stall_ms: last.map_or(u64::MAX, |stall| at_ms - stall.to_ms),
        fsync_ms: 5,
        backlog: 0,
    }
}

/// By how much the leader ran late at worst, of late.
fn lag_ms(trace: &Trace, at_ms: u64) -> u64 {
    let lags = trace.leaders.lags.iter();
    let recent = lags.filter(|(lag, _)| (lag.from_ms..lag.to_ms + LAG_WINDOW_MS).contains(&at_ms));
    recent.map(|(_, most_ms)| *most_ms).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::trace::{Leaders, Span};

    #[test]
    fn intervals_are_those_of_the_member_that_was_touched() {
        let trace = Trace {
            leaders: Leaders {
                stalls: vec![Span {
                    from_ms: 4_500,
                    to_ms: 9_500,
                }],
                ..Leaders::default()
            },
            ..Trace::default()
        };
        let mut known = Known::new(0);
        // The leader stands still while its fellow is touched, and is touched itself thereafter.
        let touches = [(2_000, 1), (4_000, 1), (6_000, 1), (8_000, 1), (9_900, 0)];
        for (arrived_ms, member) in touches {
            let known_ms = arrived_ms.max(9_500);
            let touch = Touch {
                arrived_ms,
                known_ms,
                member,
            };
            known.take(&touch, 10_000, &trace);
        }
        let intervals: Vec<f64> = known.history.last_ms().collect();
        assert_eq!(intervals, [2_000.0; 3]);
    }
}
