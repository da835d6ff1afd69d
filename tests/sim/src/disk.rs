//! A simulated disk under the log. What it may do at a crash is what the log's port says that a
//! disk may do, and no more: open operations are lost, done or torn by sectors, each for itself;
//! a reader may see what a later crash of the machine takes away (rule R22).

use std::collections::BTreeMap;

use folkmoot_core::log::{DiskError, DiskOp, DiskOpKind, LogFile, LogReader, OpId, SegmentNumber};

use crate::dice::Dice;

/// What a disk may tear.
const SECTOR_BYTES: usize = 512;

/// One file: its bytes as a reader sees them, and what stable storage has where that differs.
#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    unstable: BTreeMap<usize, Vec<u8>>,
}

impl File {
    fn zeroed(bytes: u64) -> Self {
        Self {
            bytes: vec![0; bytes as usize],
            unstable: BTreeMap::new(),
        }
    }

    /// Writes what was reported, or is about to be: it is stable.
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        for sector in sectors(offset, data.len()) {
            self.unstable.remove(&sector);
        }
    }

    /// A write was open at a crash: each sector goes its own way.
    fn tear(&mut self, dice: &mut Dice, offset: usize, data: &[u8]) -> Torn {
        let mut torn = Torn::default();
        for sector in sectors(offset, data.len()) {
            let new = data[sector - offset..sector - offset + SECTOR_BYTES].to_vec();
            let old = self.bytes[sector..sector + SECTOR_BYTES].to_vec();
            match dice.below(3) {
                0 => torn.lost = true,
                1 => {
                    torn.kept = true;
                    self.write(sector, &new);
                }
                _ => {
                    torn.kept = true;
                    self.unstable.entry(sector).or_insert(old);
                    self.bytes[sector..sector + SECTOR_BYTES].copy_from_slice(&new);
                }
            }
        }
        torn
    }

    /// The machine lost power: what only the page cache had is gone, sector by sector.
    fn lose_cache(&mut self, dice: &mut Dice) {
        for (sector, stable) in std::mem::take(&mut self.unstable) {
            if dice.chance(700) {
                self.bytes[sector..sector + SECTOR_BYTES].copy_from_slice(&stable);
            }
        }
    }
}

fn sectors(offset: usize, bytes: usize) -> impl Iterator<Item = usize> {
    (offset..offset + bytes).step_by(SECTOR_BYTES)
}

/// What became of an open write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) lost: bool,
    pub(crate) kept: bool,
}

/// How a member ends without warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashKind {
    /// Its process is killed: the page cache lives.
    Process,
    /// Its machine loses power.
    Machine,
}

/// A renaming that a reader sees and a crash of the machine may undo.
#[derive(Clone, Debug)]
struct UnstableName {
    from: LogFile,
    to: LogFile,
    replaced: Option<File>,
}

#[derive(Debug)]
pub(crate) struct SimDisk {
    dice: Dice,
    files: BTreeMap<LogFile, File>,
    open: Vec<DiskOp>,
    unstable_names: Vec<UnstableName>,
    /// Writes that were reported, in order: what may rot.
    reported: Vec<(LogFile, usize, usize)>,
    /// Typical microseconds of an operation.
    latency: u64,
    slow: bool,
    fail_next: bool,
    full: bool,
}

impl SimDisk {
    pub(crate) fn new(seed: u64, member: u64) -> Self {
        let mut dice = Dice::new(seed, &format!("disk {member}"));
        let latency = dice.pick(&[60, 150, 400, 2_000]).copied().unwrap_or(150);
        Self {
            dice,
            files: BTreeMap::new(),
            open: Vec::new(),
            unstable_names: Vec::new(),
            reported: Vec::new(),
            latency,
            slow: false,
            fail_next: false,
            full: false,
        }
    }

    /// Begins `op`; the answer is how many microseconds it takes.
    pub(crate) fn begin(&mut self, op: DiskOp) -> u64 {
        self.open.push(op);
        let slowness = if self.slow { 50 } else { 1 };
        self.dice.delay(self.latency * slowness)
    }

    /// Ends the open operation `id` with what became of it.
    pub(crate) fn finish(&mut self, id: OpId) -> Result<(), DiskError> {
        let Some(place) = self.open.iter().position(|op| op.id == id) else {
            panic!("operation {} is not open", id.0);
        };
        if std::mem::take(&mut self.fail_next) {
            // It stays open: a crash decides what it leaves.
            return Err(DiskError::Io {
                reason: "simulated input/output error".to_owned(),
            });
        }
        if self.full && matches!(self.open[place].kind, DiskOpKind::CreateZeroed { .. }) {
            return Err(DiskError::Full);
        }
        let op = self.open.remove(place);
        self.apply(op.kind)
    }

    /// All that is open ends as a crash ends it.
    pub(crate) fn crash(&mut self, kind: CrashKind) -> Vec<Torn> {
        let mut torn = Vec::new();
        for op in std::mem::take(&mut self.open) {
            torn.extend(self.leave_open(op.kind));
        }
        if kind == CrashKind::Machine {
            for undone in std::mem::take(&mut self.unstable_names).into_iter().rev() {
                if self.dice.chance(500) {
                    self.undo(undone);
                }
            }
            let Self { files, dice, .. } = self;
            files.values_mut().for_each(|file| file.lose_cache(dice));
        }
        torn
    }

    /// Damages acknowledged data: one reported write that was not among the last. The newest can
    /// not be told from a torn tail (rule R23), so it is spared. False if there is none to damage.
    pub(crate) fn rot(&mut self) -> bool {
        let spared = 2;
        let candidates = self.reported.len().saturating_sub(spared);
        if candidates == 0 {
            return false;
        }
        let place = candidates - 1 - self.dice.below(candidates.min(40) as u64) as usize;
        let (file, offset, bytes) = self.reported[place];
        let at = offset + self.dice.below(bytes as u64) as usize;
        let bit = self.dice.below(8) as u8;
        self.flip(file, at, bit)
    }

    /// Damages one bit of a file. False if the file is not there or not as long.
    pub(crate) fn flip(&mut self, file: LogFile, at: usize, bit: u8) -> bool {
        let byte = self
            .files
            .get_mut(&file)
            .and_then(|file| file.bytes.get_mut(at));
        let Some(byte) = byte else {
            return false;
        };
        *byte ^= 1 << bit;
        true
    }

    /// Empties the folder.
    pub(crate) fn wipe(&mut self) {
        self.files.clear();
        self.open.clear();
        self.unstable_names.clear();
        self.reported.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// The next operation fails, and the process with it.
    pub(crate) fn fail_next(&mut self) {
        self.fail_next = true;
    }

    pub(crate) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Ends everything that is wrong with this disk beyond the ordinary.
    pub(crate) fn heal(&mut self) {
        self.slow = false;
        self.fail_next = false;
        self.full = false;
    }

    fn apply(&mut self, kind: DiskOpKind) -> Result<(), DiskError> {
        match kind {
            DiskOpKind::CreateZeroed { file, bytes } => {
                self.forget_writes(file);
                self.files.insert(file, File::zeroed(bytes));
            }
            DiskOpKind::Write { file, offset, data } => {
                let offset = offset as usize;
                let held = self
                    .files
                    .get_mut(&file)
                    .ok_or(DiskError::Missing { file })?;
                let end = offset + data.len();
                if end > held.bytes.len() {
                    let end = end as u64;
                    return Err(DiskError::Short { file, end });
                }
                held.write(offset, &data);
                self.reported.push((file, offset, data.len()));
            }
            DiskOpKind::Rename { from, to } => {
                let held = self
                    .files
                    .remove(&from)
                    .ok_or(DiskError::Missing { file: from })?;
                self.files.insert(to, held);
                self.rename_writes(from, to);
                self.unstable_names.clear();
            }
            DiskOpKind::Remove { file } => {
                self.forget_writes(file);
                self.files
                    .remove(&file)
                    .ok_or(DiskError::Missing { file })?;
            }
        }
        Ok(())
    }

    fn leave_open(&mut self, kind: DiskOpKind) -> Option<Torn> {
        match kind {
            DiskOpKind::CreateZeroed { file, bytes } => {
                if self.dice.chance(500) {
                    let blocks = self.dice.below(bytes / 4096 + 1);
                    self.forget_writes(file);
                    self.files.insert(file, File::zeroed(blocks * 4096));
                }
                None
            }
            DiskOpKind::Write { file, offset, data } => {
                let Self { files, dice, .. } = self;
                Some(files.get_mut(&file)?.tear(dice, offset as usize, &data))
            }
            DiskOpKind::Rename { from, to } => {
                if self.dice.chance(500) {
                    let held = self.files.remove(&from)?;
                    let replaced = self.files.insert(to, held);
                    self.rename_writes(from, to);
                    self.unstable_names
                        .push(UnstableName { from, to, replaced });
                }
                None
            }
            DiskOpKind::Remove { file } => {
                if self.dice.chance(500) {
                    self.forget_writes(file);
                    self.files.remove(&file);
                }
                None
            }
        }
    }

    fn undo(&mut self, name: UnstableName) {
        if let Some(held) = self.files.remove(&name.to) {
            self.files.insert(name.from, held);
            self.rename_writes(name.to, name.from);
        }
        if let Some(replaced) = name.replaced {
            self.files.insert(name.to, replaced);
        }
    }

    fn forget_writes(&mut self, file: LogFile) {
        self.reported.retain(|(held, _, _)| *held != file);
    }

    fn rename_writes(&mut self, from: LogFile, to: LogFile) {
        self.forget_writes(to);
        for (file, _, _) in &mut self.reported {
            if *file == from {
                *file = to;
            }
        }
    }
}

impl LogReader for SimDisk {
    fn segments(&self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        let segments = self.files.iter().filter_map(|(name, file)| match name {
            LogFile::Segment(number) => Some((*number, file.bytes.len() as u64)),
            LogFile::Copy => None,
        });
        Ok(segments.collect())
    }

    fn read(
        &self,
        segment: SegmentNumber,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, DiskError> {
        let name = LogFile::Segment(segment);
        let file = self
            .files
            .get(&name)
            .ok_or(DiskError::Missing { file: name })?;
        let end = offset as usize + bytes;
        let read = file.bytes.get(offset as usize..end);
        read.map(<[u8]>::to_vec).ok_or(DiskError::Short {
            file: name,
            end: end as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: LogFile = LogFile::Segment(SegmentNumber(1));

    fn disk(seed: u64) -> SimDisk {
        let mut disk = SimDisk::new(seed, 1);
        run(
            &mut disk,
            1,
            DiskOpKind::CreateZeroed {
                file: FILE,
                bytes: 8192,
            },
        );
        disk
    }

    fn run(disk: &mut SimDisk, id: u64, kind: DiskOpKind) {
        disk.begin(DiskOp { id: OpId(id), kind });
        disk.finish(OpId(id)).expect("a disk without faults");
    }

    fn write(byte: u8) -> DiskOpKind {
        let data = vec![byte; 4096];
        DiskOpKind::Write {
            file: FILE,
            offset: 0,
            data,
        }
    }

    #[test]
    fn what_was_reported_survives_and_what_was_open_is_torn_by_sectors() {
        let mut mixed = 0;
        for seed in 0..50 {
            let mut disk = disk(seed);
            run(&mut disk, 2, write(1));
            disk.begin(DiskOp {
                id: OpId(3),
                kind: write(2),
            });
            disk.crash(CrashKind::Machine);
            let bytes = disk
                .read(SegmentNumber(1), 0, 4096)
                .expect("the file is there");
            assert!(bytes.iter().all(|byte| [1, 2].contains(byte)));
            mixed += usize::from(bytes.contains(&1) && bytes.contains(&2));
        }
        assert!(mixed > 40, "{mixed} of 50 crashes tore the write");
    }

    #[test]
    fn a_reader_sees_what_a_later_power_cut_takes_away() {
        let differs = (0..50).any(|seed| {
            let mut disk = disk(seed);
            disk.begin(DiskOp {
                id: OpId(2),
                kind: write(2),
            });
            disk.crash(CrashKind::Process);
            let seen = disk.read(SegmentNumber(1), 0, 4096);
            disk.crash(CrashKind::Machine);
            seen != disk.read(SegmentNumber(1), 0, 4096)
        });
        assert!(differs);
    }
}
