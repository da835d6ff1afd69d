//! A plugin's operation that is under way.

use folkmoot_proto::reply::Outcome;

use crate::asked::{Asked, Pending};
use crate::driver::{Command, Key, RequestResult};
use crate::error::{CallError, WriteError};
use crate::session::{Session, misfit};

/// A call that took its place and may wait. Dropping it cancels the wait; whether the plugin's
/// grant came before that is then not told, and [`Call::cancel`] tells it.
#[derive(Debug)]
pub struct Call {
    session: Session,
    key: Key,
    pending: Pending,
}

/// How a cancelled call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The wait was ended, and the plugin granted nothing.
    InTime,
    /// The plugin had replied before.
    TooLate(Vec<u8>),
}

impl Call {
    pub(crate) fn new(session: Session, key: Key, pending: Pending) -> Self {
        Self {
            session,
            key,
            pending,
        }
    }

    /// Waits for the reply. The configuration's `request_timeout` bounds the time until the cluster
    /// has answered or has said that the call waits; the wait itself takes as long as it takes. It
    /// may be called again if its future was dropped, or if it timed out.
    ///
    /// # Errors
    ///
    /// The plugin's rejection, its fault, or the kernel's refusal; or there is no answer.
    pub async fn reply(&mut self) -> Result<Vec<u8>, CallError> {
        let bound = self.session.request_timeout();
        reply_of(self.pending.reply(bound).await)
    }

    /// Ends the wait, and says how it ended.
    ///
    /// # Errors
    ///
    /// What the call itself was answered, if that is no reply; the session is over; or the cluster
    /// did not answer within the configuration's `request_timeout`.
    pub async fn cancel(mut self) -> Result<Cancelled, CallError> {
        let (asked, mut cancelled) = Asked::new(None, None);
        self.session.command(Command::Cancel {
            key: self.key,
            asked: Some(asked),
        })?;
        // Its own answer says no more than the call's, which comes before it or with it.
        let cancel = cancelled.reply(self.session.request_timeout()).await;
        if let Err(WriteError::Unanswered(unanswered)) = cancel {
            return Err(unanswered.into());
        }
        match self.reply().await {
            Ok(reply) => Ok(Cancelled::TooLate(reply)),
            Err(CallError::Refused(folkmoot_proto::reply::Refusal::WaitCancelled)) => {
                Ok(Cancelled::InTime)
            }
            Err(error) => Err(error),
        }
    }
}

fn reply_of(result: RequestResult) -> Result<Vec<u8>, CallError> {
    match result {
        Ok((_, Outcome::Invoked(reply))) => Ok(reply),
        Ok((_, other)) => Err(misfit(&other).into()),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.pending.is_open() {
            return;
        }
        let command = match self.pending.close() {
            Some(missed) => Command::Missed(missed),
            None => Command::Cancel {
                key: self.key,
                asked: None,
            },
        };
        // A session that is over has nothing to cancel.
        let _ = self.session.command(command);
    }
}
