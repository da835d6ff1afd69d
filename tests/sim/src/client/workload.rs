//! What clients want of the cluster.

use folkmoot_proto::client::{
    ClientFrame, Guard, NodeKind, Operation, Query, Read, SubOperation, WatchScope,
};
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::partition::{
    Layout, MapConfig, MapOperation, PartitionId, PartitionReport, PolicyChoice,
};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Digest, WatchId, Zxid};

use super::session::{PendingRead, Purpose, Session};
use super::watcher::Watcher;
use super::worker::{GROUP, OTHER, PARTITIONS, fence};
use super::{Client, Link};
use crate::ctx::Ctx;
use crate::dice::Dice;
use crate::history::Act;
use crate::invariants::plugins::payload;
use crate::policies::{Detector, Planner};
use crate::runtime::{Known, installation};
use crate::seen::Event;
use crate::wires::{ClientId, Up};

/// Registers that are written and read.
pub(crate) const REGISTERS: usize = 6;
/// Locks that clients contend for.
const LOCKS: u64 = 2;
/// Requests that a session has open at most.
const OPEN_MAX: usize = 6;

#[derive(Debug)]
pub(super) struct Workload {
    dice: Dice,
    id: ClientId,
    /// Steps of the setup that this client has done; the first client does them.
    step: usize,
    step_open: bool,
    values: u64,
    /// Tokens of locks that sessions held which are over: to be tried again, in vain.
    stale: Vec<(String, Zxid)>,
    /// Tokens of partitions, likewise.
    stale_owners: Vec<(PartitionId, Zxid)>,
    /// How the map of this world is kept.
    map: MapConfig,
}

impl Workload {
    pub(super) fn new(id: ClientId, dice: Dice, map: MapConfig) -> Self {
        Self {
            dice,
            id,
            step: 0,
            step_open: false,
            values: 0,
            stale: Vec::new(),
            stale_owners: Vec::new(),
            map,
        }
    }

    /// A session is over: its client may still act on what it held.
    pub(super) fn remember_stale(&mut self, session: &Session) {
        let held = session
            .holds
            .iter()
            .map(|hold| (hold.lock.clone(), hold.token));
        self.stale.extend(held);
        self.stale_owners.extend(Client::stale_tokens(session));
        self.step_open = false;
    }

    /// A step of the setup was answered; one that has to wait goes on when its wait ends.
    pub(super) fn set_up(&mut self, reply: &Reply) {
        match reply {
            Ok(Outcome::Waiting(_)) => return,
            Ok(_) | Err(Refusal::NodeExists { .. } | Refusal::ComponentRefused { .. }) => {
                self.step += 1
            }
            Err(Refusal::UnknownComponent { .. }) => self.step = self.step.saturating_sub(2),
            Err(_) => {}
        }
        self.step_open = false;
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        (self.id.0 as u64 + 1) << 32 | self.values
    }
}

/// How the map of a world is kept: short delays, so that all of them end within it.
pub(super) fn map_config(seed: u64) -> MapConfig {
    let mut dice = Dice::new(seed, "map");
    MapConfig {
        replicas: dice.pick(&[1, 1, 2, 3]).copied().unwrap_or(1),
        policy: a_policy(&mut dice),
        readiness: dice.chance(600),
        offline_delay_ms: dice.pick(&[0, 1_500, 3_000]).copied().unwrap_or(0),
        prepare_timeout_ms: 2_500,
        revoke_timeout_ms: dice.pick(&[200, 1_500]).copied().unwrap_or(200),
        residence_ms: dice.pick(&[0, 0, 1_000]).copied().unwrap_or(0),
        moves_in_flight_max: dice.pick(&[1, 3, 100]).copied().unwrap_or(3),
        member_moves_in_flight_max: dice.pick(&[1, 100]).copied().unwrap_or(100),
        balance_per_minute: dice.pick(&[20, 1_000]).copied().unwrap_or(20),
        ..MapConfig::default()
    }
}

fn a_detector(dice: &mut Dice) -> Digest {
    let detector = dice.pick(&Detector::ALL).copied();
    detector.unwrap_or(Detector::Foolish).digest()
}

fn a_policy(dice: &mut Dice) -> Option<PolicyChoice> {
    let planner = match dice.below(10) {
        0..3 => return None,
        3..7 => Planner::Sticky,
        7 => Planner::Nonsense,
        8 => Planner::OneForAll,
        _ => Planner::Random,
    };
    Some(PolicyChoice {
        digest: planner.digest(),
        configuration: String::new(),
    })
}

/// A member of the group, who may not be there.
fn a_member(dice: &mut Dice) -> String {
    format!("w{}-{}", dice.below(4), dice.below(2))
}

/// What the first client does before anything else can be done.
fn setup(map: &MapConfig) -> Vec<Operation> {
    let directory = |path: String| Operation::Create {
        path,
        data: Vec::new(),
        kind: NodeKind::PERSISTENT,
    };
    let mut steps: Vec<_> = ["/reg", "/tree", "/eph", "/seq", "/guarded", "/owned"]
        .into_iter()
        .map(|path| directory(path.to_owned()))
        .collect();
    steps.extend((0..REGISTERS).map(|register| Operation::Create {
        path: format!("/reg/{register}"),
        data: 0_u64.to_le_bytes().to_vec(),
        kind: NodeKind::PERSISTENT,
    }));
    steps.extend((0..LOCKS).map(|lock| directory(format!("/guarded/{lock}"))));
    steps.extend((0..PARTITIONS).map(|partition| directory(format!("/owned/{partition}"))));
    for known in Known::ALL {
        steps.extend(installation(known.bytes(), &format!("{known:?}")));
        steps.push(Operation::Mount {
            path: known.mount().to_owned(),
            digest: known.digest(),
            config: Vec::new(),
        });
    }
    for planner in Planner::ALL {
        steps.extend(installation(planner.bytes(), &format!("{planner:?}")));
    }
    for detector in Detector::ALL {
        steps.extend(installation(detector.bytes(), &format!("{detector:?}")));
    }
    // In most of the worlds.
    if map.residence_ms == 0 {
        steps.push(Operation::ChooseDetector {
            group: String::new(),
            choice: Some(PolicyChoice {
                digest: Detector::Foolish.digest(),
                configuration: String::new(),
            }),
        });
    }
    steps.push(Operation::Map {
        group: GROUP.to_owned(),
        operation: MapOperation::Create {
            config: map.clone(),
            layout: Layout::Ranges(PARTITIONS),
        },
    });
    steps.push(Operation::Map {
        group: OTHER.to_owned(),
        operation: MapOperation::Create {
            config: MapConfig::default(),
            layout: Layout::Ranges(2),
        },
    });
    steps
}

impl Client {
    /// Begins something new now and then.
    pub(super) fn work(&mut self, ctx: &mut Ctx) {
        if self.id == ClientId(0) {
            self.set_up_next(ctx);
        }
        for place in 0..self.sessions.len() {
            let session = &self.sessions[place];
            if !session.is_attached() || session.closing || session.pending.len() >= OPEN_MAX {
                continue;
            }
            for _ in 0..self.workload.dice.between(0, 2) {
                match self.workload.dice.below(100) {
                    0..30 => self.ask_read(ctx, place),
                    30..33 => self.ask_watch(ctx, place),
                    33..50 => self.ask_lock(ctx, place),
                    50..54 => self.ask_map(ctx, place),
                    _ => self.ask_write(ctx, place),
                }
            }
        }
    }

    fn set_up_next(&mut self, ctx: &mut Ctx) {
        if self.workload.step_open || !self.sessions[0].is_attached() {
            return;
        }
        if let Some(operation) = setup(&self.workload.map)
            .into_iter()
            .nth(self.workload.step)
        {
            self.workload.step_open = true;
            let floor = ctx.checks.real_time.floor();
            self.sessions[0].ask(operation, Vec::new(), Purpose::Setup, floor);
        }
    }

    fn ask_write(&mut self, ctx: &mut Ctx, place: usize) {
        let mut purpose = Purpose::Plain;
        let mut guards = Vec::new();
        let value = self.workload.value();
        let data = value.to_le_bytes().to_vec();
        let dice = &mut self.workload.dice;
        let operation = match dice.below(100) {
            0..35 => {
                let register = dice.below(REGISTERS as u64) as usize;
                let operation = ctx.history.asked(register, Act::Write(value), ctx.now);
                purpose = Purpose::Register(register, operation);
                Operation::Set {
                    path: format!("/reg/{register}"),
                    data,
                    expected: None,
                }
            }
            35..60 => self.tree_operation(),
            60..68 => Operation::Create {
                path: "/seq/n-".to_owned(),
                data,
                kind: NodeKind {
                    ephemeral: dice.chance(700),
                    sequential: true,
                },
            },
            68..84 => {
                let known = match dice.chance(400) {
                    true => Known::Counter,
                    false => Known::Ledger,
                };
                let operation = match known == Known::Ledger && dice.chance(300) {
                    true => "change-mind",
                    false => "add",
                };
                Operation::Invoke {
                    mount: known.mount().to_owned(),
                    operation: operation.to_owned(),
                    payload: payload(dice.between(1, 9) as i64),
                }
            }
            84..89 => {
                let Some(owner) = self.an_owner(place) else {
                    return;
                };
                guards.push(fence(owner));
                Operation::Set {
                    path: format!("/owned/{}", owner.0.0 % PARTITIONS),
                    data,
                    expected: None,
                }
            }
            89..94 => {
                let Some((lock, token)) = self.a_token(place) else {
                    return;
                };
                guards.push(Guard {
                    path: format!("{}/holders/{lock}", Known::Lock.mount()),
                    token,
                });
                Operation::Set {
                    path: format!("/guarded/{lock}"),
                    data,
                    expected: None,
                }
            }
            94..97 => Operation::Sync,
            97..99 => self.multi(),
            _ if dice.chance(150) => Operation::CloseSession,
            _ => Operation::Sync,
        };
        let floor = ctx.checks.real_time.floor();
        self.sessions[place].ask(operation, guards, purpose, floor);
    }

    /// A token of a lock: one that this session holds, or one that an earlier one held.
    fn a_token(&mut self, place: usize) -> Option<(String, Zxid)> {
        let dice = &mut self.workload.dice;
        let stale = dice.pick(&self.workload.stale).cloned();
        let held = dice.pick(&self.sessions[place].holds);
        let held = held.map(|hold| (hold.lock.clone(), hold.token));
        match dice.chance(300) {
            true => stale.or(held),
            false => held.or(stale),
        }
    }

    /// A token of a partition: one that this session has, or one that an earlier one had.
    fn an_owner(&mut self, place: usize) -> Option<(PartitionId, Zxid)> {
        let dice = &mut self.workload.dice;
        let stale = dice.pick(&self.workload.stale_owners).copied();
        let worker = self.sessions[place].worker.as_ref();
        let tokens: Vec<_> = worker.map_or_else(Vec::new, |worker| worker.tokens().collect());
        let held = dice.pick(&tokens).copied();
        match dice.chance(300) {
            true => stale.or(held),
            false => held.or(stale),
        }
    }

    /// What operators ask of the map.
    fn ask_map(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let dice = &mut self.workload.dice;
        let partition = PartitionId(dice.below(u64::from(PARTITIONS) + 4) as u32);
        let mut group = GROUP;
        let operation = match dice.below(100) {
            0..35 => MapOperation::Move {
                partition,
                members: (0..dice.between(1, u64::from(self.workload.map.replicas)))
                    .map(|_| a_member(dice))
                    .collect(),
            },
            35..45 => MapOperation::CancelMove { partition },
            45..50 => MapOperation::Split { partition },
            50..62 => MapOperation::Permit {
                members: vec![a_member(dice)],
                ttl_ms: dice.between(1, 8_000),
            },
            62..66 => {
                group = dice.pick(&[GROUP, OTHER, OTHER]).copied().unwrap_or(GROUP);
                MapOperation::Freeze {
                    frozen: dice.chance(300),
                }
            }
            66..74 => {
                self.workload.map.policy = a_policy(dice);
                let config = self.workload.map.clone();
                MapOperation::Configure { config }
            }
            74..84 => MapOperation::Approve,
            84..89 => return self.ask_drain(ctx, place),
            89..92 => return self.say_health(ctx, place),
            92..94 => return self.leave(ctx, place),
            94..96 => MapOperation::Plan {
                policy: a_policy(dice),
            },
            96..98 => return self.ask_detectors(ctx, place),
            _ => return self.report_again(ctx, place),
        };
        let operation = Operation::Map {
            group: group.to_owned(),
            operation,
        };
        self.sessions[place].ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    fn ask_detectors(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let dice = &mut self.workload.dice;
        let choice = PolicyChoice {
            digest: a_detector(dice),
            configuration: String::new(),
        };
        let operation = match dice.chance(500) {
            true => Operation::TryPolicy { choice },
            false => Operation::ChooseDetector {
                group: dice
                    .pick(&["", GROUP])
                    .map_or_else(String::new, |of| (*of).to_owned()),
                choice: dice.chance(800).then_some(choice),
            },
        };
        self.sessions[place].ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    fn ask_drain(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let dice = &mut self.workload.dice;
        let operation = Operation::Group {
            group: GROUP.to_owned(),
            member: a_member(dice),
            operation: GroupOperation::Drain {
                drain: dice.chance(400),
            },
        };
        self.sessions[place].ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    /// A member leaves, and believes in nothing from here on; it may join again.
    fn leave(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let session = &mut self.sessions[place];
        let Some(worker) = session.worker.as_mut().filter(|worker| worker.is_member()) else {
            return;
        };
        worker.leave();
        let operation = Operation::Group {
            group: GROUP.to_owned(),
            member: worker.name.clone(),
            operation: GroupOperation::Leave,
        };
        ctx.seen.count(Event::MemberLeft);
        session.ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    /// A member says how it is.
    fn say_health(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let session = &mut self.sessions[place];
        let Some(worker) = &session.worker else {
            return;
        };
        let operation = Operation::Group {
            group: GROUP.to_owned(),
            member: worker.name.clone(),
            operation: GroupOperation::Report {
                healthy: self.workload.dice.chance(600),
                restart_delay_ms: None,
            },
        };
        session.ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    /// What a member said of a move that may be over long ago (rule R36).
    fn report_again(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let session = &mut self.sessions[place];
        let Some(worker) = &session.worker else {
            return;
        };
        let Some(report) = self.workload.dice.pick(&worker.said).copied() else {
            return;
        };
        // The token may have been given anew by now; the move is not the same.
        let report = match report {
            PartitionReport::Released {
                partition,
                movement,
                ..
            } => {
                let now = worker.tokens().find(|(of, _)| *of == partition);
                let Some((_, token)) = now else {
                    return;
                };
                PartitionReport::Released {
                    partition,
                    movement,
                    token,
                }
            }
            ready @ PartitionReport::Ready { .. } => ready,
        };
        let operation = Operation::Map {
            group: GROUP.to_owned(),
            operation: MapOperation::Report {
                member: worker.name.clone(),
                reports: vec![report],
            },
        };
        session.ask(operation, Vec::new(), Purpose::Plain, floor);
    }

    fn tree_operation(&mut self) -> Operation {
        let value = self.workload.value().to_le_bytes().to_vec();
        let dice = &mut self.workload.dice;
        let ephemeral = dice.chance(400);
        let path = match ephemeral {
            true => format!("/eph/{}", dice.below(8)),
            false => format!("/tree/{}", dice.below(6)),
        };
        let path = match !ephemeral && dice.chance(300) {
            true => format!("{path}/{}", dice.below(3)),
            false => path,
        };
        let expected = dice.chance(300).then(|| dice.below(4));
        match dice.below(10) {
            0..5 => Operation::Create {
                path,
                data: value,
                kind: NodeKind {
                    ephemeral,
                    sequential: false,
                },
            },
            5..8 => Operation::Set {
                path,
                data: value,
                expected,
            },
            _ => Operation::Delete { path, expected },
        }
    }

    fn multi(&mut self) -> Operation {
        let value = self.workload.value().to_le_bytes().to_vec();
        let dice = &mut self.workload.dice;
        let path = format!("/tree/{}", dice.below(6));
        Operation::Multi {
            operations: vec![
                SubOperation::Check {
                    path: "/tree".to_owned(),
                    expected: None,
                },
                SubOperation::Create {
                    path: path.clone(),
                    data: value.clone(),
                    kind: NodeKind::PERSISTENT,
                },
                SubOperation::Set {
                    path: path.clone(),
                    data: value,
                    expected: Some(0),
                },
                SubOperation::Delete {
                    path,
                    expected: Some(1),
                },
            ],
        }
    }

    /// Takes a lock, gives one back, or gives up waiting for one.
    fn ask_lock(&mut self, ctx: &mut Ctx, place: usize) {
        let floor = ctx.checks.real_time.floor();
        let dice = &mut self.workload.dice;
        let session = &mut self.sessions[place];
        let held = dice.below(session.holds.len() as u64 + 1) as usize;
        if held < session.holds.len() && dice.chance(600) {
            return release(session, held, floor);
        }
        let lock = dice.below(LOCKS).to_string();
        let waits = session.waits.len() + session.pending.len();
        if session.holds.iter().any(|hold| hold.lock == lock) || waits > 2 {
            return;
        }
        let wait_ms = match dice.below(4) {
            0 => "0".to_owned(),
            1 => "null".to_owned(),
            _ => dice.between(50, 3_000).to_string(),
        };
        let operation = Operation::Invoke {
            mount: Known::Lock.mount().to_owned(),
            operation: "acquire".to_owned(),
            payload: format!("{{\"name\":\"{lock}\",\"wait_ms\":{wait_ms}}}").into_bytes(),
        };
        session.ask(operation, Vec::new(), Purpose::Acquire(lock), floor);
    }

    /// Gives back all locks, so that nobody waits for ever when no more work is begun.
    pub(super) fn release_all(&mut self, ctx: &mut Ctx) {
        let floor = ctx.checks.real_time.floor();
        for session in &mut self.sessions {
            if session.is_attached() && !session.holds.is_empty() {
                release(session, 0, floor);
            }
        }
    }

    fn ask_read(&mut self, ctx: &mut Ctx, place: usize) {
        let Link::Up { connection, .. } = self.link else {
            return;
        };
        let dice = &mut self.workload.dice;
        let session = &mut self.sessions[place];
        let Some(stream) = session.stream() else {
            return;
        };
        let linearizable = dice.chance(600);
        let mut register = None;
        let query = match dice.below(10) {
            0..6 => {
                let place = dice.below(REGISTERS as u64) as usize;
                if linearizable {
                    register = Some((place, ctx.history.asked(place, Act::Read(0), ctx.now)));
                }
                Query::Get {
                    path: format!("/reg/{place}"),
                }
            }
            6 => Query::Exists {
                path: format!("/eph/{}", dice.below(8)),
            },
            7 => Query::Get {
                path: format!("/tree/{}", dice.below(6)),
            },
            _ => Query::Children {
                path: ["/tree", "/eph", "/seq"][dice.below(3) as usize].to_owned(),
                after: None,
                limit: 0,
            },
        };
        session.last_read = session.last_read.next();
        let floor = match linearizable {
            true => ctx.checks.real_time.floor().max(session.last_seen),
            false => session.last_seen,
        };
        let after = match dice.chance(500) {
            true => session.answered,
            false => folkmoot_proto::RequestId(session.to_send.0 - 1),
        };
        let read = Read {
            id: session.last_read,
            after,
            linearizable,
            query: query.clone(),
        };
        session.reads.insert(
            read.id,
            PendingRead {
                query,
                linearizable,
                floor,
                after,
                register,
            },
        );
        ctx.send_up(connection, Up::Frame(stream, ClientFrame::Read(read)));
    }

    fn ask_watch(&mut self, ctx: &mut Ctx, place: usize) {
        let Link::Up { connection, .. } = self.link else {
            return;
        };
        let dice = &mut self.workload.dice;
        let session = &mut self.sessions[place];
        let Some(stream) = session.stream() else {
            return;
        };
        if session.watches.len() >= 3 {
            return;
        }
        let (path, scope) = match dice.below(4) {
            0 => ("/tree", WatchScope::Recursive),
            1 => ("/eph", WatchScope::Children),
            2 => ("/seq", WatchScope::Recursive),
            _ => ("/reg/0", WatchScope::Node),
        };
        let position = dice.chance(500).then_some(session.last_seen);
        let id = session
            .watches
            .last_key_value()
            .map_or(WatchId(1), |(id, _)| id.next());
        let mut watcher = Watcher::new(path.to_owned(), scope, position);
        watcher.begun = Some((session.last_asked.next(), session.last_read.next()));
        let frame = ClientFrame::Watch(watcher.frame(id));
        session.watches.insert(id, watcher);
        ctx.send_up(connection, Up::Frame(stream, frame));
    }

    /// Completions that have arrived need not be kept.
    pub(super) fn acknowledge_completions(&mut self, ctx: &mut Ctx) {
        for session in &mut self.sessions {
            let many = session.to_acknowledge.len() > 2 || self.workload.dice.chance(100);
            if session.is_attached()
                && !session.closing
                && many
                && !session.to_acknowledge.is_empty()
            {
                let tickets = std::mem::take(&mut session.to_acknowledge);
                let operation = Operation::AcknowledgeCompletions { tickets };
                let floor = ctx.checks.real_time.floor();
                session.ask(operation, Vec::new(), Purpose::Plain, floor);
            }
        }
    }
}

/// Gives a lock back. From here on the session does not believe that it holds it, whatever becomes
/// of the request.
fn release(session: &mut Session, held: usize, floor: Zxid) {
    let hold = session.holds.remove(held);
    session.given_back.insert(hold.token);
    let operation = Operation::Invoke {
        mount: Known::Lock.mount().to_owned(),
        operation: "release".to_owned(),
        payload: format!("{{\"name\":\"{}\",\"token\":{}}}", hold.lock, hold.token).into_bytes(),
    };
    session.ask(operation, Vec::new(), Purpose::Release(hold), floor);
}
