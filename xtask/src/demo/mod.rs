//! `cargo xtask demo`: the main job on real processes, with faults, and a table of what was seen.

mod observations;
mod partitions;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::Cluster;
use crate::{cargo, guests};
use observations::Observations;
use worker::{Happened, Report, Worker};

/// The demo waits this long for what must happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct DemoOptions {
    /// Shows one thing at length.
    #[arg(value_enum)]
    act: Option<Act>,
    /// Workers that contend for the lock.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=16))]
    workers: u8,
    /// Keeps the members' folders and logs, and says where they are.
    #[arg(long)]
    keep: bool,
}

/// What is shown at length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Act {
    /// Twelve workers in three zones that own 96 partitions, and what moves them.
    Partitions,
}

/// Runs the demo; the exit status says whether everything held.
pub(crate) fn run(options: &DemoOptions) -> Result<ExitCode> {
    let began = Instant::now();
    let guests = guests::build_guests()?;
    let programs = cargo::build_programs()?;
    let folder = tempfile::Builder::new()
        .prefix("folkmoot-demo-")
        .tempdir()?;
    let folder_path = folder.path().to_path_buf();
    if options.keep {
        let _ = folder.keep();
    }
    let cluster = folder_path.join("cluster");
    let (seen, outcome) = match options.act {
        None => tell_all(&programs, &guests, &cluster, options.workers)?,
        Some(Act::Partitions) => partitions::tell(&programs, &guests, &cluster)?,
    };
    println!("\n{}", table(&seen));
    if options.keep {
        println!(
            "the members' folders and logs are in {}",
            folder_path.display()
        );
    }
    outcome.context("the demo did not come to its end (run it with --keep for logs)")?;
    let held = seen.iter().all(|row| row.held);
    let verdict = match held {
        true => "everything held",
        false => "something did NOT hold",
    };
    println!("{verdict} in {:.0} s", began.elapsed().as_secs_f64());
    Ok(match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// One thing that was promised, what was seen of it, and whether it held.
pub(crate) struct Row {
    what: &'static str,
    seen: String,
    held: bool,
}

/// The table for the end.
fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::UTF8_FULL_CONDENSED)
        .set_header(["what", "seen", "held"]);
    for row in rows {
        let held = if row.held { "yes" } else { "NO" };
        table.add_row([row.what, &row.seen, held]);
    }
    table
}

/// The main job: a lock with its workers, and then, on the same cluster, partitions in short.
fn tell_all(
    programs: &Path,
    guests: &Path,
    folder: &Path,
    workers: u8,
) -> Result<(Vec<Row>, Result<()>)> {
    let mut story = Story::begin(programs, folder)?;
    let mut outcome = story.tell(guests, workers);
    let mut seen = story.observations.rows();
    if outcome.is_ok() {
        let (rows, told) = partitions::tell_in_short(programs, guests, &mut story.cluster);
        seen.extend(rows);
        outcome = told;
    }
    Ok((seen, outcome))
}

/// The cluster, the workers, and what was seen so far.
struct Story {
    began: Instant,
    cluster: Cluster,
    program: PathBuf,
    workers: Vec<Worker>,
    reports: Receiver<Report>,
    reporter: Sender<Report>,
    observations: Observations,
}

impl Story {
    fn begin(programs: &Path, folder: &Path) -> Result<Self> {
        let began = Instant::now();
        let (reporter, reports) = mpsc::channel();
        let cluster = Cluster::start(&programs.join("folkmoot"), folder)?;
        let story = Self {
            began,
            cluster,
            program: programs.join("guarded-writer"),
            workers: Vec::new(),
            reports,
            reporter,
            observations: Observations::default(),
        };
        story.say("three members started on loopback, with a CA of their own");
        Ok(story)
    }

    fn tell(&mut self, guests: &Path, workers: u8) -> Result<()> {
        self.install_plugins(guests)?;
        self.start_workers(workers)?;
        self.kill_leader_while_lock_is_held()?;
        self.kill_holder()?;
        self.pause_holder()?;
        self.finish()
    }

    fn install_plugins(&mut self, guests: &Path) -> Result<()> {
        let leader = self.cluster.wait_for_leader(3)?;
        self.say(&format!("member {leader} leads"));
        for (name, mount) in [("lock", "/locks"), ("counter", "/counter")] {
            let component = guests.join(format!("{name}.wasm"));
            let component = component
                .to_str()
                .context("the path of a guest is not UTF-8")?;
            self.cluster
                .folkmoot(&["plugin", "install", component, "--name", name])?;
            self.cluster.folkmoot(&["mount", "add", mount, name])?;
            self.say(&format!(
                "plugin {name} is installed and mounted at {mount}"
            ));
        }
        self.cluster.folkmoot(&["create", "/demo", ""])?;
        self.cluster
            .folkmoot(&["create", "/demo/value", "nobody"])?;
        Ok(())
    }

    fn start_workers(&mut self, count: u8) -> Result<()> {
        for number in 1..=count {
            let name = format!("w{number}");
            let member = u64::from(number - 1) % 3 + 1;
            let reports = self.reporter.clone();
            let worker =
                Worker::start(&self.cluster, (&self.program, &[]), &name, member, reports)?;
            self.workers.push(worker);
        }
        self.say(&format!(
            "{count} workers contend for one lock and write a guarded value"
        ));
        self.watch_until("ten acquisitions", |seen| seen.acquisitions() >= 10)
    }

    fn kill_leader_while_lock_is_held(&mut self) -> Result<()> {
        let leader = self.cluster.wait_for_leader(3)?;
        let (holder, token) = self.wait_for_new_holder()?;
        let before = self.observations.acquisitions();
        let killed_at = Instant::now();
        self.cluster.kill_member(leader)?;
        self.say(&format!(
            "member {leader}, the leader, killed with -9 while {holder} holds the lock (token {token})"
        ));
        self.watch_until("ten acquisitions after the leader's death", |seen| {
            seen.acquisitions() >= before + 10
        })?;
        let pause = self.observations.longest_pause_since(killed_at);
        self.observations.failover = Some(pause);
        let new = self.cluster.wait_for_leader(2)?;
        self.say(&format!(
            "member {new} leads; the longest pause in acknowledged writes was {} ms",
            pause.as_millis()
        ));
        let restarted = Instant::now();
        self.cluster.start_member(leader)?;
        let target = self
            .cluster
            .wait_for("the new leader's position", |statuses| {
                statuses
                    .iter()
                    .find(|status| status.member == new)
                    .map(|status| status.applied_zxid)
            })?;
        self.cluster
            .wait_for("the member that came back", |statuses| {
                let back = statuses.iter().find(|status| status.member == leader)?;
                (back.applied_zxid >= target).then_some(())
            })?;
        self.observations.caught_up = Some(restarted.elapsed());
        self.say(&format!(
            "member {leader} came back and caught up with zxid {target}"
        ));
        Ok(())
    }

    fn kill_holder(&mut self) -> Result<()> {
        let (holder, token) = self.wait_for_new_holder()?;
        let killed_at = Instant::now();
        let worker = self.worker_mut(&holder)?;
        worker.kill()?;
        self.observations.worker_killed(&holder);
        self.say(&format!(
            "{holder} killed with -9 while it holds the lock (token {token})"
        ));
        self.watch_until("the lock's next holder", |seen| {
            seen.last_acquisition_of_another(&holder, token).is_some()
        })?;
        let (next, at) = self
            .observations
            .last_acquisition_of_another(&holder, token)
            .context("the next holder was just seen")?;
        let moved = at.saturating_duration_since(killed_at);
        self.observations.moved_on = Some(moved);
        self.say(&format!(
            "its session expired and the lock moved on to {next} after {} ms",
            moved.as_millis()
        ));
        Ok(())
    }

    fn pause_holder(&mut self) -> Result<()> {
        let (holder, token) = self.wait_for_new_holder()?;
        self.worker_mut(&holder)?.pause()?;
        self.say(&format!(
            "{holder} paused with SIGSTOP while it holds the lock (token {token})"
        ));
        self.watch_until("the lock's next holder", |seen| {
            seen.last_acquisition_of_another(&holder, token).is_some()
        })?;
        let before = self.observations.acquisitions();
        self.watch_until("five more acquisitions", |seen| {
            seen.acquisitions() >= before + 5
        })?;
        self.worker_mut(&holder)?.resume()?;
        self.say(&format!(
            "{holder} goes on; it writes through a fresh session with its old token {token}"
        ));
        self.watch_until("the stale write's answer", |seen| {
            seen.stale_answer(token).is_some()
        })?;
        match self.observations.stale_answer(token) {
            Some(true) => self.say(&format!("the guard refused the write with token {token}")),
            _ => self.say(&format!("the write with token {token} was NOT refused")),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let before = self.observations.acquisitions();
        self.watch_until("ten more acquisitions", |seen| {
            seen.acquisitions() >= before + 10
        })?;
        let mut workers = std::mem::take(&mut self.workers);
        for worker in &mut workers {
            if !self.observations.is_dead(&worker.name) {
                worker.finish()?;
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.observations.add(report);
        }
        let reply = self.cluster.folkmoot(&["call", "/counter", "read"])?;
        self.observations.counter = Some(read_total(&reply)?);
        self.observations.agreement = Some(self.cluster.wait_for_agreement()?);
        self.say("the workers ended; the members agree");
        Ok(())
    }

    /// Waits until a worker is granted the lock anew, so that it holds it now.
    fn wait_for_new_holder(&mut self) -> Result<(String, u64)> {
        while let Ok(report) = self.reports.try_recv() {
            self.observations.add(report);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.next_report("a new holder of the lock", deadline)?;
            let granted = match report.happened {
                Happened::Acquired { token } => Some((report.worker.clone(), token)),
                _ => None,
            };
            self.observations.add(report);
            if let Some(granted) = granted {
                return Ok(granted);
            }
        }
    }

    fn watch_until(&mut self, what: &str, done: impl Fn(&Observations) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.observations) {
            let report = self.next_report(what, deadline)?;
            self.observations.add(report);
        }
        Ok(())
    }

    fn next_report(&self, what: &str, deadline: Instant) -> Result<Report> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.reports.recv_timeout(left) {
            Ok(report) => Ok(report),
            Err(_) => bail!("no sign of {what} within {} s", PATIENCE.as_secs()),
        }
    }

    fn worker_mut(&mut self, name: &str) -> Result<&mut Worker> {
        let worker = self.workers.iter_mut().find(|worker| worker.name == name);
        worker.with_context(|| format!("there is no worker {name}"))
    }

    fn say(&self, text: &str) {
        println!(
            "[{:6.2} s] {text}  ({} acquisitions)",
            self.began.elapsed().as_secs_f64(),
            self.observations.acquisitions()
        );
    }
}

/// The total in the counter's reply.
fn read_total(reply: &[u8]) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Total {
        total: u64,
    }
    let total: Total = serde_json::from_slice(reply).with_context(|| {
        format!(
            "the counter's reply is not what was expected: {}",
            String::from_utf8_lossy(reply)
        )
    })?;
    Ok(total.total)
}
