//! A cluster in one thread: real execution machines, and a log that does what the test says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::client::{ClientFrame, ControlReply, Operation, Request, ServerFrame};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{
    ClusterId, ConnEpoch, Digest, LogIndex, MemberId, Now, RequestId, SessionId, SessionSecret,
    Term, Tick, WallTime, Zxid,
};

use super::plugins::TestPlugins;
use crate::consensus::{ProposeRefused, ProposedBatch};
use crate::execution::{
    ClientEvent, ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig,
    Progress, StreamId,
};
use crate::state::{State, View};

/// What the fake consensus does with proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proposals {
    /// Each is appended and committed at once.
    Commit,
    /// They wait for the test to commit or refuse them.
    Hold,
}

pub(super) struct Member {
    pub(super) execution: Execution,
    pub(super) plugins: TestPlugins,
    /// Entries of the log that were handed to it.
    handed: usize,
    /// Nothing committed is handed to it while set.
    pub(super) lags: bool,
    /// Messages to and from it are lost while set.
    pub(super) cut_off: bool,
}

pub(super) struct Cluster {
    members: BTreeMap<MemberId, Member>,
    pub(super) log: Vec<Entry>,
    pub(super) leader: Option<MemberId>,
    term: Term,
    pub(super) proposals: Proposals,
    pub(super) proposed: VecDeque<ProposedBatch>,
    /// Read barriers that are not answered while `hold_barriers` is set.
    pub(super) barriers: VecDeque<(MemberId, ReadContext)>,
    pub(super) hold_barriers: bool,
    messages: VecDeque<(MemberId, MemberId, ExecutionMessage)>,
    frames: BTreeMap<StreamId, VecDeque<ServerFrame>>,
    pub(super) controls: Vec<(MemberId, ConnectionId, ControlReply)>,
    pub(super) closed: BTreeSet<StreamId>,
    pub(super) others: Vec<(MemberId, ExecutionAction)>,
    pub(super) now: Tick,
    streams: u64,
    secrets: u8,
}

/// A client of one session at one member.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) member: MemberId,
    pub(super) stream: StreamId,
    pub(super) secret: SessionSecret,
    pub(super) session: SessionId,
    pub(super) epoch: ConnEpoch,
    pub(super) next: RequestId,
    pub(super) acked: RequestId,
}

pub(super) fn member(id: u64) -> MemberId {
    MemberId(id)
}

impl Cluster {
    /// A cluster of `members` members, led by the first.
    pub(super) fn new(members: u64) -> Self {
        Self::with_limits(members, Limits::default())
    }

    pub(super) fn with_limits(members: u64, limits: Limits) -> Self {
        let bootstrap = Bootstrap {
            cluster: ClusterId([7; 16]),
            created: WallTime(1),
            members: (1..=members)
                .map(|id| BootstrapMember {
                    id: MemberId(id),
                    peer_address: String::new(),
                    client_address: String::new(),
                })
                .collect(),
            limits,
        };
        let bootstrap = Bytes::from(bootstrap.to_bytes());
        let now = Tick(1_000_000_000);
        let start = |id| {
            let state = State::new(bootstrap.clone()).expect("a bootstrap entry");
            let config = ExecutionConfig::new(MemberId(id), 1);
            let member = Member {
                execution: Execution::new(config, state, id, at(now)),
                plugins: TestPlugins::default(),
                handed: 0,
                lags: false,
                cut_off: false,
            };
            (MemberId(id), member)
        };
        let entry = Entry {
            index: LogIndex(1),
            term: Term(1),
            last_zxid: Zxid::ZERO,
            kind: EntryKind::Bootstrap,
            payload: bootstrap.clone(),
        };
        let mut cluster = Self {
            members: (1..=members).map(start).collect(),
            log: vec![entry],
            leader: None,
            term: Term(1),
            proposals: Proposals::Commit,
            proposed: VecDeque::new(),
            barriers: VecDeque::new(),
            hold_barriers: false,
            messages: VecDeque::new(),
            frames: BTreeMap::new(),
            controls: Vec::new(),
            closed: BTreeSet::new(),
            others: Vec::new(),
            now,
            streams: 0,
            secrets: 0,
        };
        cluster.elect(MemberId(1));
        cluster.run();
        cluster
    }

    pub(super) fn member(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    pub(super) fn state(&self, id: MemberId) -> &State {
        self.members[&id].execution.state()
    }

    fn now(&self) -> Now {
        at(self.now)
    }

    /// Time passes, in steps short enough not to look like a stall.
    pub(super) fn pass_ms(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while self.now < end {
            self.now = self.now.plus_millis(20).min(end);
            self.run();
        }
    }

    // What consensus does.

    /// Ends the leader's term: everybody knows of no leader.
    pub(super) fn depose(&mut self) {
        self.proposed.clear();
        for (owner, context) in core::mem::take(&mut self.barriers) {
            self.consensus(owner, ConsensusEvent::ReadLost { context });
        }
        if let Some(leader) = self.leader.take() {
            let term = self.term;
            self.consensus(leader, ConsensusEvent::Deposed { term });
        }
        self.tell_leader();
    }

    /// A new term begins under `leader`, with a no-op.
    pub(super) fn elect(&mut self, leader: MemberId) {
        if self.leader.is_some() {
            self.depose();
        }
        self.term = self.term.next();
        self.leader = Some(leader);
        let first_index = LogIndex(self.log.len() as u64 + 1);
        let term = self.term;
        self.append(EntryKind::NoOp, self.last_zxid(), Bytes::new());
        self.consensus(leader, ConsensusEvent::Elected { term, first_index });
        self.tell_leader();
    }

    fn tell_leader(&mut self) {
        let (term, leader) = (self.term, self.leader);
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.consensus(id, ConsensusEvent::LeaderChanged { term, leader });
        }
    }

    pub(super) fn last_zxid(&self) -> Zxid {
        self.log.last().map_or(Zxid::ZERO, |entry| entry.last_zxid)
    }

    fn append(&mut self, kind: EntryKind, last_zxid: Zxid, payload: Bytes) {
        self.log.push(Entry {
            index: LogIndex(self.log.len() as u64 + 1),
            term: self.term,
            last_zxid,
            kind,
            payload,
        });
    }

    /// Appends and commits the oldest held batch.
    pub(super) fn commit_one(&mut self) {
        let batch = self.proposed.pop_front().expect("a proposed batch");
        self.take_batch(batch);
        self.run();
    }

    /// Refuses the oldest held batch, and with it those behind it.
    pub(super) fn refuse_one(&mut self) {
        self.proposed.pop_front().expect("a proposed batch");
        self.refuse(ProposeRefused::Full);
        self.run();
    }

    fn take_batch(&mut self, batch: ProposedBatch) {
        if batch.term != self.term || self.leader.is_none() {
            return;
        }
        if batch.base_zxid != self.last_zxid()
            && !crate::mutation::is_on(crate::mutation::Mutation::AppendUnchained)
        {
            let (base, last) = (batch.base_zxid, self.last_zxid());
            return self.refuse(ProposeRefused::Chain { base, last });
        }
        self.append(EntryKind::Batch, batch.last_zxid, batch.payload);
    }

    fn refuse(&mut self, reason: ProposeRefused) {
        let (term, last_appended) = (self.term, LogIndex(self.log.len() as u64));
        if let Some(leader) = self.leader {
            let event = ConsensusEvent::ProposeRefused {
                reason,
                term,
                last_appended,
            };
            self.consensus(leader, event);
        }
    }

    pub(super) fn consensus(&mut self, id: MemberId, event: ConsensusEvent) {
        let now = self.now();
        self.member(id).execution.handle_consensus(now, event);
    }

    /// Everything happens that can happen without time passing.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                busy |= self.hand_committed(id);
                busy |= self.step(id);
            }
            busy |= self.deliver();
            if !busy {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn hand_committed(&mut self, id: MemberId) -> bool {
        let member = &self.members[&id];
        if member.lags || member.handed == self.log.len() {
            return false;
        }
        let entries = self.log[member.handed..].to_vec();
        self.member(id).handed += entries.len();
        self.consensus(id, ConsensusEvent::Committed { entries });
        true
    }

    fn step(&mut self, id: MemberId) -> bool {
        let now = self.now();
        let Member {
            execution, plugins, ..
        } = self.member(id);
        let mut busy = execution.step(now, plugins) == Progress::More;
        let mut actions = Vec::new();
        while let Some(action) = execution.poll_action() {
            actions.push(action);
        }
        for action in actions {
            busy = true;
            self.carry_out(id, action);
        }
        busy
    }

    fn carry_out(&mut self, id: MemberId, action: ExecutionAction) {
        match action {
            ExecutionAction::ToStream { stream, frame } => {
                self.frames.entry(stream).or_default().push_back(frame);
            }
            ExecutionAction::CloseStream { stream } => {
                self.closed.insert(stream);
            }
            ExecutionAction::ToControl { connection, reply } => {
                self.controls.push((id, connection, reply));
            }
            ExecutionAction::ToPeer { to, message } => self.messages.push_back((id, to, message)),
            ExecutionAction::Propose { batch } if self.leader == Some(id) => match self.proposals {
                Proposals::Commit => self.take_batch(batch),
                Proposals::Hold => self.proposed.push_back(batch),
            },
            ExecutionAction::Propose { batch } => {
                let term = batch.term;
                let event = ConsensusEvent::ProposeRefused {
                    reason: ProposeRefused::NotLeading { term },
                    term,
                    last_appended: LogIndex(self.log.len() as u64),
                };
                self.consensus(id, event);
            }
            ExecutionAction::ReadBarrier { context } => {
                self.barriers.push_back((id, context));
                if !self.hold_barriers {
                    self.answer_barriers();
                }
            }
            ExecutionAction::ExamineComponent { digest, bytes } => {
                let result = if bytes.starts_with(b"bad") {
                    Err("it is bad".to_owned())
                } else {
                    Ok("{}".to_owned())
                };
                let now = self.now();
                self.member(id)
                    .execution
                    .handle_examined(now, digest, result);
            }
            ExecutionAction::CompileComponent { digest, bytes } => {
                let now = self.now();
                let member = self.member(id);
                member.plugins.compile(digest, &bytes);
                member.execution.component_ready(now, digest);
            }
            ExecutionAction::ToAllControls { .. } => {}
            other => self.others.push((id, other)),
        }
    }

    /// Answers the read barriers that wait: they hold at the end of the log.
    pub(super) fn answer_barriers(&mut self) {
        let index = LogIndex(self.log.len() as u64);
        for (id, context) in core::mem::take(&mut self.barriers) {
            let is_cut_off = self.members[&id].cut_off;
            let event = if self.leader.is_some() && !is_cut_off {
                ConsensusEvent::ReadReady { context, index }
            } else {
                ConsensusEvent::ReadLost { context }
            };
            self.consensus(id, event);
        }
    }

    fn deliver(&mut self) -> bool {
        let messages = core::mem::take(&mut self.messages);
        let any = !messages.is_empty();
        for (from, to, message) in messages {
            if !self.members[&from].cut_off && !self.members[&to].cut_off {
                let now = self.now();
                self.member(to).execution.handle_peer(now, from, message);
            }
        }
        any
    }

    // What clients do.

    pub(super) fn frame(&mut self, at: MemberId, stream: StreamId, frame: ClientFrame) {
        let now = self.now();
        let event = ClientEvent::Frame {
            connection: ConnectionId(stream.0),
            stream,
            frame,
        };
        self.member(at).execution.handle_client(now, event);
    }

    pub(super) fn new_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    pub(super) fn new_secret(&mut self) -> SessionSecret {
        self.secrets += 1;
        SessionSecret([self.secrets; 32])
    }

    /// Opens a session of 10 s at a member.
    pub(super) fn open(&mut self, at: MemberId) -> Client {
        let secret = self.new_secret();
        let stream = self.new_stream();
        let timeout_ms = 10_000;
        self.frame(at, stream, ClientFrame::Open { secret, timeout_ms });
        self.run();
        self.attached(at, stream, secret)
    }

    /// Asks for a session to be resumed at a member.
    pub(super) fn ask_resume(&mut self, client: &Client, at: MemberId) -> StreamId {
        let stream = self.new_stream();
        let frame = ClientFrame::Resume {
            session: client.session,
            secret: client.secret,
            last_seen: Zxid::ZERO,
        };
        self.frame(at, stream, frame);
        stream
    }

    /// Resumes a session at a member. Frames before `Attached` are an error, those after it stay.
    pub(super) fn resume(&mut self, client: &Client, at: MemberId) -> Client {
        let stream = self.ask_resume(client, at);
        self.run();
        let resumed = self.attached(at, stream, client.secret);
        Client {
            next: client.next,
            acked: client.acked,
            ..resumed
        }
    }

    pub(super) fn attached(
        &mut self,
        at: MemberId,
        stream: StreamId,
        secret: SessionSecret,
    ) -> Client {
        let first = self.frames.entry(stream).or_default().pop_front();
        let Some(ServerFrame::Attached {
            session,
            epoch,
            last_id,
            ..
        }) = first
        else {
            panic!("not attached: {first:?}");
        };
        Client {
            member: at,
            stream,
            secret,
            session,
            epoch,
            next: last_id.next(),
            acked: RequestId::ZERO,
        }
    }

    /// Sends a request with a certain id.
    pub(super) fn send_as(&mut self, client: &Client, id: RequestId, operation: Operation) {
        let request = Request {
            id,
            acked_up_to: client.acked,
            guards: Vec::new(),
            operation,
        };
        self.frame(client.member, client.stream, ClientFrame::Request(request));
    }

    /// Sends the session's next request.
    pub(super) fn send(&mut self, client: &mut Client, operation: Operation) -> RequestId {
        let id = client.next;
        client.next = id.next();
        self.send_as(client, id, operation);
        id
    }

    /// Sends the session's next request and waits for its reply, which is the next frame.
    pub(super) fn call(&mut self, client: &mut Client, operation: Operation) -> Reply {
        let id = self.send(client, operation);
        self.run();
        match self.next_frame(client) {
            Some(ServerFrame::Reply { id: of, reply, .. }) if of == id => reply,
            other => panic!("instead of a reply to {id}: {other:?}"),
        }
    }

    pub(super) fn next_frame(&mut self, client: &Client) -> Option<ServerFrame> {
        self.frames.entry(client.stream).or_default().pop_front()
    }

    pub(super) fn frames(&mut self, client: &Client) -> Vec<ServerFrame> {
        self.frames_of(client.stream)
    }

    pub(super) fn frames_of(&mut self, stream: StreamId) -> Vec<ServerFrame> {
        core::mem::take(self.frames.entry(stream).or_default()).into()
    }

    /// A client's heartbeat; answers whether it was acknowledged for its session.
    pub(super) fn heartbeat(&mut self, client: &Client, sequence: u64) {
        let now = self.now();
        let event = ClientEvent::Heartbeat {
            connection: ConnectionId(client.stream.0),
            sequence,
            sessions: vec![(client.session, client.epoch)],
        };
        self.member(client.member)
            .execution
            .handle_client(now, event);
    }

    /// The sequences of the acknowledged heartbeats of a client's session.
    pub(super) fn acknowledged(&self, client: &Client) -> Vec<u64> {
        let of = |control: &(MemberId, ConnectionId, ControlReply)| match control {
            (_, connection, ControlReply::HeartbeatAck { sequence, sessions })
                if connection.0 == client.stream.0 && sessions.contains(&client.session) =>
            {
                Some(*sequence)
            }
            _ => None,
        };
        self.controls.iter().filter_map(of).collect()
    }

    /// As [`Cluster::call`], by a client that was told to rewind, or that waited before.
    pub(super) fn call_anew(&mut self, client: &mut Client, operation: Operation) -> Reply {
        self.frames(client);
        self.call(client, operation)
    }

    /// The ordered stream between two members breaks; both hear of it.
    pub(super) fn lose_stream(&mut self, one: MemberId, other: MemberId) {
        let now = self.now();
        self.member(one).execution.peer_stream_lost(now, other);
        self.member(other).execution.peer_stream_lost(now, one);
        self.run();
    }

    /// Installs the test plugin of that name and mounts it.
    pub(super) fn install_and_mount(&mut self, client: &mut Client, name: &str, path: &str) {
        let digest = self.install(client, name);
        let mounted = self.call(
            client,
            Operation::Mount {
                path: path.to_owned(),
                digest,
                config: Vec::new(),
            },
        );
        assert_eq!(mounted, Ok(Outcome::Mounted));
    }

    pub(super) fn install(&mut self, client: &mut Client, name: &str) -> Digest {
        let bytes = name.as_bytes().to_vec();
        let digest = Digest::of(&bytes);
        let size = u32::try_from(bytes.len()).expect("a small component");
        let chunk = Operation::UploadChunk {
            digest,
            size,
            offset: 0,
            data: bytes,
        };
        assert_eq!(self.call(client, chunk), Ok(Outcome::ChunkTaken));
        let name = name.to_owned();
        let waiting = self.call(client, Operation::Install { digest, name });
        assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
        let completion = self.next_frame(client);
        let is_installed = |frame: &ServerFrame| {
            matches!(
                frame,
                ServerFrame::Completion {
                    reply: Ok(Outcome::Installed),
                    ..
                }
            )
        };
        assert!(
            completion.as_ref().is_some_and(is_installed),
            "{completion:?}"
        );
        digest
    }
}

fn at(tick: Tick) -> Now {
    Now {
        tick,
        wall: WallTime(1_700_000_000_000 + tick.0 / 1000),
    }
}

/// All members that have applied as much have the same state.
pub(super) fn assert_same_state(cluster: &Cluster) {
    let first = cluster.state(MemberId(1));
    for (id, member) in &cluster.members {
        let state = member.execution.state();
        assert_eq!(state.position(), first.position(), "member {id}");
        let counters = state.counters();
        assert_eq!(counters, first.counters(), "member {id}");
    }
}

pub(super) fn create(path: &str) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Vec::new(),
        kind: folkmoot_proto::client::NodeKind::PERSISTENT,
    }
}

pub(super) fn create_ephemeral(path: &str) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Vec::new(),
        kind: folkmoot_proto::client::NodeKind::EPHEMERAL,
    }
}

pub(super) fn invoke(mount: &str, operation: &str) -> Operation {
    Operation::Invoke {
        mount: mount.to_owned(),
        operation: operation.to_owned(),
        payload: Vec::new(),
    }
}

/// The ids and replies among frames.
pub(super) fn replies(frames: &[ServerFrame]) -> Vec<(u64, Reply)> {
    let reply = |frame: &ServerFrame| match frame {
        ServerFrame::Reply { id, reply, .. } => Some((id.0, reply.clone())),
        _ => None,
    };
    frames.iter().filter_map(reply).collect()
}
