//! A request between a handle and the session's task: what is told of it, and what follows if
//! nobody is there to be told.

use std::time::Duration;

use folkmoot_proto::client::Operation;
use tokio::sync::oneshot;

use crate::driver::{Key, RequestResult};
use crate::error::Unanswered;

/// Decides what follows from an answer that nobody heard: a lock that was granted to a future that
/// was dropped is given back. The task calls it, so that it needs no runtime and no handle.
pub(crate) type Unheard = Box<dyn FnOnce(RequestResult) -> Option<FollowUp> + Send>;

/// A request that the task makes by itself.
pub(crate) struct FollowUp {
    /// After this long.
    pub(crate) after: Duration,
    pub(crate) operation: Operation,
    /// What follows from its answer, which nobody hears.
    pub(crate) unheard: Unheard,
}

/// An answer on its way to a handle.
pub(crate) struct Answered {
    pub(crate) result: RequestResult,
    pub(crate) unheard: Option<Unheard>,
}

/// What the task keeps of a request.
pub(crate) struct Asked {
    answer: oneshot::Sender<Answered>,
    waits: Option<oneshot::Sender<()>>,
    /// Named where it may be cancelled.
    pub(crate) key: Option<Key>,
    unheard: Option<Unheard>,
}

impl Asked {
    /// A request, and where its answer will be.
    pub(crate) fn new(key: Option<Key>, unheard: Option<Unheard>) -> (Self, Pending) {
        let (answer, answered) = oneshot::channel();
        let (waits, in_place) = oneshot::channel();
        let asked = Self {
            answer,
            waits: Some(waits),
            key,
            unheard,
        };
        let pending = Pending {
            answered: Some(answered),
            in_place: Some(in_place),
        };
        (asked, pending)
    }

    /// A request that nobody hears of.
    pub(crate) fn unheard(unheard: Unheard) -> Self {
        Self::new(None, Some(unheard)).0
    }

    /// It took its place, and waits.
    pub(crate) fn wait(&mut self) {
        if let Some(waits) = self.waits.take() {
            let _ = waits.send(());
        }
    }

    /// Tells the answer; what follows from it if nobody is there.
    pub(crate) fn answer(self, result: RequestResult) -> Option<FollowUp> {
        let unheard = self.unheard;
        let missed = self.answer.send(Answered { result, unheard }).err()?;
        missed.follow()
    }
}

impl Answered {
    /// What follows, since nobody heard it.
    pub(crate) fn follow(self) -> Option<FollowUp> {
        self.unheard?(self.result)
    }
}

/// What a handle keeps of a request.
pub(crate) struct Pending {
    answered: Option<oneshot::Receiver<Answered>>,
    /// Told, or gone, when the request has its answer in its place.
    in_place: Option<oneshot::Receiver<()>>,
}

impl Pending {
    /// Waits for the answer: at most `bound` until it is given in its place, which may be that the
    /// request waits; and from there as long as it takes. It may be called again if its future was
    /// dropped, or if time ran out.
    pub(crate) async fn reply(&mut self, bound: Option<Duration>) -> RequestResult {
        if let Some(in_place) = &mut self.in_place {
            match bound {
                None => drop(in_place.await),
                Some(after) => match tokio::time::timeout(after, in_place).await {
                    Ok(told) => drop(told),
                    Err(_) => return Err(Unanswered::TimedOut { after }.into()),
                },
            }
            self.in_place = None;
        }
        let Some(answered) = &mut self.answered else {
            return Err(Unanswered::TaskGone.into());
        };
        let result = match answered.await {
            Ok(answered) => answered.result,
            Err(_) => Err(Unanswered::TaskGone.into()),
        };
        self.answered = None;
        result
    }

    /// Whether the answer was not heard yet.
    pub(crate) fn is_open(&self) -> bool {
        self.answered.is_some()
    }

    /// From here on nobody hears the answer; it is given back if it is there already.
    pub(crate) fn close(&mut self) -> Option<Answered> {
        let mut answered = self.answered.take()?;
        answered.close();
        answered.try_recv().ok()
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
