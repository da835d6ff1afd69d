//! Loads that clients report, on their way to the leader. They are not answered and nothing of them
//! is kept here: what is lost is reported again.

use folkmoot_proto::SessionId;
use folkmoot_proto::group::check_name;
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::PartitionLoad;
use folkmoot_proto::peer::ExecutionMessage;

use crate::execution::{Execution, StreamId};

impl Execution {
    /// A client says what it measured of partitions that it owns.
    pub(in crate::execution) fn report_loads(
        &mut self,
        (stream, session): (StreamId, SessionId),
        group: String,
        loads: Vec<PartitionLoad>,
    ) {
        if loads.len() > MAP_NAMED_MAX {
            return self.close_stream(stream, "these are more loads than one frame may have");
        }
        if check_name("group", &group).is_err() {
            return self.close_stream(stream, "no group has the name that loads are reported for");
        }
        if let Some(leader) = self.known_leader {
            let loads = ExecutionMessage::Loads {
                session,
                group,
                loads,
            };
            self.tell(leader, loads);
        }
    }
}
