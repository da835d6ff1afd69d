//! The group's map, worked out a second time.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::effect::Effect;
use folkmoot_proto::group::group_path;
use folkmoot_proto::partition::{
    Assignment, MapLedger, MapRecord, MemberNo, MoveReason, PartitionId,
};
use folkmoot_proto::{MapId, Zxid};

use crate::client::worker::GROUP;

/// The map and its partitions.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    pub(crate) map: Option<(MapId, MapRecord)>,
    pub(crate) ledger: MapLedger,
    /// Who has a partition, as it is.
    pub(crate) now: BTreeMap<PartitionId, Assignment>,
    /// Who had it from when on; none: there was no such partition.
    history: BTreeMap<PartitionId, Vec<(Zxid, Option<Assignment>)>>,
    /// When a member of the group last came, went or changed, or the map did.
    cause: Zxid,
    /// Transactions that changed who has what.
    changes: BTreeSet<Zxid>,
}

impl Maps {
    pub(crate) fn name(&self, member: MemberNo) -> Option<&str> {
        let (_, record) = self.map.as_ref()?;
        record.members.get(member.0 as usize).map(String::as_str)
    }

    /// Who had the partitions once `zxid` was applied.
    pub(crate) fn at(&self, zxid: Zxid) -> BTreeMap<PartitionId, &Assignment> {
        let of = |spans: &'_ Vec<(Zxid, Option<Assignment>)>| {
            let after = spans.partition_point(|(since, _)| *since <= zxid);
            after.checked_sub(1)
        };
        let spans = self.history.iter();
        spans
            .filter_map(|(id, spans)| Some((*id, spans[of(spans)?].1.as_ref()?)))
            .collect()
    }

    /// A change after `from` and up to `to`, if there is one.
    pub(crate) fn change(&self, from: Zxid, to: Zxid) -> Option<Zxid> {
        if to <= from {
            return None;
        }
        self.changes.range(from.next()..=to).next().copied()
    }

    /// Notes what may be a cause to plan anew.
    pub(crate) fn membership(&mut self, zxid: Zxid, effect: &Effect) {
        let caused = match effect {
            Effect::CreateNode { path, .. }
            | Effect::SetNode { path, .. }
            | Effect::DeleteNode { path, .. } => {
                let below = path.strip_prefix(group_path(GROUP).as_str());
                below.is_some_and(|below| below.starts_with('/'))
            }
            Effect::PutMap { .. } | Effect::SplitPartition { .. } => true,
            _ => false,
        };
        if caused {
            self.cause = zxid;
        }
    }

    /// How often a partition was given to another owner for balance after `zxid`, and since there was a
    /// cause for that.
    pub(crate) fn balanced(&self, partition: PartitionId, zxid: Zxid) -> usize {
        let spans = self.history.get(&partition).into_iter().flatten();
        let after = spans.filter(|(since, _)| *since > zxid.max(self.cause));
        let given = after.filter(|(since, of)| {
            let of = of.as_ref().filter(|of| of.why == MoveReason::Balance);
            of.and_then(|of| of.owner)
                .is_some_and(|owner| owner.token == *since)
        });
        given.count()
    }

    pub(crate) fn effect(&mut self, zxid: Zxid, effect: &Effect) -> Result<(), String> {
        let known = self.map.as_ref().map(|(map, _)| *map);
        match effect {
            Effect::CreateMap { record, .. } if record.group != GROUP => {}
            Effect::PutMap { map, .. }
            | Effect::PutLedger { map, .. }
            | Effect::Assign { map, .. }
            | Effect::SplitPartition { map, .. }
                if Some(*map) != known => {}
            Effect::CreateMap { record, layout } => {
                if self.map.is_some() {
                    return Err("the group has a map".to_owned());
                }
                self.map = Some((MapId(zxid.0), (**record).clone()));
                for (number, _) in (0..).zip(layout.keys()) {
                    self.put(zxid, PartitionId(number), Some(Assignment::default()));
                }
            }
            Effect::PutMap { record, .. } => {
                let map = self.map.as_mut().ok_or("there is no map")?;
                map.1 = (**record).clone();
            }
            Effect::PutLedger { ledger, .. } => self.ledger = (**ledger).clone(),
            Effect::Assign {
                partition,
                assignment,
                ..
            } => {
                if !self.now.contains_key(partition) {
                    return Err("there is no such partition".to_owned());
                }
                self.put(zxid, *partition, Some((**assignment).clone()));
            }
            Effect::SplitPartition {
                partition, parts, ..
            } => {
                let map = self.map.as_mut().ok_or("there is no map")?;
                let first = map.1.next_partition.0;
                map.1.next_partition = PartitionId(first + parts.len() as u32);
                map.1.partitions += parts.len() as u32 - 1;
                map.1.layout = zxid;
                self.put(zxid, *partition, None);
                for (number, part) in (first..).zip(parts) {
                    self.put(zxid, PartitionId(number), Some(part.assignment.clone()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, zxid: Zxid, partition: PartitionId, assignment: Option<Assignment>) {
        self.changes.insert(zxid);
        match &assignment {
            Some(assignment) => self.now.insert(partition, assignment.clone()),
            None => self.now.remove(&partition),
        };
        self.history
            .entry(partition)
            .or_default()
            .push((zxid, assignment));
    }
}
