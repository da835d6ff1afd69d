//! A disk in memory that does to the log what the `Disk` port allows, at its worst.

use std::collections::BTreeMap;
use std::rc::Rc;

use folkmoot_core::log::{DiskError, DiskOp, DiskOpKind, LogFile, LogReader, OpId, SegmentNumber};

const SECTOR_BYTES: usize = 512;

/// What a file's bytes are on stable storage, and what a reader sees. They share memory while they
/// are known to be the same.
#[derive(Clone, Debug, Default)]
struct Inode {
    stable: Rc<Vec<u8>>,
    seen: Rc<Vec<u8>>,
}

/// Files, and the operations that were submitted and not done.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelDisk {
    inodes: BTreeMap<usize, Inode>,
    inodes_made: usize,
    stable: BTreeMap<LogFile, usize>,
    seen: BTreeMap<LogFile, usize>,
    open: Vec<DiskOp>,
    /// Writes that are done: file, offset, bytes.
    pub(crate) written: Vec<(LogFile, usize, usize)>,
    /// Segments that became another segment's file.
    pub(crate) recycled: usize,
}

/// What becomes at a crash of what is not on stable storage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// The machine stops: of each file these unsynced sectors are there, bit by bit from the file's
    /// first sector on (the pattern repeats after 64), and the folder is as seen by the lowest bit.
    Power(u64),
    /// The process stops: a reader sees all of it, and a later crash of the machine decides.
    Process,
}

impl ModelDisk {
    pub(crate) fn submit(&mut self, op: DiskOp) {
        self.open.push(op);
    }

    /// Names of the open operations.
    pub(crate) fn open(&self) -> Vec<OpId> {
        self.open.iter().map(|op| op.id).collect()
    }

    /// Carries an open operation out.
    pub(crate) fn complete(&mut self, id: OpId) {
        let place = self.open.iter().position(|op| op.id == id).unwrap();
        let op = self.open.remove(place);
        self.see(&op.kind);
        match &op.kind {
            DiskOpKind::Write { file, offset, data } => {
                let inode = self.inodes.get_mut(&self.seen[file]).unwrap();
                let start = usize::try_from(*offset).unwrap();
                Rc::make_mut(&mut inode.stable)[start..start + data.len()].copy_from_slice(data);
                self.written.push((*file, start, data.len()));
                if inode.stable == inode.seen {
                    inode.stable = inode.seen.clone();
                }
            }
            DiskOpKind::CreateZeroed { file, .. } => {
                let inode = self.inodes.get_mut(&self.seen[file]).unwrap();
                inode.stable = inode.seen.clone();
                self.stable = self.seen.clone();
            }
            DiskOpKind::Rename { from, .. } => {
                self.recycled += usize::from(*from != LogFile::Copy);
                self.stable = self.seen.clone();
            }
            DiskOpKind::Remove { .. } => self.stable = self.seen.clone(),
        }
    }

    /// The disk after a crash.
    pub(crate) fn crashed(&self, fate: Fate) -> Self {
        let mut disk = self.clone();
        for op in std::mem::take(&mut disk.open) {
            disk.see(&op.kind);
        }
        if let Fate::Power(sectors) = fate {
            if sectors & 1 == 1 {
                disk.stable = disk.seen;
            }
            disk.seen = disk.stable.clone();
            for inode in disk.inodes.values_mut() {
                inode.lose(sectors);
            }
        }
        let (seen, stable) = (&disk.seen, &disk.stable);
        disk.inodes
            .retain(|inode, _| seen.values().chain(stable.values()).any(|n| n == inode));
        disk
    }

    /// The same disk with other bytes in a segment.
    pub(crate) fn damaged(
        &self,
        segment: SegmentNumber,
        damage: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut disk = self.clone();
        let inode = disk
            .inodes
            .get_mut(&self.seen[&LogFile::Segment(segment)])
            .unwrap();
        damage(Rc::make_mut(&mut inode.seen));
        inode.stable = inode.seen.clone();
        disk
    }

    /// What a reader sees once the operation was begun.
    fn see(&mut self, kind: &DiskOpKind) {
        match kind {
            DiskOpKind::CreateZeroed { file, bytes } => {
                self.inodes_made += 1;
                self.seen.insert(*file, self.inodes_made);
                let inode = Inode {
                    stable: Rc::default(),
                    seen: Rc::new(vec![0; usize::try_from(*bytes).unwrap()]),
                };
                self.inodes.insert(self.inodes_made, inode);
            }
            DiskOpKind::Write { file, offset, data } => {
                let start = usize::try_from(*offset).unwrap();
                let inode = self.inodes.get_mut(&self.seen[file]).unwrap();
                Rc::make_mut(&mut inode.seen)[start..start + data.len()].copy_from_slice(data);
            }
            DiskOpKind::Rename { from, to } => {
                let inode = self.seen.remove(from).unwrap();
                self.seen.insert(*to, inode);
            }
            DiskOpKind::Remove { file } => {
                self.seen.remove(file).unwrap();
            }
        }
    }
}

impl Inode {
    /// Each sector that is not on stable storage is there or not, by its bit.
    fn lose(&mut self, sectors: u64) {
        if Rc::ptr_eq(&self.stable, &self.seen) {
            return;
        }
        let (stable, seen) = (Rc::make_mut(&mut self.stable), &self.seen);
        if stable.len() < seen.len() {
            stable.resize(seen.len() >> (sectors >> 1 & 1), 0);
        }
        let pairs = stable
            .chunks_mut(SECTOR_BYTES)
            .zip(seen.chunks(SECTOR_BYTES));
        for (number, (stable, seen)) in pairs.enumerate() {
            if sectors >> (number % 64) & 1 == 1 {
                stable.copy_from_slice(seen);
            }
        }
        self.seen = self.stable.clone();
    }
}

impl LogReader for ModelDisk {
    fn segments(&self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        let segments = self.seen.iter().filter_map(|(file, inode)| match file {
            LogFile::Segment(number) => Some((*number, self.inodes[inode].seen.len() as u64)),
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
        let file = LogFile::Segment(segment);
        let inode = *self.seen.get(&file).ok_or(DiskError::Missing { file })?;
        let start = usize::try_from(offset).unwrap();
        let end = start + bytes;
        let content = &self.inodes[&inode].seen;
        let read = content.get(start..end).ok_or(DiskError::Short {
            file,
            end: end as u64,
        })?;
        Ok(read.to_vec())
    }
}
