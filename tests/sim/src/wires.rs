//! Connections of clients: a control stream and a stream for each session, which keep their order
//! each for itself. A connection breaks and loses its tail; both ends hear of it, each in its time.

use std::collections::BTreeMap;

use folkmoot_core::execution::{ConnectionId, StreamId};
use folkmoot_proto::client::{ClientFrame, ControlReply, ServerFrame};
use folkmoot_proto::{ConnEpoch, MemberId, SessionId};

use crate::dice::Dice;
use crate::time::{Fifo, Moment};

/// Names a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(pub(crate) usize);

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Frame(StreamId, ClientFrame),
    StreamClosed(StreamId),
    Heartbeat(u64, Vec<(SessionId, ConnEpoch)>),
    /// So many bytes of a stream were taken: what the transport knows of it.
    Drained(StreamId, usize),
}

/// What a client gets.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Frame(StreamId, ServerFrame),
    StreamClosed(StreamId),
    Control(ControlReply),
    /// The connection is gone.
    Lost,
}

/// A connection of a client to one life of a member.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: ClientId,
    pub(crate) member: MemberId,
    pub(crate) life: u64,
    control: [Fifo; 2],
    streams: BTreeMap<StreamId, [Fifo; 2]>,
    /// What does not get through: it is lost when the ends give the connection up.
    blocked: Blocked,
}

/// What of a connection does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    Nothing,
    /// What its streams carry to the client, save the control stream: heartbeats go on.
    Streams,
    Everything,
}

/// All connections that are up.
#[derive(Debug)]
pub(crate) struct Wires {
    dice: Dice,
    delay: u64,
    /// Typical microseconds until a member knows that a client has taken something.
    taking: u64,
    wires: BTreeMap<ConnectionId, Wire>,
    of_stream: BTreeMap<StreamId, ConnectionId>,
    connections: u64,
    streams: u64,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "wires");
        Self {
            delay: dice.pick(&[100, 500, 3_000]).copied().unwrap_or(500),
            taking: dice.pick(&[500, 500, 200_000]).copied().unwrap_or(500),
            dice,
            wires: BTreeMap::new(),
            of_stream: BTreeMap::new(),
            connections: 0,
            streams: 0,
        }
    }

    /// A new connection to a member in this life.
    pub(crate) fn connect(
        &mut self,
        client: ClientId,
        member: MemberId,
        life: u64,
    ) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let wire = Wire {
            client,
            member,
            life,
            control: [Fifo::default(); 2],
            streams: BTreeMap::new(),
            blocked: Blocked::Nothing,
        };
        self.wires.insert(connection, wire);
        connection
    }

    /// A new stream of a connection.
    pub(crate) fn open_stream(&mut self, connection: ConnectionId) -> StreamId {
        self.streams += 1;
        let stream = StreamId(self.streams);
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.streams.insert(stream, [Fifo::default(); 2]);
            self.of_stream.insert(stream, connection);
        }
        stream
    }

    pub(crate) fn wire(&self, connection: ConnectionId) -> Option<&Wire> {
        self.wires.get(&connection)
    }

    pub(crate) fn connection_of(&self, stream: StreamId) -> Option<ConnectionId> {
        self.of_stream.get(&stream).copied()
    }

    /// The connections to a member.
    pub(crate) fn to_member(&self, member: MemberId) -> Vec<ConnectionId> {
        let to = self.wires.iter().filter(|(_, wire)| wire.member == member);
        to.map(|(connection, _)| *connection).collect()
    }

    /// When what a client sends now arrives; none if it is lost.
    pub(crate) fn up(&mut self, now: Moment, connection: ConnectionId, up: &Up) -> Option<Moment> {
        let stream = match up {
            Up::Frame(stream, _) | Up::StreamClosed(stream) => Some(*stream),
            Up::Heartbeat(..) => None,
            Up::Drained(..) => {
                let is_heard = self
                    .wires
                    .get(&connection)
                    .is_some_and(|wire| wire.blocked == Blocked::Nothing);
                return is_heard.then(|| now.plus_micros(self.dice.delay(self.taking)));
            }
        };
        self.arrival(now, connection, stream, 0)
    }

    /// When what a member sends now arrives; none if it is lost.
    pub(crate) fn down(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        stream: Option<StreamId>,
    ) -> Option<Moment> {
        self.arrival(now, connection, stream, 1)
    }

    /// This does not get through a connection from here on.
    pub(crate) fn block(&mut self, connection: ConnectionId, what: Blocked) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.blocked = what;
        }
    }

    /// The connection is gone; what is under way is lost. Answers its ends, and after how many
    /// microseconds each hears of it.
    pub(crate) fn cut(&mut self, connection: ConnectionId) -> Option<(Wire, [u64; 2])> {
        let wire = self.wires.remove(&connection)?;
        for stream in wire.streams.keys() {
            self.of_stream.remove(stream);
        }
        let heard = [self.dice.delay(3_000), self.dice.delay(20_000)];
        Some((wire, heard))
    }

    /// All delays are short from here on. Answers the connections that are blocked: what was sent
    /// into them is lost, so they can not go on.
    pub(crate) fn calm(&mut self) -> Vec<ConnectionId> {
        self.delay = self.delay.min(500);
        self.taking = self.taking.min(500);
        let wires = self.wires.iter();
        let blocked = wires.filter(|(_, wire)| wire.blocked != Blocked::Nothing);
        blocked.map(|(connection, _)| *connection).collect()
    }

    fn arrival(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        stream: Option<StreamId>,
        direction: usize,
    ) -> Option<Moment> {
        let delay = self.dice.delay(self.delay);
        let wire = self.wires.get_mut(&connection)?;
        match wire.blocked {
            Blocked::Everything => return None,
            Blocked::Streams if stream.is_some() && direction == 1 => return None,
            Blocked::Streams | Blocked::Nothing => {}
        }
        let fifos = match stream {
            Some(stream) => wire.streams.get_mut(&stream)?,
            None => &mut wire.control,
        };
        Some(fifos[direction].arrival(now.plus_micros(delay)))
    }
}
