//! Write-class requests: their order, their one outcome, and their waits (rules R2, R10, R11).

use std::collections::{BTreeMap, VecDeque};

use folkmoot_proto::client::{Guard, Operation, Request};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{RequestId, Tick, Ticket, Zxid};

use super::{Backoff, Violation};

/// Requests sent and not answered. A quarter of the replies that a cluster keeps for a session
/// (`session_replies_max`), so that the cap is never met by this client.
pub(crate) const WINDOW: u64 = 1024;

/// Completions are acknowledged together: this many, or what has gathered in
/// [`ACKNOWLEDGE_AFTER_MS`]. A sixteenth of the waits that a session may have.
const ACKNOWLEDGE_BATCH: usize = 64;

/// An acknowledgement is a write of its own; a second saves most of them.
const ACKNOWLEDGE_AFTER_MS: u64 = 1000;

/// The final answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: RequestId,
    pub(crate) zxid: Zxid,
    pub(crate) reply: Reply,
}

/// What a reply in its place says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    /// The request has its answer.
    Answer(Answer),
    /// It waits, and is answered later.
    Waits(RequestId),
}

#[derive(Debug)]
struct Pending {
    operation: Operation,
    guards: Vec<Guard>,
    /// Whether it left the client on any stream.
    sent: bool,
    /// Whether its wait was completed before its answer in place arrived, which happens on a new
    /// stream.
    completed: bool,
}

/// The requests of a session that are not over.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Without an answer, in order; the first has the id `answered + 1`.
    pending: VecDeque<Pending>,
    /// The last request that was answered in its place: `acked_up_to`.
    answered: RequestId,
    /// The next one to send on this stream.
    next_to_send: RequestId,
    /// Answered `Waiting`, and not completed.
    waits: BTreeMap<RequestId, Ticket>,
    /// Completions that arrived and are not acknowledged.
    unacknowledged: Vec<Ticket>,
    acknowledge_at: Option<Tick>,
    /// Own requests whose answers nobody waits for.
    internal: Vec<RequestId>,
    backoff: Backoff,
    /// The session is being closed: completions need no acknowledgement.
    closing: bool,
}

impl Requests {
    /// Takes a request into the session's order, and gives it its place.
    pub(crate) fn submit(&mut self, operation: Operation, guards: Vec<Guard>) -> RequestId {
        if operation == Operation::CloseSession {
            self.closing = true;
            self.acknowledge_at = None;
        }
        self.pending.push_back(Pending {
            operation,
            guards,
            sent: false,
            completed: false,
        });
        self.last_submitted()
    }

    /// The place of the newest request.
    pub(crate) fn last_submitted(&self) -> RequestId {
        RequestId(self.answered.0 + self.pending.len() as u64)
    }

    /// How many have no answer in place.
    pub(crate) fn unanswered(&self) -> usize {
        self.pending.len()
    }

    /// The first place that was not sent on this stream.
    pub(crate) fn next_to_send(&self) -> RequestId {
        self.next_to_send
    }

    /// Ends the wait of `id`, or sees to it that it will not wait; none if it is over.
    pub(crate) fn cancel(&mut self, id: RequestId) -> Option<RequestId> {
        let over = id <= self.answered && !self.waits.contains_key(&id);
        if over || id > self.last_submitted() {
            return None;
        }
        Some(self.submit(Operation::CancelWait { request: id }, Vec::new()))
    }

    /// As [`Requests::cancel`], and nobody waits for the answer.
    pub(crate) fn abandon(&mut self, id: RequestId) {
        if let Some(cancel) = self.cancel(id) {
            self.internal.push(cancel);
        }
    }

    /// A new stream is attached: everything without an answer is sent again, in order. Those that
    /// the cluster has executed already give their kept replies (rule R10).
    pub(crate) fn attached(&mut self, last_id: RequestId) -> Result<(), Violation> {
        if last_id < self.answered || last_id > self.last_submitted() {
            return Err(Violation::LastId {
                last_id,
                answered: self.answered,
                submitted: self.last_submitted(),
            });
        }
        self.next_to_send = self.answered.next();
        self.backoff = Backoff::default();
        Ok(())
    }

    /// The next frame to send, if one may be sent.
    pub(crate) fn poll(&mut self, now: Tick) -> Option<Request> {
        if self.backoff.holds(now) || self.next_to_send.0 > self.answered.0 + WINDOW {
            return None;
        }
        let place = usize::try_from(self.next_to_send.0 - self.answered.0 - 1).ok()?;
        let pending = self.pending.get_mut(place)?;
        pending.sent = true;
        let request = Request {
            id: self.next_to_send,
            acked_up_to: self.answered,
            guards: pending.guards.clone(),
            operation: pending.operation.clone(),
        };
        self.next_to_send = self.next_to_send.next();
        Some(request)
    }

    /// An answer in its place. None if nobody waits for it, or it is a repetition.
    pub(crate) fn handle_reply(
        &mut self,
        id: RequestId,
        zxid: Zxid,
        reply: Reply,
    ) -> Result<Option<InPlace>, Violation> {
        if id <= self.answered {
            return Ok(None);
        }
        let expected = self.answered.next();
        let Some(pending) = self
            .pending
            .pop_front_if(|front| front.sent && id == expected)
        else {
            return Err(Violation::ReplyOutOfOrder { id, expected });
        };
        self.answered = id;
        // A refusal of an earlier sending may have set it back; this answer is of a later one.
        self.next_to_send = self.next_to_send.max(id.next());
        self.backoff = Backoff::default();
        if let Some(place) = self.internal.iter().position(|internal| *internal == id) {
            self.internal.swap_remove(place);
            return Ok(None);
        }
        match reply {
            _ if pending.completed => Ok(None),
            Ok(Outcome::Waiting(ticket)) => {
                self.waits.insert(id, ticket);
                Ok(Some(InPlace::Waits(id)))
            }
            reply => Ok(Some(InPlace::Answer(Answer { id, zxid, reply }))),
        }
    }

    /// A wait ended. None if that was known: the completion is acknowledged all the same.
    pub(crate) fn handle_completion(
        &mut self,
        now: Tick,
        ticket: Ticket,
        id: RequestId,
        zxid: Zxid,
        reply: Reply,
    ) -> Option<Answer> {
        if !self.closing && !self.unacknowledged.contains(&ticket) {
            self.unacknowledged.push(ticket);
            self.acknowledge_at
                .get_or_insert(now.plus_millis(ACKNOWLEDGE_AFTER_MS));
        }
        let fresh = self.waits.remove(&id).is_some() || self.complete_pending(id);
        fresh.then_some(Answer { id, zxid, reply })
    }

    fn complete_pending(&mut self, id: RequestId) -> bool {
        let place = id.0.checked_sub(self.answered.0 + 1);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(pending) = place.and_then(|place| self.pending.get_mut(place)) else {
            return false;
        };
        !std::mem::replace(&mut pending.completed, true)
    }

    /// Acknowledges completions if it is time to.
    pub(crate) fn acknowledge(&mut self, now: Tick) {
        let due = self.acknowledge_at.is_some_and(|at| at <= now);
        if self.closing {
            return;
        }
        if due || self.unacknowledged.len() >= ACKNOWLEDGE_BATCH {
            self.acknowledge_at = None;
            let tickets = std::mem::take(&mut self.unacknowledged);
            let id = self.submit(Operation::AcknowledgeCompletions { tickets }, Vec::new());
            self.internal.push(id);
        }
    }

    /// A request and all behind it were not admitted: they are sent again after a pause (rule R2).
    pub(crate) fn handle_not_admitted(&mut self, now: Tick, id: RequestId) {
        // A refusal of one that is to be sent again anyway says nothing new.
        if id < self.next_to_send && id > self.answered {
            self.next_to_send = id;
            self.backoff.grow(now);
        }
    }

    /// What was sent from `next` on may be lost: it is sent again (rule R2).
    pub(crate) fn handle_rewind(&mut self, next: RequestId) {
        if next < self.next_to_send {
            self.next_to_send = next.max(self.answered.next());
        }
    }

    /// When something is to be done without an input.
    pub(crate) fn timeout(&self, now: Tick) -> Option<Tick> {
        let resend = self
            .backoff
            .ends(now)
            .filter(|_| self.next_to_send <= self.last_submitted());
        [resend, self.acknowledge_at].into_iter().flatten().min()
    }

    /// The session is over: what is left, and whether it had left the client.
    pub(crate) fn drain(&mut self) -> Vec<(RequestId, bool)> {
        let mut left: Vec<_> = self.waits.keys().map(|id| (*id, true)).collect();
        for (place, pending) in self.pending.iter().enumerate() {
            let id = RequestId(self.answered.0 + 1 + place as u64);
            if !pending.completed && !self.internal.contains(&id) {
                left.push((id, pending.sent));
            }
        }
        self.pending.clear();
        self.waits.clear();
        left
    }
}
