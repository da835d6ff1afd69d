//! What a client does with what it is told, and what it checks of it.

use folkmoot_core::execution::ConnectionId;
use folkmoot_proto::client::{
    AttachRefused, ClientFrame, ControlReply, NotAdmitted, ReadOutcome, ReadRefusal, ServerFrame,
    WatchEnd,
};
use folkmoot_proto::frame::to_bytes;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{ReadId, RequestId, SessionId, Ticket, WatchId, Zxid};

use super::session::{Hold, Purpose, Stage};
use super::{Client, Link};
use crate::ctx::Ctx;
use crate::history::Act;
use crate::seen::Event;
use crate::violation::{Checked, Violation};
use crate::wires::{Down, Up};

impl Client {
    /// Something arrives.
    pub(crate) fn receive(
        &mut self,
        ctx: &mut Ctx,
        connection: ConnectionId,
        down: Down,
    ) -> Checked {
        if self.paused {
            self.held.push_back((connection, down));
            return Ok(());
        }
        match &mut self.link {
            Link::Up {
                connection: current,
                heard_at,
                ..
            } if *current == connection => *heard_at = ctx.now,
            _ => return Ok(()),
        }
        match down {
            Down::Lost => self.lose_link(ctx),
            Down::StreamClosed(stream) => {
                let closed = self
                    .sessions
                    .iter_mut()
                    .find(|of| of.stream() == Some(stream));
                if let Some(session) = closed {
                    session.detach();
                }
            }
            Down::Control(reply) => return self.control(ctx, reply),
            Down::Frame(stream, frame) => {
                let place = self
                    .sessions
                    .iter()
                    .position(|of| of.stream() == Some(stream));
                if let Some(place) = place {
                    let taken = to_bytes(&frame).map_or(0, |bytes| bytes.len());
                    ctx.send_up(connection, Up::Drained(stream, taken));
                    return self.frame(ctx, place, frame);
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, ctx: &mut Ctx, reply: ControlReply) -> Checked {
        match reply {
            ControlReply::HeartbeatAck { sequence, sessions } => {
                let Some(sent) = self.heartbeats.remove(&sequence) else {
                    return Ok(());
                };
                for (id, position) in sessions {
                    let session = self.sessions.iter_mut().find(|of| of.id == Some(id));
                    if let Some(session) = session {
                        session.extend_lease(sent, position);
                    }
                }
                ctx.believes = true;
            }
            ControlReply::Leader { leader: None } if self.dice.chance(300) => self.move_away(ctx),
            _ => {}
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx, place: usize, frame: ServerFrame) -> Checked {
        match frame {
            ServerFrame::Attached {
                session,
                epoch,
                timeout_ms,
                last_id,
                zxid,
            } => {
                self.sessions[place].epoch = epoch;
                self.sessions[place].timeout_ms = timeout_ms;
                self.attached(ctx, place, session, (last_id, zxid))
            }
            ServerFrame::AttachRefused(reason) => {
                self.refused(ctx, place, &reason);
                Ok(())
            }
            ServerFrame::Reply { id, zxid, reply } => self.replied(ctx, place, id, zxid, reply),
            ServerFrame::Completion {
                ticket,
                id,
                zxid,
                reply,
            } => self.completed(ctx, place, (ticket, id), zxid, reply),
            ServerFrame::ReadReply { id, zxid, result } => self.read(ctx, place, id, zxid, result),
            ServerFrame::NotAdmitted { id, reason } => {
                ctx.seen.count(Event::NotAdmitted);
                if reason == NotAdmitted::Overloaded {
                    ctx.seen.count(Event::Overloaded);
                }
                let patience = self.dice.delay(60_000);
                let session = &mut self.sessions[place];
                session.to_send = session.to_send.min(id);
                session.patience_until = ctx.now.plus_micros(patience);
                Ok(())
            }
            ServerFrame::Rewind { next } => {
                ctx.seen.count(Event::Rewind);
                let session = &mut self.sessions[place];
                session.to_send = session.to_send.min(next);
                self.send_pending(ctx, place);
                Ok(())
            }
            ServerFrame::SessionEnded { .. } => {
                self.sessions[place].end();
                Ok(())
            }
            ServerFrame::Closing { .. } => Ok(()),
            ServerFrame::Map(update) => self.map_told(ctx, place, &update),
            watch => self.watch_frame(ctx, place, watch),
        }
    }

    fn attached(
        &mut self,
        ctx: &mut Ctx,
        place: usize,
        id: SessionId,
        (last_id, zxid): (RequestId, Zxid),
    ) -> Checked {
        let session = &mut self.sessions[place];
        let Some(stream) = session.stream() else {
            return Ok(());
        };
        if zxid < session.last_seen || session.id.is_some_and(|known| known != id) {
            return Err(Violation::new(
                "sessions",
                format!(
                    "session {:?}, which has seen zxid {}, is attached as {id} at zxid {zxid}",
                    session.id, session.last_seen
                ),
            ));
        }
        if session.id.is_some() {
            ctx.seen.count(Event::SessionMoved);
        } else {
            ctx.seen.count(Event::SessionOpened);
        }
        session.id = Some(id);
        session.last_seen = zxid;
        session.stage = Stage::Attached(stream);
        if last_id < session.answered {
            let answered = session.answered;
            return Err(Violation::new(
                "exactly_once",
                format!("session {id} is attached at {last_id}, and {answered} was answered"),
            ));
        }
        // What has no answer is sent again, and answered from what is kept (rule R10).
        session.to_send = session.answered.next();
        session.patience_until = ctx.now;
        if let Link::Up { connection, .. } = self.link {
            for (watch, watcher) in &mut session.watches {
                if watcher.position.is_some() {
                    ctx.seen.count(Event::WatchResumed);
                }
                watcher.begun = Some((session.last_asked.next(), session.last_read.next()));
                let frame = ClientFrame::Watch(watcher.frame(*watch));
                ctx.send_up(connection, Up::Frame(stream, frame));
                watcher.in_place = watcher.position.is_some();
            }
            ctx.send_up(connection, Up::Frame(stream, ClientFrame::WatchesResumed));
        }
        self.heartbeat_at = ctx.now;
        self.send_pending(ctx, place);
        Ok(())
    }

    fn refused(&mut self, ctx: &mut Ctx, place: usize, reason: &AttachRefused) {
        let session = &mut self.sessions[place];
        match reason {
            AttachRefused::UnknownSession if session.id.is_some() => session.end(),
            AttachRefused::NoLeader => {
                session.detach();
                if self.dice.chance(500) {
                    self.move_away(ctx);
                }
            }
            _ => session.detach(),
        }
    }

    fn replied(
        &mut self,
        ctx: &mut Ctx,
        place: usize,
        id: RequestId,
        zxid: Zxid,
        reply: Reply,
    ) -> Checked {
        let session = &mut self.sessions[place];
        let Some(of) = session.id else {
            return Ok(());
        };
        ctx.checks.replied((of, id), zxid, &reply)?;
        for (watch, watcher) in &session.watches {
            if watcher.in_place || watcher.begun.is_some_and(|(request, _)| id >= request) {
                ctx.checks.watch_complete(*watch, watcher, zxid)?;
            }
        }
        ctx.checks.map_complete(session.worker.as_ref(), zxid)?;
        session.last_seen = session.last_seen.max(zxid);
        if id <= session.answered {
            return Ok(());
        }
        let front = session.pending.pop_front();
        let Some(pending) = front.filter(|pending| pending.request.id == id) else {
            return Err(Violation::new(
                "exactly_once",
                format!(
                    "request {id} of session {of} is answered after request {}",
                    session.answered
                ),
            ));
        };
        session.answered = id;
        session.to_send = session.to_send.max(id.next());
        ctx.checks.real_time.written(pending.floor, zxid)?;
        ctx.seen.count(Event::Replied);
        if pending.sent > 1 {
            ctx.seen.count(Event::Retried);
        }
        self.learn(ctx, place, pending.purpose, (zxid, reply));
        Ok(())
    }

    /// What an answer means to the client.
    fn learn(
        &mut self,
        ctx: &mut Ctx,
        place: usize,
        purpose: Purpose,
        (zxid, reply): (Zxid, Reply),
    ) {
        match &reply {
            Err(Refusal::GuardFailed { .. }) => ctx.seen.count(Event::StaleTokenRefused),
            Err(Refusal::TooLarge { .. }) => ctx.seen.count(Event::CapReached),
            Err(_) => ctx.seen.count(Event::Refused),
            Ok(_) => {}
        }
        if let (Purpose::Register(register, operation), Ok(_)) = (&purpose, &reply) {
            ctx.history.done(*register, *operation, ctx.now);
        }
        if purpose == Purpose::Setup {
            self.workload.set_up(&reply);
        }
        match (reply, purpose) {
            (Ok(Outcome::Waiting(ticket)), purpose) => {
                ctx.seen.count(Event::WaitBegun);
                let lock = match purpose {
                    Purpose::Acquire(lock) => Some(lock),
                    _ => None,
                };
                let session = &mut self.sessions[place];
                if !session.ended.contains(&ticket) {
                    session.waits.insert(ticket, lock);
                }
            }
            (Ok(Outcome::Invoked(grant)), Purpose::Acquire(lock)) => {
                self.granted(ctx, place, lock, &grant);
            }
            // The plugin's own "no" means that it is not held; any other, that nothing was done.
            (Err(refusal), Purpose::Release(hold))
                if !matches!(refusal, Refusal::Rejected { .. })
                    && !self.sessions[place].closing =>
            {
                self.sessions[place].given_back.remove(&hold.token);
                self.sessions[place].holds.push(hold);
                ctx.believes = true;
            }
            (reply, Purpose::Join) => self.joined(ctx, place, zxid, reply.is_ok()),
            (_, Purpose::Report) => {
                if let Some(worker) = &mut self.sessions[place].worker {
                    worker.reporting = false;
                }
            }
            (Ok(Outcome::SessionClosed), _) => {
                ctx.seen.count(Event::SessionClosed);
                self.sessions[place].end();
            }
            _ => {}
        }
    }

    /// A lock is this session's.
    fn granted(&mut self, ctx: &mut Ctx, place: usize, lock: String, grant: &[u8]) {
        let session = &mut self.sessions[place];
        let Some(token) = token_of(grant) else {
            return;
        };
        let is_old = session.closing || session.given_back.contains(&token);
        if is_old || session.holds.iter().any(|hold| hold.lock == lock) {
            return;
        }
        session.holds.push(Hold { lock, token });
        ctx.seen.count(Event::LockAcquired);
        ctx.believes = true;
    }

    fn completed(
        &mut self,
        ctx: &mut Ctx,
        place: usize,
        (ticket, id): (Ticket, RequestId),
        zxid: Zxid,
        reply: Reply,
    ) -> Checked {
        let session = &mut self.sessions[place];
        let Some(of) = session.id else {
            return Ok(());
        };
        ctx.checks.completed((of, id, ticket), zxid, &reply)?;
        for (watch, watcher) in session.watches.iter().filter(|(_, of)| of.in_place) {
            ctx.checks.watch_complete(*watch, watcher, zxid)?;
        }
        ctx.checks.map_complete(session.worker.as_ref(), zxid)?;
        ctx.checks.real_time.seen(zxid);
        session.last_seen = session.last_seen.max(zxid);
        if !session.ended.insert(ticket) {
            return Ok(());
        }
        session.to_acknowledge.push(ticket);
        ctx.seen.count(Event::WaitCompleted);
        if ctx.checks.survived(ticket) {
            ctx.seen.count(Event::WaitSurvived);
        }
        let lock = match session.waits.remove(&ticket) {
            Some(lock) => lock,
            // On a new stream it may come before the answer that says that it is waited for.
            None => session.asked_for(id),
        };
        match (lock, &reply) {
            (Some(lock), Ok(Outcome::Invoked(grant))) => self.granted(ctx, place, lock, grant),
            (None, reply) => self.workload.set_up(reply),
            _ => {}
        }
        Ok(())
    }

    fn read(
        &mut self,
        ctx: &mut Ctx,
        place: usize,
        id: ReadId,
        zxid: Zxid,
        result: Result<ReadOutcome, ReadRefusal>,
    ) -> Checked {
        let session = &mut self.sessions[place];
        let Some(read) = session.reads.remove(&id) else {
            return Ok(());
        };
        if let Err(ReadRefusal::NoLeader | ReadRefusal::TooManyViews | ReadRefusal::TooManyReads) =
            result
        {
            return Ok(());
        }
        if session.answered < read.after {
            return Err(Violation::new(
                "reads",
                format!(
                    "{read:?} is answered after request {} only",
                    session.answered
                ),
            ));
        }
        ctx.checks.read(&read.query, (read.floor, zxid), &result)?;
        for (watch, watcher) in &session.watches {
            if watcher.in_place || watcher.begun.is_some_and(|(_, read)| id >= read) {
                ctx.checks.watch_complete(*watch, watcher, zxid)?;
            }
        }
        ctx.checks.map_complete(session.worker.as_ref(), zxid)?;
        session.last_seen = session.last_seen.max(zxid);
        ctx.checks.real_time.seen(zxid);
        ctx.seen.count(match read.linearizable {
            true => Event::LinearizableRead,
            false => Event::LocalRead,
        });
        if let Some((register, operation)) = read.register {
            let value = match &result {
                Ok(ReadOutcome::Node { data, .. }) => data
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
                _ => 0,
            };
            ctx.history
                .heard(register, operation, Act::Read(value), ctx.now);
        }
        Ok(())
    }

    fn watch_frame(&mut self, ctx: &mut Ctx, place: usize, frame: ServerFrame) -> Checked {
        match frame {
            ServerFrame::Events {
                watch,
                zxid,
                changes,
                last,
            } => {
                let Some(watcher) = self.sessions[place].watches.get_mut(&watch) else {
                    return Ok(());
                };
                watcher.half.changes.extend(changes);
                if last {
                    let changes = std::mem::take(&mut watcher.half.changes);
                    ctx.checks.watch_told(watch, watcher, zxid, &changes)?;
                    watcher.position = Some(zxid);
                    watcher.in_place = true;
                    ctx.seen.count(Event::WatchEvents);
                }
            }
            ServerFrame::WatchSnapshot {
                watch,
                zxid,
                nodes,
                last,
            } => {
                let Some(watcher) = self.sessions[place].watches.get_mut(&watch) else {
                    return Ok(());
                };
                watcher.half.nodes.extend(nodes);
                if last {
                    let nodes = std::mem::take(&mut watcher.half.nodes);
                    ctx.checks.watch_snapshot(watch, watcher, zxid, &nodes)?;
                    watcher.position = Some(zxid);
                    watcher.in_place = true;
                }
            }
            ServerFrame::Progress { watch, zxid } => {
                let Some(watcher) = self.sessions[place].watches.get_mut(&watch) else {
                    return Ok(());
                };
                ctx.checks.watch_complete(watch, watcher, zxid)?;
                watcher.position = watcher.position.max(Some(zxid));
                watcher.in_place = true;
            }
            ServerFrame::WatchEnded { watch, reason } => {
                self.watch_ended(ctx, place, watch, &reason);
            }
            _ => {}
        }
        Ok(())
    }

    /// A watch that can not go on begins anew, with a snapshot where history is gone.
    fn watch_ended(&mut self, ctx: &mut Ctx, place: usize, watch: WatchId, reason: &WatchEnd) {
        let session = &mut self.sessions[place];
        let (Some(mut watcher), Some(stream)) = (session.watches.remove(&watch), session.stream())
        else {
            return;
        };
        if let WatchEnd::Compacted { .. } = reason {
            ctx.seen.count(Event::WatchCompacted);
            watcher.position = None;
        }
        if let WatchEnd::TooSlow { .. } = reason {
            ctx.seen.count(Event::WatchTooSlow);
        }
        if matches!(
            reason,
            WatchEnd::Unwatched | WatchEnd::BadPath { .. } | WatchEnd::TooMany
        ) {
            return;
        }
        let next = session
            .watches
            .last_key_value()
            .map_or(WatchId(1), |(id, _)| id.next());
        let next = next.max(watch.next());
        watcher.detach();
        watcher.begun = Some((session.last_asked.next(), session.last_read.next()));
        if let Link::Up { connection, .. } = self.link {
            let frame = ClientFrame::Watch(watcher.frame(next));
            ctx.send_up(connection, Up::Frame(stream, frame));
        }
        session.watches.insert(next, watcher);
    }
}

/// The token in a grant of the lock recipe.
pub(crate) fn token_of(grant: &[u8]) -> Option<Zxid> {
    let text = String::from_utf8_lossy(grant);
    let (_, rest) = text.split_once("\"token\":")?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
    rest[..end].parse().ok().map(Zxid)
}
