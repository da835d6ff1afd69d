//! Partition maps for operators: making, looking at and changing them.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot_proto::client::Operation;
use folkmoot_proto::group::MemberState;
use folkmoot_proto::partition::{
    Layout, MapConfig, MapDetail, MapOperation, MapRecord, MemberNo, MovePhase, MoveReason,
    PartitionChange, PartitionId, PartitionKey, PartitionRecord, PolicyChoice, RoutedMember,
};
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{LogTime, Zxid};

use crate::core::{FullMap, SharedCopy};
use crate::error::{MapError, WriteError};
use crate::following::Following;
use crate::group::{Group, MemberInfo};
use crate::session::{Session, misfit};

/// The partition map of a group, as its operator sees it.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::{Layout, MapConfig, PartitionMap};
/// let map = PartitionMap::new(&session, "shards");
/// map.create(MapConfig::default(), Layout::Ranges(96)).await?;
/// for partition in map.view().await?.partitions {
///     let owner = partition.owner.map_or_else(|| "nobody".to_owned(), |owner| owner.member);
///     println!("{} {owner}", partition.partition);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PartitionMap {
    group: Group,
}

/// That members may stop (rule R42).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StopPermit {
    /// The permit.
    pub permit: Zxid,
    /// Until when it holds, on the cluster's log clock.
    pub until: LogTime,
}

impl PartitionMap {
    /// Names a group's map; nothing is asked of the cluster yet.
    #[must_use]
    pub fn new(session: &Session, group: &str) -> Self {
        Self {
            group: Group::new(session, group),
        }
    }

    /// Gives the group, which is made if it is not there, a map.
    ///
    /// # Errors
    ///
    /// It has one, what it is to be made of is not within the limits, or its policy does not take its
    /// configuration.
    pub async fn create(&self, config: MapConfig, layout: Layout) -> Result<Zxid, WriteError> {
        if let Some(choice) = &config.policy {
            self.group.session().try_policy(choice.clone()).await?;
        }
        self.ask(MapOperation::Create { config, layout }).await
    }

    /// Keeps the map differently from now on. Moves that are under way go on. Whether a new policy takes
    /// its configuration is not asked: [`Session::try_policy`] says so before.
    ///
    /// # Errors
    ///
    /// There is no map, or the configuration is not within the limits.
    pub async fn configure(&self, config: MapConfig) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Configure { config }).await
    }

    /// Takes the map away: every token dies, and nothing is owned any more.
    ///
    /// # Errors
    ///
    /// There is no map.
    pub async fn remove(&self) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Remove).await
    }

    /// Says something of partitions: weights, a pin, who may have them, whether they stay.
    ///
    /// # Errors
    ///
    /// There is no such partition or member, or what is said is not within the limits.
    pub async fn change(
        &self,
        partitions: Vec<PartitionId>,
        change: PartitionChange,
    ) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Change { partitions, change }).await
    }

    /// Moves a partition to these members, of which the first is to own it: within the hard
    /// invariants, outside the budget. It returns when the move has begun.
    ///
    /// # Errors
    ///
    /// There is no such partition or member, it is moving, or a member may not have it.
    pub async fn move_to(
        &self,
        partition: PartitionId,
        members: Vec<String>,
    ) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Move { partition, members }).await
    }

    /// Ends a move whose owner was not yet told to let go.
    ///
    /// # Errors
    ///
    /// There is no such move, or it has begun to revoke (rule R36).
    pub async fn cancel_move(&self, partition: PartitionId) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::CancelMove { partition }).await
    }

    /// Has nothing moved for balance any more, or again.
    ///
    /// # Errors
    ///
    /// There is no map.
    pub async fn freeze(&self, frozen: bool) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Freeze { frozen }).await
    }

    /// Lets the plan that waits for approval be made, and asks a policy again whose breaker is open.
    ///
    /// # Errors
    ///
    /// There is no map.
    pub async fn approve(&self) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Approve).await
    }

    /// Splits a range in two halves, which its owner gets (rule R39).
    ///
    /// # Errors
    ///
    /// There is no such partition, it is no range, it has no owner, or it is moving.
    pub async fn split(&self, partition: PartitionId) -> Result<Zxid, WriteError> {
        self.ask(MapOperation::Split { partition }).await
    }

    /// What a policy would do, in JSON, and nothing of it is done; none: the map's own policy, or the
    /// kernel itself where the map has none.
    ///
    /// # Errors
    ///
    /// There is no map, the component is no policy, or the policy can not plan.
    pub async fn plan(&self, policy: Option<PolicyChoice>) -> Result<String, WriteError> {
        match self.request(MapOperation::Plan { policy }).await? {
            (_, Outcome::Planned(plan)) => Ok(plan),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Whether all these members may stop at once. A yes is kept for `ttl`, of which milliseconds
    /// count, and at most an hour: others who ask meanwhile are told as if these were stopped.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotSafe`](crate::Refusal::NotSafe) with the reasons; or there is no map, or no such member.
    pub async fn permit(
        &self,
        members: Vec<String>,
        ttl: Duration,
    ) -> Result<StopPermit, WriteError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        match self
            .request(MapOperation::Permit { members, ttl_ms })
            .await?
        {
            (_, Outcome::Permitted { permit, until }) => Ok(StopPermit { permit, until }),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// All of the map, as of one zxid.
    ///
    /// # Errors
    ///
    /// The group has no map, it is not told, or not within the configuration's `request_timeout`.
    pub async fn view(&self) -> Result<MapView, MapError> {
        self.follow().await?.view()
    }

    /// The map, and every change of it.
    ///
    /// # Errors
    ///
    /// It is not told, or not within the configuration's `request_timeout`. That the group has no
    /// map is told by [`MapChanges::view`], and may change.
    pub async fn follow(&self) -> Result<MapChanges, MapError> {
        let (session, group) = (self.group.session(), self.group.name());
        let (following, copy) = Following::begin(session, group, MapDetail::Full).await?;
        Ok(MapChanges {
            session: session.clone(),
            group: group.to_owned(),
            following,
            copy,
        })
    }

    /// Why a partition is where it is: its record, and for each member whether it may own it.
    ///
    /// # Errors
    ///
    /// As [`PartitionMap::view`], or the map has no such partition.
    pub async fn explain(&self, partition: PartitionId) -> Result<Explanation, MapError> {
        let view = self.view().await?;
        let members = self.group.members().await?;
        view.explain(partition, &members)
            .ok_or_else(|| MapError::NoPartition {
                group: self.group.name().to_owned(),
                partition,
            })
    }

    async fn ask(&self, operation: MapOperation) -> Result<Zxid, WriteError> {
        match self.request(operation).await? {
            (zxid, Outcome::MapChanged) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    async fn request(&self, operation: MapOperation) -> Result<(Zxid, Outcome), WriteError> {
        let operation = Operation::Map {
            group: self.group.name().to_owned(),
            operation,
        };
        self.group.session().request(operation).await
    }
}

/// A map that is followed, until this is dropped.
#[derive(Debug)]
pub struct MapChanges {
    session: Session,
    group: String,
    following: Following,
    copy: SharedCopy,
}

impl MapChanges {
    /// The map as it is told now. It takes time in proportion to the map.
    ///
    /// # Errors
    ///
    /// The group has no map.
    pub fn view(&self) -> Result<MapView, MapError> {
        let copy = self.copy.read();
        let view = copy.full().and_then(MapView::of);
        view.ok_or_else(|| MapError::NoMap {
            group: self.group.clone(),
        })
    }

    /// How old the map may be, as [`Router::age`](crate::Router::age) says it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.session.unacknowledged_for()
    }

    /// Waits for a change since this was asked last. Cancel safe.
    ///
    /// # Errors
    ///
    /// The session is over, or the map is not told any more.
    pub async fn changed(&mut self) -> Result<(), MapError> {
        self.following.changed().await
    }
}

/// A map as of one zxid, its members by their ids.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapView {
    /// The group.
    pub group: String,
    /// Every change up to here is in it.
    pub zxid: Zxid,
    /// The zxid that last changed which partitions there are.
    pub layout: Zxid,
    /// How the map is kept.
    pub config: MapConfig,
    /// Whether nothing is moved for balance.
    pub frozen: bool,
    /// Why the policy is not asked, until an operator approves or chooses another.
    pub breaker: Option<String>,
    /// The members, those that are gone among them, by id.
    pub members: Vec<MapMember>,
    /// The partitions, by their ids' order.
    pub partitions: Vec<PartitionView>,
}

/// A member, as the map has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MapMember {
    /// Its id.
    pub id: String,
    /// Where it is reached, while it lives.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Its incarnation, while it lives.
    pub incarnation: Option<Zxid>,
}

/// A partition and who has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionView {
    /// The partition.
    pub partition: PartitionId,
    /// What it is.
    pub key: PartitionKey,
    /// Its owner, whether that lives or not.
    pub owner: Option<OwnerView>,
    /// Who has it or is to have it, the owner among them.
    pub replicas: Vec<ReplicaView>,
    /// The move under way.
    pub movement: Option<MoveView>,
    /// When the owner was promoted, on the log clock.
    pub since: LogTime,
    /// Why the owner has it.
    pub why: MoveReason,
    /// What each replica weighs.
    pub weights: Vec<u64>,
    /// What it costs to move a replica.
    pub move_cost: u64,
    /// The only member that may own it.
    pub pin: Option<String>,
    /// The only members that may have it; empty for all.
    pub allowed: Vec<String>,
    /// Whether the policy must leave it where it is.
    pub frozen: bool,
}

/// An owner.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OwnerView {
    /// The member.
    pub member: String,
    /// In which incarnation.
    pub incarnation: Zxid,
    /// Its fencing token.
    pub token: Zxid,
    /// Whether that incarnation lives: it owns the partition only then (rule R33).
    pub lives: bool,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReplicaView {
    /// The member.
    pub member: String,
    /// Whether it could lead (rule R40).
    pub ready: bool,
    /// Whether the incarnation that was told to have it lives.
    pub lives: bool,
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MoveView {
    /// The zxid that began it.
    pub id: Zxid,
    /// How far it is.
    pub phase: MovePhase,
    /// Who is to have the partition; the first is to own it.
    pub target: Vec<String>,
    /// Why.
    pub reason: MoveReason,
    /// When its phase takes too long, on the log clock.
    pub deadline: LogTime,
}

/// Why a partition is where it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// The map's layout.
    pub layout: Zxid,
    /// The partition.
    pub partition: PartitionView,
    /// Each member, by id.
    pub members: Vec<Candidate>,
}

/// Whether a member may own a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Candidate {
    /// Its id.
    pub member: String,
    /// `owner`, `replica` or nothing.
    pub has: Option<&'static str>,
    /// Why it may not own the partition, or may not be given it; empty if it may.
    pub not: Vec<String>,
}

impl MapView {
    /// None if there is no map.
    fn of(full: &FullMap) -> Option<Self> {
        let MapRecord {
            group,
            config,
            frozen,
            breaker,
            ..
        } = full.map.clone()?;
        let mut members: Vec<_> = full.members.values().map(MapMember::of).collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        let partitions = full.partitions.iter();
        Some(Self {
            group,
            zxid: full.through,
            layout: full.layout,
            config,
            frozen,
            breaker,
            members,
            partitions: partitions
                .map(|(partition, record)| PartitionView::of(*partition, record, &full.members))
                .collect(),
        })
    }

    /// One of its partitions.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&PartitionView> {
        let place = self
            .partitions
            .binary_search_by_key(&partition, |of| of.partition);
        self.partitions.get(place.ok()?)
    }

    /// Why a partition is where it is, given what the group says of its members.
    #[must_use]
    pub fn explain(&self, partition: PartitionId, members: &[MemberInfo]) -> Option<Explanation> {
        let partition = self.partition(partition)?.clone();
        Some(Explanation {
            layout: self.layout,
            members: members.iter().map(|of| candidate(&partition, of)).collect(),
            partition,
        })
    }
}

impl MapMember {
    fn of(member: &RoutedMember) -> Self {
        Self {
            id: member.id.clone(),
            address: member.address.clone(),
            zone: member.zone.clone(),
            incarnation: member.incarnation,
        }
    }
}

impl PartitionView {
    fn of(
        partition: PartitionId,
        record: &PartitionRecord,
        members: &BTreeMap<MemberNo, RoutedMember>,
    ) -> Self {
        let id = |number: &MemberNo| match members.get(number) {
            Some(member) => member.id.clone(),
            None => format!("#{}", number.0),
        };
        let ids = |numbers: &[MemberNo]| numbers.iter().map(id).collect();
        let lives = |number: &MemberNo, incarnation: Zxid| {
            let member = members.get(number);
            member.is_some_and(|member| member.incarnation == Some(incarnation))
        };
        let PartitionRecord {
            key,
            spec,
            assignment,
            ..
        } = record;
        let replicas = assignment.replicas.iter().map(|replica| ReplicaView {
            member: id(&replica.member),
            ready: replica.ready,
            lives: lives(&replica.member, replica.incarnation),
        });
        Self {
            partition,
            key: key.clone(),
            owner: assignment.owner.as_ref().map(|owner| OwnerView {
                member: id(&owner.member),
                incarnation: owner.incarnation,
                token: owner.token,
                lives: lives(&owner.member, owner.incarnation),
            }),
            replicas: replicas.collect(),
            movement: assignment.movement.as_ref().map(|movement| MoveView {
                id: movement.id,
                phase: movement.phase,
                target: ids(&movement.target),
                reason: movement.reason,
                deadline: movement.deadline,
            }),
            since: assignment.since,
            why: assignment.why,
            weights: spec.weights.clone(),
            move_cost: spec.move_cost,
            pin: spec.pin.as_ref().map(id),
            allowed: ids(&spec.allowed),
            frozen: spec.frozen,
        }
    }

    /// The owner, while it lives.
    #[must_use]
    pub fn live_owner(&self) -> Option<&OwnerView> {
        self.owner.as_ref().filter(|owner| owner.lives)
    }
}

fn candidate(partition: &PartitionView, member: &MemberInfo) -> Candidate {
    let id = &member.id;
    let owns = partition.owner.as_ref().is_some_and(|of| of.member == *id);
    let has = match owns {
        true => Some("owner"),
        false => {
            let mut replicas = partition.replicas.iter();
            replicas.any(|of| of.member == *id).then_some("replica")
        }
    };
    let record = &member.record;
    let mut not = Vec::new();
    match record.state {
        MemberState::Gone => not.push(format!("it is gone: {}", record.why)),
        MemberState::Draining => not.push("it is draining".to_owned()),
        MemberState::Suspect => not.push("the failure detector doubts it".to_owned()),
        MemberState::Alive => {}
    }
    if !record.healthy && record.state != MemberState::Gone {
        not.push("it says that it can not do its work".to_owned());
    }
    if let Some(pin) = partition.pin.as_ref().filter(|pin| *pin != id) {
        not.push(format!("the partition is pinned to {pin}"));
    }
    if !partition.allowed.is_empty() && !partition.allowed.contains(id) {
        not.push("it is not among those that may have the partition".to_owned());
    }
    Candidate {
        member: id.clone(),
        has,
        not,
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::group::{MemberRecord, MemberSpec};
    use folkmoot_proto::partition::{Assignment, Movement, Owner, PartitionSpec, Replica};
    use folkmoot_proto::{SessionId, WallTime};

    use super::*;

    fn full() -> FullMap {
        let member = |number: u32, id: &str, incarnation: Option<u64>| RoutedMember {
            member: MemberNo(number),
            id: id.to_owned(),
            incarnation: incarnation.map(Zxid),
            address: format!("{id}:80"),
            zone: "a".to_owned(),
        };
        let members = [
            member(0, "w2", Some(8)),
            member(1, "w1", None),
            member(2, "w3", Some(9)),
        ];
        let owner = Owner {
            member: MemberNo(1),
            incarnation: Zxid(7),
            token: Zxid(20),
        };
        let replica = Replica {
            member: MemberNo(0),
            incarnation: Zxid(8),
            ready: true,
        };
        let movement = Movement {
            id: Zxid(30),
            phase: MovePhase::Preparing,
            target: vec![MemberNo(0), MemberNo(9)],
            reason: MoveReason::Recovery,
            deadline: LogTime(5),
        };
        let record = PartitionRecord {
            key: PartitionKey::Name("p".to_owned()),
            spec: PartitionSpec {
                pin: Some(MemberNo(0)),
                ..PartitionSpec::default()
            },
            assignment: Assignment {
                owner: Some(owner),
                replicas: vec![replica],
                movement: Some(movement),
                ..Assignment::default()
            },
            created: Zxid(1),
            changed: Zxid(1),
        };
        let map = MapRecord {
            group: "g".to_owned(),
            config: MapConfig::default(),
            layout: Zxid(5),
            members: Vec::new(),
            next_partition: PartitionId(5),
            partitions: 1,
            frozen: false,
            breaker: None,
            approved: false,
            changed: Zxid(5),
        };
        FullMap {
            through: Zxid(40),
            layout: Zxid(5),
            map: Some(map),
            members: members.map(|member| (member.member, member)).into(),
            partitions: [(PartitionId(4), record)].into(),
        }
    }

    #[test]
    fn a_view_names_members_and_says_who_lives() {
        let view = MapView::of(&full()).expect("a map");
        let ids: Vec<_> = view.members.iter().map(|of| of.id.as_str()).collect();
        assert_eq!(ids, ["w1", "w2", "w3"]);
        let partition = view.partition(PartitionId(4)).expect("it is there");
        assert_eq!(view.partition(PartitionId(3)), None);
        let owner = partition.owner.as_ref().expect("a record of one");
        assert_eq!((owner.member.as_str(), owner.lives), ("w1", false));
        assert_eq!(partition.live_owner(), None);
        let movement = partition.movement.as_ref().expect("a move");
        assert_eq!(movement.target, ["w2", "#9"]);
        assert!(partition.replicas[0].lives);
        assert_eq!(partition.pin.as_deref(), Some("w2"));
        let no_map = FullMap {
            map: None,
            ..full()
        };
        assert_eq!(MapView::of(&no_map), None);
    }

    #[test]
    fn an_explanation_says_who_may_have_it_and_why_others_may_not() {
        let info = |id: &str| MemberInfo {
            id: id.to_owned(),
            record: MemberRecord::joined(
                None,
                &MemberSpec::at("a"),
                SessionId(1),
                Zxid(2),
                WallTime(3),
            ),
            spec: None,
        };
        let mut gone = info("w1");
        gone.record.end("session-expired", LogTime(9), WallTime(4));
        let mut unwell = info("w3");
        unwell.record.healthy = false;
        let view = MapView::of(&full()).expect("a map");
        let members = [gone, info("w2"), unwell];
        let explained = view.explain(PartitionId(4), &members).expect("it is there");
        let said: Vec<_> = explained
            .members
            .iter()
            .map(|of| (of.member.as_str(), of.has, of.not.join("; ")))
            .collect();
        let pinned = "the partition is pinned to w2";
        assert_eq!(
            said,
            [
                (
                    "w1",
                    Some("owner"),
                    format!("it is gone: session-expired; {pinned}")
                ),
                ("w2", Some("replica"), String::new()),
                (
                    "w3",
                    None,
                    format!("it says that it can not do its work; {pinned}")
                ),
            ]
        );
    }
}
