//! Scenarios of one execution machine and of the state under it.

use folkmoot_core::consensus::{ProposeRefused, ProposedBatch, bootstrap_entry};
use folkmoot_core::execution::{
    ClientEvent, ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig,
    StreamId,
};
use folkmoot_core::state::{Speculative, Stamp, State};
use folkmoot_proto::batch::Txn;
use folkmoot_proto::client::ClientFrame;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::{LogIndex, LogTime, MemberId, Now, SessionSecret, Term, Tick, WallTime, Zxid};

use crate::dice::Dice;
use crate::runtime::NativeRuntime;
use crate::world::bootstrap;

/// A leader's execution that has applied its own first entry.
struct Leader {
    execution: Execution,
    runtime: NativeRuntime,
    now: Now,
}

impl Leader {
    fn new() -> Result<Self, String> {
        let now = Now {
            tick: Tick(1_000_000),
            wall: WallTime(1_767_225_600_000),
        };
        let state = State::new(bootstrap(1)).map_err(|error| error.to_string())?;
        let config = ExecutionConfig::new(MemberId(1), 1);
        let mut leader = Self {
            execution: Execution::new(config, state, 7, now),
            runtime: NativeRuntime::new(Dice::new(7, "scenario")),
            now,
        };
        let term = Term(1);
        leader.consensus(ConsensusEvent::LeaderChanged {
            term,
            leader: Some(MemberId(1)),
        });
        let first_index = LogIndex(2);
        leader.consensus(ConsensusEvent::Elected { term, first_index });
        let first = Entry {
            index: first_index,
            term,
            last_zxid: Zxid::ZERO,
            kind: EntryKind::NoOp,
            payload: bytes::Bytes::new(),
        };
        let entries = vec![bootstrap_entry(bootstrap(1)), first];
        leader.consensus(ConsensusEvent::Committed { entries });
        Ok(leader)
    }

    fn consensus(&mut self, event: ConsensusEvent) {
        self.execution.handle_consensus(self.now, event);
    }

    fn open_session(&mut self, name: u8) {
        let frame = ClientFrame::Open {
            secret: SessionSecret([name; 32]),
            timeout_ms: 2_000,
        };
        let event = ClientEvent::Frame {
            connection: ConnectionId(u64::from(name)),
            stream: StreamId(u64::from(name)),
            frame,
        };
        self.execution.handle_client(self.now, event);
    }

    /// Steps for a while, and answers what is proposed.
    fn proposals(&mut self) -> Vec<ProposedBatch> {
        let mut batches = Vec::new();
        for _ in 0..10 {
            self.now.tick = self.now.tick.plus_millis(10);
            self.execution.step(self.now, &mut self.runtime);
            while let Some(action) = self.execution.poll_action() {
                if let ExecutionAction::Propose { batch } = action {
                    batches.push(batch);
                }
            }
        }
        batches
    }
}

/// After a batch was refused nothing stands on it: the next one stands on what is applied (rule R3).
pub(super) fn a_refused_batch_takes_the_overlay_with_it() -> Result<(), String> {
    let mut leader = Leader::new()?;
    leader.open_session(1);
    let Some(refused) = leader.proposals().pop() else {
        return Err("nothing is proposed".to_owned());
    };
    leader.consensus(ConsensusEvent::ProposeRefused {
        reason: ProposeRefused::Full,
        term: refused.term,
        last_appended: LogIndex(2),
    });
    leader.open_session(2);
    match leader.proposals().first() {
        Some(next) if next.base_zxid == Zxid::ZERO => Ok(()),
        next => Err(format!("after the refusal the next batch is {next:?}")),
    }
}

/// A transaction that sets a node which is not there is an error, not an empty change (rule R6).
pub(super) fn effects_are_strict() -> Result<(), String> {
    let state = State::new(bootstrap(1)).map_err(|error| error.to_string())?;
    let mut state = Speculative::new(state);
    let stamp = Stamp {
        zxid: Zxid(1),
        log_time: LogTime(1),
        wall_time: WallTime(1_767_225_600_000),
    };
    let txn = Txn {
        effects: vec![Effect::SetNode {
            path: "/missing".to_owned(),
            data: Vec::new(),
            version: 7,
        }],
        ..Txn::default()
    };
    match state.apply_txn(stamp, &txn) {
        Err(_) => Ok(()),
        Ok(()) => Err("a change of a node that is not there was taken".to_owned()),
    }
}
