//! Execution: requests, sessions, waits, watches, mounts; on every member it applies what is
//! committed.

mod action;
#[allow(dead_code, reason = "the step that executes requests uses it")]
mod leader;
#[allow(dead_code, reason = "the step that calls guests makes views")]
pub mod view;

use std::collections::VecDeque;

use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{Digest, MemberId, Now, Tick};

use crate::plugin::PluginRuntime;
use crate::state::{State, View};

pub use action::{
    ClientEvent, ConnectionId, ConsensusEvent, ExecutionAction, ExecutionConfig, ExecutionStatus,
    Progress, StreamId,
};

/// The execution machine of one member, sans-IO: input through `handle_*`, work through
/// [`Execution::step`], results through [`Execution::poll_action`].
///
/// Every member applies what is committed, and only from that come replies, completions and watch
/// events. On the leader it also executes requests ahead of commit, against an overlay.
#[derive(Debug)]
pub struct Execution {
    config: ExecutionConfig,
    state: State,
    actions: VecDeque<ExecutionAction>,
}

impl Execution {
    /// A machine on `state`, which is a checkpoint's, a snapshot's, or an empty one. `seed` feeds
    /// what may differ between members and never reaches the replicated state.
    #[must_use]
    pub fn new(config: ExecutionConfig, state: State, seed: u64, now: Now) -> Self {
        let _ = (seed, now);
        Self {
            config,
            state,
            actions: VecDeque::new(),
        }
    }

    /// Takes what a client attached to this member did. Events of one stream come in order.
    pub fn handle_client(&mut self, now: Now, event: ClientEvent) {
        let _ = (now, event);
    }

    /// Takes a message of another member. Messages of one peer's stream come in order.
    pub fn handle_peer(&mut self, now: Now, from: MemberId, message: ExecutionMessage) {
        let _ = (now, from, message);
    }

    /// The ordered stream to or from `peer` broke: what was under way in it may be lost (rule R2).
    pub fn peer_stream_lost(&mut self, now: Now, peer: MemberId) {
        let _ = (now, peer);
    }

    /// Takes an event of this member's consensus machine; they come through one FIFO.
    pub fn handle_consensus(&mut self, now: Now, event: ConsensusEvent) {
        let _ = (now, event);
    }

    /// Answers an `ExamineComponent`: the description (JSON) that the component gave of itself, or
    /// why it can not be a plugin here.
    pub fn handle_examined(&mut self, now: Now, digest: Digest, result: Result<String, String>) {
        let _ = (now, digest, result);
    }

    /// A component that was to be compiled can be called from here on: what waits for it goes on.
    pub fn component_ready(&mut self, now: Now, digest: Digest) {
        let _ = (now, digest);
    }

    /// Does what is due, with at most one guest call (rule R7), and proposes what was executed.
    pub fn step(&mut self, now: Now, plugins: &mut dyn PluginRuntime) -> Progress {
        let _ = (now, plugins);
        Progress::Idle
    }

    /// The next thing to be done, in order.
    pub fn poll_action(&mut self) -> Option<ExecutionAction> {
        self.actions.pop_front()
    }

    /// When [`Execution::step`] must be called next, if nothing comes in before. A moment that has
    /// passed means at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    /// The committed state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The committed state, for its consistent views and its checkpoints' deltas. Entries are
    /// applied by the machine alone.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// What it knows, for operators and invariants.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        ExecutionStatus {
            applied_index: self.state.position().index,
            applied_zxid: self.state.position().zxid,
            state_hash: 0,
            sessions: self.state.counters().sessions,
            nodes: self.state.counters().nodes,
            watches: 0,
            overlay_txns: 0,
            next_timeout: self.poll_timeout(),
        }
    }

    /// This member.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.config.member
    }
}
