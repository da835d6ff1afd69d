//! What goes into the execution machine and comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use folkmoot_proto::client::{ClientFrame, ControlReply, ServerFrame};
use folkmoot_proto::entry::Entry;
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::{ConnEpoch, Digest, LogIndex, MemberId, SessionId, Term, Tick, Zxid};

use crate::consensus::{ProposeRefused, ProposedBatch};
use crate::policy::{PolicyCall, PolicyCallId};

/// One session stream of one connection; given by the shell, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// One client connection; given by the shell, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How an execution machine behaves. Durations are milliseconds.
#[derive(Clone, Debug)]
pub struct ExecutionConfig {
    /// This member.
    pub member: MemberId,
    /// A number that no other run of this member's process uses (rule R20).
    pub run: u64,
    /// Batches that may be proposed and not yet committed.
    pub batches_in_flight_max: usize,
    /// Requests that may wait to be executed.
    pub queue_requests_max: usize,
    /// Between two rounds that acknowledge touches (rule R16).
    pub touch_round_ms: u64,
    /// State hashes are taken at each multiple of this index (rule R27).
    pub hash_interval: u64,
    /// Bytes of changed state that a checkpoint has not taken, beyond which no more entries are
    /// asked for (rule R26).
    pub dirty_bytes_max: usize,
}

impl ExecutionConfig {
    /// The defaults.
    #[must_use]
    pub fn new(member: MemberId, run: u64) -> Self {
        Self {
            member,
            run,
            batches_in_flight_max: 2,
            queue_requests_max: 64 * 1024,
            touch_round_ms: 50,
            hash_interval: 1024,
            // Eight times what has a checkpoint begin.
            dirty_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// What clients attached to this member do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A frame on a session's stream; the first one of a stream opens or resumes its session.
    Frame {
        /// The connection.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
        /// The frame.
        frame: ClientFrame,
    },
    /// The stream ended; its session lives on.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// Its client ended it; else it was lost, or this member ended it.
        by_client: bool,
    },
    /// Bytes of frames of a stream went out; the rest counts against a watcher's budget.
    Drained {
        /// The stream.
        stream: StreamId,
        /// Bytes, as the shell counted them when it encoded the frames.
        bytes: usize,
    },
    /// A heartbeat on the control stream.
    Heartbeat {
        /// The connection.
        connection: ConnectionId,
        /// The client's sequence.
        sequence: u64,
        /// When it came to this member, on the clock of `Now::tick`.
        arrived: Tick,
        /// The connection's round trip, in microseconds; 0 if it is not known.
        rtt_micros: u32,
        /// The sessions and their epochs.
        sessions: Vec<(SessionId, ConnEpoch)>,
    },
    /// The connection ended.
    ConnectionClosed {
        /// The connection.
        connection: ConnectionId,
    },
}

/// What consensus tells execution, in one FIFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsensusEvent {
    /// As [`crate::consensus::Action::Committed`].
    Committed {
        /// The entries.
        entries: Vec<Entry>,
    },
    /// As [`crate::consensus::Action::Elected`].
    Elected {
        /// The term.
        term: Term,
        /// The first entry of the term.
        first_index: LogIndex,
    },
    /// As [`crate::consensus::Action::Deposed`].
    Deposed {
        /// The term.
        term: Term,
    },
    /// As [`crate::consensus::Action::LeaderChanged`].
    LeaderChanged {
        /// The term.
        term: Term,
        /// The leader.
        leader: Option<MemberId>,
    },
    /// A proposed batch was not appended (rule R3). `last_appended` is the last entry that this
    /// leader appended in its term: nothing is executed before it is applied.
    ProposeRefused {
        /// Why.
        reason: ProposeRefused,
        /// The batch's term.
        term: Term,
        /// The last entry appended.
        last_appended: LogIndex,
    },
    /// As [`crate::consensus::Action::ReadReady`].
    ReadReady {
        /// The barrier.
        context: ReadContext,
        /// The read index.
        index: LogIndex,
    },
    /// As [`crate::consensus::Action::ReadLost`].
    ReadLost {
        /// The barrier.
        context: ReadContext,
    },
}

/// What an execution machine wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecutionAction {
    /// Send to a session's client, in order.
    ToStream {
        /// The stream.
        stream: StreamId,
        /// The frame.
        frame: ServerFrame,
    },
    /// Close a session's stream after what was sent.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// Send on a connection's control stream.
    ToControl {
        /// The connection.
        connection: ConnectionId,
        /// The frame.
        reply: ControlReply,
    },
    /// Tell every connection, as at a change of leader.
    ToAllControls {
        /// The frame.
        reply: ControlReply,
    },
    /// Send to a peer, in order; may be lost with the stream.
    ToPeer {
        /// The peer.
        to: MemberId,
        /// The message.
        message: ExecutionMessage,
    },
    /// Hand to consensus; a refusal comes back as `ProposeRefused`.
    Propose {
        /// The batch.
        batch: ProposedBatch,
    },
    /// Ask consensus for a read barrier.
    ReadBarrier {
        /// Its name.
        context: ReadContext,
    },
    /// Examine a sealed component off the hot path, beginning with whether its bytes have this
    /// digest, and answer with `handle_examined` (leader only).
    ExamineComponent {
        /// Its digest.
        digest: Digest,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Ask a policy off the hot path, and answer with `handle_policy` (leader only).
    AskPolicy {
        /// Names the question.
        id: PolicyCallId,
        /// The question.
        call: Box<PolicyCall>,
    },
    /// Compile a component ahead.
    CompileComponent {
        /// Its digest.
        digest: Digest,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A component is no longer needed.
    ForgetComponent {
        /// Its digest.
        digest: Digest,
    },
    /// A line that a guest has logged, for the operator. Not replicated, and not more than the
    /// guest's calls on this leader have said.
    GuestLog {
        /// The mount's path.
        mount: String,
        /// The line.
        line: String,
    },
    /// This member's state is wrong (rules R3, R5, R27): it must stop and say why.
    Stop {
        /// Why.
        reason: String,
    },
    /// A peer's state differs at one position; an operator must look (rule R27).
    HashAlarm {
        /// The peer.
        peer: MemberId,
        /// The position.
        index: LogIndex,
    },
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do at once: step again.
    More,
    /// Nothing to do before the next input or `poll_timeout`.
    Idle,
}

/// What an execution machine knows, for operators and invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionStatus {
    /// The last entry applied.
    pub applied_index: LogIndex,
    /// The last transaction applied.
    pub applied_zxid: Zxid,
    /// The state's hash there.
    pub state_hash: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Nodes.
    pub nodes: u64,
    /// Watches here.
    pub watches: u64,
    /// Transactions in the overlay: executed here and not yet applied.
    pub overlay_txns: u64,
    /// The next moment at which something is due.
    pub next_timeout: Option<Tick>,
    /// For a leader: how the failure detectors do that are chosen, by group, as of their last look.
    pub detectors: Arc<[DetectorStanding]>,
}

/// How a failure detector does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorStanding {
    /// The group that it serves; empty for the default.
    pub group: String,
    /// When it last answered, in this term.
    pub answered_at: Option<Tick>,
    /// Faults in a row.
    pub faults: u32,
    /// The last of these.
    pub problem: Option<Arc<str>>,
}
