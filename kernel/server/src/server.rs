//! A running member: start, run, stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use folkmoot_host::Compiler;
use folkmoot_proto::MemberId;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use tokio::sync::oneshot;

use crate::config::{Endpoint, ServerConfig};
use crate::error::{RunError, StartError};
use crate::fatal::Fatal;
use crate::threads::{self, Threads};
use crate::tls::Identity;
use crate::{data, transport};

/// A member that stops has closed everything within this, or a thread is stuck.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a process decides about the member that it runs, beyond the configuration file.
#[derive(Debug, Default)]
pub struct ServerOptions {
    /// A bound socket for peers, in place of binding the configured address.
    pub peer_socket: Option<UdpSocket>,
    /// A bound socket for clients, in place of binding the configured address.
    pub client_socket: Option<UdpSocket>,
    /// How often checkpoints are taken.
    pub checkpoint: CheckpointPolicy,
    /// How components are compiled; in this process if none is given, which may take gigabytes for
    /// seconds: a server process gives a child.
    pub compiler: Option<Compiler>,
    /// Which thread executes.
    pub layout: ThreadLayout,
}

/// Which thread runs the execution machine and its guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadLayout {
    /// One of its own, so that no guest's call holds up acknowledgements, ticks and votes (rule
    /// R7).
    #[default]
    Apart,
    /// The network's: cheaper with native requests alone, and only there to be measured.
    Merged,
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
    stop: Stop,
    threads: Threads,
    fatal: Fatal,
}

/// Tells the threads to stop when it is dropped.
#[derive(Debug)]
struct Stop {
    fatal: Fatal,
    _network: oneshot::Sender<()>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.fatal.stop();
    }
}

impl Server {
    /// Checks the configuration, binds the sockets and loads the data. Blocks for as long as the
    /// data takes to load.
    ///
    /// # Errors
    ///
    /// What is wrong and what to do. Nothing was changed then.
    pub fn start(config: ServerConfig, options: ServerOptions) -> Result<Self, StartError> {
        let (bootstrap_bytes, bootstrap) = read_bootstrap(&config)?;
        let identity = Identity::load(&config.tls, config.member)?;
        let (peer_socket, peer_address) = listen("peer", &config.peer, options.peer_socket)?;
        let (client_socket, client_address) =
            listen("client", &config.client, options.client_socket)?;
        let data = data::open(&config, &bootstrap, &bootstrap_bytes)?;
        let (stop, stopped) = oneshot::channel();
        let fatal = Fatal::default();
        let threads = threads::start(threads::Parts {
            config,
            identity,
            peer_socket,
            client_socket,
            data,
            checkpoint: options.checkpoint,
            compiler: options.compiler.unwrap_or(Compiler::Here),
            layout: options.layout,
            stopped,
            fatal: fatal.clone(),
        })?;
        Ok(Self {
            member: threads.member,
            peer_address,
            client_address,
            stop: Stop {
                fatal: fatal.clone(),
                _network: stop,
            },
            threads,
            fatal,
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

    /// Serves until `shutdown` is ready; then a leader hands leadership over, clients are told,
    /// and connections and files are closed. A server that is dropped before does the same on its
    /// own.
    ///
    /// # Errors
    ///
    /// The member ended by itself; the process should exit with a code other than 0.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown => tracing::info!(member = %self.member, "stopping"),
            () = self.fatal.reported() => {}
        }
        drop(self.stop);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.join());
        // A disk that does not answer must not keep the process from ending.
        let ended = tokio::time::timeout(STOP_TIMEOUT, joined).await.is_ok();
        match self.fatal.take() {
            Some(reason) => Err(reason),
            None if ended => Ok(()),
            None => Err(RunError::Stuck),
        }
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
