//! Log matching: two logs that hold an entry of one index and term hold the same up to there (Raft
//! §5.3, Figure 3). It is enough that an (index, term) always comes with one payload and one term
//! before it; the rest follows by induction.

use std::collections::BTreeMap;

use folkmoot_proto::entry::Entry;
use folkmoot_proto::{LogIndex, MemberId, Term};

use super::logs::{MemberLog, Print};
use crate::violation::{Checked, Violation};

#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    seen: BTreeMap<(LogIndex, Term), Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    payload: u64,
    term_before: Option<Term>,
    member: MemberId,
}

impl LogMatching {
    /// `member` has put `entry` behind `log`.
    pub(crate) fn appended(&mut self, member: MemberId, log: &MemberLog, entry: &Entry) -> Checked {
        let now = Seen {
            payload: Print::of(entry).payload,
            term_before: log.term_at(LogIndex(entry.index.0 - 1)),
            member,
        };
        let first = self.seen.entry((entry.index, entry.term)).or_insert(now);
        let same_before = match (first.term_before, now.term_before) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        if first.payload == now.payload && same_before {
            return Ok(());
        }
        Err(Violation::new(
            "log_matching",
            format!(
                "entry {} of term {} differs between members {} and {member}: {first:?}, {now:?}",
                entry.index, entry.term, first.member
            ),
        ))
    }
}
