//! Snapshots as the network thread's loop sees them: one is sent at a time, and one that the log
//! counts is installed.

use std::collections::BTreeSet;

use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{MemberId, Term};
use tokio::sync::mpsc;

use crate::checkpoint::CheckpointQueue;
use crate::network::{ConsensusInput, NetworkEvent, Own, snapshot};
use crate::state_access::StateAccess;

/// What goes on with snapshots on this member.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) own: Own,
    pub(crate) state: StateAccess,
    pub(crate) checkpoints: CheckpointQueue,
    pub(crate) events: mpsc::Sender<NetworkEvent>,
    /// Peers that get one now: one at a time.
    pub(crate) sending: BTreeSet<MemberId>,
}

impl Snapshots {
    /// Begins to send the state to a peer. If another peer is being served, or this one can not be
    /// reached, consensus hears that it failed, and asks again when the peer answers.
    pub(crate) fn send(&mut self, to: MemberId, term: Term, connection: Option<quinn::Connection>) {
        let Some(connection) = connection.filter(|_| self.sending.is_empty()) else {
            self.tell(ConsensusInput::SnapshotFailed(to));
            return;
        };
        self.sending.insert(to);
        tracing::info!(%to, "a snapshot is sent");
        let (own, state, events) = (self.own.clone(), self.state.clone(), self.events.clone());
        tokio::spawn(async move {
            let input = match snapshot::send(connection, &own, term, &state).await {
                Ok(meta) => {
                    tracing::info!(%to, index = %meta.index, "a snapshot was sent");
                    ConsensusInput::SnapshotSent(to)
                }
                Err(error) => {
                    tracing::warn!(%to, %error, "a snapshot was not sent");
                    ConsensusInput::SnapshotFailed(to)
                }
            };
            // The loop is gone only when the member stops.
            let _ = events.send(NetworkEvent::Consensus(input)).await;
        });
    }

    /// A peer's snapshot came to an end, well or not.
    pub(crate) fn ended(&mut self, to: MemberId) {
        self.sending.remove(&to);
    }

    /// The log counts a snapshot: the checkpoint thread makes it the state, and builds a machine
    /// on it.
    pub(crate) fn install(&self, meta: StateMeta) {
        self.checkpoints.install(meta);
    }

    fn tell(&self, input: ConsensusInput) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(NetworkEvent::Consensus(input)).await;
        });
    }
}
