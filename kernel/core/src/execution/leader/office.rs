//! A leader's office: its rounds, what commits to it, what it throws away.

use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::{
    LogIndex, LogTime, MemberId, MountId, Now, RequestId, SessionId, Term, Tick, Zxid,
};

use super::Leader;
use super::asking::Asking;
use super::partitions::Maps;
use crate::execution::clock::{LogClock, PULSE_MS};
use crate::execution::{Execution, ExecutionAction, Progress};
use crate::mutation::{self, Mutation};
use crate::plugin::PluginRuntime;
use crate::state::{AppliedTxn, Notice, View};

impl Leader {
    /// Looks at the monotonic clock, so that only what this process slept through counts as a
    /// stall.
    pub(in crate::execution) fn look(&mut self, now: Tick) {
        self.active.look(now);
    }

    /// A stream broke: what sessions were told of gaps may be lost with it.
    pub(in crate::execution) fn forget_gaps(&mut self) {
        self.told_gap.clear();
    }
}

impl Execution {
    /// One step of the leader: what is due, what is queued, at most one guest call, and a batch.
    pub(in crate::execution) fn lead(
        &mut self,
        now: Now,
        plugins: &mut dyn PluginRuntime,
    ) -> Progress {
        if self.leader.is_none() {
            return Progress::Idle;
        }
        self.begin_touch_round(now.tick);
        self.run_due_waits(now);
        self.run_timers(now);
        self.run_due_uploads(now);
        self.run_detectors(now);
        self.run_expiries(now);
        self.run_asking(now);
        self.run_maps(now);
        self.run_calls_and_queue(now, plugins);
        self.propose();
        let event_ready = self.may_execute() && self.next_event_mount(now, plugins).is_some();
        let map_ready = self.may_execute() && self.maps_ready();
        let queued = |leader: &Leader| !leader.queue.is_empty();
        let request_ready = self.may_execute_requests() && self.leader.as_ref().is_some_and(queued);
        if event_ready || request_ready || map_ready {
            Progress::More
        } else {
            Progress::Idle
        }
    }

    /// Executes what is queued and hands over an event, whose calls take turns with those of
    /// requests. The turn stays where it is while nothing can be executed: else requests that fill
    /// each batch would keep it.
    fn run_calls_and_queue(&mut self, now: Now, plugins: &mut dyn PluginRuntime) {
        let could_execute = self.may_execute();
        let turn = |leader: &Leader| leader.events_turn;
        let events_first = self.leader.as_ref().is_some_and(turn);
        let mut by_event = events_first && self.run_event(now, plugins);
        let by_request = self.run_queue(now, plugins, !by_event);
        if !by_event && !by_request {
            by_event = self.run_event(now, plugins);
        }
        if could_execute && let Some(leader) = &mut self.leader {
            leader.events_turn = !by_event;
        }
    }

    /// Hands over what is executed, whenever fewer than the most batches are in flight.
    fn propose(&mut self) {
        let cut = |leader: &mut Leader| leader.batches.cut();
        while let Some(batch) = self.leader.as_mut().and_then(cut) {
            self.act(ExecutionAction::Propose { batch });
        }
    }

    /// An entry was applied: its batch is no longer in flight.
    /// The first one of the term starts the clocks (rules R9, R16).
    pub(in crate::execution) fn lead_applied(
        &mut self,
        now: Now,
        entry: &Entry,
        txns: &[AppliedTxn],
    ) {
        let is_overlay_empty = self.speculative().overlay_txns() == 0;
        let Some(leader) = &mut self.leader else {
            return;
        };
        if entry.term == leader.term && entry.kind == EntryKind::Batch {
            leader.batches.applied(entry.last_zxid, &entry.payload);
        }
        self.maps_applied(txns);
        let Some(leader) = &mut self.leader else {
            return;
        };
        for origin in txns.iter().filter_map(|txn| txn.origin.as_ref()) {
            if leader.unapplied.get(&origin.session) == Some(&origin.request) {
                leader.unapplied.remove(&origin.session);
            }
        }
        for notice in txns.iter().flat_map(|txn| &txn.notices) {
            if let Notice::SessionClosed { session, .. } = notice {
                leader.deadlines.remove(*session);
            }
        }
        if let Some(speculative) = &self.speculative {
            leader.detection.applied(speculative.base(), txns);
        }
        if is_overlay_empty {
            leader.turned_away.clear();
        }
        if entry.term == leader.term && leader.clock.is_none() {
            self.start_clocks(now.tick);
        }
    }

    pub(in crate::execution) fn start_clocks(&mut self, now: Tick) {
        let base = if mutation::is_on(Mutation::LogClockRestarts) {
            LogTime(now.0 / 1000)
        } else {
            self.state().log_time()
        };
        if let Some(leader) = &mut self.leader {
            leader.clock = Some(LogClock::starting(base, now));
        }
        self.arm_all(now);
        self.examine_sealed();
    }

    /// Counts the timeout of every session that has no deadline from now on.
    fn arm_all(&mut self, now: Tick) {
        for id in self.state().sessions() {
            let timeout_ms = self.state().session(id).map(|session| session.timeout_ms);
            let unarmed = |leader: &Leader| !leader.deadlines.is_armed(id);
            if let Some(timeout_ms) = timeout_ms
                && self.leader.as_ref().is_some_and(unarmed)
                && !self.resume_deadline(now, id, timeout_ms)
            {
                self.arm_deadline(now, id, timeout_ms);
            }
        }
    }

    /// Once the last entry that was appended before the overlay was thrown away is applied, what it
    /// took with it is asked for again.
    pub(in crate::execution) fn go_on(&mut self, now: Tick, applied: LogIndex) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        let is_settled = applied >= leader.execute_after && leader.batches.all_answered();
        if !leader.dropped || !is_settled {
            return;
        }
        leader.dropped = false;
        let sessions = core::mem::take(&mut leader.to_rewind);
        self.arm_all(now);
        self.examine_sealed();
        for session in sessions {
            self.tell_rewind(session);
        }
    }

    fn tell_rewind(&mut self, id: SessionId) {
        let Some(session) = self.state().session(id) else {
            return;
        };
        let (member, epoch, next) = (session.member, session.epoch, session.last_id.next());
        if let Some(leader) = &mut self.leader {
            leader.told_gap.insert(id, epoch);
        }
        self.tell(
            member,
            ExecutionMessage::Rewind {
                session: id,
                epoch,
                next,
            },
        );
    }

    /// A batch was not appended: what was executed after it stands on nothing (rule R3). Nothing is
    /// executed before every older proposal is applied or refused, too: else one that was proposed
    /// anew, and then thrown away for an older refusal, could be appended all the same, and another
    /// of its zxid be executed.
    pub(in crate::execution) fn propose_refused(&mut self, term: Term, last_appended: LogIndex) {
        if mutation::is_on(Mutation::KeepOverlay) {
            return;
        }
        let applied = self.state().position().index;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else {
            return;
        };
        leader.batches.refused();
        leader.batches.drop_all();
        leader.execute_after = leader.execute_after.max(last_appended);
        leader.dropped = true;
        let executed: Vec<_> = core::mem::take(&mut leader.unapplied).into_keys().collect();
        leader.to_rewind.extend(executed);
        leader.to_rewind.append(&mut leader.turned_away);
        leader.examining.clear();
        leader.attempts.clear();
        // What its controllers took up was in the overlay: they look at everything anew.
        leader.maps = Maps::default();
        leader.told_gap.clear();
        self.drop_overlay();
        self.forget_dropped();
        self.go_on(self.last_tick, applied);
    }

    /// What has its name from a transaction that was thrown away, another one's thing may be named by
    /// next: nothing that is kept of the one is to be taken for the other's. What is in the log and not
    /// applied yet is met anew.
    fn forget_dropped(&mut self) {
        let (Some(leader), Some(speculative)) = (&mut self.leader, &self.speculative) else {
            return;
        };
        let base = speculative.zxid();
        let is_there = |session: SessionId| speculative.session(session).is_some();
        leader.deadlines.retain(is_there);
        leader.detection.overlay_dropped(base, is_there);
        leader.health.retain(|mount| mount.0 <= base.0);
        leader.asking = Asking::default();
        self.asked.retain(|_, asked| asked.detector() <= base);
    }

    fn begin_touch_round(&mut self, now: Tick) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        let active = leader.active.look(now);
        let is_due = leader.deadlines.next().is_some_and(|next| next <= active);
        if !leader.touches.wants_round(now, is_due) {
            return;
        }
        let context = self.next_context();
        let interval_ms = self.config.touch_round_ms;
        let revoked = self.state().last_revoke();
        if let Some(leader) = &mut self.leader {
            leader.round_revoked = revoked;
            let touches = &mut leader.touches;
            touches.begin_round(context, (now, active), interval_ms);
        }
        self.act(ExecutionAction::ReadBarrier { context });
    }

    /// A read barrier that is a touch round's holds. False if it is another's.
    pub(in crate::execution) fn touches_ready(&mut self, context: ReadContext) -> bool {
        let leader = self.leader.as_mut();
        let Some(touches) = leader.and_then(|leader| leader.touches.finish_round(context)) else {
            return false;
        };
        for touch in touches {
            self.accept_touch(touch);
        }
        true
    }

    /// A read barrier that is a touch round's was lost. False if it is another's.
    pub(in crate::execution) fn touches_lost(&mut self, context: ReadContext) -> bool {
        let leader = self.leader.as_mut();
        leader.is_some_and(|leader| leader.touches.lose_round(context))
    }

    pub(super) fn tell_touched(
        &mut self,
        member: MemberId,
        sequence: u64,
        sessions: Vec<SessionId>,
    ) {
        let revoked = |leader: &Leader| leader.round_revoked;
        let revoked = self.leader.as_ref().map_or(Zxid::ZERO, revoked);
        self.tell(
            member,
            ExecutionMessage::TouchAck {
                sequence,
                sessions,
                revoked,
            },
        );
    }

    pub(super) fn leader_term(&self) -> Term {
        self.leader.as_ref().map_or(Term::ZERO, Leader::term)
    }

    /// The log time at `now`. It never goes back.
    pub(super) fn log_time(&self, now: Now) -> LogTime {
        let clock = self.leader.as_ref().and_then(|leader| leader.clock);
        let executed = self.speculative().log_time();
        clock
            .map_or(executed, |clock| clock.at(now.tick))
            .max(executed)
    }

    /// The log time of the next transaction: that of its batch, where one is being filled.
    pub(super) fn txn_log_time(&self, now: Now) -> LogTime {
        let times = self
            .leader
            .as_ref()
            .and_then(|leader| leader.batches.times());
        times.map_or_else(|| self.log_time(now), |(log_time, _)| log_time)
    }

    /// When the leader has something to do, if nothing comes in before.
    pub(in crate::execution) fn leader_timeout(&self) -> Option<Tick> {
        let leader = self.leader.as_ref()?;
        let round = leader.touches.next_timeout();
        let pulse = (leader.deadlines.next()).map(|_| self.last_tick.plus_millis(PULSE_MS / 2));
        let due = self.may_execute().then(|| self.next_execution()).flatten();
        let maps = self.may_execute().then(|| self.maps_timeout()).flatten();
        let asking = self.may_execute().then(|| leader.asking.timeout());
        let asking = asking.flatten().filter(|due| *due > self.last_tick);
        let due = due.into_iter().chain(maps).chain(asking);
        round.into_iter().chain(pulse).chain(due).min()
    }

    /// When a wait, a timer or an event is due. What was due at the last step and was not done
    /// waits for something else, which comes as an input.
    fn next_execution(&self) -> Option<Tick> {
        let clock = self.leader.as_ref()?.clock?;
        let timed = self.speculative().next_due().map(|due| clock.tick_of(due));
        let event = self.next_event_due(self.last_tick);
        let later = timed
            .into_iter()
            .chain(event)
            .filter(|due| *due > self.last_tick);
        later.min()
    }

    /// A mount is gone.
    pub(in crate::execution) fn lead_unmounted(&mut self, mount: MountId) {
        if let Some(leader) = &mut self.leader {
            leader.health.forget(mount);
        }
    }

    /// For the mutation that logs no refusal.
    pub(super) fn reply_unlogged(
        &mut self,
        session: SessionId,
        id: RequestId,
        reply: folkmoot_proto::reply::Reply,
    ) {
        let zxid = self.state().zxid();
        self.send_to_session(
            session,
            folkmoot_proto::client::ServerFrame::Reply { id, zxid, reply },
        );
    }
}
