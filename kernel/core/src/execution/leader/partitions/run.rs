//! A transaction of steps, within the budget (rules R35–R38).

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::MOVES_IN_FLIGHT_MAX;
use folkmoot_proto::partition::{
    Assignment, Bucket, MapLedger, MapRecord, MemberNo, MovePhase, MoveReason, PartitionId,
};
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{LogTime, MapId, Now, Tick};

use super::plan::Target;
use super::roster::Roster;
use super::steps::{Next, Steps};
use super::{Controller, LOOK_MS, STEPS_PER_TXN};
use crate::execution::Execution;
use crate::execution::leader::draft::Draft;
use crate::mutation::{self, Mutation};
use crate::state::View;

/// A quarter of the bytes of a transaction that a step may take, one for what is looked at and one
/// for what is begun: an assignment takes 250 with as many replicas as there can be.
const BYTES_PER_STEP: usize = 1024;
/// Thousandths of a move.
const MILLI: u64 = 1_000;
/// The time in which a bucket fills, in milliseconds.
const FILL_MS: u64 = 60_000;

impl Execution {
    /// Takes the steps that are due in a map, and begins what was planned as far as the budget goes.
    pub(super) fn run_map(&mut self, now: Now, map: MapId, controller: &mut Controller) {
        let log_time = self.txn_log_time(now);
        let active = self.active(now.tick);
        self.note_revokes(map, controller, active);
        controller.wake(log_time);
        let looks = controller.look_at.take_if(|at| *at <= now.tick).is_some();
        if looks {
            let revoked: Vec<PartitionId> = controller.revoked.keys().copied().collect();
            controller.examine.extend(revoked);
        }
        // Targets for which there was no budget wait for the next look, or for a move that ends.
        let planned = core::mem::take(&mut controller.planned);
        if controller.examine.is_empty() && !planned && !looks {
            return;
        }
        let elsewhere = self.moves_elsewhere(map);
        let mut pending = Pending::No;
        self.kernel_txn(now, |draft| {
            let Some(mut run) = Run::new(draft, map, elsewhere) else {
                return Ok(());
            };
            let mut step = |draft: &mut Draft| {
                pending = run.examine(draft, controller, active)?;
                pending = pending.or(run.begin_targets(draft, controller)?);
                Ok::<_, Refusal>(())
            };
            // What was taken from the controller would be forgotten.
            if let Err(refusal) = step(draft).and_then(|()| run.finish(draft)) {
                panic!("some steps fit a transaction: {refusal}");
            }
            Ok(())
        });
        if pending == Pending::Yes {
            controller.look_at = Some(now.tick.plus_millis(LOOK_MS));
        }
    }

    /// The leader's active time.
    pub(in crate::execution::leader) fn active(&mut self, now: Tick) -> Tick {
        let leader = self.leader.as_mut();
        leader.map_or(Tick::ZERO, |leader| leader.active.look(now))
    }

    /// Moves under way in other maps.
    fn moves_elsewhere(&self, map: MapId) -> usize {
        let view = self.speculative();
        let others = view.maps().into_iter().filter(|other| *other != map);
        let counted = |map: MapId| -> usize {
            let moving = view.moving(map).into_iter();
            let records = moving.filter_map(|partition| view.partition(map, partition));
            records.map(|record| counted(&record.assignment)).sum()
        };
        others.map(counted).sum()
    }

    /// Owners that were told to let go by what this leader has applied: their leases last one session
    /// timeout from now on at most (rule R35).
    fn note_revokes(&self, map: MapId, controller: &mut Controller, active: Tick) {
        let state = self.state();
        let moving = state.moving(map);
        controller
            .revoked
            .retain(|partition, _| moving.binary_search(partition).is_ok());
        for partition in moving {
            let record = state.partition(map, partition);
            let movement = record.and_then(|record| record.assignment.movement.as_ref());
            let Some(movement) = movement.filter(|of| of.phase == MovePhase::Revoking) else {
                continue;
            };
            let noted = controller.revoked.get(&partition);
            if noted.is_none_or(|(id, _)| *id != movement.id) {
                controller.revoked.insert(partition, (movement.id, active));
                controller.examine.insert(partition);
            }
        }
    }
}

/// Whether something waits for the budget or for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    No,
    Yes,
}

impl Pending {
    fn or(self, other: Self) -> Self {
        if self == Self::Yes { self } else { other }
    }
}

/// Steps of one map in one transaction.
pub(super) struct Run {
    map: MapId,
    record: MapRecord,
    roster: Roster,
    before: MapLedger,
    ledger: MapLedger,
    in_flight: usize,
    elsewhere: usize,
    by_member: BTreeMap<MemberNo, u32>,
}

impl Run {
    /// None if there is no such map.
    pub(super) fn new(draft: &Draft, map: MapId, elsewhere: usize) -> Option<Self> {
        let view = draft.view();
        let record = view.map(map)?.clone();
        let ledger = view.ledger(map);
        let moving = view.moving(map);
        let mut by_member = BTreeMap::new();
        let mut in_flight = 0;
        for partition in &moving {
            if let Some(record) = view.partition(map, *partition) {
                in_flight += counted(&record.assignment);
                for member in concerned(&record.assignment) {
                    *by_member.entry(member).or_default() += 1;
                }
            }
        }
        Some(Self {
            map,
            roster: Roster::new(&record),
            record,
            before: ledger.clone(),
            ledger,
            in_flight,
            elsewhere,
            by_member,
        })
    }

    /// Looks at partitions for which something may be due.
    fn examine(
        &mut self,
        draft: &mut Draft,
        controller: &mut Controller,
        active: Tick,
    ) -> Result<Pending, Refusal> {
        let mut pending = Pending::No;
        for _ in 0..steps_per_txn(draft.view()) {
            let Some(partition) = controller.examine.pop_first() else {
                break;
            };
            let Some(before) = self.assignment(draft, partition) else {
                continue;
            };
            let lease_over = self.lease_over(draft, controller, (partition, &before), active);
            match self.steps(draft).next(&before, lease_over) {
                Next::Nothing => {}
                Next::Wait(until) if until <= draft.stamp().log_time => pending = Pending::Yes,
                Next::Wait(until) => {
                    controller.later.insert((until, partition));
                }
                Next::Lacks(until) => {
                    controller
                        .later
                        .extend(until.map(|until| (until, partition)));
                    if !self.is_as_planned(draft, controller, (partition, &before)) {
                        controller.planner.lacks();
                    }
                }
                Next::Orphan => controller.planner.orphaned(),
                Next::Assign(after) => self.assign(draft, partition, &before, after)?,
            }
        }
        // An owner whose time is over, and whose lease may not be.
        let waits = |(partition, _): (&PartitionId, _)| self.is_late(draft, *partition);
        if controller.revoked.iter().any(waits) {
            pending = Pending::Yes;
        }
        Ok(pending)
    }

    /// Whether it has all replicas that the last plan for it wanted, and nothing has changed since. A
    /// policy that gives fewer than it should is not asked for the others, or one that gives another
    /// each time would move it for ever.
    fn is_as_planned(
        &mut self,
        draft: &Draft,
        controller: &Controller,
        (partition, of): (PartitionId, &Assignment),
    ) -> bool {
        let Some((generation, planned)) = controller.short.get(&partition) else {
            return false;
        };
        if *generation != controller.planner.generation() {
            return false;
        }
        let (roster, record) = (&mut self.roster, &self.record);
        let mut lives = |member| roster.of(draft.view(), record, member).lives();
        let mut replicas = of.replicas.iter().map(|replica| replica.member);
        of.replicas.len() == planned.len()
            && replicas.all(|member| planned.contains(&member) && lives(member))
    }

    fn is_late(&self, draft: &Draft, partition: PartitionId) -> bool {
        let record = draft.view().partition(self.map, partition);
        let movement = record.and_then(|record| record.assignment.movement.as_ref());
        let late = |deadline: LogTime| deadline <= draft.stamp().log_time;
        movement.is_some_and(|of| of.phase == MovePhase::Revoking && late(of.deadline))
    }

    /// Whether one timeout of the owner's session has passed since this leader applied that it is
    /// told to let go.
    fn lease_over(
        &mut self,
        draft: &Draft,
        controller: &Controller,
        (partition, assignment): (PartitionId, &Assignment),
        active: Tick,
    ) -> bool {
        let id = assignment.movement.as_ref().map(|movement| movement.id);
        let noted = controller.revoked.get(&partition);
        let Some((_, since)) = noted.filter(|(noted, _)| Some(*noted) == id) else {
            return false;
        };
        let Some(owner) = assignment.owner else {
            return true;
        };
        let facts = self.roster.of(draft.view(), &self.record, owner.member);
        active.millis_since(*since) >= u64::from(facts.timeout_ms)
    }

    /// Begins what was planned, greater priority first, as far as the budget goes (rule R37).
    fn begin_targets(
        &mut self,
        draft: &mut Draft,
        controller: &mut Controller,
    ) -> Result<Pending, Refusal> {
        let mut later = Vec::new();
        let mut pending = Pending::No;
        for _ in 0..steps_per_txn(draft.view()) {
            let Some((place, target)) = controller.targets.pop_first() else {
                break;
            };
            let (_, partition) = place;
            match self.begin_target(draft, partition, &target)? {
                Begun::Yes => controller.began(partition, target, self.record.config.replicas),
                Begun::Void => controller.planner.voided(),
                Begun::Later => later.push((place, target)),
                Begun::Full => {
                    later.push((place, target));
                    break;
                }
            }
        }
        let begun_all = later.is_empty();
        controller.targets.extend(later);
        if !controller.targets.is_empty() {
            pending = Pending::Yes;
            // Where nothing was in the way, those behind go on in the next turn.
            controller.planned = begun_all;
        }
        Ok(pending)
    }

    fn begin_target(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        target: &Target,
    ) -> Result<Begun, Refusal> {
        let Some(before) = self.assignment(draft, partition) else {
            return Ok(Begun::Void);
        };
        if !self.is_current(draft, &before, target) && !mutation::is_on(Mutation::StalePlan) {
            return Ok(Begun::Void);
        }
        let recovers = target.reason == MoveReason::Recovery;
        let now = draft.stamp().log_time;
        let (roster, record) = (&mut self.roster, &self.record);
        if roster.expects(draft.view(), record, before.owner, now) {
            return Ok(Begun::Void);
        }
        if !recovers && self.record.frozen {
            return Ok(Begun::Void);
        }
        let settled = before.since.plus_millis(self.record.config.residence_ms);
        if target.reason == MoveReason::Balance && before.owner.is_some() && now < settled {
            return Ok(Begun::Later);
        }
        if !self.has_room() {
            return Ok(Begun::Full);
        }
        if !self.members_have_room(&before, target) {
            return Ok(Begun::Later);
        }
        if !self.take(recovers, now) {
            // What gives an owner to what has none comes first, and has a budget of its own.
            return Ok(if recovers { Begun::Later } else { Begun::Full });
        }
        self.begin(
            draft,
            partition,
            &before,
            target.members.clone(),
            target.reason,
        )?;
        Ok(Begun::Yes)
    }

    /// Whether the partition, and whom the plan gives it to, are as the plan saw them (rule R37), and
    /// who is new to it takes partitions still (rule R41).
    fn is_current(&mut self, draft: &Draft, before: &Assignment, target: &Target) -> bool {
        if before.movement.is_some() || before.owner != target.owner {
            return false;
        }
        let mut incarnations = target.members.iter().zip(&target.incarnations);
        let (roster, record) = (&mut self.roster, &self.record);
        incarnations.all(|(member, incarnation)| {
            let has = before.replicas.iter().any(|of| of.member == *member);
            let facts = roster.of(draft.view(), record, *member);
            facts.incarnation == Some(*incarnation) && (has || facts.takes())
        })
    }

    fn has_room(&self) -> bool {
        let most = self.record.config.moves_in_flight_max as usize;
        let cluster = MOVES_IN_FLIGHT_MAX as usize;
        let has_room = self.in_flight < most && self.in_flight + self.elsewhere < cluster;
        has_room || mutation::is_on(Mutation::NoBudget)
    }

    fn members_have_room(&self, before: &Assignment, target: &Target) -> bool {
        if mutation::is_on(Mutation::NoBudget) {
            return true;
        }
        let config = &self.record.config;
        let owner = before.owner.map(|owner| owner.member);
        let has = |member: &MemberNo| before.replicas.iter().any(|of| of.member == *member);
        let gains = target.members.iter().filter(|member| !has(member));
        let mut concerned = gains.copied().chain(owner);
        let under_way = |member| self.by_member.get(&member).copied().unwrap_or_default();
        concerned.all(|member| under_way(member) < config.member_moves_in_flight_max)
    }

    /// Takes one move from its bucket.
    fn take(&mut self, recovers: bool, now: LogTime) -> bool {
        if mutation::is_on(Mutation::NoBudget) {
            return true;
        }
        let config = &self.record.config;
        let (bucket, per_minute) = if recovers {
            (&mut self.ledger.recovery, config.recovery_per_minute)
        } else {
            (&mut self.ledger.balance, config.balance_per_minute)
        };
        let filled = filled(*bucket, per_minute, now);
        if filled < MILLI {
            return false;
        }
        *bucket = Bucket {
            left: filled - MILLI,
            at: now,
        };
        true
    }

    /// Begins a move, whatever the budget.
    pub(super) fn begin(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        before: &Assignment,
        members: Vec<MemberNo>,
        reason: MoveReason,
    ) -> Result<(), Refusal> {
        let after = self.steps(draft).begin(before, members, reason);
        self.assign(draft, partition, before, after)
    }

    /// The owner has let go.
    pub(super) fn released(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        before: &Assignment,
    ) -> Result<(), Refusal> {
        let after = self.steps(draft).released(before);
        self.assign(draft, partition, before, after)
    }

    /// A move is dropped.
    pub(super) fn cancel(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        before: &Assignment,
    ) -> Result<(), Refusal> {
        let after = self.steps(draft).cancelled(before);
        self.assign(draft, partition, before, after)
    }

    /// Takes the step that is due at once, given the assignment before this transaction and the one
    /// that it has come to.
    pub(super) fn advance(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        before: &Assignment,
        changed: Assignment,
    ) -> Result<(), Refusal> {
        let after = match self.steps(draft).next(&changed, false) {
            Next::Assign(after) => after,
            _ => changed,
        };
        self.assign(draft, partition, before, after)
    }

    /// Writes who has it afterwards.
    fn assign(
        &mut self,
        draft: &mut Draft,
        partition: PartitionId,
        before: &Assignment,
        after: Assignment,
    ) -> Result<(), Refusal> {
        if after == *before {
            return Ok(());
        }
        self.in_flight -= counted(before);
        self.in_flight += counted(&after);
        for member in concerned(before) {
            *self.by_member.entry(member).or_default() -= 1;
        }
        for member in concerned(&after) {
            *self.by_member.entry(member).or_default() += 1;
        }
        let revokes = |of: &Assignment| {
            let movement = of.movement.as_ref();
            let movement = movement.filter(|of| of.phase == MovePhase::Revoking);
            movement.map(|movement| movement.id)
        };
        if revokes(&after).is_some() && revokes(&after) != revokes(before) {
            self.ledger.last_revoke = draft.stamp().zxid;
        }
        draft.effect(Effect::Assign {
            map: self.map,
            partition,
            assignment: Box::new(after),
        })
    }

    /// Writes what was taken from the budget, and the last revoke.
    pub(super) fn finish(self, draft: &mut Draft) -> Result<(), Refusal> {
        if self.ledger == self.before {
            return Ok(());
        }
        draft.effect(Effect::PutLedger {
            map: self.map,
            ledger: Box::new(self.ledger),
        })
    }

    pub(super) fn assignment(&self, draft: &Draft, partition: PartitionId) -> Option<Assignment> {
        let record = draft.view().partition(self.map, partition)?;
        Some(record.assignment.clone())
    }

    /// What is known of the members.
    pub(super) fn roster(&mut self) -> &mut Roster {
        &mut self.roster
    }

    fn steps<'a>(&'a mut self, draft: &'a Draft) -> Steps<'a, impl View> {
        Steps {
            view: draft.view(),
            map: &self.record,
            roster: &mut self.roster,
            stamp: draft.stamp(),
        }
    }
}

/// Steps of a transaction: few enough that all of them, and what the budget has to say, fit where
/// transactions are small.
pub(super) fn steps_per_txn(view: &impl View) -> usize {
    let bytes = view.limits().txn_bytes_max as usize;
    STEPS_PER_TXN.min(bytes / BYTES_PER_STEP)
}

/// What became of a target.
enum Begun {
    /// Its move has begun.
    Yes,
    /// It is not of what there is now.
    Void,
    /// The budget does not allow it yet.
    Later,
    /// Nor anything behind it.
    Full,
}

/// Thousandths of moves in a bucket at `now`: a minute's worth at most.
fn filled(bucket: Bucket, per_minute: u32, now: LogTime) -> u64 {
    let most = u64::from(per_minute) * MILLI;
    if bucket == Bucket::default() {
        return most;
    }
    let passed = now.0.saturating_sub(bucket.at.0).min(FILL_MS);
    let more = passed * most / FILL_MS;
    (bucket.left + more).min(most)
}

/// Whether a move under way is counted against the budget: who is back and catches up with what it
/// had keeps nobody from getting an owner.
fn counted(of: &Assignment) -> usize {
    let movement = of.movement.as_ref();
    usize::from(movement.is_some_and(|movement| movement.reason != MoveReason::Return))
}

/// Whom a move is counted for: the owner, and everybody who is to get the partition.
fn concerned(of: &Assignment) -> BTreeSet<MemberNo> {
    let movement = of.movement.as_ref();
    let Some(movement) = movement.filter(|movement| movement.reason != MoveReason::Return) else {
        return BTreeSet::new();
    };
    let catches_up = of.replicas.iter().filter(|replica| !replica.ready);
    let catches_up = catches_up.map(|replica| replica.member);
    let owner = of.owner.map(|owner| owner.member);
    let leads = movement.target.first().copied();
    catches_up.chain(owner).chain(leads).collect()
}
