//! The project's own commands: `cargo xtask demo | test | dev | sim | mutants | bench | guests`.

mod bench;
mod cargo;
mod cluster;
mod demo;
mod guests;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job: three members on loopback, workers that contend for a lock, and faults.
    Demo(demo::DemoOptions),
    /// Runs everything that is tested.
    Test,
    /// Builds what is needed and starts `folkmoot dev` with the standard plugins.
    Dev {
        /// Passed on to `folkmoot dev`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs the simulator: one seed with `--seed N`, else what is passed on (`run --seeds A..B`).
    Sim {
        /// Runs one seed and prints its trace hash.
        #[arg(long)]
        seed: Option<u64>,
        /// Passed on to the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Takes each rule out once, looks for the seed that finds it, and writes `docs/mutants.md`.
    Mutants,
    /// Measures three members with fsync on, and prints ratios within the run.
    Bench(bench::BenchOptions),
    /// Builds the guests and encodes them as components in `target/guests`.
    Guests,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(options) => return demo::run(&options),
        Command::Test => {
            guests::build_guests()?;
            // The programs that tests start, with the features that the tests are built with.
            cargo::run(&["build", "--workspace", "--all-targets"])?;
            cargo::run(&["test", "--workspace"])?;
        }
        Command::Dev { arguments } => {
            let guests = guests::build_guests()?;
            let folkmoot = cargo::build_programs()?.join("folkmoot");
            return cargo::replace_with(&folkmoot, "dev", &guests, &arguments);
        }
        Command::Sim { seed, arguments } => {
            let mut command = vec!["run", "--quiet", "--package", "folkmoot-sim", "--"];
            let seed = seed.map(|seed| seed.to_string());
            if let Some(seed) = &seed {
                command.extend(["seed", seed]);
            }
            command.extend(arguments.iter().map(String::as_str));
            cargo::run(&command)?;
        }
        Command::Mutants => {
            let sim = [
                "run",
                "--quiet",
                "--package",
                "folkmoot-sim",
                "--features",
                "mutants",
            ];
            cargo::run(&[&sim[..], &["--", "mutants"]].concat())?;
        }
        Command::Bench(options) => return bench::run(&options),
        Command::Guests => {
            println!("{}", guests::build_guests()?.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
