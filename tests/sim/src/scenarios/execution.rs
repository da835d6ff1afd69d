//! Scenarios of the leader's overlay and of the state under it.

use folkmoot_core::state::{Speculative, Stamp, State};
use folkmoot_proto::batch::Txn;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::{LogTime, WallTime, Zxid};

use super::leader::Leader;
use crate::world::bootstrap;

/// After a batch was refused nothing stands on it: the next one stands on what is applied (rule R3).
pub(super) fn a_refused_batch_takes_the_overlay_with_it() -> Result<(), String> {
    let mut leader = Leader::new()?;
    leader.holds_proposals = true;
    leader.ask_session(1);
    leader.run()?;
    leader.refuse()?;
    leader.ask_session(2);
    leader.run()?;
    match leader.proposed.front() {
        Some(next) if next.base_zxid == Zxid::ZERO => Ok(()),
        next => Err(format!("after the refusal the next batch is {next:?}")),
    }
}

/// A transaction that sets a node which is not there is an error, not an empty change (rule R6).
pub(super) fn effects_are_strict() -> Result<(), String> {
    let state = State::new(bootstrap(1)).map_err(|error| error.to_string())?;
    let mut state = Speculative::new(state);
    let stamp = Stamp {
        zxid: Zxid(1),
        log_time: LogTime(1),
        wall_time: WallTime(1_767_225_600_000),
    };
    let txn = Txn {
        effects: vec![Effect::SetNode {
            path: "/missing".to_owned(),
            data: Vec::new(),
            version: 7,
        }],
        ..Txn::default()
    };
    match state.apply_txn(stamp, &txn) {
        Err(_) => Ok(()),
        Ok(()) => Err("a change of a node that is not there was taken".to_owned()),
    }
}
