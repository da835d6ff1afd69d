//! How a member starts: from its folder, an empty one too. First the log makes sure that what it
//! has read is durable (rule R22), then the snapshot that was under way is settled (rule R25), then
//! the state is loaded, and consensus begins.

use std::collections::VecDeque;

use folkmoot_core::checkpoint::CheckpointStore as _;
use folkmoot_core::consensus::{Consensus, ConsensusConfig, RecoveredLog};
use folkmoot_core::log::{Log, LogConfig, LogOrigin, RecoverError, SnapshotStep};
use folkmoot_proto::{Incarnation, LogIndex, Term};

use super::engine::{Birth, Engine};
use super::{CLUSTER, Member, Process, Thread};
use crate::Layers;
use crate::ctx::Ctx;
use crate::invariants::logs::Print;
use crate::seen::Event;
use crate::violation::{Checked, Violation};

/// Which log a process writes.
#[derive(Debug)]
pub(super) enum LogPort {
    /// Records in memory: clusters of consensus alone.
    Model,
    /// The kernel's, on a simulated disk.
    Real(Box<Log>),
}

/// What a process has read of its log and waits to begin with.
#[derive(Debug)]
pub(super) struct Starting {
    recovered: RecoveredLog,
    snapshot: SnapshotStep,
}

impl Member {
    /// Starts a process on the member's folder. Answers false if the folder can not be used.
    pub(crate) fn start(&mut self, ctx: &mut Ctx) -> Result<bool, Violation> {
        assert!(!self.is_up(), "member {} runs already", self.id);
        let (log, starting) = match self.layers {
            Layers::Consensus => self.open_model(),
            Layers::Log | Layers::Whole => match self.open_log() {
                Ok(opened) => opened,
                Err(error) => {
                    ctx.trace.note(ctx.now, "refuses", [self.id.0], || {
                        format!("{}: {error}", self.id)
                    });
                    return match self.rotted {
                        true => Ok(false),
                        false => Err(self.can_not_start(&error)),
                    };
                }
            },
        };
        self.process = Some(Process {
            consensus: None,
            engine: None,
            log,
            starting: Some(starting),
            to_network: VecDeque::new(),
            to_execution: VecDeque::new(),
            to_log: VecDeque::new(),
            syncing: false,
            installing: false,
            checkpoint: None,
            checkpointed: LogIndex::ZERO,
            told_applied: LogIndex::ZERO,
        });
        for thread in [Thread::Network, Thread::Execution, Thread::Log] {
            self.wake(ctx, thread);
        }
        Ok(true)
    }

    fn open_model(&self) -> (LogPort, Starting) {
        let applied = self
            .store
            .current()
            .map_or(LogIndex::ZERO, |meta| meta.index);
        let prepared = self.store.prepared().ok().flatten();
        let counts = prepared.is_some_and(|meta| self.model.base_index() >= meta.index);
        let starting = Starting {
            recovered: self.model.recover(applied, self.marked),
            snapshot: match counts {
                true => SnapshotStep::Install,
                false => SnapshotStep::Discard,
            },
        };
        (LogPort::Model, starting)
    }

    fn open_log(&self) -> Result<(LogPort, Starting), RecoverError> {
        let config = LogConfig {
            cluster: CLUSTER,
            member: self.id,
            incarnation: Incarnation(self.folder),
            segment_bytes: self.personality.segment_bytes,
            recent_bytes_max: self.personality.cache_bytes,
        };
        let prepared = self.store.prepared().ok().flatten();
        match Log::recover(&config, &self.disk, self.store.current(), prepared.as_ref()) {
            Ok(recovered) => Ok((
                LogPort::Real(Box::new(recovered.log)),
                Starting {
                    recovered: recovered.state,
                    snapshot: recovered.snapshot,
                },
            )),
            Err(RecoverError::NoLog) if !self.began => {
                let origin = match self.marked {
                    false => LogOrigin::Bootstrap,
                    true => LogOrigin::Wiped,
                };
                let (log, recovered) = Log::create(config, origin);
                let snapshot = SnapshotStep::Discard;
                Ok((
                    LogPort::Real(Box::new(log)),
                    Starting {
                        recovered,
                        snapshot,
                    },
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// The log is started: the state is loaded and consensus begins.
    pub(super) fn begin(&mut self, ctx: &mut Ctx) -> Checked {
        let starting = self
            .process
            .as_mut()
            .and_then(|process| process.starting.take());
        let Some(Starting {
            mut recovered,
            snapshot,
        }) = starting
        else {
            return Ok(());
        };
        let settled = match snapshot {
            SnapshotStep::Install if self.has_prepared() => self.store.install_prepared(),
            SnapshotStep::Install => Ok(()),
            SnapshotStep::Discard => self.store.discard_prepared(),
        };
        assert!(settled.is_ok(), "the store in memory does as it is told");
        let applied = self
            .store
            .current()
            .map_or(LogIndex::ZERO, |meta| meta.index);
        recovered.applied = applied;
        self.note_recovered(ctx, &recovered, applied)?;
        let engine = self.load_engine(ctx)?;
        let consensus = self.make_consensus(ctx, recovered)?;
        self.began = true;
        if let Some(process) = &mut self.process {
            process.checkpointed = applied;
            process.engine = Some(engine);
            process.consensus = Some(consensus);
        }
        self.wake(ctx, Thread::Network);
        self.wake(ctx, Thread::Execution);
        Ok(())
    }

    fn has_prepared(&self) -> bool {
        self.store.prepared().ok().flatten().is_some()
    }

    fn make_consensus(
        &mut self,
        ctx: &mut Ctx,
        recovered: RecoveredLog,
    ) -> Result<Consensus, Violation> {
        let tick = self.clock.tick(ctx.now);
        let seed = self.dice.bits();
        let mut config = ConsensusConfig::new(self.id, Incarnation(self.folder), self.life + 1);
        config.cache_bytes_max = self.personality.cache_bytes;
        config.append_bytes_max = 8 * 1024;
        config.unapplied_bytes_max = self.personality.unapplied_bytes;
        config.inflight_bytes_max = 32 * 1024;
        let made = Consensus::start(config, recovered, self.bootstrap.clone(), seed, tick);
        made.map_err(|error| self.can_not_start(&error))
    }

    fn can_not_start(&self, error: &dyn std::error::Error) -> Violation {
        Violation::new(
            "recovery",
            format!("member {} can not start: {error}", self.id),
        )
    }

    fn note_recovered(
        &mut self,
        ctx: &mut Ctx,
        recovered: &RecoveredLog,
        applied: LogIndex,
    ) -> Checked {
        if recovered.damaged_up_to.is_some() {
            ctx.seen.count(Event::DamageFound);
        }
        ctx.trace.note(
            ctx.now,
            "start",
            [
                self.id.0,
                self.life,
                recovered.term.0,
                recovered.last_index.0,
                applied.0,
            ],
            || {
                format!(
                    "{}: term {}, entries up to {}, applied {applied}, damaged up to {:?}",
                    self.id, recovered.term, recovered.last_index, recovered.damaged_up_to
                )
            },
        );
        let base = recovered.base.as_ref().map(|base| (base.index, base.term));
        let base: (LogIndex, Term) = base.unwrap_or_default();
        let prints = self.log_prints(base.0, recovered.last_index)?;
        ctx.checks.recovered(self.id, base, &prints, applied)
    }

    /// All entries of the log after `base`.
    fn log_prints(&self, base: LogIndex, last: LogIndex) -> Result<Vec<Print>, Violation> {
        let log = self.process.as_ref().map(|process| &process.log);
        let Some(LogPort::Real(log)) = log else {
            return Ok(self.model.entries().map(Print::of).collect());
        };
        let mut prints = Vec::new();
        while base.0 + (prints.len() as u64) < last.0 {
            let from = LogIndex(base.0 + prints.len() as u64 + 1);
            let read = log.read(&self.disk, from, last, usize::MAX);
            let read = read.map_err(|error| self.can_not_start(&error))?;
            if read.is_empty() {
                let facts = format!("member {} lacks entry {from} of {last}", self.id);
                return Err(Violation::new("recovery", facts));
            }
            prints.extend(read.iter().map(Print::of));
        }
        Ok(prints)
    }

    /// Execution on the state that the store has.
    pub(super) fn load_engine(&mut self, ctx: &mut Ctx) -> Result<Engine, Violation> {
        let birth = Birth {
            layers: self.layers,
            guests: self.guests,
            member: self.id,
            run: self.life + 1,
            seed: self.dice.bits(),
            now: self.clock.now(ctx.now),
            bootstrap: &self.bootstrap,
            queue_requests: self.personality.queue_requests,
            batches_in_flight: self.personality.batches_in_flight,
            dirty_bytes: self.personality.dirty_bytes,
        };
        Engine::load(&birth, &self.store)
            .map_err(|reason| Violation::new("recovery", format!("member {}: {reason}", self.id)))
    }
}
