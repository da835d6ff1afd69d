//! Requests that wait for a policy (`leader/asking.rs`).

use folkmoot_proto::client::{Operation, ServerFrame};
use folkmoot_proto::limits::POLICY_CONFIG_BYTES_MAX;
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Digest, MemberId};

use super::clients::{Client, invoke};
use super::cluster::{Cluster, Proposals, member};
use crate::execution::ExecutionAction;
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure, PolicyWorld};

/// An operator, an installed failure detector, and whom it answers.
struct Operator {
    cluster: Cluster,
    client: Client,
    digest: Digest,
}

impl Operator {
    fn new() -> Self {
        let mut cluster = Cluster::new(3);
        let mut client = cluster.open_for(member(1), 300_000);
        let digest = cluster.install(&mut client, "failure-detector");
        Self {
            cluster,
            client,
            digest,
        }
    }

    fn try_policy(&mut self, digest: Digest, configuration: &str) -> Reply {
        self.cluster
            .call(&mut self.client, try_policy(digest, configuration))
    }

    /// Has the policy asked, which waits.
    fn begin(&mut self, configuration: &str) {
        let waits = self.try_policy(self.digest, configuration);
        assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    }

    /// What policies were asked since this was asked last.
    fn questions(&mut self) -> Vec<(MemberId, PolicyCallId, PolicyCall)> {
        let others = core::mem::take(&mut self.cluster.others);
        let question = |(at, action)| match action {
            ExecutionAction::AskPolicy { id, call } => Some((at, id, *call)),
            _ => None,
        };
        others.into_iter().filter_map(question).collect()
    }

    fn answer(&mut self, at: MemberId, id: PolicyCallId, answer: PolicyAnswer) {
        let now = self.cluster.now();
        let execution = &mut self.cluster.member(at).execution;
        execution.handle_policy(now, id, answer);
        self.cluster.run();
    }

    /// Answers the one question that there is.
    fn answer_one(&mut self, says: PolicyAnswer) -> PolicyCall {
        let mut questions = self.questions();
        let (at, id, call) = questions.pop().expect("a question");
        assert!(questions.is_empty(), "one is enough: {questions:?}");
        self.answer(at, id, says);
        call
    }

    /// What came of the request that waits.
    fn completed(&mut self) -> Option<Reply> {
        completion(self.cluster.frames(&self.client))
    }
}

fn try_policy(digest: Digest, configuration: &str) -> Operation {
    let choice = PolicyChoice {
        digest,
        configuration: configuration.to_owned(),
    };
    Operation::TryPolicy { choice }
}

fn completion(frames: Vec<ServerFrame>) -> Option<Reply> {
    frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Completion { reply, .. } => Some(reply),
        _ => None,
    })
}

#[test]
fn a_policy_that_takes_a_configuration_is_asked_nothing_else() {
    let mut operator = Operator::new();
    operator.begin("{}");
    let call = operator.answer_one(Ok(Vec::new()));
    assert_eq!(call.world, PolicyWorld::FailureDetector);
    assert_eq!(call.configuration, b"{}");
    assert_eq!(call.tables, None);
    assert_eq!(operator.completed(), Some(Ok(Outcome::PolicyTook)));
    operator.cluster.pass_ms(60_000);
    assert!(operator.questions().is_empty());
}

#[test]
fn what_a_policy_says_against_a_configuration_is_told() {
    let mut operator = Operator::new();
    operator.begin("nonsense");
    operator.answer_one(Err(PolicyFailure::Rejected {
        code: "bad-configuration".to_owned(),
        message: "no JSON".to_owned(),
    }));
    let rejected = Refusal::Rejected {
        code: "bad-configuration".to_owned(),
        message: "no JSON".to_owned(),
        details: Vec::new(),
    };
    assert_eq!(operator.completed(), Some(Err(rejected)));
    operator.begin("traps");
    operator.answer_one(Err(PolicyFailure::Fault {
        kind: "panic".to_owned(),
        message: "overflow".to_owned(),
    }));
    let fault = Refusal::PluginFault {
        kind: "panic".to_owned(),
        message: "overflow".to_owned(),
    };
    assert_eq!(operator.completed(), Some(Err(fault)));
}

#[test]
fn a_policy_that_is_loading_is_asked_again() {
    let mut operator = Operator::new();
    operator.begin("{}");
    for _ in 0..3 {
        operator.answer_one(Err(PolicyFailure::NotReady));
        assert_eq!(operator.completed(), None);
        assert!(operator.questions().is_empty(), "not at once");
        operator.cluster.pass_ms(500);
    }
    operator.answer_one(Ok(Vec::new()));
    assert_eq!(operator.completed(), Some(Ok(Outcome::PolicyTook)));
}

#[test]
fn a_policy_that_says_nothing_is_waited_for_ten_seconds() {
    let mut operator = Operator::new();
    operator.begin("{}");
    operator.cluster.pass_ms(9_000);
    assert_eq!(operator.completed(), None);
    operator.cluster.pass_ms(2_000);
    let reply = operator.completed();
    assert!(
        matches!(&reply, Some(Err(Refusal::PluginFault { kind, .. })) if kind == "timeout"),
        "{reply:?}"
    );
    // Its answer comes to nobody.
    operator.answer_one(Ok(Vec::new()));
    assert_eq!(operator.completed(), None);
}

#[test]
fn a_new_leader_asks_again() {
    let mut operator = Operator::new();
    operator.begin("{}");
    let of_the_first = operator.questions();
    operator.cluster.elect(member(2));
    operator.cluster.run();
    operator.cluster.pass_ms(500);
    let (at, id, _) = of_the_first.into_iter().next().expect("a question");
    operator.answer(at, id, Ok(Vec::new()));
    assert_eq!(operator.completed(), None, "it leads no more");
    operator.answer_one(Ok(Vec::new()));
    assert_eq!(operator.completed(), Some(Ok(Outcome::PolicyTook)));
}

#[test]
fn what_is_no_policy_is_refused_at_once_and_a_long_configuration_too() {
    let mut operator = Operator::new();
    let unknown = operator.try_policy(Digest([9; 32]), "");
    assert!(
        matches!(unknown, Err(Refusal::UnknownComponent { .. })),
        "{unknown:?}"
    );
    let recipe = operator.cluster.install(&mut operator.client, "lock");
    let recipe = operator.try_policy(recipe, "");
    assert!(
        matches!(recipe, Err(Refusal::WrongWorld { .. })),
        "{recipe:?}"
    );
    let most = "x".repeat(POLICY_CONFIG_BYTES_MAX);
    operator.begin(&most);
    assert_eq!(operator.questions().len(), 1);
    let above = operator.try_policy(operator.digest, &format!("{most}x"));
    assert!(matches!(above, Err(Refusal::TooLarge { .. })), "{above:?}");
    assert!(operator.questions().is_empty());
}

/// Whoever does not wait any more is not asked for.
#[test]
fn a_request_that_was_cancelled_asks_nobody() {
    let mut operator = Operator::new();
    let request = operator.client.next;
    operator.begin("{}");
    operator.answer_one(Err(PolicyFailure::NotReady));
    let cancel = Operation::CancelWait { request };
    operator.cluster.send(&mut operator.client, cancel);
    operator.cluster.run();
    assert_eq!(operator.completed(), Some(Err(Refusal::WaitCancelled)));
    operator.cluster.pass_ms(60_000);
    assert!(operator.questions().is_empty());
}

/// The ticket of what was dropped is another request's then.
#[test]
fn what_was_asked_for_a_dropped_overlay_answers_nobody_else() {
    let mut operator = Operator::new();
    let digest = operator.digest;
    let cluster = &mut operator.cluster;
    let mut other = cluster.open_for(member(1), 300_000);
    cluster.proposals = Proposals::Hold;
    cluster.send(&mut operator.client, try_policy(digest, "first"));
    cluster.run();
    let (at, id, _) = operator.questions().pop().expect("a question");
    operator.cluster.proposals = Proposals::Commit;
    operator.cluster.refuse_one();
    operator
        .cluster
        .send(&mut other, try_policy(digest, "second"));
    operator.cluster.run();
    let rejected = PolicyFailure::Rejected {
        code: "bad-configuration".to_owned(),
        message: "of the first".to_owned(),
    };
    operator.answer(at, id, Err(rejected));
    let frames = operator.cluster.frames(&other);
    assert_eq!(completion(frames), None, "it was not about this one");
    let call = operator.answer_one(Ok(Vec::new()));
    assert_eq!(call.configuration, b"second");
    let frames = operator.cluster.frames(&other);
    assert_eq!(completion(frames), Some(Ok(Outcome::PolicyTook)));
}

/// The overlay with a question's wait is dropped; its zxid becomes the ticket of a lock's wait.
#[test]
fn an_answer_completes_no_lock_request_whose_ticket_was_dropped() {
    let mut operator = Operator::new();
    let mut holder = operator.cluster.open_for(member(2), 300_000);
    let mut second = operator.cluster.open_for(member(3), 300_000);
    operator
        .cluster
        .install_and_mount(&mut holder, "lock", "/lock");
    let held = operator
        .cluster
        .call(&mut holder, invoke("/lock", "acquire"));
    assert!(matches!(held, Ok(Outcome::Invoked(_))), "{held:?}");
    operator.cluster.proposals = Proposals::Hold;
    let operation = try_policy(operator.digest, "{}");
    operator.cluster.send(&mut operator.client, operation);
    operator.cluster.run();
    let (at, id, _) = operator.questions().pop().expect("a question");
    operator.cluster.refuse_one();
    operator.cluster.proposals = Proposals::Commit;
    let waits = operator
        .cluster
        .call(&mut second, invoke("/lock", "acquire"));
    assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    operator.answer(at, id, Ok(Vec::new()));
    let completed = completion(operator.cluster.frames(&second));
    assert_eq!(completed, None, "the lock is held by another");
}

/// The completion was in an overlay that is dropped: the request is still waiting, and is completed.
#[test]
fn a_completion_that_is_lost_is_done_again() {
    let mut operator = Operator::new();
    operator.begin("{}");
    let (at, id, _) = operator.questions().pop().expect("a question");
    operator.cluster.proposals = Proposals::Hold;
    operator.answer(at, id, Ok(Vec::new()));
    assert_eq!(operator.cluster.proposed.len(), 1, "the completion");
    operator.cluster.refuse_one();
    operator.cluster.proposals = Proposals::Commit;
    for _ in 0..12 {
        operator.cluster.pass_ms(1_000);
        for (at, id, _) in operator.questions() {
            operator.answer(at, id, Ok(Vec::new()));
        }
    }
    assert_eq!(operator.completed(), Some(Ok(Outcome::PolicyTook)));
}

/// What can not be asked any more is told so, and not after 25 s.
#[test]
fn a_policy_that_is_removed_while_it_loads_is_told() {
    let mut operator = Operator::new();
    operator.begin("{}");
    operator.answer_one(Err(PolicyFailure::NotReady));
    let digest = operator.digest;
    let removed = operator
        .cluster
        .call(&mut operator.client, Operation::RemoveComponent { digest });
    assert_eq!(removed, Ok(Outcome::ComponentRemoved));
    operator.cluster.pass_ms(1_000);
    let reply = operator.completed();
    assert!(
        matches!(reply, Some(Err(Refusal::UnknownComponent { .. }))),
        "{reply:?}"
    );
}

/// One question at a time, or a few: not all in one turn.
#[test]
fn many_waits_are_not_asked_for_in_one_turn() {
    let mut operator = Operator::new();
    for _ in 0..200 {
        operator.begin("{}");
    }
    operator.questions();
    operator.cluster.elect(member(2));
    operator.cluster.run();
    let asked = operator.questions().len();
    assert_eq!(asked, 4, "a thread has room for eight");
}

/// A snapshot replaces the machine of a former leader. What was said to that one's questions is not
/// taken for an answer to a question of the new one.
#[test]
fn a_machine_of_a_snapshot_uses_no_names_of_former_questions() {
    let mut operator = Operator::new();
    let mut other = operator.cluster.open_for(member(3), 300_000);
    let first = operator.client.next;
    operator.begin("bad");
    let (at, id, call) = operator.questions().pop().expect("a question");
    assert_eq!(
        (at, call.configuration.as_slice()),
        (member(1), &b"bad"[..])
    );
    // It is slow, and its leader is deposed. Its request is cancelled.
    operator.cluster.elect(member(2));
    operator.cluster.run();
    operator.questions();
    let cancel = Operation::CancelWait { request: first };
    operator.cluster.send(&mut operator.client, cancel);
    operator.cluster.run();
    assert_eq!(operator.completed(), Some(Err(Refusal::WaitCancelled)));
    let good = try_policy(operator.digest, "good");
    let waits = operator.cluster.call(&mut other, good);
    assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    // The former leader is behind, gets a snapshot, and leads again.
    operator.cluster.replace_machine(member(1));
    operator.questions();
    operator.cluster.elect(member(1));
    operator.cluster.run();
    let asked = operator.questions();
    assert_eq!(asked.len(), 1);
    let rejected = PolicyFailure::Rejected {
        code: "bad-configuration".to_owned(),
        message: "bad".to_owned(),
    };
    operator.answer(at, id, Err(rejected));
    let completed = completion(operator.cluster.frames(&other));
    assert_eq!(completed, None, "nobody has said anything about `good`");
}
