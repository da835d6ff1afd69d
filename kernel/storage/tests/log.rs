//! The log on real files, on its thread.

#![allow(clippy::unwrap_used, reason = "a test that fails here says so")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use folkmoot_core::checkpoint::CheckpointStore;
use folkmoot_core::consensus::{LogReadId, PersistId, RecoveredLog};
use folkmoot_core::log::{LogConfig, LogOrigin, LogRecord, RecoverError};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{ClusterId, Incarnation, LogIndex, LogTime, MemberId, Term, WallTime, Zxid};
use folkmoot_storage::{FjallStore, LogCommand, LogDone, LogOpenError, LogService, LogStopped};

const SEGMENT_BYTES: u64 = 256 * 1024;

/// Of the clusters whose logs these are.
const VOTERS: usize = 3;

fn config() -> LogConfig {
    LogConfig {
        cluster: ClusterId([1; 16]),
        member: MemberId(1),
        incarnation: Incarnation(77),
        segment_bytes: SEGMENT_BYTES,
        recent_bytes_max: 64 * 1024,
    }
}

fn bootstrap(members: u64) -> Bytes {
    let members = (1..=members).map(|id| BootstrapMember {
        id: MemberId(id),
        peer_address: String::new(),
        client_address: String::new(),
    });
    let bootstrap = Bootstrap {
        cluster: config().cluster,
        created: WallTime(0),
        members: members.collect(),
        limits: folkmoot_proto::limits::Limits::default(),
    };
    bootstrap.to_bytes().into()
}

fn entry(index: u64, payload: impl Into<Bytes>) -> LogRecord {
    LogRecord::Entry(Entry {
        index: LogIndex(index),
        term: Term(1),
        last_zxid: Zxid(index),
        kind: if index == 1 {
            EntryKind::Bootstrap
        } else {
            EntryKind::Batch
        },
        payload: payload.into(),
    })
}

fn vote(term: u64) -> LogRecord {
    LogRecord::HardState {
        term: Term(term),
        vote: Some(MemberId(2)),
    }
}

fn meta(index: u64) -> StateMeta {
    StateMeta {
        cluster: config().cluster,
        index: LogIndex(index),
        term: Term(1),
        zxid: Zxid(index),
        log_time: LogTime(index),
        state_hash: 0,
        feature_level: 1,
        bootstrap: bootstrap(3),
    }
}

/// A data folder.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // Beside the build, where the file system takes O_DIRECT; /tmp may be memory.
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn store(&self) -> FjallStore {
        FjallStore::open(&self.0.path().join("checkpoint")).unwrap()
    }

    fn open(&self, config: LogConfig) -> Result<(LogService, RecoveredLog), LogOpenError> {
        LogService::open(
            &self.log(),
            config,
            Some(LogOrigin::Bootstrap),
            VOTERS,
            &mut self.store(),
        )
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments_of(&self.log())
    }

    /// All files of the log with their bytes.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.segments()
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

fn segments_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    segments.sort_unstable();
    segments
}

/// A log that runs.
struct Running {
    commands: Option<Sender<LogCommand>>,
    done: Receiver<LogDone>,
    thread: JoinHandle<Result<(), LogStopped>>,
}

impl Running {
    fn new(log: LogService) -> Self {
        let (commands, inbox) = crossbeam_channel::unbounded();
        let (out, done) = crossbeam_channel::unbounded();
        let thread = thread::spawn(move || log.run(&inbox, |event| out.send(event).unwrap()));
        Self {
            commands: Some(commands),
            done,
            thread,
        }
    }

    fn send(&self, command: LogCommand) {
        self.commands.as_ref().unwrap().send(command).unwrap();
    }

    fn append(&self, id: u64, records: Vec<LogRecord>) {
        self.send(LogCommand::Append {
            id: PersistId(id),
            records,
        });
    }

    fn wait_durable(&self, id: u64) {
        loop {
            if let LogDone::Durable(done) = self.done.recv().unwrap()
                && done >= PersistId(id)
            {
                return;
            }
        }
    }

    fn read(&self, from: u64, to: u64) -> Vec<Entry> {
        let (from, to) = (LogIndex(from), LogIndex(to));
        self.send(LogCommand::Read {
            id: LogReadId(9),
            from,
            to,
            bytes_max: usize::MAX,
        });
        loop {
            if let LogDone::Read(read) = self.done.recv().unwrap() {
                return read.entries;
            }
        }
    }

    fn stop(mut self) -> Result<(), LogStopped> {
        self.commands = None;
        self.thread.join().unwrap()
    }
}

fn payload(index: u64) -> Vec<u8> {
    vec![(index % 251) as u8; 3000]
}

/// Appends entries `from..=to`, one persist each.
fn append_entries(log: &Running, from: u64, to: u64) {
    for index in from..=to {
        let bytes = if index == 1 {
            bootstrap(3)
        } else {
            payload(index).into()
        };
        log.append(index, vec![entry(index, bytes)]);
    }
    log.wait_durable(to);
}

#[test]
fn appends_read_back_and_restart() {
    let place = Place::new();
    let (log, state) = place.open(config()).unwrap();
    assert_eq!((state.last_index, state.wiped), (LogIndex(0), false));
    let log = Running::new(log);
    log.append(1, vec![vote(1), entry(1, bootstrap(3))]);
    append_entries(&log, 2, 300);
    let read = log.read(2, 250);
    assert_eq!(read.len(), 249);
    assert!(
        read.iter()
            .all(|entry| entry.payload == payload(entry.index.0))
    );
    assert!(place.segments().len() >= 4, "{:?}", place.segments());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.log()), 0o700);
    for segment in place.segments() {
        assert_eq!(mode(&segment), 0o600, "{}", segment.display());
    }
    log.stop().unwrap();

    let (log, state) = place.open(config()).unwrap();
    assert_eq!((state.term, state.vote), (Term(1), Some(MemberId(2))));
    assert_eq!(
        (state.last_index, state.last_zxid),
        (LogIndex(300), Zxid(300))
    );
    assert_eq!(state.bootstrap, bootstrap(3));
    assert_eq!(state.damaged_up_to, None);
    assert_eq!(
        state.recent.last().map(|entry| entry.index),
        Some(LogIndex(300))
    );
    let log = Running::new(log);
    append_entries(&log, 301, 310);
    assert_eq!(log.read(299, 310).len(), 12);
    log.stop().unwrap();
}

#[test]
fn stops_after_writing_what_was_asked() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let log = Running::new(log);
    log.append(1, vec![entry(1, bootstrap(3))]);
    for index in 2..=200 {
        log.append(index, vec![entry(index, payload(index))]);
    }
    log.stop().unwrap();
    let (_, state) = place.open(config()).unwrap();
    assert_eq!(state.last_index, LogIndex(200));
}

/// Rule R24: segments go when a checkpoint covers them, and are used again.
#[test]
fn segments_are_recycled_behind_the_checkpoint() {
    let place = Place::new();
    let mut store = place.store();
    let (log, _) = LogService::open(
        &place.log(),
        config(),
        Some(LogOrigin::Bootstrap),
        VOTERS,
        &mut store,
    )
    .unwrap();
    let log = Running::new(log);
    append_entries(&log, 1, 400);
    let before = place.segments();
    store
        .write_delta(meta(390), Vec::<RecordChange>::new())
        .unwrap();
    log.send(LogCommand::Compact {
        up_to: LogIndex(390),
    });
    append_entries(&log, 401, 800);
    assert_eq!(log.read(1, 10), []);
    assert_eq!(log.read(795, 800).len(), 6);
    log.stop().unwrap();
    let after = place.segments();
    assert!(
        !before.iter().take(4).any(|path| after.contains(path)),
        "{after:?}"
    );

    let (_, state) = LogService::open(&place.log(), config(), None, VOTERS, &mut store).unwrap();
    assert_eq!(state.applied, LogIndex(390));
    assert_eq!(state.base, Some(meta(390)));
    assert_eq!(state.last_index, LogIndex(800));
}

/// Rule R25: the record makes a prepared snapshot count, at the next start if need be.
#[test]
fn prepared_snapshot_is_installed_at_start_if_the_log_counts_it() {
    for counts in [false, true] {
        let place = Place::new();
        let mut store = place.store();
        let (log, _) = LogService::open(
            &place.log(),
            config(),
            Some(LogOrigin::Bootstrap),
            VOTERS,
            &mut store,
        )
        .unwrap();
        let log = Running::new(log);
        append_entries(&log, 1, 20);
        store.begin_full(meta(100)).unwrap().finish().unwrap();
        if counts {
            log.append(21, vec![LogRecord::SnapshotInstalled { meta: meta(100) }]);
        }
        log.stop().unwrap();
        drop(store);

        let mut store = place.store();
        let (_, state) =
            LogService::open(&place.log(), config(), None, VOTERS, &mut store).unwrap();
        assert_eq!(store.prepared().unwrap(), None);
        assert_eq!(store.current().cloned(), counts.then(|| meta(100)));
        assert_eq!(state.last_index, LogIndex(if counts { 100 } else { 20 }));
        assert_eq!(state.base, counts.then(|| meta(100)));
    }
}

/// Rule R25: a checkpoint ahead of the log is refused, and nothing is changed.
#[test]
fn checkpoint_ahead_of_the_log_is_refused() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let log = Running::new(log);
    append_entries(&log, 1, 20);
    log.stop().unwrap();
    place.store().write_delta(meta(21), Vec::new()).unwrap();
    let before = place.content();
    let refused = place.open(config()).map(|_| ()).unwrap_err();
    let LogOpenError::Recover { source, .. } = &refused else {
        panic!("{refused}")
    };
    let (checkpoint, log) = (LogIndex(21), LogIndex(20));
    assert_eq!(*source, RecoverError::CheckpointAhead { checkpoint, log });
    assert_eq!(place.content(), before);
}

#[test]
fn another_owners_log_is_refused_and_kept() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let log = Running::new(log);
    append_entries(&log, 1, 20);
    log.stop().unwrap();
    let before = place.content();
    let others = [
        LogConfig {
            cluster: ClusterId([2; 16]),
            ..config()
        },
        LogConfig {
            member: MemberId(3),
            ..config()
        },
        LogConfig {
            incarnation: Incarnation(78),
            ..config()
        },
    ];
    for other in others {
        let refused = place.open(other).map(|_| ()).unwrap_err();
        assert!(matches!(refused, LogOpenError::Recover { .. }), "{refused}");
        assert_eq!(place.content(), before);
    }
}

#[test]
fn missing_log_of_a_used_folder_is_refused() {
    let place = Place::new();
    let refused = LogService::open(&place.log(), config(), None, VOTERS, &mut place.store());
    assert!(matches!(
        refused.map(|_| ()),
        Err(LogOpenError::Missing { .. })
    ));
    // A checkpoint shows that the folder was in use, whatever the caller says.
    place.store().write_delta(meta(5), Vec::new()).unwrap();
    let refused = place.open(config());
    assert!(matches!(
        refused.map(|_| ()),
        Err(LogOpenError::Missing { .. })
    ));
}

/// Rule R21: a wiped member's log says so at every start.
#[test]
fn wiped_log_stays_wiped() {
    let place = Place::new();
    let open = || {
        LogService::open(
            &place.log(),
            config(),
            Some(LogOrigin::Wiped),
            VOTERS,
            &mut place.store(),
        )
    };
    assert!(open().unwrap().1.wiped);
    let (log, state) = open().unwrap();
    assert!(state.wiped);
    let log = Running::new(log);
    append_entries(&log, 1, 5);
    log.stop().unwrap();
    assert!(open().unwrap().1.wiped);
}

/// Rule R23: lost data is told, also at later starts, until it is repaired. A cluster of one can
/// not repair it, and nothing is changed.
#[test]
fn lost_data_is_told_until_repaired() {
    // Entry 1, in the first block behind the header, says how many members there are.
    for (members, damaged) in [(1, 10), (1, 1), (3, 10), (3, 1)] {
        let place = Place::new();
        let (log, _) = place.open(config()).unwrap();
        let log = Running::new(log);
        log.append(1, vec![entry(1, bootstrap(members as u64))]);
        // One drain each, so that the damage has readable ones behind it.
        for index in 2..=20 {
            append_entries(&log, index, index);
        }
        log.stop().unwrap();
        damage(&place.segments()[0], damaged * 4096);
        let before = place.content();
        let open = || {
            let mut store = place.store();
            LogService::open(&place.log(), config(), None, members, &mut store)
        };
        let opened = open();
        if members == 1 {
            let refused = opened.map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, LogOpenError::DamagedAlone { .. }),
                "{refused}"
            );
            assert_eq!(place.content(), before);
            continue;
        }
        assert_eq!(opened.unwrap().1.damaged_up_to, Some(LogIndex(20)));
        let (log, state) = open().unwrap();
        assert_eq!(state.damaged_up_to, Some(LogIndex(20)));
        assert!(state.last_index < LogIndex(20));
        let log = Running::new(log);
        append_entries(&log, state.last_index.0 + 1, 21);
        log.append(
            22,
            vec![LogRecord::Repaired {
                up_to: LogIndex(20),
            }],
        );
        log.wait_durable(22);
        log.stop().unwrap();
        assert_eq!(open().unwrap().1.damaged_up_to, None);
    }
}

fn damage(segment: &Path, at: usize) {
    let mut bytes = fs::read(segment).unwrap();
    for byte in bytes.iter_mut().skip(at).take(4096) {
        *byte ^= 0x55;
    }
    fs::write(segment, bytes).unwrap();
}

/// Reads wait for the writes, not the writes for the reads.
#[test]
fn a_write_is_not_held_up_by_the_reads_before_it() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let log = Running::new(log);
    log.append(1, vec![entry(1, bootstrap(3))]);
    append_entries(&log, 2, 20);
    log.stop().unwrap();
    let (log, _) = place.open(config()).unwrap();
    let (commands, inbox) = crossbeam_channel::unbounded();
    for read in 1..=1000 {
        let read = LogCommand::Read {
            id: LogReadId(read),
            from: LogIndex(2),
            to: LogIndex(20),
            bytes_max: 1 << 20,
        };
        commands.send(read).unwrap();
    }
    let id = PersistId(1);
    let records = vec![entry(21, vec![1])];
    commands.send(LogCommand::Append { id, records }).unwrap();
    drop(commands);
    let mut reads_before = 0;
    let mut is_durable = false;
    log.run(&inbox, |done| match done {
        LogDone::Durable(_) => is_durable = true,
        LogDone::Read(_) if !is_durable => reads_before += 1,
        LogDone::Read(_) => {}
    })
    .unwrap();
    assert!(is_durable && reads_before < 10, "{reads_before} reads");
}

/// Group commit: many small records share a drain's blocks.
#[test]
fn queued_records_share_blocks() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let (commands, inbox) = crossbeam_channel::unbounded();
    for index in 1..=200 {
        let records = vec![entry(index, vec![1_u8; 150])];
        commands
            .send(LogCommand::Append {
                id: PersistId(index),
                records,
            })
            .unwrap();
    }
    drop(commands);
    log.run(&inbox, |_| ()).unwrap();
    let used: usize = place
        .content()
        .iter()
        .map(|(_, bytes)| {
            bytes
                .chunks(4096)
                .filter(|block| block.iter().any(|b| *b != 0))
                .count()
        })
        .sum();
    assert!(used <= 1 + 11, "{used} blocks for 200 records of 180 bytes");
}

/// A queue that is long, or filled as fast as it is emptied, does not keep what is in it from the
/// disk.
#[test]
fn a_long_queue_is_written_in_turns() {
    let place = Place::new();
    let (log, _) = place.open(config()).unwrap();
    let (commands, inbox) = crossbeam_channel::unbounded();
    for index in 1..=3000 {
        let payload = if index == 1 {
            bootstrap(3)
        } else {
            Bytes::new()
        };
        let append = LogCommand::Append {
            id: PersistId(index),
            records: vec![entry(index, payload)],
        };
        commands.send(append).unwrap();
    }
    drop(commands);
    let mut durable = Vec::new();
    log.run(&inbox, |done| match done {
        LogDone::Durable(id) => durable.push(id.0),
        LogDone::Read(_) => {}
    })
    .unwrap();
    assert!(durable[0] < 1500, "{durable:?}");
    assert_eq!(durable.last(), Some(&3000));
}
