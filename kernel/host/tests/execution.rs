//! The whole way of a component: uploaded, examined, compiled, mounted and called by a real
//! execution machine, with its view of the transaction in the Wasm store.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use folkmoot_core::consensus::ProposedBatch;
use folkmoot_core::execution::{
    ClientEvent, ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig,
    Progress, StreamId,
};
use folkmoot_core::state::{State, View as _};
use folkmoot_host::{CallLimits, Components, WasmRuntime};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::client::{ClientFrame, Guard, NodeKind, Operation, Request, ServerFrame};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::{CHUNK_BYTES_MAX, Limits};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{
    ClusterId, Digest, LogIndex, MemberId, Now, RequestId, SessionSecret, Term, Tick, Ticket,
    WallTime, Zxid,
};
use serde_json::{Value, json};
use support::{component, sandbox};

const NOW: Now = Now {
    tick: Tick(1_000_000_000),
    wall: WallTime(1_700_000_000_000),
};

/// A cluster of one: its log commits what is proposed at once.
struct Member {
    execution: Execution,
    runtime: WasmRuntime,
    components: Arc<Components>,
    log: Vec<Entry>,
    handed: usize,
    frames: BTreeMap<StreamId, Vec<ServerFrame>>,
}

struct Client {
    stream: StreamId,
    next: RequestId,
}

impl Member {
    fn start() -> Self {
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
        let mut member = Self {
            execution: Execution::new(config, state, 1, NOW),
            runtime: WasmRuntime::new(Arc::clone(&components), CallLimits::default()),
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
        self.execution.handle_consensus(NOW, event);
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.handed < self.log.len() {
                let entries = self.log[self.handed..].to_vec();
                self.handed = self.log.len();
                self.consensus(ConsensusEvent::Committed { entries });
            }
            let progress = self.execution.step(NOW, &mut self.runtime);
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
                self.execution.handle_examined(NOW, digest, result);
            }
            ExecutionAction::CompileComponent { digest, bytes } => {
                self.components
                    .prepare(digest, &bytes, &|| false)
                    .expect("it compiles");
                self.execution.component_ready(NOW, digest);
            }
            ExecutionAction::Stop { reason } => panic!("the member stops: {reason}"),
            _ => {}
        }
    }

    fn open(&mut self) -> Client {
        let stream = StreamId(self.frames.len() as u64 + 1);
        let secret = SessionSecret([u8::try_from(stream.0).expect("few streams"); 32]);
        let timeout_ms = 10_000;
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
            NOW,
            ClientEvent::Frame {
                connection,
                stream,
                frame,
            },
        );
        self.run();
    }

    fn take_frames(&mut self, stream: StreamId) -> Vec<ServerFrame> {
        std::mem::take(self.frames.entry(stream).or_default())
    }

    #[track_caller]
    fn request(&mut self, client: &mut Client, guards: Vec<Guard>, operation: Operation) -> Reply {
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
    fn call(&mut self, client: &mut Client, mount: &str, operation: &str, json: &Value) -> Reply {
        let invoke = Operation::Invoke {
            mount: mount.to_owned(),
            operation: operation.to_owned(),
            payload: json.to_string().into_bytes(),
        };
        self.request(client, Vec::new(), invoke)
    }

    fn completion(&mut self, client: &Client, of: Ticket) -> Option<Reply> {
        let frames = self.take_frames(client.stream);
        frames.into_iter().find_map(|frame| match frame {
            ServerFrame::Completion { ticket, reply, .. } if ticket == of => Some(reply),
            _ => None,
        })
    }

    /// Uploads and installs a component; answers how that went.
    fn install(&mut self, client: &mut Client, bytes: &[u8]) -> Reply {
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

    fn install_and_mount(&mut self, client: &mut Client, name: &str, path: &str) {
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

#[track_caller]
fn json_of(reply: Reply) -> Value {
    match reply {
        Ok(Outcome::Invoked(bytes)) => serde_json::from_slice(&bytes).expect("JSON"),
        other => panic!("instead of a reply: {other:?}"),
    }
}

#[track_caller]
fn ticket_of(reply: Reply) -> Ticket {
    match reply {
        Ok(Outcome::Waiting(ticket)) => ticket,
        other => panic!("instead of a wait: {other:?}"),
    }
}

fn guard_of(grant: &Value) -> Guard {
    Guard {
        path: format!("/locks/{}", grant["guard"].as_str().expect("a path")),
        token: Zxid(grant["token"].as_u64().expect("a token")),
    }
}

#[test]
fn a_lock_is_granted_fenced_handed_over_and_freed_with_its_session() {
    let mut member = Member::start();
    let (mut one, mut two) = (member.open(), member.open());
    member.install_and_mount(&mut one, "lock", "/locks");
    let name = json!({"name": "deploy"});

    let grant = json_of(member.call(&mut one, "/locks", "acquire", &name));
    let first = guard_of(&grant);
    let ticket = ticket_of(member.call(&mut two, "/locks", "acquire", &name));
    assert_eq!(member.completion(&two, ticket), None);

    // The holder writes under its guard.
    let write = || Operation::Create {
        path: "/written".to_owned(),
        data: Vec::new(),
        kind: NodeKind::PERSISTENT,
    };
    let written = member.request(&mut one, vec![first.clone()], write());
    assert_eq!(written, Ok(Outcome::Created { sequence: None }));

    // Its session ends: the next one has the lock, and the old guard holds no more.
    let closed = member.request(&mut one, Vec::new(), Operation::CloseSession);
    assert_eq!(closed, Ok(Outcome::SessionClosed));
    let granted = member.completion(&two, ticket).expect("a grant");
    let second = guard_of(&json_of(granted));
    assert!(second.token > first.token);
    let mut three = member.open();
    let refused = member.request(&mut three, vec![first], write());
    assert!(
        matches!(refused, Err(Refusal::GuardFailed { .. })),
        "{refused:?}"
    );

    let release = json!({"name": "deploy", "token": second.token});
    json_of(member.call(&mut two, "/locks", "release", &release));
    let state = member.execution.state();
    assert!(state.node("/locks/holders/deploy").is_none());
    assert!(state.node("/locks/holders").is_some());
}

#[test]
fn a_fault_is_a_logged_refusal_that_leaves_nothing() {
    for (what, kind) in [
        ("panic", "trap"),
        ("spin", "out-of-fuel"),
        ("copy", "timeout"),
        ("allocate", "memory"),
        ("call-forever", "host-calls"),
        ("write-forever", "too-large"),
        ("reply-huge", "too-large"),
    ] {
        // Each on a member of its own: repeated faults open a mount's breaker.
        let mut member = Member::start();
        let mut client = member.open();
        member.install_and_mount(&mut client, "hostile", "/hostile");
        let arguments = json!({"what": what});
        let reply = member.call(&mut client, "/hostile", "write-then", &arguments);
        assert!(
            matches!(&reply, Err(Refusal::PluginFault { kind: of, .. }) if of == kind),
            "{what}: {reply:?}"
        );
        let state = member.execution.state();
        assert!(state.node("/hostile/written").is_none(), "{what}");
        json_of(member.call(&mut client, "/hostile", "write", &json!({})));
        let state = member.execution.state();
        assert!(state.node("/hostile/written").is_some(), "{what}");
    }
}

#[test]
fn no_path_leaves_the_mount() {
    let mut member = Member::start();
    let mut client = member.open();
    member.install_and_mount(&mut client, "hostile", "/hostile");
    for path in ["..", "../locks", "/folkmoot", "/", "a/../../b"] {
        let reply = member.call(&mut client, "/hostile", "touch", &json!({"path": path}));
        assert_eq!(json_of(reply), json!(vec!["bad-path"; 5]), "{path}");
    }
}

#[test]
fn what_is_no_plugin_is_not_installed() {
    let mut member = Member::start();
    let mut client = member.open();
    let module = wasm_encoder::Module::new().finish();
    for bytes in [&b"not WebAssembly"[..], &module] {
        let refused = member.install(&mut client, bytes);
        assert!(
            matches!(&refused, Err(Refusal::ComponentRefused { .. })),
            "{refused:?}"
        );
    }
}
