//! The whole way of a component: uploaded, examined, compiled, mounted and called by a real
//! execution machine, with its view of the transaction in the Wasm store.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use folkmoot_core::state::View as _;
use folkmoot_proto::client::{Guard, NodeKind, Operation};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Ticket, Zxid};
use serde_json::{Value, json};
use support::member::Member;

#[track_caller]
fn json_of(reply: Reply) -> Value {
    match reply {
        Ok(Outcome::Invoked(bytes)) => serde_json::from_slice(&bytes).expect("JSON"),
        other => panic!("instead of a reply: {other:?}"),
    }
}

#[track_caller]
fn ticket_of(reply: Reply) -> Ticket {
    match reply {
        Ok(Outcome::Waiting(ticket)) => ticket,
        other => panic!("instead of a wait: {other:?}"),
    }
}

fn guard_of(grant: &Value) -> Guard {
    Guard {
        path: format!("/locks/{}", grant["guard"].as_str().expect("a path")),
        token: Zxid(grant["token"].as_u64().expect("a token")),
    }
}

#[test]
fn a_lock_is_granted_fenced_handed_over_and_freed_with_its_session() {
    let mut member = Member::start();
    let (mut one, mut two) = (member.open(), member.open());
    member.install_and_mount(&mut one, "lock", "/locks");
    let name = json!({"name": "deploy"});

    let grant = json_of(member.call(&mut one, "/locks", "acquire", &name));
    let first = guard_of(&grant);
    let ticket = ticket_of(member.call(&mut two, "/locks", "acquire", &name));
    assert_eq!(member.completion(&two, ticket), None);

    // The holder writes under its guard.
    let write = || Operation::Create {
        path: "/written".to_owned(),
        data: Vec::new(),
        kind: NodeKind::PERSISTENT,
    };
    let written = member.request(&mut one, vec![first.clone()], write());
    assert_eq!(written, Ok(Outcome::Created { sequence: None }));

    // Its session ends: the next one has the lock, and the old guard holds no more.
    let closed = member.request(&mut one, Vec::new(), Operation::CloseSession);
    assert_eq!(closed, Ok(Outcome::SessionClosed));
    let granted = member.completion(&two, ticket).expect("a grant");
    let second = guard_of(&json_of(granted));
    assert!(second.token > first.token);
    let mut three = member.open();
    let refused = member.request(&mut three, vec![first], write());
    assert!(
        matches!(refused, Err(Refusal::GuardFailed { .. })),
        "{refused:?}"
    );

    let release = json!({"name": "deploy", "token": second.token});
    json_of(member.call(&mut two, "/locks", "release", &release));
    let state = member.execution.state();
    assert!(state.node("/locks/holders/deploy").is_none());
    assert!(state.node("/locks/holders").is_some());
}

#[test]
fn a_fault_is_a_logged_refusal_that_leaves_nothing() {
    for (what, kind) in [
        ("panic", "trap"),
        ("spin", "out-of-fuel"),
        ("copy", "timeout"),
        ("allocate", "memory"),
        ("call-forever", "host-calls"),
        ("write-forever", "too-large"),
        ("reply-huge", "too-large"),
    ] {
        // Each on a member of its own: repeated faults open a mount's breaker.
        let mut member = Member::start();
        let mut client = member.open();
        member.install_and_mount(&mut client, "hostile", "/hostile");
        let arguments = json!({"what": what});
        let reply = member.call(&mut client, "/hostile", "write-then", &arguments);
        assert!(
            matches!(&reply, Err(Refusal::PluginFault { kind: of, .. }) if of == kind),
            "{what}: {reply:?}"
        );
        let state = member.execution.state();
        assert!(state.node("/hostile/written").is_none(), "{what}");
        json_of(member.call(&mut client, "/hostile", "write", &json!({})));
        let state = member.execution.state();
        assert!(state.node("/hostile/written").is_some(), "{what}");
    }
}

#[test]
fn no_path_leaves_the_mount() {
    let mut member = Member::start();
    let mut client = member.open();
    member.install_and_mount(&mut client, "hostile", "/hostile");
    for path in ["..", "../locks", "/folkmoot", "/", "a/../../b"] {
        let reply = member.call(&mut client, "/hostile", "touch", &json!({"path": path}));
        assert_eq!(json_of(reply), json!(vec!["bad-path"; 5]), "{path}");
    }
}

#[test]
fn what_is_no_plugin_is_not_installed() {
    let mut member = Member::start();
    let mut client = member.open();
    let module = wasm_encoder::Module::new().finish();
    for bytes in [&b"not WebAssembly"[..], &module] {
        let refused = member.install(&mut client, bytes);
        assert!(
            matches!(&refused, Err(Refusal::ComponentRefused { .. })),
            "{refused:?}"
        );
    }
}
