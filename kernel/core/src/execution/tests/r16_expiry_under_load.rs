//! Rules R12 and R16 under load: whatever the others write, sessions expire and mounts hear of it.

use folkmoot_proto::RequestId;
use folkmoot_proto::client::{Operation, ServerFrame};
use folkmoot_proto::reply::Outcome;

use super::clients::{Client, create, invoke};
use super::cluster::{Cluster, Proposals, member};
use crate::state::View;

/// Requests that a writer has under way: three of them fill the leader's queue many times over.
const WINDOW: u64 = 100;

/// Keeps the writer's window full, and its session alive.
fn write_on(cluster: &mut Cluster, writer: &mut Client) {
    for frame in cluster.frames(writer) {
        if let ServerFrame::Reply { id, reply, .. } = frame {
            assert!(reply.is_ok(), "{reply:?}");
            writer.acked = id;
        }
    }
    while writer.next.0 <= writer.acked.0 + WINDOW {
        let set = Operation::Set {
            path: "/w".to_owned(),
            data: vec![7; 4096],
            expected: None,
        };
        cluster.send(writer, set);
    }
    cluster.heartbeat(writer, writer.next.0);
}

#[test]
pub(super) fn r16_a_session_expires_and_its_mount_hears_of_it_under_saturating_writes() {
    let mut cluster = Cluster::new(1);
    let mut admin = cluster.open(member(1));
    cluster.install_and_mount(&mut admin, "lock", "/l");
    cluster.call(&mut admin, create("/w")).expect("created");
    let mut holder = cluster.open_for(member(1), 1_000);
    let mut waiter = cluster.open(member(1));
    cluster
        .call(&mut holder, invoke("/l", "acquire"))
        .expect("the lock");
    let waiting = cluster.call(&mut waiter, invoke("/l", "acquire"));
    assert!(matches!(waiting, Ok(Outcome::Waiting(_))), "{waiting:?}");
    let mut writers: Vec<_> = (0..3).map(|_| cluster.open(member(1))).collect();
    cluster.proposals = Proposals::Hold;
    let mut completed = false;
    for _ in 0..300 {
        cluster.now = cluster.now.plus_millis(5);
        for writer in &mut writers {
            write_on(&mut cluster, writer);
        }
        cluster.run();
        cluster.commit_one();
        let frames = cluster.frames(&waiter);
        completed |= frames
            .iter()
            .any(|frame| matches!(frame, ServerFrame::Completion { .. }));
    }
    assert!(cluster.state(member(1)).session(holder.session).is_none());
    assert!(completed, "the waiter was not granted the lock");
    assert!(writers.iter().all(|writer| writer.acked > RequestId(1000)));
}

/// Heartbeats may lie in the socket of a network thread that stands still.
#[test]
pub(super) fn r16_nobody_expires_before_a_round_that_began_after_the_deadline() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    cluster.hold_barriers = true;
    cluster.pass_ms(10_500);
    assert!(cluster.state(member(1)).session(client.session).is_some());
    cluster.heartbeat(&client, 1);
    cluster.hold_barriers = false;
    cluster.answer_barriers();
    cluster.pass_ms(9_000);
    assert_eq!(cluster.acknowledged(&client), [1]);
    assert!(cluster.state(member(1)).session(client.session).is_some());
    cluster.pass_ms(2_000);
    assert!(cluster.state(member(1)).session(client.session).is_none());
}
