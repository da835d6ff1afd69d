//! Touches: heartbeats of clients on their way to be acknowledged by a quorum (rule R16).

use std::collections::BTreeMap;

use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::{ConnEpoch, MemberId, SessionId, Tick};

/// Touches that may wait for a round; a client whose heartbeat is turned away sends another.
const WAITING_MAX: usize = 16 * 1024;

/// How a member heard of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execution) struct Arrival {
    /// The member.
    pub(in crate::execution) member: MemberId,
    /// When, on the member's clock.
    pub(in crate::execution) at: Tick,
    /// The round trip between it and its client, in microseconds; 0 if it is not known.
    pub(in crate::execution) rtt_micros: u32,
}

/// Clients that one member has heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    /// Where and when.
    pub(super) arrival: Arrival,
    /// That member's name for the touch.
    pub(super) sequence: u64,
    /// The sessions and the epochs of their attachments.
    pub(super) sessions: Vec<(SessionId, ConnEpoch)>,
    /// The leader's active time when it got the touch: what a session's deadline counts from.
    pub(super) at: Tick,
}

/// The leader's rounds: a touch is accepted only by a quorum round that began after the leader had
/// it, so that a leader that was cut off acknowledges nothing.
#[derive(Debug)]
pub(super) struct Touches {
    waiting: Vec<Touch>,
    in_round: Vec<Touch>,
    /// The round under way, and the leader's active time when it began.
    round: Option<(ReadContext, Tick)>,
    next_round: Tick,
    /// The leader's active time when the last round that was made began.
    confirmed: Tick,
    pending: BTreeMap<SessionId, u32>,
}

impl Touches {
    /// No touches; the first round may begin at `now`.
    pub(super) fn starting(now: Tick) -> Self {
        Self {
            waiting: Vec::new(),
            in_round: Vec::new(),
            round: None,
            next_round: now,
            confirmed: Tick::ZERO,
            pending: BTreeMap::new(),
        }
    }

    /// Takes a touch, unless too many wait.
    pub(super) fn receive(&mut self, touch: Touch) {
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        for (session, _) in &touch.sessions {
            *self.pending.entry(*session).or_default() += 1;
        }
        self.waiting.push(touch);
    }

    /// Whether a round is to begin, for what waits or since a deadline `is_due`; then
    /// [`Touches::begin_round`] says by which barrier.
    pub(super) fn wants_round(&self, now: Tick, is_due: bool) -> bool {
        let is_wanted = is_due || !self.waiting.is_empty();
        self.round.is_none() && is_wanted && now >= self.next_round
    }

    /// All that wait go into the round of `context`, which is asked for after this.
    pub(super) fn begin_round(
        &mut self,
        context: ReadContext,
        (now, active): (Tick, Tick),
        interval_ms: u64,
    ) {
        self.in_round.append(&mut self.waiting);
        self.round = Some((context, active));
        self.next_round = now.plus_millis(interval_ms);
    }

    /// The round was made: its touches, to be accepted. None if this is another barrier.
    pub(super) fn finish_round(&mut self, context: ReadContext) -> Option<Vec<Touch>> {
        let (_, began) = self.round.take_if(|(round, _)| *round == context)?;
        self.confirmed = began;
        let touches = core::mem::take(&mut self.in_round);
        for (session, _) in touches.iter().flat_map(|touch| &touch.sessions) {
            if let Some(count) = self.pending.get_mut(session) {
                *count -= 1;
                if *count == 0 {
                    self.pending.remove(session);
                }
            }
        }
        Some(touches)
    }

    /// The round was lost: its touches go into the next one. False if this is another barrier.
    pub(super) fn lose_round(&mut self, context: ReadContext) -> bool {
        let round = self.round.take_if(|(round, _)| *round == context);
        if round.is_none() {
            return false;
        }
        self.in_round.append(&mut self.waiting);
        core::mem::swap(&mut self.in_round, &mut self.waiting);
        true
    }

    /// The leader's active time when the last round that was made began. What came to this member
    /// before that was taken in before the round was over.
    pub(super) fn confirmed(&self) -> Tick {
        self.confirmed
    }

    /// Whether a touch of this session waits: it came before any expiry that is decided now.
    pub(super) fn is_pending(&self, session: SessionId) -> bool {
        self.pending.contains_key(&session)
    }

    /// When a round is to begin.
    pub(super) fn next_timeout(&self) -> Option<Tick> {
        (self.round.is_none() && !self.waiting.is_empty()).then_some(self.next_round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(sequence: u64) -> ReadContext {
        ReadContext {
            member: MemberId(1),
            run: 1,
            sequence,
        }
    }

    fn touch(sequence: u64) -> Touch {
        Touch {
            arrival: Arrival {
                member: MemberId(2),
                at: Tick(sequence),
                rtt_micros: 0,
            },
            sequence,
            sessions: vec![(SessionId(sequence), ConnEpoch(1))],
            at: Tick(sequence),
        }
    }

    #[test]
    fn r16_a_touch_is_accepted_only_by_a_round_that_began_after_it() {
        let mut touches = Touches::starting(Tick::ZERO);
        touches.receive(touch(1));
        assert!(touches.wants_round(Tick::ZERO, false));
        touches.begin_round(context(1), (Tick::ZERO, Tick(7)), 50);
        touches.receive(touch(2));
        assert_eq!(touches.finish_round(context(1)), Some(vec![touch(1)]));
        assert_eq!(touches.confirmed(), Tick(7));
        assert!(!touches.is_pending(SessionId(1)));
        assert!(touches.is_pending(SessionId(2)));
        assert!(!touches.wants_round(Tick(49_999), false));
        assert!(touches.wants_round(Tick(50_000), false));
    }

    #[test]
    fn touches_of_a_lost_round_go_into_the_next() {
        let mut touches = Touches::starting(Tick::ZERO);
        touches.receive(touch(1));
        touches.begin_round(context(1), (Tick::ZERO, Tick(7)), 0);
        touches.receive(touch(2));
        assert!(!touches.lose_round(context(9)));
        assert!(touches.lose_round(context(1)));
        touches.begin_round(context(2), (Tick::ZERO, Tick(7)), 0);
        assert_eq!(touches.finish_round(context(1)), None);
        assert_eq!(
            touches.finish_round(context(2)),
            Some(vec![touch(1), touch(2)])
        );
    }
}
