//! What the kernel ends by itself: sessions that were not heard of (rules R16, R43), and waits whose
//! deadline has passed (rule R11).

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::effect::WaitEndCause;
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{ConnEpoch, LogTime, Now, SessionId, Tick};

use super::sessions::end_session;
use super::touches::{Arrival, Touch};
use crate::detection::{BRAKE_TIMEOUTS, CEILING_TIMEOUTS};
use crate::execution::Execution;
use crate::mutation::{self, Mutation};
use crate::state::View;

/// Sessions that are expired in one step, each in a transaction of its own.
const EXPIRIES_PER_STEP: usize = 64;
/// Sessions that are looked at in one step: those that are held are not to hold others.
const DUE_PER_STEP: usize = 4096;
/// Between two looks at a session whose expiry is put off, in milliseconds.
const HELD_MS: u64 = 100;
/// Waits that are ended in one transaction.
const DUE_WAITS_PER_TXN: usize = 256;

/// What becomes of a session whose deadline is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sentence {
    /// It expires.
    Expire,
    /// Its expiry is put off, until then on the leader's active clock.
    Wait(Tick),
    /// Enough have expired in this moment.
    Later,
}

/// When sessions may be expired at the earliest, on the leader's active clock.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Tick, SessionId)>,
    by_session: BTreeMap<SessionId, Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    heard_at: Tick,
    deadline: Tick,
}

impl Deadlines {
    /// The session was heard of at `heard_at`. A deadline never moves backwards.
    pub(super) fn arm(&mut self, session: SessionId, heard_at: Tick, timeout_ms: u32) {
        let deadline = heard_at.plus_millis(u64::from(timeout_ms));
        self.put(session, Armed { heard_at, deadline });
    }

    /// The session is not expired before `until`, though it was not heard of.
    fn hold(&mut self, session: SessionId, until: Tick) {
        let heard_at = self.by_session.get(&session).map(|armed| armed.heard_at);
        if let Some(heard_at) = heard_at {
            let deadline = until;
            self.put(session, Armed { heard_at, deadline });
        }
    }

    fn put(&mut self, session: SessionId, mut armed: Armed) {
        if let Some(before) = self.by_session.get(&session) {
            armed.heard_at = armed.heard_at.max(before.heard_at);
            armed.deadline = armed.deadline.max(before.deadline);
        }
        let deadline = armed.deadline;
        if let Some(before) = self.by_session.insert(session, armed) {
            self.by_time.remove(&(before.deadline, session));
        }
        self.by_time.insert((deadline, session));
    }

    /// The session's end was executed. If that does not come to be, it is to be ended again, and counts
    /// as heard of when it was.
    fn end(&mut self, session: SessionId) {
        if let Some(armed) = self.by_session.get(&session) {
            self.by_time.remove(&(armed.deadline, session));
        }
    }

    /// The session's end did not come to be: it has a timeout from `active` on to be heard of.
    pub(super) fn resume(&mut self, session: SessionId, active: Tick, timeout_ms: u32) -> bool {
        let Some(armed) = self.by_session.get(&session).copied() else {
            return false;
        };
        let deadline = active.plus_millis(u64::from(timeout_ms));
        self.put(session, Armed { deadline, ..armed });
        true
    }

    /// Forgets sessions that did not come to be: another may have the id of one.
    pub(super) fn retain(&mut self, is_there: impl Fn(SessionId) -> bool) {
        self.by_session.retain(|session, _| is_there(*session));
        self.by_time.retain(|(_, session)| is_there(*session));
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session: SessionId) {
        if let Some(armed) = self.by_session.remove(&session) {
            self.by_time.remove(&(armed.deadline, session));
        }
    }

    /// Sessions whose deadline is at or before `active`, and when they were heard of, earliest
    /// deadline first.
    fn due(&self, active: Tick) -> impl Iterator<Item = (SessionId, Tick)> {
        let due = self
            .by_time
            .iter()
            .take_while(move |(deadline, _)| *deadline <= active);
        due.filter_map(|(_, session)| Some((*session, self.by_session.get(session)?.heard_at)))
    }

    /// Whether the session has a deadline.
    pub(super) fn is_armed(&self, session: SessionId) -> bool {
        let armed = self.by_session.get(&session);
        armed.is_some_and(|of| self.by_time.contains(&(of.deadline, session)))
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Tick> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }
}

impl Execution {
    /// Counts a session's timeout from now on: it was opened or attached, or this term began.
    pub(super) fn arm_deadline(&mut self, now: Tick, session: SessionId, timeout_ms: u32) {
        if let Some(leader) = &mut self.leader {
            let active = leader.active.look(now);
            leader.deadlines.arm(session, active, timeout_ms);
            leader.detection.met(session, active, timeout_ms);
        }
    }

    /// As [`Deadlines::resume`]; false if the session had no deadline in this term.
    pub(super) fn resume_deadline(
        &mut self,
        now: Tick,
        session: SessionId,
        timeout_ms: u32,
    ) -> bool {
        let Some(leader) = &mut self.leader else {
            return false;
        };
        let active = leader.active.look(now);
        leader.deadlines.resume(session, active, timeout_ms)
    }

    /// A member has heard of clients. Their touches wait for a quorum round that begins after this
    /// (rule R16).
    pub(in crate::execution) fn lead_touch(
        &mut self,
        now: Tick,
        sequence: u64,
        arrival: Arrival,
        sessions: Vec<(SessionId, ConnEpoch)>,
    ) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        let at = leader.active.look(now);
        let touch = Touch {
            arrival,
            sequence,
            sessions,
            at,
        };
        if mutation::is_on(Mutation::TouchWithoutQuorum) {
            return self.accept_touch(touch);
        }
        leader.touches.receive(touch);
    }

    /// The stream ended on which a member served a session, in the attachment of this epoch.
    pub(in crate::execution) fn lead_stream_ended(
        &mut self,
        session: SessionId,
        epoch: ConnEpoch,
        by_client: bool,
    ) {
        let Some(speculative) = &self.speculative else {
            return;
        };
        let attached = speculative.session(session).map(|of| of.epoch);
        if attached != Some(epoch) {
            return;
        }
        if let Some(leader) = &mut self.leader {
            leader.detection.stream_ended(session, by_client);
        }
    }

    /// A quorum has confirmed this leader since it got the touch: the deadlines of its sessions
    /// move, save of those that are closing in the overlay or are attached elsewhere (rule R15).
    pub(super) fn accept_touch(&mut self, touch: Touch) {
        let mut accepted = Vec::new();
        for &(id, epoch) in &touch.sessions {
            let Some(session) = self.speculative().session(id) else {
                continue;
            };
            if session.epoch != epoch && !mutation::is_on(Mutation::IgnoreEpoch) {
                continue;
            }
            let timeout_ms = session.timeout_ms;
            if let Some(leader) = &mut self.leader {
                leader.deadlines.arm(id, touch.at, timeout_ms);
                let detection = &mut leader.detection;
                detection.touched(id, touch.arrival, touch.at, timeout_ms);
            }
            accepted.push(id);
        }
        self.tell_touched(touch.arrival.member, touch.sequence, accepted);
    }

    /// Expires sessions that were not heard of.
    pub(super) fn run_expiries(&mut self, now: Now) {
        let mut expired = 0;
        for (session, heard_at) in self.silent_sessions(now) {
            if expired == EXPIRIES_PER_STEP || !self.may_execute() {
                return;
            }
            let timeout_ms = self.speculative().session(session).map(|of| of.timeout_ms);
            let sentence = self.sentence(now, session, heard_at, timeout_ms);
            let Some(leader) = &mut self.leader else {
                return;
            };
            match sentence {
                Sentence::Later => return,
                Sentence::Wait(until) => leader.deadlines.hold(session, until),
                Sentence::Expire => {
                    match timeout_ms {
                        Some(_) => leader.deadlines.end(session),
                        None => leader.deadlines.remove(session),
                    }
                    expired += usize::from(self.expire(now, session, timeout_ms));
                }
            }
        }
    }

    /// Ends a session that is silent, if it is there; answers whether it is over.
    fn expire(&mut self, now: Now, session: SessionId, timeout_ms: Option<u32>) -> bool {
        let Some(timeout_ms) = timeout_ms else {
            return false;
        };
        let ended = self.kernel_txn(now, |draft| end_session(draft, session, true));
        if ended.is_none() {
            // It always fits (rule R32); if it ever did not, it is tried again later.
            self.arm_deadline(now.tick, session, timeout_ms);
            return false;
        }
        if let Some(leader) = &mut self.leader {
            let active = leader.active.look(now.tick);
            leader.detection.expired(session, active);
        }
        true
    }

    /// What becomes of a session whose deadline is over (rule R43): its timeout is over, so that it
    /// expires unless its failure detectors object, which they can up to the ceiling; or unless so
    /// many expire at once that the observer is to be doubted.
    fn sentence(
        &mut self,
        now: Now,
        session: SessionId,
        heard_at: Tick,
        timeout_ms: Option<u32>,
    ) -> Sentence {
        let population = self.speculative().counters().sessions;
        let Some((leader, timeout_ms)) = self.leader.as_mut().zip(timeout_ms) else {
            // It is closed already.
            return Sentence::Expire;
        };
        let active = leader.active.look(now.tick);
        let after = |timeouts: u64| heard_at.plus_millis(timeouts * u64::from(timeout_ms));
        let may_be_held =
            active < after(CEILING_TIMEOUTS) || mutation::is_on(Mutation::HoldPastCeiling);
        if may_be_held && leader.detection.is_held(session, now.tick, active) {
            return Sentence::Wait(active.plus_millis(HELD_MS));
        }
        let now_ms = active.0 / 1000;
        let brake = leader.detection.brake();
        let braked = active < after(BRAKE_TIMEOUTS)
            && brake.is_on(now_ms, population)
            && !mutation::is_on(Mutation::NoBrake);
        match braked {
            true => Sentence::Wait(active.plus_millis(HELD_MS)),
            false if brake.has_turn(now_ms) => Sentence::Expire,
            false => Sentence::Later,
        }
    }

    /// Sessions whose deadline is over, and when they were heard of, earliest deadline first. A touch
    /// that waits for its round, or an attachment that waits to be executed, came earlier and holds
    /// the expiry. One that came earlier and was not taken in, as when another thread of this process
    /// stood still, holds it as well: a quorum round that began after the deadline has passed every
    /// thread that it would have passed.
    fn silent_sessions(&mut self, now: Now) -> Vec<(SessionId, Tick)> {
        let may_execute = self.may_execute();
        let Some(leader) = &mut self.leader else {
            return Vec::new();
        };
        let active = leader.active.look(now.tick);
        if !may_execute {
            return Vec::new();
        }
        let confirmed = match mutation::is_on(Mutation::ExpireUnconfirmed) {
            true => active,
            false => leader.touches.confirmed(),
        };
        let came_earlier = |session: &SessionId| {
            leader.touches.is_pending(*session) || leader.attaching.contains_key(session)
        };
        let due = leader.deadlines.due(confirmed).take(DUE_PER_STEP);
        due.filter(|(session, _)| !came_earlier(session)).collect()
    }

    /// Ends waits whose deadline has passed at the time of the transaction that ends them.
    pub(super) fn run_due_waits(&mut self, now: Now) {
        let time = self.txn_log_time(now);
        if !self.may_execute() || self.speculative().due_waits(time, 1).is_empty() {
            return;
        }
        self.kernel_txn(now, |draft| {
            let time: LogTime = draft.stamp().log_time;
            let due = draft.view().due_waits(time, DUE_WAITS_PER_TXN);
            draft.as_far_as_fits(due, |draft, ticket| {
                match draft.view().wait(ticket).cloned() {
                    Some(wait) => {
                        draft.end_wait(&wait, WaitEndCause::Deadline, Refusal::DeadlinePassed)
                    }
                    None => Ok(()),
                }
            })
        });
    }
}
