//! Read barriers: a point in the log that reflects everything acknowledged before the read came
//! (rule R20; Raft §8, thesis §6.4).

use std::collections::VecDeque;

use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::{LogIndex, MemberId, Term, Tick};

use super::{Action, Consensus, Standing};
use crate::mutation::{self, Mutation};

/// Barriers that may wait at once, at a leader, and at a follower for its leader. Execution asks
/// for few, each for many reads; beyond it a barrier is lost at once.
pub const READS_PENDING_MAX: usize = 4096;

/// A follower asks its leader again after so many heartbeats: requests are lost with a stream.
const RETRY_AFTER_HEARTBEATS: u64 = 4;

/// A barrier that waits at the leader.
#[derive(Debug)]
pub(super) struct PendingRead {
    context: ReadContext,
    /// Who asked.
    from: MemberId,
    /// The read index.
    index: LogIndex,
    /// The first round that began after the barrier was asked for.
    round: u64,
}

impl Consensus {
    /// Asks for a read barrier (rule R20), on the leader or a follower. Answered once by
    /// `ReadReady` or `ReadLost`; a context is used once.
    pub fn read_barrier(&mut self, now: Tick, context: ReadContext) {
        self.begin(now);
        let me = self.config.member;
        match self.leader() {
            Some(leader) if leader == me => self.queue_read(me, context),
            Some(leader) if self.forwarded_reads.len() < READS_PENDING_MAX => {
                self.forwarded_reads.insert(context, self.now);
                self.ask_leader(leader, context);
            }
            _ => self.out.push(Action::ReadLost { context }),
        }
    }

    fn ask_leader(&mut self, leader: MemberId, context: ReadContext) {
        self.out.send(
            leader,
            ConsensusMessage::ReadRequest {
                term: self.term,
                context,
            },
        );
    }

    /// When the oldest forwarded barrier is to be asked for again.
    pub(super) fn next_read_retry(&self) -> Option<Tick> {
        let oldest = self.forwarded_reads.values().min()?;
        Some(oldest.plus_millis(self.read_retry_ms()))
    }

    fn read_retry_ms(&self) -> u64 {
        self.config.heartbeat_ms * RETRY_AFTER_HEARTBEATS
    }

    /// Asks again for barriers that the leader has not answered.
    pub(super) fn ask_reads_again(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        let retry_ms = self.read_retry_ms();
        let mut overdue = Vec::new();
        for (context, asked_at) in &mut self.forwarded_reads {
            if self.now.millis_since(*asked_at) >= retry_ms {
                *asked_at = self.now;
                overdue.push(*context);
            }
        }
        for context in overdue {
            self.ask_leader(leader, context);
        }
    }

    /// A follower asks. Its term may be older than this leader's: the barrier holds all the same.
    pub(super) fn handle_read_request(&mut self, from: MemberId, term: Term, context: ReadContext) {
        if term > self.term {
            self.become_follower(term, None);
        }
        if self.leads() {
            self.queue_read(from, context);
        } else {
            self.answer_read(from, context, None);
        }
    }

    pub(super) fn handle_read_reply(
        &mut self,
        term: Term,
        context: ReadContext,
        index: Option<LogIndex>,
    ) {
        if term > self.term {
            self.become_follower(term, None);
        }
        if self.forwarded_reads.remove(&context).is_some() {
            self.out.push(match index {
                Some(index) => Action::ReadReady { context, index },
                None => Action::ReadLost { context },
            });
        }
    }

    /// Queues a barrier for the next round. One that is under way began before the barrier was
    /// asked for and does not serve it; if none is, one begins at once, so that all barriers that
    /// come within a round trip share the next.
    fn queue_read(&mut self, from: MemberId, context: ReadContext) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        if leader.reads.len() >= READS_PENDING_MAX {
            return self.answer_read(from, context, None);
        }
        let (mut index, mut round) = (self.commit.max(leader.first_index), leader.round + 1);
        if mutation::is_on(Mutation::ReadBeforeOwnEntry) {
            index = self.commit;
        }
        if mutation::is_on(Mutation::ReadWithoutRound) {
            round = 0;
        }
        leader.reads.push_back(PendingRead {
            context,
            from,
            index,
            round,
        });
        self.begin_read_round();
        self.complete_reads();
    }

    /// Begins a round if barriers wait for one and the last one is answered.
    fn begin_read_round(&mut self) {
        let Standing::Leader(leader) = &self.standing else {
            return;
        };
        let is_wanted = leader
            .reads
            .back()
            .is_some_and(|read| read.round > leader.round);
        if is_wanted && leader.quorum_round(&self.configuration) >= leader.round {
            self.begin_round();
        }
    }

    /// Answers the barriers whose round a quorum has answered and whose index is committed; that
    /// index is no earlier than the first entry of this leader's term.
    pub(super) fn complete_reads(&mut self) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let answered = leader.quorum_round(&self.configuration);
        let commit = self.commit;
        let ready = |read: &PendingRead| read.round <= answered && read.index <= commit;
        let count = leader.reads.iter().take_while(|read| ready(read)).count();
        let reads: Vec<PendingRead> = leader.reads.drain(..count).collect();
        for read in reads {
            self.answer_read(read.from, read.context, Some(read.index));
        }
        self.begin_read_round();
    }

    /// This member does not lead any more: what waits is lost.
    pub(super) fn lose_reads(&mut self, reads: VecDeque<PendingRead>) {
        for read in reads {
            self.answer_read(read.from, read.context, None);
        }
    }

    fn answer_read(&mut self, from: MemberId, context: ReadContext, index: Option<LogIndex>) {
        if from != self.config.member {
            let term = self.term;
            return self.out.send(
                from,
                ConsensusMessage::ReadReply {
                    term,
                    context,
                    index,
                },
            );
        }
        self.out.push(match index {
            Some(index) => Action::ReadReady { context, index },
            None => Action::ReadLost { context },
        });
    }
}
