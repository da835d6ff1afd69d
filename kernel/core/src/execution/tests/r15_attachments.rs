//! Rule R15 at scale: a stream is attached once, however often and however late it is asked for.

use folkmoot_proto::batch::Batch;
use folkmoot_proto::client::{AttachRefused, ServerFrame};
use folkmoot_proto::effect::Effect;
use folkmoot_proto::entry::EntryKind;
use folkmoot_proto::{SessionId, Zxid};

use super::clients::create;
use super::cluster::{Cluster, member};
use crate::state::View;

/// How often the log attaches a session, its opening not counted.
fn attachments(cluster: &Cluster, session: SessionId) -> usize {
    let batches = cluster
        .log
        .iter()
        .filter(|entry| entry.kind == EntryKind::Batch);
    let txns = batches.flat_map(|entry| Batch::decode(&entry.payload).expect("a batch").txns);
    let attaches = |effect: &Effect| matches!(effect, Effect::AttachSession { session: of, .. } if *of == session);
    txns.flat_map(|txn| txn.effects).filter(attaches).count()
}

#[test]
pub(super) fn r15_a_member_that_lags_attaches_a_stream_once() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    cluster.member(member(2)).lags = true;
    let stream = cluster.ask_resume(&client, member(2));
    cluster.pass_ms(9_000);
    assert_eq!(attachments(&cluster, client.session), 1);
    cluster.member(member(2)).lags = false;
    cluster.run();
    let moved = cluster.attached(member(2), stream, client.secret);
    assert_eq!(moved.epoch, client.epoch.next());
}

/// A client gives up on a slow member; its stream there is not known to be dead, and asks again.
#[test]
pub(super) fn r15_a_stream_that_was_left_behind_takes_no_session_back() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    cluster.member(member(2)).lags = true;
    let left = cluster.ask_resume(&client, member(2));
    cluster.run();
    let mut moved = cluster.resume(&client, member(3));
    cluster.pass_ms(8_000);
    assert_eq!(
        cluster
            .state(member(1))
            .session(client.session)
            .map(|of| of.member),
        Some(member(3))
    );
    cluster.call(&mut moved, create("/a")).expect("created");
    cluster.member(member(2)).lags = false;
    cluster.run();
    assert!(cluster.closed.contains(&left));
    cluster.call(&mut moved, create("/b")).expect("created");
}

/// What is attached in an entry that a lost overlay takes with it is asked for again.
#[test]
pub(super) fn r15_an_attachment_that_is_lost_is_logged_again() {
    let mut cluster = Cluster::new(3);
    let client = cluster.open(member(1));
    cluster.proposals = super::cluster::Proposals::Hold;
    let stream = cluster.ask_resume(&client, member(2));
    cluster.run();
    cluster.refuse_one();
    cluster.proposals = super::cluster::Proposals::Commit;
    cluster.pass_ms(1_100);
    cluster.attached(member(2), stream, client.secret);
}

/// A session ends while a stream waits for it: it is told at once, and another stream is not.
#[test]
pub(super) fn r15_streams_that_wait_hear_of_the_end_of_their_session_alone() {
    let mut cluster = Cluster::new(3);
    let mut client = cluster.open(member(1));
    let other = cluster.open(member(1));
    let ahead = |cluster: &mut Cluster, client: &super::clients::Client| {
        let stream = cluster.new_stream();
        let frame = folkmoot_proto::client::ClientFrame::Resume {
            session: client.session,
            secret: client.secret,
            last_seen: Zxid(1_000),
        };
        cluster.frame(member(2), stream, frame);
        cluster.run();
        stream
    };
    let (stream, waiting) = (ahead(&mut cluster, &client), ahead(&mut cluster, &other));
    client = cluster.resume(&client, member(3));
    let closed = cluster.frames_of(stream);
    assert!(
        matches!(closed.as_slice(), [ServerFrame::Closing { .. }]),
        "{closed:?}"
    );
    let again = ahead(&mut cluster, &client);
    let end = folkmoot_proto::client::Operation::CloseSession;
    let mut owner = cluster.open(member(1));
    cluster.pass_ms(3_000);
    cluster.call(&mut owner, create("/a")).expect("created");
    assert_eq!(cluster.frames_of(again), []);
    assert_eq!(cluster.frames_of(waiting), []);
    let moved = cluster.resume(&client, member(3));
    cluster.send_as(&moved, moved.next, end);
    cluster.run();
    let unknown = cluster.ask_resume(&client, member(2));
    cluster.run();
    let refused = ServerFrame::AttachRefused(AttachRefused::UnknownSession);
    assert_eq!(cluster.frames_of(unknown), [refused]);
    assert_eq!(cluster.frames_of(waiting), []);
}
