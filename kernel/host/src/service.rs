//! Examines and compiles components off the hot path, one after the other on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use folkmoot_proto::Digest;

use crate::STACK_BYTES_MIN;
use crate::compile::CompileError;
use crate::components::Components;
use crate::examine::{ExamineError, Manifest};

/// The stack of the thread, which calls `describe`: twice what a guest needs.
const STACK_BYTES: usize = 2 * STACK_BYTES_MIN;

/// What the service has done.
#[derive(Debug)]
pub enum Completion {
    /// A component was examined. If it can be a plugin it is compiled, too. Execution's
    /// `handle_examined` takes the manifest's `json`, or the error as text.
    Examined {
        /// The component.
        digest: Digest,
        /// What it says of itself, or why it can not be a plugin here.
        result: Result<Manifest, ExamineError>,
    },
    /// A component was compiled ahead and can be called, or why not.
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

#[derive(Debug)]
enum Job {
    Examine { digest: Digest, bytes: Bytes },
    Compile { digest: Digest, bytes: Bytes },
    Forget { digest: Digest },
}

impl PluginService {
    /// Starts the thread. `on_done` is called on it with each completion, in the order of the
    /// submissions; `component_bytes_max` is the cluster's limit.
    ///
    /// # Errors
    ///
    /// The thread can not be started.
    pub fn start(
        components: Arc<Components>,
        component_bytes_max: usize,
        on_done: impl Fn(Completion) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            components,
            component_bytes_max,
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
        self.submit(Job::Examine { digest, bytes });
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
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, queue: &Receiver<Job>, on_done: &dyn Fn(Completion)) {
        let stop = || self.stop.load(Ordering::Relaxed);
        for job in queue {
            if stop() {
                return;
            }
            match job {
                Job::Examine { digest, bytes } => {
                    let limit = self.component_bytes_max;
                    let result = self.components.examine(digest, &bytes, limit, &stop);
                    on_done(Completion::Examined { digest, result });
                }
                Job::Compile { digest, bytes } => {
                    let result = self.components.prepare(digest, &bytes, &stop).map(|_| ());
                    on_done(Completion::Compiled { digest, result });
                }
                Job::Forget { digest } => self.components.forget(digest),
            }
        }
    }
}
