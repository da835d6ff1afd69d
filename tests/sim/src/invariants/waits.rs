//! A wait ends once, by a transaction that says how (rule R11); a session's end ends its waits.

use folkmoot_proto::batch::Txn;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{MountId, Ticket, Zxid};

use crate::oracle::Oracle;
use crate::violation::{Checked, Violation};

/// `txn` is about to be applied.
pub(crate) fn logged(oracle: &Oracle, zxid: Zxid, txn: &Txn) -> Checked {
    let ended: Vec<Ticket> = txn
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::EndWait { ticket } => Some(*ticket),
            _ => None,
        })
        .collect();
    let completed: Vec<Ticket> = txn.completions.iter().map(|ended| ended.ticket).collect();
    for ticket in &completed {
        let open = oracle
            .waits
            .get(ticket)
            .is_some_and(|wait| wait.over.is_none());
        if !open || !ended.contains(ticket) {
            return Err(Violation::new(
                "waits",
                format!(
                    "zxid {zxid} completes wait {ticket}, which is {:?}",
                    oracle.waits.get(ticket)
                ),
            ));
        }
    }
    for ended in &txn.completions {
        let mount = oracle.waits.get(&ended.ticket).map(|wait| wait.mount);
        let fits = match (mount, &ended.reply) {
            (_, Err(_)) => true,
            (Some(MountId::ZERO), Ok(outcome)) => matches!(
                outcome,
                Outcome::Installed | Outcome::Planned(_) | Outcome::PolicyTook
            ),
            (_, Ok(outcome)) => matches!(outcome, Outcome::Invoked(_)),
        };
        if !fits {
            return Err(Violation::new(
                "waits",
                format!("zxid {zxid} ends a wait at {mount:?} so: {ended:?}"),
            ));
        }
    }
    for ticket in &ended {
        let gone = oracle
            .waits
            .get(ticket)
            .map(|wait| wait.session)
            .is_some_and(|session| {
                txn.effects.iter().any(|effect| {
                matches!(effect, Effect::CloseSession { session: closed, .. } if *closed == session)
            })
            });
        if !completed.contains(ticket) && !gone {
            return Err(Violation::new(
                "waits",
                format!("zxid {zxid} ends wait {ticket} without an outcome"),
            ));
        }
    }
    Ok(())
}

/// `txn` was applied: no wait of a session that it closed is left.
pub(crate) fn closed(oracle: &Oracle, zxid: Zxid, txn: &Txn) -> Checked {
    for effect in &txn.effects {
        let Effect::CloseSession { session, .. } = effect else {
            continue;
        };
        let left = oracle.waits.iter().find(|(ticket, wait)| {
            let ended = txn.effects.iter().any(
                |effect| matches!(effect, Effect::EndWait { ticket: ended } if ended == *ticket),
            );
            wait.session == *session && wait.over.is_none() && !ended
        });
        if let Some((ticket, _)) = left {
            return Err(Violation::new(
                "waits",
                format!("zxid {zxid} closes session {session}, whose wait {ticket} stays"),
            ));
        }
    }
    Ok(())
}
