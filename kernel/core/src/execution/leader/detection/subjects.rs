//! What the leader keeps of each session for failure detectors: when it was heard of, how its
//! touches arrive, which groups it is a member of, and what was said of it.

use std::collections::BTreeMap;

use folkmoot_proto::group::{
    MemberRecord, MemberSpec, member_of_live_path, member_of_record_path, members_path,
};
use folkmoot_proto::{SessionId, Tick, Zxid};

use crate::detection::{CEILING_TIMEOUTS, History};
use crate::execution::leader::Arrival;
use crate::mutation::{self, Mutation};
use crate::state::View;

/// The fact of a member's meta that says what kind of client it is.
const CLASS: &str = "class";

/// The sessions, in the leader's memory alone: a new leader begins anew.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    by_session: BTreeMap<SessionId, Subject>,
    /// Whose the live nodes are that were read.
    by_live_path: BTreeMap<String, SessionId>,
    /// Counts touches and attachments, so that each has a name of its own in this term.
    touches: u64,
}

/// One session.
#[derive(Debug)]
pub(super) struct Subject {
    /// Names its last touch or attachment: a verdict about another is void.
    pub(super) touch: u64,
    /// When the leader got it, or was elected, on the leader's active clock.
    pub(super) heard_at: Tick,
    /// Its negotiated timeout.
    pub(super) timeout_ms: u32,
    /// How a member heard of it last.
    pub(super) arrived: Option<Arrival>,
    /// The way to its client.
    pub(super) connection: Connection,
    /// How its touches arrive.
    pub(super) history: History,
    /// Where it belongs, as it was read last.
    pub(super) place: Option<Place>,
    /// Whether that is to be read anew.
    pub(super) moved: bool,
    /// What was said of it; nothing by those who had nothing to say.
    pub(super) said: Vec<Said>,
    /// What became of that.
    pub(super) doubt: Doubt,
}

/// What the leader knows of the way to a session's client, as in `subjects.connection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// Nothing was heard of it in this term.
    Unknown = 0,
    /// It was heard of on it.
    Open = 1,
    /// It was lost, or its member ended it.
    Lost = 2,
    /// The client ended it.
    Closed = 3,
}

/// Where a session belongs.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The groups that it is a member of.
    pub(super) memberships: Vec<Membership>,
    /// What fails as one: the outermost part of its member's zone. May be empty.
    pub(super) zone: String,
    /// What kind of client it is: the fact `class` of its member's meta, or its group. May be empty.
    pub(super) class: String,
    /// How long its members have announced that they will be away for, in milliseconds.
    pub(super) pause_ms: u64,
}

/// A session's membership of one group.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) group: String,
    pub(super) member: String,
    /// Whether its record says that it is suspected.
    pub(super) suspect: bool,
}

/// What a detector said of a session.
#[derive(Debug)]
pub(super) struct Said {
    /// When the detector was chosen, which names it.
    pub(super) detector: Zxid,
    /// The touch that it is about.
    pub(super) touch: u64,
    /// When it was asked, on the monotonic clock.
    pub(super) asked_at: Tick,
    /// Until when the session is not to expire, on the leader's active clock.
    pub(super) hold_until: Tick,
    /// Whether it is suspected.
    pub(super) suspect: bool,
    /// Why.
    pub(super) why: String,
}

/// How its suspicion was told of late, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// When it was last suspected, or known to be told so, and after which touch.
    pub(super) last: Option<(Tick, u64)>,
    /// When that it is suspected was last taken back.
    pub(super) cleared_at: Option<Tick>,
    /// For how long it must not be suspected before that is taken back.
    pub(super) calm_ms: u64,
}

impl Subjects {
    /// The session was opened or attached, or this term began, at `heard_at` on the leader's active
    /// clock.
    pub(super) fn met(&mut self, session: SessionId, heard_at: Tick, timeout_ms: u32) {
        let touch = self.get(session).map(|subject| subject.touch);
        let subject = self.heard(session, heard_at, timeout_ms);
        if let Some(touch) = touch {
            // It was attached.
            subject.connection = Connection::Open;
            if mutation::is_on(Mutation::VerdictOfOldAttachment) {
                subject.touch = touch;
            }
        }
    }

    fn heard(&mut self, session: SessionId, heard_at: Tick, timeout_ms: u32) -> &mut Subject {
        self.touches += 1;
        let unheard = || Subject {
            touch: 0,
            heard_at,
            timeout_ms,
            arrived: None,
            connection: Connection::Unknown,
            history: History::default(),
            place: None,
            moved: true,
            said: Vec::new(),
            doubt: Doubt::default(),
        };
        let subject = self.by_session.entry(session).or_insert_with(unheard);
        subject.touch = self.touches;
        subject.heard_at = subject.heard_at.max(heard_at);
        subject.timeout_ms = timeout_ms;
        subject
    }

    /// A touch was accepted that came to a member at this instant of the member's clock, and to the
    /// leader at `heard_at`. Touches of one member are as far apart as that clock says, whatever
    /// befell them on their way; between touches of two members there is no interval.
    pub(super) fn touched(
        &mut self,
        session: SessionId,
        arrival: Arrival,
        heard_at: Tick,
        timeout_ms: u32,
    ) {
        let subject = self.heard(session, heard_at, timeout_ms);
        // One that is over stays so: what came on it before was on its way.
        if subject.connection == Connection::Unknown {
            subject.connection = Connection::Open;
        }
        let before = subject.arrived.replace(arrival);
        // A clock that is behind is another one: the member's machine was started anew.
        if let Some(before) = before
            && before.member == arrival.member
            && arrival.at > before.at
        {
            // A longer one is none that a session lives through, and would hide all others.
            let longest_ms = CEILING_TIMEOUTS * u64::from(timeout_ms);
            let interval_ms = arrival.at.millis_since(before.at).min(longest_ms);
            subject.history.add(interval_ms as f64);
        }
    }

    /// The stream of its attachment ended.
    pub(super) fn stream_ended(&mut self, session: SessionId, by_client: bool) {
        if let Some(subject) = self.get_mut(session) {
            subject.connection = match by_client {
                true => Connection::Closed,
                false => Connection::Lost,
            };
        }
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session: SessionId) {
        let place = self.by_session.remove(&session).and_then(|of| of.place);
        for of in place.into_iter().flat_map(|place| place.memberships) {
            let path = live_path_of(&of.group, &of.member);
            if self.by_live_path.get(&path) == Some(&session) {
                self.by_live_path.remove(&path);
            }
        }
    }

    /// A member's live node is another one or gone, or its record says something else: where its
    /// session belongs is read anew.
    pub(super) fn node_changed(&mut self, view: &impl View, path: &str) {
        if let Some((group, member)) = member_of_record_path(path) {
            let session = self.by_live_path.get(&live_path_of(group, member));
            let subject = session.and_then(|session| self.by_session.get_mut(session));
            if let Some(place) = subject.and_then(|subject| subject.place.as_mut()) {
                place.pause_ms = pause_ms(view, &place.memberships);
            }
            return;
        }
        if member_of_live_path(path).is_none() {
            return;
        }
        let owner = view.node(path).and_then(|node| node.stat.ephemeral_owner);
        for session in self.by_live_path.remove(path).into_iter().chain(owner) {
            if let Some(subject) = self.by_session.get_mut(&session) {
                subject.moved = true;
            }
        }
    }

    /// Where all belong is read anew: what was read may not come to be. Meanwhile they are judged by
    /// those who judged them.
    pub(super) fn forget_places(&mut self) {
        self.by_live_path.clear();
        for subject in self.by_session.values_mut() {
            subject.moved = true;
        }
    }

    /// Forgets sessions that are not there.
    pub(super) fn retain(&mut self, is_there: impl Fn(SessionId) -> bool) {
        self.by_session.retain(|session, _| is_there(*session));
        self.by_live_path.retain(|_, session| is_there(*session));
    }

    /// Forgets what was said by those who are detectors no more.
    pub(super) fn retain_said(&mut self, is_detector: impl Fn(Zxid) -> bool) {
        for subject in self.by_session.values_mut() {
            subject.said.retain(|said| is_detector(said.detector));
        }
    }

    /// Reads where sessions belong of which that is not known, at most so many; answers whether it
    /// is known of all.
    pub(super) fn read_places(&mut self, view: &impl View, now: Tick, limit: usize) -> bool {
        let unknown = self.by_session.iter_mut();
        let mut unknown = unknown.filter(|(_, subject)| subject.moved);
        for (session, subject) in unknown.by_ref().take(limit) {
            let place = read_place(view, *session);
            for of in &place.memberships {
                let path = live_path_of(&of.group, &of.member);
                self.by_live_path.insert(path, *session);
            }
            let is_told = place.memberships.iter().any(|of| of.suspect);
            if is_told && subject.doubt.last.is_none() {
                subject.doubt.last = Some((now, subject.touch));
            }
            subject.place = Some(place);
            subject.moved = false;
        }
        unknown.next().is_none()
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Subject> {
        self.by_session.get(&session)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Subject> {
        self.by_session.get_mut(&session)
    }

    /// All of them, by rising session.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Subject)> {
        self.by_session.iter().map(|(id, subject)| (*id, subject))
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }
}

impl Subject {
    /// How long it is silent at `active` on the leader's active clock, in milliseconds.
    pub(super) fn silent_ms(&self, active: Tick) -> u64 {
        active.millis_since(self.heard_at)
    }
}

fn live_path_of(group: &str, member: &str) -> String {
    format!("{}/{member}", folkmoot_proto::group::live_path(group))
}

/// The longest that a member in one of these groups has announced to be away for.
fn pause_ms(view: &impl View, memberships: &[Membership]) -> u64 {
    let records = memberships
        .iter()
        .filter_map(|of| member_record(view, &of.group, &of.member));
    let pauses = records.filter_map(|record| record.restart_delay_ms);
    pauses.max().unwrap_or_default()
}

fn member_record(view: &impl View, group: &str, member: &str) -> Option<MemberRecord> {
    let record = view.node(&format!("{}/{member}", members_path(group)))?;
    serde_json::from_slice(record.data).ok()
}

fn read_place(view: &impl View, session: SessionId) -> Place {
    let mut place = Place::default();
    for path in view.ephemerals(session) {
        let Some((group, member)) = member_of_live_path(&path) else {
            continue;
        };
        if place.memberships.is_empty() {
            let spec = view.node(&path);
            let spec = spec.and_then(|node| serde_json::from_slice::<MemberSpec>(node.data).ok());
            let zone = spec.as_ref().and_then(|spec| spec.zone.split('/').next());
            zone.unwrap_or_default().clone_into(&mut place.zone);
            let class = spec.as_ref().and_then(|spec| spec.meta.get(CLASS));
            class
                .map_or(group, |class| class)
                .clone_into(&mut place.class);
        }
        let record = member_record(view, group, member);
        place.memberships.push(Membership {
            group: group.to_owned(),
            member: member.to_owned(),
            suspect: record.is_some_and(|record| record.suspect),
        });
    }
    place.pause_ms = pause_ms(view, &place.memberships);
    place
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::MemberId;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    #[test]
    fn intervals_are_those_of_the_member_that_was_touched() {
        let mut subjects = Subjects::default();
        let mut touch = |member, seconds: u64| {
            let arrival = Arrival {
                member: MemberId(member),
                at: Tick(seconds * 1_000_000),
                rtt_micros: 0,
            };
            subjects.touched(SESSION, arrival, Tick(0), 10_000);
        };
        // The clock of the second member is far ahead, and then starts anew.
        let touches = [(1, 5), (1, 7), (2, 900), (2, 903), (2, 1), (2, 2), (2, 90)];
        for (member, seconds) in touches {
            touch(member, seconds);
        }
        let subject = subjects.get(SESSION).expect("it was heard of");
        let ceiling_ms = 30_000.0;
        let intervals: Vec<f64> = subject.history.last_ms().collect();
        assert_eq!(intervals, [2_000.0, 3_000.0, 1_000.0, ceiling_ms]);
        assert_eq!(subject.touch, 7);
        subjects.remove(SESSION);
        assert_eq!(subjects.len(), 0);
    }
}
