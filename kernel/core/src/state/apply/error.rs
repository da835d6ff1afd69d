//! Why something can not be applied.

use folkmoot_proto::{
    ConnEpoch, Digest, LogIndex, LogTime, MountId, RequestId, SessionId, Term, Ticket, Zxid,
};

/// Why an entry, a transaction or an effect can not be applied. In a committed entry it means that
/// this member's state is wrong, and the member must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The entry is not the next one.
    #[error("entry {got} came where {expected} is next")]
    NotNextEntry {
        /// The next one.
        expected: LogIndex,
        /// The one that came.
        got: LogIndex,
    },
    /// The entry's term is below the last one's, or not that of its batch.
    #[error("entry {index} has term {term}, expected {expected} or later")]
    BadTerm {
        /// The entry.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The least, or the batch's.
        expected: Term,
    },
    /// The batch was executed on another state (rule R3).
    #[error("the batch follows zxid {base}, the last one applied is {applied}")]
    Chain {
        /// The batch's base.
        base: Zxid,
        /// The last transaction applied.
        applied: Zxid,
    },
    /// The entry's last zxid is not that of its batch.
    #[error("the entry says that it ends at zxid {says}, it ends at {ends}")]
    BadEnd {
        /// What the entry says.
        says: Zxid,
        /// What its batch holds.
        ends: Zxid,
    },
    /// The batch does not decode.
    #[error("the batch does not decode: {0}")]
    Malformed(#[from] folkmoot_proto::codec::DecodeError),
    /// The bootstrap entry is not that of this cluster.
    #[error("the bootstrap entry is not that of this cluster, or not the first")]
    BadBootstrap,
    /// The transaction is not the next one.
    #[error("transaction {got} came where {expected} is next")]
    NotNextTxn {
        /// The next one.
        expected: Zxid,
        /// The one that came.
        got: Zxid,
    },
    /// Log time went back (rule R9).
    #[error("log time {got} is before {applied}")]
    TimeWentBack {
        /// The last one applied.
        applied: LogTime,
        /// The one that came.
        got: LogTime,
    },
    /// A precondition of a node's effect does not hold.
    #[error("{path}: {problem}")]
    Node {
        /// The node.
        path: String,
        /// What does not hold.
        problem: NodeProblem,
    },
    /// The session is not open.
    #[error("session {session} is not open")]
    NoSession {
        /// The session.
        session: SessionId,
    },
    /// The session's secret is in use.
    #[error("session {session} has that secret already")]
    SecretInUse {
        /// The session that has it.
        session: SessionId,
    },
    /// The epoch is not the next one (rule R15).
    #[error("session {session} is attached with epoch {got} where {expected} is next")]
    BadEpoch {
        /// The session.
        session: SessionId,
        /// The next one.
        expected: ConnEpoch,
        /// The one that came.
        got: ConnEpoch,
    },
    /// The request is not the session's next one (rule R2).
    #[error("session {session} has request {got} where {expected} is next")]
    NotNextRequest {
        /// The session.
        session: SessionId,
        /// The next one.
        expected: RequestId,
        /// The one that came.
        got: RequestId,
    },
    /// The acknowledgement went back, or covers replies that were not given (rule R10).
    #[error("session {session} acknowledges up to {got}, between {from} and {to} is possible")]
    BadAcknowledgement {
        /// The session.
        session: SessionId,
        /// What is acknowledged already.
        from: RequestId,
        /// The last reply.
        to: RequestId,
        /// What came.
        got: RequestId,
    },
    /// The session still owns nodes or waits.
    #[error("session {session} still has {ephemerals} ephemeral nodes and {waits} waits")]
    SessionOwns {
        /// The session.
        session: SessionId,
        /// Its ephemeral nodes.
        ephemerals: u32,
        /// Its waits.
        waits: u32,
    },
    /// The completion is not there to be dropped, or is there already.
    #[error("session {session} has no such completion, or has it already: {ticket}")]
    BadCompletion {
        /// The session.
        session: SessionId,
        /// The ticket.
        ticket: Ticket,
    },
    /// The wait is over, or never was; or it is not over although it was completed.
    #[error("wait {ticket}: {problem}")]
    BadWait {
        /// The wait.
        ticket: Ticket,
        /// What does not hold.
        problem: &'static str,
    },
    /// A precondition of a mount's effect does not hold.
    #[error("mount {mount}: {problem}")]
    BadMount {
        /// The mount.
        mount: MountId,
        /// What does not hold.
        problem: &'static str,
    },
    /// A precondition of a partition map's effect does not hold.
    #[error("partition map: {problem}")]
    BadMap {
        /// What does not hold.
        problem: &'static str,
    },
    /// A precondition of a component's effect does not hold.
    #[error("component {digest}: {problem}")]
    BadComponent {
        /// The component.
        digest: Digest,
        /// What does not hold.
        problem: &'static str,
    },
}

/// What does not hold for a node's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeProblem {
    /// Not a valid path.
    #[error("not a path")]
    BadPath,
    /// Below `/folkmoot`.
    #[error("the kernel's own")]
    Reserved,
    /// No node is there.
    #[error("no node")]
    Missing,
    /// A node is there already.
    #[error("a node is there already")]
    Exists,
    /// The parent is missing.
    #[error("no parent")]
    NoParent,
    /// The parent is ephemeral.
    #[error("the parent is ephemeral")]
    EphemeralParent,
    /// It has children.
    #[error("it has children")]
    NotEmpty,
    /// The version is not the next one.
    #[error("version {got} where {expected} is next")]
    BadVersion {
        /// The next one.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// The parent's `cversion` or sequence is not the next one.
    #[error("parent's counter {got} where {expected} is next")]
    BadCounter {
        /// The next one.
        expected: u64,
        /// The one that came.
        got: u64,
    },
}
