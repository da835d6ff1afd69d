//! Measured loads of partitions, as their owners report them, and when a policy is asked because of
//! them.
//!
//! They are hints: not logged, kept for one term, and reported to the next leader again. A load is the
//! partition's and not its owner's, so the last measurement stays until there is another one, whoever
//! owns the partition by then.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use folkmoot_proto::group::live_path;
use folkmoot_proto::partition::{MapRecord, MemberNo, PartitionId, PartitionLoad};
use folkmoot_proto::{Digest, SessionId, Tick, Zxid};

use super::question::Rows;
use crate::execution::Execution;
use crate::plugin::needs_column;
use crate::policy::{Cells, Table};
use crate::state::View;

/// Between two questions about one map that are asked because of loads, in milliseconds: owners report
/// every 5 s, so each has reported once more.
const ASK_MS: u64 = 10_000;
/// How soon, and how late, a policy can have itself asked again, in milliseconds.
const AGAIN_MS: RangeInclusive<u64> = 1_000..=600_000;

/// The column that a policy names which plans by them.
const LOADS: &str = "partitions.load";

/// The loads of one map.
#[derive(Clone, Debug, Default)]
pub(super) struct Loads {
    known: BTreeMap<PartitionId, Load>,
    /// Whether some have come that no question was asked about.
    new: bool,
    /// No question because of them before this.
    ask_from: Tick,
    /// When the policy wants to be asked again in any case.
    again_at: Option<Tick>,
    /// The policy that was last looked at, and whether it needs loads.
    needed_by: Option<(Digest, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    load: u64,
    /// When it came, on the leader's active clock.
    at: Tick,
}

impl Loads {
    fn take(&mut self, reported: Vec<PartitionLoad>, at: Tick) {
        self.new |= !reported.is_empty();
        let known = reported.into_iter().map(|of| {
            let load = of.load;
            (of.partition, Load { load, at })
        });
        self.known.extend(known);
    }

    /// Forgets those of partitions that are no more.
    pub(super) fn retain(&mut self, is_there: impl Fn(PartitionId) -> bool) {
        self.known.retain(|partition, _| is_there(*partition));
    }

    /// Whether some have come that no question was asked about.
    pub(super) fn are_new(&self) -> bool {
        self.new
    }

    /// This policy plans for the map. Only one that says that it needs them is asked because of them.
    pub(super) fn planned_by(&mut self, view: &impl View, policy: Option<Digest>) {
        if self.needed_by.map(|(policy, _)| policy) == policy {
            return;
        }
        self.needed_by = policy.map(|digest| {
            let component = view.component(digest);
            let needs = component.is_some_and(|of| needs_column(&of.description, LOADS));
            (digest, needs)
        });
    }

    /// When a question is due because of them.
    pub(super) fn due(&self) -> Option<Tick> {
        let is_needed = self.needed_by.is_some_and(|(_, is_needed)| is_needed);
        let new = (self.new && is_needed).then_some(self.ask_from);
        new.into_iter().chain(self.again_at).min()
    }

    /// A question was asked, which shows all that are known.
    pub(super) fn asked(&mut self, now: Tick) {
        self.new = false;
        self.ask_from = now.plus_millis(ASK_MS);
        self.again_at = None;
    }

    /// A question was answered: the policy may want to be asked again.
    pub(super) fn answered(&mut self, now: Tick, answer: &[Table]) {
        let again = answer.iter().find(|table| table.name == "again");
        let after = match again.and_then(|table| table.column("after")) {
            Some(Cells::U64s(after)) => after.first(),
            _ => None,
        };
        let clamped = |after: &u64| (*after).clamp(*AGAIN_MS.start(), *AGAIN_MS.end());
        self.again_at = after.map(|after| now.plus_millis(clamped(after)));
    }

    /// Adds them to the rows of `partitions`, if there are any.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are more than any measurement has"
    )]
    pub(super) fn add_to(&self, tables: &mut [Table], rows: &Rows, active: Tick) {
        let mut tables = tables.iter_mut();
        let table = tables.find(|table| table.name == "partitions");
        let Some(table) = table.filter(|_| !self.known.is_empty()) else {
            return;
        };
        // Both are in the order of the ids.
        let mut known = self.known.iter().peekable();
        let mut of = |partition| {
            while known.next_if(|(other, _)| *other < partition).is_some() {}
            match known.next_if(|(other, _)| *other == partition) {
                Some((_, of)) => (of.load as f64, active.millis_since(of.at)),
                None => (0.0, u64::MAX),
            }
        };
        let (loads, ages) = rows.partitions.iter().map(|(id, _)| of(id)).unzip();
        table.add("load", Cells::F64s(loads));
        table.add("load-age", Cells::U64s(ages));
    }
}

impl Execution {
    /// A session says what it measured of partitions. What it does not own now by the token that it
    /// names says nothing.
    pub(in crate::execution) fn lead_loads(
        &mut self,
        now: Tick,
        session: SessionId,
        group: &str,
        mut loads: Vec<PartitionLoad>,
    ) {
        if self.leader.is_none() {
            return;
        }
        let view = self.speculative();
        let Some((map, record)) = view.map_of(group) else {
            return;
        };
        let mut lives_as = BTreeMap::new();
        loads.retain(|load| {
            let partition = view.partition(map, load.partition);
            let owner = partition.and_then(|record| record.assignment.owner);
            owner.is_some_and(|owner| {
                let incarnation = lives_as
                    .entry(owner.member)
                    .or_insert_with(|| incarnation_of(view, record, owner.member, session));
                owner.token == load.token && *incarnation == Some(owner.incarnation)
            })
        });
        if let Some(leader) = &mut self.leader
            && let Some(controller) = leader.maps.controllers.get_mut(&map)
            && !loads.is_empty()
        {
            controller.loads.take(loads, leader.active.look(now));
            controller.planner.measured();
        }
    }
}

/// The incarnation in which a session lives as a member, if it does.
fn incarnation_of(
    view: &impl View,
    map: &MapRecord,
    member: MemberNo,
    session: SessionId,
) -> Option<Zxid> {
    let name = map.members.get(member.0 as usize)?;
    let live = view.node(&format!("{}/{name}", live_path(&map.group)))?;
    (live.stat.ephemeral_owner == Some(session)).then_some(live.stat.czxid)
}
