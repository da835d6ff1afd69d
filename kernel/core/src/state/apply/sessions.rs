//! Effects on sessions, their replies and their waits.

use folkmoot_proto::batch::{Completion, Origin, Txn};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::{ConnEpoch, MemberId, MountId, RequestId, SecretHash, SessionId, Ticket};

use super::{ApplyError, Stamp};
use crate::state::key::Key;
use crate::state::store::{Store, write};
use crate::state::value::{Session, StoredCompletion, StoredReply, Value, Wait, reply_bytes};

pub(super) fn open<S: Store>(
    store: &mut S,
    stamp: Stamp,
    secret: SecretHash,
    timeout_ms: u32,
    member: MemberId,
) -> Result<(), ApplyError> {
    if let Some(session) = store.session_by_secret(secret) {
        return Err(ApplyError::SecretInUse { session });
    }
    let id = SessionId(stamp.zxid.0);
    if store.session(id).is_some() {
        return Err(ApplyError::SecretInUse { session: id });
    }
    let session = Session {
        id,
        secret,
        opened: stamp.log_time,
        timeout_ms,
        epoch: ConnEpoch(1),
        member,
        last_id: RequestId::ZERO,
        acked_up_to: RequestId::ZERO,
        reply_bytes: 0,
        completions: 0,
        completion_bytes: 0,
        ephemerals: 0,
        ephemeral_bytes: 0,
        waits: 0,
    };
    put(store, session);
    Ok(())
}

pub(super) fn attach<S: Store>(
    store: &mut S,
    session: SessionId,
    epoch: ConnEpoch,
    member: MemberId,
) -> Result<(), ApplyError> {
    let attached = expect(store, session)?;
    let expected = attached.epoch.next();
    if epoch != expected {
        return Err(ApplyError::BadEpoch {
            session,
            expected,
            got: epoch,
        });
    }
    let attached = Session {
        epoch,
        member,
        ..attached.clone()
    };
    put(store, attached);
    Ok(())
}

pub(super) fn close<S: Store>(store: &mut S, id: SessionId) -> Result<(), ApplyError> {
    let session = expect(store, id)?;
    let (acked_up_to, last_id) = (session.acked_up_to, session.last_id);
    if session.ephemerals > 0 || session.waits > 0 {
        return Err(ApplyError::SessionOwns {
            session: id,
            ephemerals: session.ephemerals,
            waits: session.waits,
        });
    }
    for request in acked_up_to.0 + 1..=last_id.0 {
        store.put(Key::Reply(id, RequestId(request)), None);
    }
    let tickets = store.completions(id).into_iter().map(|(ticket, _)| ticket);
    for ticket in tickets.collect::<Vec<_>>() {
        store.put(Key::Completion(id, ticket), None);
    }
    for mount in store.followers(id) {
        write(store, Key::Follow(id, mount), None);
    }
    for digest in store.uploads_of_session(id) {
        if store
            .upload(digest)
            .is_some_and(|upload| upload.sealed.is_none())
        {
            super::components::drop_upload(store, digest)?;
        }
    }
    write(store, Key::Session(id), None);
    Ok(())
}

pub(super) fn drop_completions<S: Store>(
    store: &mut S,
    id: SessionId,
    tickets: &[Ticket],
) -> Result<(), ApplyError> {
    let mut session = expect(store, id)?.clone();
    for &ticket in tickets {
        let Some(completion) = store.completion(id, ticket) else {
            return Err(ApplyError::BadCompletion {
                session: id,
                ticket,
            });
        };
        session.completions -= 1;
        session.completion_bytes -= reply_bytes(&completion.reply);
        store.put(Key::Completion(id, ticket), None);
    }
    put(store, session);
    Ok(())
}

pub(super) fn begin_wait<S: Store>(store: &mut S, wait: Wait) -> Result<(), ApplyError> {
    let session = expect(store, wait.session)?;
    let session = Session {
        waits: session.waits + 1,
        ..session.clone()
    };
    if wait.mount != MountId::ZERO {
        super::mounts::expect(store, wait.mount)?;
    }
    if store.wait(wait.ticket).is_some() {
        return Err(ApplyError::BadWait {
            ticket: wait.ticket,
            problem: "a transaction begins one wait at most",
        });
    }
    put(store, session);
    let key = Key::Wait(wait.ticket);
    write(store, key, Some(Value::Wait(Box::new(wait))));
    Ok(())
}

pub(super) fn end_wait<S: Store>(store: &mut S, ticket: Ticket) -> Result<(), ApplyError> {
    let Some(wait) = store.wait(ticket) else {
        return Err(ApplyError::BadWait {
            ticket,
            problem: "it is over, or never was",
        });
    };
    let session = expect(store, wait.session)?;
    let session = Session {
        waits: session.waits - 1,
        ..session.clone()
    };
    put(store, session);
    write(store, Key::Wait(ticket), None);
    Ok(())
}

/// Keeps a completion for its session, unless the transaction closed it.
pub(super) fn complete<S: Store>(
    store: &mut S,
    stamp: Stamp,
    txn: &Txn,
    completion: &Completion,
) -> Result<(), ApplyError> {
    let ticket = completion.ticket;
    let ended = |effect: &Effect| matches!(effect, Effect::EndWait { ticket: of } if *of == ticket);
    if !txn.effects.iter().any(ended) {
        return Err(ApplyError::BadWait {
            ticket,
            problem: "it was completed and not ended",
        });
    }
    let id = completion.session;
    if closes(txn, id) {
        return Ok(());
    }
    let mut session = expect(store, id)?.clone();
    let key = Key::Completion(id, ticket);
    if store.value(&key).is_some() {
        return Err(ApplyError::BadCompletion {
            session: id,
            ticket,
        });
    }
    session.completions += 1;
    session.completion_bytes += reply_bytes(&completion.reply);
    let stored = StoredCompletion {
        request: completion.request,
        zxid: stamp.zxid,
        reply: completion.reply.clone(),
    };
    store.put(key, Some(Value::Completion(Box::new(stored))));
    put(store, session);
    Ok(())
}

/// Gives a request its place, keeps its reply, and drops the replies that it acknowledges, unless
/// the transaction closed its session.
pub(super) fn answer<S: Store>(
    store: &mut S,
    stamp: Stamp,
    txn: &Txn,
    origin: &Origin,
) -> Result<(), ApplyError> {
    let id = origin.session;
    if closes(txn, id) {
        return Ok(());
    }
    let mut session = expect(store, id)?.clone();
    let expected = session.last_id.next();
    if origin.request != expected {
        return Err(ApplyError::NotNextRequest {
            session: id,
            expected,
            got: origin.request,
        });
    }
    if origin.acked_up_to < session.acked_up_to || origin.acked_up_to > session.last_id {
        return Err(ApplyError::BadAcknowledgement {
            session: id,
            from: session.acked_up_to,
            to: session.last_id,
            got: origin.acked_up_to,
        });
    }
    for request in session.acked_up_to.0 + 1..=origin.acked_up_to.0 {
        let request = RequestId(request);
        if let Some(stored) = store.reply(id, request) {
            session.reply_bytes -= reply_bytes(&stored.reply);
        }
        store.put(Key::Reply(id, request), None);
    }
    session.acked_up_to = origin.acked_up_to;
    session.last_id = origin.request;
    session.reply_bytes += reply_bytes(&origin.reply);
    let stored = StoredReply {
        zxid: stamp.zxid,
        reply: origin.reply.clone(),
    };
    let key = Key::Reply(id, origin.request);
    store.put(key, Some(Value::Reply(Box::new(stored))));
    put(store, session);
    Ok(())
}

pub(super) fn expect<S: Store>(store: &S, session: SessionId) -> Result<&Session, ApplyError> {
    store
        .session(session)
        .ok_or(ApplyError::NoSession { session })
}

fn put<S: Store>(store: &mut S, session: Session) {
    let key = Key::Session(session.id);
    write(store, key, Some(Value::Session(Box::new(session))));
}

fn closes(txn: &Txn, session: SessionId) -> bool {
    let closes = |effect: &Effect| matches!(effect, Effect::CloseSession { session: closed, .. } if *closed == session);
    txn.effects.iter().any(closes)
}
