//! What each member should have.

use folkmoot_sdk::rebalancer::prelude::*;

/// Below this a difference of shares is an error of rounding.
const EPSILON: f64 = 1e-6;

/// What a member can have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Its part of the whole is in proportion to this.
    pub(crate) capacity: f64,
    /// It can not have more.
    pub(crate) most: f64,
    /// Its zone.
    pub(crate) zone: ZoneRow,
}

/// What each member should have of a total, and which zones are as full as they may be.
#[derive(Debug)]
pub(crate) struct Shares {
    pub(crate) of: Each<MemberRow, f64>,
    full: Each<ZoneRow, bool>,
}

impl Shares {
    /// Fills members like vessels that water is poured into: each in proportion to its capacity,
    /// until it or its zone is full.
    pub(crate) fn of(
        total: f64,
        claims: &Each<MemberRow, Option<Claim>>,
        zone_most: &Each<ZoneRow, f64>,
    ) -> Self {
        let all: Vec<(MemberRow, Claim)> = claims
            .iter()
            .filter_map(|(row, claim)| claim.map(|claim| (row, claim)))
            .collect();
        let mut shares = Self {
            of: Each::filled(claims.len(), 0.0),
            full: Each::filled(zone_most.len(), false),
        };
        let (mut left, mut open) = (total, all);
        loop {
            let level = shares.pour(left, &open);
            let mut zones = Each::filled(zone_most.len(), 0.0);
            for (row, claim) in &open {
                zones[claim.zone] += shares.of[*row];
            }
            let overflows = |zone: ZoneRow| zones[zone] > zone_most[zone] + EPSILON;
            let (over, rest): (Vec<_>, Vec<_>) =
                open.iter().partition(|(_, claim)| overflows(claim.zone));
            if over.is_empty() || level <= 0.0 {
                return shares;
            }
            for zone in zones.rows().filter(|zone| overflows(*zone)) {
                let members: Vec<_> = over
                    .iter()
                    .copied()
                    .filter(|(_, claim)| claim.zone == zone)
                    .collect();
                shares.pour(zone_most[zone], &members);
                shares.full[zone] = true;
                left -= zone_most[zone];
            }
            open = rest;
        }
    }

    /// Pours into some members; answers what a unit of capacity got where nothing was full.
    fn pour(&mut self, total: f64, members: &[(MemberRow, Claim)]) -> f64 {
        let mut open: Vec<_> = members.to_vec();
        let mut left = total.max(0.0);
        loop {
            let capacity: f64 = open.iter().map(|(_, claim)| claim.capacity).sum();
            let level = if capacity > 0.0 { left / capacity } else { 0.0 };
            let fits = |claim: &Claim| level * claim.capacity <= claim.most + EPSILON;
            let (rest, over): (Vec<_>, Vec<_>) = open.iter().partition(|(_, claim)| fits(claim));
            for (row, claim) in &over {
                self.of[*row] = claim.most;
                left -= claim.most;
            }
            if over.is_empty() {
                for (row, claim) in &rest {
                    self.of[*row] = level * claim.capacity;
                }
                return level;
            }
            open = rest;
        }
    }

    /// Shares as whole numbers, each the one below or above, with the same sums. The remainders go
    /// to those that have more than the number below already.
    pub(crate) fn whole(
        &self,
        claims: &Each<MemberRow, Option<Claim>>,
        has: impl Fn(MemberRow) -> u32,
    ) -> Each<MemberRow, i64> {
        let mut quotas = Each::filled(self.of.len(), 0);
        // Each full zone has a sum of its own; the others share one.
        let mut groups = vec![Vec::new(); self.full.len() + 1];
        for (row, claim) in claims.iter() {
            let Some(claim) = claim else { continue };
            let full = self.full[claim.zone];
            let group = if full { claim.zone.place() + 1 } else { 0 };
            if let Some(group) = groups.get_mut(group) {
                group.push(row);
            }
        }
        for group in groups {
            self.round(&group, &has, &mut quotas);
        }
        quotas
    }

    fn round(
        &self,
        group: &[MemberRow],
        has: &impl Fn(MemberRow) -> u32,
        quotas: &mut Each<MemberRow, i64>,
    ) {
        let below = |row: MemberRow| (self.of[row] + EPSILON).floor();
        let part = |row: MemberRow| self.of[row] - below(row);
        let sum: f64 = group.iter().map(|row| self.of[*row]).sum();
        let sum_below: f64 = group.iter().map(|row| below(*row)).sum();
        for row in group {
            quotas[*row] = below(*row) as i64;
        }
        let mut order: Vec<MemberRow> = group
            .iter()
            .copied()
            .filter(|row| part(*row) > EPSILON)
            .collect();
        let kept = |row: MemberRow| f64::from(has(row)) > below(row);
        order.sort_by(|a, b| {
            let kept = kept(*b).cmp(&kept(*a));
            kept.then_with(|| part(*b).total_cmp(&part(*a)))
                .then(a.cmp(b))
        });
        let remainders = (sum - sum_below).round() as usize;
        for row in order.into_iter().take(remainders) {
            quotas[row] += 1;
        }
    }
}

/// What members are counted by: the capacity in the dimension that is scarcest, or equal parts
/// where some member has no limit there.
pub(crate) fn capacities(input: &Input, dimension: usize) -> Each<MemberRow, f64> {
    let capacity = |member: &Member| member.capacity.get(dimension).copied().unwrap_or(u64::MAX);
    let takers = || input.members().values().iter().filter(|it| it.takes());
    let limited = takers().all(|member| capacity(member) != u64::MAX);
    let part = |member: &Member| {
        if limited {
            capacity(member) as f64
        } else {
            1.0
        }
    };
    Each::of(input.members().values().iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(total: f64, members: &[(f64, f64, u32)], zones: &[f64]) -> Vec<i64> {
        let claim = |(capacity, most, zone): &(f64, f64, u32)| {
            Some(Claim {
                capacity: *capacity,
                most: *most,
                zone: ZoneRow(*zone),
            })
        };
        let claims = Each::of(members.iter().map(claim).collect());
        let shares = Shares::of(total, &claims, &Each::of(zones.to_vec()));
        shares.whole(&claims, |_| 0).values().to_vec()
    }

    const ANY: f64 = f64::MAX;

    #[test]
    fn shares_are_in_proportion() {
        assert_eq!(
            shares(12.0, &[(1.0, ANY, 0), (2.0, ANY, 0)], &[ANY]),
            [4, 8]
        );
        assert_eq!(shares(5.0, &[(1.0, ANY, 0), (1.0, ANY, 0)], &[ANY]), [3, 2]);
    }

    #[test]
    fn what_is_too_much_for_one_goes_to_the_others() {
        let members = [(1.0, 1.0, 0), (1.0, ANY, 0), (1.0, ANY, 0)];
        assert_eq!(shares(9.0, &members, &[ANY]), [1, 4, 4]);
    }

    #[test]
    fn a_zone_gets_no_more_than_it_may() {
        let members = [(1.0, ANY, 0), (1.0, ANY, 0), (1.0, ANY, 0), (1.0, ANY, 1)];
        assert_eq!(shares(20.0, &members, &[10.0, 10.0]), [4, 3, 3, 10]);
    }

    #[test]
    fn nobody_to_share_with_is_no_error() {
        assert_eq!(shares(5.0, &[], &[]), [0; 0]);
        assert_eq!(shares(5.0, &[(0.0, 0.0, 0)], &[ANY]), [0]);
    }
}
