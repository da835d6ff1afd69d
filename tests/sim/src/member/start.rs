//! How a member starts: from its folder, an empty one too.

use std::collections::VecDeque;

use folkmoot_core::checkpoint::CheckpointStore as _;
use folkmoot_core::consensus::{Consensus, ConsensusConfig, RecoveredLog};
use folkmoot_proto::{Incarnation, LogIndex, Term};

use super::engine::Engine;
use super::plain::PlainEngine;
use super::{Member, Process, Thread};
use crate::ctx::Ctx;
use crate::invariants::logs::Print;
use crate::seen::Event;
use crate::violation::{Checked, Violation};

/// Which log a process writes.
#[derive(Debug)]
pub(crate) enum LogPort {
    /// Records in memory: clusters of consensus alone.
    Model,
}

impl Member {
    /// Starts a process on the member's folder.
    pub(crate) fn start(&mut self, ctx: &mut Ctx) -> Checked {
        assert!(!self.is_up(), "member {} runs already", self.id);
        self.settle_prepared();
        let engine = self.load_engine(ctx)?;
        self.process = Some(Process {
            consensus: None,
            checkpointed: engine.meta().index,
            engine,
            log: LogPort::Model,
            to_network: VecDeque::new(),
            to_execution: VecDeque::new(),
            to_log: VecDeque::new(),
            syncing: false,
            installing: false,
            checkpoint: None,
            started: ctx.now,
        });
        self.start_consensus(ctx)?;
        for thread in [Thread::Network, Thread::Execution, Thread::Log] {
            self.wake(ctx, thread);
        }
        Ok(())
    }

    /// Execution on the state that the store has.
    pub(super) fn load_engine(&mut self, _ctx: &mut Ctx) -> Result<Engine, Violation> {
        let meta = self.store.current().cloned();
        Ok(Engine::Plain(Box::new(PlainEngine::new(
            self.dice.bits(),
            self.id,
            self.life,
            meta.unwrap_or_else(PlainEngine::empty_meta),
        ))))
    }

    /// A crash between the log's record of a snapshot and the switch: the switch is made up for.
    /// Without the record the snapshot does not count (rule R25).
    fn settle_prepared(&mut self) {
        let prepared = self.store.prepared().ok().flatten();
        let settled = match prepared {
            Some(meta) if self.model.base_index() >= meta.index => self.store.install_prepared(),
            Some(_) => self.store.discard_prepared(),
            None => Ok(()),
        };
        assert!(settled.is_ok(), "the store in memory does as it is told");
    }

    fn start_consensus(&mut self, ctx: &mut Ctx) -> Checked {
        let tick = self.clock.tick(ctx.now);
        let seed = self.dice.bits();
        let mut config = ConsensusConfig::new(self.id, Incarnation(self.folder), self.life + 1);
        config.cache_bytes_max = 16 * 1024;
        config.append_bytes_max = 8 * 1024;
        config.inflight_bytes_max = 32 * 1024;
        let applied = self
            .store
            .current()
            .map_or(LogIndex::ZERO, |meta| meta.index);
        let fresh = self.model.is_empty() && self.folder == 1;
        let result = if fresh {
            ctx.checks
                .recovered(self.id, (LogIndex::ZERO, Term::ZERO), &[], applied)?;
            Consensus::bootstrap(config, self.bootstrap.clone(), seed, tick)
        } else {
            let recovered = self.model.recover(applied, self.folder > 1);
            self.note_recovered(ctx, &recovered, applied)?;
            Consensus::recover(config, recovered, seed, tick)
        };
        let consensus = result.map_err(|error| {
            Violation::new(
                "recovery",
                format!("member {} can not start: {error}", self.id),
            )
        })?;
        if let Some(process) = &mut self.process {
            process.consensus = Some(consensus);
        }
        Ok(())
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
        let base = recovered.base.as_ref().map(|base| (base.index, base.term));
        let prints: Vec<Print> = self.model.entries().map(Print::of).collect();
        ctx.checks
            .recovered(self.id, base.unwrap_or_default(), &prints, applied)
    }
}
