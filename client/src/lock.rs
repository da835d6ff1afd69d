//! Locks, by the standard plugin `lock`.

use std::time::Duration;

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Guard, Operation};
use folkmoot_proto::reply::Refusal;
use tokio::sync::oneshot;

use crate::call::{Call, Cancelled};
use crate::core::Standing;
use crate::driver::Command;
use crate::error::{CallError, Unanswered};
use crate::session::Session;
use crate::standing::StandingChanges;

/// A lock's name below a mount of the `lock` plugin. Waiters get it in the order in which they
/// came; an acquire is one request, however many wait.
///
/// A lock belongs to a *session*: acquired again by the session that holds it, it is granted at
/// once with the same token, and one release frees it.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use folkmoot_client::Lock;
///
/// let lock = Lock::new(&session, "/locks", "nightly-report");
/// if let Some(guard) = lock.acquire_within(Duration::from_secs(5)).await? {
///     tokio::select! {
///         () = guard.jeopardy() => println!("stop: the cluster may give the lock to another"),
///         written = guard.session().set("/reports/last", "today", None) => { written?; }
///     }
///     guard.release().await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    session: Session,
    mount: String,
    name: String,
}

/// Why a lock was not acquired, or not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The lock is not held by this session with this token: it was lost.
    #[error("{mount}/{name} is not held with token {token}: it was lost")]
    NotHeld {
        /// The mount.
        mount: String,
        /// The lock.
        name: String,
        /// The token that was held.
        token: Zxid,
    },
    /// The call has no reply.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl LockError {
    /// Whether the same call may succeed later without anything else being done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_retryable())
    }

    /// Whether the call may have taken effect.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::Call(error) if error.outcome_is_unknown())
    }
}

#[derive(serde::Serialize)]
struct Acquire<'a> {
    name: &'a str,
    wait_ms: Option<u64>,
}

#[derive(serde::Serialize)]
struct Release<'a> {
    name: &'a str,
    token: Zxid,
}

#[derive(serde::Deserialize)]
struct Grant {
    token: Zxid,
    /// The path of the grant's node below the mount.
    guard: String,
}

impl Lock {
    /// Names a lock; nothing is asked of the cluster yet.
    #[must_use]
    pub fn new(session: &Session, mount: &str, name: &str) -> Self {
        Self {
            session: session.clone(),
            mount: mount.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Waits for the lock as long as it takes. If the future is dropped, the wait is cancelled,
    /// and a grant that came before that is given back.
    ///
    /// # Errors
    ///
    /// No `lock` plugin is mounted there, the name is none, or the session ended.
    pub async fn acquire(&self) -> Result<LockGuard, LockError> {
        let reply = self.ask(None).await?.reply().await?;
        Ok(self.guard(&reply)?)
    }

    /// Waits for the lock for at most `patience`, which the cluster counts; none if that passed.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    pub async fn acquire_within(&self, patience: Duration) -> Result<Option<LockGuard>, LockError> {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.acquire_or_not(millis).await
    }

    /// Takes the lock if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, LockError> {
        self.acquire_or_not(0).await
    }

    async fn acquire_or_not(&self, wait_ms: u64) -> Result<Option<LockGuard>, LockError> {
        match self.ask(Some(wait_ms)).await?.reply().await {
            Ok(reply) => Ok(Some(self.guard(&reply)?)),
            Err(CallError::Refused(Refusal::DeadlinePassed)) => Ok(None),
            Err(CallError::Rejected { code, .. }) if code == "held" => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self, wait_ms: Option<u64>) -> Result<Asking, CallError> {
        let payload = json(&Acquire {
            name: &self.name,
            wait_ms,
        });
        let call = self
            .session
            .begin_call(&self.mount, "acquire", payload)
            .await?;
        Ok(Asking {
            lock: self.clone(),
            call: Some(call),
        })
    }

    fn guard(&self, reply: &[u8]) -> Result<LockGuard, CallError> {
        let grant: Grant = parse(reply)?;
        let path = format!("{}/{}", self.mount.trim_end_matches('/'), grant.guard);
        let guard = Guard {
            path,
            token: grant.token,
        };
        Ok(LockGuard {
            session: self.session.guarded_by(guard.clone()),
            standing: self.session.standing_changes(),
            lock: self.clone(),
            guard,
            released: false,
        })
    }

    fn release_operation(&self, token: Zxid) -> Operation {
        Operation::Invoke {
            mount: self.mount.clone(),
            operation: "release".to_owned(),
            payload: json(&Release {
                name: &self.name,
                token,
            }),
        }
    }

    /// Sends a release and does not wait for its answer.
    fn release_unheard(&self, token: Zxid) {
        let (answer, _) = oneshot::channel();
        let operation = self.release_operation(token);
        let request = Command::Request {
            operation,
            guards: Vec::new(),
            answer,
            key: None,
        };
        // A session that is over holds nothing.
        let _ = self.session.command(request);
    }
}

/// An acquire that is under way: dropped, it gives back what it was granted.
struct Asking {
    lock: Lock,
    call: Option<Call>,
}

impl Asking {
    async fn reply(mut self) -> Result<Vec<u8>, CallError> {
        let Some(call) = &mut self.call else {
            return Err(Unanswered::TaskGone.into());
        };
        let reply = call.reply().await;
        self.call = None;
        reply
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (Some(call), Ok(runtime)) = (self.call.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let lock = self.lock.clone();
        runtime.spawn(async move {
            if let Ok(Cancelled::TooLate(reply)) = call.cancel().await
                && let Ok(grant) = parse::<Grant>(&reply)
            {
                lock.release_unheard(grant.token);
            }
        });
    }
}

/// A lock that is held. Dropped without [`LockGuard::release`], it is released in the background.
#[derive(Debug)]
pub struct LockGuard {
    lock: Lock,
    guard: Guard,
    session: Session,
    standing: StandingChanges,
    released: bool,
}

impl LockGuard {
    /// The fencing token: larger at each grant of this lock. A system outside the cluster that
    /// refuses what carries a smaller one is safe from a holder that was paused.
    #[must_use]
    pub fn token(&self) -> Zxid {
        self.guard.token
    }

    /// What a write or a [`Multi`](crate::Multi) carries to take effect only while this grant is
    /// the current one.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }

    /// The session, with this guard on every write.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the cluster certainly keeps the lock for this session now.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.session.standing() == Standing::Safe
    }

    /// Returns when the session is in jeopardy, or worse: stop what rests on the lock. The last
    /// third of the session's timeout is left for it.
    pub async fn jeopardy(&self) {
        self.standing.clone().wait_for(Standing::Jeopardy).await;
    }

    /// Returns when the lock may be another's: the lease is over, or the session ended.
    pub async fn lost(&self) {
        self.standing.clone().wait_for(Standing::LeaseOver).await;
    }

    /// Gives the lock to the next in its queue.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`] if it was lost before, or the call has no reply.
    pub async fn release(mut self) -> Result<(), LockError> {
        self.released = true;
        let (mount, name) = (self.lock.mount.clone(), self.lock.name.clone());
        let token = self.guard.token;
        let released = self
            .lock
            .session
            .request(self.lock.release_operation(token))
            .await;
        match released.map_err(CallError::from) {
            Ok(_) => Ok(()),
            Err(CallError::Rejected { code, .. }) if code == "not-holder" => {
                Err(LockError::NotHeld { mount, name, token })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.released {
            self.lock.release_unheard(self.guard.token);
        }
    }
}

/// JSON of a value that has one.
pub(crate) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("plain values have JSON: {error}"),
    }
}

/// A plugin's reply.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(reply: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(reply).map_err(|error| CallError::BadReply {
        reason: error.to_string(),
    })
}
