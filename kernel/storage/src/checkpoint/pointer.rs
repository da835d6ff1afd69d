//! A small file that names a state, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use bytes::Bytes;
use folkmoot_core::checkpoint::CheckpointError;
use folkmoot_core::log::{decode_state_meta, encode_state_meta};
use folkmoot_proto::record::StateMeta;

use super::io_error;
use crate::disk::sync_folder;

/// What such a file says.
pub(super) struct Pointer {
    /// The state's name.
    pub(super) state: String,
    /// Where it stands, for a prepared one.
    pub(super) meta: Option<StateMeta>,
}

impl Pointer {
    /// The file that names the current state.
    pub(super) const CURRENT: &'static str = "current";
    /// The file that names the prepared one.
    pub(super) const PREPARED: &'static str = "prepared";

    /// Reads a pointer, if it is there.
    pub(super) fn read(folder: &Path, file: &str) -> Result<Option<Self>, CheckpointError> {
        let bytes = match fs::read(folder.join(file)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&error)),
        };
        let damaged = || CheckpointError::Damaged {
            reason: format!("{file} names no state"),
        };
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let (Some(state), Some(meta)) = (parts.next(), parts.next()) else {
            return Err(damaged());
        };
        let state = std::str::from_utf8(state).map_err(|_| damaged())?;
        super::number(state).ok_or_else(damaged)?;
        let meta = match meta {
            [] => None,
            meta => {
                let meta = Bytes::copy_from_slice(meta);
                Some(decode_state_meta(meta).map_err(|_| damaged())?)
            }
        };
        Ok(Some(Self {
            state: state.to_owned(),
            meta,
        }))
    }

    /// Writes the pointer: durable when this returns, and until then the old one is there.
    pub(super) fn write(&self, folder: &Path, file: &str) -> Result<(), CheckpointError> {
        let mut bytes = self.state.clone().into_bytes();
        bytes.push(b'\n');
        if let Some(meta) = &self.meta {
            bytes.extend(encode_state_meta(meta));
        }
        replace(folder, file, &bytes).map_err(|error| io_error(&error))
    }

    /// Removes a pointer; it may be gone already.
    pub(super) fn remove(folder: &Path, file: &str) -> Result<(), CheckpointError> {
        match fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.and_then(|()| sync_folder(folder)),
        }
        .map_err(|error| io_error(&error))
    }
}

fn replace(folder: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!("{file}.draft"));
    let mut written = File::create(&draft)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(&draft, folder.join(file))?;
    sync_folder(folder)
}
