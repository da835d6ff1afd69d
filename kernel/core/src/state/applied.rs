//! What applying a transaction tells the rest of a member: streams, watches, plugins.

use bytes::Bytes;
use folkmoot_proto::batch::{Completion, Origin};
use folkmoot_proto::client::ChangeKind;
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::{
    ConnEpoch, Digest, LogTime, MapId, MemberId, MountId, SessionId, WallTime, Zxid,
};

/// A transaction that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedTxn {
    /// Its zxid.
    pub zxid: Zxid,
    /// Its log time.
    pub log_time: LogTime,
    /// Its wall time.
    pub wall_time: WallTime,
    /// The request that it answers, with the reply.
    pub origin: Option<Origin>,
    /// The waits that it ended.
    pub completions: Vec<Completion>,
    /// What else it did that this member acts on, in order.
    pub notices: Vec<Notice>,
    /// Nodes that it changed, in order; the kernel's own too.
    pub changes: Vec<NodeChange>,
}

/// One node's change, for watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// The node.
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The value after it; empty for a deletion.
    pub data: Bytes,
    /// The node's version after it; 0 for a creation and a deletion.
    pub version: u64,
}

/// Something that a member acts on beside replies and watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A session was opened, and is attached with epoch 1.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Where it is attached.
        member: MemberId,
    },
    /// A session was attached.
    SessionAttached {
        /// The session.
        session: SessionId,
        /// The epoch of the attachment.
        epoch: ConnEpoch,
        /// Where.
        member: MemberId,
    },
    /// A session ended.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Whether it expired.
        expired: bool,
    },
    /// A mount was made or changed.
    MountPut {
        /// The mount.
        mount: MountId,
    },
    /// A mount was removed.
    MountRemoved {
        /// The mount.
        mount: MountId,
    },
    /// A mount's queue got an event.
    EventQueued {
        /// The mount.
        mount: MountId,
    },
    /// Somebody else has a partition, or its move went on.
    Assigned {
        /// The map.
        map: MapId,
        /// The partition.
        partition: PartitionId,
    },
    /// A partition is described otherwise.
    PartitionDescribed {
        /// The map.
        map: MapId,
        /// The partition.
        partition: PartitionId,
    },
    /// A partition map was made, removed or changed, or its partitions were.
    MapChanged {
        /// The map; it may be gone.
        map: MapId,
    },
    /// An upload is whole and waits to be examined.
    UploadSealed {
        /// Its digest.
        digest: Digest,
    },
    /// A component was installed.
    ComponentPut {
        /// Its digest.
        digest: Digest,
    },
    /// A component was removed.
    ComponentRemoved {
        /// Its digest.
        digest: Digest,
    },
}
