//! The checkpoint thread: writes what changed every so often (rule R26), and the snapshots that
//! peers send (rule R25). It owns the store; nothing else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore, FullWriter};
use folkmoot_core::execution::Execution;
use folkmoot_core::state::{RestoreError, State};
use folkmoot_proto::LogIndex;
use folkmoot_proto::record::{RecordChange, StateMeta};
use tokio::sync::oneshot;

use crate::execution::ExecutionView;
use crate::fatal::Fatal;
use crate::state_access::StateAccess;
use crate::{CheckpointPolicy, RunError};

/// Chunks of a snapshot that may wait to be built.
const CHUNKS_AHEAD: usize = 4;
/// How often the triggers are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What grew since the last checkpoint; counted by other threads.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Bytes given to the log.
    pub(crate) log_bytes: AtomicU64,
}

/// Why a snapshot can not be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotRefused {
    /// Another one is being received.
    #[error("another snapshot is being received")]
    Busy,
    /// The member stops.
    #[error("the member stops")]
    Stopping,
    /// The store could not write it.
    #[error(transparent)]
    Store(#[from] CheckpointError),
    /// Its records are not the state that it says it is.
    #[error("the snapshot is not what it says: {0}")]
    Unsound(String),
}

type Done<T> = oneshot::Sender<Result<T, SnapshotRefused>>;

#[derive(Debug)]
enum Job {
    Begin(StateMeta, Done<()>),
    Write(Vec<RecordChange>, Done<()>),
    Finish(Done<()>),
    Abandon,
    /// The log counts the prepared snapshot: make it current and build a machine on it.
    Install(StateMeta),
    /// The log does not take the prepared snapshot.
    Discard(StateMeta),
}

/// The way to the checkpoint thread; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointQueue(Sender<Job>);

impl CheckpointQueue {
    pub(crate) fn new() -> (Self, CheckpointJobs) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), CheckpointJobs(receiver))
    }

    /// Begins to take a snapshot in; one at a time, until it is installed or discarded.
    pub(crate) async fn begin_snapshot(
        &self,
        meta: StateMeta,
    ) -> Result<IncomingSnapshot, SnapshotRefused> {
        self.ask(|done| Job::Begin(meta, done)).await?;
        Ok(IncomingSnapshot {
            queue: self.clone(),
            finished: false,
        })
    }

    /// The log counts the prepared snapshot.
    pub(crate) fn install(&self, meta: StateMeta) {
        // A thread that is gone has said why.
        let _ = self.0.send(Job::Install(meta));
    }

    /// The log does not take the prepared snapshot.
    pub(crate) fn discard(&self, meta: StateMeta) {
        let _ = self.0.send(Job::Discard(meta));
    }

    async fn ask(&self, job: impl FnOnce(Done<()>) -> Job) -> Result<(), SnapshotRefused> {
        let (done, answer) = oneshot::channel();
        self.0
            .send(job(done))
            .map_err(|_| SnapshotRefused::Stopping)?;
        answer.await.map_err(|_| SnapshotRefused::Stopping)?
    }
}

/// The checkpoint thread's end of its queue.
#[derive(Debug)]
pub(crate) struct CheckpointJobs(Receiver<Job>);

/// A snapshot that is being taken in. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct IncomingSnapshot {
    queue: CheckpointQueue,
    finished: bool,
}

impl IncomingSnapshot {
    pub(crate) async fn write(&self, records: Vec<RecordChange>) -> Result<(), SnapshotRefused> {
        self.queue.ask(|done| Job::Write(records, done)).await
    }

    /// Makes it durable.
    pub(crate) async fn finish(mut self) -> Result<(), SnapshotRefused> {
        self.queue.ask(Job::Finish).await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.queue.0.send(Job::Abandon);
        }
    }
}

/// A snapshot that is being written, and beside it built and verified.
struct Taking {
    meta: StateMeta,
    writer: Box<dyn FullWriter>,
    records: Sender<Vec<RecordChange>>,
    built: JoinHandle<Result<State, RestoreError>>,
}

impl Taking {
    fn begin(store: &mut dyn CheckpointStore, meta: StateMeta) -> Result<Self, SnapshotRefused> {
        let writer = store.begin_full(meta.clone())?;
        let (records, received) = crossbeam_channel::bounded::<Vec<RecordChange>>(CHUNKS_AHEAD);
        let of = meta.clone();
        let built = std::thread::spawn(move || {
            let records = received.into_iter().flatten();
            // A record without a value is refused by the writer before.
            State::from_records(
                &of,
                records.map(|record| (record.key, record.value.unwrap_or_default())),
            )
        });
        Ok(Self {
            meta,
            writer,
            records,
            built,
        })
    }

    fn write(&mut self, records: Vec<RecordChange>) -> Result<(), SnapshotRefused> {
        self.writer.write(records.clone())?;
        // A builder that is gone has found something wrong, and says it at the end.
        let _ = self.records.send(records);
        Ok(())
    }

    /// The state, once it is verified and durable.
    fn finish(self) -> Result<(StateMeta, State), SnapshotRefused> {
        drop(self.records);
        let state = match self.built.join() {
            Ok(built) => built.map_err(|error| SnapshotRefused::Unsound(error.to_string()))?,
            Err(_) => return Err(SnapshotRefused::Unsound("it can not be built".to_owned())),
        };
        self.writer.finish()?;
        Ok((self.meta, state))
    }
}

/// What the checkpoint thread owns.
pub(crate) struct CheckpointThread {
    pub(crate) store: Box<dyn CheckpointStore + Send>,
    pub(crate) jobs: CheckpointJobs,
    pub(crate) policy: CheckpointPolicy,
    pub(crate) growth: Arc<Growth>,
    pub(crate) state: StateAccess,
    pub(crate) view: Arc<ExecutionView>,
    /// Makes an execution machine on a state.
    pub(crate) machine: Box<dyn Fn(State) -> Execution + Send>,
    /// Told when a checkpoint is durable, with the index that the log may let go.
    pub(crate) compact: Box<dyn Fn(LogIndex) + Send>,
    /// Told when the machine on an installed snapshot is built.
    pub(crate) replace: Box<dyn Fn(Box<Execution>) + Send>,
    pub(crate) fatal: Fatal,
}

impl CheckpointThread {
    /// Runs until the member stops.
    pub(crate) fn run(mut self) {
        if let Err(reason) = self.serve() {
            self.fatal.report(reason);
        }
    }

    fn serve(&mut self) -> Result<(), RunError> {
        let mut snapshot = Snapshot::None;
        let mut last = Instant::now();
        let mut covered = self.current();
        loop {
            match self.jobs.0.recv_timeout(LOOK) {
                Ok(job) => snapshot = self.job(job, snapshot)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.is_due(last, covered) {
                covered = self.checkpoint(covered)?;
                last = Instant::now();
            }
        }
    }

    fn current(&self) -> LogIndex {
        self.store
            .current()
            .map_or(LogIndex::ZERO, |meta| meta.index)
    }

    fn is_due(&self, last: Instant, covered: LogIndex) -> bool {
        let grown = self.growth.log_bytes.load(Ordering::Relaxed) >= self.policy.log_bytes
            || self.view.dirty_bytes() >= self.policy.dirty_bytes;
        let changed = self.view.status().applied_index > covered;
        changed && (grown || last.elapsed() >= self.policy.interval)
    }

    /// Writes what changed; the log may then let go what the checkpoint before this one covers, so
    /// that a peer that is a little behind still finds its entries.
    fn checkpoint(&mut self, before: LogIndex) -> Result<LogIndex, RunError> {
        self.growth.log_bytes.store(0, Ordering::Relaxed);
        let Some(delta) = self.state.take_delta() else {
            return Ok(before);
        };
        let index = delta.meta.index;
        if index < self.current() {
            // It is of the machine that a snapshot is about to replace.
            return Ok(self.current());
        }
        let records = delta.changes.len();
        self.store
            .write_delta(delta.meta, delta.changes)
            .map_err(disk)?;
        tracing::debug!(%index, records, "a checkpoint was written");
        if before > LogIndex::ZERO {
            (self.compact)(before);
        }
        Ok(index)
    }

    fn job(&mut self, job: Job, snapshot: Snapshot) -> Result<Snapshot, RunError> {
        Ok(match (job, snapshot) {
            // A prepared one stays until consensus has decided on it: its record may be on the way
            // to the disk, and a log that continues a snapshot which is gone never starts again.
            (Job::Begin(meta, done), Snapshot::None) => {
                match Taking::begin(&mut *self.store, meta) {
                    Ok(taking) => answer(done, Ok(()), Snapshot::Taking(taking)),
                    Err(refused) => answer(done, Err(refused), Snapshot::None),
                }
            }
            (Job::Write(records, done), Snapshot::Taking(mut taking)) => {
                match taking.write(records) {
                    Ok(()) => answer(done, Ok(()), Snapshot::Taking(taking)),
                    Err(refused) => answer(done, Err(refused), Snapshot::None),
                }
            }
            (Job::Finish(done), Snapshot::Taking(taking)) => match taking.finish() {
                // If nobody waits for it any more, consensus will not hear of it either.
                Ok((meta, state)) => match done.send(Ok(())) {
                    Ok(()) => Snapshot::Prepared(meta, Box::new(state)),
                    Err(_) => self.discard_prepared()?,
                },
                Err(refused) => answer(done, Err(refused), Snapshot::None),
            },
            (Job::Begin(_, done) | Job::Write(_, done) | Job::Finish(done), snapshot) => {
                answer(done, Err(SnapshotRefused::Busy), snapshot)
            }
            (Job::Abandon, Snapshot::Taking(_)) => Snapshot::None,
            (Job::Abandon, snapshot) => snapshot,
            (Job::Install(meta), Snapshot::Prepared(prepared, state)) if prepared == meta => {
                self.store.install_prepared().map_err(disk)?;
                (self.compact)(meta.index);
                (self.replace)(Box::new((self.machine)(*state)));
                Snapshot::None
            }
            (Job::Discard(meta), Snapshot::Prepared(prepared, _)) if prepared == meta => {
                self.discard_prepared()?
            }
            (Job::Install(meta) | Job::Discard(meta), _) => panic!(
                "consensus decides on a snapshot at entry {} that is not prepared",
                meta.index
            ),
        })
    }

    fn discard_prepared(&mut self) -> Result<Snapshot, RunError> {
        self.store.discard_prepared().map_err(disk)?;
        Ok(Snapshot::None)
    }
}

/// How far a snapshot from a peer is.
enum Snapshot {
    None,
    Taking(Taking),
    /// Durable and verified; it counts once the log says so.
    Prepared(StateMeta, Box<State>),
}

/// Tells the asker, who may be gone, and goes on with `next`.
fn answer(done: Done<()>, result: Result<(), SnapshotRefused>, next: Snapshot) -> Snapshot {
    let _ = done.send(result);
    next
}

fn disk(error: CheckpointError) -> RunError {
    RunError::Disk {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use folkmoot_core::execution::ExecutionConfig;
    use folkmoot_core::state::Span;
    use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
    use folkmoot_proto::limits::{CHUNK_BYTES_MAX, Limits};
    use folkmoot_proto::{ClusterId, MemberId, WallTime};
    use folkmoot_storage::FjallStore;

    use super::*;
    use crate::execution::ExecutionQueue;

    fn empty_state() -> State {
        let bootstrap = Bootstrap {
            cluster: ClusterId([1; 16]),
            created: WallTime(0),
            members: vec![BootstrapMember {
                id: MemberId(1),
                peer_address: "localhost:1".to_owned(),
                client_address: "localhost:2".to_owned(),
            }],
            limits: Limits::default(),
        };
        State::new(Bytes::from(bootstrap.to_bytes())).expect("a state")
    }

    fn machine(state: State) -> Execution {
        Execution::new(
            ExecutionConfig::new(MemberId(1), 1),
            state,
            1,
            crate::clock::now(),
        )
    }

    /// A snapshot that stands at entry `index`.
    fn snapshot(index: u64) -> (StateMeta, Vec<RecordChange>) {
        let mut state = empty_state();
        let view = state.open_view(Span::Everything).expect("a view");
        let mut meta = state.view_meta(view).expect("open").clone();
        meta.index = LogIndex(index);
        let mut records = Vec::new();
        loop {
            let read = state.read_view(view, CHUNK_BYTES_MAX).records;
            if read.is_empty() {
                return (meta, records);
            }
            records.extend(read.into_iter().map(|(key, value)| RecordChange {
                key,
                value: Some(value),
            }));
        }
    }

    /// A checkpoint thread that is driven by hand.
    struct Driven {
        thread: CheckpointThread,
        snapshot: Snapshot,
        replaced: Receiver<LogIndex>,
        _folder: tempfile::TempDir,
    }

    impl Driven {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (replace, replaced) = crossbeam_channel::unbounded();
            let thread = CheckpointThread {
                store: Box::new(FjallStore::open(folder.path()).expect("a store")),
                jobs: CheckpointQueue::new().1,
                policy: CheckpointPolicy::default(),
                growth: Arc::default(),
                state: StateAccess::new(ExecutionQueue::new().0),
                view: Arc::new(ExecutionView::new(&machine(empty_state()))),
                machine: Box::new(machine),
                compact: Box::new(|_| {}),
                replace: Box::new(move |machine| {
                    let _ = replace.send(machine.status().applied_index);
                }),
                fatal: Fatal::default(),
            };
            Self {
                thread,
                snapshot: Snapshot::None,
                replaced,
                _folder: folder,
            }
        }

        fn decide(&mut self, job: Job) {
            let snapshot = std::mem::replace(&mut self.snapshot, Snapshot::None);
            self.snapshot = self.thread.job(job, snapshot).expect("a disk that works");
        }

        fn ask(&mut self, job: impl FnOnce(Done<()>) -> Job) -> Result<(), SnapshotRefused> {
            let (done, mut answer) = oneshot::channel();
            self.decide(job(done));
            answer.try_recv().expect("an answer")
        }

        /// Takes a whole snapshot in.
        fn take(&mut self, index: u64) -> Result<(), SnapshotRefused> {
            let (meta, records) = snapshot(index);
            self.ask(|done| Job::Begin(meta, done))?;
            self.ask(|done| Job::Write(records, done))?;
            self.ask(Job::Finish)
        }
    }

    /// Rule R25: the log may count a prepared snapshot at any moment, so another offer does not take
    /// its place.
    #[test]
    fn r25_a_prepared_snapshot_stays_until_it_is_decided_on() {
        let mut driven = Driven::new();
        driven.take(10).expect("taken");
        assert_eq!(driven.take(20), Err(SnapshotRefused::Busy));
        driven.decide(Job::Install(snapshot(10).0));
        assert_eq!(driven.replaced.try_recv(), Ok(LogIndex(10)));
        assert_eq!(driven.thread.current(), LogIndex(10));
    }

    #[test]
    fn a_snapshot_that_the_log_does_not_take_makes_room_for_the_next() {
        let mut driven = Driven::new();
        driven.take(10).expect("taken");
        driven.decide(Job::Discard(snapshot(10).0));
        assert_eq!(driven.thread.store.prepared(), Ok(None));
        driven.take(20).expect("taken");
        driven.decide(Job::Install(snapshot(20).0));
        assert_eq!(driven.thread.current(), LogIndex(20));
    }

    /// Consensus hears of a snapshot from the one who took it in: without them it is never decided
    /// on.
    #[test]
    fn a_snapshot_whose_taker_is_gone_makes_room_for_the_next() {
        let mut driven = Driven::new();
        let (meta, records) = snapshot(10);
        driven.ask(|done| Job::Begin(meta, done)).expect("begun");
        driven.ask(|done| Job::Write(records, done)).expect("taken");
        let (done, taker) = oneshot::channel();
        drop(taker);
        driven.decide(Job::Finish(done));
        assert_eq!(driven.thread.store.prepared(), Ok(None));
        driven.take(20).expect("taken");
    }
}
