//! Where replicas go.

use std::collections::VecDeque;

use folkmoot_sdk::rebalancer::{DIMENSIONS, prelude::*};

use crate::levels::Levels;
use crate::shares::{Claim, Shares, capacities};

/// Brings a draft to equal shares.
#[derive(Debug)]
pub(crate) struct Balancer<'a> {
    draft: Draft<'a>,
    /// What is counted: a dimension of weight, or replicas where all weigh the same.
    measure: Measure,
    shares: Each<MemberRow, f64>,
    levels: Levels,
    slack: f64,
    /// Replicas that were moved.
    shifts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Replicas,
    Weight { dimension: usize },
}

impl Measure {
    fn of(self, input: &Input, partition: PartitionRow) -> i64 {
        match self {
            Self::Replicas => 1,
            Self::Weight { dimension } => {
                let weights = &input.spec(partition).weights;
                weights.get(dimension).map_or(0, |weight| signed(*weight))
            }
        }
    }

    fn held(self, draft: &Draft, member: MemberRow) -> i64 {
        let held = draft.held(member);
        match self {
            Self::Replicas => i64::from(held.count),
            Self::Weight { dimension } => held.weights.get(dimension).map_or(0, |sum| signed(*sum)),
        }
    }
}

impl<'a> Balancer<'a> {
    pub(crate) fn new(draft: Draft<'a>, slack: f64) -> Self {
        let input = draft.input();
        let dimension = scarcest(input);
        let specs = input.specs().values().iter();
        let mut weights = specs.map(|spec| spec.weights.get(dimension));
        let first = weights.next();
        let measure = if weights.all(|weight| Some(weight) == first) {
            Measure::Replicas
        } else {
            Measure::Weight { dimension }
        };
        let claims = claims(&draft, measure, dimension);
        let (total, zone_most) = totals(&draft, measure);
        let shares = Shares::of(total, &claims, &zone_most);
        let quotas = match measure {
            Measure::Replicas => shares.whole(&claims, |row| draft.held(row).count),
            Measure::Weight { .. } => Each::of(
                shares
                    .of
                    .values()
                    .iter()
                    .map(|share| whole(*share))
                    .collect(),
            ),
        };
        let lack = quotas.iter().map(|(row, quota)| {
            let takes = input.members()[row].takes();
            // Who gets nothing gives nothing either.
            if takes {
                quota - measure.held(&draft, row)
            } else {
                0
            }
        });
        let levels = Levels::new(input, Each::of(lack.collect()));
        Self {
            draft,
            measure,
            shares: shares.of,
            levels,
            slack,
            shifts: 0,
        }
    }

    pub(crate) fn into_draft(self) -> Draft<'a> {
        self.draft
    }

    /// The greatest part of a share by which a member has too much or too little.
    pub(crate) fn imbalance(&self) -> f64 {
        let off = self.takers().map(|row| self.off(row).abs());
        off.fold(0.0, f64::max)
    }

    /// Fills vacancies, the heaviest partitions first, where most is missing.
    pub(crate) fn fill(&mut self) {
        let input = self.draft.input();
        let rows = input.specs().rows();
        let mut vacant: Vec<PartitionRow> = rows.filter(|row| self.draft.lacks(*row)).collect();
        if self.measure != Measure::Replicas {
            vacant.sort_by_key(|row| -self.measure.of(input, *row));
        }
        for partition in vacant {
            while self.draft.lacks(partition)
                && let Some(member) = self.place_for(partition)
            {
                self.draft.place(partition, member);
                let more = self.measure.of(input, partition);
                self.levels.add(input, member, more);
            }
        }
    }

    fn place_for(&self, partition: PartitionRow) -> Option<MemberRow> {
        let draft = &self.draft;
        let spec = draft.input().spec(partition);
        let wished = spec
            .pin
            .or(spec.affinity.filter(|row| self.levels.lack(*row) > 0));
        if let Some(member) = wished
            && draft.can_place(partition, member)
        {
            return Some(member);
        }
        let fine = |row: MemberRow| draft.can_place(partition, row);
        let allowed = draft.input().partition(partition).allowed;
        if allowed.is_empty() {
            let open = |zone| draft.zone_is_open(partition, zone, None);
            return self.levels.first(i64::MIN, open, fine);
        }
        let allowed = allowed.iter().copied().filter(|row| fine(*row));
        allowed.max_by_key(|row| (self.levels.lack(*row), core::cmp::Reverse(*row)))
    }

    /// Has who has too much give to who has too little. Answers whether anything was moved: what
    /// one gave may have made room for another.
    pub(crate) fn level(&mut self) -> bool {
        let before = self.shifts;
        match self.measure {
            Measure::Replicas => self.level_replicas(),
            Measure::Weight { .. } => self.level_weights(),
        }
        self.shifts > before
    }

    fn level_replicas(&mut self) {
        let mut members = self.draft.input().members().rows();
        if members.all(|row| self.levels.lack(row) >= 0) {
            return;
        }
        let mut on = self.by_member();
        for giver in self.draft.input().members().rows() {
            let mut place = on[giver].len();
            while self.levels.lack(giver) < 0 && place > 0 {
                place -= 1;
                let Some(partition) = on[giver].get(place).copied() else {
                    break;
                };
                if let Some(taker) = self.taker_for(partition, giver) {
                    self.shift(&mut on, (giver, partition, taker));
                }
            }
            while self.levels.lack(giver) < 0 && self.make_room(&mut on, giver) {}
        }
    }

    /// A member that lacks something and can have a replica of the giver's.
    fn taker_for(&self, partition: PartitionRow, giver: MemberRow) -> Option<MemberRow> {
        let draft = &self.draft;
        let fine = |row: MemberRow| draft.can_move(partition, giver, row);
        let allowed = draft.input().partition(partition).allowed;
        if allowed.is_empty() {
            let open = |zone| draft.zone_is_open(partition, zone, Some(giver));
            return self.levels.first(0, open, fine);
        }
        let lacks = |row: &MemberRow| self.levels.lack(*row) > 0 && fine(*row);
        allowed.iter().copied().find(lacks)
    }

    /// Finds the shortest chain of moves from the giver to a member that lacks something, each of
    /// which makes room for the one before, and makes them from the far end.
    fn make_room(&mut self, on: &mut Each<MemberRow, Vec<PartitionRow>>, giver: MemberRow) -> bool {
        let members = self.draft.input().members().len();
        let mut came: Each<MemberRow, Option<(MemberRow, PartitionRow)>> =
            Each::filled(members, None);
        let mut open: Vec<MemberRow> = self.takers().filter(|row| *row != giver).collect();
        let mut queue = VecDeque::from([giver]);
        while let Some(from) = queue.pop_front() {
            // A partition that is in the chain already would be in its own way.
            let chain: Vec<_> =
                core::iter::successors(came[from], |(from, _)| came[*from]).collect();
            let free = |row: &&PartitionRow| chain.iter().all(|(_, other)| *other != **row);
            for partition in on[from].iter().filter(free) {
                let mut end = None;
                open.retain(|to| {
                    if end.is_some() || !self.draft.can_move(*partition, from, *to) {
                        return true;
                    }
                    came[*to] = Some((from, *partition));
                    queue.push_back(*to);
                    if self.levels.lack(*to) > 0 {
                        end = Some(*to);
                    }
                    false
                });
                if let Some(end) = end {
                    self.shift_along(on, &came, end);
                    return true;
                }
            }
        }
        false
    }

    /// Makes the moves of a chain, the last one first.
    fn shift_along(
        &mut self,
        on: &mut Each<MemberRow, Vec<PartitionRow>>,
        came: &Each<MemberRow, Option<(MemberRow, PartitionRow)>>,
        end: MemberRow,
    ) {
        let mut to = end;
        while let Some((from, partition)) = came[to] {
            self.shift(on, (from, partition, to));
            to = from;
        }
    }

    /// Nothing moves while everybody is within the slack; else everybody comes within half of it.
    fn level_weights(&mut self) {
        if self.imbalance() <= self.slack {
            return;
        }
        let mut on = self.by_member();
        let input = self.draft.input();
        for rows in on.rows() {
            let weight = |row: &PartitionRow| self.measure.of(input, *row);
            on[rows].sort_by_key(weight);
        }
        let mut order: Vec<MemberRow> = self.takers().collect();
        order.sort_by_key(|row| self.levels.lack(*row));
        for giver in &order {
            while self.excess(*giver) > 0 && self.give(&mut on, *giver) {}
        }
        for taker in order.iter().rev() {
            while self.shortage(*taker) > 0 && self.take(&mut on, *taker) {}
        }
    }

    /// What the member has above the band.
    fn excess(&self, member: MemberRow) -> i64 {
        -self.levels.lack(member) - self.tolerance(member)
    }

    /// What the member lacks to be in the band.
    fn shortage(&self, member: MemberRow) -> i64 {
        self.levels.lack(member) - self.tolerance(member)
    }

    fn tolerance(&self, member: MemberRow) -> i64 {
        whole(self.shares[member] * self.slack / 2.0)
    }

    /// Gives what is nearest to the excess to a member that stays in the band.
    fn give(&mut self, on: &mut Each<MemberRow, Vec<PartitionRow>>, giver: MemberRow) -> bool {
        let (input, excess) = (self.draft.input(), self.excess(giver));
        let candidates = nearest(&on[giver], excess, |row| self.measure.of(input, row));
        let found = candidates.into_iter().find_map(|partition| {
            let weight = self.measure.of(input, partition);
            let draft = &self.draft;
            // It must not become the new excess; the giver's must not become a shortage.
            let fine = |to: MemberRow| {
                weight <= self.levels.lack(to) + self.tolerance(to)
                    && draft.can_move(partition, giver, to)
            };
            let open = |zone| draft.zone_is_open(partition, zone, Some(giver));
            let taker = (weight > 0 && weight - excess <= 2 * self.tolerance(giver))
                .then(|| self.levels.first(0, open, fine))
                .flatten()?;
            Some((giver, partition, taker))
        });
        found.is_some_and(|found| {
            self.shift(on, found);
            true
        })
    }

    /// Takes what is nearest to the shortage from a member that stays in the band.
    fn take(&mut self, on: &mut Each<MemberRow, Vec<PartitionRow>>, taker: MemberRow) -> bool {
        let (input, shortage) = (self.draft.input(), self.shortage(taker));
        let mut givers: Vec<MemberRow> = self.takers().filter(|row| *row != taker).collect();
        givers.sort_by(|a, b| self.off(*b).total_cmp(&self.off(*a)).then(a.cmp(b)));
        for giver in givers {
            if self.off(giver) <= self.off(taker) {
                return false;
            }
            let spare = self.tolerance(giver) - self.levels.lack(giver);
            let candidates = nearest(&on[giver], shortage, |row| self.measure.of(input, row));
            let found = candidates.into_iter().find(|partition| {
                let weight = self.measure.of(input, *partition);
                weight > 0
                    && weight <= spare
                    && weight - shortage <= 2 * self.tolerance(taker)
                    && self.draft.can_move(*partition, giver, taker)
            });
            if let Some(partition) = found {
                self.shift(on, (giver, partition, taker));
                return true;
            }
        }
        false
    }

    fn shift(
        &mut self,
        on: &mut Each<MemberRow, Vec<PartitionRow>>,
        (from, partition, to): (MemberRow, PartitionRow, MemberRow),
    ) {
        let input = self.draft.input();
        let weight = self.measure.of(input, partition);
        self.draft.shift(partition, from, to);
        self.shifts += 1;
        self.levels.add(input, from, -weight);
        self.levels.add(input, to, weight);
        on[from].retain(|row| *row != partition);
        let heavier = |row: &PartitionRow| self.measure.of(input, *row) <= weight;
        let place = match self.measure {
            Measure::Replicas => on[to].len(),
            Measure::Weight { .. } => on[to].partition_point(heavier),
        };
        on[to].insert(place, partition);
    }

    /// The part of its share by which a member has too much.
    fn off(&self, member: MemberRow) -> f64 {
        let share = self.shares[member];
        let held = self.measure.held(&self.draft, member) as f64;
        (held - share) / share.max(1.0)
    }

    fn takers(&self) -> impl Iterator<Item = MemberRow> + use<'a> {
        let members = self.draft.input().members().iter();
        members.filter(|(_, it)| it.takes()).map(|(row, _)| row)
    }

    /// What each member has that may be moved; what it has only got is last.
    fn by_member(&self) -> Each<MemberRow, Vec<PartitionRow>> {
        let input = self.draft.input();
        let mut old = Each::filled(input.members().len(), Vec::new());
        let mut new = old.clone();
        for partition in input.partitions().filter(|it| !it.frozen) {
            for member in self.draft.members_of(partition.row) {
                let had = partition.replicas.iter().any(|it| it.member == *member);
                let on: &mut Each<MemberRow, Vec<PartitionRow>> =
                    if had { &mut old } else { &mut new };
                on[*member].push(partition.row);
            }
        }
        for (row, rows) in new.iter() {
            old[row].extend(rows);
        }
        old
    }
}

/// What each member can claim. Who gets nothing has no claim.
fn claims(draft: &Draft, measure: Measure, dimension: usize) -> Each<MemberRow, Option<Claim>> {
    let input = draft.input();
    let capacities = capacities(input, dimension);
    let partitions = input.partitions().len() as f64;
    let weight = input.partitions().next().map_or(1, |partition| {
        partition.weights.get(dimension).copied().unwrap_or(1)
    });
    let claim = |(row, member): (MemberRow, &Member)| {
        let carries = member.capacity.get(dimension).copied().unwrap_or(u64::MAX);
        let carries = if carries == u64::MAX {
            f64::MAX
        } else {
            carries as f64
        };
        let most = match measure {
            Measure::Weight { .. } => carries,
            Measure::Replicas => {
                let by_weight = (carries / weight.max(1) as f64).floor();
                let max = member.max.map_or(f64::MAX, f64::from);
                by_weight.min(max).min(partitions)
            }
        };
        member.takes().then(|| Claim {
            capacity: capacities[row],
            most,
            zone: input.zone(row),
        })
    };
    Each::of(input.members().iter().map(claim).collect())
}

/// What there is to share out, and what each zone may have of it: all but what is with members
/// that neither give nor get.
fn totals(draft: &Draft, measure: Measure) -> (f64, Each<ZoneRow, f64>) {
    let input = draft.input();
    let (mut total, mut zone_most) = (0.0, 0.0);
    for partition in input.partitions() {
        let weight = measure.of(input, partition.row) as f64;
        let in_a_zone = draft.zone_limit(&partition).min(partition.copies as usize);
        total += weight * f64::from(partition.copies);
        zone_most += weight * in_a_zone as f64;
    }
    let mut zones = Each::filled(input.zone_count(), zone_most);
    for (row, _) in input.members().iter().filter(|(_, it)| !it.takes()) {
        let held = measure.held(draft, row) as f64;
        total -= held;
        zones[input.zone(row)] -= held;
    }
    (total, zones)
}

/// The dimension of which most of the capacity is used; the first where there is no limit.
fn scarcest(input: &Input) -> usize {
    let mut weights = [0.0; DIMENSIONS];
    for spec in input.specs().values() {
        for (sum, weight) in weights.iter_mut().zip(spec.weights) {
            *sum += weight as f64;
        }
    }
    let used = |(dimension, weight): (usize, f64)| {
        let members = input.members().values().iter().filter(|it| it.takes());
        let capacities = members.filter_map(|it| it.capacity.get(dimension));
        let capacity: f64 = capacities.map(|capacity| *capacity as f64).sum();
        (weight / capacity.max(1.0), dimension)
    };
    let order = weights.into_iter().enumerate().rev().map(used);
    order
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map_or(0, |(_, dimension)| dimension)
}

/// Partitions in the order of weight, nearest to `wanted` first: the lightest that is enough, then
/// lighter and lighter ones.
fn nearest(
    ascending: &[PartitionRow],
    wanted: i64,
    weight: impl Fn(PartitionRow) -> i64,
) -> Vec<PartitionRow> {
    let enough = ascending.partition_point(|row| weight(*row) < wanted);
    let one_more = ascending.len().min(enough + 1);
    let candidates = ascending.get(..one_more).unwrap_or_default();
    candidates.iter().rev().copied().collect()
}

fn signed(weight: u64) -> i64 {
    i64::try_from(weight).unwrap_or(i64::MAX)
}

fn whole(share: f64) -> i64 {
    share as i64
}
