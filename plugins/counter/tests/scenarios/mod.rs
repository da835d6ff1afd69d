//! What a counter does, whoever runs it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a scenario is a test"
)]

use folkmoot_sdk::prelude::*;
use folkmoot_sdk::testing::{Mount, Runner};
use serde_json::json;

/// Runs every scenario on a mount of its own.
pub(crate) fn run_all<R: Runner>(runner: impl Fn() -> R) {
    for scenario in [
        additions_add_up,
        the_total_is_a_node,
        reset_replies_with_what_it_was,
        an_overflow_is_rejected_and_changes_nothing,
        bad_arguments_are_rejected,
        a_configuration_is_rejected,
    ] {
        scenario(Mount::with(runner()));
    }
}

fn additions_add_up<R: Runner>(mut mount: Mount<R>) {
    let (one, other) = (mount.open_session(), mount.open_session());
    assert_eq!(mount.call(one, "read", json!({})), json!({"total": 0}));
    assert_eq!(
        mount.call(one, "add", json!({"amount": 5})),
        json!({"total": 5})
    );
    mount.discard_instance();
    assert_eq!(
        mount.call(other, "add", json!({"amount": -7})),
        json!({"total": -2})
    );
    assert_eq!(mount.call(one, "read", json!({})), json!({"total": -2}));
}

fn the_total_is_a_node<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    assert_eq!(mount.node("total"), None);
    mount.call(session, "add", json!({"amount": -12}));
    assert_eq!(mount.node("total").expect("a node").data, b"-12");
}

fn reset_replies_with_what_it_was<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    mount.call(session, "add", json!({"amount": 9}));
    assert_eq!(mount.call(session, "reset", json!({})), json!({"total": 9}));
    assert_eq!(mount.call(session, "read", json!({})), json!({"total": 0}));
}

fn an_overflow_is_rejected_and_changes_nothing<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    mount.call(session, "add", json!({"amount": i64::MAX}));
    let rejection = mount.call_rejected(session, "add", json!({"amount": 1}));
    assert_eq!(rejection.code, "overflow");
    assert_eq!(
        mount.call(session, "read", json!({})),
        json!({"total": i64::MAX})
    );
}

fn bad_arguments_are_rejected<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    for (operation, arguments) in [
        ("add", json!({})),
        ("add", json!({"amount": "5"})),
        ("add", json!({"amount": 1.5})),
        ("add", json!({"amount": 1, "by": 2})),
        ("add", json!([1])),
        ("read", json!({"amount": 1})),
    ] {
        let rejection = mount.call_rejected(session, operation, arguments);
        assert_eq!(rejection.code, Rejection::BAD_ARGUMENTS);
    }
    let rejection = mount.call_rejected(session, "double", json!({}));
    assert_eq!(rejection.code, Rejection::UNKNOWN_OPERATION);
    assert_eq!(mount.node("total"), None);
}

fn a_configuration_is_rejected<R: Runner>(mut mount: Mount<R>) {
    let rejection = mount.configure(b"{}").expect_err("it takes none");
    assert_eq!(rejection.code, "bad-configuration");
    let session = mount.open_session();
    assert_eq!(mount.call(session, "read", json!({})), json!({"total": 0}));
}
