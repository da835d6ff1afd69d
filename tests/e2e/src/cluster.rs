//! Members as processes, with a CA of their own, in a folder of their own.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Cli, Process, Ran, Signal, wait_until};

/// The smallest segments: zeroing larger ones takes longer.
const SEGMENT_BYTES: &str = "8388608";

/// A cluster's folder and its running members. They end with it.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: u64,
    client_port: u16,
    process: Option<Process>,
}

/// What one member says of itself in `cluster status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The member.
    pub member: u64,
    /// `leader`, `follower` or `candidate`.
    pub role: String,
    /// How far it has applied.
    pub applied_zxid: u64,
    /// What its state amounts to there.
    pub state_hash: String,
}

impl Status {
    fn of(line: &Value) -> Option<Self> {
        Some(Self {
            member: line["member"].as_u64()?,
            role: line["role"].as_str()?.to_owned(),
            applied_zxid: line["applied_zxid"].as_u64()?,
            state_hash: line["state_hash"].as_str()?.to_owned(),
        })
    }
}

impl Cluster {
    /// Runs `folkmoot init` for members on ports that are free. None is started.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[must_use]
    pub fn init(members: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = free_ports(2 * members);
        let members: Vec<_> = (1..)
            .zip(ports.chunks_exact(2))
            .map(|(id, ports)| match ports {
                [peer, client] => (id, *peer, *client),
                _ => panic!("two ports a member"),
            })
            .collect();
        let listing: Vec<_> = members
            .iter()
            .map(|(id, peer, client)| format!("{id}=127.0.0.1:{peer}/{client}"))
            .collect();
        let home = Cli::at_home(folder.path());
        let listing = listing.join(",");
        home.tell(&[
            "init",
            "--members",
            &listing,
            "--out",
            "cluster",
            "--segment-bytes",
            SEGMENT_BYTES,
        ]);
        let members = members.into_iter().map(|(id, _, client_port)| Member {
            id,
            client_port,
            process: None,
        });
        Self {
            members: members.collect(),
            folder,
        }
    }

    /// A cluster with a leader, whose members all answer.
    #[must_use]
    pub fn start(members: usize) -> Self {
        let mut cluster = Self::init(members);
        for id in 1..=members as u64 {
            cluster.start_member(id);
        }
        cluster.leader_of(members);
        cluster
    }

    /// Where `init` put everything.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// A member's folder.
    #[must_use]
    pub fn member_folder(&self, id: u64) -> PathBuf {
        self.folder().join(format!("member-{id}"))
    }

    /// A member's data.
    #[must_use]
    pub fn data(&self, id: u64) -> PathBuf {
        self.member_folder(id).join("data")
    }

    /// A user of this cluster.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::at_home(self.folder.path())
            .with("FOLKMOOT_CONTEXT", self.folder().join("context.toml"))
    }

    /// A user of one member of this cluster; the others are learned from it.
    #[must_use]
    pub fn cli_of(&self, id: u64) -> Cli {
        self.cli().with("FOLKMOOT_ENDPOINTS", self.endpoint(id))
    }

    /// Where a member listens for clients.
    #[must_use]
    pub fn endpoint(&self, id: u64) -> String {
        let member = self.members.iter().find(|member| member.id == id);
        let port = member.expect("a member of this cluster").client_port;
        format!("127.0.0.1:{port}")
    }

    /// Starts a member that does not run, and waits until it serves.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn start_member(&mut self, id: u64) {
        let process = self.run_server(id);
        process.note("a member that serves", |line| {
            line.contains("serves clients")
        });
        self.member_mut(id).process = Some(process);
    }

    /// Runs a member that is expected to end by itself.
    #[must_use]
    pub fn run_server(&self, id: u64) -> Process {
        server(&self.member_folder(id).join("server.toml"))
    }

    /// Kills a member with -9.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn kill(&mut self, id: u64) -> Ran {
        let process = self.member_mut(id).process.take();
        process.expect("the member runs").kill()
    }

    /// Stops a member with SIGTERM.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn stop(&mut self, id: u64) -> Ran {
        let process = self.member_mut(id).process.take();
        let mut process = process.expect("the member runs");
        process.signal(Signal::TERM);
        process.end()
    }

    /// The process of a member that runs.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn process(&mut self, id: u64) -> &mut Process {
        let process = self.member_mut(id).process.as_mut();
        process.expect("the member runs")
    }

    /// What the members that answer say of themselves.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        // A member that was killed does not answer: a second is long on loopback. Without a leader
        // the command fails, and prints what there is all the same.
        let ran = self.cli().run(&["cluster", "status", "--timeout", "1"]);
        let lines: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_default();
        lines.iter().filter_map(Status::of).collect()
    }

    /// Asks for the status until `look` finds what it looks for.
    ///
    /// # Panics
    ///
    /// If it is not found.
    pub fn wait_for<T>(&self, what: &str, look: impl Fn(&[Status]) -> Option<T>) -> T {
        wait_until(
            what,
            || look(&self.statuses()),
            || format!("last seen: {:#?}", self.statuses()),
        )
    }

    /// The leader, once there is one.
    pub fn leader(&self) -> u64 {
        self.leader_of(1)
    }

    /// The leader, once so many members answer.
    pub fn leader_of(&self, members: usize) -> u64 {
        self.wait_for("a leader", |statuses| {
            let leader = statuses.iter().find(|status| status.role == "leader")?;
            (statuses.len() >= members).then_some(leader.member)
        })
    }

    /// Waits until all members stand at one zxid with one state.
    pub fn wait_for_agreement(&self) -> (u64, String) {
        let count = self.members.len();
        self.wait_for("all members at one zxid with one state", |statuses| {
            let first = statuses.first()?;
            let equal = statuses.iter().all(|status| {
                (status.applied_zxid, &status.state_hash) == (first.applied_zxid, &first.state_hash)
            });
            (statuses.len() == count && equal)
                .then(|| (first.applied_zxid, first.state_hash.clone()))
        })
    }

    fn member_mut(&mut self, id: u64) -> &mut Member {
        let member = self.members.iter_mut().find(|member| member.id == id);
        member.expect("a member of this cluster")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                if let Some(process) = &member.process {
                    eprintln!("--- member {}\n{}---", member.id, process.stderr());
                }
            }
        }
    }
}

/// Runs `folkmoot server` on a configuration.
#[must_use]
pub fn server(config: &Path) -> Process {
    let home = config.parent().expect("a configuration is in a folder");
    Cli::at_home(home).start(&["server", "--config", &config.to_string_lossy()])
}

/// Loopback ports that nobody uses, each given once in this process. They are below those that the
/// system gives to clients, so that nobody else is given the port of a member that was killed.
///
/// # Panics
///
/// If there are not as many.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different places.
    let place = std::process::id().wrapping_mul(64) % u32::from(PORTS);
    let free: Vec<_> = (0..PORTS)
        .map(|_| {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = (place + step) % u32::from(PORTS);
            FIRST + u16::try_from(port).expect("a remainder of 16 bits")
        })
        .filter(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect();
    assert_eq!(free.len(), count, "too few free ports");
    free
}
