//! Examines and compiles components off the hot path, one after the other on a thread of its own.
//!
//! What fails for a reason of this machine, such as a full disk or a child process that was killed,
//! says nothing of the component and is tried again, after pauses that grow. A verdict about the
//! component is final.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use folkmoot_proto::Digest;

use crate::STACK_BYTES_MIN;
use crate::compile::CompileError;
use crate::components::Components;
use crate::examine::{ExamineError, Manifest};

/// The stack of the thread, which calls `describe`: twice what a guest needs.
const STACK_BYTES: usize = 2 * STACK_BYTES_MIN;

/// How long an examination is tried: as long as its installation may wait for it.
const EXAMINATION: Duration = Duration::from_secs(300);

/// How attempts are spaced.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// After the first one that fails; twice as long after each further one.
    pub pause: Duration,
    /// At most.
    pub pause_max: Duration,
}

impl Default for Retries {
    /// A second at first, for a child that was killed by chance; 5 minutes at most, for a disk that
    /// is full until someone comes.
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(300),
        }
    }
}

/// What the service has done.
#[derive(Debug)]
pub enum Completion {
    /// A component was examined. If it can be a plugin it is compiled, too. Execution's
    /// `handle_examined` takes the manifest's `json`, or the error as text. An error of the machine
    /// is told once it has lasted for 5 minutes.
    Examined {
        /// The component.
        digest: Digest,
        /// What it says of itself, or why it can not be a plugin here.
        result: Result<Manifest, ExamineError>,
    },
    /// A component was compiled ahead and can be called, or why it never can be.
    Compiled {
        /// The component.
        digest: Digest,
        /// Why not.
        result: Result<(), CompileError>,
    },
}

/// Examines and compiles. Dropping it stops what it is at and waits for its thread.
#[derive(Debug)]
pub struct PluginService {
    jobs: Option<Sender<Job>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
enum Job {
    Examine {
        digest: Digest,
        bytes: Bytes,
        until: Instant,
    },
    Compile {
        digest: Digest,
        bytes: Bytes,
    },
    Forget {
        digest: Digest,
    },
}

impl Job {
    fn digest(&self) -> Digest {
        match self {
            Self::Examine { digest, .. }
            | Self::Compile { digest, .. }
            | Self::Forget { digest } => *digest,
        }
    }
}

impl PluginService {
    /// Starts the thread. `on_done` is called on it with each completion, in the order of the
    /// submissions, save what is tried again; `component_bytes_max` is the cluster's limit.
    ///
    /// # Errors
    ///
    /// The thread can not be started.
    pub fn start(
        components: Arc<Components>,
        component_bytes_max: usize,
        retries: Retries,
        on_done: impl Fn(Completion) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            components,
            component_bytes_max,
            retries,
            waiting: Vec::new(),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("plugin-compiler".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run(&queue, &on_done))?;
        Ok(Self {
            jobs: Some(jobs),
            stop,
            thread: Some(thread),
        })
    }

    /// Has a component examined, and compiled if it can be a plugin.
    pub fn submit_examine(&self, digest: Digest, bytes: Bytes) {
        let until = Instant::now() + EXAMINATION;
        self.submit(Job::Examine {
            digest,
            bytes,
            until,
        });
    }

    /// Has a component compiled ahead.
    pub fn submit_compile(&self, digest: Digest, bytes: Bytes) {
        self.submit(Job::Compile { digest, bytes });
    }

    /// Has a component forgotten, in memory and on disk. There is no completion.
    pub fn submit_forget(&self, digest: Digest) {
        self.submit(Job::Forget { digest });
    }

    fn submit(&self, job: Job) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        assert!(
            matches!(sent, Some(Ok(()))),
            "the thread takes jobs until the service is dropped: it has panicked"
        );
    }
}

impl Drop for PluginService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that compiles components has panicked");
        }
    }
}

struct Worker {
    components: Arc<Components>,
    component_bytes_max: usize,
    retries: Retries,
    /// What is tried again, at most one attempt for each component.
    waiting: Vec<Waiting>,
    stop: Arc<AtomicBool>,
}

/// A job whose last attempt failed for a reason of the machine.
struct Waiting {
    job: Job,
    due: Instant,
    pause: Duration,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>, on_done: &dyn Fn(Completion)) {
        while let Some((job, pause)) = self.next(queue) {
            if let Some(completion) = self.attempt(job, pause) {
                on_done(completion);
            }
        }
    }

    /// The next job, and how long it waits if it fails; none once the service stops.
    fn next(&mut self, queue: &Receiver<Job>) -> Option<(Job, Duration)> {
        let due = self.waiting.iter().map(|waiting| waiting.due).min();
        let job = match due {
            Some(due) => queue.recv_deadline(due),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let next = match job {
            Ok(job) => {
                // It takes the place of what waits, and forgetting a component ends all attempts.
                self.waiting
                    .retain(|waiting| waiting.job.digest() != job.digest());
                Some((job, self.retries.pause))
            }
            Err(RecvTimeoutError::Timeout) => {
                let at = self.waiting.iter().position(|of| Some(of.due) == due)?;
                let waiting = self.waiting.swap_remove(at);
                let pause = (waiting.pause * 2).min(self.retries.pause_max);
                Some((waiting.job, pause))
            }
            Err(RecvTimeoutError::Disconnected) => None,
        };
        next.filter(|_| !self.stop.load(Ordering::Relaxed))
    }

    /// None if nothing is to be told: of what was forgotten, and of what will be tried again.
    fn attempt(&mut self, job: Job, pause: Duration) -> Option<Completion> {
        let stop = || self.stop.load(Ordering::Relaxed);
        match &job {
            Job::Examine {
                digest,
                bytes,
                until,
            } => {
                let (digest, until) = (*digest, *until);
                let limit = self.component_bytes_max;
                let result = self.components.examine(digest, bytes, limit, &stop);
                match result {
                    Err(error) if error.is_of_the_machine() && Instant::now() < until => {
                        self.try_again(job, pause, &error);
                        None
                    }
                    result => Some(Completion::Examined { digest, result }),
                }
            }
            Job::Compile { digest, bytes } => {
                let digest = *digest;
                match self.components.prepare(digest, bytes, &stop) {
                    Err(error) if error.is_of_the_machine() => {
                        self.try_again(job, pause, &error);
                        None
                    }
                    result => Some(Completion::Compiled {
                        digest,
                        result: result.map(|_| ()),
                    }),
                }
            }
            Job::Forget { digest } => {
                self.components.forget(*digest);
                None
            }
        }
    }

    fn try_again(&mut self, job: Job, pause: Duration, error: &dyn core::fmt::Display) {
        let digest = job.digest();
        tracing::warn!(%digest, %error, ?pause, "a component is compiled again after a pause");
        self.waiting.push(Waiting {
            job,
            due: Instant::now() + pause,
            pause,
        });
    }
}
