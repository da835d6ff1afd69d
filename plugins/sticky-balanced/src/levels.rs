//! Who lacks most, zone before member.

use folkmoot_sdk::rebalancer::prelude::*;

/// What a row has in a ranking that is not in it.
const NOT_THERE: i64 = i64::MIN;

/// Members in the order of what they lack of their quotas, in zones in the order of what those
/// lack. A zone that has much to get must get it from many partitions, one from each: it goes
/// first, as the greatest degree does when a graph is built from its degrees (Havel and Hakimi).
#[derive(Debug)]
pub(crate) struct Levels {
    lack: Each<MemberRow, i64>,
    zones: Ranking<ZoneRow>,
    members: Each<ZoneRow, Ranking<MemberRow>>,
    /// Where a member is in the ranking of its zone, if it can get something.
    places: Each<MemberRow, Option<usize>>,
}

impl Levels {
    /// Levels of the members that can get something.
    pub(crate) fn new(input: &Input, lack: Each<MemberRow, i64>) -> Self {
        let mut members = Each::filled(input.zone_count(), Vec::new());
        let mut zones = Each::filled(input.zone_count(), None);
        let mut places = Each::filled(lack.len(), None);
        for (row, _) in input.members().iter().filter(|(_, it)| it.takes()) {
            let zone = input.zone(row);
            places[row] = Some(members[zone].len());
            members[zone].push((row, lack[row]));
            zones[zone] = Some(zones[zone].unwrap_or(0) + lack[row]);
        }
        let zones = zones.iter();
        let zones = zones.map(|(zone, lack)| (zone, lack.unwrap_or(NOT_THERE)));
        let members = members.iter().map(|(_, members)| Ranking::of(members));
        Self {
            lack,
            zones: Ranking::of(&zones.collect::<Vec<_>>()),
            members: Each::of(members.collect()),
            places,
        }
    }

    /// What the member lacks; below 0 what it has too much.
    pub(crate) fn lack(&self, member: MemberRow) -> i64 {
        self.lack[member]
    }

    /// The member got so much more, or, below 0, less.
    pub(crate) fn add(&mut self, input: &Input, member: MemberRow, more: i64) {
        self.lack[member] -= more;
        if let Some(place) = self.places[member] {
            let zone = input.zone(member);
            self.members[zone].add(place, -more);
            self.zones.add(zone.place(), -more);
        }
    }

    /// The first member, in zones that are open, that lacks more than `least` and is fine.
    pub(crate) fn first(
        &self,
        least: i64,
        open: impl Fn(ZoneRow) -> bool,
        fine: impl Fn(MemberRow) -> bool,
    ) -> Option<MemberRow> {
        let fine = |row| fine(row).then_some(row);
        let in_zone = |zone| open(zone).then(|| self.members[zone].first(least, &fine))?;
        self.zones.first(NOT_THERE, &in_zone)
    }
}

/// Rows in the order of what they lack, those that lack the same in their own order.
///
/// A binary tree of which each node has the greatest of what its leaves lack, in one allocation: the
/// node 1 is the root, and below a node N are 2N and 2N + 1. The first row is at the end of one path
/// from the root, and a change goes up no further than it makes a difference.
#[derive(Clone, Debug)]
struct Ranking<R> {
    rows: Vec<R>,
    greatest: Vec<i64>,
}

#[allow(
    clippy::indexing_slicing,
    reason = "a node that is no leaf has two below, and a leaf that is there has a row"
)]
impl<R: Row> Ranking<R> {
    /// Rows in their order, and what each lacks.
    fn of(rows: &[(R, i64)]) -> Self {
        let leaves = rows.len().next_power_of_two();
        let mut greatest = vec![NOT_THERE; 2 * leaves];
        for (node, (_, lack)) in greatest.iter_mut().skip(leaves).zip(rows) {
            *node = *lack;
        }
        for node in (1..leaves).rev() {
            greatest[node] = greatest[2 * node].max(greatest[2 * node + 1]);
        }
        Self {
            rows: rows.iter().map(|(row, _)| *row).collect(),
            greatest,
        }
    }

    fn leaves(&self) -> usize {
        self.greatest.len() / 2
    }

    /// The row at a place lacks so much more.
    fn add(&mut self, place: usize, more: i64) {
        let mut node = self.leaves() + place;
        let mut lack = self.greatest[node] + more;
        while self.greatest[node] != lack {
            self.greatest[node] = lack;
            if node == 1 {
                break;
            }
            lack = lack.max(self.greatest[node ^ 1]);
            node /= 2;
        }
    }

    /// What is found at the first row that lacks more than `least` and has it.
    fn first<T>(&self, least: i64, find: &impl Fn(R) -> Option<T>) -> Option<T> {
        if self.greatest[1] <= least {
            return None;
        }
        // Most often it is the very first.
        let mut node = 1;
        while node < self.leaves() {
            node = self.before(node);
        }
        let first = find(self.rows[node - self.leaves()]);
        first.or_else(|| Some(self.first_below(1, least, find)?.1))
    }

    /// Of the two below a node, the one that has the row that is before all others.
    fn before(&self, node: usize) -> usize {
        let (left, right) = (2 * node, 2 * node + 1);
        if self.greatest[left] >= self.greatest[right] {
            left
        } else {
            right
        }
    }

    /// As [`Ranking::first`], below a node, with what the row lacks.
    fn first_below<T>(
        &self,
        node: usize,
        least: i64,
        find: &impl Fn(R) -> Option<T>,
    ) -> Option<(i64, T)> {
        let greatest = self.greatest[node];
        if greatest <= least {
            return None;
        }
        if node >= self.leaves() {
            return find(self.rows[node - self.leaves()]).map(|found| (greatest, found));
        }
        let before = self.before(node);
        let found = self.first_below(before, least, find);
        // What is left of it is before what lacks the same.
        let least = found
            .as_ref()
            .map_or(least, |(lack, _)| lack - i64::from(before % 2 == 1));
        self.first_below(before ^ 1, least, find).or(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_what_they_lack() {
        for count in 0..40_u32 {
            let mut rows: Vec<(MemberRow, i64)> = (0..count)
                .map(|row| (MemberRow(row), i64::from(row * 7 % 5) - 2))
                .collect();
            let mut ranking = Ranking::of(&rows);
            for step in 0..count {
                let place = (step * 11 % count) as usize;
                let more = i64::from(step % 7) - 3;
                rows[place].1 += more;
                ranking.add(place, more);
                let mut sorted = rows.clone();
                sorted.sort_by_key(|(row, lack)| (-lack, *row));
                for least in [NOT_THERE, -3, 0, 2] {
                    for third in [3, 2, 1] {
                        let fine = |row: &MemberRow| row.0 % 3 < third;
                        let lacking = sorted.iter().filter(|(_, lack)| *lack > least);
                        let expected = lacking.map(|(row, _)| *row).find(fine);
                        let find = |row| Some(row).filter(fine);
                        assert_eq!(ranking.first(least, &find), expected);
                    }
                }
            }
        }
    }
}
