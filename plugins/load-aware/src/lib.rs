//! The standard policy `load-aware`: moves the least load that brings every member into a band.
//!
//! A partition's load is its leader's. While the hottest member is above the band, it hands over the
//! partition that is nearest to its excess: to another replica if one is cold enough, which moves no
//! data, else to the coldest member that can have it. It is Slicer's weighted-move algorithm (Adya
//! and others 2016) without its splits and merges. Nothing moves while every member is in the band,
//! and then everybody comes some way into it, so that noise moves nothing.

mod loads;

use std::collections::BTreeSet;

use folkmoot_sdk::rebalancer::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::loads::Loads;

/// How far from the mean, as a part of the band, a member comes that was above it: with a band of
/// 20 %, noise of 10 % does not lead out of it again.
const INTO_BAND: f64 = 0.4;

/// Which part of the gap between two members a move that only evens them out must close.
const WORTH: f64 = 0.05;

/// Moves the least load that brings every member into a band.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadAware {
    /// By which part a member's load may be above the mean.
    band: f64,
    /// Reports that are older, in milliseconds, say nothing.
    stale_ms: u64,
}

impl Default for LoadAware {
    fn default() -> Self {
        Self {
            band: 0.2,
            stale_ms: 300_000,
        }
    }
}

impl Rebalancer for LoadAware {
    fn describe() -> PolicyDescription {
        let summary = "Moves the least measured load that brings every member into a band.";
        PolicyDescription::new("load-aware", env!("CARGO_PKG_VERSION"), summary)
            .needs("partitions.load")
            .needs("partitions.load-age")
            .configured_by(json!({
                "type": "object",
                "properties": {
                    "band": {"type": "number", "minimum": 0.01, "maximum": 10, "default": 0.2},
                    "stale_ms": {"type": "integer", "minimum": 0, "default": 300_000},
                },
                "additionalProperties": false,
            }))
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        *self = configuration(bytes)?;
        if (0.01..=10.0).contains(&self.band) {
            return Ok(());
        }
        let message = "band is between 0.01 and 10";
        Err(Rejection::new("bad-configuration", message))
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        let loads = Loads::of(input, self.stale_ms);
        let mut balancer = Balancer::new(Draft::keep(input), &loads);
        balancer.fill();
        let before = balancer.hottest();
        // After an election there are no reports for a while: what is not known is not moved.
        let knows = loads.mostly_known();
        if knows && input.request.mode == Mode::Full {
            balancer.level(self.band);
            balancer.fill();
        }
        let after = balancer.hottest();
        let mut plan = balancer.draft.into_plan("a member is too hot");
        plan.score("hottest-to-mean", before, after);
        plan.again_ms = (!knows).then_some(self.stale_ms.clamp(1_000, 60_000));
        Ok(plan)
    }
}

folkmoot_sdk::export_rebalancer!(LoadAware);

struct Balancer<'a> {
    draft: Draft<'a>,
    loads: &'a Loads,
    /// Each member's load as a part of what it should have.
    heat: Each<MemberRow, f64>,
    /// Members that can get something, by the bits of their heat, which is never negative.
    order: BTreeSet<(u64, MemberRow)>,
}

impl<'a> Balancer<'a> {
    fn new(draft: Draft<'a>, loads: &'a Loads) -> Self {
        let input = draft.input();
        let mut heat = Each::filled(input.members().len(), 0.0);
        for partition in input.partitions() {
            if let Some(leader) = draft.leader_of(partition.row) {
                heat[leader] += loads.heat(partition.row, leader);
            }
        }
        let takers = input.members().iter().filter(|(_, it)| it.takes());
        let order = takers.map(|(row, _)| (heat[row].to_bits(), row)).collect();
        Self {
            draft,
            loads,
            heat,
            order,
        }
    }

    /// The heat of the hottest member; 1 is the mean.
    fn hottest(&self) -> f64 {
        self.order
            .last()
            .map_or(0.0, |(bits, _)| f64::from_bits(*bits))
    }

    /// Fills vacancies, the greatest loads first, where it is coldest.
    fn fill(&mut self) {
        let rows = self
            .draft
            .input()
            .partitions()
            .map(|partition| partition.row);
        let mut vacant: Vec<PartitionRow> = rows.filter(|row| self.draft.lacks(*row)).collect();
        vacant.sort_by(|a, b| {
            self.loads
                .load(*b)
                .total_cmp(&self.loads.load(*a))
                .then(a.cmp(b))
        });
        let count = |draft: &Draft, row| (draft.held(row).count, row);
        let members = self.order.iter().map(|(_, row)| *row);
        let mut counts: BTreeSet<_> = members.map(|row| count(&self.draft, row)).collect();
        for partition in vacant {
            while self.draft.lacks(partition) {
                let leader = self.draft.leader_of(partition);
                let can = |row: &MemberRow| self.draft.can_place(partition, *row);
                let member = match leader {
                    None => self.order.iter().map(|(_, row)| *row).find(can),
                    // A follower has no load: it goes where the fewest replicas are.
                    Some(_) => counts.iter().map(|(_, row)| *row).find(can),
                };
                let Some(member) = member else { break };
                counts.remove(&count(&self.draft, member));
                self.draft.place(partition, member);
                counts.insert(count(&self.draft, member));
                self.led(partition, leader, self.draft.leader_of(partition));
            }
        }
    }

    /// Brings whoever is above the band into it, and then all others some way into it, too, so that
    /// they do not leave it at the next noise. Nothing moves while nobody can be helped.
    fn level(&mut self, band: f64) {
        let mut led = self.by_leader();
        let target = 1.0 + band * INTO_BAND;
        let mut stuck = BTreeSet::new();
        let mut moved = false;
        // Each move evens something out, so that it ends by itself; but a plan has a limit of time.
        for _ in 0..2 * self.draft.input().partitions().len() {
            let Some(giver) = self.hottest_above(1.0 + band, &stuck) else {
                break;
            };
            let found = self.hand_over(&led[giver], giver, target);
            let found = found.or_else(|| self.displace(&led[giver], giver));
            if let Some((partition, taker)) = found {
                self.give(&mut led, partition, giver, taker);
                moved = true;
            } else if let Some((partition, taker, back)) = self.exchange(&led, giver) {
                self.give(&mut led, partition, giver, taker);
                self.give(&mut led, back, taker, giver);
                moved = true;
            } else {
                stuck.insert(giver);
            }
        }
        while moved && let Some(giver) = self.hottest_above(target, &stuck) {
            match self.hand_over(&led[giver], giver, target) {
                Some((partition, taker)) => self.give(&mut led, partition, giver, taker),
                None => {
                    stuck.insert(giver);
                }
            }
        }
    }

    fn hottest_above(&self, heat: f64, stuck: &BTreeSet<MemberRow>) -> Option<MemberRow> {
        let hot = self.order.iter().rev().map(|(_, row)| *row);
        let mut hot = hot.take_while(|row| self.heat[*row] > heat);
        hot.find(|row| !stuck.contains(row))
    }

    /// Where nobody has room, the partition that evens out the giver and the coldest member best.
    /// That one may then be too hot, and hand over what is lighter; the sum of squares falls with
    /// each such move, so that this ends.
    fn displace(
        &self,
        led: &[PartitionRow],
        giver: MemberRow,
    ) -> Option<(PartitionRow, MemberRow)> {
        let taker = self.order.first().map(|(_, row)| *row)?;
        let gap = self.heat[giver] - self.heat[taker];
        let off = |row: &PartitionRow| (self.loads.heat(*row, giver) - gap / 2.0).abs();
        let candidates = led.iter().copied().filter(|row| {
            let larger = self
                .loads
                .heat(*row, giver)
                .max(self.loads.heat(*row, taker));
            larger > gap * WORTH && larger < gap * (1.0 - WORTH)
        });
        let able = candidates.filter(|row| {
            self.draft.can_lead(*row, taker) || self.draft.can_move(*row, giver, taker)
        });
        let best = able.min_by(|a, b| off(a).total_cmp(&off(b)).then(a.cmp(b)));
        best.map(|row| (row, taker))
    }

    /// The exchange of two partitions, with the coldest member that has a fitting one, that evens
    /// out both best: what the giver gives, to whom, and what it gets.
    fn exchange(
        &self,
        led: &Each<MemberRow, Vec<PartitionRow>>,
        giver: MemberRow,
    ) -> Option<(PartitionRow, MemberRow, PartitionRow)> {
        let takers = self.order.iter().map(|(_, row)| *row);
        let colder = takers.take_while(|row| self.heat[*row] < self.heat[giver]);
        colder.into_iter().find_map(|taker| {
            let gap = self.heat[giver] - self.heat[taker];
            let better = |partition: &PartitionRow| {
                let heat = self.loads.heat(*partition, giver);
                let wanted = heat - gap / 2.0;
                let near = led[taker].partition_point(|row| self.loads.heat(*row, giver) < wanted);
                let back = led[taker].get(near).copied()?;
                let off = self.loads.heat(back, giver) - wanted;
                let fine = off < gap * (0.5 - WORTH)
                    && self.draft.can_move(*partition, giver, taker)
                    && self.draft.can_move(back, taker, giver);
                fine.then_some((off, *partition, back))
            };
            let exchanges = led[giver].iter().filter_map(better);
            let best = exchanges.min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((best.1, taker, best.2))
        })
    }

    /// The partition nearest to the giver's excess that somebody can have and stay within the
    /// target: the least that is enough, or else the greatest that is not.
    fn hand_over(
        &self,
        led: &[PartitionRow],
        giver: MemberRow,
        target: f64,
    ) -> Option<(PartitionRow, MemberRow)> {
        let excess = self.heat[giver] - target;
        let enough = led.partition_point(|row| self.loads.heat(*row, giver) < excess);
        let candidates = led.get(..led.len().min(enough + 1)).unwrap_or_default();
        let fits = |partition: PartitionRow, taker: &MemberRow| {
            self.heat[*taker] + self.loads.heat(partition, *taker) <= target
        };
        candidates.iter().rev().find_map(|partition| {
            let replicas = self.draft.members_of(*partition).iter().copied();
            let standing = replicas.filter(|row| {
                *row != giver && self.draft.can_lead(*partition, *row) && fits(*partition, row)
            });
            let coldest = standing.min_by(|a, b| self.heat[*a].total_cmp(&self.heat[*b]));
            let taker = coldest.or_else(|| {
                let members = self.order.iter().map(|(_, row)| *row);
                let cold = members.take_while(|row| fits(*partition, row));
                cold.into_iter()
                    .find(|row| self.draft.can_move(*partition, giver, *row))
            })?;
            Some((*partition, taker))
        })
    }

    fn give(
        &mut self,
        led: &mut Each<MemberRow, Vec<PartitionRow>>,
        partition: PartitionRow,
        giver: MemberRow,
        taker: MemberRow,
    ) {
        led[giver].retain(|row| *row != partition);
        let load = |row: &PartitionRow| self.loads.load(*row);
        let place = led[taker].partition_point(|row| load(row) < load(&partition));
        led[taker].insert(place, partition);
        if self.draft.members_of(partition).contains(&taker) {
            self.draft.lead(partition, taker);
        } else {
            self.draft.shift(partition, giver, taker);
        }
        self.led(partition, Some(giver), Some(taker));
    }

    fn led(&mut self, partition: PartitionRow, from: Option<MemberRow>, to: Option<MemberRow>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.warm(from, -self.loads.heat(partition, from));
        }
        if let Some(to) = to {
            self.warm(to, self.loads.heat(partition, to));
        }
    }

    fn warm(&mut self, member: MemberRow, more: f64) {
        let before = self.heat[member];
        self.heat[member] = (before + more).max(0.0);
        if self.order.remove(&(before.to_bits(), member)) {
            self.order.insert((self.heat[member].to_bits(), member));
        }
    }

    /// What each member leads that may be moved, the least load first.
    fn by_leader(&self) -> Each<MemberRow, Vec<PartitionRow>> {
        let input = self.draft.input();
        let mut led = Each::filled(input.members().len(), Vec::new());
        let free = input
            .partitions()
            .filter(|it| !it.frozen && it.pin.is_none());
        for partition in free {
            if let Some(leader) = self.draft.leader_of(partition.row) {
                led[leader].push(partition.row);
            }
        }
        for member in input.members().rows() {
            led[member].sort_by(|a, b| self.loads.load(*a).total_cmp(&self.loads.load(*b)));
        }
        led
    }
}
