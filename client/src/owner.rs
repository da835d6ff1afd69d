//! The owner of partitions: a member that is told what it gains, and lets go what it is to lose.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use folkmoot_proto::client::{Guard, Operation};
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::{MapOperation, PartitionId, PartitionKey, PartitionReport};
use folkmoot_proto::{Tick, Zxid};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::clock;
use crate::core::{Grant, HolderEnd, LeaseView, OwnerEvent, SharedTable, Standing};
use crate::driver::{Command, Holding, Key};
use crate::error::{MapError, WriteError};
use crate::group::Member;
use crate::session::Session;

/// Pauses before a preparation that failed is tried again, doubled up to the last.
const PREPARE_PAUSE_FIRST: Duration = Duration::from_millis(100);
const PREPARE_PAUSE_LAST: Duration = Duration::from_secs(10);

/// Why a replica could not catch up yet.
pub type PrepareError = Box<dyn std::error::Error + Send + Sync>;

/// What a program does with its partitions.
///
/// The callbacks of one partition are called one after the other; those of different partitions at
/// once, each in a task of its own. A callback that panics is over, and touches no other partition.
///
/// A replica is first prepared, where the map asks for that. A partition is then gained, and later
/// revoked or lost; it may be gained again after either.
pub trait PartitionHandler: Send + Sync + 'static {
    /// Brings a replica up to date, so that this member could own the partition. Once it returns
    /// `Ok` the member may be promoted; after an error it is called again, after a pause. The future
    /// is dropped when the replica is not wanted any more.
    fn prepare(
        &self,
        partition: PartitionId,
        key: &PartitionKey,
    ) -> impl Future<Output = Result<(), PrepareError>> + Send {
        let _ = (partition, key);
        async { Ok(()) }
    }

    /// The partition is owned, with this token: serve it, and fence what is written for it with
    /// [`PartitionOwner::guard`].
    fn gain(&self, grant: &Grant) -> impl Future<Output = ()> + Send;

    /// The partition is to go to another member: finish or refuse what is under way, and hand it
    /// over. When this returns, the partition is let go, and [`PartitionOwner::owns`] is false.
    /// The map's `revoke_timeout` and the lease bound the time.
    fn revoke(&self, partition: PartitionId) -> impl Future<Output = ()> + Send;

    /// The lease is over, or another one owns the partition: stop at once. A `gain` or `revoke` that
    /// was under way is dropped before.
    fn lost(&self, partition: PartitionId) -> impl Future<Output = ()> + Send;
}

/// The partitions that a member owns, by its own clock. Cheap to clone.
///
/// When the last clone is dropped, callbacks are dropped where they are, and nothing is owned any
/// more; the cluster gives the partitions to others only once the member drains, leaves, or its
/// session is over.
///
/// ```no_run
/// use folkmoot_client::{Grant, Group, MemberSpec, PartitionHandler, PartitionId};
///
/// struct Shards;
///
/// impl PartitionHandler for Shards {
///     async fn gain(&self, grant: &Grant) {
///         println!("serving {} with token {}", grant.partition, grant.token);
///     }
///     async fn revoke(&self, partition: PartitionId) {
///         println!("flushing {partition}");
///     }
///     async fn lost(&self, partition: PartitionId) {
///         println!("dropping {partition}");
///     }
/// }
///
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let me = Group::new(&session, "shards").join("w-1", MemberSpec::at("10.0.0.7:9000")).await?;
/// let owner = me.partitions(Shards).await?;
/// // Where a request for a key arrives:
/// if let Some(grant) = owner.owns_key("user:17") {
///     session.guarded_by(grant.guard()).set("/users/17", "fenced", None).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PartitionOwner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    key: Key,
    table: SharedTable,
    lease: watch::Receiver<LeaseView>,
    state: watch::Receiver<State>,
    engine: AbortHandle,
}

/// What the engine tells of itself.
#[derive(Clone, Debug, Default)]
struct State {
    began: bool,
    end: Option<MapError>,
}

impl Member {
    /// Owns partitions of the group's map as this member, in this incarnation: `handler` is told
    /// what is gained and what is to be let go. It returns once the map was told, whether the group
    /// has one yet or not. A member that has joined anew is another incarnation, and begins anew.
    ///
    /// # Errors
    ///
    /// The map is not told, not within the configuration's `request_timeout`, the member left, or
    /// the session is over.
    pub async fn partitions(
        &self,
        handler: impl PartitionHandler,
    ) -> Result<PartitionOwner, MapError> {
        let session = self.group().session().clone();
        let (table, key) = (SharedTable::default(), session.key());
        let (sender, events) = mpsc::unbounded_channel();
        session.command(Command::Hold {
            key,
            holding: Holding {
                group: self.group().name().to_owned(),
                member: self.id().to_owned(),
                incarnation: self.incarnation(),
                table: table.clone(),
                events: sender,
            },
        })?;
        let (said, mut state) = watch::channel(State::default());
        let engine = Engine {
            handler: Arc::new(handler),
            session: session.clone(),
            group: self.group().name().to_owned(),
            member: self.id().to_owned(),
            table: table.clone(),
            lines: HashMap::new(),
            calls: JoinSet::new(),
            called: HashMap::new(),
            said,
        };
        let engine = tokio::spawn(engine.run(events)).abort_handle();
        let lease = session.lease();
        let owner = PartitionOwner {
            inner: Arc::new(Inner {
                session,
                key,
                table,
                lease,
                state: state.clone(),
                engine,
            }),
        };
        let began = state.wait_for(|state| state.began || state.end.is_some());
        let bound = owner.inner.session.request_timeout();
        let state = match bound {
            None => began.await,
            Some(after) => tokio::time::timeout(after, began)
                .await
                .map_err(|_| MapError::TimedOut { after })?,
        };
        match state.map_err(|_| MapError::TaskGone)?.end.clone() {
            Some(error) => Err(error),
            None => Ok(owner),
        }
    }
}

impl PartitionOwner {
    /// Whether this member certainly owns the partition now: no other one does, and none will before
    /// this is false. It asks nobody, and takes the time of looking it up. What follows it may be
    /// delayed, so fence writes with [`PartitionOwner::guard`].
    #[must_use]
    pub fn owns(&self, partition: PartitionId) -> bool {
        self.grant(partition).is_some()
    }

    /// The grant by which the partition is owned; none if it is not.
    #[must_use]
    pub fn grant(&self, partition: PartitionId) -> Option<Grant> {
        let now = self.safe_now()?;
        self.inner.table.read().owned(partition, now).cloned()
    }

    /// As [`PartitionOwner::grant`], for the partition that a key belongs to: by its hash in a map
    /// of ranges, by its name in one of names.
    #[must_use]
    pub fn owns_key(&self, key: impl AsRef<[u8]>) -> Option<Grant> {
        let now = self.safe_now()?;
        let table = self.inner.table.read();
        table.owned_key(key.as_ref(), now).cloned()
    }

    /// The fencing token of a partition that is owned.
    #[must_use]
    pub fn token(&self, partition: PartitionId) -> Option<Zxid> {
        Some(self.grant(partition)?.token)
    }

    /// A guard for the writes of a partition that is owned: they take effect only while this
    /// promotion is the current one (rules R13, R33).
    #[must_use]
    pub fn guard(&self, partition: PartitionId) -> Option<Guard> {
        Some(self.grant(partition)?.guard())
    }

    /// All that is owned now, in order of the partitions' ids.
    #[must_use]
    pub fn owned(&self) -> Vec<Grant> {
        let Some(now) = self.safe_now() else {
            return Vec::new();
        };
        self.inner.table.read().grants(now).cloned().collect()
    }

    /// Says how much work a partition is that is owned now: a whole number, in whatever unit the group
    /// has chosen for its members, such as requests per second. A policy that weighs partitions by
    /// what was measured of them, such as `load-aware`, sees the newest one; the kernel itself does
    /// nothing with it. Of a partition that is not owned it says nothing.
    ///
    /// The newest value of each partition is sent every 5 s, again and again for as long as the
    /// partition is owned with the same token, so that a new leader of the cluster knows it soon: call
    /// this when the value changes, or at an interval, and average over some seconds. It waits for
    /// nothing, and guarantees nothing: loads are not logged, they may be lost or come in another
    /// order than writes, and a policy is asked because of them every 10 s at most.
    ///
    /// As the load measurements that Slicer's assigner decides by (Adya and others, "Slicer:
    /// Auto-Sharding for Datacenter Applications", OSDI 2016).
    pub fn report_load(&self, partition: PartitionId, load: u64) {
        let Some(now) = self.safe_now() else { return };
        let is_first = self.inner.table.write().measured(partition, load, now);
        if is_first {
            // A session that is over sends nothing.
            let _ = self.inner.session.command(Command::Wake);
        }
    }

    /// The zxid of the map's layout, as far as it was told; zero while the group has no map. A
    /// request that carries another one is of another layout (rule R39).
    #[must_use]
    pub fn layout(&self) -> Zxid {
        self.inner.table.read().layout
    }

    /// Waits until nothing is gained any more, for good: the session is over or to be closed, the
    /// member left or is to leave, or the map is not told. Every callback that follows from it has returned then. Cancel safe.
    pub async fn ended(&self) -> MapError {
        let mut state = self.inner.state.clone();
        match state.wait_for(|state| state.end.is_some()).await {
            Ok(state) => state.end.clone().unwrap_or(MapError::TaskGone),
            Err(_) => MapError::TaskGone,
        }
    }

    /// Now, if the session certainly lives.
    fn safe_now(&self) -> Option<Tick> {
        let now = clock::now();
        let standing = self.inner.lease.borrow().standing_at(now);
        (standing < Standing::LeaseOver).then_some(now)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.abort();
        // A session that is over holds nothing.
        let _ = self.session.command(Command::EndHold { key: self.key });
    }
}

/// A callback that is to be called.
#[derive(Clone, Debug)]
enum Call {
    Prepare {
        key: PartitionKey,
        movement: Zxid,
        pause: Duration,
    },
    Gain(Grant),
    Revoke {
        token: Zxid,
        gains: u64,
    },
    Lost {
        token: Zxid,
        gains: u64,
    },
    /// None: what was not served is let go at once.
    LetGo {
        token: Zxid,
        gains: u64,
    },
}

/// The callbacks of one partition, one after the other.
#[derive(Debug, Default)]
struct Line {
    running: Option<Running>,
    waiting: VecDeque<Call>,
}

#[derive(Debug)]
struct Running {
    call: Call,
    task: AbortHandle,
    /// What it does is void.
    stopped: bool,
}

/// Calls the handler, and says what follows.
struct Engine<H> {
    handler: Arc<H>,
    session: Session,
    group: String,
    member: String,
    table: SharedTable,
    lines: HashMap<PartitionId, Line>,
    calls: JoinSet<Result<(), PrepareError>>,
    called: HashMap<tokio::task::Id, PartitionId>,
    said: watch::Sender<State>,
}

impl<H: PartitionHandler> Engine<H> {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<OwnerEvent>) {
        let mut reporting = None;
        let mut end = None;
        while end.is_none() || !self.calls.is_empty() {
            if reporting.is_none() && end.is_none() {
                reporting = self.report();
            }
            let may_report = reporting.is_none() && end.is_none();
            let wake = may_report.then(|| self.table.read().reports_at());
            tokio::select! {
                event = events.recv(), if end.is_none() => match event {
                    Some(OwnerEvent::Over(why)) => end = Some(self.error(why)),
                    Some(event) => self.handle(event),
                    None => end = Some(MapError::TaskGone),
                },
                Some(called) = self.calls.join_next_with_id() => self.finish(called),
                result = answered(&mut reporting) => {
                    reporting = None;
                    if let Err(error) = result {
                        tracing::debug!(%error, "a report was not taken in");
                    }
                }
                () = sleep_until(wake.flatten()) => {}
            }
        }
        self.said.send_modify(|state| state.end = end);
    }

    fn error(&self, why: HolderEnd) -> MapError {
        match why {
            HolderEnd::Session { expired } => MapError::SessionEnded { expired },
            HolderEnd::Left => MapError::Left {
                group: self.group.clone(),
                member: self.member.clone(),
            },
            HolderEnd::Refused { reason } => MapError::Refused {
                group: self.group.clone(),
                reason,
            },
        }
    }

    fn handle(&mut self, event: OwnerEvent) {
        let no_pause = Duration::ZERO;
        let (partition, call) = match event {
            OwnerEvent::Began => {
                self.said.send_modify(|state| state.began = true);
                return;
            }
            OwnerEvent::Over(_) => return,
            OwnerEvent::Prepare {
                partition,
                key,
                movement,
            } => (
                partition,
                Call::Prepare {
                    key,
                    movement,
                    pause: no_pause,
                },
            ),
            OwnerEvent::Unprepare { partition } => {
                let line = self.lines.entry(partition).or_default();
                line.stop(|call| matches!(call, Call::Prepare { .. }));
                self.advance(partition);
                return;
            }
            OwnerEvent::Gain(grant) => (grant.partition, Call::Gain(grant)),
            OwnerEvent::Revoke {
                partition,
                token,
                gains,
            } => (partition, Call::Revoke { token, gains }),
            OwnerEvent::LetGo {
                partition,
                token,
                gains,
            } => (partition, Call::LetGo { token, gains }),
            OwnerEvent::Lost {
                partition,
                token,
                gains,
            } => {
                let line = self.lines.entry(partition).or_default();
                (partition, line.lose(token, gains))
            }
        };
        self.lines
            .entry(partition)
            .or_default()
            .waiting
            .push_back(call);
        self.advance(partition);
    }

    /// Calls what is next for a partition, once what was called before has returned.
    fn advance(&mut self, partition: PartitionId) {
        let Some(line) = self.lines.get_mut(&partition) else {
            return;
        };
        while line.running.is_none() {
            let Some(call) = line.waiting.pop_front() else {
                self.lines.remove(&partition);
                return;
            };
            if let Call::LetGo { token, gains } = call {
                self.table.write().let_go(partition, token, gains);
                continue;
            }
            let handler = Arc::clone(&self.handler);
            let task = self.calls.spawn(run(handler, partition, call.clone()));
            self.called.insert(task.id(), partition);
            line.running = Some(Running {
                call,
                task,
                stopped: false,
            });
        }
    }

    /// A callback has returned, panicked, or was dropped.
    fn finish(&mut self, called: Result<(tokio::task::Id, Result<(), PrepareError>), JoinError>) {
        let (id, result) = match called {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let Some(partition) = self.called.remove(&id) else {
            return;
        };
        let line = self.lines.get_mut(&partition);
        if let Some(line) = line
            && let Some(running) = line.running.take()
        {
            if let Err(error) = &result
                && !running.stopped
            {
                tracing::warn!(%partition, call = running.call.name(), %error, "a callback failed");
            }
            match running.call {
                _ if running.stopped => {}
                Call::Prepare { movement, .. } if result.is_ok() => {
                    self.table.write().prepared(partition, movement);
                }
                Call::Prepare {
                    key,
                    movement,
                    pause,
                } => {
                    let pause = (pause * 2).clamp(PREPARE_PAUSE_FIRST, PREPARE_PAUSE_LAST);
                    line.waiting.push_front(Call::Prepare {
                        key,
                        movement,
                        pause,
                    });
                }
                // One that panicked does not serve the partition either.
                Call::Revoke { token, gains } | Call::Lost { token, gains } => {
                    self.table.write().let_go(partition, token, gains);
                }
                Call::Gain(_) | Call::LetGo { .. } => {}
            }
        }
        self.advance(partition);
    }

    /// Says what is to be said, if anything is.
    fn report(&self) -> Option<Reporting> {
        let reports = self.table.write().take_reports(clock::now(), MAP_NAMED_MAX);
        if reports.is_empty() {
            return None;
        }
        Some(Box::pin(report(
            self.session.clone(),
            self.group.clone(),
            self.member.clone(),
            reports,
        )))
    }
}

type Reporting = std::pin::Pin<Box<dyn Future<Output = Result<(), WriteError>> + Send>>;

/// It is sent until it is answered or the session is over: so one report at most is under way.
async fn report(
    session: Session,
    group: String,
    member: String,
    reports: Vec<PartitionReport>,
) -> Result<(), WriteError> {
    let operation = Operation::Map {
        group,
        operation: MapOperation::Report { member, reports },
    };
    let mut answer = session.submit(operation, Vec::new())?;
    answer.reply(None).await?;
    Ok(())
}

async fn answered(reporting: &mut Option<Reporting>) -> Result<(), WriteError> {
    match reporting {
        Some(reporting) => reporting.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Tick>) {
    match at {
        Some(at) => {
            let left = at.0.saturating_sub(clock::now().0);
            tokio::time::sleep(Duration::from_micros(left)).await;
        }
        None => std::future::pending().await,
    }
}

async fn run<H: PartitionHandler>(
    handler: Arc<H>,
    partition: PartitionId,
    call: Call,
) -> Result<(), PrepareError> {
    match call {
        Call::Prepare { key, pause, .. } => {
            tokio::time::sleep(pause).await;
            handler.prepare(partition, &key).await?;
        }
        Call::Gain(grant) => handler.gain(&grant).await,
        Call::Revoke { .. } => handler.revoke(partition).await,
        Call::Lost { .. } => handler.lost(partition).await,
        Call::LetGo { .. } => {}
    }
    Ok(())
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare",
            Self::Gain(_) => "gain",
            Self::Revoke { .. } => "revoke",
            Self::Lost { .. } => "lost",
            Self::LetGo { .. } => "let go",
        }
    }
}

impl Line {
    /// Stops what is called, and forgets what waits, where `what` holds.
    fn stop(&mut self, what: impl Fn(&Call) -> bool) {
        self.waiting.retain(|call| !what(call));
        if let Some(running) = &mut self.running
            && what(&running.call)
        {
            running.stopped = true;
            running.task.abort();
        }
    }

    /// What is called for a partition that is lost: nothing if its `gain` was not called yet.
    fn lose(&mut self, token: Zxid, gains: u64) -> Call {
        let is_gain = |call: &Call| matches!(call, Call::Gain(grant) if grant.token == token);
        let never_gained = self.waiting.iter().any(is_gain);
        self.stop(|call| !matches!(call, Call::Lost { .. } | Call::LetGo { .. }));
        if never_gained {
            Call::LetGo { token, gains }
        } else {
            Call::Lost { token, gains }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    use folkmoot_proto::client::{ClientFrame, ServerFrame};
    use folkmoot_proto::codec::Compact as _;
    use folkmoot_proto::partition::{
        Assignment, FullBody, MapDetail, MapUpdate, MemberNo, MovePhase, MoveReason, Movement,
        Owner, PartitionLoad, PartitionRecord, PartitionSpec, Replica, RoutedMember,
    };
    use folkmoot_proto::reply::Outcome;
    use folkmoot_proto::{ConnEpoch, LogTime, MemberId, RequestId, SessionId, SessionSecret};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::core::{Holder, MapKey, Output, SessionCore};
    use crate::group::Group;

    const KEY: Key = 1;
    const INCARNATION: Zxid = Zxid(10);
    const TIMEOUT_MS: u32 = 3_600_000;

    /// Tells what it is called for, and waits or panics where it is told to.
    struct Handler {
        calls: mpsc::UnboundedSender<String>,
        gates: BTreeMap<String, Semaphore>,
        panics: Mutex<BTreeSet<String>>,
    }

    impl Handler {
        async fn step(&self, call: &str, partition: PartitionId) {
            let call = format!("{call} {partition}");
            let dropped = Told {
                text: format!("dropped {call}"),
                calls: self.calls.clone(),
            };
            let _ = self.calls.send(call.clone());
            let panics = self.panics.lock().unwrap().remove(&call);
            assert!(!panics, "as it was told to");
            if let Some(gate) = self.gates.get(&call) {
                gate.acquire().await.unwrap().forget();
            }
            std::mem::forget(dropped);
        }
    }

    struct Told {
        text: String,
        calls: mpsc::UnboundedSender<String>,
    }

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.calls.send(self.text.clone());
        }
    }

    impl PartitionHandler for Arc<Handler> {
        async fn prepare(&self, of: PartitionId, _: &PartitionKey) -> Result<(), PrepareError> {
            self.step("prepare", of).await;
            Ok(())
        }

        async fn gain(&self, grant: &Grant) {
            self.step("gain", grant.partition).await;
        }

        async fn revoke(&self, partition: PartitionId) {
            self.step("revoke", partition).await;
        }

        async fn lost(&self, partition: PartitionId) {
            self.step("lost", partition).await;
        }
    }

    /// An owner, and the member and the cluster that the test plays.
    struct World {
        core: SessionCore,
        owner: PartitionOwner,
        handler: Arc<Handler>,
        calls: mpsc::UnboundedReceiver<String>,
        asked: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<OwnerEvent>,
        through: Zxid,
    }

    impl World {
        /// `gates` wait until they are opened; `panics` panic once.
        async fn new(gates: &[&str], panics: &[&str]) -> Self {
            let (sender, calls) = mpsc::unbounded_channel();
            let gate = |name: &&str| ((*name).to_owned(), Semaphore::new(0));
            let handler = Arc::new(Handler {
                calls: sender,
                gates: gates.iter().map(gate).collect(),
                panics: Mutex::new(panics.iter().map(|name| (*name).to_owned()).collect()),
            });
            let (session, mut asked) = crate::session::tests::unattended(None);
            let member = Member::of(Group::new(&session, "g"), "me", INCARNATION);
            let owning = tokio::spawn({
                let handler = Arc::clone(&handler);
                async move { member.partitions(handler).await }
            });
            let Some(Command::Hold { holding, .. }) = asked.recv().await else {
                panic!("nothing is to be held");
            };
            let core = open_session();
            let mut world = Self {
                core,
                events: holding.events.clone(),
                owner: {
                    let _ = holding.events.send(OwnerEvent::Began);
                    owning.await.unwrap().unwrap()
                },
                handler,
                calls,
                asked,
                through: Zxid(20),
            };
            let map = MapKey {
                group: "g".to_owned(),
                detail: MapDetail::Full,
            };
            world.core.submit_map(map);
            while world.core.poll_frame(clock::now()).is_some() {}
            let holder = Holder::new(holding.group, holding.member, INCARNATION, holding.table);
            world.core.hold(clock::now(), KEY, holder);
            let me = RoutedMember {
                member: MemberNo(1),
                id: "me".to_owned(),
                incarnation: Some(INCARNATION),
                address: String::new(),
                zone: String::new(),
            };
            world.tell(None, vec![me], Vec::new());
            let now = clock::now();
            world.core.handle_heartbeat_ack(now, now, Some(Zxid(1)));
            world.pass_on();
            world
        }

        fn tell(
            &mut self,
            base: Option<Zxid>,
            members: Vec<RoutedMember>,
            partitions: Vec<(PartitionId, PartitionRecord)>,
        ) {
            let body = FullBody {
                layout: Zxid(5),
                map: None,
                members,
                partitions,
            };
            let update = MapUpdate {
                group: "g".to_owned(),
                detail: MapDetail::Full,
                base,
                through: self.through,
                body: body.to_compact(),
            };
            hear(&mut self.core, ServerFrame::Map(update));
            self.pass_on();
        }

        fn change(&mut self, partition: u32, record: PartitionRecord) {
            let base = self.through;
            self.through = Zxid(base.0 + 1);
            self.tell(
                Some(base),
                Vec::new(),
                vec![(PartitionId(partition), record)],
            );
        }

        fn pass_on(&mut self) {
            while let Some(output) = self.core.poll_output() {
                if let Output::Owner(KEY, event) = output {
                    let _ = self.events.send(event);
                }
            }
        }

        fn open(&self, call: &str) {
            self.handler.gates[call].add_permits(1);
        }

        async fn call(&mut self) -> String {
            self.calls.recv().await.unwrap()
        }

        /// What is reported next, which is taken in.
        async fn reported(&mut self) -> Vec<PartitionReport> {
            loop {
                let command = self.asked.recv().await.unwrap();
                if let Command::Request {
                    operation: Operation::Map { operation, .. },
                    asked,
                    ..
                } = command
                {
                    asked.answer(Ok((Zxid(1), Outcome::Reported { current: 1 })));
                    let MapOperation::Report { member, reports } = operation else {
                        panic!("{operation:?}");
                    };
                    assert_eq!(member, "me");
                    return reports;
                }
            }
        }
    }

    fn open_session() -> SessionCore {
        let mut core = SessionCore::new(SessionSecret([1; 32]), TIMEOUT_MS);
        core.handle_connected(clock::now(), Vec::new());
        while core.poll_frame(clock::now()).is_some() {}
        let attached = ServerFrame::Attached {
            session: SessionId(7),
            epoch: ConnEpoch(1),
            timeout_ms: TIMEOUT_MS,
            last_id: RequestId::ZERO,
            zxid: Zxid(7),
        };
        hear(&mut core, attached);
        core
    }

    fn hear(core: &mut SessionCore, frame: ServerFrame) {
        let heard = core.handle_frame(clock::now(), MemberId(1), frame);
        assert_eq!(heard, Ok(()));
    }

    fn record(token: Option<u64>, movement: Option<(u64, MovePhase)>) -> PartitionRecord {
        let (member, incarnation) = (MemberNo(1), INCARNATION);
        let movement = movement.map(|(id, phase)| Movement {
            id: Zxid(id),
            phase,
            target: vec![member],
            reason: MoveReason::Balance,
            deadline: LogTime(0),
        });
        let replica = Replica {
            member,
            incarnation,
            ready: token.is_some(),
        };
        PartitionRecord {
            key: PartitionKey::Name("p".to_owned()),
            spec: PartitionSpec::default(),
            assignment: Assignment {
                owner: token.map(|token| Owner {
                    member,
                    incarnation,
                    token: Zxid(token),
                }),
                replicas: vec![replica],
                movement,
                since: LogTime(0),
                why: MoveReason::Balance,
            },
            created: Zxid(1),
            changed: Zxid(1),
        }
    }

    fn owned(token: u64) -> PartitionRecord {
        record(Some(token), None)
    }

    fn revoked(token: u64) -> PartitionRecord {
        record(Some(token), Some((50, MovePhase::Revoking)))
    }

    fn released(partition: u32, token: u64) -> PartitionReport {
        PartitionReport::Released {
            partition: PartitionId(partition),
            movement: Zxid(50),
            token: Zxid(token),
        }
    }

    #[tokio::test]
    async fn a_partition_is_owned_until_its_revoke_has_returned_and_then_reported() {
        let mut world = World::new(&["revoke 1"], &[]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        let grant = world.owner.owns_key("p").expect("owned");
        assert_eq!(grant.token, Zxid(21));
        let guard = world.owner.guard(PartitionId(1)).expect("owned");
        assert_eq!(guard, grant.guard());
        assert_eq!(guard.path, "/folkmoot/groups/g/owners/1");
        world.change(1, revoked(21));
        assert_eq!(world.call().await, "revoke 1");
        assert!(world.owner.owns(PartitionId(1)), "it drains");
        world.open("revoke 1");
        assert_eq!(world.reported().await, [released(1, 21)]);
        assert!(!world.owner.owns(PartitionId(1)));
        assert_eq!(world.owner.guard(PartitionId(1)), None);
        assert_eq!(world.owner.owned(), []);
    }

    #[tokio::test]
    async fn callbacks_of_a_partition_wait_for_each_other_and_for_no_other_partitions() {
        let mut world = World::new(&["gain 1"], &[]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        world.change(1, revoked(21));
        world.change(2, owned(23));
        assert_eq!(world.call().await, "gain 2");
        world.change(2, revoked(23));
        assert_eq!(world.call().await, "revoke 2");
        assert_eq!(world.reported().await, [released(2, 23)]);
        world.open("gain 1");
        assert_eq!(world.call().await, "revoke 1");
        assert_eq!(world.reported().await, [released(1, 21)]);
    }

    #[tokio::test]
    async fn a_panic_in_a_callback_is_its_end_and_nothing_elses() {
        let mut world = World::new(&[], &["gain 1", "revoke 1", "prepare 2"]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        assert_eq!(world.call().await, "dropped gain 1");
        world.change(1, revoked(21));
        assert_eq!(world.call().await, "revoke 1");
        assert_eq!(world.reported().await, [released(1, 21)]);
        assert_eq!(world.call().await, "dropped revoke 1");
        world.change(2, record(None, Some((60, MovePhase::Preparing))));
        assert_eq!(world.call().await, "prepare 2");
        assert_eq!(world.call().await, "dropped prepare 2");
        assert_eq!(world.call().await, "prepare 2", "it is tried again");
        let ready = PartitionReport::Ready {
            partition: PartitionId(2),
            movement: Zxid(60),
        };
        loop {
            // What was said of partition 1 is said until the map shows it.
            let reports = world.reported().await;
            if reports != [released(1, 21)] {
                assert!(reports.contains(&ready), "{reports:?}");
                break;
            }
        }
    }

    #[tokio::test]
    async fn what_is_lost_is_dropped_at_once() {
        let mut world = World::new(&["gain 1", "revoke 2"], &[]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        world.change(1, owned(22));
        assert!(world.owner.owns(PartitionId(1)), "by the new token");
        assert_eq!(world.call().await, "dropped gain 1");
        assert_eq!(world.call().await, "lost 1");
        assert_eq!(world.call().await, "gain 1");
        world.change(2, owned(24));
        assert_eq!(world.call().await, "gain 2");
        world.change(2, revoked(24));
        assert_eq!(world.call().await, "revoke 2");
        // Force: another one owns it.
        world.change(2, record(None, None));
        assert!(!world.owner.owns(PartitionId(2)));
        assert_eq!(world.call().await, "dropped revoke 2");
        assert_eq!(world.call().await, "lost 2");
        assert!(
            world.asked.try_recv().is_err(),
            "there is nothing to report"
        );
    }

    #[tokio::test]
    async fn what_is_gained_again_while_it_is_being_lost_is_let_go_when_that_is_revoked() {
        let mut world = World::new(&["lost 1", "revoke 1"], &[]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        let later = clock::now().plus_millis(2 * u64::from(TIMEOUT_MS));
        world.core.handle_timeout(later);
        world.pass_on();
        assert_eq!(world.call().await, "lost 1");
        let position = Some(world.through);
        world.core.handle_heartbeat_ack(later, later, position);
        world.change(1, revoked(21));
        world.open("lost 1");
        assert_eq!(world.call().await, "gain 1");
        assert_eq!(world.call().await, "revoke 1");
        assert!(world.owner.owns(PartitionId(1)), "it drains");
        world.open("revoke 1");
        assert_eq!(world.reported().await, [released(1, 21)]);
        assert!(!world.owner.owns(PartitionId(1)));
    }

    #[tokio::test]
    async fn a_preparation_that_is_not_wanted_any_more_is_dropped() {
        let mut world = World::new(&["prepare 1"], &[]).await;
        world.change(1, record(None, Some((60, MovePhase::Preparing))));
        assert_eq!(world.call().await, "prepare 1");
        world.change(1, record(None, None));
        assert_eq!(world.call().await, "dropped prepare 1");
        world.change(2, record(None, Some((61, MovePhase::Preparing))));
        assert_eq!(world.call().await, "prepare 2");
        let ready = PartitionReport::Ready {
            partition: PartitionId(2),
            movement: Zxid(61),
        };
        assert_eq!(world.reported().await, [ready]);
    }

    #[tokio::test]
    async fn the_end_of_the_session_is_told_when_every_callback_has_returned() {
        let mut world = World::new(&["lost 1"], &[]).await;
        world.change(1, owned(21));
        assert_eq!(world.call().await, "gain 1");
        hear(&mut world.core, ServerFrame::SessionEnded { expired: true });
        world.pass_on();
        assert_eq!(world.call().await, "lost 1");
        assert!(!world.owner.owns(PartitionId(1)));
        world.open("lost 1");
        let ended = world.owner.ended().await;
        assert_eq!(ended, MapError::SessionEnded { expired: true });
    }

    #[tokio::test]
    async fn the_first_load_of_what_is_owned_wakes_the_task() {
        let mut world = World::new(&[], &[]).await;
        world.owner.report_load(PartitionId(1), 6);
        assert!(world.asked.try_recv().is_err(), "it is not owned");
        world.change(1, owned(21));
        world.owner.report_load(PartitionId(1), 7);
        assert!(matches!(world.asked.try_recv(), Ok(Command::Wake)));
        world.owner.report_load(PartitionId(1), 8);
        assert!(world.asked.try_recv().is_err(), "it knows when to send");
        let loads = ClientFrame::Loads {
            group: "g".to_owned(),
            loads: vec![PartitionLoad {
                partition: PartitionId(1),
                token: Zxid(21),
                load: 8,
            }],
        };
        assert_eq!(world.core.poll_frame(clock::now()), Some(loads));
    }

    #[tokio::test]
    async fn an_owner_that_is_dropped_is_told_to_the_task() {
        let World {
            owner, mut asked, ..
        } = World::new(&[], &[]).await;
        drop(owner.clone());
        assert!(asked.try_recv().is_err());
        drop(owner);
        assert!(matches!(asked.try_recv(), Ok(Command::EndHold { .. })));
    }
}
