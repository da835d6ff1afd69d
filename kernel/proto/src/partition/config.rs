//! What an operator says of a map: how it is kept, its partitions, and what each is.

use super::MemberNo;
use crate::Digest;
use crate::group::check_name;
use crate::limits::{
    MAP_PARTITIONS_MAX, MAP_REPLICAS_MAX, MOVES_IN_FLIGHT_MAX, POLICY_CONFIG_BYTES_MAX,
    RESTART_DELAY_MS_MAX,
};

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

/// The greatest weight, so that the sum of a million of them fits 63 bits.
pub const WEIGHT_MAX: u64 = 1 << 42;

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

crate::compact_struct!(PartitionSpec {
    weights,
    move_cost,
    pin,
    allowed,
    frozen
});

crate::compact_enum!(Layout {
    1 = Ranges(count),
    2 = Names(names),
});

crate::compact_enum!(PartitionKey {
    1 = Range { first, last },
    2 = Name(name),
});
