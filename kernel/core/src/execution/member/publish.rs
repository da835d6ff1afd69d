//! What was applied becomes known to the clients attached here: events, replies, completions, ends
//! of sessions, in one order for each session (rule R28).

use folkmoot_proto::batch::{Completion, Origin};
use folkmoot_proto::client::ServerFrame;
use folkmoot_proto::{ConnEpoch, Now, RequestId, SessionId, Zxid};

use crate::execution::{Execution, ExecutionAction};
use crate::mutation::{self, Mutation};
use crate::plugin::Discard;
use crate::state::{AppliedTxn, Notice, View};

/// An attachment here that an entry holds: it is served at the entry's end, since what is kept for
/// the session is known as of then.
pub(super) type AttachedHere = (SessionId, ConnEpoch);

impl Execution {
    /// Publishes the transactions of one entry.
    pub(in crate::execution) fn publish(&mut self, now: Now, txns: &[AppliedTxn]) {
        let mut attached: Vec<AttachedHere> = Vec::new();
        self.publish_maps(txns);
        for txn in txns {
            let late_events = mutation::is_on(Mutation::ReplyBeforeEvents);
            if !late_events {
                self.publish_events(txn);
            }
            if let Some(origin) = &txn.origin {
                self.publish_reply(now, txn.zxid, origin);
            }
            for completion in &txn.completions {
                self.publish_completion(txn.zxid, completion);
            }
            if late_events {
                self.publish_events(txn);
            }
            for notice in &txn.notices {
                self.notice(notice, &mut attached);
            }
        }
        for (session, epoch) in attached {
            self.attached_here(now, session, epoch);
        }
        self.review_streams();
        self.serve_reads();
    }

    fn publish_reply(&mut self, now: Now, zxid: Zxid, origin: &Origin) {
        let Some(attachment) = self.streams.attachment_mut(origin.session) else {
            return;
        };
        attachment.moved_at = now.tick;
        if attachment.answered.is_none() || attachment.expected <= origin.request {
            // It was sent on another stream, or before a rewind: it is answered when it is sent
            // again on this one.
            return;
        }
        assert_eq!(
            attachment.answered.map(RequestId::next),
            Some(origin.request),
            "session {} is answered in order",
            origin.session
        );
        attachment.answered = Some(origin.request);
        self.send_to_session(
            origin.session,
            ServerFrame::Reply {
                id: origin.request,
                zxid,
                reply: origin.reply.clone(),
            },
        );
    }

    fn publish_completion(&mut self, zxid: Zxid, completion: &Completion) {
        self.send_to_session(
            completion.session,
            ServerFrame::Completion {
                ticket: completion.ticket,
                id: completion.request,
                zxid,
                reply: completion.reply.clone(),
            },
        );
    }

    fn notice(&mut self, notice: &Notice, attached: &mut Vec<AttachedHere>) {
        let me = self.config.member;
        match *notice {
            Notice::SessionOpened { session, member } if member == me => {
                attached.push((session, ConnEpoch(1)));
            }
            Notice::SessionAttached {
                session,
                epoch,
                member,
            } if member == me => attached.push((session, epoch)),
            Notice::SessionOpened { .. } => {}
            Notice::SessionAttached { session, .. } => {
                let before = attached.len();
                attached.retain(|(of, _)| *of != session);
                self.attached_elsewhere(session, attached.len() < before);
            }
            Notice::SessionClosed { session, expired } => {
                if let Some(stream) = self.streams.serving(session) {
                    self.finish_watches(stream);
                    self.send(stream, ServerFrame::SessionEnded { expired });
                    self.end_stream(stream);
                }
                attached.retain(|(of, _)| *of != session);
                self.review_closed(session);
                if let Some(leader) = &mut self.leader {
                    leader.forget_session(session);
                }
            }
            Notice::MountPut { mount } => self.discards.push(Discard::Mount(mount)),
            Notice::EventQueued { .. }
            | Notice::UploadSealed { .. }
            | Notice::Assigned { .. }
            | Notice::PartitionDescribed { .. }
            | Notice::MapChanged { .. } => {}
            Notice::MountRemoved { mount } => {
                self.discards.push(Discard::Mount(mount));
                self.lead_unmounted(mount);
            }
            Notice::ComponentPut { digest } => self.compile(digest),
            Notice::ComponentRemoved { digest } => {
                self.not_ready.remove(&digest);
                self.act(ExecutionAction::ForgetComponent { digest });
            }
        }
    }

    /// Has a component compiled ahead.
    pub(in crate::execution) fn compile(&mut self, digest: folkmoot_proto::Digest) {
        let bytes = self.state().component_bytes(digest).into();
        self.not_ready.insert(digest);
        self.act(ExecutionAction::CompileComponent { digest, bytes });
    }
}
