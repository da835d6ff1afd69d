//! Partition maps: which member of a group owns which partition.
//!
//! A group may have one map. A partition is a range of a hash or a name; it has replicas on members,
//! of which one owns it. Ownership is a record `{member, incarnation, token}`: it holds if and only
//! if that member lives in that incarnation, and its token, the zxid of the promotion, is what the
//! owner fences its writes with (rule R33). A move has an identity, the zxid that began it, and goes
//! from preparing over revoking to a promotion; after it began to revoke there is no way back to
//! the old token (rule R36).

mod config;
mod operation;
mod record;
mod telling;

use crate::codec::{Compact, DecodeError, Input};
use crate::group::GROUPS;

pub use self::config::{
    Layout, MapConfig, PartitionKey, PartitionSpec, PolicyChoice, WEIGHT_MAX, key_hash,
};
pub use self::operation::{MapOperation, PartitionChange, PartitionLoad, PartitionReport};
pub use self::record::{
    Assignment, Bucket, MapLedger, MapRecord, MovePhase, MoveReason, Movement, Owner,
    PartitionRecord, Permit, Replica,
};
pub use self::telling::{
    FullBody, MapDetail, MapUpdate, RoutedMember, RoutedPartition, RoutingBody,
};

/// A partition of a map, from 0. A split gives its parts new ones, and none is used twice.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl Compact for PartitionId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        u32::decode(input).map(Self)
    }
}

impl Compact for MemberNo {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        u32::decode(input).map(Self)
    }
}

impl core::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// A member as a map knows it: its place in [`MapRecord::members`]. It is the same for every
/// incarnation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct MemberNo(pub u32);

/// The path that a guard names to hold only while the owner's promotion is the current one, and the
/// owner lives in the incarnation that was promoted (rules R13, R33). No node can be created there.
#[must_use]
pub fn owner_path(group: &str, partition: PartitionId) -> String {
    format!("{GROUPS}/{group}/owners/{partition}")
}

/// The group and the partition of an owner's path.
#[must_use]
pub fn partition_of_owner_path(path: &str) -> Option<(&str, PartitionId)> {
    let below = path.strip_prefix(GROUPS)?.strip_prefix('/')?;
    let (group, rest) = below.split_once('/')?;
    let partition = rest.strip_prefix("owners/")?;
    let number = partition.parse().ok()?;
    let id = PartitionId(number);
    (number.to_string() == partition).then_some((group, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogTime, Zxid};

    #[test]
    fn ranges_cover_every_hash_once() {
        for count in [1, 2, 3, 7, 96, 1000] {
            let keys = Layout::Ranges(count).keys();
            let mut next = 0_u128;
            for key in &keys {
                let PartitionKey::Range { first, last } = key else {
                    panic!("{key:?}");
                };
                assert_eq!(u128::from(*first), next);
                assert!(first <= last);
                next = u128::from(*last) + 1;
            }
            assert_eq!((keys.len(), next), (count as usize, 1 << 64));
        }
    }

    #[test]
    fn an_owners_path_names_group_and_partition() {
        let path = owner_path("shards", PartitionId(17));
        let named = partition_of_owner_path(&path);
        assert_eq!(named, Some(("shards", PartitionId(17))));
        for other in [
            "/folkmoot/groups/g/owners/x",
            "/folkmoot/groups/g/owners/01",
            "/a",
        ] {
            assert_eq!(partition_of_owner_path(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_map_is_made_of_is_checked() {
        assert_eq!(MapConfig::default().check(), Ok(()));
        let config = MapConfig::default();
        let bad = [
            MapConfig {
                replicas: 0,
                ..config.clone()
            },
            MapConfig {
                replicas: 100,
                ..config.clone()
            },
            MapConfig {
                approval_percent: 101,
                ..config.clone()
            },
            MapConfig {
                moves_in_flight_max: 0,
                ..config
            },
        ];
        for config in bad {
            assert!(config.check().is_err(), "{config:?}");
        }
        let twice = Layout::Names(vec!["a".to_owned(), "a".to_owned()]);
        for layout in [Layout::Ranges(0), Layout::Ranges(u32::MAX), twice] {
            assert!(layout.check().is_err());
        }
        let change = PartitionChange {
            pin: Some(Some("a".to_owned())),
            allowed: Some(vec!["b".to_owned()]),
            ..PartitionChange::default()
        };
        assert!(change.check().is_err());
        let heavy = PartitionChange {
            weights: Some(vec![u64::MAX]),
            ..PartitionChange::default()
        };
        assert!(heavy.check().is_err());
    }

    #[test]
    fn a_changed_partition_takes_at_most_8_bytes_in_a_routers_update() {
        let body = |partitions: Vec<RoutedPartition>| {
            let body = RoutingBody {
                layout: Zxid(1 << 40),
                partitions,
                ..RoutingBody::default()
            };
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            bytes.len()
        };
        let changed = |partition: u32| RoutedPartition {
            partition: PartitionId(99_000 + partition),
            key: None,
            owner: Some(MemberNo(999)),
            followers: Vec::new(),
        };
        let (none, some) = (body(Vec::new()), body((0..100).map(changed).collect()));
        assert!(none <= 32, "{none}");
        assert!(some <= none + 8 * 100, "{some}");
    }

    /// What `docs/decisions/0016-maps-are-records.md` says that it costs to keep no columns.
    #[test]
    fn a_promotion_takes_few_bytes_in_the_log() {
        let zxid = Zxid(1 << 30);
        let member = |number: u32| Replica {
            member: MemberNo(900 + number),
            incarnation: zxid,
            ready: true,
        };
        let promoted = |replicas: u32| {
            let effect = crate::effect::Effect::Assign {
                map: crate::MapId(1000),
                partition: PartitionId(99_000),
                assignment: Box::new(Assignment {
                    owner: Some(Owner {
                        member: MemberNo(900),
                        incarnation: zxid,
                        token: zxid,
                    }),
                    replicas: (0..replicas).map(member).collect(),
                    movement: None,
                    since: LogTime(1 << 35),
                    why: MoveReason::Balance,
                }),
            };
            effect.to_compact().len()
        };
        let sizes = (promoted(1), promoted(3));
        assert_eq!(sizes, (36, 52));
    }
}
