//! The bytes of records: what a checkpoint and a snapshot hold, and what the state hash is over.
//!
//! Keys are laid out in [`super::key`]. Values are the compact encoding of their fields in the order
//! they are named here; a node's times and zxids are differences to those of its creation.

use folkmoot_proto::bootstrap::BootstrapError;
use folkmoot_proto::codec::{Compact, DecodeError, Input, put_byte_string, put_number};
use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::partition::{MapLedger, MapRecord, PartitionRecord};
use folkmoot_proto::{WallTime, Zxid};
use xxhash_rust::xxh3::xxh3_64;

use super::key::{BadKey, Key};
use super::value::{
    Component, Directory, EventQueue, Mount, Node, NodeFixed, NodeRecord, SealedUpload, Session,
    StoredCompletion, StoredReply, Timer, Upload, Value, Wait,
};

/// Why records are no state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bootstrap entry is none.
    #[error("the bootstrap entry: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// The state is of another cluster than its bootstrap entry.
    #[error("the state is of another cluster than its bootstrap entry")]
    OtherCluster,
    /// The state needs a feature level that this version does not have (rule R5).
    #[error("the state has feature level {has}, this version knows {knows}")]
    FeatureLevel {
        /// The state's.
        has: u32,
        /// The highest known here.
        knows: u32,
    },
    /// A key is none.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// A value does not decode.
    #[error("the value of {key:?}: {error}")]
    Value {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// Records do not come in rising order of their keys.
    #[error("{key:?} is out of order")]
    OutOfOrder {
        /// The key.
        key: Key,
    },
    /// A node has no parent, or another number of children than it says.
    #[error("the tree is not whole at {path}")]
    BrokenTree {
        /// The node.
        path: String,
    },
    /// The records are not those that were written.
    #[error("the state's hash is {actual:016x}, expected {expected:016x}")]
    Hash {
        /// What was written.
        expected: u64,
        /// What the records have.
        actual: u64,
    },
}

/// Appends the bytes of a record's value; of an index, which is no record, nothing.
pub(super) fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Node(node) => encode_node(&node.as_node(), out),
        Value::Session(session) => session.encode(out),
        Value::Reply(reply) => reply.encode(out),
        Value::Completion(completion) => completion.encode(out),
        Value::Wait(wait) => wait.encode(out),
        Value::Timer(timer) => timer.encode(out),
        Value::Mount(mount) => mount.encode(out),
        Value::EventQueue(queue) => queue.encode(out),
        Value::Event(event) => event.encode(out),
        Value::Upload(upload) => upload.encode(out),
        Value::Component(component) => component.encode(out),
        Value::Chunk(bytes) => out.extend_from_slice(bytes),
        Value::Map(map) => map.encode(out),
        Value::Ledger(ledger) => ledger.encode(out),
        Value::Partition(partition) => partition.encode(out),
        Value::Present | Value::SessionId(_) | Value::MountId(_) | Value::MapId(_) => {}
    }
}

/// The value of a record of any table but the nodes'.
pub(super) fn decode_value(key: &Key, bytes: &[u8]) -> Result<Value, RestoreError> {
    let value = match key {
        Key::Session(_) => Session::from_compact(bytes).map(|it| Value::Session(Box::new(it))),
        Key::Reply(..) => StoredReply::from_compact(bytes).map(|it| Value::Reply(Box::new(it))),
        Key::Completion(..) => {
            StoredCompletion::from_compact(bytes).map(|it| Value::Completion(Box::new(it)))
        }
        Key::Wait(_) => Wait::from_compact(bytes).map(|it| Value::Wait(Box::new(it))),
        Key::Timer(..) => Timer::from_compact(bytes).map(Value::Timer),
        Key::Mount(_) => Mount::from_compact(bytes).map(|it| Value::Mount(Box::new(it))),
        Key::EventQueue(_) => EventQueue::from_compact(bytes).map(Value::EventQueue),
        Key::Event(..) => MountEvent::from_compact(bytes).map(|it| Value::Event(Box::new(it))),
        Key::Upload(_) => Upload::from_compact(bytes).map(|it| Value::Upload(Box::new(it))),
        Key::Component(_) => {
            Component::from_compact(bytes).map(|it| Value::Component(Box::new(it)))
        }
        Key::Chunk(..) => Ok(Value::Chunk(bytes::Bytes::copy_from_slice(bytes))),
        Key::Map(_) => MapRecord::from_compact(bytes).map(|it| Value::Map(Box::new(it))),
        Key::Ledger(_) => MapLedger::from_compact(bytes).map(|it| Value::Ledger(Box::new(it))),
        Key::Partition(..) => {
            PartitionRecord::from_compact(bytes).map(|it| Value::Partition(Box::new(it)))
        }
        Key::Follow(..) if bytes.is_empty() => Ok(Value::Present),
        _ => Err(DecodeError::Trailing { bytes: bytes.len() }),
    };
    value.map_err(|error| RestoreError::Value {
        key: key.clone(),
        error,
    })
}

/// The hash of one record, of which the state hash is the wrapping sum (rule R27). `buffer` is
/// overwritten with the record; 0 for an index.
pub(super) fn hash_record(key: &Key, value: &Value, buffer: &mut Vec<u8>) -> u64 {
    buffer.clear();
    if !key.encode(buffer) {
        return 0;
    }
    let key_bytes = buffer.len();
    encode_value(value, buffer);
    hash_buffer(key_bytes, buffer)
}

/// The hash of a record whose key and value are in `buffer`.
pub(super) fn hash_buffer(key_bytes: usize, buffer: &mut Vec<u8>) -> u64 {
    // Where the key ends is part of what is hashed, so that no two records have the same bytes.
    put_number(buffer, key_bytes as u64);
    xxh3_64(buffer)
}

/// Appends the value of a node's record.
pub(super) fn encode_node(node: &Node<'_>, out: &mut Vec<u8>) {
    let stat = &node.stat;
    let since_creation = |zxid: Zxid| zxid.0.wrapping_sub(stat.czxid.0);
    put_number(out, stat.czxid.0);
    put_number(out, since_creation(stat.mzxid));
    put_number(out, since_creation(stat.pzxid));
    put_number(out, stat.ctime.0);
    put_number(out, stat.mtime.0.wrapping_sub(stat.ctime.0));
    put_number(out, stat.version);
    put_number(out, stat.cversion);
    put_number(out, stat.num_children);
    put_number(out, node.sequence);
    stat.ephemeral_owner.encode(out);
    put_byte_string(out, node.data);
}

/// A node's record without its value, and its value.
pub(super) fn decode_node<'a>(
    input: &mut Input<'a>,
) -> Result<(NodeRecord, &'a [u8]), DecodeError> {
    let czxid = Zxid::decode(input)?;
    let since_creation = |number: u64| Zxid(czxid.0.wrapping_add(number));
    let mzxid = since_creation(input.number()?);
    let pzxid = since_creation(input.number()?);
    let ctime = WallTime::decode(input)?;
    let mtime = WallTime(ctime.0.wrapping_add(input.number()?));
    let version = input.number()?;
    let directory = Directory {
        pzxid,
        cversion: input.number()?,
        children: input.number()?,
        sequence: input.number()?,
    };
    let fixed = NodeFixed {
        czxid,
        ctime,
        owner: Compact::decode(input)?,
    };
    let record = NodeRecord {
        data: bytes::Bytes::new(),
        fixed,
        mzxid,
        mtime,
        version,
        directory,
    };
    Ok((record, input.byte_string()?))
}

folkmoot_proto::compact_struct!(Session {
    id,
    secret,
    timeout_ms,
    epoch,
    member,
    last_id,
    acked_up_to,
    reply_bytes,
    completions,
    completion_bytes,
    ephemerals,
    ephemeral_bytes,
    waits,
    opened,
});
folkmoot_proto::compact_struct!(StoredReply { zxid, reply });
folkmoot_proto::compact_struct!(StoredCompletion {
    request,
    zxid,
    reply,
});
folkmoot_proto::compact_struct!(Wait {
    ticket,
    session,
    request,
    mount,
    deadline,
    memo,
});
folkmoot_proto::compact_struct!(Timer { due, payload });
folkmoot_proto::compact_struct!(Mount {
    id,
    path,
    digest,
    config,
    version,
});
folkmoot_proto::compact_struct!(EventQueue { first, next });
folkmoot_proto::compact_struct!(Upload {
    session,
    size,
    received,
    touched,
    sealed,
});
folkmoot_proto::compact_struct!(SealedUpload { name, ticket });
folkmoot_proto::compact_struct!(Component {
    name,
    size,
    description,
    installed,
});
