//! Reads: they take no id of the session's order, and come after what was submitted before them
//! (rule R2).

use std::collections::{BTreeMap, VecDeque};

use folkmoot_proto::client::{Query, Read, ReadOutcome, ReadRefusal};
use folkmoot_proto::{ReadId, RequestId, Tick, Zxid};

use super::{Backoff, Violation};

/// Reads sent and not answered.
const WINDOW: usize = 1024;

/// The result of a read. A listing is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadAnswer {
    pub(crate) id: ReadId,
    pub(crate) zxid: Zxid,
    pub(crate) result: Result<ReadOutcome, ReadRefusal>,
}

#[derive(Debug)]
struct Pending {
    read: Read,
    /// The pages that arrived.
    names: Vec<String>,
}

/// The reads of a session that have no result.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pending: BTreeMap<ReadId, Pending>,
    unsent: VecDeque<ReadId>,
    /// Listings whose next page is wanted.
    more: VecDeque<ReadId>,
    last: ReadId,
    backoff: Backoff,
}

/// What to send for a read.
pub(crate) enum ReadFrame {
    Read(Read),
    More(ReadId),
}

impl Reads {
    pub(crate) fn submit(&mut self, after: RequestId, linearizable: bool, query: Query) -> ReadId {
        self.last = self.last.next();
        let read = Read {
            id: self.last,
            after,
            linearizable,
            query,
        };
        self.pending.insert(
            self.last,
            Pending {
                read,
                names: Vec::new(),
            },
        );
        self.unsent.push_back(self.last);
        self.last
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A new stream: every read begins again, a listing from its first page, since the view that
    /// it was cut from is gone with the old one.
    pub(crate) fn attached(&mut self) {
        self.more.clear();
        self.backoff = Backoff::default();
        for pending in self.pending.values_mut() {
            pending.names.clear();
        }
        self.unsent = self.pending.keys().copied().collect();
    }

    /// The next frame to send. A read follows the requests that were submitted before it.
    pub(crate) fn poll(&mut self, now: Tick, next_request: RequestId) -> Option<ReadFrame> {
        if let Some(id) = self.more.pop_front() {
            return Some(ReadFrame::More(id));
        }
        let in_flight = self.pending.len() - self.unsent.len();
        if self.backoff.holds(now) || in_flight >= WINDOW {
            return None;
        }
        let id = *self.unsent.front()?;
        let pending = self.pending.get(&id)?;
        if pending.read.after >= next_request {
            return None;
        }
        self.unsent.pop_front();
        Some(ReadFrame::Read(pending.read.clone()))
    }

    pub(crate) fn handle_reply(
        &mut self,
        now: Tick,
        id: ReadId,
        zxid: Zxid,
        result: Result<ReadOutcome, ReadRefusal>,
    ) -> Result<Option<ReadAnswer>, Violation> {
        let Some(pending) = self.pending.get_mut(&id) else {
            return Err(Violation::UnknownRead { id });
        };
        let result = match result {
            Ok(ReadOutcome::Children { names, stat, more }) => {
                pending.names.extend(names);
                if more {
                    self.more.push_back(id);
                    return Ok(None);
                }
                let names = std::mem::take(&mut pending.names);
                Ok(ReadOutcome::Children { names, stat, more })
            }
            // An election: the same read is asked again, as a request would be.
            Err(ReadRefusal::NoLeader) => {
                pending.names.clear();
                self.unsent.push_back(id);
                self.backoff.grow(now);
                return Ok(None);
            }
            result => result,
        };
        self.backoff = Backoff::default();
        self.pending.remove(&id);
        Ok(Some(ReadAnswer { id, zxid, result }))
    }

    pub(crate) fn timeout(&self, now: Tick) -> Option<Tick> {
        self.backoff.ends(now).filter(|_| !self.unsent.is_empty())
    }

    /// The session is over: the reads that are left, and whether each had left the client.
    pub(crate) fn drain(&mut self) -> Vec<(ReadId, bool)> {
        let left = self
            .pending
            .keys()
            .map(|id| (*id, !self.unsent.contains(id)))
            .collect();
        self.pending.clear();
        self.unsent.clear();
        left
    }
}
