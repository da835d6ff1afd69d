//! QUIC endpoints and how they are tuned. The figures were measured on loopback with mutual TLS.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::Identity;

/// Bytes asked for each socket's buffers: a burst of a quarter of a second at 128 Mbit/s.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// A path of Ethernet carries it, and it saves the packets that discovery would need to get there.
const INITIAL_MTU: u16 = 1452;
/// Members are a few milliseconds apart; the first retransmission should not wait for 333 ms.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// One frame at its limit and as much again, so that a window never stalls within a frame.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What a connection may have on its way, over all its streams.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// What QUIC takes to send before writers wait: a flight at 1 Gbit/s and 30 ms to a client; to a
/// peer, what consensus may have in flight and a frame at its limit. What a watcher's budget counts
/// comes on top of it.
const CLIENT_SEND_BYTES: u64 = 4 * 1024 * 1024;
const PEER_SEND_BYTES: u64 = 16 * 1024 * 1024;
/// Acknowledging each tenth packet, or after 5 ms, is worth 8–11 % at high load.
const ACK_THRESHOLD: u32 = 10;
const ACK_DELAY: Duration = Duration::from_millis(5);

/// Between two signs of life on a connection that is otherwise quiet.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// After this long without any a client's connection is gone; its sessions live on.
const CLIENT_IDLE_MS: u32 = 10_000;
/// A peer's connection: dialled anew much sooner, since forwarded work waits for it.
const PEER_IDLE_MS: u32 = 3_000;

/// As many as quinn gives by default.
const CONNECTION_ID_BYTES: usize = 8;

/// Sessions of one connection. A routing tier holds thousands.
pub(crate) const SESSION_STREAMS_MAX: u32 = 16 * 1024;
/// Streams that a member opens to another at once: ordered, priority, and a new pair meanwhile.
const PEER_UNI_STREAMS_MAX: u32 = 4;
/// Snapshots that a member streams to another at once.
const PEER_BI_STREAMS_MAX: u32 = 1;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// A client's sessions.
    Clients,
    /// Another member's messages.
    Peers,
}

/// A bound socket with large buffers.
///
/// # Errors
///
/// As the system says; a port that is taken is `AddrInUse`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // The system may grant less (net.core.rmem_max); that costs throughput and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// An endpoint on a bound socket. Must be called within the network thread's runtime.
pub(crate) fn endpoint(
    socket: UdpSocket,
    identity: &Identity,
    tls: rustls::ServerConfig,
    carries: Carries,
) -> Result<quinn::Endpoint, EndpointError> {
    let crypto = QuicServerConfig::try_from(tls)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(carries)));
    config.migration(carries == Carries::Clients);
    Ok(quinn::Endpoint::new(
        resetting(identity, carries),
        Some(config),
        socket,
        Arc::new(quinn::TokioRuntime),
    )?)
}

/// Whoever still talks to a process that was killed is told by the next one at once that the
/// connection is gone (RFC 9000 §10.3), and need not wait for it to time out: the tokens that prove
/// it are the same after a restart. Each endpoint has its own, so that none reveals those of
/// another's connections (RFC 9000 §21.11).
fn resetting(identity: &Identity, carries: Carries) -> quinn::EndpointConfig {
    let purpose = match carries {
        Carries::Clients => "folkmoot stateless reset of clients",
        Carries::Peers => "folkmoot stateless reset of peers",
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &identity.secret(purpose));
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

/// Random names of connections. Those that quinn makes by default are recognised by the process
/// that made them alone, and packets of others dropped without a word.
struct RandomIds(SystemRandom);

impl quinn::ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        let filled = self.0.fill(&mut bytes);
        assert!(filled.is_ok(), "the system has no random numbers");
        quinn::ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// How to dial another member.
pub(crate) fn dialler(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, EndpointError> {
    let crypto = QuicClientConfig::try_from(tls)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(Carries::Peers)));
    Ok(config)
}

/// Why an endpoint can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The TLS configuration lacks the cipher that QUIC begins with.
    #[error("the TLS configuration can not be used for QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
    /// The socket can not be used.
    #[error("the socket can not be used: {0}")]
    Socket(#[from] io::Error),
}

fn transport(carries: Carries) -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(VarInt::from_u32(ACK_THRESHOLD))
        .max_ack_delay(Some(ACK_DELAY));
    let (idle_ms, send_bytes) = match carries {
        Carries::Clients => (CLIENT_IDLE_MS, CLIENT_SEND_BYTES),
        Carries::Peers => (PEER_IDLE_MS, PEER_SEND_BYTES),
    };
    let (bidirectional, unidirectional) = match carries {
        Carries::Clients => (SESSION_STREAMS_MAX + 1, 0),
        Carries::Peers => (PEER_BI_STREAMS_MAX, PEER_UNI_STREAMS_MAX),
    };
    let mut config = TransportConfig::default();
    config
        .initial_mtu(INITIAL_MTU)
        .initial_rtt(INITIAL_RTT)
        .enable_segmentation_offload(true)
        .ack_frequency_config(Some(acknowledgements))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(send_bytes)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(unidirectional))
        .datagram_receive_buffer_size(None);
    config
}
