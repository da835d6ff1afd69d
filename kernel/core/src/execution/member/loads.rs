//! Loads that clients report, on their way to the leader. They are not answered and nothing of them
//! is kept here: what is lost, or too much, is reported again.

use folkmoot_proto::group::check_name;
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::PartitionLoad;
use folkmoot_proto::peer::ExecutionMessage;
use folkmoot_proto::{Now, SessionId, Tick};

use crate::execution::{Execution, StreamId};

/// Loads that a session may report at once, so that a flood of them does not fill the way to the
/// leader. A client reports each of its partitions once in ten seconds.
const LOADS_MAX: u64 = 64 * 1024;
/// How many more it may report in each second.
const LOADS_PER_S: u64 = 8 * 1024;
/// What a frame of them costs at least, in loads.
const FRAME_LOADS: u64 = 64;

/// What of its loads a session has reported lately.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::execution) struct LoadsReported {
    /// Those that count still.
    sum: u64,
    at: Tick,
}

impl LoadsReported {
    /// Takes a frame of so many; false if it is one too many.
    fn take(&mut self, now: Tick, loads: usize) -> bool {
        let again = now.millis_since(self.at).saturating_mul(LOADS_PER_S) / 1000;
        if again > 0 {
            self.sum = self.sum.saturating_sub(again);
            self.at = now;
        }
        let cost = u64::try_from(loads).unwrap_or(u64::MAX).max(FRAME_LOADS);
        let has_room = self.sum.saturating_add(cost) <= LOADS_MAX;
        if has_room {
            self.sum += cost;
        }
        has_room
    }
}

impl Execution {
    /// A client says what it measured of partitions that it owns.
    pub(in crate::execution) fn report_loads(
        &mut self,
        now: Now,
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
        let attachment = self.streams.attachment_mut(session);
        let has_room = attachment.is_some_and(|of| of.loads.take(now.tick, loads.len()));
        if has_room && let Some(leader) = self.known_leader {
            let loads = ExecutionMessage::Loads {
                session,
                group,
                loads,
            };
            self.tell(leader, loads);
        }
    }
}
