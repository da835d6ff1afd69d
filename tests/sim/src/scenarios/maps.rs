//! Scenarios of partition maps.

use folkmoot_proto::client::{ClientFrame, Operation, ServerFrame};
use folkmoot_proto::group::{GroupOperation, MemberSpec};
use folkmoot_proto::partition::{Layout, MapConfig, MapDetail, MapOperation};

use super::leader::{Client, Leader};

/// An acknowledged heartbeat names the last update of the map that was sent on the session's stream:
/// the leases of its partitions do not go on by it while that is stuck there (rule R35).
pub(super) fn a_lease_waits_for_what_was_told() -> Result<(), String> {
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    let config = MapConfig {
        readiness: false,
        ..MapConfig::default()
    };
    let layout = Layout::Ranges(4);
    map(
        &mut leader,
        &mut client,
        MapOperation::Create { config, layout },
    )?;
    let watch = ClientFrame::WatchMap {
        group: GROUP.to_owned(),
        detail: MapDetail::Full,
        since: None,
    };
    leader.frame(client.stream, watch);
    let join = Operation::Group {
        group: GROUP.to_owned(),
        member: "a".to_owned(),
        operation: GroupOperation::Join {
            spec: MemberSpec::at("a"),
            predecessor: None,
        },
    };
    leader.ask(&mut client, join);
    leader.pass(1_000)?;
    let told = leader.frames(client.stream).into_iter().rev();
    let told = told.into_iter().find_map(|frame| match frame {
        ServerFrame::Map(update) => Some(update.through),
        _ => None,
    });
    let told = told.ok_or("the map is not told")?;
    leader.heartbeat(&client, 1);
    leader.pass(200)?;
    match leader.position {
        Some(position) if position == told => Ok(()),
        other => Err(format!(
            "told is {told:?}, and the acknowledgement wants {other:?}"
        )),
    }
}

const GROUP: &str = "shards";

fn map(leader: &mut Leader, client: &mut Client, operation: MapOperation) -> Result<(), String> {
    let operation = Operation::Map {
        group: GROUP.to_owned(),
        operation,
    };
    match leader.call(client, operation)? {
        Ok(_) => Ok(()),
        Err(refusal) => Err(format!("{refusal:?}")),
    }
}
