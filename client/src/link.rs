//! A connection to one member, shared by the sessions of a client that are attached there.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot_proto::client::{ControlReply, ControlRequest, MemberStatus, PROTOCOL_VERSION};
use folkmoot_proto::{ClusterId, ConnEpoch, MemberId, SessionId, Tick, Zxid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock;
use crate::error::AttemptError;
use crate::stream::{FrameStream, StreamLost};

/// Heartbeats in a session's timeout: two may be lost before the session moves to another member.
const HEARTBEATS_A_TIMEOUT: u32 = 5;

/// Heartbeats that wait for their acknowledgement; older ones are forgotten.
const HEARTBEATS_IN_FLIGHT_MAX: usize = 64;

/// What a connection tells a session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// A heartbeat that was sent at `sent` was acknowledged for it. The leases of its partitions
    /// go on by it once their maps are taken in through `position`; none: not by this one.
    Renewed { sent: Tick, position: Option<Zxid> },
}

/// What a member said when it was met.
pub(crate) struct Welcome {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    pub(crate) members: Vec<(MemberId, String)>,
}

enum Control {
    Register {
        session: SessionId,
        epoch: ConnEpoch,
        timeout: Duration,
        notices: Notices,
    },
    Unregister {
        session: SessionId,
        epoch: ConnEpoch,
    },
}

type Notices = mpsc::UnboundedSender<Notice>;

/// A connection with its control stream's task.
pub(crate) struct Link {
    /// Tells one connection of a client from another.
    pub(crate) generation: u64,
    pub(crate) endpoint: String,
    pub(crate) welcome: Welcome,
    connection: quinn::Connection,
    control: mpsc::UnboundedSender<Control>,
}

impl Link {
    /// Greets the member on a new connection.
    pub(crate) async fn greet(
        connection: &quinn::Connection,
        cluster: Option<ClusterId>,
    ) -> Result<(FrameStream, Welcome), AttemptError> {
        let failed = |error: StreamLost| attempt_error(connection, &error);
        let opened = connection.open_bi().await;
        let mut stream = FrameStream::new(opened.map_err(connection_error)?);
        let hello = ControlRequest::Hello {
            version: PROTOCOL_VERSION,
            cluster,
        };
        stream.queue(&hello).map_err(|error| failed(error.into()))?;
        loop {
            match stream.next().await.map_err(failed)? {
                ControlReply::Welcome {
                    cluster: actual,
                    member,
                    members,
                } => {
                    if let Some(expected) = cluster.filter(|expected| *expected != actual) {
                        return Err(AttemptError::OtherCluster { expected, actual });
                    }
                    return Ok((
                        stream,
                        Welcome {
                            cluster: actual,
                            member,
                            members,
                        },
                    ));
                }
                ControlReply::Closing { reason } => return Err(AttemptError::Failed { reason }),
                _ => {}
            }
        }
    }

    /// Takes a connection whose member was greeted.
    pub(crate) fn start(
        generation: u64,
        endpoint: String,
        connection: quinn::Connection,
        (stream, welcome): (FrameStream, Welcome),
    ) -> Self {
        let (control, commands) = mpsc::unbounded_channel();
        let task = ControlTask {
            connection: connection.clone(),
            stream,
            commands,
            sessions: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            next: None,
        };
        tokio::spawn(task.run());
        Self {
            generation,
            endpoint,
            welcome,
            connection,
            control,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some() || self.control.is_closed()
    }

    /// A stream for a session.
    pub(crate) async fn open_stream(&self) -> Result<FrameStream, quinn::ConnectionError> {
        self.connection.open_bi().await.map(FrameStream::new)
    }

    /// Heartbeats carry this session from here on.
    pub(crate) fn register(
        &self,
        session: SessionId,
        epoch: ConnEpoch,
        timeout: Duration,
        notices: Notices,
    ) {
        let _ = self.control.send(Control::Register {
            session,
            epoch,
            timeout,
            notices,
        });
    }

    /// Heartbeats carry this attachment of the session no longer.
    pub(crate) fn unregister(&self, session: SessionId, epoch: ConnEpoch) {
        let _ = self.control.send(Control::Unregister { session, epoch });
    }
}

/// Asks a member for its status, on a connection of its own.
pub(crate) async fn status(
    connection: &quinn::Connection,
) -> Result<(Welcome, MemberStatus), AttemptError> {
    let (mut stream, welcome) = Link::greet(connection, None).await?;
    let failed = |error: StreamLost| attempt_error(connection, &error);
    stream
        .queue(&ControlRequest::Status)
        .map_err(|error| failed(error.into()))?;
    loop {
        match stream.next().await.map_err(failed)? {
            ControlReply::Status(status) => return Ok((welcome, *status)),
            ControlReply::Closing { reason } => return Err(AttemptError::Failed { reason }),
            _ => {}
        }
    }
}

struct Registered {
    epoch: ConnEpoch,
    timeout: Duration,
    notices: Notices,
}

/// Owns the control stream: heartbeats for all sessions in one frame.
struct ControlTask {
    connection: quinn::Connection,
    stream: FrameStream,
    commands: mpsc::UnboundedReceiver<Control>,
    sessions: BTreeMap<SessionId, Registered>,
    /// When each unacknowledged heartbeat was sent.
    in_flight: BTreeMap<u64, Tick>,
    sequence: u64,
    /// When the next heartbeat is due; none without a session.
    next: Option<Instant>,
}

impl ControlTask {
    async fn run(mut self) {
        let reason = match self.serve().await {
            Ok(()) => "the client is done".to_owned(),
            Err(lost) => {
                tracing::debug!(%lost, "control stream lost");
                lost.to_string()
            }
        };
        self.connection
            .close(quinn::VarInt::from_u32(0), reason.as_bytes());
    }

    async fn serve(&mut self) -> Result<(), StreamLost> {
        loop {
            let due = self.next;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return Ok(()),
                },
                progress = self.stream.progress() => progress?,
                () = sleep_until(due) => self.beat()?,
            }
            while let Some(reply) = self.stream.take()? {
                self.handle_reply(reply);
            }
        }
    }

    fn handle_command(&mut self, command: Control) {
        match command {
            Control::Register {
                session,
                epoch,
                timeout,
                notices,
            } => {
                self.sessions.insert(
                    session,
                    Registered {
                        epoch,
                        timeout,
                        notices,
                    },
                );
                // A session that was just attached is renewed at once.
                self.next = Some(Instant::now());
            }
            Control::Unregister { session, epoch } => {
                if self
                    .sessions
                    .get(&session)
                    .is_some_and(|held| held.epoch == epoch)
                {
                    self.sessions.remove(&session);
                }
            }
        }
    }

    fn beat(&mut self) -> Result<(), StreamLost> {
        let Some(shortest) = self.sessions.values().map(|session| session.timeout).min() else {
            self.next = None;
            return Ok(());
        };
        self.sequence += 1;
        // The lease counts from before the frame can have left.
        self.in_flight.insert(self.sequence, clock::now());
        if self.in_flight.len() > HEARTBEATS_IN_FLIGHT_MAX {
            self.in_flight.pop_first();
        }
        let sessions = self
            .sessions
            .iter()
            .map(|(id, session)| (*id, session.epoch))
            .collect();
        self.stream.queue(&ControlRequest::Heartbeat {
            sequence: self.sequence,
            sessions,
        })?;
        self.next = Some(Instant::now() + shortest / HEARTBEATS_A_TIMEOUT);
        Ok(())
    }

    fn handle_reply(&mut self, reply: ControlReply) {
        match reply {
            ControlReply::HeartbeatAck { sequence, sessions } => {
                let Some(sent) = self.in_flight.remove(&sequence) else {
                    return;
                };
                for (session, position) in sessions {
                    if let Some(held) = self.sessions.get(&session) {
                        let _ = held.notices.send(Notice::Renewed { sent, position });
                    }
                }
            }
            ControlReply::Leader { leader } => tracing::debug!(?leader, "leader changed"),
            ControlReply::Closing { reason } => tracing::debug!(reason, "the member is closing"),
            ControlReply::Welcome { .. } | ControlReply::Status(_) => {}
        }
    }
}

/// Sleeps until then; for ever without an instant.
pub(crate) async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What a lost stream says of its connection.
fn attempt_error(connection: &quinn::Connection, lost: &StreamLost) -> AttemptError {
    match connection.close_reason() {
        Some(error) => connection_error(error),
        None => AttemptError::Failed {
            reason: lost.to_string(),
        },
    }
}

/// TLS alerts are 0x100 and the alert's number (RFC 9001 §4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// No protocol in common (RFC 7301): the port speaks another one.
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// What became of a connection, in words that say what to do.
pub(crate) fn connection_error(error: quinn::ConnectionError) -> AttemptError {
    use quinn::ConnectionError;
    match error {
        ConnectionError::TransportError(error) if TLS_ALERTS.contains(&u64::from(error.code)) => {
            AttemptError::NotTrusted {
                reason: error.reason,
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            let said = String::from_utf8_lossy(&close.reason).into_owned();
            let reason = if said.is_empty() {
                close.to_string()
            } else {
                said
            };
            if code == NO_APPLICATION_PROTOCOL {
                let reason = "this port does not speak to clients".to_owned();
                AttemptError::Failed { reason }
            } else if TLS_ALERTS.contains(&code) {
                AttemptError::CertificateRefused { reason }
            } else {
                AttemptError::Failed { reason }
            }
        }
        ConnectionError::ApplicationClosed(close) => AttemptError::Failed {
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        error => AttemptError::Failed {
            reason: error.to_string(),
        },
    }
}
