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

/// The next endpoint is tried beside the ones before it after this long. A member on another
/// continent answers in less.
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
        let mut attempts = JoinSet::new();
        for (place, endpoint) in order.into_iter().enumerate() {
            let delay = STAGGER * u32::try_from(place).unwrap_or(u32::MAX);
            let dialler = self.dialler();
            attempts.spawn(async move {
                tokio::time::sleep(delay).await;
                let attempt = async {
                    let connection = dialler.connect(&endpoint).await?;
                    let greeted = Link::greet(&connection, cluster).await?;
                    Ok((connection, greeted))
                };
                let result = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await;
                let no_answer = AttemptError::NoAnswer {
                    after: ATTEMPT_TIMEOUT,
                };
                (endpoint, result.unwrap_or(Err(no_answer)))
            });
        }
        let mut failed = Vec::new();
        while let Some(joined) = attempts.join_next().await {
            match joined {
                Ok((endpoint, Ok((connection, greeted)))) => {
                    return Ok((endpoint, connection, greeted));
                }
                Ok((endpoint, Err(error))) => failed.push(Attempt { endpoint, error }),
                // The runtime is being shut down.
                Err(_) => break,
            }
        }
        Err(ConnectError::NoMemberAnswers { attempts: failed })
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

struct Dialler {
    quic: quinn::ClientConfig,
    v4: Option<quinn::Endpoint>,
    v6: Option<quinn::Endpoint>,
}

impl Dialler {
    /// Connects to the first address of the name that a socket is there for.
    async fn connect(&self, endpoint: &str) -> Result<quinn::Connection, AttemptError> {
        let unresolved = |reason: String| AttemptError::Unresolved { reason };
        let addresses = tokio::net::lookup_host(endpoint).await;
        let mut last = unresolved("the name has no address".to_owned());
        for address in addresses.map_err(|error| unresolved(error.to_string()))? {
            let socket = if address.is_ipv4() {
                &self.v4
            } else {
                &self.v6
            };
            let Some(socket) = socket else { continue };
            let connecting = socket.connect_with(self.quic.clone(), address, tls::SERVER_NAME);
            last = match connecting {
                Ok(connecting) => match connecting.await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => link::connection_error(error),
                },
                Err(error) => AttemptError::Failed {
                    reason: error.to_string(),
                },
            };
        }
        Err(last)
    }
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
mod tests {
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
}
