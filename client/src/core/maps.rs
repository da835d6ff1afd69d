//! The partition maps of a session: what was subscribed to, and how far it was taken in.

use std::collections::BTreeMap;

use folkmoot_proto::partition::{MapDetail, MapUpdate, PartitionLoad};
use folkmoot_proto::{RequestId, Tick, Zxid};

use super::Violation;
use super::copies::{MapCopy, SharedCopy, Touched};
use super::holder::{Holder, HolderEnd, OwnerEvent};

/// A map, and how much of it is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MapKey {
    pub(crate) group: String,
    pub(crate) detail: MapDetail,
}

/// Names a holder between a handle and the task.
pub(crate) type HolderKey = u64;

/// What there is to tell of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MapNews {
    /// The copy was brought up to here.
    Through(Zxid),
    /// It is not told.
    Refused { reason: String },
    /// The session is over.
    SessionEnded { expired: bool },
}

/// What follows from a frame or from the clock.
#[derive(Debug, Default)]
pub(crate) struct MapConsequence {
    pub(crate) news: Vec<(MapKey, MapNews)>,
    pub(crate) events: Vec<(HolderKey, OwnerEvent)>,
}

#[derive(Debug)]
struct Subscription {
    copy: SharedCopy,
    /// The parts of a large map that arrived, of a map that is told anew.
    parts: Option<MapCopy>,
    /// What the copy is as of: every change up to here was taken in.
    through: Option<Zxid>,
    sent: bool,
}

/// A group, and a member of it.
type MemberKey = (String, String);

/// The maps of a session.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    subscriptions: BTreeMap<MapKey, Subscription>,
    holders: BTreeMap<HolderKey, Holder>,
    /// Requests to leave that have no answer.
    leaving: BTreeMap<RequestId, MemberKey>,
    /// When each member left last: an incarnation from before then owns nothing, whatever a map that
    /// is older says.
    left: BTreeMap<MemberKey, Zxid>,
    /// Ended here, and not yet told to the member.
    unwatch: Vec<MapKey>,
}

/// What to send for a map.
#[derive(Debug)]
pub(crate) enum MapFrame {
    Watch { map: MapKey, since: Option<Zxid> },
    Unwatch(MapKey),
}

impl Maps {
    /// Begins to follow a map, unless it is followed already: its copy, and how far that is.
    pub(crate) fn submit(&mut self, map: MapKey) -> (SharedCopy, Option<Zxid>) {
        self.unwatch.retain(|other| *other != map);
        let detail = map.detail;
        let subscription = self
            .subscriptions
            .entry(map)
            .or_insert_with(|| Subscription {
                copy: SharedCopy::new(detail),
                parts: None,
                through: None,
                sent: false,
            });
        (subscription.copy.clone(), subscription.through)
    }

    /// Nobody looks at a map any more.
    pub(crate) fn end(&mut self, map: &MapKey) {
        if self.subscriptions.remove(map).is_some_and(|of| of.sent) {
            self.unwatch.push(map.clone());
        }
    }

    /// A member's partitions are held from here on. Its map must have been submitted.
    pub(crate) fn hold(&mut self, key: HolderKey, holder: Holder) {
        self.holders.insert(key, holder);
    }

    /// Whether the holder's incarnation is gone, or is to be by a request that is under way. One
    /// that joins after such a request is known here only once both were answered, in their order.
    pub(crate) fn has_left(&self, holder: &Holder) -> bool {
        let member = (holder.group.to_string(), holder.member.clone());
        let left = self.left.get(&member);
        left.is_some_and(|left| holder.incarnation <= *left)
            || self.leaving.values().any(|leaving| *leaving == member)
    }

    /// A member is to leave by request `id`: from when that may be sent, others may own what it
    /// did.
    pub(crate) fn leave(
        &mut self,
        id: RequestId,
        group: String,
        member: String,
    ) -> Vec<(HolderKey, OwnerEvent)> {
        let leaves = |holder: &Holder| *holder.group == *group && holder.member == member;
        let events = self.end_holders(leaves, &HolderEnd::Left);
        self.leaving.insert(id, (group, member));
        events
    }

    /// A request was answered: executed at a zxid, or refused. One to leave that was refused
    /// changed nothing: the member's partitions may be held anew.
    pub(crate) fn handle_answer(&mut self, id: RequestId, executed: Option<Zxid>) {
        let member = self.leaving.remove(&id);
        if let (Some(member), Some(zxid)) = (member, executed) {
            self.left.insert(member, zxid);
        }
    }

    /// Ends holders, and takes what they have to tell.
    pub(crate) fn end_holders(
        &mut self,
        which: impl Fn(&Holder) -> bool,
        why: &HolderEnd,
    ) -> Vec<(HolderKey, OwnerEvent)> {
        let mut events = Vec::new();
        for (key, mut holder) in self.holders.extract_if(.., |_, holder| which(holder)) {
            holder.end(why.clone());
            events.extend(holder.take_events().into_iter().map(|event| (key, event)));
        }
        events
    }

    /// The map of a holder that was there, which ends.
    pub(crate) fn let_go(&mut self, key: HolderKey) {
        if let Some(mut holder) = self.holders.remove(&key) {
            holder.end(HolderEnd::Session { expired: false });
        }
    }

    /// A new stream: every map is asked for again, from where its copy is.
    pub(crate) fn attached(&mut self) {
        self.unwatch.clear();
        for subscription in self.subscriptions.values_mut() {
            subscription.parts = None;
            subscription.sent = false;
        }
    }

    pub(crate) fn poll(&mut self) -> Option<MapFrame> {
        if let Some(map) = self.unwatch.pop() {
            return Some(MapFrame::Unwatch(map));
        }
        let mut unsent = self.subscriptions.iter_mut().filter(|(_, of)| !of.sent);
        let (map, subscription) = unsent.next()?;
        subscription.sent = true;
        let (map, since) = (map.clone(), subscription.through);
        Some(MapFrame::Watch { map, since })
    }

    pub(crate) fn handle_update(
        &mut self,
        update: &MapUpdate,
    ) -> Result<MapConsequence, Violation> {
        let map = MapKey {
            group: update.group.clone(),
            detail: update.detail,
        };
        let Some(subscription) = self.subscriptions.get_mut(&map) else {
            // It crossed an `UnwatchMap`.
            return Ok(MapConsequence::default());
        };
        let out_of_order = || Violation::MapOutOfOrder {
            group: update.group.clone(),
            base: update.base,
            through: update.through,
        };
        if !subscription.sent {
            return Err(out_of_order());
        }
        let touched = match subscription.take(update)? {
            Taken::Part => return Ok(MapConsequence::default()),
            Taken::Touched(touched) => touched,
            Taken::OutOfOrder => return Err(out_of_order()),
        };
        self.show(&map, &touched);
        Ok(MapConsequence {
            news: vec![(map, MapNews::Through(update.through))],
            events: Vec::new(),
        })
    }

    /// Has the holders of a map look at what was taken in.
    fn show(&mut self, map: &MapKey, touched: &Touched) {
        let Some(subscription) = self.subscriptions.get(map) else {
            return;
        };
        let copy = subscription.copy.read();
        let Some(full) = copy.full() else { return };
        for holder in self.holders.values_mut() {
            if *holder.group == *map.group {
                holder.handle_map(full, touched);
            }
        }
    }

    /// A holder that begins when its map is there already looks at it at once.
    pub(crate) fn show_again(&mut self, group: &str) {
        let map = MapKey {
            group: group.to_owned(),
            detail: MapDetail::Full,
        };
        let is_there = |of: &Subscription| of.through.is_some();
        if self.subscriptions.get(&map).is_some_and(is_there) {
            self.show(&map, &Touched::All);
        }
    }

    /// A heartbeat that was sent at `sent` was acknowledged: the leases of the partitions go on by
    /// it once their map is taken in through `position` (rule R35).
    pub(crate) fn handle_acknowledgement(&mut self, sent: Tick, position: Zxid) {
        for holder in self.holders.values_mut() {
            let map = MapKey {
                group: holder.group.to_string(),
                detail: MapDetail::Full,
            };
            // A member that was not asked for this map yet has named a position of others only.
            let of = self.subscriptions.get(&map);
            if of.is_some_and(|of| of.through.is_some()) {
                holder.handle_acknowledgement(sent, position);
            }
        }
    }

    pub(crate) fn handle_refused(&mut self, map: MapKey, reason: String) -> MapConsequence {
        let mut consequence = MapConsequence::default();
        if self.subscriptions.remove(&map).is_none() {
            return consequence;
        }
        if map.detail == MapDetail::Full {
            let why = HolderEnd::Refused {
                reason: reason.clone(),
            };
            let refused = |holder: &Holder| *holder.group == *map.group;
            consequence.events = self.end_holders(refused, &why);
        }
        consequence.news = vec![(map, MapNews::Refused { reason })];
        consequence
    }

    /// Extends leases by what was acknowledged and taken in, ends those that are over by the clock,
    /// and takes what the holders have to tell.
    pub(crate) fn settle(&mut self, now: Tick, timeout_ms: u32) -> Vec<(HolderKey, OwnerEvent)> {
        let mut events = Vec::new();
        for (key, holder) in &mut self.holders {
            let map = MapKey {
                group: holder.group.to_string(),
                detail: MapDetail::Full,
            };
            let known = self.subscriptions.get(&map).and_then(|of| of.through);
            holder.settle(now, known, timeout_ms);
            events.extend(holder.take_events().into_iter().map(|event| (*key, event)));
        }
        events
    }

    /// The loads that are to be sent for a group, of one frame, if there are any.
    pub(crate) fn take_loads(&mut self, now: Tick) -> Option<(String, Vec<PartitionLoad>)> {
        self.holders.values_mut().find_map(|holder| {
            let loads = holder.take_loads(now);
            (!loads.is_empty()).then(|| (holder.group.to_string(), loads))
        })
    }

    /// When loads are to be sent.
    pub(crate) fn loads_at(&self, now: Tick) -> Option<Tick> {
        let holders = self.holders.values();
        holders.filter_map(|holder| holder.loads_at(now)).min()
    }

    pub(crate) fn timeout(&self) -> Option<Tick> {
        self.holders.values().filter_map(Holder::timeout).min()
    }

    /// The session is over.
    pub(crate) fn drain(&mut self, expired: bool) -> MapConsequence {
        let maps = std::mem::take(&mut self.subscriptions).into_keys();
        let news = maps.map(|map| (map, MapNews::SessionEnded { expired }));
        let news = news.collect();
        let events = self.end_holders(|_| true, &HolderEnd::Session { expired });
        MapConsequence { news, events }
    }
}

/// What an update did.
enum Taken {
    /// It is a part of a map that is told anew: the rest follows.
    Part,
    Touched(Touched),
    OutOfOrder,
}

impl Subscription {
    /// Takes an update in. A map that is told anew in parts takes the place of the one before only
    /// when it is whole: what is in none of its parts is gone, and not before that is known.
    fn take(&mut self, update: &MapUpdate) -> Result<Taken, Violation> {
        let is_whole = update.through != Zxid::ZERO;
        let parts = match update.base {
            None => Some(MapCopy::new(update.detail)),
            Some(Zxid::ZERO) => self.parts.take(),
            Some(_) => None,
        };
        if let Some(mut parts) = parts {
            parts.apply(update)?;
            if !is_whole {
                self.parts = Some(parts);
                return Ok(Taken::Part);
            }
            if self.through > Some(update.through) {
                return Ok(Taken::OutOfOrder);
            }
            *self.copy.write() = parts;
            self.through = Some(update.through);
            return Ok(Taken::Touched(Touched::All));
        }
        if update.base != self.through || Some(update.through) < self.through {
            return Ok(Taken::OutOfOrder);
        }
        let touched = self.copy.write().apply(update)?;
        self.through = Some(update.through);
        Ok(Taken::Touched(touched))
    }
}
