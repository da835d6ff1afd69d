//! What happens to a cluster.

use folkmoot_sdk::rebalancer::mix;

use crate::Options;

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub struct Trace {
    /// In kebab-case.
    pub name: &'static str,
    /// Replicas of a partition.
    pub copies: u32,
    /// The zone of each member that is there at the beginning; empty where zones play no part.
    pub zones: Vec<String>,
    /// What each partition weighs.
    pub weights: Vec<u64>,
    /// Whether it is the measured load that counts.
    pub measured: bool,
    /// In the order of time.
    pub events: Vec<(u64, Event)>,
    /// Seconds after which it is over.
    pub end_s: u64,
}

/// What happens. Members are numbered in the order in which they came.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A member does not answer.
    Down(usize),
    /// A member answers again.
    Up(usize),
    /// A member more, in a zone.
    Join(String),
    /// A member should give away what it has.
    Drain(usize),
    /// A drained member goes.
    Leave(usize),
    /// Partitions have these loads.
    Loads(Vec<f64>),
}

/// The names of all traces.
pub const NAMES: [&str; 9] = [
    "rolling-restart",
    "surge-deploy",
    "autoscale-sawtooth",
    "weighted-sawtooth",
    "zone-loss",
    "uneven-zones",
    "slow-growth",
    "flapping",
    "hot-partitions",
];

/// The trace of that name; none if there is none.
#[must_use]
pub fn trace(name: &str, options: &Options) -> Option<Trace> {
    let name = NAMES.into_iter().find(|known| *known == name)?;
    let mut trace = Trace {
        name,
        copies: 1,
        zones: vec![String::new(); options.members],
        weights: vec![1; options.partitions],
        measured: false,
        events: Vec::new(),
        end_s: 0,
    };
    match name {
        "rolling-restart" => rolling_restart(&mut trace, options),
        "surge-deploy" => surge_deploy(&mut trace, options),
        "autoscale-sawtooth" => sawtooth(&mut trace, options),
        "weighted-sawtooth" => {
            let weight = |partition| 1 + mix(options.seed, partition) % 50;
            trace.weights = (0..options.partitions as u64).map(weight).collect();
            sawtooth(&mut trace, options);
        }
        "zone-loss" => zone_loss(&mut trace, options),
        "uneven-zones" => uneven_zones(&mut trace, options),
        "slow-growth" => slow_growth(&mut trace, options),
        "flapping" => flapping(&mut trace, options),
        _ => hot_partitions(&mut trace, options),
    }
    let last = trace.events.last().map_or(0, |(at, _)| *at);
    trace.end_s = last + 20 * 60;
    Some(trace)
}

/// Every member is restarted, one after the other, each within the delay.
fn rolling_restart(trace: &mut Trace, options: &Options) {
    for member in 0..options.members {
        let at = 60 + 90 * member as u64;
        trace.events.push((at, Event::Down(member)));
        trace
            .events
            .push((at + options.delay_s / 3, Event::Up(member)));
    }
}

/// A quarter of the members is added, then as many of the old ones leave, until all are new.
fn surge_deploy(trace: &mut Trace, options: &Options) {
    let surge = options.members.div_ceil(4);
    let mut at = 60;
    for first in (0..options.members).step_by(surge) {
        let old = first..(first + surge).min(options.members);
        for _ in old.clone() {
            trace.events.push((at, Event::Join(String::new())));
        }
        at += 300;
        for member in old.clone() {
            trace.events.push((at, Event::Drain(member)));
        }
        at += 300;
        for member in old {
            trace.events.push((at, Event::Leave(member)));
        }
        at += 60;
    }
}

/// Three times half as many members are added one by one, and leave again one by one.
fn sawtooth(trace: &mut Trace, options: &Options) {
    let more = options.members.div_ceil(2);
    let (mut at, mut next) = (60, options.members);
    for _ in 0..3 {
        for _ in 0..more {
            trace.events.push((at, Event::Join(String::new())));
            at += 120;
        }
        for member in (next..next + more).rev() {
            trace.events.push((at, Event::Drain(member)));
            trace.events.push((at + 110, Event::Leave(member)));
            at += 120;
        }
        next += more;
    }
}

/// Of three zones with two replicas of each partition, one is away for longer than the delay.
fn zone_loss(trace: &mut Trace, options: &Options) {
    trace.copies = 2;
    trace.zones = deal(options.members, &["x", "y", "z"]);
    let lost = || (0..options.members).filter(|member| member % 3 == 0);
    let down = lost().map(|member| (60, Event::Down(member)));
    trace.events.extend(down);
    let up = lost().map(|member| (options.delay_s + 1260, Event::Up(member)));
    trace.events.extend(up);
}

/// Half of the members are in one zone, a third in another, the rest in a third one; members are
/// lost and join.
fn uneven_zones(trace: &mut Trace, options: &Options) {
    trace.copies = 2;
    trace.zones = deal(options.members, &["x", "y", "x", "y", "x", "z"]);
    for (round, member) in (0..options.members.min(6)).enumerate() {
        let at = 60 + 900 * round as u64;
        let zone = trace.zones.get(member).cloned().unwrap_or_default();
        trace.events.push((at, Event::Down(member)));
        trace.events.push((at + 450, Event::Join(zone)));
    }
}

/// A member joins every ten minutes, until there are half as many more.
fn slow_growth(trace: &mut Trace, options: &Options) {
    for joined in 0..options.members.div_ceil(2) as u64 {
        let join = Event::Join(String::new());
        trace.events.push((60 + 600 * joined, join));
    }
}

/// One member is away again and again, for a little less than the delay and a little more.
fn flapping(trace: &mut Trace, options: &Options) {
    for round in 0..8 {
        let at = 60 + 600 * round;
        let away = options.delay_s + 10 * (round % 2) - 5;
        trace.events.push((at, Event::Down(0)));
        trace.events.push((at + away, Event::Up(0)));
    }
}

/// Loads that fall off with the rank (Zipf, exponent 0.6), with ±10 % of noise every minute; every
/// half an hour other partitions are hot.
fn hot_partitions(trace: &mut Trace, options: &Options) {
    trace.measured = true;
    for minute in 0..150_u64 {
        let shift = mix(options.seed, minute / 30);
        let mut order: Vec<usize> = (0..options.partitions).collect();
        order.sort_by_key(|partition| mix(shift, *partition as u64));
        let mut loads: Vec<(usize, f64)> = order
            .into_iter()
            .enumerate()
            .map(|(rank, partition)| {
                let noise = mix(mix(options.seed, minute), partition as u64) % 201;
                let noise = 0.9 + noise as f64 / 1000.0;
                (partition, 100.0 * noise / ((rank + 1) as f64).powf(0.6))
            })
            .collect();
        loads.sort_by_key(|(partition, _)| *partition);
        let loads = loads.into_iter().map(|(_, load)| load).collect();
        trace.events.push((60 * minute, Event::Loads(loads)));
    }
}

fn deal(members: usize, zones: &[&str]) -> Vec<String> {
    let zones = zones.iter().cycle().take(members);
    zones.map(|zone| (*zone).to_owned()).collect()
}
