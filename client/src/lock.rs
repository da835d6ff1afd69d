//! Locks, by the standard plugin `lock`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Guard, Operation};
use folkmoot_proto::reply::{Outcome, Refusal};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::asked::{Asked, FollowUp, Unheard};
use crate::call::Call;
use crate::core::Standing;
use crate::driver::Command;
use crate::error::{CallError, Unanswered};
use crate::session::Session;
use crate::standing::StandingChanges;

/// A release that was refused for the moment, or whose plugin faulted, is made again after this.
const RELEASE_PAUSE: Duration = Duration::from_millis(250);

/// A lock's name below a mount of the `lock` plugin. Waiters get it in the order in which they
/// came; an acquire is one request, however many wait.
///
/// To the cluster a lock belongs to a *session*. Tasks that share a session take turns as well:
/// through these handles a second acquire waits until the first one's guard is released, also if
/// it is made by the task that holds it; and one that was given up holds the others back until the
/// cluster has told what became of it.
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
    turns: Arc<Mutex<()>>,
}

/// The turn of one acquire among those of its session, from before it is asked until its release
/// is answered. Without it an acquire that comes before another's release would be granted the
/// token that the release then ends.
type Turn = Arc<OwnedMutexGuard<()>>;

/// The turns of a session's locks.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    by_lock: HashMap<(String, String), Weak<Mutex<()>>>,
    prune_at: usize,
}

impl Turns {
    fn of(&mut self, mount: &str, name: &str) -> Arc<Mutex<()>> {
        let lock = (mount.to_owned(), name.to_owned());
        if let Some(turns) = self.by_lock.get(&lock).and_then(Weak::upgrade) {
            return turns;
        }
        if self.by_lock.len() >= self.prune_at {
            self.by_lock.retain(|_, turns| turns.strong_count() > 0);
            self.prune_at = (self.by_lock.len() * 2).max(64);
        }
        let turns = Arc::default();
        self.by_lock.insert(lock, Arc::downgrade(&turns));
        turns
    }
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
            turns: session.turns().of(mount, name),
        }
    }

    /// Waits for the lock as long as it takes.
    ///
    /// Cancel safe: if the future is dropped, the wait is cancelled, and a grant that came before
    /// that is given back; the place in the queue is lost.
    ///
    /// # Errors
    ///
    /// No `lock` plugin is mounted there, the name is none, or the session ended. With a
    /// `request_timeout`, also if the cluster has neither granted the lock nor said that the
    /// request waits within that time: then it is given up as if the future were dropped.
    pub async fn acquire(&self) -> Result<LockGuard, LockError> {
        let turn = Arc::new(Arc::clone(&self.turns).lock_owned().await);
        let mut call = self.ask(None, &turn)?;
        let reply = call.reply().await?;
        Ok(self.guard(&reply, turn)?)
    }

    /// Waits for the lock for at most `patience`; none if that passed. In milliseconds, rounded
    /// down.
    ///
    /// The cluster counts, so that a grant is never lost by a hair. Where it can not say that the
    /// time is over, since it has no quorum, the call gives up after `patience` and the
    /// configuration's `request_timeout` (the session's timeout if there is none). Cancel safe as
    /// [`Lock::acquire`].
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`], and [`Unanswered::TimedOut`] if the call gave up.
    pub async fn acquire_within(&self, patience: Duration) -> Result<Option<LockGuard>, LockError> {
        let begun = Instant::now();
        let turns = Arc::clone(&self.turns).lock_owned();
        match tokio::time::timeout(patience, turns).await {
            Ok(turn) => {
                let patience = patience.saturating_sub(begun.elapsed());
                self.acquire_in_turn(Arc::new(turn), patience).await
            }
            Err(_) => Ok(None),
        }
    }

    /// Takes the lock if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_within`] with no patience.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, LockError> {
        match Arc::clone(&self.turns).try_lock_owned() {
            Ok(turn) => self.acquire_in_turn(Arc::new(turn), Duration::ZERO).await,
            Err(_) => Ok(None),
        }
    }

    async fn acquire_in_turn(
        &self,
        turn: Turn,
        patience: Duration,
    ) -> Result<Option<LockGuard>, LockError> {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.ask(Some(millis), &turn)?;
        let grace = self.session.request_timeout();
        let after = patience.saturating_add(grace.unwrap_or(self.session.timeout()));
        let reply = tokio::time::timeout(after, call.reply()).await;
        match reply.unwrap_or(Err(Unanswered::TimedOut { after }.into())) {
            Ok(reply) => Ok(Some(self.guard(&reply, turn)?)),
            Err(CallError::Refused(Refusal::DeadlinePassed)) => Ok(None),
            Err(CallError::Rejected { code, .. }) if code == "held" => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for the lock. What is granted to a call that was dropped is given back.
    fn ask(&self, wait_ms: Option<u64>, turn: &Turn) -> Result<Call, CallError> {
        let payload = json(&Acquire {
            name: &self.name,
            wait_ms,
        });
        let operation = invoke(&self.mount, "acquire", payload);
        // No handle of the session: the task would keep itself alive.
        let (mount, name, turn) = (self.mount.clone(), self.name.clone(), Arc::clone(turn));
        let give_back: Unheard = Box::new(move |result| {
            let Ok((_, Outcome::Invoked(reply))) = result else {
                return None;
            };
            let grant: Grant = parse(&reply).ok()?;
            let operation = release_of(&mount, &name, grant.token);
            Some(FollowUp {
                after: Duration::ZERO,
                unheard: release_again(operation.clone(), turn),
                operation,
            })
        });
        self.session.submit_call(operation, Some(give_back))
    }

    fn guard(&self, reply: &[u8], turn: Turn) -> Result<LockGuard, CallError> {
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
            turn,
            released: false,
        })
    }

    fn release(&self, token: Zxid) -> Operation {
        release_of(&self.mount, &self.name, token)
    }
}

fn release_of(mount: &str, name: &str, token: Zxid) -> Operation {
    invoke(mount, "release", json(&Release { name, token }))
}

fn invoke(mount: &str, operation: &str, payload: Vec<u8>) -> Operation {
    Operation::Invoke {
        mount: mount.to_owned(),
        operation: operation.to_owned(),
        payload,
    }
}

/// Whether a release had no effect now and may have it later: the lock is still held.
fn may_be_released_later(error: &CallError) -> bool {
    error.is_retryable() || matches!(error, CallError::Fault { .. })
}

/// Releases again if nobody hears that it could not be done now. The turn ends with the release:
/// one that comes late must not end the grant of the next acquire, which has the same token.
fn release_again(operation: Operation, turn: Turn) -> Unheard {
    Box::new(move |result| {
        let error = result.map_err(CallError::from).err();
        if !error.as_ref().is_some_and(may_be_released_later) {
            drop(turn);
            return None;
        }
        Some(FollowUp {
            after: RELEASE_PAUSE,
            unheard: release_again(operation.clone(), turn),
            operation,
        })
    })
}

/// A lock that is held. Dropped without [`LockGuard::release`], it is released in the background.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::{Lock, Multi};
///
/// let guard = Lock::new(&session, "/locks", "deploy").acquire().await?;
/// println!("token {}: larger than that of every earlier holder", guard.token());
/// // Refused if the lock has become another's, however long this program was paused.
/// let both = Multi::new().guard(guard.guard()).set("/a", "1", None).set("/b", "1", None);
/// tokio::select! {
///     done = session.multi(both) => println!("done at {}", done?.zxid),
///     () = guard.jeopardy() => println!("the lock may be another's soon"),
/// }
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LockGuard {
    lock: Lock,
    turn: Turn,
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

    /// Gives the lock to the next in its queue. If the plugin can not take it now, being throttled,
    /// loading or at fault, it is asked again.
    ///
    /// If the future is dropped, or returns an error of which the lock may still be held, the
    /// release goes on in the background.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`] if it was lost before, or there is no answer, or still a refusal
    /// after the configuration's `request_timeout`.
    pub async fn release(mut self) -> Result<(), LockError> {
        let begun = Instant::now();
        let operation = self.lock.release(self.guard.token);
        loop {
            let unheard = release_again(operation.clone(), Arc::clone(&self.turn));
            let session = &self.lock.session;
            let mut call = session.submit_call(operation.clone(), Some(unheard))?;
            self.released = true;
            let error = match call.reply().await {
                Ok(_) => return Ok(()),
                Err(CallError::Rejected { code, .. }) if code == "not-holder" => {
                    return Err(LockError::NotHeld {
                        mount: self.lock.mount.clone(),
                        name: self.lock.name.clone(),
                        token: self.guard.token,
                    });
                }
                Err(error) => error,
            };
            let again = may_be_released_later(&error);
            // From here on the guard's drop releases it.
            self.released = !again;
            let bound = self.lock.session.request_timeout();
            if !again || bound.is_some_and(|bound| begun.elapsed() >= bound) {
                return Err(error.into());
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let operation = self.lock.release(self.guard.token);
        let unheard = release_again(operation.clone(), Arc::clone(&self.turn));
        let command = Command::Request {
            operation,
            guards: Vec::new(),
            asked: Asked::unheard(unheard),
        };
        // A session that is over holds nothing.
        let _ = self.lock.session.command(command);
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

#[cfg(test)]
mod tests {
    use folkmoot_proto::Digest;
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::Counter;
    use crate::driver::RequestResult;
    use crate::error::{InstallError, WriteError};
    use crate::session::tests::unattended;

    const BOUND: Duration = Duration::from_millis(50);

    async fn next(asked: &mut UnboundedReceiver<Command>) -> Command {
        let command = tokio::time::timeout(Duration::from_secs(5), asked.recv()).await;
        command
            .expect("something is asked")
            .expect("a handle is left")
    }

    /// The next request: what the plugin is asked, and where the answer goes.
    async fn request(asked: &mut UnboundedReceiver<Command>) -> (String, Asked) {
        match next(asked).await {
            Command::Request {
                operation, asked, ..
            } => (text(&operation), asked),
            _ => panic!("not a request"),
        }
    }

    fn text(operation: &Operation) -> String {
        match operation {
            Operation::Invoke {
                operation, payload, ..
            } => format!("{operation} {}", String::from_utf8_lossy(payload)),
            other => format!("{other:?}"),
        }
    }

    fn granted(token: u64) -> RequestResult {
        let grant = format!("{{\"token\":{token},\"guard\":\"holders/l\"}}");
        Ok((Zxid(token), Outcome::Invoked(grant.into_bytes())))
    }

    fn released() -> RequestResult {
        Ok((Zxid(100), Outcome::Invoked(b"{}".to_vec())))
    }

    fn throttled() -> RequestResult {
        let mount = "/locks".to_owned();
        Err(Refusal::MountThrottled { mount }.into())
    }

    /// Polls a future until what it asks can be seen.
    async fn begin<F: Future>(future: &mut std::pin::Pin<Box<F>>) {
        let polled = tokio::time::timeout(Duration::from_millis(5), future).await;
        assert!(polled.is_err(), "it is over already");
    }

    fn is_timeout(result: Result<(), CallError>) -> bool {
        matches!(
            result,
            Err(CallError::Unanswered(Unanswered::TimedOut { after })) if after == BOUND
        )
    }

    #[tokio::test]
    async fn no_answer_in_its_place_takes_longer_than_the_bound() {
        let (session, _asked) = unattended(Some(BOUND));
        let digest = Digest::of(b"");
        let lock = |name| Lock::new(&session, "/locks", name);
        let of_lock = |error| match error {
            LockError::Call(error) => error,
            error @ LockError::NotHeld { .. } => panic!("{error}"),
        };
        let results = tokio::time::timeout(BOUND * 20, async {
            [
                Counter::new(&session, "/counter").add(1).await.map(drop),
                lock("a").try_acquire().await.map(drop).map_err(of_lock),
                lock("b").acquire().await.map(drop).map_err(of_lock),
                session
                    .mount("/m", digest, "")
                    .await
                    .map(drop)
                    .map_err(CallError::from),
                match session.install(b"", "name").await {
                    Err(InstallError::Write(error)) => Err(error.into()),
                    other => panic!("{other:?}"),
                },
            ]
        });
        for result in results.await.expect("each ends") {
            assert!(is_timeout(result.clone()), "{result:?}");
        }
    }

    #[tokio::test]
    async fn a_wait_is_not_bounded() {
        let (session, mut asked) = unattended(Some(BOUND));
        let lock = Lock::new(&session, "/locks", "l");
        let acquiring =
            tokio::spawn(async move { lock.acquire().await.map(|guard| guard.token()) });
        let (asks, mut acquire) = request(&mut asked).await;
        assert_eq!(asks, "acquire {\"name\":\"l\",\"wait_ms\":null}");
        acquire.wait();
        tokio::time::sleep(BOUND * 2).await;
        assert!(acquire.answer(granted(9)).is_none());
        assert_eq!(acquiring.await.unwrap(), Ok(Zxid(9)));
    }

    #[tokio::test]
    async fn a_patience_is_kept_where_the_cluster_does_not_say_that_it_is_over() {
        let (session, mut asked) = unattended(Some(BOUND));
        let lock = Lock::new(&session, "/locks", "l");
        let acquiring = tokio::spawn(async move { lock.acquire_within(BOUND).await.map(drop) });
        let (_, mut acquire) = request(&mut asked).await;
        acquire.wait();
        let acquired = tokio::time::timeout(BOUND * 20, acquiring).await;
        let error = acquired.expect("it gives up").unwrap().unwrap_err();
        assert!(error.outcome_is_unknown(), "{error}");
        let cancels = next(&mut asked).await;
        assert!(matches!(cancels, Command::Cancel { asked: None, .. }));
        // The grant comes after all, and is given back.
        let back = acquire.answer(granted(9)).expect("a release");
        assert_eq!(
            text(&back.operation),
            "release {\"name\":\"l\",\"token\":9}"
        );
    }

    #[tokio::test]
    async fn a_dropped_acquire_is_cancelled_and_a_grant_that_nobody_heard_given_back() {
        let (session, mut asked) = unattended(None);
        let lock = Lock::new(&session, "/locks", "l");
        let mut acquiring = Box::pin(lock.acquire());
        begin(&mut acquiring).await;
        let (_, acquire) = request(&mut asked).await;
        assert!(acquire.answer(granted(9)).is_none());
        // The answer is there, and the future is not polled again.
        drop(acquiring);
        let Command::Missed(missed) = next(&mut asked).await else {
            panic!("the task is not told");
        };
        let back = missed.follow().expect("a release");
        assert_eq!(
            text(&back.operation),
            "release {\"name\":\"l\",\"token\":9}"
        );
        // It is made again until it is done.
        let again = (back.unheard)(throttled()).expect("another");
        assert_eq!(again.after, RELEASE_PAUSE);
        assert_eq!(text(&again.operation), text(&back.operation));
        assert!((again.unheard)(released()).is_none());
    }

    #[tokio::test]
    async fn tasks_of_one_session_take_turns() {
        let (session, mut asked) = unattended(None);
        let lock = Lock::new(&session, "/locks", "l");
        let first = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        let (_, acquire) = request(&mut asked).await;
        acquire.answer(granted(9));
        let guard = first.await.unwrap().unwrap();
        let other = Lock::new(&session, "/locks", "l");
        assert!(matches!(other.try_acquire().await, Ok(None)));
        assert!(matches!(other.acquire_within(BOUND).await, Ok(None)));
        let mut second = Box::pin(other.acquire());
        begin(&mut second).await;
        drop(guard);
        begin(&mut second).await;
        let (asks, release) = request(&mut asked).await;
        assert_eq!(asks, "release {\"name\":\"l\",\"token\":9}");
        // The second acquire would be granted the same token now.
        assert!(asked.try_recv().is_err(), "it is asked before the release");
        let again = release.answer(throttled()).expect("another release");
        begin(&mut second).await;
        assert!(asked.try_recv().is_err(), "it is asked before the release");
        assert!((again.unheard)(released()).is_none());
        begin(&mut second).await;
        let (asks, acquire) = request(&mut asked).await;
        assert_eq!(asks, "acquire {\"name\":\"l\",\"wait_ms\":null}");
        acquire.answer(granted(11));
        assert_eq!(second.await.unwrap().token(), Zxid(11));
    }

    #[tokio::test]
    async fn a_release_that_is_refused_for_the_moment_is_made_again() {
        let (session, mut asked) = unattended(None);
        let lock = Lock::new(&session, "/locks", "l");
        let mut acquiring = Box::pin(lock.acquire());
        begin(&mut acquiring).await;
        request(&mut asked).await.1.answer(granted(9));
        let guard = acquiring.await.unwrap();
        let releasing = tokio::spawn(guard.release());
        request(&mut asked).await.1.answer(throttled());
        let (asks, release) = request(&mut asked).await;
        assert_eq!(asks, "release {\"name\":\"l\",\"token\":9}");
        release.answer(released());
        assert_eq!(releasing.await.unwrap(), Ok(()));
        assert!(asked.try_recv().is_err(), "it is released once");
    }

    #[tokio::test]
    async fn a_release_that_is_dropped_goes_on() {
        let (session, mut asked) = unattended(None);
        let lock = Lock::new(&session, "/locks", "l");
        let mut acquiring = Box::pin(lock.acquire());
        begin(&mut acquiring).await;
        request(&mut asked).await.1.answer(granted(9));
        let guard = acquiring.await.unwrap();
        let mut releasing = Box::pin(guard.release());
        begin(&mut releasing).await;
        drop(releasing);
        let (_, release) = request(&mut asked).await;
        assert!(release.answer(throttled()).is_some(), "it is made again");
    }

    #[tokio::test]
    async fn a_release_that_is_dropped_between_two_attempts_goes_on() {
        let (session, mut asked) = unattended(None);
        let lock = Lock::new(&session, "/locks", "l");
        let mut acquiring = Box::pin(lock.acquire());
        begin(&mut acquiring).await;
        request(&mut asked).await.1.answer(granted(9));
        let guard = acquiring.await.unwrap();
        let mut releasing = Box::pin(guard.release());
        begin(&mut releasing).await;
        request(&mut asked).await.1.answer(throttled());
        begin(&mut releasing).await;
        assert!(asked.try_recv().is_err(), "there is no pause");
        drop(releasing);
        let (asks, release) = request(&mut asked).await;
        assert_eq!(asks, "release {\"name\":\"l\",\"token\":9}");
        assert!(release.answer(throttled()).is_some(), "it is made again");
        let ended: WriteError = Unanswered::TaskGone.into();
        assert!(!may_be_released_later(&ended.into()));
    }

    #[test]
    fn turns_of_locks_that_nobody_names_are_forgotten() {
        let mut turns = Turns::default();
        let kept = turns.of("/locks", "kept");
        for name in 0..1000 {
            turns.of("/locks", &name.to_string());
        }
        assert!(turns.by_lock.len() <= 65, "{}", turns.by_lock.len());
        assert!(Arc::ptr_eq(&kept, &turns.of("/locks", "kept")));
    }
}
