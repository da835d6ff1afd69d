//! A checkpoint store in memory, behind the same port as the real one. Every step is atomic and
//! durable at once, as the port promises; what the real one does in between is its own tests'.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore, FullWriter, Records};
use folkmoot_proto::record::{RecordChange, StateMeta};

/// A state: where it stands, and its records by key.
#[derive(Clone, Debug)]
struct Stored {
    meta: StateMeta,
    records: BTreeMap<Bytes, Bytes>,
}

/// The store of one member; it outlives the member's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimStore {
    current: Option<Stored>,
    prepared: Arc<Mutex<Option<Stored>>>,
}

impl SimStore {
    /// Empties the folder.
    pub(crate) fn wipe(&mut self) {
        *self = Self::default();
    }

    fn prepared_slot(&self) -> std::sync::MutexGuard<'_, Option<Stored>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckpointStore for SimStore {
    fn current(&self) -> Option<&StateMeta> {
        self.current.as_ref().map(|stored| &stored.meta)
    }

    fn prepared(&self) -> Result<Option<StateMeta>, CheckpointError> {
        Ok(self
            .prepared_slot()
            .as_ref()
            .map(|stored| stored.meta.clone()))
    }

    fn load(&self) -> Result<Option<(StateMeta, Records<'_>)>, CheckpointError> {
        let Some(stored) = &self.current else {
            return Ok(None);
        };
        let records = stored.records.iter().map(|(key, value)| {
            Ok(RecordChange {
                key: key.clone(),
                value: Some(value.clone()),
            })
        });
        Ok(Some((stored.meta.clone(), Box::new(records))))
    }

    fn write_delta(
        &mut self,
        meta: StateMeta,
        changes: Vec<RecordChange>,
    ) -> Result<(), CheckpointError> {
        let records = self.current.take().map(|stored| stored.records);
        let mut records = records.unwrap_or_default();
        for change in changes {
            match change.value {
                Some(value) => records.insert(change.key, value),
                None => records.remove(&change.key),
            };
        }
        self.current = Some(Stored { meta, records });
        Ok(())
    }

    fn begin_full(&mut self, meta: StateMeta) -> Result<Box<dyn FullWriter>, CheckpointError> {
        *self.prepared_slot() = None;
        Ok(Box::new(Writer {
            stored: Stored {
                meta,
                records: BTreeMap::new(),
            },
            prepared: Arc::clone(&self.prepared),
        }))
    }

    fn install_prepared(&mut self) -> Result<(), CheckpointError> {
        let prepared = self.prepared_slot().take();
        self.current = Some(prepared.ok_or(CheckpointError::NotPrepared)?);
        Ok(())
    }

    fn discard_prepared(&mut self) -> Result<(), CheckpointError> {
        *self.prepared_slot() = None;
        Ok(())
    }
}

struct Writer {
    stored: Stored,
    prepared: Arc<Mutex<Option<Stored>>>,
}

impl FullWriter for Writer {
    fn write(&mut self, records: Vec<RecordChange>) -> Result<(), CheckpointError> {
        for record in records {
            let last = self.stored.records.last_key_value();
            if last.is_some_and(|(last, _)| *last >= record.key) {
                return Err(CheckpointError::Disordered);
            }
            let value = record.value.ok_or(CheckpointError::Removal)?;
            self.stored.records.insert(record.key, value);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), CheckpointError> {
        let Self { stored, prepared } = *self;
        *prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored);
        Ok(())
    }
}
