//! What applying effects writes to: the committed state, or the overlay over it.

use folkmoot_proto::MapId;
use folkmoot_proto::partition::{MemberNo, PartitionId, PartitionRecord};

use super::apply::Stamp;
use super::key::{Key, PathKey};
use super::value::{Counters, Directory, NodeFixed, Value};
use super::view::View;

/// Writing, one record at a time. Preconditions were checked by the caller.
pub(crate) trait Store: View {
    /// Sets or removes the value of one key of any table but the nodes'; counts it.
    fn put(&mut self, key: Key, value: Option<Value>);

    /// A node comes to be, without children, with version 0.
    fn insert_node(&mut self, path: &str, fixed: NodeFixed, data: &[u8]);

    /// A node's value is set.
    fn set_data(&mut self, path: &str, data: &[u8], version: u64, stamp: Stamp);

    /// What a node's children change in it is set.
    fn set_directory(&mut self, path: &str, directory: Directory);

    /// A node goes.
    fn remove_node(&mut self, path: &str);
}

/// Sets or removes a record and keeps the indexes that are derived from it.
pub(crate) fn write<S: Store>(store: &mut S, key: Key, value: Option<Value>) {
    let before = store.value(&key);
    let same_indexes = matches!(key, Key::Session(_)) && before.is_some() && value.is_some();
    if !same_indexes {
        let before = before.map(|value| indexes(&key, value)).unwrap_or_default();
        let after = value.as_ref().map(|value| indexes(&key, value));
        let after = after.unwrap_or_default();
        for (index, _) in before.iter().filter(|index| !after.contains(index)) {
            store.put(index.clone(), None);
        }
        for (index, value) in after {
            if store.value(&index) != Some(&value) {
                store.put(index, Some(value));
            }
        }
    }
    store.put(key, value);
}

/// The index keys that a record has, with their values.
pub(crate) fn indexes(key: &Key, value: &Value) -> Vec<(Key, Value)> {
    match (key, value) {
        (_, Value::Session(session)) => {
            let key = Key::SessionBySecret(session.secret);
            vec![(key, Value::SessionId(session.id))]
        }
        (_, Value::Wait(wait)) => {
            let mut keys = vec![
                (Key::WaitOf(wait.session, wait.ticket), Value::Present),
                (Key::WaitAt(wait.mount, wait.ticket), Value::Present),
            ];
            if let Some(deadline) = wait.deadline {
                keys.push((Key::WaitDue(deadline, wait.ticket), Value::Present));
            }
            keys
        }
        (Key::Timer(mount, name), Value::Timer(timer)) => {
            let key = Key::TimerDue(timer.due, *mount, name.clone());
            vec![(key, Value::Present)]
        }
        (_, Value::Mount(mount)) => {
            let key = Key::MountAt(PathKey::new(&mount.path));
            vec![(key, Value::MountId(mount.id))]
        }
        (&Key::Follow(session, mount), _) => {
            vec![(Key::FollowedBy(mount, session), Value::Present)]
        }
        (&Key::Upload(digest), Value::Upload(upload)) => {
            vec![(Key::UploadOf(upload.session, digest), Value::Present)]
        }
        (&Key::Map(map), Value::Map(record)) => {
            vec![(Key::MapOf(record.group.clone()), Value::MapId(map))]
        }
        (&Key::Partition(map, partition), Value::Partition(record)) => {
            partition_indexes(map, partition, record)
        }
        _ => Vec::new(),
    }
}

fn partition_indexes(
    map: MapId,
    partition: PartitionId,
    record: &PartitionRecord,
) -> Vec<(Key, Value)> {
    let assignment = &record.assignment;
    let mut members: Vec<MemberNo> = assignment.replicas.iter().map(|of| of.member).collect();
    members.extend(assignment.owner.map(|owner| owner.member));
    let mut keys = vec![Key::ChangedAt(map, record.changed, partition)];
    if let Some(movement) = &assignment.movement {
        keys.push(Key::Moving(map, partition));
        members.extend(&movement.target);
    }
    members.sort_unstable();
    members.dedup();
    let held = members.into_iter();
    keys.extend(held.map(|member| Key::HeldBy(map, member, partition)));
    keys.into_iter().map(|key| (key, Value::Present)).collect()
}

impl Counters {
    /// Counts what a record's change changes.
    pub(crate) fn count(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        let chunk_bytes = |value: Option<&Value>| match value {
            Some(Value::Chunk(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        let counter = match key {
            Key::Node(_) => &mut self.nodes,
            Key::Session(_) => &mut self.sessions,
            Key::Wait(_) => &mut self.waits,
            Key::Mount(_) => &mut self.mounts,
            Key::Map(_) => &mut self.maps,
            Key::Chunk(..) => {
                self.component_bytes += chunk_bytes(after);
                self.component_bytes -= chunk_bytes(before);
                return;
            }
            _ => return,
        };
        *counter += u64::from(after.is_some());
        *counter -= u64::from(before.is_some());
    }
}
