//! Timeouts, votes, coming into office and leaving it (Raft §5.2, §5.4.1; thesis §4.2.3, §9.6).

use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::{LogIndex, MemberId, Term};
use rand_core::Rng as _;

use super::follower::Following;
use super::replication::Leader;
use super::{Action, Consensus, Standing};
use crate::mutation::{self, Mutation};

impl Consensus {
    /// Whether this member may stand.
    pub(super) fn is_electable(&self) -> bool {
        self.may_vote() && self.configuration.is_voter(self.config.member)
    }

    /// Waits anew, between one and two election timeouts (Raft §5.2).
    pub(super) fn postpone_election(&mut self) {
        let timeout_us = self.config.election_timeout_ms.saturating_mul(1000).max(1);
        let wait_us = timeout_us + self.rng.next_u64() % timeout_us;
        self.election_deadline.0 = self.now.0.saturating_add(wait_us);
    }

    /// Asks whether it would be elected, before it raises the term (thesis §9.6): a member that was
    /// cut off must not depose a leader that the others hear.
    pub(super) fn stand_for_pre_vote(&mut self) {
        self.become_follower(self.term, None);
        let me = self.config.member;
        if self.configuration.is_alone(me) {
            return self.stand(false);
        }
        self.standing = Standing::PreCandidate(vec![me]);
        self.ask_for_votes(self.term.next(), true, false);
    }

    /// Stands for election. With `transfer` the leader asked for it.
    pub(super) fn stand(&mut self, transfer: bool) {
        self.become_follower(self.term, None);
        self.term = self.term.next();
        self.vote = Some(self.config.member);
        self.following = Following::default();
        self.standing = Standing::Candidate(Vec::new());
        self.persist_hard_state();
        self.ask_for_votes(self.term, false, transfer);
    }

    fn ask_for_votes(&mut self, term: Term, pre: bool, transfer: bool) {
        let peers = self.peers();
        for to in peers {
            self.out.send(
                to,
                ConsensusMessage::VoteRequest {
                    term,
                    pre,
                    last_index: self.log.last_index(),
                    last_term: self.log.last_term(),
                    transfer,
                },
            );
        }
    }

    /// All voters but this member.
    pub(super) fn peers(&self) -> Vec<MemberId> {
        let voters = self.configuration.voters().iter().copied();
        voters
            .filter(|voter| *voter != self.config.member)
            .collect()
    }

    /// Whether a log that ends so is at least as far as this member's (Raft §5.4.1).
    pub(super) fn is_covered_by(&self, last_index: LogIndex, last_term: Term) -> bool {
        (last_term, last_index) >= (self.log.last_term(), self.log.last_index())
    }

    /// Would this member vote for `from` in `term`? Nothing is promised by the answer. Members are
    /// answered whatever this member believes of who the members are (rule R21).
    pub(super) fn handle_pre_vote_request(
        &mut self,
        from: MemberId,
        term: Term,
        has_our_log: bool,
    ) {
        let free = self.vote.is_none_or(|vote| vote == from);
        let in_time = term > self.term || (term == self.term && free);
        let granted = in_time && has_our_log && self.may_vote() && !self.hears_a_leader();
        let term = if granted { term } else { self.term };
        self.out.send(
            from,
            ConsensusMessage::VoteReply {
                term,
                pre: true,
                granted,
            },
        );
    }

    /// A candidate asks for this member's vote. While it hears a leader, a member does not even
    /// take the candidate's term, so that one member that lost its leader deposes nobody (thesis
    /// §4.2.3); a transfer is the leader's own wish.
    pub(super) fn handle_vote_request(
        &mut self,
        from: MemberId,
        term: Term,
        has_our_log: bool,
        transfer: bool,
    ) {
        let is_held_off = self.hears_a_leader() && !transfer;
        if term > self.term && !is_held_off {
            self.become_follower(term, None);
        }
        let free = self.vote.is_none_or(|vote| vote == from);
        let granted =
            term == self.term && self.leader().is_none() && free && has_our_log && self.may_vote();
        if granted {
            if self.vote.is_none() {
                self.vote = Some(from);
                self.persist_hard_state();
            }
            self.standing = Standing::Follower;
            self.postpone_election();
        }
        self.out.send(
            from,
            ConsensusMessage::VoteReply {
                term: self.term,
                pre: false,
                granted,
            },
        );
    }

    pub(super) fn handle_vote_reply(
        &mut self,
        from: MemberId,
        term: Term,
        pre: bool,
        granted: bool,
    ) {
        let asked_for = if pre { self.term.next() } else { self.term };
        if term > self.term && !(pre && granted) {
            return self.become_follower(term, None);
        }
        if !granted || term != asked_for {
            return;
        }
        match &mut self.standing {
            Standing::PreCandidate(votes) if pre => {
                add(votes, from);
                let votes = votes.clone();
                if self
                    .configuration
                    .has_quorum(|voter| votes.contains(&voter))
                {
                    self.stand(false);
                }
            }
            Standing::Candidate(votes) if !pre => {
                add(votes, from);
                self.take_office_if_elected();
            }
            _ => {}
        }
    }

    /// A candidate's own vote counts once it is durable, as those of the others do (rule R17).
    pub(super) fn count_own_vote(&mut self) {
        let me = self.config.member;
        if self.out.hard_state_is_durable()
            && let Standing::Candidate(votes) = &mut self.standing
            && !votes.contains(&me)
        {
            add(votes, me);
            self.take_office_if_elected();
        }
    }

    fn take_office_if_elected(&mut self) {
        let Standing::Candidate(votes) = &self.standing else {
            return;
        };
        if self
            .configuration
            .has_quorum(|voter| votes.contains(&voter))
        {
            self.take_office();
        }
    }

    /// Begins to lead: a no-op of its own term comes first, since nothing of earlier terms is
    /// committed by counting (Raft §5.4.2, §8). It takes no zxid (rule R3).
    fn take_office(&mut self) {
        let first_index = self.log.last_index().next();
        let leader = Leader::new(&self.config, first_index, &self.peers(), self.now);
        self.standing = Standing::Leader(Box::new(leader));
        self.out.push(Action::Elected {
            term: self.term,
            first_index,
        });
        self.leader_is(Some(self.config.member));
        self.append_own(Entry {
            index: first_index,
            term: self.term,
            last_zxid: self.log.last_zxid(),
            kind: EntryKind::NoOp,
            payload: bytes::Bytes::new(),
        });
        self.begin_round();
        self.send_appends_to_all();
    }

    /// Follows `leader`, or waits for one, in `term`: leaves whatever office it held, and takes the
    /// term if it is a higher one. A leader that is heard of counts as voted for, so that a restart
    /// does not forget that the term is taken.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<MemberId>) {
        assert!(
            term >= self.term,
            "term {} would go back to {term}",
            self.term
        );
        self.leave_office();
        self.standing = Standing::Follower;
        if term > self.term {
            self.term = term;
            self.vote = leader;
            self.following = Following::default();
            self.persist_hard_state();
        }
        self.leader_is(leader);
        self.postpone_election();
    }

    /// Stops leading, if it leads.
    fn leave_office(&mut self) {
        if let Standing::Leader(leader) = &mut self.standing {
            let reads = leader.take_reads();
            self.standing = Standing::Follower;
            self.out.push(Action::Deposed { term: self.term });
            self.lose_reads(reads);
        }
    }

    /// The leader of this term, once it was heard of.
    pub(super) fn leader(&self) -> Option<MemberId> {
        self.leader_in_term.map(|(_, leader)| leader)
    }

    /// Takes note of who leads. What was asked of another leader is lost with it (rule R20).
    fn leader_is(&mut self, leader: Option<MemberId>) {
        let in_term = leader.map(|leader| (self.term, leader));
        if self.leader_in_term == in_term {
            return;
        }
        self.leader_in_term = in_term;
        for (context, _) in std::mem::take(&mut self.forwarded_reads) {
            self.out.push(Action::ReadLost { context });
        }
        self.out.push(Action::LeaderChanged {
            term: self.term,
            leader,
        });
    }

    /// Whether a leader was heard of within one election timeout; a leader in office hears itself,
    /// since `check_quorum` has just confirmed it.
    fn hears_a_leader(&self) -> bool {
        match &self.standing {
            Standing::Leader(_) => true,
            _ => self.leader().is_some() && self.following.heard_within(&self.config, self.now),
        }
    }

    /// A leader that no quorum has answered for one election timeout leaves office (rule R19,
    /// thesis §6.2). Contact counts from the time at which the round that was answered was sent
    /// (rule R8).
    pub(super) fn check_quorum(&mut self) {
        if mutation::is_on(Mutation::StayWithoutQuorum) {
            return;
        }
        if let Standing::Leader(leader) = &self.standing
            && !leader.has_contact(&self.config, &self.configuration, self.now)
        {
            self.become_follower(self.term, None);
        }
    }
}

fn add(votes: &mut Vec<MemberId>, voter: MemberId) {
    if !votes.contains(&voter) {
        votes.push(voter);
    }
}
