//! How a session stands, told as it changes: the jeopardy signal.

use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::core::{LeaseView, Standing};

/// A session's standing as it changes.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) {
/// use folkmoot_client::Standing;
/// let mut changes = session.standing_changes();
/// let standing = changes.wait_for(Standing::Jeopardy).await;
/// println!("stop what rests on the session: {standing:?}");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StandingChanges {
    lease: watch::Receiver<LeaseView>,
    told: Option<Standing>,
}

impl StandingChanges {
    pub(crate) fn new(lease: watch::Receiver<LeaseView>) -> Self {
        Self { lease, told: None }
    }

    /// How the session stands at first, and then each change; none after it ended. A change that
    /// was over before this was asked is not told. Cancel safe.
    pub async fn next(&mut self) -> Option<Standing> {
        if matches!(self.told, Some(Standing::Ended { .. })) {
            return None;
        }
        loop {
            let view = *self.lease.borrow_and_update();
            let now = clock::now();
            let standing = view.standing_at(now);
            if self.told != Some(standing) {
                self.told = Some(standing);
                return Some(standing);
            }
            let next = match standing {
                Standing::Safe => Some(view.jeopardy_at),
                Standing::Jeopardy => Some(view.over_at),
                Standing::LeaseOver | Standing::Ended { .. } => None,
            };
            let pause = next.map(|at| Duration::from_micros(at.0.saturating_sub(now.0)));
            tokio::select! {
                changed = self.lease.changed() => changed.ok()?,
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the session stands no better than `at_best`; at once if it does.
    pub async fn wait_for(&mut self, at_best: Standing) -> Standing {
        while let Some(standing) = self.next().await {
            if standing >= at_best {
                return standing;
            }
        }
        // The task is gone without a word: nothing renews the lease any more.
        self.told
            .unwrap_or(Standing::LeaseOver)
            .max(Standing::LeaseOver)
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
