//! What a member of a group owns of its partition map, by this client's clock (rule R35).
//!
//! The lease of the partitions is extended by acknowledged heartbeats that name how far the client
//! must have taken in its map: one that names more is kept until it has. A partition whose revoke was
//! taken in is extended no further. So a partition that the cluster takes by force, a session's
//! timeout after its leader applied the revoke, has no lease left here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use folkmoot_proto::client::Guard;
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::{
    MemberNo, MovePhase, PartitionId, PartitionKey, PartitionLoad, PartitionRecord,
    PartitionReport, owner_path,
};
use folkmoot_proto::{Tick, Zxid};

use super::Lease;
use super::copies::{FullMap, Keys, Touched};

/// Acknowledgements that name what was not taken in yet: those of a minute of heartbeats.
const ACKNOWLEDGEMENTS_MAX: usize = 64;

/// A report that changed nothing is sent again after this long.
const REPORT_AGAIN_MS: u64 = 1000;

/// Loads are sent at most this often.
const LOADS_MS: u64 = 5000;

/// A partition that this member was promoted to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The group.
    pub group: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// What it is.
    pub key: PartitionKey,
    /// The zxid of the promotion: the fencing token.
    pub token: Zxid,
}

impl Grant {
    /// A guard that holds while this promotion is the current one (rules R13, R33).
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard {
            path: owner_path(&self.group, self.partition),
            token: self.token,
        }
    }
}

/// What the holder has its owner do. Of one partition, it is done in this order. `gains` says how
/// many gains by the token came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnerEvent {
    /// The map was taken in for the first time.
    Began,
    /// A replica is to catch up.
    Prepare {
        partition: PartitionId,
        key: PartitionKey,
        movement: Zxid,
    },
    /// It need not any more.
    Unprepare { partition: PartitionId },
    /// The partition is owned.
    Gain(Grant),
    /// It is to be let go.
    Revoke {
        partition: PartitionId,
        token: Zxid,
        gains: u64,
    },
    /// It is to be let go, and was not served.
    LetGo {
        partition: PartitionId,
        token: Zxid,
        gains: u64,
    },
    /// It is owned no more.
    Lost {
        partition: PartitionId,
        token: Zxid,
        gains: u64,
    },
    /// Nothing follows.
    Over(HolderEnd),
}

/// Why a holder ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HolderEnd {
    Session {
        expired: bool,
    },
    /// The member is asked to leave its group.
    Left,
    Refused {
        reason: String,
    },
}

#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    /// Whether its owner was told so.
    gained: bool,
    /// How often it was told so: a lease that was over may go on after all.
    gains: u64,
    revoke: Option<Revoke>,
    released: bool,
}

#[derive(Clone, Copy, Debug)]
struct Revoke {
    movement: Zxid,
    /// The lease that it had then.
    lease_over: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct DueReport {
    report: PartitionReport,
    sent: Option<Tick>,
}

/// What is held, for every thread to ask.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// When the lease of what is not revoked is over; none before an acknowledgement extended it.
    lease_over: Option<Tick>,
    pub(crate) layout: Zxid,
    held: BTreeMap<PartitionId, Held>,
    keys: Keys,
    /// What is to be said until the map shows that it was heard.
    due: BTreeMap<PartitionId, DueReport>,
    /// What the owner measured last of what is held.
    loads: BTreeMap<PartitionId, u64>,
}

/// A table that a session's task writes and its handles read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTable(Arc<RwLock<Table>>);

impl SharedTable {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What is owned at `now`, as far as the lease of the partition goes.
    pub(crate) fn owned(&self, partition: PartitionId, now: Tick) -> Option<&Grant> {
        let held = self.held.get(&partition)?;
        (self.is_live(held, now) && !held.released).then_some(&held.grant)
    }

    /// As [`Table::owned`], for the partition of a key.
    pub(crate) fn owned_key(&self, key: &[u8], now: Tick) -> Option<&Grant> {
        self.owned(self.keys.find(key)?, now)
    }

    /// All that is owned.
    pub(crate) fn grants(&self, now: Tick) -> impl Iterator<Item = &Grant> {
        let live = move |held: &&Held| self.is_live(held, now) && !held.released;
        self.held.values().filter(live).map(|held| &held.grant)
    }

    /// The owner has stopped what it began by so many gains: if the partition is to be let go, it is
    /// from here on, and that is to be said. Not if it was told of another gain since, which it may
    /// not have heard yet: it stops that too, by what it was told after it.
    pub(crate) fn let_go(&mut self, partition: PartitionId, token: Zxid, gains: u64) {
        let Some(held) = self.held.get_mut(&partition) else {
            return;
        };
        let is_last = held.grant.token == token && held.gains == gains;
        let Some(revoke) = held.revoke.filter(|_| is_last) else {
            return;
        };
        held.released = true;
        self.say(PartitionReport::Released {
            partition,
            movement: revoke.movement,
            token,
        });
    }

    /// A replica has caught up.
    pub(crate) fn prepared(&mut self, partition: PartitionId, movement: Zxid) {
        self.say(PartitionReport::Ready {
            partition,
            movement,
        });
    }

    fn say(&mut self, report: PartitionReport) {
        let sent = None;
        self.due
            .insert(partition_of(&report), DueReport { report, sent });
    }

    /// At most `count` reports that are to be sent at `now`.
    pub(crate) fn take_reports(&mut self, now: Tick, count: usize) -> Vec<PartitionReport> {
        let is_due = |due: &&mut DueReport| {
            due.sent
                .is_none_or(|sent| sent.plus_millis(REPORT_AGAIN_MS) <= now)
        };
        let due = self.due.values_mut().filter(is_due).take(count);
        due.map(|due| {
            due.sent = Some(now);
            due.report
        })
        .collect()
    }

    /// When the next report is due.
    pub(crate) fn reports_at(&self) -> Option<Tick> {
        let at = |due: &DueReport| {
            due.sent
                .map_or(Tick::ZERO, |sent| sent.plus_millis(REPORT_AGAIN_MS))
        };
        self.due.values().map(at).min()
    }

    /// The owner has measured a partition that is owned. True if nothing was known of any before.
    pub(crate) fn measured(&mut self, partition: PartitionId, load: u64, now: Tick) -> bool {
        if self.owned(partition, now).is_none() {
            return false;
        }
        let is_first = self.loads.is_empty();
        self.loads.insert(partition, load);
        is_first
    }

    /// At most `count` loads of partitions behind `after` that are owned.
    fn loads(&self, after: Option<PartitionId>, now: Tick, count: usize) -> Vec<PartitionLoad> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.loads.range((from, Bound::Unbounded));
        let owned = known.filter_map(|(partition, load)| {
            let token = self.owned(*partition, now)?.token;
            Some(PartitionLoad {
                partition: *partition,
                token,
                load: *load,
            })
        });
        owned.take(count).collect()
    }

    fn lease_of(&self, held: &Held) -> Option<Tick> {
        held.revoke.map_or(self.lease_over, |of| of.lease_over)
    }

    fn is_live(&self, held: &Held, now: Tick) -> bool {
        self.lease_of(held).is_some_and(|over| now < over)
    }

    fn remove(&mut self, partition: PartitionId) -> Option<Held> {
        let held = self.held.remove(&partition)?;
        self.keys.remove(&held.grant.key, partition);
        self.loads.remove(&partition);
        Some(held)
    }
}

fn partition_of(report: &PartitionReport) -> PartitionId {
    match report {
        PartitionReport::Ready { partition, .. } | PartitionReport::Released { partition, .. } => {
            *partition
        }
    }
}

/// The machine of one member's partitions, in one incarnation (rule R34).
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) group: Arc<str>,
    pub(super) member: String,
    pub(super) incarnation: Zxid,
    table: SharedTable,
    lease: Option<Lease>,
    /// Sent when, and through what the map must have been taken in.
    acknowledged: VecDeque<(Tick, Zxid)>,
    /// For which move each replica was told to catch up.
    preparing: BTreeMap<PartitionId, Zxid>,
    began: bool,
    /// The map changed since the leases were looked at.
    changed: bool,
    /// When the clock alone changes something.
    next: Option<Tick>,
    /// No loads are sent before this, save those that are left of what is sent.
    loads_from: Tick,
    /// The last partition whose load was sent, if there may be more.
    loads_after: Option<PartitionId>,
    events: Vec<OwnerEvent>,
}

impl Holder {
    pub(crate) fn new(
        group: String,
        member: String,
        incarnation: Zxid,
        table: SharedTable,
    ) -> Self {
        Self {
            group: group.into(),
            member,
            incarnation,
            table,
            lease: None,
            acknowledged: VecDeque::new(),
            preparing: BTreeMap::new(),
            began: false,
            changed: false,
            next: None,
            loads_from: Tick::ZERO,
            loads_after: None,
            events: Vec::new(),
        }
    }

    /// What is to be done since this was asked last.
    pub(super) fn take_events(&mut self) -> Vec<OwnerEvent> {
        std::mem::take(&mut self.events)
    }

    /// The map was taken in: what is no more mine goes, revokes stop their leases, and only then
    /// do acknowledgements extend what is left.
    pub(super) fn handle_map(&mut self, map: &FullMap, touched: &Touched) {
        let shared = self.table.clone();
        let mut table = shared.write();
        table.layout = map.layout;
        self.changed = true;
        if !std::mem::replace(&mut self.began, true) {
            self.events.push(OwnerEvent::Began);
        }
        let me = map.members.values().find(|member| {
            member.id == self.member && member.incarnation == Some(self.incarnation)
        });
        let me = me.map(|member| member.member);
        match touched {
            Touched::Some(partitions) => {
                for partition in partitions {
                    self.drop_stale(&mut table, *partition, map.partitions.get(partition), me);
                }
                for partition in partitions {
                    self.look_at(&mut table, *partition, map.partitions.get(partition), me);
                }
            }
            Touched::All => {
                let known = table.held.keys().chain(self.preparing.keys());
                let known: Vec<_> = known.chain(table.due.keys()).copied().collect();
                for partition in known {
                    let record = map.partitions.get(&partition);
                    self.drop_stale(&mut table, partition, record, me);
                    if record.is_none() {
                        self.look_at(&mut table, partition, None, me);
                    }
                }
                for (partition, record) in &map.partitions {
                    self.look_at(&mut table, *partition, Some(record), me);
                }
            }
        }
    }

    /// Ends what is held with a token that is not the present one.
    fn drop_stale(
        &mut self,
        table: &mut Table,
        partition: PartitionId,
        record: Option<&PartitionRecord>,
        me: Option<MemberNo>,
    ) {
        let Some(held) = table.held.get(&partition) else {
            return;
        };
        let (token, gains) = (held.grant.token, held.gains);
        if self.token_of(record, me) == Some(token) {
            return;
        }
        if let Some(held) = table.remove(partition)
            && held.gained
            && !held.released
        {
            self.events.push(OwnerEvent::Lost {
                partition,
                token,
                gains,
            });
        }
    }

    fn look_at(
        &mut self,
        table: &mut Table,
        partition: PartitionId,
        record: Option<&PartitionRecord>,
        me: Option<MemberNo>,
    ) {
        self.look_at_replica(table, partition, record, me);
        let (Some(record), Some(token)) = (record, self.token_of(record, me)) else {
            return;
        };
        if !table.held.contains_key(&partition) {
            let key = record.key.clone();
            table.keys.insert(&key, partition);
            let grant = Grant {
                group: Arc::clone(&self.group),
                partition,
                key,
                token,
            };
            let held = Held {
                grant,
                gained: false,
                gains: 0,
                revoke: None,
                released: false,
            };
            table.held.insert(partition, held);
        }
        let movement = record.assignment.movement.as_ref();
        let revoking = movement.filter(|movement| movement.phase == MovePhase::Revoking);
        let lease_over = table.lease_over;
        if let Some(movement) = revoking
            && let Some(held) = table.held.get_mut(&partition)
            && held.revoke.is_none()
        {
            held.revoke = Some(Revoke {
                movement: movement.id,
                lease_over,
            });
            let gains = held.gains;
            self.events.push(if held.gained {
                OwnerEvent::Revoke {
                    partition,
                    token,
                    gains,
                }
            } else {
                OwnerEvent::LetGo {
                    partition,
                    token,
                    gains,
                }
            });
        }
    }

    /// The token by which this incarnation owns a partition.
    fn token_of(&self, record: Option<&PartitionRecord>, me: Option<MemberNo>) -> Option<Zxid> {
        let owner = record?.assignment.owner?;
        let mine = Some(owner.member) == me && owner.incarnation == self.incarnation;
        mine.then_some(owner.token)
    }

    /// A replica of mine that is not ready catches up, for the move that is under way.
    fn look_at_replica(
        &mut self,
        table: &mut Table,
        partition: PartitionId,
        record: Option<&PartitionRecord>,
        me: Option<MemberNo>,
    ) {
        let wanted = record.and_then(|record| {
            let mut replicas = record.assignment.replicas.iter();
            let unready = replicas.any(|replica| {
                Some(replica.member) == me
                    && replica.incarnation == self.incarnation
                    && !replica.ready
            });
            let movement = record.assignment.movement.as_ref();
            Some((movement.filter(|_| unready)?.id, &record.key))
        });
        let due = table.due.get(&partition).map(|due| due.report);
        let is_due = match due {
            Some(PartitionReport::Ready { movement, .. }) => {
                wanted.is_some_and(|(id, _)| id == movement)
            }
            Some(PartitionReport::Released {
                movement, token, ..
            }) => {
                let under_way = record.and_then(|record| record.assignment.movement.as_ref());
                self.token_of(record, me) == Some(token)
                    && under_way.is_some_and(|under_way| under_way.id == movement)
            }
            None => true,
        };
        if !is_due {
            table.due.remove(&partition);
        }
        let told = self.preparing.get(&partition).copied();
        if told == wanted.map(|(movement, _)| movement) {
            return;
        }
        if self.preparing.remove(&partition).is_some() {
            self.events.push(OwnerEvent::Unprepare { partition });
        }
        if let Some((movement, key)) = wanted {
            self.preparing.insert(partition, movement);
            let key = key.clone();
            self.events.push(OwnerEvent::Prepare {
                partition,
                key,
                movement,
            });
        }
    }

    /// A heartbeat that was sent at `sent` was acknowledged, and named `position`.
    pub(super) fn handle_acknowledgement(&mut self, sent: Tick, position: Zxid) {
        if self.acknowledged.len() >= ACKNOWLEDGEMENTS_MAX {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back((sent, position));
    }

    /// Extends the lease by the acknowledgements that name no more than was taken in, and tells
    /// what follows from the clock.
    pub(super) fn settle(&mut self, now: Tick, known: Option<Zxid>, timeout_ms: u32) {
        let before = self.acknowledged.len();
        let (lease, is_known) = (&mut self.lease, |position| Some(position) <= known);
        self.acknowledged.retain(|(sent, position)| {
            if is_known(*position) {
                let lease = lease.get_or_insert_with(|| Lease::begin(*sent, timeout_ms));
                lease.renew(*sent);
            }
            !is_known(*position)
        });
        let extended = self.acknowledged.len() < before;
        let changed = std::mem::take(&mut self.changed);
        if !extended && !changed && self.next.is_none_or(|at| now < at) {
            return;
        }
        let mut table = self.table.write();
        table.lease_over = self.lease.as_ref().map(Lease::over_at);
        let mut changed = Vec::new();
        for (partition, held) in &table.held {
            let live = table.is_live(held, now);
            if live != held.gained && !held.released && (held.revoke.is_none() || held.gained) {
                changed.push(*partition);
            }
        }
        for partition in changed {
            let Some(held) = table.held.get_mut(&partition) else {
                continue;
            };
            held.gained = !held.gained;
            self.events.push(if held.gained {
                held.gains += 1;
                OwnerEvent::Gain(held.grant.clone())
            } else {
                OwnerEvent::Lost {
                    partition,
                    token: held.grant.token,
                    gains: held.gains,
                }
            });
        }
        let gained = table
            .held
            .values()
            .filter(|held| held.gained && !held.released);
        let over = gained.filter_map(|held| table.lease_of(held));
        self.next = over.min();
    }

    /// When [`Holder::settle`] wants to be called again: when the clock alone changes something.
    pub(super) fn timeout(&self) -> Option<Tick> {
        self.next
    }

    /// The loads that are to be sent at `now`, of one frame; nothing if there are none.
    pub(super) fn take_loads(&mut self, now: Tick) -> Vec<PartitionLoad> {
        let table = self.table.read();
        if self.loads_after.is_none() {
            if now < self.loads_from || table.loads.is_empty() {
                return Vec::new();
            }
            self.loads_from = now.plus_millis(LOADS_MS);
        }
        let loads = table.loads(self.loads_after, now, MAP_NAMED_MAX);
        let is_full = loads.len() == MAP_NAMED_MAX;
        self.loads_after = loads.last().filter(|_| is_full).map(|load| load.partition);
        loads
    }

    /// When loads are to be sent. What could have been sent before waits for the stream.
    pub(super) fn loads_at(&self, now: Tick) -> Option<Tick> {
        let is_later = now < self.loads_from && !self.table.read().loads.is_empty();
        is_later.then_some(self.loads_from)
    }

    /// Nothing is held any more.
    pub(super) fn end(&mut self, why: HolderEnd) {
        let mut table = self.table.write();
        let held = std::mem::take(&mut table.held);
        table.keys = Keys::default();
        table.due.clear();
        table.loads.clear();
        let gained = held.values().filter(|held| held.gained && !held.released);
        self.events.extend(gained.map(|held| OwnerEvent::Lost {
            partition: held.grant.partition,
            token: held.grant.token,
            gains: held.gains,
        }));
        let preparing = std::mem::take(&mut self.preparing).into_keys();
        let unprepare = preparing.map(|partition| OwnerEvent::Unprepare { partition });
        self.events.extend(unprepare);
        self.events.push(OwnerEvent::Over(why));
    }
}
