//! Snapshots as the network thread's loop sees them: one is sent at a time, and one that the log
//! counts is installed.

use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{MemberId, Term};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::checkpoint::CheckpointQueue;
use crate::fatal::Fatal;
use crate::network::{ConsensusInput, NetworkEvent, Own, snapshot};
use crate::state_access::StateAccess;

/// What goes on with snapshots on this member.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) own: Own,
    pub(crate) state: StateAccess,
    pub(crate) checkpoints: CheckpointQueue,
    pub(crate) events: mpsc::Sender<NetworkEvent>,
    pub(crate) fatal: Fatal,
    /// The one that was sent last: one at a time.
    pub(crate) sending: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Begins to send the state to a peer. If another peer is being served, or this one can not be
    /// reached, consensus hears that it failed, and asks again when the peer answers.
    pub(crate) fn send(&mut self, to: MemberId, term: Term, connection: Option<quinn::Connection>) {
        let is_busy = self
            .sending
            .as_ref()
            .is_some_and(|task| !task.is_finished());
        let Some(connection) = connection.filter(|_| !is_busy) else {
            self.tell(ConsensusInput::SnapshotFailed(to));
            return;
        };
        tracing::info!(%to, "a snapshot is sent");
        let (own, state, events) = (self.own.clone(), self.state.clone(), self.events.clone());
        self.sending = Some(self.fatal.spawn(async move {
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
        }));
    }

    /// The log counts a snapshot: the checkpoint thread makes it the state, and builds a machine
    /// on it.
    pub(crate) fn install(&self, meta: StateMeta) {
        self.checkpoints.install(meta);
    }

    /// The log does not take a snapshot that was prepared.
    pub(crate) fn discard(&self, meta: StateMeta) {
        self.checkpoints.discard(meta);
    }

    fn tell(&self, input: ConsensusInput) {
        let events = self.events.clone();
        self.fatal.spawn(async move {
            let _ = events.send(NetworkEvent::Consensus(input)).await;
        });
    }
}
