//! Failure detection: a policy judges the sessions' silence and can object to an expiry for a while;
//! what expires when is decided in `expiry`, within bounds that no policy moves (rule R43).
//!
//! - `choices`: which detector serves which group.
//! - `subjects`: what is kept of each session.
//! - `tables`: what a detector sees and says.
//! - `suspects`: what is told of it in the records of groups' members.
//!
//! What is here is the memory of one term, and nothing waits for an answer.

mod choices;
mod subjects;
mod suspects;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::{LogTime, Now, SessionId, Term, Tick, Zxid};

pub(super) use self::choices::{choose, user_of};
use self::subjects::{Said, Subject, Subjects};
use self::tables::{Observer, Row, State, Verdict};
use super::{Arrival, Leader};
use crate::detection::{Brake, LOOK_MS};
use crate::execution::{DetectorStanding, Execution};
use crate::mutation::{self, Mutation};
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure, PolicyWorld, Table};
use crate::state::{AppliedTxn, Notice, View};

/// How old a verdict may be that counts, in milliseconds from the question on (rule R43).
const VERDICT_MS: u64 = 1_000;
/// How long an answer is waited for before the same is asked again, in milliseconds: a policy may
/// take 2 s, and waits for its turn.
const ANSWER_MS: u64 = 10_000;
/// Before a detector that is not compiled yet is asked again, in milliseconds.
const NOT_READY_MS: u64 = 500;
/// Before a detector that faulted is asked again, in milliseconds; it doubles with each further
/// fault.
const FAULT_MS_MIN: u64 = 200;
/// The same, at most.
const FAULT_MS_MAX: u64 = 10_000;
/// A session is worth asking about once it is silent for this part of its timeout: its client sends
/// a heartbeat in each fifth.
const LOOK_SHARE: u64 = 4;
/// Subjects for each millisecond between two looks, where these are further apart than [`LOOK_MS`]:
/// a look takes time in proportion to them, and at 100,000 four looks fit the age of a verdict.
const SUBJECTS_PER_MS: usize = 400;
/// Sessions of which is read in one look where they belong: two nodes of JSON each.
const PLACES_PER_LOOK: usize = 2_000;
/// What expired is counted in its zone for this long, in milliseconds.
const GONE_MS: u64 = 60_000;
/// Expired sessions that are counted.
const GONE_MAX: usize = 100_000;

/// What the leader keeps for failure detection.
#[derive(Debug, Default)]
pub(super) struct Detection {
    subjects: Subjects,
    /// The detectors that are chosen, by when they were.
    detectors: BTreeMap<Zxid, Detector>,
    /// Which of them serves which group; the default's is empty.
    by_group: BTreeMap<String, Zxid>,
    next_look: Tick,
    /// No record of a member says that it is suspected, as far as this leader knows.
    none_told: bool,
    next_telling: Tick,
    /// When sessions expired of late, on the active clock, and of which zone.
    gone: VecDeque<(Tick, String)>,
    brake: Brake,
    standings: Arc<[DetectorStanding]>,
}

/// A detector that is chosen.
#[derive(Debug)]
struct Detector {
    choice: PolicyChoice,
    /// When the question of its last answer was put.
    answered: Option<Tick>,
    /// When it last gave an answer, whatever came after.
    heard_at: Option<Tick>,
    /// What the last of its faults in a row was.
    problem: Option<Arc<str>>,
    /// It is not asked before.
    ask_after: Tick,
    /// It is asked then, whoever is silent.
    look_at: Option<Tick>,
    /// Faults in a row.
    faults: u32,
}

/// A session that a detector judges.
type Judged<'a> = (SessionId, &'a Subject);

/// A question to a failure detector that is under way. It outlives the office of the leader that put
/// it: the same detector is not asked again before it has answered.
#[derive(Debug)]
pub(in crate::execution) struct Asked {
    term: Term,
    detector: Zxid,
    /// On the monotonic clock.
    at: Tick,
    /// On the leader's active clock.
    active: Tick,
}

impl Asked {
    /// Which detector was asked.
    pub(in crate::execution) fn detector(&self) -> Zxid {
        self.detector
    }
}

impl Detection {
    pub(super) fn met(&mut self, session: SessionId, heard_at: Tick, timeout_ms: u32) {
        self.subjects.met(session, heard_at, timeout_ms);
    }

    pub(super) fn touched(
        &mut self,
        session: SessionId,
        arrival: Arrival,
        heard_at: Tick,
        timeout_ms: u32,
    ) {
        let subjects = &mut self.subjects;
        subjects.touched(session, arrival, heard_at, timeout_ms);
    }

    /// The stream of a session's attachment ended.
    pub(super) fn stream_ended(&mut self, session: SessionId, by_client: bool) {
        self.subjects.stream_ended(session, by_client);
    }

    pub(super) fn brake(&mut self) -> &mut Brake {
        &mut self.brake
    }

    /// What was executed after `base` does not come to be: of its sessions and choices nothing is kept,
    /// and what was told is to be told again.
    pub(super) fn overlay_dropped(&mut self, base: Zxid, is_there: impl Fn(SessionId) -> bool) {
        self.detectors.retain(|zxid, _| *zxid <= base);
        self.by_group.retain(|_, zxid| *zxid <= base);
        self.subjects.retain_said(|detector| detector <= base);
        self.subjects.retain(is_there);
        self.subjects.forget_places();
        self.none_told = false;
    }

    /// Transactions were applied.
    pub(super) fn applied(&mut self, view: &impl View, txns: &[AppliedTxn]) {
        for txn in txns {
            for change in &txn.changes {
                self.subjects.node_changed(view, &change.path);
            }
            for notice in &txn.notices {
                if let Notice::SessionClosed { session, .. } = *notice {
                    self.subjects.remove(session);
                }
            }
        }
    }

    /// A session was expired.
    pub(super) fn expired(&mut self, session: SessionId, active: Tick) {
        self.brake.expired(active.0 / 1000);
        let place = self.subjects.get(session).and_then(|of| of.place.as_ref());
        if let Some(place) = place
            && !place.zone.is_empty()
        {
            self.gone.push_back((active, place.zone.clone()));
            if self.gone.len() > GONE_MAX {
                self.gone.pop_front();
            }
        }
    }

    /// Whether one of its detectors objects to a session's expiry.
    pub(super) fn is_held(&self, session: SessionId, now: Tick, active: Tick) -> bool {
        let Some(subject) = self.subjects.get(session) else {
            return false;
        };
        let objects = |detector: Zxid| {
            let said = self.said(subject, detector, now);
            said.is_some_and(|said| said.hold_until > active)
        };
        self.serving(subject).any(objects)
    }

    /// The detectors that judge a session: those of its groups, or the default. None of a session of
    /// which is not known yet where it belongs; some more than once.
    fn serving(&self, subject: &Subject) -> impl Iterator<Item = Zxid> {
        let place = subject.place.as_ref();
        let memberships = place.into_iter().flat_map(|place| &place.memberships);
        let of_groups = memberships.filter_map(|of| self.serves(&of.group));
        let in_none = place.filter(|place| place.memberships.is_empty());
        let by_default = in_none.and_then(|_| self.serves(""));
        of_groups.chain(by_default)
    }

    /// The detector of a group.
    fn serves(&self, group: &str) -> Option<Zxid> {
        let of_group = self.by_group.get(group);
        of_group.or_else(|| self.by_group.get("")).copied()
    }

    /// What a detector last said of a session, if that counts now: it is about its last touch, of
    /// the last answer, and not old.
    fn said<'a>(&self, subject: &'a Subject, detector: Zxid, now: Tick) -> Option<&'a Said> {
        let answered = self.detectors.get(&detector)?.answered?;
        let said = subject.said.iter().find(|of| of.detector == detector)?;
        let of_touch = said.touch == subject.touch || mutation::is_on(Mutation::VerdictOfOldTouch);
        let counts = of_touch && said.asked_at == answered && is_fresh(answered, now);
        counts.then_some(said)
    }

    /// Takes over which detectors are chosen.
    fn adopt(&mut self, view: &impl View) {
        let chosen = choices::chosen(view);
        let before = self.detectors.len();
        self.detectors
            .retain(|zxid, _| chosen.iter().any(|(_, of)| of == zxid));
        if self.detectors.len() < before {
            let detectors = &self.detectors;
            self.subjects.retain_said(|of| detectors.contains_key(&of));
        }
        for (group, zxid) in &chosen {
            if !self.detectors.contains_key(zxid)
                && let Some(choice) = choices::choice(view, group)
            {
                let detector = Detector {
                    choice,
                    answered: None,
                    heard_at: None,
                    problem: None,
                    ask_after: Tick::ZERO,
                    look_at: None,
                    faults: 0,
                };
                self.detectors.insert(*zxid, detector);
            }
        }
        self.by_group = chosen.into_iter().collect();
    }

    fn update_standings(&mut self) {
        let standing = |(group, zxid): (&String, &Zxid)| {
            let detector = self.detectors.get(zxid)?;
            Some(DetectorStanding {
                group: group.clone(),
                answered_at: detector.heard_at,
                faults: detector.faults,
                problem: detector.problem.clone(),
            })
        };
        self.standings = self.by_group.iter().filter_map(standing).collect();
    }

    /// Whom each of these detectors judges, of those that have reason to: one that they judge is
    /// silent, or they wanted to look again.
    fn judged(&self, by: &[Zxid], now: Tick, active: Tick) -> BTreeMap<Zxid, Vec<Judged<'_>>> {
        let is_due = |zxid: &Zxid| {
            let look_at = self.detectors.get(zxid).and_then(|of| of.look_at);
            look_at.is_some_and(|at| at <= now)
        };
        let start = |zxid: &Zxid| (*zxid, (Vec::new(), is_due(zxid)));
        let mut judged: BTreeMap<Zxid, (Vec<Judged<'_>>, bool)> = by.iter().map(start).collect();
        for (session, subject) in self.subjects.iter() {
            let silent = subject.silent_ms(active) * LOOK_SHARE;
            let is_late = silent >= u64::from(subject.timeout_ms);
            for detector in self.serving(subject) {
                let Some((sessions, is_worth_it)) = judged.get_mut(&detector) else {
                    continue;
                };
                *is_worth_it |= is_late;
                if sessions.last().is_none_or(|(last, _)| *last != session) {
                    sessions.push((session, subject));
                }
            }
        }
        let worth_it = judged
            .into_iter()
            .filter(|(_, (of, is_worth_it))| *is_worth_it && !of.is_empty());
        worth_it
            .map(|(zxid, (sessions, _))| (zxid, sessions))
            .collect()
    }

    fn row<'a>(
        &self,
        view: &impl View,
        (session, subject): Judged<'a>,
        detector: Zxid,
        (now, active): (Tick, Tick),
    ) -> Row<'a> {
        let arrived = subject.arrived.map(|arrival| arrival.member);
        let record = view.session(session);
        let member = arrived.or_else(|| record.map(|of| of.member));
        Row {
            session,
            subject,
            opened: record.map_or(LogTime::ZERO, |of| of.opened),
            state: self.state_of(subject, detector, now, active),
            member: member.map_or(0, |member| member.0),
        }
    }

    fn state_of(&self, subject: &Subject, detector: Zxid, now: Tick, active: Tick) -> State {
        let is_over = subject.silent_ms(active) >= u64::from(subject.timeout_ms);
        match self.said(subject, detector, now) {
            Some(said) if is_over && said.hold_until > active => State::Held,
            Some(said) if said.suspect => State::Suspected,
            _ => State::Fine,
        }
    }

    /// Takes in what a detector said of the sessions that are pending in no touch.
    fn take(
        &mut self,
        now: Tick,
        asked: &Asked,
        verdicts: Vec<Verdict>,
        is_pending: impl Fn(SessionId) -> bool,
    ) {
        let mut look_ms: Option<u64> = None;
        for verdict in verdicts {
            if verdict.look_ms > 0 {
                look_ms = Some(look_ms.map_or(verdict.look_ms, |least| least.min(verdict.look_ms)));
            }
            let Some(subject) = self.subjects.get_mut(verdict.session) else {
                continue;
            };
            subject.said.retain(|said| said.detector != asked.detector);
            let of_touch = verdict.touch == subject.touch && !is_pending(verdict.session);
            let counts = of_touch || mutation::is_on(Mutation::VerdictOfOldTouch);
            if counts && (verdict.suspect || verdict.hold_ms > 0) {
                subject.said.push(Said {
                    detector: asked.detector,
                    touch: verdict.touch,
                    asked_at: asked.at,
                    hold_until: asked.active.plus_millis(verdict.hold_ms),
                    suspect: verdict.suspect,
                    why: verdict.why,
                });
            }
        }
        if let Some(detector) = self.detectors.get_mut(&asked.detector) {
            detector.answered = Some(asked.at);
            detector.heard_at = Some(now);
            detector.faults = 0;
            detector.problem = None;
            let look_at = |millis: u64| asked.at.plus_millis(millis.max(LOOK_MS));
            detector.look_at = look_ms.map(look_at);
        }
    }

    /// A detector gave no answer. What it said before does not count any more.
    fn failed(&mut self, detector: Zxid, now: Tick, failure: &PolicyFailure) {
        let Some(detector) = self.detectors.get_mut(&detector) else {
            return;
        };
        detector.answered = None;
        let pause_ms = match failure {
            PolicyFailure::NotReady => NOT_READY_MS,
            PolicyFailure::Rejected { .. } | PolicyFailure::Fault { .. } => {
                let doubled = FAULT_MS_MIN << detector.faults.min(16);
                detector.faults = detector.faults.saturating_add(1);
                detector.problem = Some(failure.to_string().into());
                doubled.min(FAULT_MS_MAX)
            }
        };
        detector.ask_after = now.plus_millis(pause_ms);
    }

    /// Forgets who expired long ago.
    fn forget_gone(&mut self, active: Tick) {
        while let Some((at, _)) = self.gone.front()
            && active.millis_since(*at) > GONE_MS
        {
            self.gone.pop_front();
        }
    }

    /// How many expired of late in each zone.
    fn gone_by_zone(&self) -> BTreeMap<&str, u32> {
        let mut counts = BTreeMap::new();
        for (_, zone) in &self.gone {
            *counts.entry(zone.as_str()).or_default() += 1;
        }
        counts
    }
}

fn is_fresh(asked_at: Tick, now: Tick) -> bool {
    now.millis_since(asked_at) <= VERDICT_MS || mutation::is_on(Mutation::StaleVerdict)
}

impl Execution {
    /// Asks the detectors about the silent, and tells what they said.
    pub(super) fn run_detectors(&mut self, now: Now) {
        let is_due =
            |leader: &Leader| leader.clock.is_some() && now.tick >= leader.detection.next_look;
        if !self.leader.as_ref().is_some_and(is_due) {
            return;
        }
        let Some((leader, view)) = self.leader_and_view() else {
            return;
        };
        let detection = &mut leader.detection;
        let more_ms = detection.subjects.len() / SUBJECTS_PER_MS;
        let pause_ms = LOOK_MS.max(u64::try_from(more_ms).unwrap_or(u64::MAX));
        detection.next_look = now.tick.plus_millis(pause_ms);
        detection.adopt(view);
        detection.update_standings();
        if detection.detectors.is_empty() && detection.none_told {
            return;
        }
        let all_read = detection
            .subjects
            .read_places(view, now.tick, PLACES_PER_LOOK);
        self.ask_detectors(now);
        self.tell_suspects(now, all_read);
    }

    /// How the detectors do that are chosen, as of the last look; of a leader's alone.
    pub(in crate::execution) fn detector_standings(&self) -> Arc<[DetectorStanding]> {
        let leader = self.leader.as_ref();
        leader.map_or_else(Arc::default, |leader| {
            Arc::clone(&leader.detection.standings)
        })
    }

    fn leader_and_view(&mut self) -> Option<(&mut Leader, &impl View)> {
        let leader = self.leader.as_mut()?;
        let view = self.speculative.as_deref()?;
        Some((leader, view))
    }

    fn ask_detectors(&mut self, now: Now) {
        self.asked
            .retain(|_, asked| now.tick < asked.at.plus_millis(ANSWER_MS));
        let busy: BTreeSet<Zxid> = self.asked.values().map(|asked| asked.detector).collect();
        let (log_time, log_write_ms) = (self.txn_log_time(now), self.log_write_ms);
        let Some((leader, view)) = self.leader_and_view() else {
            return;
        };
        let (term, active) = (leader.term, leader.active.look(now.tick));
        let observer = observer(leader, active, log_write_ms);
        leader.detection.forget_gone(active);
        let detection = &leader.detection;
        let gone = detection.gone_by_zone();
        let detectors = detection.detectors.iter();
        let free = detectors.filter(|(zxid, of)| of.ask_after <= now.tick && !busy.contains(zxid));
        let free: Vec<Zxid> = free.map(|(zxid, _)| *zxid).collect();
        let mut questions = Vec::new();
        for (zxid, sessions) in detection.judged(&free, now.tick, active) {
            let row = |of| detection.row(view, of, zxid, (now.tick, active));
            let rows: Vec<Row<'_>> = sessions.into_iter().map(row).collect();
            questions.push((
                zxid,
                tables::input(&rows, (active, log_time), &gone, observer),
            ));
        }
        for (zxid, tables) in questions {
            let asked = Asked {
                term,
                detector: zxid,
                at: now.tick,
                active,
            };
            self.ask_detector(asked, tables);
        }
    }

    fn ask_detector(&mut self, asked: Asked, tables: Vec<Table>) {
        let leader = self.leader.as_mut();
        let detectors = leader.map(|leader| &mut leader.detection.detectors);
        let Some(detector) = detectors.and_then(|of| of.get_mut(&asked.detector)) else {
            return;
        };
        detector.look_at = None;
        let choice = detector.choice.clone();
        let id = self.ask_policy(PolicyCall {
            world: PolicyWorld::FailureDetector,
            digest: choice.digest,
            configuration: choice.configuration.into_bytes(),
            tables: Some(tables),
        });
        self.asked.insert(id, asked);
    }

    /// A policy has answered. False if it was not asked about sessions.
    pub(in crate::execution) fn assessed(
        &mut self,
        now: Now,
        id: PolicyCallId,
        answer: &PolicyAnswer,
    ) -> bool {
        let Some(asked) = self.asked.remove(&id) else {
            return false;
        };
        let Some(leader) = &mut self.leader else {
            return true;
        };
        // What another leader asked about was its own touches, and its own clock.
        if asked.term != leader.term && !mutation::is_on(Mutation::VerdictOfOldTerm) {
            return true;
        }
        let verdicts = match answer {
            Ok(tables) => tables::read(tables),
            Err(failure) => {
                leader.detection.failed(asked.detector, now.tick, failure);
                return true;
            }
        };
        match verdicts {
            Ok(verdicts) if is_fresh(asked.at, now.tick) => {
                let touches = &leader.touches;
                let is_pending = |session| touches.is_pending(session);
                leader
                    .detection
                    .take(now.tick, &asked, verdicts, is_pending);
            }
            Ok(_) => {}
            Err(message) => {
                let failure = PolicyFailure::Fault {
                    kind: "bad-answer".to_owned(),
                    message,
                };
                leader.detection.failed(asked.detector, now.tick, &failure);
            }
        }
        true
    }
}

/// The health of the leader itself.
fn observer(leader: &Leader, active: Tick, log_write_ms: u64) -> Observer {
    let health = leader.active.health();
    Observer {
        since_elected: active.0 / 1000,
        lag: health.lag_ms(active),
        stall: health.stall_ms(),
        since_stall: health.since_stall_ms(active),
        fsync: log_write_ms,
        backlog: u64::try_from(leader.queue.len()).unwrap_or(u64::MAX),
    }
}
