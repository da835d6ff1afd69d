//! What clients are told of a map, and when leases go on by it.

use folkmoot_proto::client::{ClientFrame, ControlReply, ServerFrame};
use folkmoot_proto::codec::Compact;
use folkmoot_proto::partition::{
    FullBody, Layout, MapDetail, MapOperation, MapUpdate, PartitionId, RoutingBody,
};
use folkmoot_proto::{Zxid, reply::Outcome};

use super::super::clients::Client;
use super::super::cluster::member;
use super::{GROUP, Shards, config};

fn watch(shards: &mut Shards, client: &Client, detail: MapDetail, since: Option<Zxid>) {
    let watch = ClientFrame::WatchMap {
        group: GROUP.to_owned(),
        detail,
        since,
    };
    shards.cluster.frame(client.member, client.stream, watch);
    shards.cluster.run();
}

fn updates(frames: &[ServerFrame]) -> Vec<MapUpdate> {
    let update = |frame: &ServerFrame| match frame {
        ServerFrame::Map(update) => Some(update.clone()),
        _ => None,
    };
    frames.iter().filter_map(update).collect()
}

fn routing(update: &MapUpdate) -> RoutingBody {
    RoutingBody::from_compact(&update.body).expect("a body")
}

fn move_to(partition: u32, name: &str) -> MapOperation {
    MapOperation::Move {
        partition: PartitionId(partition),
        members: vec![name.to_owned()],
    }
}

#[test]
fn a_router_gets_the_map_and_then_what_changes() {
    let mut shards = Shards::new(config(), 3, 2);
    shards.pass(500);
    let router = shards.cluster.open(member(3));
    watch(&mut shards, &router, MapDetail::Routing, None);
    let first = updates(&shards.cluster.frames(&router));
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].base, None);
    let body = routing(&first[0]);
    assert_eq!((body.partitions.len(), body.members.len()), (3, 2));
    assert!(body.partitions.iter().all(|it| it.key.is_some()));
    assert_eq!(body.layout, shards.map().1.layout);
    let other = if shards.owner_name(1).as_deref() == Some("a") {
        "b"
    } else {
        "a"
    };
    assert!(shards.ask(move_to(1, other)).is_ok());
    shards.pass(100);
    let deltas = updates(&shards.cluster.frames(&router));
    let mut base = first[0].through;
    for delta in &deltas {
        assert_eq!(
            delta.base,
            Some(base),
            "each goes on where the one before ended"
        );
        base = delta.through;
        let body = routing(delta);
        assert!(
            body.partitions
                .iter()
                .all(|it| it.partition == PartitionId(1))
        );
        assert!(body.partitions.iter().all(|it| it.key.is_none()));
        assert!(delta.body.len() <= 64 + 8, "{} bytes", delta.body.len());
    }
    assert!(!deltas.is_empty());
}

#[test]
fn an_update_comes_before_the_reply_that_reflects_it() {
    let mut shards = Shards::new(config(), 1, 1);
    shards.pass(500);
    let admin = shards.admin.clone();
    shards.admin = shards.cluster.resume(&admin, member(3));
    let admin = shards.admin.clone();
    watch(&mut shards, &admin, MapDetail::Full, None);
    shards.cluster.frames(&admin);
    let freeze = super::map_operation(MapOperation::Freeze { frozen: true });
    let mut admin = admin;
    shards.cluster.send(&mut admin, freeze);
    shards.cluster.run();
    let frames = shards.cluster.frames(&admin);
    let update = frames
        .iter()
        .position(|frame| matches!(frame, ServerFrame::Map(_)));
    let reply = frames
        .iter()
        .position(|frame| matches!(frame, ServerFrame::Reply { .. }));
    assert!(update.is_some() && update < reply, "{frames:?}");
    let body = updates(&frames)[0].body.clone();
    let body = FullBody::from_compact(&body).expect("a body");
    assert!(body.map.is_some_and(|map| map.frozen));
    shards.admin = admin;
}

#[test]
fn a_client_goes_on_from_what_it_has_whenever_that_was() {
    let mut shards = Shards::new(config(), 4, 2);
    shards.pass(500);
    let router = shards.cluster.open(member(3));
    watch(&mut shards, &router, MapDetail::Routing, None);
    let has = updates(&shards.cluster.frames(&router))[0].through;
    shards.cluster.close_by_client(router.member, router.stream);
    let other = if shards.owner_name(2).as_deref() == Some("a") {
        "b"
    } else {
        "a"
    };
    assert!(shards.ask(move_to(2, other)).is_ok());
    shards.pass(5_000);
    // It comes back at another member, which was started anew meanwhile.
    shards.cluster.replace_machine(member(2));
    let again = shards.cluster.resume(&router, member(2));
    watch(&mut shards, &again, MapDetail::Routing, Some(has));
    let told = updates(&shards.cluster.frames(&again));
    assert_eq!(told[0].base, Some(has));
    let partitions = routing(&told[0]).partitions;
    assert_eq!(
        partitions.iter().map(|it| it.partition).collect::<Vec<_>>(),
        [PartitionId(2)]
    );
    // After a split it gets everything.
    let split = MapOperation::Split {
        partition: PartitionId(0),
    };
    assert!(
        shards
            .cluster
            .call(&mut shards.admin, super::map_operation(split))
            .is_ok()
    );
    let told = updates(&shards.cluster.frames(&again));
    assert_eq!(told.last().map(|update| update.base), Some(None));
    assert_eq!(routing(told.last().expect("an update")).partitions.len(), 5);
}

#[test]
fn a_large_map_comes_in_parts() {
    let mut shards = Shards::new(config(), 10_000, 0);
    shards.pass(500);
    let router = shards.cluster.open(member(3));
    watch(&mut shards, &router, MapDetail::Full, None);
    let parts = updates(&shards.cluster.frames(&router));
    let zero = Zxid::ZERO;
    let bases: Vec<_> = parts.iter().map(|part| part.base).collect();
    assert_eq!(bases, [None, Some(zero), Some(zero)]);
    let through: Vec<_> = parts.iter().map(|part| part.through > zero).collect();
    assert_eq!(through, [false, false, true]);
    let count = |part: &MapUpdate| {
        FullBody::from_compact(&part.body)
            .expect("a body")
            .partitions
            .len()
    };
    assert_eq!(parts.iter().map(count).sum::<usize>(), 10_000);
}

#[test]
fn a_group_without_a_map_is_told_so_and_then_of_its_map() {
    let mut shards = Shards::new(config(), 1, 0);
    let client = shards.cluster.open(member(3));
    let other = ClientFrame::WatchMap {
        group: "later".to_owned(),
        detail: MapDetail::Full,
        since: None,
    };
    shards.cluster.frame(client.member, client.stream, other);
    shards.cluster.run();
    let told = updates(&shards.cluster.frames(&client));
    let body = FullBody::from_compact(&told[0].body).expect("a body");
    assert_eq!((body.layout, body.map), (Zxid::ZERO, None));
    let create = folkmoot_proto::client::Operation::Map {
        group: "later".to_owned(),
        operation: MapOperation::Create {
            config: config(),
            layout: Layout::Names(vec!["x".to_owned()]),
        },
    };
    let created = shards.cluster.call(&mut shards.admin, create);
    assert_eq!(created, Ok(Outcome::MapChanged));
    let told = updates(&shards.cluster.frames(&client));
    assert_eq!(told.first().map(|update| update.base), Some(None));
}

/// The position that the last acknowledgement of a client's heartbeats named.
fn position(shards: &Shards, client: &Client) -> Option<Option<Zxid>> {
    let of =
        |(_, connection, reply): &(_, crate::execution::ConnectionId, ControlReply)| match reply {
            ControlReply::HeartbeatAck { sessions, .. } if connection.0 == client.stream.0 => {
                let of = sessions
                    .iter()
                    .find(|(session, _)| *session == client.session);
                of.map(|(_, position)| *position)
            }
            _ => None,
        };
    shards.cluster.controls.iter().filter_map(of).next_back()
}

/// R35: the revoke sits on a stream that does not move while heartbeats go on.
#[test]
pub(in crate::execution::tests) fn r35_a_lease_goes_on_only_by_what_its_client_has_taken_in() {
    let mut shards = Shards::new(config(), 1, 1);
    shards.pass(500);
    shards.join("b");
    let owner = shards.workers["a"].clone();
    shards.pass(500);
    assert_eq!(
        position(&shards, &owner),
        Some(None),
        "it is not told of the map"
    );
    watch(&mut shards, &owner, MapDetail::Full, None);
    shards.pass(500);
    let told = updates(&shards.cluster.frames(&owner))
        .last()
        .expect("an update")
        .through;
    assert_eq!(position(&shards, &owner), Some(Some(told)));
    // Its member does not hear of the revoke: what it acknowledges extends nothing.
    shards.obedient = false;
    shards.cluster.member(member(2)).lags = true;
    assert!(shards.ask(move_to(0, "b")).is_ok());
    shards.pass(500);
    assert_eq!(position(&shards, &owner), Some(None));
    shards.cluster.member(member(2)).lags = false;
    shards.pass(500);
    let revoked = updates(&shards.cluster.frames(&owner))
        .last()
        .expect("the revoke")
        .through;
    assert!(revoked > told);
    assert_eq!(
        position(&shards, &owner),
        Some(Some(revoked)),
        "once that is taken in"
    );
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert!(revoked >= movement.id);
}
