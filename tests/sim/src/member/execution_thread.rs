//! The execution's thread: apply, serve, and at most one guest call in a turn (rule R7).

use folkmoot_core::checkpoint::CheckpointStore as _;
use folkmoot_core::execution::ExecutionAction;
use folkmoot_proto::peer::PeerMessage;
use folkmoot_proto::{MemberId, Term};

use super::engine::Engine;
use super::{Member, SnapshotParcel, Thread, ToExecution, ToLog, ToNetwork};
use crate::ctx::{Ctx, Happening};
use crate::network::PeerStream;
use crate::seen::Event;
use crate::violation::{Checked, Violation};
use crate::wires::Down;

impl Member {
    /// Execution takes what has come in and does one step.
    pub(super) fn execution_turn(&mut self, ctx: &mut Ctx) -> Checked {
        if self.engine().is_none() {
            return Ok(());
        }
        let inputs = self
            .process
            .as_mut()
            .map(|process| std::mem::take(&mut process.to_execution));
        for input in inputs.unwrap_or_default() {
            self.execution_input(ctx, input)?;
        }
        let now = self.clock.now(ctx.now);
        let more = self.engine_mut().is_some_and(|engine| engine.step(now));
        while let Some(action) = self.engine_mut().and_then(Engine::poll_action) {
            self.execution_action(ctx, action)?;
        }
        self.executed(ctx)?;
        if more {
            self.wake(ctx, Thread::Execution);
        } else if let Some(due) = self.engine().and_then(Engine::poll_timeout) {
            self.wake_at(ctx, Thread::Execution, self.clock.moment_of(due));
        }
        Ok(())
    }

    fn engine_mut(&mut self) -> Option<&mut Engine> {
        self.process.as_mut()?.engine.as_mut()
    }

    fn execution_input(&mut self, ctx: &mut Ctx, input: ToExecution) -> Checked {
        let now = self.clock.now(ctx.now);
        match input {
            ToExecution::MakeSnapshot { to, term } => self.send_snapshot(ctx, to, term),
            ToExecution::Installed(engine) => self.swap_engine(ctx, *engine),
            ToExecution::CheckpointDone => self.checkpoint_done(ctx),
            other => {
                let handled = self
                    .engine_mut()
                    .map_or(Ok(()), |engine| engine.handle(now, other));
                handled.map_err(|reason| {
                    Violation::new(
                        "state_machine_safety",
                        format!("member {}: {reason}", self.id),
                    )
                })?;
            }
        }
        Ok(())
    }

    fn execution_action(&mut self, ctx: &mut Ctx, action: ExecutionAction) -> Checked {
        match action {
            ExecutionAction::Propose { batch } => self.give_network(ctx, ToNetwork::Propose(batch)),
            ExecutionAction::ReadBarrier { context } => {
                ctx.checks.read_asked(context);
                self.give_network(ctx, ToNetwork::ReadBarrier(context));
            }
            ExecutionAction::ToPeer { to, message } => {
                ctx.send(
                    PeerStream::Ordered,
                    (self.id, to),
                    PeerMessage::Execution(message),
                );
            }
            ExecutionAction::ToStream { stream, frame } => {
                ctx.send_down(Some(stream), None, Down::Frame(stream, frame));
            }
            ExecutionAction::CloseStream { stream } => {
                ctx.send_down(Some(stream), None, Down::StreamClosed(stream));
            }
            ExecutionAction::ToControl { connection, reply } => {
                ctx.send_down(None, Some(connection), Down::Control(reply));
            }
            ExecutionAction::ToAllControls { reply } => {
                for connection in ctx.wires.to_member(self.id) {
                    ctx.send_down(None, Some(connection), Down::Control(reply.clone()));
                }
            }
            ExecutionAction::ExamineComponent { digest, .. } => {
                self.later(ctx, 30_000, ToExecution::Examined { digest });
            }
            ExecutionAction::AskPolicy { id, call } => {
                if crate::policies::shows_loads(&call) {
                    ctx.seen.count(Event::LoadsShown);
                }
                let real = self.engine_mut().and_then(Engine::real);
                let fails = real.is_some_and(|real| real.runtime.may_fail());
                if let Some(answer) = crate::policies::answer(&call, &mut self.dice, fails) {
                    self.later(ctx, 40_000, ToExecution::Policy { id, answer });
                }
            }
            ExecutionAction::CompileComponent { digest, .. } => {
                self.later(ctx, 60_000, ToExecution::Compiled { digest });
            }
            ExecutionAction::Stop { reason } => {
                return Err(Violation::new(
                    "stopped",
                    format!("member {} stops itself: {reason}", self.id),
                ));
            }
            ExecutionAction::HashAlarm { peer, index } => {
                return Err(Violation::new(
                    "state_hash",
                    format!(
                        "member {} sees another state at member {peer}, entry {index}",
                        self.id
                    ),
                ));
            }
            ExecutionAction::ForgetComponent { .. } | ExecutionAction::GuestLog { .. } => {}
        }
        Ok(())
    }

    /// Work beside the threads, which takes its time.
    fn later(&mut self, ctx: &mut Ctx, micros: u64, input: ToExecution) {
        let at = ctx.now.plus_micros(self.dice.delay(micros));
        let (member, life) = (self.id, self.life);
        ctx.queue.push(
            at,
            Happening::WorkDone {
                member,
                life,
                input,
            },
        );
    }

    /// What execution has applied is checked, and made a checkpoint of now and then.
    fn executed(&mut self, ctx: &mut Ctx) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(engine) = &mut process.engine else {
            return Ok(());
        };
        let applied = engine.applied();
        ctx.checks.applied(self.id, applied)?;
        if let Some(real) = engine.real() {
            real.count(&mut ctx.seen);
            if let Some(difference) = real.runtime.difference.take() {
                return Err(Violation::new("warm_as_fresh", difference));
            }
        }
        let due = process.checkpointed.0 + self.personality.checkpoint_every;
        let is_due = applied.index.0 >= due || engine.has_room_behind().is_none();
        if is_due && process.checkpoint.is_none() && !process.installing {
            process.checkpointed = applied.index;
            process.checkpoint = Some(engine.checkpoint());
            self.later(ctx, 20_000, ToExecution::CheckpointDone);
        }
        self.tell_applied(ctx);
        Ok(())
    }

    /// Tells consensus how far execution is, if it takes more.
    fn tell_applied(&mut self, ctx: &mut Ctx) {
        let Some(process) = &mut self.process else {
            return;
        };
        let has_room = process.engine.as_ref().and_then(Engine::has_room_behind);
        if let Some(index) = has_room
            && index != process.told_applied
        {
            process.told_applied = index;
            self.give_network(ctx, ToNetwork::Applied(index));
        }
    }

    fn checkpoint_done(&mut self, ctx: &mut Ctx) {
        let pending = self
            .process
            .as_mut()
            .and_then(|process| process.checkpoint.take());
        let Some(pending) = pending else {
            return;
        };
        let meta = pending.meta.clone();
        self.write_checkpoint(ctx, pending);
        self.give_log(ctx, ToLog::Compact(meta));
    }

    /// A snapshot was installed: what clients had here is gone with the old execution, so their
    /// connections are closed and they come again.
    fn swap_engine(&mut self, ctx: &mut Ctx, mut engine: Engine) {
        if let Some(process) = &mut self.process {
            if let Some(former) = &process.engine {
                engine.take_over_from(former);
            }
            process.checkpointed = engine.applied().index;
            process.engine = Some(engine);
        }
        for connection in ctx.wires.to_member(self.id) {
            ctx.cut_wire(connection);
        }
    }

    fn send_snapshot(&mut self, ctx: &mut Ctx, to: MemberId, term: Term) {
        let Some((meta, records)) = self.engine_mut().and_then(Engine::snapshot) else {
            return;
        };
        let parcel = SnapshotParcel {
            from: self.id,
            to,
            from_life: self.life,
            link_epoch: ctx.network.epoch(self.id, to),
            term,
            meta,
            records,
        };
        let takes = self.dice.delay(30_000);
        ctx.queue.push(
            ctx.now.plus_micros(takes),
            Happening::Snapshot(Box::new(parcel)),
        );
    }

    /// A peer's snapshot has arrived as a whole. False if it was not taken: until consensus has
    /// decided on one, the next is refused, as the checkpoint thread of a member does.
    pub(crate) fn receive_snapshot(&mut self, ctx: &mut Ctx, parcel: SnapshotParcel) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        if process.installing || self.paused || process.consensus.is_none() {
            return false;
        }
        let Ok(mut writer) = self.store.begin_full(parcel.meta.clone()) else {
            return false;
        };
        if writer
            .write(parcel.records)
            .and_then(|()| writer.finish())
            .is_err()
        {
            return false;
        }
        process.installing = true;
        let SnapshotParcel {
            from,
            from_life,
            term,
            meta,
            ..
        } = parcel;
        let input = ToNetwork::SnapshotReceived {
            from,
            from_life,
            term,
            meta,
        };
        self.give_network(ctx, input);
        ctx.seen.count(Event::SnapshotReceived);
        true
    }
}
