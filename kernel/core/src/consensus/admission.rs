//! Who may vote at a cluster's beginning (rule R21).
//!
//! A folder that holds nothing may be that of a new cluster's member, or that of a member whose
//! machine was lost and set up again, which may have voted and acknowledged. The member itself can
//! not tell; the others can. So a new log's member introduces itself, and takes part once a majority
//! *of the others* have it on disk that they know this life of its folder and no other. Two such
//! majorities have a member in common, so no second life is ever admitted, as long as it remembers.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::peer::ConsensusMessage;
use folkmoot_proto::{Incarnation, MemberId, Tick};

use super::{Action, Consensus};
use crate::log::LogRecord;

/// How far this member is with being admitted, and whom it admits.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) is_admitted: bool,
    /// The peers that know this life of the folder, and no other.
    vouching: BTreeSet<MemberId>,
    introduction_due: Tick,
    /// The life in which each peer was met first, and whether that is on disk.
    peers_met: BTreeMap<MemberId, (Incarnation, bool)>,
}

impl Admission {
    pub(super) fn new(
        is_admitted: bool,
        peers_met: BTreeMap<MemberId, Incarnation>,
        now: Tick,
    ) -> Self {
        let durable = |(member, incarnation)| (member, (incarnation, true));
        Self {
            is_admitted,
            vouching: BTreeSet::new(),
            introduction_due: now,
            peers_met: peers_met.into_iter().map(durable).collect(),
        }
    }
}

impl Consensus {
    /// When this member introduces itself next; none if it is admitted, or will not be.
    pub(super) fn introduction_due(&self) -> Option<Tick> {
        let asks = !self.admission.is_admitted && !self.wiped;
        asks.then_some(self.admission.introduction_due)
    }

    /// Introduces itself to those that have not answered.
    pub(super) fn introduce(&mut self) {
        if self.introduction_due().is_none_or(|due| due > self.now) {
            return;
        }
        self.admission.introduction_due = self.now.plus_millis(self.config.heartbeat_ms);
        let incarnation = self.config.incarnation;
        for to in self.peers() {
            if !self.admission.vouching.contains(&to) {
                self.out
                    .send(to, ConsensusMessage::Introduce { incarnation });
            }
        }
    }

    /// A new peer asks which life of its folder this member knows. The answer rests on what is on
    /// disk: a life that is forgotten in a crash could be followed by another one.
    pub(super) fn handle_introduce(&mut self, from: MemberId, incarnation: Incarnation) {
        match self.admission.peers_met.get(&from) {
            Some((_, true)) => self.answer_introduction(from),
            Some((_, false)) => {}
            None => {
                self.admission.peers_met.insert(from, (incarnation, false));
                self.persist(vec![LogRecord::PeerMet {
                    member: from,
                    incarnation,
                }]);
            }
        }
    }

    /// What is known of the peer is on disk.
    pub(super) fn finish_meeting(&mut self, peer: MemberId) {
        if let Some((_, is_durable)) = self.admission.peers_met.get_mut(&peer) {
            *is_durable = true;
        }
        self.answer_introduction(peer);
    }

    fn answer_introduction(&mut self, peer: MemberId) {
        if let Some((known, true)) = self.admission.peers_met.get(&peer) {
            let known = *known;
            self.out.send(peer, ConsensusMessage::Introduced { known });
        }
    }

    pub(super) fn handle_introduced(&mut self, from: MemberId, known: Incarnation) {
        if self.introduction_due().is_none() {
            return;
        }
        if known != self.config.incarnation {
            self.wiped = true;
            self.out.push(Action::NotAdmitted { by: from });
            return;
        }
        let peers = self.peers();
        let is_news = peers.contains(&from) && self.admission.vouching.insert(from);
        if is_news && self.admission.vouching.len() == peers.len() / 2 + 1 {
            self.persist(vec![LogRecord::Admitted]);
        }
    }

    /// From here on this member counts, for what it has acknowledged already too.
    pub(super) fn finish_admission(&mut self) {
        self.admission.is_admitted = true;
        self.postpone_election();
        self.following.acknowledged = folkmoot_proto::LogIndex::ZERO;
    }
}
