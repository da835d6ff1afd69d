//! A target in the making.

use super::input::{
    Input, Intent, Liveness, Member, MoveState, Partition, PartitionSpec, Weights, allows,
};
use super::lists::Lists;
use super::plan::Plan;
use super::rows::{Each, MemberRow, PartitionRow, ZoneRow};
use crate::table::NONE;

/// Priority of a partition that has no leader.
const PRIORITY_LEADERLESS: u32 = 2;
/// Priority of a partition that lacks replicas, or has some where they may not be.
const PRIORITY_RECOVERY: u32 = 1;
/// Priority of what is moved for balance.
const PRIORITY_BALANCE: u32 = 0;
/// No member's row.
const NOBODY: MemberRow = MemberRow(NONE);

/// A target in the making: what may stay where it is, and what a policy puts beside it.
///
/// It keeps the invariants that the kernel insists upon: a partition's replicas are on distinct
/// members, and in distinct zones where there are as many; they go to members that are live, serve,
/// and are allowed to have them, within capacity and maximum; a pin is obeyed; what is frozen stays.
// What is asked for each replica is always inlined: a call in a component begins with looks at its
// stack and its time.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    input: &'a Input,
    /// The members of each partition; the first leads.
    targets: Lists<PartitionRow, MemberRow>,
    held: Each<MemberRow, Held>,
    /// Zones that a replica may be in, where a partition may be anywhere.
    zone_count: usize,
}

/// What a member would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Replicas.
    pub count: u32,
    /// Replicas that lead.
    pub leads: u32,
    /// What the replicas weigh.
    pub weights: Weights,
}

impl<'a> Draft<'a> {
    /// Keeps every replica that may stay where it is, counts a move that is under way as done, and
    /// puts what is pinned where it must be.
    #[must_use]
    pub fn keep(input: &'a Input) -> Self {
        let mut draft = Self::empty(input);
        for (row, members) in currents(input).iter() {
            draft.keep_some(row, members.iter().copied());
        }
        draft.place_pinned();
        draft
    }

    /// Keeps nothing but what is frozen, and puts what is pinned where it must be.
    #[must_use]
    pub fn from_scratch(input: &'a Input) -> Self {
        let mut draft = Self::empty(input);
        for partition in input.partitions().filter(|partition| partition.frozen) {
            let members = partition.replicas.iter().map(|replica| replica.member);
            draft.keep_some(partition.row, members);
        }
        draft.place_pinned();
        draft
    }

    /// Puts what is pinned where it must be, before anything else gets there.
    fn place_pinned(&mut self) {
        for partition in self.input.partitions() {
            let Some(pin) = partition
                .pin
                .filter(|_| self.waits_for_pin(partition.row, &partition))
            else {
                continue;
            };
            if !self.retain(partition.row, pin) && self.can_place(partition.row, pin) {
                self.add(partition.row, pin);
            }
        }
    }

    fn keep_some(&mut self, partition: PartitionRow, members: impl Iterator<Item = MemberRow>) {
        for member in members {
            if self.may_keep(partition, member) {
                self.add(partition, member);
            }
        }
        self.settle_leader(partition);
    }

    fn empty(input: &'a Input) -> Self {
        let members = input.members();
        let room = |it: Partition| it.replicas.len().max(it.copies as usize);
        let zones = members.iter().filter(|(_, member)| stays(member));
        let zones = zones.map(|(row, _)| input.zone(row));
        Self {
            input,
            targets: Lists::with_room(input.partitions().map(room)),
            held: Each::filled(members.len(), Held::default()),
            zone_count: distinct(zones),
        }
    }

    /// What it is made for.
    #[must_use]
    pub fn input(&self) -> &'a Input {
        self.input
    }

    /// The partition's members; the first leads.
    #[must_use]
    #[inline]
    pub fn members_of(&self, partition: PartitionRow) -> &[MemberRow] {
        self.targets.of(partition)
    }

    /// The partition's leader.
    #[must_use]
    #[inline]
    pub fn leader_of(&self, partition: PartitionRow) -> Option<MemberRow> {
        self.targets.of(partition).first().copied()
    }

    /// What the member would have.
    #[must_use]
    #[inline]
    pub fn held(&self, member: MemberRow) -> &Held {
        &self.held[member]
    }

    /// Whether the partition could do with another replica. What is frozen lacks none while it has
    /// any, and what is pinned while its member can not have it.
    #[must_use]
    #[inline(always)]
    pub fn lacks(&self, partition: PartitionRow) -> bool {
        let spec = self.input.spec(partition);
        let has = self.targets.of(partition).len();
        has < spec.copies as usize
            && !(spec.frozen && has > 0)
            && !self.waits_for_pin(partition, spec)
    }

    /// Members that could get a replica of the partition.
    pub fn candidates(&self, partition: PartitionRow) -> impl Iterator<Item = MemberRow> {
        let members = self.input.members().rows();
        members.filter(move |member| self.can_place(partition, *member))
    }

    /// Whether the member could get a replica of the partition, beside those that are there.
    #[must_use]
    #[inline(always)]
    pub fn can_place(&self, partition: PartitionRow, member: MemberRow) -> bool {
        let spec = self.input.spec(partition);
        self.input.members()[member].takes()
            && self.room(partition, spec, member) > 0
            && self.fits(partition, member, NOBODY)
    }

    /// Whether a replica of the partition could be at `to` instead of `from`.
    #[must_use]
    pub fn can_move(&self, partition: PartitionRow, from: MemberRow, to: MemberRow) -> bool {
        let spec = self.input.spec(partition);
        !spec.frozen
            && spec.pin != Some(from)
            && !self.waits_for_pin(partition, spec)
            && self.input.members()[to].takes()
            && self.fits(partition, to, from)
    }

    /// Puts a replica at a member that can have one. The first of a partition leads.
    pub fn place(&mut self, partition: PartitionRow, member: MemberRow) {
        debug_assert!(self.can_place(partition, member), "the member can have it");
        self.add(partition, member);
    }

    /// Moves a replica to a member that can have it; it goes on to lead if it led.
    pub fn shift(&mut self, partition: PartitionRow, from: MemberRow, to: MemberRow) {
        let mut members = self.targets.of(partition).iter();
        let Some(place) = members.position(|it| *it == from) else {
            return;
        };
        self.remove(partition, from);
        self.add(partition, to);
        let members = self.targets.of_mut(partition);
        if place == 0 && members.len() > 1 {
            members.rotate_right(1);
            if let Some(before) = members.get(1).copied() {
                self.held[before].leads -= 1;
            }
            self.held[to].leads += 1;
        }
    }

    /// Takes a replica away; if it led, the next one leads.
    pub fn remove(&mut self, partition: PartitionRow, member: MemberRow) {
        let mut members = self.targets.of(partition).iter();
        let Some(place) = members.position(|it| *it == member) else {
            return;
        };
        self.targets.remove(partition, place);
        let next = self.leader_of(partition).filter(|_| place == 0);
        let held = &mut self.held[member];
        held.count -= 1;
        held.leads -= u32::from(place == 0);
        let weights = &self.input.spec(partition).weights;
        for (sum, weight) in held.weights.iter_mut().zip(weights) {
            *sum -= weight;
        }
        if let Some(next) = next {
            self.held[next].leads += 1;
        }
    }

    /// Whether the member has a replica of the partition that could lead it.
    #[must_use]
    #[inline]
    pub fn can_lead(&self, partition: PartitionRow, member: MemberRow) -> bool {
        let spec = self.input.spec(partition);
        let kept = self.input.members()[member].liveness == Liveness::Live;
        kept && !spec.frozen
            && spec.pin.is_none_or(|pin| pin == member)
            && self.targets.of(partition).contains(&member)
    }

    /// Has a replica lead.
    pub fn lead(&mut self, partition: PartitionRow, member: MemberRow) {
        let members = self.targets.of_mut(partition);
        let Some(place) = members.iter().position(|it| *it == member) else {
            return;
        };
        if let Some(before) = members.first().copied() {
            self.held[before].leads -= 1;
        }
        members.swap(0, place);
        self.held[member].leads += 1;
    }

    /// The plan that makes it so. Members that should be drained keep what has no other place.
    #[must_use]
    pub fn into_plan(mut self, reason: &'static str) -> Plan {
        let mut plan = Plan::new();
        for partition in self.input.partitions() {
            self.keep_drained(&partition);
            let target = self.targets.of(partition.row);
            let missing = u64::from(partition.copies).saturating_sub(target.len() as u64);
            let waits = self.waits_for_pin(partition.row, &partition);
            if missing > 0 || waits {
                let missing = u32::try_from(missing).unwrap_or(u32::MAX).max(1);
                plan.leave_unplaced(partition.row, missing, self.why_unplaced(&partition));
            }
            if waits || target.is_empty() || is_as_it_is(&partition, target) {
                continue;
            }
            let (priority, reason) = self.urgency(&partition, reason);
            plan.assign(partition.row, target, priority, reason);
        }
        plan
    }

    fn urgency(&self, partition: &Partition, reason: &'static str) -> (u32, &'static str) {
        let lost = |member: MemberRow| self.input.members()[member].liveness != Liveness::Live;
        let drains = |member: MemberRow| self.input.members()[member].intent == Intent::Drain;
        let mut members = partition.replicas.iter().map(|replica| replica.member);
        if partition.leader().is_none_or(lost) {
            (PRIORITY_LEADERLESS, "it has no leader")
        } else if (partition.replicas.len() as u64) < u64::from(partition.copies)
            || members.clone().any(lost)
        {
            (PRIORITY_RECOVERY, "it lacks replicas")
        } else if members.any(drains) {
            (PRIORITY_RECOVERY, "a member drains")
        } else {
            (PRIORITY_BALANCE, reason)
        }
    }

    fn why_unplaced(&self, partition: &Partition) -> &'static str {
        if self.waits_for_pin(partition.row, partition) {
            "its pinned member is not there"
        } else if partition.frozen {
            "it is frozen"
        } else {
            "no member can take it"
        }
    }

    fn keep_drained(&mut self, partition: &Partition) {
        for replica in partition.replicas {
            let member = &self.input.members()[replica.member];
            let drains = member.liveness == Liveness::Live && member.intent == Intent::Drain;
            let room = drains && self.room(partition.row, partition, replica.member) > 0;
            if room && self.fits(partition.row, replica.member, NOBODY) {
                self.add(partition.row, replica.member);
                self.settle_leader(partition.row);
            }
        }
    }

    /// Whether a replica may stay, beside those that were kept before it.
    fn may_keep(&self, partition: PartitionRow, member: MemberRow) -> bool {
        let spec = self.input.spec(partition);
        if self.targets.of(partition).contains(&member) {
            return false;
        }
        let there = &self.input.members()[member];
        if spec.frozen {
            return there.liveness != Liveness::Gone;
        }
        stays(there)
            && self.room(partition, spec, member) > 0
            && self.fits(partition, member, NOBODY)
    }

    /// How many more replicas the partition may have, of which the member would get one. A place is
    /// kept for the pinned member.
    #[inline(always)]
    fn room(&self, partition: PartitionRow, spec: &PartitionSpec, member: MemberRow) -> usize {
        let members = self.targets.of(partition);
        let reserved = spec
            .pin
            .filter(|pin| *pin != member && !members.contains(pin));
        let taken = members.len() + usize::from(reserved.is_some());
        (spec.copies as usize).saturating_sub(taken)
    }

    /// Whether the member has room for the partition, instead of `from` or beside [`NOBODY`].
    ///
    /// What is asked this often has no more arguments than there are registers for: a component pays
    /// dearly for others.
    #[inline(always)]
    fn fits(&self, partition: PartitionRow, member: MemberRow, from: MemberRow) -> bool {
        let spec = self.input.spec(partition);
        let (there, held) = (&self.input.members()[member], &self.held[member]);
        let members = self.targets.of(partition);
        there.max.is_none_or(|max| held.count < max)
            && has_room(&there.capacity, &held.weights, &spec.weights)
            && allows(self.input.allowed(partition), member)
            && !members.contains(&member)
            && self.has_zone_open(partition, self.input.zone(member), from)
    }

    /// Whether the zone could have one more replica of the partition, or one instead of that at
    /// `from`.
    #[must_use]
    #[inline]
    pub fn zone_is_open(
        &self,
        partition: PartitionRow,
        zone: ZoneRow,
        from: Option<MemberRow>,
    ) -> bool {
        self.has_zone_open(partition, zone, from.unwrap_or(NOBODY))
    }

    #[inline(always)]
    fn has_zone_open(&self, partition: PartitionRow, zone: ZoneRow, from: MemberRow) -> bool {
        let copies = self.input.spec(partition).copies;
        if copies < 2 {
            return true;
        }
        let others = self.targets.of(partition).iter();
        let others = others.filter(|other| **other != from && self.input.zone(**other) == zone);
        // One is always within the limit.
        let others = others.count();
        others == 0 || others < self.limit_of(copies, self.input.allowed(partition))
    }

    /// How many replicas of a partition may be in one zone: 1, where there are as many zones.
    #[must_use]
    pub fn zone_limit(&self, partition: &Partition) -> usize {
        self.limit_of(partition.copies, partition.allowed)
    }

    #[inline(always)]
    fn limit_of(&self, copies: u32, allowed: &[MemberRow]) -> usize {
        let zones = if allowed.is_empty() {
            self.zone_count
        } else {
            let members = allowed.iter().copied();
            let members = members.filter(|row| stays(&self.input.members()[*row]));
            distinct(members.map(|row| self.input.zone(row)))
        };
        (copies as usize).div_ceil(zones.max(1))
    }

    /// Whether the partition can not be led, since its pinned member has no replica.
    #[inline]
    fn waits_for_pin(&self, partition: PartitionRow, spec: &PartitionSpec) -> bool {
        let has = |pin| self.targets.of(partition).contains(&pin);
        spec.pin.is_some_and(|pin| !has(pin))
    }

    #[inline(always)]
    fn add(&mut self, partition: PartitionRow, member: MemberRow) {
        let held = &mut self.held[member];
        held.count += 1;
        held.leads += u32::from(self.targets.of(partition).is_empty());
        self.targets.push(partition, member);
        let spec = self.input.spec(partition);
        for (sum, weight) in held.weights.iter_mut().zip(&spec.weights) {
            *sum += weight;
        }
        if spec.pin == Some(member) {
            self.lead(partition, member);
        }
    }

    /// Keeps one replica where it is, if it may stay beside those that are kept already.
    pub fn retain(&mut self, partition: PartitionRow, member: MemberRow) -> bool {
        let replicas = self.input.replicas(partition);
        let has = replicas.iter().any(|replica| replica.member == member);
        let keep = has && self.may_keep(partition, member);
        if keep {
            self.add(partition, member);
        }
        keep
    }

    /// Has the pinned member lead; else the present leader, unless it is away and a ready replica
    /// is not.
    pub fn settle_leader(&mut self, partition: PartitionRow) {
        let spec = self.input.spec(partition);
        let live = |row: MemberRow| self.input.members()[row].liveness == Liveness::Live;
        let ready = |row: MemberRow| {
            let mut replicas = self.input.replicas(partition).iter();
            live(row) && replicas.any(|replica| replica.member == row && replica.ready)
        };
        let members = self.targets.of(partition);
        let pinned = spec.pin.filter(|pin| members.contains(pin));
        let first = members.first().copied();
        let stands_in = || members.iter().copied().find(|member| ready(*member));
        let leader = pinned.or(first.filter(|row| live(*row))).or_else(stands_in);
        if let Some(leader) = leader.filter(|leader| Some(*leader) != first) {
            self.lead(partition, leader);
        }
    }
}

/// Where each partition is, its leader first but behind its pinned member, with the moves under way
/// as if done.
fn currents(input: &Input) -> Lists<PartitionRow, MemberRow> {
    let mut currents = Lists::with_room(input.partitions().map(|it| it.replicas.len()));
    for partition in input.partitions() {
        for replica in partition.replicas {
            currents.push(partition.row, replica.member);
        }
        let members = currents.of_mut(partition.row);
        let leader = partition.leader();
        if let Some(place) = members.iter().position(|member| Some(*member) == leader) {
            members.swap(0, place);
        }
        if partition.pin.is_some() {
            members.sort_by_key(|member| Some(*member) != partition.pin);
        }
    }
    let under_way = input.moves().iter();
    for it in under_way.filter(|it| it.state == MoveState::UnderWay) {
        let members = currents.of_mut(it.partition);
        if !input.members()[it.to].takes() || members.contains(&it.to) {
            continue;
        }
        match members.iter_mut().find(|member| Some(**member) == it.from) {
            Some(member) => *member = it.to,
            None => currents.push(it.partition, it.to),
        }
    }
    currents
}

/// Whether a member may keep what it has.
fn stays(member: &Member) -> bool {
    member.liveness != Liveness::Gone && member.intent != Intent::Drain
}

fn has_room(capacity: &Weights, held: &Weights, more: &Weights) -> bool {
    let mut sums = held.iter().zip(more).zip(capacity);
    sums.all(|((held, more), capacity)| held.saturating_add(*more) <= *capacity)
}

fn is_as_it_is(partition: &Partition, target: &[MemberRow]) -> bool {
    partition.replicas.len() == target.len()
        && partition.leader() == target.first().copied()
        && partition
            .replicas
            .iter()
            .all(|replica| target.contains(&replica.member))
}

fn distinct(zones: impl Iterator<Item = ZoneRow>) -> usize {
    let mut zones: Vec<ZoneRow> = zones.collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}
