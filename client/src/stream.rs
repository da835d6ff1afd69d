//! A stream of frames over QUIC.

use bytes::{Buf, BytesMut};
use folkmoot_proto::frame::{self, FrameError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

/// Bytes read at once: a few packets.
const READ_BYTES: usize = 64 * 1024;

/// Why a stream is of no more use.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StreamLost {
    #[error("the stream ended")]
    Ended,
    #[error("can not read: {0}")]
    Read(#[from] quinn::ReadError),
    #[error("can not write: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the member sent what is no frame: {0}")]
    Frame(#[from] FrameError),
}

/// Frames both ways, buffered; nothing is lost when a future of it is dropped.
pub(crate) struct FrameStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    outgoing: BytesMut,
    incoming: BytesMut,
    scratch: Vec<u8>,
}

impl FrameStream {
    pub(crate) fn new((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Self {
        Self {
            send,
            recv,
            outgoing: BytesMut::new(),
            incoming: BytesMut::new(),
            scratch: Vec::new(),
        }
    }

    /// Puts a frame behind those that wait to be written.
    pub(crate) fn queue<T>(&mut self, value: &T) -> Result<(), FrameError>
    where
        T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    {
        self.scratch.clear();
        frame::encode(value, &mut self.scratch)?;
        self.outgoing.extend_from_slice(&self.scratch);
        Ok(())
    }

    /// Bytes that wait to be written.
    pub(crate) fn queued(&self) -> usize {
        self.outgoing.len()
    }

    /// Writes what waits and reads what comes, until either moved.
    pub(crate) async fn progress(&mut self) -> Result<(), StreamLost> {
        tokio::select! {
            written = self.send.write(&self.outgoing), if !self.outgoing.is_empty() => {
                self.outgoing.advance(written?);
            }
            chunk = self.recv.read_chunk(READ_BYTES, true) => {
                let chunk = chunk?.ok_or(StreamLost::Ended)?;
                self.incoming.extend_from_slice(&chunk.bytes);
            }
        }
        Ok(())
    }

    /// The next frame that arrived whole.
    pub(crate) fn take<T>(&mut self) -> Result<Option<T>, StreamLost>
    where
        T: rkyv::Archive,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Error>>
            + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        match frame::split(&mut self.incoming)? {
            None => Ok(None),
            Some(payload) => Ok(Some(frame::from_bytes(&payload)?)),
        }
    }

    /// Waits for the next frame.
    pub(crate) async fn next<T>(&mut self) -> Result<T, StreamLost>
    where
        T: rkyv::Archive,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Error>>
            + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.progress().await?;
        }
    }
}
