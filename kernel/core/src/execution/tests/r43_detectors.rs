//! Rule R43: a failure detector can only object, and what it says counts for what it saw. And R41: a
//! suspicion takes nothing, and is told when it has changed.

use folkmoot_proto::client::Operation;
use folkmoot_proto::group::{GroupOperation, MemberRecord, MemberSpec, MemberState};
use folkmoot_proto::limits::{DETECTORS_MAX, POLICY_CONFIG_BYTES_MAX};
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Digest, MemberId};

use super::clients::Client;
use super::cluster::{Cluster, assert_same_state, member};
use crate::execution::ExecutionAction;
use crate::policy::{
    Cells, PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure, PolicyWorld, Table,
};
use crate::state::View;

const CHOSEN: Reply = Ok(Outcome::DetectorChosen);

/// A question, and whom to answer.
struct Question {
    at: MemberId,
    id: PolicyCallId,
    call: PolicyCall,
}

/// A row of `subjects`.
#[derive(Clone, Copy, Debug)]
struct Subject {
    key: u64,
    touch: u64,
    silent_ms: u64,
    state: u32,
}

impl Question {
    fn subjects(&self) -> Vec<Subject> {
        subjects(&self.call)
    }
}

fn table<'a>(call: &'a PolicyCall, name: &str) -> &'a Table {
    let mut tables = call.tables.iter().flatten();
    tables.find(|table| table.name == name).expect("a table")
}

fn u64s<'a>(table: &'a Table, column: &str) -> &'a [u64] {
    match table.column(column) {
        Some(Cells::U64s(cells)) => cells,
        other => panic!("{column}: {other:?}"),
    }
}

fn u32s<'a>(table: &'a Table, column: &str) -> &'a [u32] {
    match table.column(column) {
        Some(Cells::U32s(cells)) => cells,
        other => panic!("{column}: {other:?}"),
    }
}

fn strings<'a>(table: &'a Table, column: &str) -> &'a [String] {
    match table.column(column) {
        Some(Cells::Strings(cells)) => cells,
        other => panic!("{column}: {other:?}"),
    }
}

fn subjects(call: &PolicyCall) -> Vec<Subject> {
    let table = table(call, "subjects");
    let row = |row: usize| Subject {
        key: u64s(table, "key")[row],
        touch: u64s(table, "touch")[row],
        silent_ms: u64s(table, "silent-ms")[row],
        state: u32s(table, "state")[row],
    };
    (0..table.rows as usize).map(row).collect()
}

/// What a detector says of those of its subjects that it has something to say of: whether it is
/// suspected, and for how long it is held.
fn verdicts(call: &PolicyCall, judge: impl Fn(&Subject) -> Option<(bool, u64)>) -> PolicyAnswer {
    let judged: Vec<_> = subjects(call)
        .into_iter()
        .filter_map(|subject| Some((subject, judge(&subject)?)))
        .collect();
    let keys = judged.iter().map(|(of, _)| of.key).collect();
    let touches = judged.iter().map(|(of, _)| of.touch).collect();
    let holds = judged.iter().map(|(_, (_, hold_ms))| *hold_ms).collect();
    let suspect = judged.iter().map(|(_, (suspect, _))| u32::from(*suspect));
    let why = judged
        .iter()
        .map(|(of, _)| format!("silent for {} ms", of.silent_ms));
    let verdicts = Table::new("verdicts", judged.len())
        .with("key", Cells::U64s(keys))
        .with("touch", Cells::U64s(touches))
        .with("suspicion", Cells::F64s(vec![0.0; judged.len()]))
        .with("suspect", Cells::U32s(suspect.collect()))
        .with("hold-ms", Cells::U64s(holds))
        .with("why", Cells::Strings(why.collect()));
    let verdicts = vec![verdicts];
    assert_eq!(PolicyWorld::FailureDetector.check_output(&verdicts), Ok(()));
    Ok(verdicts)
}

fn say_nothing(_: &PolicyCall) -> PolicyAnswer {
    Ok(vec![
        Table::new("verdicts", 0)
            .with("key", Cells::U64s(vec![]))
            .with("touch", Cells::U64s(vec![]))
            .with("suspicion", Cells::F64s(vec![]))
            .with("suspect", Cells::U32s(vec![]))
            .with("hold-ms", Cells::U64s(vec![])),
    ])
}

fn hold_all(call: &PolicyCall) -> PolicyAnswer {
    verdicts(call, |_| Some((true, 500)))
}

/// Suspects whoever is silent for half a second.
fn suspect_silent(call: &PolicyCall) -> PolicyAnswer {
    verdicts(call, |of| (of.silent_ms >= 500).then_some((true, 0)))
}

/// A cluster of three with a detector for all sessions.
struct Watched {
    cluster: Cluster,
    admin: Client,
    digest: Digest,
    beats: u64,
}

impl Watched {
    fn new() -> Self {
        let mut watched = Self::without_choice();
        assert_eq!(watched.choose("", "", Some(watched.digest)), CHOSEN);
        watched
    }

    fn without_choice() -> Self {
        let mut cluster = Cluster::new(3);
        let mut admin = cluster.open_for(member(1), 300_000);
        let digest = cluster.install(&mut admin, "failure-detector");
        Self {
            cluster,
            admin,
            digest,
            beats: 0,
        }
    }

    fn choose(&mut self, group: &str, configuration: &str, digest: Option<Digest>) -> Reply {
        let choice = digest.map(|digest| PolicyChoice {
            digest,
            configuration: configuration.to_owned(),
        });
        let group = group.to_owned();
        let choose = Operation::ChooseDetector { group, choice };
        self.cluster.call(&mut self.admin, choose)
    }

    fn open(&mut self, timeout_ms: u32) -> Client {
        self.cluster.open_for(member(2), timeout_ms)
    }

    /// A client that is member `id` of a group.
    fn join(&mut self, group: &str, id: &str, timeout_ms: u32) -> Client {
        let mut client = self.open(timeout_ms);
        let spec = MemberSpec {
            zone: format!("z-{id}/rack"),
            ..MemberSpec::at("a:1")
        };
        let join = Operation::Group {
            group: group.to_owned(),
            member: id.to_owned(),
            operation: GroupOperation::Join {
                spec,
                predecessor: None,
            },
        };
        let joined = self.cluster.call(&mut client, join);
        assert_eq!(joined, Ok(Outcome::GroupChanged));
        client
    }

    fn beat(&mut self, client: &Client) {
        self.beats += 1;
        self.cluster.heartbeat(client, self.beats);
        self.cluster.run();
    }

    /// Time passes, and the questions of it wait for an answer.
    fn pass_unanswered(&mut self, millis: u64) -> Vec<Question> {
        self.cluster.pass_ms(millis);
        let others = core::mem::take(&mut self.cluster.others);
        let question = |(at, action)| match action {
            ExecutionAction::AskPolicy { id, call } => Some(Question {
                at,
                id,
                call: *call,
            }),
            _ => None,
        };
        others.into_iter().filter_map(question).collect()
    }

    /// Time passes, and a policy answers at once.
    fn pass(&mut self, millis: u64, policy: impl Fn(&PolicyCall) -> PolicyAnswer) -> usize {
        let mut asked = 0;
        for _ in 0..millis.div_ceil(20) {
            for question in self.pass_unanswered(20) {
                asked += 1;
                let answer = policy(&question.call);
                self.answer(&question, answer);
            }
        }
        asked
    }

    /// The first question in the time to come, which is put in the middle of a look.
    fn next_question(&mut self) -> Question {
        for _ in 0..100 {
            if let Some(question) = self.pass_unanswered(20).pop() {
                return question;
            }
        }
        panic!("nobody asks");
    }

    fn answer(&mut self, question: &Question, answer: PolicyAnswer) {
        let now = self.cluster.now();
        let asking = &mut self.cluster.member(question.at).execution;
        asking.handle_policy(now, question.id, answer);
        self.cluster.run();
    }

    fn lives(&self, client: &Client) -> bool {
        let state = self.cluster.state(member(1));
        state.session(client.session).is_some()
    }

    fn sessions(&self) -> usize {
        self.cluster.state(member(1)).sessions().len()
    }

    fn record(&self, group: &str, id: &str) -> MemberRecord {
        let path = format!("/folkmoot/groups/{group}/members/{id}");
        let node = self.cluster.state(member(3)).node(&path);
        serde_json::from_slice(node.expect("a record").data).expect("a member's record")
    }

    fn record_version(&self, group: &str, id: &str) -> u64 {
        let path = format!("/folkmoot/groups/{group}/members/{id}");
        let node = self.cluster.state(member(3)).node(&path);
        node.expect("a record").stat.version
    }
}

#[test]
pub(super) fn r43_a_session_is_held_up_to_the_ceiling() {
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
pub(super) fn r43_who_is_not_held_expires_after_the_timeout() {
    let mut watched = Watched::new();
    let client = watched.open(1_000);
    watched.pass(980, say_nothing);
    assert!(watched.lives(&client));
    watched.pass(150, say_nothing);
    assert!(!watched.lives(&client));
}

/// Whatever is wrong with the policy: the kernel does not wait for it.
#[test]
pub(super) fn r43_without_a_verdict_sessions_expire_after_the_timeout() {
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
pub(super) fn r43_what_was_said_counts_for_a_second() {
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
pub(super) fn r43_a_later_touch_voids_what_was_said() {
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
pub(super) fn r43_a_later_attachment_voids_what_was_said() {
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
pub(super) fn r43_a_touch_that_waits_voids_what_was_said() {
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
pub(super) fn r43_what_was_said_to_a_former_leader_is_void() {
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
pub(super) fn r43_many_sessions_do_not_expire_at_once() {
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
pub(super) fn r43_a_few_sessions_expire_at_once() {
    let mut watched = Watched::without_choice();
    for _ in 0..16 {
        watched.open(1_000);
    }
    watched.cluster.pass_ms(1_500);
    assert_eq!(watched.sessions(), 1);
}

#[test]
pub(super) fn r43_held_sessions_hold_no_others() {
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
pub(super) fn r43_a_detector_is_asked_about_its_own_and_heard_about_no_others() {
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
pub(super) fn r43_a_detector_is_changed_while_it_is_asked() {
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

/// Nothing is asked while everybody is heard of.
#[test]
pub(super) fn a_detector_is_asked_while_somebody_is_silent() {
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
pub(super) fn touches_that_are_forwarded_together_are_no_jitter() {
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
pub(super) fn a_detector_sees_classes_zones_and_the_observer() {
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

#[test]
pub(super) fn r41_a_suspicion_is_told_and_taken_back() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    watched.pass(900, suspect_silent);
    let record = watched.record("g", "a");
    assert_eq!((record.state, record.suspect), (MemberState::Suspect, true));
    assert!(
        record.why.starts_with("suspected: silent for"),
        "{}",
        record.why
    );
    assert!(
        record.incarnation.is_some() && watched.lives(&client),
        "it takes nothing"
    );
    for _ in 0..6 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    assert!(watched.record("g", "a").suspect, "it is to be calm first");
    for _ in 0..3 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    let record = watched.record("g", "a");
    assert_eq!(
        (record.state, record.why.as_str()),
        (MemberState::Alive, "heard-again")
    );
    assert_same_state(&watched.cluster);
}

/// Each change is an entry of the log: a member that is late with every touch is not told of with
/// every touch.
#[test]
pub(super) fn r41_a_member_that_flaps_is_told_of_seldom() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 2_000);
    let before = watched.record_version("g", "a");
    for _ in 0..40 {
        watched.beat(&client);
        watched.pass(700, suspect_silent);
    }
    assert_eq!(watched.record_version("g", "a"), before + 1);
}

#[test]
pub(super) fn r41_a_new_leader_takes_back_what_the_former_one_told() {
    let mut watched = Watched::new();
    let client = watched.join("g", "a", 3_000);
    watched.pass(1_100, suspect_silent);
    assert!(watched.record("g", "a").suspect);
    watched.cluster.elect(member(3));
    watched.cluster.run();
    watched.pass(400, suspect_silent);
    assert!(
        watched.record("g", "a").suspect,
        "it was not heard of since"
    );
    for _ in 0..8 {
        watched.beat(&client);
        watched.pass(300, suspect_silent);
    }
    assert!(!watched.record("g", "a").suspect);
}

#[test]
pub(super) fn r41_without_a_detector_nobody_is_suspected() {
    let mut watched = Watched::new();
    watched.join("g", "a", 10_000);
    watched.pass(3_000, suspect_silent);
    assert!(watched.record("g", "a").suspect);
    assert_eq!(watched.choose("", "", None), CHOSEN);
    watched.pass_unanswered(500);
    assert!(!watched.record("g", "a").suspect);
}

/// The transaction that tells of it is thrown away with its overlay.
#[test]
pub(super) fn r41_a_suspicion_whose_entry_is_lost_is_told_anew() {
    let mut watched = Watched::new();
    watched.join("g", "a", 10_000);
    watched.cluster.proposals = super::cluster::Proposals::Hold;
    watched.pass(3_000, suspect_silent);
    watched.cluster.refuse_one();
    watched.cluster.proposals = super::cluster::Proposals::Commit;
    assert!(!watched.record("g", "a").suspect);
    watched.pass(500, suspect_silent);
    assert!(watched.record("g", "a").suspect);
}

#[test]
pub(super) fn a_choice_is_checked() {
    let mut watched = Watched::without_choice();
    let unknown = watched.choose("", "", Some(Digest([9; 32])));
    assert!(
        matches!(unknown, Err(Refusal::UnknownComponent { .. })),
        "{unknown:?}"
    );
    let lock = watched.cluster.install(&mut watched.admin, "lock");
    let rebalancer = watched.cluster.install(&mut watched.admin, "rebalancer");
    for digest in [lock, rebalancer] {
        let wrong = watched.choose("", "", Some(digest));
        assert!(
            matches!(wrong, Err(Refusal::WrongWorld { .. })),
            "{wrong:?}"
        );
    }
    let digest = Some(watched.digest);
    for group in ["a/b", "@default", &"n".repeat(129)] {
        let bad = watched.choose(group, "", digest);
        assert!(matches!(bad, Err(Refusal::BadMember { .. })), "{bad:?}");
    }
    let long = "x".repeat(POLICY_CONFIG_BYTES_MAX);
    assert_eq!(watched.choose("g", &long, digest), CHOSEN);
    let too_long = watched.choose("g", &format!("{long}x"), digest);
    assert!(
        matches!(too_long, Err(Refusal::TooLarge { .. })),
        "{too_long:?}"
    );
    assert_eq!(watched.choose("h", "", None), CHOSEN, "it had none");
    for number in 1..DETECTORS_MAX {
        assert_eq!(watched.choose(&format!("g{number}"), "", digest), CHOSEN);
    }
    let too_many = watched.choose("", "", digest);
    assert!(
        matches!(too_many, Err(Refusal::TooLarge { .. })),
        "{too_many:?}"
    );
    assert_eq!(
        watched.choose("g", "", digest),
        CHOSEN,
        "it has one already"
    );
    assert_same_state(&watched.cluster);
}

#[test]
pub(super) fn a_component_that_detects_is_not_removed() {
    let mut watched = Watched::without_choice();
    let digest = watched.digest;
    assert_eq!(watched.choose("g", "", Some(digest)), CHOSEN);
    let remove = || Operation::RemoveComponent { digest };
    let used = watched.cluster.call(&mut watched.admin, remove());
    assert!(
        matches!(used, Err(Refusal::ComponentInUse { .. })),
        "{used:?}"
    );
    assert_eq!(watched.choose("g", "", None), CHOSEN);
    let removed = watched.cluster.call(&mut watched.admin, remove());
    assert_eq!(removed, Ok(Outcome::ComponentRemoved));
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
