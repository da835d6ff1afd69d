//! `folkmoot`: one command for server, operator, user and plugin author.

mod args;
mod bench;
mod cluster;
mod connect;
mod detector;
mod dev;
mod failure;
mod init;
mod lock;
mod member;
mod node;
mod output;
mod partition;
mod pki;
mod plugin;
mod server;
mod supervise;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use crate::args::{Cli, Cluster, Command, Format};
use crate::connect::{Interrupts, with_session};
use crate::failure::{CONFIGURATION, Failure};
use crate::output::{Output, note};
use crate::partition::args::Partition;

/// What one thread of a member makes, another lets go: the system's allocator spent a third of the
/// execution thread's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::CompileComponent {
        component,
        compiled,
    } = &cli.command
    {
        // Before anything has threads: it limits its own process.
        return folkmoot_host::compile::compile_main(component, compiled);
    }
    log_to_stderr(&cli);
    let format = cli.global.output;
    match beside_tasks(run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report(&failure, format);
            ExitCode::from(failure.exit)
        }
    }
}

/// Runs a command on this thread and the tasks that it starts on another, so that heartbeats go out
/// while nobody takes what is written, or a disk does not answer. Nothing is waited for at the end.
fn beside_tasks(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::new(CONFIGURATION, "runtime", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let handle = runtime.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let tasks = std::thread::Builder::new().name("tasks".to_owned());
    let tasks = tasks
        .spawn(move || {
            // It is never sent: the end is that the sender is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })
        .map_err(failed)?;
    let result = handle.block_on(command);
    drop(end);
    let _ = tasks.join();
    result
}

async fn run(cli: Cli) -> Result<u8, Failure> {
    let out = Output {
        format: cli.global.output,
    };
    let global = cli.global;
    match cli.command {
        Command::Init(arguments) => init::run(&arguments, out)?,
        Command::Server { config } => server::run(&config).await?,
        Command::Dev(arguments) => dev::run(arguments).await?,
        Command::Partition(Partition::Simulate(arguments)) => {
            partition::simulate(&arguments, out)?;
        }
        Command::Detector(detector::Detector::Simulate(arguments)) => {
            detector::simulate(&arguments, out)?;
        }
        Command::Detector(command) => {
            let body = async |session: &_| detector::operate(session, &global, command, out).await;
            with_session(&global, Interrupts::End, body).await?;
        }
        Command::Bench(arguments) => bench::run(&global, &arguments, out).await?,
        Command::Cluster(Cluster::Status) => cluster::status(&global, out).await?,
        Command::Lock(arguments) => {
            let patience = connect::patience(&global);
            let body = async |session: &_| lock::run(session, arguments, patience).await;
            return with_session(&global, Interrupts::AreTheBodys, body).await;
        }
        Command::Member(args::Member::Join(arguments)) => {
            let body = async |session: &_| member::join(session, arguments).await;
            return with_session(&global, Interrupts::AreTheBodys, body).await;
        }
        command => {
            let (input, patience) = (node::input(&command)?, connect::patience(&global));
            let body = async |session: &_| operate(session, command, input, patience, out).await;
            with_session(&global, Interrupts::End, body).await?;
        }
    }
    Ok(0)
}

/// The commands that ask one thing of a session.
async fn operate(
    session: &folkmoot_client::Session,
    command: Command,
    input: Vec<u8>,
    patience: Duration,
    out: Output,
) -> Result<(), Failure> {
    match command {
        Command::Get { path, read } => node::get(session, &path, read, out).await,
        Command::Set {
            path,
            expect,
            guards,
            value: _,
        } => node::set(session, &path, input, expect, &guards.guards, out).await,
        Command::Create(arguments) => node::create(session, arguments, input, out).await,
        Command::Delete {
            path,
            expect,
            guards,
        } => node::delete(session, &path, expect, &guards.guards, out).await,
        Command::Ls { path, read } => node::list(session, &path, read, out).await,
        Command::Stat { path, read } => node::stat(session, &path, read, out).await,
        Command::Watch(arguments) => watch::run(session, arguments, out).await,
        Command::Call {
            mount,
            operation,
            guards,
            payload: _,
        } => {
            let call = (mount.as_str(), operation.as_str());
            node::call(session, call, input, &guards.guards, patience, out).await
        }
        Command::Plugin(command) => plugin::plugin(session, command, out).await,
        Command::Mount(command) => plugin::mount(session, command, out).await,
        Command::Member(command) => member::operate(session, command, out).await,
        Command::Partition(command) => partition::operate(session, command, out).await,
        Command::Init(_)
        | Command::Bench(_)
        | Command::Server { .. }
        | Command::Dev(_)
        | Command::Lock(_)
        | Command::Detector(_)
        | Command::Cluster(_)
        | Command::CompileComponent { .. } => Ok(()),
    }
}

fn report(failure: &Failure, format: Format) {
    if failure.message.is_empty() {
        return;
    }
    match format {
        Format::Text => note(format!("folkmoot: {}", failure.message)),
        Format::Json => {
            note(
                json!({ "error": failure.code, "message": failure.message, "exit": failure.exit }),
            );
        }
    }
}

fn log_to_stderr(cli: &Cli) {
    let serves = matches!(cli.command, Command::Server { .. } | Command::Dev(_));
    let level = match cli.global.verbose {
        0 if serves => "warn,folkmoot=info",
        0 => "off",
        1 => "warn,folkmoot=info,folkmoot_client=debug,folkmoot_server=debug",
        _ => "debug,quinn=info,quinn_proto=info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("FOLKMOOT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
