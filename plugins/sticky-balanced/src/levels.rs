//! Who lacks most, zone before member.

use std::collections::BTreeSet;

use folkmoot_sdk::rebalancer::prelude::*;

/// Members in the order of what they lack of their quotas, in zones in the order of what those
/// lack. A zone that has much to get must get it from many partitions, one from each: it goes
/// first, as the greatest degree does when a graph is built from its degrees (Havel and Hakimi).
#[derive(Debug)]
pub(crate) struct Levels {
    lack: Each<MemberRow, i64>,
    zone_lack: Each<ZoneRow, i64>,
    zones: BTreeSet<(i64, ZoneRow)>,
    members: Each<ZoneRow, BTreeSet<(i64, MemberRow)>>,
}

impl Levels {
    /// Levels of the members that can get something.
    pub(crate) fn new(input: &Input, lack: Each<MemberRow, i64>) -> Self {
        let mut members = Each::filled(input.zone_count(), BTreeSet::new());
        let mut zone_lack = Each::filled(input.zone_count(), 0);
        for (row, _) in input.members().iter().filter(|(_, it)| it.takes()) {
            let zone = input.zone(row);
            members[zone].insert((-lack[row], row));
            zone_lack[zone] += lack[row];
        }
        let zones = members.iter().filter(|(_, members)| !members.is_empty());
        let zones = zones.map(|(zone, _)| (-zone_lack[zone], zone)).collect();
        Self {
            lack,
            zone_lack,
            zones,
            members,
        }
    }

    /// What the member lacks; below 0 what it has too much.
    pub(crate) fn lack(&self, member: MemberRow) -> i64 {
        self.lack[member]
    }

    /// The member got so much more, or, below 0, less.
    pub(crate) fn add(&mut self, input: &Input, member: MemberRow, more: i64) {
        let zone = input.zone(member);
        let before = self.lack[member];
        self.lack[member] = before - more;
        let there = self.members[zone].remove(&(-before, member));
        if there {
            self.members[zone].insert((more - before, member));
            let before = self.zone_lack[zone];
            self.zones.remove(&(-before, zone));
            self.zone_lack[zone] = before - more;
            self.zones.insert((more - before, zone));
        }
    }

    /// The first member, in zones that are open, that lacks more than `least` and is fine.
    pub(crate) fn first(
        &self,
        least: i64,
        open: impl Fn(ZoneRow) -> bool,
        fine: impl Fn(MemberRow) -> bool,
    ) -> Option<MemberRow> {
        let zones = self.zones.iter().map(|(_, zone)| *zone);
        zones.filter(|zone| open(*zone)).find_map(|zone| {
            let members = self.members[zone].iter();
            let lacking = members.take_while(|(lack, _)| -*lack > least);
            lacking.map(|(_, row)| *row).find(|row| fine(*row))
        })
    }
}
