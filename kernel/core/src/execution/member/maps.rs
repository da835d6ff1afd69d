//! Partition maps, as the clients attached here are told of them.
//!
//! Nothing here is replicated, and nothing is kept of the past: a client that has a map as of some
//! zxid is told the records that are newer, whenever that was, so it is never told `compacted`. What
//! one entry changed is encoded once for all who had the same.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::client::ServerFrame;
use folkmoot_proto::codec::Compact;
use folkmoot_proto::group::{
    GROUPS, MemberRecord, MemberSpec, check_name, live_path, members_path,
};
use folkmoot_proto::limits::STREAM_MAPS_MAX;
use folkmoot_proto::partition::{
    FullBody, MapDetail, MapRecord, MapUpdate, MemberNo, PartitionId, PartitionRecord,
    RoutedMember, RoutedPartition, RoutingBody,
};
use folkmoot_proto::{MapId, SessionId, Zxid};

use crate::execution::{Execution, ExecutionAction, StreamId};
use crate::mutation::{self, Mutation};
use crate::state::{AppliedTxn, Notice, View};

/// Partitions of one update: a map with more comes in parts.
const PARTITIONS_PER_UPDATE: usize = 4096;
/// Bytes of updates that a stream's client has not taken, beyond which it is told later, and then
/// only what is new.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;
/// What an update takes beside its body, about.
const ENVELOPE_BYTES: usize = 64;

/// The maps that streams are told of.
#[derive(Debug, Default)]
pub(in crate::execution) struct MapWatches {
    /// By group, who is told, and through what.
    groups: BTreeMap<String, BTreeMap<(StreamId, MapDetail), Option<Zxid>>>,
    streams: BTreeMap<StreamId, OfStream>,
    /// Groups of maps, so that one that is gone is known by its name.
    names: BTreeMap<MapId, String>,
}

/// What is known of a stream.
#[derive(Debug, Default)]
struct OfStream {
    told: BTreeSet<(String, MapDetail)>,
    /// Bytes that its client has not taken.
    backlog: usize,
    /// It takes too little: it is told once it has taken that.
    behind: bool,
}

impl MapWatches {
    fn forget(&mut self, stream: StreamId) {
        let Some(of) = self.streams.remove(&stream) else {
            return;
        };
        for (group, detail) in of.told {
            self.remove(&group, (stream, detail));
        }
    }

    fn remove(&mut self, group: &str, key: (StreamId, MapDetail)) {
        if let Some(watchers) = self.groups.get_mut(group) {
            watchers.remove(&key);
            if watchers.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

impl Execution {
    /// A client wants to be told of a map.
    pub(in crate::execution) fn watch_map(
        &mut self,
        stream: StreamId,
        group: String,
        detail: MapDetail,
        since: Option<Zxid>,
    ) {
        let of = self.maps.streams.entry(stream).or_default();
        let many = of.told.len() >= STREAM_MAPS_MAX && !of.told.contains(&(group.clone(), detail));
        let refused = match check_name("group", &group) {
            Err(reason) => Some(reason),
            Ok(()) if many => Some(format!(
                "a stream is told of {STREAM_MAPS_MAX} maps at most"
            )),
            Ok(()) => None,
        };
        if let Some(reason) = refused {
            let refused = ServerFrame::MapRefused {
                group,
                detail,
                reason,
            };
            return self.send(stream, refused);
        }
        of.told.insert((group.clone(), detail));
        let watchers = self.maps.groups.entry(group.clone()).or_default();
        watchers.insert((stream, detail), since);
        self.tell_map(&group, Some((stream, detail)));
    }

    /// A client does not want to be told of a map any more.
    pub(in crate::execution) fn unwatch_map(
        &mut self,
        stream: StreamId,
        group: &str,
        detail: MapDetail,
    ) {
        if let Some(of) = self.maps.streams.get_mut(&stream) {
            of.told.remove(&(group.to_owned(), detail));
        }
        self.maps.remove(group, (stream, detail));
    }

    /// A stream ended.
    pub(in crate::execution) fn forget_maps(&mut self, stream: StreamId) {
        self.maps.forget(stream);
    }

    /// A stream's client took bytes.
    pub(in crate::execution) fn maps_drained(&mut self, stream: StreamId, bytes: usize) {
        let Some(of) = self.maps.streams.get_mut(&stream) else {
            return;
        };
        of.backlog = of.backlog.saturating_sub(bytes);
        if of.behind && of.backlog <= BACKLOG_BYTES_MAX / 2 {
            of.behind = false;
            for (group, detail) in of.told.clone() {
                self.tell_map(&group, Some((stream, detail)));
            }
        }
    }

    /// Tells of the maps that an entry's transactions have changed, before anything that reflects
    /// them is sent.
    pub(in crate::execution) fn publish_maps(&mut self, txns: &[AppliedTxn]) {
        if self.state().counters().maps == 0 && self.maps.names.is_empty() {
            return;
        }
        let mut changed = BTreeSet::new();
        for txn in txns {
            for notice in &txn.notices {
                if let Notice::Assigned { map, .. }
                | Notice::PartitionDescribed { map, .. }
                | Notice::MapChanged { map } = notice
                {
                    changed.extend(self.group_of(*map));
                }
            }
            let groups = txn
                .changes
                .iter()
                .filter_map(|change| group_of_path(&change.path));
            changed.extend(groups.map(str::to_owned));
        }
        for group in changed {
            if self.maps.groups.contains_key(&group) {
                self.tell_map(&group, None);
            }
        }
    }

    /// The group of a map, also of one that was removed.
    fn group_of(&mut self, map: MapId) -> Option<String> {
        match self.state().map(map).map(|record| record.group.clone()) {
            Some(group) => {
                self.maps.names.insert(map, group.clone());
                Some(group)
            }
            None => self.maps.names.remove(&map),
        }
    }

    /// Tells one watcher, or all of a group.
    fn tell_map(&mut self, group: &str, only: Option<(StreamId, MapDetail)>) {
        let applied = self.state().zxid();
        // Also after a restart the map's end must be known for one of this group.
        let map = self.state().map_of(group).map(|(map, _)| map);
        if let Some(map) = map {
            self.maps.names.insert(map, group.to_owned());
        }
        let watchers = self.maps.groups.get(group);
        let mut watchers: Vec<_> = watchers
            .into_iter()
            .flatten()
            .filter(|(key, _)| only.is_none_or(|only| only == **key))
            .map(|(key, told)| (*key, *told))
            .collect();
        // Those who had the same are told the same bytes.
        watchers.sort_by_key(|((_, detail), told)| (*detail, *told));
        type Known = (MapDetail, Option<Zxid>);
        let mut encoded: Option<(Known, Vec<MapUpdate>)> = None;
        for ((stream, detail), told) in watchers {
            if self.maps.streams.get(&stream).is_none_or(|of| of.behind) {
                continue;
            }
            let same = encoded
                .as_ref()
                .is_some_and(|(key, _)| *key == (detail, told));
            if !same {
                let updates = updates(self.state(), group, detail, told);
                encoded = Some(((detail, told), updates));
            }
            let Some((_, updates)) = &encoded else {
                continue;
            };
            for update in updates.clone() {
                self.send_update(stream, update);
            }
            let watchers = self.maps.groups.get_mut(group);
            if let Some(told) = watchers.and_then(|all| all.get_mut(&(stream, detail))) {
                *told = Some(applied);
            }
        }
    }

    fn send_update(&mut self, stream: StreamId, update: MapUpdate) {
        if let Some(of) = self.maps.streams.get_mut(&stream) {
            of.backlog += update.body.len() + update.group.len() + ENVELOPE_BYTES;
            of.behind = of.backlog > BACKLOG_BYTES_MAX;
        }
        let frame = ServerFrame::Map(update);
        self.act(ExecutionAction::ToStream { stream, frame });
    }

    /// Through which zxid a session's client must have taken in its maps, for the leases of its
    /// partitions to go on by an acknowledgement of a leader that had applied `revoked` (rule R35).
    /// None while this member has not applied that, or has not told it, or tells no map in full.
    ///
    /// The client compares the position with its copy of each map alone. It is the highest zxid
    /// through which the stream was told of any map in full. What is applied here of the stream's
    /// maps, every revoke up to `revoked` with it, was told by then: a copy that is through the
    /// position has it. And the maps that were told less, since nothing of them changed, are
    /// brought up to the position here: every copy gets there, also that of a map that is quiet.
    pub(super) fn map_position(&mut self, session: SessionId, revoked: Zxid) -> Option<Zxid> {
        let stream = self.streams.serving(session)?;
        let of = self.maps.streams.get(&stream)?;
        if mutation::is_on(Mutation::LeaseWithoutPosition) {
            return Some(Zxid::ZERO);
        }
        // Until the client has said which maps it goes on with, one may be missing.
        if of.behind || self.watches.holds_back(stream) || self.state().zxid() < revoked {
            return None;
        }
        let is_full = |(_, detail): &&(String, MapDetail)| *detail == MapDetail::Full;
        let told = of.told.iter().filter(is_full).map(|(group, detail)| {
            let told = self.maps.groups.get(group)?.get(&(stream, *detail))?;
            Some((group.clone(), (*told)?))
        });
        // Each was told, since the stream is not behind; were one not, none of it could be named.
        let told: Vec<(String, Zxid)> = told.collect::<Option<_>>()?;
        let position = told.iter().map(|(_, told)| *told).max()?;
        for (group, told) in told {
            if told < position {
                self.tell_unchanged(stream, group, (told, position));
            }
        }
        Some(position)
    }

    /// Tells a stream that nothing of a map has changed since it was told of it in full. An update
    /// of its own for this takes no look at the map's members, and brings the client no further
    /// than it must be: maps that are quiet are told no more once all are as far.
    fn tell_unchanged(&mut self, stream: StreamId, group: String, (told, through): (Zxid, Zxid)) {
        let map = self.state().map_of(&group);
        let layout = map.map_or(Zxid::ZERO, |(_, record)| record.layout);
        let changed = map.is_some_and(|(map, record)| {
            record.changed > told || !self.state().changed_after(map, told).is_empty()
        });
        assert!(
            layout <= told && !changed,
            "what changed of the map of {group} after {told} was not told to {stream:?}"
        );
        let watchers = self.maps.groups.get_mut(&group);
        if let Some(told) = watchers.and_then(|all| all.get_mut(&(stream, MapDetail::Full))) {
            *told = Some(through);
        }
        let body = FullBody {
            layout,
            ..FullBody::default()
        };
        let update = MapUpdate {
            group,
            detail: MapDetail::Full,
            base: Some(told),
            through,
            body: body.to_compact(),
        };
        self.send_update(stream, update);
    }
}

/// The group of a path below the groups.
fn group_of_path(path: &str) -> Option<&str> {
    let below = path.strip_prefix(GROUPS)?.strip_prefix('/')?;
    below.split('/').next()
}

/// What a client that has a group's map as of `since` is told, in parts: all but the last bring it
/// no further than it was.
fn updates(
    view: &impl View,
    group: &str,
    detail: MapDetail,
    since: Option<Zxid>,
) -> Vec<MapUpdate> {
    let through = view.zxid();
    let map = view.map_of(group);
    let layout = map.map_or(Zxid::ZERO, |(_, record)| record.layout);
    // A map that is gone, or whose layout is newer than what the client has, is told anew.
    let base = since.filter(|since| map.is_some() && *since >= layout && *since <= through);
    let from = base.unwrap_or(Zxid::ZERO);
    let update = |base, through, body| MapUpdate {
        group: group.to_owned(),
        detail,
        base,
        through,
        body,
    };
    let Some((id, record)) = map else {
        let body = body(view, None, detail, base, &[]);
        return vec![update(None, through, body)];
    };
    let partitions = match base {
        Some(base) => view.changed_after(id, base),
        None => view.partitions(id),
    };
    let mut parts: Vec<&[PartitionId]> = partitions.chunks(PARTITIONS_PER_UPDATE).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let last = parts.len() - 1;
    let part = |(place, part): (usize, &[PartitionId])| {
        let of_part = if place == 0 { base } else { Some(from) };
        let is_first = (place == 0).then_some(base);
        let body = match is_first {
            Some(base) => body(view, Some((id, record)), detail, base, part),
            None => rest_of_body(view, (id, record), (detail, base), part),
        };
        update(of_part, if place == last { through } else { from }, body)
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// The body of an update with what is beside the partitions.
fn body(
    view: &impl View,
    map: Option<(MapId, &MapRecord)>,
    detail: MapDetail,
    base: Option<Zxid>,
    partitions: &[PartitionId],
) -> Vec<u8> {
    let layout = map.map_or(Zxid::ZERO, |(_, record)| record.layout);
    let members = map.map_or_else(Vec::new, |(_, record)| members(view, record, base));
    match detail {
        MapDetail::Routing => {
            let routed = |map| routed(view, map, base.is_none(), partitions);
            let body = RoutingBody {
                layout,
                members,
                partitions: map.map_or_else(Vec::new, routed),
            };
            body.to_compact()
        }
        MapDetail::Full => {
            let changed = |record: &&MapRecord| base.is_none_or(|base| record.changed > base);
            let record = map.map(|(_, record)| record).filter(changed);
            let without_members = |record: &MapRecord| MapRecord {
                members: Vec::new(),
                ..record.clone()
            };
            let body = FullBody {
                layout,
                map: record.map(without_members),
                members,
                partitions: map.map_or_else(Vec::new, |(id, _)| full(view, id, partitions)),
            };
            body.to_compact()
        }
    }
}

/// The body of an update that follows another one.
fn rest_of_body(
    view: &impl View,
    (map, record): (MapId, &MapRecord),
    (detail, base): (MapDetail, Option<Zxid>),
    partitions: &[PartitionId],
) -> Vec<u8> {
    match detail {
        MapDetail::Routing => {
            let partitions = routed(view, (map, record), base.is_none(), partitions);
            let body = RoutingBody {
                layout: record.layout,
                partitions,
                ..RoutingBody::default()
            };
            body.to_compact()
        }
        MapDetail::Full => {
            let body = FullBody {
                layout: record.layout,
                partitions: full(view, map, partitions),
                ..FullBody::default()
            };
            body.to_compact()
        }
    }
}

fn full(
    view: &impl View,
    map: MapId,
    partitions: &[PartitionId],
) -> Vec<(PartitionId, PartitionRecord)> {
    let records = partitions.iter().filter_map(|partition| {
        let record = view.partition(map, *partition)?;
        Some((*partition, record.clone()))
    });
    records.collect()
}

fn routed(
    view: &impl View,
    (map, _): (MapId, &MapRecord),
    with_keys: bool,
    partitions: &[PartitionId],
) -> Vec<RoutedPartition> {
    let routed = partitions.iter().filter_map(|partition| {
        let record = view.partition(map, *partition)?;
        let owner = record.assignment.owner.map(|owner| owner.member);
        let replicas = record.assignment.replicas.iter();
        let followers = replicas.filter(|it| it.ready && Some(it.member) != owner);
        Some(RoutedPartition {
            partition: *partition,
            key: with_keys.then(|| record.key.clone()),
            owner,
            followers: followers.map(|it| it.member).collect(),
        })
    });
    routed.collect()
}

/// The members that came or changed after `base`.
fn members(view: &impl View, map: &MapRecord, base: Option<Zxid>) -> Vec<RoutedMember> {
    let (live, records) = (live_path(&map.group), members_path(&map.group));
    let numbers = (0..).map(MemberNo).zip(&map.members);
    let told = numbers.filter_map(|(member, id)| {
        if id.is_empty() {
            return None;
        }
        let live = view.node(&format!("{live}/{id}"));
        let record = view.node(&format!("{records}/{id}"));
        let newest = live.iter().chain(&record).map(|node| node.stat.mzxid).max();
        let numbered = base.is_some_and(|base| map.changed > base);
        let is_new = base.is_none_or(|base| newest.is_some_and(|newest| newest > base));
        let is_a_number_alone = numbered && newest.is_none();
        if !(is_new || is_a_number_alone) {
            return None;
        }
        let spec = live.and_then(|node| serde_json::from_slice::<MemberSpec>(node.data).ok());
        let kept = record.and_then(|node| serde_json::from_slice::<MemberRecord>(node.data).ok());
        Some(RoutedMember {
            member,
            id: id.clone(),
            incarnation: live.map(|node| node.stat.czxid),
            address: spec.map(|spec| spec.address).unwrap_or_default(),
            zone: kept.map(|kept| kept.zone).unwrap_or_default(),
        })
    });
    told.collect()
}
