//! How a session stands, told as it changes: the jeopardy signal.

use std::time::Duration;

use folkmoot_proto::Tick;
use tokio::sync::watch;

use crate::clock;
use crate::core::{LeaseView, Standing};

/// The timer of a program stands still while its machine is suspended, the lease does not: after a
/// suspension a change is told no later than this.
const PAUSE_MAX: Duration = Duration::from_millis(250);

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
    /// was over before this was asked is not told. A change that came while the machine was
    /// suspended is told within 250 ms of its end. Cancel safe.
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
            let pause = next.map(|at| pause(now, at));
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

/// Until `at`, or until the clock is looked at again.
fn pause(now: Tick, at: Tick) -> Duration {
    Duration::from_micros(at.0.saturating_sub(now.0)).min(PAUSE_MAX)
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule R16: the lease goes on while the machine is suspended, and timers do not.
    #[test]
    fn the_clock_is_looked_at_often_enough_to_notice_a_suspension() {
        let now = Tick(1_000_000);
        assert_eq!(pause(now, Tick(60_000_000)), PAUSE_MAX);
        assert_eq!(pause(now, Tick(1_002_000)), Duration::from_millis(2));
        assert_eq!(pause(now, Tick(0)), Duration::ZERO);
    }
}
