//! Rule R43: a failure detector can only object, and what it says counts for what it saw. And R41: a
//! suspicion takes nothing, and is told when it has changed.

use folkmoot_proto::client::Operation;
use folkmoot_proto::group::{GroupOperation, MemberRecord, MemberSpec, MemberState};
use folkmoot_proto::limits::{DETECTORS_MAX, POLICY_CONFIG_BYTES_MAX};
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Digest, MemberId};

mod chosen;
mod dropped;
mod sees;
mod told;
pub(super) mod verdicts;

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
