//! Equal state at equal position: members that have applied the same entries have the same hash
//! (rule R27).

use std::collections::BTreeMap;

use folkmoot_proto::{LogIndex, MemberId, Zxid};

use crate::member::engine::Applied;
use crate::violation::{Checked, Violation};

#[derive(Debug, Default)]
pub(crate) struct StateHash {
    seen: BTreeMap<LogIndex, (Zxid, u64, MemberId)>,
}

impl StateHash {
    /// `member` has applied so much.
    pub(crate) fn applied(&mut self, member: MemberId, applied: Applied) -> Checked {
        let now = (applied.zxid, applied.hash, member);
        let first = self.seen.entry(applied.index).or_insert(now);
        if (first.0, first.1) == (now.0, now.1) {
            return Ok(());
        }
        Err(Violation::new(
            "state_hash",
            format!(
                "at entry {} member {member} has zxid {} and hash {:x}, member {} had zxid {} and hash {:x}",
                applied.index, now.0, now.1, first.2, first.0, first.1
            ),
        ))
    }
}
