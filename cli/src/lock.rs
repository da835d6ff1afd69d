//! `lock`: runs a command while a lock is held.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use folkmoot_client::{LockError, LockGuard, Session};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args;
use crate::connect::{interrupt, patiently};
use crate::failure::{CONFIGURATION, Failure, NO_LOCK, REFUSED};
use crate::output::note;

/// Signals that are passed on to the command; the last one after a fashion.
const PASSED_ON: [Signal; 5] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::TSTP,
];

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
        return Err(Failure::new(NO_LOCK, "held", text));
    };
    let mut signals = Signals::listen()?;
    let mut command = Command::spawn(&arguments.command, &guard)?;
    match command.attend(&mut signals, &guard).await? {
        Some(status) => {
            if let Err(error) = guard.release().await {
                note(format!(
                    "the lock was not released, it goes with the session: {error}"
                ));
            }
            Ok(exit_code(status))
        }
        None => {
            note(format!(
                "the lock is in jeopardy ({:?}): the command is being stopped",
                session.standing()
            ));
            let grace = Duration::from_secs_f64(arguments.grace);
            command.stop(&guard, grace).await;
            // Nobody may be there to hear of a release, so it is not waited for.
            drop(guard);
            let text = "the lock was lost, and the command was stopped";
            Err(Failure::new(NO_LOCK, "lock-lost", text))
        }
    }
}

/// The command that runs while the lock is held.
struct Command {
    child: Child,
    id: Pid,
    /// Whether it has a process group of its own. A command at a terminal shares this process's: it
    /// could not read from the terminal otherwise, and the terminal's signals reach it by themselves.
    own_group: bool,
}

impl Command {
    fn spawn(words: &[OsString], guard: &LockGuard) -> Result<Self, Failure> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::configuration("no command"));
        };
        let own_group = !std::io::stdin().is_terminal();
        let of = guard.guard();
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .env("FOLKMOOT_FENCING_TOKEN", of.token.to_string())
            .env("FOLKMOOT_GUARD", format!("{}={}", of.path, of.token));
        if own_group {
            command.process_group(0);
        }
        die_with_this_process(&mut command);
        let failed = |error: std::io::Error| {
            let exit = match error.kind() {
                std::io::ErrorKind::NotFound => 127,
                _ => 126,
            };
            Failure::new(exit, "command", format!("{}: {error}", program.display()))
        };
        let child = command.spawn().map_err(failed)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id.and_then(Pid::from_raw) else {
            return Err(Failure::new(REFUSED, "command", "it has no process id"));
        };
        Ok(Self {
            child,
            id,
            own_group,
        })
    }

    /// Waits for the command's end, and passes signals on meanwhile; none if the lock may be lost
    /// before.
    async fn attend(
        &mut self,
        signals: &mut Signals,
        guard: &LockGuard,
    ) -> Result<Option<ExitStatus>, Failure> {
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    let failed = |error| Failure::new(REFUSED, "command", error);
                    return status.map(Some).map_err(failed);
                }
                () = guard.jeopardy() => return Ok(None),
                Some(signal) = signals.received.recv() => match signal {
                    Signal::TSTP => {
                        self.pause_both();
                        if !guard.is_safe() {
                            return Ok(None);
                        }
                        self.send(Signal::CONT);
                    }
                    // A terminal has sent these to the command as well.
                    Signal::INT | Signal::QUIT if !self.own_group => {}
                    signal => self.tell(signal),
                }
            }
        }
    }

    /// Stops the command and then this process, which renews no lease meanwhile; returns when this
    /// process goes on.
    fn pause_both(&self) {
        self.send(Signal::STOP);
        let _ = kill_process(getpid(), Signal::STOP);
    }

    /// Ends the command before the lock can be another's.
    async fn stop(&mut self, guard: &LockGuard, grace: Duration) {
        self.tell(Signal::TERM);
        tokio::select! {
            _ = self.child.wait() => {}
            () = tokio::time::sleep(grace) => self.send(Signal::KILL),
            () = guard.lost() => self.send(Signal::KILL),
        }
        let _ = self.child.wait().await;
        if self.own_group {
            // What the command left running in its group must not go on either.
            self.send(Signal::KILL);
        }
    }

    /// Sends a signal, and sees to it that a command that is paused takes it.
    fn tell(&self, signal: Signal) {
        self.send(signal);
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        // Who is gone needs no signal.
        let _ = match self.own_group {
            true => kill_process_group(self.id, signal),
            false => kill_process(self.id, signal),
        };
    }
}

/// A command whose `folkmoot lock` was killed must not run on: nobody renews its lock.
fn die_with_this_process(command: &mut tokio::process::Command) {
    let this = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() == Some(this) {
            Ok(())
        } else {
            // It was killed before that call.
            Err(rustix::io::Errno::SRCH.into())
        }
    };
    #[allow(
        unsafe_code,
        reason = "what runs between fork and exec can not be checked by the compiler"
    )]
    // SAFETY: it makes two system calls and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(before_exec);
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
