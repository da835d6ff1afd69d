//! The network's thread: consensus takes what has come in, and its actions go out.

use folkmoot_core::checkpoint::CheckpointStore as _;
use folkmoot_core::consensus::{Action, Role};
use folkmoot_core::execution::ConsensusEvent;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::MemberId;
use folkmoot_proto::peer::{ConsensusMessage, PeerMessage};
use folkmoot_proto::record::StateMeta;

use super::{LogAsk, Member, Thread, ToExecution, ToLog, ToNetwork};
use crate::ctx::{Ctx, Happening};
use crate::network::PeerStream;
use crate::seen::Event;
use crate::violation::{Checked, Violation};

/// Appends and their answers keep their order; votes, heartbeats and reads may overtake them.
fn stream_of(message: &ConsensusMessage) -> PeerStream {
    match message {
        ConsensusMessage::Append { .. } | ConsensusMessage::AppendReply { .. } => {
            PeerStream::Ordered
        }
        _ => PeerStream::Priority,
    }
}

impl Member {
    /// Consensus takes what has come in.
    pub(super) fn network_turn(&mut self, ctx: &mut Ctx) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if process.consensus.is_none() {
            return Ok(());
        }
        let inputs = process
            .to_network
            .len()
            .min(self.personality.network_inputs);
        let inputs: Vec<_> = process.to_network.drain(..inputs).collect();
        if !process.to_network.is_empty() {
            self.wake(ctx, Thread::Network);
        }
        for input in inputs {
            self.network_input(ctx, input);
            self.consensus_actions(ctx)?;
        }
        let tick = self.clock.tick(ctx.now);
        if let Some(consensus) = self
            .process
            .as_mut()
            .and_then(|process| process.consensus.as_mut())
            && consensus.poll_timeout().is_some_and(|due| due <= tick)
        {
            consensus.handle_timeout(tick);
        }
        self.consensus_actions(ctx)?;
        if let Some(due) = self
            .consensus()
            .and_then(|consensus| consensus.poll_timeout())
        {
            self.wake_at(ctx, Thread::Network, self.clock.moment_of(due));
        }
        Ok(())
    }

    fn network_input(&mut self, ctx: &mut Ctx, input: ToNetwork) {
        let tick = self.clock.tick(ctx.now);
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(consensus) = &mut process.consensus else {
            return;
        };
        match input {
            ToNetwork::Message { from, message } => consensus.handle_message(tick, from, message),
            ToNetwork::Durable(id) => {
                ctx.checks.logs.durable(self.id, id);
                consensus.handle_durable(tick, id);
            }
            ToNetwork::LogRead(read) => consensus.handle_log_read(tick, read),
            ToNetwork::Propose(batch) => {
                let term = batch.term;
                if let Err(reason) = consensus.propose(tick, batch) {
                    ctx.seen.count(Event::ProposeRefused);
                    let event = ConsensusEvent::ProposeRefused {
                        reason,
                        term,
                        last_appended: consensus.last_appended(),
                    };
                    self.give_execution(ctx, ToExecution::Consensus(event));
                }
            }
            ToNetwork::ReadBarrier(context) => consensus.read_barrier(tick, context),
            ToNetwork::SnapshotReceived {
                from,
                from_life,
                term,
                meta,
            } => {
                process.installing = consensus.snapshot_installed(tick, term, meta);
                if !process.installing {
                    let dropped = self.store.discard_prepared();
                    assert!(
                        dropped.is_ok(),
                        "the store in memory drops what it prepared"
                    );
                }
                self.answer_snapshot(ctx, from, from_life);
            }
            ToNetwork::SnapshotSent { to } => consensus.snapshot_sent(tick, to),
            ToNetwork::SnapshotFailed { to } => consensus.snapshot_failed(tick, to),
            ToNetwork::Applied(index) => consensus.handle_applied(tick, index),
            ToNetwork::Compacted(up_to) => consensus.log_compacted(tick, up_to),
            ToNetwork::Stall(stall) => consensus.report_stall(tick, stall),
            ToNetwork::Transfer => consensus.transfer_leadership(tick, None),
        }
    }

    /// The snapshot is durable here: its sender goes on with appends.
    fn answer_snapshot(&mut self, ctx: &mut Ctx, from: MemberId, from_life: u64) {
        let takes = self.dice.delay(2_000);
        ctx.queue.push(
            ctx.now.plus_micros(takes),
            Happening::SnapshotAnswered {
                member: from,
                life: from_life,
                peer: self.id,
                taken: true,
            },
        );
    }

    fn consensus_actions(&mut self, ctx: &mut Ctx) -> Checked {
        loop {
            let process = self.process.as_mut();
            let Some(action) = process
                .and_then(|process| process.consensus.as_mut())
                .and_then(|consensus| consensus.poll_action())
            else {
                return Ok(());
            };
            self.consensus_action(ctx, action)?;
        }
    }

    fn consensus_action(&mut self, ctx: &mut Ctx, action: Action) -> Checked {
        match action {
            Action::Send { to, message } => {
                let stream = stream_of(&message);
                ctx.send(stream, (self.id, to), PeerMessage::Consensus(message));
            }
            Action::Persist { id, records } => {
                ctx.checks.persisted(self.id, id, &records)?;
                for record in &records {
                    if matches!(record, LogRecord::Truncate { .. }) {
                        ctx.seen.count(Event::ConflictRepaired);
                    }
                }
                self.give_log(ctx, ToLog::Append(id, records));
            }
            Action::ReadLog {
                id,
                from,
                to,
                bytes_max,
            } => {
                let ask = LogAsk {
                    id,
                    from,
                    to,
                    bytes_max,
                };
                self.give_log(ctx, ToLog::Read(ask));
            }
            Action::NotAdmitted { .. } => ctx.seen.count(Event::RebuiltTold),
            Action::SnapshotInstalled { meta } => self.install(ctx, meta)?,
            Action::SnapshotNeeded { to } => {
                let term = self.consensus().map(|consensus| consensus.status().term);
                let term = term.unwrap_or_default();
                self.give_execution(ctx, ToExecution::MakeSnapshot { to, term });
            }
            other => {
                if let Some(event) = self.execution_event(ctx, other)? {
                    self.give_execution(ctx, ToExecution::Consensus(event));
                }
            }
        }
        Ok(())
    }

    /// What goes on to execution in the one FIFO.
    fn execution_event(
        &mut self,
        ctx: &mut Ctx,
        action: Action,
    ) -> Result<Option<ConsensusEvent>, Violation> {
        Ok(Some(match action {
            Action::Committed { entries } => {
                let status = self.consensus().map(|consensus| consensus.status());
                let term = status.map(|status| status.term).unwrap_or_default();
                for entry in &entries {
                    let first = ctx.checks.committed(self.id, term, entry)?;
                    ctx.trace.note(
                        ctx.now,
                        "commit",
                        [self.id.0, entry.index.0, entry.term.0, entry.last_zxid.0],
                        || format!("{}: entry {} {first:?}", self.id, entry.index),
                    );
                }
                ConsensusEvent::Committed { entries }
            }
            Action::Elected { term, first_index } => {
                ctx.seen.count(Event::Elected);
                ctx.trace.note(
                    ctx.now,
                    "elected",
                    [self.id.0, term.0, first_index.0],
                    || format!("{}: term {term}, first entry {first_index}", self.id),
                );
                ctx.checks.elected(self.id, term)?;
                ConsensusEvent::Elected { term, first_index }
            }
            Action::Deposed { term } => {
                ctx.seen.count(Event::Deposed);
                ctx.trace.note(ctx.now, "deposed", [self.id.0, term.0], || {
                    format!("{}: term {term}", self.id)
                });
                ConsensusEvent::Deposed { term }
            }
            Action::LeaderChanged { term, leader } => {
                ConsensusEvent::LeaderChanged { term, leader }
            }
            Action::ReadReady { context, index } => {
                ctx.checks.read_ready(context, index)?;
                ConsensusEvent::ReadReady { context, index }
            }
            Action::ReadLost { context } => {
                ctx.seen.count(Event::ReadRetried);
                ctx.checks.read_lost(context);
                ConsensusEvent::ReadLost { context }
            }
            _ => return Ok(None),
        }))
    }

    /// The snapshot's record is durable: it becomes the state, and execution begins anew on it.
    fn install(&mut self, ctx: &mut Ctx, meta: StateMeta) -> Checked {
        ctx.seen.count(Event::SnapshotInstalled);
        ctx.checks.installed(self.id, meta.index)?;
        let installed = self.store.install_prepared();
        assert!(
            installed.is_ok(),
            "member {} has no snapshot prepared",
            self.id
        );
        if let Some(process) = &mut self.process {
            process.installing = false;
            process.checkpoint = None;
        }
        ctx.trace
            .note(ctx.now, "installed", [self.id.0, meta.index.0], || {
                format!("{}: entry {}", self.id, meta.index)
            });
        let engine = self.load_engine(ctx)?;
        self.give_execution(ctx, ToExecution::Installed(Box::new(engine)));
        Ok(())
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.consensus()
            .is_some_and(|consensus| consensus.status().role == Role::Leader)
    }
}
