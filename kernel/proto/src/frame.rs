//! Frames: a length, and rkyv bytes that are validated before anything reads them.
//!
//! `u32` little-endian length of the payload, then the payload. A frame longer than
//! [`FRAME_BYTES_MAX`] or one that does not validate is an error of the sender, and its connection is closed.

use bytes::{Buf, Bytes, BytesMut};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit.
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong {
        /// The length.
        bytes: usize,
    },
    /// The payload does not validate.
    #[error("the frame's payload is not valid: {reason}")]
    Invalid {
        /// What the validator found.
        reason: String,
    },
}

/// Appends `value` as a frame to `out`.
///
/// # Errors
///
/// If the frame would be over the limit; `out` is unchanged then.
pub fn encode<T>(value: &T, out: &mut Vec<u8>) -> Result<(), FrameError>
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let payload = to_bytes(value)?;
    if payload.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong {
            bytes: payload.len(),
        });
    }
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// Takes the next whole frame's payload from the front of `buffer`; none if it is not all there.
///
/// # Errors
///
/// If the frame is over the limit.
pub fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: length });
    }
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// A value as rkyv bytes, without a length.
///
/// # Errors
///
/// If the serializer refuses, which it does only when it runs out of its own limits.
pub fn to_bytes<T>(value: &T) -> Result<AlignedVec, FrameError>
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::to_bytes::<rancor::Error>(value).map_err(|error| FrameError::Invalid {
        reason: error.to_string(),
    })
}

/// A value from rkyv bytes, validated. Stream slices are not aligned, so they are copied to
/// aligned memory first (2–3 ns for a small frame).
///
/// # Errors
///
/// If they do not validate.
pub fn from_bytes<T>(payload: &[u8]) -> Result<T, FrameError>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Error>>
        + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(payload.len());
    aligned.extend_from_slice(payload);
    rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|error| FrameError::Invalid {
        reason: error.to_string(),
    })
}
