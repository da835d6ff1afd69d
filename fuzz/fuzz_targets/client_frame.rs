//! A member must survive any bytes that a client sends.
#![no_main]

use bytes::BytesMut;
use folkmoot_proto::client::{ClientFrame, ControlRequest};
use folkmoot_proto::frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(payload)) = frame::split(&mut buffer) {
        let _ = frame::from_bytes::<ClientFrame>(&payload);
        let _ = frame::from_bytes::<ControlRequest>(&payload);
    }
});
