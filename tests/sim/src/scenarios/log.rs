//! Scenarios of one member's log on a disk.

use bytes::Bytes;
use folkmoot_core::consensus::{PersistId, bootstrap_entry};
use folkmoot_core::log::{
    DiskOpKind, Log, LogConfig, LogFile, LogOrigin, LogRecord, RecoverError, Recovered,
};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, LogTime, MemberId, Term, Zxid};

use crate::disk::SimDisk;
use crate::member::CLUSTER;
use crate::world::bootstrap;

/// A log of entries that were each durable before the next one was written.
struct Written {
    disk: SimDisk,
    /// Where each entry is, from entry 1.
    places: Vec<(LogFile, u64)>,
}

impl Written {
    fn new(entries: u64) -> Result<Self, String> {
        let (mut log, _) = Log::create(config(), LogOrigin::Bootstrap);
        let mut written = Self {
            disk: SimDisk::new(7, 1),
            places: Vec::new(),
        };
        written.settle(&mut log)?;
        for index in 1..=entries {
            log.append(PersistId(index), records(LogIndex(index)));
            let place = written.settle(&mut log)?;
            written.places.extend(place);
        }
        Ok(written)
    }

    /// Does what the log wants done; answers where the last write went.
    fn settle(&mut self, log: &mut Log) -> Result<Option<(LogFile, u64)>, String> {
        let mut place = None;
        while let Some(op) = log.poll_op() {
            if let DiskOpKind::Write { file, offset, .. } = &op.kind {
                place = Some((*file, *offset));
            }
            let id = op.id;
            self.disk.begin(op);
            let result = self.disk.finish(id);
            log.handle_done(id, result)
                .map_err(|failed| failed.to_string())?;
        }
        Ok(place)
    }

    fn recover(&self, checkpoint: Option<&StateMeta>) -> Result<Recovered, RecoverError> {
        Log::recover(&config(), &self.disk, checkpoint, None)
    }
}

fn config() -> LogConfig {
    LogConfig {
        cluster: CLUSTER,
        member: MemberId(1),
        incarnation: Incarnation(1),
        segment_bytes: 64 * 1024,
        recent_bytes_max: 64 * 1024,
    }
}

/// What is written with an entry: with the first one, the term too.
fn records(index: LogIndex) -> Vec<LogRecord> {
    if index == LogIndex(1) {
        let hard_state = LogRecord::HardState {
            term: Term(1),
            vote: Some(MemberId(1)),
        };
        return vec![hard_state, LogRecord::Entry(bootstrap_entry(bootstrap(3)))];
    }
    vec![LogRecord::Entry(Entry {
        index,
        term: Term(1),
        last_zxid: Zxid::ZERO,
        kind: EntryKind::NoOp,
        payload: Bytes::new(),
    })]
}

/// Damage below what is known to have been durable is a loss, which the member must not forget;
/// damage of the last write is a torn tail, which was never acknowledged (rule R23).
pub(super) fn lost_data_is_told_from_a_torn_tail() -> Result<(), String> {
    for (damaged, lost) in [(3, Some(LogIndex(5))), (5, None)] {
        let mut written = Written::new(5)?;
        let Some((file, offset)) = written.places.get(damaged - 1).copied() else {
            return Err(format!(
                "only {} entries were written",
                written.places.len()
            ));
        };
        if !written.disk.flip(file, offset as usize, 0) {
            return Err(format!("{file} is not there"));
        }
        let state = written
            .recover(None)
            .map_err(|error| error.to_string())?
            .state;
        if state.damaged_up_to != lost {
            return Err(format!(
                "entry {damaged} of 5 is damaged, the log is damaged up to {:?}",
                state.damaged_up_to
            ));
        }
    }
    Ok(())
}

/// A checkpoint that is ahead of its log, with no record of a snapshot, is not this log's: the
/// member does not start (rule R25).
pub(super) fn a_checkpoint_ahead_of_its_log_is_refused() -> Result<(), String> {
    let written = Written::new(5)?;
    let at = |index| StateMeta {
        cluster: CLUSTER,
        index,
        term: Term(1),
        zxid: Zxid::ZERO,
        log_time: LogTime::ZERO,
        state_hash: 0,
        feature_level: 1,
        bootstrap: bootstrap(3),
    };
    if let Err(error) = written.recover(Some(&at(LogIndex(5)))) {
        return Err(format!("with a checkpoint of its last entry: {error}"));
    }
    match written.recover(Some(&at(LogIndex(6)))) {
        Err(RecoverError::CheckpointAhead { .. }) => Ok(()),
        Err(error) => Err(format!("it is refused for another reason: {error}")),
        Ok(_) => Err("it starts with a checkpoint of an entry that it does not have".to_owned()),
    }
}
