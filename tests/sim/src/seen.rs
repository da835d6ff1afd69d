//! Counters of interesting events: a run in which nothing went wrong proves nothing.

use std::fmt;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// An event worth counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What happened, in words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

events! {
    /// A member was elected.
    Elected => "elections",
    /// A leader was deposed or stepped down.
    Deposed => "leaders deposed",
    /// A follower's log was truncated.
    ConflictRepaired => "conflicts repaired",
    /// A peer's snapshot arrived.
    SnapshotReceived => "snapshots received",
    /// A member that fell behind goes on from a snapshot.
    SnapshotInstalled => "snapshots installed",
    /// A member's process ended without warning.
    Crash => "crashes",
    /// A process was stopped and continued.
    Pause => "pauses",
    /// A partition of some shape began.
    Partition => "partitions",
    /// A connection between members broke and lost its tail.
    LinkBroken => "peer connections broken",
    /// Unsynced writes were lost in a crash.
    WritesLost => "unsynced writes lost",
    /// A write was torn by a crash.
    WriteTorn => "writes torn",
    /// Acknowledged data was damaged on a minority.
    BitRot => "bit rot",
    /// A member started with damage below its durable mark and was held from voting.
    DamageFound => "damaged logs found",
    /// A sync failed.
    SyncFailed => "syncs failed",
    /// A disk was full.
    DiskFull => "disks full",
    /// A member started on a folder that was emptied.
    Wiped => "members wiped",
    /// A member whose folder was emptied learnt of it from a peer.
    RebuiltTold => "wiped members told so by peers",
    /// Log segments were dropped behind a checkpoint.
    SegmentDropped => "log segments dropped",
    /// A checkpoint was written.
    Checkpoint => "checkpoints",
    /// A batch was refused by consensus.
    ProposeRefused => "proposals refused",
    /// An overlay with transactions in it was dropped.
    OverlayDropped => "overlays dropped",
    /// A warm plugin instance was dropped at random.
    InstanceDropped => "plugin instances dropped",
    /// A plugin faulted.
    PluginFault => "plugin faults",
    /// A session was opened.
    SessionOpened => "sessions opened",
    /// A session was attached at another member.
    SessionMoved => "sessions moved",
    /// A session expired.
    SessionExpired => "sessions expired",
    /// A session was closed by its client.
    SessionClosed => "sessions closed",
    /// A client was told to send again.
    Rewind => "rewinds",
    /// A request was not admitted.
    NotAdmitted => "requests not admitted",
    /// A request was not admitted since too many waited at the leader.
    Overloaded => "leaders overloaded",
    /// A request was sent a second time and answered.
    Retried => "requests retried",
    /// A request was refused, and the refusal logged.
    Refused => "refusals",
    /// A request was answered.
    Replied => "requests answered",
    /// A linearizable read was answered.
    LinearizableRead => "linearizable reads",
    /// A local read was answered.
    LocalRead => "local reads",
    /// A read barrier was lost and asked for again.
    ReadRetried => "reads retried",
    /// A wait began.
    WaitBegun => "waits begun",
    /// A wait was completed.
    WaitCompleted => "waits completed",
    /// A wait was completed by a leader of another term than that in which it began.
    WaitSurvived => "waits completed after failover",
    /// A lock was acquired.
    LockAcquired => "locks acquired",
    /// A guarded write was refused since its token was old.
    StaleTokenRefused => "stale tokens refused",
    /// A session became a member of the group.
    MemberJoined => "members joined",
    /// A member was taken over from a session that lived.
    MemberTakenOver => "members taken over",
    /// A member left.
    MemberLeft => "members left",
    /// A member was told of the map, or what changed of it.
    MapUpdate => "updates of a map",
    /// A member was given a partition.
    PartitionGained => "partitions gained",
    /// A partition was let go by its owner, who was asked to.
    PartitionReleased => "partitions let go",
    /// A partition was taken from an owner that lived and did not let go.
    PartitionForced => "partitions taken by force",
    /// A partition without an owner got one.
    PartitionRecovered => "partitions recovered",
    /// A move was begun for balance.
    MovedForBalance => "moves for balance",
    /// A policy was asked, and saw what owners measured.
    LoadsShown => "questions that show loads",
    /// A permit to stop was given.
    Permitted => "permits to stop",
    /// A client stopped trusting its lease.
    Jeopardy => "clients in jeopardy",
    /// Events arrived on a watch.
    WatchEvents => "watch events",
    /// A watch was resumed from a position.
    WatchResumed => "watches resumed",
    /// A watch could not be resumed, and the client was told.
    WatchCompacted => "watches compacted",
    /// A watch was ended since its client did not take what it was told.
    WatchTooSlow => "watches too slow",
    /// A mount's events were too many, and it was told to look at everything.
    Resync => "resyncs of mounts",
    /// A request was refused since its session owns or waits for as much as it may.
    CapReached => "session caps reached",
    /// The wall clock of a member jumped.
    ClockJump => "wall clock jumps",
}

/// How often each event happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen([u64; Event::ALL.len()]);

impl Default for Seen {
    fn default() -> Self {
        Self([0; Event::ALL.len()])
    }
}

impl Seen {
    pub(crate) fn count(&mut self, event: Event) {
        self.0[event as usize] += 1;
    }

    /// How often `event` happened.
    #[must_use]
    pub fn of(&self, event: Event) -> u64 {
        self.0[event as usize]
    }

    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in Event::ALL {
            writeln!(f, "{:>10}  {}", self.of(*event), event.name())?;
        }
        Ok(())
    }
}
