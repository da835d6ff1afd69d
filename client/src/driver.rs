//! The task that owns a session: it carries out what [`SessionCore`] says.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use folkmoot_proto::client::{Guard, Operation, Query, ReadOutcome, ServerFrame, Watch};
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{ConnEpoch, ReadId, RequestId, SessionId, WatchId, Zxid};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::asked::{Answered, Asked, FollowUp};
use crate::clock;
use crate::connector::Connector;
use crate::core::{
    Holder, LeaseView, MapKey, MapNews, Output, OwnerEvent, SessionCore, SharedTable, WatchNews,
};
use crate::error::{ConnectError, ReadError, Unanswered, WatchError, WriteError};
use crate::following::MapTold;
use crate::link::{Link, Notice, sleep_until};
use crate::stream::{FrameStream, StreamLost};

/// Requests and reads that wait for an answer; the handle holds back the next ones.
pub(crate) const BACKLOG_MAX: usize = 8192;

/// Bytes encoded ahead of what the connection takes.
const WRITE_AHEAD_BYTES: usize = 256 * 1024;

/// Commands taken in one turn, so that they leave in one packet where they fit.
const COMMANDS_A_TURN: usize = 256;

/// Bytes of events that wait for the program to take them; as a member's budget.
pub(crate) const WATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pauses between attempts to attach.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(1);

/// An attachment that lasted as long was a good one: the next attempt comes without a pause.
const STEADY: Duration = Duration::from_secs(1);

/// When every handle is dropped, what was submitted may still leave within this time.
const LINGER: Duration = Duration::from_secs(1);

/// What a request's answer is.
pub(crate) type RequestResult = Result<(Zxid, Outcome), WriteError>;
/// What a read's answer is.
pub(crate) type ReadResult = Result<(Zxid, ReadOutcome), ReadError>;

/// Names a call or a watch between a handle and the task.
pub(crate) type Key = u64;

/// What a handle asks of the task.
pub(crate) enum Command {
    Request {
        operation: Operation,
        guards: Vec<Guard>,
        asked: Asked,
    },
    /// Ends a call's wait; without someone to tell, the call's answer is not wanted either.
    Cancel {
        key: Key,
        asked: Option<Asked>,
    },
    /// An answer was told to a handle that was dropped before it heard it.
    Missed(Answered),
    Read {
        linearizable: bool,
        query: Query,
        answer: oneshot::Sender<ReadResult>,
    },
    Watch {
        key: Key,
        watch: Watch,
        sink: WatchSink,
    },
    EndWatch {
        key: Key,
    },
    FollowMap {
        key: Key,
        map: MapKey,
        told: watch::Sender<MapTold>,
    },
    EndMap {
        key: Key,
    },
    Hold {
        key: Key,
        holding: Holding,
    },
    EndHold {
        key: Key,
    },
    /// There is more to send than the task knows of.
    Wake,
}

/// A member whose partitions are to be held.
pub(crate) struct Holding {
    pub(crate) group: String,
    pub(crate) member: String,
    pub(crate) incarnation: Zxid,
    pub(crate) table: SharedTable,
    pub(crate) events: mpsc::UnboundedSender<OwnerEvent>,
}

/// Where a watch's news go.
pub(crate) struct WatchSink {
    pub(crate) news: mpsc::UnboundedSender<WatchNews>,
    /// Bytes of news that were not taken.
    pub(crate) waiting: Arc<AtomicUsize>,
}

/// A session that was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) timeout: Duration,
}

struct Attachment {
    link: Arc<Link>,
    stream: FrameStream,
    registered: Option<(SessionId, ConnEpoch)>,
    since: Instant,
}

type Connecting =
    Pin<Box<dyn Future<Output = Result<(Arc<Link>, FrameStream), ConnectError>> + Send>>;

/// The task's state.
pub(crate) struct Driver {
    core: SessionCore,
    connector: Arc<Connector>,
    commands: mpsc::UnboundedReceiver<Command>,
    inbox: Vec<Command>,
    attachment: Option<Attachment>,
    connecting: Option<Connecting>,
    notices: (
        mpsc::UnboundedSender<Notice>,
        mpsc::UnboundedReceiver<Notice>,
    ),
    asked: HashMap<RequestId, Asked>,
    /// Requests of the task's own that are to be made at an instant.
    later: Vec<(Instant, FollowUp)>,
    calls: HashMap<Key, RequestId>,
    reads: HashMap<ReadId, oneshot::Sender<ReadResult>>,
    watches: HashMap<WatchId, (WatchSink, Key)>,
    watch_keys: HashMap<Key, WatchId>,
    /// Who looks at which map, and is told of it.
    maps: HashMap<Key, (MapKey, Option<watch::Sender<MapTold>>)>,
    owners: HashMap<Key, mpsc::UnboundedSender<OwnerEvent>>,
    lease: watch::Sender<LeaseView>,
    opened: Option<oneshot::Sender<Result<Opened, ConnectError>>>,
    /// The connection that did not serve.
    avoid: Option<u64>,
    /// Attachments that failed in a row.
    failures: u32,
    /// Every handle is dropped; the task ends at this instant at the latest.
    abandoned: Option<Instant>,
}

impl Driver {
    /// A task for a session that is to be opened.
    pub(crate) fn new(
        core: SessionCore,
        connector: Arc<Connector>,
        commands: mpsc::UnboundedReceiver<Command>,
        lease: watch::Sender<LeaseView>,
        opened: oneshot::Sender<Result<Opened, ConnectError>>,
    ) -> Self {
        Self {
            core,
            connector,
            commands,
            inbox: Vec::new(),
            attachment: None,
            connecting: None,
            notices: mpsc::unbounded_channel(),
            asked: HashMap::new(),
            later: Vec::new(),
            calls: HashMap::new(),
            reads: HashMap::new(),
            watches: HashMap::new(),
            watch_keys: HashMap::new(),
            maps: HashMap::new(),
            owners: HashMap::new(),
            lease,
            opened: Some(opened),
            avoid: None,
            failures: 0,
            abandoned: None,
        }
    }

    /// Runs until the session is over, or every handle is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.carry_out();
            if self.core.is_over() || self.is_done() {
                break;
            }
            if self.attachment.is_none() && self.connecting.is_none() {
                self.connecting = Some(self.connect());
            }
            if let Err(lost) = self.fill() {
                self.detach(&lost.to_string());
                continue;
            }
            self.turn().await;
        }
        self.leave();
    }

    /// Waits for the next event, and hands it to the machine.
    async fn turn(&mut self) {
        let now = clock::now();
        let wake = self
            .core
            .poll_timeout(now)
            .map(|tick| Instant::now() + Duration::from_micros(tick.0.saturating_sub(now.0)));
        let later = self.later.iter().map(|(at, _)| *at).min();
        let wake = [wake, self.abandoned, later].into_iter().flatten().min();
        let listens = self.abandoned.is_none() && self.core.backlog() < BACKLOG_MAX;
        tokio::select! {
            count = self.commands.recv_many(&mut self.inbox, COMMANDS_A_TURN), if listens => {
                if count == 0 {
                    self.abandoned = Some(Instant::now() + LINGER);
                }
                for command in std::mem::take(&mut self.inbox) {
                    self.handle_command(command);
                }
            }
            connected = finished(&mut self.connecting) => self.handle_connected(connected).await,
            progress = progress(&mut self.attachment) => match progress {
                Ok(()) => self.handle_frames(),
                Err(lost) => self.detach(&lost.to_string()),
            },
            Some(Notice::Renewed { sent, position }) = self.notices.1.recv() => {
                self.core.handle_heartbeat_ack(clock::now(), sent, position);
            }
            () = sleep_until(wake) => {}
        }
        self.core.handle_timeout(clock::now());
        let now = Instant::now();
        for (_, due) in self.later.extract_if(.., |(at, _)| *at <= now) {
            let id = self.core.submit(due.operation, Vec::new());
            self.asked.insert(id, Asked::unheard(due.unheard));
        }
    }

    /// With no handle left, nothing is left to do when everything that was submitted is answered,
    /// or can not be sent soon.
    fn is_done(&self) -> bool {
        let Some(at_the_latest) = self.abandoned else {
            return self.opened.as_ref().is_some_and(oneshot::Sender::is_closed);
        };
        let nothing_left = self.core.backlog() == 0 && self.later.is_empty();
        nothing_left || self.attachment.is_none() || Instant::now() >= at_the_latest
    }

    fn connect(&mut self) -> Connecting {
        let connector = Arc::clone(&self.connector);
        let avoid = self.avoid;
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => (PAUSE_FIRST * (1 << failures.min(6)) / 2).min(PAUSE_LAST),
        };
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let link = connector.link(avoid).await?;
            let stream = link.open_stream().await.map_err(|error| {
                let error = crate::link::connection_error(error);
                let attempt = crate::error::Attempt {
                    endpoint: link.endpoint.clone(),
                    error,
                };
                ConnectError::NoMemberAnswers {
                    attempts: vec![attempt],
                }
            })?;
            Ok((link, stream))
        })
    }

    async fn handle_connected(
        &mut self,
        connected: Result<(Arc<Link>, FrameStream), ConnectError>,
    ) {
        self.connecting = None;
        match connected {
            Ok((link, stream)) => {
                let here = link.welcome.member;
                let mut members = vec![here];
                if self.connector.config().learn_members {
                    let all = link.welcome.members.iter().map(|(member, _)| *member);
                    members.extend(all.filter(|member| *member != here));
                }
                self.core.handle_connected(clock::now(), members);
                let since = Instant::now();
                self.attachment = Some(Attachment {
                    link,
                    stream,
                    registered: None,
                    since,
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no member answers");
                self.failures = self.failures.saturating_add(1);
                self.avoid = None;
                if let Some(opened) = self.opened.take() {
                    let _ = opened.send(Err(error));
                }
            }
        }
    }

    fn handle_frames(&mut self) {
        loop {
            let Some(attachment) = &mut self.attachment else {
                return;
            };
            let member = attachment.link.welcome.member;
            let lost = match attachment.stream.take::<ServerFrame>() {
                Ok(None) => return,
                Ok(Some(frame)) => match self.core.handle_frame(clock::now(), member, frame) {
                    Ok(()) => {
                        self.carry_out();
                        continue;
                    }
                    Err(violation) => violation.to_string(),
                },
                Err(lost) => lost.to_string(),
            };
            self.detach(&lost);
            return;
        }
    }

    /// Encodes what may be sent.
    fn fill(&mut self) -> Result<(), StreamLost> {
        let Some(attachment) = &mut self.attachment else {
            return Ok(());
        };
        let now = clock::now();
        while attachment.stream.queued() < WRITE_AHEAD_BYTES {
            match self.core.poll_frame(now) {
                Some(frame) => attachment.stream.queue(&frame)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Gives the stream up; another member is tried next.
    fn detach(&mut self, reason: &str) {
        let Some(attachment) = self.attachment.take() else {
            return;
        };
        tracing::debug!(member = %attachment.link.welcome.member, reason, "detached");
        let steady = attachment.since.elapsed() >= STEADY && attachment.registered.is_some();
        self.failures = if steady {
            0
        } else {
            self.failures.saturating_add(1)
        };
        self.avoid = Some(attachment.link.generation);
        if let Some((session, epoch)) = attachment.registered {
            attachment.link.unregister(session, epoch);
        }
        self.core.handle_disconnected();
    }

    fn leave(&mut self) {
        self.detach("the session's task ends");
        if let Some(opened) = self.opened.take() {
            let after = self.connector.config().connect_timeout;
            let _ = opened.send(Err(ConnectError::NoLeader { after }));
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Request {
                operation,
                guards,
                asked,
            } => {
                let id = self.core.submit(operation, guards);
                if let Some(key) = asked.key {
                    self.calls.insert(key, id);
                }
                self.asked.insert(id, asked);
            }
            Command::Cancel { key, asked } => {
                let call = self.calls.get(&key).copied();
                match (call, asked) {
                    (Some(id), None) => self.core.abandon(id),
                    (None, None) => {}
                    (call, Some(asked)) => match call.and_then(|id| self.core.cancel(id)) {
                        Some(cancel) => {
                            self.asked.insert(cancel, asked);
                        }
                        None => {
                            asked.answer(Ok((Zxid::ZERO, Outcome::NothingToCancel)));
                        }
                    },
                }
            }
            Command::Missed(answered) => self.follow(answered.follow()),
            Command::Read {
                linearizable,
                query,
                answer,
            } => {
                let id = self.core.submit_read(linearizable, query);
                self.reads.insert(id, answer);
            }
            Command::Watch { key, watch, sink } => {
                let id = self.core.submit_watch(watch);
                self.watches.insert(id, (sink, key));
                self.watch_keys.insert(key, id);
            }
            Command::EndWatch { key } => {
                if let Some(id) = self.watch_keys.remove(&key) {
                    self.watches.remove(&id);
                    self.core.end_watch(id);
                }
            }
            Command::FollowMap { key, map, told } => {
                let (copy, through) = self.core.submit_map(map.clone());
                told.send_replace(MapTold {
                    copy: Some(copy),
                    through,
                    end: None,
                });
                self.maps.insert(key, (map, Some(told)));
            }
            Command::EndMap { key } => self.end_map(key),
            Command::Hold { key, holding } => self.hold(key, holding),
            Command::EndHold { key } => {
                self.owners.remove(&key);
                self.core.end_hold(key);
                self.end_map(key);
            }
            // It is sent in this turn.
            Command::Wake => {}
        }
    }

    fn hold(&mut self, key: Key, holding: Holding) {
        let map = MapKey {
            group: holding.group.clone(),
            detail: folkmoot_proto::partition::MapDetail::Full,
        };
        self.core.submit_map(map.clone());
        self.maps.insert(key, (map, None));
        self.owners.insert(key, holding.events);
        let Holding {
            group,
            member,
            incarnation,
            table,
            ..
        } = holding;
        let holder = Holder::new(group, member, incarnation, table);
        self.core.hold(clock::now(), key, holder);
    }

    fn end_map(&mut self, key: Key) {
        if let Some((map, _)) = self.maps.remove(&key)
            && !self.maps.values().any(|(other, _)| *other == map)
        {
            self.core.end_map(&map);
        }
    }

    /// Does and tells what the machine put out.
    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Answer(answer) => {
                    let zxid = answer.zxid;
                    let result = answer.reply.map(|outcome| (zxid, outcome));
                    self.answer(answer.id, result.map_err(WriteError::Refused));
                }
                Output::Waits(id) => {
                    if let Some(asked) = self.asked.get_mut(&id) {
                        asked.wait();
                    }
                }
                Output::Unanswered { id, sent } => {
                    let ended = self.ended(sent);
                    self.answer(id, Err(WriteError::Unanswered(ended)));
                }
                Output::ReadAnswer(answer) => {
                    let zxid = answer.zxid;
                    let result = answer.result.map(|outcome| (zxid, outcome));
                    self.answer_read(answer.id, result.map_err(ReadError::Refused));
                }
                Output::ReadUnanswered { id, sent } => {
                    let ended = self.ended(sent);
                    self.answer_read(id, Err(ReadError::Unanswered(ended)));
                }
                Output::Watch(id, news) => self.tell_watch(id, news),
                Output::Map(map, news) => self.tell_map(&map, &news),
                Output::Owner(key, event) => {
                    if let Some(owner) = self.owners.get(&key) {
                        let _ = owner.send(event);
                    }
                }
                Output::Attached {
                    session,
                    epoch,
                    timeout_ms,
                } => {
                    self.handle_attached(session, epoch, timeout_ms);
                }
                Output::Lease(view) => {
                    self.lease.send_replace(view);
                }
                Output::Move { reason } => self.detach(&reason),
                Output::OpenRefused(refused) => {
                    if let Some(opened) = self.opened.take() {
                        let _ = opened.send(Err(ConnectError::Refused(refused)));
                    }
                }
                Output::Ended { expired } => tracing::debug!(expired, "the session is over"),
            }
        }
    }

    fn ended(&self, sent: bool) -> Unanswered {
        let standing = self.lease.borrow().standing;
        let expired = standing == crate::Standing::Ended { expired: true };
        Unanswered::SessionEnded { expired, sent }
    }

    fn answer(&mut self, id: RequestId, result: RequestResult) {
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        if let Some(key) = asked.key {
            self.calls.remove(&key);
        }
        let follow_up = asked.answer(result);
        self.follow(follow_up);
    }

    fn follow(&mut self, follow_up: Option<FollowUp>) {
        if let Some(follow_up) = follow_up {
            let at = Instant::now() + follow_up.after;
            self.later.push((at, follow_up));
        }
    }

    fn answer_read(&mut self, id: ReadId, result: ReadResult) {
        if let Some(answer) = self.reads.remove(&id) {
            let _ = answer.send(result);
        }
    }

    fn handle_attached(&mut self, session: SessionId, epoch: ConnEpoch, timeout_ms: u32) {
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        if let Some(attachment) = &mut self.attachment {
            attachment.registered = Some((session, epoch));
            attachment
                .link
                .register(session, epoch, timeout, self.notices.0.clone());
        }
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Ok(Opened { session, timeout }));
        }
    }

    fn tell_map(&mut self, map: &MapKey, news: &MapNews) {
        let followers = self.maps.values().filter(|(of, _)| of == map);
        for told in followers.filter_map(|(_, told)| told.as_ref()) {
            told.send_modify(|told| told.take(map, news));
        }
        if !matches!(news, MapNews::Through(_)) {
            self.maps.retain(|_, (of, _)| of != map);
        }
    }

    fn tell_watch(&mut self, id: WatchId, news: WatchNews) {
        let Some((sink, key)) = self.watches.get(&id) else {
            return;
        };
        if !sink.tell(news) {
            self.watch_keys.remove(key);
            self.watches.remove(&id);
            self.core.end_watch(id);
        }
    }
}

impl WatchSink {
    /// Hands news over; whether more may follow.
    fn tell(&self, news: WatchNews) -> bool {
        let over = matches!(news, WatchNews::Over(_));
        let waiting = self.waiting.fetch_add(news_bytes(&news), Ordering::Relaxed);
        if waiting <= WATCH_BYTES_MAX || over {
            return self.news.send(news).is_ok() && !over;
        }
        let limit = WATCH_BYTES_MAX;
        let _ = self
            .news
            .send(WatchNews::Over(WatchError::NotTaken { limit }));
        false
    }
}

/// What news weigh in a watch's budget.
pub(crate) fn news_bytes(news: &WatchNews) -> usize {
    const EACH: usize = 64;
    match news {
        // It was asked for whole, whatever its size: what comes behind it has the budget.
        WatchNews::Snapshot { .. } => 0,
        WatchNews::Events { changes, .. } => changes
            .iter()
            .map(|change| EACH + change.path.len() + change.data.len())
            .sum(),
        WatchNews::Began(_) | WatchNews::Progress(_) | WatchNews::Over(_) => EACH,
    }
}

async fn finished(
    connecting: &mut Option<Connecting>,
) -> Result<(Arc<Link>, FrameStream), ConnectError> {
    match connecting {
        Some(connecting) => connecting.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn progress(attachment: &mut Option<Attachment>) -> Result<(), StreamLost> {
    match attachment {
        Some(attachment) => attachment.stream.progress().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::client::{Change, ChangeKind, SnapshotNode, Stat};

    use super::*;
    use crate::asked::Unheard;

    fn sink() -> (WatchSink, mpsc::UnboundedReceiver<WatchNews>) {
        let (news, taken) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        (WatchSink { news, waiting }, taken)
    }

    fn events(zxid: u64, bytes: usize) -> WatchNews {
        let change = Change {
            path: "/a".to_owned(),
            kind: ChangeKind::Set,
            data: vec![0; bytes],
            version: 1,
        };
        WatchNews::Events {
            zxid: Zxid(zxid),
            changes: vec![change],
        }
    }

    #[test]
    fn a_snapshot_larger_than_the_budget_does_not_end_its_watch() {
        let (sink, mut taken) = sink();
        let node = SnapshotNode {
            path: "/a".to_owned(),
            data: vec![0; WATCH_BYTES_MAX + 1],
            stat: Stat::default(),
        };
        let news = [
            WatchNews::Snapshot {
                zxid: Zxid(7),
                nodes: vec![node],
            },
            WatchNews::Progress(Zxid(8)),
            events(9, 1),
        ];
        for news in &news {
            assert!(sink.tell(news.clone()));
        }
        let told: Vec<_> = std::iter::from_fn(|| taken.try_recv().ok()).collect();
        assert!(told == news, "all three are told");
    }

    /// A task whose session is attached to a member that the test plays.
    fn driver() -> Driver {
        let core = SessionCore::new(folkmoot_proto::SessionSecret([1; 32]), 10_000);
        let connector = Connector::new(crate::connector::tests::credentials()).unwrap();
        let (_, commands) = mpsc::unbounded_channel();
        let (lease, _) = watch::channel(LeaseView {
            standing: crate::Standing::Safe,
            jeopardy_at: folkmoot_proto::Tick::ZERO,
            over_at: folkmoot_proto::Tick::ZERO,
        });
        let (opened, _) = oneshot::channel();
        let mut driver = Driver::new(core, Arc::new(connector), commands, lease, opened);
        driver.core.handle_connected(clock::now(), Vec::new());
        hear(
            &mut driver,
            ServerFrame::Attached {
                session: SessionId(7),
                epoch: ConnEpoch(1),
                timeout_ms: 10_000,
                last_id: RequestId::ZERO,
                zxid: Zxid(7),
            },
        );
        driver
    }

    fn hear(driver: &mut Driver, frame: ServerFrame) {
        let member = folkmoot_proto::MemberId(1);
        let heard = driver.core.handle_frame(clock::now(), member, frame);
        assert_eq!(heard, Ok(()));
        driver.carry_out();
    }

    fn sent(driver: &mut Driver) -> Vec<Operation> {
        let operation = |frame| match frame {
            folkmoot_proto::client::ClientFrame::Request(request) => Some(request.operation),
            _ => None,
        };
        std::iter::from_fn(|| driver.core.poll_frame(clock::now()))
            .filter_map(operation)
            .collect()
    }

    #[tokio::test]
    async fn what_follows_from_an_answer_that_nobody_heard_is_sent() {
        let mut driver = driver();
        let unheard: Unheard = Box::new(|result| {
            assert_eq!(result, Ok((Zxid(9), Outcome::Invoked(Vec::new()))));
            Some(FollowUp {
                after: Duration::ZERO,
                operation: Operation::Delete {
                    path: "/grant".to_owned(),
                    expected: None,
                },
                unheard: Box::new(|_| None),
            })
        });
        let (asked, mut pending) = Asked::new(Some(1), Some(unheard));
        driver.handle_command(Command::Request {
            operation: Operation::Sync,
            guards: Vec::new(),
            asked,
        });
        assert_eq!(sent(&mut driver), [Operation::Sync]);
        let id = RequestId(1);
        hear(
            &mut driver,
            ServerFrame::Reply {
                id,
                zxid: Zxid(8),
                reply: Ok(Outcome::Waiting(folkmoot_proto::Ticket(8))),
            },
        );
        // It is told to wait, which no bound ends; then the future is dropped.
        let waits = tokio::time::timeout(Duration::from_millis(20), async {
            pending.reply(Some(Duration::from_millis(1))).await
        });
        assert!(waits.await.is_err(), "the bound ended the wait");
        assert!(pending.close().is_none());
        let (key, asked) = (1, None);
        driver.handle_command(Command::Cancel { key, asked });
        assert_eq!(sent(&mut driver), [Operation::CancelWait { request: id }]);
        hear(
            &mut driver,
            ServerFrame::Completion {
                ticket: folkmoot_proto::Ticket(8),
                id,
                zxid: Zxid(9),
                reply: Ok(Outcome::Invoked(Vec::new())),
            },
        );
        driver.turn().await;
        assert!(
            matches!(&sent(&mut driver)[..], [Operation::Delete { path, .. }] if path == "/grant")
        );
    }

    #[test]
    fn a_watch_whose_events_are_not_taken_ends() {
        let (sink, mut taken) = sink();
        assert!(sink.tell(events(7, WATCH_BYTES_MAX)));
        assert!(!sink.tell(events(8, 1)));
        assert!(matches!(taken.try_recv(), Ok(WatchNews::Events { .. })));
        let limit = WATCH_BYTES_MAX;
        let over = WatchNews::Over(WatchError::NotTaken { limit });
        assert_eq!(taken.try_recv(), Ok(over));
    }
}
