//! Scenarios of one consensus machine, member 1 of three.

use folkmoot_core::consensus::{Action, Consensus, ConsensusConfig};
use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Tick};

use crate::world::bootstrap;

/// A machine at a time, with what it did last.
struct Machine {
    consensus: Consensus,
    now: Tick,
    done: Vec<Action>,
}

impl Machine {
    /// Takes what there is to do; writes are durable at once.
    fn settle(&mut self) {
        while let Some(action) = self.consensus.poll_action() {
            if let Action::Persist { id, .. } = &action {
                self.consensus.handle_durable(self.now, *id);
            }
            self.done.push(action);
        }
    }

    fn hear(&mut self, from: u64, message: ConsensusMessage) {
        self.consensus
            .handle_message(self.now, MemberId(from), message);
        self.settle();
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        self.consensus.handle_timeout(self.now);
        self.settle();
    }

    fn grant(&mut self, pre: bool) {
        let term = self.consensus.status().term;
        let term = if pre { term.next() } else { term };
        self.hear(
            2,
            ConsensusMessage::VoteReply {
                term,
                pre,
                granted: true,
            },
        );
    }

    /// The newest round that it began.
    fn round(&self) -> u64 {
        let rounds =
            self.done.iter().filter_map(|action| match action {
                Action::Send {
                    message:
                        ConsensusMessage::Heartbeat { round, .. }
                        | ConsensusMessage::Append { round, .. },
                    ..
                } => Some(*round),
                _ => None,
            });
        rounds.max().unwrap_or_default()
    }

    fn term(&self) -> Term {
        self.consensus.status().term
    }

    fn was_deposed(&self) -> bool {
        self.done
            .iter()
            .any(|action| matches!(action, Action::Deposed { .. }))
    }
}

/// A leader that was just elected.
fn leader() -> Result<Machine, String> {
    let now = Tick(1_000_000);
    let config = ConsensusConfig::new(MemberId(1), Incarnation(1), 1);
    let consensus = Consensus::bootstrap(config, bootstrap(3), 7, now);
    let mut machine = Machine {
        consensus: consensus.map_err(|error| error.to_string())?,
        now,
        done: Vec::new(),
    };
    machine.settle();
    machine.wait(2_000);
    machine.grant(true);
    machine.grant(false);
    let elected = |action: &Action| matches!(action, Action::Elected { .. });
    match machine.done.iter().any(elected) {
        true => Ok(machine),
        false => Err("a candidate with a majority is not elected".to_owned()),
    }
}

/// When commit advances with no append to carry it, the followers are told at once (rule R19).
pub(super) fn commit_is_told_at_once() -> Result<(), String> {
    let mut leader = leader()?;
    let (term, round) = (leader.term(), leader.round());
    leader.done.clear();
    let last = leader.consensus.status().last_index;
    leader.hear(
        2,
        ConsensusMessage::AppendReply {
            term,
            round,
            result: Ok(last),
            counts: true,
        },
    );
    let tells = |action: &Action| {
        let Action::Send { to, message } = action else {
            return false;
        };
        let told = match message {
            ConsensusMessage::Heartbeat { commit, .. }
            | ConsensusMessage::Append { commit, .. } => *commit,
            _ => LogIndex::ZERO,
        };
        *to == MemberId(2) && told == last
    };
    match leader.done.iter().any(tells) {
        true => Ok(()),
        false => Err(format!(
            "entry {last} is committed, and nobody is told: {:?}",
            leader.done
        )),
    }
}

/// A leader that hears of nobody steps down (rule R19).
pub(super) fn a_leader_without_a_quorum_steps_down() -> Result<(), String> {
    let mut leader = leader()?;
    for _ in 0..20 {
        leader.wait(100);
    }
    match leader.was_deposed() {
        true => Ok(()),
        false => Err("it leads on after two seconds without an answer".to_owned()),
    }
}

/// Contact counts from when what is answered was sent: a process that was stopped for two seconds
/// and then finds an old answer has no quorum (rule R8).
pub(super) fn contact_counts_from_sending() -> Result<(), String> {
    let mut leader = leader()?;
    leader.wait(60);
    let (term, round) = (leader.term(), leader.round());
    leader.now = leader.now.plus_millis(2_000);
    leader.hear(
        2,
        ConsensusMessage::HeartbeatReply {
            term,
            round,
            verified: LogIndex(1),
            counts: true,
        },
    );
    leader.wait(0);
    match leader.was_deposed() {
        true => Ok(()),
        false => Err("an answer to what was sent two seconds ago keeps it in office".to_owned()),
    }
}
