//! The network between members: for each pair one connection with an ordered stream and a priority
//! stream each way. Streams keep their order and overtake each other; a connection that breaks
//! loses the tail of all four. A direction can be blocked; what is sent into it is held, as QUIC
//! would send it again and again, and arrives late or is lost with the connection.

use folkmoot_proto::MemberId;
use folkmoot_proto::peer::PeerMessage;

use crate::dice::Dice;
use crate::time::{Fifo, Moment};

/// Which stream of a connection between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerStream {
    Ordered,
    Priority,
}

/// A message on its way. The epoch is that of the connection it was sent on.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) stream: PeerStream,
    pub(crate) epoch: u64,
    pub(crate) message: PeerMessage,
}

/// A broken connection: each end hears of it at a time of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Break {
    pub(crate) heard: [(MemberId, MemberId, Moment); 2],
}

/// How the network of one world is in general; drawn once.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Typical one-way delay in microseconds.
    delay: u64,
    /// Packets lost, in a thousand: each costs its stream a retransmission.
    loss: u64,
    /// Messages that arrive a second time, in a thousand.
    duplicates: u64,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    ordered: Fifo,
    priority: Fifo,
    blocked: bool,
    held: Vec<Parcel>,
}

/// The connection of a pair; it is up again at `up_at` after it broke.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    epoch: u64,
    up_at: Moment,
}

#[derive(Debug)]
pub(crate) struct Network {
    dice: Dice,
    members: u64,
    weather: Weather,
    storm: bool,
    directions: Vec<Direction>,
    connections: Vec<Connection>,
}

impl Network {
    pub(crate) fn new(seed: u64, members: u64) -> Self {
        let mut dice = Dice::new(seed, "network");
        let delays = [150, 400, 1_000, 4_000, 15_000];
        let weather = Weather {
            delay: dice.pick(&delays).copied().unwrap_or(400),
            loss: dice.pick(&[0, 1, 5, 20]).copied().unwrap_or(0),
            duplicates: dice.pick(&[0, 0, 2, 10]).copied().unwrap_or(0),
        };
        let pairs = (members * members) as usize;
        Self {
            dice,
            members,
            weather,
            storm: false,
            directions: std::iter::repeat_with(Direction::default)
                .take(pairs)
                .collect(),
            connections: vec![Connection::default(); pairs],
        }
    }

    /// Sends `message`; the answer is when it arrives, and maybe arrives again. Nothing if it is
    /// lost or held.
    pub(crate) fn send(
        &mut self,
        now: Moment,
        stream: PeerStream,
        (from, to): (MemberId, MemberId),
        message: PeerMessage,
    ) -> Vec<(Moment, Parcel)> {
        let connection = *self.connection(from, to);
        if now < connection.up_at {
            return Vec::new();
        }
        let parcel = Parcel {
            from,
            to,
            stream,
            epoch: connection.epoch,
            message,
        };
        self.carry(now, parcel)
    }

    /// Which connection of a pair is up; it changes when one breaks.
    pub(crate) fn epoch(&mut self, a: MemberId, b: MemberId) -> u64 {
        self.connection(a, b).epoch
    }

    /// What to do with a parcel that arrives: it is taken, unless its connection broke meanwhile or
    /// its direction was blocked.
    pub(crate) fn arrive(&mut self, parcel: Parcel) -> Option<Parcel> {
        if parcel.epoch != self.connection(parcel.from, parcel.to).epoch {
            return None;
        }
        let direction = self.direction(parcel.from, parcel.to);
        if direction.blocked {
            direction.held.push(parcel);
            return None;
        }
        Some(parcel)
    }

    /// Breaks the connection of a pair.
    pub(crate) fn break_connection(&mut self, now: Moment, a: MemberId, b: MemberId) -> Break {
        let heard = [self.dice.delay(4_000), self.dice.delay(4_000)];
        let reconnect = heard[0].max(heard[1]) + self.dice.delay(8_000);
        let connection = self.connection(a, b);
        connection.epoch += 1;
        connection.up_at = now.plus_micros(reconnect);
        for (from, to) in [(a, b), (b, a)] {
            self.direction(from, to).held.clear();
        }
        Break {
            heard: [
                (a, b, now.plus_micros(heard[0])),
                (b, a, now.plus_micros(heard[1])),
            ],
        }
    }

    /// Blocks the direction from `from` to `to`.
    pub(crate) fn block(&mut self, from: MemberId, to: MemberId) {
        self.direction(from, to).blocked = true;
    }

    /// Whether a pair is cut in at least one direction.
    pub(crate) fn is_cut(&mut self, a: MemberId, b: MemberId) -> bool {
        self.direction(a, b).blocked || self.direction(b, a).blocked
    }

    /// Opens all directions; what was held comes on its way.
    pub(crate) fn open_all(&mut self, now: Moment) -> Vec<(Moment, Parcel)> {
        let mut arrivals = Vec::new();
        for place in 0..self.directions.len() {
            self.directions[place].blocked = false;
            for parcel in std::mem::take(&mut self.directions[place].held) {
                arrivals.extend(self.carry(now, parcel));
            }
        }
        arrivals
    }

    /// Makes all delays and losses much worse, or ends that.
    pub(crate) fn set_storm(&mut self, storm: bool) {
        self.storm = storm;
    }

    /// Ends everything that is wrong with this network beyond the ordinary.
    pub(crate) fn calm(&mut self) {
        self.storm = false;
        self.weather.loss = 0;
        self.weather.duplicates = 0;
        self.weather.delay = self.weather.delay.min(4_000);
    }

    fn carry(&mut self, now: Moment, parcel: Parcel) -> Vec<(Moment, Parcel)> {
        let (delay, loss) = match self.storm {
            true => (self.weather.delay * 4, self.weather.loss + 80),
            false => (self.weather.delay, self.weather.loss),
        };
        let mut delay = self.dice.delay(delay);
        if self.dice.chance(loss) {
            delay += self.dice.between(10_000, 300_000);
        }
        let again = self.dice.chance(self.weather.duplicates)
            && matches!(parcel.message, PeerMessage::Consensus(_));
        let later = self.dice.between(1_000, 400_000);
        let direction = self.direction(parcel.from, parcel.to);
        if direction.blocked {
            direction.held.push(parcel);
            return Vec::new();
        }
        let stream = match parcel.stream {
            PeerStream::Ordered => &mut direction.ordered,
            PeerStream::Priority => &mut direction.priority,
        };
        let at = stream.arrival(now.plus_micros(delay));
        let mut arrivals = Vec::with_capacity(1);
        if again {
            arrivals.push((at.plus_micros(later), parcel.clone()));
        }
        arrivals.push((at, parcel));
        arrivals
    }

    fn direction(&mut self, from: MemberId, to: MemberId) -> &mut Direction {
        &mut self.directions[((from.0 - 1) * self.members + to.0 - 1) as usize]
    }

    fn connection(&mut self, a: MemberId, b: MemberId) -> &mut Connection {
        let (low, high) = (a.0.min(b.0) - 1, a.0.max(b.0) - 1);
        &mut self.connections[(low * self.members + high) as usize]
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::Term;
    use folkmoot_proto::peer::ConsensusMessage;

    use super::*;

    const PAIR: (MemberId, MemberId) = (MemberId(1), MemberId(2));

    fn message(term: u64) -> PeerMessage {
        PeerMessage::Consensus(ConsensusMessage::TimeoutNow { term: Term(term) })
    }

    fn calm_network() -> Network {
        let mut network = Network::new(3, 3);
        network.calm();
        network
    }

    #[test]
    fn a_stream_keeps_its_order_and_a_break_loses_its_tail() {
        let mut network = calm_network();
        let mut arrivals = Vec::new();
        for term in 0..50 {
            let now = Moment(term);
            arrivals.extend(network.send(now, PeerStream::Ordered, PAIR, message(term)));
        }
        assert_eq!(arrivals.len(), 50);
        assert!(arrivals.is_sorted_by_key(|(at, _)| *at));
        network.break_connection(Moment(60), PAIR.1, PAIR.0);
        for (_, parcel) in arrivals {
            assert!(network.arrive(parcel).is_none());
        }
    }

    #[test]
    fn a_blocked_direction_holds_what_is_sent_and_the_other_does_not() {
        let mut network = calm_network();
        network.block(PAIR.0, PAIR.1);
        assert!(
            network
                .send(Moment(1), PeerStream::Priority, PAIR, message(1))
                .is_empty()
        );
        let back = (PAIR.1, PAIR.0);
        let arrivals = network.send(Moment(1), PeerStream::Priority, back, message(2));
        assert_eq!(arrivals.len(), 1);
        let late = network.open_all(Moment(9));
        assert_eq!(late.len(), 1);
        assert!(late[0].0 > Moment(9));
    }
}
