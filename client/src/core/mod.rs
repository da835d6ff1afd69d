//! A session as a machine without I/O: frames in, frames out, time as an argument.
//!
//! [`SessionCore`] is pushed (`handle_*`, `submit*`) and pulled (`poll_*`). The task in
//! [`crate::driver`] carries it out. Everything that makes a session exact over lost connections
//! is here: what is sent again and when (rules R2, R10), waits (rule R11), whole watch
//! transactions (rule R29), partition maps and their leases (rule R35), and the lease (rule R16).

mod copies;
mod holder;
mod lease;
mod maps;
mod reads;
mod requests;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::VecDeque;

use folkmoot_proto::client::{
    AttachRefused, ClientFrame, Guard, NotAdmitted, Operation, Query, ServerFrame, Watch,
};
use folkmoot_proto::codec::DecodeError;
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::{
    ConnEpoch, MemberId, ReadId, RequestId, SessionId, SessionSecret, Tick, WatchId, Zxid,
};

pub(crate) use copies::{FullMap, MapCopy, Routed, RoutingMap, SharedCopy};
pub use holder::Grant;
pub(crate) use holder::{Holder, HolderEnd, OwnerEvent, SharedTable};
pub use lease::{CLOCK_DRIFT_PERMILLE, Standing};
pub(crate) use lease::{Lease, LeaseView};
pub(crate) use maps::{HolderKey, MapKey, MapNews};
use maps::{MapConsequence, MapFrame, Maps};
pub(crate) use reads::ReadAnswer;
use reads::{ReadFrame, Reads};
pub(crate) use requests::Answer;
use requests::{InPlace, Requests};
pub(crate) use watches::WatchNews;
use watches::{Consequence, WatchFrame, Watches};

/// The members that a client knows.
pub(crate) type Members = Vec<MemberId>;

/// A first pause after a refusal to admit, doubled up to the last one: an election takes a few of
/// them, an overload is not made worse.
const BACKOFF_FIRST_MS: u64 = 10;
const BACKOFF_LAST_MS: u64 = 320;

/// An attachment that was not answered in this part of the timeout is tried elsewhere.
const ATTACH_PARTS: u64 = 4;

/// A member that breaks the protocol; its stream is given up, and another is tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("request {id} was answered, {expected} is next")]
    ReplyOutOfOrder { id: RequestId, expected: RequestId },
    #[error("attached at request {last_id}, but {answered} are answered and {submitted} were made")]
    LastId {
        last_id: RequestId,
        answered: RequestId,
        submitted: RequestId,
    },
    #[error("a result for read {id}, which was not asked")]
    UnknownRead { id: ReadId },
    #[error("watch {watch} was told of zxid {zxid} out of order")]
    EventOutOfOrder { watch: WatchId, zxid: Zxid },
    #[error("attached to session {actual}, not {expected}")]
    OtherSession {
        expected: SessionId,
        actual: SessionId,
    },
    #[error("the map of {group} can not be read: {error}")]
    BadMap { group: String, error: DecodeError },
    #[error("the map of {group} was told from {base:?} through {through}, out of order")]
    MapOutOfOrder {
        group: String,
        base: Option<Zxid>,
        through: Zxid,
    },
    #[error("a map of layout {told} was told as a change of layout {known}")]
    OtherLayout { known: Zxid, told: Zxid },
    #[error("partition {partition} was told as a change, and is not known")]
    UnknownPartition { partition: PartitionId },
    #[error("a frame that does not fit the state of the stream")]
    Unexpected,
}

/// What the machine wants done or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A request has its answer.
    Answer(Answer),
    /// A request took its place and waits; its answer comes later.
    Waits(RequestId),
    /// A request will have none, since the session is over.
    Unanswered { id: RequestId, sent: bool },
    /// A read has its result.
    ReadAnswer(ReadAnswer),
    /// A read will have none.
    ReadUnanswered { id: ReadId, sent: bool },
    /// News of a watch.
    Watch(WatchId, WatchNews),
    /// News of a map.
    Map(MapKey, MapNews),
    /// Something for the owner of partitions.
    Owner(HolderKey, OwnerEvent),
    /// The session is attached: its heartbeats belong on this connection.
    Attached {
        session: SessionId,
        epoch: ConnEpoch,
        timeout_ms: u32,
    },
    /// The lease changed.
    Lease(LeaseView),
    /// This member does not serve the session: try another.
    Move { reason: String },
    /// The cluster refuses to open the session.
    OpenRefused(AttachRefused),
    /// The session is over.
    Ended { expired: bool },
}

#[derive(Debug)]
enum Phase {
    /// No stream.
    Detached,
    /// A stream, and the greeting went out at this instant.
    Attaching { since: Tick },
    /// Requests flow.
    Attached { since: Tick },
    /// The cluster ended it, or refused it.
    Over,
}

/// Pauses that double.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    until: Option<Tick>,
    pause_ms: u64,
}

impl Backoff {
    fn holds(&self, now: Tick) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When it ends, if it has not.
    fn ends(&self, now: Tick) -> Option<Tick> {
        self.until.filter(|until| now < *until)
    }

    fn grow(&mut self, now: Tick) {
        self.pause_ms = (self.pause_ms * 2).clamp(BACKOFF_FIRST_MS, BACKOFF_LAST_MS);
        self.until = Some(now.plus_millis(self.pause_ms));
    }
}

/// Why holders end when the session is to be closed.
const CLOSED: HolderEnd = HolderEnd::Session { expired: false };

/// The machine of one session.
#[derive(Debug)]
pub(crate) struct SessionCore {
    secret: SessionSecret,
    /// As asked for, then as negotiated.
    timeout_ms: u32,
    session: Option<SessionId>,
    phase: Phase,
    /// The newest zxid that was seen whole.
    last_seen: Zxid,
    /// When the first `Open` was sent: the lease of a new session counts from the last one.
    opened_at: Tick,
    requests: Requests,
    reads: Reads,
    watches: Watches,
    maps: Maps,
    lease: Option<Lease>,
    told: Option<LeaseView>,
    members: Members,
    greeting: Option<ClientFrame>,
    outputs: VecDeque<Output>,
    /// The session is to be closed, and its end is no surprise.
    closing: bool,
    move_asked: bool,
    /// The member waits to hear that all watches were asked for again.
    resuming: bool,
}

impl SessionCore {
    /// A session that is to be opened.
    pub(crate) fn new(secret: SessionSecret, timeout_ms: u32) -> Self {
        Self {
            secret,
            timeout_ms,
            session: None,
            phase: Phase::Detached,
            last_seen: Zxid::ZERO,
            opened_at: Tick::ZERO,
            requests: Requests::default(),
            reads: Reads::default(),
            watches: Watches::default(),
            maps: Maps::default(),
            lease: None,
            told: None,
            members: Vec::new(),
            greeting: None,
            outputs: VecDeque::new(),
            closing: false,
            move_asked: false,
            resuming: false,
        }
    }

    /// Takes a write-class request into the session's order. What may make others own this
    /// session's partitions ends their holders here, before it may be sent: no lease is waited for
    /// then.
    pub(crate) fn submit(&mut self, operation: Operation, guards: Vec<Guard>) -> RequestId {
        let closes = operation == Operation::CloseSession;
        let leaves = match &operation {
            Operation::Group {
                group,
                member,
                operation: GroupOperation::Leave,
            } => Some((group.clone(), member.clone())),
            _ => None,
        };
        let id = self.requests.submit(operation, guards);
        if closes {
            self.closing = true;
            self.distrust();
            let events = self.maps.end_holders(|_| true, &CLOSED);
            self.tell_owners(events);
        }
        if let Some((group, member)) = leaves {
            let events = self.maps.leave(id, group, member);
            self.tell_owners(events);
        }
        id
    }

    /// Takes a read, which comes after all that was submitted before it.
    pub(crate) fn submit_read(&mut self, linearizable: bool, query: Query) -> ReadId {
        self.reads
            .submit(self.requests.last_submitted(), linearizable, query)
    }

    /// Takes a watch; its id is given here.
    pub(crate) fn submit_watch(&mut self, watch: Watch) -> WatchId {
        self.watches.submit(watch)
    }

    /// Ends the wait of a request; none if it is over already.
    pub(crate) fn cancel(&mut self, id: RequestId) -> Option<RequestId> {
        self.requests.cancel(id)
    }

    /// Ends the wait of a request that nobody waits for any more.
    pub(crate) fn abandon(&mut self, id: RequestId) {
        if !self.closing {
            self.requests.abandon(id);
        }
    }

    /// Ends a watch that nobody listens to any more.
    pub(crate) fn end_watch(&mut self, id: WatchId) {
        self.watches.end(id);
    }

    /// Follows a map: its copy, and how far that is if it was followed already.
    pub(crate) fn submit_map(&mut self, map: MapKey) -> (SharedCopy, Option<Zxid>) {
        self.maps.submit(map)
    }

    /// Ends a map that nobody looks at any more.
    pub(crate) fn end_map(&mut self, map: &MapKey) {
        self.maps.end(map);
    }

    /// Holds a member's partitions; its map must have been submitted. A member that is gone, or is
    /// asked to be, holds none.
    pub(crate) fn hold(&mut self, now: Tick, key: HolderKey, holder: Holder) {
        if self.closing || self.maps.has_left(&holder) {
            let why = if self.closing {
                CLOSED
            } else {
                HolderEnd::Left
            };
            self.tell_owners(vec![(key, OwnerEvent::Over(why))]);
            return;
        }
        let group = holder.group.clone();
        self.maps.hold(key, holder);
        self.maps.show_again(&group);
        self.settle_maps(now);
    }

    /// Nobody holds a member's partitions any more.
    pub(crate) fn end_hold(&mut self, key: HolderKey) {
        self.maps.let_go(key);
    }

    /// How much was submitted and has no answer: the task takes no more above a limit.
    pub(crate) fn backlog(&self) -> usize {
        self.requests.unanswered() + self.reads.pending()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached { .. })
    }

    /// A stream to a member is open.
    pub(crate) fn handle_connected(&mut self, now: Tick, members: Members) {
        if self.is_over() {
            return;
        }
        self.members = members;
        self.move_asked = false;
        self.phase = Phase::Attaching { since: now };
        self.greeting = Some(match self.session {
            None => {
                self.opened_at = now;
                ClientFrame::Open {
                    secret: self.secret,
                    timeout_ms: self.timeout_ms,
                }
            }
            Some(session) => ClientFrame::Resume {
                session,
                secret: self.secret,
                last_seen: self.last_seen,
            },
        });
    }

    /// The stream is gone.
    pub(crate) fn handle_disconnected(&mut self) {
        if !self.is_over() {
            self.phase = Phase::Detached;
            self.greeting = None;
        }
    }

    /// A heartbeat that was sent at `sent` was acknowledged for this session; the leases of its
    /// partitions go on by it where it names a position, and once that was taken in (rule R35).
    pub(crate) fn handle_heartbeat_ack(&mut self, now: Tick, sent: Tick, position: Option<Zxid>) {
        if let Some(lease) = &mut self.lease {
            lease.renew(sent);
        }
        self.tell_lease(now);
        if let Some(position) = position {
            self.maps.handle_acknowledgement(sent, position);
            self.settle_maps(now);
        }
    }

    /// A frame arrived on the stream that was announced last, from `member`.
    pub(crate) fn handle_frame(
        &mut self,
        now: Tick,
        member: MemberId,
        frame: ServerFrame,
    ) -> Result<(), Violation> {
        match (&self.phase, frame) {
            (Phase::Over | Phase::Detached, _) => Ok(()),
            (_, ServerFrame::SessionEnded { expired }) => {
                self.end(expired);
                Ok(())
            }
            (_, ServerFrame::Closing { reason }) => {
                self.ask_to_move(format!("the member closes the stream: {reason}"));
                Ok(())
            }
            (
                Phase::Attaching { .. },
                ServerFrame::Attached {
                    session,
                    epoch,
                    timeout_ms,
                    last_id,
                    zxid,
                },
            ) => self.attach(now, (session, epoch), timeout_ms, last_id, zxid),
            (Phase::Attaching { .. }, ServerFrame::AttachRefused(refused)) => {
                self.refuse(refused);
                Ok(())
            }
            (Phase::Attached { .. }, frame) => self.handle_attached_frame(now, member, frame),
            (Phase::Attaching { .. }, _) => Err(Violation::Unexpected),
        }
    }

    fn attach(
        &mut self,
        now: Tick,
        (session, epoch): (SessionId, ConnEpoch),
        timeout_ms: u32,
        last_id: RequestId,
        zxid: Zxid,
    ) -> Result<(), Violation> {
        match self.session {
            Some(expected) if expected != session => {
                return Err(Violation::OtherSession {
                    expected,
                    actual: session,
                });
            }
            Some(_) => self.resuming = true,
            None => {
                self.session = Some(session);
                self.lease = Some(Lease::begin(self.opened_at, timeout_ms));
            }
        }
        self.requests.attached(last_id)?;
        self.reads.attached();
        self.watches.attached();
        self.maps.attached();
        self.timeout_ms = timeout_ms;
        self.last_seen = self.last_seen.max(zxid);
        self.phase = Phase::Attached { since: now };
        self.outputs.push_back(Output::Attached {
            session,
            epoch,
            timeout_ms,
        });
        self.tell_lease(now);
        Ok(())
    }

    fn refuse(&mut self, refused: AttachRefused) {
        match (refused, self.session) {
            (AttachRefused::NoLeader, _) => {
                self.ask_to_move(AttachRefused::NoLeader.to_string());
            }
            (AttachRefused::UnknownSession, Some(_)) => self.end(!self.closing),
            (refused, None) => {
                self.phase = Phase::Over;
                self.outputs.push_back(Output::OpenRefused(refused));
                self.drain(false);
            }
            // Of a session that is known, nothing else can be true at an honest member.
            (refused, Some(_)) => self.ask_to_move(refused.to_string()),
        }
    }

    fn handle_attached_frame(
        &mut self,
        now: Tick,
        member: MemberId,
        frame: ServerFrame,
    ) -> Result<(), Violation> {
        match frame {
            ServerFrame::Reply { id, zxid, reply } => {
                self.last_seen = self.last_seen.max(zxid);
                let executed = reply.is_ok().then_some(zxid);
                let answer = self.requests.handle_reply(id, zxid, reply)?;
                self.maps.handle_answer(id, executed);
                self.outputs.extend(answer.map(|in_place| match in_place {
                    InPlace::Answer(answer) => Output::Answer(answer),
                    InPlace::Waits(id) => Output::Waits(id),
                }));
            }
            ServerFrame::Completion {
                ticket,
                id,
                zxid,
                reply,
            } => {
                self.last_seen = self.last_seen.max(zxid);
                let answer = self
                    .requests
                    .handle_completion(now, ticket, id, zxid, reply);
                self.outputs.extend(answer.map(Output::Answer));
                self.requests.acknowledge(now);
            }
            ServerFrame::ReadReply { id, zxid, result } => {
                self.last_seen = self.last_seen.max(zxid);
                let answer = self.reads.handle_reply(now, id, zxid, result)?;
                self.outputs.extend(answer.map(Output::ReadAnswer));
            }
            ServerFrame::NotAdmitted { id, reason } => {
                let (NotAdmitted::Overloaded | NotAdmitted::NoLeader | NotAdmitted::SessionFull) =
                    reason;
                self.requests.handle_not_admitted(now, id);
            }
            ServerFrame::Rewind { next } => self.requests.handle_rewind(next),
            ServerFrame::Events {
                watch,
                zxid,
                changes,
                last,
            } => {
                let consequence = self.watches.handle_events(watch, zxid, changes, last)?;
                self.follow(consequence);
            }
            ServerFrame::WatchSnapshot {
                watch,
                zxid,
                nodes,
                last,
            } => {
                let consequence = self.watches.handle_snapshot(watch, zxid, nodes, last)?;
                self.follow(consequence);
            }
            ServerFrame::Progress { watch, zxid } => {
                let consequence = self.watches.handle_progress(watch, zxid)?;
                self.follow(consequence);
            }
            ServerFrame::WatchEnded { watch, reason } => {
                let members = std::mem::take(&mut self.members);
                let consequence = self.watches.handle_ended(watch, reason, member, &members);
                self.members = members;
                self.follow(consequence);
            }
            ServerFrame::Map(update) => {
                let consequence = self.maps.handle_update(&update)?;
                self.last_seen = self.last_seen.max(update.through);
                self.follow_map(consequence);
                self.settle_maps(now);
            }
            ServerFrame::MapRefused {
                group,
                detail,
                reason,
            } => {
                let map = MapKey { group, detail };
                let consequence = self.maps.handle_refused(map, reason);
                self.follow_map(consequence);
            }
            ServerFrame::Attached { .. }
            | ServerFrame::AttachRefused(_)
            | ServerFrame::SessionEnded { .. }
            | ServerFrame::Closing { .. } => return Err(Violation::Unexpected),
        }
        Ok(())
    }

    fn follow(&mut self, consequence: Consequence) {
        self.last_seen = self.last_seen.max(consequence.seen.unwrap_or_default());
        let news = consequence.news.into_iter();
        self.outputs
            .extend(news.map(|(watch, news)| Output::Watch(watch, news)));
        if consequence.try_elsewhere {
            self.ask_to_move("this member has no history from a watch's position".to_owned());
        }
    }

    fn follow_map(&mut self, consequence: MapConsequence) {
        let news = consequence.news.into_iter();
        self.outputs
            .extend(news.map(|(map, news)| Output::Map(map, news)));
        self.tell_owners(consequence.events);
    }

    fn settle_maps(&mut self, now: Tick) {
        let events = self.maps.settle(now, self.timeout_ms);
        self.tell_owners(events);
    }

    fn tell_owners(&mut self, events: Vec<(HolderKey, OwnerEvent)>) {
        let events = events.into_iter();
        self.outputs
            .extend(events.map(|(holder, event)| Output::Owner(holder, event)));
    }

    /// An instant given by [`SessionCore::poll_timeout`] has come.
    pub(crate) fn handle_timeout(&mut self, now: Tick) {
        if self.is_over() {
            return;
        }
        self.requests.acknowledge(now);
        self.tell_lease(now);
        if self.maps.timeout().is_some_and(|at| at <= now) {
            self.settle_maps(now);
        }
        if self.stuck_at().is_some_and(|at| at <= now) {
            let reason = match self.phase {
                Phase::Attached { .. } => "its heartbeats are not acknowledged",
                _ => "it does not attach the session",
            };
            self.ask_to_move(reason.to_owned());
        }
    }

    /// When this member is to be given up.
    fn stuck_at(&self) -> Option<Tick> {
        let part = u64::from(self.timeout_ms) / ATTACH_PARTS;
        match self.phase {
            _ if self.move_asked => None,
            Phase::Attaching { since } => Some(since.plus_millis(part.max(1000))),
            Phase::Attached { since } => {
                let lease = self.lease.as_ref()?;
                Some(lease.move_at().max(since.plus_millis(part)))
            }
            Phase::Detached | Phase::Over => None,
        }
    }

    /// When [`SessionCore::handle_timeout`] wants to be called, or [`SessionCore::poll_frame`] may
    /// have more to send.
    pub(crate) fn poll_timeout(&self, now: Tick) -> Option<Tick> {
        if self.is_over() {
            return None;
        }
        let lease = self.told.and_then(|view| match view.standing {
            Standing::Safe => Some(view.jeopardy_at),
            Standing::Jeopardy => Some(view.over_at),
            Standing::LeaseOver | Standing::Ended { .. } => None,
        });
        let sending = if self.is_attached() {
            [
                self.requests.timeout(now),
                self.reads.timeout(now),
                self.maps.loads_at(now),
            ]
        } else {
            [None; 3]
        };
        let next = sending
            .into_iter()
            .chain([lease, self.stuck_at(), self.maps.timeout()])
            .flatten()
            .min()?;
        Some(next.max(now))
    }

    /// The next frame for the stream, if one may be sent.
    pub(crate) fn poll_frame(&mut self, now: Tick) -> Option<ClientFrame> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        if !self.is_attached() {
            return None;
        }
        if let Some(frame) = self.watches.poll(self.last_seen) {
            return Some(match frame {
                WatchFrame::Watch(watch) => ClientFrame::Watch(watch),
                WatchFrame::Unwatch(watch) => ClientFrame::Unwatch { watch },
            });
        }
        if let Some(frame) = self.maps.poll() {
            return Some(match frame {
                MapFrame::Watch { map, since } => ClientFrame::WatchMap {
                    group: map.group,
                    detail: map.detail,
                    since,
                },
                MapFrame::Unwatch(map) => ClientFrame::UnwatchMap {
                    group: map.group,
                    detail: map.detail,
                },
            });
        }
        if std::mem::take(&mut self.resuming) {
            return Some(ClientFrame::WatchesResumed);
        }
        if let Some((group, loads)) = self.maps.take_loads(now) {
            return Some(ClientFrame::Loads { group, loads });
        }
        if let Some(frame) = self.reads.poll(now, self.requests.next_to_send()) {
            return Some(match frame {
                ReadFrame::Read(read) => ClientFrame::Read(read),
                ReadFrame::More(read) => ClientFrame::More { read },
            });
        }
        self.requests.poll(now).map(ClientFrame::Request)
    }

    /// The next thing to do or to tell.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn ask_to_move(&mut self, reason: String) {
        if !std::mem::replace(&mut self.move_asked, true) {
            self.outputs.push_back(Output::Move { reason });
        }
    }

    /// The session is about to end: nothing rests on it any more, whatever is acknowledged still.
    fn distrust(&mut self) {
        if let Some(mut view) = self.told {
            view.standing = view.standing.max(Standing::LeaseOver);
            self.told = Some(view);
            self.outputs.push_back(Output::Lease(view));
        }
    }

    fn tell_lease(&mut self, now: Tick) {
        let Some(lease) = self.lease.as_ref().filter(|_| !self.closing) else {
            return;
        };
        let view = lease.view(now);
        if self.told != Some(view) {
            self.told = Some(view);
            self.outputs.push_back(Output::Lease(view));
        }
    }

    fn end(&mut self, expired: bool) {
        self.phase = Phase::Over;
        let mut view = self.told.unwrap_or(LeaseView {
            standing: Standing::Safe,
            jeopardy_at: Tick::ZERO,
            over_at: Tick::ZERO,
        });
        view.standing = Standing::Ended { expired };
        self.told = Some(view);
        self.outputs.push_back(Output::Lease(view));
        self.drain(expired);
        self.outputs.push_back(Output::Ended { expired });
    }

    fn drain(&mut self, expired: bool) {
        for (id, sent) in self.requests.drain() {
            self.outputs.push_back(Output::Unanswered { id, sent });
        }
        for (id, sent) in self.reads.drain() {
            self.outputs.push_back(Output::ReadUnanswered { id, sent });
        }
        for watch in self.watches.drain() {
            let over = WatchNews::Over(crate::error::WatchError::SessionEnded { expired });
            self.outputs.push_back(Output::Watch(watch, over));
        }
        let consequence = self.maps.drain(expired);
        self.follow_map(consequence);
    }
}
