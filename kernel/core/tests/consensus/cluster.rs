//! A cluster in memory: machines, disks and messages on their way. Raft's safety properties are
//! checked at every action (Raft, Figure 3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use folkmoot_core::consensus::{
    Action, Consensus, ConsensusConfig, LogRead, LogReadId, ProposeRefused, ProposedBatch,
    RecoveredLog, Role,
};
use folkmoot_core::log::LogRecord;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Tick, Zxid};

use crate::disk::Disk;
use crate::fixtures::{bootstrap, config, member, meta};

pub(crate) struct Cluster {
    pub(crate) voters: u64,
    pub(crate) nodes: BTreeMap<MemberId, Node>,
    /// What is on its way, oldest first.
    pub(crate) flights: VecDeque<Flight>,
    /// Directions in which nothing gets through.
    pub(crate) cut: BTreeSet<(MemberId, MemberId)>,
    /// Members whose disks do not sync.
    pub(crate) stalled: BTreeSet<MemberId>,
    pub(crate) now: Tick,
    /// Every entry that any member handed to execution.
    pub(crate) committed: BTreeMap<LogIndex, Entry>,
    /// Who was elected in each term.
    pub(crate) elected: BTreeMap<Term, MemberId>,
    /// What was committed when each barrier was asked for.
    reads: BTreeMap<ReadContext, LogIndex>,
    /// How the barriers ended.
    pub(crate) answered: BTreeMap<ReadContext, Option<LogIndex>>,
    /// Every entry that was ever written, with the term of the one before it.
    written: BTreeMap<(LogIndex, Term), (Bytes, Term)>,
    pub(crate) conflicts_repaired: u64,
    pub(crate) snapshots_installed: u64,
    configure: fn(&mut ConsensusConfig),
    seed: u64,
    sequence: u64,
    a_disk_is_lost: bool,
}

pub(crate) struct Node {
    pub(crate) machine: Option<Consensus>,
    pub(crate) disk: Disk,
    pub(crate) applied: LogIndex,
    pub(crate) log_reads: VecDeque<(LogReadId, LogIndex, LogIndex)>,
    runs: u64,
    /// How many folders it has had.
    lives: u64,
    /// How fast its clock runs; nothing that is promised may rest on clocks.
    pub(crate) clock_percent: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) cargo: Cargo,
}

#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    Message(ConsensusMessage),
    Snapshot { term: Term, meta: StateMeta },
}

impl Cluster {
    /// Members 1 to `voters` of a new cluster.
    pub(crate) fn new(voters: u64, seed: u64, configure: fn(&mut ConsensusConfig)) -> Self {
        let disks = (1..=voters)
            .map(|id| (member(id), Disk::default()))
            .collect();
        let mut cluster = Self::with_disks(voters, disks, seed, configure);
        for id in 1..=voters {
            let mut config = config(id);
            configure(&mut config);
            let seed = seed.wrapping_add(id);
            let log = RecoveredLog::empty();
            let machine = Consensus::start(config, log, bootstrap(voters), seed, cluster.now);
            cluster.node(member(id)).machine = Some(machine.unwrap());
            cluster.carry_out(member(id));
        }
        cluster.meet();
        cluster
    }

    /// The members introduce themselves, and are admitted.
    fn meet(&mut self) {
        for id in self.ids() {
            self.time_out(id);
        }
        self.settle();
    }

    /// Members with these disks, all of them down.
    pub(crate) fn with_disks(
        voters: u64,
        disks: BTreeMap<MemberId, Disk>,
        seed: u64,
        configure: fn(&mut ConsensusConfig),
    ) -> Self {
        let node = |disk| Node {
            machine: None,
            disk,
            applied: LogIndex::ZERO,
            log_reads: VecDeque::new(),
            runs: 0,
            lives: 1,
            clock_percent: 100,
        };
        Self {
            voters,
            nodes: disks
                .into_iter()
                .map(|(id, disk)| (id, node(disk)))
                .collect(),
            flights: VecDeque::new(),
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
            now: Tick(0),
            committed: BTreeMap::new(),
            elected: BTreeMap::new(),
            reads: BTreeMap::new(),
            answered: BTreeMap::new(),
            written: BTreeMap::new(),
            conflicts_repaired: 0,
            snapshots_installed: 0,
            configure,
            seed,
            sequence: 0,
            a_disk_is_lost: false,
        }
    }

    pub(crate) fn ids(&self) -> Vec<MemberId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, id: MemberId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// What the member's clock shows.
    fn clock(&self, id: MemberId) -> Tick {
        Tick(self.now.0 * self.nodes[&id].clock_percent / 100)
    }

    /// Gives an input to a member that runs, and carries its actions out.
    pub(crate) fn input<T>(
        &mut self,
        id: MemberId,
        input: impl FnOnce(&mut Consensus, Tick) -> T,
    ) -> Option<T> {
        let now = self.clock(id);
        let answer = input(self.node(id).machine.as_mut()?, now);
        self.carry_out(id);
        Some(answer)
    }

    /// Starts a member on its disk.
    pub(crate) fn start(&mut self, id: MemberId) {
        let (now, voters) = (self.clock(id), self.voters);
        let configure = self.configure;
        self.seed += 1;
        let seed = self.seed;
        let node = self.node(id);
        node.runs += 1;
        let mut config = config(id.0);
        config.run = node.runs + 1;
        config.incarnation = Incarnation(node.lives);
        configure(&mut config);
        let log = node.disk.recover();
        node.applied = log.applied;
        let machine = Consensus::start(config, log, bootstrap(voters), seed, now);
        node.machine = Some(machine.unwrap());
        self.carry_out(id);
    }

    /// Stops a member; of what was not synced the `kept` oldest records reach the disk.
    pub(crate) fn crash(&mut self, id: MemberId, kept: usize) {
        let node = self.node(id);
        node.machine = None;
        node.log_reads.clear();
        node.disk.crash(kept);
    }

    /// Takes everything from a member that is down (rule R21).
    pub(crate) fn wipe(&mut self, id: MemberId) {
        self.a_disk_is_lost = true;
        self.node(id).disk = Disk::wiped();
    }

    /// Takes everything from a member that is down, as where a machine is set up again: nothing says
    /// that there was a folder (rule R21).
    pub(crate) fn rebuild(&mut self, id: MemberId) {
        self.a_disk_is_lost = true;
        let node = self.node(id);
        node.disk = Disk::default();
        node.lives += 1;
    }

    /// Takes the last `lost` records of synced entries from a member that is down (rule R23).
    pub(crate) fn damage(&mut self, id: MemberId, lost: usize) {
        self.a_disk_is_lost = true;
        self.node(id).disk.damage(lost);
    }

    /// Proposes one transaction on top of all that the member appended.
    pub(crate) fn propose(
        &mut self,
        id: MemberId,
        text: &str,
    ) -> Option<Result<LogIndex, ProposeRefused>> {
        let term = self.nodes[&id].machine.as_ref()?.status().term;
        let log = self.nodes[&id].disk.written();
        let last = log
            .entries
            .last()
            .map_or(log.base.2, |entry| entry.last_zxid);
        let batch = ProposedBatch {
            term,
            base_zxid: last,
            last_zxid: Zxid(last.0 + 1),
            payload: Bytes::from(text.to_owned()),
        };
        self.input(id, |machine, now| machine.propose(now, batch))
    }

    /// Asks for a read barrier, which must reflect everything that is committed by then.
    pub(crate) fn read(&mut self, id: MemberId) -> Option<ReadContext> {
        self.sequence += 1;
        let context = ReadContext {
            member: id,
            run: self.nodes[&id].runs,
            sequence: self.sequence,
        };
        let floor = self
            .committed
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default();
        self.reads.insert(context, floor);
        self.input(id, |machine, now| machine.read_barrier(now, context))?;
        Some(context)
    }

    /// Recycles the log up to what is applied.
    pub(crate) fn compact(&mut self, id: MemberId) {
        let voters = self.voters;
        let up_to = self.nodes[&id].applied;
        let is_running = self.nodes[&id].machine.is_some();
        if let Some(last) = self.committed.get(&up_to).filter(|_| is_running) {
            let meta = meta(voters, up_to.0, last.term.0, last.last_zxid.0);
            self.node(id).disk.checkpoint = Some(meta);
            self.input(id, |machine, now| machine.log_compacted(now, up_to));
        }
    }

    /// Delivers what is on its way at `place`, unless the way is cut.
    pub(crate) fn deliver(&mut self, place: usize) {
        let Some(Flight { from, to, cargo }) = self.flights.remove(place) else {
            return;
        };
        if self.cut.contains(&(from, to)) {
            return self.lost(from, to, &cargo);
        }
        match cargo {
            Cargo::Message(message) => {
                self.input(to, |machine, now| {
                    machine.handle_message(now, from, message)
                });
            }
            Cargo::Snapshot { term, meta } => {
                self.input(to, |machine, now| {
                    machine.snapshot_installed(now, term, meta)
                });
                self.input(from, |machine, now| machine.snapshot_sent(now, to));
            }
        }
    }

    /// Loses what is on its way at `place`.
    pub(crate) fn lose(&mut self, place: usize) {
        if let Some(Flight { from, to, cargo }) = self.flights.remove(place) {
            self.lost(from, to, &cargo);
        }
    }

    /// The sender of a snapshot sees that its stream broke.
    fn lost(&mut self, from: MemberId, to: MemberId, cargo: &Cargo) {
        if matches!(cargo, Cargo::Snapshot { .. }) {
            self.input(from, |machine, now| machine.snapshot_failed(now, to));
        }
    }

    /// Syncs the oldest write of a member.
    pub(crate) fn sync(&mut self, id: MemberId) {
        if self.stalled.contains(&id) || self.nodes[&id].machine.is_none() {
            return;
        }
        if let Some(write) = self.node(id).disk.sync_one() {
            self.input(id, |machine, now| machine.handle_durable(now, write));
        }
    }

    /// Answers the oldest read of a member's log.
    pub(crate) fn answer_log_read(&mut self, id: MemberId) {
        if let Some((read, from, to)) = self.node(id).log_reads.pop_front() {
            let log = self.nodes[&id].disk.written();
            let wanted = log
                .entries
                .iter()
                .filter(|e| e.index >= from && e.index <= to);
            let entries: Vec<Entry> = wanted.take(2).cloned().collect();
            let has_first = entries.first().is_some_and(|entry| entry.index == from);
            let entries = if has_first { entries } else { Vec::new() };
            let read = LogRead { id: read, entries };
            self.input(id, |machine, now| machine.handle_log_read(now, read));
        }
    }

    /// Delivers, syncs and reads until nothing is left to do at this time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let busy: Vec<MemberId> = self
                .ids()
                .into_iter()
                .filter(|id| {
                    let node = &self.nodes[id];
                    let syncs = node.disk.pending_records() > 0 && !self.stalled.contains(id);
                    node.machine.is_some() && (syncs || !node.log_reads.is_empty())
                })
                .collect();
            if self.flights.is_empty() && busy.is_empty() {
                return;
            }
            self.deliver(0);
            for id in busy {
                self.sync(id);
                self.answer_log_read(id);
            }
        }
        panic!("it does not settle");
    }

    /// Lets time pass, and everything happen at once that can.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.plus_millis(ms);
        self.settle();
        loop {
            let due = |node: &Node| {
                let due = node.machine.as_ref()?.poll_timeout()?;
                Some(Tick((due.0 * 100).div_ceil(node.clock_percent)))
            };
            let next = self.nodes.values().filter_map(due).min();
            let next = next.unwrap_or(end).max(self.now).min(end);
            self.now = next;
            for id in self.ids() {
                self.time_out(id);
            }
            self.settle();
            if self.now >= end {
                return;
            }
        }
    }

    /// Calls the member's timeout if it is due.
    pub(crate) fn time_out(&mut self, id: MemberId) {
        let now = self.now;
        let due = self.nodes[&id]
            .machine
            .as_ref()
            .and_then(Consensus::poll_timeout);
        if due.is_some_and(|due| due <= now) {
            self.input(id, |machine, now| machine.handle_timeout(now));
        }
    }

    /// The leader of the highest term, if there is one.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        let status = |id: &MemberId| Some((*id, self.nodes[id].machine.as_ref()?.status()));
        let leaders = self.nodes.keys().filter_map(status);
        let leaders = leaders.filter(|(_, status)| status.role == Role::Leader);
        leaders
            .max_by_key(|(_, status)| status.term)
            .map(|(id, _)| id)
    }

    /// How the members stand, a line each.
    pub(crate) fn describe(&self) -> String {
        let line = |(id, node): (&MemberId, &Node)| {
            let status = node.machine.as_ref().map(Consensus::status);
            format!("{id}: applied {}, {status:?}\n", node.applied)
        };
        self.nodes.iter().map(line).collect()
    }

    fn carry_out(&mut self, id: MemberId) {
        loop {
            let node = self.node(id);
            let Some(action) = node.machine.as_mut().and_then(Consensus::poll_action) else {
                return;
            };
            match action {
                Action::Send { to, message } => self.flights.push_back(Flight {
                    from: id,
                    to,
                    cargo: Cargo::Message(message),
                }),
                Action::Persist { id: write, records } => {
                    node.disk.write(write, records.clone());
                    self.check_written(id, &records);
                }
                Action::ReadLog {
                    id: read, from, to, ..
                } => node.log_reads.push_back((read, from, to)),
                Action::Committed { entries } => {
                    self.check_committed(id, entries);
                    let (now, applied) = (self.clock(id), self.nodes[&id].applied);
                    if let Some(machine) = &mut self.node(id).machine {
                        machine.handle_applied(now, applied);
                    }
                }
                Action::SnapshotInstalled { meta } => {
                    node.applied = meta.index;
                    node.disk.checkpoint = Some(meta);
                    self.snapshots_installed += 1;
                }
                Action::Elected { term, first_index } => self.check_elected(id, term, first_index),
                Action::SnapshotNeeded { to } => self.send_snapshot(id, to),
                Action::ReadReady { context, index } => self.check_read(context, Some(index)),
                Action::ReadLost { context } => self.check_read(context, None),
                Action::Deposed { .. }
                | Action::LeaderChanged { .. }
                | Action::NotAdmitted { .. } => {}
            }
        }
    }

    fn send_snapshot(&mut self, from: MemberId, to: MemberId) {
        let term = self.nodes[&from].machine.as_ref().unwrap().status().term;
        let applied = self.nodes[&from].applied;
        let last = &self.committed[&applied];
        let meta = meta(self.voters, applied.0, last.term.0, last.last_zxid.0);
        self.flights.push_back(Flight {
            from,
            to,
            cargo: Cargo::Snapshot { term, meta },
        });
    }

    /// Log matching: an entry of one place and term is the same everywhere, and so is the one
    /// before it.
    fn check_written(&mut self, id: MemberId, records: &[LogRecord]) {
        let log = self.nodes[&id].disk.written();
        for record in records {
            let entry = match record {
                LogRecord::Entry(entry) => entry,
                LogRecord::Truncate { .. } => {
                    self.conflicts_repaired += 1;
                    continue;
                }
                _ => continue,
            };
            let before = log.entries.iter().rfind(|other| other.index < entry.index);
            let before = before.map_or(log.base.1, |other| other.term);
            let place = (entry.index, entry.term);
            let facts = (entry.payload.clone(), before);
            let known = self.written.entry(place).or_insert_with(|| facts.clone());
            assert_eq!(
                *known, facts,
                "two entries at {place:?}, one of them at {id}"
            );
        }
    }

    /// State machine safety, without gaps; and what is committed first is on a quorum of disks.
    fn check_committed(&mut self, id: MemberId, entries: Vec<Entry>) {
        for entry in entries {
            let index = entry.index;
            let node = self.node(id);
            assert_eq!(index, node.applied.next(), "member {id} skips entries");
            node.applied = index;
            assert!(
                node.disk.has(&entry),
                "member {id} applies {index} before it is durable"
            );
            match self.committed.get(&index) {
                Some(other) => assert_eq!(*other, entry, "member {id} applies another entry"),
                None => {
                    self.check_on_quorum(&entry);
                    self.committed.insert(index, entry);
                }
            }
        }
    }

    fn check_on_quorum(&self, entry: &Entry) {
        let count = self
            .nodes
            .values()
            .filter(|node| node.disk.has(entry))
            .count();
        assert!(
            self.a_disk_is_lost || count > self.nodes.len() / 2,
            "entry {} is committed and on {count} disks",
            entry.index
        );
    }

    /// Election safety and leader completeness.
    fn check_elected(&mut self, id: MemberId, term: Term, first_index: LogIndex) {
        let other = self.elected.insert(term, id);
        assert!(
            other.is_none(),
            "{other:?} and {id} are elected in term {term}"
        );
        let log = self.nodes[&id].disk.written();
        for (index, entry) in &self.committed {
            assert!(
                *index < first_index,
                "the leader {id} of {term} lacks entry {index}"
            );
            let own = log.entries.iter().find(|own| own.index == *index);
            assert!(
                *index <= log.base.0 || own == Some(entry),
                "the leader {id} of {term} has another entry {index}"
            );
        }
    }

    /// Rule R20: a read reflects everything that was committed anywhere when it was asked for.
    fn check_read(&mut self, context: ReadContext, index: Option<LogIndex>) {
        let floor = self.reads[&context];
        assert!(
            index.is_none_or(|index| index >= floor),
            "{context:?} is answered with {index:?}, and {floor} was committed before"
        );
        let other = self.answered.insert(context, index);
        assert_eq!(other, None, "{context:?} is answered twice");
    }
}
