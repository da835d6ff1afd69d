//! What locks do, whoever runs them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a scenario is a test"
)]

use folkmoot_sdk::prelude::*;
use folkmoot_sdk::testing::{Completion, Mount, Runner};
use serde_json::{Value, json};

/// Runs every scenario on a mount of its own.
pub(crate) fn run_all<R: Runner>(runner: impl Fn() -> R) {
    for scenario in [
        a_free_lock_is_granted_at_once,
        the_grant_is_a_node_of_the_holder,
        waiters_are_served_in_order,
        release_grants_the_next_in_its_transaction,
        a_try_is_rejected_while_the_lock_is_held,
        a_holder_gets_its_token_again,
        only_the_holder_releases_and_only_with_its_token,
        a_lock_goes_with_its_session,
        a_waiter_that_dies_is_passed_over,
        a_wait_ends_at_its_deadline,
        a_cancelled_wait_is_passed_over,
        nobody_overtakes_while_an_event_is_due,
        a_try_gets_a_lock_that_only_dead_waits_are_for,
        a_try_does_not_take_a_lock_that_is_handed_over,
        a_session_waits_for_a_second_turn,
        many_dead_waits_are_removed_bit_by_bit,
        a_session_that_held_many_locks_frees_them_all,
        lost_events_are_made_up_for,
        locks_do_not_mix_names_that_begin_alike,
        a_free_lock_leaves_no_nodes,
        the_instance_remembers_nothing,
        bad_arguments_are_rejected,
    ] {
        scenario(Mount::with(runner()));
    }
}

fn a_free_lock_is_granted_at_once<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    let token = acquire(&mut mount, session);
    assert!(token > session.0, "a grant is younger than its session");
    release(&mut mount, session, token);
    assert!(acquire(&mut mount, session) > token, "tokens rise");
}

fn the_grant_is_a_node_of_the_holder<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    let grant = mount.call(session, "acquire", json!({"name": "deploy"}));
    assert_eq!(grant["guard"], "holders/deploy");
    let holder = mount.node("holders/deploy").expect("the holder's node");
    assert_eq!(json!(holder.stat.czxid), grant["token"]);
    assert_eq!(holder.stat.owner, Some(session));
}

fn waiters_are_served_in_order<R: Runner>(mut mount: Mount<R>) {
    let sessions: Vec<_> = (0..5).map(|_| mount.open_session()).collect();
    let mut token = acquire(&mut mount, sessions[0]);
    let tickets: Vec<_> = sessions[1..]
        .iter()
        .map(|session| wait(&mut mount, *session))
        .collect();
    for (holder, ticket) in sessions.iter().zip(&tickets) {
        assert!(mount.waits(*ticket));
        release(&mut mount, *holder, token);
        let next = granted(&mount, *ticket);
        assert!(next > token, "tokens rise");
        token = next;
    }
}

fn release_grants_the_next_in_its_transaction<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    mount.hold_events();
    release(&mut mount, one, token);
    let holder = mount.node("holders/deploy").expect("the next holder");
    assert_eq!(holder.stat.owner, Some(two));
    assert_eq!(holder.stat.czxid.0, granted(&mount, ticket));
    assert_eq!(mount.children("queue"), Vec::<String>::new());
}

fn a_try_is_rejected_while_the_lock_is_held<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let rejection = try_acquire(&mut mount, two);
    assert_eq!(rejection.code, "held");
    assert_eq!(
        rejection.details,
        [
            ("holder".to_owned(), one.to_string()),
            ("token".to_owned(), token.to_string()),
        ]
    );
}

fn a_holder_gets_its_token_again<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    assert_eq!(acquire(&mut mount, one), token);
    release(&mut mount, one, token);
    granted(&mount, ticket);
}

fn only_the_holder_releases_and_only_with_its_token<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    for (session, token) in [(two, token), (one, token + 1), (one, token - 1)] {
        let arguments = json!({"name": "deploy", "token": token});
        let rejection = mount.call_rejected(session, "release", arguments);
        assert_eq!(rejection.code, "not-holder");
    }
    release(&mut mount, one, token);
    let arguments = json!({"name": "deploy", "token": token});
    let rejection = mount.call_rejected(one, "release", arguments);
    assert_eq!(rejection.code, "not-holder");
}

fn a_lock_goes_with_its_session<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    mount.close_session(one);
    assert!(granted(&mount, ticket) > token);
    mount.close_session(two);
    assert_eq!(mount.node("holders/deploy"), None);
}

fn a_waiter_that_dies_is_passed_over<R: Runner>(mut mount: Mount<R>) {
    let (one, two, three) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    let token = acquire(&mut mount, one);
    wait(&mut mount, two);
    let ticket = wait(&mut mount, three);
    mount.close_session(two);
    assert!(mount.waits(ticket));
    release(&mut mount, one, token);
    granted(&mount, ticket);
}

fn a_wait_ends_at_its_deadline<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let ticket = mount.call_and_wait(two, "acquire", json!({"name": "deploy", "wait_ms": 500}));
    mount.advance_millis(499);
    assert!(mount.waits(ticket));
    mount.advance_millis(1);
    assert_eq!(
        mount.completion(ticket),
        Some(Completion::Ended(WaitEndCause::Deadline))
    );
    assert_eq!(mount.children("queue"), Vec::<String>::new());
    release(&mut mount, one, token);
    assert_eq!(mount.node("holders/deploy"), None);
}

fn a_cancelled_wait_is_passed_over<R: Runner>(mut mount: Mount<R>) {
    let (one, two, three) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    let token = acquire(&mut mount, one);
    let cancelled = wait(&mut mount, two);
    let ticket = wait(&mut mount, three);
    mount.hold_events();
    assert!(mount.cancel_wait(cancelled));
    // The plugin has not heard of it, and finds out by completing it in vain.
    release(&mut mount, one, token);
    let token = granted(&mount, ticket);
    mount.deliver_events();
    let holder = mount.node("holders/deploy").expect("a holder");
    assert_eq!(holder.stat.czxid.0, token);
}

fn nobody_overtakes_while_an_event_is_due<R: Runner>(mut mount: Mount<R>) {
    let (one, two, three) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    acquire(&mut mount, one);
    let second = wait(&mut mount, two);
    mount.hold_events();
    mount.close_session(one);
    assert_eq!(mount.node("holders/deploy"), None, "the kernel deleted it");
    let third = wait(&mut mount, three);
    let token = granted(&mount, second);
    mount.deliver_events();
    assert!(mount.waits(third));
    release(&mut mount, two, token);
    granted(&mount, third);
}

fn a_try_gets_a_lock_that_only_dead_waits_are_for<R: Runner>(mut mount: Mount<R>) {
    let (one, two, three) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    let token = acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    mount.hold_events();
    mount.cancel_wait(ticket);
    release(&mut mount, one, token);
    mount.call(three, "acquire", json!({"name": "deploy", "wait_ms": 0}));
    mount.deliver_events();
    let holder = mount.node("holders/deploy").expect("a holder");
    assert_eq!(holder.stat.owner, Some(three));
}

fn a_try_does_not_take_a_lock_that_is_handed_over<R: Runner>(mut mount: Mount<R>) {
    let (one, two, three) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    mount.hold_events();
    mount.close_session(one);
    let rejection = try_acquire(&mut mount, three);
    assert_eq!(rejection.code, "held");
    assert_eq!(rejection.details, []);
    assert!(mount.waits(ticket), "the rejection undid the grant");
    mount.deliver_events();
    granted(&mount, ticket);
}

fn a_session_waits_for_a_second_turn<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let (first, second) = (wait(&mut mount, two), wait(&mut mount, two));
    release(&mut mount, one, token);
    let token = granted(&mount, first);
    assert!(mount.waits(second));
    release(&mut mount, two, token);
    assert!(granted(&mount, second) > token);
}

fn many_dead_waits_are_removed_bit_by_bit<R: Runner>(mut mount: Mount<R>) {
    let (one, two, last) = (
        mount.open_session(),
        mount.open_session(),
        mount.open_session(),
    );
    let token = acquire(&mut mount, one);
    let dead: Vec<_> = (0..250).map(|_| wait(&mut mount, two)).collect();
    let ticket = wait(&mut mount, last);
    mount.hold_events();
    for wait in dead {
        mount.cancel_wait(wait);
    }
    release(&mut mount, one, token);
    assert_eq!(mount.node("holders/deploy"), None);
    assert!(mount.waits(ticket));
    // The lock is free and the rest of its queue is still to be looked at: nobody overtakes.
    let late = wait(&mut mount, one);
    assert!(mount.waits(late));
    mount.deliver_events();
    mount.advance_millis(1);
    granted(&mount, ticket);
    assert!(mount.waits(late));
}

fn a_session_that_held_many_locks_frees_them_all<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let tickets: Vec<_> = (0..150)
        .map(|number| {
            let arguments = json!({"name": format!("lock-{number}")});
            mount.call(one, "acquire", arguments.clone());
            mount.call_and_wait(two, "acquire", arguments)
        })
        .collect();
    mount.close_session(one);
    for ticket in tickets {
        granted(&mount, ticket);
    }
}

fn lost_events_are_made_up_for<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let arguments = |number: u64| json!({"name": format!("lock-{number}")});
    let tickets: Vec<_> = (0..60)
        .map(|number| {
            mount.call(one, "acquire", arguments(number));
            mount.call_and_wait(two, "acquire", arguments(number))
        })
        .collect();
    mount.hold_events();
    mount.close_session(one);
    mount.lose_events();
    mount.deliver_events();
    for ticket in tickets {
        granted(&mount, ticket);
    }
}

fn locks_do_not_mix_names_that_begin_alike<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let names = ["a", "a!", "a$", "a0", "ab"];
    for name in names {
        mount.call(one, "acquire", json!({"name": name}));
        mount.call_and_wait(two, "acquire", json!({"name": name}));
    }
    mount.hold_events();
    mount.close_session(one);
    mount.lose_events();
    mount.deliver_events();
    for name in names {
        let holder = mount.node(&format!("holders/{name}")).expect(name);
        assert_eq!(holder.stat.owner, Some(two), "{name}");
    }
}

fn a_free_lock_leaves_no_nodes<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    let ticket = wait(&mut mount, two);
    release(&mut mount, one, token);
    let token = granted(&mount, ticket);
    release(&mut mount, two, token);
    assert_eq!(mount.children("holders"), Vec::<String>::new());
    assert_eq!(mount.children("queue"), Vec::<String>::new());
}

fn the_instance_remembers_nothing<R: Runner>(mut mount: Mount<R>) {
    let (one, two) = (mount.open_session(), mount.open_session());
    let token = acquire(&mut mount, one);
    mount.discard_instance();
    let ticket = wait(&mut mount, two);
    mount.discard_instance();
    release(&mut mount, one, token);
    granted(&mount, ticket);
}

fn bad_arguments_are_rejected<R: Runner>(mut mount: Mount<R>) {
    let session = mount.open_session();
    for (operation, arguments, code) in [
        ("acquire", json!({}), "bad-arguments"),
        ("acquire", json!({"name": 1}), "bad-arguments"),
        (
            "acquire",
            json!({"name": "a", "wait_ms": -1}),
            "bad-arguments",
        ),
        ("acquire", json!({"name": "a", "wait": 1}), "bad-arguments"),
        ("acquire", json!({"name": "a/b"}), "bad-name"),
        ("acquire", json!({"name": ""}), "bad-name"),
        ("release", json!({"name": "a"}), "bad-arguments"),
        ("steal", json!({"name": "a"}), "unknown-operation"),
    ] {
        let rejection = mount.call_rejected(session, operation, arguments);
        assert_eq!(rejection.code, code);
    }
    assert_eq!(mount.children(""), Vec::<String>::new());
}

fn acquire<R: Runner>(mount: &mut Mount<R>, session: SessionId) -> u64 {
    token_of(&mount.call(session, "acquire", json!({"name": "deploy"})))
}

fn wait<R: Runner>(mount: &mut Mount<R>, session: SessionId) -> Ticket {
    mount.call_and_wait(
        session,
        "acquire",
        json!({"name": "deploy", "wait_ms": null}),
    )
}

fn try_acquire<R: Runner>(mount: &mut Mount<R>, session: SessionId) -> Rejection {
    mount.call_rejected(session, "acquire", json!({"name": "deploy", "wait_ms": 0}))
}

fn release<R: Runner>(mount: &mut Mount<R>, session: SessionId, token: u64) {
    let reply = mount.call(
        session,
        "release",
        json!({"name": "deploy", "token": token}),
    );
    assert_eq!(reply, json!({}));
}

#[track_caller]
fn granted<R: Runner>(mount: &Mount<R>, ticket: Ticket) -> u64 {
    match mount.completion(ticket) {
        Some(Completion::Reply(grant)) => token_of(&grant),
        other => panic!("the wait should be granted, and is {other:?}"),
    }
}

fn token_of(grant: &Value) -> u64 {
    grant["token"].as_u64().expect("a grant has a token")
}
