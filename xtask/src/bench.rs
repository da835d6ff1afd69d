//! `cargo xtask bench`: three members with fsync on, clients attached to the leader, and ratios
//! within the run. Nothing here is a test: machines differ, and the figures say so.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use comfy_table::{Table, presets};
use indicatif::ProgressBar;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::{cargo, guests};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchOptions {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Nodes of 100 bytes for the measurement of memory and restart; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    nodes: u64,
    /// Where the members keep their data: a folder on the disk that is to be measured.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What `folkmoot bench --output json` prints, as far as it is used here.
#[derive(Deserialize)]
struct Measured {
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    per_second: f64,
    latency: Option<Latency>,
    processes: Vec<Process>,
    replan: Option<Replanned>,
}

#[derive(Deserialize)]
struct Replanned {
    p99_ratio: f64,
}

#[derive(Deserialize)]
struct Latency {
    p50: u64,
    p99: u64,
}

#[derive(Deserialize)]
struct Process {
    cores: f64,
    written_bytes: u64,
    resident_bytes: u64,
}

/// Runs of writes until segments are recycled; more are a defect.
const RECYCLING_RUNS_MAX: usize = 20;

/// Runs the benchmark.
pub(crate) fn run(options: &BenchOptions) -> Result<ExitCode> {
    let guests = guests::build_guests()?;
    let folkmoot = cargo::build_programs_optimised()?.join("folkmoot");
    let base = options.folder.clone().unwrap_or_else(cargo::target_dir);
    let folder = tempfile::Builder::new()
        .prefix("folkmoot-bench-")
        .tempdir_in(base)?;
    let mut bench = Bench::begin(folkmoot, folder.path(), options.seconds)?;
    bench.install_plugins(&guests)?;
    bench.replanning()?;
    // Its map of 100,000 partitions would count in what others write and take.
    bench.begin_anew()?;
    bench.install_plugins(&guests)?;
    bench.throughput()?;
    bench.disk_bytes()?;
    if options.nodes > 0 {
        bench.memory(options.nodes)?;
    }
    println!("{}\n{}", bench.figures, bench.ratios);
    println!(
        "Loads on 2-core machines differ by a quarter from hour to hour: compare ratios, not rates."
    );
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    folkmoot: PathBuf,
    folder: PathBuf,
    seconds: String,
    cluster: Cluster,
    leader: u64,
    progress: ProgressBar,
    figures: Table,
    ratios: Table,
}

impl Bench {
    fn begin(folkmoot: PathBuf, folder: &Path, seconds: u64) -> Result<Self> {
        let cluster = Cluster::start(&folkmoot, &folder.join("cluster"))?;
        let leader = cluster.wait_for_leader(3)?;
        let mut figures = Table::new();
        figures
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_header([
                "workload",
                "operations/s",
                "p50 µs",
                "p99 µs",
                "members' cores",
            ]);
        let mut ratios = Table::new();
        ratios
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_header(["ratio", "seen", "aim"]);
        let progress = ProgressBar::new_spinner();
        progress.enable_steady_tick(Duration::from_millis(200));
        let seconds = seconds.to_string();
        let folder = folder.to_path_buf();
        Ok(Self {
            folkmoot,
            folder,
            seconds,
            cluster,
            leader,
            progress,
            figures,
            ratios,
        })
    }

    /// Goes on with a cluster that has nothing yet.
    fn begin_anew(&mut self) -> Result<()> {
        self.cluster = Cluster::start(&self.folkmoot, &self.folder.join("another"))?;
        self.leader = self.cluster.wait_for_leader(3)?;
        Ok(())
    }

    fn install_plugins(&self, guests: &Path) -> Result<()> {
        for (name, mount) in [("lock", "/locks"), ("counter", "/counter")] {
            self.install(guests, name)?;
            self.cluster.folkmoot(&["mount", "add", mount, name])?;
        }
        self.install(&guests.join("policies"), "sticky-balanced")
    }

    fn install(&self, folder: &Path, name: &str) -> Result<()> {
        let component = folder.join(format!("{name}.wasm"));
        let component = component
            .to_str()
            .context("the path of a guest is not UTF-8")?;
        self.cluster
            .folkmoot(&["plugin", "install", component, "--name", name])?;
        Ok(())
    }

    /// Writes beside a map of 100,000 partitions, while members of its group go.
    fn replanning(&mut self) -> Result<()> {
        let rates = [
            (
                "4",
                "p99 of writes, while one of 1,000 × 100,000 goes : before",
                "≤ 2",
            ),
            ("1", "p99 of writes, while one a second does : before", ""),
        ];
        for (every, ratio, aim) in rates {
            let options = ["--clients", "8", "--loss-every", every];
            let measured = self.measure("replan", &options)?;
            let replan = measured.replan.context("nothing was planned anew")?;
            self.ratio(ratio, replan.p99_ratio, aim);
        }
        Ok(())
    }

    fn throughput(&mut self) -> Result<()> {
        let folder = self
            .folder
            .to_str()
            .context("the folder's path is not UTF-8")?
            .to_owned();
        let disk = self.measure("disk", &["--folder", &folder])?;
        let alone = self.measure("write", &[])?;
        let wide = self.measure("write", &["--clients", "64"])?;
        let many = self.measure("write", &["--clients", "64", "--pipeline", "16"])?;
        let plain = self.measure("write", &["--clients", "64", "--pipeline", "4"])?;
        let counter = self.measure("counter", &["--clients", "64", "--pipeline", "4"])?;
        let lock = self.measure("lock", &["--clients", "64"])?;
        let read = self.measure("read", &["--clients", "64", "--pipeline", "4"])?;
        let p50 = |measured: &Measured| {
            measured
                .latency
                .as_ref()
                .map_or(f64::NAN, |latency| latency.p50 as f64)
        };
        self.ratio(
            "writes, 64 × 16 : 1 × 1",
            many.per_second / alone.per_second,
            "≥ 40",
        );
        self.ratio(
            "writes, 64 × 1 : 1 × 1",
            wide.per_second / alone.per_second,
            "",
        );
        self.ratio(
            "p50 of a write at 1 × 1 : of an fdatasync",
            p50(&alone) / p50(&disk),
            "≤ 4",
        );
        self.ratio(
            "lock pairs of 64 contenders : writes at 1 × 1",
            lock.per_second / alone.per_second,
            "≥ 0.65",
        );
        self.ratio(
            "counter, 64 × 4 : writes, 64 × 4",
            counter.per_second / plain.per_second,
            "≥ 0.5",
        );
        self.ratio(
            "local reads : writes, 64 × 4",
            read.per_second / plain.per_second,
            "",
        );
        Ok(())
    }

    /// A new segment is zeroed once, which costs as much as filling it; then segments are recycled.
    /// A cluster that runs is in that state, so it is what is measured: after runs until no member's
    /// log has made a file.
    fn disk_bytes(&mut self) -> Result<()> {
        let options = ["--clients", "8", "--pipeline", "32"];
        for _ in 0..RECYCLING_RUNS_MAX {
            let files = self.cluster.log_files()?;
            let measured = self.measure("write", &options)?;
            if self.cluster.log_files()? == files {
                let written: u64 = measured
                    .processes
                    .iter()
                    .map(|process| process.written_bytes)
                    .sum();
                let each = written as f64 / measured.operations.max(1) as f64;
                self.ratio(
                    "bytes to disk a write of 128 B, 8 × 32, three members",
                    each,
                    "≤ 750",
                );
                return Ok(());
            }
        }
        bail!("the log still made new segments after {RECYCLING_RUNS_MAX} runs")
    }

    fn memory(&mut self, nodes: u64) -> Result<()> {
        let nodes_text = nodes.to_string();
        let loaded = self.measure(
            "load",
            &[
                "--clients",
                "8",
                "--pipeline",
                "64",
                "--value-size",
                "100",
                "--nodes",
                &nodes_text,
            ],
        )?;
        ensure!(
            loaded.operations == nodes,
            "{} of {nodes} nodes were created",
            loaded.operations
        );
        let mebibytes = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
        let largest = loaded
            .processes
            .iter()
            .map(|process| process.resident_bytes)
            .max()
            .unwrap_or(0);
        self.ratio(
            &format!("MiB resident after loading {nodes} nodes of 100 B (largest member)"),
            mebibytes(largest),
            "≤ 350 for 1,000,000",
        );
        let (zxid, _) = self.cluster.wait_for_agreement()?;
        let follower = (1..=3).find(|member| *member != self.leader).unwrap_or(1);
        self.cluster.kill_member(follower)?;
        let began = Instant::now();
        self.cluster.start_member(follower)?;
        self.cluster.wait_for("the restarted member", |statuses| {
            let back = statuses.iter().find(|status| status.member == follower)?;
            (back.applied_zxid >= zxid).then_some(())
        })?;
        self.ratio(
            "seconds until it is back after kill -9",
            began.elapsed().as_secs_f64(),
            "≤ 3",
        );
        let resident = self.cluster.process_id(follower).map_or(0, resident_bytes);
        self.ratio(
            "MiB resident after that restart",
            mebibytes(resident),
            "≤ 350 for 1,000,000",
        );
        Ok(())
    }

    /// Runs `folkmoot bench WORKLOAD …` against the leader and adds a line to the figures.
    fn measure(&mut self, workload: &str, options: &[&str]) -> Result<Measured> {
        let name = format!("{workload} {}", options.join(" ").replace("--", ""));
        self.progress.set_message(name.clone());
        let processes: Vec<_> = (1..=3)
            .filter_map(|member| self.cluster.process_id(member))
            .collect();
        let processes = processes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let output = self
            .cluster
            .client(&self.folkmoot, self.leader)
            .env("FOLKMOOT_ENDPOINTS", self.cluster.endpoint(self.leader)?)
            .args([
                "bench",
                workload,
                "--output",
                "json",
                "--seconds",
                &self.seconds,
            ])
            .args(["--processes", &processes])
            .args(options)
            .stdin(Stdio::null())
            .output()
            .context("folkmoot bench did not start")?;
        if !output.status.success() {
            bail!(
                "folkmoot bench {name} failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let measured: Measured = serde_json::from_slice(&output.stdout)?;
        if let Some(error) = &measured.first_error {
            bail!(
                "{} operations of {name} failed; the first: {error}",
                measured.errors
            );
        }
        let latency = |pick: fn(&Latency) -> u64| {
            measured
                .latency
                .as_ref()
                .map_or_else(String::new, |latency| pick(latency).to_string())
        };
        let cores: f64 = measured.processes.iter().map(|process| process.cores).sum();
        self.figures.add_row([
            name,
            format!("{:.0}", measured.per_second),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            format!("{cores:.2}"),
        ]);
        Ok(measured)
    }

    fn ratio(&mut self, name: &str, seen: f64, aim: &str) {
        self.progress.println(format!("{name}: {seen:.2} {aim}"));
        self.ratios
            .add_row([name.to_owned(), format!("{seen:.2}"), aim.to_owned()]);
    }
}

/// Resident memory of a process on this machine.
fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kibibytes: u64| kibibytes * 1024)
}
