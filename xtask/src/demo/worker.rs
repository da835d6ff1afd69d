//! The worker processes, and what they report: one JSON object a line on standard output.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;

/// A worker process; it ends with this.
pub(crate) struct Worker {
    pub(crate) name: String,
    process: Child,
    reader: Option<JoinHandle<()>>,
}

/// What a worker that contends for the lock did.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Happened {
    /// It has a session.
    Ready,
    /// It was granted the lock.
    Acquired { token: u64 },
    /// Its guarded write took effect.
    Wrote,
    /// It is about to add 1 to the counter.
    Adding,
    /// Its addition was acknowledged.
    Added,
    /// Its addition was refused, and so it had no effect.
    AddRefused,
    /// It gave the lock back.
    Released,
    /// It was told that it may lose its session.
    Jeopardy,
    /// Its session is gone, and with it the lock.
    SessionLost,
    /// It wrote through a fresh session with the token of a lost grant, and was refused.
    StaleRefused { token: u64 },
    /// It wrote through a fresh session with the token of a lost grant, and was not refused.
    StaleAccepted { token: u64 },
    /// It ended as it was asked to.
    Finished,
}

/// One line of one worker.
pub(crate) struct Report<T = Happened> {
    pub(crate) worker: String,
    pub(crate) at: Instant,
    pub(crate) happened: T,
}

impl Worker {
    /// Starts a worker that is attached to member `member` first.
    pub(crate) fn start<T: DeserializeOwned + Send + 'static>(
        cluster: &Cluster,
        (program, arguments): (&Path, &[&str]),
        name: &str,
        member: u64,
        reports: Sender<Report<T>>,
    ) -> Result<Self> {
        let mut process = cluster
            .client(program, member)
            .args(["--name", name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} did not start", program.display()))?;
        let output = process
            .stdout
            .take()
            .context("the worker has no standard output")?;
        let worker = name.to_owned();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let at = Instant::now();
                let Ok(happened) = serde_json::from_str(&line) else {
                    eprintln!("{worker}: {line}");
                    continue;
                };
                if reports
                    .send(Report {
                        worker: worker.clone(),
                        at,
                        happened,
                    })
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            process,
            reader: Some(reader),
        })
    }

    /// Kills it with -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Stops it as SIGSTOP does.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// Asks it to end, by closing its standard input, and waits until it has.
    pub(crate) fn finish(&mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let id = i32::try_from(self.process.id())?;
        let id = rustix::process::Pid::from_raw(id).context("a process id is not 0")?;
        Ok(rustix::process::kill_process(id, signal)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
