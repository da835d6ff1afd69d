//! Partition maps: groups of workers that do as they are told, or not.

mod asked_again;
mod loads;
pub(super) mod moves;
pub(super) mod plans;
mod previews;
pub(super) mod telling;

use std::collections::BTreeMap;

use folkmoot_proto::client::Operation;
use folkmoot_proto::group::{GroupOperation, MemberSpec};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::partition::{
    Assignment, Layout, MapConfig, MapOperation, MapRecord, MovePhase, Owner, PartitionId,
    PartitionRecord, PartitionReport,
};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{MapId, MemberId, Zxid};

use super::clients::Client;
use super::cluster::{Cluster, member};
use crate::execution::ExecutionAction;
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId};
use crate::state::View;

const GROUP: &str = "shards";

/// A group with a map, on a cluster of three, and its workers.
struct Shards {
    cluster: Cluster,
    admin: Client,
    workers: BTreeMap<String, Client>,
    beats: u64,
    /// Whether workers say that they are ready, and let go, as soon as they are asked.
    obedient: bool,
}

fn config() -> MapConfig {
    MapConfig {
        readiness: false,
        ..MapConfig::default()
    }
}

fn map_operation(operation: MapOperation) -> Operation {
    Operation::Map {
        group: GROUP.to_owned(),
        operation,
    }
}

impl Shards {
    /// A map of so many ranges, and workers `a`, `b`, … that obey.
    fn new(config: MapConfig, partitions: u32, workers: usize) -> Self {
        let mut shards = Self::without_map(workers);
        shards.create(config, partitions);
        shards
    }

    fn create(&mut self, config: MapConfig, partitions: u32) {
        let layout = Layout::Ranges(partitions);
        let created = self.ask(MapOperation::Create { config, layout });
        assert_eq!(created, Ok(Outcome::MapChanged));
    }

    fn without_map(workers: usize) -> Self {
        Self::with_limits(Limits::default(), workers)
    }

    fn with_limits(limits: Limits, workers: usize) -> Self {
        let mut cluster = Cluster::with_limits(3, limits);
        let admin = cluster.open(member(1));
        let mut shards = Self {
            cluster,
            admin,
            workers: BTreeMap::new(),
            beats: 0,
            obedient: true,
        };
        for name in ["a", "b", "c", "d", "e"].into_iter().take(workers) {
            shards.join(name);
        }
        shards
    }

    fn ask(&mut self, operation: MapOperation) -> Reply {
        self.cluster.call(&mut self.admin, map_operation(operation))
    }

    fn group(&mut self, name: &str, operation: GroupOperation) -> Reply {
        let group = Operation::Group {
            group: GROUP.to_owned(),
            member: name.to_owned(),
            operation,
        };
        match self.workers.get_mut(name) {
            Some(worker) => self.cluster.call_anew(worker, group),
            None => self.cluster.call(&mut self.admin, group),
        }
    }

    /// An operator asks something of a member.
    fn ask_group(&mut self, name: &str, operation: GroupOperation) -> Reply {
        let group = Operation::Group {
            group: GROUP.to_owned(),
            member: name.to_owned(),
            operation,
        };
        self.cluster.call(&mut self.admin, group)
    }

    /// A worker joins with a session of its own, at the second member.
    fn join(&mut self, name: &str) {
        self.join_in(name, "");
    }

    fn join_in(&mut self, name: &str, zone: &str) {
        let worker = self.cluster.open(member(2));
        self.workers.insert(name.to_owned(), worker);
        let spec = MemberSpec {
            zone: zone.to_owned(),
            ..MemberSpec::at(name)
        };
        let join = GroupOperation::Join {
            spec,
            predecessor: None,
        };
        assert_eq!(self.group(name, join), Ok(Outcome::GroupChanged));
    }

    /// A worker closes its session.
    fn close(&mut self, name: &str) {
        let mut worker = self.workers.remove(name).expect("a worker");
        let closed = self.cluster.call_anew(&mut worker, Operation::CloseSession);
        assert_eq!(closed, Ok(Outcome::SessionClosed));
    }

    /// Time passes: workers send heartbeats, and do what they are asked if they obey.
    fn pass(&mut self, millis: u64) {
        let mut left = millis;
        loop {
            self.beat();
            if self.obedient {
                self.obey();
            }
            let step = left.min(500);
            if step == 0 {
                return;
            }
            self.cluster.pass_ms(step);
            left -= step;
        }
    }

    fn beat(&mut self) {
        self.beats += 1;
        let admin = self.admin.clone();
        for client in self.workers.values().chain([&admin]) {
            self.cluster.heartbeat(client, self.beats);
        }
        self.cluster.run();
    }

    /// Workers say that they are ready, and let go, until nobody is asked any more.
    fn obey(&mut self) {
        for _ in 0..100 {
            let mut reported = false;
            for name in self.workers.keys().cloned().collect::<Vec<_>>() {
                let reports = self.due_reports(&name);
                reported |= !reports.is_empty();
                if !reports.is_empty() {
                    self.report(&name, reports);
                }
            }
            if !reported {
                return;
            }
        }
        panic!("the workers are asked for ever");
    }

    /// What a worker has to say.
    fn due_reports(&self, name: &str) -> Vec<PartitionReport> {
        let (map, record) = self.map();
        let number = record.members.iter().position(|of| of == name);
        let number = u32::try_from(number.expect("a number")).expect("few members");
        let is_me = |of: folkmoot_proto::partition::MemberNo| of.0 == number;
        let view = self.view();
        let mut due = Vec::new();
        for partition in view.moving(map) {
            let of = self.assignment(partition);
            let movement = of.movement.as_ref().expect("it moves");
            let unready = of.replicas.iter().any(|it| is_me(it.member) && !it.ready);
            if unready {
                due.push(PartitionReport::Ready {
                    partition,
                    movement: movement.id,
                });
            }
            if let Some(owner) = of.owner
                && movement.phase == MovePhase::Revoking
                && is_me(owner.member)
            {
                due.push(PartitionReport::Released {
                    partition,
                    movement: movement.id,
                    token: owner.token,
                });
            }
        }
        due
    }

    /// A worker says something; answers how much of it was current.
    fn report(&mut self, name: &str, reports: Vec<PartitionReport>) -> u32 {
        let report = map_operation(MapOperation::Report {
            member: name.to_owned(),
            reports,
        });
        let worker = self.workers.get_mut(name).expect("a worker");
        match self.cluster.call_anew(worker, report) {
            Ok(Outcome::Reported { current }) => current,
            other => panic!("{other:?}"),
        }
    }

    fn view(&self) -> &impl View {
        self.cluster.state(self.cluster.leader.expect("a leader"))
    }

    fn map(&self) -> (MapId, MapRecord) {
        let map = self.view().map_of(GROUP);
        map.map(|(map, record)| (map, record.clone()))
            .expect("a map")
    }

    fn partition(&self, partition: PartitionId) -> PartitionRecord {
        let record = self.view().partition(self.map().0, partition);
        record.expect("a partition").clone()
    }

    fn assignment(&self, partition: PartitionId) -> Assignment {
        self.partition(partition).assignment
    }

    /// The owner of a partition, by name, if it owns.
    fn owner(&self, partition: u32) -> Option<(String, Owner)> {
        let owner = self.assignment(PartitionId(partition)).owner?;
        let (_, record) = self.map();
        let name = record.members.get(owner.member.0 as usize)?.clone();
        let lives = self.view().incarnation(GROUP, &name) == Some(owner.incarnation);
        lives.then_some((name, owner))
    }

    fn owner_name(&self, partition: u32) -> Option<String> {
        self.owner(partition).map(|(name, _)| name)
    }

    fn token(&self, partition: u32) -> Zxid {
        self.owner(partition).expect("an owner").1.token
    }

    /// How many partitions each worker owns.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for partition in self.view().partitions(self.map().0) {
            if let Some(name) = self.owner_name(partition.0) {
                *counts.entry(name).or_default() += 1;
            }
        }
        counts
    }

    fn owned(&self) -> usize {
        self.counts().values().sum()
    }

    fn elect(&mut self, id: MemberId) {
        self.cluster.elect(id);
        self.cluster.run();
    }

    /// The questions to policies since this was asked last, and their names.
    fn questions(&mut self) -> Vec<(MemberId, PolicyCallId, PolicyCall)> {
        let others = core::mem::take(&mut self.cluster.others);
        let question = |(id, action)| match action {
            ExecutionAction::AskPolicy { id: call, call: of } => Some((id, call, *of)),
            _ => None,
        };
        others.into_iter().filter_map(question).collect()
    }

    /// A question is answered.
    fn answer(&mut self, (at, id): (MemberId, PolicyCallId), answer: PolicyAnswer) {
        let now = self.cluster.now();
        let execution = &mut self.cluster.member(at).execution;
        execution.handle_policy(now, id, answer);
    }

    /// Has a policy answer the questions that there are; answers how many.
    fn answer_waiting(&mut self, mut policy: impl FnMut(&PolicyCall) -> PolicyAnswer) -> usize {
        let questions = self.questions();
        for (at, id, call) in &questions {
            self.answer((*at, *id), policy(call));
        }
        questions.len()
    }

    /// Has a policy answer all questions until it is asked no more; answers how many.
    fn answer_all(&mut self, mut policy: impl FnMut(&PolicyCall) -> PolicyAnswer) -> usize {
        let (mut asked, mut quiet) = (0, 0);
        for _ in 0..100 {
            let answered = self.answer_waiting(&mut policy);
            asked += answered;
            quiet = if answered == 0 { quiet + 1 } else { 0 };
            if quiet == 10 {
                return asked;
            }
            self.pass(200);
        }
        panic!("the policy is asked for ever");
    }
}

fn refused_as(reply: &Reply, code: &str) -> bool {
    reply
        .as_ref()
        .is_err_and(|refusal: &Refusal| refusal.code() == code)
}
