//! Heartbeats of clients: they are acknowledged once a quorum has confirmed the leader since it got
//! them (rule R16).

use std::collections::BTreeMap;

use folkmoot_proto::client::ControlReply;
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{ConnEpoch, Now, SessionId, Tick, Zxid};

use super::streams::{Phase, Stream};
use crate::execution::leader::Arrival;
use crate::execution::{ConnectionId, Execution, ExecutionAction};

/// Heartbeats that wait to be acknowledged; the oldest is forgotten beyond that, as if it was lost.
const WAITING_MAX: usize = 16 * 1024;

/// Heartbeats that wait to be acknowledged, by the name that the leader knows them by.
#[derive(Debug, Default)]
pub(in crate::execution) struct Heartbeats {
    waiting: BTreeMap<u64, (ConnectionId, u64)>,
    next: u64,
}

impl Heartbeats {
    fn push(&mut self, connection: ConnectionId, sequence: u64) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, (connection, sequence));
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_first();
        }
        self.next
    }

    /// Forgets those of a connection that ended.
    pub(in crate::execution) fn forget(&mut self, connection: ConnectionId) {
        self.waiting.retain(|_, (of, _)| *of != connection);
    }

    /// Forgets all: what was under way may be lost, and clients send heartbeats anew.
    pub(in crate::execution) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Execution {
    /// A client says that its sessions live. Those that are not served on this connection, in the
    /// attachment that the client names, are left out.
    pub(in crate::execution) fn heartbeat(
        &mut self,
        now: Now,
        (connection, sequence): (ConnectionId, u64),
        (arrived, rtt_micros): (Tick, u32),
        sessions: &[(SessionId, ConnEpoch)],
    ) {
        let Some(leader) = self.known_leader else {
            return;
        };
        let served = sessions.iter().filter_map(|(session, epoch)| {
            let stream = self.streams.stream(self.streams.serving(*session)?)?;
            match stream {
                Stream {
                    connection: of,
                    phase: Phase::Attached(attachment),
                    ..
                } if *of == connection && attachment.told_epoch == *epoch => {
                    Some((*session, attachment.epoch))
                }
                _ => None,
            }
        });
        let sessions: Vec<_> = served.collect();
        let sequence = self.heartbeats.push(connection, sequence);
        if leader == self.config.member {
            let arrival = Arrival {
                member: leader,
                at: arrived,
                rtt_micros,
            };
            self.lead_touch(now.tick, sequence, arrival, sessions);
        } else {
            let touch = ExecutionMessage::Touch {
                sequence,
                arrived,
                rtt_micros,
                sessions,
            };
            self.tell(leader, touch);
        }
    }

    /// The leader has accepted a touch, in a round that began when it had applied `revoked`.
    pub(in crate::execution) fn touched(
        &mut self,
        sequence: u64,
        sessions: Vec<SessionId>,
        revoked: Zxid,
    ) {
        let Some((connection, sequence)) = self.heartbeats.waiting.remove(&sequence) else {
            return;
        };
        let with_position = |session| (session, self.map_position(session, revoked));
        let sessions = sessions.into_iter().map(with_position).collect();
        self.act(ExecutionAction::ToControl {
            connection,
            reply: ControlReply::HeartbeatAck { sequence, sessions },
        });
    }
}
