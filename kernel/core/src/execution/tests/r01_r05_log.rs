//! Rules R1–R5: what is logged, in which order, on which state.

use folkmoot_proto::reply::{Outcome, Refusal};

use super::cluster::{Cluster, assert_same_state, create, member};

#[test]
fn a_session_writes_at_a_follower() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let created = Ok(Outcome::Created { sequence: None });
    assert_eq!(cluster.call(&mut client, create("/a")), created);
    let refused = Err(Refusal::NodeExists {
        path: "/a".to_owned(),
    });
    assert_eq!(cluster.call(&mut client, create("/a")), refused);
    assert_same_state(&cluster);
}
