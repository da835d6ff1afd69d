//! Damage to what was durable, byte by byte (rules R23 and R25).

use folkmoot_core::log::{LogFile, LogRecord, RecoverError, Recovered, SegmentNumber};
use folkmoot_proto::{LogIndex, MemberId, Term, Zxid};

use crate::disk::{Fate, ModelDisk};
use crate::world::{World, found, meta};

/// How bytes are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One byte is another.
    Flip,
    /// From the byte to the drain's end there are zeros.
    Zeros,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Flip, Self::Zeros];

    fn damage(self, bytes: &mut [u8], at: usize, end: usize) {
        match self {
            Self::Flip => bytes[at] ^= 1 << (at % 8),
            Self::Zeros => bytes[at..end].fill(0),
        }
    }
}

/// A log of drains that were each durable before the next was begun, over three segments, with the
/// vote in the middle.
fn settled() -> World {
    let mut world = World::create();
    world.append(vec![LogRecord::HardState {
        term: Term(1),
        vote: Some(MemberId(1)),
    }]);
    for number in 0..10 {
        world.append_entries(&[100 + 700 * number, 40]);
        world.settle();
        if number == 5 {
            world.append(vec![LogRecord::HardState {
                term: Term(4),
                vote: Some(MemberId(3)),
            }]);
            world.settle();
        }
    }
    world
}

/// The segment, offset and end of each drain's run; headers are left out.
fn drains(world: &World) -> Vec<(SegmentNumber, usize, usize)> {
    let writes = world
        .disk
        .written
        .iter()
        .filter_map(|(file, offset, bytes)| match file {
            LogFile::Segment(number) => Some((*number, *offset, offset + bytes)),
            LogFile::Copy => None,
        });
    let mut drains: Vec<_> = writes.collect();
    // The creation writes the first header; a later segment's is in front of its first run.
    assert_eq!(drains.remove(0), (SegmentNumber(1), 0, 4096));
    for (_, offset, _) in &mut drains {
        if *offset == 0 {
            *offset = 4096;
        }
    }
    drains
}

fn recover(world: &World, disk: &ModelDisk) -> Recovered {
    world.recover(disk).unwrap()
}

pub(crate) fn every_byte_of_last_drain(kind: Kind) {
    let mut world = settled();
    let before = world.held().clone();
    world.append_entries(&[300, 2000]);
    world.settle();
    let (segment, start, end) = *drains(&world).last().unwrap();
    let mut cut = 0;
    for at in start..end {
        let disk = world
            .disk
            .damaged(segment, |bytes| kind.damage(bytes, at, end));
        let recovered = recover(&world, &disk);
        assert_eq!(recovered.state.damaged_up_to, None, "byte {at}");
        let held = found(&recovered, &disk);
        if held == before {
            cut += 1;
        } else {
            assert_eq!(&held, world.held(), "byte {at}");
        }
    }
    // All of it but the padding counts; so does where the file ends.
    assert!(cut > 2300, "{cut}");
    let disk = world
        .disk
        .damaged(segment, |bytes| bytes.truncate(end - 3000));
    assert_eq!(found(&recover(&world, &disk), &disk), before);
}

pub(crate) fn every_byte_of_earlier_drains(kind: Kind) {
    let world = settled();
    let drains = drains(&world);
    let (_, earlier) = drains.split_last().unwrap();
    let last = world.held().last();
    let mut told = 0;
    for (segment, start, end) in earlier {
        // Every byte of the header and of the first records, then every seventh.
        for at in (*start..*end).filter(|at| at - start < 600 || at % 7 == 0) {
            let disk = world
                .disk
                .damaged(*segment, |bytes| kind.damage(bytes, at, *end));
            let recovered = recover(&world, &disk);
            let state = &recovered.state;
            let held = found(&recovered, &disk);
            assert_eq!(
                (state.term, state.vote),
                (Term(4), Some(MemberId(3))),
                "byte {at}"
            );
            assert!(world.held().entries.starts_with(&held.entries), "byte {at}");
            if state.damaged_up_to.is_none() {
                assert_eq!(&held, world.held(), "byte {at} of {segment}");
                continue;
            }
            told += 1;
            assert_eq!(state.damaged_up_to, Some(last), "byte {at}");
            assert!(!state.is_new, "byte {at}");
        }
    }
    assert!(told > 1000, "{told}");
}

/// A header's damage is told, or refuses the start; all that is readable behind it is not forgotten.
pub(crate) fn every_byte_of_headers() {
    let world = settled();
    let segments: Vec<_> = drains(&world)
        .iter()
        .map(|(segment, _, _)| *segment)
        .collect();
    let last = *segments.last().unwrap();
    for segment in (1..=last.0).map(SegmentNumber) {
        let drains_in_it = segments.iter().filter(|number| **number == segment).count();
        assert!(
            drains_in_it > 1,
            "segment {segment} has a drain beside the last one"
        );
        for at in 0..4096 {
            let disk = world
                .disk
                .damaged(segment, |bytes| Kind::Flip.damage(bytes, at, at));
            match world.recover(&disk) {
                Err(
                    RecoverError::Version { .. }
                    | RecoverError::Gap { .. }
                    | RecoverError::HeaderLost { .. },
                ) => {}
                Err(error) => panic!("byte {at} of {segment}: {error}"),
                Ok(recovered) if recovered.state.damaged_up_to.is_some() => {}
                Ok(recovered) => assert_eq!(&found(&recovered, &disk), world.held(), "byte {at}"),
            }
        }
    }
}

pub(crate) fn missing_segments() {
    let world = settled();
    let last = drains(&world).last().unwrap().0;
    for segment in (1..last.0).map(SegmentNumber) {
        let disk = world.disk.damaged(segment, |bytes| bytes.fill(0));
        match world.recover(&disk) {
            Err(RecoverError::Gap { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(recovered) => assert!(recovered.state.damaged_up_to.is_some()),
        }
    }
}

pub(crate) fn crash_while_noting_loss() {
    let world = settled();
    let (segment, start, _) = drains(&world)[7];
    let disk = world.disk.damaged(segment, |bytes| bytes[start + 100] ^= 1);
    let first = recover(&world, &disk).state;
    let up_to = first.damaged_up_to;
    assert_eq!(up_to, Some(world.held().last()));
    let mut log = recover(&world, &disk).log;
    let mut disk = disk;
    let mut crashes = 0;
    loop {
        while let Some(op) = log.poll_op().filter(|_| disk.open().is_empty()) {
            disk.submit(op);
        }
        for fate in [
            Fate::Power(0),
            Fate::Power(u64::MAX),
            Fate::Power(0x5a5a),
            Fate::Process,
        ] {
            let crashed = disk.crashed(fate);
            let state = recover(&world, &crashed).state;
            assert_eq!(state.damaged_up_to, up_to, "{fate:?}");
            assert_eq!((state.term, state.vote), (first.term, first.vote));
            assert_eq!(state.last_index, first.last_index);
            crashes += 1;
        }
        let Some(id) = disk.open().first().copied() else {
            break;
        };
        disk.complete(id);
        log.handle_done(id, Ok(())).unwrap();
    }
    assert!(log.is_started() && crashes > 20, "{crashes}");
    repair(&world, disk);
}

/// After a repair the loss is forgotten; before, also a log that went on remembers it.
fn repair(world: &World, mut disk: ModelDisk) {
    use folkmoot_core::consensus::PersistId;
    let mut recovered = recover(world, &disk);
    let up_to = recovered.state.damaged_up_to.unwrap();
    let mut held = found(&recovered, &disk);
    let mut id = 0;
    for repaired in [false, true] {
        let mut records = Vec::new();
        // Enough to go on to other segments, whose headers say it again.
        for _ in 0..12 {
            let entry = held.next_entry(4000);
            records.push(LogRecord::Entry(entry.clone()));
            held.entries.push(entry);
        }
        if repaired {
            records.push(LogRecord::Repaired { up_to });
        }
        id += 1;
        recovered.log.append(PersistId(id), records);
        loop {
            while let Some(op) = recovered.log.poll_op() {
                disk.submit(op);
            }
            let Some(op) = disk.open().first().copied() else {
                break;
            };
            disk.complete(op);
            recovered.log.handle_done(op, Ok(())).unwrap();
        }
        assert_eq!(recovered.log.poll_durable(), Some(PersistId(id)));
        let again = recover(world, &disk);
        assert_eq!(again.state.damaged_up_to, Some(up_to).filter(|_| !repaired));
        assert_eq!(found(&again, &disk), held);
    }
}

pub(crate) fn checkpoint_ahead() {
    let mut world = settled();
    let log = world.held().last();
    let checkpoint = log.next();
    world.current = Some(meta(checkpoint, Term(4), Zxid(1000)));
    assert_eq!(
        world.recover(&world.disk).map(|_| ()),
        Err(RecoverError::CheckpointAhead { checkpoint, log })
    );
    // A prepared snapshot that the log does not count is no reason either.
    world.prepared = world.current.take();
    let recovered = recover(&world, &world.disk);
    assert_eq!(
        (recovered.state.applied, recovered.state.base),
        (LogIndex::ZERO, None)
    );
    // One that it counts must be there.
    let ahead = world.prepared.take().unwrap();
    world.append(vec![LogRecord::SnapshotInstalled { meta: ahead }]);
    world.settle();
    assert_eq!(
        world.recover(&world.disk).map(|_| ()),
        Err(RecoverError::SnapshotMissing { index: checkpoint })
    );
    // A checkpoint of another log's entry is not this one's.
    let mut world = settled();
    world.current = Some(meta(LogIndex(3), Term(9), Zxid(9)));
    assert!(matches!(
        world.recover(&world.disk).map(|_| ()),
        Err(RecoverError::CheckpointDiffers { log: Term(1), .. })
    ));
}

/// Damage to what a checkpoint covers is no loss, wherever the segment behind it begins.
pub(crate) fn every_byte_of_covered_drains(kind: Kind) {
    let mut world = settled();
    let last = world.held().last();
    let covered = LogIndex(last.0 - 2);
    world.checkpoint(covered);
    let drains = drains(&world);
    let (in_last, _, _) = *drains.last().unwrap();
    let mut damaged = 0;
    for (segment, start, end) in drains {
        for at in (start..end).filter(|at| segment < in_last && at % 7 == 0) {
            let disk = world
                .disk
                .damaged(segment, |bytes| kind.damage(bytes, at, end));
            let state = recover(&world, &disk).state;
            assert_eq!(state.damaged_up_to, None, "segment {segment}, byte {at}");
            assert_eq!((state.applied, state.last_index), (covered, last));
            assert_eq!((state.term, state.vote), (Term(4), Some(MemberId(3))));
            damaged += 1;
        }
    }
    assert!(damaged > 1000, "{damaged}");
}
