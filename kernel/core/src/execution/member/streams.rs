//! The session streams of the clients attached to this member.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::{ConnEpoch, LogIndex, RequestId, SecretHash, SessionId, Tick, Zxid};

use crate::execution::{ConnectionId, StreamId};

/// Streams by name, and which of them serves a session.
#[derive(Debug, Default)]
pub(in crate::execution) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    serving: BTreeMap<SessionId, StreamId>,
    /// Streams that wait to be attached.
    pending: BTreeSet<StreamId>,
}

/// One stream.
#[derive(Clone, Debug)]
pub(in crate::execution) struct Stream {
    /// Its connection.
    pub(in crate::execution) connection: ConnectionId,
    /// How far its session is.
    pub(in crate::execution) phase: Phase,
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

    /// A stream, to be changed.
    pub(in crate::execution) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// Adds a stream, which waits to be attached.
    pub(in crate::execution) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.streams.insert(id, stream);
        self.pending.insert(id);
    }

    /// Removes a stream; its session is served here no more.
    pub(in crate::execution) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.pending.remove(&id);
        let stream = self.streams.remove(&id)?;
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
        let asks = |stream: &Stream| match stream.phase {
            Phase::Opening { secret: shown, .. } => shown == secret,
            Phase::Resuming {
                session: of,
                secret: shown,
                ..
            } => of == session && shown == secret,
            Phase::Attached(_) => false,
        };
        self.pending_where(asks)
    }

    /// The stream that waits for a read barrier.
    pub(in crate::execution) fn asking_by(&self, context: ReadContext) -> Option<StreamId> {
        let asks = |stream: &Stream| matches!(stream.phase, Phase::Resuming { barrier, .. } if barrier == Some(context));
        self.pending_where(asks).pop()
    }

    /// Streams that wait for a session to be opened with a secret.
    pub(in crate::execution) fn opening(&self, secret: SecretHash) -> Vec<StreamId> {
        let opens = |stream: &Stream| matches!(stream.phase, Phase::Opening { secret: shown, .. } if shown == secret);
        self.pending_where(opens)
    }

    /// The streams of a connection.
    pub(in crate::execution) fn of_connection(&self, connection: ConnectionId) -> Vec<StreamId> {
        let of = |stream: &Stream| stream.connection == connection;
        let streams = self.streams.iter().filter(|(_, stream)| of(stream));
        streams.map(|(id, _)| *id).collect()
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
        self.pending.remove(&id);
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

    fn pending_where(&self, which: impl Fn(&Stream) -> bool) -> Vec<StreamId> {
        let is_one = |id: &&StreamId| self.streams.get(id).is_some_and(&which);
        self.pending.iter().filter(is_one).copied().collect()
    }
}
