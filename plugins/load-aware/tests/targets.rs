//! The targets of the policy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test panics where it fails"
)]

use folkmoot_load_aware::LoadAware;
use folkmoot_sdk::rebalancer::{Rebalancer, mix};
use folkmoot_sdk::testing::TestCluster;
use proptest::prelude::*;

/// A cluster whose loads fall off as ranks to a power, dealt out by chance.
fn skewed(members: usize, partitions: usize, power: f64, seed: u64) -> (TestCluster, Vec<f64>) {
    let mut order: Vec<usize> = (0..partitions).collect();
    order.sort_by_key(|partition| mix(seed, *partition as u64));
    let mut loads = vec![0.0; partitions];
    for (rank, partition) in order.into_iter().enumerate() {
        loads[partition] = 1000.0 / ((rank + 1) as f64).powf(power);
    }
    let mut cluster = TestCluster::new(members, partitions);
    for (partition, load) in loads.iter().enumerate() {
        cluster = cluster.load(partition, *load);
    }
    (cluster, loads)
}

/// The hottest member's load as a part of the mean.
fn hottest(cluster: &TestCluster, loads: &[f64]) -> f64 {
    let input = cluster.input();
    let mut sums = vec![0.0; input.members().len()];
    for partition in input.partitions() {
        sums[partition.leader().unwrap().0 as usize] += loads[partition.row.0 as usize];
    }
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    sums.iter().copied().fold(0.0, f64::max) / mean
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_hottest_member_comes_into_the_band(
        members in 2..20_usize,
        for_each in 10..40_usize,
        power in 0.0..1.2_f64,
        seed in 0..1000_u64,
    ) {
        let (mut cluster, loads) = skewed(members, members * for_each, power, seed);
        let mean = loads.iter().sum::<f64>() / members as f64;
        let best = loads.iter().copied().fold(0.0, f64::max) / mean;
        for _ in 0..10 {
            cluster = cluster.check(&LoadAware::default());
        }
        prop_assert!(hottest(&cluster, &loads) <= f64::max(1.2, best) + 1e-9);
    }
}

#[test]
fn noise_moves_nothing() {
    let (cluster, loads) = skewed(8, 200, 0.8, 7);
    let mut cluster = cluster.check(&LoadAware::default());
    assert!(cluster.moves() > 0);
    for round in 0..10 {
        for (partition, load) in loads.iter().enumerate() {
            let noise = (mix(round, partition as u64) % 201) as f64 / 1000.0 - 0.1;
            cluster = cluster.load(partition, load * (1.0 + noise));
        }
        cluster = cluster.check(&LoadAware::default());
        assert_eq!(cluster.moves(), 0, "round {round}");
    }
}

#[test]
fn what_is_not_known_is_not_moved() {
    let mut cluster = TestCluster::new(2, 10);
    for partition in 0..10 {
        let load = if partition % 2 == 0 { 9.0 } else { 1.0 };
        cluster = cluster.load(partition, load);
        cluster = cluster.with_partition(partition, |spec| {
            spec.load.as_mut().unwrap().age_ms = 300_001;
        });
    }
    let cluster = cluster.check(&LoadAware::default());
    assert_eq!(cluster.moves(), 0);
    assert!(cluster.plan().again_ms.is_some());
}

#[test]
fn a_ready_replica_takes_over_without_a_move() {
    let mut cluster = TestCluster::new(2, 12)
        .copies(2)
        .check(&LoadAware::default());
    for partition in 0..12 {
        let load = if partition % 2 == 0 { 9.0 } else { 1.0 };
        cluster = cluster.load(partition, load);
    }
    let cluster = cluster.check(&LoadAware::default());
    assert_eq!(cluster.moves(), 0);
    assert!(cluster.leader_moves() > 0);
}

#[test]
fn bad_configurations_are_refused() {
    let mut policy = LoadAware::default();
    assert_eq!(policy.configure(b"{\"band\": 0.3}"), Ok(()));
    for bad in ["{\"band\": 0}", "{\"band\": 11}", "{\"bond\": 1}", "x"] {
        let rejection = policy.configure(bad.as_bytes()).unwrap_err();
        assert_eq!(rejection.code, "bad-configuration");
    }
}
