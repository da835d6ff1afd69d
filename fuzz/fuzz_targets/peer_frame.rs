//! A member must survive any bytes that a peer sends.
#![no_main]

use folkmoot_proto::frame;
use folkmoot_proto::peer::{PeerHello, PeerMessage, SnapshotFrame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = frame::from_bytes::<PeerHello>(data);
    let _ = frame::from_bytes::<PeerMessage>(data);
    let _ = frame::from_bytes::<SnapshotFrame>(data);
});
