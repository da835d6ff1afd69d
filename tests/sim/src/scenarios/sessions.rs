//! Scenarios of sessions: where they are attached, and who may say that they live or are over.

use folkmoot_core::state::View as _;
use folkmoot_proto::RequestId;
use folkmoot_proto::client::{Operation, ServerFrame};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::peer::ExecutionMessage;

use super::leader::{Leader, create, request};

/// A client has moved, and what it had sent before arrives through the member where it was: neither
/// its request nor its touch counts (rule R15).
pub(super) fn an_older_attachment_is_not_heard() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let before = leader.open(1)?;
    let client = leader.resume(&before)?;
    let stale = ExecutionMessage::Requests {
        session: before.session,
        epoch: before.epoch,
        requests: vec![request(RequestId(1), create("/stale", false))],
    };
    leader.peer(2, stale);
    leader.heartbeat(&before, 1);
    leader.pass(200)?;
    if leader.execution.state().node("/stale").is_some() {
        return Err("a request of the older attachment was executed".to_owned());
    }
    if !leader.acknowledged.is_empty() {
        return Err("a touch of the older attachment was accepted".to_owned());
    }
    leader.heartbeat(&client, 2);
    leader.pass(200)?;
    match leader.acknowledged.as_slice() {
        [2] => Ok(()),
        other => Err(format!("the acknowledged heartbeats are {other:?}")),
    }
}

/// That a session is over is told once the entry that ends it is committed: until then it may live,
/// under another leader (rule R15).
pub(super) fn only_a_committed_entry_ends_a_session() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    leader.holds_proposals = true;
    leader.ask(&mut client, Operation::CloseSession);
    leader.run()?;
    let stream = leader.ask_again(&client);
    leader.pass(100)?;
    let early = leader.frames(stream);
    if !early.is_empty() {
        return Err(format!("before anything is committed: {early:?}"));
    }
    leader.commit()?;
    leader.pass(1_000)?;
    match leader.frames(stream).as_slice() {
        [ServerFrame::AttachRefused(_)] => Ok(()),
        other => Err(format!("once it is committed: {other:?}")),
    }
}

/// A heartbeat is acknowledged after a round that a quorum has answered: a leader that is none any
/// more lets no client trust its lease (rule R16).
pub(super) fn a_heartbeat_waits_for_a_quorum() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let client = leader.open(1)?;
    leader.holds_barriers = true;
    leader.heartbeat(&client, 1);
    leader.pass(500)?;
    if !leader.acknowledged.is_empty() {
        return Err("it is acknowledged while no quorum answers".to_owned());
    }
    leader.answer_barriers()?;
    leader.pass(100)?;
    match leader.acknowledged.as_slice() {
        [1] => Ok(()),
        other => Err(format!("the acknowledged heartbeats are {other:?}")),
    }
}

/// While no quorum answers, what came to the leader before a session's deadline may not have been
/// taken: the session does not expire (rule R16).
pub(super) fn a_session_expires_behind_a_round() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let client = leader.open(1)?;
    leader.holds_barriers = true;
    leader.pass(15_000)?;
    if leader.execution.state().session(client.session).is_none() {
        return Err("it expires while no quorum answers".to_owned());
    }
    leader.answer_barriers()?;
    leader.pass(1_000)?;
    match leader.execution.state().session(client.session) {
        None => Ok(()),
        Some(_) => Err("it does not expire once a quorum has answered".to_owned()),
    }
}

/// What a session owns is capped so that its end fits one entry, however much it tries to own: one
/// whose end did not fit would live for ever (rule R32).
pub(super) fn a_sessions_end_fits_one_entry() -> Result<(), String> {
    let mut leader = Leader::with_limits(Limits {
        txn_bytes_max: 32 * 1024,
        value_bytes_max: 4 * 1024,
        ..Limits::default()
    })?;
    let mut client = leader.open(1)?;
    let name = "n".repeat(200);
    let mut refused = false;
    for number in 0..400 {
        let node = create(&format!("/{name}{number}"), true);
        refused |= leader.call(&mut client, node)?.is_err();
    }
    let reply = leader.call(&mut client, Operation::CloseSession)?;
    if leader.execution.state().session(client.session).is_some() {
        return Err(format!("its end is answered {reply:?}, and it is there"));
    }
    match refused {
        true => Ok(()),
        false => Err("it owns as much as it likes, and its end fits all the same".to_owned()),
    }
}
