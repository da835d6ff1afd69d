//! Who leads, of those that have a replica.

use std::collections::VecDeque;

use folkmoot_sdk::rebalancer::prelude::*;

use crate::shares::{Claim, Shares, capacities};

/// Gives every member its share of leaders, with the fewest changes.
pub(crate) fn balance(draft: &mut Draft, mode: Mode) {
    let input = draft.input();
    if input.specs().values().iter().all(|spec| spec.copies < 2) {
        return;
    }
    let quotas = quotas(draft);
    choose_new(draft, &quotas);
    if mode == Mode::Full {
        Leaders::of(draft, quotas).level();
    }
}

fn quotas(draft: &Draft) -> Each<MemberRow, i64> {
    let input = draft.input();
    let capacities = capacities(input, 0);
    let claim = |(row, member): (MemberRow, &Member)| {
        member.takes().then(|| Claim {
            capacity: capacities[row],
            most: f64::from(draft.held(row).count),
            zone: input.zone(row),
        })
    };
    let claims = Each::of(input.members().iter().map(claim).collect());
    let leads = |row| draft.held(row).leads;
    let takers = input.members().iter().filter(|(_, it)| it.takes());
    let total: u32 = takers.map(|(row, _)| leads(row)).sum();
    let any = Each::filled(input.zone_count(), f64::MAX);
    Shares::of(f64::from(total), &claims, &any).whole(&claims, leads)
}

/// A partition that can not keep its leader gets the one that lacks most. Not inlined, as other hot
/// loops here: in a component, a function as large as all of them together has no registers left.
#[inline(never)]
fn choose_new(draft: &mut Draft, quotas: &Each<MemberRow, i64>) {
    for partition in draft.input().partitions() {
        let row = partition.row;
        if draft.leader_of(row) == partition.leader() {
            continue;
        }
        let lack = |member: &MemberRow| quotas[*member] - i64::from(draft.held(*member).leads);
        let others = draft.members_of(row).iter().copied();
        let best = others
            .filter(|member| draft.can_lead(row, *member))
            .max_by_key(|member| (lack(member), core::cmp::Reverse(*member)));
        // To lead it is counted already, for the one that leads.
        if let Some(best) = best
            && let Some(leader) = draft.leader_of(row)
            && lack(&best) > lack(&leader) + 1
        {
            draft.lead(row, best);
        }
    }
}

/// Moves leadership along chains of members: one that leads too many hands a partition to another
/// that has a replica, and that one another partition, up to one that leads too few.
struct Leaders<'d, 'a> {
    draft: &'d mut Draft<'a>,
    quotas: Each<MemberRow, i64>,
    /// What each leads that any other with a replica could lead, if it takes.
    led: Each<MemberRow, Vec<PartitionRow>>,
    /// Those others, each with the first partition that it could lead; empty where nobody asked.
    others: Each<MemberRow, Vec<(MemberRow, PartitionRow)>>,
}

impl<'d, 'a> Leaders<'d, 'a> {
    fn of(draft: &'d mut Draft<'a>, quotas: Each<MemberRow, i64>) -> Self {
        let input = draft.input();
        let mut led = Each::filled(input.members().len(), Vec::new());
        let free = input
            .partitions()
            .filter(|it| it.copies > 1 && it.pin.is_none() && !it.frozen);
        for partition in free {
            if let Some(leader) = draft.leader_of(partition.row) {
                led[leader].push(partition.row);
            }
        }
        Self {
            draft,
            quotas,
            others: Each::filled(led.len(), Vec::new()),
            led,
        }
    }

    fn level(mut self) {
        for member in self.quotas.rows() {
            while self.lack(member) < 0 && self.hand_on(member) {}
        }
    }

    fn lack(&self, member: MemberRow) -> i64 {
        self.quotas[member] - i64::from(self.draft.held(member).leads)
    }

    /// Hands one partition on, along the shortest chain; false if there is none.
    #[inline(never)]
    fn hand_on(&mut self, giver: MemberRow) -> bool {
        let members = self.draft.input().members();
        if !members[giver].takes() {
            return false;
        }
        let mut came = Each::filled(members.len(), None);
        let open = members.iter().map(|(row, it)| it.takes() && row != giver);
        let mut open = Each::of(open.collect());
        let mut queue = VecDeque::from([giver]);
        while let Some(from) = queue.pop_front() {
            if self.others[from].is_empty() {
                self.others[from] = self.others_of(from);
            }
            for (to, partition) in &self.others[from] {
                if !open[*to] {
                    continue;
                }
                open[*to] = false;
                came[*to] = Some((from, *partition));
                if self.lack(*to) > 0 {
                    let end = *to;
                    self.hand_along(&came, end);
                    return true;
                }
                queue.push_back(*to);
            }
        }
        false
    }

    /// Who could lead what a member leads: few, where the same members have many partitions together.
    fn others_of(&self, leader: MemberRow) -> Vec<(MemberRow, PartitionRow)> {
        let mut seen = Each::filled(self.quotas.len(), false);
        let mut others = Vec::new();
        for partition in &self.led[leader] {
            for member in self.draft.members_of(*partition).iter().skip(1) {
                if !core::mem::replace(&mut seen[*member], true) {
                    others.push((*member, *partition));
                }
            }
        }
        others
    }

    fn hand_along(
        &mut self,
        came: &Each<MemberRow, Option<(MemberRow, PartitionRow)>>,
        end: MemberRow,
    ) {
        let mut to = end;
        while let Some((from, partition)) = came[to] {
            self.draft.lead(partition, to);
            self.led[from].retain(|row| *row != partition);
            self.led[to].push(partition);
            self.others[from] = Vec::new();
            self.others[to] = Vec::new();
            to = from;
        }
    }
}
