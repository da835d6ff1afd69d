//! Frames on QUIC streams: read in the batches in which they arrive, written with one write for
//! everything that a turn produced.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use folkmoot_proto::frame::{self, FrameError};
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::rancor;
use tokio::sync::Notify;

/// Bytes taken from a stream at once: what a full receive window of many small frames gives.
const READ_BYTES: usize = 256 * 1024;

/// Why no more frames come from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The bytes are no frame: the sender is at fault.
    #[error(transparent)]
    Malformed(#[from] FrameError),
    /// The stream ended within a frame: the sender is at fault.
    #[error("the stream ended within a frame, {bytes} bytes after its beginning")]
    Truncated {
        /// The bytes of it that came.
        bytes: usize,
    },
    /// The stream or its connection is lost: nobody is at fault.
    #[error("the stream was lost: {0}")]
    Lost(#[from] quinn::ReadError),
}

impl ReadError {
    /// Whether the sender broke the protocol, so that its connection is closed.
    pub(crate) fn is_senders_fault(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::Truncated { .. } => true,
            Self::Lost(_) => false,
        }
    }
}

/// Reads frames of one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next frames, at least one, and the bytes that they took; none at the stream's orderly
    /// end. Not cancel-safe: a call that is dropped may lose bytes.
    pub(crate) async fn read<T>(&mut self) -> Result<Option<(Vec<T>, usize)>, ReadError>
    where
        T: rkyv::Archive,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Error>>
            + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(payload) = frame::split(&mut self.buffer)? {
                bytes += payload.len();
                frames.push(frame::from_bytes(&payload)?);
            }
            if !frames.is_empty() {
                return Ok(Some((frames, bytes)));
            }
            let Some(chunk) = self.stream.read_chunk(READ_BYTES, true).await? else {
                return match self.buffer.len() {
                    0 => Ok(None),
                    bytes => Err(ReadError::Truncated { bytes }),
                };
            };
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    /// The next frame alone; what follows it stays for the next call.
    pub(crate) async fn read_one<T>(&mut self) -> Result<Option<T>, ReadError>
    where
        T: rkyv::Archive,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Error>>
            + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        loop {
            if let Some(payload) = frame::split(&mut self.buffer)? {
                return Ok(Some(frame::from_bytes(&payload)?));
            }
            let Some(chunk) = self.stream.read_chunk(READ_BYTES, true).await? else {
                return match self.buffer.len() {
                    0 => Ok(None),
                    bytes => Err(ReadError::Truncated { bytes }),
                };
            };
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }
}

/// What waits to be written to one stream. Cheap to clone; its writer is [`Outgoing::write`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    finish: bool,
}

impl Outgoing {
    /// Adds frames that are encoded already; gives the bytes that wait.
    pub(crate) fn push(&self, frames: &[u8]) -> usize {
        let waiting = {
            let mut pending = self
                .0
                .pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            pending.bytes.extend_from_slice(frames);
            pending.bytes.len()
        };
        self.0.changed.notify_one();
        waiting
    }

    /// Adds a frame.
    pub(crate) fn push_frame<T>(&self, value: &T) -> Result<usize, FrameError>
    where
        T: for<'a> rkyv::Serialize<
                rkyv::api::high::HighSerializer<
                    rkyv::util::AlignedVec,
                    rkyv::ser::allocator::ArenaHandle<'a>,
                    rancor::Error,
                >,
            >,
    {
        let mut frames = Vec::new();
        frame::encode(value, &mut frames)?;
        Ok(self.push(&frames))
    }

    /// Nothing is added any more: the stream ends after what waits.
    pub(crate) fn finish(&self) {
        self.0
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .finish = true;
        self.0.changed.notify_one();
    }

    fn waiting(&self) -> usize {
        let pending = self
            .0
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pending.bytes.len()
    }

    /// Forgets what waits, as when its connection was lost.
    pub(crate) fn clear(&self) {
        self.0
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .clear();
    }

    /// Writes what is pushed until [`Outgoing::finish`], all that waits in one write, and tells
    /// `written` the bytes of each; [`usize::MAX`] when nothing waits any more, so that counts that
    /// are estimates do not drift.
    pub(crate) async fn write(
        &self,
        stream: &mut quinn::SendStream,
        mut written: impl FnMut(usize),
    ) -> Result<(), quinn::WriteError> {
        loop {
            let (bytes, finish) = {
                let mut pending = self
                    .0
                    .pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                (std::mem::take(&mut pending.bytes), pending.finish)
            };
            if !bytes.is_empty() {
                let length = bytes.len();
                stream.write_chunk(Bytes::from(bytes)).await?;
                written(match self.waiting() {
                    0 => usize::MAX,
                    _ => length,
                });
            } else if finish {
                // The only error is that the stream is finished already.
                let _ = stream.finish();
                return Ok(());
            } else {
                self.0.changed.notified().await;
            }
        }
    }
}
