//! A whole state on its way from one member to another, on a stream of its own with low priority.
//! Its bytes bypass both machines: they go from the sender's view to the receiver's folder.

use folkmoot_proto::peer::{SnapshotFrame, StreamPurpose};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{ClusterId, MemberId, Term, frame};
use tokio::sync::mpsc;

use super::NetworkEvent;
use super::peers::Own;
use super::stream::{FrameReader, ReadError, Unfinished};
use super::turn::ConsensusInput;
use crate::checkpoint::{CheckpointQueue, SnapshotRefused};
use crate::state_access::{StateAccess, ViewLost};

/// Below everything else that goes to the peer.
const PRIORITY: i32 = -1;

/// Where received snapshots go.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotSink {
    pub(crate) cluster: ClusterId,
    pub(crate) checkpoints: CheckpointQueue,
    pub(crate) events: mpsc::Sender<NetworkEvent>,
}

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Write(#[from] quinn::WriteError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Frame(#[from] frame::FrameError),
    #[error("{0}")]
    View(#[from] ViewLost),
    #[error("the stream ended early")]
    Ended,
    #[error("the snapshot's frames are out of order")]
    Disordered,
    #[error("{sent} records were sent, {received} were received")]
    Count { sent: u64, received: u64 },
    #[error("the snapshot is of cluster {theirs}, not of {ours}")]
    OtherCluster { theirs: ClusterId, ours: ClusterId },
    #[error("the receiver refused it: {0}")]
    Refused(String),
    #[error("{0}")]
    Store(#[from] SnapshotRefused),
}

/// Streams this member's state to a peer.
pub(crate) async fn send(
    connection: quinn::Connection,
    own: &Own,
    term: Term,
    state: &StateAccess,
) -> Result<StateMeta, SnapshotError> {
    let (mut stream, answer) = connection.open_bi().await?;
    // The only error is that the stream is closed, which the first write tells as well.
    let _ = stream.set_priority(PRIORITY);
    let mut view = state.open_view().await?;
    let meta = view.meta().clone();
    let mut frames = Vec::new();
    frame::encode(&own.hello(StreamPurpose::Snapshot), &mut frames)?;
    let offer = SnapshotFrame::Offer {
        term,
        meta: meta.clone(),
    };
    frame::encode(&offer, &mut frames)?;
    stream.write_all(&frames).await?;
    let mut sent = 0;
    loop {
        let records = view.read().await?;
        frames.clear();
        if records.is_empty() {
            frame::encode(&SnapshotFrame::End { records: sent }, &mut frames)?;
            stream.write_all(&frames).await?;
            let _ = stream.finish();
            break;
        }
        sent += records.len() as u64;
        frame::encode(&SnapshotFrame::Chunk { records }, &mut frames)?;
        stream.write_all(&frames).await?;
    }
    match FrameReader::new(answer, Unfinished::default())
        .read_one()
        .await?
    {
        Some(SnapshotFrame::Answer { result: Ok(()) }) => Ok(meta),
        Some(SnapshotFrame::Answer {
            result: Err(reason),
        }) => Err(SnapshotError::Refused(reason)),
        Some(_) => Err(SnapshotError::Disordered),
        None => Err(SnapshotError::Ended),
    }
}

/// Receives a snapshot and answers for it. A snapshot that fails leaves nothing that counts.
pub(crate) async fn receive(
    from: MemberId,
    mut reader: FrameReader,
    mut answer: quinn::SendStream,
    sink: &SnapshotSink,
) {
    let result = receive_all(&mut reader, sink).await;
    let result = match result {
        Ok((term, meta)) => {
            tracing::info!(%from, index = %meta.index, "a snapshot was received");
            let event = NetworkEvent::Consensus(ConsensusInput::SnapshotPrepared(term, meta));
            // The loop is gone only when the member stops.
            let _ = sink.events.send(event).await;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%from, %error, "a snapshot was not received");
            Err(error.to_string())
        }
    };
    let mut frames = Vec::new();
    if frame::encode(&SnapshotFrame::Answer { result }, &mut frames).is_ok()
        && answer.write_all(&frames).await.is_ok()
    {
        let _ = answer.finish();
        let _ = answer.stopped().await;
    }
}

async fn receive_all(
    reader: &mut FrameReader,
    sink: &SnapshotSink,
) -> Result<(Term, StateMeta), SnapshotError> {
    let Some(SnapshotFrame::Offer { term, meta }) = reader.read_one().await? else {
        return Err(SnapshotError::Disordered);
    };
    if meta.cluster != sink.cluster {
        return Err(SnapshotError::OtherCluster {
            theirs: meta.cluster,
            ours: sink.cluster,
        });
    }
    let incoming = sink.checkpoints.begin_snapshot(meta.clone()).await?;
    let mut received = 0;
    loop {
        match reader.read_one().await? {
            Some(SnapshotFrame::Chunk { records }) => {
                received += records.len() as u64;
                incoming.write(records).await?;
            }
            Some(SnapshotFrame::End { records: sent }) if sent == received => {
                incoming.finish().await?;
                return Ok((term, meta));
            }
            Some(SnapshotFrame::End { records: sent }) => {
                return Err(SnapshotError::Count { sent, received });
            }
            Some(_) => return Err(SnapshotError::Disordered),
            None => return Err(SnapshotError::Ended),
        }
    }
}
