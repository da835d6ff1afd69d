//! What a member refuses, says why, and goes on as before.

#![cfg(test)]

mod support;

use folkmoot_proto::client::{ClientFrame, ControlRequest, PROTOCOL_VERSION, Query, Read};
use folkmoot_proto::{ClusterId, MemberId, ReadId, RequestId, frame};
use folkmoot_server::StartError;
use folkmoot_server::tls::{CLIENT_ALPN, CertificateError, PEER_ALPN, member_name};
use quinn::ConnectionError;
use support::certificates::{Authority, Issued};
use support::client::{Client, Frames, endpoint, within};
use support::cluster::Cluster;

const MEMBER: &str = "member.folkmoot.internal";

async fn client(cluster: &Cluster) -> Client {
    let identity = cluster.authority.client();
    let endpoint = endpoint(&cluster.authority.pem(), &identity, CLIENT_ALPN);
    Client::connect(&endpoint, cluster.client_address(0)).await
}

/// The reason with which a connection was closed, once it is.
async fn close_reason(connection: &quinn::Connection) -> String {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("not closed by the member: {other}"),
    }
}

#[tokio::test]
async fn a_malformed_frame_closes_its_connection_and_no_other() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let well = client(&cluster).await;
    let mut session = well.session().await;

    let mut invalid = vec![8, 0, 0, 0];
    invalid.extend_from_slice(&[0xff; 8]);
    let too_long = (frame_limit() + 1).to_le_bytes().to_vec();
    for bytes in [invalid, too_long] {
        let bad = client(&cluster).await;
        let mut stream = Frames::open(&bad.connection).await;
        stream.send.write_all(&bytes).await.expect("writable");
        let reason = close_reason(&bad.connection).await;
        assert!(reason.starts_with("malformed frame"), "{reason}");
    }
    session.create("/still-served", b"1").await;
}

#[tokio::test]
async fn a_truncated_frame_closes_its_connection_and_no_other() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let well = client(&cluster).await;
    let mut session = well.session().await;

    let bad = client(&cluster).await;
    let mut stream = Frames::open(&bad.connection).await;
    stream
        .send
        .write_all(&[9, 0, 0, 0, 1])
        .await
        .expect("writable");
    stream.send.finish().expect("not finished yet");
    let reason = close_reason(&bad.connection).await;
    assert!(reason.contains("ended within a frame"), "{reason}");
    session.create("/still-served", b"1").await;
}

/// The first bytes of a frame that has more.
fn begun(bytes: usize) -> Vec<u8> {
    let mut begun = frame_limit().to_le_bytes().to_vec();
    begun.resize(bytes, 0);
    begun
}

#[tokio::test]
async fn frames_that_are_begun_and_not_finished_are_bounded() {
    const STREAMS: usize = 16;
    const BYTES_MAX: usize = 64 * 1024 * 1024;
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let well = client(&cluster).await;
    let mut session = well.session().await;

    let mut bad = client(&cluster).await;
    let begun = begun(BYTES_MAX / STREAMS);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Frames::open(&bad.connection).await;
        stream.send.write_all(&begun).await.expect("writable");
        streams.push(stream);
    }
    bad.status().await;
    let mut one_more = Frames::open(&bad.connection).await;
    one_more.send.write_all(&[0]).await.expect("writable");
    let reason = close_reason(&bad.connection).await;
    assert!(reason.contains("frames that are not finished"), "{reason}");
    session.create("/still-served", b"1").await;
}

/// No stream of it goes over its own bound.
#[tokio::test]
async fn a_client_that_does_not_read_its_replies_is_closed() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let well = client(&cluster).await;
    let mut session = well.session().await;
    session.create("/large", &vec![0; 900 * 1024]).await;

    let bad = client(&cluster).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let mut session = bad.session().await;
        for id in 1..=60 {
            let read = ClientFrame::Read(Read {
                id: ReadId(id),
                after: RequestId::ZERO,
                linearizable: false,
                query: Query::Get {
                    path: "/large".to_owned(),
                },
            });
            session.frames.session(&read).await;
        }
        sessions.push(session);
    }
    let reason = close_reason(&bad.connection).await;
    assert!(reason.contains("does not read"), "{reason}");
    session.create("/still-served", b"1").await;
}

#[tokio::test]
async fn a_client_that_asks_and_asks_and_does_not_read_is_closed() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let well = client(&cluster).await;
    let mut session = well.session().await;

    let mut bad = client(&cluster).await;
    let mut questions = Vec::new();
    for _ in 0..100_000 {
        frame::encode(&ControlRequest::Status, &mut questions).expect("encodes");
    }
    // The member may close the connection before it has read them all.
    let _ = bad.control.send.write_all(&questions).await;
    let reason = close_reason(&bad.connection).await;
    assert!(reason.contains("does not read"), "{reason}");
    session.create("/still-served", b"1").await;
}

fn frame_limit() -> u32 {
    u32::try_from(folkmoot_proto::limits::FRAME_BYTES_MAX).expect("32 bits")
}

#[tokio::test]
async fn another_cluster_or_version_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let endpoint = endpoint(
        &cluster.authority.pem(),
        &cluster.authority.client(),
        CLIENT_ALPN,
    );
    let hellos = [
        (
            PROTOCOL_VERSION,
            Some(ClusterId([9; 16])),
            "this member is of cluster",
        ),
        (PROTOCOL_VERSION + 1, None, "this member speaks version"),
    ];
    for (version, cluster_id, expected) in hellos {
        let connection = within(
            endpoint
                .connect(cluster.client_address(0), MEMBER)
                .expect("an address"),
        )
        .await
        .expect("the same authority");
        let mut control = Frames::open(&connection).await;
        let hello = ControlRequest::Hello {
            version,
            cluster: cluster_id,
        };
        control.control(&hello).await;
        let reason = close_reason(&connection).await;
        assert!(reason.starts_with(expected), "{reason}");
    }
}

/// Connects and waits until the other side has had its say: in TLS 1.3 a client's certificate is
/// judged after the client believes to be connected.
async fn is_refused(
    ca: &str,
    identity: &Issued,
    alpn: &[u8],
    address: std::net::SocketAddr,
    name: &str,
) -> bool {
    let endpoint = endpoint(ca, identity, alpn);
    let connecting = endpoint.connect(address, name).expect("an address");
    let Ok(connection) = within(connecting).await else {
        return true;
    };
    let Ok((mut send, mut receive)) = connection.open_bi().await else {
        return true;
    };
    let mut hello = Vec::new();
    let request = ControlRequest::Hello {
        version: PROTOCOL_VERSION,
        cluster: None,
    };
    frame::encode(&request, &mut hello).expect("encodes");
    if send.write_all(&hello).await.is_err() {
        return true;
    }
    !matches!(within(receive.read_chunk(4096, true)).await, Ok(Some(_)))
}

#[tokio::test]
async fn certificates_of_another_authority_or_role_are_refused() {
    let mut cluster = Cluster::new(3);
    cluster.start(0).expect("it starts");
    let ours = cluster.authority.pem();
    let (clients, peers) = (cluster.client_address(0), cluster.peer_address(0));
    let own = cluster.authority.client();
    let member = cluster.authority.member(MemberId(2));
    let stranger = Authority::new().client();
    let name = member_name(MemberId(1));

    assert!(!is_refused(&ours, &own, CLIENT_ALPN, clients, MEMBER).await);
    assert!(is_refused(&ours, &stranger, CLIENT_ALPN, clients, MEMBER).await);
    assert!(is_refused(&ours, &member, CLIENT_ALPN, clients, MEMBER).await);
    assert!(is_refused(&ours, &own, PEER_ALPN, peers, &name).await);
    assert!(is_refused(&ours, &own, CLIENT_ALPN, peers, &name).await);
    // The hello's first frame is no peer's, which is refused as well.
    assert!(is_refused(&ours, &member, PEER_ALPN, peers, &name).await);
}

#[test]
fn a_folder_in_use_is_refused_and_keeps_running() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let mut config = cluster.configs[0].clone();
    // Other ports, as an operator has them who copied a configuration.
    config.peer.listen.set_port(0);
    config.client.listen.set_port(0);
    let error = folkmoot_server::Server::start(config, Default::default()).expect_err("in use");
    assert!(matches!(error, StartError::FolderInUse { .. }), "{error}");
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let error = folkmoot_server::Server::start(cluster.configs[0].clone(), Default::default())
        .expect_err("taken");
    assert!(matches!(error, StartError::PortTaken { .. }), "{error}");
}

#[test]
fn a_folder_of_another_cluster_or_member_is_refused() {
    let mut ours = Cluster::new(3);
    ours.start(0).expect("it starts");
    ours.stop(0);
    let mut theirs = Cluster::new(3);
    theirs.configs[0].data.clone_from(&ours.configs[0].data);
    let error = theirs.start(0).expect_err("another cluster's");
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
    let folder = ours.configs[0].data.clone();
    ours.configs[1].data = folder;
    let error = ours.start(1).expect_err("another member's");
    assert!(matches!(error, StartError::OtherMember { .. }), "{error}");
    ours.start(0).expect("the folder is as it was");
}

#[test]
fn certificates_are_checked_before_anything_is_made() {
    let mut cluster = Cluster::new(3);
    let folder = cluster.folder.path().to_owned();
    let (other, other_key) = cluster
        .authority
        .member(MemberId(2))
        .write(&folder, "other");
    let (strange, strange_key) = Authority::new()
        .member(MemberId(1))
        .write(&folder, "strange");

    cluster.configs[0].tls.certificate = other;
    cluster.configs[0].tls.key = other_key.clone();
    let error = cluster.start(0).expect_err("member 2's");
    assert!(
        matches!(
            error,
            StartError::Certificate(CertificateError::NotThisMember { .. })
        ),
        "{error}"
    );
    cluster.configs[0].tls.certificate = strange.clone();
    cluster.configs[0].tls.key = strange_key;
    let error = cluster.start(0).expect_err("another authority's");
    assert!(
        matches!(
            error,
            StartError::Certificate(CertificateError::NotTrusted { .. })
        ),
        "{error}"
    );
    cluster.configs[2].tls.key = other_key;
    let error = cluster.start(2).expect_err("another key");
    assert!(
        matches!(error, StartError::Certificate(CertificateError::Key { .. })),
        "{error}"
    );
    assert!(!cluster.configs[0].data.exists());
}
