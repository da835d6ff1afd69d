//! The network thread: QUIC endpoints on a current-thread runtime, and the consensus machine.
//!
//! Tasks read and write streams; one loop owns the machine and everything that is shared. It takes
//! all events there are, reads the clock, makes one turn, and flushes once.

mod clients;
mod close;
mod peers;
pub(crate) mod snapshot;
mod stall;
mod stream;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use folkmoot_core::consensus::{Consensus, ConsensusStatus, Role};
use folkmoot_core::execution::Execution;
use folkmoot_proto::client::{DetectorStatus, MemberStatus, PeerStatus};
use folkmoot_proto::peer::PeerMessage;
use folkmoot_proto::{LogIndex, MemberId, Tick};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock;
use crate::execution::{
    ExecutionInput, ExecutionQueue, ExecutionThread, ExecutionView, TurnOutput,
};
use crate::fatal::Fatal;
use crate::log::LogLink;
use crate::snapshots::Snapshots;

pub(crate) use clients::{ClientsContext, ClientsEvent, Greeting};
pub(crate) use peers::{Own, PeersContext};
pub(crate) use turn::{ConsensusInput, FifoItem, LogReadRequest, Outbox, network_turn};

/// Events of streams that may wait for the loop; readers wait beyond it.
pub(crate) const EVENTS_MAX: usize = 4096;
/// Events taken before the clock is read anew.
const TURN_EVENTS_MAX: usize = 4096;
/// How long a leader that stops tries to hand leadership over.
const TRANSFER: Duration = Duration::from_millis(700);
/// How long a member that stops waits for its goodbyes to be written.
const GOODBYE: Duration = Duration::from_millis(300);
/// Without a timeout of the machine the loop looks up this often.
const IDLE: Duration = Duration::from_millis(100);
/// What clients are told when the member stops.
const STOPPING: &str = "the member stops";
/// What clients are told when a snapshot takes the place of the state.
const REPLACED: &str = "the member's state was replaced by a snapshot: attach again";

/// What the loop hears of the streams.
#[derive(Debug)]
pub(crate) enum NetworkEvent {
    /// Of clients.
    Clients(ClientsEvent),
    /// Messages of a peer.
    PeerMessages(MemberId, Vec<PeerMessage>),
    /// The ordered stream to or from a peer broke, or began anew.
    PeerStreamLost(MemberId),
    /// For the consensus machine.
    Consensus(ConsensusInput),
    /// The machine on an installed snapshot is built.
    Machine(Box<Execution>),
}

/// What the network thread owns.
pub(crate) struct NetworkThread {
    pub(crate) own: Own,
    /// All members, with their addresses for peers.
    pub(crate) members: Vec<(MemberId, String)>,
    pub(crate) consensus: Consensus,
    pub(crate) election_timeout_ms: u64,
    pub(crate) peer_endpoint: quinn::Endpoint,
    pub(crate) client_endpoint: quinn::Endpoint,
    pub(crate) peers_context: PeersContext,
    pub(crate) clients_context: ClientsContext,
    /// From the tasks of streams.
    pub(crate) events: mpsc::Receiver<NetworkEvent>,
    /// From the execution thread.
    pub(crate) outputs: mpsc::Receiver<TurnOutput>,
    /// From the log thread and the checkpoint thread.
    pub(crate) inputs: mpsc::UnboundedReceiver<NetworkEvent>,
    pub(crate) log: LogLink,
    pub(crate) snapshots: Snapshots,
    pub(crate) queue: ExecutionQueue,
    pub(crate) view: Arc<ExecutionView>,
    pub(crate) stop: oneshot::Receiver<()>,
    pub(crate) fatal: Fatal,
    /// Execution, where it has no thread of its own.
    pub(crate) merged: Option<ExecutionThread>,
}

impl NetworkThread {
    /// Serves until it is told to stop, then says goodbye.
    pub(crate) async fn run(mut self) {
        let peers = peers::Peers::dial(&self.peer_endpoint, &self.members, &self.peers_context);
        let accepting = [
            self.fatal.spawn(peers::accept(
                self.peer_endpoint.clone(),
                self.peers_context.clone(),
            )),
            self.fatal.spawn(clients::accept(
                self.client_endpoint.clone(),
                self.clients_context.clone(),
            )),
        ];
        let mut state = Loop {
            peers,
            clients: clients::Clients::default(),
            stalls: stall::Stalls::new(self.election_timeout_ms),
            inbox: Vec::new(),
            outbox: Outbox::default(),
            execution: Vec::new(),
            awaits_machine: false,
            applied: LogIndex::ZERO,
        };
        let mut stopping: Option<Instant> = None;
        loop {
            let due = self.due().min(stopping.unwrap_or_else(far));
            let mut event = Vec::new();
            tokio::select! {
                _ = self.events.recv_many(&mut event, TURN_EVENTS_MAX) => {}
                output = self.outputs.recv(), if self.merged.is_none() => match output {
                    Some(output) => self.output(&mut state, output),
                    None => break,
                },
                input = self.inputs.recv() => event.extend(input),
                () = tokio::time::sleep_until(due) => {}
                _ = &mut self.stop, if stopping.is_none() => {
                    stopping = Some(Instant::now() + TRANSFER);
                    state.inbox.push(ConsensusInput::TransferLeadership);
                }
            }
            self.take_all(&mut state, event);
            self.turn(&mut state);
            if !self.execute_inline(&mut state) {
                break;
            }
            // The writers of the streams run before the next turn.
            tokio::task::yield_now().await;
            if let Some(deadline) = stopping {
                let leads = self.consensus.status().role == Role::Leader && self.members.len() > 1;
                if !leads || Instant::now() >= deadline {
                    break;
                }
            }
        }
        self.queue.send(vec![ExecutionInput::Stop]);
        state.clients.stop(STOPPING);
        self.say_goodbye(accepting).await;
    }

    /// When the loop must look up at the latest.
    fn due(&self) -> Instant {
        let merged = self.merged.as_ref().and_then(ExecutionThread::due);
        let due = self
            .consensus
            .poll_timeout()
            .into_iter()
            .chain(merged)
            .min();
        let wait = due.map_or(IDLE, |due| {
            Duration::from_micros(due.0.saturating_sub(clock::now().tick.0)).min(IDLE)
        });
        Instant::now() + wait
    }

    /// Takes everything that is there.
    fn take_all(&mut self, state: &mut Loop, mut events: Vec<NetworkEvent>) {
        while events.len() < TURN_EVENTS_MAX
            && let Ok(event) = self.events.try_recv()
        {
            events.push(event);
        }
        for event in events {
            self.event(state, event);
        }
        while let Ok(output) = self.outputs.try_recv() {
            self.output(state, output);
        }
        while let Ok(event) = self.inputs.try_recv() {
            self.event(state, event);
        }
        state
            .clients
            .drained(&self.clients_context.drained, &mut state.execution);
    }

    fn event(&mut self, state: &mut Loop, event: NetworkEvent) {
        match event {
            NetworkEvent::Clients(event) => {
                let leader = self.consensus.status().leader;
                state
                    .clients
                    .handle(event, leader, || self.member_status(), &mut state.execution);
            }
            NetworkEvent::PeerMessages(from, messages) => {
                for message in messages {
                    match message {
                        PeerMessage::Consensus(message) => {
                            state.inbox.push(ConsensusInput::Message(from, message));
                        }
                        PeerMessage::Execution(message) => {
                            state.execution.push(ExecutionInput::Peer(from, message));
                        }
                    }
                }
            }
            NetworkEvent::PeerStreamLost(peer) => {
                state.execution.push(ExecutionInput::PeerStreamLost(peer));
            }
            NetworkEvent::Consensus(input) => state.inbox.push(input),
            NetworkEvent::Machine(machine) => {
                state.awaits_machine = false;
                state.execution.insert(0, ExecutionInput::Replace(machine));
            }
        }
    }

    /// Carries a turn of execution out.
    fn output(&self, state: &mut Loop, output: TurnOutput) {
        if output.replaced {
            state.clients.end_streams(REPLACED);
        }
        for stream in &output.streams {
            state.clients.send_on_stream(stream, &mut state.execution);
        }
        for (connection, frames) in &output.controls {
            state.clients.send_on_controls(*connection, frames);
        }
        for (to, message) in output.peers {
            state.peers.send(to, &PeerMessage::Execution(message));
        }
        state.inbox.extend(output.consensus);
    }

    /// Runs execution here, if it has no thread of its own, until nothing is left to do. False if
    /// the state is wrong.
    fn execute_inline(&mut self, state: &mut Loop) -> bool {
        let Some(mut execution) = self.merged.take() else {
            return true;
        };
        let mut outputs = Vec::new();
        let goes_on = execution.run_inline(|output| outputs.push(output));
        self.merged = Some(execution);
        if outputs.iter().any(|output| !output.is_empty()) {
            for output in outputs {
                self.output(state, output);
            }
            self.turn(state);
        }
        goes_on
    }

    fn turn(&mut self, state: &mut Loop) {
        let now = clock::now().tick;
        let applied = self.view.applied();
        if std::mem::replace(&mut state.applied, applied) != applied {
            state.inbox.push(ConsensusInput::Applied(applied));
        }
        state
            .stalls
            .look(now, self.view.busy_since(), &mut state.inbox);
        network_turn(
            &mut self.consensus,
            now,
            &mut state.inbox,
            &mut state.outbox,
        );
        self.flush(state, now);
    }

    /// The log first, since its sync takes longest; then the peers, which need not wait for it
    /// (rule R17); then execution.
    fn flush(&mut self, state: &mut Loop, now: Tick) {
        for (id, records) in state.outbox.persist.drain(..) {
            state.stalls.persisting(id, now);
            self.log.persist(id, records);
        }
        for read in state.outbox.reads.drain(..) {
            self.log.read(read);
        }
        for (to, message) in state.outbox.sends.drain(..) {
            state.peers.send(to, &PeerMessage::Consensus(message));
        }
        for item in state.outbox.events.drain(..) {
            match item {
                FifoItem::Event(event) => state.execution.push(ExecutionInput::Consensus(event)),
                FifoItem::Replace(meta) => {
                    // What comes after it is for the machine that is built now, and waits for it.
                    self.queue.send(std::mem::take(&mut state.execution));
                    state.awaits_machine = true;
                    self.snapshots.install(meta);
                }
            }
        }
        for meta in state.outbox.discarded.drain(..) {
            self.snapshots.discard(meta);
        }
        for to in state.outbox.snapshots.drain(..) {
            let term = self.consensus.status().term;
            self.snapshots.send(to, term, state.peers.connection(to));
        }
        if !state.awaits_machine {
            self.queue.send(std::mem::take(&mut state.execution));
        }
    }

    fn member_status(&self) -> MemberStatus {
        let consensus = self.consensus.status();
        let execution = self.view.status();
        let now = clock::now().tick;
        MemberStatus {
            cluster: self.own.cluster,
            member: self.own.member,
            role: role_name(&consensus).to_owned(),
            term: consensus.term,
            leader: consensus.leader,
            last_index: consensus.last_index,
            commit_index: consensus.commit_index,
            applied_index: execution.applied_index,
            applied_zxid: execution.applied_zxid,
            state_hash: execution.state_hash,
            sessions: execution.sessions,
            nodes: execution.nodes,
            watches: execution.watches,
            voters: consensus.voters,
            peers: consensus
                .peers
                .into_iter()
                .map(|peer| PeerStatus {
                    member: peer.member,
                    match_index: peer.match_index,
                    last_contact_ms: peer.last_contact_ms,
                })
                .collect(),
            detectors: execution
                .detectors
                .iter()
                .map(|detector| DetectorStatus {
                    group: detector.group.clone(),
                    answered_ms: detector.answered_at.map(|at| now.millis_since(at)),
                    faults: detector.faults,
                    problem: detector.problem.as_deref().unwrap_or_default().to_owned(),
                })
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn say_goodbye(self, accepting: [tokio::task::JoinHandle<()>; 2]) {
        for task in accepting {
            task.abort();
        }
        // Writers get a moment for what waits; a client that does not read does not hold us up.
        let written = Instant::now() + GOODBYE / 3;
        tokio::time::sleep_until(written).await;
        for endpoint in [&self.client_endpoint, &self.peer_endpoint] {
            endpoint.close(quinn::VarInt::from_u32(0), STOPPING.as_bytes());
        }
        let idle = async {
            self.client_endpoint.wait_idle().await;
            self.peer_endpoint.wait_idle().await;
        };
        // A peer that is gone would be waited for until its connection times out.
        let _ = tokio::time::timeout(GOODBYE, idle).await;
    }
}

/// What the loop changes.
struct Loop {
    peers: peers::Peers,
    clients: clients::Clients,
    stalls: stall::Stalls,
    inbox: Vec<ConsensusInput>,
    outbox: Outbox,
    /// What goes to execution at the end of the turn.
    execution: Vec<ExecutionInput>,
    /// A snapshot was installed and its machine is not built yet.
    awaits_machine: bool,
    /// What consensus was told of how far execution is.
    applied: LogIndex,
}

fn role_name(status: &ConsensusStatus) -> &'static str {
    match status.role {
        _ if !status.may_vote => "recovering",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::PreCandidate | Role::Candidate => "candidate",
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
