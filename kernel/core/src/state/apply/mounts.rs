//! Effects on mounts, their timers and their events.

use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::{MountId, SessionId, Ticket};

use super::{ApplyError, Stamp, sessions};
use crate::state::applied::NodeChange;
use crate::state::kernel_nodes;
use crate::state::key::Key;
use crate::state::store::{Store, write};
use crate::state::value::{EventQueue, Mount, Timer, Value};

fn refused(mount: MountId, problem: &'static str) -> ApplyError {
    ApplyError::BadMount { mount, problem }
}

pub(super) fn expect<S: Store>(store: &S, mount: MountId) -> Result<&Mount, ApplyError> {
    store
        .mount(mount)
        .ok_or_else(|| refused(mount, "no such mount"))
}

pub(super) fn put<S: Store>(
    store: &mut S,
    stamp: Stamp,
    mount: Mount,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    if mount.version != stamp.zxid {
        return Err(refused(mount.id, "its version is the transaction's zxid"));
    }
    if store.component(mount.digest).is_none() {
        return Err(refused(mount.id, "its component is not installed"));
    }
    match store.mount(mount.id) {
        Some(before) if before.path != mount.path => {
            return Err(refused(mount.id, "a mount keeps its path"));
        }
        Some(_) => {}
        None if mount.id.0 != stamp.zxid.0 => {
            return Err(refused(mount.id, "its id is the transaction's zxid"));
        }
        None if store.mount_covering(&mount.path).is_some()
            || store.mount_within(&mount.path).is_some() =>
        {
            return Err(refused(mount.id, "another mount is in the way"));
        }
        None => {}
    }
    kernel_nodes::put_mount(store, stamp, &mount, changes);
    let key = Key::Mount(mount.id);
    write(store, key, Some(Value::Mount(Box::new(mount))));
    Ok(())
}

pub(super) fn remove<S: Store>(
    store: &mut S,
    stamp: Stamp,
    mount: MountId,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    expect(store, mount)?;
    if let Some(&Ticket(_)) = store.waits_of_mount(mount).first() {
        return Err(refused(mount, "its waits are not over"));
    }
    for name in store.timers_of_mount(mount, usize::MAX) {
        write(store, Key::Timer(mount, name), None);
    }
    let queue = store.event_queue(mount);
    for number in queue.first..queue.next {
        store.put(Key::Event(mount, number), None);
    }
    store.put(Key::EventQueue(mount), None);
    for session in store.followed_by(mount) {
        write(store, Key::Follow(session, mount), None);
    }
    kernel_nodes::remove_mount(store, stamp, mount, changes);
    write(store, Key::Mount(mount), None);
    Ok(())
}

pub(super) fn follow<S: Store>(
    store: &mut S,
    mount: MountId,
    session: SessionId,
) -> Result<(), ApplyError> {
    expect(store, mount)?;
    sessions::expect(store, session)?;
    write(store, Key::Follow(session, mount), Some(Value::Present));
    Ok(())
}

pub(super) fn set_timer<S: Store>(
    store: &mut S,
    mount: MountId,
    name: &str,
    timer: Timer,
) -> Result<(), ApplyError> {
    expect(store, mount)?;
    let key = Key::Timer(mount, name.to_owned());
    write(store, key, Some(Value::Timer(timer)));
    Ok(())
}

pub(super) fn cancel_timer<S: Store>(
    store: &mut S,
    mount: MountId,
    name: &str,
) -> Result<(), ApplyError> {
    if store.timer(mount, name).is_none() {
        return Err(refused(mount, "no such timer"));
    }
    write(store, Key::Timer(mount, name.to_owned()), None);
    Ok(())
}

pub(super) fn queue_event<S: Store>(
    store: &mut S,
    mount: MountId,
    event: &MountEvent,
) -> Result<(), ApplyError> {
    expect(store, mount)?;
    let queue = store.event_queue(mount);
    let event = Value::Event(Box::new(event.clone()));
    store.put(Key::Event(mount, queue.next), Some(event));
    let queue = EventQueue {
        next: queue.next + 1,
        ..queue
    };
    store.put(Key::EventQueue(mount), Some(Value::EventQueue(queue)));
    Ok(())
}

pub(super) fn dequeue_events<S: Store>(
    store: &mut S,
    mount: MountId,
    count: u32,
) -> Result<(), ApplyError> {
    let queue = store.event_queue(mount);
    if u64::from(count) > queue.count() {
        return Err(refused(mount, "its queue has fewer events"));
    }
    let rest = EventQueue {
        first: queue.first + u64::from(count),
        ..queue
    };
    for number in queue.first..rest.first {
        store.put(Key::Event(mount, number), None);
    }
    // Mounts without events have no queue, so that those with events are found among themselves.
    let rest = (rest.count() > 0).then_some(Value::EventQueue(rest));
    store.put(Key::EventQueue(mount), rest);
    Ok(())
}
