//! A plugin's operation that is under way.

use folkmoot_proto::reply::Outcome;
use tokio::sync::oneshot;

use crate::driver::{Command, Key, RequestResult};
use crate::error::{CallError, Unanswered, WriteError};
use crate::session::{Session, misfit};

/// A call that took its place and may wait. Dropping it cancels the wait; whether the plugin's
/// grant came before that is then not told, and [`Call::cancel`] tells it.
#[derive(Debug)]
pub struct Call {
    session: Session,
    key: Key,
    answer: Option<oneshot::Receiver<RequestResult>>,
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
    pub(crate) fn new(
        session: Session,
        key: Key,
        answer: oneshot::Receiver<RequestResult>,
    ) -> Self {
        Self {
            session,
            key,
            answer: Some(answer),
        }
    }

    /// Waits for the reply, as long as it takes. It may be called again if its future was dropped.
    ///
    /// # Errors
    ///
    /// The plugin's rejection, its fault, or the kernel's refusal.
    pub async fn reply(&mut self) -> Result<Vec<u8>, CallError> {
        let Some(answer) = &mut self.answer else {
            return Err(Unanswered::TaskGone.into());
        };
        let result = answer.await.unwrap_or(Err(Unanswered::TaskGone.into()));
        self.answer = None;
        reply_of(result)
    }

    /// Ends the wait, and says how it ended.
    ///
    /// # Errors
    ///
    /// What the call itself was answered, if that is no reply; or the session is over.
    pub async fn cancel(mut self) -> Result<Cancelled, CallError> {
        let (answer, cancelled) = oneshot::channel();
        self.session.command(Command::Cancel {
            key: self.key,
            answer: Some(answer),
        })?;
        // Its own answer says no more than the call's, which comes before it or with it.
        let cancel = cancelled.await.unwrap_or(Err(Unanswered::TaskGone.into()));
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
        if let Some(answer) = &mut self.answer
            && answer.try_recv().is_err()
        {
            let _ = self.session.command(Command::Cancel {
                key: self.key,
                answer: None,
            });
        }
    }
}
