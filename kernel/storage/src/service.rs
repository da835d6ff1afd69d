//! The log on its thread: all that is queued goes out in one write, then what is durable is
//! reported.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError, select};
use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore};
use folkmoot_core::consensus::{LogRead, LogReadId, PersistId, RecoveredLog};
use folkmoot_core::log::{
    Disk as _, DiskError, DiskOpKind, Log, LogConfig, LogFailed, LogOrigin, LogReadError,
    LogRecord, RecoverError, Recovered, SnapshotStep,
};
use folkmoot_proto::LogIndex;

use crate::disk::{FileDisk, KEEPER_ENDED, sync_folder};

/// Commands that are taken before the disk has its turn, so that a write does not wait for a queue
/// that is filled as fast as it is emptied. More than one network turn sends at once.
const COMMANDS_PER_TURN_MAX: usize = 1024;

/// Why a log can not be opened. Nothing was changed, except where the disk failed.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// The log is not there, though its folder was in use: it was removed or lost.
    #[error("the log in {} is gone", folder.display())]
    Missing {
        /// The log's folder.
        folder: PathBuf,
    },
    /// The log can not be continued.
    #[error("{source} (in {})", folder.display())]
    Recover {
        /// The log's folder.
        folder: PathBuf,
        /// Why.
        source: RecoverError,
    },
    /// Data that was acknowledged is lost, and the cluster has no other member to repair it from.
    #[error(
        "the log in {} lost acknowledged data before entry {up_to}, and this is the cluster's only \
         voter",
        folder.display()
    )]
    DamagedAlone {
        /// The log's folder.
        folder: PathBuf,
        /// Up to here.
        up_to: LogIndex,
    },
    /// The files could not be used.
    #[error("the log in {}: {source}", folder.display())]
    Disk {
        /// The log's folder.
        folder: PathBuf,
        /// The disk's error.
        source: DiskError,
    },
    /// The log could not be made ready.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// The checkpoint store could not be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What the log thread is asked for.
#[derive(Debug)]
pub enum LogCommand {
    /// Write records, in order.
    Append {
        /// The name that is reported.
        id: PersistId,
        /// The records.
        records: Vec<LogRecord>,
    },
    /// Read entries `from..=to`, at most `bytes_max` bytes but at least one entry.
    Read {
        /// The name that is reported.
        id: LogReadId,
        /// The first entry.
        from: LogIndex,
        /// The last entry.
        to: LogIndex,
        /// Bytes at most.
        bytes_max: usize,
    },
    /// A checkpoint at this entry is durable and current: segments may go (rule R24).
    Compact {
        /// The checkpoint's entry.
        up_to: LogIndex,
    },
}

/// What the log thread reports.
#[derive(Debug)]
pub enum LogDone {
    /// The records of this name, and of all before it, are durable.
    Durable(PersistId),
    /// Entries that were asked for.
    Read(LogRead),
}

/// Why the log thread stopped though it was not told to: the process must end (rule R22).
#[derive(Debug, thiserror::Error)]
pub enum LogStopped {
    /// An operation failed.
    #[error(transparent)]
    Failed(#[from] LogFailed),
    /// A durable entry could not be read back.
    #[error(transparent)]
    Read(#[from] LogReadError),
}

/// A started log with its files.
#[derive(Debug)]
pub struct LogService {
    log: Log,
    disk: FileDisk,
    pace: Arc<LogPace>,
    /// Reads that were asked for.
    reads: VecDeque<Read>,
}

#[derive(Debug)]
struct Read {
    id: LogReadId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
}

/// How fast a log's writes are, their sync included, as other threads see it.
#[derive(Debug)]
pub struct LogPace {
    start: Instant,
    /// When the write under way began, in microseconds since `start`, plus one; 0 if none is.
    began: AtomicU64,
    /// Microseconds that the last one took.
    last: AtomicU64,
}

impl LogPace {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            began: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Milliseconds that the last write took, or that the one under way takes already if that is longer.
    #[must_use]
    pub fn millis(&self) -> u64 {
        let last = self.last.load(Ordering::Relaxed);
        let under_way = match self.began.load(Ordering::Relaxed) {
            0 => 0,
            began => (self.elapsed() + 1).saturating_sub(began),
        };
        last.max(under_way) / 1000
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn time<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = self.elapsed();
        self.began.store(began + 1, Ordering::Relaxed);
        let done = write();
        self.last.store(self.elapsed() - began, Ordering::Relaxed);
        self.began.store(0, Ordering::Relaxed);
        done
    }
}

impl LogService {
    /// Opens the log in `folder`: recovers it, makes what was recovered durable (rule R22), and
    /// settles what becomes of a snapshot that `store` has prepared (rule R25). When this returns,
    /// messages may leave, and the store's current state is the one to load.
    ///
    /// `if_missing` says what an absent log means; none if the folder was in use before. `voters` is
    /// how many the cluster has: a log that lost data may not even know that.
    ///
    /// # Errors
    ///
    /// When the member can not start with these files.
    pub fn open(
        folder: &Path,
        config: LogConfig,
        if_missing: Option<LogOrigin>,
        voters: usize,
        store: &mut dyn CheckpointStore,
    ) -> Result<(Self, RecoveredLog), LogOpenError> {
        let in_folder = |source| LogOpenError::Disk {
            folder: folder.to_owned(),
            source,
        };
        let mut disk = FileDisk::open(folder).map_err(in_folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent).map_err(|error| {
                in_folder(DiskError::Io {
                    reason: error.to_string(),
                })
            })?;
        }
        let prepared = store.prepared()?;
        let recovered = Log::recover(&config, &disk, store.current(), prepared.as_ref());
        let Recovered {
            mut log,
            state,
            snapshot,
        } = match (recovered, if_missing) {
            (Ok(recovered), _) => recovered,
            (Err(RecoverError::NoLog), Some(origin)) if store.current().is_none() => {
                let (log, state) = Log::create(config, origin);
                Recovered {
                    log,
                    state,
                    snapshot: SnapshotStep::Discard,
                }
            }
            (Err(RecoverError::NoLog), _) => {
                return Err(LogOpenError::Missing {
                    folder: folder.to_owned(),
                });
            }
            (Err(source), _) => {
                return Err(LogOpenError::Recover {
                    folder: folder.to_owned(),
                    source,
                });
            }
        };
        if let Some(up_to) = state.damaged_up_to {
            tracing::error!(%up_to, "the log lost acknowledged data: no vote before it is repaired");
            if voters == 1 {
                return Err(LogOpenError::DamagedAlone {
                    folder: folder.to_owned(),
                    up_to,
                });
            }
        }
        while !log.is_started() {
            if let Some(op) = log.poll_op() {
                disk.submit(op);
            }
            let (id, result) = disk.wait_done();
            log.handle_done(id, result)?;
        }
        match snapshot {
            SnapshotStep::Install => {
                store.install_prepared()?;
                log.compact(state.applied);
            }
            SnapshotStep::Discard => store.discard_prepared()?,
        }
        let reads = VecDeque::new();
        let pace = Arc::new(LogPace::new());
        let service = Self {
            log,
            disk,
            pace,
            reads,
        };
        Ok((service, state))
    }

    /// How fast its writes are, while it runs.
    #[must_use]
    pub fn pace(&self) -> Arc<LogPace> {
        Arc::clone(&self.pace)
    }

    /// Serves `inbox` until its senders are gone, then writes what was asked for, and returns: the
    /// folder does not change any more.
    /// `done` is called on this thread, in the order in which things end.
    ///
    /// # Errors
    ///
    /// When the disk fails: the process must end (rule R22).
    pub fn run(
        mut self,
        inbox: &Receiver<LogCommand>,
        mut done: impl FnMut(LogDone),
    ) -> Result<(), LogStopped> {
        let mut open = true;
        loop {
            // One read after each write: nobody's acknowledgement waits for the reads.
            let wrote = self.turn(&mut done)?;
            let read = self.read_one(&mut done)?;
            if wrote || read {
                open = self.take_some(inbox) && open;
                continue;
            }
            if !open && !self.log.has_unwritten() {
                self.disk.end();
                return Ok(());
            }
            let never = crossbeam_channel::never();
            select! {
                recv(if open { inbox } else { &never }) -> command => match command {
                    Ok(command) => {
                        self.take(command);
                        open = self.take_some(inbox);
                    }
                    Err(_) => open = false,
                },
                recv(self.disk.kept()) -> ended => match ended {
                    Ok((id, result)) => self.log.handle_done(id, result)?,
                    Err(_) => panic!("{KEEPER_ENDED}"),
                }
            }
        }
    }

    /// Carries out what the log wants done; false if there was nothing.
    fn turn(&mut self, done: &mut impl FnMut(LogDone)) -> Result<bool, LogStopped> {
        let mut worked = false;
        while let Some(op) = self.log.poll_op() {
            match op.kind {
                DiskOpKind::Write { .. } => self.pace.time(|| self.disk.submit(op)),
                _ => self.disk.submit(op),
            }
            worked = true;
        }
        while let Some((id, result)) = self.disk.poll_done() {
            self.log.handle_done(id, result)?;
            worked = true;
        }
        if let Some(id) = self.log.poll_durable() {
            done(LogDone::Durable(id));
        }
        Ok(worked)
    }

    /// Serves the oldest read; false if there is none.
    fn read_one(&mut self, done: &mut impl FnMut(LogDone)) -> Result<bool, LogStopped> {
        let Some(read) = self.reads.pop_front() else {
            return Ok(false);
        };
        let entries = self
            .log
            .read(&self.disk, read.from, read.to, read.bytes_max)?;
        let id = read.id;
        done(LogDone::Read(LogRead { id, entries }));
        Ok(true)
    }

    /// Takes the commands that are there, up to a limit; false when no more can come.
    fn take_some(&mut self, inbox: &Receiver<LogCommand>) -> bool {
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn take(&mut self, command: LogCommand) {
        match command {
            LogCommand::Append { id, records } => self.log.append(id, records),
            LogCommand::Read {
                id,
                from,
                to,
                bytes_max,
            } => self.reads.push_back(Read {
                id,
                from,
                to,
                bytes_max,
            }),
            LogCommand::Compact { up_to } => self.log.compact(up_to),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use folkmoot_proto::{ClusterId, Incarnation, MemberId};

    use super::*;
    use crate::FjallStore;

    #[test]
    fn the_pace_is_that_of_the_write_under_way_and_then_of_the_last_one() {
        let pace = LogPace::new();
        assert_eq!(pace.millis(), 0);
        let under_way = pace.time(|| {
            while pace.millis() < 2 {
                std::thread::yield_now();
            }
            pace.millis()
        });
        assert!(pace.millis() >= under_way);
        pace.time(|| ());
        assert_eq!(pace.millis(), 0);
    }

    /// A thread that turned round and round without it would neither write a segment nor end.
    #[test]
    fn the_log_ends_with_the_thread_for_its_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = FjallStore::open(&folder.path().join("checkpoint")).expect("a store");
        let config = LogConfig {
            cluster: ClusterId([1; 16]),
            member: MemberId(1),
            incarnation: Incarnation(2),
            segment_bytes: 256 * 1024,
            recent_bytes_max: 0,
        };
        let origin = Some(LogOrigin::Bootstrap);
        let (mut log, _) =
            LogService::open(&folder.path().join("log"), config, origin, 1, &mut store)
                .expect("a log");
        log.disk.lose_keeper();
        let (commands, inbox) = crossbeam_channel::unbounded();
        let (runs, ended) = crossbeam_channel::bounded::<()>(0);
        let thread = std::thread::spawn(move || {
            let _runs = runs;
            log.run(&inbox, |_| {})
        });
        let patience = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(
            patience,
            Err(crossbeam_channel::RecvTimeoutError::Disconnected)
        );
        assert!(thread.join().is_err(), "it says so with a panic");
        drop(commands);
    }
}
