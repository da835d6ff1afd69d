//! The execution thread: the execution machine, its guests, and the encoding of what they answer.
//!
//! One queue brings everything, so that what consensus committed and what clients asked for keep
//! their order. What clients may have in it is bounded by [`ExecutionQueue::admit`]; consensus is
//! never held up by it (rule R7).

mod output;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use folkmoot_core::execution::{
    ClientEvent, ConsensusEvent, Execution, ExecutionAction, ExecutionStatus, Progress,
};
use folkmoot_core::plugin::{Discard, PluginRuntime};
use folkmoot_core::policy::{PolicyAnswer, PolicyCallId};
use folkmoot_proto::ids::Now;
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{Digest, LogIndex, MemberId, Tick};
use folkmoot_storage::LogPace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::RunError;
use crate::clock;
use crate::fatal::Fatal;
use crate::network::ConsensusInput;
use crate::plugins::Plugins;
use crate::state_access::StateRequest;

pub(crate) use output::{StreamOutput, TurnOutput};

/// Bytes of clients' frames that may wait for execution. Beyond it, streams are not read, and
/// QUIC's flow control slows their clients down.
const CLIENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a frame costs at least: its place in the queue.
const FRAME_BYTES_MIN: usize = 256;
/// Turns that may wait for the network thread.
pub(crate) const OUTPUT_TURNS_MAX: usize = 64;
/// Guests need deep native stacks: 256 KiB of Wasm stack and the host's frames around it.
pub(crate) const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Without a timeout of the machine the thread looks up this often.
const IDLE: Duration = Duration::from_millis(500);

/// What comes to the execution thread.
#[derive(Debug)]
pub(crate) enum ExecutionInput {
    /// From a client attached here, with what stands for it in the queue's budget.
    Client(ClientEvent, Option<OwnedSemaphorePermit>),
    /// From a peer's execution.
    Peer(MemberId, ExecutionMessage),
    /// The ordered stream to or from a peer broke.
    PeerStreamLost(MemberId),
    /// From this member's consensus.
    Consensus(ConsensusEvent),
    /// A snapshot took the place of the state: go on with this machine.
    Replace(Box<Execution>),
    /// A component was examined.
    Examined(Digest, Result<String, String>),
    /// A component can be called.
    ComponentReady(Digest),
    /// What came of a question to a policy.
    Policy(PolicyCallId, PolicyAnswer),
    /// The state is read for a checkpoint or a snapshot.
    State(StateRequest),
    /// The member stops.
    Stop,
}

impl ExecutionInput {
    /// An event that costs nothing.
    pub(crate) fn client(event: ClientEvent) -> Self {
        Self::Client(event, None)
    }

    /// Bytes of the entries that it has execution apply.
    fn committed_bytes(&self) -> usize {
        match self {
            Self::Consensus(ConsensusEvent::Committed { entries }) => {
                entries.iter().map(|entry| entry.payload.len()).sum()
            }
            _ => 0,
        }
    }
}

/// The way to the execution thread; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ExecutionQueue {
    sender: Sender<Vec<ExecutionInput>>,
    budget: Arc<Semaphore>,
}

impl ExecutionQueue {
    /// The queue, and its end for the execution thread.
    pub(crate) fn new() -> (Self, Receiver<Vec<ExecutionInput>>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let budget = Arc::new(Semaphore::new(CLIENT_BYTES_MAX));
        (Self { sender, budget }, receiver)
    }

    /// Waits until `frames` frames of `bytes` bytes may be sent to execution. The permit is dropped
    /// when they were handled. None once the member stops.
    pub(crate) async fn admit(&self, frames: usize, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = (bytes + frames * FRAME_BYTES_MIN).min(CLIENT_BYTES_MAX);
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        self.budget.clone().acquire_many_owned(permits).await.ok()
    }

    /// Sends a turn's inputs, in order. After the execution thread has ended they are dropped; why
    /// it ended is told elsewhere.
    pub(crate) fn send(&self, inputs: Vec<ExecutionInput>) {
        if !inputs.is_empty() {
            let _ = self.sender.send(inputs);
        }
    }
}

/// What other threads see of this one.
#[derive(Debug)]
pub(crate) struct ExecutionView {
    status: Mutex<ExecutionStatus>,
    /// The last entry that was applied while there was room for more.
    applied: AtomicU64,
    /// Bytes that the next checkpoint would write.
    dirty_bytes: AtomicU64,
    /// When the present turn began, in microseconds; 0 between turns.
    busy_since: AtomicU64,
}

impl ExecutionView {
    pub(crate) fn new(execution: &Execution) -> Self {
        Self {
            status: Mutex::new(execution.status()),
            applied: AtomicU64::new(execution.status().applied_index.0),
            dirty_bytes: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
        }
    }

    /// As of the last turn.
    pub(crate) fn status(&self) -> ExecutionStatus {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What consensus is told of how far execution is, as of the last turn.
    pub(crate) fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Relaxed))
    }

    /// Bytes that the next checkpoint would write, as of the last turn.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed)
    }

    /// Since when the present turn runs (rule R19).
    pub(crate) fn busy_since(&self) -> Option<Tick> {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => None,
            tick => Some(Tick(tick)),
        }
    }

    fn begin_turn(&self, now: Tick) {
        self.busy_since.store(now.0.max(1), Ordering::Relaxed);
    }

    fn end_turn(&self, execution: &Execution) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = execution.status();
        if let Some(applied) = execution.has_room_behind() {
            self.applied.store(applied.0, Ordering::Relaxed);
        }
        let dirty_bytes = execution.state().dirty_bytes() as u64;
        self.dirty_bytes.store(dirty_bytes, Ordering::Relaxed);
        self.busy_since.store(0, Ordering::Relaxed);
    }
}

/// What a turn did beside its actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    progress: Progress,
    /// The machine was replaced.
    replaced: bool,
    /// The member stops.
    stop: bool,
}

/// Bytes of committed entries after which a turn ends, so that turns stay short (rule R19): a
/// member that catches up works, and does not stall.
const TURN_BYTES: usize = 1024 * 1024;
/// Inputs after which a turn ends.
const TURN_INPUTS: usize = 4096;

/// Feeds what is in `inbox` to the machine, as far as one turn goes, steps once, and drains what it
/// wants done. `now` was read after the inbox was filled (rule R8).
pub(crate) fn execution_turn(
    execution: &mut Box<Execution>,
    plugins: &mut dyn PluginRuntime,
    now: Now,
    inbox: &mut VecDeque<ExecutionInput>,
    actions: &mut Vec<ExecutionAction>,
) -> Turn {
    let mut turn = Turn {
        progress: Progress::Idle,
        replaced: false,
        stop: false,
    };
    let (mut inputs, mut bytes) = (0, 0);
    while inputs < TURN_INPUTS && bytes < TURN_BYTES {
        let Some(input) = inbox.pop_front() else {
            break;
        };
        inputs += 1;
        bytes += input.committed_bytes();
        match input {
            // The permit is given back when the event was handled.
            ExecutionInput::Client(event, _permit) => execution.handle_client(now, event),
            ExecutionInput::Peer(from, message) => execution.handle_peer(now, from, message),
            ExecutionInput::PeerStreamLost(peer) => execution.peer_stream_lost(now, peer),
            ExecutionInput::Consensus(event) => execution.handle_consensus(now, event),
            ExecutionInput::Examined(digest, result) => {
                execution.handle_examined(now, digest, result);
            }
            ExecutionInput::ComponentReady(digest) => execution.component_ready(now, digest),
            ExecutionInput::Policy(id, answer) => execution.handle_policy(now, id, answer),
            ExecutionInput::State(request) => request.serve(execution),
            ExecutionInput::Replace(mut machine) => {
                // What the former machine wanted done is of a state that is no more.
                actions.clear();
                machine.take_over_from(execution);
                *execution = machine;
                plugins.discard(Discard::All);
                turn.replaced = true;
            }
            ExecutionInput::Stop => turn.stop = true,
        }
    }
    turn.progress = execution.step(now, plugins);
    if !inbox.is_empty() {
        turn.progress = Progress::More;
    }
    actions.extend(std::iter::from_fn(|| execution.poll_action()));
    turn
}

/// What the execution thread owns.
pub(crate) struct ExecutionThread {
    pub(crate) execution: Box<Execution>,
    pub(crate) plugins: Plugins,
    pub(crate) input: Receiver<Vec<ExecutionInput>>,
    pub(crate) output: mpsc::Sender<TurnOutput>,
    pub(crate) view: Arc<ExecutionView>,
    pub(crate) log_pace: Arc<LogPace>,
    pub(crate) fatal: Fatal,
}

impl ExecutionThread {
    /// Runs until it is told to stop, or the state is wrong.
    pub(crate) fn run(mut self) {
        let mut inbox = VecDeque::new();
        let mut progress = Progress::Idle;
        while self.receive(progress, &mut inbox) {
            let Some((output, next)) = self.turn(&mut inbox) else {
                return;
            };
            if !output.is_empty() && self.output.blocking_send(output).is_err() {
                return;
            }
            progress = next;
        }
    }

    /// Makes turns on the caller's thread until there is nothing to do: for
    /// [`ThreadLayout::Merged`]. False once the member stops.
    pub(crate) fn run_inline(&mut self, mut carry_out: impl FnMut(TurnOutput)) -> bool {
        let mut inbox = VecDeque::new();
        let mut progress = Progress::More;
        while progress == Progress::More || !self.input.is_empty() {
            inbox.extend(self.input.try_iter().flatten());
            let Some((output, next)) = self.turn(&mut inbox) else {
                return false;
            };
            carry_out(output);
            progress = next;
        }
        true
    }

    /// When the machine must be stepped at the latest.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.execution.poll_timeout()
    }

    /// One turn: what it sends, and whether there is more to do. None once the member stops.
    fn turn(&mut self, inbox: &mut VecDeque<ExecutionInput>) -> Option<(TurnOutput, Progress)> {
        let now = clock::now();
        self.view.begin_turn(now.tick);
        self.execution.observe_log_write(self.log_pace.millis());
        let mut actions = Vec::new();
        let turn = execution_turn(
            &mut self.execution,
            &mut self.plugins.runtime,
            now,
            inbox,
            &mut actions,
        );
        let output = self.sort(actions, turn.replaced);
        self.view.end_turn(&self.execution);
        output
            .filter(|_| !turn.stop)
            .map(|output| (output, turn.progress))
    }

    /// Takes all inputs there are; waits for one, or for the machine's timeout, if it is idle.
    /// False once nobody can send any more.
    fn receive(&self, progress: Progress, inbox: &mut VecDeque<ExecutionInput>) -> bool {
        if progress == Progress::Idle {
            let wait = self.execution.poll_timeout().map_or(IDLE, |due| {
                let micros = due.0.saturating_sub(clock::now().tick.0);
                Duration::from_micros(micros).min(IDLE)
            });
            match self.input.recv_timeout(wait) {
                Ok(inputs) => inbox.extend(inputs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        inbox.extend(self.input.try_iter().flatten());
        true
    }

    /// Sorts actions by who carries them out. None if the state is wrong: nothing that rests on it
    /// goes out.
    fn sort(&mut self, actions: Vec<ExecutionAction>, replaced: bool) -> Option<TurnOutput> {
        let mut output = TurnOutput::default();
        output.replaced = replaced;
        for action in actions {
            match action {
                ExecutionAction::ToStream { stream, frame } => {
                    output.send_on_stream(stream, &frame)
                }
                ExecutionAction::CloseStream { stream } => output.close_stream(stream),
                ExecutionAction::ToControl { connection, reply } => {
                    output.send_on_control(Some(connection), &reply);
                }
                ExecutionAction::ToAllControls { reply } => output.send_on_control(None, &reply),
                ExecutionAction::ToPeer { to, message } => output.peers.push((to, message)),
                ExecutionAction::Propose { batch } => {
                    output.consensus.push(ConsensusInput::Propose(batch));
                }
                ExecutionAction::ReadBarrier { context } => {
                    output.consensus.push(ConsensusInput::ReadBarrier(context));
                }
                ExecutionAction::ExamineComponent { digest, bytes } => {
                    self.plugins.service.submit_examine(digest, bytes);
                }
                ExecutionAction::AskPolicy { id, call } => self.plugins.policies.ask(id, *call),
                ExecutionAction::CompileComponent { digest, bytes } => {
                    self.plugins.service.submit_compile(digest, bytes);
                }
                ExecutionAction::ForgetComponent { digest } => {
                    self.plugins.service.submit_forget(digest);
                }
                ExecutionAction::GuestLog { mount, line } => {
                    tracing::info!(%mount, "{line}");
                }
                ExecutionAction::Stop { reason } => {
                    self.fatal.report(RunError::WrongState { reason });
                    return None;
                }
                ExecutionAction::HashAlarm { peer, index } => tracing::error!(
                    %peer,
                    %index,
                    "a peer's state differs from this member's: compare them with `cluster status`"
                ),
            }
        }
        Some(output)
    }
}
