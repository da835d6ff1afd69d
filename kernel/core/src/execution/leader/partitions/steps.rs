//! The life of an assignment: what comes next for one partition (rules R35, R36, R38, R40).
//!
//! A step is a function of what a transaction sees. It is taken in that very transaction, so that
//! removal and promotion are one, and a target is looked at where it is promoted.

use folkmoot_proto::partition::{
    Assignment, MapRecord, MemberNo, MovePhase, MoveReason, Movement, Owner, Replica,
};
use folkmoot_proto::{LogTime, Zxid};

use super::roster::{Facts, Roster};
use crate::mutation::{self, Mutation};
use crate::state::{Stamp, View};

/// What comes next for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, before something else happens.
    Nothing,
    /// Nothing, before this time.
    Wait(LogTime),
    /// It has fewer replicas than it should: somebody is to be found for them. By the time, if there is
    /// one, it is looked at again.
    Lacks(Option<LogTime>),
    /// It has no owner, and somebody is to be found.
    Orphan,
    /// This.
    Assign(Assignment),
}

/// What steps are decided on.
pub(super) struct Steps<'a, V: View> {
    pub(super) view: &'a V,
    pub(super) map: &'a MapRecord,
    pub(super) roster: &'a mut Roster,
    pub(super) stamp: Stamp,
}

impl<V: View> Steps<'_, V> {
    /// What comes next for a partition as it is. `lease_over` says that no owner that was told to
    /// let go can still believe in its lease (rule R35).
    pub(super) fn next(&mut self, before: &Assignment, lease_over: bool) -> Next {
        let mut after = before.clone();
        self.refresh(&mut after);
        let waits = match &after.movement {
            None => self.settle(&mut after),
            Some(movement) if movement.phase == MovePhase::Preparing => self.prepare(&mut after),
            Some(_) => self.revoke(&mut after, lease_over),
        };
        if after == *before {
            waits
        } else {
            Next::Assign(after)
        }
    }

    /// Begins a move and takes it as far as it goes at once.
    pub(super) fn begin(
        &mut self,
        before: &Assignment,
        target: Vec<MemberNo>,
        reason: MoveReason,
    ) -> Assignment {
        let mut after = before.clone();
        self.refresh(&mut after);
        self.begin_in(&mut after, target, reason);
        after
    }

    /// The owner has let go, in the transaction in which this is taken (rule R35).
    pub(super) fn released(&mut self, before: &Assignment) -> Assignment {
        let mut after = before.clone();
        self.refresh(&mut after);
        self.hand_over(&mut after);
        after
    }

    /// A move that has not begun to revoke is dropped; what is due then is done at once.
    pub(super) fn cancelled(&mut self, before: &Assignment) -> Assignment {
        let mut after = before.clone();
        self.refresh(&mut after);
        self.cancel(&mut after);
        self.settle(&mut after);
        after
    }

    fn facts(&mut self, member: MemberNo) -> &Facts {
        self.roster.of(self.view, self.map, member)
    }

    fn incarnation(&mut self, member: MemberNo) -> Option<Zxid> {
        self.facts(member).incarnation
    }

    /// Whether the owner owns (rule R33).
    fn owns(&mut self, owner: Option<Owner>) -> bool {
        owner.is_some_and(|owner| {
            let incarnation = self.incarnation(owner.member);
            let same = incarnation == Some(owner.incarnation);
            same || (incarnation.is_some() && mutation::is_on(Mutation::OwnerByName))
        })
    }

    /// Until when somebody may believe to own it who does not: its session was closed by another
    /// process, and its lease is not over (rule R34).
    fn fenced_until(&mut self, owner: Option<Owner>) -> Option<LogTime> {
        let owner = owner.filter(|owner| !self.owns(Some(*owner)))?;
        let now = self.stamp.log_time;
        self.facts(owner.member)
            .fenced_until
            .filter(|until| *until > now)
    }

    fn is_ready(&mut self, replica: &Replica) -> bool {
        let is_ready = replica.ready || mutation::is_on(Mutation::PromoteUnready);
        is_ready && self.incarnation(replica.member) == Some(replica.incarnation)
    }

    fn ready_member(&mut self, of: &Assignment, member: MemberNo) -> bool {
        let replica = of.replicas.iter().find(|it| it.member == member);
        replica.is_some_and(|replica| self.is_ready(replica))
    }

    /// While it is moving: a replica of a member that came back in another incarnation has to catch
    /// up anew (rule R40).
    fn refresh(&mut self, after: &mut Assignment) {
        if after.movement.is_none() {
            return;
        }
        for replica in &mut after.replicas {
            if let Some(incarnation) = self.incarnation(replica.member)
                && incarnation != replica.incarnation
            {
                replica.incarnation = incarnation;
                replica.ready = !self.map.config.readiness;
            }
        }
    }

    /// Nothing is under way.
    fn settle(&mut self, after: &mut Assignment) -> Next {
        if let Some(until) = self.fenced_until(after.owner) {
            return Next::Wait(until);
        }
        if !self.owns(after.owner) {
            return self.recover(after);
        }
        let replicas = after.replicas.clone();
        let now = self.stamp.log_time;
        let mut lacks = replicas.len() < self.map.config.replicas as usize;
        let mut waits = Next::Nothing;
        for replica in &replicas {
            let facts = self.facts(replica.member);
            match facts.incarnation {
                Some(incarnation) if incarnation != replica.incarnation => {
                    let target = self.with_owner_first(after);
                    self.begin_in(after, target, MoveReason::Return);
                    return Next::Nothing;
                }
                Some(_) => {}
                None if facts.is_awaited(now) => waits = waits.sooner(facts.offline_until),
                None => lacks = true,
            }
        }
        match (lacks, waits) {
            (true, Next::Wait(until)) => Next::Lacks(Some(until)),
            (true, _) => Next::Lacks(None),
            (false, waits) => waits,
        }
    }

    fn with_owner_first(&mut self, of: &Assignment) -> Vec<MemberNo> {
        let owner = of.owner.map(|owner| owner.member);
        let mut target: Vec<MemberNo> = owner.into_iter().collect();
        let others = of.replicas.iter().map(|replica| replica.member);
        target.extend(others.filter(|member| Some(*member) != owner));
        target.retain(|member| self.facts(*member).lives());
        target
    }

    /// It has no owner: a ready replica gets it; else whoever had it and is back; else whoever had
    /// it is waited for (rule R38).
    fn recover(&mut self, after: &mut Assignment) -> Next {
        if let Some(member) = self.best_ready(after) {
            self.promote(after, member, MoveReason::Recovery);
            return Next::Nothing;
        }
        let target = self.with_owner_first(after);
        if !target.is_empty() {
            self.begin_in(after, target, MoveReason::Return);
            return Next::Nothing;
        }
        let now = self.stamp.log_time;
        let owner = after.owner.map(|owner| owner.member);
        let replicas = after.replicas.iter().map(|replica| replica.member);
        let members: Vec<MemberNo> = owner.into_iter().chain(replicas).collect();
        let mut waits = Next::Orphan;
        for member in members {
            let facts = self.facts(member);
            if facts.is_awaited(now) {
                waits = waits.sooner(facts.offline_until);
            }
        }
        waits
    }

    /// The ready replica that gets a partition without an owner: one that does not drain, in the
    /// order in which they are kept.
    fn best_ready(&mut self, of: &Assignment) -> Option<MemberNo> {
        let replicas = of.replicas.iter();
        let mut ready: Vec<MemberNo> = replicas
            .filter(|replica| self.is_ready(replica))
            .map(|replica| replica.member)
            .collect();
        ready.sort_by_key(|member| self.facts(*member).draining);
        ready.first().copied()
    }

    fn begin_in(&mut self, after: &mut Assignment, target: Vec<MemberNo>, reason: MoveReason) {
        for member in &target {
            let Some(incarnation) = self.incarnation(*member) else {
                panic!("a target of a move lives: {member:?}");
            };
            let replica = after.replicas.iter_mut().find(|of| of.member == *member);
            match replica {
                Some(replica) if replica.incarnation == incarnation => {}
                Some(replica) => {
                    replica.incarnation = incarnation;
                    replica.ready = !self.map.config.readiness;
                }
                None => after.replicas.push(Replica {
                    member: *member,
                    incarnation,
                    ready: !self.map.config.readiness,
                }),
            }
        }
        let timeout_ms = self.map.config.prepare_timeout_ms;
        after.movement = Some(Movement {
            id: self.stamp.zxid,
            phase: MovePhase::Preparing,
            target,
            reason,
            deadline: self.stamp.log_time.plus_millis(timeout_ms),
        });
        self.prepare(after);
    }

    /// New replicas catch up.
    fn prepare(&mut self, after: &mut Assignment) -> Next {
        let Some(movement) = after.movement.clone() else {
            return Next::Nothing;
        };
        let lost = movement.target.iter().any(|of| !self.facts(*of).lives());
        let late = movement.deadline <= self.stamp.log_time;
        if lost || late {
            let nobody = !self.owns(after.owner) && self.fenced_until(after.owner).is_none();
            self.cancel(after);
            if late && nobody {
                // Whoever is back does not catch up: somebody else is to be found.
                after.owner = None;
                let now = self.stamp.log_time;
                let mut replicas = core::mem::take(&mut after.replicas);
                replicas.retain(|replica| {
                    self.is_ready(replica) || self.facts(replica.member).is_awaited(now)
                });
                after.replicas = replicas;
            }
            return self.settle(after);
        }
        let Some(&first) = movement.target.first() else {
            panic!("a move has a target: {movement:?}");
        };
        if let Some(until) = self.fenced_until(after.owner) {
            return Next::Wait(until.min(movement.deadline));
        }
        if !self.owns(after.owner) {
            if self.ready_member(after, first) {
                self.promote(after, first, movement.reason);
            } else if let Some(member) = self.best_ready(after) {
                self.promote(after, member, MoveReason::Recovery);
            }
        }
        if after.movement.is_none() || !self.all_ready(after, &movement.target) {
            return Next::Wait(movement.deadline);
        }
        let owner = after.owner.map(|owner| owner.member);
        if owner == Some(first) {
            self.finish(after, &movement.target);
            return Next::Nothing;
        }
        let timeout_ms = self.map.config.revoke_timeout_ms;
        let deadline = self.stamp.log_time.plus_millis(timeout_ms);
        if let Some(movement) = &mut after.movement {
            movement.phase = MovePhase::Revoking;
            movement.deadline = deadline;
        }
        Next::Wait(deadline)
    }

    fn all_ready(&mut self, of: &Assignment, members: &[MemberNo]) -> bool {
        members.iter().all(|member| self.ready_member(of, *member))
    }

    /// The owner is to let go. Only its acknowledgement, the end of its session, or time that its
    /// lease does not outlast takes the partition from it (rule R35).
    fn revoke(&mut self, after: &mut Assignment, lease_over: bool) -> Next {
        let deadline = after.movement.as_ref().map(|movement| movement.deadline);
        let late = deadline.is_some_and(|deadline| deadline <= self.stamp.log_time);
        let forced = late && (lease_over || mutation::is_on(Mutation::ForceByDeadline));
        if let Some(until) = self.fenced_until(after.owner) {
            return Next::Wait(until);
        }
        if !self.owns(after.owner) || forced {
            self.hand_over(after);
            return Next::Nothing;
        }
        Next::Nothing.sooner(deadline)
    }

    /// The former owner does not own any more: in the same transaction its successor is promoted;
    /// if the target is gone, another ready replica, or the former owner with a new token.
    fn hand_over(&mut self, after: &mut Assignment) {
        let Some(movement) = after.movement.clone() else {
            return;
        };
        let former = after.owner.map(|owner| owner.member);
        let mut target = movement.target.iter().copied();
        let next = target.find(|member| self.ready_member(after, *member));
        let next = next.or(former.filter(|member| self.ready_member(after, *member)));
        match next.or_else(|| self.best_ready(after)) {
            Some(member) => {
                let reason = match movement.target.contains(&member) {
                    true => movement.reason,
                    false => MoveReason::Return,
                };
                self.promote(after, member, reason);
                if after.movement.is_some() {
                    self.cancel(after);
                }
            }
            None => {
                self.cancel(after);
                self.settle(after);
            }
        }
    }

    fn promote(&mut self, after: &mut Assignment, member: MemberNo, reason: MoveReason) {
        let Some(incarnation) = self.incarnation(member) else {
            panic!("who is promoted lives: {member:?}");
        };
        if mutation::is_on(Mutation::PromoteUnready)
            && let Some(replica) = after.replicas.iter_mut().find(|of| of.member == member)
        {
            replica.ready = true;
        }
        let token = match after.owner {
            Some(former) if mutation::is_on(Mutation::KeepToken) => former.token,
            _ => self.stamp.zxid,
        };
        after.owner = Some(Owner {
            member,
            incarnation,
            token,
        });
        after.since = self.stamp.log_time;
        after.why = reason;
        let target = after.movement.as_ref().map(|movement| &movement.target);
        let Some(target) = target.cloned() else {
            return;
        };
        if target.first() == Some(&member) && self.all_ready(after, &target) {
            self.finish(after, &target);
        }
    }

    /// The move is over: those of its target have the partition, and, as far as there is room, those
    /// who are waited for (rule R38); nobody else.
    fn finish(&mut self, after: &mut Assignment, target: &[MemberNo]) {
        let now = self.stamp.log_time;
        let had = core::mem::take(&mut after.replicas);
        let of = |member: &MemberNo| had.iter().find(|it| it.member == *member);
        after.replicas = target.iter().filter_map(of).copied().collect();
        for replica in &had {
            let has_room = after.replicas.len() < self.map.config.replicas as usize;
            let is_in = target.contains(&replica.member);
            if has_room && !is_in && self.facts(replica.member).is_awaited(now) {
                after.replicas.push(*replica);
            }
        }
        after.movement = None;
    }

    /// The move is given up: what has not caught up for it goes.
    fn cancel(&mut self, after: &mut Assignment) {
        after.movement = None;
        let owner = after.owner.map(|owner| owner.member);
        let mut replicas = core::mem::take(&mut after.replicas);
        replicas.retain(|replica| {
            let lives = self.facts(replica.member).lives();
            !lives || replica.ready || Some(replica.member) == owner
        });
        // The owner first; those who are gone are only waited for, and last.
        replicas.sort_by_key(|of| (Some(of.member) != owner, !self.facts(of.member).lives()));
        replicas.truncate((self.map.config.replicas as usize).max(1));
        after.replicas = replicas;
    }
}

impl Next {
    /// This, or to wait until `until`, whichever is sooner; waiting comes before looking for
    /// somebody else.
    fn sooner(self, until: Option<LogTime>) -> Self {
        match (self, until) {
            (Self::Wait(one), Some(other)) => Self::Wait(one.min(other)),
            (_, Some(until)) => Self::Wait(until),
            (next, None) => next,
        }
    }
}
