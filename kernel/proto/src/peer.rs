//! What members say to each other.
//!
//! A connection between two members carries one ordered stream for [`ConsensusMessage::Append`] and
//! [`ExecutionMessage`]s, and one with priority for votes and heartbeats; so messages can overtake
//! each other between the two, and either can be lost with the connection.

use crate::client::{NotAdmitted, Request};
use crate::entry::Entry;
use crate::partition::PartitionLoad;
use crate::record::StateMeta;
use crate::{
    ClusterId, ConnEpoch, Incarnation, LogIndex, MemberId, RequestId, SecretHash, SessionId, Term,
    Tick, Zxid,
};

/// The first frame on every stream between members.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PeerHello {
    /// [`crate::client::PROTOCOL_VERSION`].
    pub version: u32,
    /// The cluster; a peer of another one is refused.
    pub cluster: ClusterId,
    /// Who speaks; the certificate must agree.
    pub from: MemberId,
    /// Which life of its data folder.
    pub incarnation: Incarnation,
    /// What the stream carries.
    pub purpose: StreamPurpose,
}

/// What a stream between members carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum StreamPurpose {
    /// Appends and forwarded work, in order.
    Ordered,
    /// Votes, heartbeats and their answers.
    Priority,
    /// One snapshot.
    Snapshot,
}

/// A frame between members.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum PeerMessage {
    /// For the consensus machine.
    Consensus(ConsensusMessage),
    /// For the execution machine.
    Execution(ExecutionMessage),
}

/// Between consensus machines (Raft, with the extensions of Ongaro's thesis).
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ConsensusMessage {
    /// A candidate asks for a vote, or, before it raises its term, whether it would get one
    /// (thesis §9.6).
    VoteRequest {
        /// The term that it would lead.
        term: Term,
        /// Whether this is a pre-vote.
        pre: bool,
        /// Its last entry.
        last_index: LogIndex,
        /// That entry's term.
        last_term: Term,
        /// The leader asked it to (thesis §3.10): voters do not hold it off for their leader's sake.
        transfer: bool,
    },
    /// The answer.
    VoteReply {
        /// The voter's term; for a granted pre-vote the term asked for.
        term: Term,
        /// Whether this answers a pre-vote.
        pre: bool,
        /// Whether it is granted.
        granted: bool,
    },
    /// The leader's entries (Raft §5.3).
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first.
        prev_index: LogIndex,
        /// That entry's term.
        prev_term: Term,
        /// The commit index, clamped to what the follower has acknowledged (rule R18).
        commit: LogIndex,
        /// The leader's newest round; the answer repeats it.
        round: u64,
        /// The entries, in order; maybe none.
        entries: Vec<Entry>,
    },
    /// The answer; positive only for what is durable (rule R17).
    AppendReply {
        /// The follower's term.
        term: Term,
        /// The round that is answered.
        round: u64,
        /// How far the follower's log is durable and known to match, or where it does not.
        result: Result<LogIndex, AppendConflict>,
        /// Whether the answer counts for a quorum: not from a member whose promises are lost with
        /// its disk (rules R21, R23), which answers only to be sent what it lacks.
        counts: bool,
    },
    /// The leader lives (rule R16: touch rounds and read rounds ride on it).
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// As in `Append`.
        commit: LogIndex,
        /// As in `Append`.
        round: u64,
    },
    /// The answer.
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// The round that is answered.
        round: u64,
        /// How far the follower's log is known to match, durable or not: the leader sees by it
        /// that appends were lost with a stream.
        verified: LogIndex,
        /// As in `AppendReply`.
        counts: bool,
    },
    /// The leader asks for an election at once (thesis §3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A follower asks for a read barrier (Raft §8, thesis §6.4).
    ReadRequest {
        /// The follower's term.
        term: Term,
        /// Unique across restarts (rule R20).
        context: ReadContext,
    },
    /// The answer: what is applied up to here reflects everything acknowledged before the request.
    ReadReply {
        /// The leader's term.
        term: Term,
        /// The request's.
        context: ReadContext,
        /// The read index; none if this member does not lead any more.
        index: Option<LogIndex>,
    },
    /// A member whose log was just made asks whether it is known (rule R21).
    Introduce {
        /// Which life of its data folder.
        incarnation: Incarnation,
    },
    /// The answer, durable before it is given.
    Introduced {
        /// The life of the asker's data folder in which it was met first.
        known: Incarnation,
    },
}

/// Where a follower's log does not match (Raft §5.3, the accelerated form).
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct AppendConflict {
    /// The `prev_index` that did not match.
    pub prev_index: LogIndex,
    /// The follower's term there; none if its log is shorter.
    pub term: Option<Term>,
    /// The first index of that term, or the one after its last entry.
    pub first_index: LogIndex,
}

/// Names a read barrier.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct ReadContext {
    /// The member that asks.
    pub member: MemberId,
    /// A number that no other run of that member's process uses.
    pub run: u64,
    /// Counts within the run.
    pub sequence: u64,
}

/// Names a client's stream that waits to be attached at a member, so that asking for it twice
/// attaches it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct AttachAttempt {
    /// A number that no other run of the member's process uses.
    pub run: u64,
    /// The stream's number, which no other stream of the run has.
    pub stream: u64,
}

/// Between execution machines: in order while the stream lives, lossy with it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ExecutionMessage {
    /// To the leader: a client wants a session.
    OpenSession {
        /// The hash of its secret; a session that has it already is attached instead.
        secret: SecretHash,
        /// The timeout that it asks for.
        timeout_ms: u32,
        /// The stream that asks.
        attempt: AttachAttempt,
    },
    /// From the leader: the session was refused before anything was logged.
    OpenRefused {
        /// The request's.
        secret: SecretHash,
        /// Why.
        reason: crate::client::AttachRefused,
    },
    /// To the leader: a client resumes a session here.
    AttachSession {
        /// The session.
        session: SessionId,
        /// The hash of the secret that the client showed.
        secret: SecretHash,
        /// The stream that asks.
        attempt: AttachAttempt,
    },
    /// From the leader: the session was refused. `UnknownSession` holds once the member has applied
    /// `applied`, so that only a committed entry says so (rule R15).
    AttachRefused {
        /// The session.
        session: SessionId,
        /// The hash of the secret that was shown.
        secret: SecretHash,
        /// Why.
        reason: crate::client::AttachRefused,
        /// What must be applied before the client may be told.
        applied: LogIndex,
    },
    /// To the leader: requests of one session, in order.
    Requests {
        /// The session.
        session: SessionId,
        /// The epoch of its attachment at the sender (rule R15).
        epoch: ConnEpoch,
        /// The requests.
        requests: Vec<Request>,
    },
    /// From the leader: a request was not admitted, nor any behind it (rule R2).
    NotAdmitted {
        /// The session.
        session: SessionId,
        /// The epoch.
        epoch: ConnEpoch,
        /// The request.
        id: RequestId,
        /// Why.
        reason: NotAdmitted,
    },
    /// From the leader: it expects this id next; what came was beyond it, or its overlay was
    /// dropped (rules R2, R3).
    Rewind {
        /// The session.
        session: SessionId,
        /// The epoch.
        epoch: ConnEpoch,
        /// The id that is expected.
        next: RequestId,
    },
    /// To the leader: these sessions' clients were heard of.
    Touch {
        /// Rises at the sender; the answer names it.
        sequence: u64,
        /// When they were heard of, on the sender's monotonic clock: the interval between two
        /// touches at one member is known to its microsecond, however long they were on their way.
        arrived: Tick,
        /// The round trip between the sender and the client, in microseconds; 0 if it is not known.
        rtt_micros: u32,
        /// The sessions and the epochs of their attachments.
        sessions: Vec<(SessionId, ConnEpoch)>,
    },
    /// From the leader: a quorum round begun after the touch confirmed it (rule R16).
    TouchAck {
        /// The touch.
        sequence: u64,
        /// The sessions that were accepted.
        sessions: Vec<SessionId>,
        /// The last transaction that had an owner of a partition let go, of those that the leader
        /// had applied when the round began (rule R35).
        revoked: Zxid,
    },
    /// To the leader: what a session measured of partitions that it owns. It is not answered.
    Loads {
        /// The session.
        session: SessionId,
        /// The group.
        group: String,
        /// As in [`crate::client::ClientFrame::Loads`].
        loads: Vec<PartitionLoad>,
    },
    /// From any member: its state's hash at a fixed position (rule R27).
    StateHash {
        /// The position.
        index: LogIndex,
        /// The transaction there.
        zxid: Zxid,
        /// The hash.
        hash: u64,
    },
    /// To the leader: the stream ended on which a session was served here. It may be lost, and is not
    /// answered.
    StreamEnded {
        /// The session.
        session: SessionId,
        /// The epoch of its attachment.
        epoch: ConnEpoch,
        /// Its client ended it.
        by_client: bool,
    },
}

/// What travels on a snapshot's stream, after [`PeerHello`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum SnapshotFrame {
    /// First, from the sender.
    Offer {
        /// The leader's term.
        term: Term,
        /// Where the state stands.
        meta: StateMeta,
    },
    /// Records, in key order.
    Chunk {
        /// The records, encoded by `kernel/core`.
        records: Vec<crate::record::RecordChange>,
    },
    /// Last: how many records were sent.
    End {
        /// The number of records.
        records: u64,
    },
    /// From the receiver: the snapshot is durable, or why not.
    Answer {
        /// `Ok`, or the reason.
        result: Result<(), String>,
    },
}
