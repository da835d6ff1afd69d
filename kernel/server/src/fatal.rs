//! How a thread ends the member.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::RunError;

/// The first reason for which the member must end; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fatal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reason: Mutex<Option<RunError>>,
    reported: Notify,
}

impl Fatal {
    /// The member must end. Only the first report counts.
    pub(crate) fn report(&self, reason: RunError) {
        tracing::error!("{reason}");
        self.0
            .reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        self.0.reported.notify_one();
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
}

/// Lives as long as a thread.
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
