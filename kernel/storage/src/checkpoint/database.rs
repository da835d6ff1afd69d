//! One state in one fjall database.

use std::path::Path;

use bytes::Bytes;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use folkmoot_core::checkpoint::CheckpointError;
use folkmoot_core::log::{decode_state_meta, encode_state_meta};
use folkmoot_proto::record::{RecordChange, StateMeta};

use super::io_error;

/// fjall's defaults (32 and 64 MiB, twice while a memtable is flushed) would double a member's
/// memory; nothing here is read but once, from end to end.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
/// The least that fjall takes: what is in the journals is replayed at every start.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
/// The version of what is at [`POSITION_KEY`].
const POSITION_VERSION: u8 = 1;
/// Where the state stands. One keyspace holds it and the records: fjall keeps its journals, and
/// replays them at a start, until every keyspace in them has flushed, and a small one never does.
const POSITION_KEY: &[u8] = &[0];
/// In front of each record's key.
const RECORD_TAG: u8 = 1;

/// An open state.
pub(super) struct StateDatabase {
    database: Database,
    keyspace: Keyspace,
}

impl StateDatabase {
    /// Opens the database at `path`, made if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .worker_threads(1)
            .open()
            .map_err(fjall_error)?;
        let keyspace = database.keyspace("state", options).map_err(fjall_error)?;
        Ok(Self { database, keyspace })
    }

    /// Where the state stands, if it stands anywhere.
    pub(super) fn meta(&self) -> Result<Option<StateMeta>, CheckpointError> {
        let Some(value) = self.keyspace.get(POSITION_KEY).map_err(fjall_error)? else {
            return Ok(None);
        };
        match value.split_first() {
            Some((&POSITION_VERSION, meta)) => decode_state_meta(Bytes::copy_from_slice(meta))
                .map(Some)
                .map_err(|error| CheckpointError::Damaged {
                    reason: format!("its position: {error}"),
                }),
            Some((version, _)) => {
                let reason = format!(
                    "its format is {version}, this program reads format {POSITION_VERSION}"
                );
                Err(CheckpointError::Damaged { reason })
            }
            None => Err(CheckpointError::Damaged {
                reason: "its position is empty".to_owned(),
            }),
        }
    }

    /// Changes the state and its position as one; durable when this returns.
    pub(super) fn write(
        &self,
        meta: &StateMeta,
        changes: Vec<RecordChange>,
    ) -> Result<(), CheckpointError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for RecordChange { key, value } in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, tagged(&key), &*value),
                None => batch.remove(&self.keyspace, tagged(&key)),
            }
        }
        batch.insert(&self.keyspace, POSITION_KEY, position(meta));
        batch.commit().map_err(fjall_error)
    }

    /// The records, in order of their keys.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<RecordChange, CheckpointError>> {
        self.keyspace.range([RECORD_TAG]..).map(|guard| {
            let (key, value) = guard.into_inner().map_err(fjall_error)?;
            let key = key.get(1..).unwrap_or_default();
            Ok(RecordChange {
                key: Bytes::copy_from_slice(key),
                value: Some(Bytes::copy_from_slice(&value)),
            })
        })
    }

    /// Writes a full state to a database that is new: its records, by rising key.
    pub(super) fn ingest(
        &self,
        meta: &StateMeta,
        records: impl IntoIterator<Item = RecordChange>,
    ) -> Result<(), CheckpointError> {
        let mut ingestion = self.keyspace.start_ingestion().map_err(fjall_error)?;
        ingestion
            .write(POSITION_KEY, position(meta))
            .map_err(fjall_error)?;
        for RecordChange { key, value } in records {
            let value = value.unwrap_or_default();
            ingestion
                .write(tagged(&key), &*value)
                .map_err(fjall_error)?;
        }
        ingestion.finish().map_err(fjall_error)
    }
}

fn tagged(key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(key.len() + 1);
    tagged.push(RECORD_TAG);
    tagged.extend_from_slice(key);
    tagged
}

fn position(meta: &StateMeta) -> Vec<u8> {
    let mut position = vec![POSITION_VERSION];
    position.extend(encode_state_meta(meta));
    position
}

/// fjall keeps the options with which a keyspace was made.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .filter_policy(FilterPolicy::disabled())
        .data_block_compression_policy(CompressionPolicy::disabled())
}

pub(super) fn fjall_error(error: fjall::Error) -> CheckpointError {
    match error {
        fjall::Error::Io(error) => io_error(&error),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => io_error(&error),
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => CheckpointError::Damaged {
            reason: error.to_string(),
        },
        _ => CheckpointError::Io {
            reason: error.to_string(),
        },
    }
}
