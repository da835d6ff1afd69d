//! A full state, ingested on a thread of its own: an ingestion borrows its keyspace for as long as
//! it lasts.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::Sender;
use folkmoot_core::checkpoint::{CheckpointError, FullWriter};
use folkmoot_proto::record::{RecordChange, StateMeta};
use xxhash_rust::xxh3::Xxh3Default;

use super::database::StateDatabase;
use super::io_error;
use super::pointer::Pointer;

/// Chunks on their way to the thread: one that is written and one that waits.
const CHUNKS_MAX: usize = 2;

/// Writes one state; not prepared before `finish`.
pub(super) struct IngestingWriter {
    folder: PathBuf,
    name: String,
    meta: StateMeta,
    last_key: Option<Bytes>,
    sum: RecordsSum,
    chunks: Option<Sender<Vec<RecordChange>>>,
    thread: Option<JoinHandle<Result<StateDatabase, CheckpointError>>>,
}

impl IngestingWriter {
    pub(super) fn begin(
        folder: &Path,
        name: String,
        meta: StateMeta,
    ) -> Result<Self, CheckpointError> {
        let database = StateDatabase::open(&folder.join(&name))?;
        let (chunks, receiver) = crossbeam_channel::bounded(CHUNKS_MAX);
        let position = meta.clone();
        let thread = thread::Builder::new()
            .name("ingestion".to_owned())
            .spawn(move || {
                database.ingest(&position, receiver.iter().flatten())?;
                Ok(database)
            })
            .map_err(|error| io_error(&error))?;
        Ok(Self {
            folder: folder.to_owned(),
            name,
            meta,
            last_key: None,
            sum: RecordsSum::default(),
            chunks: Some(chunks),
            thread: Some(thread),
        })
    }

    /// Ends the thread; what it has made, or why it failed.
    fn join(&mut self) -> Result<StateDatabase, CheckpointError> {
        self.chunks = None;
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(CheckpointError::Io {
                reason: "the ingestion ended early".to_owned(),
            }),
        }
    }
}

impl FullWriter for IngestingWriter {
    fn write(&mut self, records: Vec<RecordChange>) -> Result<(), CheckpointError> {
        for RecordChange { key, value } in &records {
            if self.last_key.as_ref().is_some_and(|last| last >= key) {
                return Err(CheckpointError::Disordered);
            }
            self.sum
                .add(key, value.as_ref().ok_or(CheckpointError::Removal)?);
            self.last_key = Some(key.clone());
        }
        let sent = self
            .chunks
            .as_ref()
            .is_some_and(|chunks| chunks.send(records).is_ok());
        if sent {
            return Ok(());
        }
        // The thread ends before its time only with an error.
        self.join().map(|_| ())
    }

    fn finish(mut self: Box<Self>) -> Result<(), CheckpointError> {
        drop(self.join()?);
        self.verify()?;
        let pointer = Pointer {
            state: self.name.clone(),
            meta: Some(self.meta.clone()),
        };
        pointer.write(&self.folder, Pointer::PREPARED)
    }
}

impl IngestingWriter {
    /// Reads the state back as the next start would.
    fn verify(&self) -> Result<(), CheckpointError> {
        let database = StateDatabase::open(&self.folder.join(&self.name))?;
        let mut sum = RecordsSum::default();
        for record in database.records() {
            let RecordChange { key, value } = record?;
            sum.add(&key, value.as_deref().unwrap_or_default());
        }
        let same = sum.digest() == self.sum.digest() && sum.count == self.sum.count;
        if same && database.meta()?.as_ref() == Some(&self.meta) {
            return Ok(());
        }
        let reason = format!(
            "of {} records that were ingested, {} or others are read back",
            self.sum.count, sum.count
        );
        Err(CheckpointError::Damaged { reason })
    }
}

impl Drop for IngestingWriter {
    fn drop(&mut self) {
        // Its database is closed before the store removes its folder.
        if self.thread.is_some() {
            let _ = self.join();
        }
    }
}

/// A sum over records in order.
#[derive(Default)]
struct RecordsSum {
    hash: Xxh3Default,
    count: u64,
}

impl RecordsSum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.hash.update(&(key.len() as u64).to_le_bytes());
        self.hash.update(key);
        self.hash.update(&(value.len() as u64).to_le_bytes());
        self.hash.update(value);
        self.count += 1;
    }

    fn digest(&self) -> u64 {
        self.hash.digest()
    }
}
