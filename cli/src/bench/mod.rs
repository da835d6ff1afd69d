//! `folkmoot bench`: what a cluster does, measured by a closed loop of clients.

mod drive;
mod machine;
mod replan;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use folkmoot_client::{
    Client, ClientConfig, Counter, Lock, NodeKind, Refusal, Session, WriteError,
};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Global;
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use drive::{Measured, closed_loop};
use machine::{Usage, Used};
use replan::{Large, Replanned};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Sets of one node for each client.
    Write,
    /// Local reads of that node.
    Read,
    /// Acquire and release of one lock for which all clients contend; one pair is one operation.
    Lock,
    /// Additions to one counter.
    Counter,
    /// Sets as in `write`, first beside a partition map that rests, then while its members go.
    Replan,
    /// Creates `--nodes` nodes and ends.
    Load,
    /// Appends of 4 KiB with fdatasync to a growing file in `--folder`, without a cluster.
    Disk,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// What is measured.
    workload: Workload,
    /// Sessions that send requests.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Connections that the sessions share.
    #[arg(long)]
    connections: Option<usize>,
    /// Requests that each session keeps outstanding.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128)]
    value_size: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many nodes `load` creates.
    #[arg(long, default_value_t = 100_000)]
    nodes: usize,
    /// Where the plugin `lock` is mounted.
    #[arg(long, default_value = "/locks")]
    locks: String,
    /// Where the plugin `counter` is mounted.
    #[arg(long, default_value = "/counter")]
    counter: String,
    /// Members of the group of `replan`.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Partitions of its map.
    #[arg(long, default_value_t = 100_000)]
    partitions: u32,
    /// Seconds between the losses of two of its members.
    #[arg(long, default_value_t = 1.0, value_parser = crate::args::seconds)]
    loss_every: f64,
    /// The installed rebalancer that it has.
    #[arg(long, default_value = "sticky-balanced")]
    policy: String,
    /// Processes on this machine whose CPU, memory and bytes written are read from /proc.
    #[arg(long, value_delimiter = ',')]
    processes: Vec<u32>,
    /// The folder of `disk`.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// What is printed: times in microseconds.
#[derive(Debug, Serialize)]
struct BenchReport {
    workload: String,
    clients: usize,
    connections: usize,
    pipeline: usize,
    value_size: usize,
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    elapsed_seconds: f64,
    per_second: f64,
    latency: Option<Latency>,
    processes: Vec<Used>,
    replan: Option<Replanned>,
}

#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            min,
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        writeln!(
            f,
            "latency in µs: min {min} · p50 {p50} · p90 {p90} · p99 {p99} · p99.9 {p999} · max {max}"
        )
    }
}

impl BenchReport {
    /// The report for people.
    fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{}: {} clients × {} outstanding over {} connections, {} bytes\n{:.0} operations/s \
             ({} in {:.2} s)\n",
            self.workload,
            self.clients,
            self.pipeline,
            self.connections,
            self.value_size,
            self.per_second,
            self.operations,
            self.elapsed_seconds
        );
        if let Some(latency) = &self.latency {
            let _ = write!(text, "{latency}");
        }
        for used in &self.processes {
            let _ = writeln!(text, "{used}");
        }
        if let Some(replan) = &self.replan {
            text += &replan.to_text();
        }
        if let Some(error) = &self.first_error {
            let _ = writeln!(
                text,
                "{} operations failed; the first: {error}",
                self.errors
            );
        }
        text
    }
}

/// Runs one measurement. Clients stay with the endpoints that are named, so that they can be
/// attached to the leader alone.
pub(crate) async fn run(global: &Global, options: &Bench, out: Output) -> Result<(), Failure> {
    if options.clients == 0 || options.pipeline == 0 {
        return Err(Failure::configuration(
            "there must be at least one client, and one request",
        ));
    }
    let report = if options.workload == Workload::Disk {
        measure_disk(options)?
    } else {
        let mut config = connect::config(global)?;
        config.learn_members = false;
        measure_cluster(options, config).await?
    };
    let document = serde_json::to_value(&report).map_err(Failure::configuration)?;
    out.print(report.to_text().trim_end(), &document)
}

fn measure_disk(options: &Bench) -> Result<BenchReport, Failure> {
    let duration = Duration::from_secs(options.seconds);
    let latency = machine::disk(&options.folder, duration)
        .map_err(|error| Failure::file(&options.folder, &error))?;
    let measured = Measured {
        operations: latency.len(),
        errors: 0,
        first_error: None,
        elapsed: duration,
        latency,
    };
    Ok(report(options, 0, &measured, Vec::new()))
}

async fn measure_cluster(options: &Bench, config: ClientConfig) -> Result<BenchReport, Failure> {
    let connections = options.connections.unwrap_or(options.clients.min(8)).max(1);
    let (clients, sessions) = connect(config.clone(), connections, options.clients).await?;
    let run = Run {
        root: format!("/bench-{}", std::process::id()),
        sessions,
    };
    run.prepare(options).await?;
    let large = match (options.workload, run.sessions.first()) {
        (Workload::Replan, Some(admin)) => Some(Large::begin(options, &config, admin).await?),
        _ => None,
    };
    let before: Vec<Usage> = options.processes.iter().map(|id| Usage::of(*id)).collect();
    let began = Instant::now();
    let measured = run.measure(options).await;
    let elapsed = began.elapsed();
    let used = options
        .processes
        .iter()
        .zip(before)
        .map(|(id, before)| Usage::of(*id).since(before, *id, elapsed))
        .collect();
    let mut report = report(options, connections, &measured, used);
    if let Some(large) = large {
        report.replan = Some(run.replan(options, large, report.latency.as_ref()).await?);
    }
    run.finish(options).await;
    for client in clients {
        client.close().await;
    }
    Ok(report)
}

fn report(
    options: &Bench,
    connections: usize,
    measured: &Measured,
    processes: Vec<Used>,
) -> BenchReport {
    let seconds = measured.elapsed.as_secs_f64();
    BenchReport {
        workload: options
            .workload
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned()),
        clients: options.clients,
        connections,
        pipeline: options.pipeline,
        value_size: options.value_size,
        operations: measured.operations,
        errors: measured.errors,
        first_error: measured.first_error.clone(),
        elapsed_seconds: seconds,
        per_second: measured.operations as f64 / seconds.max(f64::EPSILON),
        latency: latency(measured),
        processes,
        replan: None,
    }
}

fn latency(measured: &Measured) -> Option<Latency> {
    (!measured.latency.is_empty()).then(|| Latency::from(&measured.latency))
}

/// Opens `count` sessions over `connections` connections, turn by turn.
async fn connect(
    config: ClientConfig,
    connections: usize,
    count: usize,
) -> Result<(Vec<Client>, Vec<Session>), Failure> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(config.clone()).await?);
    }
    let mut sessions = Vec::with_capacity(count);
    for client in clients.iter().cycle().take(count) {
        sessions.push(client.open_session().await?);
    }
    Ok((clients, sessions))
}

/// One measurement's sessions, and the node below which it writes.
struct Run {
    root: String,
    sessions: Vec<Session>,
}

impl Run {
    async fn prepare(&self, options: &Bench) -> Result<(), Failure> {
        for (client, session) in self.sessions.iter().enumerate() {
            if client == 0 {
                session.create(&self.root, "", NodeKind::PERSISTENT).await?;
            }
            let value = vec![b'.'; options.value_size];
            session
                .create(&self.node(client), value, NodeKind::PERSISTENT)
                .await?;
        }
        Ok(())
    }

    fn node(&self, client: usize) -> String {
        format!("{}/{client}", self.root)
    }

    /// The same once more, while members of a large map go.
    async fn replan(
        &self,
        options: &Bench,
        mut large: Large,
        before: Option<&Latency>,
    ) -> Result<Replanned, Failure> {
        let duration = Duration::from_secs(options.seconds);
        let pause = Duration::from_secs_f64(options.loss_every);
        let (measured, lost) = tokio::join!(self.measure(options), large.lose(duration, pause));
        if let Some(error) = measured.first_error {
            return Err(Failure::configuration(error));
        }
        large
            .end(options, lost?, (before, latency(&measured)))
            .await
    }

    async fn measure(&self, options: &Bench) -> Measured {
        let duration = Duration::from_secs(options.seconds);
        let nodes: Vec<(Session, String)> = self
            .sessions
            .iter()
            .enumerate()
            .map(|(client, session)| (session.clone(), self.node(client)))
            .collect();
        let value = vec![b'x'; options.value_size];
        match options.workload {
            Workload::Write | Workload::Replan => {
                closed_loop(
                    nodes,
                    options.pipeline,
                    duration,
                    move |(session, path), _| {
                        let value = value.clone();
                        async move { session.set(&path, value, None).await.map(|_| ()) }
                    },
                )
                .await
            }
            Workload::Read => {
                closed_loop(
                    nodes,
                    options.pipeline,
                    duration,
                    |(session, path), _| async move { session.get(&path).await.map(|_| ()) },
                )
                .await
            }
            Workload::Lock => {
                let mount = options.locks.clone();
                closed_loop(
                    nodes,
                    options.pipeline,
                    duration,
                    move |(session, _), lane| {
                        let lock = Lock::new(&session, &mount, &format!("bench-{lane}"));
                        async move { lock.acquire().await?.release().await }
                    },
                )
                .await
            }
            Workload::Counter => {
                let mount = options.counter.clone();
                closed_loop(nodes, options.pipeline, duration, move |(session, _), _| {
                    let counter = Counter::new(&session, &mount);
                    async move { counter.add(1).await.map(|_| ()) }
                })
                .await
            }
            Workload::Load | Workload::Disk => self.load(options).await,
        }
    }

    /// Creates the nodes below one parent for each 1,000, as applications have them.
    async fn load(&self, options: &Bench) -> Measured {
        let began = Instant::now();
        let lanes = self.sessions.len() * options.pipeline;
        let mut tasks = Vec::with_capacity(lanes);
        for lane in 0..lanes {
            let Some(session) = self.sessions.get(lane % self.sessions.len()).cloned() else {
                continue;
            };
            let (root, nodes, size) = (self.root.clone(), options.nodes, options.value_size);
            tasks.push(tokio::spawn(async move {
                let groups = (0..nodes.div_ceil(GROUP)).skip(lane).step_by(lanes);
                load_groups(&session, &root, groups, nodes, size).await
            }));
        }
        let mut measured = Measured {
            operations: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            latency: drive::new_histogram(),
        };
        for task in tasks {
            match task.await {
                Ok(Ok(created)) => measured.operations += created,
                Ok(Err(error)) => {
                    measured.errors += 1;
                    measured.first_error.get_or_insert(error.to_string());
                }
                Err(_) => measured.errors += 1,
            }
        }
        measured.elapsed = began.elapsed();
        measured
    }

    async fn finish(&self, options: &Bench) {
        if options.workload != Workload::Load {
            for (client, session) in self.sessions.iter().enumerate() {
                // Nodes that stay behind do no harm; the next run has others.
                let _ = session.delete(&self.node(client), None).await;
            }
        }
        for session in &self.sessions {
            let _ = session.close().await;
        }
    }
}

/// Nodes below one parent in `load`.
const GROUP: usize = 1000;

async fn load_groups(
    session: &Session,
    root: &str,
    groups: impl Iterator<Item = usize>,
    nodes: usize,
    size: usize,
) -> Result<u64, WriteError> {
    let mut created = 0;
    for group in groups {
        let parent = format!("{root}/group-{group:06}");
        match session.create(&parent, "", NodeKind::PERSISTENT).await {
            Ok(_) | Err(WriteError::Refused(Refusal::NodeExists { .. })) => {}
            Err(error) => return Err(error),
        }
        for node in (group * GROUP..nodes).take(GROUP) {
            let path = format!("{parent}/node-{node:08}");
            session
                .create(&path, vec![b'v'; size], NodeKind::PERSISTENT)
                .await?;
            created += 1;
        }
    }
    Ok(created)
}
