//! What bounded loads promise.

use folkmoot_bounded_load::BoundedLoad;
use folkmoot_sdk::rebalancer::Rebalancer;
use folkmoot_sdk::testing::TestCluster;

#[test]
fn nobody_has_more_than_its_bound() {
    for slack in ["0.05", "0.25", "1"] {
        let mut policy = BoundedLoad::default();
        let configuration = format!("{{\"slack\": {slack}}}");
        policy.configure(configuration.as_bytes()).unwrap();
        let cluster = TestCluster::vacant(7, 1000).check(&policy);
        let bound = (1000.0 / 7.0 * (1.0 + slack.parse::<f64>().unwrap())).ceil() as usize;
        let most = cluster.counts().into_values().max().unwrap();
        assert!(most <= bound, "{most} with slack {slack}");
    }
}

#[test]
fn a_member_that_joins_moves_little_beside_its_share() {
    let policy = BoundedLoad::default();
    let cluster = TestCluster::vacant(9, 1000)
        .check(&policy)
        .join("new", "")
        .check(&policy);
    assert!(cluster.moves() < 250, "{}", cluster.moves());
}

#[test]
fn bad_configurations_are_refused() {
    for bad in ["{\"slack\": 0}", "{\"slack\": 11}", "{\"slick\": 1}", "x"] {
        let rejection = BoundedLoad::default()
            .configure(bad.as_bytes())
            .unwrap_err();
        assert_eq!(rejection.code, "bad-configuration");
    }
}
