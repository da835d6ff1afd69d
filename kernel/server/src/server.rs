//! A running member: start, run, stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use folkmoot_proto::MemberId;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};

use crate::config::{Endpoint, ServerConfig};
use crate::error::{RunError, StartError};
use crate::tls::Identity;
use crate::transport::{self, Carries};

/// What a process decides about the member that it runs, beyond the configuration file.
#[derive(Debug, Default)]
pub struct ServerOptions {
    /// A bound socket for peers, in place of binding the configured address.
    pub peer_socket: Option<UdpSocket>,
    /// A bound socket for clients, in place of binding the configured address.
    pub client_socket: Option<UdpSocket>,
    /// How often checkpoints are taken.
    pub checkpoint: CheckpointPolicy,
}

/// A checkpoint is taken as soon as one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Bytes of log since the last one.
    pub log_bytes: u64,
    /// Bytes of changed state since the last one.
    pub dirty_bytes: u64,
    /// Time since the last one, if anything changed.
    pub interval: Duration,
}

impl Default for CheckpointPolicy {
    /// A restart reads at most 64 MiB of log: about a second.
    fn default() -> Self {
        Self {
            log_bytes: 64 * 1024 * 1024,
            dirty_bytes: 32 * 1024 * 1024,
            interval: Duration::from_secs(60),
        }
    }
}

/// A member that was started: its sockets are bound and its data is loaded.
///
/// ```no_run
/// use folkmoot_server::{Server, ServerConfig, ServerOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ServerConfig::from_file("server.toml".as_ref())?;
/// let server = Server::start(config, ServerOptions::default())?;
/// println!("clients: {}", server.client_address());
/// server
///     .run(async {
///         let _ = tokio::signal::ctrl_c().await;
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    member: MemberId,
    peer_address: SocketAddr,
    client_address: SocketAddr,
    network: Network,
}

/// What the network thread owns.
#[derive(Debug)]
struct Network {
    runtime: tokio::runtime::Runtime,
    peers: quinn::Endpoint,
    clients: quinn::Endpoint,
}

impl Server {
    /// Checks the configuration, binds the sockets and loads the data. Blocks for as long as the
    /// data takes to load.
    ///
    /// # Errors
    ///
    /// What is wrong and what to do. Nothing was changed then.
    pub fn start(config: ServerConfig, options: ServerOptions) -> Result<Self, StartError> {
        read_bootstrap(&config)?;
        let identity = Identity::load(&config.tls, config.member)?;
        let peers = listen("peer", &config.peer, options.peer_socket)?;
        let clients = listen("client", &config.client, options.client_socket)?;
        Ok(Self {
            member: config.member,
            peer_address: peers.1,
            client_address: clients.1,
            network: Network::open(&identity, peers.0, clients.0)?,
        })
    }

    /// The member.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Where it listens for other members.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Serves until `shutdown` is ready; then tells clients, closes connections and files, and
    /// returns. Dropping the future stops the member as well, without waiting for it.
    ///
    /// # Errors
    ///
    /// The member ended by itself; the process should exit with a code other than 0.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        shutdown.await;
        for endpoint in [&self.network.clients, &self.network.peers] {
            endpoint.close(quinn::VarInt::from_u32(0), b"the member stops");
        }
        // A runtime must not be dropped where futures run.
        self.network.runtime.shutdown_background();
        Ok(())
    }
}

impl Network {
    fn open(identity: &Identity, peers: UdpSocket, clients: UdpSocket) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| StartError::Thread {
                what: "network runtime",
                source,
            })?;
        let entered = runtime.enter();
        let mut peers = transport::endpoint(peers, identity.peer_server()?, Carries::Peers)?;
        peers.set_default_client_config(transport::dialler(identity.peer_client()?)?);
        let clients = transport::endpoint(clients, identity.client_server()?, Carries::Clients)?;
        drop(entered);
        Ok(Self {
            runtime,
            peers,
            clients,
        })
    }
}

/// The bootstrap file, byte for byte, and its meaning; the configuration agrees with it.
fn read_bootstrap(config: &ServerConfig) -> Result<(Bytes, Bootstrap), StartError> {
    let path = &config.bootstrap;
    let bytes = std::fs::read(path).map_err(|source| StartError::BootstrapUnreadable {
        path: path.clone(),
        source,
    })?;
    let bootstrap = Bootstrap::from_bytes(&bytes).map_err(|source| StartError::Bootstrap {
        path: path.clone(),
        source,
    })?;
    let Some(own) = bootstrap
        .members
        .iter()
        .find(|member| member.id == config.member)
    else {
        return Err(StartError::NotAMember {
            member: config.member,
            path: path.clone(),
        });
    };
    check_advertised(config, own)?;
    Ok((bytes.into(), bootstrap))
}

/// Peers and clients dial what the bootstrap entry says (rule R21), so a configuration that
/// promises something else would only mislead.
fn check_advertised(config: &ServerConfig, own: &BootstrapMember) -> Result<(), StartError> {
    for (what, configured, bootstrapped) in [
        ("peer", &config.peer.advertise, &own.peer_address),
        ("client", &config.client.advertise, &own.client_address),
    ] {
        if configured != bootstrapped {
            return Err(StartError::Advertised {
                what,
                member: config.member,
                configured: configured.clone(),
                bootstrapped: bootstrapped.clone(),
            });
        }
    }
    Ok(())
}

fn listen(
    what: &'static str,
    endpoint: &Endpoint,
    given: Option<UdpSocket>,
) -> Result<(UdpSocket, SocketAddr), StartError> {
    let address = endpoint.listen;
    given
        .map_or_else(|| transport::bind(address), Ok)
        .and_then(|socket| {
            let address = socket.local_addr()?;
            Ok((socket, address))
        })
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortTaken { what, address },
            _ => StartError::Listen {
                what,
                address,
                source,
            },
        })
}
