//! What is sent is encoded as a frame and decoded again, as between processes: what is too long for
//! a frame, or comes out as something else, is found.

use std::fmt::Debug;

use bytes::BytesMut;
use folkmoot_proto::frame;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

/// Characters of a value that a panic shows.
const SHOWN_CHARS: usize = 400;

/// The value at the other end of a stream.
///
/// # Panics
///
/// When it does not get there as it is: the kernel made something that can not be sent.
pub(crate) fn carried<T>(value: &T) -> T
where
    T: Debug
        + PartialEq
        + rkyv::Archive
        + for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, Error>>
        + rkyv::Deserialize<T, HighDeserializer<Error>>,
{
    let mut bytes = Vec::new();
    let carried = frame::encode(value, &mut bytes)
        .and_then(|()| frame::split(&mut BytesMut::from(&bytes[..])))
        .and_then(|payload| payload.as_deref().map(frame::from_bytes::<T>).transpose());
    match carried {
        Ok(Some(carried)) if carried == *value => carried,
        other => panic!("{} is sent and arrives as {}", shown(value), shown(&other)),
    }
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}").chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::client::{Operation, Request};
    use folkmoot_proto::limits::FRAME_BYTES_MAX;
    use folkmoot_proto::peer::{ExecutionMessage, PeerMessage};
    use folkmoot_proto::{ConnEpoch, RequestId, SessionId};

    use super::*;

    fn requests(name_bytes: usize) -> PeerMessage {
        let request = Request {
            id: RequestId(1),
            acked_up_to: RequestId(0),
            guards: Vec::new(),
            operation: Operation::Unmount {
                path: "x".repeat(name_bytes),
            },
        };
        PeerMessage::Execution(ExecutionMessage::Requests {
            session: SessionId(7),
            epoch: ConnEpoch(1),
            requests: vec![request],
        })
    }

    #[test]
    fn what_fits_a_frame_arrives_as_it_is() {
        let message = requests(100);
        assert_eq!(carried(&message), message);
    }

    #[test]
    #[should_panic(expected = "TooLong")]
    fn what_fits_no_frame_is_found() {
        carried(&requests(FRAME_BYTES_MAX));
    }
}
