//! The other members: each side dials the other and sends on the connection that it opened, one
//! ordered stream and one with priority.
//!
//! What is lost with a connection is consensus' business to send again; execution is told that its
//! ordered stream was lost, and rewinds (rule R2).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use folkmoot_proto::client::PROTOCOL_VERSION;
use folkmoot_proto::peer::{ConsensusMessage, PeerHello, PeerMessage, StreamPurpose};
use folkmoot_proto::{ClusterId, Incarnation, MemberId, frame};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::NetworkEvent;
use super::close::{Close, close};
use super::snapshot::{self, SnapshotSink};
use super::stream::{FrameReader, Outgoing, Unfinished};
use crate::fatal::Fatal;
use crate::{RunError, tls};

/// An attempt to resolve a name, and to dial one address, is given up after this: the next one asks
/// the name service again, and its first packet goes out at once.
const DIAL_TIMEOUT: Duration = Duration::from_millis(750);
/// Addresses of a peer's name that are tried: two families, a few networks.
const DIAL_ADDRESSES_MAX: usize = 8;
/// Between two attempts, at first and at most.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(20);
const DIAL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// A peer says hello on a stream within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that wait for one peer: what consensus may have in flight, and forwarded requests. Beyond
/// it the connection is dropped, as if it had been lost.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Priorities of streams to one peer; session and append streams have 0.
const PRIORITY: i32 = 1;

/// Who this member is, for its peers.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    pub(crate) incarnation: Incarnation,
}

impl Own {
    pub(super) fn hello(&self, purpose: StreamPurpose) -> PeerHello {
        PeerHello {
            version: PROTOCOL_VERSION,
            cluster: self.cluster,
            from: self.member,
            incarnation: self.incarnation,
            purpose,
        }
    }
}

/// What the tasks of peers share.
#[derive(Clone, Debug)]
pub(crate) struct PeersContext {
    pub(crate) own: Own,
    pub(crate) events: mpsc::Sender<NetworkEvent>,
    pub(crate) snapshots: SnapshotSink,
    fatal: Fatal,
    /// The streams that are read, one of a purpose from a peer.
    incoming: Arc<Mutex<BTreeMap<(MemberId, bool), AbortHandle>>>,
    members: Arc<Vec<MemberId>>,
}

impl PeersContext {
    pub(crate) fn new(
        own: Own,
        members: Vec<MemberId>,
        events: mpsc::Sender<NetworkEvent>,
        snapshots: SnapshotSink,
        fatal: Fatal,
    ) -> Self {
        Self {
            own,
            events,
            snapshots,
            fatal,
            incoming: Arc::default(),
            members: Arc::new(members),
        }
    }

    async fn tell(&self, event: NetworkEvent) {
        // The loop is gone only when the member stops.
        let _ = self.events.send(event).await;
    }

    /// Whether the hello agrees with the certificate and with this cluster.
    fn check(&self, hello: &PeerHello, certificate: &CertificateDer<'_>) -> Result<(), Close> {
        if hello.version != PROTOCOL_VERSION {
            return Err(Close::Version {
                version: hello.version,
            });
        }
        if hello.cluster != self.own.cluster {
            return Err(Close::OtherCluster {
                theirs: hello.cluster,
                ours: self.own.cluster,
            });
        }
        let known = self.members.contains(&hello.from) && hello.from != self.own.member;
        if !known || !tls::has_name(certificate, &tls::member_name(hello.from)) {
            return Err(Close::NotThatMember { member: hello.from });
        }
        Ok(())
    }
}

/// The connections to the other members.
#[derive(Debug)]
pub(crate) struct Peers {
    links: BTreeMap<MemberId, Arc<Link>>,
}

#[derive(Debug, Default)]
struct Link {
    ordered: Outgoing,
    priority: Outgoing,
    connected: AtomicBool,
    connection: Mutex<Option<quinn::Connection>>,
}

impl Peers {
    /// Begins to dial `members`. Must be called within the runtime.
    pub(crate) fn dial(
        endpoint: &quinn::Endpoint,
        members: &[(MemberId, String)],
        context: &PeersContext,
    ) -> Self {
        let links: BTreeMap<_, _> = members
            .iter()
            .filter(|(member, _)| *member != context.own.member)
            .map(|(member, address)| {
                let link = Arc::new(Link::default());
                context.fatal.spawn(keep_linked(
                    endpoint.clone(),
                    *member,
                    address.clone(),
                    link.clone(),
                    context.clone(),
                ));
                (*member, link)
            })
            .collect();
        Self { links }
    }

    /// Sends a message, or loses it.
    pub(crate) fn send(&self, to: MemberId, message: &PeerMessage) {
        let Some(link) = self.links.get(&to) else {
            return;
        };
        if !link.connected.load(Ordering::Relaxed) {
            return;
        }
        let outgoing = match message {
            PeerMessage::Consensus(ConsensusMessage::Append { .. }) | PeerMessage::Execution(_) => {
                &link.ordered
            }
            PeerMessage::Consensus(_) => &link.priority,
        };
        match outgoing.push_frame(message) {
            Ok(waiting) if waiting <= WAITING_BYTES_MAX => {}
            Ok(_) => link.drop_connection(Close::Overloaded),
            Err(error) => tracing::error!(%to, %error, "a message to a peer can not be sent"),
        }
    }

    /// The connection to a peer, for a snapshot.
    pub(crate) fn connection(&self, to: MemberId) -> Option<quinn::Connection> {
        self.links
            .get(&to)?
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Link {
    fn set(&self, connection: Option<quinn::Connection>) {
        self.ordered.clear();
        self.priority.clear();
        self.connected
            .store(connection.is_some(), Ordering::Relaxed);
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn drop_connection(&self, reason: Close) {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(connection) = connection {
            close(&connection, reason);
        }
    }
}

/// Dials a peer, writes what is sent to it, and dials again.
async fn keep_linked(
    endpoint: quinn::Endpoint,
    peer: MemberId,
    address: String,
    link: Arc<Link>,
    context: PeersContext,
) {
    let mut pause = DIAL_PAUSE_MIN;
    loop {
        match connect(&endpoint, peer, &address, &context.own).await {
            Ok((connection, mut ordered, mut priority)) => {
                tracing::info!(%peer, %address, "connected to a peer");
                pause = DIAL_PAUSE_MIN;
                link.set(Some(connection.clone()));
                // What was sent while there was no connection is lost, too.
                context.tell(NetworkEvent::PeerStreamLost(peer)).await;
                let reason = tokio::select! {
                    result = link.ordered.write(&mut ordered, |_| {}) => result.err(),
                    result = link.priority.write(&mut priority, |_| {}) => result.err(),
                    reason = connection.closed() => Some(reason.into()),
                };
                link.set(None);
                // A stream knows only that its connection is gone.
                let cause = connection.close_reason().map(|cause| cause.to_string());
                close(&connection, Close::Gone);
                if let Some(reason) = cause.or(reason.map(|reason| reason.to_string())) {
                    tracing::info!(%peer, %reason, "the connection to a peer is lost");
                }
                context.tell(NetworkEvent::PeerStreamLost(peer)).await;
            }
            Err(error) => tracing::debug!(%peer, %address, %error, "a peer can not be reached"),
        }
        if context.events.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DIAL_PAUSE_MAX);
    }
}

/// Why a peer can not be reached; tried again.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("no answer within {} ms", DIAL_TIMEOUT.as_millis())]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("the address can not be resolved: {0}")]
    Resolve(#[from] std::io::Error),
    #[error("the address resolves to nothing")]
    NoAddress,
    #[error("{0}")]
    Connect(#[from] quinn::ConnectError),
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Write(#[from] quinn::WriteError),
    #[error("{0}")]
    Hello(#[from] frame::FrameError),
}

type Dialled = (quinn::Connection, quinn::SendStream, quinn::SendStream);

async fn connect(
    endpoint: &quinn::Endpoint,
    peer: MemberId,
    address: &str,
    own: &Own,
) -> Result<Dialled, DialError> {
    let local = endpoint.local_addr()?;
    let addresses = tokio::time::timeout(DIAL_TIMEOUT, tokio::net::lookup_host(address)).await??;
    let addresses = addresses.filter(|address| local.is_ipv6() || address.is_ipv4());
    first_that_answers(addresses, |address| dial(endpoint, peer, address, own)).await
}

async fn dial(
    endpoint: &quinn::Endpoint,
    peer: MemberId,
    address: SocketAddr,
    own: &Own,
) -> Result<Dialled, DialError> {
    let connection = endpoint.connect(address, &tls::member_name(peer))?.await?;
    let ordered = open(&connection, own.hello(StreamPurpose::Ordered)).await?;
    let priority = open(&connection, own.hello(StreamPurpose::Priority)).await?;
    // The only error is that the stream is closed, which the first write tells as well.
    let _ = priority.set_priority(PRIORITY);
    Ok((connection, ordered, priority))
}

/// Dials one address after the other; the last one's error, if none answers in time.
async fn first_that_answers<T, Dialling>(
    addresses: impl Iterator<Item = SocketAddr>,
    dial: impl Fn(SocketAddr) -> Dialling,
) -> Result<T, DialError>
where
    Dialling: Future<Output = Result<T, DialError>>,
{
    let mut answer = Err(DialError::NoAddress);
    for address in addresses.take(DIAL_ADDRESSES_MAX) {
        answer = tokio::time::timeout(DIAL_TIMEOUT, dial(address))
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()));
        if answer.is_ok() {
            break;
        }
    }
    answer
}

async fn open(
    connection: &quinn::Connection,
    hello: PeerHello,
) -> Result<quinn::SendStream, DialError> {
    let mut stream = connection.open_uni().await?;
    let mut frames = Vec::new();
    frame::encode(&hello, &mut frames)?;
    stream.write_all(&frames).await?;
    Ok(stream)
}

/// Accepts peers until the endpoint is closed.
pub(crate) async fn accept(endpoint: quinn::Endpoint, context: PeersContext) {
    while let Some(incoming) = endpoint.accept().await {
        let fatal = context.fatal.clone();
        let context = context.clone();
        fatal.spawn(async move {
            let from = incoming.remote_address();
            match incoming.await {
                Ok(connection) => serve(connection, context).await,
                Err(error) => tracing::warn!(%from, %error, "a peer was refused"),
            }
        });
    }
    // A member that can not be reached here, and leads over there, would be worse than none.
    context.fatal.ended(RunError::Socket { what: "peers" });
}

async fn serve(connection: quinn::Connection, context: PeersContext) {
    let identity = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| chain.into_iter().next());
    let Some(certificate) = identity.map(Arc::new) else {
        return close(&connection, Close::NoHello);
    };
    let unfinished = Unfinished::default();
    loop {
        let (receive, answer) = tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(receive) => (receive, None),
                Err(_) => return,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => (receive, Some(send)),
                Err(_) => return,
            },
        };
        context.fatal.spawn(serve_stream(
            connection.clone(),
            certificate.clone(),
            FrameReader::new(receive, unfinished.clone()),
            answer,
            context.clone(),
        ));
    }
}

async fn serve_stream(
    connection: quinn::Connection,
    certificate: Arc<CertificateDer<'static>>,
    mut reader: FrameReader,
    answer: Option<quinn::SendStream>,
    context: PeersContext,
) {
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, reader.read_one::<PeerHello>()).await {
        Ok(Ok(Some(hello))) => hello,
        Ok(Err(error)) => return close(&connection, error.into()),
        Ok(Ok(None)) | Err(_) => return close(&connection, Close::NoHello),
    };
    if let Err(reason) = context.check(&hello, &certificate) {
        return close(&connection, reason);
    }
    let from = hello.from;
    match (hello.purpose, answer) {
        (StreamPurpose::Snapshot, Some(answer)) => {
            snapshot::receive(from, reader, answer, &context.snapshots).await;
        }
        (purpose @ (StreamPurpose::Ordered | StreamPurpose::Priority), None) => {
            let ordered = purpose == StreamPurpose::Ordered;
            let reading = context.fatal.spawn(read_messages(
                connection,
                from,
                ordered,
                reader,
                context.clone(),
            ));
            let former = context
                .incoming
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert((from, ordered), reading.abort_handle());
            // A peer that dialled anew has given its former stream up, even if it still looks alive.
            if let Some(former) = former.filter(|former| !former.is_finished()) {
                former.abort();
                if ordered {
                    context.tell(NetworkEvent::PeerStreamLost(from)).await;
                }
            }
        }
        _ => close(&connection, Close::NoHello),
    }
}

async fn read_messages(
    connection: quinn::Connection,
    from: MemberId,
    ordered: bool,
    mut reader: FrameReader,
    context: PeersContext,
) {
    let error = loop {
        match reader.read::<PeerMessage>().await {
            Ok(Some((messages, _))) => {
                context
                    .tell(NetworkEvent::PeerMessages(from, messages))
                    .await;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if let Some(error) = error.filter(super::stream::ReadError::is_senders_fault) {
        close(&connection, error.into());
    }
    if ordered {
        context.tell(NetworkEvent::PeerStreamLost(from)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name may have an address that leads nowhere, as one of another network.
    #[tokio::test]
    async fn every_address_of_a_name_is_dialled() {
        let addresses = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
        let addresses = addresses.map(|address| address.parse().expect("an address"));
        let [refuses, silent, answers] = addresses;
        let dialled = first_that_answers(addresses.into_iter(), |address| async move {
            if address == silent {
                std::future::pending::<()>().await;
            }
            match address == refuses {
                true => Err(std::io::Error::from(std::io::ErrorKind::HostUnreachable).into()),
                false => Ok(address),
            }
        });
        assert_eq!(dialled.await.expect("one answers"), answers);
        let none = first_that_answers(std::iter::empty(), |_| async { Ok(()) });
        assert!(matches!(none.await, Err(DialError::NoAddress)));
    }
}
