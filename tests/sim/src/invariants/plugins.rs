//! What recipes that count have counted: each call adds its amount to the total before it, once
//! (rules R10, R14). The ledger remembers the total in its instance, so this fails when a warm
//! instance outlives what it has seen.

use folkmoot_proto::Zxid;
use folkmoot_proto::batch::Txn;
use folkmoot_proto::client::{Operation, Request};
use folkmoot_proto::effect::Effect;

use crate::oracle::Oracle;
use crate::runtime::Known;
use crate::violation::{Checked, Violation};

/// The node, below a counting recipe's mount, that holds the total.
pub(crate) const TOTAL: &str = "total";

/// `txn`, which answers `request`, is about to be applied.
pub(crate) fn check(oracle: &Oracle, zxid: Zxid, txn: &Txn, request: &Request) -> Checked {
    let Operation::Invoke { mount, payload, .. } = &request.operation else {
        return Ok(());
    };
    let counts = [Known::Counter.mount(), Known::Ledger.mount()].contains(&mount.as_str());
    let accepted = txn
        .origin
        .as_ref()
        .is_some_and(|origin| origin.reply.is_ok());
    if !counts || !accepted {
        return Ok(());
    }
    let path = format!("{mount}/{TOTAL}");
    let before = oracle.tree.now(&path).map_or(0, |node| number(&node.data));
    let after = txn.effects.iter().find_map(|effect| match effect {
        Effect::CreateNode {
            path: set, data, ..
        }
        | Effect::SetNode {
            path: set, data, ..
        } if *set == path => Some(number(data)),
        _ => None,
    });
    let amount = amount_of(payload);
    if after == Some(before + amount) {
        return Ok(());
    }
    Err(Violation::new(
        "plugins",
        format!("zxid {zxid}: {mount} had {before}, {amount} were added, it has {after:?}"),
    ))
}

/// The payload of a call that adds.
pub(crate) fn payload(amount: i64) -> Vec<u8> {
    format!("{{\"amount\": {amount}}}").into_bytes()
}

fn amount_of(payload: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(payload);
    let digits = text
        .trim_start_matches("{\"amount\": ")
        .trim_end_matches('}');
    digits.parse().unwrap_or(0)
}

fn number(data: &[u8]) -> i64 {
    String::from_utf8_lossy(data).parse().unwrap_or(0)
}
