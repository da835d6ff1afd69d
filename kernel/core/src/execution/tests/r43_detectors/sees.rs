//! What detectors are asked, and what is told of them.

use super::*;

/// Nothing is asked while everybody is heard of.
#[test]
fn a_detector_is_asked_while_somebody_is_silent() {
    let mut watched = Watched::new();
    let client = watched.open(2_000);
    let mut asked = 0;
    for _ in 0..10 {
        watched.beat(&client);
        asked += watched.pass(400, say_nothing);
    }
    assert_eq!(asked, 0);
    let asked = watched.pass(1_400, say_nothing);
    assert!((13..=14).contains(&asked), "{asked} times in 1.3 s");
}

/// A member that takes heartbeats in late forwards them together. Its clients are regular.
#[test]
fn touches_that_are_forwarded_together_are_no_jitter() {
    let mut watched = Watched::new();
    let client = watched.open(2_000);
    let began = watched.cluster.now;
    for sequence in 1..=12 {
        // Three at a time.
        watched.pass(if sequence % 3 == 0 { 1_200 } else { 0 }, say_nothing);
        let arrived = began.plus_millis(sequence * 400);
        watched.cluster.late_heartbeat(&client, sequence, arrived);
        watched.cluster.run();
    }
    let question = watched.next_question();
    let subjects = table(&question.call, "subjects");
    let f64s = |column: &str| match subjects.column(column) {
        Some(Cells::F64s(cells)) => cells[1],
        other => panic!("{column}: {other:?}"),
    };
    assert_eq!(u32s(subjects, "arrivals-n")[1], 11);
    assert_eq!(
        (f64s("arrivals-mean-ms"), f64s("arrivals-sd-ms")),
        (400.0, 0.0)
    );
    let samples = table(&question.call, "samples");
    assert_eq!(u32s(samples, "subject"), [1; 4]);
}

#[test]
fn a_detector_sees_classes_zones_and_the_observer() {
    let mut watched = Watched::new();
    watched.join("g", "a", 1_000);
    watched.join("g", "b", 2_000);
    watched.pass(1_150, say_nothing);
    watched.cluster.now = watched.cluster.now.plus_millis(5_000);
    let question = watched.next_question();
    let subjects = table(&question.call, "subjects");
    assert_eq!(strings(subjects, "class"), ["", "g"]);
    assert_eq!(u32s(subjects, "zone"), [u32::MAX, 1]);
    assert_eq!(u64s(subjects, "member"), [1, 2]);
    assert_eq!(u64s(subjects, "ceiling-ms"), [900_000, 6_000]);
    let zones = table(&question.call, "zones");
    assert_eq!(strings(zones, "name"), ["z-a", "z-b"]);
    assert_eq!(u32s(zones, "population"), [0, 1]);
    assert_eq!(u32s(zones, "expired"), [1, 0]);
    let observer = table(&question.call, "observer");
    let of = |column: &str| u64s(observer, column)[0];
    assert!(of("stall-ms") >= 5_000 && of("since-stall-ms") <= 200);
    assert!(of("lag-ms") >= 4_950);
    assert!(
        (1_000..2_000).contains(&of("since-elected-ms")),
        "a stall does not count"
    );
    assert!(
        question.subjects().iter().all(|of| of.silent_ms < 2_000),
        "nor against sessions"
    );
}

/// A cell of a subject's row.
fn cell(call: &PolicyCall, of: &Client, column: &str) -> f64 {
    let subjects = table(call, "subjects");
    let mut keys = u64s(subjects, "key").iter();
    let row = keys.position(|key| *key == of.session.0);
    let row = row.expect("a row of its own");
    match subjects.column(column) {
        Some(Cells::U32s(cells)) => f64::from(cells[row]),
        Some(Cells::U64s(cells)) => cells[row] as f64,
        Some(Cells::F64s(cells)) => cells[row],
        other => panic!("{column}: {other:?}"),
    }
}

#[test]
fn detectors_see_the_way_to_a_client_and_how_old_it_is() {
    let mut watched = Watched::new();
    let client = watched.open(4_000);
    watched.beat(&client);
    let question = watched.next_question();
    let call = question.call.clone();
    watched.answer(&question, say_nothing(&call));
    assert_eq!(cell(&call, &client, "rtt-ms"), 1.5);
    assert_eq!(cell(&call, &client, "connection"), 1.0);
    let young = cell(&call, &client, "age-ms");
    assert!((1_000.0..2_000.0).contains(&young), "{young}");
    // The stream of an attachment that is no more says nothing.
    let former = client.clone();
    let client = watched.cluster.resume(&client, member(3));
    watched.beat(&client);
    watched
        .cluster
        .close_by_client(former.member, former.stream);
    watched.cluster.run();
    let question = watched.next_question();
    watched.answer(&question, say_nothing(&question.call));
    assert_eq!(cell(&question.call, &client, "connection"), 1.0);
    watched.beat(&client);
    watched
        .cluster
        .close_by_client(client.member, client.stream);
    watched.cluster.run();
    let question = watched.next_question();
    watched.answer(&question, say_nothing(&question.call));
    assert_eq!(cell(&question.call, &client, "connection"), 3.0);
    assert!(cell(&question.call, &client, "age-ms") > young);
    // A new leader knows when it was opened, and nothing of the way to it.
    watched.cluster.elect(member(2));
    watched.cluster.run();
    let question = watched.next_question();
    assert_eq!(cell(&question.call, &client, "connection"), 0.0);
    assert!(cell(&question.call, &client, "age-ms") > young);
}

#[test]
fn detectors_see_a_pause_that_was_announced_and_what_is_left_of_it() {
    let mut watched = Watched::new();
    let mut client = watched.join("g", "a", 4_000);
    watched.beat(&client);
    let question = watched.next_question();
    assert_eq!(cell(&question.call, &client, "declared-pause-ms"), 0.0);
    watched.answer(&question, say_nothing(&question.call));
    let announce = Operation::Group {
        group: "g".to_owned(),
        member: "a".to_owned(),
        operation: GroupOperation::Report {
            healthy: true,
            restart_delay_ms: Some(10_000),
        },
    };
    let announced = watched.cluster.call(&mut client, announce);
    assert_eq!(announced, Ok(Outcome::GroupChanged));
    watched.beat(&client);
    let question = watched.next_question();
    let (pause, silent) = (
        cell(&question.call, &client, "declared-pause-ms"),
        cell(&question.call, &client, "silent-ms"),
    );
    assert_eq!(pause, 10_000.0 - silent);
}

#[test]
fn detectors_see_how_slow_the_leaders_log_is() {
    let mut watched = Watched::new();
    let _client = watched.open(4_000);
    watched
        .cluster
        .member(member(1))
        .execution
        .observe_log_write(77);
    let call = watched.next_question().call;
    assert_eq!(u64s(table(&call, "observer"), "fsync-ms"), [77]);
}

#[test]
fn operators_see_whether_a_detector_answers() {
    let mut watched = Watched::new();
    let client = watched.open(4_000);
    watched.beat(&client);
    let standing = |watched: &mut Watched| {
        watched.cluster.pass_ms(200);
        let status = watched.cluster.member(member(1)).execution.status();
        assert_eq!(status.detectors.len(), 1);
        status.detectors[0].clone()
    };
    let unasked = standing(&mut watched);
    assert_eq!((unasked.group.as_str(), unasked.answered_at), ("", None));
    let question = watched.next_question();
    let answered_at = watched.cluster.now().tick;
    watched.answer(&question, say_nothing(&question.call));
    assert_eq!(standing(&mut watched).answered_at, Some(answered_at));
    for faults in 1..=2 {
        let question = watched.next_question();
        let fault = PolicyFailure::Fault {
            kind: "trap".to_owned(),
            message: format!("the {faults}. time"),
        };
        let text = fault.to_string();
        watched.answer(&question, Err(fault));
        let failing = standing(&mut watched);
        assert_eq!(failing.answered_at, Some(answered_at));
        assert_eq!(failing.faults, faults);
        assert_eq!(failing.problem.as_deref(), Some(text.as_str()));
    }
    let question = watched.next_question();
    watched.answer(&question, say_nothing(&question.call));
    let well = standing(&mut watched);
    assert!(well.answered_at > Some(answered_at));
    assert_eq!((well.faults, well.problem), (0, None));
    let others = watched.cluster.member(member(2)).execution.status();
    assert!(others.detectors.is_empty(), "it does not lead");
}

/// A heartbeat waits for its round while the stream ends: the connection is not open.
#[test]
fn a_touch_that_came_before_the_end_of_the_stream_opens_it_not_again() {
    let mut watched = Watched::new();
    let client = watched.open(4_000);
    watched.beat(&client);
    watched.cluster.hold_barriers = true;
    watched.cluster.pass_ms(60);
    watched.beat(&client);
    watched
        .cluster
        .close_by_client(client.member, client.stream);
    watched.cluster.run();
    watched.cluster.hold_barriers = false;
    watched.cluster.answer_barriers();
    watched.cluster.pass_ms(100);
    let question = watched.next_question();
    assert_eq!(cell(&question.call, &client, "connection"), 3.0);
}

/// A client that is attached again is not known to have gone.
#[test]
fn an_attachment_is_a_connection() {
    let mut watched = Watched::new();
    let client = watched.open(4_000);
    watched.beat(&client);
    watched
        .cluster
        .close_by_client(client.member, client.stream);
    watched.cluster.run();
    let client = watched.cluster.resume(&client, member(3));
    let question = watched.next_question();
    assert!(cell(&question.call, &client, "connection") < 2.0);
}
