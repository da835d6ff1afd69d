//! State machine safety: at one index all members apply one entry (Raft Figure 3), each in order
//! and without gaps (commit only moves on); and leader completeness: whoever leads has every entry
//! that was ever committed (Raft §5.4). With the chain of replies to commits this is "no
//! acknowledged write is lost".

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::entry::Entry;
use folkmoot_proto::{LogIndex, MemberId, Term};

use super::logs::{Logs, MemberLog, Print};
use crate::violation::{Checked, Violation};

#[derive(Debug, Default)]
pub(crate) struct CommittedLog {
    /// From entry 1, with the term of the member that first said that it is committed.
    entries: Vec<(Print, Term)>,
    handed_out: BTreeMap<MemberId, LogIndex>,
}

/// Whether an entry was committed by anyone before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Yes,
    No,
}

impl CommittedLog {
    /// The last entry that any member said is committed.
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.entries.len() as u64)
    }

    /// A member starts with everything up to `applied` applied already, or had a snapshot of that
    /// installed.
    pub(crate) fn starts_at(&mut self, member: MemberId, applied: LogIndex) -> Checked {
        self.handed_out.insert(member, applied);
        if applied <= self.last() {
            return Ok(());
        }
        Err(Violation::new(
            "state_machine_safety",
            format!(
                "member {member} starts at entry {applied}, only {} are committed",
                self.last()
            ),
        ))
    }

    /// `member` hands `entry` to its execution.
    pub(crate) fn committed(
        &mut self,
        member: MemberId,
        term: Term,
        entry: &Entry,
    ) -> Result<First, Violation> {
        let before = self.handed_out.entry(member).or_default();
        if entry.index != before.next() {
            return Err(Violation::new(
                "commit_monotone",
                format!(
                    "member {member} hands out entry {} after entry {before}",
                    entry.index
                ),
            ));
        }
        *before = entry.index;
        let print = Print::of(entry);
        match self.entries.get(entry.index.0 as usize - 1) {
            None => {
                self.entries.push((print, term));
                Ok(First::Yes)
            }
            Some((first, _)) if *first == print => Ok(First::No),
            Some((first, _)) => Err(Violation::new(
                "state_machine_safety",
                format!(
                    "member {member} applies {print:?} at entry {}, another applied {first:?}",
                    entry.index
                ),
            )),
        }
    }

    /// `member` leads `term`, with `log`.
    pub(crate) fn elected(&self, member: MemberId, term: Term, log: &MemberLog) -> Checked {
        for index in log.base().0 + 1..=self.entries.len() as u64 {
            let index = LogIndex(index);
            let (committed, committed_in) = self.entries[index.0 as usize - 1];
            // An election of an earlier term that was won late promises nothing of later ones.
            if committed_in < term && log.at(index) != Some(committed) {
                return Err(Violation::new(
                    "leader_completeness",
                    format!(
                        "member {member} leads term {term} with {:?} at entry {index}, {committed:?} was committed",
                        log.at(index)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// An entry is committed for the first time: a majority of disks has it (rule R17).
    pub(crate) fn on_majority(
        &self,
        logs: &Logs,
        wiped: &BTreeSet<MemberId>,
        index: LogIndex,
        voters: usize,
    ) -> Checked {
        let (committed, _) = self.entries[index.0 as usize - 1];
        let holders = logs
            .iter()
            .filter(|(member, _)| !wiped.contains(member))
            .filter(|(_, log)| {
                (log.durable() >= index && log.base() >= index)
                    || (log.durable() >= index && log.at(index) == Some(committed))
            })
            .count();
        if holders > voters / 2 {
            return Ok(());
        }
        Err(Violation::new(
            "durable_majority",
            format!("entry {index} is committed and on the disks of {holders} of {voters} voters"),
        ))
    }
}
