//! A member's data as it is loaded at a start: checkpoint and log tail, verified.

use bytes::Bytes;
use folkmoot_core::checkpoint::{CheckpointError, CheckpointStore};
use folkmoot_core::consensus::RecoveredLog;
use folkmoot_core::log::{LogConfig, LogOrigin, RecoverError};
use folkmoot_core::state::State;
use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_storage::{FjallStore, LogOpenError, LogService};

use crate::config::ServerConfig;
use crate::error::StartError;
use crate::folder::{Folder, Origin};

/// Bytes of recent entries that consensus begins with: as much as it keeps itself.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a member starts from.
pub(crate) struct Data {
    pub(crate) folder: Folder,
    pub(crate) store: FjallStore,
    pub(crate) log: LogService,
    pub(crate) recovered: RecoveredLog,
    /// The checkpoint's state, or the empty one.
    pub(crate) state: State,
    /// The cluster as it was made: what the log says, where it says something (rule R21).
    pub(crate) bootstrap: Bootstrap,
    pub(crate) bootstrap_bytes: Bytes,
}

/// Opens the data folder and loads it.
pub(crate) fn open(
    config: &ServerConfig,
    bootstrap: &Bootstrap,
    bootstrap_bytes: &Bytes,
) -> Result<Data, StartError> {
    let mut folder = Folder::open(
        &config.data,
        bootstrap.cluster,
        config.member,
        &config.bootstrap,
    )?;
    let damaged = |reason: String| StartError::Damaged {
        path: config.data.clone(),
        reason,
    };
    let mut store = FjallStore::open(&folder.checkpoint()).map_err(|error| match error {
        CheckpointError::Damaged { reason } => damaged(reason),
        error => StartError::Folder {
            path: config.data.clone(),
            reason: error.to_string(),
        },
    })?;
    let log_config = LogConfig {
        cluster: bootstrap.cluster,
        member: config.member,
        incarnation: folder.incarnation(),
        segment_bytes: config.log.segment_bytes,
        recent_bytes_max: RECENT_BYTES_MAX,
    };
    let if_missing = folder.is_fresh().then(|| match folder.origin() {
        Origin::Bootstrap => LogOrigin::Bootstrap,
        Origin::Wiped => LogOrigin::Wiped,
    });
    let voters = bootstrap.members.len();
    let (log, recovered) =
        LogService::open(&folder.log(), log_config, if_missing, voters, &mut store)
            .map_err(|error| log_error(config, error))?;
    folder.begun()?;
    if recovered.wiped {
        tracing::warn!(
            "this member's data was lost: it follows, and can neither vote nor count for a quorum, so \
             the cluster tolerates one failure less. If the data folder was only moved, stop this \
             member and put it back"
        );
    }
    let bootstrap_bytes = match recovered.bootstrap.is_empty() {
        true => bootstrap_bytes.clone(),
        false => recovered.bootstrap.clone(),
    };
    let bootstrap =
        Bootstrap::from_bytes(&bootstrap_bytes).map_err(|error| damaged(error.to_string()))?;
    let state = load(&store, &bootstrap_bytes).map_err(damaged)?;
    Ok(Data {
        folder,
        store,
        log,
        recovered,
        state,
        bootstrap,
        bootstrap_bytes,
    })
}

fn log_error(config: &ServerConfig, error: LogOpenError) -> StartError {
    let path = config.data.clone();
    let reason = error.to_string();
    match error {
        // It is whole, and for another version of the program.
        LogOpenError::Recover {
            source: RecoverError::Version { .. },
            ..
        }
        | LogOpenError::Disk { .. }
        | LogOpenError::Failed(_)
        | LogOpenError::Checkpoint(_) => StartError::Folder { path, reason },
        LogOpenError::Missing { .. }
        | LogOpenError::Recover { .. }
        | LogOpenError::DamagedAlone { .. } => StartError::Damaged { path, reason },
    }
}

/// The checkpoint's state, verified by its hash (rule R26).
fn load(store: &FjallStore, bootstrap: &Bytes) -> Result<State, String> {
    let Some((meta, records)) = store.load().map_err(|error| error.to_string())? else {
        return State::new(bootstrap.clone()).map_err(|error| error.to_string());
    };
    let mut unreadable = None;
    let records = records.map_while(|record| match record {
        Ok(record) => Some((record.key, record.value.unwrap_or_default())),
        Err(error) => {
            unreadable = Some(error);
            None
        }
    });
    let state = State::from_records(&meta, records);
    match (unreadable, state) {
        (Some(error), _) => Err(format!("the checkpoint: {error}")),
        (None, state) => state.map_err(|error| format!("the checkpoint: {error}")),
    }
}
