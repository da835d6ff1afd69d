//! The checkpoint store, on fjall.
//!
//! ```text
//! FOLDER/current                 the name of the state that counts, and a line's end
//! FOLDER/prepared                the same for a snapshot that may replace it; behind the line,
//!                                where it stands
//! FOLDER/state-0000000000000001  a fjall database with one keyspace, "state": at key 0 a version
//!                                byte and an encoded `StateMeta`; at 1 and a record's key, its value
//! ```
//!
//! A delta is one batch, so that a state and its position move as one (rule
//! R26). A full state is ingested into a folder of its own, read back once, and only then named as
//! prepared; making it current is one rename (rule R25).

mod database;
mod full;
mod pointer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore, FullWriter, Records};
use folkmoot_proto::record::{RecordChange, StateMeta};

use self::database::StateDatabase;
use self::full::IngestingWriter;
use self::pointer::Pointer;
use crate::disk::make_private_folder;

/// A checkpoint store in a folder.
pub struct FjallStore {
    folder: PathBuf,
    current: Option<Current>,
}

/// The state that counts.
struct Current {
    name: String,
    meta: StateMeta,
    database: StateDatabase,
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let current = self
            .current
            .as_ref()
            .map(|current| (&current.name, current.meta.index));
        f.debug_struct("FjallStore")
            .field("folder", &self.folder)
            .field("current", &current)
            .finish()
    }
}

impl FjallStore {
    /// Opens the store in `folder`, made if it is not there. What unfinished work left goes.
    ///
    /// # Errors
    ///
    /// When the folder can not be used, or what is there is no checkpoint.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        make_private_folder(folder).map_err(|error| io_error(&error))?;
        let current = match Pointer::read(folder, Pointer::CURRENT)? {
            Some(pointer) => Some(Current::open(folder, pointer.state)?),
            None => None,
        };
        let store = Self {
            folder: folder.to_owned(),
            current,
        };
        store.remove_unnamed()?;
        Ok(store)
    }

    /// Removes states that no pointer names.
    fn remove_unnamed(&self) -> Result<(), CheckpointError> {
        let prepared = Pointer::read(&self.folder, Pointer::PREPARED)?.map(|pointer| pointer.state);
        let current = self.current.as_ref().map(|current| &current.name);
        for name in state_names(&self.folder)? {
            if Some(&name) != current && Some(&name) != prepared.as_ref() {
                remove_state(&self.folder, &name)?;
            }
        }
        Ok(())
    }

    fn next_name(&self) -> Result<String, CheckpointError> {
        let numbers = state_names(&self.folder)?
            .into_iter()
            .filter_map(|name| number(&name));
        let number = numbers.max().unwrap_or(0) + 1;
        Ok(format!("{STATE_PREFIX}{number:016x}"))
    }

    /// The first state of a member that begins without one.
    fn begin_current(
        &mut self,
        meta: StateMeta,
        changes: Vec<RecordChange>,
    ) -> Result<(), CheckpointError> {
        let name = self.next_name()?;
        let database = StateDatabase::open(&self.folder.join(&name))?;
        database.write(&meta, changes)?;
        Pointer {
            state: name.clone(),
            meta: None,
        }
        .write(&self.folder, Pointer::CURRENT)?;
        self.current = Some(Current {
            name,
            meta,
            database,
        });
        Ok(())
    }
}

impl Current {
    fn open(folder: &Path, name: String) -> Result<Self, CheckpointError> {
        let path = folder.join(&name);
        if !path.is_dir() {
            return Err(CheckpointError::Damaged {
                reason: format!("{name} is missing"),
            });
        }
        let database = StateDatabase::open(&path)?;
        let Some(meta) = database.meta()? else {
            return Err(CheckpointError::Damaged {
                reason: format!("{name} has no position"),
            });
        };
        Ok(Self {
            name,
            meta,
            database,
        })
    }
}

impl CheckpointStore for FjallStore {
    fn current(&self) -> Option<&StateMeta> {
        self.current.as_ref().map(|current| &current.meta)
    }

    fn prepared(&self) -> Result<Option<StateMeta>, CheckpointError> {
        let pointer = Pointer::read(&self.folder, Pointer::PREPARED)?;
        let current = self.current.as_ref().map(|current| &current.name);
        // A crash between the two steps of an installation leaves the name in both places.
        let pointer = pointer.filter(|pointer| Some(&pointer.state) != current);
        Ok(pointer.and_then(|pointer| pointer.meta))
    }

    fn load(&self) -> Result<Option<(StateMeta, Records<'_>)>, CheckpointError> {
        let Some(current) = &self.current else {
            return Ok(None);
        };
        Ok(Some((
            current.meta.clone(),
            Box::new(current.database.records()),
        )))
    }

    fn write_delta(
        &mut self,
        meta: StateMeta,
        changes: Vec<RecordChange>,
    ) -> Result<(), CheckpointError> {
        let Some(current) = &mut self.current else {
            return self.begin_current(meta, changes);
        };
        current.database.write(&meta, changes)?;
        current.meta = meta;
        Ok(())
    }

    fn begin_full(&mut self, meta: StateMeta) -> Result<Box<dyn FullWriter>, CheckpointError> {
        self.discard_prepared()?;
        let name = self.next_name()?;
        Ok(Box::new(IngestingWriter::begin(&self.folder, name, meta)?))
    }

    fn install_prepared(&mut self) -> Result<(), CheckpointError> {
        if self.prepared()?.is_none() {
            return Err(CheckpointError::NotPrepared);
        }
        let Some(prepared) = Pointer::read(&self.folder, Pointer::PREPARED)? else {
            return Err(CheckpointError::NotPrepared);
        };
        let new = Current::open(&self.folder, prepared.state.clone())?;
        Pointer {
            state: prepared.state,
            meta: None,
        }
        .write(&self.folder, Pointer::CURRENT)?;
        // The old database is closed before its files go.
        self.current = Some(new);
        Pointer::remove(&self.folder, Pointer::PREPARED)?;
        self.remove_unnamed()
    }

    fn discard_prepared(&mut self) -> Result<(), CheckpointError> {
        Pointer::remove(&self.folder, Pointer::PREPARED)?;
        self.remove_unnamed()
    }
}

const STATE_PREFIX: &str = "state-";

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(STATE_PREFIX)?, 16).ok()
}

fn state_names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| io_error(&error))? {
        let name = entry.map_err(|error| io_error(&error))?.file_name();
        if let Some(name) = name.to_str().filter(|name| number(name).is_some()) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn remove_state(folder: &Path, name: &str) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&error)),
        _ => Ok(()),
    }
}

pub(crate) fn io_error(error: &io::Error) -> CheckpointError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CheckpointError::Full,
        _ => CheckpointError::Io {
            reason: error.to_string(),
        },
    }
}
