//! Reads: served from what is applied here, never older than what the session has seen (it was
//! attached after that was applied) or was answered, and, if asked, after a quorum round begun
//! after the read arrived (rule R20).

use folkmoot_proto::client::{Query, Read, ReadOutcome, ReadRefusal, ServerFrame};
use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::{LogIndex, NodePath, ReadId, SessionId};

use crate::execution::{Execution, ExecutionAction, StreamId};
use crate::state::View;

/// Reads that may wait on one member.
const WAITING_MAX: usize = 16 * 1024;
/// Reads of one session that may wait, so that sessions leave room for each other: as many as the
/// client has requests under way.
const WAITING_OF_SESSION_MAX: usize = 1024;
/// How often a read asks for a barrier before it is refused: one for each change of leader.
const BARRIERS_MAX: u32 = 8;
/// Reads that wait.
#[derive(Debug, Default)]
pub(in crate::execution) struct Reads {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    stream: StreamId,
    session: SessionId,
    read: Read,
    barrier: Barrier,
    asked: u32,
}

/// How far a read's barrier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    /// It needs none.
    Needless,
    /// It waits to be asked for.
    Wanted,
    /// It was asked for after the read arrived.
    Asked(ReadContext),
    /// It holds there.
    At(LogIndex),
}

impl Reads {
    /// Forgets those of a stream that ended.
    pub(in crate::execution) fn forget(&mut self, stream: StreamId) {
        self.waiting.retain(|waiting| waiting.stream != stream);
    }

    /// Whether one more read of this session may wait.
    fn has_room(&self, session: SessionId) -> bool {
        let of_session = |waiting: &&Waiting| waiting.session == session;
        self.waiting.len() < WAITING_MAX
            && self.waiting.iter().filter(of_session).count() < WAITING_OF_SESSION_MAX
    }
}

impl Execution {
    /// A client reads.
    pub(in crate::execution) fn read(&mut self, stream: StreamId, session: SessionId, read: Read) {
        let barrier = if read.linearizable {
            Barrier::Wanted
        } else {
            Barrier::Needless
        };
        if barrier == Barrier::Wanted && self.known_leader.is_none() {
            return self.send_read(stream, read.id, Err(ReadRefusal::NoLeader));
        }
        let waiting = Waiting {
            stream,
            session,
            read,
            barrier,
            asked: 0,
        };
        if self.is_due(&waiting) {
            return self.serve_read(waiting);
        }
        if !self.reads.has_room(session) {
            return self.send_read(stream, waiting.read.id, Err(ReadRefusal::TooManyReads));
        }
        self.reads.waiting.push(waiting);
        self.ask_barrier();
    }

    /// Asks for one barrier for all reads that want one, unless one is under way: reads that came
    /// after that was asked for need the next.
    fn ask_barrier(&mut self) {
        let is_asked = |waiting: &Waiting| matches!(waiting.barrier, Barrier::Asked(_));
        let is_wanted = |waiting: &Waiting| waiting.barrier == Barrier::Wanted;
        let waiting = &self.reads.waiting;
        if waiting.iter().any(is_asked) || !waiting.iter().any(is_wanted) {
            return;
        }
        let context = self.next_context();
        for waiting in self.reads.waiting.iter_mut().filter(|of| is_wanted(of)) {
            waiting.barrier = Barrier::Asked(context);
            waiting.asked += 1;
        }
        self.act(ExecutionAction::ReadBarrier { context });
    }

    /// A barrier holds at `index`. False if no read waits for it.
    pub(in crate::execution) fn read_barrier_at(
        &mut self,
        context: ReadContext,
        index: LogIndex,
    ) -> bool {
        let mut found = false;
        for waiting in &mut self.reads.waiting {
            if waiting.barrier == Barrier::Asked(context) {
                waiting.barrier = Barrier::At(index);
                found = true;
            }
        }
        self.ask_barrier();
        self.serve_reads();
        found
    }

    /// A barrier was lost with its leader: its reads ask again, under a new name.
    pub(in crate::execution) fn read_barrier_lost(&mut self, context: ReadContext) {
        let no_leader = self.known_leader.is_none();
        let mut refused = Vec::new();
        self.reads.waiting.retain_mut(|waiting| {
            if waiting.barrier != Barrier::Asked(context) {
                return true;
            }
            waiting.barrier = Barrier::Wanted;
            let gives_up = no_leader || waiting.asked >= BARRIERS_MAX;
            if gives_up {
                refused.push((waiting.stream, waiting.read.id));
            }
            !gives_up
        });
        for (stream, id) in refused {
            self.send_read(stream, id, Err(ReadRefusal::NoLeader));
        }
        self.ask_barrier();
    }

    /// Serves what can be served by what is applied here.
    pub(in crate::execution) fn serve_reads(&mut self) {
        if !self
            .reads
            .waiting
            .iter()
            .any(|waiting| self.is_due(waiting))
        {
            return;
        }
        let waiting = core::mem::take(&mut self.reads.waiting);
        let (due, rest): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| self.is_due(waiting));
        self.reads.waiting = rest;
        for waiting in due {
            self.serve_read(waiting);
        }
    }

    fn serve_read(&mut self, Waiting { stream, read, .. }: Waiting) {
        let result = self.query(stream, read.id, read.query);
        self.send_read(stream, read.id, result);
    }

    fn is_due(&self, waiting: &Waiting) -> bool {
        let session = self.state().session(waiting.session);
        let after = waiting.read.after;
        let is_executed = session.is_none_or(|session| session.last_id >= after);
        // What is executed may not be asked for again yet on this stream, after a move.
        let attachment = self.streams.attachment(waiting.session);
        let answered = attachment.and_then(|attachment| attachment.answered);
        let is_answered = is_executed && answered.is_none_or(|answered| answered >= after);
        let is_recent = match waiting.barrier {
            Barrier::Needless => true,
            Barrier::At(index) => index <= self.state().position().index,
            Barrier::Wanted | Barrier::Asked(_) => false,
        };
        is_answered && is_recent && !self.watches.holds_back(waiting.stream)
    }

    fn query(
        &mut self,
        stream: StreamId,
        id: ReadId,
        query: Query,
    ) -> Result<ReadOutcome, ReadRefusal> {
        let state = self.state();
        match query {
            Query::Get { path } => {
                let path = parse(path)?;
                let node = state.node(path.as_str()).ok_or_else(|| no_node(&path))?;
                Ok(ReadOutcome::Node {
                    data: node.data.to_vec(),
                    stat: node.stat,
                })
            }
            Query::Exists { path } => {
                let node = state.node(parse(path)?.as_str());
                Ok(ReadOutcome::Exists(node.map(|node| node.stat)))
            }
            Query::Children { path, after, limit } => {
                let path = parse(path)?;
                self.list(stream, id, &path, after, limit)
            }
        }
    }

    /// The next page of a listing is wanted.
    pub(in crate::execution) fn more(&mut self, stream: StreamId, id: ReadId) {
        if let Some((zxid, result)) = self.next_page(stream, id) {
            self.send(stream, ServerFrame::ReadReply { id, zxid, result });
        }
    }

    fn send_read(
        &mut self,
        stream: StreamId,
        id: ReadId,
        result: Result<ReadOutcome, ReadRefusal>,
    ) {
        let zxid = self.state().zxid();
        self.send(stream, ServerFrame::ReadReply { id, zxid, result });
    }
}

fn parse(path: String) -> Result<NodePath, ReadRefusal> {
    NodePath::parse(&path).map_err(|error| ReadRefusal::BadPath { path, error })
}

fn no_node(path: &NodePath) -> ReadRefusal {
    ReadRefusal::NoNode {
        path: path.to_string(),
    }
}
