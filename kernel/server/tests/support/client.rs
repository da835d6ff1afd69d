//! A client that speaks the protocol frame by frame, so that tests can break it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use folkmoot_proto::client::{
    ClientFrame, ControlReply, ControlRequest, MemberStatus, NodeKind, Operation, PROTOCOL_VERSION,
    Query, Read, ReadOutcome, ReadRefusal, Request, ServerFrame,
};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{MemberId, ReadId, RequestId, SessionId, SessionSecret, Zxid, frame};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificates::Issued;

/// Everything in a test ends within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint with a certificate.
pub(crate) fn endpoint(ca: &str, identity: &Issued, alpn: &[u8]) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(authority.expect("PEM")).expect("an authority");
    }
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a certificate and its key");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("a cipher for QUIC");
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address"))
        .expect("a loopback port");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// Frames on a bidirectional stream.
pub(crate) struct Frames {
    pub(crate) send: quinn::SendStream,
    receive: quinn::RecvStream,
    buffer: BytesMut,
}

impl Frames {
    pub(crate) async fn open(connection: &quinn::Connection) -> Self {
        let (send, receive) = connection.open_bi().await.expect("a stream");
        Self {
            send,
            receive,
            buffer: BytesMut::new(),
        }
    }

    pub(crate) async fn control(&mut self, request: &ControlRequest) {
        let mut bytes = Vec::new();
        frame::encode(request, &mut bytes).expect("encodes");
        self.send.write_all(&bytes).await.expect("writable");
    }

    pub(crate) async fn session(&mut self, request: &ClientFrame) {
        assert!(self.try_session(request).await, "the stream was lost");
    }

    /// False if the stream is lost.
    async fn try_session(&mut self, request: &ClientFrame) -> bool {
        let mut bytes = Vec::new();
        frame::encode(request, &mut bytes).expect("encodes");
        self.send.write_all(&bytes).await.is_ok()
    }

    /// The next frame's payload; none when the stream ended or was lost.
    async fn payload(&mut self) -> Option<bytes::Bytes> {
        loop {
            if let Some(payload) = frame::split(&mut self.buffer).expect("frames") {
                return Some(payload);
            }
            let chunk = self.receive.read_chunk(65536, true).await.ok()??;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    pub(crate) async fn control_reply(&mut self) -> Option<ControlReply> {
        let payload = within(self.payload()).await?;
        Some(frame::from_bytes(&payload).expect("a control frame"))
    }

    /// All frames that are there, at least one.
    pub(crate) async fn server_frames(&mut self) -> Vec<ServerFrame> {
        let first = self.server_frame().await;
        let mut frames: Vec<_> = first.into_iter().collect();
        while let Some(payload) = frame::split(&mut self.buffer).expect("frames") {
            frames.push(frame::from_bytes(&payload).expect("a session's frame"));
        }
        frames
    }

    pub(crate) async fn server_frame(&mut self) -> Option<ServerFrame> {
        let payload = within(self.payload()).await?;
        Some(frame::from_bytes(&payload).expect("a session's frame"))
    }
}

/// A connection that has said hello.
pub(crate) struct Client {
    pub(crate) connection: quinn::Connection,
    pub(crate) control: Frames,
}

impl Client {
    pub(crate) async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr) -> Self {
        let connecting = endpoint
            .connect(address, "member.folkmoot.internal")
            .expect("an address");
        let connection = within(connecting).await.expect("a connection");
        let mut control = Frames::open(&connection).await;
        control
            .control(&ControlRequest::Hello {
                version: PROTOCOL_VERSION,
                cluster: None,
            })
            .await;
        match control.control_reply().await {
            Some(ControlReply::Welcome { .. }) => {}
            other => panic!("not a welcome: {other:?}"),
        }
        Self {
            connection,
            control,
        }
    }

    pub(crate) async fn status(&mut self) -> MemberStatus {
        self.control.control(&ControlRequest::Status).await;
        loop {
            match self.control.control_reply().await {
                Some(ControlReply::Status(status)) => return *status,
                Some(_) => {}
                None => panic!("the connection was lost"),
            }
        }
    }

    /// Waits until the member knows a leader.
    pub(crate) async fn leader(&mut self) -> MemberId {
        within(async {
            loop {
                if let Some(leader) = self.status().await.leader {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Opens a session, as often as it takes for the member to know a leader.
    pub(crate) async fn session(&self) -> Session {
        within(async {
            loop {
                let secret = SessionSecret(secret_bytes());
                let mut frames = Frames::open(&self.connection).await;
                frames
                    .session(&ClientFrame::Open {
                        secret,
                        timeout_ms: 10_000,
                    })
                    .await;
                if let Some(ServerFrame::Attached { session, .. }) = frames.server_frame().await {
                    return Session {
                        id: session,
                        secret,
                        frames,
                        last: RequestId::ZERO,
                        reads: 0,
                    };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Takes a session over, as often as it takes for the member to know a leader.
    pub(crate) async fn resume(&self, former: &Session) -> Session {
        within(async {
            loop {
                if let Ok(session) = self.try_resume(former).await {
                    return session;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// The stream is lost if the attachment is refused, or if a later one ends it at once.
    async fn try_resume(&self, former: &Session) -> Result<Session, StreamLost> {
        let mut frames = Frames::open(&self.connection).await;
        let resume = ClientFrame::Resume {
            session: former.id,
            secret: former.secret,
            last_seen: Zxid::ZERO,
        };
        if !frames.try_session(&resume).await {
            return Err(StreamLost);
        }
        let attached = frames.server_frame().await;
        let Some(ServerFrame::Attached {
            session, last_id, ..
        }) = attached
        else {
            return Err(StreamLost);
        };
        if !frames.try_session(&ClientFrame::WatchesResumed).await {
            return Err(StreamLost);
        }
        Ok(Session {
            id: session,
            secret: former.secret,
            frames,
            last: last_id,
            reads: former.reads,
        })
    }
}

/// The member has closed a session's stream.
#[derive(Debug)]
struct StreamLost;

/// A session on its stream; one request at a time.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) secret: SessionSecret,
    pub(crate) frames: Frames,
    pub(crate) last: RequestId,
    reads: u64,
}

impl Session {
    /// Sends a request again and again until it is answered.
    pub(crate) async fn request(&mut self, operation: Operation) -> Reply {
        let reply = within(self.try_request(operation)).await;
        reply.expect("the session's stream lives")
    }

    async fn try_request(&mut self, operation: Operation) -> Result<Reply, StreamLost> {
        self.last = self.last.next();
        let request = ClientFrame::Request(Request {
            id: self.last,
            acked_up_to: RequestId(self.last.0 - 1),
            guards: Vec::new(),
            operation,
        });
        let mut send = true;
        loop {
            if send && !self.frames.try_session(&request).await {
                return Err(StreamLost);
            }
            send = false;
            match self.frames.server_frame().await {
                Some(ServerFrame::Reply { id, reply, .. }) if id == self.last => return Ok(reply),
                Some(ServerFrame::NotAdmitted { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    send = true;
                }
                Some(ServerFrame::Rewind { next }) if next <= self.last => send = true,
                Some(_) => {}
                None => return Err(StreamLost),
            }
        }
    }

    pub(crate) async fn create(&mut self, path: &str, data: &[u8]) {
        let reply = self
            .request(Operation::Create {
                path: path.to_owned(),
                data: data.to_vec(),
                kind: NodeKind::PERSISTENT,
            })
            .await;
        assert_eq!(reply, Ok(Outcome::Created { sequence: None }), "{path}");
    }

    /// As [`Session::create`], for a session as that of [`Session::get_resuming`]. What was sent on a
    /// stream that was lost may have taken effect.
    pub(crate) async fn create_resuming(&mut self, client: &Client, path: &str, data: &[u8]) {
        let create = Operation::Create {
            path: path.to_owned(),
            data: data.to_vec(),
            kind: NodeKind::PERSISTENT,
        };
        let mut lost = false;
        let reply = within(async {
            loop {
                match self.try_request(create.clone()).await {
                    Ok(reply) => return reply,
                    Err(StreamLost) => *self = client.resume(self).await,
                }
                lost = true;
            }
        })
        .await;
        let done = matches!(reply, Ok(Outcome::Created { .. }));
        let done_before = lost && matches!(reply, Err(Refusal::NodeExists { .. }));
        assert!(done || done_before, "{path}: {reply:?}");
    }

    /// A linearizable read, asked again while no quorum answers.
    pub(crate) async fn get(&mut self, path: &str) -> Option<Vec<u8>> {
        let answer = within(self.get_unless_lost(path)).await;
        answer.expect("the session's stream lives")
    }

    /// As [`Session::get`], for a session that was resumed while the cluster had no leader: an
    /// attempt to attach that was refused here may be logged after all, behind the one that was
    /// granted, and then ends its stream (rule R15). Such a session is resumed again.
    pub(crate) async fn get_resuming(&mut self, client: &Client, path: &str) -> Option<Vec<u8>> {
        within(async {
            loop {
                match self.get_unless_lost(path).await {
                    Ok(answer) => return answer,
                    Err(StreamLost) => *self = client.resume(self).await,
                }
            }
        })
        .await
    }

    async fn get_unless_lost(&mut self, path: &str) -> Result<Option<Vec<u8>>, StreamLost> {
        loop {
            match self.try_get(path).await? {
                Ok(ReadOutcome::Node { data, .. }) => return Ok(Some(data)),
                Err(ReadRefusal::NoNode { .. }) => return Ok(None),
                Err(ReadRefusal::NoLeader) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => panic!("not an answer to a get: {other:?}"),
            }
        }
    }

    async fn try_get(
        &mut self,
        path: &str,
    ) -> Result<Result<ReadOutcome, ReadRefusal>, StreamLost> {
        self.reads += 1;
        let asked = ReadId(self.reads);
        let written = self
            .frames
            .try_session(&ClientFrame::Read(Read {
                id: asked,
                after: self.last,
                linearizable: true,
                query: Query::Get {
                    path: path.to_owned(),
                },
            }))
            .await;
        if !written {
            return Err(StreamLost);
        }
        loop {
            match self.frames.server_frame().await {
                Some(ServerFrame::ReadReply { id, result, .. }) if id == asked => {
                    return Ok(result);
                }
                Some(_) => {}
                None => return Err(StreamLost),
            }
        }
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it ends within the test's patience")
}

/// Fresh bytes: a session's secret must differ from every other.
fn secret_bytes() -> [u8; 32] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    bytes
}
