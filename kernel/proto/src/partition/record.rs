//! What is kept of a map: who has what, and what is under way.

use super::{MapConfig, MemberNo, PartitionId, PartitionKey, PartitionSpec};
use crate::{LogTime, Zxid};

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
