//! Scenarios of plugins, run natively: what they are told, what they remember, when they are called.

use folkmoot_proto::client::Operation;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};

use super::leader::{Leader, invoke};
use crate::client::token_of;
use crate::runtime::{Failing, Known};

fn acquire(wait_ms: &str) -> Operation {
    let payload = format!("{{\"name\":\"l\",\"wait_ms\":{wait_ms}}}");
    invoke(Known::Lock, "acquire", &payload)
}

fn is_grant(reply: Option<&Reply>) -> bool {
    matches!(reply, Some(Ok(Outcome::Invoked(_))))
}

/// After three faults in a row a mount is left alone for a while (rule R7).
pub(super) fn a_mount_that_faults_is_left_alone() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    leader.mount(&mut client, Known::Counter)?;
    leader.runtime.failing = Failing::Calls;
    let add = || invoke(Known::Counter, "add", "{\"amount\":1}");
    for _ in 0..3 {
        match leader.call(&mut client, add())? {
            Err(Refusal::PluginFault { .. }) => {}
            other => return Err(format!("a call that faults is answered {other:?}")),
        }
    }
    match leader.call(&mut client, add())? {
        Err(Refusal::MountThrottled { .. }) => {}
        other => return Err(format!("after three faults the answer is {other:?}")),
    }
    leader.runtime.failing = Failing::No;
    leader.pass(1_000)?;
    match leader.call(&mut client, add())? {
        Ok(Outcome::Invoked(_)) => Ok(()),
        other => Err(format!("a second later the answer is {other:?}")),
    }
}

/// A wait whose deadline has passed is over, though its plugin has not heard of it: who completes it
/// hears `gone`, and the lock goes to the next (rule R11).
pub(super) fn a_dead_wait_is_gone() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let mut holder = leader.open(1)?;
    let (mut impatient, mut patient) = (leader.open(2)?, leader.open(3)?);
    leader.mount(&mut holder, Known::Lock)?;
    let Ok(Outcome::Invoked(grant)) = leader.call(&mut holder, acquire("0"))? else {
        return Err("a free lock is not granted".to_owned());
    };
    leader.wait(&mut impatient, acquire("500"))?;
    leader.wait(&mut patient, acquire("null"))?;
    leader.runtime.failing = Failing::Events;
    leader.pass(1_000)?;
    match leader.completion(&impatient) {
        Some(Err(Refusal::DeadlinePassed)) => {}
        other => {
            return Err(format!(
                "after its deadline the wait has ended so: {other:?}"
            ));
        }
    }
    let token = token_of(&grant).ok_or("the grant has no token")?;
    let release = format!("{{\"name\":\"l\",\"token\":{token}}}");
    let released = leader.call(&mut holder, invoke(Known::Lock, "release", &release))?;
    match leader.completion(&patient) {
        reply if is_grant(reply.as_ref()) => Ok(()),
        other => Err(format!(
            "the lock was released ({released:?}), and who waits has {other:?}"
        )),
    }
}

/// The session that holds a lock ends: the plugin hears of it, after its handler has faulted too,
/// and grants the lock to who waits (rule R12).
pub(super) fn a_sessions_end_is_heard_in_spite_of_faults() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let (mut holder, mut waiting) = (leader.open(1)?, leader.open(2)?);
    leader.mount(&mut holder, Known::Lock)?;
    leader
        .call(&mut holder, acquire("0"))?
        .map_err(|refusal| refusal.to_string())?;
    leader.wait(&mut waiting, acquire("null"))?;
    leader.runtime.failing = Failing::Events;
    leader.ask(&mut holder, Operation::CloseSession);
    leader.pass(300)?;
    if leader.runtime.faulted == 0 {
        return Err("the plugin was not told that the session is over".to_owned());
    }
    leader.runtime.failing = Failing::No;
    leader.pass(2_000)?;
    match leader.completion(&waiting) {
        reply if is_grant(reply.as_ref()) => Ok(()),
        other => Err(format!("who waits has {other:?}")),
    }
}

/// An instance that remembers a call is dropped with the overlay in which that call took place, or
/// it would count it twice (rule R14).
pub(super) fn an_instance_goes_with_the_overlay() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    leader.mount(&mut client, Known::Ledger)?;
    let add = || invoke(Known::Ledger, "add", "{\"amount\":1}");
    let first = leader.call(&mut client, add())?;
    leader.holds_proposals = true;
    let id = leader.ask(&mut client, add());
    leader.run()?;
    leader.refuse()?;
    leader.commit()?;
    leader.send(&client, id, add());
    leader.run()?;
    let second = leader.reply(&client, id)?;
    let totals = [first, second].map(|reply| match reply {
        Ok(Outcome::Invoked(total)) => String::from_utf8_lossy(&total).into_owned(),
        other => format!("{other:?}"),
    });
    match totals.each_ref().map(String::as_str) {
        ["1", "2"] => Ok(()),
        _ => Err(format!("1 was added twice, the totals are {totals:?}")),
    }
}
