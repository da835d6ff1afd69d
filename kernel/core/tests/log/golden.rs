//! The bytes of a segment, as they must stay (a change needs a new version).

use std::fmt::Write as _;

use folkmoot_core::log::{LogFile, LogReader as _, LogRecord, SegmentNumber};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Zxid};

use crate::world::{World, meta};

const GOLDEN: &str = include_str!("golden/segment-v1.txt");

/// One record of each kind, in two drains; then the header of the segment behind.
fn story() -> World {
    let mut world = World::create();
    let entry = |index, kind, payload: &'static [u8]| {
        LogRecord::Entry(Entry {
            index: LogIndex(index),
            term: Term(2),
            last_zxid: Zxid(index + 10),
            kind,
            payload: payload.into(),
        })
    };
    world.append(vec![
        LogRecord::HardState {
            term: Term(2),
            vote: Some(MemberId(3)),
        },
        entry(1, EntryKind::Bootstrap, b"the members"),
        entry(2, EntryKind::NoOp, b""),
        entry(3, EntryKind::Batch, b"a batch"),
    ]);
    world.settle();
    world.append(vec![
        LogRecord::Truncate { last: LogIndex(2) },
        LogRecord::SnapshotInstalled {
            meta: meta(LogIndex(9), Term(2), Zxid(40)),
        },
        LogRecord::Repaired { up_to: LogIndex(9) },
        LogRecord::Admitted,
        LogRecord::PeerMet {
            member: MemberId(3),
            incarnation: Incarnation(0x55),
        },
    ]);
    world.settle();
    world.append_entries(&[30_000]);
    world.settle();
    world
}

fn dump(world: &World) -> String {
    let mut text = String::new();
    let writes: Vec<_> = world.disk.written.clone();
    for (file, offset, bytes) in writes {
        let LogFile::Segment(number) = file else {
            continue;
        };
        let content = world.disk.read(number, offset as u64, bytes).unwrap();
        writeln!(text, "segment {number}, byte {offset}, {bytes} bytes").unwrap();
        for (line, chunk) in content.chunks(16).enumerate() {
            // The long entry's payload and the padding are one byte each.
            if chunk.iter().all(|byte| *byte == chunk[0]) && chunk.len() == 16 {
                continue;
            }
            write!(text, "{:06x} ", offset + line * 16).unwrap();
            chunk
                .iter()
                .for_each(|byte| write!(text, " {byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

#[test]
fn segment_bytes_stay() {
    let world = story();
    assert!(
        world
            .disk
            .segments()
            .unwrap()
            .contains(&(SegmentNumber(2), 40_960))
    );
    let found = dump(&world);
    assert!(found == GOLDEN, "the format changed; it would be\n{found}");
}
