//! Partition maps, in the agreed history (rules R33–R42): who may be given what, and when. That never
//! two clients believe to own a partition is looked at from their side, in `locks`.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::Zxid;
use folkmoot_proto::batch::Txn;
use folkmoot_proto::client::{Operation, Request};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::group::{MemberRecord, live_path, members_path};
use folkmoot_proto::partition::{
    Assignment, MapLedger, MapOperation, MemberNo, MovePhase, MoveReason, Owner, PartitionId,
    PartitionReport,
};

use crate::client::worker::{Copy, GROUP};
use crate::oracle::Oracle;
use crate::seen::Event;
use crate::violation::{Checked, Violation};

/// What a transaction did to partitions.
pub(crate) type Events = Vec<Event>;

/// `txn` is about to be applied; `request` is what it answers, if that is known.
pub(crate) fn logged(
    oracle: &Oracle,
    zxid: Zxid,
    txn: &Txn,
    request: Option<&Request>,
) -> Result<Events, Violation> {
    let mut look = Look {
        oracle,
        zxid,
        reports: request.map_or(&[], reports),
        moving: moving(oracle),
        events: Vec::new(),
    };
    let known = oracle.maps.map.as_ref().map(|(map, _)| *map);
    for effect in &txn.effects {
        match effect {
            Effect::Assign {
                partition,
                assignment,
                ..
            } => {
                let Some(before) = oracle.maps.now.get(partition) else {
                    continue;
                };
                look.assigned(*partition, before, assignment)
                    .map_err(|what| {
                        violation(format!(
                            "zxid {zxid}, partition {partition}: {what}; from {before:?} to {assignment:?}"
                        ))
                    })?;
            }
            Effect::SplitPartition {
                partition, parts, ..
            } => {
                let former = oracle.maps.now.get(partition).and_then(|of| of.owner);
                for part in parts {
                    let owner = part.assignment.owner;
                    let kept = |(former, owner): (Owner, Owner)| former.token == owner.token;
                    if former.zip(owner).is_some_and(kept) {
                        return Err(violation(format!(
                            "zxid {zxid}: a part of {partition} has its token"
                        )));
                    }
                }
            }
            Effect::PutLedger { map, ledger } if Some(*map) == known => look.permitted(ledger)?,
            _ => {}
        }
    }
    Ok(look.events)
}

fn violation(facts: String) -> Violation {
    Violation::new("maps", facts)
}

fn reports(request: &Request) -> &[PartitionReport] {
    match &request.operation {
        Operation::Map {
            operation: MapOperation::Report { reports, .. },
            ..
        } => reports,
        _ => &[],
    }
}

fn moving(oracle: &Oracle) -> usize {
    let moves = oracle.maps.now.values();
    moves.map(counted).sum()
}

/// Whether a move counts: who is back with what it had moves without a budget.
fn counted(of: &Assignment) -> usize {
    let movement = of.movement.as_ref();
    usize::from(movement.is_some_and(|movement| movement.reason != MoveReason::Return))
}

struct Look<'a> {
    oracle: &'a Oracle,
    zxid: Zxid,
    reports: &'a [PartitionReport],
    /// Moves under way.
    moving: usize,
    events: Events,
}

impl Look<'_> {
    fn incarnation(&self, member: MemberNo) -> Option<Zxid> {
        let name = self.oracle.maps.name(member)?;
        let live = format!("{}/{name}", live_path(GROUP));
        self.oracle.tree.now(&live).map(|node| node.czxid)
    }

    fn record(&self, member: MemberNo) -> Option<MemberRecord> {
        let name = self.oracle.maps.name(member)?;
        let node = self
            .oracle
            .tree
            .now(&format!("{}/{name}", members_path(GROUP)))?;
        serde_json::from_slice(&node.data).ok()
    }

    fn lives(&self, owner: Owner) -> bool {
        self.incarnation(owner.member) == Some(owner.incarnation)
    }

    fn assigned(
        &mut self,
        partition: PartitionId,
        before: &Assignment,
        after: &Assignment,
    ) -> Result<(), String> {
        if let Some(owner) = after.owner
            && before.owner != after.owner
        {
            self.promoted(partition, before, owner)?;
        }
        if let Some(former) = before.owner
            && before.owner != after.owner
        {
            self.removed(partition, before, former)?;
        }
        let ids = |of: &Assignment| of.movement.as_ref().map(|of| (of.id, of.phase));
        if let Some((id, MovePhase::Revoking)) = ids(before)
            && ids(after) != ids(before)
            && before.owner == after.owner
            && before.owner.is_some_and(|owner| self.lives(owner))
        {
            return Err(format!(
                "the owner is told to let go by move {id}, and keeps its token"
            ));
        }
        if ids(after).is_some_and(|(id, _)| id == self.zxid) {
            self.begun(before, after)?;
        }
        self.moving += counted(after);
        self.moving -= counted(before);
        Ok(())
    }

    /// Who is promoted lives, has a token of its own, and was ready (rules R33, R40).
    fn promoted(
        &mut self,
        partition: PartitionId,
        before: &Assignment,
        owner: Owner,
    ) -> Result<(), String> {
        if owner.token != self.zxid {
            return Err("the token is not the zxid of the promotion".to_owned());
        }
        if !self.lives(owner) {
            return Err("who is promoted does not live in that incarnation".to_owned());
        }
        let has = before.replicas.iter().find(|of| of.member == owner.member);
        let was_ready = has.is_some_and(|of| of.ready && of.incarnation == owner.incarnation);
        let says = self.reports.iter().any(|report| {
            matches!(report, PartitionReport::Ready { partition: of, movement }
                if *of == partition && before.movement.as_ref().is_some_and(|it| it.id == *movement))
        });
        let config = self.oracle.maps.map.as_ref().map(|(_, of)| &of.config);
        if !was_ready && !says && config.is_some_and(|config| config.readiness) {
            return Err("who is promoted never said that it is ready".to_owned());
        }
        Ok(())
    }

    /// An owner goes by its word, with its session, or by force after the deadline (rules R34–R36).
    fn removed(
        &mut self,
        partition: PartitionId,
        before: &Assignment,
        former: Owner,
    ) -> Result<(), String> {
        if !self.lives(former) {
            self.events.push(Event::PartitionRecovered);
            let record = self.record(former.member);
            let until = record.and_then(|record| record.fenced_until);
            if until.is_some_and(|until| until > self.oracle.log_time) {
                return Err(format!("whoever had it may believe in it until {until:?}"));
            }
            return Ok(());
        }
        let Some(movement) = &before.movement else {
            return Err("the owner lives, and was not told to let go".to_owned());
        };
        let says = |report: &PartitionReport| {
            *report
                == PartitionReport::Released {
                    partition,
                    movement: movement.id,
                    token: former.token,
                }
        };
        if self.reports.iter().any(says) {
            self.events.push(Event::PartitionReleased);
            return Ok(());
        }
        let late = movement.deadline <= self.oracle.log_time;
        if movement.phase != MovePhase::Revoking || !late {
            return Err("the owner lives, has not let go, and may still do so".to_owned());
        }
        self.events.push(Event::PartitionForced);
        Ok(())
    }

    /// A move begins within the budget, not for what waits for its owner, and not to who takes nothing
    /// (rules R37, R38, R41).
    fn begun(&mut self, before: &Assignment, after: &Assignment) -> Result<(), String> {
        let Some(movement) = &after.movement else {
            return Ok(());
        };
        let budgeted = matches!(
            movement.reason,
            MoveReason::Recovery | MoveReason::Balance | MoveReason::Drain
        );
        if !budgeted {
            return Ok(());
        }
        for member in &movement.target {
            let has = before.replicas.iter().any(|of| of.member == *member);
            let takes =
                |record: MemberRecord| record.healthy && !record.suspect && !record.draining;
            if !has && !self.record(*member).is_some_and(takes) {
                return Err(format!("{member:?} takes no partitions now, and gets one"));
            }
        }
        if movement.reason == MoveReason::Balance {
            self.events.push(Event::MovedForBalance);
        }
        let config = self.oracle.maps.map.as_ref().map(|(_, of)| &of.config);
        let most = config.map_or(0, |config| config.moves_in_flight_max as usize);
        if self.moving >= most {
            return Err(format!(
                "{} moves are under way, {most} may be",
                self.moving
            ));
        }
        let Some(owner) = before.owner else {
            return Ok(());
        };
        let awaited = self
            .record(owner.member)
            .and_then(|record| record.offline_until)
            .is_some_and(|until| until > self.oracle.log_time);
        if awaited && self.incarnation(owner.member).is_none() {
            return Err("its owner is gone for a while, and is waited for".to_owned());
        }
        Ok(())
    }

    /// All who may stop may stop at once (rule R42).
    fn permitted(&mut self, ledger: &MapLedger) -> Checked {
        let old = &self.oracle.maps.ledger.permits;
        let now = self.oracle.log_time;
        let new = ledger.permits.iter().filter(|permit| !old.contains(permit));
        let stopping: BTreeSet<MemberNo> = old
            .iter()
            .chain(&ledger.permits)
            .filter(|permit| permit.until > now)
            .flat_map(|permit| permit.members.iter().copied())
            .collect();
        for permit in new {
            self.events.push(Event::Permitted);
            for (partition, of) in &self.oracle.maps.now {
                let has = |member: &MemberNo| of.replicas.iter().any(|it| it.member == *member);
                if !permit.members.iter().any(has) {
                    continue;
                }
                let stays = of.replicas.iter().any(|replica| {
                    let lives = self.incarnation(replica.member) == Some(replica.incarnation);
                    replica.ready && lives && !stopping.contains(&replica.member)
                });
                if !stays {
                    return Err(violation(format!(
                        "zxid {}: {permit:?} leaves nobody for partition {partition}, as {stopping:?} may stop",
                        self.zxid
                    )));
                }
            }
        }
        Ok(())
    }
}

/// What a client was told is what was agreed on (rule R35 rests on it).
pub(crate) fn told(oracle: &Oracle, copy: &Copy) -> Checked {
    let Some(through) = copy.through else {
        return Ok(());
    };
    let agreed = oracle.maps.at(through);
    let told = copy.partitions.iter();
    let told: Vec<_> = told.map(|(id, of)| (*id, &of.assignment)).collect();
    if !told
        .iter()
        .copied()
        .eq(agreed.iter().map(|(id, of)| (*id, *of)))
    {
        return Err(violation(format!(
            "a client has {told:?} as of zxid {through}, agreed is {agreed:?}"
        )));
    }
    for member in copy.members.values().filter(|member| !member.id.is_empty()) {
        let live = format!("{}/{}", live_path(GROUP), member.id);
        let node = oracle.tree.at(&live, through);
        let incarnation = node.map(|node| node.czxid);
        if incarnation != member.incarnation {
            return Err(violation(format!(
                "a client has {member:?} as of zxid {through}, agreed is {incarnation:?}"
            )));
        }
    }
    Ok(())
}

/// A client whose copy is as of `told` is given an answer that reflects `zxid`.
pub(crate) fn complete(oracle: &Oracle, told: Option<Zxid>, zxid: Zxid) -> Checked {
    let missed = told.and_then(|told| oracle.maps.change(told, zxid));
    match missed {
        Some(missed) => Err(violation(format!(
            "an answer reflects zxid {zxid}, and the map was told up to {told:?}: {missed} changed it"
        ))),
        None => Ok(()),
    }
}

/// Partitions that nobody owns.
pub(crate) fn orphans(oracle: &Oracle) -> BTreeSet<PartitionId> {
    let look = Look {
        oracle,
        zxid: oracle.zxid,
        reports: &[],
        moving: 0,
        events: Vec::new(),
    };
    let owned = |of: &Assignment| of.owner.is_some_and(|owner| look.lives(owner));
    let orphans = oracle.maps.now.iter().filter(|(_, of)| !owned(of));
    orphans.map(|(partition, _)| *partition).collect()
}

/// Who owns what and is not to let go, by token.
pub(crate) fn owners(oracle: &Oracle) -> BTreeMap<PartitionId, Zxid> {
    let of = oracle.maps.now.iter();
    let settled = of.filter(|(_, of)| of.movement.is_none());
    settled
        .filter_map(|(partition, _)| Some((*partition, owns(oracle, *partition)?)))
        .collect()
}

/// Whether somebody lives who could own something.
pub(crate) fn somebody_takes(oracle: &Oracle) -> bool {
    let names = oracle.tree.children_at(&live_path(GROUP), oracle.zxid);
    names.iter().any(|name| {
        let node = oracle.tree.now(&format!("{}/{name}", members_path(GROUP)));
        let record = node.and_then(|node| serde_json::from_slice::<MemberRecord>(&node.data).ok());
        record.is_some_and(|record| !record.draining && record.healthy && !record.suspect)
    })
}

/// Whether the owner's path holds with this token (rule R33).
pub(crate) fn owns(oracle: &Oracle, partition: PartitionId) -> Option<Zxid> {
    let owner = oracle.maps.now.get(&partition)?.owner?;
    let name = oracle.maps.name(owner.member)?;
    let live = oracle.tree.now(&format!("{}/{name}", live_path(GROUP)))?;
    (live.czxid == owner.incarnation).then_some(owner.token)
}
