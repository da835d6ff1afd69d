//! The session streams of the clients attached to this member.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::{ConnEpoch, LogIndex, RequestId, SecretHash, SessionId, Tick, Zxid};

use super::loads::LoadsReported;
use crate::execution::{ConnectionId, StreamId};

/// How long a stream waits before it is asked for again for the first time, in milliseconds; it
/// doubles each time.
const ASK_MS_MIN: u64 = 1_000;
/// How long it waits at most, in milliseconds.
const ASK_MS_MAX: u64 = 4_000;

/// Streams by name, and which of them serves a session. When a member dies, those of all its clients
/// come to the others at once: nothing here looks at all of them for one.
#[derive(Debug, Default)]
pub(in crate::execution) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    serving: BTreeMap<SessionId, StreamId>,
    of_connection: BTreeSet<(ConnectionId, StreamId)>,
    /// Streams that wait to be attached.
    pending: BTreeSet<StreamId>,
    /// Those that wait for a session to be opened.
    opening: BTreeSet<(SecretHash, StreamId)>,
    /// Those that wait for a session to be attached.
    resuming: BTreeSet<(SessionId, StreamId)>,
    /// Those that wait for a read barrier.
    by_barrier: BTreeMap<ReadContext, StreamId>,
    /// Those that can be decided once this is applied: the session's opening, or what the client has
    /// seen.
    by_zxid: BTreeSet<(Zxid, StreamId)>,
    /// Those that can be decided once this is applied: where a read barrier holds.
    by_index: BTreeSet<(LogIndex, StreamId)>,
}

/// One stream.
#[derive(Clone, Debug)]
pub(in crate::execution) struct Stream {
    /// Its connection.
    pub(in crate::execution) connection: ConnectionId,
    /// How far its session is.
    pub(in crate::execution) phase: Phase,
    /// How often the leader was asked for its session.
    asked: u32,
    /// When it is asked again.
    ask_at: Tick,
}

/// How far a stream's session is.
#[derive(Clone, Debug)]
pub(in crate::execution) enum Phase {
    /// The leader was asked for a session; it is ours once the log says so.
    Opening {
        /// The hash of its secret.
        secret: SecretHash,
        /// The timeout asked for.
        timeout_ms: u32,
    },
    /// The leader was asked to attach a session here; it is ours once the log says so (rule R15).
    Resuming {
        /// The session.
        session: SessionId,
        /// The hash of the secret shown.
        secret: SecretHash,
        /// Nothing is served before this is applied here.
        last_seen: Zxid,
        /// The epoch, once the log has said so.
        epoch: Option<ConnEpoch>,
        /// The barrier after which it is known whether the session is open.
        barrier: Option<ReadContext>,
        /// Where that barrier holds.
        read_index: Option<LogIndex>,
    },
    /// The session is served here.
    Attached(Attachment),
}

/// A session that is served here.
#[derive(Clone, Copy, Debug)]
pub(in crate::execution) struct Attachment {
    /// The session.
    pub(in crate::execution) session: SessionId,
    /// The epoch by which the leader knows this attachment.
    pub(in crate::execution) epoch: ConnEpoch,
    /// The epoch that the client was told and names in its heartbeats. A repeated attach of the
    /// same stream raises the other one alone.
    pub(in crate::execution) told_epoch: ConnEpoch,
    /// The next request that is taken from the client. One beyond it follows a request that was
    /// turned away or rewound, one before it is under way: neither is taken, so that one refusal
    /// does not become one for each request behind it.
    pub(in crate::execution) expected: RequestId,
    /// The last request that was answered on this stream, once the client has sent one. Its first
    /// may be any that is not beyond `expected`: it asks again for what it has no answer to.
    pub(in crate::execution) answered: Option<RequestId>,
    /// The client was told that a request was not admitted, and has not sent it again.
    pub(in crate::execution) refused: bool,
    /// When this member last saw the session's order move, or told the client to rewind.
    pub(in crate::execution) moved_at: Tick,
    /// What the client reported of its partitions' loads.
    pub(in crate::execution) loads: LoadsReported,
}

/// How a session came to be served on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execution) enum Served {
    /// The client opened it there, and has no watches.
    Opened,
    /// The client took it there, and may resume watches.
    Resumed,
}

impl Attachment {
    /// The first request that may be without an answer on this stream.
    pub(in crate::execution) fn first_unanswered(&self) -> RequestId {
        self.answered.map_or(RequestId::ZERO, RequestId::next)
    }
}

impl Stream {
    /// A stream of a connection, which waits to be attached.
    pub(in crate::execution) fn new(connection: ConnectionId, phase: Phase) -> Self {
        Self {
            connection,
            phase,
            asked: 0,
            ask_at: Tick::ZERO,
        }
    }

    /// The session that is served on it.
    pub(in crate::execution) fn session(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Attached(attachment) => Some(attachment.session),
            _ => None,
        }
    }
}

impl Streams {
    /// A stream.
    pub(in crate::execution) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// Adds a stream, which waits to be attached.
    pub(in crate::execution) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.of_connection.insert((stream.connection, id));
        self.pending.insert(id);
        match stream.phase {
            Phase::Opening { secret, .. } => {
                self.opening.insert((secret, id));
            }
            Phase::Resuming { session, .. } => {
                self.resuming.insert((session, id));
                // Whether there is such a session is known once its opening would be applied.
                self.by_zxid.insert((Zxid(session.0), id));
            }
            Phase::Attached(_) => panic!("stream {id:?} is attached before it is known"),
        }
        self.streams.insert(id, stream);
    }

    /// The stream waits no more.
    fn end_waiting(&mut self, id: StreamId) {
        self.pending.remove(&id);
        match self.streams.get(&id).map(|stream| &stream.phase) {
            Some(Phase::Opening { secret, .. }) => {
                self.opening.remove(&(*secret, id));
            }
            Some(Phase::Resuming {
                session,
                last_seen,
                barrier,
                read_index,
                ..
            }) => {
                self.resuming.remove(&(*session, id));
                self.by_zxid.remove(&(Zxid(session.0), id));
                self.by_zxid.remove(&(*last_seen, id));
                if let Some(barrier) = barrier {
                    self.by_barrier.remove(barrier);
                }
                if let Some(index) = read_index {
                    self.by_index.remove(&(*index, id));
                }
            }
            Some(Phase::Attached(_)) | None => {}
        }
    }

    /// Removes a stream; its session is served here no more.
    pub(in crate::execution) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.end_waiting(id);
        let stream = self.streams.remove(&id)?;
        self.of_connection.remove(&(stream.connection, id));
        if let Phase::Attached(attachment) = &stream.phase {
            self.serving.remove(&attachment.session);
        }
        Some(stream)
    }

    /// The stream that serves a session here.
    pub(in crate::execution) fn serving(&self, session: SessionId) -> Option<StreamId> {
        self.serving.get(&session).copied()
    }

    /// The attachment of a session that is served here.
    pub(in crate::execution) fn attachment(&self, session: SessionId) -> Option<&Attachment> {
        match &self.streams.get(self.serving.get(&session)?)?.phase {
            Phase::Attached(attachment) => Some(attachment),
            _ => None,
        }
    }

    /// The attachment of the session that a stream serves.
    pub(in crate::execution) fn served_by(&self, id: StreamId) -> Option<Attachment> {
        match self.streams.get(&id)?.phase {
            Phase::Attached(attachment) if self.serving(attachment.session) == Some(id) => {
                Some(attachment)
            }
            _ => None,
        }
    }

    /// The attachment of a session that is served here, to be changed.
    pub(in crate::execution) fn attachment_mut(
        &mut self,
        session: SessionId,
    ) -> Option<&mut Attachment> {
        match &mut self.streams.get_mut(self.serving.get(&session)?)?.phase {
            Phase::Attached(attachment) => Some(attachment),
            _ => None,
        }
    }

    /// Streams that wait to be attached, in order of their names.
    pub(in crate::execution) fn pending(&self) -> Vec<StreamId> {
        self.pending.iter().copied().collect()
    }

    /// The newest stream that waits to be attached to a session, which has this secret.
    pub(in crate::execution) fn asking_for(
        &self,
        session: SessionId,
        secret: SecretHash,
    ) -> Option<StreamId> {
        self.all_asking_for(session, secret).pop()
    }

    /// The streams that wait to be attached to a session, which has this secret, newest last.
    pub(in crate::execution) fn all_asking_for(
        &self,
        session: SessionId,
        secret: SecretHash,
    ) -> Vec<StreamId> {
        let shows = |id: &StreamId| {
            let phase = self.streams.get(id).map(|stream| &stream.phase);
            matches!(phase, Some(Phase::Resuming { secret: shown, .. }) if *shown == secret)
        };
        let resuming = self.resuming(session).into_iter().filter(shows);
        let mut asking: Vec<_> = self.opening(secret).into_iter().chain(resuming).collect();
        asking.sort_unstable();
        asking
    }

    /// The streams that wait to be attached to a session, whatever secret they show.
    pub(in crate::execution) fn resuming(&self, session: SessionId) -> Vec<StreamId> {
        of(&self.resuming, session).collect()
    }

    /// The stream that waits for a read barrier.
    pub(in crate::execution) fn asking_by(&self, context: ReadContext) -> Option<StreamId> {
        self.by_barrier.get(&context).copied()
    }

    /// Streams that wait for a session to be opened with a secret.
    pub(in crate::execution) fn opening(&self, secret: SecretHash) -> Vec<StreamId> {
        of(&self.opening, secret).collect()
    }

    /// The streams of a connection.
    pub(in crate::execution) fn of_connection(&self, connection: ConnectionId) -> Vec<StreamId> {
        of(&self.of_connection, connection).collect()
    }

    /// The leader was asked for a stream's session.
    pub(in crate::execution) fn asked(&mut self, id: StreamId, now: Tick) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let doubled = 1_u64.checked_shl(stream.asked).unwrap_or(u64::MAX);
            let wait_ms = ASK_MS_MIN.saturating_mul(doubled).min(ASK_MS_MAX);
            stream.ask_at = now.plus_millis(wait_ms);
            stream.asked = stream.asked.saturating_add(1);
        }
    }

    /// Streams that it is time to ask again for.
    pub(in crate::execution) fn to_ask(&self, now: Tick) -> Vec<StreamId> {
        let is_due = |id: &&StreamId| self.streams.get(id).is_some_and(|of| of.ask_at <= now);
        self.pending.iter().filter(is_due).copied().collect()
    }

    /// A resuming stream waits for a read barrier.
    pub(in crate::execution) fn ask_by(&mut self, id: StreamId, context: ReadContext) {
        if let Some(Phase::Resuming { barrier, .. }) = phase_mut(&mut self.streams, id) {
            if let Some(before) = barrier.replace(context) {
                self.by_barrier.remove(&before);
            }
            self.by_barrier.insert(context, id);
        }
    }

    /// The read barrier of a resuming stream holds there.
    pub(in crate::execution) fn read_at(&mut self, id: StreamId, index: LogIndex) {
        if let Some(Phase::Resuming { read_index, .. }) = phase_mut(&mut self.streams, id) {
            if let Some(before) = read_index.replace(index) {
                self.by_index.remove(&(before, id));
            }
            self.by_index.insert((index, id));
        }
    }

    /// The log has attached a resuming stream. Whether it is served later: once what its client has
    /// seen is applied here.
    pub(in crate::execution) fn answer_later(
        &mut self,
        id: StreamId,
        epoch: ConnEpoch,
        applied: Zxid,
    ) -> bool {
        let phase = phase_mut(&mut self.streams, id);
        let Some(Phase::Resuming {
            last_seen,
            epoch: known,
            ..
        }) = phase
        else {
            return false;
        };
        if *last_seen <= applied {
            return false;
        }
        *known = Some(epoch);
        self.by_zxid.insert((*last_seen, id));
        true
    }

    /// Whether the log has attached a stream that waits.
    pub(in crate::execution) fn is_answered(&self, id: StreamId) -> bool {
        let phase = self.streams.get(&id).map(|stream| &stream.phase);
        matches!(phase, Some(Phase::Resuming { epoch: Some(_), .. }))
    }

    /// The streams that wait for no more than what is applied by now.
    pub(in crate::execution) fn take_due(&mut self, zxid: Zxid, index: LogIndex) -> Vec<StreamId> {
        let mut due = Vec::new();
        while self.by_zxid.first().is_some_and(|(at, _)| *at <= zxid) {
            due.extend(self.by_zxid.pop_first().map(|(_, id)| id));
        }
        while self.by_index.first().is_some_and(|(at, _)| *at <= index) {
            due.extend(self.by_index.pop_first().map(|(_, id)| id));
        }
        due
    }

    /// Whether there are no streams.
    pub(in crate::execution) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The sessions that are served here, in order.
    pub(in crate::execution) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.serving.keys().copied()
    }

    /// From here on the stream serves its session. No other stream may serve it.
    pub(in crate::execution) fn serve(&mut self, id: StreamId, attachment: Attachment) -> Served {
        let before = self.serving.insert(attachment.session, id);
        assert!(
            before.is_none(),
            "{before:?} serves {} already",
            attachment.session
        );
        self.end_waiting(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            panic!(
                "{} is served on a stream that is not there",
                attachment.session
            );
        };
        match core::mem::replace(&mut stream.phase, Phase::Attached(attachment)) {
            Phase::Resuming { .. } => Served::Resumed,
            Phase::Opening { .. } | Phase::Attached(_) => Served::Opened,
        }
    }
}

/// The streams that are indexed by a key.
fn of<K: Copy + Ord>(
    index: &BTreeSet<(K, StreamId)>,
    key: K,
) -> impl Iterator<Item = StreamId> + use<'_, K> {
    let range = index.range((key, StreamId(0))..=(key, StreamId(u64::MAX)));
    range.map(|(_, id)| *id)
}

fn phase_mut(streams: &mut BTreeMap<StreamId, Stream>, id: StreamId) -> Option<&mut Phase> {
    streams.get_mut(&id).map(|stream| &mut stream.phase)
}
