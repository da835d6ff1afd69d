//! A member: a machine with a disk that outlives processes, and a process with three threads, wired
//! as the server wires them: network (consensus), execution, log. Each thread takes everything that
//! is there in one turn; when a turn comes is up to the seed.

pub(crate) mod engine;
mod execution_thread;
mod log_thread;
mod model_log;
mod network_thread;
mod plain;
mod start;

use std::collections::VecDeque;

use bytes::Bytes;
use folkmoot_core::consensus::{Consensus, LogRead, LogReadId, PersistId, ProposedBatch, Stall};
use folkmoot_core::execution::{ClientEvent, ConsensusEvent};
use folkmoot_core::log::{DiskError, LogRecord, OpId};
use folkmoot_core::policy::{PolicyAnswer, PolicyCallId};
use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::{ConsensusMessage, ExecutionMessage, ReadContext};
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{ClusterId, Digest, LogIndex, MemberId, Term, Tick};

use crate::clock::Clock;
use crate::ctx::{Ctx, Happening};
use crate::dice::Dice;
use crate::disk::{CrashKind, SimDisk};
use crate::seen::Event;
use crate::store::SimStore;
use crate::time::Moment;
use crate::violation::Checked;
use crate::{Layers, MakeGuests, Options};
use engine::Engine;
use model_log::ModelLog;

/// The cluster of every world.
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A thread of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    Network,
    Execution,
    Log,
}

impl Thread {
    const COUNT: usize = 3;
}

/// What the network thread is given.
#[derive(Debug)]
pub(crate) enum ToNetwork {
    Message {
        from: MemberId,
        message: ConsensusMessage,
    },
    Durable(PersistId),
    LogRead(LogRead),
    Propose(ProposedBatch),
    ReadBarrier(ReadContext),
    SnapshotReceived {
        from: MemberId,
        from_life: u64,
        term: Term,
        meta: StateMeta,
    },
    SnapshotSent {
        to: MemberId,
    },
    SnapshotFailed {
        to: MemberId,
    },
    Applied(LogIndex),
    Compacted(LogIndex),
    Stall(Stall),
    Transfer,
}

/// What the execution thread is given.
#[derive(Debug)]
pub(crate) enum ToExecution {
    Consensus(ConsensusEvent),
    Client(ClientEvent),
    Peer {
        from: MemberId,
        message: ExecutionMessage,
    },
    PeerLost {
        peer: MemberId,
    },
    MakeSnapshot {
        to: MemberId,
        term: Term,
    },
    /// A new execution, on the state of a snapshot; what follows in the queue is for it.
    Installed(Box<Engine>),
    CheckpointDone,
    Examined {
        digest: Digest,
    },
    Compiled {
        digest: Digest,
    },
    /// A policy has answered.
    Policy {
        id: PolicyCallId,
        answer: PolicyAnswer,
    },
    Heal,
}

/// What the log thread is given.
#[derive(Debug)]
pub(crate) enum ToLog {
    Append(PersistId, Vec<LogRecord>),
    Read(LogAsk),
    Compact(StateMeta),
    Synced,
    Done(OpId, Result<(), DiskError>),
}

/// Entries that consensus wants back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogAsk {
    id: LogReadId,
    from: LogIndex,
    to: LogIndex,
    bytes_max: usize,
}

impl LogAsk {
    fn answer(self, entries: Vec<Entry>) -> LogRead {
        LogRead {
            id: self.id,
            entries,
        }
    }
}

/// A state on its way to a peer.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotParcel {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) from_life: u64,
    pub(crate) link_epoch: u64,
    /// The term that the sender led when it was asked for.
    pub(crate) term: Term,
    pub(crate) meta: StateMeta,
    pub(crate) records: Vec<RecordChange>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct PendingCheckpoint {
    meta: StateMeta,
    changes: Vec<RecordChange>,
}

/// What ends with a crash.
#[derive(Debug)]
struct Process {
    /// None until the log says that it has started; the engine likewise.
    consensus: Option<Consensus>,
    engine: Option<Engine>,
    log: start::LogPort,
    starting: Option<start::Starting>,
    to_network: VecDeque<ToNetwork>,
    to_execution: VecDeque<ToExecution>,
    to_log: VecDeque<ToLog>,
    syncing: bool,
    /// A snapshot is prepared, and its record is on the way to the log.
    installing: bool,
    checkpoint: Option<PendingCheckpoint>,
    checkpointed: LogIndex,
    /// What consensus was told of how far execution is.
    told_applied: LogIndex,
}

/// One member with all that outlives its processes.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    dice: Dice,
    clock: Clock,
    pub(crate) disk: SimDisk,
    model: ModelLog,
    store: SimStore,
    bootstrap: Bytes,
    layers: Layers,
    guests: Option<MakeGuests>,
    /// A process has begun on this folder: its log is there.
    began: bool,
    /// The disk has damaged what it acknowledged.
    pub(crate) rotted: bool,
    /// Counts processes; what was meant for an earlier one is not given to a later one.
    pub(crate) life: u64,
    folder: u64,
    /// A wiped folder left a mark beside it, by which the member knows (rule R21): a machine that was
    /// set up again has none.
    marked: bool,
    process: Option<Process>,
    paused: bool,
    /// Only the execution thread stands still: a guest that takes its time.
    stalled_until: Moment,
    wakes: [Option<Moment>; Thread::COUNT],
    personality: Personality,
}

/// How a member's threads are scheduled; drawn once.
#[derive(Clone, Copy, Debug)]
struct Personality {
    /// Typical microseconds between a wake and a turn.
    lag: u64,
    /// Turns, in a thousand, that come much later.
    hiccups: u64,
    /// Entries between two checkpoints.
    checkpoint_every: u64,
    /// Bytes of a log segment.
    segment_bytes: u64,
    /// Bytes of entries that consensus keeps in memory.
    cache_bytes: usize,
    /// Bytes of entries that execution may be given and not have applied.
    unapplied_bytes: usize,
    /// Bytes of state that may have changed since a checkpoint.
    dirty_bytes: usize,
    /// Typical microseconds of a sync of the model log.
    sync: u64,
    /// Inputs that consensus takes in one turn. Execution takes all there are, since it must have
    /// heard of a session before it expires it (rule R16).
    network_inputs: usize,
    /// Requests that may wait at a leader's execution.
    queue_requests: usize,
    /// Batches that execution may have on the way through consensus.
    batches_in_flight: usize,
}

impl Member {
    pub(crate) fn new(seed: u64, id: MemberId, bootstrap: Bytes, options: &Options) -> Self {
        let mut dice = Dice::new(seed, &format!("member {id}"));
        let personality = Personality {
            lag: dice.pick(&[5, 20, 60]).copied().unwrap_or(20),
            hiccups: dice.pick(&[0, 1, 5]).copied().unwrap_or(0),
            checkpoint_every: dice.pick(&[100, 300, 1_000]).copied().unwrap_or(300),
            segment_bytes: dice.pick(&[64, 128, 512]).copied().unwrap_or(128) * 1024,
            cache_bytes: dice.pick(&[8, 16, 64]).copied().unwrap_or(16) * 1024,
            sync: dice
                .pick(&[100, 400, 3_000, 15_000])
                .copied()
                .unwrap_or(400),
            network_inputs: dice.pick(&[1_000, 1_000, 1, 4]).copied().unwrap_or(1_000),
            queue_requests: dice.pick(&[65_536, 65_536, 4]).copied().unwrap_or(65_536),
            batches_in_flight: dice.pick(&[2, 2, 1, 5]).copied().unwrap_or(2),
            dirty_bytes: dice.pick(&[16, 64, 1024]).copied().unwrap_or(1024) * 1024,
            unapplied_bytes: dice.pick(&[2, 8, 256]).copied().unwrap_or(256) * 1024,
        };
        Self {
            id,
            clock: Clock::new(&mut dice, Moment::START),
            dice,
            disk: SimDisk::new(seed, id.0),
            model: ModelLog::default(),
            store: SimStore::default(),
            bootstrap,
            layers: options.layers,
            guests: options.guests,
            began: false,
            rotted: false,
            life: 0,
            folder: 1,
            marked: false,
            process: None,
            paused: false,
            stalled_until: Moment::START,
            wakes: [None; Thread::COUNT],
            personality,
        }
    }

    /// Whether its folder was emptied at some time.
    pub(crate) fn was_wiped(&self) -> bool {
        self.folder > 1
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The life in which clients reach it, if they do.
    pub(crate) fn reachable(&self) -> Option<u64> {
        (self.engine().is_some() && !self.paused).then_some(self.life)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn consensus(&self) -> Option<&Consensus> {
        self.process.as_ref()?.consensus.as_ref()
    }

    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.process.as_ref()?.engine.as_ref()
    }

    /// Gives the process something and wakes its thread. Nothing happens if it is down.
    pub(crate) fn give_network(&mut self, ctx: &mut Ctx, input: ToNetwork) {
        if let Some(process) = &mut self.process {
            process.to_network.push_back(input);
            self.wake(ctx, Thread::Network);
        }
    }

    pub(crate) fn give_execution(&mut self, ctx: &mut Ctx, input: ToExecution) {
        if let Some(process) = &mut self.process {
            process.to_execution.push_back(input);
            self.wake(ctx, Thread::Execution);
        }
    }

    pub(crate) fn give_log(&mut self, ctx: &mut Ctx, input: ToLog) {
        if let Some(process) = &mut self.process {
            process.to_log.push_back(input);
            self.wake(ctx, Thread::Log);
        }
    }

    /// Has a thread take its turn soon.
    fn wake(&mut self, ctx: &mut Ctx, thread: Thread) {
        let mut lag = self.dice.delay(self.personality.lag);
        if self.dice.chance(self.personality.hiccups) {
            lag += self.dice.between(1_000, 60_000);
        }
        self.wake_at(ctx, thread, ctx.now.plus_micros(lag));
    }

    fn wake_at(&mut self, ctx: &mut Ctx, thread: Thread, at: Moment) {
        let at = at.max(ctx.now.plus_micros(1));
        let slot = &mut self.wakes[thread as usize];
        if slot.is_some_and(|due| due <= at) {
            return;
        }
        *slot = Some(at);
        ctx.queue.push(
            at,
            Happening::Turn {
                member: self.id,
                life: self.life,
                thread,
            },
        );
    }

    /// A turn that was scheduled has come.
    pub(crate) fn turn(&mut self, ctx: &mut Ctx, life: u64, thread: Thread) -> Checked {
        if life != self.life || self.wakes[thread as usize] != Some(ctx.now) {
            return Ok(());
        }
        self.wakes[thread as usize] = None;
        if self.paused {
            return Ok(());
        }
        match thread {
            Thread::Network => self.network_turn(ctx),
            Thread::Execution if self.stalled_until > ctx.now => {
                self.wake_at(ctx, Thread::Execution, self.stalled_until);
                Ok(())
            }
            Thread::Execution => self.execution_turn(ctx),
            Thread::Log => self.log_turn(ctx),
        }
    }

    /// SIGSTOP: nothing of the process runs; what comes in piles up.
    pub(crate) fn pause(&mut self, ctx: &mut Ctx) {
        if !self.paused && self.is_up() {
            self.paused = true;
            ctx.seen.count(Event::Pause);
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, ctx: &mut Ctx) {
        self.paused = false;
        for thread in [Thread::Network, Thread::Execution, Thread::Log] {
            self.wake(ctx, thread);
        }
    }

    /// The execution thread stands still for a while, as under a guest that uses its budget.
    pub(crate) fn stall_execution(&mut self, until: Moment) {
        self.stalled_until = until;
    }

    /// What its monotonic clock shows.
    pub(crate) fn tick(&self, now: Moment) -> Tick {
        self.clock.tick(now)
    }

    /// The wall clock is set to another time.
    pub(crate) fn jump_wall_clock(&mut self, millis: i64) {
        self.clock.jump(millis);
    }

    /// The process ends without warning. What was not reported as durable may be lost.
    pub(crate) fn crash(&mut self, ctx: &mut Ctx, kind: CrashKind) {
        let Some(process) = self.process.take() else {
            return;
        };
        ctx.seen.count(Event::Crash);
        self.life += 1;
        self.paused = false;
        self.wakes = [None; Thread::COUNT];
        for torn in self.disk.crash(kind) {
            if torn.lost {
                ctx.seen.count(Event::WritesLost);
            }
            if torn.lost && torn.kept {
                ctx.seen.count(Event::WriteTorn);
            }
        }
        if self.model.crash(&mut self.dice) {
            ctx.seen.count(Event::WritesLost);
        }
        if let Some(pending) = process.checkpoint
            && self.dice.chance(500)
        {
            self.write_checkpoint(ctx, pending);
        }
    }

    /// The folder of a member that is down is emptied.
    pub(crate) fn wipe(&mut self, ctx: &mut Ctx) {
        assert!(!self.is_up(), "only a member that is down is wiped");
        self.disk.wipe();
        self.model.wipe();
        self.store.wipe();
        self.folder += 1;
        self.marked = self.dice.chance(500);
        self.began = false;
        self.rotted = false;
        ctx.checks.wiped(self.id);
        ctx.seen.count(Event::Wiped);
    }

    fn write_checkpoint(&mut self, ctx: &mut Ctx, pending: PendingCheckpoint) {
        use folkmoot_core::checkpoint::CheckpointStore as _;
        ctx.seen.count(Event::Checkpoint);
        let written = self.store.write_delta(pending.meta, pending.changes);
        assert!(written.is_ok(), "the store in memory takes every delta");
    }
}
