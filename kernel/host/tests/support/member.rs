//! A real execution machine with the plugin host, as a cluster of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use folkmoot_core::consensus::ProposedBatch;
use folkmoot_core::execution::{
    ClientEvent, ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig,
    Progress, StreamId,
};
use folkmoot_core::state::State;
use folkmoot_host::{CallLimits, Components, Policies, PolicyLimits, WasmRuntime};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::client::{ClientFrame, Guard, Operation, Request, ServerFrame};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::{CHUNK_BYTES_MAX, Limits};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{
    ClusterId, Digest, LogIndex, MemberId, Now, RequestId, SessionSecret, Term, Tick, Ticket,
    WallTime, Zxid,
};

use super::{component, sandbox};

/// The sessions' timeout, in milliseconds: no test of this kind lets so much time pass.
pub(crate) const SESSION_TIMEOUT_MS: u32 = 300_000;
/// The time of a policy's call, in milliseconds: what loops for ever is found out soon.
const POLICY_MILLIS: u64 = 250;

/// A cluster of one: its log commits what is proposed at once, and policies answer at once.
pub(crate) struct Member {
    pub(crate) execution: Execution,
    now: Now,
    runtime: WasmRuntime,
    policies: Policies,
    /// Questions that policies were asked.
    pub(crate) asked: usize,
    components: Arc<Components>,
    log: Vec<Entry>,
    handed: usize,
    frames: BTreeMap<StreamId, Vec<ServerFrame>>,
}

pub(crate) struct Client {
    pub(crate) stream: StreamId,
    next: RequestId,
}

impl Member {
    pub(crate) fn start() -> Self {
        let bootstrap = Bootstrap {
            cluster: ClusterId([7; 16]),
            created: WallTime(1),
            members: vec![BootstrapMember {
                id: MemberId(1),
                peer_address: String::new(),
                client_address: String::new(),
            }],
            limits: Limits::default(),
        };
        let bootstrap = Bytes::from(bootstrap.to_bytes());
        let state = State::new(bootstrap.clone()).expect("a bootstrap entry");
        let config = ExecutionConfig::new(MemberId(1), 1);
        let components = Arc::new(Components::in_memory(sandbox()));
        let limits = PolicyLimits {
            millis: POLICY_MILLIS,
            ..PolicyLimits::default()
        };
        let now = Now {
            tick: Tick(1_000_000_000),
            wall: WallTime(1_700_000_000_000),
        };
        let mut member = Self {
            execution: Execution::new(config, state, 1, now),
            now,
            runtime: WasmRuntime::new(Arc::clone(&components), CallLimits::default()),
            policies: Policies::new(Arc::clone(&components), limits, Arc::default()),
            asked: 0,
            components,
            log: Vec::new(),
            handed: 0,
            frames: BTreeMap::new(),
        };
        member.append(Term(1), EntryKind::Bootstrap, Zxid::ZERO, bootstrap);
        member.append(Term(2), EntryKind::NoOp, Zxid::ZERO, Bytes::new());
        let (term, leader) = (Term(2), Some(MemberId(1)));
        let first_index = LogIndex(2);
        member.consensus(ConsensusEvent::Elected { term, first_index });
        member.consensus(ConsensusEvent::LeaderChanged { term, leader });
        member.run();
        member
    }

    fn append(&mut self, term: Term, kind: EntryKind, last_zxid: Zxid, payload: Bytes) {
        let index = LogIndex(self.log.len() as u64 + 1);
        self.log.push(Entry {
            index,
            term,
            last_zxid,
            kind,
            payload,
        });
    }

    fn consensus(&mut self, event: ConsensusEvent) {
        self.execution.handle_consensus(self.now, event);
    }

    /// Time passes.
    pub(crate) fn pass_ms(&mut self, millis: u64) {
        self.now.tick = self.now.tick.plus_millis(millis);
        self.now.wall.0 += millis;
        self.run();
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.handed < self.log.len() {
                let entries = self.log[self.handed..].to_vec();
                self.handed = self.log.len();
                self.consensus(ConsensusEvent::Committed { entries });
            }
            let progress = self.execution.step(self.now, &mut self.runtime);
            let mut busy = progress == Progress::More;
            while let Some(action) = self.execution.poll_action() {
                busy = true;
                self.carry_out(action);
            }
            if !busy {
                return;
            }
        }
        panic!("the member does not come to rest");
    }

    fn carry_out(&mut self, action: ExecutionAction) {
        match action {
            ExecutionAction::ToStream { stream, frame } => {
                self.frames.entry(stream).or_default().push(frame);
            }
            ExecutionAction::Propose { batch } => {
                let ProposedBatch {
                    term,
                    last_zxid,
                    payload,
                    ..
                } = batch;
                self.append(term, EntryKind::Batch, last_zxid, payload);
            }
            ExecutionAction::ExamineComponent { digest, bytes } => {
                let examined = self
                    .components
                    .examine(digest, &bytes, bytes.len(), &|| false);
                let result = examined
                    .map(|manifest| manifest.json)
                    .map_err(|error| error.to_string());
                self.execution.handle_examined(self.now, digest, result);
            }
            ExecutionAction::CompileComponent { digest, bytes } => {
                self.components
                    .prepare(digest, &bytes, &|| false)
                    .expect("it compiles");
                self.execution.component_ready(self.now, digest);
            }
            ExecutionAction::AskPolicy { id, call } => {
                self.asked += 1;
                let answer = self.policies.ask(*call);
                self.execution.handle_policy(self.now, id, answer);
            }
            ExecutionAction::Stop { reason } => panic!("the member stops: {reason}"),
            _ => {}
        }
    }

    pub(crate) fn open(&mut self) -> Client {
        let stream = StreamId(self.frames.len() as u64 + 1);
        let secret = SessionSecret([u8::try_from(stream.0).expect("few streams"); 32]);
        let timeout_ms = SESSION_TIMEOUT_MS;
        self.frame(stream, ClientFrame::Open { secret, timeout_ms });
        match self.take_frames(stream).as_slice() {
            [ServerFrame::Attached { .. }] => Client {
                stream,
                next: RequestId(1),
            },
            other => panic!("not attached: {other:?}"),
        }
    }

    fn frame(&mut self, stream: StreamId, frame: ClientFrame) {
        let connection = ConnectionId(stream.0);
        self.execution.handle_client(
            self.now,
            ClientEvent::Frame {
                connection,
                stream,
                frame,
            },
        );
        self.run();
    }

    pub(crate) fn take_frames(&mut self, stream: StreamId) -> Vec<ServerFrame> {
        std::mem::take(self.frames.entry(stream).or_default())
    }

    #[track_caller]
    pub(crate) fn request(
        &mut self,
        client: &mut Client,
        guards: Vec<Guard>,
        operation: Operation,
    ) -> Reply {
        let id = client.next;
        client.next = id.next();
        let request = Request {
            id,
            acked_up_to: RequestId(id.0 - 1),
            guards,
            operation,
        };
        self.frame(client.stream, ClientFrame::Request(request));
        let mut frames = self.take_frames(client.stream).into_iter();
        match frames.next() {
            Some(ServerFrame::Reply { id: of, reply, .. }) if of == id => {
                self.frames.entry(client.stream).or_default().extend(frames);
                reply
            }
            other => panic!("instead of the reply: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn call(
        &mut self,
        client: &mut Client,
        mount: &str,
        operation: &str,
        json: &serde_json::Value,
    ) -> Reply {
        let invoke = Operation::Invoke {
            mount: mount.to_owned(),
            operation: operation.to_owned(),
            payload: json.to_string().into_bytes(),
        };
        self.request(client, Vec::new(), invoke)
    }

    pub(crate) fn completion(&mut self, client: &Client, of: Ticket) -> Option<Reply> {
        let frames = self.take_frames(client.stream);
        frames.into_iter().find_map(|frame| match frame {
            ServerFrame::Completion { ticket, reply, .. } if ticket == of => Some(reply),
            _ => None,
        })
    }

    /// Uploads and installs a component; answers how that went.
    pub(crate) fn install(&mut self, client: &mut Client, bytes: &[u8]) -> Reply {
        let digest = Digest::of(bytes);
        let size = u32::try_from(bytes.len()).expect("a small component");
        for (place, chunk) in bytes.chunks(CHUNK_BYTES_MAX).enumerate() {
            let upload = Operation::UploadChunk {
                digest,
                size,
                offset: u32::try_from(place * CHUNK_BYTES_MAX).expect("a small component"),
                data: chunk.to_vec(),
            };
            assert_eq!(
                self.request(client, Vec::new(), upload),
                Ok(Outcome::ChunkTaken)
            );
        }
        let name = "a plugin".to_owned();
        match self.request(client, Vec::new(), Operation::Install { digest, name }) {
            Ok(Outcome::Waiting(ticket)) => {
                self.completion(client, ticket).expect("an examination")
            }
            other => panic!("instead of a wait: {other:?}"),
        }
    }

    pub(crate) fn install_and_mount(&mut self, client: &mut Client, name: &str, path: &str) {
        let bytes = component(name);
        assert_eq!(self.install(client, &bytes), Ok(Outcome::Installed));
        let mount = Operation::Mount {
            path: path.to_owned(),
            digest: Digest::of(&bytes),
            config: Vec::new(),
        };
        assert_eq!(
            self.request(client, Vec::new(), mount),
            Ok(Outcome::Mounted)
        );
    }
}
