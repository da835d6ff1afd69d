//! Things that happen to a cluster, made up by proptest.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test panics where it fails"
)]

use folkmoot_sdk::rebalancer::{Intent, Rebalancer};
use folkmoot_sdk::testing::TestCluster;
use proptest::prelude::*;

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    members: usize,
    partitions: usize,
    copies: u32,
    zones: usize,
    weights: Vec<u64>,
    /// Parts of 16 of what is needed that each member can carry; none for no limit.
    capacity: Option<Vec<u64>>,
    allowed: Vec<(usize, Vec<usize>)>,
    pins: Vec<(usize, usize)>,
    frozen: Vec<usize>,
    events: Vec<Event>,
}

#[derive(Clone, Debug)]
enum Event {
    Lose(usize),
    Away(usize),
    Back(usize),
    Drain(usize),
    Cordon(usize),
    Serve(usize),
    Join(usize),
    Load(usize, f64),
}

/// Stories of up to 9 members and 60 partitions.
pub(crate) fn story() -> impl Strategy<Value = Story> {
    let event = (0..8_usize, 0..60_usize, 0.0..9.0_f64).prop_map(|(kind, row, load)| match kind {
        0 => Event::Lose(row),
        1 => Event::Away(row),
        2 => Event::Back(row),
        3 => Event::Drain(row),
        4 => Event::Cordon(row),
        5 => Event::Serve(row),
        6 => Event::Join(row),
        _ => Event::Load(row, load),
    });
    let shape = (1..9_usize, 0..60_usize, 1..4_u32, 0..4_usize);
    let weights = prop_oneof![Just(vec![1]), proptest::collection::vec(0..50_u64, 1..60)];
    let capacity = proptest::option::of(proptest::collection::vec(0..12_u64, 9));
    let names = proptest::collection::vec(0..9_usize, 1..4);
    let limits = (
        proptest::collection::vec((0..60_usize, names), 0..8),
        proptest::collection::vec((0..60_usize, 0..9_usize), 0..4),
        proptest::collection::vec(0..60_usize, 0..4),
    );
    let events = proptest::collection::vec(event, 0..8);
    (shape, weights, capacity, limits, events).prop_map(
        |((members, partitions, copies, zones), weights, capacity, limits, events)| Story {
            members,
            partitions,
            copies,
            zones,
            weights,
            capacity,
            allowed: limits.0,
            pins: limits.1,
            frozen: limits.2,
            events,
        },
    )
}

/// Tells the story to a policy: each of its plans is legal, and asked again it moves nothing. A
/// replica that was placed can lead only when it is ready, so leaders may change once more.
pub(crate) fn tell<R: Rebalancer>(story: &Story, policy: &R) {
    let mut cluster = begin(story).check(policy);
    for partition in &story.frozen {
        if !cluster.members_of(*partition).is_empty() {
            cluster = cluster.with_partition(*partition, |spec| spec.frozen = true);
        }
    }
    for event in &story.events {
        cluster = happen(cluster, event, story.members).check(policy);
        cluster = cluster.check(policy);
        assert_eq!(cluster.moves(), 0, "after {event:?} it does not settle");
        cluster = cluster.check(policy);
        let again = (cluster.moves(), cluster.leader_moves());
        assert_eq!(again, (0, 0), "after {event:?} it does not settle");
    }
}

fn begin(story: &Story) -> TestCluster {
    let mut cluster = TestCluster::vacant(story.members, story.partitions).copies(story.copies);
    let zones = ["x", "y", "z"];
    if story.zones > 0 {
        cluster = cluster.zones(&zones[..story.zones]);
    }
    for (partition, weight) in (0..story.partitions).zip(story.weights.iter().cycle()) {
        cluster = cluster.with_partition(partition, |spec| spec.weights[0] = *weight);
    }
    let weight: u64 = (0..story.partitions)
        .zip(story.weights.iter().cycle())
        .map(|(_, weight)| weight)
        .sum();
    for (row, parts) in story
        .capacity
        .iter()
        .flatten()
        .enumerate()
        .take(story.members)
    {
        let capacity = weight * u64::from(story.copies) * parts / 16;
        cluster = cluster.with_member(&name(row), |member| member.capacity[0] = capacity);
    }
    let here = |partition: &usize| *partition < story.partitions;
    for (partition, rows) in story.allowed.iter().filter(|(it, _)| here(it)) {
        let mut names: Vec<String> = rows.iter().map(|row| name(row % story.members)).collect();
        names.sort();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cluster = cluster.allow(*partition, &names);
    }
    for (partition, row) in story.pins.iter().filter(|(it, _)| here(it)) {
        cluster = cluster.pin(*partition, &name(row % story.members));
    }
    cluster
}

fn happen(cluster: TestCluster, event: &Event, members: usize) -> TestCluster {
    let name = |row: &usize| name(row % members);
    match event {
        Event::Lose(row) => cluster.lose(&name(row)),
        Event::Away(row) => cluster.away(&name(row)),
        Event::Back(row) => cluster.back(&name(row)),
        Event::Drain(row) => cluster.drain(&name(row)),
        Event::Cordon(row) => cluster.cordon(&name(row)),
        Event::Serve(row) => cluster.with_member(&name(row), |it| it.intent = Intent::Serve),
        Event::Join(row) => cluster.join(&format!("new {row}"), ["", "x", "y", "w"][row % 4]),
        Event::Load(partition, load) if cluster.input().partitions().len() > *partition => {
            cluster.load(*partition, *load)
        }
        Event::Load(..) => cluster,
    }
}

fn name(row: usize) -> String {
    char::from(b'a' + u8::try_from(row).unwrap()).to_string()
}
