//! The log's thread: everything that waits goes out with one sync; what is durable comes back.

use folkmoot_core::log::{DiskError, DiskOpKind, LogReadError};
use folkmoot_proto::LogIndex;

use super::start::LogPort;
use super::{Member, ToLog, ToNetwork};
use crate::ctx::{Ctx, Happening};
use crate::faults::Fault;
use crate::seen::Event;
use crate::violation::Checked;

impl Member {
    pub(super) fn log_turn(&mut self, ctx: &mut Ctx) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let inputs = std::mem::take(&mut process.to_log);
        let mut failed = None;
        for input in inputs {
            if let Err(reason) = self.log_input(ctx, input) {
                failed = Some(reason);
                break;
            }
        }
        if let Some(reason) = failed {
            self.end_process(ctx, &reason);
            return Ok(());
        }
        match self.process.as_ref().map(|process| &process.log) {
            Some(LogPort::Model) => {
                self.begin(ctx)?;
                self.start_sync(ctx);
            }
            Some(LogPort::Real(_)) => self.run_log(ctx)?,
            None => {}
        }
        Ok(())
    }

    /// Takes an input; an error ends the process (rule R22).
    fn log_input(&mut self, ctx: &mut Ctx, input: ToLog) -> Result<(), String> {
        let Self {
            process,
            disk,
            model,
            ..
        } = self;
        let Some(process) = process else {
            return Ok(());
        };
        match (&mut process.log, input) {
            (LogPort::Model, ToLog::Append(id, records)) => model.append(id, records),
            (LogPort::Real(log), ToLog::Append(id, records)) => log.append(id, records),
            (LogPort::Model, ToLog::Read(ask)) => {
                let read = model.read(ask);
                self.give_network(ctx, ToNetwork::LogRead(read));
            }
            (LogPort::Real(log), ToLog::Read(ask)) => {
                let read = log.read(disk, ask.from, ask.to, ask.bytes_max);
                let read = ask.answer(read.map_err(|error: LogReadError| error.to_string())?);
                self.give_network(ctx, ToNetwork::LogRead(read));
            }
            (LogPort::Model, ToLog::Compact(meta)) => {
                model.compact(&meta);
                self.compacted(ctx, meta.index);
            }
            (LogPort::Real(log), ToLog::Compact(meta)) => {
                log.compact(meta.index);
                self.compacted(ctx, meta.index);
            }
            (_, ToLog::Synced) => {
                process.syncing = false;
                if let Some(id) = model.sync() {
                    self.give_network(ctx, ToNetwork::Durable(id));
                }
            }
            (LogPort::Real(log), ToLog::Done(op, result)) => {
                log.handle_done(op, result)
                    .map_err(|error| error.to_string())?;
            }
            (LogPort::Model, ToLog::Done(..)) => {}
        }
        Ok(())
    }

    fn compacted(&mut self, ctx: &mut Ctx, up_to: LogIndex) {
        self.give_network(ctx, ToNetwork::Compacted(up_to));
    }

    /// Hands the log's operations to the disk, and what is durable to consensus.
    fn run_log(&mut self, ctx: &mut Ctx) -> Checked {
        let mut durable = None;
        let mut started = false;
        if let Some(process) = &mut self.process
            && let LogPort::Real(log) = &mut process.log
        {
            started = log.is_started();
            while let Some(op) = log.poll_op() {
                let id = op.id;
                if let DiskOpKind::Remove { .. } | DiskOpKind::Rename { .. } = op.kind
                    && started
                {
                    ctx.seen.count(Event::SegmentDropped);
                }
                let takes = self.disk.begin(op);
                let (member, life) = (self.id, self.life);
                ctx.queue.push(
                    ctx.now.plus_micros(takes),
                    Happening::DiskDone {
                        member,
                        life,
                        op: id,
                    },
                );
            }
            durable = log.poll_durable();
            started = log.is_started();
        }
        if let Some(id) = durable {
            self.give_network(ctx, ToNetwork::Durable(id));
        }
        if started {
            self.begin(ctx)?;
        }
        Ok(())
    }

    fn start_sync(&mut self, ctx: &mut Ctx) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.syncing || !self.model.has_pending() {
            return;
        }
        process.syncing = true;
        let takes = self.dice.delay(self.personality.sync);
        let (member, life) = (self.id, self.life);
        ctx.queue.push(
            ctx.now.plus_micros(takes),
            Happening::Synced { member, life },
        );
    }

    /// The log's disk failed: the process ends, as rule R22 asks, and is started again.
    fn end_process(&mut self, ctx: &mut Ctx, reason: &str) {
        let is_full = reason.contains(&DiskError::Full.to_string());
        ctx.seen.count(match is_full {
            true => Event::DiskFull,
            false => Event::SyncFailed,
        });
        ctx.trace.note(ctx.now, "fails", [self.id.0], || {
            format!("{}: {reason}", self.id)
        });
        ctx.queue
            .push(ctx.now, Happening::Fault(Fault::End(self.id)));
        let again = self.dice.between(100_000, 2_000_000);
        ctx.queue.push(
            ctx.now.plus_micros(again),
            Happening::Fault(Fault::Start(self.id)),
        );
        if let Some(process) = &mut self.process {
            process.to_log.clear();
        }
    }
}
