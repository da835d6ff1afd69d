//! The lease clock: until when the cluster certainly keeps the session (rule R16).

use folkmoot_proto::Tick;

/// How far a client's clock may run slow against the leader's, in thousandths: ρ of rule R16.
/// Crystals stay within 0.1, virtual machines that are disciplined by NTP within 0.5.
pub const CLOCK_DRIFT_PERMILLE: u64 = 10;

/// How a session stands, by this client's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Heartbeats are acknowledged: the cluster keeps the session.
    Safe,
    /// Two thirds of the timeout have passed since the last acknowledged heartbeat was sent. Stop
    /// what rests on the session, or be ready to.
    Jeopardy,
    /// The lease is over: the cluster may have expired the session. Only the cluster knows; what
    /// rested on the session must be stopped by now. If the session still lives, it becomes
    /// `Safe` again at the next acknowledgement.
    LeaseOver,
    /// The cluster ended the session.
    Ended {
        /// Whether it expired; else it was closed.
        expired: bool,
    },
}

/// A session's lease as it is told to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseView {
    /// How it stood when this was told.
    pub(crate) standing: Standing,
    /// When jeopardy begins.
    pub(crate) jeopardy_at: Tick,
    /// When the lease is over.
    pub(crate) over_at: Tick,
}

impl LeaseView {
    /// How the session stands at `now`: never better than the clock allows, whether or not the
    /// session's task had a turn to say so.
    pub(crate) fn standing_at(&self, now: Tick) -> Standing {
        let by_clock = if now >= self.over_at {
            Standing::LeaseOver
        } else if now >= self.jeopardy_at {
            Standing::Jeopardy
        } else {
            Standing::Safe
        };
        self.standing.max(by_clock)
    }
}

/// Counts from the sending of the last acknowledged heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    timeout_ms: u64,
    renewed: Tick,
}

impl Lease {
    /// A lease that begins with the sending of a frame that the cluster accepted.
    pub(crate) fn begin(sent: Tick, timeout_ms: u32) -> Self {
        Self {
            timeout_ms: u64::from(timeout_ms),
            renewed: sent,
        }
    }

    /// A heartbeat that was sent at `sent` was acknowledged.
    pub(crate) fn renew(&mut self, sent: Tick) {
        self.renewed = self.renewed.max(sent);
    }

    /// *Time of sending + timeout × (1 − ρ)*.
    pub(crate) fn over_at(&self) -> Tick {
        let micros = self.timeout_ms * (1000 - CLOCK_DRIFT_PERMILLE);
        Tick(self.renewed.0.saturating_add(micros))
    }

    /// Two thirds of the timeout after the sending: a holder has the last third to stop in.
    pub(crate) fn jeopardy_at(&self) -> Tick {
        self.renewed.plus_millis(self.timeout_ms * 2 / 3)
    }

    /// Two heartbeats were not acknowledged: this member has no quorum, others may.
    pub(crate) fn move_at(&self) -> Tick {
        self.renewed.plus_millis(self.timeout_ms * 2 / 5)
    }

    pub(crate) fn view(&self, now: Tick) -> LeaseView {
        let mut view = LeaseView {
            standing: Standing::Safe,
            jeopardy_at: self.jeopardy_at(),
            over_at: self.over_at(),
        };
        view.standing = view.standing_at(now);
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jeopardy_comes_before_the_lease_ends_and_that_before_the_timeout() {
        let lease = Lease::begin(Tick(0), 9000);
        let at = |millis: u64| lease.view(Tick(millis * 1000)).standing;
        assert_eq!(at(5999), Standing::Safe);
        assert_eq!(at(6000), Standing::Jeopardy);
        assert_eq!(at(8909), Standing::Jeopardy);
        assert_eq!(at(8910), Standing::LeaseOver);
    }

    #[test]
    fn a_late_acknowledgement_counts_from_its_sending() {
        let mut lease = Lease::begin(Tick(0), 9000);
        lease.renew(Tick(2_000_000));
        lease.renew(Tick(1_000_000));
        assert_eq!(lease.over_at(), Tick(2_000_000 + 8_910_000));
    }
}
