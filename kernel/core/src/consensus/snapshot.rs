//! Catching up where the log is gone (Raft §7). The snapshot's bytes pass this machine by.

use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, MemberId, Term, Tick};

use super::backlog::Backlog;
use super::configuration::Configuration;
use super::log_view::LogView;
use super::progress::Flow;
use super::{Action, Consensus, Standing};
use crate::log::LogRecord;

impl Consensus {
    /// A snapshot's folder is complete and synced (rule R25); a leader of term `offered_in` sent
    /// it. When its log record is durable, `SnapshotInstalled` follows. Answers false, and does
    /// nothing, if the log is as far already.
    ///
    /// The term matters as that of any message: what is committed in it may not be in the log of an
    /// earlier term's leader, from which this member must take nothing any more.
    pub fn snapshot_installed(&mut self, now: Tick, offered_in: Term, meta: StateMeta) -> bool {
        self.begin(now);
        let has_it = self.log.term_at(meta.index) == Some(meta.term);
        if meta.index <= self.commit || has_it {
            return false;
        }
        if self.configuration.is_empty() {
            let Ok(bootstrap) = Bootstrap::from_bytes(&meta.bootstrap) else {
                return false;
            };
            self.configuration = Configuration::from_bootstrap(&bootstrap);
        }
        let term = offered_in.max(meta.term);
        if term > self.term {
            self.become_follower(term, None);
        }
        assert!(
            !self.leads(),
            "the leader of term {} lacks entry {}, which is committed",
            self.term,
            meta.index,
        );
        self.out.replaced(self.commit);
        self.log = LogView::after(meta.index, meta.term, meta.zxid);
        self.commit = meta.index;
        self.handing = None;
        self.following.verified = self.following.verified.max(meta.index);
        self.persist(vec![LogRecord::SnapshotInstalled { meta }]);
        true
    }

    /// The snapshot's record is durable: execution goes on from its folder.
    pub(super) fn finish_install(&mut self, meta: StateMeta) {
        self.handed = meta.index;
        self.unapplied = Backlog::default();
        self.out.push(Action::SnapshotInstalled { meta });
    }

    /// The peer got the whole snapshot: appends go on from there as soon as it answers.
    pub fn snapshot_sent(&mut self, now: Tick, peer: MemberId) {
        self.begin(now);
        self.end_snapshot(peer, Some(now));
    }

    /// A snapshot's stream to the peer ended early: `SnapshotNeeded` follows again when the peer
    /// answers a heartbeat.
    pub fn snapshot_failed(&mut self, now: Tick, peer: MemberId) {
        self.begin(now);
        self.end_snapshot(peer, Some(now));
    }

    fn end_snapshot(&mut self, peer: MemberId, sent_at: Option<Tick>) {
        if let Standing::Leader(leader) = &mut self.standing
            && let Some(progress) = leader.peers.get_mut(&peer)
            && progress.flow == Flow::Snapshot
        {
            progress.probe_from(progress.next_index);
            progress.flow = Flow::Probe { sent_at };
        }
    }

    /// Goes back to appends once the peer says that it is far enough for them.
    pub(super) fn leave_snapshot(&mut self, peer: MemberId, verified: LogIndex) {
        if let Standing::Leader(leader) = &mut self.standing
            && let Some(progress) = leader.peers.get_mut(&peer)
            && progress.flow == Flow::Snapshot
            && verified >= self.log.base_index()
        {
            progress.probe_from(verified.next());
            self.send_appends(peer);
        }
    }

    /// The log no longer has the entries up to `up_to`, which a durable checkpoint covers (rule
    /// R24).
    pub fn log_compacted(&mut self, now: Tick, up_to: LogIndex) {
        self.begin(now);
        self.log.compact(up_to.min(self.handed));
    }
}
