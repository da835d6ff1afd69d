//! `folkmoot-sim`: runs the simulator from the command line.

#[cfg(feature = "mutants")]
mod mutants;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use folkmoot_sim::{Layers, Options, Report, Seen, run_seed, run_seeds};

/// Deterministic simulation of whole Folkmoot clusters.
#[derive(Parser)]
#[command(name = "folkmoot-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds and count what happened.
    Run {
        /// The seeds: `A..B`, without B.
        #[arg(long, default_value = "0..100", value_parser = parse_range)]
        seeds: std::ops::Range<u64>,
        /// Threads; 0 for one a core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Go on after a failure.
        #[arg(long)]
        keep_going: bool,
        #[command(flatten)]
        world: WorldArguments,
    },
    /// Run one seed and print its trace hash.
    Seed {
        /// The seed.
        seed: u64,
        /// Print what happens.
        #[arg(long)]
        verbose: bool,
        #[command(flatten)]
        world: WorldArguments,
    },
    /// Run seeds twice each: the same seed must give the same trace hash.
    Meta {
        /// The seeds: `A..B`, without B.
        #[arg(long, default_value = "0..10", value_parser = parse_range)]
        seeds: std::ops::Range<u64>,
        #[command(flatten)]
        world: WorldArguments,
    },
    /// Says what a large partition map costs a leader, on the clock of this machine.
    Scale {
        /// Members of the group.
        #[arg(long, default_value_t = 1000)]
        members: u32,
        /// Partitions of its map.
        #[arg(long, default_value_t = 100_000)]
        partitions: u32,
        /// Clients that route by it.
        #[arg(long, default_value_t = 10_000)]
        routers: u32,
    },
    /// Takes each rule out once, looks for the seed that finds it, and writes `docs/mutants.md`.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Only in this process, and only this one.
        #[arg(long)]
        mutation: Option<String>,
        /// Only these; the page is not written then.
        names: Vec<String>,
    },
}

#[derive(Args, Clone, Copy)]
struct WorldArguments {
    /// Simulated seconds of each world.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which parts of a member are the kernel's own.
    #[arg(long, value_enum, default_value_t = LayersArgument::Whole)]
    layers: LayersArgument,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LayersArgument {
    /// Consensus alone.
    Consensus,
    /// Consensus and the log on a simulated disk.
    Log,
    /// All of it.
    Whole,
}

impl WorldArguments {
    fn options(self, verbose: bool) -> Options {
        Options {
            seconds: self.seconds,
            layers: match self.layers {
                LayersArgument::Consensus => Layers::Consensus,
                LayersArgument::Log => Layers::Log,
                LayersArgument::Whole => Layers::Whole,
            },
            verbose,
            guests: None,
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run {
            seeds,
            threads,
            keep_going,
            world,
        } => run(seeds, threads, keep_going, &world.options(false)),
        Command::Scale {
            members,
            partitions,
            routers,
        } => match folkmoot_sim::scenarios::scale(members, partitions, routers) {
            Ok(said) => {
                print!("{said}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        },
        Command::Seed {
            seed,
            verbose,
            world,
        } => one(seed, &world.options(verbose)),
        Command::Meta { seeds, world } => meta(seeds, &world.options(false)),
        #[cfg(feature = "mutants")]
        Command::Mutants { mutation, names } => match mutation {
            Some(name) => mutants::one(&name),
            None => mutants::all(&names),
        },
    }
}

fn run(
    seeds: std::ops::Range<u64>,
    threads: usize,
    keep_going: bool,
    options: &Options,
) -> ExitCode {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let started = Instant::now();
    let total = seeds.end.saturating_sub(seeds.start);
    let mut seen = Seen::default();
    let (mut done, mut failures) = (0_u64, 0_u64);
    run_seeds(seeds, options, threads, |report| {
        done += 1;
        seen.add(&report.seen);
        eprint!("\r{done} of {total} worlds, {failures} failed ");
        let _ = std::io::stderr().flush();
        if report.violation.is_some() {
            failures += 1;
            tell_failure(&report, options);
        }
        keep_going || failures == 0
    });
    let elapsed = started.elapsed().as_secs_f64();
    eprintln!();
    print!("{seen}");
    println!(
        "{done} worlds of {} s in {elapsed:.1} s ({:.1} a second), {failures} failed",
        options.seconds,
        done as f64 / elapsed
    );
    exit(failures == 0)
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let report = run_seed(seed, options);
    print!("{}", report.seen);
    println!(
        "seed {seed}: {} events, trace hash {:016x}",
        report.events, report.trace_hash
    );
    if report.violation.is_some() {
        tell_failure(&report, options);
    }
    exit(report.violation.is_none())
}

fn meta(seeds: std::ops::Range<u64>, options: &Options) -> ExitCode {
    let mut same = true;
    for seed in seeds {
        let (first, second) = (run_seed(seed, options), run_seed(seed, options));
        println!(
            "seed {seed}: {:016x} {:016x}",
            first.trace_hash, second.trace_hash
        );
        if first != second {
            same = false;
            eprintln!("seed {seed} went two ways: something in its world is not of the seed");
        }
    }
    exit(same)
}

fn tell_failure(report: &Report, options: &Options) {
    if let Some(violation) = &report.violation {
        eprintln!("\nseed {}: {violation}", report.seed);
        eprintln!(
            "reproduce: cargo xtask sim --seed {}{}",
            report.seed,
            arguments(options)
        );
    }
}

/// What must be said besides the seed to live the same world.
fn arguments(options: &Options) -> String {
    let mut text = String::new();
    if options.seconds != 60 {
        text.push_str(&format!(" --seconds {}", options.seconds));
    }
    match options.layers {
        Layers::Consensus => text.push_str(" --layers consensus"),
        Layers::Log => text.push_str(" --layers log"),
        Layers::Whole => {}
    }
    text
}

fn exit(success: bool) -> ExitCode {
    match success {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let malformed = || format!("{text:?} is not a range such as 0..100");
    let (from, to) = text.split_once("..").ok_or_else(malformed)?;
    let from = from.parse().map_err(|_| malformed())?;
    let to = to.parse().map_err(|_| malformed())?;
    Ok(from..to)
}
