//! Effects: what a transaction changes, absolutely and strictly (rule R6).
//!
//! An effect says what *is* afterwards ("version 7"), never a difference, and its preconditions are
//! asserted at apply. The compact encoding is in [`crate::batch`]; tags are never reused.

use crate::partition::{Assignment, Layout, MapLedger, MapRecord, PartitionId, PartitionRecord};
use crate::{
    ConnEpoch, Digest, LogTime, MapId, MemberId, MountId, RequestId, SecretHash, SessionId, Ticket,
    Zxid,
};

/// One change of the replicated state. The transaction's zxid and its batch's times complete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A node comes to be, with `czxid = mzxid = pzxid =` the transaction's zxid and version 0. Its
    /// parent's `pzxid` becomes that zxid.
    CreateNode {
        /// Its path; no node is there before.
        path: String,
        /// Its value.
        data: Vec<u8>,
        /// The session that it is deleted with.
        owner: Option<SessionId>,
        /// The parent's `cversion` afterwards.
        parent_cversion: u64,
        /// The parent's counter for sequential nodes afterwards, where the node is one.
        parent_sequence: Option<u64>,
    },
    /// A node's value is set; `mzxid` becomes the transaction's zxid.
    SetNode {
        /// Its path.
        path: String,
        /// Its value.
        data: Vec<u8>,
        /// Its version afterwards.
        version: u64,
    },
    /// A node without children goes.
    DeleteNode {
        /// Its path.
        path: String,
        /// The parent's `cversion` afterwards.
        parent_cversion: u64,
    },
    /// A session comes to be; its id is the transaction's zxid. It is attached at `member` with
    /// epoch 1.
    OpenSession {
        /// The hash of its secret.
        secret: SecretHash,
        /// The negotiated timeout.
        timeout_ms: u32,
        /// Where it is attached.
        member: MemberId,
    },
    /// A session is attached elsewhere, or anew (rule R15).
    AttachSession {
        /// The session.
        session: SessionId,
        /// Its epoch afterwards.
        epoch: ConnEpoch,
        /// Where.
        member: MemberId,
    },
    /// A session goes, with its replies, completions, follows and unsealed uploads. Its ephemeral
    /// nodes and waits go before it, by effects of their own in the same transaction.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Whether it expired; else it was closed by its client.
        expired: bool,
    },
    /// Kept completions of a session were acknowledged.
    DropCompletions {
        /// The session.
        session: SessionId,
        /// Their tickets.
        tickets: Vec<Ticket>,
    },
    /// A wait begins; its ticket is the transaction's zxid (rule R11).
    BeginWait {
        /// The session that waits.
        session: SessionId,
        /// The request that waits.
        request: RequestId,
        /// The mount whose plugin may complete it; zero where the kernel does (an installation).
        mount: MountId,
        /// When the kernel ends it.
        deadline: Option<LogTime>,
        /// What the plugin hears when the kernel ends it.
        memo: Vec<u8>,
    },
    /// A wait is over; its outcome is among the transaction's completions.
    EndWait {
        /// The wait.
        ticket: Ticket,
    },
    /// A mount wants to hear of a session's end; nothing changes if it does already.
    FollowSession {
        /// The mount.
        mount: MountId,
        /// The session.
        session: SessionId,
    },
    /// A timer of a mount is set, in place of one of that name.
    SetTimer {
        /// The mount.
        mount: MountId,
        /// Its name.
        name: String,
        /// When it is due.
        due: LogTime,
        /// What the plugin hears.
        payload: Vec<u8>,
    },
    /// A timer of a mount is no more.
    CancelTimer {
        /// The mount.
        mount: MountId,
        /// Its name.
        name: String,
    },
    /// An event is put at the end of a mount's queue (rule R12).
    QueueEvent {
        /// The mount.
        mount: MountId,
        /// The event.
        event: MountEvent,
    },
    /// The first events of a mount's queue were handled, or became one `resync`.
    DequeueEvents {
        /// The mount.
        mount: MountId,
        /// How many.
        count: u32,
    },
    /// A mount is made (its id is the transaction's zxid) or changed.
    PutMount {
        /// The mount.
        mount: MountId,
        /// Where.
        path: String,
        /// Its component.
        digest: Digest,
        /// What `configure` gets.
        config: Vec<u8>,
        /// The version of the mount: the zxid of the transaction that last put it. Warm instances
        /// belong to it (rule R14).
        version: Zxid,
    },
    /// A mount goes, with its timers, events and follows. Its waits end before it, by effects of
    /// their own.
    RemoveMount {
        /// The mount.
        mount: MountId,
    },
    /// A chunk of an upload is kept (rule R31).
    PutChunk {
        /// The component's digest.
        digest: Digest,
        /// The session that uploads.
        session: SessionId,
        /// The component's size.
        size: u32,
        /// Where the chunk begins: the size of what is kept already.
        offset: u32,
        /// The chunk.
        data: Vec<u8>,
    },
    /// An upload is whole and waits to be examined.
    SealUpload {
        /// The component's digest.
        digest: Digest,
        /// A name for people.
        name: String,
        /// The wait that its installation completes.
        ticket: Ticket,
    },
    /// An unfinished or refused upload goes.
    DropUpload {
        /// The component's digest.
        digest: Digest,
    },
    /// A sealed upload is a component that can be mounted.
    PutComponent {
        /// Its digest.
        digest: Digest,
        /// What `describe` answered: JSON.
        description: String,
    },
    /// A component to which no mount refers goes.
    RemoveComponent {
        /// Its digest.
        digest: Digest,
    },
    /// A group gets a map, whose id is the transaction's zxid, with these partitions, which nobody
    /// has.
    CreateMap {
        /// The map.
        record: Box<MapRecord>,
        /// Its partitions.
        layout: Layout,
    },
    /// A map is kept otherwise, or got a member.
    PutMap {
        /// The map.
        map: MapId,
        /// It afterwards; of what is there, group, layout and partitions stay.
        record: Box<MapRecord>,
    },
    /// A map goes with its partitions.
    RemoveMap {
        /// The map.
        map: MapId,
    },
    /// What of a map changes often.
    PutLedger {
        /// The map.
        map: MapId,
        /// It afterwards.
        ledger: Box<MapLedger>,
    },
    /// A partition is described otherwise.
    PutPartition {
        /// The map.
        map: MapId,
        /// The partition; it is there before.
        partition: PartitionId,
        /// It afterwards.
        record: Box<PartitionRecord>,
    },
    /// Somebody else has a partition, or a move goes on.
    Assign {
        /// The map.
        map: MapId,
        /// The partition.
        partition: PartitionId,
        /// Who has it afterwards.
        assignment: Box<Assignment>,
    },
    /// A partition is no more, and these two are there in its place: the map's layout is the
    /// transaction's zxid afterwards (rule R39).
    SplitPartition {
        /// The map.
        map: MapId,
        /// The partition.
        partition: PartitionId,
        /// Its parts, which get the map's next ids.
        parts: Vec<PartitionRecord>,
    },
}

/// What a mount's plugin hears (rule R12).
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum MountEvent {
    /// A session that the mount follows ended; these nodes of the mount went with it.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Paths below the mount, relative to it.
        removed: Vec<String>,
    },
    /// The kernel ended a wait.
    WaitEnded {
        /// The wait.
        ticket: Ticket,
        /// The session that waited.
        session: SessionId,
        /// Why.
        cause: WaitEndCause,
        /// What the plugin gave when it began.
        memo: Vec<u8>,
    },
    /// A timer was due.
    Timer {
        /// Its name.
        name: String,
        /// When it was due.
        due: LogTime,
        /// What the plugin gave.
        payload: Vec<u8>,
    },
    /// Events were lost to the cap: look at the tree and begin anew.
    Resync,
}

/// Why the kernel ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum WaitEndCause {
    /// Its deadline passed.
    Deadline,
    /// Its session ended.
    SessionEnded,
    /// Its client cancelled it.
    Cancelled,
    /// Its mount was removed. The plugin does not hear of this one.
    MountRemoved,
}

crate::compact_enum!(Effect {
    1 = CreateNode { path, data, owner, parent_cversion, parent_sequence },
    2 = SetNode { path, data, version },
    3 = DeleteNode { path, parent_cversion },
    4 = OpenSession { secret, timeout_ms, member },
    5 = AttachSession { session, epoch, member },
    6 = CloseSession { session, expired },
    7 = DropCompletions { session, tickets },
    8 = BeginWait { session, request, mount, deadline, memo },
    9 = EndWait { ticket },
    10 = FollowSession { mount, session },
    11 = SetTimer { mount, name, due, payload },
    12 = CancelTimer { mount, name },
    13 = QueueEvent { mount, event },
    14 = DequeueEvents { mount, count },
    15 = PutMount { mount, path, digest, config, version },
    16 = RemoveMount { mount },
    17 = PutChunk { digest, session, size, offset, data },
    18 = SealUpload { digest, name, ticket },
    19 = DropUpload { digest },
    20 = PutComponent { digest, description },
    21 = RemoveComponent { digest },
    22 = CreateMap { record, layout },
    23 = PutMap { map, record },
    24 = RemoveMap { map },
    25 = PutLedger { map, ledger },
    26 = PutPartition { map, partition, record },
    27 = Assign { map, partition, assignment },
    30 = SplitPartition { map, partition, parts },
});

crate::compact_enum!(MountEvent {
    1 = SessionClosed { session, removed },
    2 = WaitEnded { ticket, session, cause, memo },
    3 = Timer { name, due, payload },
    4 = Resync,
});

crate::compact_enum!(WaitEndCause {
    1 = Deadline,
    2 = SessionEnded,
    3 = Cancelled,
    4 = MountRemoved,
});
