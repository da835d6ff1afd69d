//! Stalls of this member's own disk and execution (rule R19): a leader that can not make progress
//! hands leadership over, although its heartbeats are in time.

use std::collections::BTreeMap;

use folkmoot_core::consensus::{PersistId, Stall};
use folkmoot_proto::Tick;

use super::turn::ConsensusInput;

/// Looks for stalls longer than an election timeout.
#[derive(Debug)]
pub(crate) struct Stalls {
    longest_ms: u64,
    /// What the log has not reported as durable, and since when it has it.
    persisting: BTreeMap<PersistId, Tick>,
    /// What stalls, and since when: an operator is told once of each.
    told: BTreeMap<Stall, Tick>,
}

impl Stalls {
    pub(crate) fn new(election_timeout_ms: u64) -> Self {
        Self {
            longest_ms: election_timeout_ms,
            persisting: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// The log was given records.
    pub(crate) fn persisting(&mut self, id: PersistId, now: Tick) {
        self.persisting.insert(id, now);
    }

    /// Adds what stalls to the inbox, which holds what was reported since the last look.
    pub(crate) fn look(
        &mut self,
        now: Tick,
        execution_busy_since: Option<Tick>,
        inbox: &mut Vec<ConsensusInput>,
    ) {
        let durable = inbox.iter().rev().find_map(|input| match input {
            ConsensusInput::Durable(id) => Some(*id),
            _ => None,
        });
        if let Some(durable) = durable {
            self.persisting = self.persisting.split_off(&PersistId(durable.0 + 1));
        }
        let oldest = self.persisting.first_key_value().map(|(_, since)| *since);
        for (since, stall) in [
            (oldest, Stall::Disk),
            (execution_busy_since, Stall::Execution),
        ] {
            let stalls = since.filter(|since| now.millis_since(*since) > self.longest_ms);
            if stalls.is_some() {
                inbox.push(ConsensusInput::Stall(stall));
            }
            self.tell(stall, now, stalls);
        }
    }

    fn tell(&mut self, stall: Stall, now: Tick, stalls: Option<Tick>) {
        match (self.told.get(&stall).copied(), stalls) {
            (None, Some(since)) => {
                tracing::warn!(
                    ?stall,
                    millis = now.millis_since(since),
                    "this member stalls"
                );
                self.told.insert(stall, since);
            }
            (Some(since), None) => {
                tracing::warn!(
                    ?stall,
                    millis = now.millis_since(since),
                    "this member goes on"
                );
                self.told.remove(&stall);
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalls(inbox: &[ConsensusInput]) -> Vec<Stall> {
        let stall = |input: &ConsensusInput| match input {
            ConsensusInput::Stall(stall) => Some(*stall),
            _ => None,
        };
        inbox.iter().filter_map(stall).collect()
    }

    /// Rule R19: a sync that takes longer than an election timeout is reported, until it ends.
    #[test]
    fn r19_a_slow_disk_is_a_stall_until_it_answers() {
        let mut watched = Stalls::new(500);
        watched.persisting(PersistId(1), Tick(0));
        watched.persisting(PersistId(2), Tick(400_000));
        let mut inbox = Vec::new();
        watched.look(Tick(500_999), None, &mut inbox);
        assert_eq!(stalls(&inbox), []);
        watched.look(Tick(501_000), None, &mut inbox);
        assert_eq!(stalls(&inbox), [Stall::Disk]);
        let mut inbox = vec![ConsensusInput::Durable(PersistId(1))];
        watched.look(Tick(600_000), None, &mut inbox);
        assert_eq!(stalls(&inbox), []);
    }

    /// Rule R19: a turn of execution that takes longer than an election timeout is reported.
    #[test]
    fn r19_a_long_turn_of_execution_is_a_stall() {
        let mut watched = Stalls::new(500);
        let mut inbox = Vec::new();
        watched.look(Tick(700_000), Some(Tick(200_000)), &mut inbox);
        assert_eq!(stalls(&inbox), []);
        watched.look(Tick(701_000), Some(Tick(200_000)), &mut inbox);
        assert_eq!(stalls(&inbox), [Stall::Execution]);
    }
}
