//! The leader's half: it admits requests, executes them once on the overlay, and proposes what they
//! did (rules R1–R5).

mod admission;
mod asking;
mod batch;
mod calls;
mod components;
mod detection;
pub(in crate::execution) mod draft;
mod events;
mod expiry;
mod groups;
mod health;
mod native;
mod office;
pub(in crate::execution) mod operations;
mod partitions;
mod sessions;
mod touches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_proto::client::Request;
use folkmoot_proto::peer::AttachAttempt;
use folkmoot_proto::{
    ConnEpoch, Digest, LogIndex, MemberId, MountId, RequestId, SecretHash, SessionId, Term, Tick,
    Ticket, Zxid,
};

use self::asking::Asking;
use self::batch::Batches;
use self::detection::Detection;
use self::expiry::Deadlines;
use self::health::MountHealth;
use self::partitions::Maps;
pub(in crate::execution) use self::touches::Arrival;
use self::touches::Touches;
use super::clock::{ActiveClock, LogClock};

pub(in crate::execution) use self::detection::Asked;

/// What a leader knows beside the replicated state. It is made when this member is elected, and
/// thrown away when it is deposed.
#[derive(Debug)]
pub(in crate::execution) struct Leader {
    /// Its term.
    term: Term,
    /// Nothing is executed before this is applied: the first entry of the term (rule R4), or the
    /// last one appended when the overlay was thrown away (rule R3).
    execute_after: LogIndex,
    /// The overlay was thrown away, and what went with it was not asked for again.
    dropped: bool,
    /// The log clock, from the first apply of the term on.
    clock: Option<LogClock>,
    /// The clock of the sessions' deadlines.
    active: ActiveClock,
    /// Work that came and is not executed.
    queue: VecDeque<Work>,
    /// Bytes of the requests in it.
    queue_bytes: usize,
    /// Sessions that are attached by work in it, and how often.
    attaching: BTreeMap<SessionId, u32>,
    /// What is executed and not applied.
    batches: Batches,
    /// The streams that each session was lately attached for in this term.
    attempts: BTreeMap<SessionId, VecDeque<Attempt>>,
    /// Sessions with requests that are executed and not applied, and the last of them.
    unapplied: BTreeMap<SessionId, RequestId>,
    /// Sessions of which a request was turned away for what the overlay says of them.
    turned_away: BTreeSet<SessionId>,
    /// Sessions whose work went with an overlay: they are told to rewind once work goes on.
    to_rewind: BTreeSet<SessionId>,
    /// Sessions that were told of a gap, and have not sent what is expected.
    told_gap: BTreeMap<SessionId, ConnEpoch>,
    /// Heartbeats on their way.
    touches: Touches,
    /// The last transaction that had an owner of a partition let go, of those that were applied when
    /// the touch round under way began (rule R35).
    round_revoked: Zxid,
    /// When sessions may be expired.
    deadlines: Deadlines,
    /// How silent they are, and what failure detectors say of it.
    detection: Detection,
    /// How mounts behave.
    health: MountHealth,
    /// The controllers of partition maps.
    maps: Maps,
    /// The requests that wait for policies.
    asking: Asking,
    /// The mount that had the last event.
    last_event: MountId,
    /// Whether the next guest call is an event's, so that events and requests take turns.
    events_turn: bool,
    /// Components that are being examined, and the waits that this is for: an upload of the same
    /// bytes that is sealed later is examined anew.
    pub(in crate::execution) examining: BTreeMap<Digest, Ticket>,
}

/// A stream that asks for a session, and the member that it is at.
type Attempt = (MemberId, AttachAttempt);

/// One piece of work for the leader.
#[derive(Debug)]
enum Work {
    /// A client wants a session at a member.
    Open {
        attempt: Attempt,
        secret: SecretHash,
        timeout_ms: u32,
    },
    /// A client resumes a session at a member.
    Attach {
        attempt: Attempt,
        session: SessionId,
        secret: SecretHash,
    },
    /// A request of a session.
    Request {
        member: MemberId,
        session: SessionId,
        epoch: ConnEpoch,
        request: Request,
    },
    /// A component was examined.
    Examined {
        digest: Digest,
        result: Result<String, String>,
    },
}

impl Leader {
    /// A leader of `term`, whose first entry is at `first_index`.
    pub(in crate::execution) fn new(
        term: Term,
        first_index: LogIndex,
        now: Tick,
        batches_in_flight_max: usize,
    ) -> Self {
        Self {
            term,
            execute_after: first_index,
            dropped: false,
            clock: None,
            active: ActiveClock::starting(now),
            queue: VecDeque::new(),
            queue_bytes: 0,
            attaching: BTreeMap::new(),
            batches: Batches::new(term, batches_in_flight_max),
            attempts: BTreeMap::new(),
            unapplied: BTreeMap::new(),
            turned_away: BTreeSet::new(),
            to_rewind: BTreeSet::new(),
            told_gap: BTreeMap::new(),
            touches: Touches::starting(now),
            round_revoked: Zxid::ZERO,
            deadlines: Deadlines::default(),
            detection: Detection::default(),
            health: MountHealth::default(),
            maps: Maps::default(),
            asking: Asking::default(),
            last_event: MountId::ZERO,
            events_turn: true,
            examining: BTreeMap::new(),
        }
    }

    /// A leader of the same term that has executed nothing; none if this one has.
    pub(in crate::execution) fn anew(&self, now: Tick) -> Option<Self> {
        let in_flight_max = self.batches.in_flight_max();
        let anew = Self::new(self.term, self.execute_after, now, in_flight_max);
        self.clock.is_none().then_some(anew)
    }

    /// The term.
    pub(in crate::execution) fn term(&self) -> Term {
        self.term
    }
}
