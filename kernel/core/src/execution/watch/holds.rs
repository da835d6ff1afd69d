//! What a stream is not sent yet, since it would overtake the events of a watch that has not caught
//! up (rule R28).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_proto::WatchId;
use folkmoot_proto::client::ServerFrame;
use folkmoot_proto::limits::Limits;

use super::WatcherKey;
use crate::execution::StreamId;
use crate::mutation::{self, Mutation};
use crate::state::reply_bytes;

/// What a held frame takes in memory beside its texts and values, about.
const FRAME_BYTES: usize = 256;

/// The streams that something is held back from. All that a stream is sent is held back together,
/// so that its order is that of a stream which is slow.
#[derive(Debug)]
pub(super) struct Holds {
    streams: BTreeMap<StreamId, Hold>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Hold {
    /// Its client has not said that it asked for all watches that it resumes.
    is_announced: bool,
    /// Watches that have not caught up.
    behind: BTreeSet<WatchId>,
    frames: VecDeque<ServerFrame>,
    bytes: usize,
    /// What the session was owed when it was attached.
    owed: usize,
}

impl Holds {
    /// What a session is owed when it attaches, its unacknowledged replies and completions, can be
    /// held back; more is held back from no client that acknowledges only what it was sent.
    pub(super) fn new(limits: &Limits) -> Self {
        let owed = limits.session_replies_max as usize + limits.session_waits_max as usize;
        Self {
            streams: BTreeMap::new(),
            bytes_max: 2 * limits.session_reply_bytes_max as usize + owed * FRAME_BYTES,
        }
    }

    /// A stream's client resumes watches: none is known yet. Its session is owed so many bytes of
    /// answers: outcomes of waits come whether their bytes are within the session's cap or not.
    pub(super) fn announce(&mut self, stream: StreamId, owed: usize) {
        let hold = self.streams.entry(stream).or_default();
        (hold.is_announced, hold.owed) = (true, owed);
    }

    /// A watch is behind.
    pub(super) fn begin(&mut self, (stream, watch): WatcherKey) {
        self.streams.entry(stream).or_default().behind.insert(watch);
    }

    /// Whether the stream is held back from.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream) && !mutation::is_on(Mutation::AnswersOvertakeWatches)
    }

    /// Gives the frame back if it may be sent. None if it is held back.
    ///
    /// # Errors
    ///
    /// More would be held back than a session can be owed.
    pub(super) fn hold(
        &mut self,
        stream: StreamId,
        frame: ServerFrame,
    ) -> Result<Option<ServerFrame>, HeldTooMuch> {
        let Some(hold) = self.streams.get_mut(&stream) else {
            return Ok(Some(frame));
        };
        if mutation::is_on(Mutation::AnswersOvertakeWatches) {
            return Ok(Some(frame));
        }
        hold.bytes += frame_bytes(&frame);
        if hold.bytes > self.bytes_max.saturating_add(hold.owed) {
            return Err(HeldTooMuch);
        }
        hold.frames.push_back(frame);
        Ok(None)
    }

    /// The client has asked for all watches that it resumes. Answers what may be sent now.
    pub(super) fn announced(&mut self, stream: StreamId) -> VecDeque<ServerFrame> {
        if let Some(hold) = self.streams.get_mut(&stream) {
            hold.is_announced = false;
        }
        self.release(stream)
    }

    /// A watch has caught up, or is over. Answers what may be sent now.
    pub(super) fn end(&mut self, (stream, watch): WatcherKey) -> VecDeque<ServerFrame> {
        if let Some(hold) = self.streams.get_mut(&stream) {
            hold.behind.remove(&watch);
        }
        self.release(stream)
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// The watches of a stream that have not caught up.
    pub(super) fn behind(&self, stream: StreamId) -> Vec<WatchId> {
        let hold = self.streams.get(&stream);
        let behind = hold.map(|hold| hold.behind.iter().copied().collect());
        behind.unwrap_or_default()
    }

    fn release(&mut self, stream: StreamId) -> VecDeque<ServerFrame> {
        let is_over = |hold: &Hold| !hold.is_announced && hold.behind.is_empty();
        if self.streams.get(&stream).is_some_and(is_over)
            && let Some(hold) = self.streams.remove(&stream)
        {
            return hold.frames;
        }
        VecDeque::new()
    }
}

/// A client was held back from for so long that it is owed more than a session can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execution) struct HeldTooMuch;

fn frame_bytes(frame: &ServerFrame) -> usize {
    let variable = match frame {
        ServerFrame::Reply { reply, .. } | ServerFrame::Completion { reply, .. } => {
            usize::try_from(reply_bytes(reply)).unwrap_or(usize::MAX)
        }
        _ => 0,
    };
    FRAME_BYTES.saturating_add(variable)
}
