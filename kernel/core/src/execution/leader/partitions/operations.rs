//! What clients ask of a map.

use folkmoot_proto::effect::Effect;
use folkmoot_proto::group::{check_name, live_path, members_path};
use folkmoot_proto::limits::{
    GROUP_MEMBERS_MAX, MAP_NAMED_MAX, MAP_REPLICAS_MAX, PARTITION_ALLOWED_MAX,
};
use folkmoot_proto::partition::{
    Assignment, Layout, MapConfig, MapOperation, MapRecord, MemberNo, MovePhase, MoveReason, Owner,
    PartitionChange, PartitionId, PartitionKey, PartitionRecord, PartitionReport, PolicyChoice,
};
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{MapId, RequestId, SessionId, Zxid};

use super::permits;
use super::plan::put_map;
use super::preview;
use super::roster::{Facts, Roster};
use super::run::Run;
use crate::execution::leader::asking;
use crate::execution::leader::components;
use crate::execution::leader::draft::Draft;
use crate::execution::leader::groups::make_group;
use crate::execution::leader::operations::{check_count, check_limit};
use crate::mutation::{self, Mutation};
use crate::policy::PolicyWorld;
use crate::state::View;

/// Partitions of a map of which the kernel's own plan is shown: it is made at once, while other
/// requests wait.
const OWN_PLAN_PARTITIONS_MAX: usize = 16 * 1024;

/// Executes what a client asks of a group's map. After a refusal the caller rolls the draft back.
pub(in crate::execution) fn execute(
    draft: &mut Draft,
    (session, request): (SessionId, RequestId),
    group: &str,
    operation: MapOperation,
) -> Result<Outcome, Refusal> {
    check_name("group", group).map_err(bad)?;
    if let MapOperation::Create { config, layout } = operation {
        return create(draft, group, config, layout);
    }
    let map = draft.view().map_of(group);
    let Some((map, record)) = map.map(|(map, record)| (map, record.clone())) else {
        return Err(Refusal::UnknownMap {
            group: group.to_owned(),
        });
    };
    match operation {
        MapOperation::Create { .. } => {}
        MapOperation::Configure { config } => configure(draft, map, record, config)?,
        MapOperation::Remove => remove(draft, map, &record)?,
        MapOperation::Change { partitions, change } => {
            change_partitions(draft, (map, record), &partitions, &change)?;
        }
        MapOperation::Move { partition, members } => {
            move_partition(draft, (map, &record), partition, &members)?;
        }
        MapOperation::CancelMove { partition } => cancel(draft, (map, &record), partition)?,
        MapOperation::Freeze { frozen } => {
            let record = MapRecord { frozen, ..record };
            put_map(draft, map, record)?;
        }
        MapOperation::Approve => {
            let record = MapRecord {
                approved: true,
                breaker: None,
                ..record
            };
            put_map(draft, map, record)?;
        }
        MapOperation::Split { partition } => split(draft, (map, &record), partition)?,
        MapOperation::Plan { policy } => {
            return preview(draft, (session, request), (map, &record), policy);
        }
        MapOperation::Permit { members, ttl_ms } => {
            return permits::permit(draft, (map, &record), &members, ttl_ms);
        }
        MapOperation::Report { member, reports } => {
            return report(draft, session, (map, &record), &member, &reports);
        }
    }
    Ok(Outcome::MapChanged)
}

fn create(
    draft: &mut Draft,
    group: &str,
    config: MapConfig,
    layout: Layout,
) -> Result<Outcome, Refusal> {
    check_config(draft, &config)?;
    layout.check().map_err(bad)?;
    if draft.view().map_of(group).is_some() {
        return Err(Refusal::MapExists {
            group: group.to_owned(),
        });
    }
    make_group(draft, group)?;
    let members = draft
        .view()
        .children(&members_path(group), None, usize::MAX);
    let count = u32::try_from(layout.count()).unwrap_or(u32::MAX);
    let zxid = draft.stamp().zxid;
    let record = MapRecord {
        group: group.to_owned(),
        config,
        layout: zxid,
        members,
        next_partition: PartitionId(count),
        partitions: count,
        frozen: false,
        breaker: None,
        // Nobody has anything yet that a first plan could move.
        approved: true,
        changed: zxid,
    };
    draft.effect(Effect::CreateMap {
        record: Box::new(record),
        layout,
    })?;
    Ok(Outcome::MapChanged)
}

fn check_config(draft: &Draft, config: &MapConfig) -> Result<(), Refusal> {
    config.check().map_err(bad)?;
    match &config.policy {
        Some(choice) => check_policy(draft, choice),
        None => Ok(()),
    }
}

fn check_policy(draft: &Draft, choice: &PolicyChoice) -> Result<(), Refusal> {
    components::check_policy(draft, choice.digest, PolicyWorld::Rebalancer)
}

fn configure(
    draft: &mut Draft,
    map: MapId,
    record: MapRecord,
    config: MapConfig,
) -> Result<(), Refusal> {
    check_config(draft, &config)?;
    let swapped = config.policy != record.config.policy;
    let record = MapRecord {
        approved: record.approved && !swapped,
        breaker: if swapped {
            None
        } else {
            record.breaker.clone()
        },
        config,
        ..record
    };
    put_map(draft, map, record)
}

/// A map whose members live may have owners who believe in their leases: only one whose sessions are
/// over goes.
fn remove(draft: &mut Draft, map: MapId, record: &MapRecord) -> Result<(), Refusal> {
    let mut members = record.members.iter();
    let lives = |name: &&String| draft.view().incarnation(&record.group, name).is_some();
    if let Some(name) = members.find(lives) {
        return Err(bad(format!(
            "{name} lives: a map is removed once all members of {} are gone",
            record.group
        )));
    }
    let mut roster = Roster::new(record);
    let now = draft.stamp().log_time;
    let fenced = |facts: &&Facts| facts.fenced_until.is_some_and(|until| until > now);
    let members = roster.all(draft.view(), record);
    if let Some(facts) = members.values().find(fenced) {
        return Err(bad(format!(
            "{} was taken over, and whoever it was may believe in what it had for a while",
            facts.name
        )));
    }
    draft.effect(Effect::RemoveMap { map })
}

/// The number of a member.
pub(super) fn number(record: &MapRecord, name: &str) -> Result<MemberNo, Refusal> {
    let known = !name.is_empty();
    let place = record.members.iter().position(|of| known && of == name);
    let place = place.and_then(|place| u32::try_from(place).ok());
    place.map(MemberNo).ok_or_else(|| Refusal::UnknownMember {
        group: record.group.clone(),
        member: name.chars().take(128).collect(),
    })
}

/// The number of a member that may not be known yet.
fn number_or_new(record: &mut MapRecord, name: &str) -> MemberNo {
    let place = record.members.iter().position(|of| of == name);
    let free = || record.members.iter().position(String::is_empty);
    let place = place.or_else(free).unwrap_or(record.members.len());
    match record.members.get_mut(place) {
        Some(taken) => name.clone_into(taken),
        None => record.members.push(name.to_owned()),
    }
    MemberNo(u32::try_from(place).unwrap_or(u32::MAX))
}

fn change_partitions(
    draft: &mut Draft,
    (map, mut record): (MapId, MapRecord),
    partitions: &[PartitionId],
    change: &PartitionChange,
) -> Result<(), Refusal> {
    check_count("partitions of a request", partitions.len(), MAP_NAMED_MAX)?;
    change.check().map_err(bad)?;
    let allowed = change.allowed.as_deref().unwrap_or_default();
    check_count(
        "members that may have a partition",
        allowed.len(),
        PARTITION_ALLOWED_MAX,
    )?;
    let known = record.members.len();
    let mut allowed: Vec<MemberNo> = allowed
        .iter()
        .map(|name| number_or_new(&mut record, name))
        .collect();
    allowed.sort_unstable();
    allowed.dedup();
    let pin = change.pin.as_ref().map(|pin| {
        let pin = pin.as_ref();
        pin.map(|name| number_or_new(&mut record, name))
    });
    // Names of members that may never come.
    check_count("members of a map", record.members.len(), GROUP_MEMBERS_MAX)?;
    if record.members.len() > known || change.pin.is_some() || change.allowed.is_some() {
        put_map(draft, map, record.clone())?;
    }
    for &partition in partitions {
        let mut of = known_partition(draft, (map, &record), partition)?;
        if let Some(weights) = &change.weights {
            of.spec.weights.clone_from(weights);
        }
        of.spec.move_cost = change.move_cost.unwrap_or(of.spec.move_cost);
        of.spec.frozen = change.frozen.unwrap_or(of.spec.frozen);
        of.spec.pin = pin.unwrap_or(of.spec.pin);
        if change.allowed.is_some() {
            of.spec.allowed.clone_from(&allowed);
        }
        if let Some(pin) = of.spec.pin
            && !of.spec.allowed.is_empty()
            && !of.spec.allowed.contains(&pin)
        {
            return Err(bad(format!(
                "partition {partition} is pinned to a member that may not have it"
            )));
        }
        of.changed = draft.stamp().zxid;
        draft.effect(Effect::PutPartition {
            map,
            partition,
            record: Box::new(of),
        })?;
    }
    Ok(())
}

fn known_partition(
    draft: &Draft,
    (map, record): (MapId, &MapRecord),
    partition: PartitionId,
) -> Result<PartitionRecord, Refusal> {
    let of = draft.view().partition(map, partition).cloned();
    of.ok_or_else(|| Refusal::UnknownPartition {
        group: record.group.clone(),
        partition: partition.0,
    })
}

fn busy(record: &MapRecord, partition: PartitionId, reason: impl Into<String>) -> Refusal {
    Refusal::PartitionBusy {
        group: record.group.clone(),
        partition: partition.0,
        reason: reason.into(),
    }
}

fn run(draft: &Draft, map: MapId) -> Run {
    let Some(run) = Run::new(draft, map, 0) else {
        panic!("the map is there: {map}");
    };
    run
}

fn move_partition(
    draft: &mut Draft,
    (map, record): (MapId, &MapRecord),
    partition: PartitionId,
    members: &[String],
) -> Result<(), Refusal> {
    let of = known_partition(draft, (map, record), partition)?;
    if of.assignment.movement.is_some() {
        return Err(busy(record, partition, "it is moving already"));
    }
    check_limit("replicas", members.len() as u64, MAP_REPLICAS_MAX as u64)?;
    let wanted = record.config.replicas as usize;
    if members.is_empty() || members.len() > wanted {
        return Err(bad(format!("it has 1 to {wanted} replicas")));
    }
    let mut run = run(draft, map);
    let mut target = Vec::with_capacity(members.len());
    for name in members {
        let member = number(record, name)?;
        let facts = run.roster().of(draft.view(), record, member);
        if !facts.lives() || facts.draining {
            return Err(busy(
                record,
                partition,
                format!("{name} is gone, or draining"),
            ));
        }
        if target.contains(&member) {
            return Err(bad(format!("{name} is named twice")));
        }
        let allowed = &of.spec.allowed;
        if !allowed.is_empty() && !allowed.contains(&member) {
            return Err(busy(record, partition, format!("{name} may not have it")));
        }
        target.push(member);
    }
    if of.spec.pin.is_some_and(|pin| target.first() != Some(&pin)) {
        return Err(busy(record, partition, "it is pinned to another member"));
    }
    if of.spec.frozen {
        return Err(busy(record, partition, "it is frozen"));
    }
    run.begin(
        draft,
        partition,
        &of.assignment,
        target,
        MoveReason::Request,
    )?;
    run.finish(draft)
}

fn cancel(
    draft: &mut Draft,
    (map, record): (MapId, &MapRecord),
    partition: PartitionId,
) -> Result<(), Refusal> {
    let before = known_partition(draft, (map, record), partition)?.assignment;
    let Some(movement) = &before.movement else {
        return Err(busy(record, partition, "it is not moving"));
    };
    if movement.phase == MovePhase::Revoking && !mutation::is_on(Mutation::CancelRevoking) {
        let reason = "its owner lets go already: there is no way back";
        return Err(busy(record, partition, reason));
    }
    let mut run = run(draft, map);
    run.cancel(draft, partition, &before)?;
    run.finish(draft)
}

/// Splits a range in two: the parent's token dies, and its owner gets both parts (rule R39).
fn split(
    draft: &mut Draft,
    (map, record): (MapId, &MapRecord),
    partition: PartitionId,
) -> Result<(), Refusal> {
    let of = known_partition(draft, (map, record), partition)?;
    let PartitionKey::Range { first, last } = of.key else {
        return Err(bad("only a range can be split".to_owned()));
    };
    if first == last {
        return Err(bad("the range is one hash".to_owned()));
    }
    if of.assignment.movement.is_some() {
        return Err(busy(record, partition, "it is moving"));
    }
    let limit = folkmoot_proto::limits::MAP_PARTITIONS_MAX;
    check_count("partitions of a map", record.partitions as usize + 1, limit)?;
    let zxid = draft.stamp().zxid;
    let owner = of.assignment.owner.filter(|owner| {
        let name = record.members.get(owner.member.0 as usize);
        let lives = name.and_then(|name| draft.view().incarnation(&record.group, name));
        lives == Some(owner.incarnation)
    });
    let Some(owner) = owner else {
        return Err(busy(record, partition, "it has no owner"));
    };
    let token = match mutation::is_on(Mutation::SplitKeepsToken) {
        true => owner.token,
        false => zxid,
    };
    let middle = first + (last - first) / 2;
    let part = |first: u64, last: u64| PartitionRecord {
        key: PartitionKey::Range { first, last },
        spec: of.spec.clone(),
        assignment: Assignment {
            owner: Some(Owner { token, ..owner }),
            since: draft.stamp().log_time,
            why: MoveReason::Split,
            ..of.assignment.clone()
        },
        created: zxid,
        changed: zxid,
    };
    let parts = vec![part(first, middle), part(middle + 1, last)];
    draft.effect(Effect::SplitPartition {
        map,
        partition,
        parts,
    })
}

/// What a policy would do, or the kernel itself where none is named and the map has none.
fn preview(
    draft: &mut Draft,
    of: (SessionId, RequestId),
    (map, record): (MapId, &MapRecord),
    policy: Option<PolicyChoice>,
) -> Result<Outcome, Refusal> {
    let Some(choice) = policy.or_else(|| record.config.policy.clone()) else {
        let what = "partitions of a map without a policy whose plan is shown";
        check_count(what, record.partitions as usize, OWN_PLAN_PARTITIONS_MAX)?;
        let now = draft.stamp().log_time;
        let plan = preview::of_the_kernel(draft.view(), (map, record), now);
        return Ok(Outcome::Planned(plan));
    };
    check_policy(draft, &choice)?;
    asking::begin_preview(draft, of, record.group.clone(), choice)
}

/// Takes what a member says of its partitions: what is not of the present move, token and
/// incarnation does nothing (rule R36).
fn report(
    draft: &mut Draft,
    session: SessionId,
    (map, record): (MapId, &MapRecord),
    member: &str,
    reports: &[PartitionReport],
) -> Result<Outcome, Refusal> {
    check_count("partitions of a report", reports.len(), MAP_NAMED_MAX)?;
    let number = number(record, member)?;
    let live = format!("{}/{member}", live_path(&record.group));
    let live = draft.view().node(&live).map(|node| node.stat);
    let own = live.filter(|stat| stat.ephemeral_owner == Some(session));
    let Some(incarnation) = own.map(|stat| stat.czxid) else {
        return Err(Refusal::UnknownMember {
            group: record.group.clone(),
            member: member.to_owned(),
        });
    };
    let mut run = run(draft, map);
    let mut current = 0;
    for report in reports {
        let taken = match *report {
            PartitionReport::Ready {
                partition,
                movement,
            } => ready(draft, &mut run, (number, incarnation), partition, movement)?,
            PartitionReport::Released {
                partition,
                movement,
                token,
            } => {
                let owner = Owner {
                    member: number,
                    incarnation,
                    token,
                };
                released(draft, &mut run, owner, partition, movement)?
            }
        };
        current += u32::from(taken);
    }
    run.finish(draft)?;
    Ok(Outcome::Reported { current })
}

fn ready(
    draft: &mut Draft,
    run: &mut Run,
    (member, incarnation): (MemberNo, Zxid),
    partition: PartitionId,
    movement: Zxid,
) -> Result<bool, Refusal> {
    let Some(before) = run.assignment(draft, partition) else {
        return Ok(false);
    };
    if !is_of(&before, movement) {
        return Ok(false);
    }
    let mut changed = before.clone();
    let mut replicas = changed.replicas.iter_mut();
    let replica = replicas.find(|it| it.member == member && it.incarnation == incarnation);
    let Some(replica) = replica.filter(|replica| !replica.ready) else {
        return Ok(false);
    };
    replica.ready = true;
    run.advance(draft, partition, &before, changed)?;
    Ok(true)
}

fn released(
    draft: &mut Draft,
    run: &mut Run,
    owner: Owner,
    partition: PartitionId,
    movement: Zxid,
) -> Result<bool, Refusal> {
    let Some(before) = run.assignment(draft, partition) else {
        return Ok(false);
    };
    let revokes = |it: &folkmoot_proto::partition::Movement| it.phase == MovePhase::Revoking;
    let let_go = before.movement.as_ref().is_some_and(revokes) && before.owner == Some(owner);
    if !let_go || !is_of(&before, movement) {
        return Ok(false);
    }
    run.released(draft, partition, &before)?;
    Ok(true)
}

/// Whether a report names the move under way.
fn is_of(assignment: &Assignment, movement: Zxid) -> bool {
    let id = assignment.movement.as_ref().map(|movement| movement.id);
    id == Some(movement) || (id.is_some() && mutation::is_on(Mutation::LateReportTaken))
}

/// A member has joined a group: if the group has a map, it gets a number in it.
pub(in crate::execution) fn member_joined(
    draft: &mut Draft,
    group: &str,
    member: &str,
) -> Result<(), Refusal> {
    let map = draft.view().map_of(group);
    let Some((map, record)) = map.map(|(map, record)| (map, record.clone())) else {
        return Ok(());
    };
    if record.members.iter().any(|name| name == member) {
        return Ok(());
    }
    let mut record = record;
    number_or_new(&mut record, member);
    put_map(draft, map, record)
}

/// A member was forgotten: its number is free, unless a partition still names it.
pub(in crate::execution) fn member_forgotten(
    draft: &mut Draft,
    group: &str,
    member: &str,
) -> Result<(), Refusal> {
    let map = draft.view().map_of(group);
    let Some((map, record)) = map.map(|(map, record)| (map, record.clone())) else {
        return Ok(());
    };
    let Ok(number) = number(&record, member) else {
        return Ok(());
    };
    let view = draft.view();
    let mut partitions = view.partitions(map).into_iter();
    let names_it = |partition| {
        let of = view.partition(map, partition).map(|record| &record.spec);
        of.is_some_and(|spec| spec.pin == Some(number) || spec.allowed.contains(&number))
    };
    if !view.held_by(map, number).is_empty() || partitions.any(names_it) {
        return Ok(());
    }
    let mut record = record;
    if let Some(name) = record.members.get_mut(number.0 as usize) {
        name.clear();
    }
    put_map(draft, map, record)
}

fn bad(reason: String) -> Refusal {
    Refusal::BadMap { reason }
}
