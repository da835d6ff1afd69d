//! Policies that misbehave are told apart and do not hurt the next question.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folkmoot_core::policy::{Cells, PolicyAnswer, PolicyCall, PolicyFailure, PolicyWorld, Table};
use folkmoot_host::{Components, Policies, PolicyLimits};
use folkmoot_proto::Digest;
use support::{component, sandbox};

/// Asks one component.
struct Asked {
    components: Arc<Components>,
    policies: Policies,
    digest: Digest,
    stop: Arc<AtomicBool>,
}

impl Asked {
    fn of(name: &str) -> Self {
        Self::with_limits(name, PolicyLimits::default())
    }

    fn with_limits(name: &str, limits: PolicyLimits) -> Self {
        let bytes = component(name);
        let digest = Digest::of(&bytes);
        let components = Arc::new(Components::in_memory(sandbox()));
        let prepared = components.prepare(digest, &bytes, &|| false);
        prepared.expect("a component that compiles");
        let stop = Arc::new(AtomicBool::new(false));
        Self {
            policies: Policies::new(Arc::clone(&components), limits, Arc::clone(&stop)),
            components,
            digest,
            stop,
        }
    }

    fn ask(&mut self, configuration: &str, tables: Vec<Table>) -> PolicyAnswer {
        self.ask_as(PolicyWorld::Rebalancer, configuration, tables)
    }

    fn ask_as(
        &mut self,
        world: PolicyWorld,
        configuration: &str,
        tables: Vec<Table>,
    ) -> PolicyAnswer {
        self.policies.ask(PolicyCall {
            world,
            digest: self.digest,
            configuration: configuration.as_bytes().to_vec(),
            tables: Some(tables),
        })
    }

    /// How often the instance that answers was asked.
    fn calls(&mut self) -> u64 {
        number(&self.ask("calls", Vec::new()))
    }
}

fn number(answer: &PolicyAnswer) -> u64 {
    match answer.as_ref().expect("an answer")[0].column("after") {
        Some(Cells::U64s(cells)) => cells[0],
        other => panic!("it gave {other:?}"),
    }
}

/// Asks the hostile policy to misbehave: a fault of `kind`, whose text has `words`, after which
/// another question is answered.
#[track_caller]
fn faults(what: &str, kind: &str, words: &str) {
    let mut asked = Asked::of("hostile-policy");
    fails_with(asked.ask(what, Vec::new()), kind, words);
    assert_eq!(asked.calls(), 1);
}

#[track_caller]
fn fails_with(answer: PolicyAnswer, kind: &str, words: &str) {
    match answer {
        Err(PolicyFailure::Fault {
            kind: found,
            message,
        }) => {
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(words), "{message}");
        }
        other => panic!("it gave {other:?}"),
    }
}

#[test]
fn an_endless_loop_runs_out_of_time() {
    faults("spin", "timeout", "took longer");
    faults("configured-forever", "timeout", "took longer");
}

#[test]
fn a_panic_is_told_with_its_text_and_place() {
    faults("panic", "trap", "it was asked to panic");
}

#[test]
fn a_stack_overflow_is_a_trap() {
    faults("overflow-stack", "trap", "recurse");
}

#[test]
fn endless_allocation_runs_out_of_memory() {
    faults("allocate", "memory", "denied memory");
}

#[test]
fn endless_lines_are_ended() {
    faults("log-forever", "host-calls", "more than 100 host calls");
}

#[test]
fn huge_tables_do_not_reach_the_host() {
    faults("huge", "too-large", "too much data");
    faults("many-texts", "too-large", "too much data");
}

#[test]
fn tables_that_are_not_well_formed_are_faults() {
    faults("rows", "contract", "allowed are 1000000");
    faults("short", "contract", "reasons.text has 1 cells, not 2");
    faults("nan", "contract", "not finite");
    faults("mistyped", "contract", "again.after has Text cells");
    faults("twice", "contract", "the table again twice");
}

#[test]
fn a_rejection_is_the_policys_own_and_costs_nothing() {
    let mut asked = Asked::of("hostile-policy");
    let rejected = |code: &str, message: &str| {
        Err(PolicyFailure::Rejected {
            code: code.to_owned(),
            message: message.to_owned(),
        })
    };
    let unfit = rejected("unfit", "these members will not do");
    assert_eq!(asked.ask("reject", Vec::new()), unfit);
    let refused = rejected("bad-configuration", "it says no");
    assert_eq!(asked.ask("refused", Vec::new()), refused);
    let cut = rejected(&"c".repeat(64), &"n".repeat(2048));
    assert_eq!(asked.ask("reject-at-length", Vec::new()), cut);
}

#[test]
fn an_instance_is_kept_for_one_configuration_until_it_faults() {
    let mut asked = Asked::of("hostile-policy");
    assert_eq!([asked.calls(), asked.calls()], [1, 2]);
    assert!(asked.ask("panic", Vec::new()).is_err());
    assert_eq!(asked.calls(), 3, "another one's fault");
    asked.policies.cool_down();
    assert!(!asked.policies.is_warm());
    assert_eq!(asked.calls(), 1);
}

#[test]
fn an_instance_that_grew_large_is_not_kept() {
    let mut asked = Asked::of("hostile-policy");
    assert_eq!(number(&asked.ask("grow", Vec::new())), 1);
    assert_eq!(number(&asked.ask("grow", Vec::new())), 1);
    assert!(!asked.policies.is_warm());
}

#[test]
fn few_instances_are_kept() {
    let mut asked = Asked::of("hostile-policy");
    asked.calls();
    for other in ["a", "b", "c"] {
        asked.ask(other, Vec::new()).expect("an answer");
    }
    assert_eq!(asked.calls(), 2);
    for other in ["a", "b", "c", "d"] {
        asked.ask(other, Vec::new()).expect("an answer");
    }
    assert_eq!(asked.calls(), 1, "the one that was not asked for longest");
}

#[test]
fn tables_come_back_as_they_went() {
    let mut asked = Asked::of("hostile-policy");
    let table = Table::new("of-all-kinds", 3)
        .with("counts", Cells::U32s(vec![0, 1, u32::MAX]))
        .with("times", Cells::U64s(vec![0, 1, u64::MAX]))
        .with("measures", Cells::F64s(vec![-0.5, 0.0, f64::MAX]))
        .with(
            "names",
            Cells::Strings(["", "a", "ö"].map(str::to_owned).to_vec()),
        )
        .with("others", Cells::Other(vec![0xff, 0]));
    let given = vec![table, Table::new("empty", 0)];
    assert_eq!(asked.ask("echo", given.clone()), Ok(given));
}

#[test]
fn what_is_not_compiled_is_not_ready() {
    let mut asked = Asked::of("hostile-policy");
    assert_eq!(asked.calls(), 1);
    asked.components.forget(asked.digest);
    let answer = asked.ask("calls", Vec::new());
    assert_eq!(answer, Err(PolicyFailure::NotReady));
    assert!(!asked.policies.is_warm(), "it is not kept alive");
}

#[test]
fn a_component_of_another_world_is_not_run() {
    let mut asked = Asked::of("hostile-policy");
    let answer = asked.ask_as(PolicyWorld::FailureDetector, "", Vec::new());
    fails_with(
        answer,
        "contract",
        "it is a rebalancer, not a failure-detector",
    );
    let mut recipe = Asked::of("lock");
    fails_with(recipe.ask("", Vec::new()), "contract", "it is a recipe");
}

/// A member that stops does not wait for a policy.
#[test]
fn a_call_ends_when_it_is_told_to_stop() {
    let limits = PolicyLimits {
        millis: 600_000,
        ..PolicyLimits::default()
    };
    let mut asked = Asked::with_limits("hostile-policy", limits);
    asked.stop.store(true, Ordering::Relaxed);
    fails_with(asked.ask("spin", Vec::new()), "timeout", "");
}

#[test]
fn a_policy_can_be_configured_and_asked_nothing() {
    let mut asked = Asked::of("hostile-policy");
    let mut configure = |configuration: &str| {
        let call = PolicyCall {
            world: PolicyWorld::Rebalancer,
            digest: asked.digest,
            configuration: configuration.as_bytes().to_vec(),
            tables: None,
        };
        asked.policies.ask(call)
    };
    // It would panic at its first question.
    assert_eq!(configure("panic"), Ok(Vec::new()));
    fails_with(configure("configured-forever"), "timeout", "took longer");
}
