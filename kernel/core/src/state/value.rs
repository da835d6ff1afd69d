//! Values of the state's tables.

use bytes::Bytes;
use folkmoot_proto::client::Stat;
use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::partition::{MapLedger, MapRecord, PartitionRecord};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{
    ConnEpoch, Digest, LogTime, MapId, MemberId, MountId, RequestId, SecretHash, SessionId, Ticket,
    WallTime, Zxid,
};

use super::apply::Stamp;

/// A node as it is read: its value is borrowed from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its value.
    pub data: &'a [u8],
    /// Its stat.
    pub stat: Stat,
    /// The number that the next sequential child gets.
    pub sequence: u64,
}

impl Node<'_> {
    /// Whether it is deleted with a session.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.stat.ephemeral_owner.is_some()
    }

    /// An owned copy.
    #[must_use]
    pub fn to_record(&self) -> NodeRecord {
        NodeRecord {
            data: Bytes::copy_from_slice(self.data),
            fixed: NodeFixed {
                czxid: self.stat.czxid,
                ctime: self.stat.ctime,
                owner: self.stat.ephemeral_owner,
            },
            mzxid: self.stat.mzxid,
            mtime: self.stat.mtime,
            version: self.stat.version,
            directory: Directory {
                pzxid: self.stat.pzxid,
                cversion: self.stat.cversion,
                children: self.stat.num_children,
                sequence: self.sequence,
            },
        }
    }
}

/// A node as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its value.
    pub data: Bytes,
    /// What never changes.
    pub fixed: NodeFixed,
    /// The zxid that last set its value.
    pub mzxid: Zxid,
    /// When its value was last set.
    pub mtime: WallTime,
    /// How often its value was set.
    pub version: u64,
    /// What its children change.
    pub directory: Directory,
}

/// What a node keeps from its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFixed {
    /// The zxid that created it.
    pub czxid: Zxid,
    /// When it was created.
    pub ctime: WallTime,
    /// The session that it is deleted with.
    pub owner: Option<SessionId>,
}

/// What the children of a node change in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The zxid that last created or deleted a child.
    pub pzxid: Zxid,
    /// How often a child was created or deleted.
    pub cversion: u64,
    /// How many there are.
    pub children: u64,
    /// The number that the next sequential child gets.
    pub sequence: u64,
}

impl NodeRecord {
    /// A node without children, as it is created.
    #[must_use]
    pub(crate) fn new(fixed: NodeFixed, data: &[u8]) -> Self {
        Self {
            data: Bytes::copy_from_slice(data),
            fixed,
            mzxid: fixed.czxid,
            mtime: fixed.ctime,
            version: 0,
            directory: Directory {
                pzxid: fixed.czxid,
                cversion: 0,
                children: 0,
                sequence: 0,
            },
        }
    }

    pub(crate) fn set_data(&mut self, data: &[u8], version: u64, stamp: Stamp) {
        self.data = Bytes::copy_from_slice(data);
        self.version = version;
        self.mzxid = stamp.zxid;
        self.mtime = stamp.wall_time;
    }

    /// A borrowed view of it.
    #[must_use]
    pub fn as_node(&self) -> Node<'_> {
        Node {
            data: &self.data,
            stat: Stat {
                czxid: self.fixed.czxid,
                mzxid: self.mzxid,
                pzxid: self.directory.pzxid,
                ctime: self.fixed.ctime,
                mtime: self.mtime,
                version: self.version,
                cversion: self.directory.cversion,
                ephemeral_owner: self.fixed.owner,
                num_children: self.directory.children,
                data_length: u32::try_from(self.data.len()).unwrap_or(u32::MAX),
            },
            sequence: self.directory.sequence,
        }
    }
}

/// A session. Its replies, completions, ephemeral nodes and waits are tables of their own; here is
/// how many there are, so that caps are checked at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The zxid that opened it.
    pub id: SessionId,
    /// The hash of its secret.
    pub secret: SecretHash,
    /// When.
    pub opened: LogTime,
    /// Its negotiated timeout.
    pub timeout_ms: u32,
    /// Counts its attachments (rule R15).
    pub epoch: ConnEpoch,
    /// Where it is attached.
    pub member: MemberId,
    /// The last request that took its place (rule R2).
    pub last_id: RequestId,
    /// The replies up to this one are dropped (rule R10).
    pub acked_up_to: RequestId,
    /// Bytes of the replies that are kept, as encoded.
    pub reply_bytes: u64,
    /// Completions that are kept.
    pub completions: u32,
    /// Bytes of the completions that are kept, as encoded.
    pub completion_bytes: u64,
    /// Its ephemeral nodes (rule R32).
    pub ephemerals: u32,
    /// Bytes of the paths of its ephemeral nodes, and of what is written when they go (rule R32).
    pub ephemeral_bytes: u64,
    /// Its waits.
    pub waits: u32,
}

impl Session {
    /// Replies that are kept: those after `acked_up_to`.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.last_id.0 - self.acked_up_to.0
    }
}

/// A reply that its client has not acknowledged (rule R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// The transaction that gave it.
    pub zxid: Zxid,
    /// The answer given in place.
    pub reply: Reply,
}

/// A completion that its client has not acknowledged (rule R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCompletion {
    /// The request that waited.
    pub request: RequestId,
    /// The transaction that ended the wait.
    pub zxid: Zxid,
    /// The outcome.
    pub reply: Reply,
}

/// A wait (rule R11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The zxid of the transaction that began it.
    pub ticket: Ticket,
    /// The session that waits.
    pub session: SessionId,
    /// The request that waits.
    pub request: RequestId,
    /// The mount whose plugin may complete it.
    pub mount: MountId,
    /// When the kernel ends it.
    pub deadline: Option<LogTime>,
    /// What the plugin hears when the kernel ends it.
    pub memo: Vec<u8>,
}

/// A timer of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When it is due.
    pub due: LogTime,
    /// What the plugin hears.
    pub payload: Vec<u8>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The zxid of the transaction that made it.
    pub id: MountId,
    /// Where.
    pub path: String,
    /// Its component.
    pub digest: Digest,
    /// What `configure` gets.
    pub config: Vec<u8>,
    /// The zxid of the transaction that last put it (rule R14).
    pub version: Zxid,
}

/// The numbers of a mount's queued events: `first..next`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventQueue {
    /// The oldest event's number.
    pub first: u64,
    /// The number that the next event gets.
    pub next: u64,
}

impl EventQueue {
    /// Queued events.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next - self.first
    }
}

/// A component that is being uploaded, or waits to be examined (rule R31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The session that uploads.
    pub session: SessionId,
    /// The component's size.
    pub size: u32,
    /// Bytes that are kept.
    pub received: u32,
    /// When the last chunk came (rule R9).
    pub touched: LogTime,
    /// Set once it is whole.
    pub sealed: Option<SealedUpload>,
}

/// A whole upload that waits to be examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedUpload {
    /// A name for people.
    pub name: String,
    /// The wait that its installation completes.
    pub ticket: Ticket,
}

/// An installed component. Its bytes are in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// A name for people.
    pub name: String,
    /// Its size.
    pub size: u32,
    /// What `describe` answered: JSON.
    pub description: String,
    /// The zxid that installed it.
    pub installed: Zxid,
}

/// A value of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Key::Node`](super::Key::Node).
    Node(Box<NodeRecord>),
    /// Of [`Key::Session`](super::Key::Session).
    Session(Box<Session>),
    /// Of [`Key::Reply`](super::Key::Reply).
    Reply(Box<StoredReply>),
    /// Of [`Key::Completion`](super::Key::Completion).
    Completion(Box<StoredCompletion>),
    /// Of [`Key::Wait`](super::Key::Wait).
    Wait(Box<Wait>),
    /// Of [`Key::Timer`](super::Key::Timer).
    Timer(Timer),
    /// Of [`Key::Mount`](super::Key::Mount).
    Mount(Box<Mount>),
    /// Of [`Key::EventQueue`](super::Key::EventQueue).
    EventQueue(EventQueue),
    /// Of [`Key::Event`](super::Key::Event).
    Event(Box<MountEvent>),
    /// Of [`Key::Upload`](super::Key::Upload).
    Upload(Box<Upload>),
    /// Of [`Key::Component`](super::Key::Component).
    Component(Box<Component>),
    /// Of [`Key::Chunk`](super::Key::Chunk).
    Chunk(Bytes),
    /// Of [`Key::Map`](super::Key::Map).
    Map(Box<MapRecord>),
    /// Of [`Key::Ledger`](super::Key::Ledger).
    Ledger(Box<MapLedger>),
    /// Of [`Key::Partition`](super::Key::Partition).
    Partition(Box<PartitionRecord>),
    /// Of [`Key::Follow`](super::Key::Follow) and the index keys that say all by being there.
    Present,
    /// Of [`Key::SessionBySecret`](super::Key::SessionBySecret).
    SessionId(SessionId),
    /// Of [`Key::MountAt`](super::Key::MountAt).
    MountId(MountId),
    /// Of [`Key::MapOf`](super::Key::MapOf).
    MapId(MapId),
}

/// How much of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Nodes of the tree, with the root and the kernel's own.
    pub nodes: u64,
    /// Sessions.
    pub sessions: u64,
    /// Waits.
    pub waits: u64,
    /// Mounts.
    pub mounts: u64,
    /// Bytes of components and uploads.
    pub component_bytes: u64,
    /// Partition maps.
    pub maps: u64,
}

impl Component {
    /// The version of its layout of the tree, as its description says; 0 where it does not.
    #[must_use]
    pub fn state_version(&self) -> u64 {
        #[derive(serde::Deserialize)]
        struct Description {
            #[serde(default)]
            state_version: u64,
        }
        let description = serde_json::from_str::<Description>(&self.description);
        description.map_or(0, |description| description.state_version)
    }
}

/// Bytes that a kept reply counts against its session's cap.
#[must_use]
pub fn reply_bytes(reply: &Reply) -> u64 {
    /// What each one costs beside its texts, in the log as in memory.
    const FIXED: usize = 16;
    let variable = match reply {
        Ok(Outcome::Invoked(bytes)) => bytes.len(),
        Ok(Outcome::Planned(text)) => text.len(),
        Ok(Outcome::Multi(outcomes)) => outcomes.len() * FIXED,
        Ok(_) => 0,
        Err(Refusal::Rejected {
            code,
            message,
            details,
        }) => {
            let details = details
                .iter()
                .map(|(name, text)| FIXED + name.len() + text.len());
            code.len() + message.len() + details.sum::<usize>()
        }
        Err(Refusal::PluginFault { kind, message }) => kind.len() + message.len(),
        Err(Refusal::PartitionBusy { group, reason, .. }) => group.len() + reason.len(),
        Err(Refusal::NotSafe { reasons }) => {
            reasons.iter().map(|reason| FIXED + reason.len()).sum()
        }
        Err(Refusal::MemberLives { group, member } | Refusal::UnknownMember { group, member }) => {
            group.len() + member.len()
        }
        Err(
            Refusal::BadPath { path, .. }
            | Refusal::Reserved { path }
            | Refusal::NoNode { path }
            | Refusal::NodeExists { path }
            | Refusal::NoParent { path }
            | Refusal::NotEmpty { path }
            | Refusal::Undeletable { path }
            | Refusal::BadVersion { path, .. }
            | Refusal::GuardFailed { path, .. }
            | Refusal::EphemeralParent { path },
        ) => path.len(),
        Err(
            Refusal::TooLarge { what: text, .. }
            | Refusal::MultiRefused { reason: text, .. }
            | Refusal::UnknownMount { mount: text }
            | Refusal::MountExists { mount: text }
            | Refusal::UnknownComponent { digest: text }
            | Refusal::ComponentInUse { by: text }
            | Refusal::ComponentRefused { reason: text }
            | Refusal::BadMember { reason: text }
            | Refusal::BadMap { reason: text }
            | Refusal::UnknownMap { group: text }
            | Refusal::MapExists { group: text }
            | Refusal::UnknownPartition { group: text, .. }
            | Refusal::WrongWorld { digest: text, .. }
            | Refusal::PluginLoading { mount: text }
            | Refusal::MountThrottled { mount: text },
        ) => text.len(),
        Err(
            Refusal::OwnerNotOpen
            | Refusal::DeadlinePassed
            | Refusal::WaitCancelled
            | Refusal::MountRemoved
            | Refusal::SessionEnded
            | Refusal::BadTimeout { .. },
        ) => 0,
    };
    (FIXED + variable) as u64
}
