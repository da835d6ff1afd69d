//! The policy's test: no cluster is needed, and no WebAssembly.

use example_custom_rebalancer::FillUp;
use folkmoot_sdk::rebalancer::prelude::*;
use folkmoot_sdk::testing::TestCluster;

fn policy(configuration: &str) -> FillUp {
    let mut policy = FillUp::default();
    assert_eq!(policy.configure(configuration.as_bytes()), Ok(()));
    policy
}

#[test]
fn what_a_lost_member_had_goes_to_one_other() {
    let policy = policy("");
    let cluster = TestCluster::new(3, 12).lose("b").check(&policy);
    assert_eq!(cluster.moves(), 4);
    assert_eq!(cluster.counts(), [("a", 8), ("b", 0), ("c", 4)].into());
    assert_eq!(cluster.check(&policy).moves(), 0, "it settles");
}

#[test]
fn members_are_filled_up_one_after_the_other() {
    let policy = policy(r#"{"at_most": 5}"#);
    let cluster = TestCluster::vacant(3, 7).check(&policy);
    assert_eq!(cluster.counts(), [("a", 5), ("b", 2), ("c", 0)].into());
    let cluster = TestCluster::vacant(2, 12).check(&policy);
    assert_eq!(
        cluster.counts(),
        [("a", 6), ("b", 6)].into(),
        "all are full"
    );
}

#[test]
fn replicas_are_in_zones_of_their_own() {
    let cluster = TestCluster::vacant(4, 6).copies(2).zones(&["x", "y"]);
    let cluster = cluster.check(&policy(""));
    assert_eq!(
        cluster.counts(),
        [("a", 6), ("b", 6), ("c", 0), ("d", 0)].into()
    );
}

#[test]
fn a_wrong_configuration_is_refused() {
    let refused = FillUp::default().configure(br#"{"most": 5}"#).unwrap_err();
    assert_eq!(refused.code, "bad-configuration");
}
