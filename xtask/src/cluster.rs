//! Three member processes on loopback, with a CA of their own, in a folder of their own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// How long the cluster may take to do what is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of processes; they end with it.
pub(crate) struct Cluster {
    folkmoot: PathBuf,
    folder: PathBuf,
    members: Vec<Member>,
}

struct Member {
    id: u64,
    client_address: SocketAddr,
    process: Option<Child>,
}

/// What one member says of itself (`folkmoot cluster status --output json`).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MemberStatus {
    pub(crate) member: u64,
    pub(crate) role: String,
    pub(crate) applied_zxid: u64,
    pub(crate) state_hash: String,
}

impl Cluster {
    /// Makes configurations and certificates below `folder` and starts the members.
    pub(crate) fn start(folkmoot: &Path, folder: &Path) -> Result<Self> {
        let addresses = free_addresses(6)?;
        let (peers, clients) = addresses.split_at(3);
        let listing = (1..)
            .zip(peers.iter().zip(clients))
            .map(|(id, (peer, client)): (u64, _)| format!("{id}={peer}/{}", client.port()))
            .collect::<Vec<_>>()
            .join(",");
        let status = Command::new(folkmoot)
            .args(["init", "--members", &listing, "--out"])
            .arg(folder)
            .stdout(Stdio::null())
            .status()
            .context("folkmoot init did not start")?;
        if !status.success() {
            bail!("folkmoot init failed ({status})");
        }
        let members = (1..)
            .zip(clients)
            .map(|(id, address)| Member {
                id,
                client_address: *address,
                process: None,
            })
            .collect();
        let mut cluster = Self {
            folkmoot: folkmoot.to_path_buf(),
            folder: folder.to_path_buf(),
            members,
        };
        for id in 1..=3 {
            cluster.start_member(id)?;
        }
        Ok(cluster)
    }

    /// Starts a member that does not run.
    pub(crate) fn start_member(&mut self, id: u64) -> Result<()> {
        let home = self.folder.join(format!("member-{id}"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(home.join("server.log"))?;
        let process = Command::new(&self.folkmoot)
            .arg("server")
            .arg("--config")
            .arg(home.join("server.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("folkmoot server did not start")?;
        self.member_mut(id)?.process = Some(process);
        Ok(())
    }

    /// Kills a member with -9.
    pub(crate) fn kill_member(&mut self, id: u64) -> Result<()> {
        let Some(mut process) = self.member_mut(id)?.process.take() else {
            bail!("member {id} does not run")
        };
        process.kill()?;
        process.wait()?;
        Ok(())
    }
    /// How many files the members' logs have, all together.
    pub(crate) fn log_files(&self) -> Result<usize> {
        let mut files = 0;
        for member in &self.members {
            let folder = self.folder.join(format!("member-{}/data/log", member.id));
            let entries = std::fs::read_dir(&folder)
                .with_context(|| format!("{} can not be read", folder.display()))?;
            files += entries.count();
        }
        Ok(files)
    }

    /// The process id of a member that runs.
    pub(crate) fn process_id(&self, id: u64) -> Option<u32> {
        self.members
            .iter()
            .find(|member| member.id == id)?
            .process
            .as_ref()
            .map(Child::id)
    }

    /// One member's address for clients.
    pub(crate) fn endpoint(&self, id: u64) -> Result<String> {
        let member = self.members.iter().find(|member| member.id == id);
        Ok(member
            .with_context(|| format!("there is no member {id}"))?
            .client_address
            .to_string())
    }

    /// The members' addresses for clients, the given one first.
    pub(crate) fn endpoints(&self, first: u64) -> String {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|member| (member.id != first, member.id));
        members
            .iter()
            .map(|member| member.client_address.to_string())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// A command that is a client of this cluster.
    pub(crate) fn client(&self, program: &Path, first: u64) -> Command {
        let mut command = Command::new(program);
        command
            .env("FOLKMOOT_ENDPOINTS", self.endpoints(first))
            .env("FOLKMOOT_CA", self.folder.join("ca.pem"))
            .env("FOLKMOOT_CERTIFICATE", self.folder.join("client.pem"))
            .env("FOLKMOOT_KEY", self.folder.join("client.key"));
        command
    }

    /// Runs `folkmoot ARGUMENTS --output json` as a client and gives its standard output.
    pub(crate) fn folkmoot(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        self.run(&[arguments, &["--output", "json"]].concat())
    }

    /// Runs `folkmoot ARGUMENTS` as a client and gives what a person would read.
    pub(crate) fn folkmoot_text(&self, arguments: &[&str]) -> Result<String> {
        Ok(String::from_utf8(self.run(arguments)?)?)
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self
            .client(&self.folkmoot, 1)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("folkmoot did not start")?;
        if !output.status.success() {
            bail!(
                "folkmoot {} failed ({}): {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output.stdout)
    }

    /// What the members that answer say of themselves.
    pub(crate) fn status(&self) -> Result<Vec<MemberStatus>> {
        // A member that was killed does not answer: a second is long on loopback.
        let output = self.folkmoot(&["cluster", "status", "--timeout", "1"])?;
        let lines: Vec<serde_json::Value> =
            serde_json::from_slice(&output).context("the status is not what was expected")?;
        let answered = lines.into_iter().filter(|line| line.get("error").is_none());
        Ok(answered
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()?)
    }

    /// Waits until `members` members answer and one of them leads; gives the leader.
    pub(crate) fn wait_for_leader(&self, members: usize) -> Result<u64> {
        self.wait_for("a leader", |statuses| {
            let leader = statuses.iter().find(|status| status.role == "leader")?;
            (statuses.len() >= members).then_some(leader.member)
        })
    }

    /// Waits until all members stand at one zxid with one state hash; gives both.
    pub(crate) fn wait_for_agreement(&self) -> Result<(u64, String)> {
        let count = self.members.len();
        self.wait_for("all members at one zxid", |statuses| {
            let first = statuses.first()?;
            let equal = statuses.iter().all(|status| {
                status.applied_zxid == first.applied_zxid && status.state_hash == first.state_hash
            });
            (statuses.len() == count && equal)
                .then(|| (first.applied_zxid, first.state_hash.clone()))
        })
    }

    /// Asks for the status until `found` finds what it looks for.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut found: impl FnMut(&[MemberStatus]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let statuses = self.status().unwrap_or_default();
            if let Some(found) = found(&statuses) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!(
                    "no sign of {what} within {} s; last seen: {statuses:?}; the members' logs are \
                     in {}/member-*/server.log",
                    PATIENCE.as_secs(),
                    self.folder.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn member_mut(&mut self, id: u64) -> Result<&mut Member> {
        let member = self.members.iter_mut().find(|member| member.id == id);
        member.with_context(|| format!("there is no member {id}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                // It may have ended by itself; either way it is gone afterwards.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

/// Loopback addresses whose UDP ports are free now.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let sockets = (0..count)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<Vec<_>>>()?;
    Ok(sockets
        .iter()
        .map(UdpSocket::local_addr)
        .collect::<std::io::Result<_>>()?)
}
