//! Frames on QUIC streams: read in the batches in which they arrive, written with one write for
//! everything that a turn produced.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use folkmoot_proto::frame::{self, FrameError};
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::rancor;
use tokio::sync::Notify;

use super::close::Close;

/// Bytes of frames that a connection has begun and not finished, over all its streams: what may be
/// on its way at once. Many streams that each stop within a large frame would take a member's
/// memory, and QUIC gives them their windows again as their bytes are read.
const UNFINISHED_BYTES_MAX: usize = 64 * 1024 * 1024;
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
    /// The connection begins frames and does not finish them: the sender is at fault.
    #[error("{bytes} bytes of unfinished frames wait")]
    Unfinished {
        /// The bytes that wait.
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
            Self::Malformed(_) | Self::Truncated { .. } | Self::Unfinished { .. } => true,
            Self::Lost(_) => false,
        }
    }
}

impl From<ReadError> for Close {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Lost(_) => Self::Gone,
            ReadError::Unfinished { bytes } => Self::Unfinished {
                bytes,
                bytes_max: UNFINISHED_BYTES_MAX,
            },
            ReadError::Malformed(_) | ReadError::Truncated { .. } => Self::Malformed {
                reason: error.to_string(),
            },
        }
    }
}

/// The bytes of one connection's unfinished frames; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unfinished(Arc<AtomicUsize>);

/// Reads frames of one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
    /// Those of the stream's connection.
    unfinished: Unfinished,
    /// What of them is in the buffer.
    counted: usize,
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.unfinished.0.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl FrameReader {
    /// Reads a stream of the connection that `unfinished` is of.
    pub(crate) fn new(stream: quinn::RecvStream, unfinished: Unfinished) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            unfinished,
            counted: 0,
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
            self.count()?;
            if !frames.is_empty() {
                return Ok(Some((frames, bytes)));
            }
            if !self.fill().await? {
                return Ok(None);
            }
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
            let payload = frame::split(&mut self.buffer)?;
            self.count()?;
            if let Some(payload) = payload {
                return Ok(Some(frame::from_bytes(&payload)?));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes; false at the stream's orderly end.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        match self.stream.read_chunk(READ_BYTES, true).await? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            None if self.buffer.is_empty() => Ok(false),
            None => Err(ReadError::Truncated {
                bytes: self.buffer.len(),
            }),
        }
    }

    /// Counts what is in the buffer among the connection's unfinished frames.
    fn count(&mut self) -> Result<(), ReadError> {
        let held = self.buffer.len();
        if held == 0 {
            // A buffer without bytes still has the memory of the largest frame that it held.
            self.buffer = BytesMut::new();
        }
        let total = &self.unfinished.0;
        total.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = held;
        let bytes = total.fetch_add(held, Ordering::Relaxed) + held;
        match bytes > UNFINISHED_BYTES_MAX {
            true => Err(ReadError::Unfinished { bytes }),
            false => Ok(()),
        }
    }
}

/// The bytes that wait to be written to all streams of one connection, those that a writer has taken
/// included; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicUsize>);

impl Unread {
    /// The bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What waits to be written to one stream. Cheap to clone; its writer is [`Outgoing::write`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
    /// Those of the stream's connection.
    unread: Unread,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Bytes that the writer has taken and QUIC has not.
    writing: usize,
    finish: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let pending = self.pending();
        let bytes = pending.bytes.len() + pending.writing;
        drop(pending);
        self.unread.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    /// Of a stream of the connection that `unread` is of.
    pub(crate) fn new(unread: Unread) -> Self {
        Self(Arc::new(Shared {
            pending: Mutex::default(),
            changed: Notify::new(),
            unread,
        }))
    }

    /// Adds frames that are encoded already; gives the bytes that wait.
    pub(crate) fn push(&self, frames: &[u8]) -> usize {
        self.0.unread.0.fetch_add(frames.len(), Ordering::Relaxed);
        let waiting = {
            let mut pending = self.0.pending();
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
        self.0.pending().finish = true;
        self.0.changed.notify_one();
    }

    /// Forgets what waits, as when its connection was lost.
    pub(crate) fn clear(&self) {
        let bytes = std::mem::take(&mut self.0.pending().bytes).len();
        self.0.unread.0.fetch_sub(bytes, Ordering::Relaxed);
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
                let mut pending = self.0.pending();
                pending.writing = pending.bytes.len();
                (std::mem::take(&mut pending.bytes), pending.finish)
            };
            if !bytes.is_empty() {
                let length = bytes.len();
                let result = stream.write_chunk(Bytes::from(bytes)).await;
                self.0.unread.0.fetch_sub(length, Ordering::Relaxed);
                let left = {
                    let mut pending = self.0.pending();
                    pending.writing = 0;
                    pending.bytes.len()
                };
                result?;
                written(match left {
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
