//! A crash at every operation of random stories (rules R22 to R25).

use folkmoot_core::log::LogRecord;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term, Zxid};

use crate::disk::Fate;
use crate::world::{World, meta};

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }

    fn bits(&mut self) -> u64 {
        self.below(1 << 31) << 33 ^ self.below(1 << 31) << 11 ^ self.below(1 << 31)
    }
}

/// What the stories did, to see that they did all of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) crashes: usize,
    pub(crate) lost_something: usize,
    pub(crate) kept_more: usize,
    pub(crate) truncations: usize,
    pub(crate) checkpoints: usize,
    pub(crate) snapshots: usize,
    pub(crate) recycled: usize,
}

/// Runs one story of `steps` steps, and crashes it after every event.
pub(crate) fn crash_everywhere(seed: u64, steps: usize, seen: &mut Seen) {
    let mut dice = Dice(seed);
    let mut world = World::create();
    for _ in 0..steps {
        advance(&mut world, &mut dice, seen);
        for _ in 0..dice.below(4) {
            world.submit();
            crash_here(&world, &mut dice, seen);
            if !world.complete_one(dice.below(2) == 0) {
                break;
            }
            crash_here(&world, &mut dice, seen);
        }
    }
    world.settle();
    assert_eq!(
        world.promised,
        world.history.len() - 1,
        "all that was appended becomes durable"
    );
    crash_here(&world, &mut dice, seen);
    seen.recycled += world.disk.recycled;
}

fn advance(world: &mut World, dice: &mut Dice, seen: &mut Seen) {
    let held = world.held().clone();
    match dice.below(10) {
        0 if dice.below(4) == 0 => world.append(vec![LogRecord::Admitted]),
        0 if dice.below(3) == 0 => world.append(vec![LogRecord::PeerMet {
            member: MemberId(1 + dice.below(4)),
            incarnation: Incarnation(dice.bits()),
        }]),
        0 => {
            let term = Term(held.term.0 + 1 + dice.below(2));
            let vote = [None, Some(MemberId(1)), Some(MemberId(2))][dice.below(3) as usize];
            world.append(vec![LogRecord::HardState { term, vote }]);
        }
        1 if held.entries.len() > 1 => {
            let floor = world
                .current
                .as_ref()
                .map_or(held.base.0, |meta| meta.index);
            let floor = floor.max(held.base.0);
            let depth = dice.below(6).min(held.last().0 - floor.0);
            let last = LogIndex(held.last().0 - depth);
            world.append(vec![LogRecord::Truncate { last }]);
            world.append_entries(&[dice.below(3000) as usize]);
            seen.truncations += 1;
        }
        2 | 3 if world.prepared.is_none() => checkpoint(world, dice, seen),
        4 if world.prepared.is_none() && dice.below(2) == 0 => {
            let index = LogIndex(held.last().0 + 5);
            let meta = meta(index, held.term, Zxid(index.0 * 4));
            world.prepared = Some(meta.clone());
            world.append(vec![LogRecord::SnapshotInstalled { meta }]);
            seen.snapshots += 1;
        }
        _ => {
            let sizes: Vec<_> = (0..=dice.below(3))
                .map(|_| dice.below(6000) as usize)
                .collect();
            world.append_entries(&sizes);
        }
    }
}

/// Takes a checkpoint of an entry that is durable and stays (an applied entry is committed).
fn checkpoint(world: &mut World, dice: &mut Dice, seen: &mut Seen) {
    let lowest = world.history[world.promised..].iter().map(|held| {
        let same = held
            .entries
            .iter()
            .zip(&world.durable().entries)
            .take_while(|(a, b)| a == b);
        if held.base == world.durable().base {
            same.count()
        } else {
            0
        }
    });
    let stays = lowest.min().unwrap_or(0);
    let current = world
        .current
        .as_ref()
        .map_or(LogIndex::ZERO, |meta| meta.index);
    let back = dice.below(4) as usize;
    if stays > back {
        let index = world.durable().entries[stays - 1 - back].index;
        if index > current {
            world.checkpoint(index);
            seen.checkpoints += 1;
        }
    }
}

/// Crashes this world in many ways, and each again at every operation of its restart.
fn crash_here(world: &World, dice: &mut Dice, seen: &mut Seen) {
    let created = world.log.is_started();
    let mut fates = vec![Fate::Power(0), Fate::Power(u64::MAX), Fate::Process];
    if !world.disk.open().is_empty() {
        let bit = dice.below(24);
        fates.extend([
            Fate::Power(1 << bit),
            Fate::Power(!(1 << bit)),
            Fate::Power((1 << bit) - 1),
            Fate::Power(!((1 << bit) - 1)),
            Fate::Power(dice.bits()),
            Fate::Power(dice.bits() | 0xff),
        ]);
    }
    for fate in fates {
        let disk = world.disk.crashed(fate);
        if !created {
            // The creation did not end: it is begun again.
            continue;
        }
        seen.crashes += 1;
        let restarted = world.restart(disk);
        let found = restarted.history.len();
        seen.kept_more += usize::from(found > world.promised + 1);
        seen.lost_something += usize::from(found < world.history.len());
        if dice.below(4) == 0 {
            crash_while_starting(restarted, dice);
        }
    }
}

fn crash_while_starting(mut world: World, dice: &mut Dice) {
    loop {
        world.submit();
        for fate in [
            Fate::Power(0),
            Fate::Power(u64::MAX),
            Fate::Power(dice.bits()),
            Fate::Process,
        ] {
            world.restart(world.disk.crashed(fate));
        }
        if world.log.is_started() {
            break;
        }
        world.complete_one(false);
    }
    // It goes on, and its next crash loses nothing of what it held when it started.
    world.start();
    world.append_entries(&[200, 9000]);
    world.submit();
    world.restart(world.disk.crashed(Fate::Power(dice.bits())));
    world.settle();
    let mut again = world.restart(world.disk.crashed(Fate::Power(0)));
    again.start();
    assert_eq!(again.held(), world.held());
}
