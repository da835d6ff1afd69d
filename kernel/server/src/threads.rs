//! The threads of a member, and what connects them.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use folkmoot_core::consensus::{Consensus, ConsensusConfig, RecoveredLog};
use folkmoot_core::execution::{Execution, ExecutionConfig};
use folkmoot_core::state::State;
use folkmoot_host::Compiler;
use folkmoot_proto::bootstrap::BootstrapMember;
use folkmoot_proto::{Incarnation, MemberId};
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::{CheckpointQueue, CheckpointThread, Growth};
use crate::config::ServerConfig;
use crate::data::Data;
use crate::execution::{
    ExecutionQueue, ExecutionThread, ExecutionView, OUTPUT_TURNS_MAX, STACK_BYTES, TurnOutput,
};
use crate::fatal::Fatal;
use crate::folder::{self, Folder};
use crate::log::{self, LogLink};
use crate::network::{
    ClientsContext, ConsensusInput, EVENTS_MAX, Greeting, NetworkEvent, NetworkThread, Own,
    PeersContext, snapshot::SnapshotSink,
};
use crate::plugins::Plugins;
use crate::snapshots::Snapshots;
use crate::state_access::StateAccess;
use crate::tls::Identity;
use crate::transport::{self, Carries};
use crate::{CheckpointPolicy, RunError, StartError, ThreadLayout, clock};

/// What the threads are made of.
pub(crate) struct Parts {
    pub(crate) config: ServerConfig,
    pub(crate) identity: Identity,
    pub(crate) peer_socket: UdpSocket,
    pub(crate) client_socket: UdpSocket,
    pub(crate) data: Data,
    pub(crate) checkpoint: CheckpointPolicy,
    pub(crate) compiler: Compiler,
    pub(crate) layout: ThreadLayout,
    pub(crate) stopped: oneshot::Receiver<()>,
    pub(crate) fatal: Fatal,
}

/// The running threads. The folder is unlocked when they have ended.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) member: MemberId,
    handles: Vec<JoinHandle<()>>,
    folder: Folder,
}

impl Threads {
    /// Waits for all of them; they were told to stop.
    pub(crate) fn join(self) {
        for handle in self.handles {
            // A panic was reported by the thread's guard.
            let _ = handle.join();
        }
        drop(self.folder);
    }
}

/// Builds the machines and starts the threads.
pub(crate) fn start(parts: Parts) -> Result<Threads, StartError> {
    let member = parts.config.member;
    let data = parts.data;
    let machines = Machines::new(member, &data.folder)?;
    let consensus = machines.consensus(data.recovered, data.bootstrap_bytes)?;
    let execution = Box::new(machines.execution(data.state));
    let view = Arc::new(ExecutionView::new(&execution));
    let fatal = parts.fatal;

    let growth = Arc::new(Growth::default());
    let (queue, input) = ExecutionQueue::new();
    let (log, log_inbox) = LogLink::new(growth.clone());
    let (checkpoints, jobs) = CheckpointQueue::new();
    let (output, outputs) = mpsc::channel(OUTPUT_TURNS_MAX);
    let (inputs_in, inputs) = mpsc::unbounded_channel();
    let (plugins, policies) = Plugins::start(
        &data.folder.path().join("compiled"),
        parts.compiler,
        data.bootstrap.limits.component_bytes_max as usize,
        queue.clone(),
        &fatal,
    )?;
    let state = StateAccess::new(queue.clone());

    let executing = ExecutionThread {
        execution,
        plugins,
        input,
        output,
        view: view.clone(),
        log_pace: data.log.pace(),
        fatal: fatal.clone(),
    };
    let (merged, executing) = match parts.layout {
        ThreadLayout::Apart => (None, Some(executing)),
        ThreadLayout::Merged => (Some(executing), None),
    };
    let network = build_network(
        &parts.identity,
        (parts.peer_socket, parts.client_socket),
        NetworkParts {
            own: Own {
                cluster: data.bootstrap.cluster,
                member,
                incarnation: data.folder.incarnation(),
            },
            members: &data.bootstrap.members,
            consensus,
            election_timeout_ms: machines.consensus_config().election_timeout_ms,
            outputs,
            inputs,
            log: log.clone(),
            state: state.clone(),
            checkpoints,
            queue,
            view: view.clone(),
            stop: parts.stopped,
            fatal: fatal.clone(),
            merged,
        },
    )?;
    let replaced = inputs_in.clone();
    let compacted = inputs_in.clone();
    let checkpointing = CheckpointThread {
        store: Box::new(data.store),
        jobs,
        policy: parts.checkpoint,
        growth,
        state,
        view,
        machine: Box::new(move |state| machines.execution(state)),
        compact: Box::new(move |up_to| {
            log.compact(up_to);
            let input = ConsensusInput::LogCompacted(up_to);
            let _ = compacted.send(NetworkEvent::Consensus(input));
        }),
        replace: Box::new(move |machine| {
            let _ = replaced.send(NetworkEvent::Machine(machine));
        }),
        fatal: fatal.clone(),
    };
    let (service, log_fatal) = (data.log, fatal.clone());
    let mut handles = vec![
        spawn("log", STACK_BYTES, &fatal, move || {
            log::run(service, &log_inbox, &inputs_in, &log_fatal);
        })?,
        spawn("checkpoint", STACK_BYTES, &fatal, || checkpointing.run())?,
        spawn("network", STACK_BYTES, &fatal, || network.run())?,
    ];
    handles.extend(policies);
    if let Some(executing) = executing {
        let executing = spawn("execution", STACK_BYTES, &fatal, || executing.run())?;
        handles.push(executing);
    }
    Ok(Threads {
        member,
        handles,
        folder: data.folder,
    })
}

/// Starts a thread that the member can not be without: if it ends by itself, so does the member.
pub(crate) fn spawn(
    name: &'static str,
    stack_bytes: usize,
    fatal: &Fatal,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let fatal = fatal.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn(move || {
            let _guard = fatal.guard(name);
            body();
            fatal.ended(RunError::Ended { thread: name });
        })
        .map_err(|source| StartError::Thread { what: name, source })
}

/// What the machines of one run are made with.
#[derive(Clone, Debug)]
struct Machines {
    member: MemberId,
    incarnation: Incarnation,
    /// No other run of this member's process has it (rule R20).
    run: u64,
    seed: u64,
    path: PathBuf,
}

impl Machines {
    fn new(member: MemberId, folder: &Folder) -> Result<Self, StartError> {
        let random = || {
            folder::random().map_err(|error| StartError::Folder {
                path: PathBuf::from("/dev/urandom"),
                reason: error.to_string(),
            })
        };
        Ok(Self {
            member,
            incarnation: folder.incarnation(),
            run: random()?,
            seed: random()?,
            path: folder.path().to_owned(),
        })
    }

    fn consensus(
        &self,
        recovered: RecoveredLog,
        bootstrap: Bytes,
    ) -> Result<Consensus, StartError> {
        let config = self.consensus_config();
        let now = clock::now().tick;
        let consensus = Consensus::start(config, recovered, bootstrap, self.seed, now);
        consensus.map_err(|error| StartError::Damaged {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn consensus_config(&self) -> ConsensusConfig {
        ConsensusConfig::new(self.member, self.incarnation, self.run)
    }

    fn execution(&self, state: State) -> Execution {
        let config = ExecutionConfig::new(self.member, self.run);
        Execution::new(config, state, self.seed, clock::now())
    }
}

/// What the network thread is built from.
struct NetworkParts<'a> {
    own: Own,
    members: &'a [BootstrapMember],
    consensus: Consensus,
    election_timeout_ms: u64,
    outputs: mpsc::Receiver<TurnOutput>,
    inputs: mpsc::UnboundedReceiver<NetworkEvent>,
    log: LogLink,
    state: StateAccess,
    checkpoints: CheckpointQueue,
    queue: ExecutionQueue,
    view: Arc<ExecutionView>,
    stop: oneshot::Receiver<()>,
    fatal: Fatal,
    merged: Option<ExecutionThread>,
}

fn build_network(
    identity: &Identity,
    (peer_socket, client_socket): (UdpSocket, UdpSocket),
    parts: NetworkParts<'_>,
) -> Result<Network, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Thread {
            what: "network runtime",
            source,
        })?;
    let entered = runtime.enter();
    let mut peer_endpoint = transport::endpoint(
        peer_socket,
        identity,
        identity.peer_server()?,
        Carries::Peers,
    )?;
    peer_endpoint.set_default_client_config(transport::dialler(identity.peer_client()?)?);
    let client_endpoint = transport::endpoint(
        client_socket,
        identity,
        identity.client_server()?,
        Carries::Clients,
    )?;
    drop(entered);

    let (events_in, events) = mpsc::channel(EVENTS_MAX);
    let own = parts.own;
    let addresses = |address: fn(&BootstrapMember) -> &String| {
        let pair = |member: &BootstrapMember| (member.id, address(member).clone());
        parts.members.iter().map(pair).collect::<Vec<_>>()
    };
    let greeting = Greeting {
        cluster: own.cluster,
        member: own.member,
        members: addresses(|member| &member.client_address),
    };
    let sink = SnapshotSink {
        cluster: own.cluster,
        checkpoints: parts.checkpoints.clone(),
        events: events_in.clone(),
    };
    let ids = parts.members.iter().map(|member| member.id).collect();
    let thread = NetworkThread {
        members: addresses(|member| &member.peer_address),
        election_timeout_ms: parts.election_timeout_ms,
        consensus: parts.consensus,
        peer_endpoint,
        client_endpoint,
        peers_context: PeersContext::new(
            own.clone(),
            ids,
            events_in.clone(),
            sink,
            parts.fatal.clone(),
        ),
        clients_context: ClientsContext::new(
            events_in.clone(),
            parts.queue.clone(),
            greeting,
            parts.fatal.clone(),
        ),
        events,
        outputs: parts.outputs,
        inputs: parts.inputs,
        log: parts.log,
        snapshots: Snapshots {
            own: own.clone(),
            state: parts.state,
            checkpoints: parts.checkpoints,
            events: events_in,
            fatal: parts.fatal.clone(),
            sending: None,
        },
        queue: parts.queue,
        view: parts.view,
        stop: parts.stop,
        fatal: parts.fatal,
        merged: parts.merged,
        own,
    };
    Ok(Network { runtime, thread })
}

/// The network thread's runtime and what runs on it.
struct Network {
    runtime: tokio::runtime::Runtime,
    thread: NetworkThread,
}

impl Network {
    fn run(self) {
        self.runtime.block_on(self.thread.run());
        // Name look-ups that still run on the runtime's helpers are not waited for.
        self.runtime.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(body: fn()) -> Option<RunError> {
        let fatal = Fatal::default();
        let thread = spawn("log", STACK_BYTES, &fatal, body).expect("a thread");
        let _ = thread.join();
        fatal.take()
    }

    /// A member goes on with all of its threads or with none.
    #[test]
    fn a_thread_that_ends_by_itself_ends_the_member() {
        assert!(matches!(
            end_of(|| {}),
            Some(RunError::Ended { thread: "log" })
        ));
        assert!(matches!(
            end_of(|| panic!("as a defect would")),
            Some(RunError::Panicked { thread: "log" })
        ));
    }
}
