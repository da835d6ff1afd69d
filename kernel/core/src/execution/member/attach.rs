//! Opening and resuming sessions at this member. An attachment is logged (rule R15): the session is
//! served here once this member has applied it, and no refusal that ends a session rests on
//! anything but what is applied here.

use folkmoot_proto::client::{AttachRefused, ServerFrame};
use folkmoot_proto::peer::{AttachAttempt, ExecutionMessage, ReadContext};
use folkmoot_proto::{ConnEpoch, LogIndex, Now, SecretHash, SessionId, Tick, Zxid};

use super::loads::LoadsReported;
use super::streams::{Attachment, Phase, Served, Stream};
use crate::execution::{ConnectionId, Execution, ExecutionAction, StreamId};
use crate::mutation::{self, Mutation};
use crate::state::View;

impl Execution {
    /// A stream's first frame opens a session.
    pub(in crate::execution) fn open_stream(
        &mut self,
        connection: ConnectionId,
        id: StreamId,
        secret: SecretHash,
        timeout_ms: u32,
    ) {
        let limits = self.state().limits();
        let (min_ms, max_ms) = (limits.session_timeout_min_ms, limits.session_timeout_max_ms);
        let phase = Phase::Opening { secret, timeout_ms };
        self.streams.insert(id, Stream::new(connection, phase));
        if timeout_ms < min_ms || timeout_ms > max_ms {
            return self.refuse_stream(id, AttachRefused::BadTimeout { min_ms, max_ms });
        }
        self.ask_attachment(id);
    }

    /// A stream's first frame resumes a session.
    pub(in crate::execution) fn resume_stream(
        &mut self,
        connection: ConnectionId,
        id: StreamId,
        (session, secret): (SessionId, SecretHash),
        last_seen: Zxid,
    ) {
        let phase = Phase::Resuming {
            session,
            secret,
            last_seen,
            epoch: None,
            barrier: None,
            read_index: None,
        };
        self.streams.insert(id, Stream::new(connection, phase));
        if let Some(reason) = self.attach_refusal(id) {
            return self.refuse_stream(id, reason);
        }
        self.ask_attachment(id);
    }

    /// Asks the leader to log the attachment of a stream.
    fn ask_attachment(&mut self, id: StreamId) {
        let Some(leader) = self.known_leader else {
            return self.refuse_stream(id, AttachRefused::NoLeader);
        };
        let Some(stream) = self.streams.stream(id) else {
            return;
        };
        let attempt = AttachAttempt {
            run: self.config.run,
            stream: id.0,
        };
        let message = match stream.phase {
            Phase::Attached(_) => return,
            Phase::Opening { secret, timeout_ms } => ExecutionMessage::OpenSession {
                secret,
                timeout_ms,
                attempt,
            },
            Phase::Resuming {
                session, secret, ..
            } => ExecutionMessage::AttachSession {
                session,
                secret,
                attempt,
            },
        };
        self.streams.asked(id, self.last_tick);
        self.tell(leader, message);
        self.ask_whether_open(id);
    }

    /// A session that was opened after what is applied here may be unknown to this member alone.
    /// What is applied after a quorum round tells.
    fn ask_whether_open(&mut self, id: StreamId) {
        let applied = self.state().zxid();
        let is_unknown = |stream: &Stream| matches!(stream.phase, Phase::Resuming { session, .. } if session.0 > applied.0);
        if self.streams.stream(id).is_some_and(is_unknown) {
            let context = self.next_context();
            self.streams.ask_by(id, context);
            self.act(ExecutionAction::ReadBarrier { context });
        }
    }

    /// A read barrier of a resuming stream holds at `index`. False if it is another's.
    pub(in crate::execution) fn attach_barrier(
        &mut self,
        context: ReadContext,
        index: LogIndex,
    ) -> bool {
        let Some(id) = self.streams.asking_by(context) else {
            return false;
        };
        self.streams.read_at(id, index);
        self.review_stream(id);
        true
    }

    /// Why a stream can not have its session, by what is applied here.
    fn attach_refusal(&self, id: StreamId) -> Option<AttachRefused> {
        let Phase::Resuming {
            session,
            secret,
            read_index,
            ..
        } = self.streams.stream(id)?.phase
        else {
            return None;
        };
        match self.state().session(session) {
            Some(open) if open.secret == secret => None,
            Some(_) => Some(AttachRefused::WrongSecret),
            None => {
                let was_opened = session.0 <= self.state().zxid().0;
                let applied = self.state().position().index;
                let is_newest = read_index.is_some_and(|index| index <= applied);
                (was_opened || is_newest).then_some(AttachRefused::UnknownSession)
            }
        }
    }

    /// Looks at the streams that wait for what is applied here by now.
    pub(in crate::execution) fn review_streams(&mut self) {
        let position = self.state().position();
        for id in self.streams.take_due(position.zxid, position.index) {
            self.review_stream(id);
        }
    }

    /// A session is over: streams that wait for it hear so.
    pub(super) fn review_closed(&mut self, session: SessionId) {
        for id in self.streams.resuming(session) {
            self.review_stream(id);
        }
    }

    /// A session is attached at another member. Streams that were to have it here were left behind
    /// by their client; those that the log has not answered yet come later.
    pub(super) fn attached_elsewhere(&mut self, session: SessionId, was_attached: bool) {
        let serving = self.streams.serving(session);
        let secret = self.state().session(session).map(|open| open.secret);
        let opening = secret.map_or_else(Vec::new, |secret| self.streams.opening(secret));
        let waiting = self.streams.resuming(session).into_iter().chain(opening);
        let left = waiting.filter(|id| was_attached || self.streams.is_answered(*id));
        for stream in left.chain(serving).collect::<Vec<_>>() {
            self.close_stream(stream, "the session is attached at another member");
        }
    }

    fn review_stream(&mut self, id: StreamId) {
        if let Some(reason) = self.attach_refusal(id) {
            return self.refuse_stream(id, reason);
        }
        let Some(stream) = self.streams.stream(id) else {
            return;
        };
        if let Phase::Resuming {
            session,
            last_seen,
            epoch: Some(epoch),
            ..
        } = stream.phase
            && last_seen <= self.state().zxid()
        {
            self.serve(id, session, epoch);
        }
    }

    /// The log says that a session is attached here. The newest stream that asked for it has it.
    pub(in crate::execution) fn attached_here(
        &mut self,
        now: Now,
        session: SessionId,
        epoch: ConnEpoch,
    ) {
        let Some(secret) = self.state().session(session).map(|open| open.secret) else {
            return;
        };
        let Some(id) = self.streams.asking_for(session, secret) else {
            return self.adopt_epoch(now, session, epoch);
        };
        let applied = self.state().zxid();
        if !self.streams.answer_later(id, epoch, applied) {
            self.serve(id, session, epoch);
        }
    }

    /// The attachment of a stream that is served already was logged twice. Its requests that were
    /// under way carried the older epoch and may have been refused.
    fn adopt_epoch(&mut self, now: Now, session: SessionId, epoch: ConnEpoch) {
        if let Some(attachment) = self.streams.attachment_mut(session) {
            attachment.epoch = epoch;
            self.rewind(now, session);
        }
    }

    /// Serves a session on a stream from here on. Answers are given to what the client sends again
    /// on this stream; completions that it has not acknowledged come by themselves. Both come behind
    /// the events of the watches that a resuming client asks for first (rule R28).
    fn serve(&mut self, id: StreamId, session: SessionId, epoch: ConnEpoch) {
        let Some(open) = self.state().session(session).cloned() else {
            return;
        };
        if (open.epoch, open.member) != (epoch, self.config.member) {
            // It was attached elsewhere before it could be served here.
            return;
        }
        if let Some(older) = self.streams.serving(session) {
            self.close_stream(older, "the session is attached by a newer stream");
        }
        for other in self.streams.all_asking_for(session, open.secret) {
            if other != id {
                self.close_stream(other, "the session is attached by a newer stream");
            }
        }
        let attachment = Attachment {
            session,
            epoch,
            told_epoch: epoch,
            expected: open.last_id.next(),
            answered: None,
            refused: false,
            moved_at: self.last_tick,
            loads: LoadsReported::default(),
        };
        let owed = open.reply_bytes.saturating_add(open.completion_bytes);
        let owed = usize::try_from(owed).unwrap_or(usize::MAX);
        if self.streams.serve(id, attachment) == Served::Resumed {
            self.watches.resumes(id, owed);
        }
        let zxid = self.state().zxid();
        self.send(
            id,
            ServerFrame::Attached {
                session,
                epoch,
                timeout_ms: open.timeout_ms,
                last_id: open.last_id,
                zxid,
            },
        );
        let completions = self.state().completions(session).into_iter();
        let frames = completions.map(|(ticket, kept)| ServerFrame::Completion {
            ticket,
            id: kept.request,
            zxid: kept.zxid,
            reply: kept.reply.clone(),
        });
        for frame in frames.collect::<Vec<_>>() {
            self.send_to_session(session, frame);
        }
    }

    /// Asks again for all that waits to be attached: what was asked is lost with a leader or a
    /// stream. The leader attaches a stream once, however often it is asked for.
    pub(in crate::execution) fn ask_again(&mut self) {
        for id in self.streams.pending() {
            self.ask_attachment(id);
        }
    }

    /// Asks again for what was asked for long ago, for what nothing else noticed.
    pub(in crate::execution) fn ask_due(&mut self, now: Tick) {
        for id in self.streams.to_ask(now) {
            self.ask_attachment(id);
        }
    }

    /// The leader says that a session is over. It is told when that is applied here, and not
    /// before (rule R15).
    pub(in crate::execution) fn attach_hearsay(
        &mut self,
        session: SessionId,
        secret: SecretHash,
        reason: &AttachRefused,
    ) {
        if mutation::is_on(Mutation::ExpiredByHearsay)
            && let Some(id) = self.streams.asking_for(session, secret)
        {
            self.refuse_stream(id, reason.clone());
        }
    }

    /// The leader has no room for a session.
    pub(in crate::execution) fn open_refused(
        &mut self,
        secret: SecretHash,
        reason: &AttachRefused,
    ) {
        for id in self.streams.opening(secret) {
            self.refuse_stream(id, reason.clone());
        }
    }

    pub(in crate::execution) fn refuse_stream(&mut self, id: StreamId, reason: AttachRefused) {
        self.send(id, ServerFrame::AttachRefused(reason));
        self.end_stream(id);
    }

    /// Closes a stream with a reason; its session lives.
    pub(in crate::execution) fn close_stream(&mut self, id: StreamId, reason: &str) {
        let reason = reason.to_owned();
        self.send(id, ServerFrame::Closing { reason });
        self.end_stream(id);
    }

    /// Closes a stream after what was sent.
    pub(in crate::execution) fn end_stream(&mut self, id: StreamId) {
        self.forget_stream(id);
        self.act(ExecutionAction::CloseStream { stream: id });
    }
}
