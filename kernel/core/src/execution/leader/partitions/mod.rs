//! The controller of partition maps: native code runs the life of an assignment, a policy only says
//! where partitions should be (rules R33–R42).
//!
//! - `steps`: what comes next for one partition.
//! - `run`: a transaction of steps, within the budget.
//! - `plan`: when a policy is asked, and what becomes of its answer.
//! - `preview`: what one would plan, for an operator.
//! - `loads`: what owners measured of their partitions.
//! - `question` and `answer`: what a policy sees and says, and the invariants that its answer must keep.
//! - `fallback`: the kernel's own plan, which gives an owner to what has none.
//! - `operations`: what clients ask; `permits`: whether members may stop.
//!
//! What is here is the memory of one term: it is thrown away with the office, and nothing rests on
//! it but when something is done. Who has what, moves, budgets and permits are replicated.

mod answer;
mod fallback;
mod loads;
mod operations;
mod permits;
mod plan;
mod preview;
mod question;
mod roster;
mod run;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::group::{member_of_live_path, member_of_record_path};
use folkmoot_proto::partition::{MemberNo, PartitionId};
use folkmoot_proto::{LogTime, MapId, Now, Tick, Zxid};

use self::loads::Loads;
pub(in crate::execution) use self::operations::{execute, member_forgotten, member_joined};
use self::plan::{Planner, Target};
pub(super) use self::preview::Preview;
use crate::execution::Execution;
use crate::state::{AppliedTxn, Notice, View};

/// Partitions that are looked at in one transaction, so that a turn stays short (rule R19).
const STEPS_PER_TXN: usize = 512;
/// Between two looks at what waits for the budget or for a lease, in milliseconds.
const LOOK_MS: u64 = 50;

/// What the leader keeps of the maps.
#[derive(Debug, Default)]
pub(super) struct Maps {
    controllers: BTreeMap<MapId, Controller>,
    /// The map that had the last turn.
    last: MapId,
}

impl Maps {
    /// An operator has done something: a policy that plans on it does not plan anew for a target
    /// that it had reached.
    pub(super) fn asked(&mut self) {
        for controller in self.controllers.values_mut() {
            controller.planner.changed("request");
        }
    }
}

/// What the leader keeps of one map.
#[derive(Debug)]
struct Controller {
    /// Partitions for which something may be due.
    examine: BTreeSet<PartitionId>,
    /// Partitions for which something is due later.
    later: BTreeSet<(LogTime, PartitionId)>,
    /// When each owner was told to let go, as this leader applied it, on its active clock: by the
    /// move (rule R35).
    revoked: BTreeMap<PartitionId, (Zxid, Tick)>,
    /// What the last plan wants and is not begun: greater priority first.
    targets: BTreeMap<(core::cmp::Reverse<u32>, PartitionId), Target>,
    /// What plans gave fewer replicas than there should be: the planner's generation when their move
    /// began, and whom they gave it to.
    short: BTreeMap<PartitionId, (u64, Vec<MemberNo>)>,
    /// Whether targets have come that were not looked at.
    planned: bool,
    /// When the next look is due for what waits for the budget or a lease.
    look_at: Option<Tick>,
    planner: Planner,
    loads: Loads,
}

impl Controller {
    /// A controller that has looked at nothing.
    fn new(partitions: Vec<PartitionId>) -> Self {
        Self {
            examine: partitions.into_iter().collect(),
            later: BTreeSet::new(),
            revoked: BTreeMap::new(),
            targets: BTreeMap::new(),
            short: BTreeMap::new(),
            planned: false,
            look_at: None,
            planner: Planner::starting(),
            loads: Loads::default(),
        }
    }

    /// A move of a plan was begun, where so many replicas are wanted.
    fn began(&mut self, partition: PartitionId, target: Target, wanted: u32) {
        if target.replicas < wanted as usize {
            let generation = self.planner.generation();
            self.short.insert(partition, (generation, target.members));
        } else {
            self.short.remove(&partition);
        }
    }

    /// Moves what is due by now among what is looked at.
    fn wake(&mut self, now: LogTime) {
        while let Some((_, partition)) = self.later.pop_first_if(|(due, _)| *due <= now) {
            self.examine.insert(partition);
        }
    }
}

/// As `BTreeSet::pop_first`, if the first one is as wanted.
trait PopFirstIf<T> {
    fn pop_first_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        if self.first().is_some_and(wanted) {
            self.pop_first()
        } else {
            None
        }
    }
}

impl Execution {
    /// One turn of the controllers: each that has something to do takes a transaction of steps, as
    /// far as batches have room.
    pub(super) fn run_maps(&mut self, now: Now) {
        if !self.may_execute() {
            return;
        }
        if self.speculative().counters().maps == 0 {
            if let Some(leader) = &mut self.leader {
                leader.maps.controllers.clear();
            }
            return;
        }
        self.meet_maps();
        for map in self.maps_in_turn() {
            if !self.may_execute() {
                return;
            }
            let taken = self.leader.as_mut();
            let taken = taken.and_then(|leader| leader.maps.controllers.remove(&map));
            let Some(mut controller) = taken else {
                continue;
            };
            self.run_map(now, map, &mut controller);
            self.plan_map(now, map, &mut controller);
            if let Some(leader) = &mut self.leader {
                leader.maps.controllers.insert(map, controller);
                leader.maps.last = map;
            }
        }
    }

    /// A controller for each map, and none for what is no map any more.
    fn meet_maps(&mut self) {
        let maps = self.speculative().maps();
        let Some(leader) = &self.leader else {
            return;
        };
        let unknown = |map: &&MapId| !leader.maps.controllers.contains_key(map);
        let unknown: Vec<MapId> = maps.iter().filter(unknown).copied().collect();
        let met: Vec<_> = unknown
            .into_iter()
            .map(|map| (map, Controller::new(self.speculative().partitions(map))))
            .collect();
        if let Some(leader) = &mut self.leader {
            leader.maps.controllers.extend(met);
            leader.maps.controllers.retain(|map, _| maps.contains(map));
        }
    }

    /// The maps, from the one after the last that had a turn.
    fn maps_in_turn(&self) -> Vec<MapId> {
        let Some(leader) = &self.leader else {
            return Vec::new();
        };
        let mut maps: Vec<MapId> = leader.maps.controllers.keys().copied().collect();
        let first = maps.partition_point(|map| *map <= leader.maps.last);
        maps.rotate_left(first);
        maps
    }

    /// Transactions were applied: what they changed is looked at.
    pub(super) fn maps_applied(&mut self, txns: &[AppliedTxn]) {
        if self.state().counters().maps == 0 {
            return;
        }
        for txn in txns {
            for notice in &txn.notices {
                self.map_noticed(notice);
            }
            for change in &txn.changes {
                self.member_noticed(&change.path);
            }
        }
    }

    fn map_noticed(&mut self, notice: &Notice) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        match *notice {
            Notice::Assigned { map, partition } => {
                if let Some(controller) = leader.maps.controllers.get_mut(&map) {
                    controller.examine.insert(partition);
                }
            }
            Notice::PartitionDescribed { map, partition } => {
                if let Some(controller) = leader.maps.controllers.get_mut(&map) {
                    controller.examine.insert(partition);
                    controller.planner.changed("request");
                }
            }
            Notice::MapChanged { map } => {
                let partitions = self.state().partitions(map);
                if let Some(leader) = &mut self.leader
                    && let Some(controller) = leader.maps.controllers.get_mut(&map)
                {
                    let is_there = |partition| partitions.binary_search(&partition).is_ok();
                    controller.loads.retain(is_there);
                    controller.short.retain(|partition, _| is_there(*partition));
                    controller.examine.extend(partitions);
                    controller.planner.changed("request");
                }
            }
            _ => {}
        }
    }

    /// A member came, went, or is otherwise: what it has is looked at.
    fn member_noticed(&mut self, path: &str) {
        let Some((group, member)) = member_of_path(path) else {
            return;
        };
        let view = self.state();
        let Some((map, record)) = view.map_of(group) else {
            return;
        };
        let number = record.members.iter().position(|name| name == member);
        let number = number.and_then(|number| u32::try_from(number).ok());
        let held = number.map(|number| view.held_by(map, MemberNo(number)));
        if let Some(leader) = &mut self.leader
            && let Some(controller) = leader.maps.controllers.get_mut(&map)
        {
            controller.examine.extend(held.into_iter().flatten());
            controller.planner.changed("member");
        }
    }

    /// When a controller has something to do, if nothing comes in before. What was due at the last
    /// step and was not done waits for something else, which comes as an input.
    pub(in crate::execution) fn maps_timeout(&self) -> Option<Tick> {
        let leader = self.leader.as_ref()?;
        let clock = leader.clock?;
        let controllers = leader.maps.controllers.values();
        let due = |controller: &Controller| {
            let later = controller.later.first().map(|(due, _)| clock.tick_of(*due));
            let plan = controller.planner.due();
            later
                .into_iter()
                .chain(controller.look_at)
                .chain(plan)
                .chain(controller.loads.due())
                .filter(|due| *due > self.last_tick)
                .min()
        };
        controllers.filter_map(due).min()
    }

    /// Whether a controller has something to do at once.
    pub(super) fn maps_ready(&self) -> bool {
        let ready = |controller: &Controller| {
            !controller.examine.is_empty() || controller.planned || controller.planner.gathers()
        };
        let leader = self.leader.as_ref();
        leader.is_some_and(|leader| leader.maps.controllers.values().any(ready))
    }
}

/// The group and the member of a node below `members` or `live` of a group.
fn member_of_path(path: &str) -> Option<(&str, &str)> {
    member_of_live_path(path).or_else(|| member_of_record_path(path))
}
