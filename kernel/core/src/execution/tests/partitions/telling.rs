//! What clients are told of a map, and when leases go on by it.

use std::collections::BTreeMap;

use folkmoot_proto::client::{ClientFrame, ControlReply, Operation, ServerFrame};
use folkmoot_proto::codec::Compact;
use folkmoot_proto::partition::{
    FullBody, Layout, MapDetail, MapOperation, MapUpdate, PartitionId, RoutingBody,
};
use folkmoot_proto::{Zxid, reply::Outcome};

use super::super::clients::Client;
use super::super::cluster::member;
use super::{GROUP, Shards, config};

const OTHER: &str = "later";

fn watch(shards: &mut Shards, client: &Client, detail: MapDetail, since: Option<Zxid>) {
    watch_of(shards, client, (GROUP, detail), since);
}

fn watch_of(
    shards: &mut Shards,
    client: &Client,
    (group, detail): (&str, MapDetail),
    since: Option<Zxid>,
) {
    let watch = ClientFrame::WatchMap {
        group: group.to_owned(),
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

fn ask_other(shards: &mut Shards, operation: MapOperation) {
    let operation = Operation::Map {
        group: OTHER.to_owned(),
        operation,
    };
    let asked = shards.cluster.call(&mut shards.admin, operation);
    assert_eq!(asked, Ok(Outcome::MapChanged));
}

/// Another group has a map too.
fn create_other(shards: &mut Shards) {
    let create = MapOperation::Create {
        config: config(),
        layout: Layout::Names(vec!["x".to_owned()]),
    };
    ask_other(shards, create);
}

#[test]
fn a_group_without_a_map_is_told_so_and_then_of_its_map() {
    let mut shards = Shards::new(config(), 1, 0);
    let client = shards.cluster.open(member(3));
    watch_of(&mut shards, &client, (OTHER, MapDetail::Full), None);
    let told = updates(&shards.cluster.frames(&client));
    let body = FullBody::from_compact(&told[0].body).expect("a body");
    assert_eq!((body.layout, body.map), (Zxid::ZERO, None));
    create_other(&mut shards);
    let told = updates(&shards.cluster.frames(&client));
    assert_eq!(told.first().map(|update| update.base), Some(None));
}

/// The member was started anew since the map changed last.
#[test]
fn the_end_of_a_map_is_told_after_a_restart() {
    let mut shards = Shards::new(config(), 1, 0);
    shards.cluster.replace_machine(member(3));
    let client = shards.cluster.open(member(3));
    watch(&mut shards, &client, MapDetail::Full, None);
    let told = updates(&shards.cluster.frames(&client));
    let body = FullBody::from_compact(&told[0].body).expect("a body");
    assert!(body.map.is_some());
    assert_eq!(shards.ask(MapOperation::Remove), Ok(Outcome::MapChanged));
    let told = updates(&shards.cluster.frames(&client));
    let last = told.last().expect("the end");
    let body = FullBody::from_compact(&last.body).expect("a body");
    assert_eq!((last.base, body.layout, body.map), (None, Zxid::ZERO, None));
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

/// How far a client's copies are, of each map that it is told in full.
#[derive(Default)]
struct Copies(BTreeMap<String, Zxid>);

impl Copies {
    /// Takes in what arrived, each update on top of what the one before brought; answers how many.
    fn take(&mut self, shards: &mut Shards, client: &Client) -> usize {
        let full = |update: &MapUpdate| update.detail == MapDetail::Full;
        let told = updates(&shards.cluster.frames(client)).into_iter();
        let told: Vec<_> = told.filter(full).collect();
        for update in &told {
            let has = self.0.get(&update.group).copied();
            assert!(
                update.base.is_none() || update.base == has,
                "{update:?} for a copy as of {has:?}"
            );
            self.0.insert(update.group.clone(), update.through);
        }
        told.len()
    }

    /// Whether the leases of the partitions of every map go on by what is acknowledged last.
    fn leases_go_on(&self, shards: &Shards, client: &Client) -> bool {
        let position = position(shards, client).flatten();
        position.is_some_and(|position| self.0.values().all(|has| *has >= position))
    }
}

/// An owner whose session is told of two maps.
fn with_two_maps() -> (Shards, Client, Copies) {
    let mut shards = Shards::new(config(), 1, 1);
    create_other(&mut shards);
    shards.pass(500);
    let owner = shards.workers["a"].clone();
    watch_of(&mut shards, &owner, (GROUP, MapDetail::Full), None);
    watch_of(&mut shards, &owner, (OTHER, MapDetail::Full), None);
    (shards, owner, Copies::default())
}

/// R35: the leases of one map's partitions go on while another map changes.
#[test]
fn r35_the_leases_of_a_quiet_map_go_on_beside_a_map_that_changes() {
    let (mut shards, owner, mut copies) = with_two_maps();
    shards.pass(500);
    copies.take(&mut shards, &owner);
    assert_eq!(copies.0.len(), 2);
    assert!(copies.leases_go_on(&shards, &owner));
    for frozen in [true, false] {
        ask_other(&mut shards, MapOperation::Freeze { frozen });
        let changed = shards.cluster.last_zxid();
        copies.take(&mut shards, &owner);
        assert!(copies.0[OTHER] >= changed && copies.0[GROUP] < changed);
        shards.pass(500);
        copies.take(&mut shards, &owner);
        assert!(copies.leases_go_on(&shards, &owner), "beside a change");
        // A revoke of either map that the leader applied is covered.
        assert!(position(&shards, &owner).flatten() >= Some(changed));
    }
    let elsewhere = |shards: &mut Shards, path| {
        let node = super::super::clients::create(path);
        assert!(shards.cluster.call(&mut shards.admin, node).is_ok());
    };
    // A router of the session brings no copy of an owner further.
    elsewhere(&mut shards, "/elsewhere");
    watch_of(&mut shards, &owner, (OTHER, MapDetail::Routing), None);
    shards.pass(500);
    copies.take(&mut shards, &owner);
    assert!(copies.leases_go_on(&shards, &owner), "beside a router");
    // Maps that are quiet are told no more, whatever else goes on.
    elsewhere(&mut shards, "/nowhere");
    shards.pass(2_000);
    assert_eq!(copies.take(&mut shards, &owner), 0);
    assert!(copies.leases_go_on(&shards, &owner), "while all is quiet");
    // What changed last is followed no more.
    ask_other(&mut shards, MapOperation::Freeze { frozen: true });
    let unwatch = ClientFrame::UnwatchMap {
        group: OTHER.to_owned(),
        detail: MapDetail::Full,
    };
    shards.cluster.frame(owner.member, owner.stream, unwatch);
    shards.cluster.run();
    copies.take(&mut shards, &owner);
    copies.0.remove(OTHER);
    shards.pass(500);
    copies.take(&mut shards, &owner);
    assert!(copies.leases_go_on(&shards, &owner), "beside one that was");
}

/// R35: a session with two maps comes to another member, which applies something between the two.
#[test]
fn r35_the_leases_of_two_maps_go_on_after_an_attachment() {
    let (mut shards, owner, mut copies) = with_two_maps();
    copies.take(&mut shards, &owner);
    let owner = shards.cluster.attach(&owner, member(3));
    shards.workers.insert("a".to_owned(), owner.clone());
    let has = copies.0[GROUP];
    watch_of(&mut shards, &owner, (GROUP, MapDetail::Full), Some(has));
    ask_other(&mut shards, MapOperation::Freeze { frozen: true });
    shards.pass(500);
    copies.take(&mut shards, &owner);
    assert_eq!(
        position(&shards, &owner),
        Some(None),
        "a map may be missing"
    );
    let has = copies.0[OTHER];
    watch_of(&mut shards, &owner, (OTHER, MapDetail::Full), Some(has));
    shards.cluster.watches_resumed(&owner);
    shards.pass(500);
    copies.take(&mut shards, &owner);
    assert!(copies.leases_go_on(&shards, &owner));
}
