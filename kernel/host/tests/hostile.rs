//! A guest that misbehaves is told apart, leaves nothing behind, and does not hurt the next call.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use folkmoot_host::CallLimits;
use folkmoot_sdk::ids::SessionId;
use folkmoot_sdk::testing::{Answer, Mount};
use serde_json::json;
use support::Wasm;

/// Has the guest write a node and then misbehave: a fault of `kind`, whose text has `words`. Then
/// checks that the node is not there, and that the next call works.
#[track_caller]
fn faults(what: &str, kind: &str, words: &str) {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    let fault = fault_of(&mut mount, session, "write-then", json!({"what": what}));
    assert!(fault.starts_with(&format!("{kind}: ")), "{fault}");
    assert!(fault.contains(words), "{fault}");
    assert_eq!(mount.node("written"), None, "the call was undone");
    assert_eq!(mount.call(session, "write", json!({})), json!(null));
    assert!(mount.node("written").is_some());
    assert_eq!(
        mount.call(session, "calls", json!({})),
        json!(2),
        "the instance was dropped with the fault"
    );
}

#[track_caller]
fn fault_of(
    mount: &mut Mount<Wasm>,
    session: SessionId,
    operation: &str,
    arguments: serde_json::Value,
) -> String {
    match mount.invoke(session, operation, arguments.to_string().as_bytes()) {
        Answer::Fault(fault) => fault,
        other => panic!("{operation} {arguments} should be a fault, and gave {other:?}"),
    }
}

#[test]
fn a_panic_is_told_with_its_text_and_place() {
    faults("panic", "trap", "it was asked to panic");
    faults("panic", "trap", "misbehave");
}

#[test]
fn a_stack_overflow_is_a_trap() {
    faults("overflow-stack", "trap", "recurse");
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    faults("spin", "out-of-fuel", "all fuel was used");
}

#[test]
fn large_steps_run_out_of_time() {
    faults("copy", "timeout", "took longer");
}

#[test]
fn endless_allocation_runs_out_of_memory() {
    faults("allocate", "memory", "denied memory");
}

#[test]
fn endless_host_calls_are_ended() {
    faults("call-forever", "host-calls", "more than 1000 host calls");
    faults("log-forever", "host-calls", "more than 1000 host calls");
}

#[test]
fn endless_writes_are_ended() {
    faults("write-forever", "too-large", "bytes of writes");
}

#[test]
fn a_huge_value_does_not_reach_the_host() {
    faults("write-huge", "too-large", "too much data");
}

#[test]
fn a_huge_answer_is_a_fault() {
    faults("reply-huge", "too-large", "too much data");
    faults("reject-huge", "too-large", "the rejection has");
}

#[test]
fn an_answer_may_be_as_large_as_its_limit() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    let limit = CallLimits::default().output_bytes;
    for operation in ["reply", "memo"] {
        let at_limit = json!({"bytes": limit}).to_string();
        let answer = mount.invoke(session, operation, at_limit.as_bytes());
        assert!(!matches!(answer, Answer::Fault(_)), "{operation}");
        let fault = fault_of(&mut mount, session, operation, json!({"bytes": limit + 1}));
        assert!(fault.starts_with("too-large: the "), "{fault}");
    }
}

#[test]
fn a_call_may_make_as_many_host_calls_as_its_limit() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    mount.call(session, "many-calls", json!({"calls": 1000}));
    // A call counts for itself alone.
    mount.call(session, "many-calls", json!({"calls": 1000}));
    let fault = fault_of(&mut mount, session, "many-calls", json!({"calls": 1001}));
    assert!(fault.starts_with("host-calls: "), "{fault}");
}

#[test]
fn no_path_leaves_the_mount() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    for path in [
        "..",
        "../other",
        "a/../../other",
        "/etc",
        "/",
        "a//b",
        "a/",
        ".",
    ] {
        let refusals = mount.call(session, "touch", json!({"path": path}));
        assert_eq!(refusals, json!(vec!["bad-path"; 5]), "{path}");
    }
}

#[test]
fn a_rejection_undoes_the_call_and_drops_the_instance_if_it_wrote() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    mount.call_rejected(session, "reject", json!({}));
    assert_eq!(
        mount.call(session, "calls", json!({})),
        json!(2),
        "a rejection without writes keeps the instance"
    );
    mount.call_rejected(session, "write-then", json!({"what": "reject"}));
    assert_eq!(mount.node("written"), None);
    assert_eq!(
        mount.call(session, "calls", json!({})),
        json!(1),
        "a rejection after a write drops it (rule R14)"
    );
}

#[test]
fn what_an_instance_remembers_goes_with_it() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    assert_eq!(mount.call(session, "calls", json!({})), json!(1));
    assert_eq!(mount.call(session, "calls", json!({})), json!(2));
    mount.discard_instance();
    assert_eq!(mount.call(session, "calls", json!({})), json!(1));
}

#[test]
fn a_fresh_instance_is_configured_before_its_first_call() {
    let mut mount = Mount::with(Wasm::of("hostile"));
    let session = mount.open_session();
    assert_eq!(mount.configure(b"good morning"), Ok(()));
    for _ in 0..2 {
        let greeting = mount.call(session, "greeting", json!({}));
        assert_eq!(greeting, json!("good morning"));
        mount.discard_instance();
    }
    let rejection = mount.configure(b"no").expect_err("it says no");
    assert_eq!(rejection.code, "refused");
}

#[test]
fn an_event_that_is_refused_is_a_fault() {
    use folkmoot_sdk::testing::{Call, CallOutcome, Runner as _, View};
    let mut runner = Wasm::of("hostile");
    let timer = folkmoot_sdk::event::Event::Timer {
        name: "t".to_owned(),
        due: folkmoot_sdk::ids::LogTime(1),
        payload: Vec::new(),
    };
    let (view, outcome) = runner.call(b"", Call::Event(timer), View::empty());
    let CallOutcome::Fault(fault) = outcome else {
        panic!("it should be a fault, and is {outcome:?}");
    };
    assert!(fault.starts_with("trap: "), "{fault}");
    assert!(fault.contains("could not be handled"), "{fault}");
    let resync = Call::Event(folkmoot_sdk::event::Event::Resync);
    assert_eq!(runner.call(b"", resync, view).1, CallOutcome::Done);
}

#[test]
fn a_configuration_is_metered_too() {
    use folkmoot_sdk::testing::{Call, CallOutcome, Runner as _, View};
    for (configuration, kind) in [("spin", "out-of-fuel: "), ("panic", "trap: ")] {
        let mut runner = Wasm::of("hostile");
        let call = Call::Configure;
        let (_, outcome) = runner.call(configuration.as_bytes(), call, View::empty());
        let CallOutcome::Fault(fault) = outcome else {
            panic!("it should be a fault, and is {outcome:?}");
        };
        assert!(fault.starts_with(kind), "{fault}");
    }
}
