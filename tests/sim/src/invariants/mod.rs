//! What must hold at every instant: one file for each invariant. They see what the members and
//! clients of the world see, from outside.

mod chain;
mod committed_log;
mod ephemerals;
mod exactly_once;
mod leases;
mod linearizable;
pub(crate) mod locks;
mod log_matching;
pub(crate) mod logs;
mod maps;
mod one_leader;
pub(crate) mod plugins;
mod read_barrier;
mod reads;
mod real_time;
mod state_hash;
mod truthful;
mod waits;
mod watches;

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_core::consensus::PersistId;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::batch::{Batch, Txn};
use folkmoot_proto::client::{Change, Query, ReadOutcome, ReadRefusal, Request, SnapshotNode};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::reply::Reply;
use folkmoot_proto::{LogIndex, MemberId, RequestId, SessionId, Term, Ticket, WatchId, Zxid};

use crate::client::watcher::Watcher;
use crate::client::worker::{Copy, Worker};
use crate::history::History;
use crate::member::engine::Applied;
use crate::oracle::{Oracle, Place};
use crate::seen::Event;
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
    pub(crate) real_time: real_time::RealTime,
    pub(crate) oracle: Oracle,
    /// Whether batches are real ones, which the oracle understands.
    understands: bool,
    /// What clients have asked.
    requests: BTreeMap<(SessionId, RequestId), Request>,
    /// Transactions that were committed and whose expiries are to be held against the clients.
    expiries: Vec<(Zxid, Txn)>,
    /// What the agreed history tells of partitions, to be counted.
    events: Vec<Event>,
    /// Members whose promises are lost with their folder: their disks do not count (rule R21).
    wiped: BTreeSet<MemberId>,
}

impl Checks {
    pub(crate) fn new(voters: usize, understands: bool) -> Self {
        Self {
            voters,
            logs: logs::Logs::default(),
            one_leader: one_leader::OneLeader::default(),
            log_matching: log_matching::LogMatching::default(),
            committed: committed_log::CommittedLog::default(),
            read_barrier: read_barrier::ReadBarrier::default(),
            state_hash: state_hash::StateHash::default(),
            real_time: real_time::RealTime::default(),
            oracle: Oracle::default(),
            understands,
            requests: BTreeMap::new(),
            expiries: Vec::new(),
            events: Vec::new(),
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
        term: Term,
        entry: &Entry,
    ) -> Result<First, Violation> {
        let first = self.committed.committed(member, term, entry)?;
        if first == First::Yes {
            self.committed
                .on_majority(&self.logs, &self.wiped, entry.index, self.voters)?;
            if self.understands && entry.kind == EntryKind::Batch {
                self.learn(entry)?;
            }
        }
        Ok(first)
    }

    /// The agreed history goes on.
    fn learn(&mut self, entry: &Entry) -> Checked {
        let batch = Batch::decode(&entry.payload).map_err(|error| {
            Violation::new(
                "chain",
                format!("entry {} can not be decoded: {error}", entry.index),
            )
        })?;
        chain::check(&self.oracle, entry, &batch)?;
        self.oracle.begin_batch(&batch);
        let mut zxid = batch.first_zxid;
        for txn in batch.txns {
            self.learn_txn(zxid, entry.term, txn)?;
            zxid = zxid.next();
        }
        Ok(())
    }

    fn learn_txn(&mut self, zxid: Zxid, term: Term, txn: Txn) -> Checked {
        exactly_once::logged(&self.oracle, zxid, &txn)?;
        waits::logged(&self.oracle, zxid, &txn)?;
        let origin = txn.origin.as_ref();
        let request = origin.and_then(|of| self.requests.get(&(of.session, of.request)));
        if let Some(request) = request {
            truthful::check(&self.oracle, zxid, &txn, request)?;
            plugins::check(&self.oracle, zxid, &txn, request)?;
        }
        let events = maps::logged(&self.oracle, zxid, &txn, request)?;
        self.events.extend(events);
        self.oracle.apply(Place { zxid, term }, &txn)?;
        ephemerals::check(&self.oracle, zxid, &txn)?;
        waits::closed(&self.oracle, zxid, &txn)?;
        let closes = |effect: &Effect| matches!(effect, Effect::CloseSession { expired: true, .. });
        if txn.effects.iter().any(closes) {
            self.expiries.push((zxid, txn));
        }
        Ok(())
    }

    /// Sessions have expired since this was asked: none of them has a client with a lease.
    pub(crate) fn expiries(
        &mut self,
        has_lease: impl Fn(SessionId) -> bool,
    ) -> Result<u64, Violation> {
        let expiries = std::mem::take(&mut self.expiries);
        for (zxid, txn) in &expiries {
            leases::check(*zxid, txn, &has_lease)?;
        }
        Ok(expiries.len() as u64)
    }

    /// What the agreed history tells of partitions since this was asked.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A client was told of a map.
    pub(crate) fn map_told(&self, copy: &Copy) -> Checked {
        maps::told(&self.oracle, copy)
    }

    /// A client that follows the map is given an answer that reflects `zxid`.
    pub(crate) fn map_complete(&self, worker: Option<&Worker>, zxid: Zxid) -> Checked {
        maps::complete(&self.oracle, worker.and_then(Worker::told), zxid)
    }

    /// Partitions that nobody owns, while somebody lives who could.
    pub(crate) fn orphans(&self) -> BTreeSet<PartitionId> {
        match maps::somebody_takes(&self.oracle) {
            true => maps::orphans(&self.oracle),
            false => BTreeSet::new(),
        }
    }

    /// Whether a session was closed, by whoever has its secret.
    pub(crate) fn was_closed(&self, session: SessionId) -> bool {
        let life = self.oracle.sessions.get(&session);
        life.is_some_and(|life| matches!(life.over, Some((_, false))))
    }

    /// Who owns what and is not to let go, by token.
    pub(crate) fn owners(&self) -> BTreeMap<PartitionId, Zxid> {
        maps::owners(&self.oracle)
    }

    /// The last zxid of the agreed history.
    pub(crate) fn zxid(&self) -> Zxid {
        self.oracle.zxid
    }

    /// A partition that was given to another owner for balance more than `most` times after `since`,
    /// without a cause meanwhile.
    pub(crate) fn restless(&self, since: Zxid, most: usize) -> Option<PartitionId> {
        let maps = &self.oracle.maps;
        let mut partitions = maps.now.keys().copied();
        partitions.find(|partition| maps.balanced(*partition, since) > most)
    }

    /// How a partition stands, for whoever wonders why.
    pub(crate) fn of_partition(&self, partition: PartitionId) -> String {
        let maps = &self.oracle.maps;
        let (log_time, of) = (self.oracle.log_time, maps.now.get(&partition));
        format!("{log_time:?}: {of:?} of {:?}, {:?}", maps.map, maps.ledger)
    }

    /// A client asks this for the first time.
    pub(crate) fn asked(&mut self, session: SessionId, request: &Request) {
        self.requests.insert((session, request.id), request.clone());
    }

    /// A client was given an answer.
    pub(crate) fn replied(
        &self,
        request: (SessionId, RequestId),
        zxid: Zxid,
        reply: &Reply,
    ) -> Checked {
        exactly_once::replied(&self.oracle, request, zxid, reply)
    }

    /// A client was told how a wait ended.
    pub(crate) fn completed(
        &self,
        wait: (SessionId, RequestId, Ticket),
        zxid: Zxid,
        reply: &Reply,
    ) -> Checked {
        exactly_once::completed(&self.oracle, wait, zxid, reply)
    }

    /// Whether a wait was ended by a leader of another term than that in which it began.
    pub(crate) fn survived(&self, ticket: Ticket) -> bool {
        let wait = self.oracle.waits.get(&ticket);
        wait.is_some_and(|wait| {
            wait.over
                .as_ref()
                .is_some_and(|(_, term, _)| *term != wait.begun_in)
        })
    }

    /// A client's read was answered.
    pub(crate) fn read(
        &self,
        query: &Query,
        (floor, zxid): (Zxid, Zxid),
        result: &Result<ReadOutcome, ReadRefusal>,
    ) -> Checked {
        reads::check(&self.oracle, query, (floor, zxid), result)
    }

    /// A watch was told of a whole transaction.
    pub(crate) fn watch_told(
        &self,
        id: WatchId,
        watcher: &Watcher,
        zxid: Zxid,
        changes: &[Change],
    ) -> Checked {
        watches::told(&self.oracle, id, watcher, zxid, changes)
    }

    /// A watch must have been told of everything up to `zxid`.
    pub(crate) fn watch_complete(&self, id: WatchId, watcher: &Watcher, zxid: Zxid) -> Checked {
        watches::complete(&self.oracle, id, watcher, zxid)
    }

    /// A watch's snapshot is whole.
    pub(crate) fn watch_snapshot(
        &self,
        id: WatchId,
        watcher: &Watcher,
        zxid: Zxid,
        nodes: &[SnapshotNode],
    ) -> Checked {
        watches::snapshot(&self.oracle, id, watcher, zxid, nodes)
    }

    /// What clients did to registers fits some order.
    pub(crate) fn linearizable(history: &History) -> Checked {
        for (register, operations) in history.registers.iter().enumerate() {
            linearizable::check(register, operations)?;
        }
        Ok(())
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

    /// A member has applied so much.
    pub(crate) fn applied(&mut self, member: MemberId, applied: Applied) -> Checked {
        self.state_hash.applied(member, applied)
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
