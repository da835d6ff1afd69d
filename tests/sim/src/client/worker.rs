//! A member of the group whose partition map the world keeps: it follows the map, believes in what
//! it owns as long as its lease goes (rule R35), catches up, and lets go when it is asked, or does
//! not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_proto::client::{ClientFrame, Guard, Operation};
use folkmoot_proto::codec::Compact as _;
use folkmoot_proto::group::{GroupOperation, MemberSpec};
use folkmoot_proto::partition::{
    FullBody, MapDetail, MapOperation, MapUpdate, MemberNo, MovePhase, PartitionId, PartitionLoad,
    PartitionRecord, PartitionReport, RoutedMember, owner_path,
};
use folkmoot_proto::{SessionSecret, Tick, Zxid};

use super::session::{Purpose, Session};
use super::{Client, Link};
use crate::clock::DRIFT_PPM;
use crate::ctx::Ctx;
use crate::dice::Dice;
use crate::seen::Event;
use crate::violation::{Checked, Violation};
use crate::wires::Up;

/// The group that has a map.
pub(crate) const GROUP: &str = "shards";
/// Another group with a map, in which nobody is: it changes beside the first one's.
pub(crate) const OTHER: &str = "others";
/// The partitions that a map begins with.
pub(crate) const PARTITIONS: u32 = 8;
/// Acknowledgements that wait for the map to be taken in.
const ACKNOWLEDGEMENTS_MAX: usize = 64;

/// A copy of the map, as it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copy {
    /// Every change up to here is in it; none before a whole map came.
    pub(crate) through: Option<Zxid>,
    pub(crate) layout: Zxid,
    pub(crate) members: BTreeMap<MemberNo, RoutedMember>,
    pub(crate) partitions: BTreeMap<PartitionId, PartitionRecord>,
}

impl Copy {
    fn take(&mut self, body: FullBody) {
        self.layout = body.layout;
        let members = body.members.into_iter();
        self.members
            .extend(members.map(|member| (member.member, member)));
        self.partitions.extend(body.partitions);
    }
}

/// A partition that was given to this member.
#[derive(Clone, Debug)]
struct Held {
    token: Zxid,
    /// The move that takes it away, and the lease that it had when that was taken in.
    revoke: Option<(Zxid, Option<Tick>)>,
    released: bool,
}

/// A session's part in the group.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    zone: &'static str,
    join_asked: bool,
    /// The zxid of its join (rule R34).
    incarnation: Option<Zxid>,
    /// The secret of the session that lives as this member, to be taken over (rule R34).
    predecessor: Option<SessionSecret>,
    watches: bool,
    /// It was told of the map in the present stream: nothing may overtake what is told.
    in_place: bool,
    copy: Copy,
    /// How far it was told of the other group's map.
    other: Option<Zxid>,
    /// The parts of a map that is told anew.
    parts: Option<Copy>,
    held: BTreeMap<PartitionId, Held>,
    lease_until: Option<Tick>,
    acknowledged: VecDeque<(Tick, Zxid)>,
    /// Reports that are not answered.
    pub(crate) reporting: bool,
    /// Reports of moves that are over, to be said again (rule R36).
    pub(crate) said: Vec<PartitionReport>,
    /// It does not let go, as long as it may believe.
    stubborn: bool,
}

impl Worker {
    pub(crate) fn new(name: String, dice: &mut Dice) -> Self {
        Self {
            name,
            zone: dice.pick(&["east", "west"]).copied().unwrap_or("east"),
            join_asked: false,
            incarnation: None,
            predecessor: None,
            watches: false,
            in_place: false,
            copy: Copy::default(),
            other: None,
            parts: None,
            held: BTreeMap::new(),
            lease_until: None,
            acknowledged: VecDeque::new(),
            reporting: false,
            said: Vec::new(),
            stubborn: dice.chance(150),
        }
    }

    pub(crate) fn detach(&mut self) {
        self.watches = false;
        self.in_place = false;
        self.parts = None;
    }

    /// Whether it has joined.
    pub(crate) fn is_member(&self) -> bool {
        self.incarnation.is_some()
    }

    /// It is to be no member any more.
    pub(crate) fn leave(&mut self) {
        self.incarnation = None;
        self.held.clear();
        self.said.clear();
    }

    /// How far it was told, if nothing may overtake that.
    pub(crate) fn told(&self) -> Option<Zxid> {
        self.copy.through.filter(|_| self.in_place)
    }

    /// What it believes to own.
    pub(crate) fn beliefs(&self, tick: Tick) -> impl Iterator<Item = (PartitionId, Zxid)> {
        let held = self.held.iter();
        held.filter(move |(_, held)| !held.released && self.has_lease(held, tick))
            .map(|(partition, held)| (*partition, held.token))
    }

    fn has_lease(&self, held: &Held, tick: Tick) -> bool {
        let until = held.revoke.map_or(self.lease_until, |(_, until)| until);
        until.is_some_and(|until| until > tick)
    }

    /// A heartbeat was acknowledged.
    pub(crate) fn acknowledged(&mut self, sent: Tick, position: Option<Zxid>, timeout_ms: u32) {
        if let Some(position) = position
            && self.copy.through.is_some()
        {
            self.acknowledged.push_back((sent, position));
        }
        if self.acknowledged.len() > ACKNOWLEDGEMENTS_MAX {
            self.acknowledged.pop_front();
        }
        self.extend_lease(timeout_ms);
    }

    /// The lease goes on by what was acknowledged and taken in.
    fn extend_lease(&mut self, timeout_ms: u32) {
        let through = self.copy.through;
        let micros = u64::from(timeout_ms) * (1_000_000 - DRIFT_PPM) / 1_000;
        let mut until = self.lease_until;
        self.acknowledged.retain(|(sent, position)| {
            let known = through >= Some(*position);
            if known {
                until = until.max(Some(Tick(sent.0 + micros)));
            }
            !known
        });
        self.lease_until = until;
    }

    /// An update of the map.
    fn update(&mut self, update: &MapUpdate, timeout_ms: u32) -> Result<bool, String> {
        let body = FullBody::from_compact(&update.body).map_err(|error| error.to_string())?;
        let whole = update.through != Zxid::ZERO;
        let anew = match update.base {
            None => Some(Copy::default()),
            Some(Zxid::ZERO) => self.parts.take(),
            Some(base) if Some(base) == self.copy.through => None,
            Some(_) => return Err(format!("it has the map as of {:?}", self.copy.through)),
        };
        match anew {
            Some(mut copy) => {
                copy.take(body);
                if !whole {
                    self.parts = Some(copy);
                    return Ok(false);
                }
                self.copy = copy;
            }
            None => self.copy.take(body),
        }
        if self.copy.through > Some(update.through) {
            return Err(format!("it has the map as of {:?}", self.copy.through));
        }
        self.copy.through = Some(update.through);
        self.in_place = true;
        self.look();
        self.extend_lease(timeout_ms);
        Ok(true)
    }

    /// An update of the other group's map, of which it keeps how far it is.
    fn update_other(&mut self, update: &MapUpdate) -> Result<(), String> {
        let follows = update.base.is_none() || update.base == self.other;
        if !follows || self.other > Some(update.through) {
            return Err(format!("it has the other map as of {:?}", self.other));
        }
        self.other = Some(update.through);
        Ok(())
    }

    /// What it has by the map: what is no more its own goes, revokes end leases.
    fn look(&mut self) {
        let mine = |record: &PartitionRecord| {
            let owner = record.assignment.owner?;
            let member = self.copy.members.get(&owner.member)?;
            let is_mine = member.id == self.name
                && Some(owner.incarnation) == self.incarnation
                && member.incarnation == self.incarnation;
            is_mine.then_some(owner.token)
        };
        let tokens: BTreeMap<PartitionId, Zxid> = self
            .copy
            .partitions
            .iter()
            .filter_map(|(partition, record)| Some((*partition, mine(record)?)))
            .collect();
        self.held
            .retain(|partition, held| tokens.get(partition) == Some(&held.token));
        for (partition, token) in tokens {
            let held = self.held.entry(partition).or_insert(Held {
                token,
                revoke: None,
                released: false,
            });
            let record = &self.copy.partitions[&partition];
            let movement = record.assignment.movement.as_ref();
            let revoking = movement.filter(|of| of.phase == MovePhase::Revoking);
            if let Some(movement) = revoking
                && held.revoke.is_none()
            {
                held.revoke = Some((movement.id, self.lease_until));
            }
        }
    }

    /// What it has to say: some of it, now and then.
    fn reports(&mut self, dice: &mut Dice, quiet: bool) -> Vec<PartitionReport> {
        let mut reports = Vec::new();
        let per_mille = if quiet { 600 } else { 250 };
        for (partition, held) in &mut self.held {
            let Some((movement, _)) = held.revoke else {
                continue;
            };
            let lets_go = held.released || (!self.stubborn && dice.chance(per_mille));
            if lets_go || quiet {
                held.released = true;
                reports.push(PartitionReport::Released {
                    partition: *partition,
                    movement,
                    token: held.token,
                });
            }
        }
        for (partition, record) in &self.copy.partitions {
            let mut replicas = record.assignment.replicas.iter();
            let unready = replicas.any(|replica| {
                let member = self.copy.members.get(&replica.member);
                member.is_some_and(|member| member.id == self.name)
                    && Some(replica.incarnation) == self.incarnation
                    && !replica.ready
            });
            if let Some(movement) = &record.assignment.movement
                && unready
                && dice.chance(per_mille)
            {
                reports.push(PartitionReport::Ready {
                    partition: *partition,
                    movement: movement.id,
                });
            }
        }
        reports
    }

    /// What it measured of what it owns; now and then of what it does not own by that token.
    fn loads(&self, dice: &mut Dice) -> Vec<PartitionLoad> {
        let load = |(partition, token): (PartitionId, Zxid)| PartitionLoad {
            partition,
            token: Zxid(token.0 - u64::from(dice.chance(100))),
            load: dice.below(1_000),
        };
        self.tokens().map(load).collect()
    }

    /// The tokens that it has, whether it believes in them or not.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (PartitionId, Zxid)> {
        self.held
            .iter()
            .map(|(partition, held)| (*partition, held.token))
    }
}

/// The guard that a write of an owner carries.
pub(crate) fn fence((partition, token): (PartitionId, Zxid)) -> Guard {
    Guard {
        path: owner_path(GROUP, partition),
        token,
    }
}

impl Client {
    /// Members of the group join, follow the map, and say what they have to.
    pub(super) fn tend_workers(&mut self, ctx: &mut Ctx) {
        let Link::Up { connection, .. } = self.link else {
            return;
        };
        let floor = ctx.checks.real_time.floor();
        for session in &mut self.sessions {
            let stream = session.stream().filter(|_| session.is_attached());
            let (Some(stream), false) = (stream, session.closing) else {
                continue;
            };
            let Some(worker) = &mut session.worker else {
                continue;
            };
            if !worker.watches {
                worker.watches = true;
                for (group, since) in [(GROUP, worker.copy.through), (OTHER, worker.other)] {
                    let watch = ClientFrame::WatchMap {
                        group: group.to_owned(),
                        detail: MapDetail::Full,
                        since,
                    };
                    ctx.send_up(connection, Up::Frame(stream, watch));
                }
            }
            if worker.incarnation.is_none() {
                if !worker.join_asked && self.dice.chance(500) {
                    worker.join_asked = true;
                    let operation = join(worker);
                    session.ask(operation, Vec::new(), Purpose::Join, floor);
                }
                continue;
            }
            if !self.quiet && self.dice.chance(20) {
                let loads = ClientFrame::Loads {
                    group: GROUP.to_owned(),
                    loads: worker.loads(&mut self.dice),
                };
                ctx.send_up(connection, Up::Frame(stream, loads));
            }
            if !worker.reporting {
                let reports = worker.reports(&mut self.dice, self.quiet);
                if !reports.is_empty() {
                    worker.reporting = true;
                    worker.said.extend(&reports);
                    let operation = Operation::Map {
                        group: GROUP.to_owned(),
                        operation: MapOperation::Report {
                            member: worker.name.clone(),
                            reports,
                        },
                    };
                    session.ask(operation, Vec::new(), Purpose::Report, floor);
                }
            }
        }
    }

    /// A join was answered.
    pub(super) fn joined(&mut self, ctx: &mut Ctx, place: usize, zxid: Zxid, done: bool) {
        let secret = self.sessions[place].secret;
        let Some(worker) = &mut self.sessions[place].worker else {
            return;
        };
        worker.join_asked = false;
        if done {
            if worker.predecessor.is_some() {
                ctx.seen.count(Event::MemberTakenOver);
            }
            ctx.seen.count(Event::MemberJoined);
            worker.incarnation = Some(zxid);
            ctx.secrets.insert(worker.name.clone(), secret);
            worker.look();
            ctx.believes = true;
        } else {
            // Somebody lives by its name: whoever has started it knows with which secret.
            let known = ctx.secrets.get(&worker.name).copied();
            worker.predecessor = known.filter(|_| self.dice.chance(300));
        }
    }

    /// A member is told of the map.
    pub(super) fn map_told(&mut self, ctx: &mut Ctx, place: usize, update: &MapUpdate) -> Checked {
        let session = &mut self.sessions[place];
        let timeout_ms = session.timeout_ms;
        let Some(worker) = &mut session.worker else {
            return Ok(());
        };
        let before: BTreeSet<_> = worker.tokens().collect();
        let taken = match update.group.as_str() {
            OTHER => worker.update_other(update).map(|()| false),
            _ => worker.update(update, timeout_ms),
        };
        let whole = taken.map_err(|what| {
            Violation::new(
                "maps",
                format!(
                    "session {:?} is told of the map from {:?} through {}, but {what}",
                    session.id, update.base, update.through
                ),
            )
        })?;
        if !whole {
            return Ok(());
        }
        ctx.checks.map_told(&worker.copy)?;
        ctx.seen.count(Event::MapUpdate);
        for _ in worker.tokens().filter(|token| !before.contains(token)) {
            ctx.seen.count(Event::PartitionGained);
        }
        session.last_seen = session.last_seen.max(update.through);
        ctx.checks.real_time.seen(update.through);
        ctx.believes = true;
        Ok(())
    }

    /// What a session that is over had: its client may still write with it.
    pub(super) fn stale_tokens(session: &Session) -> Vec<(PartitionId, Zxid)> {
        let worker = session.worker.as_ref();
        worker.map_or_else(Vec::new, |worker| worker.tokens().collect())
    }
}

fn join(worker: &Worker) -> Operation {
    let spec = MemberSpec {
        zone: worker.zone.to_owned(),
        ..MemberSpec::at(worker.name.clone())
    };
    Operation::Group {
        group: GROUP.to_owned(),
        member: worker.name.clone(),
        operation: GroupOperation::Join {
            spec,
            predecessor: worker.predecessor,
        },
    }
}
