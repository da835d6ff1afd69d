//! Copies of partition maps, kept current by what a member tells.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use folkmoot_proto::Zxid;
use folkmoot_proto::codec::Compact as _;
use folkmoot_proto::partition::{
    FullBody, MapDetail, MapRecord, MapUpdate, MemberNo, PartitionId, PartitionKey,
    PartitionRecord, RoutedMember, RoutedPartition, RoutingBody, key_hash,
};

use super::Violation;

/// A copy that a session's task writes and its handles read.
#[derive(Clone, Debug)]
pub(crate) struct SharedCopy(Arc<RwLock<MapCopy>>);

impl SharedCopy {
    pub(crate) fn new(detail: MapDetail) -> Self {
        Self(Arc::new(RwLock::new(MapCopy::new(detail))))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, MapCopy> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, MapCopy> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A map as it is told.
#[derive(Debug)]
pub(crate) enum MapCopy {
    Routing(RoutingMap),
    Full(FullMap),
}

/// Which partitions an update touched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    All,
    Some(Vec<PartitionId>),
}

impl MapCopy {
    pub(super) fn new(detail: MapDetail) -> Self {
        match detail {
            MapDetail::Routing => Self::Routing(RoutingMap::default()),
            MapDetail::Full => Self::Full(FullMap::default()),
        }
    }

    pub(crate) fn routing(&self) -> Option<&RoutingMap> {
        match self {
            Self::Routing(map) => Some(map),
            Self::Full(_) => None,
        }
    }

    pub(crate) fn full(&self) -> Option<&FullMap> {
        match self {
            Self::Full(map) => Some(map),
            Self::Routing(_) => None,
        }
    }

    /// Takes an update in, whose base the caller has compared.
    pub(super) fn apply(&mut self, update: &MapUpdate) -> Result<Touched, Violation> {
        let bad = |error| Violation::BadMap {
            group: update.group.clone(),
            error,
        };
        let anew = update.base.is_none();
        match self {
            Self::Routing(map) => {
                let body = RoutingBody::from_compact(&update.body).map_err(bad)?;
                map.apply(anew, update.through, body)
            }
            Self::Full(map) => {
                let body = FullBody::from_compact(&update.body).map_err(bad)?;
                map.apply(anew, update.through, body)
            }
        }
    }
}

/// A map as owners and operators are told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FullMap {
    pub(crate) through: Zxid,
    pub(crate) layout: Zxid,
    pub(crate) map: Option<MapRecord>,
    pub(crate) members: BTreeMap<MemberNo, RoutedMember>,
    pub(crate) partitions: BTreeMap<PartitionId, PartitionRecord>,
}

impl FullMap {
    fn apply(&mut self, anew: bool, through: Zxid, body: FullBody) -> Result<Touched, Violation> {
        if anew {
            *self = Self {
                layout: body.layout,
                ..Self::default()
            };
        }
        same_layout(self.layout, body.layout)?;
        let mut touched = match (anew, body.members.is_empty()) {
            (false, true) => Some(Vec::with_capacity(body.partitions.len())),
            _ => None,
        };
        self.through = through;
        self.map = body.map.or(self.map.take());
        put_members(&mut self.members, body.members);
        for (partition, record) in body.partitions {
            if let Some(touched) = &mut touched {
                touched.push(partition);
            }
            self.partitions.insert(partition, record);
        }
        Ok(touched.map_or(Touched::All, Touched::Some))
    }
}

/// A map as routers are told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoutingMap {
    pub(crate) through: Zxid,
    pub(crate) layout: Zxid,
    pub(crate) members: BTreeMap<MemberNo, RoutedMember>,
    partitions: BTreeMap<PartitionId, Routed>,
    keys: Keys,
}

/// A partition of a [`RoutingMap`].
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) key: PartitionKey,
    pub(crate) owner: Option<MemberNo>,
    pub(crate) followers: Vec<MemberNo>,
}

impl RoutingMap {
    /// The partition that a key belongs to.
    pub(crate) fn partition_of(&self, key: &[u8]) -> Option<(PartitionId, &Routed)> {
        let partition = self.keys.find(key)?;
        Some((partition, self.partitions.get(&partition)?))
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Routed)> {
        self.partitions
            .iter()
            .map(|(partition, of)| (*partition, of))
    }

    fn apply(
        &mut self,
        anew: bool,
        through: Zxid,
        body: RoutingBody,
    ) -> Result<Touched, Violation> {
        if anew {
            *self = Self {
                layout: body.layout,
                ..Self::default()
            };
        }
        same_layout(self.layout, body.layout)?;
        self.through = through;
        put_members(&mut self.members, body.members);
        for RoutedPartition {
            partition,
            key,
            owner,
            followers,
        } in body.partitions
        {
            let known = self.partitions.get(&partition).map(|known| &known.key);
            let is_new = known.is_none();
            let Some(key) = key.or(known.cloned()) else {
                return Err(Violation::UnknownPartition { partition });
            };
            if is_new {
                self.keys.insert(&key, partition);
            }
            let routed = Routed {
                key,
                owner,
                followers,
            };
            self.partitions.insert(partition, routed);
        }
        Ok(Touched::All)
    }
}

fn same_layout(known: Zxid, told: Zxid) -> Result<(), Violation> {
    if known == told {
        return Ok(());
    }
    Err(Violation::OtherLayout { known, told })
}

/// A number that is given again has another id from then on; a member without an id is forgotten.
fn put_members(members: &mut BTreeMap<MemberNo, RoutedMember>, told: Vec<RoutedMember>) {
    for member in told {
        if member.id.is_empty() {
            members.remove(&member.member);
        } else {
            members.insert(member.member, member);
        }
    }
}

/// Which partition a key belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// By its first hash: its last one.
    ranges: BTreeMap<u64, (u64, PartitionId)>,
    names: HashMap<String, PartitionId>,
}

impl Keys {
    pub(crate) fn insert(&mut self, key: &PartitionKey, partition: PartitionId) {
        match key {
            PartitionKey::Range { first, last } => {
                self.ranges.insert(*first, (*last, partition));
            }
            PartitionKey::Name(name) => {
                self.names.insert(name.clone(), partition);
            }
        }
    }

    /// Takes a partition out, if the key is its own.
    pub(crate) fn remove(&mut self, key: &PartitionKey, partition: PartitionId) {
        match key {
            PartitionKey::Range { first, .. } => {
                if self
                    .ranges
                    .get(first)
                    .is_some_and(|(_, of)| *of == partition)
                {
                    self.ranges.remove(first);
                }
            }
            PartitionKey::Name(name) => {
                if self.names.get(name) == Some(&partition) {
                    self.names.remove(name);
                }
            }
        }
    }

    /// A key's partition: by its hash in a map of ranges, by its name in one of names.
    pub(crate) fn find(&self, key: &[u8]) -> Option<PartitionId> {
        if self.ranges.is_empty() {
            let name = std::str::from_utf8(key).ok()?;
            return self.names.get(name).copied();
        }
        let hash = key_hash(key);
        let (_, (last, partition)) = self.ranges.range(..=hash).next_back()?;
        (hash <= *last).then_some(*partition)
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::partition::Layout;

    use super::*;

    #[test]
    fn every_key_has_one_partition() {
        let mut keys = Keys::default();
        for (number, key) in (0..).zip(Layout::Ranges(7).keys()) {
            keys.insert(&key, PartitionId(number));
        }
        let all = Layout::Ranges(7).keys();
        for key in ["", "a", "some key", "\u{e9}"] {
            let found = keys.find(key.as_bytes()).expect("a partition");
            let PartitionKey::Range { first, last } = all[found.0 as usize] else {
                panic!("{all:?}");
            };
            assert!((first..=last).contains(&key_hash(key.as_bytes())));
        }
        keys.remove(&all[3], PartitionId(2));
        keys.remove(&all[3], PartitionId(3));
        let in_gap = (0..1000_u32)
            .map(|key| key.to_le_bytes())
            .filter(|key| keys.find(key).is_none());
        assert!((100..200).contains(&in_gap.count()), "a seventh has none");
    }

    #[test]
    fn a_name_is_its_own_key() {
        let mut keys = Keys::default();
        keys.insert(&PartitionKey::Name("orders".to_owned()), PartitionId(4));
        assert_eq!(keys.find(b"orders"), Some(PartitionId(4)));
        assert_eq!(keys.find(b"order"), None);
        assert_eq!(keys.find(&[0xff]), None);
    }
}
