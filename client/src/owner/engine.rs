//! Calls the handler of an owner, and reports what follows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use folkmoot_proto::client::Operation;
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::{MapOperation, PartitionId, PartitionKey, PartitionReport};
use folkmoot_proto::{Tick, Zxid};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::{PartitionHandler, PrepareError, State};
use crate::clock;
use crate::core::{Grant, HolderEnd, OwnerEvent, SharedTable};
use crate::error::{MapError, WriteError};
use crate::group::Member;
use crate::session::Session;

/// Pauses before a preparation that failed is tried again, doubled up to the last.
const PREPARE_PAUSE_FIRST: Duration = Duration::from_millis(100);
const PREPARE_PAUSE_LAST: Duration = Duration::from_secs(10);

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
pub(super) struct Engine<H> {
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
    /// One for a member's partitions, which says how it fares.
    pub(super) fn new(
        handler: H,
        member: &Member,
        table: SharedTable,
        said: watch::Sender<State>,
    ) -> Self {
        Self {
            handler: Arc::new(handler),
            session: member.group().session().clone(),
            group: member.group().name().to_owned(),
            member: member.id().to_owned(),
            table,
            lines: HashMap::new(),
            calls: JoinSet::new(),
            called: HashMap::new(),
            said,
        }
    }

    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<OwnerEvent>) {
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
