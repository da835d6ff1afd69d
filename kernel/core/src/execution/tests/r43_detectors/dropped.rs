//! What is kept beside the overlay goes with it (rule R3): the next thing of that name is another one.

use folkmoot_proto::client::ClientFrame;

use super::*;
use crate::execution::tests::clients::create;
use crate::execution::tests::cluster::Proposals;

/// The overlay with a session of a long timeout is dropped; another one comes to have its id.
#[test]
fn a_session_does_not_inherit_the_deadline_of_one_that_was_dropped() {
    let mut cluster = Cluster::new(3);
    cluster.proposals = Proposals::Hold;
    let secret = cluster.new_secret();
    let stream = cluster.new_stream();
    let timeout_ms = 300_000;
    cluster.frame(member(2), stream, ClientFrame::Open { secret, timeout_ms });
    cluster.run();
    cluster.refuse_one();
    cluster.proposals = Proposals::Commit;
    let client = cluster.open_for(member(3), 1_000);
    // It dies at once.
    cluster.pass_ms(6_000);
    let lives = cluster.state(member(1)).session(client.session).is_some();
    assert!(!lives, "the ceiling of a session of 1 s is 3 s");
}

/// A session that never came to be is no subject.
#[test]
fn a_session_that_was_dropped_is_no_subject() {
    let mut watched = Watched::new();
    watched.cluster.proposals = Proposals::Hold;
    let secret = watched.cluster.new_secret();
    let stream = watched.cluster.new_stream();
    let timeout_ms = 1_000;
    let open = ClientFrame::Open { secret, timeout_ms };
    watched.cluster.frame(member(2), stream, open);
    watched.cluster.run();
    watched.cluster.refuse_one();
    watched.cluster.proposals = Proposals::Commit;
    watched.cluster.close_by_client(member(2), stream);
    let admin = watched.admin.clone();
    let mut asked = 0;
    for _ in 0..60 {
        watched.beat(&admin);
        asked += watched.pass(1_000, say_nothing);
    }
    assert_eq!(watched.sessions(), 1);
    let ghosts: Vec<_> = match watched.pass_unanswered(5_000).pop() {
        None => Vec::new(),
        Some(question) => question.subjects(),
    };
    let ghosts: Vec<_> = ghosts
        .into_iter()
        .filter(|of| of.key != admin.session.0)
        .collect();
    assert!(ghosts.is_empty(), "asked {asked} times: {ghosts:?}");
}

/// Two choose: the overlay with the first is dropped, the second is at the same zxid.
#[test]
fn a_choice_that_was_dropped_does_not_serve() {
    let mut watched = Watched::without_choice();
    let mut other = watched.cluster.open_for(member(3), 300_000);
    let _silent = watched.open(200_000);
    let choose = |configuration: &str| Operation::ChooseDetector {
        group: String::new(),
        choice: Some(PolicyChoice {
            digest: watched.digest,
            configuration: configuration.to_owned(),
        }),
    };
    let (one, two) = (choose("one"), choose("two"));
    watched.cluster.proposals = Proposals::Hold;
    watched.cluster.send(&mut watched.admin, one);
    watched.cluster.pass_ms(100);
    watched.cluster.refuse_one();
    watched.cluster.proposals = Proposals::Commit;
    assert_eq!(watched.cluster.call(&mut other, two), CHOSEN);
    watched.cluster.others.clear();
    let mut questions = Vec::new();
    for _ in 0..100 {
        watched.beat(&other.clone());
        questions.extend(watched.pass_unanswered(1_000));
        if !questions.is_empty() {
            break;
        }
    }
    let question = questions.pop().expect("a question");
    let configuration = String::from_utf8_lossy(&question.call.configuration).into_owned();
    assert_eq!(configuration, "two");
}

/// One batch is refused while a session is held: that session is held all the same.
#[test]
fn a_dropped_overlay_lets_no_held_session_expire() {
    let mut expired = Vec::new();
    for phase in 0..20 {
        let mut watched = Watched::new();
        let client = watched.open(2_040);
        watched.pass(2_400, hold_all);
        let pass = |watched: &mut Watched, millis| {
            for question in watched.pass_unanswered(millis) {
                watched.answer(&question, hold_all(&question.call));
            }
        };
        pass(&mut watched, 5 * phase);
        assert!(watched.lives(&client), "it is held");
        let admin = watched.admin.clone();
        watched.cluster.proposals = Proposals::Hold;
        watched.cluster.send_as(&admin, admin.next, create("/x"));
        watched.cluster.run();
        watched.cluster.proposals = Proposals::Commit;
        watched.cluster.refuse_one();
        for _ in 0..40 {
            pass(&mut watched, 5);
        }
        if !watched.lives(&client) {
            expired.push(phase);
        }
    }
    assert!(expired.is_empty(), "it expired in phases {expired:?}");
}

/// The transaction that takes a suspicion back is dropped after the last detector: it is done anew.
#[test]
fn a_suspicion_is_taken_back_though_its_entry_is_lost() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 10_000);
    watched.pass(3_000, suspect_silent);
    assert!(watched.record("g", "a").suspect);
    watched.cluster.proposals = Proposals::Hold;
    let admin = watched.admin.clone();
    let choose = Operation::ChooseDetector {
        group: String::new(),
        choice: None,
    };
    watched.cluster.send_as(&admin, admin.next, choose);
    watched.cluster.run();
    watched.cluster.commit_one();
    watched.cluster.pass_ms(300);
    assert!(!watched.cluster.proposed.is_empty(), "it is taken back");
    watched.cluster.refuse_one();
    watched.cluster.proposals = Proposals::Commit;
    for _ in 0..20 {
        watched.beat(&client);
        watched.beat(&admin);
        watched.cluster.pass_ms(1_000);
    }
    assert!(watched.lives(&client));
    assert!(!watched.record("g", "a").suspect, "nobody judges it");
}

/// The expiry at the ceiling is in an overlay that is dropped: nobody holds the session for as long again.
#[test]
fn an_expiry_at_the_ceiling_that_is_lost_moves_no_ceiling() {
    let mut watched = Watched::new();
    let client = watched.open(2_000);
    watched.pass(5_900, hold_all);
    assert!(watched.lives(&client));
    watched.cluster.proposals = Proposals::Hold;
    watched.pass(400, hold_all);
    while !watched.cluster.proposed.is_empty() {
        watched.cluster.refuse_one();
    }
    watched.cluster.proposals = Proposals::Commit;
    let mut more = 0;
    while watched.lives(&client) && more < 20_000 {
        watched.pass(100, hold_all);
        more += 100;
    }
    assert!(more <= 2_200, "it was held for {more} ms more");
}
