//! Rule R28 and listings: what goes out on a session's stream, in which order, as of which zxid.

use folkmoot_proto::client::{
    ClientFrame, NodeKind, Operation, Query, Read, ReadOutcome, ServerFrame, SubOperation, Watch,
    WatchEnd, WatchScope,
};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{ReadId, RequestId, WatchId, Zxid};

use super::clients::{Client, create, invoke};
use super::cluster::{Cluster, member};
use crate::execution::ClientEvent;
use crate::state::Span;

fn watch(path: &str) -> ClientFrame {
    ClientFrame::Watch(children(path, None))
}

fn children(path: &str, from: Option<Zxid>) -> Watch {
    Watch {
        id: WatchId(1),
        path: path.to_owned(),
        scope: WatchScope::Children,
        from,
        with_snapshot: false,
        with_data: true,
    }
}

/// What a frame of a session tells, and as of which zxid.
fn told(frames: &[ServerFrame]) -> Vec<(&'static str, u64)> {
    let kind = |frame: &ServerFrame| match frame {
        ServerFrame::Events { zxid, .. } => ("events", zxid.0),
        ServerFrame::Progress { zxid, .. } => ("progress", zxid.0),
        ServerFrame::Reply { zxid, .. } => ("reply", zxid.0),
        ServerFrame::Completion { zxid, .. } => ("completion", zxid.0),
        ServerFrame::ReadReply { zxid, .. } => ("read", zxid.0),
        ServerFrame::WatchEnded { .. } => ("ended", 0),
        ServerFrame::SessionEnded { .. } => ("over", 0),
        other => panic!("{other:?}"),
    };
    frames.iter().map(kind).collect()
}

fn get(path: &str) -> ClientFrame {
    ClientFrame::Read(Read {
        id: ReadId(1),
        after: RequestId::ZERO,
        linearizable: false,
        query: Query::Get {
            path: path.to_owned(),
        },
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

/// A client waits for a lock, is gone while it is granted, and comes back: what it missed on its
/// watch comes before the grant, and before what it reads, and a completion that comes while it asks
/// for its watches is held back as well.
#[test]
pub(super) fn r28_a_grant_comes_behind_what_a_resumed_watch_missed() {
    let mut cluster = Cluster::new(3);
    let mut holder = cluster.open(member(1));
    cluster.install_and_mount(&mut holder, "lock", "/lock");
    cluster
        .call(&mut holder, invoke("/lock", "acquire"))
        .expect("granted");
    let mut client = cluster.open(member(2));
    let mut other = cluster.open(member(1));
    let before = cluster.last_zxid();
    for client in [&mut client, &mut other] {
        let waits = cluster.call(client, invoke("/lock", "acquire"));
        assert!(matches!(waits, Ok(Outcome::Waiting(_))), "{waits:?}");
    }
    cluster.close_by_client(member(2), client.stream);
    cluster.call(&mut holder, create("/a")).expect("created");
    cluster
        .call(&mut holder, invoke("/lock", "release"))
        .expect("released");
    let moved = cluster.attach(&client, member(3));
    cluster.frame(member(3), moved.stream, get("/a"));
    cluster.call(&mut holder, create("/b")).expect("created");
    cluster.run();
    assert_eq!(told(&cluster.frames(&moved)), []);
    let resumed = ClientFrame::Watch(children("/", Some(before)));
    cluster.frame(member(3), moved.stream, resumed);
    cluster.frame(member(3), moved.stream, ClientFrame::WatchesResumed);
    cluster.run();
    let frames = cluster.frames(&moved);
    let last = cluster.last_zxid().0;
    let [
        ("events", a),
        ("events", b),
        ("progress", _),
        ("completion", granted),
        ("read", read),
    ] = told(&frames)[..]
    else {
        panic!("{frames:?}");
    };
    assert!(
        a < granted && granted < b && b == last && read == last,
        "{frames:?}"
    );
}

/// A watch that has more to catch up with than its client takes at once: replies, completions and
/// reads wait for it, and for as long as it takes.
#[test]
fn r28_answers_wait_for_a_watch_that_catches_up_slowly() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let before = cluster.last_zxid();
    let count = 12;
    for name in 0..count {
        let create = Operation::Create {
            path: format!("/{name}"),
            data: vec![7; 900_000],
            kind: NodeKind::PERSISTENT,
        };
        cluster.call(&mut client, create).expect("created");
    }
    let mut moved = cluster.resume_with(&client, member(1), &[children("/", Some(before))]);
    cluster.send(&mut moved, create("/z"));
    cluster.frame(member(1), moved.stream, get("/z"));
    let mut frames = Vec::new();
    for _ in 0..40 {
        cluster.run();
        frames.extend(cluster.frames(&moved));
        let now = cluster.now();
        let drained = ClientEvent::Drained {
            stream: moved.stream,
            bytes: 900_000,
        };
        cluster
            .member(member(1))
            .execution
            .handle_client(now, drained);
    }
    let told = told(&frames);
    let (events, rest) = told.split_at(count + 1);
    assert!(events.iter().all(|(kind, _)| *kind == "events"), "{told:?}");
    let last = cluster.last_zxid().0;
    assert_eq!(rest, [("progress", last), ("reply", last), ("read", last)]);
}

/// The session ends before its watch has caught up: the watch ends, and no answer is lost.
#[test]
fn r28_a_session_that_ends_is_answered_all_the_same() {
    let mut cluster = Cluster::new(1);
    let mut client = cluster.open(member(1));
    let before = cluster.last_zxid();
    for name in 0..12 {
        let create = Operation::Create {
            path: format!("/{name}"),
            data: vec![7; 900_000],
            kind: NodeKind::PERSISTENT,
        };
        cluster.call(&mut client, create).expect("created");
    }
    let mut moved = cluster.resume_with(&client, member(1), &[children("/", Some(before))]);
    cluster.frames(&moved);
    cluster.send(&mut moved, create("/z"));
    cluster.send(&mut moved, Operation::CloseSession);
    cluster.run();
    let frames = cluster.frames(&moved);
    let last = cluster.last_zxid().0;
    let end = [
        ("ended", 0),
        ("reply", last - 1),
        ("reply", last),
        ("over", 0),
    ];
    assert!(told(&frames).ends_with(&end), "{:?}", told(&frames));
}

/// A client that says it has had what it has not, so that more is held back than a session is owed.
#[test]
fn a_stream_that_is_held_back_from_has_a_cap() {
    let limits = Limits {
        session_replies_max: 8,
        session_waits_max: 2,
        session_reply_bytes_max: 64,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let client = cluster.open(member(1));
    let mut moved = cluster.attach(&client, member(1));
    for _ in 0..12 {
        moved.acked = RequestId(moved.next.0 - 1);
        cluster.send(&mut moved, Operation::Sync);
        cluster.run();
        if cluster.closed.contains(&moved.stream) {
            break;
        }
    }
    let frames = cluster.frames(&moved);
    assert!(
        matches!(frames.as_slice(), [ServerFrame::Closing { .. }]),
        "{frames:?}"
    );
}

/// The client moves, resumes its watch, and asks again for the answer that it has not got.
#[test]
fn r28_holds_across_a_move() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(2));
    let before = cluster.last_zxid();
    cluster.send(&mut client, create("/a"));
    cluster.run();
    let moved = cluster.resume_with(&client, member(3), &[children("/", Some(before))]);
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

/// A client asks for snapshots, and takes none of what it is sent.
#[test]
fn a_snapshot_that_nobody_takes_does_not_keep_its_view() {
    let limits = Limits {
        views_max: 1,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(1, limits);
    let mut client = cluster.open(member(1));
    cluster.call(&mut client, create("/d")).expect("created");
    for number in 0..40 {
        let value = Operation::Create {
            path: format!("/d/{number}"),
            data: vec![7; 100_000],
            kind: NodeKind::PERSISTENT,
        };
        cluster.call(&mut client, value).expect("created");
    }
    let watch = Watch {
        id: WatchId(1),
        path: "/d".to_owned(),
        scope: WatchScope::Recursive,
        from: None,
        with_data: true,
        with_snapshot: true,
    };
    cluster.frame(member(1), client.stream, ClientFrame::Watch(watch));
    cluster.run();
    let has_view = |cluster: &mut Cluster| {
        let state = cluster.member(member(1)).execution.state_mut();
        let view = state.open_view(Span::Everything);
        view.map(|view| state.close_view(view)).is_ok()
    };
    assert!(!has_view(&mut cluster));
    for sequence in 0..3 {
        cluster.heartbeat(&client, sequence);
        cluster.pass_ms(5_000);
    }
    assert!(has_view(&mut cluster));
    let frames = cluster.frames(&client);
    assert!(
        matches!(
            frames.last(),
            Some(ServerFrame::WatchEnded {
                reason: WatchEnd::TooSlow { .. },
                ..
            })
        ),
        "{} frames",
        frames.len()
    );
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
