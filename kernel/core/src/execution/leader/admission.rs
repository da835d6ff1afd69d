//! Which work the leader takes, in which order, and how one transaction comes about.

use folkmoot_proto::batch::{Origin, Txn};
use folkmoot_proto::client::{AttachRefused, NotAdmitted, Operation, Request};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::partition::MapOperation;
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{ConnEpoch, Digest, MemberId, Now, RequestId, SecretHash, SessionId};

use super::draft::Draft;
use super::native;
use super::operations::check_guards;
use super::{Attempt, Leader, Work};
use crate::execution::Execution;
use crate::execution::request::request_bytes;
use crate::mutation::{self, Mutation};
use crate::plugin::PluginRuntime;
use crate::state::{Session, Stamp, View, reply_bytes};

/// Native operations in one step, about: a few milliseconds, after which input is looked at again.
const NATIVE_WORK_PER_STEP: usize = 1024;

/// Streams of a session that the leader knows to be attached already: those that a client has left
/// behind at members that do not know it yet.
const ATTEMPTS_MAX: usize = 8;

/// Bytes of requests that may wait to be executed: a second's worth of large values.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What became of the piece of work at the front of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It is done.
    Done,
    /// It is done, and was this step's guest call.
    Called,
}

/// What a request meets at the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the session's next one.
    Execute,
    /// It is under way or done already: its reply comes from apply.
    Repeated,
    /// Its session is over, or is attached elsewhere (rule R15).
    Stale,
    /// One before it is missing (rule R2).
    Gap(RequestId),
    /// The session keeps as many replies as it may (rule R10).
    Full,
}

impl Execution {
    /// Takes work for the leader, if this member leads; else it is lost, as with a stream.
    fn enqueue(&mut self, work: Work) {
        let queue_max = self.config.queue_requests_max;
        let Some(leader) = &mut self.leader else {
            return;
        };
        let has_room = leader.queue.len() < queue_max && leader.queue_bytes < QUEUE_BYTES_MAX;
        if has_room || matches!(work, Work::Examined { .. }) {
            leader.push(work);
            return;
        }
        if let Work::Request {
            member,
            session,
            epoch,
            request,
        } = work
        {
            let reason = NotAdmitted::Overloaded;
            self.tell_not_admitted(member, session, epoch, request.id, reason);
        }
    }

    /// A client wants a session.
    pub(in crate::execution) fn lead_open(
        &mut self,
        attempt: Attempt,
        secret: SecretHash,
        timeout_ms: u32,
    ) {
        self.enqueue(Work::Open {
            attempt,
            secret,
            timeout_ms,
        });
    }

    /// A client resumes a session.
    pub(in crate::execution) fn lead_attach(
        &mut self,
        attempt: Attempt,
        session: SessionId,
        secret: SecretHash,
    ) {
        self.enqueue(Work::Attach {
            attempt,
            session,
            secret,
        });
    }

    /// A session attached at `member` sends a request.
    pub(in crate::execution) fn lead_request(
        &mut self,
        member: MemberId,
        session: SessionId,
        epoch: ConnEpoch,
        request: Request,
    ) {
        self.enqueue(Work::Request {
            member,
            session,
            epoch,
            request,
        });
    }

    /// A component was examined.
    pub(in crate::execution) fn lead_examined(
        &mut self,
        digest: Digest,
        result: Result<String, String>,
    ) {
        self.enqueue(Work::Examined { digest, result });
    }

    /// Whether this member leads and may execute one more transaction now.
    pub(super) fn may_execute(&self) -> bool {
        let applied = self.state().position().index;
        let may = |leader: &Leader| {
            let is_settled = (!leader.dropped && applied >= leader.execute_after)
                || mutation::is_on(Mutation::ExecuteBeforeOwnEntry);
            leader.clock.is_some() && is_settled && leader.batches.has_room()
        };
        self.leader.as_ref().is_some_and(may)
    }

    /// Whether this member leads and may execute one more request now.
    pub(super) fn may_execute_requests(&self) -> bool {
        let has_room = |leader: &Leader| leader.batches.has_room_for_requests();
        self.may_execute() && self.leader.as_ref().is_some_and(has_room)
    }

    /// Executes what is queued, with at most one guest call; answers whether there was one.
    pub(super) fn run_queue(
        &mut self,
        now: Now,
        plugins: &mut dyn PluginRuntime,
        guest_allowed: bool,
    ) -> bool {
        let mut called = false;
        let mut done = 0;
        while done < NATIVE_WORK_PER_STEP && self.may_execute_requests() {
            let guest_left = guest_allowed && !called;
            let Some(leader) = &mut self.leader else {
                break;
            };
            if leader.queue.front().is_some_and(Work::calls_guest) && !guest_left {
                break;
            }
            let Some(work) = leader.pop() else {
                break;
            };
            done += work.native_work();
            called |= self.run_work(now, work, plugins) == Turn::Called;
        }
        called
    }

    fn run_work(&mut self, now: Now, work: Work, plugins: &mut dyn PluginRuntime) -> Turn {
        match work {
            Work::Open {
                attempt,
                secret,
                timeout_ms,
            } => self.run_open(now, attempt, secret, timeout_ms),
            Work::Attach {
                attempt,
                session,
                secret,
            } => self.run_attach(now, attempt, session, secret),
            Work::Request {
                member,
                session,
                epoch,
                request,
            } => return self.run_request(now, (member, session, epoch), request, plugins),
            Work::Examined { digest, result } => self.run_examined(now, digest, result),
        }
        Turn::Done
    }

    fn run_open(&mut self, now: Now, attempt: Attempt, secret: SecretHash, timeout_ms: u32) {
        if let Some(session) = self.speculative().session_by_secret(secret) {
            return self.run_attach(now, attempt, session, secret);
        }
        let (member, _) = attempt;
        let sessions_max = u64::from(self.speculative().limits().sessions_max);
        if self.speculative().counters().sessions >= sessions_max {
            let reason = AttachRefused::TooManySessions;
            return self.tell_open_refused(member, secret, reason);
        }
        let effect = Effect::OpenSession {
            secret,
            timeout_ms,
            member,
        };
        let stamp = self.kernel_txn(now, |draft| draft.effect(effect));
        if let Some(stamp) = stamp {
            let id = SessionId(stamp.zxid.0);
            self.arm_deadline(now.tick, id, timeout_ms);
            if let Some(leader) = &mut self.leader {
                leader.remember(id, attempt);
            }
        }
    }

    /// Attaches a session that is open in the overlay and whose secret was shown. Any other is
    /// answered by the member itself, from what it has applied: only a committed entry says that a
    /// session is over (rule R15).
    fn run_attach(&mut self, now: Now, attempt: Attempt, id: SessionId, secret: SecretHash) {
        let (member, _) = attempt;
        let Some(session) = self.speculative().session(id) else {
            if mutation::is_on(Mutation::ExpiredByHearsay) {
                self.tell_expired(member, id, secret);
            }
            return;
        };
        if session.secret != secret {
            return;
        }
        let (epoch, timeout_ms) = (session.epoch, session.timeout_ms);
        let under_way = session.member == member && !self.is_applied(id, epoch);
        let Some(leader) = &mut self.leader else {
            return;
        };
        if leader.knows(id, attempt) || under_way {
            // Asked twice: its attachment is logged already, and may have ended elsewhere since. One
            // that is on its way serves a newer stream of the member as well; if it came there
            // before that stream did, that is asked for again.
            return;
        }
        let effect = Effect::AttachSession {
            session: id,
            epoch: epoch.next(),
            member,
        };
        if self.kernel_txn(now, |draft| draft.effect(effect)).is_some() {
            self.arm_deadline(now.tick, id, timeout_ms);
            if let Some(leader) = &mut self.leader {
                leader.remember(id, attempt);
            }
        }
    }

    /// Whether the committed state has this attachment.
    fn is_applied(&self, session: SessionId, epoch: ConnEpoch) -> bool {
        self.state()
            .session(session)
            .is_some_and(|session| session.epoch >= epoch)
    }

    fn run_request(
        &mut self,
        now: Now,
        (member, session, epoch): (MemberId, SessionId, ConnEpoch),
        request: Request,
        plugins: &mut dyn PluginRuntime,
    ) -> Turn {
        match self.judge(session, epoch, &request) {
            Verdict::Repeated => Turn::Done,
            Verdict::Stale => {
                if let Some(leader) = &mut self.leader {
                    leader.turned_away.insert(session);
                }
                Turn::Done
            }
            Verdict::Gap(next) => {
                self.tell_gap(member, session, epoch, next);
                Turn::Done
            }
            Verdict::Full => {
                let reason = NotAdmitted::SessionFull;
                self.tell_not_admitted(member, session, epoch, request.id, reason);
                Turn::Done
            }
            Verdict::Execute => {
                if let Some(leader) = &mut self.leader {
                    leader.told_gap.remove(&session);
                }
                self.execute(now, session, request, plugins)
            }
        }
    }

    /// Only the session's next request, seen through the overlay, and only from where the session
    /// is attached (rules R2, R15).
    fn judge(&self, session: SessionId, epoch: ConnEpoch, request: &Request) -> Verdict {
        let Some(session) = self.speculative().session(session) else {
            return Verdict::Stale;
        };
        if epoch != session.epoch && !mutation::is_on(Mutation::IgnoreEpoch) {
            return Verdict::Stale;
        }
        let next = session.last_id.next();
        if request.id < next && !mutation::is_on(Mutation::ExecuteRepeated) {
            return Verdict::Repeated;
        }
        if request.id > next && !mutation::is_on(Mutation::AcceptGap) {
            return Verdict::Gap(next);
        }
        if is_full(session, request, self.speculative()) {
            return Verdict::Full;
        }
        Verdict::Execute
    }

    fn execute(
        &mut self,
        now: Now,
        session: SessionId,
        request: Request,
        plugins: &mut dyn PluginRuntime,
    ) -> Turn {
        let calls_guest = calls_guest(&request.operation);
        let mut draft = self.begin(now);
        let kept = draft.view().session(session);
        let origin = Origin {
            session,
            request: request.id,
            acked_up_to: kept.map_or(RequestId::ZERO, |of| acknowledged(of, request.acked_up_to)),
            reply: Ok(Outcome::Synced),
        };
        let mark = draft.mark();
        let (mut draft, reply, turn) = match check_guards(&draft, &request.guards) {
            Err(refusal) => (draft, Err(refusal), Turn::Done),
            Ok(()) if calls_guest => {
                let (draft, reply) = self.call_for(now, draft, session, request, plugins);
                (draft, reply, Turn::Called)
            }
            Ok(()) => {
                let request_id = request.id;
                let reply = native::execute(&mut draft, session, request_id, request.operation);
                (draft, reply, Turn::Done)
            }
        };
        if reply.is_err() {
            draft.roll_back(mark);
        }
        self.answer(draft, Origin { reply, ..origin });
        turn
    }

    /// Ends a request's transaction: whatever the reply, it takes its place in the session's order
    /// and is logged (rule R1).
    fn answer(&mut self, draft: Draft, origin: Origin) {
        if origin.reply.is_err() && mutation::is_on(Mutation::RefusalsUnlogged) {
            self.abandon(draft);
            return self.reply_unlogged(origin.session, origin.request, origin.reply);
        }
        let (session, request) = (origin.session, origin.request);
        if let Ok(Outcome::Waiting(ticket)) = origin.reply
            && let Some(leader) = &mut self.leader
        {
            leader.asking.began(ticket);
        }
        if matches!(origin.reply, Ok(Outcome::MapChanged))
            && let Some(leader) = &mut self.leader
        {
            leader.maps.asked();
        }
        self.commit(draft, Some(origin));
        if let Some(leader) = &mut self.leader {
            leader.unapplied.insert(session, request);
        }
    }

    /// A transaction of the kernel's own. If it is refused, or does nothing, there is none.
    pub(super) fn kernel_txn(
        &mut self,
        now: Now,
        body: impl FnOnce(&mut Draft) -> Result<(), Refusal>,
    ) -> Option<Stamp> {
        let mut draft = self.begin(now);
        let mark = draft.mark();
        if body(&mut draft).is_err() {
            draft.roll_back(mark);
        }
        let stamp = draft.stamp();
        if draft.len() == 0 {
            self.abandon(draft);
            return None;
        }
        self.commit(draft, None);
        Some(stamp)
    }

    /// A transaction after all that are executed, with the times of its batch.
    pub(super) fn begin(&mut self, now: Now) -> Draft {
        let clock = self.log_time(now);
        let speculative = self.take_speculative();
        let times = self
            .leader
            .as_ref()
            .and_then(|leader| leader.batches.times());
        let (log_time, wall_time) = times.unwrap_or((clock, now.wall));
        let zxid = speculative.zxid().next();
        Draft::new(
            speculative,
            Stamp {
                zxid,
                log_time,
                wall_time,
            },
            clock,
        )
    }

    /// The draft's effects stand: it goes into the batch that is being filled.
    pub(super) fn commit(&mut self, draft: Draft, origin: Option<Origin>) {
        let stamp = draft.stamp();
        let (speculative, txn, bytes) = draft.finish(origin);
        self.return_speculative(speculative);
        self.push_txn(stamp, txn, bytes);
    }

    /// The draft has no effects and takes no zxid.
    pub(super) fn abandon(&mut self, draft: Draft) {
        self.return_speculative(draft.into_speculative());
    }

    fn push_txn(&mut self, stamp: Stamp, txn: Txn, bytes: usize) {
        let Some(leader) = &mut self.leader else {
            panic!("transaction {} was executed without leading", stamp.zxid);
        };
        let base = folkmoot_proto::Zxid(stamp.zxid.0 - 1);
        let times = (stamp.log_time, stamp.wall_time);
        leader.batches.push(base, times, txn, bytes);
    }

    fn tell_gap(
        &mut self,
        member: MemberId,
        session: SessionId,
        epoch: ConnEpoch,
        next: RequestId,
    ) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        if leader.told_gap.insert(session, epoch) == Some(epoch) {
            return;
        }
        self.tell(
            member,
            ExecutionMessage::Rewind {
                session,
                epoch,
                next,
            },
        );
    }

    fn tell_not_admitted(
        &mut self,
        member: MemberId,
        session: SessionId,
        epoch: ConnEpoch,
        id: RequestId,
        reason: NotAdmitted,
    ) {
        self.tell(
            member,
            ExecutionMessage::NotAdmitted {
                session,
                epoch,
                id,
                reason,
            },
        );
    }

    fn tell_expired(&mut self, member: MemberId, session: SessionId, secret: SecretHash) {
        self.tell(
            member,
            ExecutionMessage::AttachRefused {
                session,
                secret,
                reason: AttachRefused::UnknownSession,
                applied: self.state().position().index,
            },
        );
    }

    fn tell_open_refused(&mut self, member: MemberId, secret: SecretHash, reason: AttachRefused) {
        self.tell(member, ExecutionMessage::OpenRefused { secret, reason });
    }
}

impl Leader {
    /// Whether the session was attached for this stream in this term.
    fn knows(&self, session: SessionId, attempt: Attempt) -> bool {
        let attempts = self.attempts.get(&session);
        attempts.is_some_and(|attempts| attempts.contains(&attempt))
    }

    fn remember(&mut self, session: SessionId, attempt: Attempt) {
        if self.knows(session, attempt) {
            return;
        }
        let attempts = self.attempts.entry(session).or_default();
        if attempts.len() == ATTEMPTS_MAX {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// The session is over.
    pub(in crate::execution) fn forget_session(&mut self, session: SessionId) {
        self.attempts.remove(&session);
    }

    fn push(&mut self, work: Work) {
        self.queue_bytes += work.bytes();
        if let Work::Attach { session, .. } = work {
            *self.attaching.entry(session).or_default() += 1;
        }
        self.queue.push_back(work);
    }

    fn pop(&mut self) -> Option<Work> {
        let work = self.queue.pop_front()?;
        self.queue_bytes -= work.bytes();
        if let Work::Attach { session, .. } = work
            && let Some(count) = self.attaching.get_mut(&session)
        {
            *count -= 1;
            if *count == 0 {
                self.attaching.remove(&session);
            }
        }
        Some(work)
    }
}

impl Work {
    /// Bytes of what it carries, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Request { request, .. } => request_bytes(request),
            _ => 0,
        }
    }

    /// What it takes to execute it natively, in operations.
    fn native_work(&self) -> usize {
        match self {
            Self::Request { request, .. } => match &request.operation {
                Operation::Multi { operations } => operations.len().max(1),
                Operation::AcknowledgeCompletions { tickets } => tickets.len().max(1),
                // It may be the kernel's own, which is made at once.
                Operation::Map {
                    operation: MapOperation::Plan { policy: None },
                    ..
                } => NATIVE_WORK_PER_STEP,
                _ => 1,
            },
            _ => 1,
        }
    }

    fn calls_guest(&self) -> bool {
        matches!(self, Self::Request { request, .. } if calls_guest(&request.operation))
    }
}

/// Whether an operation runs a plugin: at most one such in a step (rule R7).
fn calls_guest(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Invoke { .. } | Operation::Mount { .. }
    )
}

/// What a request may acknowledge: neither less than before nor more than was answered.
fn acknowledged(session: &Session, acked_up_to: RequestId) -> RequestId {
    acked_up_to.clamp(session.acked_up_to, session.last_id)
}

/// Whether the session keeps as many replies as it may, those that the request acknowledges not
/// counted (rule R10).
fn is_full(session: &Session, request: &Request, view: &impl View) -> bool {
    let acked = acknowledged(session, request.acked_up_to);
    let limits = view.limits();
    if session.last_id.0 - acked.0 >= u64::from(limits.session_replies_max) {
        return true;
    }
    let bytes_max = u64::from(limits.session_reply_bytes_max);
    if session.reply_bytes < bytes_max {
        return false;
    }
    let acknowledged = (session.acked_up_to.0 + 1..=acked.0).map(RequestId);
    let replies = acknowledged.filter_map(|id| view.reply(session.id, id));
    let freed: u64 = replies.map(|kept| reply_bytes(&kept.reply)).sum();
    session.reply_bytes - freed >= bytes_max
}
