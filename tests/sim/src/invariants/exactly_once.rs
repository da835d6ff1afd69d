//! Exactly once and in the session's order (rules R1, R2, R10): the requests of a session take
//! their places without gaps and without repeats, and whoever asks gets the one answer that was
//! logged.

use folkmoot_proto::batch::Txn;
use folkmoot_proto::reply::Reply;
use folkmoot_proto::{RequestId, SessionId, Ticket, Zxid};

use crate::oracle::Oracle;
use crate::violation::{Checked, Violation};

/// `txn` is about to be applied.
pub(crate) fn logged(oracle: &Oracle, zxid: Zxid, txn: &Txn) -> Checked {
    let Some(origin) = &txn.origin else {
        return Ok(());
    };
    let wrong = |what: String| {
        Err(Violation::new(
            "exactly_once",
            format!(
                "zxid {zxid} answers request {} of session {}, but {what}",
                origin.request, origin.session
            ),
        ))
    };
    let Some(session) = oracle.sessions.get(&origin.session) else {
        return wrong("there is no such session".to_owned());
    };
    if let Some((over, _)) = session.over {
        return wrong(format!("the session is over since zxid {over}"));
    }
    if origin.request != session.last_id.next() {
        return wrong(format!("the last one was {}", session.last_id));
    }
    Ok(())
}

/// A client was told that its request was answered so, at `zxid`.
pub(crate) fn replied(
    oracle: &Oracle,
    (session, request): (SessionId, RequestId),
    zxid: Zxid,
    reply: &Reply,
) -> Checked {
    let logged = oracle
        .sessions
        .get(&session)
        .and_then(|life| life.replies.get(&request));
    match logged {
        Some((logged_at, logged)) if (*logged_at, logged) == (zxid, reply) => Ok(()),
        logged => Err(Violation::new(
            "exactly_once",
            format!(
                "request {request} of session {session} was answered {reply:?} at zxid {zxid}, logged is {logged:?}"
            ),
        )),
    }
}

/// A client was told that a wait ended so, at `zxid`.
pub(crate) fn completed(
    oracle: &Oracle,
    (session, request, ticket): (SessionId, RequestId, Ticket),
    zxid: Zxid,
    reply: &Reply,
) -> Checked {
    let wait = oracle.waits.get(&ticket);
    let logged = wait.and_then(|wait| wait.over.as_ref());
    let same = wait.is_some_and(|wait| (wait.session, wait.request) == (session, request))
        && logged.is_some_and(|(over, _, logged)| (*over, logged) == (zxid, reply));
    if same {
        return Ok(());
    }
    Err(Violation::new(
        "exactly_once",
        format!(
            "wait {ticket} of request {request} of session {session} was completed with {reply:?} at zxid {zxid}, logged is {wait:?}"
        ),
    ))
}
