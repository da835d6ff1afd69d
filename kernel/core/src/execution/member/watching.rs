//! Watches of the clients attached here, on their way in and out.

use folkmoot_proto::client::Watch;
use folkmoot_proto::{Tick, WatchId};

use crate::execution::{Execution, ExecutionAction, StreamId, Watches};
use crate::state::{AppliedTxn, State};

/// Chunks that watchers who are behind are told in one step.
const CHUNKS_PER_STEP: usize = 16;

impl Execution {
    /// A client begins a watch.
    pub(in crate::execution) fn watch(&mut self, stream: StreamId, watch: &Watch) {
        self.with_watches(|watches, state| watches.register(state, stream, watch));
        self.serve_released();
    }

    /// A client ends a watch.
    pub(in crate::execution) fn unwatch(&mut self, stream: StreamId, watch: WatchId) {
        self.with_watches(|watches, state| watches.unwatch(state, stream, watch));
        self.serve_released();
    }

    /// A client has asked for all watches that it resumes.
    pub(in crate::execution) fn watches_resumed(&mut self, stream: StreamId) {
        self.with_watches(|watches, _| watches.resumed(stream));
        self.serve_released();
    }

    /// The session of a stream is over: what was held back from it is sent.
    pub(in crate::execution) fn finish_watches(&mut self, stream: StreamId) {
        self.with_watches(|watches, state| watches.finish(state, stream));
    }

    /// Forgets the watches of a stream.
    pub(in crate::execution) fn forget_watches(&mut self, stream: StreamId) {
        self.with_watches(|watches, state| watches.close_stream(state, stream));
    }

    /// Tells watchers of a transaction. Its events are among the actions when this returns, so a
    /// reply that is sent afterwards is behind them (rule R28).
    pub(in crate::execution) fn publish_events(&mut self, txn: &AppliedTxn) {
        self.with_watches(|watches, state| watches.on_txn(state, txn));
    }

    /// Tells watchers that are behind more. True if there is more to tell at once.
    pub(in crate::execution) fn pump_watches(&mut self) -> bool {
        let more = self.with_watches(|watches, state| watches.pump(state, CHUNKS_PER_STEP));
        self.serve_released();
        more
    }

    /// Reads are not held back but served later, so that what they answer is recent. Not within an
    /// entry, whose events are told transaction by transaction.
    fn serve_released(&mut self) {
        if self.watches.take_released() {
            self.serve_reads();
        }
    }

    /// Ends the watches whose snapshots nobody takes.
    pub(in crate::execution) fn end_idle_snapshots(&mut self, now: Tick) {
        self.with_watches(|watches, state| watches.end_idle_snapshots(state, now));
        self.serve_released();
    }

    /// Tells quiet watchers how far they are.
    pub(in crate::execution) fn mark_watches(&mut self) {
        self.with_watches(|watches, _| watches.mark_progress());
    }

    fn with_watches<R>(&mut self, with: impl FnOnce(&mut Watches, &mut State) -> R) -> R {
        let Some(speculative) = &mut self.speculative else {
            panic!("a transaction owns the state");
        };
        let result = with(&mut self.watches, speculative.base_mut());
        while let Some((stream, frame)) = self.watches.poll_frame() {
            self.act(ExecutionAction::ToStream { stream, frame });
        }
        result
    }
}
