//! What every part of the world works with: the time, the queue, the networks, the checks.

use std::collections::BTreeMap;

use folkmoot_core::execution::{ConnectionId, StreamId};
use folkmoot_core::log::OpId;
use folkmoot_proto::peer::PeerMessage;
use folkmoot_proto::{MemberId, SessionSecret};

use crate::carriage::carried;
use crate::dice::Dice;
use crate::faults::Fault;
use crate::history::History;
use crate::invariants::Checks;
use crate::member::{SnapshotParcel, Thread, ToExecution};
use crate::network::{Network, Parcel, PeerStream};
use crate::seen::Seen;
use crate::time::{Moment, Queue};
use crate::trace::Trace;
use crate::wires::{ClientId, Down, Up, Wires};

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
    /// Work beside a member's threads is done.
    WorkDone {
        member: MemberId,
        life: u64,
        input: ToExecution,
    },
    /// Something of a client's arrives at its member.
    Up(ConnectionId, Up),
    /// Something arrives at a client.
    Down(ClientId, ConnectionId, Down),
    /// A member hears that a client's connection is gone.
    WireLost {
        member: MemberId,
        life: u64,
        connection: ConnectionId,
    },
    /// A client takes a turn.
    ClientTurn { client: ClientId, turn: u64 },
    /// Something goes wrong, or is mended.
    Fault(Fault),
}

/// The world but for its members and clients.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) now: Moment,
    pub(crate) queue: Queue<Happening>,
    pub(crate) network: Network,
    pub(crate) wires: Wires,
    pub(crate) dice: Dice,
    pub(crate) seen: Seen,
    pub(crate) trace: Trace,
    pub(crate) checks: Checks,
    pub(crate) history: History,
    /// A client may have come to believe something: the world holds it against the others.
    pub(crate) believes: bool,
    /// By the name of each member of the group, the secret of the session that joined last.
    pub(crate) secrets: BTreeMap<String, SessionSecret>,
}

impl Ctx {
    /// Sends between members.
    pub(crate) fn send(
        &mut self,
        stream: PeerStream,
        pair: (MemberId, MemberId),
        message: PeerMessage,
    ) {
        let message = carried(&message);
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

    /// Sends to a client, on a stream or on its connection's control stream.
    pub(crate) fn send_down(
        &mut self,
        stream: Option<StreamId>,
        connection: Option<ConnectionId>,
        down: Down,
    ) {
        let connection = connection.or_else(|| self.wires.connection_of(stream?));
        let Some(connection) = connection else {
            return;
        };
        let Some(client) = self.wires.wire(connection).map(|wire| wire.client) else {
            return;
        };
        let down = match down {
            Down::Frame(stream, frame) => Down::Frame(stream, carried(&frame)),
            Down::Control(reply) => Down::Control(carried(&reply)),
            other => other,
        };
        if let Some(at) = self.wires.down(self.now, connection, stream) {
            self.queue
                .push(at, Happening::Down(client, connection, down));
        }
    }

    /// Sends to a client's member.
    pub(crate) fn send_up(&mut self, connection: ConnectionId, up: Up) {
        let up = match up {
            Up::Frame(stream, frame) => Up::Frame(stream, carried(&frame)),
            other => other,
        };
        if let Some(at) = self.wires.up(self.now, connection, &up) {
            self.queue.push(at, Happening::Up(connection, up));
        }
    }

    /// A client's connection is gone; both ends hear of it.
    pub(crate) fn cut_wire(&mut self, connection: ConnectionId) {
        let Some((wire, heard)) = self.wires.cut(connection) else {
            return;
        };
        let member = wire.member;
        self.queue.push(
            self.now.plus_micros(heard[0]),
            Happening::WireLost {
                member,
                life: wire.life,
                connection,
            },
        );
        self.queue.push(
            self.now.plus_micros(heard[1]),
            Happening::Down(wire.client, connection, Down::Lost),
        );
    }
}
