//! Rebalancers as Wasm, asked by a real execution machine, most of which misbehave: a plan that is none, or
//! that breaks an invariant, is refused with the reason, the kernel's own plan gives an owner to what has
//! none, and nothing that the map promises is broken on the way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_core::state::View as _;
use folkmoot_proto::client::Operation;
use folkmoot_proto::group::{GroupOperation, MemberSpec};
use folkmoot_proto::partition::{
    Assignment, Layout, MapConfig, MapOperation, MapRecord, MemberNo, MovePhase, MoveReason,
    PartitionId, PartitionReport, PolicyChoice,
};
use folkmoot_proto::reply::{Outcome, Reply};
use folkmoot_proto::{Digest, MapId};
use support::component;
use support::member::{Client, Member, SESSION_TIMEOUT_MS};

const GROUP: &str = "shards";
const PARTITIONS: u32 = 8;
/// Moves for balance that a map lets begin in a minute.
const BALANCE_PER_MINUTE: u32 = 40;
/// Between two looks, in milliseconds.
const STEP_MS: u64 = 200;

/// A group with a map whose policy is asked, its workers, and what was seen of it last.
struct Shards {
    member: Member,
    admin: Client,
    workers: BTreeMap<String, Client>,
    seen: BTreeMap<PartitionId, Assignment>,
    /// Promotions that were for balance.
    balanced: u32,
    passed_ms: u64,
}

impl Shards {
    /// Workers `a`, `b` and `c`, and a map that the hostile policy plans, configured to do `what`.
    fn planned_by(what: &str) -> Self {
        let mut shards = Self::without_map();
        let config = shards.config("hostile-policy", what);
        let layout = Layout::Ranges(PARTITIONS);
        let created = shards.ask(MapOperation::Create { config, layout });
        assert_eq!(created, Ok(Outcome::MapChanged));
        shards
    }

    fn without_map() -> Self {
        let mut member = Member::start();
        let admin = member.open();
        let mut shards = Self {
            member,
            admin,
            workers: BTreeMap::new(),
            seen: BTreeMap::new(),
            balanced: 0,
            passed_ms: 0,
        };
        for name in ["a", "b", "c"] {
            shards.join(name);
        }
        shards
    }

    fn join(&mut self, name: &str) {
        let mut worker = self.member.open();
        let join = Operation::Group {
            group: GROUP.to_owned(),
            member: name.to_owned(),
            operation: GroupOperation::Join {
                spec: MemberSpec::at(name),
                predecessor: None,
            },
        };
        let joined = self.member.request(&mut worker, Vec::new(), join);
        assert_eq!(joined, Ok(Outcome::GroupChanged));
        self.workers.insert(name.to_owned(), worker);
    }

    /// A worker's session ends.
    fn close(&mut self, name: &str) {
        let mut worker = self.workers.remove(name).expect("a worker");
        let close = Operation::CloseSession;
        let closed = self.member.request(&mut worker, Vec::new(), close);
        assert_eq!(closed, Ok(Outcome::SessionClosed));
        self.look();
    }

    /// A configuration with a policy, which is installed.
    fn config(&mut self, policy: &str, configuration: &str) -> MapConfig {
        let bytes = component(policy);
        let installed = self.member.install(&mut self.admin, &bytes);
        assert_eq!(installed, Ok(Outcome::Installed));
        MapConfig {
            readiness: false,
            offline_delay_ms: 0,
            balance_per_minute: BALANCE_PER_MINUTE,
            policy: Some(PolicyChoice {
                digest: Digest::of(&bytes),
                configuration: configuration.to_owned(),
            }),
            ..MapConfig::default()
        }
    }

    fn ask(&mut self, operation: MapOperation) -> Reply {
        let operation = Operation::Map {
            group: GROUP.to_owned(),
            operation,
        };
        let reply = self.member.request(&mut self.admin, Vec::new(), operation);
        self.look();
        reply
    }

    fn map(&self) -> (MapId, &MapRecord) {
        let map = self.member.execution.state().map_of(GROUP);
        map.expect("a map")
    }

    fn breaker(&self) -> Option<&str> {
        self.map().1.breaker.as_deref()
    }

    /// Who owns what and lives, by name.
    fn owners(&self) -> BTreeMap<PartitionId, &str> {
        let state = self.member.execution.state();
        let (map, record) = self.map();
        let owner = |partition| {
            let owner = state.partition(map, partition)?.assignment.owner?;
            let name = name_of(record, owner.member);
            let lives = state.incarnation(GROUP, name) == Some(owner.incarnation);
            lives.then_some((partition, name))
        };
        state
            .partitions(map)
            .into_iter()
            .filter_map(owner)
            .collect()
    }

    /// Time passes, and the workers let go of what they are asked for, until `done`.
    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.pass();
            assert!(
                self.passed_ms < u64::from(SESSION_TIMEOUT_MS),
                "never {what}: {:?}, owners {:?}",
                self.map().1,
                self.owners()
            );
        }
    }

    fn pass(&mut self) {
        self.member.pass_ms(STEP_MS);
        self.passed_ms += STEP_MS;
        self.look();
        self.let_go();
    }

    /// The workers let go of what they are asked for.
    fn let_go(&mut self) {
        let (map, record) = self.map();
        let state = self.member.execution.state();
        let mut reports: BTreeMap<String, Vec<PartitionReport>> = BTreeMap::new();
        for partition in state.moving(map) {
            let of = &state
                .partition(map, partition)
                .expect("it moves")
                .assignment;
            let movement = of.movement.as_ref().expect("it moves");
            if let Some(owner) = of.owner
                && movement.phase == MovePhase::Revoking
            {
                let name = name_of(record, owner.member).to_owned();
                let report = PartitionReport::Released {
                    partition,
                    movement: movement.id,
                    token: owner.token,
                };
                reports.entry(name).or_default().push(report);
            }
        }
        for (name, reports) in reports {
            let Some(worker) = self.workers.get_mut(&name) else {
                continue;
            };
            let report = Operation::Map {
                group: GROUP.to_owned(),
                operation: MapOperation::Report {
                    member: name,
                    reports,
                },
            };
            let reported = self.member.request(worker, Vec::new(), report);
            assert!(
                matches!(reported, Ok(Outcome::Reported { .. })),
                "{reported:?}"
            );
            self.look();
        }
    }

    /// Holds what there is against what a map promises.
    fn look(&mut self) {
        let state = self.member.execution.state();
        let Some((map, record)) = state.map_of(GROUP) else {
            return;
        };
        for partition in state.partitions(map) {
            let now = &state.partition(map, partition).expect("it is").assignment;
            let members = now.replicas.iter().map(|replica| replica.member);
            let members: BTreeSet<MemberNo> = members.collect();
            assert_eq!(members.len(), now.replicas.len(), "on distinct members");
            let before = self.seen.insert(partition, now.clone());
            let owner_before = before.and_then(|before| before.owner);
            let Some(owner) = now.owner.filter(|owner| Some(*owner) != owner_before) else {
                continue;
            };
            let name = name_of(record, owner.member);
            assert_eq!(
                state.incarnation(GROUP, name),
                Some(owner.incarnation),
                "only who lives is promoted"
            );
            let token = owner_before.map(|owner| owner.token);
            assert!(Some(owner.token) > token, "tokens rise (rule R33)");
            self.balanced += u32::from(now.why == MoveReason::Balance);
        }
        let minutes = u32::try_from(self.passed_ms / 60_000).expect("few") + 1;
        assert!(
            self.balanced <= minutes * BALANCE_PER_MINUTE,
            "{} moves for balance are more than the budget",
            self.balanced
        );
    }

    /// Another policy is chosen and approved, and settles.
    fn swap_to_a_good_one(&mut self) {
        let config = self.config("sticky-balanced", "");
        let swapped = self.ask(MapOperation::Configure { config });
        assert_eq!(swapped, Ok(Outcome::MapChanged));
        self.until("asked, and content or waiting", |shards| {
            let record = shards.map().1;
            record.approved || record.breaker.is_some()
        });
        if self.breaker().is_some() {
            assert_eq!(self.ask(MapOperation::Approve), Ok(Outcome::MapChanged));
        }
        let workers = self.workers.len();
        self.until("balanced", |shards| {
            let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
            for name in shards.owners().into_values() {
                *counts.entry(name).or_default() += 1;
            }
            let counts: BTreeSet<u32> = counts.into_values().collect();
            let share = PARTITIONS / u32::try_from(workers).expect("few");
            shards.owners().len() == PARTITIONS as usize
                && counts
                    .iter()
                    .all(|count| (share..=share + 1).contains(count))
        });
        assert_eq!(self.breaker(), None);
    }
}

fn name_of(record: &MapRecord, member: MemberNo) -> &str {
    let place = usize::try_from(member.0).expect("small");
    &record.members[place]
}

/// A policy that does `what` is asked three times and then no more, since `words`; meanwhile everything
/// gets an owner all the same, and another policy may take over.
#[track_caller]
fn is_given_up(what: &str, words: &str) {
    let mut shards = Shards::planned_by(what);
    shards.until("given up", |shards| shards.breaker().is_some());
    let breaker = shards.breaker().expect("it is open");
    assert!(breaker.contains(words), "{what}: {breaker}");
    assert_eq!(shards.member.asked, 3, "{what}");
    all_are_owned(&mut shards);
    // Nor is it asked when something changes.
    shards.close("a");
    all_are_owned(&mut shards);
    assert_eq!(shards.member.asked, 3, "{what}");
    shards.swap_to_a_good_one();
}

#[track_caller]
fn all_are_owned(shards: &mut Shards) {
    shards.until("all owned", |shards| {
        shards.owners().len() == PARTITIONS as usize
    });
}

#[test]
fn policies_that_fault_are_given_up() {
    is_given_up("panic", "policy fault (trap)");
    is_given_up("overflow-stack", "policy fault (trap)");
    is_given_up("spin", "policy fault (timeout)");
    is_given_up("configured-forever", "policy fault (timeout)");
    is_given_up("allocate", "policy fault (memory)");
    is_given_up("huge", "policy fault (too-large)");
    is_given_up("log-forever", "policy fault (host-calls)");
}

#[test]
fn policies_that_refuse_are_given_up() {
    is_given_up("reject", "unfit: these members will not do");
    is_given_up("refused", "bad-configuration: it says no");
}

#[test]
fn tables_that_are_not_well_formed_are_refused_whole() {
    is_given_up("nan-scores", "scores.after has a number that is not finite");
    is_given_up("mistyped", "again.after has Text cells");
    is_given_up("short", "reasons.text has 1 cells, not 2");
    is_given_up("missing", "assign has no column members");
}

#[test]
fn plans_that_break_an_invariant_are_refused_whole() {
    is_given_up("unknown-member", "assign names row 3 of members");
    is_given_up("unknown-partition", "assign names row 8 of partitions");
    is_given_up("partition-twice", "assign names partition 0 twice");
    is_given_up("member-twice", "two replicas are on one member");
    is_given_up("too-many", "more replicas than it should");
    is_given_up("nobody", "it is given to nobody");
}

#[test]
fn a_plan_for_who_is_gone_is_refused() {
    let mut shards = Shards::without_map();
    shards.close("b");
    let config = shards.config("hostile-policy", "gone");
    let layout = Layout::Ranges(PARTITIONS);
    let created = shards.ask(MapOperation::Create { config, layout });
    assert_eq!(created, Ok(Outcome::MapChanged));
    shards.until("given up", |shards| shards.breaker().is_some());
    let breaker = shards.breaker().expect("it is open");
    assert!(breaker.contains("b does not take partitions"), "{breaker}");
    all_are_owned(&mut shards);
}

/// Foolish, and within the invariants: then it is as the policy wants it, and once only.
#[test]
fn everything_may_be_on_one_member() {
    for what in ["everything-on-one", "surplus"] {
        let mut shards = Shards::planned_by(what);
        all_are_owned(&mut shards);
        let (asked, owners) = (shards.member.asked, shards.owners());
        let owners: BTreeSet<&str> = owners.into_values().collect();
        assert_eq!(owners, ["a"].into(), "{what}");
        for _ in 0..50 {
            shards.pass();
        }
        assert!(
            shards.member.asked <= asked + 1,
            "it is asked once more at most"
        );
        assert_eq!((shards.breaker(), shards.balanced), (None, 0));
        shards.swap_to_a_good_one();
    }
}

/// Nothing has changed, and it wants everything elsewhere: it is found out by the second plan.
#[test]
fn policies_that_never_settle_are_given_up() {
    for what in ["flip-flop", "random"] {
        let mut shards = Shards::planned_by(what);
        shards.until("found out", |shards| shards.breaker().is_some());
        let breaker = shards.breaker().expect("it is open");
        assert!(breaker.contains("plans anew"), "{what}: {breaker}");
        assert!(shards.member.asked <= 3, "{what}: {}", shards.member.asked);
        all_are_owned(&mut shards);
        assert_eq!(shards.balanced, 0, "{what}");
        // An operator who insists has everything moved once more, within the budget, and no more.
        assert_eq!(shards.ask(MapOperation::Approve), Ok(Outcome::MapChanged));
        shards.until("found out again", |shards| shards.breaker().is_some());
        assert!(shards.balanced <= PARTITIONS, "{what}: {}", shards.balanced);
        all_are_owned(&mut shards);
        shards.swap_to_a_good_one();
    }
}

/// The example that users copy.
#[test]
fn a_policy_of_ones_own_is_asked_as_any_other() {
    let mut shards = Shards::without_map();
    let config = shards.config("custom-rebalancer", r#"{"at_most": 5}"#);
    let layout = Layout::Ranges(PARTITIONS);
    let created = shards.ask(MapOperation::Create { config, layout });
    assert_eq!(created, Ok(Outcome::MapChanged));
    all_are_owned(&mut shards);
    let owners: Vec<&str> = shards.owners().into_values().collect();
    let count = |name: &str| owners.iter().filter(|owner| **owner == name).count();
    assert_eq!(["a", "b", "c"].map(count), [5, 3, 0]);
    assert_eq!(shards.breaker(), None);
}
