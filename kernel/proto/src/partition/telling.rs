//! How clients are told of a map.

use super::{MapRecord, MemberNo, PartitionId, PartitionKey, PartitionRecord};
use crate::Zxid;

/// How much of a map a client is told.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub enum MapDetail {
    /// Who owns what, for routers.
    Routing,
    /// Everything, for owners and operators.
    Full,
}

/// A map, or what changed of it.
///
/// A client that has the map as of `base` has it as of `through` after it. Every update of one
/// stream that reflects a transaction comes before any reply that does. A large map comes in parts,
/// one behind the other: those before the last are `through` what the client had, zero where that
/// was nothing.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct MapUpdate {
    /// The group.
    pub group: String,
    /// What the body is: a client may be told the same map both ways on one stream.
    pub detail: MapDetail,
    /// What the client must have; none: this is everything, and what it had is void.
    pub base: Option<Zxid>,
    /// What it has after it.
    pub through: Zxid,
    /// A [`RoutingBody`] or a [`FullBody`] in the compact encoding, as the client asked for.
    pub body: Vec<u8>,
}

/// The body of an update for routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingBody {
    /// The zxid of the map's layout; zero if the group has no map. A request that carries another
    /// one is of another layout (rule R39).
    pub layout: Zxid,
    /// Members that came or changed.
    pub members: Vec<RoutedMember>,
    /// Partitions that came or changed. After a change of the layout an update has no base.
    pub partitions: Vec<RoutedPartition>,
}

/// The body of an update with everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullBody {
    /// As in [`RoutingBody`].
    pub layout: Zxid,
    /// The map, where that changed; its members are listed apart, and not in here.
    pub map: Option<MapRecord>,
    /// As in [`RoutingBody`].
    pub members: Vec<RoutedMember>,
    /// Partitions that came or changed.
    pub partitions: Vec<(PartitionId, PartitionRecord)>,
}

/// A member as routers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedMember {
    /// Its number.
    pub member: MemberNo,
    /// Its id.
    pub id: String,
    /// Its incarnation, while it lives: an owner of another one owns nothing.
    pub incarnation: Option<Zxid>,
    /// Where it is reached, while it lives.
    pub address: String,
    /// Its zone.
    pub zone: String,
}

/// A partition as routers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// What it is, in an update without a base.
    pub key: Option<PartitionKey>,
    /// Who was promoted last: it owns the partition only if it lives, and is the first to know.
    pub owner: Option<MemberNo>,
    /// Its other replicas that live and are ready.
    pub followers: Vec<MemberNo>,
}

crate::compact_struct!(RoutingBody {
    layout,
    members,
    partitions
});

crate::compact_struct!(FullBody {
    layout,
    map,
    members,
    partitions
});

crate::compact_struct!(RoutedMember {
    member,
    id,
    incarnation,
    address,
    zone
});

crate::compact_struct!(RoutedPartition {
    partition,
    key,
    owner,
    followers
});
