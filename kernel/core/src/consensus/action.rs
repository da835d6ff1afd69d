//! What goes into the consensus machine and comes out of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::bootstrap::BootstrapError;
use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Zxid};

use crate::log::LogRecord;

/// Names a `Persist` action; rises by 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Names a `ReadLog` action; rises by 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogReadId(pub u64);

/// How a consensus machine behaves. Durations are milliseconds.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// This member.
    pub member: MemberId,
    /// Which life of its data folder.
    pub incarnation: Incarnation,
    /// A number that no other run of this member's process uses (rule R20).
    pub run: u64,
    /// A follower waits between this and twice this before it stands (Raft §5.2).
    pub election_timeout_ms: u64,
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Bytes of entries on their way to one follower.
    pub inflight_bytes_max: usize,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes_max: usize,
    /// Bytes of entries in one append.
    pub append_bytes_max: usize,
    /// Bytes of entries that execution was handed and has not applied; one entry always has room.
    pub unapplied_bytes_max: usize,
}

impl ConsensusConfig {
    /// The defaults, for members a few milliseconds apart.
    #[must_use]
    pub fn new(member: MemberId, incarnation: Incarnation, run: u64) -> Self {
        Self {
            member,
            incarnation,
            run,
            election_timeout_ms: 500,
            heartbeat_ms: 50,
            inflight_bytes_max: 4 * 1024 * 1024,
            cache_bytes_max: 16 * 1024 * 1024,
            append_bytes_max: 1024 * 1024,
            unapplied_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// What a log holds when a member starts.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    /// Set if nothing was ever written to the log. One that lost all that was written is not new:
    /// its member has promised, and must not begin the cluster once more.
    pub is_new: bool,
    /// The term in the last durable hard state.
    pub term: Term,
    /// The vote in it.
    pub vote: Option<MemberId>,
    /// The state on which the log continues: the installed snapshot's, or the checkpoint's if the
    /// log was recycled up to it; none while the log begins with entry 1.
    pub base: Option<StateMeta>,
    /// The bootstrap entry's payload.
    pub bootstrap: Bytes,
    /// What is applied already (from the checkpoint); entries after it are handed out again as
    /// `Committed` once they are known to be committed.
    pub applied: LogIndex,
    /// The entries after `base`, those that fit `cache_bytes_max` counted from the end.
    pub recent: Vec<Entry>,
    /// Terms of all entries after `base`, as (first index of the run, term), rising: entries that
    /// are not in `recent` are read with `ReadLog` when they are needed.
    pub term_runs: Vec<(LogIndex, Term)>,
    /// The last entry; `base`'s index if there is none after it.
    pub last_index: LogIndex,
    /// The last zxid in the log.
    pub last_zxid: Zxid,
    /// Set if data below the durable mark was lost: up to this index the log can not be trusted to
    /// be what was acknowledged. No vote and no acknowledgement until it is repaired (rule R23).
    /// `term` and `vote` must be the last durable ones all the same, which is why the log keeps
    /// them in more than one place (rule R24): a forgotten vote can not be repaired.
    pub damaged_up_to: Option<LogIndex>,
    /// Set for a folder that was made empty after the cluster had begun, and for all of that
    /// folder's life (rule R21): its former life may have voted and acknowledged, and nobody knows
    /// what. Such a member receives entries, entry 1 first, but neither votes nor counts for a
    /// quorum until the members are changed. `bootstrap` is empty while entry 1 is not here.
    pub wiped: bool,
    /// Whether the others have confirmed that this life of the folder is the member's first (rule
    /// R21). Until then it neither votes nor counts.
    pub admitted: bool,
    /// In which life of its folder each peer was met first.
    pub peers_met: BTreeMap<MemberId, Incarnation>,
}

impl RecoveredLog {
    /// The log of a folder in which nothing was ever written.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            is_new: true,
            term: Term::ZERO,
            vote: None,
            base: None,
            bootstrap: Bytes::new(),
            applied: LogIndex::ZERO,
            recent: Vec::new(),
            term_runs: Vec::new(),
            last_index: LogIndex::ZERO,
            last_zxid: Zxid::ZERO,
            damaged_up_to: None,
            wiped: false,
            admitted: false,
            peers_met: BTreeMap::new(),
        }
    }

    /// Puts the bootstrap file's payload where entry 1 is not here; answers whether entry 1 is to
    /// be appended.
    pub(super) fn bootstrap(&mut self, payload: &Bytes) -> Result<bool, RecoverError> {
        if self.wiped {
            return Ok(false);
        }
        if self.is_new {
            assert!(
                self.last_index == LogIndex::ZERO
                    && (self.term, self.vote) == (Term::ZERO, None)
                    && self.damaged_up_to.is_none(),
                "a new log in term {} with vote {:?}, up to entry {}, damaged up to {:?}",
                self.term,
                self.vote,
                self.last_index,
                self.damaged_up_to,
            );
        } else if !self.bootstrap.is_empty() {
            return Ok(false);
        } else if self.damaged_up_to.is_none() {
            return Err(RecoverError::BeginningLost { term: self.term });
        }
        self.bootstrap = payload.clone();
        Ok(self.is_new)
    }
}

/// Why a consensus machine can not continue a log. The member must not start.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The bootstrap entry does not say who the members are.
    #[error("the log's first entry: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// The cluster has no such member.
    #[error("member {member} is not in the cluster of {voters:?}")]
    NotAMember {
        /// This member.
        member: MemberId,
        /// The cluster's.
        voters: Vec<MemberId>,
    },
    /// Entry 1 is gone, and the log does not know that it lost anything.
    #[error(
        "the log is in term {term} and has lost its first entry: move the data folder away, and \
         the member comes back as a wiped one"
    )]
    BeginningLost {
        /// The term in which it has promised.
        term: Term,
    },
    /// The log's parts contradict each other.
    #[error("the recovered log does not fit together: {what}")]
    Inconsistent {
        /// What does not fit.
        what: &'static str,
    },
}

/// What stalls in a leader's own process (rule R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// Its writes to the log.
    Disk,
    /// Its execution of requests.
    Execution,
}

/// A batch that execution proposes. It is appended only if the chain holds (rule R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedBatch {
    /// The term in which it was executed.
    pub term: Term,
    /// The last zxid of the state on which it was executed.
    pub base_zxid: Zxid,
    /// The last zxid in it.
    pub last_zxid: Zxid,
    /// The encoded [`folkmoot_proto::batch::Batch`].
    pub payload: Bytes,
}

/// Why a batch was not appended. Execution throws its overlay away (rule R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeRefused {
    /// This member does not lead that term.
    #[error("this member does not lead term {term}")]
    NotLeading {
        /// The batch's term.
        term: Term,
    },
    /// The chain is broken: a batch before this one was refused.
    #[error("the batch follows zxid {base}, the last one appended is {last}")]
    Chain {
        /// The batch's base.
        base: Zxid,
        /// The last zxid appended.
        last: Zxid,
    },
    /// The queues to disk or peers are full.
    #[error("too much is in flight")]
    Full,
}

/// Entries that were read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The read.
    pub id: LogReadId,
    /// The entries from the first that was asked for, in order; possibly fewer than were asked for.
    /// Empty if the log no longer has the first.
    pub entries: Vec<Entry>,
}

/// What a consensus machine wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to a peer; may be lost.
    Send {
        /// The peer.
        to: MemberId,
        /// The message.
        message: ConsensusMessage,
    },
    /// Write to the log, in order, and say `handle_durable` when it is on disk.
    Persist {
        /// Its name.
        id: PersistId,
        /// What to write.
        records: Vec<LogRecord>,
    },
    /// Read entries `from..=to` back, at most `bytes_max` of them (at least one entry).
    ReadLog {
        /// Its name.
        id: LogReadId,
        /// The first entry.
        from: LogIndex,
        /// The last entry.
        to: LogIndex,
        /// Bytes at most.
        bytes_max: usize,
    },
    /// For execution, in the one FIFO: these entries are committed and durable here (rule R17). No
    /// more come than `unapplied_bytes_max` before `handle_applied` makes room.
    Committed {
        /// In order, without gaps.
        entries: Vec<Entry>,
    },
    /// For the shell, in the same FIFO: the snapshot given to `snapshot_installed` is in the log.
    /// Execution is built anew from its folder; what is `Committed` after this follows it.
    SnapshotInstalled {
        /// Where it stands.
        meta: StateMeta,
    },
    /// For execution, in the same FIFO: this member leads.
    Elected {
        /// The term.
        term: Term,
        /// The no-op that began it: nothing is executed before it is applied (rule R4).
        first_index: LogIndex,
    },
    /// For execution, in the same FIFO: this member does not lead that term any more.
    Deposed {
        /// The term.
        term: Term,
    },
    /// For execution and the shell: the leader that this member follows (itself included) changed.
    LeaderChanged {
        /// The term.
        term: Term,
        /// The leader, if one is known.
        leader: Option<MemberId>,
    },
    /// For execution: a read barrier holds once `index` is applied (rule R20).
    ReadReady {
        /// The barrier.
        context: ReadContext,
        /// The read index.
        index: LogIndex,
    },
    /// For execution: the barrier is lost with its leader; ask again with a new context.
    ReadLost {
        /// The barrier.
        context: ReadContext,
    },
    /// For operators: a peer knows another life of this member's folder, so this one neither votes
    /// nor counts (rule R21).
    NotAdmitted {
        /// The peer.
        by: MemberId,
    },
    /// A peer needs entries that the log no longer has: stream a snapshot to it.
    SnapshotNeeded {
        /// The peer.
        to: MemberId,
    },
}

/// Roles of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// What a consensus machine knows, for operators and invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusStatus {
    /// The member's role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it follows.
    pub leader: Option<MemberId>,
    /// The last entry in its log.
    pub last_index: LogIndex,
    /// The last entry that is durable here.
    pub durable_index: LogIndex,
    /// Its commit index.
    pub commit_index: LogIndex,
    /// Whether it may vote and acknowledge (rules R21, R23).
    pub may_vote: bool,
    /// The voters.
    pub voters: Vec<MemberId>,
    /// For a leader: its peers.
    pub peers: Vec<PeerProgress>,
}

/// What a leader knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub member: MemberId,
    /// The last entry known to be durable there.
    pub match_index: LogIndex,
    /// Milliseconds since its last answer in this term.
    pub last_contact_ms: Option<u64>,
}
