//! What a detector says counts, and for how long (rule R43).

use super::*;

#[test]
pub(in crate::execution::tests) fn r43_a_session_is_held_up_to_the_ceiling() {
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    let state = |watched: &mut Watched| {
        let question = watched.next_question();
        let state = question.subjects()[1].state;
        watched.answer(&question, hold_all(&question.call));
        state
    };
    assert_eq!(state(&mut watched), 0);
    assert_eq!(state(&mut watched), 1, "it is suspected");
    watched.pass(900, hold_all);
    assert_eq!(state(&mut watched), 2, "it is held");
    watched.pass(1_500, hold_all);
    assert!(watched.lives(&client));
    watched.pass(400, hold_all);
    assert!(!watched.lives(&client));
    assert_same_state(&watched.cluster);
}

#[test]
fn r43_who_is_not_held_expires_after_the_timeout() {
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    watched.pass(980, say_nothing);
    assert!(watched.lives(&client));
    watched.pass(150, say_nothing);
    assert!(!watched.lives(&client));
}

/// Whatever is wrong with the policy: the kernel does not wait for it.
#[test]
fn r43_without_a_verdict_sessions_expire_after_the_timeout() {
    let fault = || PolicyFailure::Fault {
        kind: "panic".to_owned(),
        message: String::new(),
    };
    let foolish: [fn(&PolicyCall) -> PolicyAnswer; 3] = [
        |_| Ok(vec![]),
        |_| {
            Ok(vec![
                Table::new("verdicts", 1).with("key", Cells::F64s(vec![0.5])),
            ])
        },
        |_| Err(PolicyFailure::NotReady),
    ];
    for policy in foolish {
        let mut watched = Watched::new();
        let client = watched.open(1_000);
        watched.pass(1_150, policy);
        assert!(!watched.lives(&client));
    }
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    watched.pass(900, hold_all);
    let asked = watched.pass(250, |_| Err(fault()));
    assert!(
        !watched.lives(&client),
        "what it said before its fault is void"
    );
    assert_eq!(asked, 1, "it is given a pause");
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    assert_eq!(
        watched.pass_unanswered(1_150).len(),
        1,
        "one question at a time"
    );
    assert!(!watched.lives(&client), "no answer at all");
}

#[test]
pub(in crate::execution::tests) fn r43_what_was_said_counts_for_a_second() {
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    let hold_long = |call: &PolicyCall| verdicts(call, |_| Some((true, 60_000)));
    watched.pass(800, hold_long);
    watched.pass_unanswered(900);
    assert!(watched.lives(&client));
    watched.pass_unanswered(300);
    assert!(!watched.lives(&client), "nobody objects any more");
    // And what comes late does not count at all.
    let client = watched.open(2_000);
    watched.pass_unanswered(20_000);
    let client = match watched.lives(&client) {
        true => client,
        false => watched.open(2_000),
    };
    let question = watched.next_question();
    watched.pass_unanswered(1_050);
    watched.answer(&question, hold_long(&question.call));
    watched.pass_unanswered(700);
    assert!(!watched.lives(&client));
}

#[test]
pub(in crate::execution::tests) fn r43_a_later_touch_voids_what_was_said() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    let question = watched.next_question();
    watched.beat(&client);
    watched.pass_unanswered(100);
    watched.answer(&question, hold_all(&question.call));
    watched.pass_unanswered(400);
    assert!(!watched.record("g", "a").suspect);
}

/// The client is back, and has only not sent a heartbeat since.
#[test]
pub(in crate::execution::tests) fn r43_a_later_attachment_voids_what_was_said() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    let question = watched.next_question();
    watched.cluster.resume(&client, member(3));
    watched.answer(&question, hold_all(&question.call));
    watched.pass_unanswered(400);
    assert!(!watched.record("g", "a").suspect);
}

/// A touch waits for its round: what was said before it is said of an older one.
#[test]
fn r43_a_touch_that_waits_voids_what_was_said() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    watched.cluster.hold_barriers = true;
    let question = watched.next_question();
    watched.beat(&client);
    watched.answer(&question, hold_all(&question.call));
    watched.pass_unanswered(400);
    assert!(!watched.record("g", "a").suspect);
}

#[test]
pub(in crate::execution::tests) fn r43_what_was_said_to_a_former_leader_is_void() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    let question = watched.next_question();
    let before = touch_of(&question, &client);
    watched.cluster.elect(member(1));
    watched.cluster.run();
    watched.pass_unanswered(150);
    watched.answer(&question, hold_all(&question.call));
    watched.pass_unanswered(300);
    assert!(!watched.record("g", "a").suspect);
    let question = watched.next_question();
    assert_eq!(
        touch_of(&question, &client),
        before,
        "terms name touches alike"
    );
    watched.answer(&question, hold_all(&question.call));
    watched.pass_unanswered(400);
    assert!(watched.record("g", "a").suspect);
}

fn touch_of(question: &Question, client: &Client) -> u64 {
    let subjects = question.subjects();
    let mut of = subjects.iter().filter(|of| of.key == client.session.0);
    of.next().expect("the session is a subject").touch
}

#[test]
pub(in crate::execution::tests) fn r43_many_sessions_do_not_expire_at_once() {
    let mut watched = Watched::without_choice();
    for _ in 0..99 {
        watched.open(1_000);
    }
    let all = watched.sessions();
    watched.cluster.pass_ms(1_500);
    let left = watched.sessions();
    assert!(
        (80..=84).contains(&left),
        "a fifth of {all} may, {left} are left"
    );
    watched.cluster.pass_ms(3_000);
    assert_eq!(watched.sessions(), left);
    watched.cluster.pass_ms(2_000);
    assert_eq!(watched.sessions(), 1, "the brake has a limit of its own");
}

#[test]
fn r43_a_few_sessions_expire_at_once() {
    let mut watched = Watched::without_choice();
    for _ in 0..16 {
        watched.open(1_000);
    }
    watched.cluster.pass_ms(1_500);
    assert_eq!(watched.sessions(), 1);
}

#[test]
fn r43_held_sessions_hold_no_others() {
    let mut watched = Watched::new();
    let held: Vec<_> = (0..80).map(|_| watched.open(1_000)).collect();
    let last_held = held.last().expect("some").session.0;
    let silent = watched.open(1_100);
    let hold_old =
        |call: &PolicyCall| verdicts(call, |of| (of.key <= last_held).then_some((true, 500)));
    watched.pass(1_300, hold_old);
    assert!(!watched.lives(&silent));
    assert_eq!(watched.sessions(), 1 + held.len());
}

/// A detector of one group has no say about others.
#[test]
fn r43_a_detector_is_asked_about_its_own_and_heard_about_no_others() {
    let mut watched = Watched::without_choice();
    let digest = Some(watched.digest);
    assert_eq!(watched.choose("g", "of g", digest), CHOSEN);
    let own = watched.join("g", "a", 2_000);
    let other = watched.join("h", "b", 2_000);
    let question = watched.next_question();
    assert_eq!(question.call.configuration, b"of g");
    let keys: Vec<u64> = question.subjects().iter().map(|of| of.key).collect();
    assert_eq!(keys, [own.session.0]);
    // It speaks of another one's member all the same.
    let both = |call: &PolicyCall| {
        let mut call = call.clone();
        let touches = [(own.session.0, 2), (other.session.0, 3)];
        let column = |pick: fn((u64, u64)) -> u64| Cells::U64s(touches.map(pick).to_vec());
        call.tables = Some(vec![
            Table::new("subjects", 2)
                .with("key", column(|(key, _)| key))
                .with("touch", column(|(_, touch)| touch))
                .with("silent-ms", column(|_| 0))
                .with("state", Cells::U32s(vec![0; 2])),
        ]);
        hold_all(&call)
    };
    watched.answer(&question, both(&question.call));
    watched.pass(2_300, both);
    assert!(watched.lives(&own));
    assert!(!watched.lives(&other));
    // With a default, each has its own.
    let other = watched.join("h", "b", 2_000);
    assert_eq!(watched.choose("", "of all", digest), CHOSEN);
    watched.beat(&own);
    let questions = watched.pass_unanswered(800);
    let asked = |configuration: &[u8]| -> Vec<u64> {
        let mut of = questions
            .iter()
            .filter(|of| of.call.configuration == configuration);
        let question = of.next().expect("a question");
        question.subjects().iter().map(|of| of.key).collect()
    };
    assert_eq!(asked(b"of g"), [own.session.0]);
    assert_eq!(asked(b"of all"), [watched.admin.session.0, other.session.0]);
}

#[test]
fn r43_a_detector_is_changed_while_it_is_asked() {
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    let question = watched.next_question();
    let digest = Some(watched.digest);
    assert_eq!(watched.choose("", "another", digest), CHOSEN);
    watched.answer(&question, hold_all(&question.call));
    let next = watched.next_question();
    assert_eq!(next.call.configuration, b"another");
    watched.answer(&next, verdicts(&next.call, |_| Some((true, 900))));
    assert_eq!(watched.choose("", "", None), CHOSEN);
    watched.pass_unanswered(800);
    assert!(!watched.lives(&client), "nobody objects any more");
    assert!(watched.pass_unanswered(1_000).is_empty());
}
