//! Partition maps: which member of a group owns which partition.
//!
//! A group may have one map. A partition is a range of a hash or a name; it has replicas on members,
//! of which one owns it. Ownership is a record `{member, incarnation, token}`: it holds if and only
//! if that member lives in that incarnation, and its token, the zxid of the promotion, is what the
//! owner fences its writes with (rule R33). A move has an identity, the zxid that began it, and goes
//! from preparing over revoking to a promotion; after it began to revoke there is no way back to
//! the old token (rule R36).

use crate::codec::{Compact, DecodeError, Input};
use crate::group::{GROUPS, check_name};
use crate::limits::{
    MAP_PARTITIONS_MAX, MAP_REPLICAS_MAX, MEMBER_CAPACITIES_MAX, MOVES_IN_FLIGHT_MAX,
    POLICY_CONFIG_BYTES_MAX, RESTART_DELAY_MS_MAX,
};
use crate::{Digest, LogTime, Zxid};

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

/// Which policy plans for a map.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct PolicyChoice {
    /// Its component, an installed one.
    pub digest: Digest,
    /// What its `configure` gets: JSON by convention; empty for its defaults.
    #[serde(default)]
    pub configuration: String,
}

/// How a map is kept. Durations are milliseconds on the log clock.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct MapConfig {
    /// Replicas of each partition, the owner's among them.
    pub replicas: u32,
    /// Who plans. None: the kernel's own, which gives a partition without an owner to the member
    /// that has the fewest, and moves nothing.
    pub policy: Option<PolicyChoice>,
    /// Whether a new replica says itself when it has caught up, and only one that has is promoted
    /// (rule R40); else each is ready at once.
    pub readiness: bool,
    /// How long the work of a member that is gone waits for it, where it has announced nothing else
    /// (rule R38).
    pub offline_delay_ms: u64,
    /// A replica that is not ready after this long is given up.
    pub prepare_timeout_ms: u64,
    /// An owner that has not let go after this long, and whose lease is over, loses the partition
    /// all the same (rule R35).
    pub revoke_timeout_ms: u64,
    /// A partition stays with its owner for at least this long before it is moved for balance.
    pub residence_ms: u64,
    /// Moves under way in the map.
    pub moves_in_flight_max: u32,
    /// Moves under way to or from one member.
    pub member_moves_in_flight_max: u32,
    /// Moves for balance that begin in a minute.
    pub balance_per_minute: u32,
    /// Moves that give an owner to what has none that begin in a minute.
    pub recovery_per_minute: u32,
    /// The first plan of another policy waits for approval if it moves more than this part of the
    /// partitions, in percent.
    pub approval_percent: u32,
}

impl Default for MapConfig {
    fn default() -> Self {
        Self {
            replicas: 1,
            policy: None,
            readiness: true,
            offline_delay_ms: 30_000,
            prepare_timeout_ms: 60_000,
            revoke_timeout_ms: 10_000,
            residence_ms: 0,
            moves_in_flight_max: 256,
            member_moves_in_flight_max: 32,
            balance_per_minute: 1_000,
            recovery_per_minute: 100_000,
            approval_percent: 30,
        }
    }
}

impl MapConfig {
    /// Whether it keeps the limits.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        let within = |what: &str, value: u64, min: u64, max: u64| match value {
            _ if (min..=max).contains(&value) => Ok(()),
            _ => Err(format!(
                "{what} is between {min} and {max}, this is {value}"
            )),
        };
        let day = RESTART_DELAY_MS_MAX;
        let moves = u64::from(MOVES_IN_FLIGHT_MAX);
        let rate = 1_000_000;
        within("replicas", self.replicas.into(), 1, MAP_REPLICAS_MAX as u64)?;
        within("offline_delay_ms", self.offline_delay_ms, 0, day)?;
        within("prepare_timeout_ms", self.prepare_timeout_ms, 100, day)?;
        within("revoke_timeout_ms", self.revoke_timeout_ms, 0, day)?;
        within("residence_ms", self.residence_ms, 0, day)?;
        let in_flight = u64::from(self.moves_in_flight_max);
        within("moves_in_flight_max", in_flight, 1, moves)?;
        let of_member = u64::from(self.member_moves_in_flight_max);
        within("member_moves_in_flight_max", of_member, 1, moves)?;
        let balance = u64::from(self.balance_per_minute);
        within("balance_per_minute", balance, 0, rate)?;
        let recovery = u64::from(self.recovery_per_minute);
        within("recovery_per_minute", recovery, 1, rate)?;
        let percent = u64::from(self.approval_percent);
        within("approval_percent", percent, 0, 100)?;
        let configuration = self.policy.as_ref().map_or(0, |it| it.configuration.len());
        within(
            "bytes of a policy's configuration",
            configuration as u64,
            0,
            POLICY_CONFIG_BYTES_MAX as u64,
        )
    }
}

/// The partitions that a map begins with.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Layout {
    /// So many ranges of the 64-bit hash of a key, all of a size.
    Ranges(u32),
    /// One for each name.
    Names(Vec<String>),
}

impl Layout {
    /// How many partitions it has.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Ranges(count) => *count as usize,
            Self::Names(names) => names.len(),
        }
    }

    /// Whether it keeps the limits and names nothing twice.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        let count = self.count();
        if !(1..=MAP_PARTITIONS_MAX).contains(&count) {
            return Err(format!(
                "a map has 1 to {MAP_PARTITIONS_MAX} partitions, this would have {count}"
            ));
        }
        let Self::Names(names) = self else {
            return Ok(());
        };
        let mut known = std::collections::BTreeSet::new();
        for name in names {
            check_name("partition", name)?;
            if !known.insert(name) {
                return Err(format!("the partition {name} is named twice"));
            }
        }
        Ok(())
    }

    /// What its partitions are, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<PartitionKey> {
        match self {
            Self::Names(names) => names.iter().cloned().map(PartitionKey::Name).collect(),
            Self::Ranges(count) => {
                let count = u128::from(*count);
                // Where the range begins; that of the one behind the last is 2^64.
                let begin = |place: u128| (place << 64) / count;
                let range = |place: u128| PartitionKey::Range {
                    first: u64::try_from(begin(place)).unwrap_or(u64::MAX),
                    last: u64::try_from(begin(place + 1) - 1).unwrap_or(u64::MAX),
                };
                (0..count).map(range).collect()
            }
        }
    }
}

/// What a partition is.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionKey {
    /// The keys whose hash is in `first..=last`.
    Range {
        /// The first hash.
        first: u64,
        /// The last hash.
        last: u64,
    },
    /// A name that its users give a meaning.
    Name(String),
}

/// The hash by which a key belongs to a range: xxh3, 64 bits, seed 0. It is the same for ever.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// What an operator says of a partition. What is none stays as it is.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct PartitionChange {
    /// What each replica weighs, in up to 4 dimensions.
    pub weights: Option<Vec<u64>>,
    /// What it costs to move a replica, in a unit of the group's.
    pub move_cost: Option<u64>,
    /// The only member that may own it; the inner none takes the pin away.
    pub pin: Option<Option<String>>,
    /// The only members that may have it; empty for all.
    pub allowed: Option<Vec<String>>,
    /// Whether the policy must leave it where it is.
    pub frozen: Option<bool>,
}

impl PartitionChange {
    /// Whether it keeps the limits.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        if let Some(weights) = &self.weights {
            if !(1..=MEMBER_CAPACITIES_MAX).contains(&weights.len()) {
                return Err(format!(
                    "a partition has 1 to {MEMBER_CAPACITIES_MAX} weights"
                ));
            }
            if weights.iter().any(|weight| *weight > WEIGHT_MAX) {
                return Err(format!("a weight is at most {WEIGHT_MAX}"));
            }
        }
        if self.move_cost.is_some_and(|cost| cost > WEIGHT_MAX) {
            return Err(format!("a move's cost is at most {WEIGHT_MAX}"));
        }
        let pin = self.pin.iter().flatten();
        for member in pin.chain(self.allowed.iter().flatten()) {
            check_name("member", member)?;
        }
        if let (Some(Some(pin)), Some(allowed)) = (&self.pin, &self.allowed)
            && !allowed.is_empty()
            && !allowed.contains(pin)
        {
            return Err(format!("it is pinned to {pin}, which may not have it"));
        }
        Ok(())
    }
}

/// The greatest weight, so that the sum of a million of them fits 63 bits.
pub const WEIGHT_MAX: u64 = 1 << 42;

/// What a member says of a partition that it has, or is to have. What is not of the present move,
/// token and incarnation does nothing (rule R36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum PartitionReport {
    /// The replica has caught up, and could lead (rule R40).
    Ready {
        /// The partition.
        partition: PartitionId,
        /// The move that brought it.
        movement: Zxid,
    },
    /// The owner has let go: it serves the partition no more.
    Released {
        /// The partition.
        partition: PartitionId,
        /// The move that takes it away.
        movement: Zxid,
        /// The token that it had.
        token: Zxid,
    },
}

/// What the owner of a partition measured of it. It is a hint, which is not logged: what is not of the
/// present owner does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PartitionLoad {
    /// The partition.
    pub partition: PartitionId,
    /// The token by which it is owned.
    pub token: Zxid,
    /// How much work it is, in a unit of the group's own.
    pub load: u64,
}

/// What a client asks of a group's map.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum MapOperation {
    /// Gives a group, which is made if it is not there, a map.
    Create {
        /// How it is kept.
        config: MapConfig,
        /// Its partitions.
        layout: Layout,
    },
    /// Keeps it differently from now on. Moves that are under way go on.
    Configure {
        /// How.
        config: MapConfig,
    },
    /// Takes the map away. Every token dies.
    Remove,
    /// Says something of partitions.
    Change {
        /// Which.
        partitions: Vec<PartitionId>,
        /// What.
        change: PartitionChange,
    },
    /// Moves a partition, within the hard invariants and outside the budget.
    Move {
        /// The partition.
        partition: PartitionId,
        /// Who is to have it; the first is to own it.
        members: Vec<String>,
    },
    /// Ends a move that has not begun to revoke.
    CancelMove {
        /// The partition.
        partition: PartitionId,
    },
    /// Nothing is moved for balance any more, or again.
    Freeze {
        /// Which of the two.
        frozen: bool,
    },
    /// The plan that waits for approval may be made; a policy whose breaker is open is asked again.
    Approve,
    /// Splits a range in two halves (rule R39).
    Split {
        /// The partition.
        partition: PartitionId,
    },
    /// Has a policy plan, and does nothing of it. Waits; completed by [`crate::reply::Outcome::Planned`].
    Plan {
        /// Which policy; none: the map's.
        policy: Option<PolicyChoice>,
    },
    /// Whether all these members may stop at once; a yes is a permit that is kept for a while, and
    /// other permits are counted with it (rule R42).
    Permit {
        /// The members.
        members: Vec<String>,
        /// For how long, in milliseconds.
        ttl_ms: u64,
    },
    /// What a member says; its own session asks.
    Report {
        /// The member.
        member: String,
        /// What.
        reports: Vec<PartitionReport>,
    },
}

impl MapOperation {
    /// Bytes of its texts and lists.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let texts = |names: &[String]| names.iter().map(|name| name.len() + 16).sum::<usize>();
        let policy = |choice: &Option<PolicyChoice>| {
            let choice = choice.as_ref();
            choice.map_or(0, |choice| choice.configuration.len())
        };
        match self {
            Self::Create { config, layout } => {
                let names = match layout {
                    Layout::Names(names) => texts(names),
                    Layout::Ranges(_) => 0,
                };
                policy(&config.policy) + names
            }
            Self::Configure { config } => policy(&config.policy),
            Self::Plan { policy: choice } => policy(choice),
            Self::Change { partitions, change } => {
                let pin = change.pin.iter().flatten().map(String::len).sum::<usize>();
                let allowed = change.allowed.as_deref().map_or(0, texts);
                let weights = change.weights.as_ref().map_or(0, |of| of.len() * 8);
                partitions.len() * 4 + pin + allowed + weights
            }
            Self::Move { members, .. } | Self::Permit { members, .. } => texts(members),
            Self::Report { member, reports } => {
                member.len() + reports.len() * size_of::<PartitionReport>()
            }
            Self::Remove
            | Self::CancelMove { .. }
            | Self::Freeze { .. }
            | Self::Approve
            | Self::Split { .. } => 0,
        }
    }
}

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

/// A map, beside its partitions: what changes seldom.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapRecord {
    /// Its group.
    pub group: String,
    /// How it is kept.
    pub config: MapConfig,
    /// The zxid that last changed which partitions there are.
    pub layout: Zxid,
    /// Its members by number; one that was forgotten has no name, and its number is given again.
    pub members: Vec<String>,
    /// The next partition's id.
    pub next_partition: PartitionId,
    /// How many partitions there are.
    pub partitions: u32,
    /// Whether nothing is moved for balance.
    pub frozen: bool,
    /// Why the policy is not asked, until an operator approves or chooses another.
    pub breaker: Option<String>,
    /// Whether the policy's plans are carried out whatever they move.
    pub approved: bool,
    /// The zxid that changed it last.
    pub changed: Zxid,
}

/// What of a map changes often.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MapLedger {
    /// What may be moved for balance.
    pub balance: Bucket,
    /// What may be moved to get an owner.
    pub recovery: Bucket,
    /// The last transaction that had an owner let go (rule R35).
    pub last_revoke: Zxid,
    /// The permits that hold (rule R42).
    pub permits: Vec<Permit>,
}

/// A token bucket on the log clock, which no election refills (rule R37).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bucket {
    /// Thousandths of a move that were left.
    pub left: u64,
    /// When.
    pub at: LogTime,
}

/// That some members may stop at once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Permit {
    /// The zxid that gave it.
    pub id: Zxid,
    /// The members.
    pub members: Vec<MemberNo>,
    /// Until when it holds.
    pub until: LogTime,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionRecord {
    /// What it is.
    pub key: PartitionKey,
    /// What an operator says of it.
    pub spec: PartitionSpec,
    /// Who has it.
    pub assignment: Assignment,
    /// The zxid that created it.
    pub created: Zxid,
    /// The zxid that changed it last.
    pub changed: Zxid,
}

/// What an operator says of a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionSpec {
    /// What each replica weighs.
    pub weights: Vec<u64>,
    /// What it costs to move a replica.
    pub move_cost: u64,
    /// The only member that may own it.
    pub pin: Option<MemberNo>,
    /// The only members that may have it, in ascending order; empty for all.
    pub allowed: Vec<MemberNo>,
    /// Whether the policy must leave it where it is.
    pub frozen: bool,
}

impl Default for PartitionSpec {
    fn default() -> Self {
        Self {
            weights: vec![1],
            move_cost: 1,
            pin: None,
            allowed: Vec::new(),
            frozen: false,
        }
    }
}

/// Who has a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Assignment {
    /// Its owner. It owns only while it lives in that incarnation (rule R33).
    pub owner: Option<Owner>,
    /// Who has it or is to have it, the owner's among them.
    pub replicas: Vec<Replica>,
    /// The move under way.
    pub movement: Option<Movement>,
    /// When the owner was promoted.
    pub since: LogTime,
    /// Why the owner has it.
    pub why: MoveReason,
}

/// Who owns a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Owner {
    /// The member.
    pub member: MemberNo,
    /// In which incarnation.
    pub incarnation: Zxid,
    /// The zxid of its promotion: what it fences its writes with.
    pub token: Zxid,
}

/// A replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Replica {
    /// The member.
    pub member: MemberNo,
    /// In which incarnation it was last told to have it. Of an older one nothing is ready.
    pub incarnation: Zxid,
    /// Whether it could lead (rule R40).
    pub ready: bool,
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Movement {
    /// The zxid that began it (rule R36).
    pub id: Zxid,
    /// How far it is.
    pub phase: MovePhase,
    /// Who is to have it; the first is to own it.
    pub target: Vec<MemberNo>,
    /// Why.
    pub reason: MoveReason,
    /// When its phase takes too long.
    pub deadline: LogTime,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MovePhase {
    /// New replicas catch up. It can be cancelled.
    Preparing,
    /// The owner is to let go. It can not be cancelled.
    Revoking,
}

/// Why a partition is moved.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MoveReason {
    /// It has no owner, and nobody is waited for.
    #[default]
    Recovery,
    /// Its owner came back in another incarnation.
    Return,
    /// Its owner is draining.
    Drain,
    /// The policy asked for it.
    Balance,
    /// An operator asked for it.
    Request,
    /// It is a part of one that was split.
    Split,
}

impl MoveReason {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Return => "return",
            Self::Drain => "drain",
            Self::Balance => "balance",
            Self::Request => "request",
            Self::Split => "split",
        }
    }
}

crate::compact_struct!(MapConfig {
    replicas,
    policy,
    readiness,
    offline_delay_ms,
    prepare_timeout_ms,
    revoke_timeout_ms,
    residence_ms,
    moves_in_flight_max,
    member_moves_in_flight_max,
    balance_per_minute,
    recovery_per_minute,
    approval_percent,
});
crate::compact_struct!(PolicyChoice {
    digest,
    configuration
});
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
crate::compact_struct!(MapRecord {
    group,
    config,
    layout,
    members,
    next_partition,
    partitions,
    frozen,
    breaker,
    approved,
    changed,
});
crate::compact_struct!(MapLedger {
    balance,
    recovery,
    last_revoke,
    permits
});
crate::compact_struct!(Bucket { left, at });
crate::compact_struct!(Permit { id, members, until });
crate::compact_struct!(PartitionRecord {
    key,
    spec,
    assignment,
    created,
    changed
});
crate::compact_struct!(PartitionSpec {
    weights,
    move_cost,
    pin,
    allowed,
    frozen
});
crate::compact_struct!(Assignment {
    owner,
    replicas,
    movement,
    since,
    why
});
crate::compact_struct!(Owner {
    member,
    incarnation,
    token
});
crate::compact_struct!(Replica {
    member,
    incarnation,
    ready
});
crate::compact_struct!(Movement {
    id,
    phase,
    target,
    reason,
    deadline
});
crate::compact_enum!(Layout {
    1 = Ranges(count),
    2 = Names(names),
});
crate::compact_enum!(PartitionKey {
    1 = Range { first, last },
    2 = Name(name),
});
crate::compact_enum!(MovePhase {
    1 = Preparing,
    2 = Revoking,
});
crate::compact_enum!(MoveReason {
    1 = Recovery,
    2 = Return,
    3 = Drain,
    4 = Balance,
    5 = Request,
    6 = Split,
});

#[cfg(test)]
mod tests {
    use super::*;

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
