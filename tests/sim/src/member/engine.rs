//! The execution of a member: the real one, or the plain one of clusters of consensus alone.

use bytes::Bytes;
use folkmoot_core::checkpoint::CheckpointStore as _;
use folkmoot_core::execution::{Execution, ExecutionAction, ExecutionConfig};
use folkmoot_core::state::{Span, State};
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{LogIndex, MemberId, Now, Tick, Zxid};

use super::plain::PlainEngine;
use super::{PendingCheckpoint, ToExecution};
use crate::dice::Dice;
use crate::runtime::NativeRuntime;
use crate::seen::{Event, Seen};
use crate::store::SimStore;
use crate::{Layers, MakeGuests};

#[derive(Debug)]
pub(crate) enum Engine {
    Plain(Box<PlainEngine>),
    Real(Box<RealEngine>),
}

/// The kernel's execution, with the plugins it calls.
#[derive(Debug)]
pub(crate) struct RealEngine {
    pub(crate) execution: Execution,
    pub(crate) runtime: NativeRuntime,
    /// Transactions that were in the overlay after the last turn.
    overlay_txns: u64,
}

/// What a member has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: LogIndex,
    pub(crate) zxid: Zxid,
    pub(crate) hash: u64,
}

/// Which process an engine is made for.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    pub(super) layers: Layers,
    pub(super) guests: Option<MakeGuests>,
    pub(super) member: MemberId,
    pub(super) run: u64,
    pub(super) seed: u64,
    pub(super) now: Now,
    pub(super) bootstrap: &'a Bytes,
    pub(super) queue_requests: usize,
    pub(super) batches_in_flight: usize,
    pub(super) dirty_bytes: usize,
}

impl Engine {
    /// Takes the place of the engine whose state a snapshot replaced.
    pub(crate) fn take_over_from(&mut self, former: &Self) {
        if let (Self::Real(real), Self::Real(former)) = (self, former) {
            real.execution.take_over_from(&former.execution);
        }
    }

    /// On the state that `store` has, or on that before entry 1.
    pub(super) fn load(birth: &Birth<'_>, store: &SimStore) -> Result<Self, String> {
        if birth.layers != Layers::Whole {
            let meta = store.current().cloned();
            let meta = meta.unwrap_or_else(PlainEngine::empty_meta);
            let plain = PlainEngine::new(birth.seed, birth.member, birth.run, meta);
            return Ok(Self::Plain(Box::new(plain)));
        }
        let state = match store.load().map_err(|error| error.to_string())? {
            None => State::new(birth.bootstrap.clone()).map_err(|error| error.to_string())?,
            Some((meta, records)) => {
                let records = records.filter_map(|record| {
                    let record = record.ok()?;
                    Some((record.key, record.value?))
                });
                State::from_records(&meta, records).map_err(|error| error.to_string())?
            }
        };
        let mut config = ExecutionConfig::new(birth.member, birth.run);
        config.hash_interval = 64;
        config.queue_requests_max = birth.queue_requests;
        config.batches_in_flight_max = birth.batches_in_flight;
        config.dirty_bytes_max = birth.dirty_bytes;
        Ok(Self::Real(Box::new(RealEngine {
            execution: Execution::new(config, state, birth.seed, birth.now),
            runtime: NativeRuntime::new(Dice::new(birth.seed, "plugins"), birth.guests),
            overlay_txns: 0,
        })))
    }

    pub(crate) fn real(&mut self) -> Option<&mut RealEngine> {
        match self {
            Self::Real(real) => Some(real),
            Self::Plain(_) => None,
        }
    }

    /// Gives it an input that is not the process' own business.
    pub(super) fn handle(&mut self, now: Now, input: ToExecution) -> Result<(), String> {
        match (self, input) {
            (Self::Plain(plain), ToExecution::Consensus(event)) => {
                return plain.handle_consensus(now.tick, event);
            }
            (Self::Plain(_), _) => {}
            (Self::Real(real), input) => real.handle(now, input),
        }
        Ok(())
    }

    /// One step; whether it should be called again at once.
    pub(super) fn step(&mut self, now: Now) -> bool {
        match self {
            Self::Plain(plain) => {
                plain.step(now.tick);
                false
            }
            Self::Real(real) => {
                use folkmoot_core::execution::Progress;
                real.execution.step(now, &mut real.runtime) == Progress::More
            }
        }
    }

    pub(super) fn poll_action(&mut self) -> Option<ExecutionAction> {
        match self {
            Self::Plain(plain) => plain.poll_action(),
            Self::Real(real) => real.execution.poll_action(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Tick> {
        match self {
            Self::Plain(plain) => plain.poll_timeout(),
            Self::Real(real) => real.execution.poll_timeout(),
        }
    }

    /// Where the applied state stands.
    pub(crate) fn applied(&self) -> Applied {
        match self {
            Self::Plain(plain) => {
                let meta = plain.meta();
                Applied {
                    index: meta.index,
                    zxid: meta.zxid,
                    hash: meta.state_hash,
                }
            }
            Self::Real(real) => {
                let state = real.execution.state();
                let position = state.position();
                Applied {
                    index: position.index,
                    zxid: position.zxid,
                    hash: state.state_hash(),
                }
            }
        }
    }

    /// What consensus is told of how far it is; none while a checkpoint has to come first.
    pub(super) fn has_room_behind(&self) -> Option<LogIndex> {
        match self {
            Self::Plain(plain) => Some(plain.meta().index),
            Self::Real(real) => real.execution.has_room_behind(),
        }
    }

    /// What changed since the last checkpoint.
    pub(super) fn checkpoint(&mut self) -> PendingCheckpoint {
        match self {
            Self::Plain(plain) => PendingCheckpoint {
                meta: plain.meta().clone(),
                changes: plain.records(),
            },
            Self::Real(real) => {
                let delta = real.execution.state_mut().take_delta();
                PendingCheckpoint {
                    meta: delta.meta,
                    changes: delta.changes,
                }
            }
        }
    }

    /// The whole state, as records in the order of their keys.
    pub(super) fn snapshot(&mut self) -> Option<(StateMeta, Vec<RecordChange>)> {
        match self {
            Self::Plain(plain) => Some((plain.meta().clone(), plain.records())),
            Self::Real(real) => real.snapshot(),
        }
    }
}

impl RealEngine {
    fn handle(&mut self, now: Now, input: ToExecution) {
        let execution = &mut self.execution;
        match input {
            ToExecution::Consensus(event) => execution.handle_consensus(now, event),
            ToExecution::Client(event) => execution.handle_client(now, event),
            ToExecution::Peer { from, message } => execution.handle_peer(now, from, message),
            ToExecution::PeerLost { peer } => execution.peer_stream_lost(now, peer),
            ToExecution::Examined { digest } => {
                let result = crate::runtime::examine(digest);
                execution.handle_examined(now, digest, result);
            }
            ToExecution::Compiled { digest } => {
                self.runtime.compiled(digest);
                execution.component_ready(now, digest);
            }
            ToExecution::Policy { id, answer } => execution.handle_policy(now, id, answer),
            ToExecution::Heal => self.runtime.heal(),
            ToExecution::MakeSnapshot { .. }
            | ToExecution::Installed(_)
            | ToExecution::CheckpointDone => {}
        }
    }

    /// Counts what the plugins' runtime did.
    pub(super) fn count(&mut self, seen: &mut Seen) {
        for _ in 0..std::mem::take(&mut self.runtime.dropped) {
            seen.count(Event::InstanceDropped);
        }
        for _ in 0..std::mem::take(&mut self.runtime.faulted) {
            seen.count(Event::PluginFault);
        }
        for _ in 0..std::mem::take(&mut self.runtime.resyncs) {
            seen.count(Event::Resync);
        }
        if std::mem::take(&mut self.runtime.discarded) > 0 && self.overlay_txns > 0 {
            seen.count(Event::OverlayDropped);
        }
        self.overlay_txns = self.execution.status().overlay_txns;
    }

    /// A view of everything, read in one go: what reading it in chunks while the state goes on
    /// gives is the state's own test.
    fn snapshot(&mut self) -> Option<(StateMeta, Vec<RecordChange>)> {
        let state = self.execution.state_mut();
        let view = state.open_view(Span::Everything).ok()?;
        let meta = state.view_meta(view).cloned();
        let mut records = Vec::new();
        loop {
            let chunk = state.read_view(view, 64 * 1024);
            records.extend(chunk.records.into_iter().map(|(key, value)| RecordChange {
                key,
                value: Some(value),
            }));
            if chunk.last {
                break;
            }
        }
        state.close_view(view);
        Some((meta?, records))
    }
}
