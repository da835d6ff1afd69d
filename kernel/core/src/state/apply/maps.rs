//! Effects on partition maps: what is asserted here is what no controller may get wrong (rules R33,
//! R36, R39).

use folkmoot_proto::partition::{
    Assignment, Layout, MapLedger, MapRecord, PartitionId, PartitionKey, PartitionRecord,
    PartitionSpec,
};
use folkmoot_proto::{MapId, Zxid};

use super::{ApplyError, Stamp};
use crate::state::key::Key;
use crate::state::store::{Store, write};
use crate::state::value::Value;

const fn refused(problem: &'static str) -> ApplyError {
    ApplyError::BadMap { problem }
}

fn check(holds: bool, problem: &'static str) -> Result<(), ApplyError> {
    if holds { Ok(()) } else { Err(refused(problem)) }
}

pub(super) fn create<S: Store>(
    store: &mut S,
    stamp: Stamp,
    record: &MapRecord,
    layout: &Layout,
) -> Result<(), ApplyError> {
    let map = MapId(stamp.zxid.0);
    check(store.map(map).is_none(), "a transaction makes one at most")?;
    let other = store.map_of(&record.group);
    check(other.is_none(), "the group has one")?;
    let count = u32::try_from(layout.count()).unwrap_or(u32::MAX);
    let counts = record.partitions == count && record.next_partition == PartitionId(count);
    check(counts, "its partitions are those of its layout")?;
    let as_of_now = record.layout == stamp.zxid && record.changed == stamp.zxid;
    check(as_of_now, "its zxids are the transaction's")?;
    put_map(store, map, record.clone());
    write(store, Key::Ledger(map), Some(Value::Ledger(Box::default())));
    for (number, key) in (0..).zip(layout.keys()) {
        let record = PartitionRecord {
            key,
            spec: PartitionSpec::default(),
            assignment: Assignment::default(),
            created: stamp.zxid,
            changed: stamp.zxid,
        };
        put_partition(store, map, PartitionId(number), record);
    }
    Ok(())
}

pub(super) fn put<S: Store>(
    store: &mut S,
    stamp: Stamp,
    map: MapId,
    record: &MapRecord,
) -> Result<(), ApplyError> {
    let before = expect(store, map)?;
    let same = (&before.group, before.layout, before.partitions)
        == (&record.group, record.layout, record.partitions)
        && before.next_partition == record.next_partition;
    check(same, "group, layout and partitions stay")?;
    let as_of_now = record.changed == stamp.zxid;
    check(as_of_now, "it is changed by this transaction")?;
    put_map(store, map, record.clone());
    Ok(())
}

pub(super) fn remove<S: Store>(store: &mut S, map: MapId) -> Result<(), ApplyError> {
    expect(store, map)?;
    for partition in store.partitions(map) {
        write(store, Key::Partition(map, partition), None);
    }
    write(store, Key::Ledger(map), None);
    write(store, Key::Map(map), None);
    Ok(())
}

pub(super) fn put_ledger<S: Store>(
    store: &mut S,
    map: MapId,
    ledger: &MapLedger,
) -> Result<(), ApplyError> {
    expect(store, map)?;
    let before = store.ledger(map).last_revoke;
    check(ledger.last_revoke >= before, "revokes are not forgotten")?;
    let ledger = Value::Ledger(Box::new(ledger.clone()));
    write(store, Key::Ledger(map), Some(ledger));
    Ok(())
}

pub(super) fn put_described<S: Store>(
    store: &mut S,
    stamp: Stamp,
    (map, partition): (MapId, PartitionId),
    record: &PartitionRecord,
) -> Result<(), ApplyError> {
    let before = expect_partition(store, map, partition)?;
    let same = before.key == record.key && before.created == record.created;
    check(same, "a partition stays what it is")?;
    let assigned = before.assignment == record.assignment;
    check(assigned, "who has a partition is assigned")?;
    check(
        record.changed == stamp.zxid,
        "its zxid is the transaction's",
    )?;
    put_partition(store, map, partition, record.clone());
    Ok(())
}

pub(super) fn assign<S: Store>(
    store: &mut S,
    stamp: Stamp,
    (map, partition): (MapId, PartitionId),
    assignment: &Assignment,
) -> Result<(), ApplyError> {
    let before = expect_partition(store, map, partition)?;
    check_assignment(stamp.zxid, &before.assignment, assignment)?;
    let record = PartitionRecord {
        assignment: assignment.clone(),
        changed: stamp.zxid,
        ..before.clone()
    };
    put_partition(store, map, partition, record);
    Ok(())
}

/// A token is the zxid of a promotion, and a move's id that of its beginning: neither is ever given
/// again (rules R33, R36).
fn check_assignment(zxid: Zxid, before: &Assignment, after: &Assignment) -> Result<(), ApplyError> {
    if let Some(owner) = after.owner
        && before.owner != Some(owner)
    {
        check(owner.token == zxid, "a promotion has a token of its own")?;
        let has = after.replicas.iter().find(|of| of.member == owner.member);
        let ready = has.is_some_and(|of| of.ready && of.incarnation == owner.incarnation);
        check(ready, "only a ready replica is promoted")?;
    }
    if let Some(movement) = &after.movement {
        let id = before.movement.as_ref().map(|before| before.id);
        let known = id == Some(movement.id) || movement.id == zxid;
        check(known, "a move's id is the zxid that begins it")?;
    }
    let mut members: Vec<_> = after.replicas.iter().map(|of| of.member).collect();
    members.sort_unstable();
    members.dedup();
    check(
        members.len() == after.replicas.len(),
        "a member has one replica at most",
    )
}

pub(super) fn split<S: Store>(
    store: &mut S,
    stamp: Stamp,
    (map, partition): (MapId, PartitionId),
    parts: &[PartitionRecord],
) -> Result<(), ApplyError> {
    let parent = expect_partition(store, map, partition)?;
    check(parent.assignment.movement.is_none(), "it is not moving")?;
    check(covers(&parent.key, parts), "the parts are the whole")?;
    let of_now = |part: &PartitionRecord| {
        let fresh = part.created == stamp.zxid && part.changed == stamp.zxid;
        fresh
            && part
                .assignment
                .owner
                .is_none_or(|owner| owner.token == stamp.zxid)
    };
    check(
        parts.iter().all(of_now),
        "the parts are of this transaction",
    )?;
    let mut record = expect(store, map)?.clone();
    let first = record.next_partition.0;
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    record.next_partition = PartitionId(first + count);
    record.partitions += count - 1;
    record.layout = stamp.zxid;
    record.changed = stamp.zxid;
    write(store, Key::Partition(map, partition), None);
    for (number, part) in (first..).zip(parts) {
        put_partition(store, map, PartitionId(number), part.clone());
    }
    put_map(store, map, record);
    Ok(())
}

/// Whether the parts are ranges that follow each other and are together the range.
fn covers(whole: &PartitionKey, parts: &[PartitionRecord]) -> bool {
    let PartitionKey::Range { first, last } = *whole else {
        return false;
    };
    let mut next = Some(first);
    for part in parts {
        let PartitionKey::Range { first, last } = part.key else {
            return false;
        };
        if next != Some(first) || last < first {
            return false;
        }
        next = last.checked_add(1);
    }
    !parts.is_empty() && next == last.checked_add(1)
}

fn expect<S: Store>(store: &S, map: MapId) -> Result<&MapRecord, ApplyError> {
    store.map(map).ok_or(refused("there is none"))
}

fn expect_partition<S: Store>(
    store: &S,
    map: MapId,
    partition: PartitionId,
) -> Result<&PartitionRecord, ApplyError> {
    let record = store.partition(map, partition);
    record.ok_or(refused("it has no such partition"))
}

fn put_map<S: Store>(store: &mut S, map: MapId, record: MapRecord) {
    write(store, Key::Map(map), Some(Value::Map(Box::new(record))));
}

fn put_partition<S: Store>(
    store: &mut S,
    map: MapId,
    partition: PartitionId,
    record: PartitionRecord,
) {
    let record = Value::Partition(Box::new(record));
    write(store, Key::Partition(map, partition), Some(record));
}
