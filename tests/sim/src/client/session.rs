//! A client's session: what it has asked, in order; what it has seen; its lease; what it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_core::execution::StreamId;
use folkmoot_proto::client::{Guard, Operation, Query, Request};
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::{
    ConnEpoch, ReadId, RequestId, SessionId, SessionSecret, Tick, Ticket, WatchId, Zxid,
};

use super::watcher::Watcher;
use super::worker::Worker;
use crate::clock::DRIFT_PPM;
use crate::time::Moment;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No stream carries it.
    Detached,
    /// It was asked for on a stream.
    Asking(StreamId),
    /// The stream carries it.
    Attached(StreamId),
    /// It is over.
    Over,
}

/// What a request is for, where its answer matters to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Plain,
    /// A register's write, by its place in the history.
    Register(usize, usize),
    Acquire(String),
    Release(Hold),
    Setup,
    Join,
    Report,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) purpose: Purpose,
    /// What anyone was told of when it was asked.
    pub(crate) floor: Zxid,
    pub(crate) sent: u32,
}

/// A read that is not answered.
#[derive(Clone, Debug)]
pub(crate) struct PendingRead {
    pub(crate) query: Query,
    pub(crate) linearizable: bool,
    pub(crate) floor: Zxid,
    pub(crate) after: RequestId,
    pub(crate) register: Option<(usize, usize)>,
}

/// A lock that was granted and not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) lock: String,
    pub(crate) token: Zxid,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) secret: SessionSecret,
    pub(crate) timeout_ms: u32,
    pub(crate) id: Option<SessionId>,
    pub(crate) epoch: ConnEpoch,
    pub(crate) stage: Stage,
    /// The cluster does not expire it before, by this client's clock.
    pub(crate) lease_until: Option<Tick>,
    pub(crate) in_jeopardy: bool,
    /// Its end was asked for.
    pub(crate) closing: bool,
    pub(crate) last_asked: RequestId,
    /// Everything up to here is answered.
    pub(crate) answered: RequestId,
    pub(crate) pending: VecDeque<Pending>,
    /// The next request to be sent on this stream.
    pub(crate) to_send: RequestId,
    /// Nothing is sent before: the member asked for patience.
    pub(crate) patience_until: Moment,
    pub(crate) last_seen: Zxid,
    pub(crate) reads: BTreeMap<ReadId, PendingRead>,
    pub(crate) last_read: ReadId,
    /// Waits that have begun, with the lock that is waited for.
    pub(crate) waits: BTreeMap<Ticket, Option<String>>,
    pub(crate) ended: BTreeSet<Ticket>,
    pub(crate) to_acknowledge: Vec<Ticket>,
    pub(crate) watches: BTreeMap<WatchId, Watcher>,
    pub(crate) holds: Vec<Hold>,
    /// Tokens that were given back: an answer that still names one comes from before that.
    pub(crate) given_back: BTreeSet<Zxid>,
    /// Its part in the group, if it has one.
    pub(crate) worker: Option<Worker>,
}

impl Session {
    pub(crate) fn new(secret: SessionSecret, timeout_ms: u32, worker: Option<Worker>) -> Self {
        Self {
            secret,
            timeout_ms,
            id: None,
            epoch: ConnEpoch::ZERO,
            stage: Stage::Detached,
            lease_until: None,
            in_jeopardy: false,
            closing: false,
            last_asked: RequestId::ZERO,
            answered: RequestId::ZERO,
            pending: VecDeque::new(),
            to_send: RequestId(1),
            patience_until: Moment::START,
            last_seen: Zxid::ZERO,
            reads: BTreeMap::new(),
            last_read: ReadId::ZERO,
            waits: BTreeMap::new(),
            ended: BTreeSet::new(),
            to_acknowledge: Vec::new(),
            watches: BTreeMap::new(),
            holds: Vec::new(),
            given_back: BTreeSet::new(),
            worker,
        }
    }

    pub(crate) fn stream(&self) -> Option<StreamId> {
        match self.stage {
            Stage::Asking(stream) | Stage::Attached(stream) => Some(stream),
            Stage::Detached | Stage::Over => None,
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.stage, Stage::Attached(_))
    }

    /// Whether everything that was asked is answered and every wait is over.
    pub(crate) fn is_settled(&self) -> bool {
        self.stage == Stage::Over || (self.pending.is_empty() && self.waits.is_empty())
    }

    /// The lock that a request which is not answered is for.
    pub(crate) fn asked_for(&self, id: RequestId) -> Option<String> {
        let pending = self.pending.iter().find(|of| of.request.id == id)?;
        match &pending.purpose {
            Purpose::Acquire(lock) => Some(lock.clone()),
            _ => None,
        }
    }

    /// Adds a request to what is to be sent.
    pub(crate) fn ask(
        &mut self,
        operation: Operation,
        guards: Vec<Guard>,
        purpose: Purpose,
        floor: Zxid,
    ) {
        if operation == Operation::CloseSession {
            // Whatever becomes of it, the client trusts nothing of this session any more.
            self.closing = true;
            self.holds.clear();
        }
        self.last_asked = self.last_asked.next();
        self.pending.push_back(Pending {
            request: Request {
                id: self.last_asked,
                acked_up_to: self.answered,
                guards,
                operation,
            },
            purpose,
            floor,
            sent: 0,
        });
    }

    /// The stream is gone; the session lives.
    pub(crate) fn detach(&mut self) {
        if self.stage == Stage::Over {
            return;
        }
        self.stage = Stage::Detached;
        self.reads.clear();
        self.watches.values_mut().for_each(Watcher::detach);
        self.worker.iter_mut().for_each(Worker::detach);
    }

    /// It is over: outcomes of what is pending stay unknown.
    pub(crate) fn end(&mut self) {
        self.stage = Stage::Over;
        self.lease_until = None;
        self.reads.clear();
        self.pending.clear();
        self.waits.clear();
        self.watches.clear();
    }

    /// A heartbeat that was sent at `sent` was acknowledged; the leases of partitions go on by it
    /// once the map was taken in through `position` (rule R35).
    pub(crate) fn extend_lease(&mut self, sent: Tick, position: Option<Zxid>) {
        let micros = u64::from(self.timeout_ms) * (1_000_000 - DRIFT_PPM) / 1_000;
        let until = Tick(sent.0 + micros);
        self.lease_until = self.lease_until.max(Some(until));
        if let Some(worker) = &mut self.worker {
            worker.acknowledged(sent, position, self.timeout_ms);
        }
    }

    /// The partitions that it believes to own, with their tokens.
    pub(crate) fn partitions(&self, tick: Tick) -> impl Iterator<Item = (PartitionId, Zxid)> {
        let trusts = self.stage != Stage::Over && !self.closing;
        let worker = self.worker.as_ref().filter(|_| trusts);
        worker
            .into_iter()
            .flat_map(move |worker| worker.beliefs(tick))
    }

    /// Whether the client believes that the session lives.
    pub(crate) fn has_lease(&self, tick: Tick) -> bool {
        self.stage != Stage::Over
            && !self.closing
            && self.lease_until.is_some_and(|until| until > tick)
    }
}
