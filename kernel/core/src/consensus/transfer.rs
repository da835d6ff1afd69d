//! Handing leadership over (thesis §3.10), at an operator's wish or because something stalls here
//! (rule R19).

use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::{MemberId, Term, Tick};

use super::{Consensus, Stall, Standing};

/// Election timeouts that a leader is in office before it hands leadership over because it stalls.
/// Where all members stall, as on a machine that is short of cores, leadership would go round
/// without end, and nothing be done in the meantime.
const OFFICE_TIMEOUTS_MIN: u64 = 4;

/// Leadership on its way to another member. Nothing is appended meanwhile.
#[derive(Debug)]
pub(super) struct Transfer {
    target: MemberId,
    /// When it is given up.
    deadline: Tick,
    is_asked: bool,
}

impl Consensus {
    /// Hands leadership to `target`, or to the peer that is furthest. Proposals are refused
    /// meanwhile; given up after one election timeout. Without leadership, or while it is handed
    /// over already, it does nothing.
    pub fn transfer_leadership(&mut self, now: Tick, target: Option<MemberId>) {
        self.begin(now);
        self.begin_transfer(target);
    }

    /// Something in this process stalls: a leader hands leadership over (rule R19), if it was in
    /// office for four election timeouts.
    pub fn report_stall(&mut self, now: Tick, stall: Stall) {
        self.begin(now);
        match stall {
            Stall::Disk | Stall::Execution => self.hand_leadership_on(),
        }
    }

    /// A leader whose own writes take longer than an election timeout hands leadership over.
    pub(super) fn watch_own_disk(&mut self) {
        let stalls = |since| self.now.millis_since(since) >= self.config.election_timeout_ms;
        if self.out.writing_since().is_some_and(stalls) {
            self.hand_leadership_on();
        }
    }

    fn hand_leadership_on(&mut self) {
        let patience_ms = OFFICE_TIMEOUTS_MIN * self.config.election_timeout_ms;
        let is_settled = |since| self.now.millis_since(since) >= patience_ms;
        if let Standing::Leader(leader) = &self.standing
            && is_settled(leader.since)
        {
            self.begin_transfer(None);
        }
    }

    fn begin_transfer(&mut self, target: Option<MemberId>) {
        let Some(target) = target.or_else(|| self.furthest_peer()) else {
            return;
        };
        let deadline = self.now.plus_millis(self.config.election_timeout_ms);
        if let Standing::Leader(leader) = &mut self.standing
            && leader.transfer.is_none()
            && leader.peers.contains_key(&target)
        {
            leader.transfer = Some(Transfer {
                target,
                deadline,
                is_asked: false,
            });
            self.send_appends(target);
            self.finish_transfer();
        }
    }

    /// The peer with the longest log among those heard within one election timeout whose answers
    /// count.
    fn furthest_peer(&self) -> Option<MemberId> {
        let Standing::Leader(leader) = &self.standing else {
            return None;
        };
        let is_near = |contact| self.now.millis_since(contact) < self.config.election_timeout_ms;
        let peers = leader.peers.iter();
        peers
            .filter(|(_, progress)| progress.contact.is_some_and(is_near))
            .max_by_key(|(_, progress)| progress.counted_index)
            .map(|(peer, _)| *peer)
    }

    /// Asks the target to stand, once it has the whole log.
    pub(super) fn finish_transfer(&mut self) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let Some(transfer) = &mut leader.transfer else {
            return;
        };
        let counted = leader
            .peers
            .get(&transfer.target)
            .map(|progress| progress.counted_index);
        if !transfer.is_asked && counted == Some(self.log.last_index()) {
            transfer.is_asked = true;
            self.out.send(
                transfer.target,
                ConsensusMessage::TimeoutNow { term: self.term },
            );
        }
    }

    /// Leads on if the target was not elected in time.
    pub(super) fn end_overdue_transfer(&mut self) {
        if let Standing::Leader(leader) = &mut self.standing
            && let Some(transfer) = &leader.transfer
            && self.now >= transfer.deadline
        {
            leader.transfer = None;
        }
    }

    /// The leader asks this member to stand at once.
    pub(super) fn handle_timeout_now(&mut self, from: MemberId, term: Term) {
        let is_from_leader = term == self.term && self.leader() == Some(from);
        if is_from_leader && !self.leads() && self.is_electable() {
            self.stand(true);
        }
    }
}
