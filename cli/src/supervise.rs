//! A command that runs while something is held: a lock, or a membership.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{CONFIGURATION, Failure, REFUSED};

/// Signals that are passed on to the command; the last one after a fashion.
const PASSED_ON: [Signal; 5] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::TSTP,
];

/// The command that runs while something is held.
pub(crate) struct Command {
    child: Child,
    id: Pid,
    /// Whether it has a process group of its own. A command at a terminal shares this process's: it
    /// could not read from the terminal otherwise, and the terminal's signals reach it by themselves.
    own_group: bool,
}

impl Command {
    /// Starts it with these variables in its environment.
    pub(crate) fn spawn(words: &[OsString], variables: &[(&str, String)]) -> Result<Self, Failure> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::configuration("no command"));
        };
        let own_group = !std::io::stdin().is_terminal();
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)));
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

    /// Waits for the command's end, and passes signals on meanwhile; none if what is held may be
    /// lost before: `lost` comes, or it is not held any more after a pause.
    pub(crate) async fn attend(
        &mut self,
        signals: &mut Signals,
        lost: impl Future<Output = ()>,
        is_held: impl Fn() -> bool,
    ) -> Result<Option<ExitStatus>, Failure> {
        let mut lost = std::pin::pin!(lost);
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    let failed = |error| Failure::new(REFUSED, "command", error);
                    return status.map(Some).map_err(failed);
                }
                () = &mut lost => return Ok(None),
                Some(signal) = signals.received.recv() => match signal {
                    Signal::TSTP => {
                        self.pause_both();
                        if !is_held() {
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

    /// Ends the command after the grace, or when `lost` comes.
    pub(crate) async fn stop(&mut self, lost: impl Future<Output = ()>, grace: Duration) {
        self.tell(Signal::TERM);
        tokio::select! {
            _ = self.child.wait() => {}
            () = tokio::time::sleep(grace) => self.send(Signal::KILL),
            () = lost => self.send(Signal::KILL),
        }
        let _ = self.child.wait().await;
        // What the command left running in its group must not go on either.
        self.reap_group();
    }

    /// Ends what the command left running in its process group.
    pub(crate) fn reap_group(&self) {
        if self.own_group {
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

/// A command whose `folkmoot` was killed must not run on: nobody renews what it holds.
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
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(REFUSED)
}

/// Signals to this process, while the command runs.
pub(crate) struct Signals {
    received: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// From now on they are held for the command.
    pub(crate) fn listen() -> Result<Self, Failure> {
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
