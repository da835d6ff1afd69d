//! What clients and members say to each other.
//!
//! A connection has one *control stream* (the first bidirectional stream the client opens) for
//! hello, heartbeats and status, and one bidirectional stream for each session. Replies,
//! completions and events of a session travel on its stream, in order (rule R28).

use crate::group::GroupOperation;
use crate::partition::{MapDetail, MapOperation, MapUpdate, PartitionLoad, PolicyChoice};
use crate::reply::Reply;
use crate::{
    ClusterId, ConnEpoch, Digest, LogIndex, MemberId, ReadId, RequestId, SessionId, SessionSecret,
    Term, Ticket, WallTime, WatchId, Zxid,
};

/// The first bytes of every control stream name this version of the protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// A frame from the client on a connection's control stream.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ControlRequest {
    /// The first frame. The cluster is named where the client knows it.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// The cluster that the client means to talk to.
        cluster: Option<ClusterId>,
    },
    /// The sessions on this connection live. One frame for all of them.
    Heartbeat {
        /// Chosen by the client, rising; the acknowledgement names it.
        sequence: u64,
        /// The sessions, with the epoch of their attachment here.
        sessions: Vec<(SessionId, ConnEpoch)>,
    },
    /// Asks for [`MemberStatus`]. Answered without a leader, too.
    Status,
}

/// A frame to the client on a connection's control stream.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ControlReply {
    /// Answers `Hello`.
    Welcome {
        /// The member's cluster.
        cluster: ClusterId,
        /// The member.
        member: MemberId,
        /// All members with their advertised addresses for clients.
        members: Vec<(MemberId, String)>,
    },
    /// The heartbeat was acknowledged by a quorum round begun after the leader got it (rule R16).
    HeartbeatAck {
        /// The heartbeat's sequence.
        sequence: u64,
        /// The sessions that were accepted; one that is missing was refused, is closing, or has
        /// moved elsewhere. With each the zxid through which its client must have taken in its maps
        /// for the leases of its partitions to go on with the session's; none: they do not, by this
        /// acknowledgement (rule R35).
        sessions: Vec<(SessionId, Option<Zxid>)>,
    },
    /// Whether this member knows a leader; sent at every change.
    Leader {
        /// The leader, if one is known.
        leader: Option<MemberId>,
    },
    /// Answers `Status`.
    Status(Box<MemberStatus>),
    /// The connection is about to be closed by the member.
    Closing {
        /// Why, for a person.
        reason: String,
    },
}

/// What one member knows of itself and of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct MemberStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// `leader`, `follower`, `candidate`, or `recovering` (rule R23: it may not vote yet).
    pub role: String,
    /// The term.
    pub term: Term,
    /// The leader it knows.
    pub leader: Option<MemberId>,
    /// The last entry in its log.
    pub last_index: LogIndex,
    /// Its commit index.
    pub commit_index: LogIndex,
    /// The last entry applied.
    pub applied_index: LogIndex,
    /// The last transaction applied.
    pub applied_zxid: Zxid,
    /// The hash of the whole state at `applied_zxid` (rule R27).
    pub state_hash: u64,
    /// Open sessions of the cluster.
    pub sessions: u64,
    /// Nodes of the tree.
    pub nodes: u64,
    /// Watches on this member.
    pub watches: u64,
    /// The voters.
    pub voters: Vec<MemberId>,
    /// For a leader: how far each member has the log, and milliseconds since it answered.
    pub peers: Vec<PeerStatus>,
    /// For a leader: how the failure detectors do that are chosen.
    pub detectors: Vec<DetectorStatus>,
    /// The server's version.
    pub version: String,
}

/// What a leader knows of a failure detector that is chosen.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct DetectorStatus {
    /// The group that it serves; empty for the default.
    pub group: String,
    /// Milliseconds since it last answered in this term. It is asked while somebody is silent for a
    /// quarter of the timeout.
    pub answered_ms: Option<u64>,
    /// Faults in a row. While there are any, timeouts are plain.
    pub faults: u32,
    /// The last of these faults; empty if there is none.
    pub problem: String,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PeerStatus {
    /// The other member.
    pub member: MemberId,
    /// The last entry it has on disk, as far as is known.
    pub match_index: LogIndex,
    /// Milliseconds since its last answer; none if it has not answered in this term.
    pub last_contact_ms: Option<u64>,
}

/// A frame from the client on a session's stream. The first is `Open` or `Resume`.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ClientFrame {
    /// Opens a session. A retry with the same secret gets the same session (rule R10).
    Open {
        /// The session's secret, made by the client.
        secret: SessionSecret,
        /// After this long without an accepted heartbeat the cluster may expire the session.
        timeout_ms: u32,
    },
    /// Attaches to a session that was opened before, here or elsewhere (rule R15).
    Resume {
        /// The session.
        session: SessionId,
        /// Its secret.
        secret: SessionSecret,
        /// The newest zxid the client has seen: the member serves once it has applied it.
        last_seen: Zxid,
    },
    /// A write-class request.
    Request(Request),
    /// A read.
    Read(Read),
    /// Begins a watch.
    Watch(Watch),
    /// Ends a watch.
    Unwatch {
        /// The watch.
        watch: WatchId,
    },
    /// The next chunk of a children listing or a `watch_and_read` is wanted.
    More {
        /// The read.
        read: ReadId,
    },
    /// Has the group's map told from here on, whether there is one yet or not: as an update without
    /// a base, or, where `since` is what the client has and the layout is the same, from there.
    WatchMap {
        /// The group.
        group: String,
        /// How much.
        detail: MapDetail,
        /// What the client has.
        since: Option<Zxid>,
    },
    /// The map is not to be told any more.
    UnwatchMap {
        /// The group.
        group: String,
        /// As in `WatchMap`.
        detail: MapDetail,
    },
    /// Follows `Resume`, once attached, behind a `Watch` for every watch that the client goes on
    /// with. Until it came and those watches have caught up, answers, completions and reads are
    /// held back, so that none overtakes an event that it reflects (rule R28).
    WatchesResumed,
    /// What the session's member measured of partitions that it owns. It is not answered and may be
    /// lost, so it is sent again and again; of two that arrive the later one counts.
    Loads {
        /// The group.
        group: String,
        /// At most [`crate::limits::MAP_NAMED_MAX`].
        loads: Vec<PartitionLoad>,
    },
}

/// A write-class request: it takes its place in the session's order, and is answered exactly once
/// however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Request {
    /// Its place: the last one's plus 1.
    pub id: RequestId,
    /// Every reply up to this one has arrived and need not be kept (rule R10).
    pub acked_up_to: RequestId,
    /// All hold in the pre-state, or the request is refused (rule R13).
    pub guards: Vec<Guard>,
    /// What to do.
    pub operation: Operation,
}

/// Holds if and only if a node is at `path` with `czxid == token` (rule R13).
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Guard {
    /// The path of the grant.
    pub path: String,
    /// The fencing token: the grant's `czxid`.
    pub token: Zxid,
}

/// Kinds of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct NodeKind {
    /// Deleted with its session.
    pub ephemeral: bool,
    /// The parent's 64-bit counter is appended to the path, in 20 digits.
    pub sequential: bool,
}

impl NodeKind {
    /// A node that stays until it is deleted.
    pub const PERSISTENT: Self = Self {
        ephemeral: false,
        sequential: false,
    };
    /// A node that is deleted with its session.
    pub const EPHEMERAL: Self = Self {
        ephemeral: true,
        sequential: false,
    };
}

/// What a write-class request does.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Operation {
    /// Creates a node.
    Create {
        /// Its path.
        path: String,
        /// Its value.
        data: Vec<u8>,
        /// Its kind.
        kind: NodeKind,
    },
    /// Sets a node's value.
    Set {
        /// Its path.
        path: String,
        /// The value.
        data: Vec<u8>,
        /// The version that the node must have.
        expected: Option<u64>,
    },
    /// Deletes a node without children.
    Delete {
        /// Its path.
        path: String,
        /// The version that the node must have.
        expected: Option<u64>,
    },
    /// All of it or nothing.
    Multi {
        /// The operations, in order; each sees the ones before it.
        operations: Vec<SubOperation>,
    },
    /// No effect: its reply says that everything before it is applied here.
    Sync,
    /// Calls the plugin of a mount.
    Invoke {
        /// The mount's path.
        mount: String,
        /// The plugin's operation.
        operation: String,
        /// JSON by convention.
        payload: Vec<u8>,
    },
    /// Ends a wait of this session, if it is not over.
    CancelWait {
        /// The request that began it.
        request: RequestId,
    },
    /// Completions that have arrived and need not be kept.
    AcknowledgeCompletions {
        /// Their tickets.
        tickets: Vec<Ticket>,
    },
    /// Closes the session: its ephemeral nodes go in the same transaction.
    CloseSession,
    /// A chunk of a component (rule R31). Chunks of one upload come in order.
    UploadChunk {
        /// The component's digest.
        digest: Digest,
        /// The component's size in bytes.
        size: u32,
        /// Where this chunk begins.
        offset: u32,
        /// The chunk, at most [`crate::limits::CHUNK_BYTES_MAX`] bytes.
        data: Vec<u8>,
    },
    /// The upload is whole: examine and install it. Waits until it was examined.
    Install {
        /// The component's digest.
        digest: Digest,
        /// A name for people.
        name: String,
    },
    /// Mounts a component, or gives an existing mount another component or configuration. Where the
    /// component's state version is another one, its `migrate` runs in the same transaction.
    Mount {
        /// Where.
        path: String,
        /// An installed component.
        digest: Digest,
        /// What the plugin's `configure` gets.
        config: Vec<u8>,
    },
    /// Removes a mount; its waits end, its nodes stay.
    Unmount {
        /// Where.
        path: String,
    },
    /// Removes an installed component that no mount has (rule R31).
    RemoveComponent {
        /// The component's digest.
        digest: Digest,
    },
    /// Something of a group's member.
    Group {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// What.
        operation: GroupOperation,
    },
    /// Something of a group's partition map.
    Map {
        /// The group.
        group: String,
        /// What.
        operation: MapOperation,
    },
    /// Has a failure detector serve a group, in place of the one that does.
    ChooseDetector {
        /// The group, whether it is there yet or not; empty for the default, which serves the
        /// sessions that are in no group and the groups without a choice of their own.
        group: String,
        /// Which one, an installed component of the world `failure-detector`. None: no choice of
        /// the group's own any more; by default, plain timeouts.
        choice: Option<PolicyChoice>,
    },
    /// Has an installed policy take a configuration, and does nothing else. Waits; completed by
    /// [`crate::reply::Outcome::PolicyTook`], or refused with what the policy says. It is pure: what it
    /// takes now, it takes when it is chosen.
    TryPolicy {
        /// The policy, of whichever world.
        choice: PolicyChoice,
    },
}

/// An operation of a `multi`.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum SubOperation {
    /// Holds if the node is there, with that version where one is named.
    Check {
        /// The path.
        path: String,
        /// The version.
        expected: Option<u64>,
    },
    /// As [`Operation::Create`].
    Create {
        /// Its path.
        path: String,
        /// Its value.
        data: Vec<u8>,
        /// Its kind.
        kind: NodeKind,
    },
    /// As [`Operation::Set`].
    Set {
        /// Its path.
        path: String,
        /// The value.
        data: Vec<u8>,
        /// The version that the node must have.
        expected: Option<u64>,
    },
    /// As [`Operation::Delete`].
    Delete {
        /// Its path.
        path: String,
        /// The version that the node must have.
        expected: Option<u64>,
    },
}

/// A read. It takes no id of the session's order (rule R2).
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Read {
    /// Names it; the reply carries it.
    pub id: ReadId,
    /// Served once this request is answered.
    pub after: RequestId,
    /// Served only after a quorum round begun after it arrived (rule R20).
    pub linearizable: bool,
    /// What to read.
    pub query: Query,
}

/// What a read asks.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Query {
    /// A node's value and stat.
    Get {
        /// The path.
        path: String,
    },
    /// A node's stat.
    Exists {
        /// The path.
        path: String,
    },
    /// The names of a node's children, sorted, a page at a time, all as of one zxid.
    Children {
        /// The path.
        path: String,
        /// Begin after this name.
        after: Option<String>,
        /// At most this many names in all; 0 for all.
        limit: u32,
    },
}

/// A node's stat, as ZooKeeper's `Stat`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Stat {
    /// The zxid that created the node.
    pub czxid: Zxid,
    /// The zxid that last set its value.
    pub mzxid: Zxid,
    /// The zxid that last created or deleted a child.
    pub pzxid: Zxid,
    /// When it was created.
    pub ctime: WallTime,
    /// When its value was last set.
    pub mtime: WallTime,
    /// How often its value was set.
    pub version: u64,
    /// How often a child was created or deleted.
    pub cversion: u64,
    /// The owner of an ephemeral node.
    pub ephemeral_owner: Option<SessionId>,
    /// Its children.
    pub num_children: u64,
    /// Bytes of its value.
    pub data_length: u32,
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ReadOutcome {
    /// Answers `Get`.
    Node {
        /// The value.
        data: Vec<u8>,
        /// The stat.
        stat: Stat,
    },
    /// Answers `Exists`; none if no node is there.
    Exists(Option<Stat>),
    /// Answers `Children`: one page; the client asks with `More` for the next.
    Children {
        /// The names, sorted.
        names: Vec<String>,
        /// The stat of the parent.
        stat: Stat,
        /// Whether a page follows.
        more: bool,
    },
}

/// Which changes a watch is told of.
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
pub enum WatchScope {
    /// The node: created, set, deleted.
    Node,
    /// The node's children: created, set, deleted; and the node itself.
    Children,
    /// Everything at or below the path.
    Recursive,
}

/// Begins a watch; it lasts until it is ended (persistent, as ZooKeeper's `addWatch`).
///
/// While a watch without a snapshot, or one whose snapshot was sent, is told of what happened before
/// it was asked for, nothing else of the session is sent that could overtake it (rule R28). Answers
/// may come before and between the chunks of a snapshot.
///
/// The first frame of a watch without a snapshot is a [`ServerFrame::Progress`] with the zxid after
/// which changes are told: the client knows by it that the watch is in place, and where to resume.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Watch {
    /// Names it; events carry it.
    pub id: WatchId,
    /// Where.
    pub path: String,
    /// What.
    pub scope: WatchScope,
    /// Changes after this zxid (exclusive); none: from where the member is.
    pub from: Option<Zxid>,
    /// Sends the nodes first (`watch_and_read`), as of one zxid, and then every change after it.
    pub with_snapshot: bool,
    /// Whether changes carry the nodes' values.
    pub with_data: bool,
}

/// A frame to the client on a session's stream.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ServerFrame {
    /// The session is attached here, and requests may follow.
    Attached {
        /// The session.
        session: SessionId,
        /// The epoch of this attachment.
        epoch: ConnEpoch,
        /// The negotiated timeout.
        timeout_ms: u32,
        /// The last request that took its place; the next one has this id plus 1.
        last_id: RequestId,
        /// What this member has applied.
        zxid: Zxid,
    },
    /// The session can not be attached.
    AttachRefused(AttachRefused),
    /// The answer to a request, in the session's order.
    Reply {
        /// The request.
        id: RequestId,
        /// Its transaction.
        zxid: Zxid,
        /// The answer.
        reply: Reply,
    },
    /// A wait ended. Every completion that is kept is sent again after each attachment, until it is
    /// acknowledged; it may come before the repeated answer of the request that began the wait.
    Completion {
        /// The wait.
        ticket: Ticket,
        /// The request that began it.
        id: RequestId,
        /// The transaction that ended it.
        zxid: Zxid,
        /// How.
        reply: Reply,
    },
    /// The answer to a read.
    ReadReply {
        /// The read.
        id: ReadId,
        /// What the member had applied.
        zxid: Zxid,
        /// The answer.
        result: Result<ReadOutcome, ReadRefusal>,
    },
    /// A request was not admitted, nor any behind it: no id was taken (rule R2).
    NotAdmitted {
        /// The request.
        id: RequestId,
        /// Why.
        reason: NotAdmitted,
    },
    /// Send again from this id on: what was sent from there may not have arrived (rule R2).
    Rewind {
        /// The next id to send.
        next: RequestId,
    },
    /// One transaction's changes for one watch.
    Events {
        /// The watch.
        watch: WatchId,
        /// The transaction.
        zxid: Zxid,
        /// The changes, in order.
        changes: Vec<Change>,
        /// Whether this ends the transaction for this watch (rule R29).
        last: bool,
    },
    /// A chunk of a watch's snapshot.
    WatchSnapshot {
        /// The watch.
        watch: WatchId,
        /// The zxid of the snapshot: changes after it follow.
        zxid: Zxid,
        /// Nodes, in path order.
        nodes: Vec<SnapshotNode>,
        /// Whether this is the last chunk.
        last: bool,
    },
    /// Everything up to this zxid was told on this watch.
    Progress {
        /// The watch.
        watch: WatchId,
        /// The zxid.
        zxid: Zxid,
    },
    /// The watch ended.
    WatchEnded {
        /// The watch.
        watch: WatchId,
        /// Why.
        reason: WatchEnd,
    },
    /// A map, or what changed of it.
    Map(MapUpdate),
    /// A map is not told: the stream is told of as many as may be, or the name is none.
    MapRefused {
        /// The group.
        group: String,
        /// As in `WatchMap`.
        detail: MapDetail,
        /// Why, for a person.
        reason: String,
    },
    /// The session is over, by a committed entry (rule R15).
    SessionEnded {
        /// Whether it expired; else it was closed.
        expired: bool,
    },
    /// The stream is about to be closed by the member; the session lives.
    Closing {
        /// Why, for a person.
        reason: String,
    },
}

/// A node in a watch's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SnapshotNode {
    /// Its path.
    pub path: String,
    /// Its value, where the watch asks for values.
    pub data: Vec<u8>,
    /// Its stat.
    pub stat: Stat,
}

/// One change of one node.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Change {
    /// The node.
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The value after it, where the watch asks for values; empty for a deletion.
    pub data: Vec<u8>,
    /// The node's version after it; 0 for a creation and a deletion.
    pub version: u64,
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ChangeKind {
    /// It was created.
    Created,
    /// Its value was set.
    Set,
    /// It was deleted.
    Deleted,
}

/// Why a session can not be attached.
#[derive(
    Clone, Debug, PartialEq, Eq, thiserror::Error, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum AttachRefused {
    /// It expired or was closed; only a committed entry says so (rule R15).
    #[error("the session is over, or never was")]
    UnknownSession,
    /// The secret is another one.
    #[error("the secret is not this session's")]
    WrongSecret,
    /// The timeout is outside the cluster's limits.
    #[error("a session's timeout is between {min_ms} and {max_ms} ms")]
    BadTimeout {
        /// The shortest allowed.
        min_ms: u32,
        /// The longest allowed.
        max_ms: u32,
    },
    /// The cluster has as many sessions as it may. Retry later, or elsewhere.
    #[error("the cluster has as many sessions as it may")]
    TooManySessions,
    /// No leader is known here. Retry, or try another member.
    #[error("this member knows no leader")]
    NoLeader,
}

/// Why a request was not admitted. The client sends it again, from this id on.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    thiserror::Error,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub enum NotAdmitted {
    /// Queues are full.
    #[error("the member is overloaded")]
    Overloaded,
    /// No leader is known.
    #[error("this member knows no leader")]
    NoLeader,
    /// The session has as many unacknowledged replies as it may (rule R10).
    #[error("the session has as many unacknowledged replies as it may")]
    SessionFull,
}

/// Why a read has no answer.
#[derive(
    Clone, Debug, PartialEq, Eq, thiserror::Error, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum ReadRefusal {
    /// No node is there.
    #[error("no node at {path}")]
    NoNode {
        /// The path.
        path: String,
    },
    /// The path is not valid.
    #[error("{path:?} is not a path: {error}")]
    BadPath {
        /// The text.
        path: String,
        /// What is wrong with it.
        error: crate::PathError,
    },
    /// As many views are open on this member as may be. Retry, or try another member.
    #[error("as many views are open on this member as may be")]
    TooManyViews,
    /// As many reads of this session wait, or of all, as may. Retry.
    #[error("as many reads wait on this member as may")]
    TooManyReads,
    /// No quorum round could be made. Retry, or try another member.
    #[error("this member knows no leader")]
    NoLeader,
}

/// Why a watch ended.
#[derive(
    Clone, Debug, PartialEq, Eq, thiserror::Error, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum WatchEnd {
    /// The client ended it.
    #[error("ended by the client")]
    Unwatched,
    /// History before `floor` is gone here; other members may have it (rule R30).
    #[error("history before zxid {floor} is gone")]
    Compacted {
        /// The oldest zxid from which a watch can resume here.
        floor: Zxid,
    },
    /// The watcher fell behind its byte budget.
    #[error("the watcher fell behind its budget of {limit} bytes")]
    TooSlow {
        /// The budget.
        limit: u32,
    },
    /// The path is not valid.
    #[error("not a path: {error}")]
    BadPath {
        /// What is wrong with it.
        error: crate::PathError,
    },
    /// The session has as many watches as it may, or names one twice.
    #[error("the session has as many watches as it may, or names one twice")]
    TooMany,
    /// The session ended before the watch had caught up.
    #[error("the session ended before the watch had caught up")]
    SessionEnded,
}
