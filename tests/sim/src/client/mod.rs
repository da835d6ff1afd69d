//! A client process: one connection at a time, some sessions, clocks of its own. It keeps to the
//! protocol as the client crate does, retries, moves to other members and resumes; and it checks
//! what it is told.

mod receive;
mod session;
pub(crate) mod watcher;
pub(crate) mod worker;
mod workload;

use std::collections::{BTreeMap, VecDeque};

use folkmoot_core::execution::ConnectionId;
use folkmoot_proto::client::ClientFrame;
use folkmoot_proto::{MemberId, SessionId, SessionSecret, Tick};

use crate::clock::Clock;
use crate::ctx::{Ctx, Happening};
use crate::dice::Dice;
use crate::invariants::locks::{Believer, Thing};
use crate::seen::Event;
use crate::time::Moment;
use crate::violation::Checked;
use crate::wires::{Blocked, ClientId, Down, Up};
pub(crate) use receive::token_of;
use session::{Session, Stage};
use worker::Worker;
pub(crate) use workload::REGISTERS;
use workload::{Workload, map_config};

/// The client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: Moment,
    },
    Up {
        connection: ConnectionId,
        member: MemberId,
        heard_at: Moment,
    },
}

/// Whom a client can reach: members that are up, with the life they are in.
pub(crate) type Reach = [Option<u64>];

#[derive(Debug)]
pub(crate) struct Client {
    id: ClientId,
    dice: Dice,
    clock: Clock,
    link: Link,
    avoid: Option<MemberId>,
    sessions: Vec<Session>,
    paused: bool,
    held: VecDeque<(ConnectionId, Down)>,
    turn: u64,
    heartbeats: BTreeMap<u64, Tick>,
    last_heartbeat: u64,
    heartbeat_at: Moment,
    gap: u64,
    workload: Workload,
    /// Nothing new is begun.
    pub(crate) quiet: bool,
}

impl Client {
    pub(crate) fn new(seed: u64, id: ClientId) -> Self {
        let mut dice = Dice::new(seed, &format!("client {}", id.0));
        let sessions = dice.between(1, 2);
        let mut client = Self {
            id,
            clock: Clock::new(&mut dice, Moment::START),
            link: Link::Down {
                retry_at: Moment::START,
            },
            avoid: None,
            sessions: Vec::new(),
            paused: false,
            held: VecDeque::new(),
            turn: 0,
            heartbeats: BTreeMap::new(),
            last_heartbeat: 0,
            heartbeat_at: Moment::START,
            gap: dice
                .pick(&[15_000, 40_000, 100_000])
                .copied()
                .unwrap_or(40_000),
            workload: Workload::new(
                id,
                Dice::new(seed, &format!("workload {}", id.0)),
                map_config(seed),
            ),
            dice,
            quiet: false,
        };
        for _ in 0..sessions {
            client.add_session();
        }
        client
    }

    /// Begins with a first turn soon.
    pub(crate) fn begin(&mut self, ctx: &mut Ctx) {
        self.turn_in(ctx, 5_000);
    }

    fn add_session(&mut self) {
        let mut secret = [0; 32];
        for bytes in secret.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.dice.bits().to_le_bytes());
        }
        let timeout_ms = self
            .dice
            .pick(&[1_000, 2_000, 4_000])
            .copied()
            .unwrap_or(2_000);
        let worker = self.dice.chance(700).then(|| self.a_worker());
        let session = Session::new(SessionSecret(secret), timeout_ms, worker);
        self.sessions.push(session);
    }

    /// A member of the group under a name of its own, or now and then under another one's.
    fn a_worker(&mut self) -> Worker {
        let own = match self.dice.chance(850) {
            true => self.id.0 as u64,
            false => self.dice.below(4),
        };
        let place = self.sessions.len();
        Worker::new(format!("w{own}-{place}"), &mut self.dice)
    }

    fn turn_in(&mut self, ctx: &mut Ctx, micros: u64) {
        self.turn += 1;
        let at = ctx.now.plus_micros(self.dice.delay(micros));
        ctx.queue.push(
            at,
            Happening::ClientTurn {
                client: self.id,
                turn: self.turn,
            },
        );
    }

    /// The client's own turn: connection, heartbeats, sessions, new work.
    pub(crate) fn turn(&mut self, ctx: &mut Ctx, turn: u64, reach: &Reach) -> Checked {
        if turn != self.turn || self.paused {
            return Ok(());
        }
        self.tend_link(ctx, reach);
        if let Link::Up { connection, .. } = self.link {
            self.attach_sessions(ctx, connection);
            if ctx.now >= self.heartbeat_at {
                self.heartbeat(ctx, connection);
            }
        }
        self.look_at_leases(ctx);
        self.tend_workers(ctx);
        if !self.quiet {
            self.replace_sessions();
            self.work(ctx);
        } else {
            self.release_all(ctx);
        }
        self.acknowledge_completions(ctx);
        for place in 0..self.sessions.len() {
            self.send_pending(ctx, place);
        }
        let gap = self.gap;
        self.turn_in(ctx, gap);
        Ok(())
    }

    /// Connects, or gives up a connection that is silent.
    fn tend_link(&mut self, ctx: &mut Ctx, reach: &Reach) {
        match self.link {
            Link::Down { retry_at } if ctx.now >= retry_at => self.connect(ctx, reach),
            Link::Up {
                connection,
                heard_at,
                member,
            } if ctx.now.micros_since(heard_at) > 1_500_000 => {
                self.avoid = Some(member);
                ctx.cut_wire(connection);
                self.lose_link(ctx);
            }
            _ => {}
        }
    }

    fn connect(&mut self, ctx: &mut Ctx, reach: &Reach) {
        let members = 1..=reach.len() as u64;
        let mut choices: Vec<_> = members.map(MemberId).collect();
        if choices.len() > 1 {
            choices.retain(|member| Some(*member) != self.avoid);
        }
        let Some(member) = self.dice.pick(&choices).copied() else {
            return;
        };
        let Some(life) = reach[member.0 as usize - 1] else {
            self.avoid = Some(member);
            self.link = Link::Down {
                retry_at: ctx.now.plus_micros(self.dice.delay(60_000)),
            };
            return;
        };
        let connection = ctx.wires.connect(self.id, member, life);
        self.heartbeats.clear();
        self.heartbeat_at = ctx.now;
        self.link = Link::Up {
            connection,
            member,
            heard_at: ctx.now,
        };
    }

    fn lose_link(&mut self, ctx: &mut Ctx) {
        self.link = Link::Down {
            retry_at: ctx.now.plus_micros(self.dice.delay(20_000)),
        };
        self.sessions.iter_mut().for_each(Session::detach);
    }

    /// Leaves its member for another, as a client does that hears of trouble.
    pub(crate) fn move_away(&mut self, ctx: &mut Ctx) {
        if let Link::Up {
            connection, member, ..
        } = self.link
            && !self.paused
        {
            self.avoid = Some(member);
            ctx.cut_wire(connection);
            self.lose_link(ctx);
        }
    }

    /// This does not get through its connection.
    pub(crate) fn block_link(&mut self, ctx: &mut Ctx, what: Blocked) {
        if let Link::Up { connection, .. } = self.link {
            ctx.wires.block(connection, what);
        }
    }

    fn attach_sessions(&mut self, ctx: &mut Ctx, connection: ConnectionId) {
        for place in 0..self.sessions.len() {
            if self.sessions[place].stage != Stage::Detached || !self.dice.chance(700) {
                continue;
            }
            let stream = ctx.wires.open_stream(connection);
            let session = &mut self.sessions[place];
            session.stage = Stage::Asking(stream);
            let frame = match session.id {
                None => ClientFrame::Open {
                    secret: session.secret,
                    timeout_ms: session.timeout_ms,
                },
                Some(id) => ClientFrame::Resume {
                    session: id,
                    secret: session.secret,
                    last_seen: session.last_seen,
                },
            };
            ctx.send_up(connection, Up::Frame(stream, frame));
        }
    }

    fn heartbeat(&mut self, ctx: &mut Ctx, connection: ConnectionId) {
        let attached = self.sessions.iter().filter(|session| session.is_attached());
        let sessions: Vec<_> = attached
            .filter_map(|session| Some((session.id?, session.epoch)))
            .collect();
        let shortest = self.sessions.iter().map(|session| session.timeout_ms).min();
        let gap = u64::from(shortest.unwrap_or(2_000)) * 1_000 / 5;
        self.heartbeat_at = ctx.now.plus_micros(self.dice.between(gap / 2, gap));
        self.last_heartbeat += 1;
        self.heartbeats
            .insert(self.last_heartbeat, self.clock.tick(ctx.now));
        ctx.send_up(connection, Up::Heartbeat(self.last_heartbeat, sessions));
    }

    fn look_at_leases(&mut self, ctx: &mut Ctx) {
        let tick = self.clock.tick(ctx.now);
        for session in &mut self.sessions {
            let jeopardy = session.lease_until.is_some() && !session.has_lease(tick);
            if jeopardy && !session.in_jeopardy {
                ctx.seen.count(Event::Jeopardy);
            }
            session.in_jeopardy = jeopardy;
        }
    }

    fn replace_sessions(&mut self) {
        let over = self
            .sessions
            .iter()
            .position(|session| session.stage == Stage::Over);
        if let Some(place) = over
            && self.dice.chance(200)
        {
            let old = self.sessions.remove(place);
            self.workload.remember_stale(&old);
            self.add_session();
        }
    }

    /// Sends what is to be sent on a session's stream, in order.
    fn send_pending(&mut self, ctx: &mut Ctx, place: usize) {
        let Link::Up { connection, .. } = self.link else {
            return;
        };
        let session = &mut self.sessions[place];
        let (Stage::Attached(stream), Some(id)) = (session.stage, session.id) else {
            return;
        };
        if ctx.now < session.patience_until {
            return;
        }
        let answered = session.answered;
        for pending in &mut session.pending {
            if pending.request.id < session.to_send {
                continue;
            }
            pending.request.acked_up_to = answered;
            if pending.sent == 0 {
                ctx.checks.asked(id, &pending.request);
            }
            pending.sent += 1;
            session.to_send = pending.request.id.next();
            let frame = ClientFrame::Request(pending.request.clone());
            ctx.send_up(connection, Up::Frame(stream, frame));
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, ctx: &mut Ctx) {
        if !self.paused {
            self.paused = true;
            ctx.seen.count(Event::Pause);
        }
    }

    /// SIGCONT: what came in meanwhile is taken at once, and time has jumped.
    pub(crate) fn resume(&mut self, ctx: &mut Ctx) -> Checked {
        if !std::mem::take(&mut self.paused) {
            return Ok(());
        }
        while let Some((connection, down)) = self.held.pop_front() {
            self.receive(ctx, connection, down)?;
        }
        self.turn_in(ctx, 1_000);
        Ok(())
    }

    /// The process is killed and started again: it knows nothing of its sessions.
    pub(crate) fn crash(&mut self, ctx: &mut Ctx) {
        if let Link::Up { connection, .. } = self.link {
            ctx.cut_wire(connection);
        }
        self.lose_link(ctx);
        self.held.clear();
        self.paused = false;
        let count = self.sessions.len();
        for session in std::mem::take(&mut self.sessions) {
            self.workload.remember_stale(&session);
        }
        for _ in 0..count {
            self.add_session();
        }
        self.turn_in(ctx, 10_000);
    }

    /// Whether this client believes that a session lives.
    pub(crate) fn has_lease(&self, now: Moment, id: SessionId) -> bool {
        let tick = self.clock.tick(now);
        let mut sessions = self.sessions.iter();
        sessions.any(|session| session.id == Some(id) && session.has_lease(tick))
    }

    /// The locks and the partitions that this client believes it has.
    pub(crate) fn beliefs(&self, now: Moment) -> impl Iterator<Item = (Thing<'_>, Believer)> {
        let tick = self.clock.tick(now);
        self.sessions.iter().flat_map(move |session| {
            let holds = session
                .holds
                .iter()
                .filter(move |_| session.has_lease(tick));
            let locks = holds.map(|hold| (Thing::Lock(&hold.lock), hold.token));
            let partitions = session.partitions(tick);
            let partitions = partitions.map(|(of, token)| (Thing::Partition(of), token));
            locks.chain(partitions).filter_map(|(thing, token)| {
                let session = session.id?;
                Some((thing, Believer { session, token }))
            })
        })
    }

    /// What is not settled, for whoever wonders why.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let session = self.sessions.iter().find(|session| !session.is_settled())?;
        Some(format!(
            "client {}, session {:?} ({:?}): {} requests and {} waits are open, first {:?}",
            self.id.0,
            session.id,
            session.stage,
            session.pending.len(),
            session.waits.len(),
            session.pending.front().map(|pending| &pending.request),
        ))
    }
}
