//! No session expires while its client has a lease: an acknowledged heartbeat was sent less than
//! the timeout ago, by the client's own clock and with room for drift (rule R16).

use folkmoot_proto::batch::Txn;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::{SessionId, Zxid};

use crate::violation::{Checked, Violation};

/// `txn` is committed, and `has_lease` says whose client believes that its session lives.
pub(crate) fn check(zxid: Zxid, txn: &Txn, has_lease: impl Fn(SessionId) -> bool) -> Checked {
    for effect in &txn.effects {
        if let Effect::CloseSession {
            session,
            expired: true,
        } = effect
            && has_lease(*session)
        {
            return Err(Violation::new(
                "leases",
                format!("zxid {zxid} expires session {session}, whose client has a lease"),
            ));
        }
    }
    Ok(())
}
