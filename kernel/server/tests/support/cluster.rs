//! Members of one cluster in this process, on loopback ports of their own.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::{ClusterId, MemberId, WallTime};
use folkmoot_server::config::{Endpoint, Log, Tls};
use folkmoot_server::{
    CheckpointPolicy, RunError, Server, ServerConfig, ServerOptions, StartError,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::certificates::Authority;

/// The segments of test logs: the smallest.
pub(crate) const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// A cluster's files and its running members.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) configs: Vec<ServerConfig>,
    pub(crate) checkpoint: CheckpointPolicy,
    running: Vec<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), RunError>>,
}

/// A loopback address that nobody uses, given once in this process. Its port is below those that the
/// system gives to clients: one of them would be taken by another test between now and the start.
fn free_address() -> SocketAddr {
    const FIRST: u32 = 30_000;
    const PORTS: u32 = 2_700;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = std::process::id().wrapping_mul(64);
    let free = (0..PORTS).find_map(|_| {
        let step = place.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % PORTS).expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        UdpSocket::bind(address).is_ok().then_some(address)
    });
    free.expect("a free port")
}

impl Cluster {
    /// Writes the files of a cluster of `size` members; none runs.
    pub(crate) fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new();
        let mut members = Vec::new();
        let mut addresses = Vec::new();
        for id in 1..=size {
            let (peer, client) = (free_address(), free_address());
            members.push(BootstrapMember {
                id: MemberId(id),
                peer_address: peer.to_string(),
                client_address: client.to_string(),
            });
            addresses.push((peer, client));
        }
        let bootstrap = Bootstrap {
            cluster: ClusterId(random_bytes(&folder)),
            created: WallTime(1),
            members,
            limits: Limits::default(),
        };
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("writable");
        let configs = addresses
            .iter()
            .zip(1..)
            .map(|(addresses, id)| {
                configure(
                    folder.path(),
                    &authority,
                    &bootstrap,
                    MemberId(id),
                    *addresses,
                )
            })
            .collect();
        Self {
            folder,
            authority,
            bootstrap,
            configs,
            checkpoint: CheckpointPolicy::default(),
            running: (0..size).map(|_| None).collect(),
        }
    }

    /// Starts every member.
    pub(crate) fn start_all(&mut self) {
        for index in 0..self.configs.len() {
            self.start(index).expect("the member starts");
        }
    }

    /// Starts the member at `index`, from 0.
    pub(crate) fn start(&mut self, index: usize) -> Result<(), StartError> {
        let server = Server::start(
            self.configs[index].clone(),
            ServerOptions {
                checkpoint: self.checkpoint,
                ..ServerOptions::default()
            },
        )?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(server.run(async {
                let _ = stopped.await;
            }))
        });
        self.running[index] = Some(Running { stop, thread });
        Ok(())
    }

    /// Stops the member at `index` and waits for it.
    pub(crate) fn stop(&mut self, index: usize) {
        let running = self.running[index].take().expect("the member runs");
        let _ = running.stop.send(());
        running
            .thread
            .join()
            .expect("the member's thread ends")
            .expect("the member ends well");
    }

    /// Puts the files of the member at `index`, which is stopped, back to what they were before its
    /// first start, as where its machine is set up again.
    pub(crate) fn rebuild(&mut self, index: usize) {
        let config = &self.configs[index];
        std::fs::remove_dir_all(&config.data).expect("removable");
        let mut mark = config.bootstrap.clone().into_os_string();
        mark.push(format!(".begun-by-{}", config.member));
        std::fs::remove_file(mark).expect("removable");
    }

    pub(crate) fn client_address(&self, index: usize) -> SocketAddr {
        self.configs[index].client.listen
    }

    pub(crate) fn peer_address(&self, index: usize) -> SocketAddr {
        self.configs[index].peer.listen
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.running.iter_mut().filter_map(Option::take) {
            let _ = running.stop.send(());
            let _ = running.thread.join();
        }
    }
}

/// The temporary folder's name is random, and as good as random bytes for a cluster's name.
fn random_bytes(folder: &TempDir) -> [u8; 16] {
    let name = folder.path().as_os_str().as_encoded_bytes();
    let digest = folkmoot_proto::Digest::of(name);
    *digest.0.first_chunk().expect("32 bytes")
}

fn configure(
    folder: &Path,
    authority: &Authority,
    bootstrap: &Bootstrap,
    member: MemberId,
    (peer, client): (SocketAddr, SocketAddr),
) -> ServerConfig {
    let own = folder.join(format!("member-{member}"));
    std::fs::create_dir(&own).expect("a new folder");
    let (certificate, key) = authority.member(member).write(&own, "member");
    let path = |name: &str| -> PathBuf { own.join(name) };
    std::fs::write(path("bootstrap.json"), bootstrap.to_bytes()).expect("writable");
    let endpoint = |address: SocketAddr| Endpoint {
        listen: address,
        advertise: address.to_string(),
    };
    ServerConfig {
        member,
        data: path("data"),
        bootstrap: path("bootstrap.json"),
        peer: endpoint(peer),
        client: endpoint(client),
        tls: Tls {
            ca: folder.join("ca.pem"),
            certificate,
            key,
        },
        log: Log {
            segment_bytes: SEGMENT_BYTES,
        },
    }
}
