//! How a thread ends the member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::RunError;

/// Why the member must end; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fatal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reason: Mutex<Option<RunError>>,
    reported: Notify,
    /// The threads were told to stop.
    stopping: AtomicBool,
}

impl Fatal {
    /// The member must end. The first report counts; a thread that found the others gone has none
    /// of its own, and gives way to one that has.
    pub(crate) fn report(&self, reason: RunError) {
        tracing::error!("{reason}");
        let mut first = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*first, None | Some(RunError::Ended { .. })) {
            *first = Some(reason);
        }
        drop(first);
        self.0.reported.notify_one();
    }

    /// The threads are told to stop: from here on their ends are no faults.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// What a member can not be without has ended: a fault, unless it was told to or another thread
    /// has said why.
    pub(crate) fn ended(&self, what: RunError) {
        let explained = self.0.stopping.load(Ordering::Relaxed)
            || self
                .0
                .reason
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some();
        if !explained {
            self.report(what);
        }
    }

    /// Waits for a report.
    pub(crate) async fn reported(&self) {
        self.0.reported.notified().await;
    }

    /// Takes what was reported.
    pub(crate) fn take(&self) -> Option<RunError> {
        self.0
            .reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Reports a panic of the thread that holds the guard, if it ends with one.
    pub(crate) fn guard(&self, thread: &'static str) -> PanicGuard {
        PanicGuard {
            fatal: self.clone(),
            thread,
        }
    }

    /// Spawns a task of the network thread whose panic ends the member: the runtime would keep it to
    /// itself, and the stream or the peer that the task served would stay silent for ever.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let guard = self.guard("network");
        tokio::spawn(async move {
            let _guard = guard;
            task.await
        })
    }
}

/// Lives as long as a thread or a task.
#[derive(Debug)]
pub(crate) struct PanicGuard {
    fatal: Fatal,
    thread: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fatal.report(RunError::Panicked {
                thread: self.thread,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(thread: &'static str) -> RunError {
        RunError::Ended { thread }
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_fault() {
        let fatal = Fatal::default();
        fatal.ended(ended("log"));
        assert!(matches!(
            fatal.take(),
            Some(RunError::Ended { thread: "log" })
        ));
    }

    #[test]
    fn an_end_after_the_stop_is_none() {
        let fatal = Fatal::default();
        fatal.stop();
        fatal.ended(ended("log"));
        assert!(fatal.take().is_none());
    }

    /// What one thread drops when it fails ends the others, and theirs may be heard of first.
    #[test]
    fn the_thread_that_failed_is_named_not_the_ones_that_followed_it() {
        let fatal = Fatal::default();
        fatal.ended(ended("network"));
        fatal.report(RunError::Panicked {
            thread: "execution",
        });
        fatal.ended(ended("checkpoint"));
        fatal.report(RunError::Panicked { thread: "log" });
        assert!(matches!(
            fatal.take(),
            Some(RunError::Panicked {
                thread: "execution"
            })
        ));
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_member() {
        let fatal = Fatal::default();
        let task = fatal.spawn(async { panic!("as a defect would") });
        assert!(task.await.is_err());
        assert!(matches!(
            fatal.take(),
            Some(RunError::Panicked { thread: "network" })
        ));
    }
}
