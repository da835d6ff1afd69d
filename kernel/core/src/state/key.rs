//! Keys of the state: one enum for all tables.
//!
//! A key has two orders that agree: [`Ord`], and the byte order of [`Key::encode`], in which a
//! checkpoint and a snapshot hold records. Tags are on disk: never reuse one.
//!
//! | tag | key | bytes after the tag |
//! |---|---|---|
//! | 1 | node | the path, each `/` as a zero byte; empty for the root |
//! | 2 | session | session |
//! | 3 | reply | session, request |
//! | 4 | completion | session, ticket |
//! | 5 | wait | ticket |
//! | 6 | timer | mount, name |
//! | 7 | mount | mount |
//! | 8 | event queue | mount |
//! | 9 | event | mount, number |
//! | 10 | follow | session, mount |
//! | 11 | upload | digest |
//! | 12 | component | digest |
//! | 13 | chunk | digest, offset (u32) |
//! | 14 | map | map |
//! | 15 | ledger | map |
//! | 16 | partition | map, partition (u32) |
//!
//! Numbers are big-endian, so that their bytes sort as they do. Index keys, which are derived from
//! other records, have no tag and are in no checkpoint.

use core::cmp::Ordering;
use core::fmt;
use std::sync::Arc;

use folkmoot_proto::partition::{MemberNo, PartitionId};
use folkmoot_proto::{
    Digest, LogTime, MapId, MountId, RequestId, SecretHash, SessionId, Ticket, Zxid, split_last,
};

/// A path as a key: its order is that of a walk which visits a node before its children, and these
/// by name. So a subtree is one range.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathKey(Arc<str>);

impl PathKey {
    /// The key of a valid path.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parent's path and the last component; none for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&str, &str)> {
        split_last(&self.0)
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split_last().map_or("", |(_, name)| name)
    }

    /// Whether this is `path` or lies below it.
    #[must_use]
    pub fn is_within(&self, path: &str) -> bool {
        is_within(&self.0, path)
    }

    /// The child's path.
    #[must_use]
    pub fn child(parent: &str, name: &str) -> Self {
        let parent = if parent == "/" { "" } else { parent };
        Self(format!("{parent}/{name}").into())
    }

    /// A key, of no path, behind everything at and below this path and before all that follows.
    pub(crate) fn after_subtree(&self) -> Self {
        // No name has a control character, so this one is above '/' and below all others.
        Self(format!("{}\u{1}", trim_root(&self.0)).into())
    }

    /// The child of `ancestor` that is this path or above it. This path lies below `ancestor`.
    pub(crate) fn child_of(&self, ancestor: &str) -> Self {
        let from = trim_root(ancestor).len() + 1;
        let rest = self.0.get(from..).unwrap_or_default();
        let name = rest.split('/').next().unwrap_or_default();
        Self::child(ancestor, name)
    }
}

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The order of [`PathKey`]: bytewise, with `/` below every other byte (valid paths have no control
/// characters). The root is before all.
#[must_use]
pub fn compare_paths(a: &str, b: &str) -> Ordering {
    let below_slash = |byte: u8| if byte == b'/' { 0 } else { byte };
    let (a, b) = (trim_root(a).as_bytes(), trim_root(b).as_bytes());
    let same = common_prefix(a, b);
    match (a.get(same), b.get(same)) {
        (Some(&x), Some(&y)) => below_slash(x).cmp(&below_slash(y)),
        (x, y) => x.is_some().cmp(&y.is_some()),
    }
}

/// How many bytes at the beginning are the same. Paths share most of theirs: words are compared
/// first.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = 8;
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD));
    let from = words.take_while(|(x, y)| x == y).count() * WORD;
    let (a, b) = (a.iter().skip(from), b.iter().skip(from));
    from + a.zip(b).take_while(|(x, y)| x == y).count()
}

/// Whether a valid path is `top` or lies below it.
#[must_use]
pub fn is_within(path: &str, top: &str) -> bool {
    top == "/"
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path without the root's slash, so that the root is a prefix of all.
fn trim_root(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

/// A key of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A node.
    Node(PathKey),
    /// A session.
    Session(SessionId),
    /// A reply that its client has not acknowledged.
    Reply(SessionId, RequestId),
    /// A completion that its client has not acknowledged.
    Completion(SessionId, Ticket),
    /// A wait.
    Wait(Ticket),
    /// A timer of a mount.
    Timer(MountId, String),
    /// A mount.
    Mount(MountId),
    /// Which numbers the events of a mount's queue have.
    EventQueue(MountId),
    /// An event of a mount's queue.
    Event(MountId, u64),
    /// A mount that wants to hear of a session's end.
    Follow(SessionId, MountId),
    /// A component that is being uploaded or examined.
    Upload(Digest),
    /// An installed component.
    Component(Digest),
    /// A chunk of an upload or component.
    Chunk(Digest, u32),
    /// A partition map.
    Map(MapId),
    /// What of a map changes often.
    Ledger(MapId),
    /// A partition of a map.
    Partition(MapId, PartitionId),
    /// Index: the session of a secret.
    SessionBySecret(SecretHash),
    /// Index: the ephemeral nodes of a session.
    EphemeralOf(SessionId, PathKey),
    /// Index: the waits of a session.
    WaitOf(SessionId, Ticket),
    /// Index: the waits of a mount.
    WaitAt(MountId, Ticket),
    /// Index: waits by deadline.
    WaitDue(LogTime, Ticket),
    /// Index: timers by when they are due.
    TimerDue(LogTime, MountId, String),
    /// Index: mounts by path.
    MountAt(PathKey),
    /// Index: the sessions that a mount follows.
    FollowedBy(MountId, SessionId),
    /// Index: the uploads of a session.
    UploadOf(SessionId, Digest),
    /// Index: the map of a group.
    MapOf(String),
    /// Index: partitions that are moving.
    Moving(MapId, PartitionId),
    /// Index: partitions that a member has or is to have.
    HeldBy(MapId, MemberNo, PartitionId),
    /// Index: partitions by the zxid that changed them last.
    ChangedAt(MapId, Zxid, PartitionId),
}

/// Why bytes are no key of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the key of a record: {key:02x?}")]
pub struct BadKey {
    /// The bytes.
    pub key: Vec<u8>,
}

impl Key {
    /// Appends the bytes of a record's key; false, and nothing appended, for an index key, which
    /// is no record.
    pub fn encode(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Node(path) => encode_node_key(path.as_str(), out),
            Self::Session(session) => numbers(out, 2, &[session.0]),
            Self::Reply(session, request) => numbers(out, 3, &[session.0, request.0]),
            Self::Completion(session, ticket) => numbers(out, 4, &[session.0, ticket.0]),
            Self::Wait(ticket) => numbers(out, 5, &[ticket.0]),
            Self::Timer(mount, name) => {
                numbers(out, 6, &[mount.0]);
                out.extend_from_slice(name.as_bytes());
            }
            Self::Mount(mount) => numbers(out, 7, &[mount.0]),
            Self::EventQueue(mount) => numbers(out, 8, &[mount.0]),
            Self::Event(mount, number) => numbers(out, 9, &[mount.0, *number]),
            Self::Follow(session, mount) => numbers(out, 10, &[session.0, mount.0]),
            Self::Upload(digest) => tagged(out, 11, &digest.0),
            Self::Component(digest) => tagged(out, 12, &digest.0),
            Self::Chunk(digest, offset) => {
                tagged(out, 13, &digest.0);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Map(map) => numbers(out, 14, &[map.0]),
            Self::Ledger(map) => numbers(out, 15, &[map.0]),
            Self::Partition(map, partition) => {
                numbers(out, 16, &[map.0]);
                out.extend_from_slice(&partition.0.to_be_bytes());
            }
            Self::SessionBySecret(_)
            | Self::EphemeralOf(..)
            | Self::WaitOf(..)
            | Self::WaitAt(..)
            | Self::WaitDue(..)
            | Self::TimerDue(..)
            | Self::MountAt(_)
            | Self::FollowedBy(..)
            | Self::UploadOf(..)
            | Self::MapOf(_)
            | Self::Moving(..)
            | Self::HeldBy(..)
            | Self::ChangedAt(..) => return false,
        }
        true
    }

    /// The key of a record from its bytes.
    ///
    /// # Errors
    ///
    /// If no record has such a key.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        decode(bytes).ok_or_else(|| BadKey {
            key: bytes.to_vec(),
        })
    }

    /// Whether this is the key of a record, and not of an index.
    #[must_use]
    pub fn is_record(&self) -> bool {
        *self < Self::SessionBySecret(SecretHash([0; 32]))
    }
}

/// Appends the key of a node's record.
pub(crate) fn encode_node_key(path: &str, out: &mut Vec<u8>) {
    out.push(1);
    let path = trim_root(path).bytes();
    out.extend(path.map(|byte| if byte == b'/' { 0 } else { byte }));
}

fn numbers(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn decode(bytes: &[u8]) -> Option<Key> {
    let (&tag, rest) = bytes.split_first()?;
    Some(match tag {
        1 => Key::Node(decode_path(rest)?),
        2 => Key::Session(SessionId(one(rest)?)),
        3 => pair(rest).map(|(a, b)| Key::Reply(SessionId(a), RequestId(b)))?,
        4 => pair(rest).map(|(a, b)| Key::Completion(SessionId(a), Ticket(b)))?,
        5 => Key::Wait(Ticket(one(rest)?)),
        6 => {
            let (mount, name) = rest.split_first_chunk::<8>()?;
            let name = core::str::from_utf8(name).ok()?.to_owned();
            Key::Timer(MountId(u64::from_be_bytes(*mount)), name)
        }
        7 => Key::Mount(MountId(one(rest)?)),
        8 => Key::EventQueue(MountId(one(rest)?)),
        9 => pair(rest).map(|(a, b)| Key::Event(MountId(a), b))?,
        10 => pair(rest).map(|(a, b)| Key::Follow(SessionId(a), MountId(b)))?,
        11 => Key::Upload(Digest(rest.try_into().ok()?)),
        12 => Key::Component(Digest(rest.try_into().ok()?)),
        13 => {
            let (digest, offset) = rest.split_first_chunk::<32>()?;
            Key::Chunk(Digest(*digest), u32::from_be_bytes(offset.try_into().ok()?))
        }
        14 => Key::Map(MapId(one(rest)?)),
        15 => Key::Ledger(MapId(one(rest)?)),
        16 => {
            let (map, partition) = rest.split_first_chunk::<8>()?;
            let partition = u32::from_be_bytes(partition.try_into().ok()?);
            Key::Partition(MapId(u64::from_be_bytes(*map)), PartitionId(partition))
        }
        _ => return None,
    })
}

fn decode_path(bytes: &[u8]) -> Option<PathKey> {
    if bytes.is_empty() {
        return Some(PathKey::new("/"));
    }
    let path = bytes
        .iter()
        .map(|&byte| if byte == 0 { b'/' } else { byte });
    let path = String::from_utf8(path.collect()).ok()?;
    let valid = !bytes.contains(&b'/') && folkmoot_proto::NodePath::check(&path).is_ok();
    valid.then(|| PathKey(path.into()))
}

fn one(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), one(second)?))
}
