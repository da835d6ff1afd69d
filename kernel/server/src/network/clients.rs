//! Clients: connections, their control streams, and the streams of their sessions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use folkmoot_core::execution::{ClientEvent, ConnectionId, StreamId};
use folkmoot_proto::client::{
    ClientFrame, ControlReply, ControlRequest, MemberStatus, PROTOCOL_VERSION, ServerFrame,
};
use folkmoot_proto::{ClusterId, ConnEpoch, MemberId, SessionId, Tick};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::NetworkEvent;
use super::close::{Close, close};
use super::stream::{FrameReader, Outgoing, Unfinished, Unread};
use crate::RunError;
use crate::clock;
use crate::execution::{ExecutionInput, ExecutionQueue, StreamOutput};
use crate::fatal::Fatal;

/// Connections of clients to one member.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// A client says hello within this, or its connection is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that wait for a client that does not read its session's stream. Watches are ended long
/// before (their budgets), kept replies end at a cap as well: what is beyond is no client of ours.
const STREAM_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that wait for a client on all streams of one connection: those of two such sessions, for a
/// connection that carries thousands.
const CONNECTION_WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes that wait for a client that does not read its control stream.
const CONTROL_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// What connections of clients tell the network thread's loop.
#[derive(Debug)]
pub(crate) enum ClientsEvent {
    /// A client said hello.
    Opened {
        connection: ConnectionId,
        handle: quinn::Connection,
        control: Outgoing,
        unread: Unread,
    },
    /// A client opened a session's stream.
    StreamOpened {
        connection: ConnectionId,
        stream: StreamId,
        outgoing: Outgoing,
        tasks: [AbortHandle; 2],
    },
    /// Frames of one session's stream.
    Frames {
        connection: ConnectionId,
        stream: StreamId,
        frames: Vec<ClientFrame>,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// The client ended a session's stream, or it was lost.
    StreamClosed { stream: StreamId, by_client: bool },
    /// Sessions live.
    Heartbeat {
        connection: ConnectionId,
        sequence: u64,
        arrived: Tick,
        rtt_micros: u32,
        sessions: Vec<(SessionId, ConnEpoch)>,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// A client asks for the member's status; it may ask again when the turn is given back.
    Status {
        connection: ConnectionId,
        turn: Option<OwnedSemaphorePermit>,
    },
    /// A connection ended: its client closed it, or it was lost.
    Closed {
        connection: ConnectionId,
        by_client: bool,
    },
}

/// Who this member is, for its greeting.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    pub(crate) members: Vec<(MemberId, String)>,
}

/// Bytes that went out on sessions' streams since they were last taken; watchers' budgets count
/// them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drained(Arc<Mutex<HashMap<StreamId, usize>>>);

impl Drained {
    fn add(&self, stream: StreamId, bytes: usize) {
        let mut drained = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = drained.entry(stream).or_default();
        *sum = sum.saturating_add(bytes);
    }

    fn take(&self) -> HashMap<StreamId, usize> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the tasks of clients share.
#[derive(Clone, Debug)]
pub(crate) struct ClientsContext {
    pub(crate) events: mpsc::Sender<NetworkEvent>,
    pub(crate) queue: ExecutionQueue,
    pub(crate) greeting: Arc<Greeting>,
    pub(crate) drained: Drained,
    fatal: Fatal,
    next_id: Arc<AtomicU64>,
}

impl ClientsContext {
    pub(crate) fn new(
        events: mpsc::Sender<NetworkEvent>,
        queue: ExecutionQueue,
        greeting: Greeting,
        fatal: Fatal,
    ) -> Self {
        Self {
            events,
            queue,
            greeting: Arc::new(greeting),
            drained: Drained::default(),
            fatal,
            next_id: Arc::new(AtomicU64::new(1)),
        }
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    async fn tell(&self, event: ClientsEvent) {
        // The loop is gone only when the member stops.
        let _ = self.events.send(NetworkEvent::Clients(event)).await;
    }
}

/// Accepts clients until the endpoint is closed.
pub(crate) async fn accept(endpoint: quinn::Endpoint, context: ClientsContext) {
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() > CONNECTIONS_MAX {
            tracing::warn!(from = %incoming.remote_address(), "too many client connections");
            incoming.refuse();
            continue;
        }
        let fatal = context.fatal.clone();
        let context = context.clone();
        fatal.spawn(async move {
            let from = incoming.remote_address();
            match incoming.await {
                Ok(connection) => serve(connection, context).await,
                Err(error) => tracing::warn!(%from, %error, "a client was refused"),
            }
        });
    }
    // A member that can not be reached here, and leads over there, would be worse than none.
    context.fatal.ended(RunError::Socket { what: "clients" });
}

/// What one connection may take of the member's memory, over all its streams.
#[derive(Clone, Debug, Default)]
struct Budget {
    unfinished: Unfinished,
    unread: Unread,
}

async fn serve(connection: quinn::Connection, context: ClientsContext) {
    let budget = Budget::default();
    let greeting = greet(&connection, &budget, &context);
    let greeted = tokio::time::timeout(HELLO_TIMEOUT, greeting).await;
    let (control, reader) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(reason)) => return close(&connection, reason),
        Err(_) => return close(&connection, Close::NoHello),
    };
    let id = ConnectionId(context.next_id());
    context
        .tell(ClientsEvent::Opened {
            connection: id,
            handle: connection.clone(),
            control,
            unread: budget.unread.clone(),
        })
        .await;
    let control = context.fatal.spawn(read_control(
        connection.clone(),
        id,
        reader,
        context.clone(),
    ));
    while let Ok(streams) = connection.accept_bi().await {
        open_stream(&connection, id, streams, &budget, &context).await;
    }
    control.abort();
    let by_client = is_closed_by_client(&connection);
    let closed = ClientsEvent::Closed {
        connection: id,
        by_client,
    };
    context.tell(closed).await;
}

/// Takes the hello from the control stream, and answers it.
async fn greet(
    connection: &quinn::Connection,
    budget: &Budget,
    context: &ClientsContext,
) -> Result<(Outgoing, FrameReader), Close> {
    let (mut send, receive) = connection.accept_bi().await.map_err(|_| Close::Gone)?;
    let mut reader = FrameReader::new(receive, budget.unfinished.clone());
    let hello = reader
        .read_one::<ControlRequest>()
        .await
        .map_err(Close::from)?;
    let greeting = &context.greeting;
    match hello {
        Some(ControlRequest::Hello { version, .. }) if version != PROTOCOL_VERSION => {
            return Err(Close::Version { version });
        }
        Some(ControlRequest::Hello {
            cluster: Some(cluster),
            ..
        }) if cluster != greeting.cluster => {
            return Err(Close::OtherCluster {
                theirs: cluster,
                ours: greeting.cluster,
            });
        }
        Some(ControlRequest::Hello { .. }) => {}
        _ => return Err(Close::NoHello),
    }
    // Heartbeats are small and must not wait behind values.
    let _ = send.set_priority(1);
    let control = Outgoing::new(budget.unread.clone());
    let writer = control.clone();
    context
        .fatal
        .spawn(async move { writer.write(&mut send, |_| {}).await });
    let _ = control.push_frame(&ControlReply::Welcome {
        cluster: greeting.cluster,
        member: greeting.member,
        members: greeting.members.clone(),
    });
    Ok((control, reader))
}

async fn read_control(
    connection: quinn::Connection,
    id: ConnectionId,
    mut reader: FrameReader,
    context: ClientsContext,
) {
    // A flood of questions must not fill the queue that all connections share.
    let turns = Arc::new(Semaphore::new(1));
    let reason = loop {
        let (frames, bytes) = match reader.read::<ControlRequest>().await {
            Ok(Some(read)) => read,
            Ok(None) => break Close::Gone,
            Err(error) => break Close::from(error),
        };
        for frame in frames {
            match frame {
                ControlRequest::Hello { .. } => {}
                ControlRequest::Status => {
                    let event = ClientsEvent::Status {
                        connection: id,
                        turn: turns.clone().acquire_owned().await.ok(),
                    };
                    context.tell(event).await;
                }
                ControlRequest::Heartbeat { sequence, sessions } => {
                    let rtt_micros = connection.rtt().as_micros();
                    let event = ClientsEvent::Heartbeat {
                        connection: id,
                        sequence,
                        arrived: clock::now().tick,
                        rtt_micros: u32::try_from(rtt_micros).unwrap_or(u32::MAX),
                        sessions,
                        permit: context.queue.admit(1, bytes).await,
                    };
                    context.tell(event).await;
                }
            }
        }
    };
    close(&connection, reason);
}

async fn open_stream(
    connection: &quinn::Connection,
    id: ConnectionId,
    (mut send, receive): (quinn::SendStream, quinn::RecvStream),
    budget: &Budget,
    context: &ClientsContext,
) {
    let stream = StreamId(context.next_id());
    let outgoing = Outgoing::new(budget.unread.clone());
    let writer = outgoing.clone();
    let drained = context.drained.clone();
    let writing = context.fatal.spawn(async move {
        writer
            .write(&mut send, |bytes| drained.add(stream, bytes))
            .await
    });
    let (begin, begun) = tokio::sync::oneshot::channel();
    let reading = context.fatal.spawn({
        let (connection, context) = (connection.clone(), context.clone());
        let reader = FrameReader::new(receive, budget.unfinished.clone());
        async move {
            // The loop hears of the stream before of its frames.
            let _ = begun.await;
            read_session(connection, id, stream, reader, context).await;
        }
    });
    context
        .tell(ClientsEvent::StreamOpened {
            connection: id,
            stream,
            outgoing,
            tasks: [reading.abort_handle(), writing.abort_handle()],
        })
        .await;
    let _ = begin.send(());
}

async fn read_session(
    connection: quinn::Connection,
    id: ConnectionId,
    stream: StreamId,
    mut reader: FrameReader,
    context: ClientsContext,
) {
    let by_client = loop {
        match reader.read::<ClientFrame>().await {
            Ok(Some((frames, bytes))) => {
                let permit = context.queue.admit(frames.len(), bytes).await;
                context
                    .tell(ClientsEvent::Frames {
                        connection: id,
                        stream,
                        frames,
                        permit,
                    })
                    .await;
            }
            Ok(None) => break true,
            Err(error) if error.is_senders_fault() => {
                close(&connection, Close::from(error));
                break true;
            }
            Err(_) => break is_closed_by_client(&connection),
        }
    };
    let closed = ClientsEvent::StreamClosed { stream, by_client };
    context.tell(closed).await;
}

/// Whether a connection is over because its client said so, and was not lost.
fn is_closed_by_client(connection: &quinn::Connection) -> bool {
    let reason = connection.close_reason();
    matches!(reason, Some(quinn::ConnectionError::ApplicationClosed(_)))
}

/// The connections and streams that are open, as the loop knows them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    connections: HashMap<ConnectionId, Connection>,
    streams: HashMap<StreamId, SessionStream>,
}

#[derive(Debug)]
struct Connection {
    handle: quinn::Connection,
    control: Outgoing,
    /// What waits for the client on all its streams.
    unread: Unread,
}

impl Connection {
    /// Closes it and answers false, if the client does not read what it is sent.
    fn check(&self, control_waiting: usize) -> bool {
        let is_read = control_waiting <= CONTROL_WAITING_BYTES_MAX
            && self.unread.bytes() <= CONNECTION_WAITING_BYTES_MAX;
        if !is_read && self.handle.close_reason().is_none() {
            close(&self.handle, Close::TooSlow);
        }
        is_read
    }
}

#[derive(Debug)]
struct SessionStream {
    connection: ConnectionId,
    outgoing: Outgoing,
    tasks: [AbortHandle; 2],
}

impl SessionStream {
    /// Ends the stream after what waits; nothing more is read from it.
    fn end(&self) {
        self.outgoing.finish();
        let [reading, _] = &self.tasks;
        reading.abort();
    }

    /// Ends the stream at once.
    fn cut(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Clients {
    /// Takes an event; what execution hears of it goes to `inputs`. `leader` is what new
    /// connections are told, `status` makes the member's status.
    pub(crate) fn handle(
        &mut self,
        event: ClientsEvent,
        leader: Option<MemberId>,
        status: impl FnOnce() -> MemberStatus,
        inputs: &mut Vec<ExecutionInput>,
    ) {
        match event {
            ClientsEvent::Opened {
                connection,
                handle,
                control,
                unread,
            } => {
                let _ = control.push_frame(&ControlReply::Leader { leader });
                let opened = Connection {
                    handle,
                    control,
                    unread,
                };
                self.connections.insert(connection, opened);
            }
            ClientsEvent::StreamOpened {
                connection,
                stream,
                outgoing,
                tasks,
            } => {
                let opened = SessionStream {
                    connection,
                    outgoing,
                    tasks,
                };
                self.streams.insert(stream, opened);
            }
            ClientsEvent::Frames {
                connection,
                stream,
                frames,
                permit,
            } => self.frames(connection, stream, frames, permit, inputs),
            ClientsEvent::StreamClosed { stream, by_client } => {
                if let Some(closed) = self.streams.remove(&stream) {
                    closed.outgoing.finish();
                    let event = ClientEvent::StreamClosed { stream, by_client };
                    inputs.push(ExecutionInput::client(event));
                }
            }
            ClientsEvent::Heartbeat {
                connection,
                sequence,
                arrived,
                rtt_micros,
                sessions,
                permit,
            } => {
                let event = ClientEvent::Heartbeat {
                    connection,
                    sequence,
                    arrived,
                    rtt_micros,
                    sessions,
                };
                inputs.push(ExecutionInput::Client(event, permit));
            }
            ClientsEvent::Status { connection, turn } => {
                self.send_on_control(connection, &ControlReply::Status(Box::new(status())));
                drop(turn);
            }
            ClientsEvent::Closed {
                connection,
                by_client,
            } => self.closed(connection, by_client, inputs),
        }
    }

    fn frames(
        &self,
        connection: ConnectionId,
        stream: StreamId,
        frames: Vec<ClientFrame>,
        permit: Option<OwnedSemaphorePermit>,
        inputs: &mut Vec<ExecutionInput>,
    ) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        // The permit stands for the batch, and is given back with its last frame.
        let mut frames = frames.into_iter().peekable();
        let mut permit = permit;
        while let Some(frame) = frames.next() {
            let event = ClientEvent::Frame {
                connection,
                stream,
                frame,
            };
            let permit = permit.take_if(|_| frames.peek().is_none());
            inputs.push(ExecutionInput::Client(event, permit));
        }
    }

    fn closed(
        &mut self,
        connection: ConnectionId,
        by_client: bool,
        inputs: &mut Vec<ExecutionInput>,
    ) {
        self.connections.remove(&connection);
        self.streams.retain(|&stream, session| {
            let lost = session.connection == connection;
            if lost {
                session.cut();
                let event = ClientEvent::StreamClosed { stream, by_client };
                inputs.push(ExecutionInput::client(event));
            }
            !lost
        });
        inputs.push(ExecutionInput::client(ClientEvent::ConnectionClosed {
            connection,
        }));
    }

    /// Bytes that went out since the last call, for execution.
    pub(crate) fn drained(&self, drained: &Drained, inputs: &mut Vec<ExecutionInput>) {
        for (stream, bytes) in drained.take() {
            if self.streams.contains_key(&stream) {
                inputs.push(ExecutionInput::client(ClientEvent::Drained {
                    stream,
                    bytes,
                }));
            }
        }
    }

    /// Sends a turn's frames on a session's stream.
    pub(crate) fn send_on_stream(
        &mut self,
        output: &StreamOutput,
        inputs: &mut Vec<ExecutionInput>,
    ) {
        let stream = output.stream;
        let Some(session) = self.streams.get(&stream) else {
            return;
        };
        let connection = self.connections.get(&session.connection);
        let waiting = match output.frames.is_empty() {
            true => 0,
            false => session.outgoing.push(&output.frames),
        };
        let is_read = waiting <= STREAM_WAITING_BYTES_MAX
            && connection.is_none_or(|connection| connection.check(0));
        if !is_read {
            tracing::warn!(
                stream = stream.0,
                waiting,
                "a client does not read its replies: its stream is closed"
            );
            session.cut();
            inputs.push(ExecutionInput::client(ClientEvent::StreamClosed {
                stream,
                by_client: false,
            }));
        } else if output.close {
            session.end();
        } else {
            return;
        }
        self.streams.remove(&stream);
    }

    /// Sends encoded frames on one control stream, or on all.
    pub(crate) fn send_on_controls(&self, connection: Option<ConnectionId>, frames: &[u8]) {
        let one = connection.map(|connection| self.connections.get(&connection));
        let all = one.is_none().then(|| self.connections.values());
        for connection in one.flatten().into_iter().chain(all.into_iter().flatten()) {
            let waiting = connection.control.push(frames);
            connection.check(waiting);
        }
    }

    fn send_on_control(&self, connection: ConnectionId, reply: &ControlReply) {
        if let Some(connection) = self.connections.get(&connection)
            && let Ok(waiting) = connection.control.push_frame(reply)
        {
            connection.check(waiting);
        }
    }

    /// Ends every session's stream, telling why; their sessions live on.
    pub(crate) fn end_streams(&mut self, reason: &str) {
        let frame = ServerFrame::Closing {
            reason: reason.to_owned(),
        };
        for (_, session) in self.streams.drain() {
            let _ = session.outgoing.push_frame(&frame);
            session.end();
        }
    }

    /// Tells every client that the member stops.
    pub(crate) fn stop(&mut self, reason: &str) {
        self.end_streams(reason);
        let closing = ControlReply::Closing {
            reason: reason.to_owned(),
        };
        for connection in self.connections.values() {
            let _ = connection.control.push_frame(&closing);
            connection.control.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_that_accepts_no_more_clients_ends() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let endpoint = quinn::Endpoint::client(any).expect("a loopback port");
        let greeting = Greeting {
            cluster: ClusterId([1; 16]),
            member: MemberId(1),
            members: Vec::new(),
        };
        let (events, _inbox) = mpsc::channel(1);
        let fatal = Fatal::default();
        let context = ClientsContext::new(events, ExecutionQueue::new().0, greeting, fatal.clone());
        endpoint.close(0_u32.into(), b"as when its socket fails");
        accept(endpoint, context).await;
        assert!(matches!(
            fatal.take(),
            Some(RunError::Socket { what: "clients" })
        ));
    }
}
