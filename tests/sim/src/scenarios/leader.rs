//! The execution of a leader, member 1 of three, over a log that commits what is proposed, or holds it
//! back, as the scenario says; and clients that are attached to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use folkmoot_core::consensus::{ProposeRefused, ProposedBatch, bootstrap_entry};
use folkmoot_core::execution::{
    ClientEvent, ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig,
    Progress, StreamId,
};
use folkmoot_core::policy::{PolicyAnswer, PolicyCall, PolicyCallId};
use folkmoot_core::state::State;
use folkmoot_proto::client::{
    ClientFrame, ControlReply, NodeKind, Operation, Request, ServerFrame,
};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::frame::to_bytes;
use folkmoot_proto::limits::Limits;
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{
    ConnEpoch, LogIndex, MemberId, Now, RequestId, SessionId, SessionSecret, Term, Tick, WallTime,
    Zxid,
};

use crate::runtime::{Known, NativeRuntime, examine, installation};
use crate::world::bootstrap_with;

const TIMEOUT_MS: u32 = 10_000;

/// A leader that has applied its own first entry.
pub(super) struct Leader {
    pub(super) execution: Execution,
    pub(super) runtime: NativeRuntime,
    now: Now,
    term: Term,
    /// The last entry of the log, and its zxid.
    last: (LogIndex, Zxid),
    /// What is proposed is committed at once, unless this is set.
    pub(super) holds_proposals: bool,
    pub(super) proposed: VecDeque<ProposedBatch>,
    /// Read barriers hold at once, unless this is set.
    pub(super) holds_barriers: bool,
    barriers: Vec<ReadContext>,
    frames: BTreeMap<StreamId, VecDeque<ServerFrame>>,
    /// Heartbeats that were acknowledged for some session.
    pub(super) acknowledged: Vec<u64>,
    /// Through which zxid the last acknowledgement wants the maps to be taken in.
    pub(super) position: Option<Zxid>,
    /// What policies are asked.
    pub(super) questions: VecDeque<(PolicyCallId, PolicyCall)>,
    /// What its steps took on the machine's own clock: the longest, and all.
    pub(super) steps: (Duration, Duration),
    /// Bytes of the batches that were proposed.
    pub(super) proposed_bytes: usize,
    streams: u64,
}

/// A client of one session.
pub(super) struct Client {
    pub(super) stream: StreamId,
    secret: SessionSecret,
    pub(super) session: SessionId,
    pub(super) epoch: ConnEpoch,
    next: RequestId,
}

impl Leader {
    pub(super) fn new() -> Result<Self, String> {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Result<Self, String> {
        let now = Now {
            tick: Tick(1_000_000),
            wall: WallTime(1_767_225_600_000),
        };
        let bootstrap = bootstrap_with(3, limits);
        let state = State::new(bootstrap.clone()).map_err(|error| error.to_string())?;
        let config = ExecutionConfig::new(MemberId(1), 1);
        let mut leader = Self {
            execution: Execution::new(config, state, 7, now),
            runtime: NativeRuntime::reliable(),
            now,
            term: Term::ZERO,
            last: (LogIndex(1), Zxid::ZERO),
            holds_proposals: false,
            proposed: VecDeque::new(),
            holds_barriers: false,
            barriers: Vec::new(),
            frames: BTreeMap::new(),
            acknowledged: Vec::new(),
            position: None,
            questions: VecDeque::new(),
            steps: (Duration::ZERO, Duration::ZERO),
            proposed_bytes: 0,
            streams: 0,
        };
        let entries = vec![bootstrap_entry(bootstrap)];
        leader.consensus(ConsensusEvent::Committed { entries });
        leader.elect()?;
        Ok(leader)
    }

    // What consensus does.

    /// It is elected, in a later term if it leads already.
    pub(super) fn elect(&mut self) -> Result<(), String> {
        if self.term != Term::ZERO {
            self.consensus(ConsensusEvent::Deposed { term: self.term });
        }
        self.term = self.term.next();
        self.consensus(ConsensusEvent::LeaderChanged {
            term: self.term,
            leader: Some(MemberId(1)),
        });
        self.consensus(ConsensusEvent::Elected {
            term: self.term,
            first_index: self.last.0.next(),
        });
        self.commit_entry(EntryKind::NoOp, self.last.1, Bytes::new());
        self.run()
    }

    fn consensus(&mut self, event: ConsensusEvent) {
        self.execution.handle_consensus(self.now, event);
    }

    fn commit_entry(&mut self, kind: EntryKind, last_zxid: Zxid, payload: Bytes) {
        let index = self.last.0.next();
        self.last = (index, last_zxid);
        let entries = vec![Entry {
            index,
            term: self.term,
            last_zxid,
            kind,
            payload,
        }];
        self.consensus(ConsensusEvent::Committed { entries });
    }

    /// Commits what was held back, and holds nothing back any more.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        self.holds_proposals = false;
        while let Some(batch) = self.proposed.pop_front() {
            self.take(batch);
        }
        self.run()
    }

    fn take(&mut self, batch: ProposedBatch) {
        self.proposed_bytes += batch.payload.len();
        let (base, last) = (batch.base_zxid, self.last.1);
        match base == last {
            true => self.commit_entry(EntryKind::Batch, batch.last_zxid, batch.payload),
            false => self.refused(ProposeRefused::Chain { base, last }),
        }
    }

    /// Refuses the oldest batch that was held back, and answers it.
    pub(super) fn refuse(&mut self) -> Result<ProposedBatch, String> {
        let batch = self.proposed.pop_front().ok_or("nothing is proposed")?;
        self.refused(ProposeRefused::Full);
        Ok(batch)
    }

    fn refused(&mut self, reason: ProposeRefused) {
        self.consensus(ConsensusEvent::ProposeRefused {
            reason,
            term: self.term,
            last_appended: self.last.0,
        });
    }

    /// The read barriers that were held back hold, and those that come.
    pub(super) fn answer_barriers(&mut self) -> Result<(), String> {
        self.holds_barriers = false;
        let index = self.last.0;
        for context in std::mem::take(&mut self.barriers) {
            self.consensus(ConsensusEvent::ReadReady { context, index });
        }
        self.run()
    }

    // What passes.

    /// Everything happens that can happen without time passing.
    pub(super) fn run(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            let started = Instant::now();
            let progress = self.execution.step(self.now, &mut self.runtime);
            let (longest, all) = self.steps;
            let took = started.elapsed();
            self.steps = (longest.max(took), all + took);
            let mut busy = progress == Progress::More;
            while let Some(action) = self.execution.poll_action() {
                busy = true;
                self.carry_out(action)?;
            }
            if !busy {
                return Ok(());
            }
        }
        Err("the leader does not come to rest".to_owned())
    }

    /// Time passes, in steps that are too short to look like a stall.
    pub(super) fn pass(&mut self, millis: u64) -> Result<(), String> {
        for _ in 0..millis.div_ceil(10) {
            self.now.tick = self.now.tick.plus_millis(10);
            self.now.wall.0 += 10;
            self.run()?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: ExecutionAction) -> Result<(), String> {
        match action {
            ExecutionAction::Propose { batch } if self.holds_proposals => {
                self.proposed.push_back(batch);
            }
            ExecutionAction::Propose { batch } => self.take(batch),
            ExecutionAction::ReadBarrier { context } => {
                self.barriers.push(context);
                if !self.holds_barriers {
                    self.answer_barriers()?;
                }
            }
            ExecutionAction::ToStream { stream, frame } => {
                self.frames.entry(stream).or_default().push_back(frame);
            }
            ExecutionAction::ToControl {
                reply: ControlReply::HeartbeatAck { sequence, sessions },
                ..
            } if !sessions.is_empty() => {
                self.acknowledged.push(sequence);
                self.position = sessions.iter().find_map(|(_, position)| *position);
            }
            ExecutionAction::ExamineComponent { digest, .. } => {
                let result = examine(digest);
                self.execution.handle_examined(self.now, digest, result);
            }
            ExecutionAction::CompileComponent { digest, .. } => {
                self.runtime.compiled(digest);
                self.execution.component_ready(self.now, digest);
            }
            ExecutionAction::AskPolicy { id, call } => self.questions.push_back((id, *call)),
            ExecutionAction::Stop { reason } => return Err(format!("it stops: {reason}")),
            _ => {}
        }
        Ok(())
    }

    // What clients and peers do.

    pub(super) fn frame(&mut self, stream: StreamId, frame: ClientFrame) {
        let event = ClientEvent::Frame {
            connection: ConnectionId(stream.0),
            stream,
            frame,
        };
        self.execution.handle_client(self.now, event);
    }

    pub(super) fn peer(&mut self, from: u64, message: ExecutionMessage) {
        self.execution
            .handle_peer(self.now, MemberId(from), message);
    }

    /// Asks for a session; `name` makes its secret.
    pub(super) fn ask_session(&mut self, name: u32) -> StreamId {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let frame = ClientFrame::Open {
            secret: secret_of(name),
            timeout_ms: TIMEOUT_MS,
        };
        self.frame(stream, frame);
        stream
    }

    pub(super) fn open(&mut self, name: u32) -> Result<Client, String> {
        let stream = self.ask_session(name);
        self.run()?;
        self.attached(stream, secret_of(name))
    }

    /// Asks for a client's session on another stream.
    pub(super) fn ask_again(&mut self, client: &Client) -> StreamId {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let frame = ClientFrame::Resume {
            session: client.session,
            secret: client.secret,
            last_seen: Zxid::ZERO,
        };
        self.frame(stream, frame);
        stream
    }

    /// A client has its session on another stream.
    pub(super) fn resume(&mut self, client: &Client) -> Result<Client, String> {
        let stream = self.ask_again(client);
        self.run()?;
        let resumed = self.attached(stream, client.secret)?;
        self.frame(stream, ClientFrame::WatchesResumed);
        self.run()?;
        Ok(resumed)
    }

    fn attached(&mut self, stream: StreamId, secret: SessionSecret) -> Result<Client, String> {
        match self.frames(stream).into_iter().next() {
            Some(ServerFrame::Attached {
                session,
                epoch,
                last_id,
                ..
            }) => Ok(Client {
                stream,
                secret,
                session,
                epoch,
                next: last_id.next(),
            }),
            other => Err(format!("instead of an attachment: {other:?}")),
        }
    }

    /// Sends a request with a certain id.
    pub(super) fn send(&mut self, client: &Client, id: RequestId, operation: Operation) {
        self.frame(client.stream, ClientFrame::Request(request(id, operation)));
    }

    /// Sends the session's next request.
    pub(super) fn ask(&mut self, client: &mut Client, operation: Operation) -> RequestId {
        let id = client.next;
        client.next = id.next();
        self.send(client, id, operation);
        id
    }

    /// Sends the session's next request and takes its reply.
    pub(super) fn call(
        &mut self,
        client: &mut Client,
        operation: Operation,
    ) -> Result<Reply, String> {
        let id = self.ask(client, operation);
        self.run()?;
        self.reply(client, id)
    }

    /// Takes the reply to a request; what came before it is not looked at.
    pub(super) fn reply(&mut self, client: &Client, id: RequestId) -> Result<Reply, String> {
        let frames = self.frames.entry(client.stream).or_default();
        while let Some(frame) = frames.pop_front() {
            match frame {
                ServerFrame::Reply { id: of, reply, .. } if of == id => return Ok(reply),
                _ => {}
            }
        }
        Err(format!("request {id} is not answered"))
    }

    /// Takes what was sent on a stream.
    pub(super) fn frames(&mut self, stream: StreamId) -> Vec<ServerFrame> {
        self.frames.remove(&stream).unwrap_or_default().into()
    }

    /// How a wait of a client ended, if one did.
    pub(super) fn completion(&mut self, client: &Client) -> Option<Reply> {
        let completion = |frame| match frame {
            ServerFrame::Completion { reply, .. } => Some(reply),
            _ => None,
        };
        self.frames(client.stream).into_iter().find_map(completion)
    }

    /// A client has taken a frame.
    pub(super) fn drained(&mut self, client: &Client, frame: &ServerFrame) {
        let event = ClientEvent::Drained {
            stream: client.stream,
            bytes: to_bytes(frame).map_or(0, |bytes| bytes.len()),
        };
        self.execution.handle_client(self.now, event);
    }

    /// A policy answers.
    pub(super) fn answer(&mut self, id: PolicyCallId, answer: PolicyAnswer) -> Result<(), String> {
        self.execution.handle_policy(self.now, id, answer);
        self.run()
    }

    pub(super) fn heartbeat(&mut self, client: &Client, sequence: u64) {
        let event = ClientEvent::Heartbeat {
            connection: ConnectionId(client.stream.0),
            sequence,
            arrived: self.now.tick,
            rtt_micros: 0,
            sessions: vec![(client.session, client.epoch)],
        };
        self.execution.handle_client(self.now, event);
    }

    /// Installs a recipe and mounts it at its place.
    pub(super) fn mount(&mut self, client: &mut Client, known: Known) -> Result<(), String> {
        self.install(client, known.bytes())?;
        let mount = Operation::Mount {
            path: known.mount().to_owned(),
            digest: known.digest(),
            config: Vec::new(),
        };
        match self.call(client, mount)? {
            Ok(_) => Ok(()),
            refused => Err(format!("{known:?} is not mounted: {refused:?}")),
        }
    }

    /// Installs a component.
    pub(super) fn install(&mut self, client: &mut Client, bytes: &[u8]) -> Result<(), String> {
        for step in installation(bytes, "component") {
            let reply = self.call(client, step)?;
            reply.map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }

    /// Calls a recipe that must wait.
    pub(super) fn wait(&mut self, client: &mut Client, call: Operation) -> Result<(), String> {
        match self.call(client, call)? {
            Ok(Outcome::Waiting(_)) => Ok(()),
            other => Err(format!("instead of a wait: {other:?}")),
        }
    }
}

fn secret_of(name: u32) -> SessionSecret {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&name.to_le_bytes());
    SessionSecret(secret)
}

pub(super) fn request(id: RequestId, operation: Operation) -> Request {
    Request {
        id,
        acked_up_to: RequestId::ZERO,
        guards: Vec::new(),
        operation,
    }
}

pub(super) fn create(path: &str, ephemeral: bool) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Vec::new(),
        kind: NodeKind {
            ephemeral,
            sequential: false,
        },
    }
}

pub(super) fn invoke(known: Known, operation: &str, payload: &str) -> Operation {
    Operation::Invoke {
        mount: known.mount().to_owned(),
        operation: operation.to_owned(),
        payload: payload.as_bytes().to_vec(),
    }
}
