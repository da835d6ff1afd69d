//! Who holds a lock and who comes next.

use folkmoot_sdk::operation::to_json;
use folkmoot_sdk::prelude::*;

use crate::name::{HOLDERS, LockName, QUEUE};

/// Waits that turn out to be over before a call leaves the rest to a timer. Each costs 5 host calls,
/// so these and [`LOCKS_MAX`] together stay below the 1,000 that a call may make.
const DEAD_WAITS_MAX: usize = 100;
/// Locks that one event settles before it leaves the rest to a timer. Each costs up to 12 host
/// calls.
const LOCKS_MAX: usize = 20;
/// The timer that goes on with a lock whose queue has more dead waits than one call removes.
const TIMER_SETTLE: &str = "settle#";
/// The timer that goes on with a resync.
const TIMER_RESYNC: &str = "resync";

/// What whoever holds the lock is told.
#[derive(serde::Serialize)]
pub(crate) struct Grant {
    /// The fencing token.
    token: Zxid,
    /// The path below the mount where the token's node is.
    guard: String,
}

impl Grant {
    pub(crate) fn new(name: &LockName, token: Zxid) -> Self {
        Self {
            token,
            guard: name.holder(),
        }
    }
}

/// The value of a node in the queue.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct QueueEntry {
    ticket: Ticket,
}

impl QueueEntry {
    pub(crate) const fn of(ticket: Ticket) -> Self {
        Self { ticket }
    }
}

/// How many dead waits a call may still remove.
#[derive(Debug)]
pub(crate) struct Budget {
    dead_waits: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            dead_waits: DEAD_WAITS_MAX,
        }
    }
}

/// Gives a free lock to the first in its queue whose wait is not over. Does nothing to a lock that
/// is held, or for which nobody waits, so that it can be called whenever something may have
/// changed.
///
/// A queue with more dead waits than the budget is left to a timer. Until it comes the lock is free
/// and its queue is not empty, so nobody overtakes.
pub(crate) fn settle(
    cx: &mut Context,
    name: &LockName,
    budget: &mut Budget,
) -> Result<(), Rejection> {
    if cx.tree().stat(&name.holder())?.is_some() {
        return Ok(());
    }
    while let Some(entry) = first_in_queue(cx, name)? {
        if budget.dead_waits == 0 {
            let timer = format!("{TIMER_SETTLE}{}", name.as_str());
            let now = cx.now();
            return Ok(cx.timers().set(&timer, now, name.as_str())?);
        }
        if grant_to(cx, name, &entry)? {
            return Ok(());
        }
        budget.dead_waits -= 1;
    }
    Ok(())
}

/// Whether anybody is in the queue of a lock.
pub(crate) fn has_queue(cx: &Context, name: &LockName) -> Result<bool, Rejection> {
    Ok(first_in_queue(cx, name)?.is_some())
}

/// Makes `session` the holder of a free lock: the node made here is the grant.
pub(crate) fn give(
    cx: &mut Context,
    name: &LockName,
    session: SessionId,
) -> Result<Zxid, Rejection> {
    cx.sessions().follow(session);
    let holder = name.holder();
    let token = match cx.tree_mut().create_ephemeral(&holder, "", session) {
        Err(TreeError::NoParent) => {
            cx.tree_mut().ensure(HOLDERS)?;
            cx.tree_mut().create_ephemeral(&holder, "", session)?
        }
        answer => answer?,
    };
    Ok(token)
}

/// Puts a wait of `session` at the end of the queue; answers the entry's name.
pub(crate) fn enqueue(
    cx: &mut Context,
    name: &LockName,
    entry: &QueueEntry,
    session: SessionId,
) -> Result<String, Rejection> {
    cx.sessions().follow(session);
    let path = LockName::entry(&name.entry_prefix());
    let value = to_json(entry)?;
    let created = match cx
        .tree_mut()
        .create_ephemeral_sequential(&path, value.clone(), session)
    {
        Err(TreeError::NoParent) => {
            cx.tree_mut().ensure(QUEUE)?;
            cx.tree_mut()
                .create_ephemeral_sequential(&path, value, session)?
        }
        answer => answer?,
    };
    Ok(created.name)
}

/// A session ended, and these of its nodes went with it. Those in queues matter to nobody: a lock
/// for which they came first is held, or is among the holders of a session that ended.
pub(crate) fn session_left(cx: &mut Context, removed: &[String]) -> Result<(), Rejection> {
    let mut freed: Vec<LockName> = removed
        .iter()
        .filter_map(|path| LockName::of_holder(path))
        .collect();
    if freed.len() > LOCKS_MAX {
        return resync(cx, None);
    }
    freed.sort();
    let mut budget = Budget::default();
    freed
        .iter()
        .try_for_each(|name| settle(cx, name, &mut budget))
}

/// The wait of a queue's entry is over; its node is there still if its session is open.
pub(crate) fn wait_ended(cx: &mut Context, entry: &str) -> Result<(), Rejection> {
    let Some(name) = LockName::of_entry(entry) else {
        return Ok(());
    };
    cx.tree_mut().delete(&LockName::entry(entry))?;
    settle(cx, &name, &mut Budget::default())
}

/// Goes on with what a call has left to a timer.
pub(crate) fn resume(cx: &mut Context, timer: &str, payload: &str) -> Result<(), Rejection> {
    if timer == TIMER_RESYNC {
        return resync(cx, Some(payload));
    }
    match LockName::parse(payload.to_owned()) {
        Ok(name) => settle(cx, &name, &mut Budget::default()),
        Err(_) => Ok(()),
    }
}

/// What changed is not known: every lock that somebody waits for is settled, a few in each call.
pub(crate) fn resync(cx: &mut Context, after: Option<&str>) -> Result<(), Rejection> {
    let mut after = after.map(str::to_owned);
    let mut budget = Budget::default();
    for _ in 0..LOCKS_MAX {
        let page = cx.tree().children(QUEUE, after.as_deref(), 1)?;
        let Some(entry) = page.into_iter().next() else {
            return Ok(());
        };
        after = Some(match LockName::of_entry(&entry) {
            Some(name) => {
                settle(cx, &name, &mut budget)?;
                name.behind_entries()
            }
            None => entry,
        });
    }
    let now = cx.now();
    Ok(cx
        .timers()
        .set(TIMER_RESYNC, now, after.unwrap_or_default())?)
}

/// The name of the queue's first entry.
fn first_in_queue(cx: &Context, name: &LockName) -> Result<Option<String>, Rejection> {
    let prefix = name.entry_prefix();
    let page = cx.tree().children(QUEUE, Some(&prefix), 1)?;
    Ok(page
        .into_iter()
        .next()
        .filter(|entry| entry.starts_with(&prefix)))
}

/// Takes an entry out of the queue and gives the lock to its session; false if its wait is over.
fn grant_to(cx: &mut Context, name: &LockName, entry: &str) -> Result<bool, Rejection> {
    let path = LockName::entry(entry);
    let node = cx.tree().node(&path)?;
    cx.tree_mut().delete(&path)?;
    let Some((session, waiting)) = node.and_then(|node| {
        let waiting: QueueEntry = serde_json::from_slice(&node.data).ok()?;
        Some((node.stat.owner?, waiting))
    }) else {
        return Ok(false);
    };
    // The token is known before the node is made: it is this transaction's zxid.
    let grant = to_json(&Grant::new(name, cx.zxid()))?;
    if !cx.sessions().is_open(session) || !cx.waits().complete(waiting.ticket, Ok(grant)) {
        return Ok(false);
    }
    give(cx, name, session)?;
    Ok(true)
}
