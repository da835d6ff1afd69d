//! Finds a member that answers, and keeps the one connection that a client's sessions share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use folkmoot_proto::{ClusterId, MemberId};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::ClientConfig;
use crate::error::{Attempt, AttemptError, ConfigError, ConnectError};
use crate::link::{self, Link};
use crate::tls;

/// An endpoint that has not answered by then is given up.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// An endpoint's addresses have this part of it: what failed is told, not that time ran out.
const ADDRESSES_TIMEOUT: Duration = Duration::from_millis(1800);

/// The next endpoint, or the next address of a name, is tried beside the ones before it after this
/// long. A member on another continent answers in less.
const STAGGER: Duration = Duration::from_millis(200);

/// Bursts of a member's replies to many sessions fit.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Makes connections.
pub(crate) struct Connector {
    config: ClientConfig,
    quic: quinn::ClientConfig,
    /// One socket for each family of addresses, bound when it is first needed.
    v4: OnceLock<quinn::Endpoint>,
    v6: OnceLock<quinn::Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Link>>,
    cluster: Option<ClusterId>,
    /// What members advertise.
    learned: Vec<(MemberId, String)>,
    generation: u64,
    /// Where the next round begins.
    turn: usize,
}

impl Connector {
    pub(crate) fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        if config.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoints);
        }
        for endpoint in &config.endpoints {
            check_endpoint(endpoint)?;
        }
        let quic = tls::client_config(&config)?;
        let first = secure_u64() as usize % config.endpoints.len();
        let state = Mutex::new(State {
            turn: first,
            ..State::default()
        });
        Ok(Self {
            config,
            quic,
            v4: OnceLock::new(),
            v6: OnceLock::new(),
            state,
        })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The shared connection; a new one, to another member where there is one, if it is closed or
    /// of the generation to avoid.
    pub(crate) async fn link(&self, avoid: Option<u64>) -> Result<Arc<Link>, ConnectError> {
        let mut state = self.state.lock().await;
        if let Some(current) = &state.current
            && !current.is_closed()
            && Some(current.generation) != avoid
        {
            return Ok(Arc::clone(current));
        }
        let left = state.current.take().map(|link| link.endpoint.clone());
        let order = self.order(&state, left.as_deref());
        state.turn = state.turn.wrapping_add(1);
        let (endpoint, connection, greeted) = self.race(order, state.cluster).await?;
        state.cluster = Some(greeted.1.cluster);
        state.generation += 1;
        if self.config.learn_members {
            state.learned.clone_from(&greeted.1.members);
        }
        tracing::debug!(endpoint, member = %greeted.1.member, "connected");
        let link = Arc::new(Link::start(state.generation, endpoint, connection, greeted));
        state.current = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Every endpoint that is known: those of the configuration, then the learned ones.
    pub(crate) async fn endpoints(&self) -> Vec<String> {
        self.known(&*self.state.lock().await)
    }

    fn known(&self, state: &State) -> Vec<String> {
        let mut known = self.config.endpoints.clone();
        for (_, address) in &state.learned {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        known
    }

    fn order(&self, state: &State, left: Option<&str>) -> Vec<String> {
        let mut order = self.known(state);
        let turn = state.turn % order.len().max(1);
        order.rotate_left(turn);
        // The member that was left comes last: it may be all there is.
        order.sort_by_key(|endpoint| Some(endpoint.as_str()) == left);
        order
    }

    async fn race(
        &self,
        order: Vec<String>,
        cluster: Option<ClusterId>,
    ) -> Result<Connected, ConnectError> {
        let mut failed = Vec::new();
        let attempts = order.into_iter().map(|endpoint| {
            let dialler = self.dialler();
            async move {
                let attempt = async {
                    let connection = dialler.connect(&endpoint).await?;
                    let greeted = Link::greet(&connection, cluster).await?;
                    Ok((connection, greeted))
                };
                let result = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await;
                let no_answer = AttemptError::NoAnswer {
                    after: ATTEMPT_TIMEOUT,
                };
                match result.unwrap_or(Err(no_answer)) {
                    Ok((connection, greeted)) => Ok((endpoint, connection, greeted)),
                    Err(error) => Err(Attempt { endpoint, error }),
                }
            }
        });
        first_of(attempts, &mut failed)
            .await
            .ok_or(ConnectError::NoMemberAnswers { attempts: failed })
    }

    fn dialler(&self) -> Dialler {
        let family = |cell: &OnceLock<quinn::Endpoint>, any: SocketAddr| match cell.get() {
            Some(endpoint) => Some(endpoint.clone()),
            None => {
                let bound = bind(any).ok()?;
                Some(cell.get_or_init(|| bound).clone())
            }
        };
        Dialler {
            quic: self.quic.clone(),
            v4: family(&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            v6: family(&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        }
    }

    /// A connection of one's own to an endpoint, and what `ask` gets over it.
    pub(crate) async fn ask<T>(
        &self,
        endpoint: &str,
        ask: impl AsyncFnOnce(&quinn::Connection) -> Result<T, AttemptError>,
    ) -> Result<T, AttemptError> {
        let dialler = self.dialler();
        let within = ATTEMPT_TIMEOUT.min(self.config.connect_timeout);
        let attempt = async {
            let connection = dialler.connect(endpoint).await?;
            let answer = ask(&connection).await;
            connection.close(quinn::VarInt::from_u32(0), b"the client is done");
            answer
        };
        let result = tokio::time::timeout(within, attempt).await;
        result.unwrap_or(Err(AttemptError::NoAnswer { after: within }))
    }

    /// Closes every connection, and waits a moment for members to hear of it.
    pub(crate) async fn close(&self) {
        for endpoint in [self.v4.get(), self.v6.get()].into_iter().flatten() {
            endpoint.close(quinn::VarInt::from_u32(0), b"the client is done");
            let _ = tokio::time::timeout(Duration::from_millis(250), endpoint.wait_idle()).await;
        }
    }
}

type Connected = (
    String,
    quinn::Connection,
    (crate::stream::FrameStream, link::Welcome),
);

#[derive(Clone)]
struct Dialler {
    quic: quinn::ClientConfig,
    v4: Option<quinn::Endpoint>,
    v6: Option<quinn::Endpoint>,
}

impl Dialler {
    /// Connects to whichever address of the name answers first.
    async fn connect(&self, endpoint: &str) -> Result<quinn::Connection, AttemptError> {
        let unresolved = |reason: String| AttemptError::Unresolved { reason };
        let addresses = tokio::net::lookup_host(endpoint)
            .await
            .map_err(|error| unresolved(error.to_string()))?;
        let mut addresses: Vec<_> = addresses.collect();
        if addresses.is_empty() {
            return Err(unresolved("the name has no address".to_owned()));
        }
        // One of each family comes first: often one of them leads nowhere.
        if let Some(first) = addresses.first().map(SocketAddr::is_ipv4)
            && let Some(other) = addresses.iter().position(|a| a.is_ipv4() != first)
        {
            addresses.swap(1, other);
        }
        self.connect_any(addresses).await
    }

    async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<quinn::Connection, AttemptError> {
        let attempts = addresses.into_iter().map(|address| {
            let dialler = self.clone();
            async move { dialler.connect_to(address).await }
        });
        let mut failed = Vec::new();
        let first = first_of(attempts, &mut failed);
        match tokio::time::timeout(ADDRESSES_TIMEOUT, first).await {
            Ok(Some(connection)) => Ok(connection),
            // An address that leads nowhere says less than a member that refuses.
            _ => Err(failed
                .into_iter()
                .min_by_key(AttemptError::is_retryable)
                .unwrap_or(AttemptError::NoAnswer {
                    after: ADDRESSES_TIMEOUT,
                })),
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<quinn::Connection, AttemptError> {
        let failed = |reason: String| AttemptError::Failed { reason };
        let socket = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let Some(socket) = socket else {
            return Err(failed(format!("this machine has no socket for {address}")));
        };
        socket
            .connect_with(self.quic.clone(), address, tls::SERVER_NAME)
            .map_err(|error| failed(error.to_string()))?
            .await
            .map_err(link::connection_error)
    }
}

/// The first attempt that succeeds. Each begins [`STAGGER`] after the one before it, and those
/// that failed until then are put into `failed`.
async fn first_of<T: Send + 'static, E: Send + 'static>(
    attempts: impl IntoIterator<Item = impl Future<Output = Result<T, E>> + Send + 'static>,
    failed: &mut Vec<E>,
) -> Option<T> {
    let mut running = JoinSet::new();
    let mut delay = Duration::ZERO;
    for attempt in attempts {
        running.spawn(async move {
            tokio::time::sleep(delay).await;
            attempt.await
        });
        delay += STAGGER;
    }
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok(Ok(first)) => return Some(first),
            Ok(Err(error)) => failed.push(error),
            // The runtime is being shut down.
            Err(_) => break,
        }
    }
    None
}

fn bind(any: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let domain = socket2::Domain::for_address(any);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    // The system may grant less; that costs speed only.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    if any.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&any.into())?;
    let socket: UdpSocket = socket.into();
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
}

fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let bad = || ConfigError::BadEndpoint {
        endpoint: endpoint.to_owned(),
    };
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    Ok(())
}

/// 32 bytes that nobody can guess.
pub(crate) fn secure_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    let filled = rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes);
    assert!(
        filled.is_ok(),
        "the system has no random numbers: a session's secret can not be made"
    );
    bytes
}

fn secure_u64() -> u64 {
    let bytes = secure_bytes();
    bytes
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["localhost:1", "10.0.0.1:7401", "[::1]:7401"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in ["", "localhost", ":1", "a:b", "a:70000"] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    /// A CA, a certificate and a key, in PEM: whoever trusts one trusts the other.
    pub(crate) fn credentials() -> ClientConfig {
        let names = [tls::SERVER_NAME.to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        ClientConfig::new(["unused:1"], certificate.clone(), certificate, key)
    }

    /// A member as far as the handshake.
    fn listen(credentials: &ClientConfig) -> quinn::Endpoint {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = vec![CertificateDer::from_pem_slice(&credentials.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&credentials.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let member = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let accepting = member.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(async move { incoming.await.unwrap().closed().await });
            }
        });
        member
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hide_one_that_does() {
        let credentials = credentials();
        let member = listen(&credentials);
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addresses = vec![silent.local_addr().unwrap(), member.local_addr().unwrap()];
        let dialler = Connector::new(credentials).unwrap().dialler();
        let connecting = dialler.connect_any(addresses);
        let connected = tokio::time::timeout(Duration::from_secs(1), connecting).await;
        assert!(matches!(connected, Ok(Ok(_))), "{connected:?}");
    }

    #[tokio::test]
    async fn a_member_that_is_not_trusted_is_told_rather_than_an_address_without_answer() {
        let member = listen(&credentials());
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addresses = vec![silent.local_addr().unwrap(), member.local_addr().unwrap()];
        let dialler = Connector::new(credentials()).unwrap().dialler();
        let connected = dialler.connect_any(addresses).await;
        assert!(
            matches!(connected, Err(AttemptError::NotTrusted { .. })),
            "{connected:?}"
        );
    }
}
