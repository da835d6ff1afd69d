//! The answers to write-class requests: outcomes and refusals. Both are logged (rule R1).

use crate::codec::{Compact, DecodeError, Input};
use crate::{LogTime, PathError, Ticket, Zxid};

/// The answer to a write-class request, given in its place in the session's order.
pub type Reply = Result<Outcome, Refusal>;

/// What a write-class request did. The zxid of the transaction travels beside it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Outcome {
    /// The node was created; its `czxid` is the reply's zxid, and a fencing token. A sequential
    /// node has the number that was appended to its path.
    Created {
        /// The number appended to the path, for a sequential node.
        sequence: Option<u64>,
    },
    /// The value was set.
    Set {
        /// The node's version after it.
        version: u64,
    },
    /// The node was deleted.
    Deleted,
    /// A check of a `multi` held.
    Checked,
    /// All operations of a `multi` took effect; one outcome for each, in order.
    Multi(Vec<SubOutcome>),
    /// Everything proposed before this request is applied where it is answered.
    Synced,
    /// A plugin's reply.
    Invoked(Vec<u8>),
    /// The request waits; its completion comes under this ticket (rule R11).
    Waiting(Ticket),
    /// The wait named by a cancel was ended by it.
    Cancelled,
    /// The wait named by a cancel was over already.
    NothingToCancel,
    /// Completions were acknowledged.
    Acknowledged,
    /// The session is closed.
    SessionClosed,
    /// A chunk of a component was taken.
    ChunkTaken,
    /// The component is installed.
    Installed,
    /// A mount was made, changed or removed.
    Mounted,
    /// A mount was removed.
    Unmounted,
    /// A component was removed.
    ComponentRemoved,
    /// What was asked of a group was done; a member that joined has the reply's zxid as its
    /// incarnation.
    GroupChanged,
    /// What was asked of a map was done.
    MapChanged,
    /// What a policy would do: JSON.
    Planned(String),
    /// The members may stop, and the permit is kept.
    Permitted {
        /// The permit.
        permit: Zxid,
        /// Until when it holds.
        until: LogTime,
    },
    /// What a member said of its partitions was taken in.
    Reported {
        /// How much of it was of the present move, token and incarnation; the rest did nothing.
        current: u32,
    },
    /// The failure detector serves the group from here on, or no longer.
    DetectorChosen,
    /// The policy takes the configuration.
    PolicyTook,
}

/// The outcome of one operation of a `multi`.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum SubOutcome {
    /// As [`Outcome::Created`].
    Created {
        /// The number appended to the path, for a sequential node.
        sequence: Option<u64>,
    },
    /// As [`Outcome::Set`].
    Set {
        /// The node's version after it.
        version: u64,
    },
    /// As [`Outcome::Deleted`].
    Deleted,
    /// As [`Outcome::Checked`].
    Checked,
}

/// Why a write-class request had no effect. It took its place in the session's order all the same,
/// and a retry gets the same answer.
#[derive(
    Clone, Debug, PartialEq, Eq, thiserror::Error, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum Refusal {
    /// The path is not valid.
    #[error("{path:?} is not a path: {error}")]
    BadPath {
        /// The text.
        path: String,
        /// What is wrong with it.
        error: PathError,
    },
    /// The path is the kernel's own.
    #[error("{path} is below /folkmoot, which only the kernel writes")]
    Reserved {
        /// The path.
        path: String,
    },
    /// No node is there.
    #[error("no node at {path}")]
    NoNode {
        /// The path.
        path: String,
    },
    /// A node is there already.
    #[error("a node is at {path} already")]
    NodeExists {
        /// The path.
        path: String,
    },
    /// The parent is missing.
    #[error("no parent at {path}: create it first")]
    NoParent {
        /// The parent's path.
        path: String,
    },
    /// A node with children can not be deleted.
    #[error("{path} has children: delete them first")]
    NotEmpty {
        /// The path.
        path: String,
    },
    /// The root, or another node that the kernel needs, can not be deleted.
    #[error("{path} can not be deleted")]
    Undeletable {
        /// The path.
        path: String,
    },
    /// The node has another version than expected.
    #[error("{path} has version {actual}, not {expected}")]
    BadVersion {
        /// The path.
        path: String,
        /// The version that the request named.
        expected: u64,
        /// The node's version.
        actual: u64,
    },
    /// A guard does not hold: the grant it names is no longer the current one (rule R13).
    #[error("the guard on {path} with token {token} does not hold")]
    GuardFailed {
        /// The guard's path.
        path: String,
        /// The guard's token.
        token: Zxid,
        /// The token that would hold, if a node is at the path.
        current: Option<Zxid>,
    },
    /// Ephemeral nodes have no children.
    #[error("{path} is ephemeral and can have no children")]
    EphemeralParent {
        /// The parent's path.
        path: String,
    },
    /// The owner named for an ephemeral node is no open session.
    #[error("the owner of an ephemeral node must be an open session")]
    OwnerNotOpen,
    /// A limit of the cluster.
    #[error("{what} is limited to {limit}, this is {actual}")]
    TooLarge {
        /// What is limited, as in `docs/limits.md`.
        what: String,
        /// The limit.
        limit: u64,
        /// The request's figure.
        actual: u64,
    },
    /// An operation of a `multi` was refused, and so all of them.
    #[error("operation {index} of the multi was refused: {reason}")]
    MultiRefused {
        /// The operation's place, from 0.
        index: u32,
        /// Why, in words; its kind is `code`.
        reason: String,
        /// The name of the refusal, as [`Refusal::code`] gives it.
        code: String,
    },
    /// Nothing is mounted at the path.
    #[error("nothing is mounted at {mount}")]
    UnknownMount {
        /// The mount's path.
        mount: String,
    },
    /// A mount is at the path, above it or below it.
    #[error("a mount at {mount} is in the way")]
    MountExists {
        /// The mount's path.
        mount: String,
    },
    /// The component is not installed.
    #[error("component {digest} is not installed")]
    UnknownComponent {
        /// The component's digest.
        digest: String,
    },
    /// The component is needed.
    #[error("{by} has the component: remove that, or give it another component")]
    ComponentInUse {
        /// What has it: a mount, a map or the failure detector of a group.
        by: String,
    },
    /// A group's or a member's name, or what a member says of itself, can not be taken.
    #[error("{reason}")]
    BadMember {
        /// What is wrong.
        reason: String,
    },
    /// The member lives with another session (rule R34).
    #[error(
        "{member} of {group} lives with another session: wait until that ends, or take it over with its secret"
    )]
    MemberLives {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// No such member is known; or, where a member asks about itself, it does not live.
    #[error("{group} has no member {member}")]
    UnknownMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// What is asked for a map can not be taken.
    #[error("{reason}")]
    BadMap {
        /// What is wrong.
        reason: String,
    },
    /// The group has no map.
    #[error("{group} has no partition map")]
    UnknownMap {
        /// The group.
        group: String,
    },
    /// The group has a map.
    #[error("{group} has a partition map already")]
    MapExists {
        /// The group.
        group: String,
    },
    /// The map has no such partition, or not any more.
    #[error("{group} has no partition {partition}")]
    UnknownPartition {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
    },
    /// Something is under way with the partition, or keeps it where it is.
    #[error("partition {partition} of {group}: {reason}")]
    PartitionBusy {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// What.
        reason: String,
    },
    /// The members can not all stop (rule R42).
    #[error("it is not safe to stop: {}", reasons.join("; "))]
    NotSafe {
        /// Why, one reason each; the first ones where there are many.
        reasons: Vec<String>,
    },
    /// The component is of another world than the one asked for.
    #[error("component {digest} is no {world}")]
    WrongWorld {
        /// The component's digest.
        digest: String,
        /// The world that was asked for.
        world: String,
    },
    /// The component was examined and can not be a plugin here.
    #[error("the component can not be used: {reason}")]
    ComponentRefused {
        /// Why, and what to do.
        reason: String,
    },
    /// The plugin said no: a result of its own, not a fault.
    #[error("{code}: {message}")]
    Rejected {
        /// The plugin's code.
        code: String,
        /// The plugin's message.
        message: String,
        /// The plugin's details.
        details: Vec<(String, String)>,
    },
    /// The plugin trapped, ran over a limit, or broke its contract. Nothing of the call is left.
    #[error("plugin fault ({kind}): {message}")]
    PluginFault {
        /// The kind of fault: `out-of-fuel`, `timeout`, `memory`, `panic`, …
        kind: String,
        /// What the host knows of it.
        message: String,
    },
    /// The mount's component is not compiled here yet. Retry.
    #[error("the plugin of {mount} is loading")]
    PluginLoading {
        /// The mount's path.
        mount: String,
    },
    /// The mount is over its share of execution time, or its breaker is open. Retry.
    #[error("{mount} is throttled")]
    MountThrottled {
        /// The mount's path.
        mount: String,
    },
    /// The wait's deadline passed.
    #[error("the deadline of the wait passed")]
    DeadlinePassed,
    /// The wait was cancelled.
    #[error("the wait was cancelled")]
    WaitCancelled,
    /// The mount under a wait was removed.
    #[error("the mount was removed")]
    MountRemoved,
    /// The session ended.
    #[error("the session ended")]
    SessionEnded,
    /// The timeout asked for is outside the cluster's limits.
    #[error("a session's timeout is between {min_ms} and {max_ms} ms")]
    BadTimeout {
        /// The shortest allowed.
        min_ms: u32,
        /// The longest allowed.
        max_ms: u32,
    },
}

impl Refusal {
    /// The refusal's name in the CLI's JSON and in a `multi`'s refusal; part of the protocol.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadPath { .. } => "bad-path",
            Self::Reserved { .. } => "reserved",
            Self::NoNode { .. } => "no-node",
            Self::NodeExists { .. } => "node-exists",
            Self::NoParent { .. } => "no-parent",
            Self::NotEmpty { .. } => "not-empty",
            Self::Undeletable { .. } => "undeletable",
            Self::BadVersion { .. } => "bad-version",
            Self::GuardFailed { .. } => "guard-failed",
            Self::EphemeralParent { .. } => "ephemeral-parent",
            Self::OwnerNotOpen => "owner-not-open",
            Self::TooLarge { .. } => "too-large",
            Self::MultiRefused { .. } => "multi-refused",
            Self::UnknownMount { .. } => "unknown-mount",
            Self::MountExists { .. } => "mount-exists",
            Self::UnknownComponent { .. } => "unknown-component",
            Self::ComponentInUse { .. } => "component-in-use",
            Self::ComponentRefused { .. } => "component-refused",
            Self::BadMember { .. } => "bad-member",
            Self::MemberLives { .. } => "member-lives",
            Self::UnknownMember { .. } => "unknown-member",
            Self::BadMap { .. } => "bad-map",
            Self::UnknownMap { .. } => "unknown-map",
            Self::MapExists { .. } => "map-exists",
            Self::UnknownPartition { .. } => "unknown-partition",
            Self::PartitionBusy { .. } => "partition-busy",
            Self::NotSafe { .. } => "not-safe",
            Self::WrongWorld { .. } => "wrong-world",
            Self::Rejected { .. } => "rejected",
            Self::PluginFault { .. } => "plugin-fault",
            Self::PluginLoading { .. } => "plugin-loading",
            Self::MountThrottled { .. } => "mount-throttled",
            Self::DeadlinePassed => "deadline-passed",
            Self::WaitCancelled => "wait-cancelled",
            Self::MountRemoved => "mount-removed",
            Self::SessionEnded => "session-ended",
            Self::BadTimeout { .. } => "bad-timeout",
        }
    }

    /// Whether the same operation, sent as a new request, may succeed without anything else being
    /// done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::PluginLoading { .. } | Self::MountThrottled { .. }
        )
    }
}

/// The outcome; or [`REFUSED`] in the place of its tag, and the refusal.
impl Compact for Reply {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Ok(outcome) => outcome.encode(out),
            Err(refusal) => {
                out.push(REFUSED);
                refusal.encode(out);
            }
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let mut behind = *input;
        if behind.byte()? == REFUSED {
            *input = behind;
            return Refusal::decode(input).map(Err);
        }
        Outcome::decode(input).map(Ok)
    }
}

/// In the place of an outcome's tag: a refusal follows.
const REFUSED: u8 = 0;

crate::compact_enum!(Outcome {
    1 = Created { sequence },
    2 = Set { version },
    3 = Deleted,
    4 = Checked,
    5 = Multi(outcomes),
    6 = Synced,
    7 = Invoked(reply),
    8 = Waiting(ticket),
    9 = Cancelled,
    10 = NothingToCancel,
    11 = Acknowledged,
    12 = SessionClosed,
    13 = ChunkTaken,
    14 = Installed,
    15 = Mounted,
    16 = Unmounted,
    17 = ComponentRemoved,
    18 = GroupChanged,
    19 = MapChanged,
    20 = Planned(plan),
    21 = Permitted { permit, until },
    22 = Reported { current },
    24 = DetectorChosen,
    25 = PolicyTook,
});

crate::compact_enum!(SubOutcome {
    1 = Created { sequence },
    2 = Set { version },
    3 = Deleted,
    4 = Checked,
});

crate::compact_enum!(Refusal {
    1 = BadPath { path, error },
    2 = Reserved { path },
    3 = NoNode { path },
    4 = NodeExists { path },
    5 = NoParent { path },
    6 = NotEmpty { path },
    7 = Undeletable { path },
    8 = BadVersion { path, expected, actual },
    9 = GuardFailed { path, token, current },
    10 = EphemeralParent { path },
    11 = OwnerNotOpen,
    12 = TooLarge { what, limit, actual },
    13 = MultiRefused { index, reason, code },
    14 = UnknownMount { mount },
    15 = MountExists { mount },
    16 = UnknownComponent { digest },
    17 = ComponentRefused { reason },
    18 = Rejected { code, message, details },
    19 = PluginFault { kind, message },
    20 = PluginLoading { mount },
    21 = MountThrottled { mount },
    22 = DeadlinePassed,
    23 = WaitCancelled,
    24 = MountRemoved,
    25 = SessionEnded,
    26 = BadTimeout { min_ms, max_ms },
    27 = ComponentInUse { by },
    28 = BadMember { reason },
    29 = MemberLives { group, member },
    30 = UnknownMember { group, member },
    31 = BadMap { reason },
    32 = UnknownMap { group },
    33 = MapExists { group },
    34 = UnknownPartition { group, partition },
    35 = PartitionBusy { group, partition, reason },
    36 = NotSafe { reasons },
    37 = WrongWorld { digest, world },
});

crate::compact_enum!(PathError {
    1 = NotAbsolute,
    2 = EmptyComponent,
    3 = RelativeComponent,
    4 = ControlCharacter,
    5 = TooLong,
});
