//! What every part of the world works with: the time, the queue, the networks, the checks.

use folkmoot_core::log::OpId;
use folkmoot_proto::MemberId;
use folkmoot_proto::peer::PeerMessage;

use crate::dice::Dice;
use crate::faults::Fault;
use crate::invariants::Checks;
use crate::member::{SnapshotParcel, Thread};
use crate::network::{Network, Parcel, PeerStream};
use crate::seen::Seen;
use crate::time::{Moment, Queue};
use crate::trace::Trace;

/// What can happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A member's thread takes a turn.
    Turn {
        member: MemberId,
        life: u64,
        thread: Thread,
    },
    /// A message between members arrives.
    Parcel(Parcel),
    /// A member hears that a connection to a peer broke.
    PeerLost { member: MemberId, peer: MemberId },
    /// A snapshot arrives as a whole.
    Snapshot(Box<SnapshotParcel>),
    /// A member hears whether a peer has taken its snapshot.
    SnapshotAnswered {
        member: MemberId,
        life: u64,
        peer: MemberId,
        taken: bool,
    },
    /// A sync of the model log ends.
    Synced { member: MemberId, life: u64 },
    /// An operation of a disk ends.
    DiskDone {
        member: MemberId,
        life: u64,
        op: OpId,
    },
    /// A checkpoint was written.
    CheckpointDone { member: MemberId, life: u64 },
    /// Something goes wrong, or is mended.
    Fault(Fault),
}

/// The world but for its members and clients.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) now: Moment,
    pub(crate) queue: Queue<Happening>,
    pub(crate) network: Network,
    pub(crate) dice: Dice,
    pub(crate) seen: Seen,
    pub(crate) trace: Trace,
    pub(crate) checks: Checks,
}

impl Ctx {
    /// Sends between members.
    pub(crate) fn send(
        &mut self,
        stream: PeerStream,
        pair: (MemberId, MemberId),
        message: PeerMessage,
    ) {
        for (at, parcel) in self.network.send(self.now, stream, pair, message) {
            self.queue.push(at, Happening::Parcel(parcel));
        }
    }

    /// Breaks the connection of a pair of members; both hear of it.
    pub(crate) fn break_connection(&mut self, a: MemberId, b: MemberId) {
        let broken = self.network.break_connection(self.now, a, b);
        self.seen.count(crate::seen::Event::LinkBroken);
        for (member, peer, at) in broken.heard {
            self.queue.push(at, Happening::PeerLost { member, peer });
        }
    }
}
