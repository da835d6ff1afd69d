//! What is handed to execution, and what is read back from the log for it and for peers.

use folkmoot_proto::entry::Entry;
use folkmoot_proto::{LogIndex, MemberId, Tick};

use super::log_view::before;
use super::progress::Flow;
use super::{Action, Consensus, LogRead, LogReadId, Standing};
use crate::mutation::{self, Mutation};

impl Consensus {
    /// Hands to execution what is committed and durable here, in order and without gaps (rule
    /// R17). The term in which it was learnt that it is committed must be durable, too: else this
    /// member could restart in an earlier term, and take the log of a leader that never had it.
    ///
    /// An execution that falls behind is handed no more than it has room for. The rest stays in the
    /// log and not in memory, and votes and acknowledgements go on without it (rule R7).
    pub(super) fn deliver(&mut self) {
        if !self.out.hard_state_is_durable() || self.handing.is_some() {
            return;
        }
        let durable = if mutation::is_on(Mutation::ApplyUndurable) {
            self.log.last_index()
        } else {
            self.out.durable()
        };
        let up_to = self.commit.min(durable);
        let from = self.handed.next();
        let awaits_snapshot = self.handed < self.log.base_index();
        if from > up_to || awaits_snapshot {
            return;
        }
        let bytes_max = self.config.unapplied_bytes_max;
        let room = bytes_max.saturating_sub(self.unapplied.bytes());
        if room == 0 && !self.unapplied.is_empty() {
            return self.log.evict(up_to, self.config.cache_bytes_max);
        }
        match self.log.cached(from, up_to, room) {
            Some(entries) => self.hand_over(entries),
            None => self.read_to_hand_over(from, up_to, room),
        }
    }

    fn read_to_hand_over(&mut self, from: LogIndex, up_to: LogIndex, room: usize) {
        let id = self.next_log_read;
        self.next_log_read = LogReadId(id.0 + 1);
        self.handing = Some(id);
        self.out.push(Action::ReadLog {
            id,
            from,
            to: up_to.min(before(self.log.cached_first())),
            bytes_max: self.config.append_bytes_max.min(room),
        });
    }

    /// Execution has applied what it was handed up to `index`: there is room for more. What an
    /// execution reports that a snapshot has replaced says nothing.
    pub fn handle_applied(&mut self, now: Tick, index: LogIndex) {
        self.begin(now);
        self.unapplied.done(index);
        self.deliver();
    }

    fn hand_over(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            assert!(
                entry.index == self.handed.next() && entry.index <= self.commit,
                "entry {} would be handed to execution after {}, commit is {}",
                entry.index,
                self.handed,
                self.commit,
            );
            self.handed = entry.index;
            self.unapplied.add(entry);
        }
        self.out.push(Action::Committed { entries });
        if let Standing::Leader(leader) = &mut self.standing {
            leader.settled(self.handed);
        }
        self.log.evict(self.handed, self.config.cache_bytes_max);
    }

    /// The answer to a `ReadLog`.
    pub fn handle_log_read(&mut self, now: Tick, read: LogRead) {
        self.begin(now);
        if self.handing == Some(read.id) {
            self.handing = None;
            assert!(
                !read.entries.is_empty(),
                "the log no longer has entry {}, which is not applied",
                self.handed.next(),
            );
            self.hand_over(read.entries);
            self.deliver();
        } else if let Some(peer) = self.reader(read.id) {
            self.send_read_entries(peer, read.entries);
        }
    }

    /// The peer for which the log is read.
    fn reader(&self, id: LogReadId) -> Option<MemberId> {
        let Standing::Leader(leader) = &self.standing else {
            return None;
        };
        let mut peers = leader.peers.iter();
        peers
            .find(|(_, progress)| progress.reading.is_some_and(|(read, _)| read == id))
            .map(|(peer, _)| *peer)
    }

    fn send_read_entries(&mut self, to: MemberId, entries: Vec<Entry>) {
        let Standing::Leader(leader) = &mut self.standing else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&to) else {
            return;
        };
        let Some((_, from)) = progress.reading.take() else {
            return;
        };
        // What was read for an earlier place is of no use, neither that the log no longer has it.
        let is_wanted = from == progress.next_index && progress.may_send(&self.config);
        if is_wanted && entries.is_empty() {
            progress.flow = Flow::Snapshot;
            self.out.push(Action::SnapshotNeeded { to });
        } else if is_wanted {
            self.send_append(to, entries);
        }
        self.send_appends(to);
    }
}
