//! Requests on their way to the leader, wherever it is. A member keeps none of them: what is lost on
//! the way, or refused, is sent again by the client, from the first one that is not answered
//! (rule R2).

use folkmoot_proto::client::{NotAdmitted, Request, ServerFrame};
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{ConnEpoch, Now, RequestId, SessionId, Tick};

use crate::execution::request::request_bytes;
use crate::execution::{Execution, ExecutionAction};
use crate::state::View;

/// Requests that are under way so long without the session's order moving are taken for lost, in
/// milliseconds. Streams that break are noticed at once; this covers what nothing else noticed.
const LOST_AFTER_MS: u64 = 3000;
/// Requests in one message to the leader.
const REQUESTS_PER_MESSAGE: usize = 256;
/// Bytes of them, beyond which no more are joined: a larger one travels alone.
const MESSAGE_BYTES_TARGET: usize = 64 * 1024;

impl Execution {
    /// A client's request: only the session's next one is taken. One that came before is under way
    /// or answered; one beyond follows a request that was turned away. What is executed already is
    /// answered from what is kept (rule R10), the rest goes to the leader.
    pub(in crate::execution) fn take_request(
        &mut self,
        now: Now,
        session: SessionId,
        request: Request,
    ) {
        let Some(last_id) = self.state().session(session).map(|open| open.last_id) else {
            return;
        };
        let Some(attachment) = self.streams.attachment_mut(session) else {
            return;
        };
        let id = request.id;
        if attachment.answered.is_none() && id > RequestId::ZERO && id <= attachment.expected {
            attachment.expected = id;
            attachment.answered = Some(RequestId(id.0 - 1));
        }
        if id != attachment.expected {
            return;
        }
        if id <= last_id {
            attachment.expected = id.next();
            attachment.answered = Some(id);
            self.answer_again(session, id);
            return self.serve_reads();
        }
        if id == last_id.next() {
            attachment.moved_at = now.tick;
        }
        self.forward(session, request);
    }

    fn answer_again(&mut self, session: SessionId, id: RequestId) {
        let Some(kept) = self.state().reply(session, id) else {
            return;
        };
        let frame = ServerFrame::Reply {
            id,
            zxid: kept.zxid,
            reply: kept.reply.clone(),
        };
        self.send_to_session(session, frame);
    }

    fn forward(&mut self, session: SessionId, request: Request) {
        let leader = self.known_leader;
        let Some(attachment) = self.streams.attachment_mut(session) else {
            return;
        };
        let (id, epoch) = (request.id, attachment.epoch);
        let Some(leader) = leader else {
            return self.not_admitted(session, epoch, id, NotAdmitted::NoLeader);
        };
        attachment.refused = false;
        attachment.expected = id.next();
        if leader == self.config.member {
            return self.lead_request(leader, session, epoch, request);
        }
        let bytes = request_bytes(&request);
        let has_room = self.joined_bytes + bytes <= MESSAGE_BYTES_TARGET;
        if let Some(ExecutionAction::ToPeer {
            to,
            message:
                ExecutionMessage::Requests {
                    session: of,
                    epoch: at,
                    requests,
                },
        }) = self.actions.back_mut()
            && (*to, *of, *at) == (leader, session, epoch)
            && has_room
            && requests.len() < REQUESTS_PER_MESSAGE
        {
            self.joined_bytes += bytes;
            return requests.push(request);
        }
        self.joined_bytes = bytes;
        let requests = vec![request];
        self.tell(
            leader,
            ExecutionMessage::Requests {
                session,
                epoch,
                requests,
            },
        );
    }

    /// A request took no place, nor did any behind it: the client sends it again.
    pub(in crate::execution) fn not_admitted(
        &mut self,
        session: SessionId,
        epoch: ConnEpoch,
        id: RequestId,
        reason: NotAdmitted,
    ) {
        let Some(attachment) = self.streams.attachment_mut(session) else {
            return;
        };
        let is_stale = attachment.epoch != epoch || id < attachment.first_unanswered();
        if is_stale || attachment.expected < id {
            return;
        }
        attachment.expected = id;
        attachment.refused = true;
        self.send_to_session(session, ServerFrame::NotAdmitted { id, reason });
    }

    /// The leader expects `next`: what came to it was beyond, or its overlay was dropped.
    pub(in crate::execution) fn rewound(
        &mut self,
        now: Now,
        session: SessionId,
        epoch: ConnEpoch,
        next: RequestId,
    ) {
        let Some(attachment) = self.streams.attachment(session) else {
            return;
        };
        // One that was long on its way names what is answered by now.
        let next = next.max(attachment.first_unanswered());
        if attachment.epoch == epoch && attachment.expected > next {
            self.send_rewind(now, session, next);
        }
    }

    /// What this session has under way may be lost: its client sends it again.
    pub(in crate::execution) fn rewind(&mut self, now: Now, session: SessionId) {
        let Some(open) = self.state().session(session) else {
            return;
        };
        let next = open.last_id.next();
        let Some(attachment) = self.streams.attachment(session) else {
            return;
        };
        if attachment.expected > next || attachment.refused {
            // What was executed by another way, and is not asked for again yet, is not jumped over.
            self.send_rewind(now, session, next.min(attachment.expected));
        }
    }

    fn send_rewind(&mut self, now: Now, session: SessionId, next: RequestId) {
        if let Some(attachment) = self.streams.attachment_mut(session) {
            attachment.expected = next;
            attachment.refused = false;
            attachment.moved_at = now.tick;
        }
        self.send_to_session(session, ServerFrame::Rewind { next });
    }

    /// All that is under way may be lost: the leader changed, or a stream to it broke.
    pub(in crate::execution) fn rewind_all(&mut self, now: Now) {
        for session in self.streams.sessions().collect::<Vec<_>>() {
            self.rewind(now, session);
        }
    }

    /// Rewinds sessions whose requests have been under way for too long.
    pub(in crate::execution) fn rewind_lost(&mut self, now: Now) {
        let stuck = |session: &SessionId| {
            let attachment = self.streams.attachment(*session);
            let open = self.state().session(*session);
            attachment.zip(open).is_some_and(|(attachment, open)| {
                attachment.expected > open.last_id.next() && is_over(attachment.moved_at, now.tick)
            })
        };
        for session in self.streams.sessions().filter(stuck).collect::<Vec<_>>() {
            self.rewind(now, session);
        }
    }
}

fn is_over(since: Tick, now: Tick) -> bool {
    now.millis_since(since) >= LOST_AFTER_MS
}
