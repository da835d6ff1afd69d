//! Clients of a test cluster: what they send, and what they were told.

use folkmoot_proto::client::{
    ClientFrame, ControlReply, Guard, NodeKind, Operation, Request, ServerFrame, Watch,
};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{
    ConnEpoch, Digest, MemberId, RequestId, SessionId, SessionSecret, Tick, Zxid,
};

use super::cluster::Cluster;
use crate::execution::{ClientEvent, ConnectionId, StreamId};

/// The round trip of all connections.
pub(super) const RTT_MICROS: u32 = 1_500;

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

impl Cluster {
    pub(super) fn frame(&mut self, at: MemberId, stream: StreamId, frame: ClientFrame) {
        let now = self.now();
        let event = ClientEvent::Frame {
            connection: ConnectionId(stream.0),
            stream,
            frame,
        };
        self.member(at).execution.handle_client(now, event);
    }

    /// A client closes a stream.
    pub(super) fn close_by_client(&mut self, at: MemberId, stream: StreamId) {
        let now = self.now();
        let event = ClientEvent::StreamClosed {
            stream,
            by_client: true,
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
        self.open_for(at, 10_000)
    }

    /// Opens a session of that timeout at a member.
    pub(super) fn open_for(&mut self, at: MemberId, timeout_ms: u32) -> Client {
        let secret = self.new_secret();
        let stream = self.new_stream();
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

    /// Resumes a session without watches at a member. Frames before `Attached` are an error, those
    /// after it stay.
    pub(super) fn resume(&mut self, client: &Client, at: MemberId) -> Client {
        self.resume_with(client, at, &[])
    }

    /// Resumes a session and watches at a member.
    pub(super) fn resume_with(
        &mut self,
        client: &Client,
        at: MemberId,
        watches: &[Watch],
    ) -> Client {
        let resumed = self.attach(client, at);
        for watch in watches {
            self.frame(at, resumed.stream, ClientFrame::Watch(watch.clone()));
        }
        self.watches_resumed(&resumed);
        resumed
    }

    /// All watches that a client resumes were asked for.
    pub(super) fn watches_resumed(&mut self, client: &Client) {
        self.frame(client.member, client.stream, ClientFrame::WatchesResumed);
        self.run();
    }

    /// Resumes a session at a member, and does not say that all watches were asked for.
    pub(super) fn attach(&mut self, client: &Client, at: MemberId) -> Client {
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
        self.send_guarded(client, id, Vec::new(), operation);
    }

    fn send_guarded(
        &mut self,
        client: &Client,
        id: RequestId,
        guards: Vec<Guard>,
        operation: Operation,
    ) {
        let request = Request {
            id,
            acked_up_to: client.acked,
            guards,
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
        self.call_guarded(client, Vec::new(), operation)
    }

    /// As [`Cluster::call`], of a request that has guards.
    pub(super) fn call_guarded(
        &mut self,
        client: &mut Client,
        guards: Vec<Guard>,
        operation: Operation,
    ) -> Reply {
        let id = client.next;
        client.next = id.next();
        self.send_guarded(client, id, guards, operation);
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

    /// A client's heartbeat.
    pub(super) fn heartbeat(&mut self, client: &Client, sequence: u64) {
        self.late_heartbeat(client, sequence, self.now);
    }

    /// A client's heartbeat that its member takes in now, and that came to it before.
    pub(super) fn late_heartbeat(&mut self, client: &Client, sequence: u64, arrived: Tick) {
        let now = self.now();
        let event = ClientEvent::Heartbeat {
            connection: ConnectionId(client.stream.0),
            sequence,
            arrived,
            rtt_micros: RTT_MICROS,
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
                if connection.0 == client.stream.0
                    && sessions
                        .iter()
                        .any(|(session, _)| *session == client.session) =>
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

pub(super) fn create(path: &str) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Vec::new(),
        kind: NodeKind::PERSISTENT,
    }
}

pub(super) fn create_ephemeral(path: &str) -> Operation {
    Operation::Create {
        path: path.to_owned(),
        data: Vec::new(),
        kind: NodeKind::EPHEMERAL,
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
