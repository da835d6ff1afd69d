//! Applying entries of the log to the committed state.

use bytes::Bytes;
use folkmoot_proto::batch::{Batch, Txn};
use folkmoot_proto::client::ChangeKind;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::{MapId, SessionId};

use super::applied::{AppliedTxn, NodeChange, Notice};
use super::apply::{ApplyError, Stamp, apply_effect, finish_txn};
use super::committed::{Position, State};

impl State {
    /// Applies the next entry of the log, and says what its transactions did, in order.
    ///
    /// # Errors
    ///
    /// What does not hold. This member's state is wrong then, or was made wrong by half an entry:
    /// it must stop (rules R3, R5, R6).
    pub fn apply_entry(&mut self, entry: &Entry) -> Result<Vec<AppliedTxn>, ApplyError> {
        let before = self.position();
        let next = before.index.next();
        if entry.index != next {
            return Err(ApplyError::NotNextEntry {
                expected: next,
                got: entry.index,
            });
        }
        if entry.term < before.term {
            return Err(bad_term(entry, before.term));
        }
        let mut applied = Vec::new();
        let mut position = Position {
            index: entry.index,
            term: entry.term,
            ..before
        };
        match entry.kind {
            EntryKind::NoOp => {}
            EntryKind::Bootstrap => {
                if entry.index.0 != 1 || entry.payload != *self.bootstrap_bytes() {
                    return Err(ApplyError::BadBootstrap);
                }
            }
            EntryKind::Batch => {
                let batch = Batch::decode(&entry.payload)?;
                check_batch(entry, &batch, before)?;
                position.zxid = batch.last_zxid();
                position.log_time = batch.log_time;
                applied = self.apply_batch(batch)?;
            }
        }
        if entry.last_zxid != position.zxid {
            return Err(ApplyError::BadEnd {
                says: entry.last_zxid,
                ends: position.zxid,
            });
        }
        self.move_to(position);
        Ok(applied)
    }

    fn apply_batch(&mut self, batch: Batch) -> Result<Vec<AppliedTxn>, ApplyError> {
        let mut applied = Vec::with_capacity(batch.txns.len());
        let mut stamp = Stamp {
            zxid: batch.first_zxid,
            log_time: batch.log_time,
            wall_time: batch.wall_time,
        };
        for txn in batch.txns {
            applied.push(self.apply_txn(stamp, txn)?);
            stamp.zxid = stamp.zxid.next();
        }
        Ok(applied)
    }

    fn apply_txn(&mut self, stamp: Stamp, mut txn: Txn) -> Result<AppliedTxn, ApplyError> {
        let mut changes = Vec::new();
        let mut notices = Vec::new();
        for effect in &mut txn.effects {
            apply_effect(self, stamp, effect, &mut changes)?;
            notices.extend(notice_of(stamp, effect));
            changes.extend(change_of(effect));
        }
        finish_txn(self, stamp, &txn)?;
        Ok(AppliedTxn {
            zxid: stamp.zxid,
            log_time: stamp.log_time,
            wall_time: stamp.wall_time,
            origin: txn.origin,
            completions: txn.completions,
            notices,
            changes,
        })
    }
}

fn bad_term(entry: &Entry, expected: folkmoot_proto::Term) -> ApplyError {
    ApplyError::BadTerm {
        index: entry.index,
        term: entry.term,
        expected,
    }
}

fn check_batch(entry: &Entry, batch: &Batch, before: Position) -> Result<(), ApplyError> {
    if batch.term != entry.term {
        return Err(bad_term(entry, batch.term));
    }
    if batch.base_zxid != before.zxid {
        return Err(ApplyError::Chain {
            base: batch.base_zxid,
            applied: before.zxid,
        });
    }
    if batch.log_time < before.log_time {
        return Err(ApplyError::TimeWentBack {
            applied: before.log_time,
            got: batch.log_time,
        });
    }
    Ok(())
}

fn notice_of(stamp: Stamp, effect: &Effect) -> Option<Notice> {
    Some(match *effect {
        Effect::OpenSession { member, .. } => Notice::SessionOpened {
            session: SessionId(stamp.zxid.0),
            member,
        },
        Effect::AttachSession {
            session,
            epoch,
            member,
        } => Notice::SessionAttached {
            session,
            epoch,
            member,
        },
        Effect::CloseSession { session, expired } => Notice::SessionClosed { session, expired },
        Effect::QueueEvent { mount, .. } => Notice::EventQueued { mount },
        Effect::PutMount { mount, .. } => Notice::MountPut { mount },
        Effect::RemoveMount { mount } => Notice::MountRemoved { mount },
        Effect::SealUpload { digest, .. } => Notice::UploadSealed { digest },
        Effect::PutComponent { digest, .. } => Notice::ComponentPut { digest },
        Effect::RemoveComponent { digest } => Notice::ComponentRemoved { digest },
        Effect::Assign { map, partition, .. } => Notice::Assigned { map, partition },
        Effect::PutPartition { map, partition, .. } => {
            Notice::PartitionDescribed { map, partition }
        }
        Effect::CreateMap { .. } => Notice::MapChanged {
            map: MapId(stamp.zxid.0),
        },
        Effect::PutMap { map, .. }
        | Effect::RemoveMap { map }
        | Effect::SplitPartition { map, .. } => Notice::MapChanged { map },
        _ => return None,
    })
}

/// A node effect as watches are told of it. It takes the effect's path and value.
fn change_of(effect: &mut Effect) -> Option<NodeChange> {
    let (path, kind, data, version) = match effect {
        Effect::CreateNode { path, data, .. } => (path, ChangeKind::Created, data, 0),
        Effect::SetNode {
            path,
            data,
            version,
        } => (path, ChangeKind::Set, data, *version),
        Effect::DeleteNode { path, .. } => (path, ChangeKind::Deleted, &mut Vec::new(), 0),
        _ => return None,
    };
    Some(NodeChange {
        path: core::mem::take(path),
        kind,
        data: Bytes::from(core::mem::take(data)),
        version,
    })
}
