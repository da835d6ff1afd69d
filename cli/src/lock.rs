//! `lock`: runs a command while a lock is held.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use folkmoot_client::{LockError, LockGuard, Session, Standing};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args;
use crate::connect::{interrupt, patiently};
use crate::failure::{CONFIGURATION, Failure, LOCK_LOST, REFUSED};
use crate::output::note;

/// Signals that are passed on to the command.
const PASSED_ON: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Runs the command, and gives its exit code.
pub(crate) async fn run(
    session: &Session,
    arguments: args::Lock,
    patience: Duration,
) -> Result<u8, Failure> {
    let Some((mount, name)) = arguments
        .lock
        .rsplit_once('/')
        .filter(|(mount, _)| !mount.is_empty())
    else {
        let text = format!("{:?} is not of the form MOUNT/NAME", arguments.lock);
        return Err(Failure::configuration(text));
    };
    let lock = folkmoot_client::Lock::new(session, mount, name);
    let acquire = async || match arguments.wait {
        None => lock.acquire().await.map(Some),
        Some(wait) => lock.acquire_within(Duration::from_secs_f64(wait)).await,
    };
    let guard = tokio::select! {
        guard = patiently(patience, LockError::is_retryable, acquire) => guard?,
        () = interrupt() => return Err(Failure::interrupted()),
    };
    let Some(guard) = guard else {
        let text = format!("{} is held by another", arguments.lock);
        return Err(Failure::new(REFUSED, "held", text));
    };
    let mut signals = Signals::listen()?;
    let mut child = spawn(&arguments.command, &guard)?;
    let grace = Duration::from_secs_f64(arguments.grace);
    let status = tokio::select! {
        status = attend(&mut child, &mut signals) => Some(status?),
        () = guard.jeopardy() => None,
    };
    let Some(status) = status else {
        let lost = stop(&mut child, &guard, grace, session.standing()).await;
        let _ = guard.release().await;
        return Err(lost);
    };
    if let Err(error) = guard.release().await {
        note(format!(
            "the lock was not released, it goes with the session: {error}"
        ));
    }
    Ok(exit_code(status))
}

fn spawn(command: &[OsString], guard: &LockGuard) -> Result<Child, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::configuration("no command"));
    };
    let of = guard.guard();
    Command::new(program)
        .args(arguments)
        .env("FOLKMOOT_FENCING_TOKEN", of.token.to_string())
        .env("FOLKMOOT_GUARD", format!("{}={}", of.path, of.token))
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let exit = if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            Failure::new(exit, "command", format!("{}: {error}", program.display()))
        })
}

/// Waits for the command's end, and passes signals on meanwhile.
async fn attend(child: &mut Child, signals: &mut Signals) -> Result<ExitStatus, Failure> {
    let group = child.id();
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map_err(|error| Failure::new(REFUSED, "command", error));
            }
            Some(signal) = signals.received.recv() => send(group, signal),
        }
    }
}

/// Stops the command before the lock can be another's.
async fn stop(
    child: &mut Child,
    guard: &LockGuard,
    grace: Duration,
    standing: Standing,
) -> Failure {
    note(format!(
        "the lock is in jeopardy ({standing:?}): the command is being stopped"
    ));
    let group = child.id();
    send(group, Signal::TERM);
    tokio::select! {
        _ = child.wait() => {}
        () = tokio::time::sleep(grace) => send(group, Signal::KILL),
        () = guard.lost() => send(group, Signal::KILL),
    }
    let _ = child.wait().await;
    // What the command left running in its group must not go on either.
    send(group, Signal::KILL);
    Failure::new(
        LOCK_LOST,
        "lock-lost",
        "the lock was lost, and the command was stopped",
    )
}

fn send(group: Option<u32>, signal: Signal) {
    let pid = group
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // A group that is gone needs no signal.
        let _ = kill_process_group(pid, signal);
    }
}

/// The code that shells give: the command's own, or 128 and the signal's number.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(REFUSED)
}

/// Signals to this process, while the command runs.
struct Signals {
    received: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let (sender, received) = mpsc::unbounded_channel();
        for passed_on in PASSED_ON {
            let mut stream = signal(SignalKind::from_raw(passed_on.as_raw()))
                .map_err(|error| Failure::new(CONFIGURATION, "signals", error))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(passed_on).is_ok() {}
            });
        }
        Ok(Self { received })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_a_signal_ended_has_the_code_that_shells_give() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
