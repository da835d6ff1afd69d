//! The generated traces: clusters of three members whose clients live, pause, lose packets, crash
//! and come back, while leaders stall and fall and the network of a zone is cut.
//!
//! There are two sets. Detectors are tuned on one and judged on the other, which has other seeds,
//! other timeouts and rougher clients.

use crate::client::{Behaviour, COLLECTED, Client, JITTERY, LOSSY, STEADY};
use crate::dice::Dice;
use crate::trace::{Leaders, Session, Span, Touch, Trace};

/// Clients at a time in each trace.
const CLIENTS: u64 = 96;
/// A client crashes once in this time, in hours, on average.
const CRASH_EVERY_HOURS: f64 = 0.6;
/// Zones, and members.
const PLACES: u64 = 3;
/// Touches that members send on at once, and the leader's quorum round, in milliseconds.
const FORWARD_MS: f64 = 50.0;
/// A client sends five heartbeats in a timeout, and leaves a member that two were not acknowledged
/// by.
const HEARTBEATS_A_TIMEOUT: f64 = 5.0;

/// Which traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Those that defaults were chosen on.
    Tuning,
    /// Those that the figures are of.
    Judged,
}

/// One trace, before it is drawn.
#[derive(Clone, Copy, Debug)]
pub struct World {
    name: &'static str,
    set: Set,
    /// Clients take these in turn.
    clients: &'static [Behaviour],
    /// Whether clients say of which class they are.
    declares: bool,
    stalls_every_ms: Option<f64>,
    elections_every_ms: Option<f64>,
    cuts_every_ms: Option<f64>,
}

/// A starved leader runs late for this long, in milliseconds.
const LAG_LENGTH_MS: f64 = 20_000.0;

/// Minutes in milliseconds.
const fn minutes(minutes: u64) -> Option<f64> {
    Some((minutes * 60_000) as f64)
}

/// The worlds of a set.
#[must_use]
pub fn worlds(set: Set) -> [World; 9] {
    let calm = World {
        name: "steady",
        set,
        clients: &[STEADY],
        declares: true,
        stalls_every_ms: None,
        elections_every_ms: None,
        cuts_every_ms: None,
    };
    let of = |name, clients| World {
        name,
        clients,
        ..calm
    };
    let mixed = World {
        stalls_every_ms: minutes(30),
        elections_every_ms: minutes(40),
        cuts_every_ms: minutes(60),
        ..of(
            "mixed",
            &[STEADY, JITTERY, STEADY, COLLECTED, STEADY, LOSSY],
        )
    };
    [
        calm,
        of("jittery", &[JITTERY]),
        of("gc", &[COLLECTED]),
        of("lossy", &[LOSSY]),
        World {
            stalls_every_ms: minutes(4),
            ..of("observer-paused", &[STEADY])
        },
        World {
            elections_every_ms: minutes(8),
            ..of("leader-change", &[STEADY])
        },
        World {
            cuts_every_ms: minutes(15),
            ..of("zone-cut", &[STEADY])
        },
        mixed,
        World {
            name: "mixed-undeclared",
            declares: false,
            ..mixed
        },
    ]
}

impl World {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Draws `hours` of it. The same seed gives the same trace.
    #[must_use]
    pub fn trace(&self, seed: u64, hours: u64) -> Trace {
        let seed = match self.set {
            Set::Tuning => seed ^ 0x7475_6e65,
            Set::Judged => seed,
        };
        let events = Events::draw(self, Dice::new(seed, 1), (hours * 3_600_000) as f64);
        let mut trace = Trace {
            name: self.name.to_owned(),
            length_ms: hours * 3_600_000,
            zones: (0..PLACES).map(|zone| format!("zone-{zone}")).collect(),
            sessions: Vec::new(),
            leaders: events.leaders(),
        };
        for slot in 0..CLIENTS {
            self.live(slot, seed, &events, &mut trace);
        }
        trace.sessions.sort_by_key(Session::opened_ms);
        trace
    }

    fn timeout_ms(&self) -> f64 {
        match self.set {
            Set::Tuning => 8_000.0,
            Set::Judged => 10_000.0,
        }
    }

    fn rough(&self) -> f64 {
        match self.set {
            Set::Tuning => 0.85,
            Set::Judged => 1.0,
        }
    }

    /// A client and those that take its place after its crashes.
    fn live(&self, slot: u64, seed: u64, events: &Events, trace: &mut Trace) {
        let turn = slot as usize % self.clients.len().max(1);
        let Some(behaviour) = self.clients.get(turn) else {
            return;
        };
        let mut client = Client::new(*behaviour, self.rough(), Dice::new(seed, 1000 + slot));
        let class = if self.declares { behaviour.class } else { "" };
        let mut from_ms = client.dice().between(0.0, self.timeout_ms());
        while from_ms < events.length_ms {
            let life_ms = client.dice().exponential(CRASH_EVERY_HOURS * 3_600_000.0);
            let dies_ms = from_ms + life_ms;
            let touches = self.touches(&mut client, slot, (from_ms, dies_ms), events);
            trace.sessions.push(Session {
                class: class.to_owned(),
                zone: zone_of(slot),
                timeout_ms: self.timeout_ms() as u64,
                died_ms: (dies_ms < events.length_ms).then_some(dies_ms as u64),
                touches,
            });
            from_ms = dies_ms + client.dice().between(0.0, 60_000.0);
        }
        trace.sessions.retain(|session| !session.touches.is_empty());
    }

    fn touches(
        &self,
        client: &mut Client,
        slot: u64,
        (from_ms, dies_ms): (f64, f64),
        events: &Events,
    ) -> Vec<Touch> {
        let interval_ms = self.timeout_ms() / HEARTBEATS_A_TIMEOUT;
        let end_ms = dies_ms.min(events.length_ms);
        let mut member = (slot + client.dice().below(PLACES)) % PLACES;
        let mut touches: Vec<Touch> = Vec::new();
        let mut last_ms = 0.0_f64;
        let mut due_ms = from_ms;
        while due_ms < end_ms {
            let sent_ms = client.sends_ms(due_ms);
            if sent_ms >= end_ms {
                break;
            }
            due_ms = sent_ms + interval_ms;
            if last_ms > sent_ms {
                // One is on its way; this one arrives with it and says nothing new.
                continue;
            }
            let mut arrived_ms = client.arrives_ms(sent_ms);
            if let Some(cut) = events.cut(zone_of(slot), arrived_ms) {
                arrived_ms = cut + client.dice().between(50.0, 1_000.0);
            }
            if let Some((mended_ms, is_back)) = events.member_down(member, arrived_ms) {
                let left_ms = sent_ms + client.dice().between(2.0, 2.5) * interval_ms;
                if is_back && mended_ms < left_ms {
                    arrived_ms = mended_ms;
                } else {
                    member = (member + 1 + client.dice().below(PLACES - 1)) % PLACES;
                    arrived_ms = left_ms + client.dice().exponential(400.0);
                }
            }
            last_ms = arrived_ms;
            let on_ms = client.dice().between(0.0, FORWARD_MS);
            touches.push(Touch {
                arrived_ms: arrived_ms as u64,
                known_ms: events.known_ms(arrived_ms + on_ms, client.dice()),
                member,
            });
        }
        touches.retain(|touch| touch.known_ms < events.length_ms as u64);
        touches
    }
}

fn zone_of(slot: u64) -> u32 {
    // Not in step with the behaviours, which clients take in turn.
    (slot / 6 % PLACES) as u32
}

/// What happens to all clients at once.
#[derive(Debug)]
struct Events {
    length_ms: f64,
    /// Leader's process: from, to.
    stalls: Vec<(f64, f64)>,
    /// The same, where it only runs late: from, to, and by how much at most.
    lags: Vec<(f64, f64, f64)>,
    /// From the death of a leader to the next one's election, and which member died.
    elections: Vec<(f64, f64, u64)>,
    /// A zone that no member hears: from, to, which.
    cuts: Vec<(f64, f64, u32)>,
}

/// A member that died is back after this long, in milliseconds.
const RESTART_MS: f64 = 60_000.0;

impl Events {
    fn draw(world: &World, mut dice: Dice, length_ms: f64) -> Self {
        let mut times = |every_ms: Option<f64>| {
            let mut times = Vec::new();
            let every_ms = every_ms.unwrap_or(f64::INFINITY);
            // Apart by half of their mean at least, so that one is over before the next.
            let mut at_ms = every_ms / 2.0 + dice.exponential(every_ms / 2.0);
            while at_ms < length_ms - RESTART_MS {
                times.push(at_ms);
                at_ms += every_ms / 2.0 + dice.exponential(every_ms / 2.0);
            }
            times
        };
        let (stalls, lags) = (times(world.stalls_every_ms), times(world.stalls_every_ms));
        let elections = times(world.elections_every_ms);
        let cuts = times(world.cuts_every_ms);
        let stall = |at_ms: f64| (at_ms, at_ms + dice.log_normal(3_000.0, 0.7));
        let stalls = stalls.into_iter().map(stall).collect();
        let lag = |at_ms: f64| (at_ms, at_ms + LAG_LENGTH_MS, dice.between(300.0, 2_500.0));
        let lags = lags.into_iter().map(lag).collect();
        let mut leader = 0;
        let election = |at_ms: f64| {
            let dead = leader;
            leader = (leader + 1) % PLACES;
            (at_ms, at_ms + dice.between(300.0, 2_500.0), dead)
        };
        let elections = elections.into_iter().map(election).collect();
        let cut = |at_ms: f64| {
            let length_ms = dice.log_normal(9_000.0, 0.5);
            (at_ms, at_ms + length_ms, dice.below(PLACES) as u32)
        };
        Self {
            length_ms,
            stalls,
            lags,
            elections,
            cuts: cuts.into_iter().map(cut).collect(),
        }
    }

    fn leaders(&self) -> Leaders {
        let span = |(from, to): &(f64, f64)| Span {
            from_ms: *from as u64,
            to_ms: *to as u64,
        };
        Leaders {
            elected_ms: self.elections.iter().map(|(_, to, _)| *to as u64).collect(),
            stalls: self.stalls.iter().map(span).collect(),
            lags: self
                .lags
                .iter()
                .map(|(from, to, most)| (span(&(*from, *to)), *most as u64))
                .collect(),
        }
    }

    /// Until when the zone is cut off at this instant.
    fn cut(&self, zone: u32, at_ms: f64) -> Option<f64> {
        let at = |(from, to, of): &&(f64, f64, u32)| *of == zone && (*from..*to).contains(&at_ms);
        self.cuts.iter().find(at).map(|(_, to, _)| *to)
    }

    /// Until when the member does not answer at this instant, and whether it was only paused.
    fn member_down(&self, member: u64, at_ms: f64) -> Option<(f64, bool)> {
        let dead = |(from, _, of): &&(f64, f64, u64)| {
            *of == member && (*from..*from + RESTART_MS).contains(&at_ms)
        };
        if let Some((from, _, _)) = self.elections.iter().find(dead) {
            return Some((from + RESTART_MS, false));
        }
        let stalled = |(from, to): &&(f64, f64)| {
            self.leader(at_ms) == member && (*from..*to).contains(&at_ms)
        };
        self.stalls.iter().find(stalled).map(|(_, to)| (*to, true))
    }

    fn leader(&self, at_ms: f64) -> u64 {
        let before = self.elections.iter().filter(|(_, to, _)| *to <= at_ms);
        before.count() as u64 % PLACES
    }

    /// When a leader knows what would have been told at this instant.
    fn known_ms(&self, told_ms: f64, dice: &mut Dice) -> u64 {
        let lagging = |(from, to, _): &&(f64, f64, f64)| (*from..*to).contains(&told_ms);
        let lag_ms = self
            .lags
            .iter()
            .find(lagging)
            .map_or(0.0, |(_, _, most)| *most);
        let told_ms = told_ms + dice.between(0.0, lag_ms);
        let ends = self.elections.iter().map(|(from, to, _)| (*from, *to));
        let mut blind = self.stalls.iter().copied().chain(ends);
        let until = blind.find(|(from, to)| (*from..*to).contains(&told_ms));
        until.map_or(told_ms, |(_, to)| to) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_trace() {
        let [.., mixed] = worlds(Set::Judged);
        let touches = |seed| {
            let sessions = mixed.trace(seed, 1).sessions.into_iter();
            sessions.map(|of| of.touches).collect::<Vec<_>>()
        };
        assert_eq!(touches(1), touches(1));
        assert_ne!(touches(1), touches(2));
    }

    #[test]
    fn touches_are_in_order_and_known_after_they_arrived() {
        for world in worlds(Set::Judged) {
            let trace = world.trace(3, 1);
            assert!(trace.sessions.len() > 96, "{}", world.name());
            for session in &trace.sessions {
                assert!(session.touches.is_sorted_by_key(|touch| touch.arrived_ms));
                assert!(
                    session
                        .touches
                        .iter()
                        .all(|of| of.arrived_ms <= of.known_ms)
                );
                assert!(
                    session
                        .died_ms
                        .is_none_or(|died| died >= session.touches[0].arrived_ms)
                );
            }
        }
    }
}
