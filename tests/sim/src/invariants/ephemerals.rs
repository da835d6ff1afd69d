//! What is a session's own goes with it, in the same transaction (rules R12, R32).

use folkmoot_proto::Zxid;
use folkmoot_proto::batch::Txn;
use folkmoot_proto::effect::Effect;

use crate::oracle::Oracle;
use crate::violation::{Checked, Violation};

/// `txn` was applied.
pub(crate) fn check(oracle: &Oracle, zxid: Zxid, txn: &Txn) -> Checked {
    for effect in &txn.effects {
        let Effect::CloseSession { session, .. } = effect else {
            continue;
        };
        if let Some(path) = oracle.tree.owned_by(*session) {
            return Err(Violation::new(
                "ephemerals",
                format!("zxid {zxid} closes session {session}, whose node {path} stays"),
            ));
        }
    }
    Ok(())
}
