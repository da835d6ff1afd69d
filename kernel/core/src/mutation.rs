//! Switches that take single rules out, so that one build of the simulator shows that each rule is
//! held by a check that fails without it.
//!
//! Without the feature `mutants` no switch can be on, and [`is_on`] costs nothing. With it, at most
//! one is on in a process.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident = $rule:literal,)+) => {
        /// A rule, or a part of one, taken out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutation {
            /// All of them, by rule.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The rule that is taken out.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)+
                }
            }

            /// The name to switch it on by.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What is done wrong.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

mutations! {
    /// A batch is appended though the one before it was refused.
    AppendUnchained = "R3",
    /// A refusal is answered and not logged.
    RefusalsUnlogged = "R1",
    /// A request beyond the session's next one is executed.
    AcceptGap = "R2",
    /// A leader goes on executing on its overlay after a batch was refused.
    KeepOverlay = "R3",
    /// A new leader executes before it has applied its own first entry.
    ExecuteBeforeOwnEntry = "R4",
    /// A batch is proposed though its bytes do not decode to what was applied.
    ProposeUnchecked = "R5",
    /// An effect on a node whose precondition does not hold is skipped.
    ApplyTolerantly = "R6",
    /// A mount over its share, or with an open breaker, is called all the same.
    NoThrottle = "R7",
    /// The log clock of a new leader is its monotonic clock.
    LogClockRestarts = "R9",
    /// A request that was executed is executed again when it is repeated.
    ExecuteRepeated = "R10",
    /// Completing a wait that is over tells the guest that it was completed.
    DeadWaitCompleted = "R11",
    /// Plugins do not hear of sessions that end.
    SessionEndUntold = "R12",
    /// An event whose handler faults is lost.
    FaultLosesEvent = "R12",
    /// A guard holds while any node is at its path.
    GuardByPresence = "R13",
    /// Warm instances outlive the overlay that they remember.
    KeepInstances = "R14",
    /// A warm instance outlives a call whose writes were rolled back.
    KeepInstanceAfterRejection = "R14",
    /// Requests and touches of an older attachment are taken.
    IgnoreEpoch = "R15",
    /// A member says that a session is over before that is committed.
    ExpiredByHearsay = "R15",
    /// Touches are accepted without a quorum round.
    TouchWithoutQuorum = "R16",
    /// A session expires though heartbeats that came earlier may not have been taken.
    ExpireUnconfirmed = "R16",
    /// Checkpoints leave out the completions that sessions have not acknowledged.
    CheckpointWithoutCompletions = "R26",
    /// The state hash keeps what was removed.
    HashKeepsRemoved = "R27",
    /// Replies overtake the events of their transaction.
    ReplyBeforeEvents = "R28",
    /// Answers overtake the events that a resumed watch is still to tell.
    AnswersOvertakeWatches = "R28",
    /// A watch that resumes from a zxid is told of that transaction again.
    ResumeInclusive = "R29",
    /// Progress is marked on watches that are not told everything up to it.
    ProgressAhead = "R29",
    /// A watch whose history is gone begins with what is left.
    SkipCompacted = "R30",
    /// Watches resume over what a snapshot or a restart left out of the history.
    WatchesOverSnapshot = "R30",
    /// A component that its examination has refused is installed.
    InstallRefused = "R31",
    /// A mount is called before its component is compiled here.
    CallLoading = "R31",
    /// A session may own more than fits the entry that closes it.
    EphemeralsUncapped = "R32",
    /// Uploads that do not go on stay.
    UploadsStay = "R31",
    /// A member that lives owns what a former incarnation of it owned.
    OwnerByName = "R34",
    /// A promotion keeps the token of the owner before.
    KeepToken = "R33",
    /// An owner that has not let go in time loses the partition, whatever its lease.
    ForceByDeadline = "R35",
    /// Leases of partitions go on though the revoke was not taken in.
    LeaseWithoutPosition = "R35",
    /// A report of an older move is taken for the present one.
    LateReportTaken = "R36",
    /// A move is dropped though its owner lets go already.
    CancelRevoking = "R36",
    /// A plan's moves begin though what they saw has changed.
    StalePlan = "R37",
    /// Moves begin whatever the budget.
    NoBudget = "R37",
    /// Nobody who is gone is waited for.
    NoOfflineDelay = "R38",
    /// The parts of a split keep its token.
    SplitKeepsToken = "R39",
    /// A replica that has not caught up is promoted.
    PromoteUnready = "R40",
    /// A member that is suspect, or unhealthy by its own word, gets new partitions.
    SuspectTakes = "R41",
    /// A permit is given without regard to others.
    PermitForgotten = "R42",
    /// What a failure detector says of a session counts though the session was heard of since.
    VerdictOfOldTouch = "R43",
    /// What a failure detector says of a session counts though the session was attached anew since.
    VerdictOfOldAttachment = "R43",
    /// What a failure detector says to a leader counts for the next one.
    VerdictOfOldTerm = "R43",
    /// What a failure detector says counts, however old it is.
    StaleVerdict = "R43",
    /// A failure detector holds a session for as long as it likes.
    HoldPastCeiling = "R43",
    /// Any number of sessions expires at once.
    NoBrake = "R43",
    /// Contact with a quorum counts from the time its answer is handled.
    ContactFromReceipt = "R8",
    /// A vote leaves before it is durable.
    VoteBeforeDurable = "R17",
    /// A follower acknowledges entries that are not durable.
    AckBeforeDurable = "R17",
    /// A leader counts its own entries before they are durable.
    LeaderCountsUndurable = "R17",
    /// Durability is kept by index alone, so that a truncated entry counts for the one in its place.
    DurableByIndexAlone = "R17",
    /// A member hands entries to execution that are committed and not durable here.
    ApplyUndurable = "R17",
    /// A follower takes the leader's commit index beyond what it has verified in this term.
    CommitUnverified = "R18",
    /// A leader commits an entry of an earlier term by counting (Raft §5.4.2).
    CommitEarlierTerm = "R18",
    /// A leader without a quorum stays in office.
    StayWithoutQuorum = "R19",
    /// Commit advances and no follower is told before the next append.
    SilentCommit = "R19",
    /// A read barrier holds without a round.
    ReadWithoutRound = "R20",
    /// A read barrier holds before an entry of the leader's own term is committed.
    ReadBeforeOwnEntry = "R20",
    /// A wiped member votes and acknowledges as if nothing was lost.
    WipedVotes = "R21",
    /// Recovery trusts the page cache: the last segment's valid part is not written anew.
    TrustPageCache = "R22",
    /// Recovery takes lost data for a torn tail.
    LostIsTorn = "R23",
    /// A member whose log was damaged votes and acknowledges before it is repaired.
    DamagedVotes = "R23",
    /// A segment is recycled before a checkpoint covers it.
    RecycleUncovered = "R24",
    /// Neither segments nor runs repeat the term and the vote.
    HeaderWithoutVote = "R24",
    /// A checkpoint ahead of the log is taken for the log's base.
    CheckpointAheadStarts = "R25",
}

#[cfg(feature = "mutants")]
mod switch {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::Mutation;

    /// The mutation that is on, plus 1; 0 for none.
    static ON: AtomicU32 = AtomicU32::new(0);

    /// Switches a mutation on, for the whole process, in place of the one that was on.
    pub fn switch_on(mutation: Mutation) {
        ON.store(mutation as u32 + 1, Ordering::Relaxed);
    }

    /// Switches off what is on.
    pub fn switch_off() {
        ON.store(0, Ordering::Relaxed);
    }

    /// Whether a mutation is on.
    #[must_use]
    pub fn is_on(mutation: Mutation) -> bool {
        ON.load(Ordering::Relaxed) == mutation as u32 + 1
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is_on, switch_off, switch_on};

/// Whether a mutation is on: never in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_on(_mutation: Mutation) -> bool {
    false
}
