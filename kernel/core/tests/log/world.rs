//! One member's log on a model disk, beside an oracle that says what it must hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_core::consensus::{PersistId, RecoveredLog};
use folkmoot_core::log::{
    Log, LogConfig, LogOrigin, LogRecord, RecoverError, Recovered, SnapshotStep,
};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{ClusterId, Incarnation, LogIndex, LogTime, MemberId, Term, Zxid};

use crate::disk::ModelDisk;

/// Segments of a header and nine blocks: the stories below fill several.
pub(crate) const SEGMENT_BYTES: u64 = 10 * 4096;

pub(crate) fn config() -> LogConfig {
    LogConfig {
        cluster: ClusterId([7; 16]),
        member: MemberId(2),
        incarnation: Incarnation(0x1234_5678),
        segment_bytes: SEGMENT_BYTES,
        recent_bytes_max: 20_000,
    }
}

/// What a log holds after some record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    pub(crate) admitted: bool,
    pub(crate) peers_met: BTreeMap<MemberId, Incarnation>,
    /// The snapshot's entry on which the entries continue, and its zxid.
    pub(crate) base: (LogIndex, Zxid),
    pub(crate) entries: Vec<Entry>,
}

impl Held {
    pub(crate) const fn empty() -> Self {
        Self {
            term: Term::ZERO,
            vote: None,
            admitted: false,
            peers_met: BTreeMap::new(),
            base: (LogIndex::ZERO, Zxid::ZERO),
            entries: Vec::new(),
        }
    }

    pub(crate) fn last(&self) -> LogIndex {
        self.entries.last().map_or(self.base.0, |entry| entry.index)
    }

    fn last_zxid(&self) -> Zxid {
        self.entries
            .last()
            .map_or(self.base.1, |entry| entry.last_zxid)
    }

    pub(crate) fn next_entry(&self, payload_bytes: usize) -> Entry {
        let index = self.last().next();
        let byte = (index.0 * 31 + self.term.0 * 7) as u8;
        Entry {
            index,
            term: self.term,
            last_zxid: Zxid(self.last_zxid().0 + 3),
            kind: EntryKind::Batch,
            payload: Bytes::from(vec![byte; payload_bytes]),
        }
    }

    fn apply(&mut self, record: &LogRecord) {
        match record {
            LogRecord::HardState { term, vote } => (self.term, self.vote) = (*term, *vote),
            LogRecord::Entry(entry) => self.entries.push(entry.clone()),
            LogRecord::Truncate { last } => self.entries.retain(|entry| entry.index <= *last),
            LogRecord::SnapshotInstalled { meta } => {
                self.base = (meta.index, meta.zxid);
                self.entries.clear();
            }
            LogRecord::Repaired { .. } => {}
            LogRecord::Admitted => self.admitted = true,
            LogRecord::PeerMet {
                member,
                incarnation,
            } => drop(self.peers_met.insert(*member, *incarnation)),
        }
    }

    pub(crate) fn meta_at(&self, index: LogIndex) -> StateMeta {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.index == index)
            .unwrap();
        meta(index, entry.term, entry.last_zxid)
    }
}

pub(crate) fn meta(index: LogIndex, term: Term, zxid: Zxid) -> StateMeta {
    StateMeta {
        cluster: config().cluster,
        index,
        term,
        zxid,
        log_time: LogTime(index.0 * 10),
        state_hash: index.0 * 1000,
        feature_level: 1,
        bootstrap: Bytes::from_static(b"the members"),
    }
}

/// The log, its disk, its checkpoint store, and all that it was asked to hold.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) disk: ModelDisk,
    pub(crate) current: Option<StateMeta>,
    pub(crate) prepared: Option<StateMeta>,
    /// What must be held after each record, from none on.
    pub(crate) history: Vec<Held>,
    /// How many records are promised to be durable.
    pub(crate) promised: usize,
    /// Where in the history each persist ends.
    persists: Vec<(PersistId, usize)>,
    next_persist: u64,
}

impl World {
    pub(crate) fn create() -> Self {
        let (log, state) = Log::create(config(), LogOrigin::Bootstrap);
        assert_eq!(state.last_index, LogIndex::ZERO);
        Self::with(log, ModelDisk::default(), vec![Held::empty()], 0)
    }

    fn with(log: Log, disk: ModelDisk, history: Vec<Held>, promised: usize) -> Self {
        Self {
            log,
            disk,
            current: None,
            prepared: None,
            history,
            promised,
            persists: Vec::new(),
            next_persist: 1,
        }
    }

    /// What was appended, durable or not.
    pub(crate) fn held(&self) -> &Held {
        self.history.last().unwrap()
    }

    /// What is promised.
    pub(crate) fn durable(&self) -> &Held {
        &self.history[self.promised]
    }

    pub(crate) fn append(&mut self, records: Vec<LogRecord>) {
        for record in &records {
            let mut held = self.held().clone();
            held.apply(record);
            self.history.push(held);
        }
        let id = PersistId(self.next_persist);
        self.next_persist += 1;
        self.persists.push((id, self.history.len() - 1));
        self.log.append(id, records);
    }

    pub(crate) fn append_entries(&mut self, sizes: &[usize]) {
        let mut held = self.held().clone();
        let records = sizes.iter().map(|bytes| {
            let record = LogRecord::Entry(held.next_entry(*bytes));
            held.apply(&record);
            record
        });
        let records = records.collect();
        self.append(records);
    }

    /// Submits what the log wants done.
    pub(crate) fn submit(&mut self) -> bool {
        let mut any = false;
        while let Some(op) = self.log.poll_op() {
            self.disk.submit(op);
            any = true;
        }
        any
    }

    /// Carries out one open operation, the last of them if `last`.
    pub(crate) fn complete_one(&mut self, last: bool) -> bool {
        let open = self.disk.open();
        let Some(id) = (if last { open.last() } else { open.first() }) else {
            return false;
        };
        self.disk.complete(*id);
        self.log.handle_done(*id, Ok(())).unwrap();
        if let Some(done) = self.log.poll_durable() {
            let (_, promised) = self.persists.iter().find(|(id, _)| *id == done).unwrap();
            self.promised = self.promised.max(*promised);
            self.install_if_logged();
        }
        true
    }

    fn install_if_logged(&mut self) {
        if let Some(prepared) = &self.prepared
            && self.history[..=self.promised]
                .iter()
                .any(|held| held.base.0 == prepared.index)
        {
            self.log.compact(prepared.index);
            self.current = self.prepared.take();
        }
    }

    /// A durable checkpoint of an applied entry.
    pub(crate) fn checkpoint(&mut self, index: LogIndex) {
        self.current = Some(self.durable().meta_at(index));
        self.log.compact(index);
    }

    /// Runs the disk until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        while self.submit() || self.complete_one(false) {}
    }

    pub(crate) fn recover(&self, disk: &ModelDisk) -> Result<Recovered, RecoverError> {
        Log::recover(
            &config(),
            disk,
            self.current.as_ref(),
            self.prepared.as_ref(),
        )
    }

    /// The member at its next start, on a disk that a crash has left. Its log holds what was
    /// promised, possibly more of what was asked for, and nothing else: the world says how much.
    pub(crate) fn restart(&self, disk: ModelDisk) -> Self {
        let recovered = self.recover(&disk).unwrap();
        let found = self.recognize(&recovered, &disk);
        let mut world = Self::with(
            recovered.log,
            disk,
            self.history[..=found].to_vec(),
            self.promised,
        );
        world.current = self.current.clone();
        world.prepared = self.prepared.clone();
        world
    }

    /// Starts a log that was recovered: from here on, what it holds is promised.
    pub(crate) fn start(&mut self) {
        while !self.log.is_started() {
            self.submit();
            self.complete_one(false);
        }
        self.promised = self.history.len() - 1;
        self.install_if_logged();
    }

    fn recognize(&self, recovered: &Recovered, disk: &ModelDisk) -> usize {
        let state = &recovered.state;
        assert_eq!(state.damaged_up_to, None, "a crash was taken for a loss");
        let held = found(recovered, disk);
        let place = self
            .history
            .iter()
            .enumerate()
            .rev()
            .find(|(place, promised)| *place >= self.promised && is_same(&held, promised, state));
        let Some((place, _)) = place else {
            panic!(
                "promised was {:?} (after {} records), found {:?}",
                brief(self.durable()),
                self.promised,
                brief(&held)
            );
        };
        if recovered.snapshot == SnapshotStep::Install {
            assert_eq!(
                Some(state.applied),
                self.prepared.as_ref().map(|meta| meta.index)
            );
        } else {
            assert_eq!(
                state.applied,
                self.current
                    .as_ref()
                    .map_or(LogIndex::ZERO, |meta| meta.index)
            );
        }
        place
    }
}

/// What a recovered log holds, read back entry by entry.
pub(crate) fn found(recovered: &Recovered, disk: &ModelDisk) -> Held {
    let state = &recovered.state;
    let base = state
        .base
        .as_ref()
        .map_or((LogIndex::ZERO, Zxid::ZERO), |meta| (meta.index, meta.zxid));
    let mut entries: Vec<Entry> = Vec::new();
    while entries.last().map_or(base.0, |entry| entry.index) < state.last_index {
        let from = entries.last().map_or(base.0, |entry| entry.index).next();
        let read = recovered
            .log
            .read(disk, from, state.last_index, 5000)
            .unwrap();
        assert_eq!(read.first().map(|entry| entry.index), Some(from));
        entries.extend(read);
    }
    check_state(state, &entries);
    Held {
        term: state.term,
        vote: state.vote,
        admitted: state.admitted,
        peers_met: state.peers_met.clone(),
        base,
        entries,
    }
}

fn check_state(state: &RecoveredLog, entries: &[Entry]) {
    let recent = &entries[entries.len() - state.recent.len()..];
    assert_eq!(
        state.recent, recent,
        "the recent entries are not the last ones"
    );
    let mut terms: Vec<(LogIndex, Term)> = Vec::new();
    for entry in entries {
        if terms.last().is_none_or(|(_, term)| *term != entry.term) {
            terms.push((entry.index, entry.term));
        }
    }
    assert_eq!(state.term_runs, terms);
    let base_zxid = state.base.as_ref().map_or(Zxid::ZERO, |meta| meta.zxid);
    assert_eq!(
        state.last_zxid,
        entries.last().map_or(base_zxid, |entry| entry.last_zxid)
    );
}

/// Whether what was found is what was promised, apart from what a checkpoint covers.
fn is_same(found: &Held, promised: &Held, state: &RecoveredLog) -> bool {
    let visible: Vec<_> = promised
        .entries
        .iter()
        .filter(|entry| entry.index > found.base.0)
        .collect();
    let base = promised.base.0 == found.base.0
        || (promised.base.0 < found.base.0 && found.base.0 == state.applied);
    base && (found.term, found.vote) == (promised.term, promised.vote)
        && (found.admitted, &found.peers_met) == (promised.admitted, &promised.peers_met)
        && found.last() == promised.last().max(found.base.0)
        && found.entries.iter().eq(visible)
}

fn brief(held: &Held) -> (Term, Option<MemberId>, LogIndex, LogIndex) {
    (held.term, held.vote, held.base.0, held.last())
}
