//! State hashes at fixed positions, compared between members (rule R27).

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{LogIndex, MemberId, Zxid};

use crate::execution::{Execution, ExecutionAction};
use crate::state::View;

/// Positions that are kept: members are not further apart than that, or are compared later.
const POSITIONS_MAX: usize = 8;

/// What members have said of their states.
#[derive(Debug, Default)]
pub(in crate::execution) struct Hashes {
    positions: BTreeMap<LogIndex, BTreeMap<MemberId, (Zxid, u64)>>,
    /// Differences that were told, so that each is told once.
    alarmed: BTreeSet<(MemberId, LogIndex)>,
}

impl Hashes {
    fn note(&mut self, index: LogIndex, member: MemberId, zxid: Zxid, hash: u64) {
        let position = self.positions.entry(index).or_default();
        position.insert(member, (zxid, hash));
        while self.positions.len() > POSITIONS_MAX {
            self.positions.pop_first();
        }
    }

    /// Whether a difference is told for the first time.
    fn is_news(&mut self, peer: MemberId, index: LogIndex) -> bool {
        let positions = &self.positions;
        self.alarmed.retain(|(_, at)| positions.contains_key(at));
        self.alarmed.insert((peer, index))
    }
}

impl Execution {
    /// Tells the other members this member's hash, at each fixed position.
    pub(in crate::execution) fn take_hash(&mut self, index: LogIndex) {
        if self.config.hash_interval == 0 || !index.0.is_multiple_of(self.config.hash_interval) {
            return;
        }
        let (zxid, hash) = (self.state().zxid(), self.state_hash());
        let me = self.config.member;
        self.hashes.note(index, me, zxid, hash);
        for to in self.voters().into_iter().filter(|voter| *voter != me) {
            let message = ExecutionMessage::StateHash { index, zxid, hash };
            self.act(ExecutionAction::ToPeer { to, message });
        }
        self.compare(index);
    }

    /// Another member says its hash at a position.
    pub(in crate::execution) fn hash_told(
        &mut self,
        from: MemberId,
        index: LogIndex,
        zxid: Zxid,
        hash: u64,
    ) {
        if self.voters().contains(&from) {
            self.hashes.note(index, from, zxid, hash);
            self.compare(index);
        }
    }

    /// A single difference is an alarm: either side may be wrong. Only a majority of the voters
    /// that agrees with itself and not with this member takes it out.
    fn compare(&mut self, index: LogIndex) {
        let me = self.config.member;
        let Some(position) = self.hashes.positions.get(&index) else {
            return;
        };
        let Some(mine) = position.get(&me).copied() else {
            return;
        };
        let mut against: BTreeMap<(Zxid, u64), usize> = BTreeMap::new();
        let mut differing = Vec::new();
        for (member, theirs) in position.iter().filter(|(_, theirs)| **theirs != mine) {
            *against.entry(*theirs).or_default() += 1;
            differing.push(*member);
        }
        let majority = self.voters().len() / 2 + 1;
        if against.values().any(|members| *members >= majority) {
            let reason = format!("a majority has another state than this member at entry {index}");
            return self.stop(reason);
        }
        for peer in differing {
            if self.hashes.is_news(peer, index) {
                self.act(ExecutionAction::HashAlarm { peer, index });
            }
        }
    }

    fn voters(&self) -> Vec<MemberId> {
        self.state().bootstrap().voters()
    }
}
