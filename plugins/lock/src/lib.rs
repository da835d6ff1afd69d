//! The standard plugin `lock`: locks with a fair queue, by name.
//!
//! Below the mount:
//!
//! - `holders/NAME` is there while the lock NAME is held: an ephemeral node of the session that
//!   holds it, made at the grant. Its `czxid` is the fencing token, so `(MOUNT/holders/NAME, token)`
//!   is the guard of a write that only the holder may make.
//! - `queue/NAME#NUMBER` is a request that waits, the smallest number first: an ephemeral node of
//!   the session that waits. Its value is JSON with the ticket of the wait.
//!
//! What dies with a session is therefore gone whether this code runs or not; an event then has it
//! grant the lock to the next. Until that event is handled a lock can be free while somebody waits
//! for it. Every call looks at the queue first, so nobody overtakes.
//!
//! A session that holds a lock and acquires it again gets the same token at once; a single release
//! frees it. A session that waits for a lock and acquires it again waits for a second turn.

mod grant;
mod name;

use folkmoot_sdk::prelude::*;
use serde_json::json;

use crate::grant::{Budget, Grant, QueueEntry};
use crate::name::LockName;

/// Locks with a fair queue.
#[derive(Debug, Default)]
pub struct Lock;

impl Recipe for Lock {
    fn describe() -> Description {
        let name = json!({"type": "string", "minLength": 1, "maxLength": name::BYTES_MAX});
        let grant = json!({
            "type": "object",
            "properties": {
                "token": {"type": "integer", "minimum": 1},
                "guard": {"type": "string"},
            },
            "required": ["token", "guard"],
        });
        Description::new("lock", env!("CARGO_PKG_VERSION"))
            .operation(
                "acquire",
                "Replies with a fencing token and the path of its guard below the mount, once the \
                 lock is this session's. `wait_ms` is how long to wait: forever if it is null or \
                 missing, not at all if it is 0.",
            )
            .takes(json!({
                "type": "object",
                "properties": {
                    "name": name.clone(),
                    "wait_ms": {"type": ["integer", "null"], "minimum": 0},
                },
                "required": ["name"],
                "additionalProperties": false,
            }))
            .replies(grant)
            .rejects("held")
            .rejects("bad-name")
            .may_wait()
            .operation(
                "release",
                "Frees the lock that this session holds with this token, and grants it to the next \
                 in the queue.",
            )
            .takes(json!({
                "type": "object",
                "properties": {"name": name, "token": {"type": "integer", "minimum": 1}},
                "required": ["name", "token"],
                "additionalProperties": false,
            }))
            .replies(json!({"type": "object"}))
            .rejects("not-holder")
            .rejects("bad-name")
    }

    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
        match operation.name() {
            "acquire" => acquire(cx, operation.arguments()?),
            "release" => release(cx, operation.arguments()?),
            _ => Err(operation.unknown()),
        }
    }

    fn on_event(&self, cx: &mut Context, event: Event) -> Result<(), Rejection> {
        match event {
            Event::SessionClosed { removed, .. } => grant::session_left(cx, &removed),
            Event::WaitEnded { memo, .. } => {
                let entry = String::from_utf8_lossy(&memo);
                grant::wait_ended(cx, &entry)
            }
            Event::Timer { name, payload, .. } => {
                grant::resume(cx, &name, &String::from_utf8_lossy(&payload))
            }
            Event::Resync => grant::resync(cx, None),
            Event::Other { .. } => Ok(()),
        }
    }
}

folkmoot_sdk::export!(Lock);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Acquire {
    name: String,
    #[serde(default)]
    wait_ms: Option<u64>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    name: String,
    token: Zxid,
}

fn acquire(cx: &mut Context, arguments: Acquire) -> Result<Outcome, Rejection> {
    let name = LockName::parse(arguments.name)?;
    let caller = cx.caller()?;
    // Those who wait already come first, even where the lock is free and the event that will tell
    // of it has not been handled.
    grant::settle(cx, &name, &mut Budget::default())?;
    let holder = cx.tree().stat(&name.holder())?;
    match holder {
        Some(holder) if holder.owner == Some(caller) => {
            return Outcome::reply(&Grant::new(&name, holder.czxid));
        }
        None if !grant::has_queue(cx, &name)? => {
            let token = grant::give(cx, &name, caller)?;
            return Outcome::reply(&Grant::new(&name, token));
        }
        _ => {}
    }
    if arguments.wait_ms == Some(0) {
        return Err(held(cx, holder));
    }
    let entry = grant::enqueue(cx, &name, &QueueEntry::of(cx.ticket()), caller)?;
    let deadline = arguments.wait_ms.map(|millis| cx.now().plus_millis(millis));
    Ok(Outcome::wait(deadline, entry))
}

/// The rejection of one who does not wait. It undoes a grant that this very call has made to the
/// first in the queue, so that one is not named: an event will make it again.
fn held(cx: &Context, holder: Option<Stat>) -> Rejection {
    match holder.filter(|holder| holder.czxid != cx.zxid()) {
        Some(holder) => Rejection::new("held", "another session holds the lock")
            .with("holder", holder.owner.unwrap_or_default())
            .with("token", holder.czxid),
        None => Rejection::new("held", "the lock is being handed over"),
    }
}

fn release(cx: &mut Context, arguments: Release) -> Result<Outcome, Rejection> {
    let name = LockName::parse(arguments.name)?;
    let caller = cx.caller()?;
    let holder = cx.tree().stat(&name.holder())?;
    let holds = |stat: Stat| stat.owner == Some(caller) && stat.czxid == arguments.token;
    if !holder.is_some_and(holds) {
        let rejection = Rejection::new(
            "not-holder",
            "this session does not hold the lock with this token",
        );
        return Err(match holder {
            Some(stat) => rejection
                .with("holder", stat.owner.unwrap_or_default())
                .with("token", stat.czxid),
            None => rejection,
        });
    }
    cx.tree_mut().delete(&name.holder())?;
    grant::settle(cx, &name, &mut Budget::default())?;
    Outcome::reply(&serde_json::Map::new())
}
