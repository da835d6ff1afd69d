//! When a policy is asked, and what becomes of its answer (rule R37).
//!
//! A plan is optimistic: it names what it saw, and each of its moves begins only if that still
//! holds. One that breaks an invariant is refused whole. A policy that faults, or that plans anew
//! for a target that is reached, is not asked any more until an operator says so; meanwhile the
//! kernel's own plan gives an owner to what has none.

use core::cmp::Reverse;

use folkmoot_proto::effect::Effect;
use folkmoot_proto::partition::{
    MapRecord, MemberNo, MoveReason, Owner, PartitionId, PolicyChoice,
};
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{MapId, Now, Tick, Zxid};

use super::answer::Read;
use super::question::{Question, Rows};
use super::roster::Roster;
use super::run::steps_per_txn;
use super::{Controller, answer, fallback};
use crate::execution::Execution;
use crate::execution::leader::draft::Draft;
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure, PolicyWorld, Table};
use crate::state::View;

/// Between two questions about one map, in milliseconds: what comes together is planned for
/// together.
const PAUSE_MS: u64 = 100;
/// How long an answer is waited for, in milliseconds: a policy may take 2 s, and waits for its turn.
const ANSWER_MS: u64 = 10_000;
/// How long what has no owner waits for an answer, in milliseconds: then the kernel places it.
const ORPHANS_MS: u64 = 3_000;
/// Faults in a row after which a policy is not asked any more.
const FAULTS_MAX: u32 = 3;
/// Partitions that are gathered for a question in one turn, by the steps of a transaction.
const GATHERED_PER_STEP: usize = 8;
/// How often a question is begun anew because something has changed, before all of it is gathered in one
/// turn.
const RESTARTS_MAX: u32 = 3;

/// Where a partition should be, and what the plan saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Who should have it; the first is to own it.
    pub(super) members: Vec<MemberNo>,
    /// The incarnations of these.
    pub(super) incarnations: Vec<Zxid>,
    /// Its owner as the plan saw it.
    pub(super) owner: Option<Owner>,
    /// Why it is moved.
    pub(super) reason: MoveReason,
    /// The replicas that the plan gives it, those that are gone and waited for among them.
    pub(super) replicas: usize,
}

/// A plan: targets by partition, with their priorities and what the policy says of them.
pub(super) type Plan = Vec<Planned>;

/// One partition of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) partition: PartitionId,
    pub(super) target: Target,
    pub(super) priority: u32,
    pub(super) says: String,
}

/// When a policy is asked.
#[derive(Debug, Default)]
pub(super) struct Planner {
    /// Counts what a plan may depend on.
    generation: u64,
    /// Why a plan is wanted.
    wanted: Option<&'static str>,
    /// Something has no owner.
    orphans: bool,
    /// The question that is being put together.
    gathering: Option<Gathering>,
    /// The question under way.
    asked: Option<Asked>,
    /// Its answer.
    answer: Option<PolicyAnswer>,
    /// That it is asked once more when everything that was planned is done.
    last_word: Option<LastWord>,
    /// No question before this.
    pause_until: Tick,
    /// Faults in a row.
    faults: u32,
}

/// That a policy is asked once more when everything that it planned is done.
#[derive(Clone, Copy, Debug)]
struct LastWord {
    /// What it planned for: where that has changed, it is asked anyway.
    generation: u64,
    /// Nothing of its plan was left out: it has nothing to add.
    is_whole: bool,
}

/// A question that is being put together, over several turns.
#[derive(Debug)]
struct Gathering {
    question: Question,
    choice: PolicyChoice,
    trigger: &'static str,
    generation: u64,
    verifies: bool,
    /// How often it was begun anew, because something had changed.
    restarts: u32,
}

/// A question under way.
#[derive(Debug)]
struct Asked {
    id: PolicyCallId,
    choice: PolicyChoice,
    generation: u64,
    at: Tick,
    rows: Rows,
    /// Something had no owner that is not placed yet.
    orphans: bool,
    /// Everything that was planned is done: whatever is planned now is too much.
    verifies: bool,
}

impl Planner {
    /// It is another one once something has changed that a plan may depend on.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Of a leader that has planned nothing: what a former one had planned and not begun is planned
    /// anew, and what is planned already does not move.
    pub(super) fn starting() -> Self {
        Self {
            wanted: Some("request"),
            ..Self::default()
        }
    }

    /// Something that a plan may depend on has changed.
    pub(super) fn changed(&mut self, trigger: &'static str) {
        self.generation += 1;
        self.wanted = Some(trigger);
        self.last_word = None;
    }

    /// A partition has no owner, and nobody is waited for.
    pub(super) fn orphaned(&mut self) {
        self.orphans = true;
        self.changed("leave");
    }

    /// A partition has fewer replicas than it should.
    pub(super) fn lacks(&mut self) {
        self.changed("leave");
    }

    /// A target was not of what there is: a plan for what there is is wanted.
    pub(super) fn voided(&mut self) {
        self.changed("request");
    }

    /// Whether it goes on with a question at once.
    pub(super) fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    /// Loads have come: what a policy wants because of them is no plan anew for a target that is
    /// reached. What was left out is asked for all the same.
    pub(super) fn measured(&mut self) {
        self.last_word = self.last_word.filter(|of| !of.is_whole);
    }

    /// When it has something to do, if nothing comes in before.
    pub(super) fn due(&self) -> Option<Tick> {
        match &self.asked {
            Some(_) if self.answer.is_some() => Some(Tick::ZERO),
            Some(asked) if asked.orphans || self.orphans => Some(asked.at.plus_millis(ORPHANS_MS)),
            Some(asked) => Some(asked.at.plus_millis(ANSWER_MS)),
            None => self.wanted.map(|_| self.pause_until),
        }
    }
}

impl Execution {
    /// Asks for a plan where one is wanted, and takes one that has come.
    pub(super) fn plan_map(&mut self, now: Now, map: MapId, controller: &mut Controller) {
        let Some(record) = self.speculative().map(map).cloned() else {
            return;
        };
        if let Some(mut asked) = controller.planner.asked.take() {
            match controller.planner.answer.take() {
                Some(answer) => self.take_answer(now, (map, &record), controller, asked, answer),
                None if now.tick < asked.at.plus_millis(ANSWER_MS) => {
                    let orphans = core::mem::take(&mut controller.planner.orphans);
                    asked.orphans |= orphans;
                    if asked.orphans && now.tick >= asked.at.plus_millis(ORPHANS_MS) {
                        asked.orphans = false;
                        self.fall_back(now, (map, &record), controller, true);
                    }
                    controller.planner.asked = Some(asked);
                    return;
                }
                None => {
                    let failure = PolicyFailure::Fault {
                        kind: "timeout".to_owned(),
                        message: "there was no answer".to_owned(),
                    };
                    self.take_failure(now, (map, &record), controller, &failure);
                }
            }
        }
        if !controller.examine.is_empty() || now.tick < controller.planner.pause_until {
            return;
        }
        let policy = record.config.policy.as_ref().map(|choice| choice.digest);
        controller.loads.planned_by(self.speculative(), policy);
        let asks = record.config.policy.is_some() && record.breaker.is_none() && !record.frozen;
        let is_due = controller.loads.due().is_some_and(|due| due <= now.tick);
        // What is being gathered shows them.
        if asks && is_due && !controller.planner.gathers() {
            controller.planner.wanted.get_or_insert("load");
        }
        let last_word = self.last_word(map, controller);
        let planner = &controller.planner;
        if planner.wanted.is_none() && last_word.is_none() && !planner.gathers() {
            return;
        }
        let verifies = last_word.is_some_and(|of| of.is_whole);
        match record.config.policy.clone() {
            Some(choice) if record.breaker.is_none() => {
                let planner = &controller.planner;
                if planner.orphans && planner.faults > 0 && !planner.gathers() {
                    self.fall_back(now, (map, &record), controller, true);
                }
                if !self.ask_for_plan(now, (map, &record), controller, choice, verifies) {
                    return;
                }
            }
            _ => {
                controller.planner.gathering = None;
                controller.planner.wanted = None;
                // What is moving was left out.
                let moves = !self.speculative().moving(map).is_empty();
                controller.planner.last_word = moves.then_some(LastWord {
                    generation: controller.planner.generation,
                    is_whole: false,
                });
                self.fall_back(now, (map, &record), controller, false);
            }
        }
        controller.planner.orphans = false;
        controller.planner.pause_until = now.tick.plus_millis(PAUSE_MS);
    }

    /// The last word that is due, if everything that was planned of the present generation is done.
    fn last_word(&self, map: MapId, controller: &Controller) -> Option<LastWord> {
        let planner = &controller.planner;
        let last_word = planner
            .last_word
            .filter(|of| of.generation == planner.generation);
        last_word.filter(|_| {
            controller.targets.is_empty()
                && self.speculative().moving(map).is_empty()
                && self.speculative().overlay_txns() == 0
        })
    }

    /// Goes on with a question, as far as one turn goes, and asks it. False if there is more to gather.
    fn ask_for_plan(
        &mut self,
        now: Now,
        (map, record): (MapId, &MapRecord),
        controller: &mut Controller,
        choice: PolicyChoice,
        verifies: bool,
    ) -> bool {
        let view = self.speculative();
        let planner = &mut controller.planner;
        let is_current =
            |of: &mut Gathering| of.generation == planner.generation && of.choice == choice;
        let restarts = planner.gathering.as_ref().map_or(0, |of| of.restarts + 1);
        let mut gathering = match planner.gathering.take_if(is_current) {
            Some(gathering) => gathering,
            None => {
                let trigger = planner.wanted.take().unwrap_or("request");
                // A question that only asks for the newest loads does not take its last word.
                if trigger != "load" || verifies {
                    planner.last_word = None;
                }
                Gathering {
                    question: Question::new(view, (map, record)),
                    choice,
                    trigger,
                    generation: planner.generation,
                    verifies: verifies && matches!(trigger, "request" | "load"),
                    restarts,
                }
            }
        };
        // What changes all the time is gathered at once, or it never would be.
        let most = match gathering.restarts {
            0..RESTARTS_MAX => GATHERED_PER_STEP * steps_per_txn(view),
            _ => usize::MAX,
        };
        if !gathering.question.gather(view, most) {
            planner.gathering = Some(gathering);
            return false;
        }
        planner.gathering = None;
        let (replicas, log_time) = (record.config.replicas, self.txn_log_time(now));
        let (mut tables, rows) = gathering
            .question
            .finish(replicas, gathering.trigger, log_time);
        let active = self.active(now.tick);
        controller.loads.add_to(&mut tables, &rows, active);
        let verifies = gathering.verifies && !controller.loads.are_new();
        controller.loads.asked(now.tick);
        let id = self.ask_rebalancer(&gathering.choice, tables);
        controller.planner.asked = Some(Asked {
            id,
            choice: gathering.choice,
            generation: gathering.generation,
            at: now.tick,
            rows,
            orphans: controller.planner.orphans,
            verifies,
        });
        true
    }

    pub(super) fn ask_rebalancer(
        &mut self,
        choice: &PolicyChoice,
        tables: Vec<Table>,
    ) -> PolicyCallId {
        self.ask_policy(PolicyCall {
            world: PolicyWorld::Rebalancer,
            digest: choice.digest,
            configuration: choice.configuration.clone().into_bytes(),
            tables: Some(tables),
        })
    }

    /// A policy has answered. False if nobody here has asked.
    pub(in crate::execution) fn planned(&mut self, id: PolicyCallId, answer: PolicyAnswer) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        let mut planners = leader.maps.controllers.values_mut();
        let planner = planners.find_map(|controller| {
            let planner = &mut controller.planner;
            let asked = planner.asked.as_ref().is_some_and(|asked| asked.id == id);
            asked.then_some(planner)
        });
        if let Some(planner) = planner {
            planner.answer = Some(answer);
            return;
        }
        leader.asking.answered(id, answer);
    }

    fn take_answer(
        &mut self,
        now: Now,
        (map, record): (MapId, &MapRecord),
        controller: &mut Controller,
        asked: Asked,
        answer: PolicyAnswer,
    ) {
        if record.config.policy.as_ref() != Some(&asked.choice) {
            // It was swapped meanwhile.
            controller.planner.orphans |= asked.orphans;
            return controller.planner.changed("request");
        }
        let plan = match answer {
            Ok(tables) => {
                controller.loads.answered(now.tick, &tables);
                let (view, log_time) = (self.speculative(), self.txn_log_time(now));
                let mut roster = Roster::new(record);
                let map = (map, record);
                answer::read(&tables, &asked.rows, view, map, &mut roster, log_time)
            }
            Err(PolicyFailure::NotReady) => {
                controller.planner.orphans |= asked.orphans;
                controller.planner.wanted.get_or_insert("request");
                controller.planner.faults = controller.planner.faults.max(1);
                controller.planner.pause_until = now.tick.plus_millis(5 * PAUSE_MS);
                return;
            }
            Err(failure) => {
                return self.take_failure(now, (map, record), controller, &failure);
            }
        };
        let Read { plan, left_out } = match plan {
            Ok(read) => read,
            // What it was asked about is no more: it is asked anew.
            Err(_) if asked.generation != controller.planner.generation => return,
            Err(reason) => {
                let failure = PolicyFailure::Fault {
                    kind: "refused".to_owned(),
                    message: reason,
                };
                return self.take_failure(now, (map, record), controller, &failure);
            }
        };
        controller.planner.faults = 0;
        let current = asked.generation == controller.planner.generation;
        if asked.verifies && current && !plan.is_empty() && !left_out {
            let reason = format!(
                "it plans anew for a target that is reached: {} of {} partitions",
                plan.len(),
                record.partitions
            );
            return self.open_breaker(now, map, controller, reason);
        }
        let plan = if record.approved {
            plan
        } else {
            self.approve_first(now, (map, record), controller, plan)
        };
        let plan = held_back(record, plan);
        // Where something is held back the target is not reached, however often it is planned; new
        // loads are a cause to plan anew.
        let is_to_verify = !plan.is_empty() && !controller.loads.are_new();
        if current && !record.frozen && (left_out || is_to_verify) {
            controller.planner.last_word = Some(LastWord {
                generation: asked.generation,
                is_whole: !left_out,
            });
        }
        controller.adopt(plan);
    }

    /// The first plan of a policy: one that moves much waits for an operator, but for what has no
    /// owner.
    fn approve_first(
        &mut self,
        now: Now,
        (map, record): (MapId, &MapRecord),
        controller: &mut Controller,
        mut plan: Plan,
    ) -> Plan {
        let moved = plan
            .iter()
            .filter(|it| it.target.reason != MoveReason::Recovery);
        let moved = u64::try_from(moved.count()).unwrap_or(u64::MAX);
        let most = u64::from(record.partitions) * u64::from(record.config.approval_percent);
        if moved * 100 > most {
            plan.retain(|it| it.target.reason == MoveReason::Recovery);
            let reason = format!(
                "its first plan moves {moved} of {} partitions: approve it, or choose another",
                record.partitions
            );
            self.open_breaker(now, map, controller, reason);
        } else {
            self.change_map(now, map, |record| record.approved = true);
        }
        plan
    }

    fn take_failure(
        &mut self,
        now: Now,
        (map, record): (MapId, &MapRecord),
        controller: &mut Controller,
        failure: &PolicyFailure,
    ) {
        let planner = &mut controller.planner;
        planner.faults += 1;
        planner.wanted.get_or_insert("request");
        planner.pause_until = now.tick.plus_millis(PAUSE_MS << planner.faults.min(6));
        if planner.faults >= FAULTS_MAX {
            self.open_breaker(now, map, controller, failure.to_string());
        }
        self.fall_back(now, (map, record), controller, true);
    }

    fn open_breaker(&mut self, now: Now, map: MapId, controller: &mut Controller, reason: String) {
        controller.planner.faults = 0;
        let reason: String = reason.chars().take(500).collect();
        self.change_map(now, map, |record| record.breaker = Some(reason));
    }

    fn change_map(&mut self, now: Now, map: MapId, change: impl FnOnce(&mut MapRecord)) {
        self.kernel_txn(now, |draft| {
            let Some(mut record) = draft.view().map(map).cloned() else {
                return Ok(());
            };
            change(&mut record);
            put_map(draft, map, record)
        });
    }

    /// The kernel's own plan: of everything that it cares for, or of what has no owner alone.
    fn fall_back(
        &self,
        now: Now,
        (map, record): (MapId, &MapRecord),
        controller: &mut Controller,
        orphans_only: bool,
    ) {
        let log_time = self.txn_log_time(now);
        let view = self.speculative();
        let mut roster = Roster::new(record);
        let plan = fallback::plan(view, (map, record), &mut roster, log_time, orphans_only);
        let plan = held_back(record, plan);
        if orphans_only {
            controller.add(plan);
        } else {
            controller.adopt(plan);
        }
    }
}

/// What of a plan may begin: in a frozen map, what gives an owner to what has none. Once it is not
/// frozen any more, there is another plan.
pub(super) fn held_back(record: &MapRecord, mut plan: Plan) -> Plan {
    plan.retain(|it| !record.frozen || it.target.reason == MoveReason::Recovery);
    plan
}

impl Controller {
    /// The targets of a plan take the place of those of the one before.
    fn adopt(&mut self, plan: Plan) {
        self.targets.clear();
        self.add(plan);
    }

    /// Targets beside those that there are.
    fn add(&mut self, plan: Plan) {
        let target = |it: Planned| {
            let priority = match it.target.reason {
                // Recovery before balance (rule R37).
                MoveReason::Recovery => it.priority | 1 << 31,
                _ => it.priority & !(1 << 31),
            };
            ((Reverse(priority), it.partition), it.target)
        };
        self.planned |= !plan.is_empty();
        self.targets.extend(plan.into_iter().map(target));
    }
}

/// Writes a map's record.
pub(super) fn put_map(draft: &mut Draft, map: MapId, record: MapRecord) -> Result<(), Refusal> {
    let record = MapRecord {
        changed: draft.stamp().zxid,
        ..record
    };
    draft.effect(Effect::PutMap {
        map,
        record: Box::new(record),
    })
}
