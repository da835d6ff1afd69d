//! Rule R28 and listings: what goes out on a session's stream, in which order, as of which zxid.

use folkmoot_proto::client::{
    ClientFrame, NodeKind, Operation, Query, Read, ReadOutcome, ServerFrame, SubOperation, Watch,
    WatchScope,
};
use folkmoot_proto::{ReadId, RequestId, WatchId};

use super::clients::{Client, create};
use super::cluster::{Cluster, member};

fn watch(path: &str) -> ClientFrame {
    ClientFrame::Watch(Watch {
        id: WatchId(1),
        path: path.to_owned(),
        scope: WatchScope::Children,
        from: None,
        with_snapshot: false,
        with_data: false,
    })
}

#[test]
pub(super) fn r28_events_come_before_the_reply_that_reflects_them() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    cluster.frame(member(2), client.stream, watch("/"));
    cluster.run();
    cluster.frames(&client);
    cluster.send(&mut client, create("/a"));
    cluster.run();
    let frames = cluster.frames(&client);
    let [
        ServerFrame::Events { zxid: told, .. },
        ServerFrame::Reply { zxid, .. },
    ] = frames.as_slice()
    else {
        panic!("{frames:?}");
    };
    assert_eq!(told, zxid);
}

/// The client moves, resumes its watch, and asks again for the answer that it has not got.
#[test]
fn r28_holds_across_a_move() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let before = cluster.last_zxid();
    cluster.send(&mut client, create("/a"));
    cluster.run();
    let moved = cluster.resume(&client, member(3));
    let ClientFrame::Watch(watch) = watch("/") else {
        panic!("a watch");
    };
    let from = Some(before);
    let resumed = ClientFrame::Watch(Watch { from, ..watch });
    cluster.frame(member(3), moved.stream, resumed);
    cluster.send_as(&moved, RequestId(1), create("/a"));
    cluster.run();
    let frames = cluster.frames(&moved);
    assert!(
        matches!(
            frames.as_slice(),
            [ServerFrame::Events { .. }, .., ServerFrame::Reply { .. }]
        ),
        "{frames:?}"
    );
}

#[test]
fn a_watch_ends_with_its_stream_and_its_session_goes_on() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(2));
    cluster.frame(member(2), client.stream, watch("/"));
    cluster.run();
    let mut moved = cluster.resume(&client, member(2));
    assert_eq!(cluster.member(member(2)).execution.status().watches, 0);
    cluster.frames(&client);
    cluster.call(&mut moved, create("/a")).expect("created");
    assert_eq!(cluster.frames(&client), []);
}

fn make_children(cluster: &mut Cluster, client: &mut Client, names: std::ops::Range<u32>) {
    let names: Vec<u32> = names.collect();
    for chunk in names.chunks(1000) {
        let create = |name: &u32| SubOperation::Create {
            path: format!("/d/{name:06}"),
            data: Vec::new(),
            kind: NodeKind::PERSISTENT,
        };
        let operations = chunk.iter().map(create).collect();
        cluster
            .call(client, Operation::Multi { operations })
            .expect("created");
    }
}

fn list(cluster: &mut Cluster, client: &Client, limit: u32) {
    let read = Read {
        id: ReadId(1),
        after: RequestId::ZERO,
        linearizable: false,
        query: Query::Children {
            path: "/d".to_owned(),
            after: None,
            limit,
        },
    };
    cluster.frame(member(1), client.stream, ClientFrame::Read(read));
    cluster.run();
}

fn page(cluster: &mut Cluster, client: &Client) -> (Vec<String>, bool) {
    match cluster.next_frame(client) {
        Some(ServerFrame::ReadReply {
            result: Ok(ReadOutcome::Children { names, more, .. }),
            ..
        }) => (names, more),
        other => panic!("no page: {other:?}"),
    }
}

#[test]
fn a_listing_of_many_pages_is_as_of_one_zxid() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let mut other = cluster.open(member(1));
    cluster.call(&mut client, create("/d")).expect("created");
    make_children(&mut cluster, &mut client, 0..9000);
    list(&mut cluster, &client, 0);
    let (mut names, mut more) = page(&mut cluster, &client);
    let delete = Operation::Delete {
        path: "/d/008999".to_owned(),
        expected: None,
    };
    cluster.call(&mut other, delete).expect("deleted");
    make_children(&mut cluster, &mut other, 9000..9010);
    while more {
        let read = ReadId(1);
        cluster.frame(member(1), client.stream, ClientFrame::More { read });
        cluster.run();
        let (next, goes_on) = page(&mut cluster, &client);
        names.extend(next);
        more = goes_on;
    }
    let expected: Vec<String> = (0..9000).map(|name| format!("{name:06}")).collect();
    assert!(names == expected, "{} names", names.len());
}

#[test]
fn a_listing_ends_at_its_limit_and_one_that_nobody_goes_on_with_is_forgotten() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    cluster.call(&mut client, create("/d")).expect("created");
    make_children(&mut cluster, &mut client, 0..6000);
    list(&mut cluster, &client, 10);
    let (names, more) = page(&mut cluster, &client);
    assert_eq!((names.len(), more), (10, false));
    list(&mut cluster, &client, 0);
    let (_, more) = page(&mut cluster, &client);
    assert!(more);
    for sequence in 0..3 {
        cluster.heartbeat(&client, sequence);
        cluster.pass_ms(5_000);
    }
    let read = ReadId(1);
    cluster.frame(member(1), client.stream, ClientFrame::More { read });
    cluster.run();
    assert_eq!(cluster.frames(&client), []);
}
