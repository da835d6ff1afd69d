//! What would be planned, for an operator, and nothing of it is done.

use folkmoot_proto::Digest;
use folkmoot_proto::client::{Operation, ServerFrame};
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::limits::Limits;
use folkmoot_proto::partition::{MapConfig, MapOperation, PolicyChoice};
use folkmoot_proto::reply::Outcome;

use super::super::cluster::member;
use super::plans::everything_to_the_first;
use super::{Shards, config};
use crate::policy::{Cells, PolicyCall, Table};
use crate::state::View;

/// Asks what an installed policy would plan.
fn preview_by(digest: Digest) -> MapOperation {
    MapOperation::Plan {
        policy: Some(PolicyChoice {
            digest,
            configuration: String::new(),
        }),
    }
}

#[test]
fn the_kernel_says_what_it_would_do_itself() {
    let slow = MapConfig {
        balance_per_minute: 0,
        ..config()
    };
    let mut shards = Shards::new(slow, 4, 2);
    shards.pass(500);
    let plan = |shards: &mut Shards| match shards.ask(MapOperation::Plan { policy: None }) {
        Ok(Outcome::Planned(text)) => {
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(plan(&mut shards)["moves"], serde_json::json!([]));
    assert!(
        shards
            .group("a", GroupOperation::Drain { drain: true })
            .is_ok()
    );
    shards.pass(500);
    let before = shards.counts();
    let planned = plan(&mut shards);
    let moves = planned["moves"].as_array().expect("moves");
    assert_eq!(moves.len(), 2, "{planned}");
    for of in moves {
        assert_eq!(of["from"], "a");
        assert_eq!(of["to"], serde_json::json!(["b"]));
        assert_eq!(of["reason"], "drain");
    }
    assert_eq!(shards.counts(), before);
}

#[test]
fn a_preview_says_what_would_move_and_moves_nothing() {
    let mut shards = Shards::new(config(), 4, 2);
    shards.pass(500);
    let digest = shards.cluster.install(&mut shards.admin, "rebalancer-1");
    let before = shards.counts();
    let plan = preview_by(digest);
    let waiting = shards.ask(plan);
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    // The leader that was asked is gone: the next one asks again.
    shards.questions();
    shards.elect(member(2));
    shards.pass(100);
    let with_score = |call: &PolicyCall| {
        let score = Table::new("scores", 1)
            .with("name", Cells::Strings(vec!["spread".to_owned()]))
            .with("before", Cells::F64s(vec![0.5]))
            .with("after", Cells::F64s(vec![2.0]));
        let mut tables = everything_to_the_first(call)?;
        tables.push(score);
        Ok(tables)
    };
    assert_eq!(shards.answer_all(with_score), 1);
    let frames = shards.cluster.frames(&shards.admin);
    let planned = frames.iter().find_map(|frame| match frame {
        ServerFrame::Completion {
            reply: Ok(Outcome::Planned(text)),
            ..
        } => Some(text.clone()),
        _ => None,
    });
    let planned: serde_json::Value =
        serde_json::from_str(&planned.expect("a preview")).expect("JSON");
    assert_eq!(
        planned["moves"].as_array().map(Vec::len),
        Some(2),
        "{planned}"
    );
    assert_eq!(planned["cost"], 2);
    let score = serde_json::json!([{ "name": "spread", "before": 0.5, "after": 2.0 }]);
    assert_eq!(planned["scores"], score);
    assert_eq!(shards.counts(), before);
}

/// A preview fits a transaction, however small these are.
#[test]
fn a_preview_fits_a_small_transaction() {
    let limits = Limits {
        txn_bytes_max: 16 * 1024,
        value_bytes_max: 8 * 1024,
        ..Limits::default()
    };
    let mut shards = Shards::with_limits(limits, 2);
    shards.create(config(), 1_000);
    shards.pass(500);
    let digest = shards.cluster.install(&mut shards.admin, "rebalancer-1");
    let plan = preview_by(digest);
    let waits = shards.ask(plan);
    assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    assert_eq!(shards.answer_waiting(everything_to_the_first), 1);
    shards.cluster.run();
    shards.pass(1_000);
    let frames = shards.cluster.frames(&shards.admin.clone());
    let completed = frames.iter().find_map(|frame| match frame {
        ServerFrame::Completion { reply, .. } => Some(reply.clone()),
        _ => None,
    });
    assert!(completed.is_some_and(|of| of.is_ok()), "it is told at once");
}

/// Questions of requests that were cancelled are not kept, nor put to policies without end.
#[test]
fn previews_that_are_cancelled_do_not_pile_up() {
    let mut shards = Shards::new(config(), 64, 2);
    shards.pass(500);
    let digest = shards.cluster.install(&mut shards.admin, "rebalancer-1");
    shards.questions();
    for _ in 0..300 {
        let request = shards.admin.next;
        let plan = preview_by(digest);
        let waits = shards.ask(plan);
        assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
        let cancel = Operation::CancelWait { request };
        shards.cluster.send(&mut shards.admin, cancel);
        shards.cluster.run();
        shards.cluster.frames(&shards.admin.clone());
    }
    let asked = shards.questions().len();
    assert_eq!(asked, 4, "under way, and nobody waits");
}

/// The outcomes of a session's waits can be more than its client can be held back from: it can be
/// resumed all the same.
#[test]
fn a_session_with_large_completions_can_be_resumed() {
    let limits = Limits {
        session_reply_bytes_max: 64 * 1024,
        session_replies_max: 64,
        session_waits_max: 64,
        ..Limits::default()
    };
    let mut shards = Shards::with_limits(limits, 2);
    shards.create(config(), 1_000);
    shards.pass(500);
    let digest = shards.cluster.install(&mut shards.admin, "rebalancer-1");
    let previews = 8;
    for _ in 0..previews {
        let plan = preview_by(digest);
        let waits = shards.ask(plan);
        assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    }
    assert_eq!(shards.answer_all(everything_to_the_first), previews);
    let admin = shards.admin.clone();
    let state = shards.cluster.state(member(1));
    let session = state.session(admin.session).expect("it is open");
    let (kept, max) = (session.completion_bytes, 64 * 1024);
    assert!(kept > 2 * max, "{kept}");
    for at in [2, 3, 1] {
        let stream = shards.cluster.ask_resume(&admin, member(at));
        shards.cluster.run();
        assert!(
            !shards.cluster.closed.contains(&stream),
            "at {at}: {:?}",
            shards.cluster.frames_of(stream).last()
        );
    }
}
