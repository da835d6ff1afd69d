//! How clients behave: when their heartbeats leave, and what the way does to them.

use crate::dice::Dice;

/// A kind of client. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) class: &'static str,
    /// The way to a member, and the mean of what is added to it at random.
    pub(crate) way_ms: f64,
    pub(crate) jitter_ms: f64,
    /// Stretches in which the way is longer.
    pub(crate) congestion: Option<Congestion>,
    /// Stops of the client's process: short, long, and such that hardly any timeout covers.
    pub(crate) pauses: &'static [Pauses],
    /// Loss of packets.
    pub(crate) loss: Option<Loss>,
}

/// A way that is now and then longer, evenly up to so much for each heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    pub(crate) every_ms: f64,
    pub(crate) length_ms: f64,
    pub(crate) most_ms: f64,
}

/// Stops of a process, log-normally long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    pub(crate) every_ms: f64,
    pub(crate) median_ms: f64,
    pub(crate) sigma: f64,
}

/// Loss in bursts (Gilbert and Elliott): now and then nearly all is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) usual: f64,
    pub(crate) in_burst: f64,
    pub(crate) every_ms: f64,
    pub(crate) burst_ms: f64,
}

/// Machines in one rack, nothing between them.
pub(crate) const STEADY: Behaviour = Behaviour {
    class: "steady",
    way_ms: 0.5,
    jitter_ms: 2.0,
    congestion: None,
    pauses: &[Pauses {
        every_ms: 1_200_000.0,
        median_ms: 120.0,
        sigma: 0.6,
    }],
    loss: None,
};

/// Behind a wide-area network that is full at times.
pub(crate) const JITTERY: Behaviour = Behaviour {
    class: "jittery",
    way_ms: 40.0,
    jitter_ms: 30.0,
    congestion: Some(Congestion {
        every_ms: 240_000.0,
        length_ms: 20_000.0,
        most_ms: 1_500.0,
    }),
    pauses: &[],
    loss: Some(Loss {
        usual: 0.005,
        in_burst: 0.05,
        every_ms: 120_000.0,
        burst_ms: 5_000.0,
    }),
};

/// A managed heap: short collections, long ones, and the full one that stops for seconds.
pub(crate) const COLLECTED: Behaviour = Behaviour {
    class: "gc",
    way_ms: 0.5,
    jitter_ms: 3.0,
    congestion: None,
    pauses: &[
        Pauses {
            every_ms: 15_000.0,
            median_ms: 60.0,
            sigma: 0.5,
        },
        Pauses {
            every_ms: 240_000.0,
            median_ms: 900.0,
            sigma: 0.5,
        },
        Pauses {
            every_ms: 1_800_000.0,
            median_ms: 4_000.0,
            sigma: 0.55,
        },
    ],
    loss: None,
};

/// On radio.
pub(crate) const LOSSY: Behaviour = Behaviour {
    class: "lossy",
    way_ms: 25.0,
    jitter_ms: 20.0,
    congestion: None,
    pauses: &[],
    loss: Some(Loss {
        usual: 0.03,
        in_burst: 0.9,
        every_ms: 240_000.0,
        burst_ms: 3_000.0,
    }),
};

/// The next heartbeat leaves without waiting for a probe, and its acknowledgement shows what was
/// lost.
const PROBE_MAX_MS: f64 = 2_000.0;

/// Draws a client's life.
#[derive(Debug)]
pub(crate) struct Client {
    behaviour: Behaviour,
    /// All times of the behaviour are multiplied with it; those between events are divided by it.
    rough: f64,
    dice: Dice,
    pauses: Vec<(f64, f64)>,
    congested: (f64, f64),
    burst: (f64, f64),
}

impl Client {
    pub(crate) fn new(behaviour: Behaviour, rough: f64, dice: Dice) -> Self {
        let mut client = Self {
            behaviour,
            rough,
            dice,
            pauses: Vec::new(),
            congested: (0.0, 0.0),
            burst: (0.0, 0.0),
        };
        for pauses in behaviour.pauses {
            let first = client.dice.exponential(pauses.every_ms / rough);
            let length = client.pause_ms(pauses);
            client.pauses.push((first, length));
        }
        client.congested = client.next_congestion(0.0);
        client.burst = client.next_burst(0.0);
        client
    }

    pub(crate) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// When a heartbeat that is due at `due_ms` leaves.
    pub(crate) fn sends_ms(&mut self, due_ms: f64) -> f64 {
        let mut sent_ms = due_ms;
        for (index, pauses) in self.behaviour.pauses.iter().enumerate() {
            let Some(&(mut from, mut length)) = self.pauses.get(index) else {
                continue;
            };
            while from + length <= due_ms {
                from += length + self.dice.exponential(pauses.every_ms / self.rough);
                length = self.pause_ms(pauses);
            }
            if from <= due_ms {
                sent_ms = sent_ms.max(from + length);
            }
            if let Some(pause) = self.pauses.get_mut(index) {
                *pause = (from, length);
            }
        }
        sent_ms
    }

    /// When a heartbeat that left at `sent_ms` is there.
    pub(crate) fn arrives_ms(&mut self, sent_ms: f64) -> f64 {
        let way_ms = self.behaviour.way_ms * self.rough;
        let jitter_ms = self.dice.exponential(self.behaviour.jitter_ms * self.rough);
        let mut on_way_ms = way_ms + jitter_ms;
        while self.congested.1 <= sent_ms {
            self.congested = self.next_congestion(self.congested.1);
        }
        if let Some(congestion) = self.behaviour.congestion
            && self.congested.0 <= sent_ms
        {
            on_way_ms += self.dice.between(0.0, congestion.most_ms * self.rough);
        }
        // QUIC's probe timeout (RFC 9002, section 6.2), doubled with each loss.
        let mut probe_ms = 3.0 * way_ms + 50.0;
        while self.is_lost(sent_ms + on_way_ms) {
            on_way_ms += probe_ms;
            probe_ms = (2.0 * probe_ms).min(PROBE_MAX_MS);
        }
        sent_ms + on_way_ms
    }

    fn is_lost(&mut self, at_ms: f64) -> bool {
        let Some(loss) = self.behaviour.loss else {
            return false;
        };
        while self.burst.1 <= at_ms {
            self.burst = self.next_burst(self.burst.1);
        }
        let in_burst = self.burst.0 <= at_ms;
        let probability = if in_burst { loss.in_burst } else { loss.usual };
        self.dice.chance(probability)
    }

    fn pause_ms(&mut self, pauses: &Pauses) -> f64 {
        self.dice
            .log_normal(pauses.median_ms * self.rough, pauses.sigma)
    }

    fn next_congestion(&mut self, after_ms: f64) -> (f64, f64) {
        match self.behaviour.congestion {
            Some(of) => self.stretch(after_ms, of.every_ms, of.length_ms),
            None => (f64::INFINITY, f64::INFINITY),
        }
    }

    fn next_burst(&mut self, after_ms: f64) -> (f64, f64) {
        match self.behaviour.loss {
            Some(of) => self.stretch(after_ms, of.every_ms, of.burst_ms),
            None => (f64::INFINITY, f64::INFINITY),
        }
    }

    fn stretch(&mut self, after_ms: f64, every_ms: f64, length_ms: f64) -> (f64, f64) {
        let from = after_ms + self.dice.exponential(every_ms / self.rough);
        (from, from + self.dice.exponential(length_ms * self.rough))
    }
}
