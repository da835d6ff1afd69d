//! Scenarios of failure detection: what a detector says counts for what it saw (rule R43).

use folkmoot_core::policy::{Cells, PolicyCall, PolicyCallId, PolicyWorld, Table};
use folkmoot_core::state::View as _;
use folkmoot_proto::client::Operation;
use folkmoot_proto::group::{GroupOperation, MemberRecord, MemberSpec, members_path};
use folkmoot_proto::partition::PolicyChoice;

use super::leader::{Client, Leader};
use crate::policies::Detector;

const GROUP: &str = "g";

type Question = (PolicyCallId, PolicyCall);

/// A leader with a detector for all sessions, and a member of a group.
fn watched() -> Result<(Leader, Client), String> {
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    leader.install(&mut client, Detector::Foolish.bytes())?;
    let choice = PolicyChoice {
        digest: Detector::Foolish.digest(),
        configuration: String::new(),
    };
    let steps = [
        Operation::ChooseDetector {
            group: String::new(),
            choice: Some(choice),
        },
        Operation::Group {
            group: GROUP.to_owned(),
            member: "a".to_owned(),
            operation: GroupOperation::Join {
                spec: MemberSpec::at("a"),
                predecessor: None,
            },
        },
    ];
    for step in steps {
        let reply = leader.call(&mut client, step)?;
        reply.map_err(|refusal| refusal.to_string())?;
    }
    Ok((leader, client))
}

/// The detector suspects everybody, and has them held.
fn objection(call: &PolicyCall, hold_ms: u64) -> Vec<Table> {
    let subjects = call
        .tables
        .iter()
        .flatten()
        .find(|table| table.name == "subjects");
    let column = |name: &str| match subjects.and_then(|table| table.column(name)) {
        Some(Cells::U64s(cells)) => cells.clone(),
        _ => Vec::new(),
    };
    let (keys, touches) = (column("key"), column("touch"));
    let rows = keys.len();
    let said = Table::new("verdicts", rows)
        .with("key", Cells::U64s(keys))
        .with("touch", Cells::U64s(touches))
        .with("suspicion", Cells::F64s(vec![9.0; rows]))
        .with("suspect", Cells::U32s(vec![1; rows]))
        .with("hold-ms", Cells::U64s(vec![hold_ms; rows]));
    vec![said]
}

fn next_question(leader: &mut Leader) -> Result<Question, String> {
    leader.questions.clear();
    for _ in 0..1_000 {
        leader.pass(20)?;
        if let Some((id, call)) = leader.questions.pop_front()
            && call.world == PolicyWorld::FailureDetector
        {
            return Ok((id, call));
        }
    }
    Err("the detector is not asked".to_owned())
}

fn object(leader: &mut Leader, (id, call): &Question, hold_ms: u64) -> Result<(), String> {
    leader.answer(*id, Ok(objection(call, hold_ms)))
}

/// Time passes, and the detector objects to everything.
fn pass(leader: &mut Leader, millis: u64) -> Result<(), String> {
    for _ in 0..millis.div_ceil(20) {
        leader.pass(20)?;
        while let Some(question) = leader.questions.pop_front() {
            object(leader, &question, 60_000)?;
        }
    }
    Ok(())
}

fn suspected(leader: &Leader) -> Result<bool, String> {
    let path = format!("{}/a", members_path(GROUP));
    let node = leader.execution.state().node(&path);
    let data = node.map(|node| node.data).ok_or("there is no record")?;
    let record = serde_json::from_slice::<MemberRecord>(data);
    record
        .map(|record| record.suspect)
        .map_err(|error| error.to_string())
}

fn not_suspected(leader: &mut Leader) -> Result<(), String> {
    leader.pass(500)?;
    match suspected(leader)? {
        true => Err("it is suspected for what is over".to_owned()),
        false => Ok(()),
    }
}

/// A session that is held expires at the ceiling, three timeouts after its last touch.
pub(super) fn no_hold_goes_past_the_ceiling() -> Result<(), String> {
    let (mut leader, client) = watched()?;
    pass(&mut leader, 25_000)?;
    if leader.execution.state().session(client.session).is_none() {
        return Err("it is not held".to_owned());
    }
    pass(&mut leader, 7_000)?;
    match leader.execution.state().session(client.session) {
        None => Ok(()),
        Some(_) => Err("it is held past the ceiling".to_owned()),
    }
}

/// What was said counts for a second: then nobody objects.
pub(super) fn an_old_verdict_holds_nobody() -> Result<(), String> {
    let (mut leader, client) = watched()?;
    pass(&mut leader, 9_500)?;
    leader.pass(3_000)?;
    match leader.execution.state().session(client.session) {
        None => Ok(()),
        Some(_) => Err("it is held by what was said long ago".to_owned()),
    }
}

/// A touch that came after the question voids the answer.
pub(super) fn a_later_touch_voids_a_verdict() -> Result<(), String> {
    let (mut leader, client) = watched()?;
    let question = next_question(&mut leader)?;
    leader.heartbeat(&client, 1);
    leader.pass(100)?;
    object(&mut leader, &question, 500)?;
    not_suspected(&mut leader)
}

/// So does an attachment.
pub(super) fn a_later_attachment_voids_a_verdict() -> Result<(), String> {
    let (mut leader, client) = watched()?;
    let question = next_question(&mut leader)?;
    leader.resume(&client)?;
    object(&mut leader, &question, 500)?;
    not_suspected(&mut leader)
}

/// And a change of the leader, though it be the same member.
pub(super) fn a_later_term_voids_a_verdict() -> Result<(), String> {
    let (mut leader, _) = watched()?;
    let question = next_question(&mut leader)?;
    leader.elect()?;
    leader.pass(150)?;
    object(&mut leader, &question, 500)?;
    not_suspected(&mut leader)
}

/// Many sessions that fall silent together are no crash of their clients: few of them expire at once.
pub(super) fn many_sessions_do_not_expire_at_once() -> Result<(), String> {
    let mut leader = Leader::new()?;
    for name in 1..=100 {
        leader.open(name)?;
    }
    leader.pass(10_500)?;
    let left = leader.execution.state().sessions().len();
    if left < 80 {
        return Err(format!("of 100 sessions {left} are left"));
    }
    // The brake has a limit of its own: five timeouts.
    leader.pass(40_000)?;
    match leader.execution.state().sessions().len() {
        0 => Ok(()),
        left => Err(format!("the brake holds {left} for ever")),
    }
}
