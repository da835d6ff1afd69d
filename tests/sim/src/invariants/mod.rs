//! What must hold at every instant: one file for each invariant. They see what the members and
//! clients of the world see, from outside.

mod committed_log;
mod log_matching;
pub(crate) mod logs;
mod one_leader;
mod read_barrier;
mod state_hash;

use std::collections::BTreeSet;

use folkmoot_core::consensus::PersistId;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, MemberId, Term};

use crate::violation::{Checked, Violation};
pub(crate) use committed_log::First;
use logs::Print;

/// All invariants of one world.
#[derive(Debug)]
pub(crate) struct Checks {
    voters: usize,
    pub(crate) logs: logs::Logs,
    one_leader: one_leader::OneLeader,
    log_matching: log_matching::LogMatching,
    committed: committed_log::CommittedLog,
    read_barrier: read_barrier::ReadBarrier,
    state_hash: state_hash::StateHash,
    /// Members whose promises are lost with their folder: their disks do not count (rule R21).
    wiped: BTreeSet<MemberId>,
}

impl Checks {
    pub(crate) fn new(voters: usize) -> Self {
        Self {
            voters,
            logs: logs::Logs::default(),
            one_leader: one_leader::OneLeader::default(),
            log_matching: log_matching::LogMatching::default(),
            committed: committed_log::CommittedLog::default(),
            read_barrier: read_barrier::ReadBarrier::default(),
            state_hash: state_hash::StateHash::default(),
            wiped: BTreeSet::new(),
        }
    }

    /// A member starts with this log, with everything up to `applied` applied.
    pub(crate) fn recovered(
        &mut self,
        member: MemberId,
        base: (LogIndex, Term),
        entries: &[Print],
        applied: LogIndex,
    ) -> Checked {
        self.logs.recovered(member, base, entries);
        self.committed.starts_at(member, applied)
    }

    /// A member writes to its log.
    pub(crate) fn persisted(
        &mut self,
        member: MemberId,
        id: PersistId,
        records: &[LogRecord],
    ) -> Checked {
        for record in records {
            self.logs.write(member, record);
            let (LogRecord::Entry(entry), Some(log)) = (record, self.logs.of(member)) else {
                continue;
            };
            self.log_matching.appended(member, log, entry)?;
        }
        self.logs.written(member, id);
        Ok(())
    }

    /// A member leads.
    pub(crate) fn elected(&mut self, member: MemberId, term: Term) -> Checked {
        self.one_leader.elected(member, term)?;
        match self.logs.of(member) {
            Some(log) => self.committed.elected(member, term, log),
            None => Ok(()),
        }
    }

    /// A member says that an entry is committed.
    pub(crate) fn committed(
        &mut self,
        member: MemberId,
        entry: &Entry,
    ) -> Result<First, Violation> {
        let first = self.committed.committed(member, entry)?;
        if first == First::Yes {
            self.committed
                .on_majority(&self.logs, &self.wiped, entry.index, self.voters)?;
        }
        Ok(first)
    }

    /// A member's state is that of a snapshot.
    pub(crate) fn installed(&mut self, member: MemberId, index: LogIndex) -> Checked {
        self.committed.starts_at(member, index)
    }

    /// The last entry that was committed.
    pub(crate) fn last_committed(&self) -> LogIndex {
        self.committed.last()
    }

    /// A member's folder was emptied.
    pub(crate) fn wiped(&mut self, member: MemberId) {
        self.wiped.insert(member);
    }

    /// A member has applied what `meta` says.
    pub(crate) fn applied(&mut self, member: MemberId, meta: &StateMeta) -> Checked {
        self.state_hash.applied(member, meta)
    }

    /// A read barrier is asked for.
    pub(crate) fn read_asked(&mut self, context: ReadContext) {
        self.read_barrier.asked(context, self.committed.last());
    }

    /// A read barrier holds.
    pub(crate) fn read_ready(&mut self, context: ReadContext, index: LogIndex) -> Checked {
        self.read_barrier.ready(context, index)
    }

    /// A read barrier is lost.
    pub(crate) fn read_lost(&mut self, context: ReadContext) {
        self.read_barrier.lost(context);
    }
}
