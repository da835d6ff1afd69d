//! One world: a cluster, its clients, and what goes wrong, all from one seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use folkmoot_core::execution::{ClientEvent, ConnectionId};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::peer::PeerMessage;
use folkmoot_proto::{LogIndex, MemberId, WallTime, Zxid};

use crate::client::{Client, REGISTERS};
use crate::ctx::{Ctx, Happening};
use crate::dice::Dice;
use crate::faults::{Fault, MemberView, Schedule};
use crate::history::History;
use crate::invariants::Checks;
use crate::invariants::locks::{Believer, Thing};
use crate::member::{CLUSTER, Member, SnapshotParcel, ToExecution, ToLog, ToNetwork};
use crate::network::{Network, Parcel};
use crate::seen::{Event, Seen};
use crate::time::{Moment, Queue};
use crate::trace::Trace;
use crate::violation::{Checked, Violation};
use crate::wires::{Blocked, ClientId, Up, Wires};
use crate::{Layers, Options};

/// What happens in a world at most, about 20 times what does in one of 60 s: more is a livelock.
const HAPPENINGS_MAX: u64 = 5_000_000;
/// How long an answer takes at most in a world without faults, in milliseconds.
const ANSWER_MS: u64 = 1_000;
/// How often a partition may be given to another owner for balance when nothing changes any more: by the
/// plan for what changed last, and by the one for the loads that were reported last.
const QUIET_MOVES: usize = 2;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ctx: Ctx,
    members: Vec<Member>,
    clients: Vec<Client>,
    schedule: Schedule,
    end: Moment,
    heal_at: Moment,
    /// At most one member at a time has lost acknowledged data.
    damaged: Option<MemberId>,
    wiped: bool,
    /// What was committed when all faults ended.
    healed_at: Option<LogIndex>,
    /// When each client last had an answer to everything that it had asked.
    settled_at: Vec<Moment>,
    /// Partitions that nobody has owned since the clients became quiet, while somebody could.
    orphans: BTreeSet<PartitionId>,
    /// The last transaction of then.
    quiet_since: Zxid,
    /// Owners of then who have not believed in what they own since: their leases do not go on.
    unserved: BTreeMap<PartitionId, Zxid>,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut dice = Dice::new(seed, "world");
        let voters = dice.pick(&[1, 3, 3, 3, 3, 5]).copied().unwrap_or(3);
        let limits = limits(seed);
        let bootstrap = bootstrap_with(voters, limits);
        let ids = (1..=voters).map(MemberId);
        let whole = options.layers == Layers::Whole;
        let clients = match whole {
            true => dice.between(2, 4) as usize,
            false => 0,
        };
        let end = Moment::START.plus_millis(options.seconds * 1000);
        let heal_at = Moment(end.0 / 4 * 3);
        Self {
            ctx: Ctx {
                now: Moment::START,
                queue: Queue::new(),
                network: Network::new(seed, voters),
                wires: Wires::new(seed),
                dice,
                seen: Seen::default(),
                trace: Trace::new(options.verbose),
                checks: Checks::new(voters as usize, whole),
                history: History::new(REGISTERS),
                believes: false,
                secrets: BTreeMap::new(),
            },
            members: ids
                .map(|id| Member::new(seed, id, bootstrap.clone(), options))
                .collect(),
            clients: (0..clients)
                .map(|id| Client::new(seed, ClientId(id)))
                .collect(),
            schedule: Schedule::new(seed, clients),
            end,
            heal_at,
            damaged: None,
            wiped: false,
            healed_at: None,
            settled_at: vec![Moment::START; clients],
            orphans: BTreeSet::new(),
            quiet_since: Zxid(0),
            unserved: BTreeMap::new(),
        }
    }

    /// Lives the whole life of the world.
    pub(crate) fn run(&mut self) -> Checked {
        for id in 1..=self.members.len() as u64 {
            self.start(MemberId(id))?;
        }
        for client in &mut self.clients {
            client.begin(&mut self.ctx);
        }
        let first = self.schedule.next_at(Moment::START);
        self.ctx.queue.push(first, Happening::Fault(Fault::Next));
        self.ctx
            .queue
            .push(self.heal_at, Happening::Fault(Fault::Heal));
        let mut happened = 0_u64;
        while let Some((at, happening)) = self.ctx.queue.pop() {
            if at > self.end {
                break;
            }
            self.ctx.now = at;
            happened += 1;
            if happened > HAPPENINGS_MAX {
                return Err(Violation::new(
                    "livelock",
                    format!("{happened} things happened by {at}"),
                ));
            }
            self.happen(happening)?;
            self.hold_against_clients()?;
        }
        self.ctx.now = self.end;
        self.progress()?;
        Checks::linearizable(&self.ctx.history)
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Turn {
                member,
                life,
                thread,
            } => {
                let Self { ctx, members, .. } = self;
                return members[place(member)].turn(ctx, life, thread);
            }
            Happening::Parcel(parcel) => self.parcel(parcel),
            Happening::PeerLost { member, peer } => {
                self.member(member)
                    .give_execution(ToExecution::PeerLost { peer });
            }
            Happening::Snapshot(parcel) => self.snapshot(*parcel),
            Happening::SnapshotAnswered {
                member,
                life,
                peer,
                taken,
            } => {
                let input = match taken {
                    true => ToNetwork::SnapshotSent { to: peer },
                    false => ToNetwork::SnapshotFailed { to: peer },
                };
                self.of_life(member, life).give_network(input);
            }
            Happening::Synced { member, life } => {
                self.of_life(member, life).give_log(ToLog::Synced);
            }
            Happening::DiskDone { member, life, op } => {
                self.ctx
                    .trace
                    .note(self.ctx.now, "disk", [member.0, op.0], || {
                        format!("{member}: operation {} ends", op.0)
                    });
                if self.members[place(member)].life == life {
                    let result = self.members[place(member)].disk.finish(op);
                    self.member(member).give_log(ToLog::Done(op, result));
                }
            }
            Happening::WorkDone {
                member,
                life,
                input,
            } => {
                self.of_life(member, life).give_execution(input);
            }
            Happening::Up(connection, up) => self.up(connection, up),
            Happening::Down(client, connection, down) => {
                self.ctx.trace.note(
                    self.ctx.now,
                    "down",
                    [client.0 as u64, connection.0],
                    || format!("client {}: {down:?}", client.0),
                );
                self.note_settled(client);
                self.clients[client.0].receive(&mut self.ctx, connection, down)?;
                self.note_settled(client);
            }
            Happening::ClientTurn { client, turn } => {
                let reach: Vec<_> = self.members.iter().map(Member::reachable).collect();
                self.note_settled(client);
                self.clients[client.0].turn(&mut self.ctx, turn, &reach)?;
                self.note_settled(client);
            }
            Happening::WireLost {
                member,
                life,
                connection,
            } => {
                let event = ClientEvent::ConnectionClosed { connection };
                self.of_life(member, life)
                    .give_execution(ToExecution::Client(event));
            }
            Happening::Fault(fault) => return self.fault(fault),
        }
        Ok(())
    }

    fn note_settled(&mut self, client: ClientId) {
        if self.clients[client.0].unsettled().is_none() {
            self.settled_at[client.0] = self.ctx.now;
        }
    }

    /// What clients believe at this instant fits together and fits what was just committed.
    fn hold_against_clients(&mut self) -> Checked {
        let Self { ctx, clients, .. } = self;
        let now = ctx.now;
        let has_lease = |id| clients.iter().any(|client| client.has_lease(now, id));
        for _ in 0..ctx.checks.expiries(has_lease)? {
            ctx.seen.count(Event::SessionExpired);
        }
        for event in ctx.checks.take_events() {
            ctx.seen.count(event);
        }
        if !self.orphans.is_empty() {
            let orphans = ctx.checks.orphans();
            self.orphans.retain(|partition| orphans.contains(partition));
        }
        if std::mem::take(&mut ctx.believes) {
            for (thing, believer) in clients.iter().flat_map(|client| client.beliefs(now)) {
                if let Thing::Partition(partition) = thing
                    && self.unserved.get(&partition) == Some(&believer.token)
                {
                    self.unserved.remove(&partition);
                }
            }
            let believers = clients.iter().flat_map(|client| client.beliefs(now));
            // Whoever closed a session with its secret has given up its locks, too; the partitions of
            // a member that was taken over so wait for its lease all the same (rule R34).
            let checks = &ctx.checks;
            let stands = |(thing, believer): &(Thing<'_>, Believer)| {
                !matches!(thing, Thing::Lock(_)) || !checks.was_closed(believer.session)
            };
            crate::invariants::locks::check(believers.filter(stands))?;
        }
        Ok(())
    }

    /// Something of a client's arrives, unless its connection broke on the way.
    fn up(&mut self, connection: ConnectionId, up: Up) {
        let Some(wire) = self.ctx.wires.wire(connection) else {
            return;
        };
        let (member, life, client) = (wire.member, wire.life, wire.client.0);
        self.ctx
            .trace
            .note(self.ctx.now, "up", [client as u64, member.0], || {
                format!("client {client} to {member}: {up:?}")
            });
        let event = match up {
            Up::Frame(stream, frame) => ClientEvent::Frame {
                connection,
                stream,
                frame,
            },
            Up::StreamClosed(stream) => ClientEvent::StreamClosed {
                stream,
                by_client: true,
            },
            Up::Drained(stream, bytes) => ClientEvent::Drained { stream, bytes },
            Up::Heartbeat(sequence, sessions) => ClientEvent::Heartbeat {
                connection,
                sequence,
                arrived: self.members[place(member)].tick(self.ctx.now),
                rtt_micros: 0,
                sessions,
            },
        };
        self.of_life(member, life)
            .give_execution(ToExecution::Client(event));
    }

    fn parcel(&mut self, parcel: Parcel) {
        let Some(parcel) = self.ctx.network.arrive(parcel) else {
            return;
        };
        let Parcel {
            from,
            to,
            stream,
            message,
            ..
        } = parcel;
        self.ctx.trace.note(
            self.ctx.now,
            "message",
            [from.0, to.0, stream as u64],
            || format!("{from} to {to}: {message:?}"),
        );
        match message {
            PeerMessage::Consensus(message) => {
                self.member(to)
                    .give_network(ToNetwork::Message { from, message });
            }
            PeerMessage::Execution(message) => {
                self.member(to)
                    .give_execution(ToExecution::Peer { from, message });
            }
        }
    }

    fn snapshot(&mut self, parcel: SnapshotParcel) {
        let Self { ctx, members, .. } = self;
        let (from, to, life) = (parcel.from, parcel.to, parcel.from_life);
        let whole =
            ctx.network.epoch(from, to) == parcel.link_epoch && !ctx.network.is_cut(from, to);
        let taken = whole && members[place(to)].receive_snapshot(ctx, parcel);
        ctx.trace.note(
            ctx.now,
            "snapshot",
            [from.0, to.0, u64::from(taken)],
            || {
                format!(
                    "{from} to {to}: {}",
                    if taken { "taken" } else { "not taken" }
                )
            },
        );
        if !taken {
            // The sender finds out when the stream's time is over.
            let at = ctx.now.plus_millis(500);
            ctx.queue.push(
                at,
                Happening::SnapshotAnswered {
                    member: from,
                    life,
                    peer: to,
                    taken,
                },
            );
        }
    }

    fn fault(&mut self, fault: Fault) -> Checked {
        let after_heal = matches!(
            fault,
            Fault::Start(_)
                | Fault::Resume(_)
                | Fault::Mend
                | Fault::MendDisk(_)
                | Fault::StormEnds
                | Fault::ResumeClient(_)
                | Fault::Quiet
        );
        if self.schedule.healed && !after_heal {
            return Ok(());
        }
        self.ctx
            .trace
            .note(self.ctx.now, "fault", [], || format!("{fault:?}"));
        match fault {
            Fault::Next => self.next_fault(),
            Fault::Crash(id, kind) => self.crash(id, kind),
            Fault::End(id) => self.crash(id, crate::disk::CrashKind::Process),
            Fault::Start(id) => self.start(id)?,
            Fault::Wipe(id) => self.wipe(id),
            Fault::Rot(id) => self.rot(id),
            Fault::Pause(id) => self.member(id).pause(),
            Fault::Resume(id) => self.member(id).resume(),
            Fault::Partition(shape) => {
                let ids: Vec<_> = self.members.iter().map(|member| member.id).collect();
                self.ctx.seen.count(Event::Partition);
                for (from, to) in shape.blocked(&ids) {
                    self.ctx.network.block(from, to);
                    let give_up = self.ctx.dice.between(1_500, 6_000);
                    let at = self.ctx.now.plus_millis(give_up);
                    self.ctx
                        .queue
                        .push(at, Happening::Fault(Fault::GiveUp(from, to)));
                }
            }
            Fault::Mend => {
                for (at, parcel) in self.ctx.network.open_all(self.ctx.now) {
                    self.ctx.queue.push(at, Happening::Parcel(parcel));
                }
            }
            Fault::BreakLink(a, b) => self.ctx.break_connection(a, b),
            Fault::GiveUp(a, b) => {
                if self.ctx.network.is_cut(a, b) {
                    self.ctx.break_connection(a, b);
                }
            }
            Fault::Storm => self.ctx.network.set_storm(true),
            Fault::StormEnds => self.ctx.network.set_storm(false),
            Fault::SlowDisk(id) => self.members[place(id)].disk.set_slow(true),
            Fault::FailSync(id) => self.members[place(id)].disk.fail_next(),
            Fault::FullDisk(id) => self.members[place(id)].disk.set_full(true),
            Fault::MendDisk(id) => self.members[place(id)].disk.heal(),
            Fault::StallExecution(id, micros) => {
                let until = self.ctx.now.plus_micros(micros);
                self.members[place(id)].stall_execution(until);
            }
            Fault::JumpWallClock(id, millis) => {
                self.ctx.seen.count(Event::ClockJump);
                self.members[place(id)].jump_wall_clock(millis);
            }
            Fault::Transfer(id) => self.member(id).give_network(ToNetwork::Transfer),
            Fault::PauseClient(id) => self.clients[id.0].pause(&mut self.ctx),
            Fault::ResumeClient(id) => return self.clients[id.0].resume(&mut self.ctx),
            Fault::CrashClient(id) => self.clients[id.0].crash(&mut self.ctx),
            Fault::MoveClient(id) => self.clients[id.0].move_away(&mut self.ctx),
            Fault::BlockClient(id) => {
                self.clients[id.0].block_link(&mut self.ctx, Blocked::Everything);
            }
            Fault::StallClient(id) => {
                self.clients[id.0].block_link(&mut self.ctx, Blocked::Streams);
            }
            Fault::Quiet => {
                self.orphans = self.ctx.checks.orphans();
                self.unserved = self.ctx.checks.owners();
                self.quiet_since = self.ctx.checks.zxid();
                self.clients
                    .iter_mut()
                    .for_each(|client| client.quiet = true);
            }
            Fault::Heal => return self.heal(),
        }
        Ok(())
    }

    fn next_fault(&mut self) {
        let views: Vec<_> = self.members.iter().map(view).collect();
        for (after, fault) in self.schedule.draw(&views) {
            let at = self.ctx.now.plus_micros(after);
            self.ctx.queue.push(at, Happening::Fault(fault));
        }
        let next = self.schedule.next_at(self.ctx.now);
        self.ctx.queue.push(next, Happening::Fault(Fault::Next));
    }

    fn crash(&mut self, id: MemberId, kind: crate::disk::CrashKind) {
        let Self { ctx, members, .. } = self;
        if !members[place(id)].is_up() {
            return;
        }
        members[place(id)].crash(ctx, kind);
        for peer in members
            .iter()
            .map(|member| member.id)
            .filter(|peer| *peer != id)
        {
            ctx.break_connection(id, peer);
        }
    }

    /// Starts a member that is down. A folder that its disk has damaged beyond use is emptied, as
    /// an operator would do.
    fn start(&mut self, id: MemberId) -> Checked {
        let Self { ctx, members, .. } = self;
        let member = &mut members[place(id)];
        if member.is_up() || member.start(ctx)? {
            return Ok(());
        }
        member.wipe(ctx);
        self.wiped = true;
        match member.start(ctx)? {
            true => Ok(()),
            false => Err(Violation::new(
                "recovery",
                format!("member {id} refuses an empty folder"),
            )),
        }
    }

    /// Whether a member that is down may lose acknowledged data: what the promise speaks of is a
    /// majority of disks that keep theirs, so all it had is on a majority without it.
    fn may_lose(&mut self, id: MemberId) -> bool {
        if let Some(damaged) = self.damaged
            && let Some(consensus) = self.members[place(damaged)].consensus()
            && consensus.status().may_vote
        {
            self.damaged = None;
        }
        let alone = self.damaged.is_none_or(|damaged| damaged == id) && !self.wiped;
        alone && !self.members[place(id)].is_up() && self.ctx.checks.logs.covered_without(id)
    }

    fn wipe(&mut self, id: MemberId) {
        if self.may_lose(id) {
            self.damaged = Some(id);
            self.wiped = true;
            let Self { ctx, members, .. } = self;
            members[place(id)].wipe(ctx);
        }
    }

    fn rot(&mut self, id: MemberId) {
        if self.may_lose(id) && self.members[place(id)].disk.rot() {
            self.damaged = Some(id);
            self.members[place(id)].rotted = true;
            self.ctx.seen.count(Event::BitRot);
        }
    }

    /// Everything that is wrong ends, and the cluster is left to itself.
    fn heal(&mut self) -> Checked {
        self.schedule.healed = true;
        self.ctx.network.calm();
        self.fault(Fault::Mend)?;
        for place in 0..self.members.len() {
            self.members[place].disk.heal();
            self.start(MemberId(place as u64 + 1))?;
            let Self { ctx, members, .. } = self;
            if members[place].is_paused() {
                members[place].resume(ctx);
            }
            members[place].give_execution(ctx, ToExecution::Heal);
        }
        for connection in self.ctx.wires.calm() {
            self.ctx.cut_wire(connection);
        }
        for client in &mut self.clients {
            client.resume(&mut self.ctx)?;
        }
        let quiet_at = Moment(self.ctx.now.0 + (self.end.0 - self.ctx.now.0) / 2);
        self.ctx
            .queue
            .push(quiet_at, Happening::Fault(Fault::Quiet));
        self.healed_at = Some(self.ctx.checks.last_committed());
        Ok(())
    }

    /// After the healing the cluster has gone on: there is one leader, and everyone has what was
    /// committed a while ago.
    fn progress(&self) -> Checked {
        let committed = self.ctx.checks.last_committed();
        let healed_at = self.healed_at.unwrap_or_default();
        let stuck = |facts: String| Err(Violation::new("progress", facts));
        if committed.0 < healed_at.0 + 10 {
            return stuck(format!(
                "entries up to {healed_at} were committed when the faults ended, {committed} now"
            ));
        }
        let settled = self.clients.iter().zip(&self.settled_at);
        let mut late = settled.filter(|(_, at)| at.plus_millis(ANSWER_MS) < self.end);
        if let Some(unsettled) = late.find_map(|(client, _)| client.unsettled()) {
            return stuck(unsettled);
        }
        // Half of the time without faults is longer than any delay of the map.
        if let Some(orphan) = self.orphans.first() {
            let facts = self.ctx.checks.of_partition(*orphan);
            return stuck(format!("partition {orphan} gets no owner: {facts}"));
        }
        let owners = self.ctx.checks.owners();
        let unserved =
            |(partition, token): &(&PartitionId, &Zxid)| owners.get(*partition) == Some(*token);
        if let Some((partition, token)) = self.unserved.iter().find(unserved) {
            let facts = self.ctx.checks.of_partition(*partition);
            return stuck(format!(
                "the owner of {partition} by {token} serves nothing: {facts}"
            ));
        }
        // Nothing changes any more, and the breaker stops whoever plans on all the same (rule R37).
        if let Some(partition) = self.ctx.checks.restless(self.quiet_since, QUIET_MOVES) {
            let facts = self.ctx.checks.of_partition(partition);
            return stuck(format!("partition {partition} moves on and on: {facts}"));
        }
        for member in &self.members {
            let Some(engine) = member.engine() else {
                return stuck(format!("member {} is down", member.id));
            };
            let applied = engine.applied().index;
            if applied.0 < healed_at.0 + 5 {
                return stuck(format!(
                    "member {} has applied entries up to {applied} only, {committed} are committed",
                    member.id
                ));
            }
        }
        Ok(())
    }

    fn member(&mut self, id: MemberId) -> Handle<'_> {
        let Self { ctx, members, .. } = self;
        Handle {
            ctx,
            member: Some(&mut members[place(id)]),
        }
    }

    /// A member, if it still is in the life that was meant.
    fn of_life(&mut self, id: MemberId, life: u64) -> Handle<'_> {
        let Self { ctx, members, .. } = self;
        let member = Some(&mut members[place(id)]).filter(|member| member.life == life);
        Handle { ctx, member }
    }
}

/// A member and the context it works in.
struct Handle<'a> {
    ctx: &'a mut Ctx,
    member: Option<&'a mut Member>,
}

impl Handle<'_> {
    fn give_network(self, input: ToNetwork) {
        if let Some(member) = self.member {
            member.give_network(self.ctx, input);
        }
    }

    fn give_execution(self, input: ToExecution) {
        if let Some(member) = self.member {
            member.give_execution(self.ctx, input);
        }
    }

    fn give_log(self, input: ToLog) {
        if let Some(member) = self.member {
            member.give_log(self.ctx, input);
        }
    }

    fn pause(self) {
        if let Some(member) = self.member {
            member.pause(self.ctx);
        }
    }

    fn resume(self) {
        if let Some(member) = self.member {
            member.resume(self.ctx);
        }
    }
}

fn place(id: MemberId) -> usize {
    id.0 as usize - 1
}

fn view(member: &Member) -> MemberView {
    MemberView {
        id: member.id,
        up: member.is_up(),
        leads: member.leads(),
    }
}

/// The caps of a world: the defaults, which nothing in it reaches, or so small that they are met.
fn limits(seed: u64) -> Limits {
    let mut dice = Dice::new(seed, "limits");
    let defaults = Limits::default();
    let mut one_of = |usual: u32, small: u32| match dice.chance(300) {
        true => small,
        false => usual,
    };
    Limits {
        session_replies_max: one_of(defaults.session_replies_max, 8),
        session_ephemerals_max: one_of(defaults.session_ephemerals_max, 6),
        session_waits_max: one_of(defaults.session_waits_max, 6),
        views_max: one_of(defaults.views_max, 2),
        watcher_bytes_max: one_of(defaults.watcher_bytes_max, 512),
        watch_history_bytes_max: one_of(defaults.watch_history_bytes_max, 16_384),
        mount_events_max: one_of(defaults.mount_events_max, 3),
        ..defaults
    }
}

pub(crate) fn bootstrap(voters: u64) -> Bytes {
    bootstrap_with(voters, Limits::default())
}

pub(crate) fn bootstrap_with(voters: u64, limits: Limits) -> Bytes {
    let members = (1..=voters).map(|id| BootstrapMember {
        id: MemberId(id),
        peer_address: format!("member-{id}:1"),
        client_address: format!("member-{id}:2"),
    });
    let bootstrap = Bootstrap {
        cluster: CLUSTER,
        created: WallTime(1_767_225_600_000),
        members: members.collect(),
        limits,
    };
    bootstrap.to_bytes().into()
}
