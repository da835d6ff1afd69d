//! What is judged on: when the touches of sessions arrived, and what befell the observer.

/// A stretch of time, in milliseconds from the trace's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub from_ms: u64,
    /// Its end, not part of it.
    pub to_ms: u64,
}

impl Span {
    /// Whether the instant is in it.
    #[must_use]
    pub fn has(&self, at_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

/// All sessions of a cluster for some hours.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// How long it is.
    pub length_ms: u64,
    /// Where the clients are.
    pub zones: Vec<String>,
    /// The sessions, in the order of their keys.
    pub sessions: Vec<Session>,
    /// What befell the leaders.
    pub leaders: Leaders,
}

/// A client with a session: from its opening to its crash, or to the end of the trace.
#[derive(Clone, Debug)]
pub struct Session {
    /// What kind of client it is.
    pub class: String,
    /// The row of its zone.
    pub zone: u32,
    /// Its timeout.
    pub timeout_ms: u64,
    /// When it crashed.
    pub died_ms: Option<u64>,
    /// Its touches, in the order of their arrival.
    pub touches: Vec<Touch>,
}

/// A heartbeat that came to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When the member got it.
    pub arrived_ms: u64,
    /// When the leader knew of it.
    pub known_ms: u64,
    /// The member.
    pub member: u64,
}

/// What befell the leaders.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    /// When each was elected, after the first; the one before had died.
    pub elected_ms: Vec<u64>,
    /// When the leader's process stood still.
    pub stalls: Vec<Span>,
    /// When it ran late, and by how many milliseconds at most.
    pub lags: Vec<(Span, u64)>,
}

impl Trace {
    /// Hours that sessions lived, all together.
    #[must_use]
    pub fn session_hours(&self) -> f64 {
        let lived_ms = self.sessions.iter().map(|session| {
            let until_ms = session.died_ms.unwrap_or(self.length_ms);
            until_ms.saturating_sub(session.opened_ms())
        });
        lived_ms.sum::<u64>() as f64 / 3_600_000.0
    }
}

impl Leaders {
    /// The time on a clock that leaves out the stalls.
    #[must_use]
    pub fn active_ms(&self, at_ms: u64) -> u64 {
        let stalled = |stall: &Span| at_ms.min(stall.to_ms).saturating_sub(stall.from_ms);
        at_ms.saturating_sub(self.stalls.iter().map(stalled).sum())
    }

    /// When the leader of this instant was elected; 0 for the first.
    #[must_use]
    pub fn elected_before(&self, at_ms: u64) -> u64 {
        let before = self.elected_ms.iter().filter(|elected| **elected <= at_ms);
        before.max().copied().unwrap_or(0)
    }
}

impl Session {
    /// When it was opened: with its first touch.
    #[must_use]
    pub fn opened_ms(&self) -> u64 {
        self.touches
            .first()
            .map_or(u64::MAX, |touch| touch.known_ms)
    }

    /// Whether its client lives at this instant.
    #[must_use]
    pub fn lives(&self, at_ms: u64) -> bool {
        self.died_ms.is_none_or(|died| at_ms < died)
    }
}
