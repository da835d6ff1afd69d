//! Sessions as a failure detector sees them: how their touches arrive.

use std::collections::BTreeMap;

use folkmoot_proto::{MemberId, SessionId, Tick};

use crate::detection::{CEILING_TIMEOUTS, History};

/// What the leader keeps of the sessions for failure detectors, in its memory alone: a new leader
/// begins anew.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    by_session: BTreeMap<SessionId, Subject>,
}

/// What it keeps of one.
#[derive(Debug)]
struct Subject {
    /// The member that heard of it last, and when, on that member's clock.
    arrived: (MemberId, Tick),
    history: History,
}

impl Subjects {
    /// A touch was accepted that came to a member at this instant of the member's clock. Touches of
    /// one member are as far apart as that clock says, whatever befell them on their way; between
    /// touches of two members there is no interval.
    pub(super) fn touched(
        &mut self,
        session: SessionId,
        arrived: (MemberId, Tick),
        timeout_ms: u32,
    ) {
        let subject = self.by_session.entry(session).or_insert(Subject {
            arrived,
            history: History::default(),
        });
        let (before, since) = core::mem::replace(&mut subject.arrived, arrived);
        // A clock that is behind is another one: the member's machine was started anew.
        if before == arrived.0 && arrived.1 > since {
            // A longer one is none that a session lives through, and would hide all others.
            let longest_ms = CEILING_TIMEOUTS * u64::from(timeout_ms);
            let interval_ms = arrived.1.millis_since(since).min(longest_ms);
            subject.history.add(interval_ms as f64);
        }
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session: SessionId) {
        self.by_session.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn last_ms(subjects: &Subjects) -> Vec<f64> {
        let subject = subjects.by_session.get(&SESSION).expect("it was heard of");
        subject.history.last_ms().collect()
    }

    #[test]
    fn intervals_are_those_of_the_member_that_was_touched() {
        let mut subjects = Subjects::default();
        let mut touch = |member, seconds: u64| {
            let arrived = (MemberId(member), Tick(seconds * 1_000_000));
            subjects.touched(SESSION, arrived, 10_000);
        };
        // The clock of the second member is far ahead, and then starts anew.
        let touches = [(1, 5), (1, 7), (2, 900), (2, 903), (2, 1), (2, 2), (2, 90)];
        for (member, seconds) in touches {
            touch(member, seconds);
        }
        let ceiling_ms = 30_000.0;
        assert_eq!(last_ms(&subjects), [2_000.0, 3_000.0, 1_000.0, ceiling_ms]);
        subjects.remove(SESSION);
        assert!(subjects.by_session.is_empty());
    }
}
