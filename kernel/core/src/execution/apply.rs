//! What consensus says, in its one order: entries to apply, and who leads.

use folkmoot_proto::client::ControlReply;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::{LogIndex, MemberId, Now, Term};

use super::leader::Leader;
use super::{ConsensusEvent, Execution, ExecutionAction};
use crate::mutation::{self, Mutation};
use crate::plugin::Discard;

/// Between two looks at the member's own timers, in milliseconds.
const MEMBER_ROUND_MS: u64 = 1000;

impl Execution {
    pub(in crate::execution) fn take_consensus(&mut self, now: Now, event: ConsensusEvent) {
        match event {
            ConsensusEvent::Committed { entries } => {
                for entry in entries {
                    if self.stopped {
                        return;
                    }
                    self.apply(now, &entry);
                }
            }
            ConsensusEvent::Elected { term, first_index } => self.elected(now, term, first_index),
            ConsensusEvent::Deposed { term } => self.deposed(term),
            ConsensusEvent::LeaderChanged { leader, .. } => self.leader_changed(now, leader),
            ConsensusEvent::ProposeRefused {
                term,
                last_appended,
                ..
            } => self.propose_refused(term, last_appended),
            ConsensusEvent::ReadReady { context, index } => {
                self.barrier_ready(context, index);
            }
            ConsensusEvent::ReadLost { context } => self.barrier_lost(context),
        }
    }

    /// Applies one entry. What can not be applied means that this member's state, or its log, is
    /// wrong (rules R3, R5, R6): it stops.
    fn apply(&mut self, now: Now, entry: &Entry) {
        let txns = match self.speculative_mut().base_mut().apply_entry(entry) {
            Ok(txns) => txns,
            Err(error) => {
                return self.stop(format!("entry {} can not be applied: {error}", entry.index));
            }
        };
        self.speculative_mut().commit_through(entry.last_zxid);
        self.take_hash(entry.index);
        self.lead_applied(now, entry, &txns);
        self.publish(now, &txns);
        self.go_on(now.tick, entry.index);
        if entry.kind == EntryKind::Batch {
            self.examine_sealed();
        }
    }

    fn elected(&mut self, now: Now, term: Term, first_index: LogIndex) {
        assert!(
            self.leader.is_none(),
            "elected in term {term} while leading {:?}",
            self.leader.as_ref().map(Leader::term)
        );
        let batches_max = self.config.batches_in_flight_max;
        self.leader = Some(Leader::new(term, first_index, now.tick, batches_max));
        if mutation::is_on(Mutation::ExecuteBeforeOwnEntry) {
            self.start_clocks(now.tick);
        }
    }

    /// The overlay, the warm instances and the work in the queue go with the office (rule R4).
    fn deposed(&mut self, term: Term) {
        if self
            .leader
            .take_if(|leader| leader.term() == term)
            .is_some()
        {
            self.drop_overlay();
        }
    }

    /// Throws the overlay away, and the instances that remember it (rule R14).
    pub(in crate::execution) fn drop_overlay(&mut self) {
        self.speculative_mut().reset();
        if !mutation::is_on(Mutation::KeepInstances) {
            self.discards.push(Discard::All);
        }
    }

    fn leader_changed(&mut self, now: Now, leader: Option<MemberId>) {
        self.known_leader = leader;
        self.heartbeats.clear();
        self.act(ExecutionAction::ToAllControls {
            reply: ControlReply::Leader { leader },
        });
        if leader.is_some() {
            self.rewind_all(now);
            self.ask_again();
        }
    }

    fn barrier_ready(&mut self, context: ReadContext, index: LogIndex) {
        if self.touches_ready(context) || self.attach_barrier(context, index) {
            return;
        }
        self.read_barrier_at(context, index);
    }

    fn barrier_lost(&mut self, context: ReadContext) {
        if !self.touches_lost(context) {
            self.read_barrier_lost(context);
        }
    }

    /// The member's own timers: what waits for an answer that may be lost asks again.
    pub(in crate::execution) fn member_round(&mut self, now: Now) {
        if now.tick < self.next_round {
            return;
        }
        self.next_round = now.tick.plus_millis(MEMBER_ROUND_MS);
        self.rewind_lost(now);
        self.ask_due(now.tick);
        self.end_idle_listings(now.tick);
        self.end_idle_snapshots(now.tick);
        self.mark_watches();
    }
}
