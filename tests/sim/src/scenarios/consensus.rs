//! Scenarios of one consensus machine, member 1 of three.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_core::consensus::{
    Action, Consensus, ConsensusConfig, PersistId, RecoveredLog, bootstrap_entry,
};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Tick, Zxid};

use crate::world::bootstrap;

const START: Tick = Tick(1_000_000);

/// A machine at a time, with what it did last.
struct Machine {
    consensus: Consensus,
    now: Tick,
    done: Vec<Action>,
    /// The newest round that it began.
    round: u64,
    /// Writes that are not durable, since the disk takes its time.
    unwritten: Option<Vec<PersistId>>,
}

impl Machine {
    fn new(consensus: Consensus) -> Self {
        let mut machine = Self {
            consensus,
            now: START,
            done: Vec::new(),
            round: 0,
            unwritten: None,
        };
        machine.settle();
        machine
    }

    /// Takes what there is to do; writes are durable at once, or once the disk is done.
    fn settle(&mut self) {
        while let Some(action) = self.consensus.poll_action() {
            if let Action::Persist { id, .. } = &action {
                match &mut self.unwritten {
                    None => self.consensus.handle_durable(self.now, *id),
                    Some(unwritten) => unwritten.push(*id),
                }
            }
            if let Action::Send {
                message:
                    ConsensusMessage::Heartbeat { round, .. } | ConsensusMessage::Append { round, .. },
                ..
            } = &action
            {
                self.round = self.round.max(*round);
            }
            self.done.push(action);
        }
    }

    /// The disk has done all that was to be written.
    fn write(&mut self) {
        if let Some(last) = self.unwritten.take().and_then(|all| all.last().copied()) {
            self.consensus.handle_durable(self.now, last);
        }
        self.settle();
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

    fn term(&self) -> Term {
        self.consensus.status().term
    }

    fn commit(&self) -> LogIndex {
        self.consensus.status().commit_index
    }

    /// Stands for election, and wins it with the vote of member 2.
    fn win(mut self) -> Result<Self, String> {
        self.wait(2_000);
        self.grant(true);
        self.grant(false);
        let elected = |action: &Action| matches!(action, Action::Elected { .. });
        match self.done.iter().any(elected) {
            true => Ok(self),
            false => Err("a candidate with a majority is not elected".to_owned()),
        }
    }

    /// Member 2 has everything up to `index` on its disk.
    fn acknowledge(&mut self, index: LogIndex) {
        let (term, round) = (self.term(), self.round);
        let reply = ConsensusMessage::AppendReply {
            term,
            round,
            result: Ok(index),
            counts: true,
        };
        self.hear(2, reply);
    }

    /// Member 2 asks for its vote in `term`, with a log that is as long as any.
    fn ask_for_vote(&mut self, term: Term) {
        let request = ConsensusMessage::VoteRequest {
            term,
            pre: false,
            last_index: LogIndex(100),
            last_term: term,
            transfer: false,
        };
        self.hear(2, request);
    }

    fn has_voted(&self) -> bool {
        let votes = |action: &Action| {
            matches!(
                action,
                Action::Send {
                    message: ConsensusMessage::VoteReply {
                        pre: false,
                        granted: true,
                        ..
                    },
                    ..
                }
            )
        };
        self.done.iter().any(votes)
    }

    fn was_deposed(&self) -> bool {
        self.done
            .iter()
            .any(|action| matches!(action, Action::Deposed { .. }))
    }
}

/// A leader that was just elected.
fn leader() -> Result<Machine, String> {
    let config = ConsensusConfig::new(MemberId(1), Incarnation(1), 1);
    let log = RecoveredLog {
        admitted: true,
        ..RecoveredLog::empty()
    };
    let consensus = Consensus::start(config, log, bootstrap(3), 7, START);
    Machine::new(consensus.map_err(|error| error.to_string())?).win()
}

/// A member that starts in term 2 with entry 1 and an entry of term 2, of which, if it is damaged,
/// the log can not tell whether it is all.
fn restarted(damaged: bool) -> Result<Machine, String> {
    let second = Entry {
        index: LogIndex(2),
        term: Term(2),
        last_zxid: Zxid::ZERO,
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    };
    let first = bootstrap_entry(bootstrap(3));
    let log = RecoveredLog {
        is_new: false,
        term: second.term,
        vote: None,
        base: None,
        bootstrap: bootstrap(3),
        applied: LogIndex::ZERO,
        term_runs: vec![(first.index, first.term), (second.index, second.term)],
        last_index: second.index,
        last_zxid: second.last_zxid,
        recent: vec![first, second],
        damaged_up_to: damaged.then_some(LogIndex(2)),
        wiped: false,
        admitted: true,
        peers_met: BTreeMap::new(),
    };
    let config = ConsensusConfig::new(MemberId(1), Incarnation(1), 2);
    let consensus = Consensus::recover(config, log, 7, START);
    Ok(Machine::new(consensus.map_err(|error| error.to_string())?))
}

/// When commit advances with no append to carry it, the followers are told at once (rule R19).
pub(super) fn commit_is_told_at_once() -> Result<(), String> {
    let mut leader = leader()?;
    leader.done.clear();
    let last = leader.consensus.status().last_index;
    leader.acknowledge(last);
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
    let (term, round) = (leader.term(), leader.round);
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

/// A vote leaves after it is on disk: a member that forgot it would vote twice (rule R17).
pub(super) fn a_vote_waits_for_the_disk() -> Result<(), String> {
    let mut voter = restarted(false)?;
    voter.unwritten = Some(Vec::new());
    voter.ask_for_vote(Term(3));
    if voter.has_voted() {
        return Err("the vote left before it was durable".to_owned());
    }
    voter.write();
    match voter.has_voted() {
        true => Ok(()),
        false => Err("the vote is durable and did not leave".to_owned()),
    }
}

/// An entry of an earlier term is on a majority of disks and yet not committed, before one of the
/// leader's own term is, too (rule R18; Raft §5.4.2, Figure 8).
pub(super) fn an_earlier_terms_entry_is_not_counted() -> Result<(), String> {
    let mut leader = restarted(false)?.win()?;
    leader.acknowledge(LogIndex(2));
    if leader.commit() != LogIndex::ZERO {
        return Err(format!("entry {} is committed", leader.commit()));
    }
    leader.acknowledge(LogIndex(3));
    match leader.commit() {
        LogIndex(3) => Ok(()),
        commit => Err(format!("after its own entry {commit} is committed")),
    }
}

/// A read barrier waits for a round that began after it was asked for: the leader may be none any
/// more (rule R20).
pub(super) fn a_read_waits_for_a_round() -> Result<(), String> {
    let mut leader = leader()?;
    leader.acknowledge(LogIndex(2));
    let context = ReadContext {
        member: MemberId(1),
        run: 1,
        sequence: 1,
    };
    let ready = Action::ReadReady {
        context,
        index: LogIndex(2),
    };
    leader.consensus.read_barrier(leader.now, context);
    leader.settle();
    if leader.done.contains(&ready) {
        return Err("the barrier holds before anyone was asked".to_owned());
    }
    leader.acknowledge(LogIndex(2));
    match leader.done.contains(&ready) {
        true => Ok(()),
        false => Err("the barrier does not hold after a round".to_owned()),
    }
}

/// A member that has lost what it may have acknowledged does not vote, and its acknowledgements do
/// not count, before it is repaired (rule R23).
pub(super) fn a_damaged_member_has_no_vote() -> Result<(), String> {
    let mut damaged = restarted(true)?;
    damaged.ask_for_vote(Term(3));
    if damaged.has_voted() {
        return Err("it voted".to_owned());
    }
    damaged.hear(
        2,
        ConsensusMessage::Heartbeat {
            term: Term(3),
            commit: LogIndex::ZERO,
            round: 1,
        },
    );
    let counts: Vec<bool> = damaged
        .done
        .iter()
        .filter_map(|action| match action {
            Action::Send {
                message: ConsensusMessage::HeartbeatReply { counts, .. },
                ..
            } => Some(*counts),
            _ => None,
        })
        .collect();
    match counts.as_slice() {
        [false] => Ok(()),
        counts => Err(format!("its answers to a heartbeat count: {counts:?}")),
    }
}
