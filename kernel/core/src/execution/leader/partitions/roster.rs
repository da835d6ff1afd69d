//! What is known of a map's members while steps and plans are decided.

use std::collections::BTreeMap;

use folkmoot_proto::group::{MemberRecord, live_path, members_path};
use folkmoot_proto::partition::{MapRecord, MemberNo, Owner};
use folkmoot_proto::{LogTime, Zxid};

use crate::mutation::{self, Mutation};
use crate::state::View;

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its id.
    pub(super) name: String,
    /// Its incarnation, while it lives (rule R34).
    pub(super) incarnation: Option<Zxid>,
    /// Whether it is to give up what it has (rule R38: intent, not liveness).
    pub(super) draining: bool,
    /// Whether it gets no new work: it is suspect, or says that it is unhealthy (rule R41).
    pub(super) cordoned: bool,
    /// While it is gone: until when its work waits for it (rule R38).
    pub(super) offline_until: Option<LogTime>,
    /// Until when a former incarnation may believe in what it had (rule R34).
    pub(super) fenced_until: Option<LogTime>,
    /// Its place, from the outside in.
    pub(super) zone: String,
    /// What it can carry; nothing where there is no limit.
    pub(super) capacity: Vec<u64>,
    /// The timeout of the session that it lives with, in milliseconds.
    pub(super) timeout_ms: u32,
}

impl Facts {
    /// Whether it lives.
    pub(super) fn lives(&self) -> bool {
        self.incarnation.is_some()
    }

    /// Whether its work waits for it at `now`.
    pub(super) fn is_awaited(&self, now: LogTime) -> bool {
        let awaited = self.offline_until.is_some_and(|until| until > now);
        awaited && !self.lives() && !mutation::is_on(Mutation::NoOfflineDelay)
    }

    /// Whether it can get partitions.
    pub(super) fn takes(&self) -> bool {
        let cordoned = self.cordoned && !mutation::is_on(Mutation::SuspectTakes);
        self.lives() && !self.draining && !cordoned
    }

    /// The outermost part of its place; one of its own where it has none.
    pub(super) fn zone(&self) -> &str {
        match self.zone.split('/').next() {
            None | Some("") => &self.name,
            Some(zone) => zone,
        }
    }
}

/// The members of a map as of one transaction, looked up once each.
#[derive(Debug)]
pub(super) struct Roster {
    group: String,
    facts: BTreeMap<MemberNo, Facts>,
}

impl Roster {
    pub(super) fn new(map: &MapRecord) -> Self {
        Self {
            group: map.group.clone(),
            facts: BTreeMap::new(),
        }
    }

    /// What is known of a member; of a number that nobody has, nothing.
    pub(super) fn of(&mut self, view: &impl View, map: &MapRecord, member: MemberNo) -> &Facts {
        let group = &self.group;
        self.facts.entry(member).or_insert_with(|| {
            let name = map.members.get(member.0 as usize);
            name.map_or_else(Facts::default, |name| look_up(view, group, name))
        })
    }

    /// Whether a partition that its owner does not own any more goes to that owner again: it is back in
    /// another incarnation, or its work waits for it (rule R38).
    pub(super) fn expects(
        &mut self,
        view: &impl View,
        map: &MapRecord,
        owner: Option<Owner>,
        now: LogTime,
    ) -> bool {
        owner.is_some_and(|owner| {
            let facts = self.of(view, map, owner.member);
            let owns = facts.incarnation == Some(owner.incarnation);
            !owns && (facts.lives() || facts.is_awaited(now))
        })
    }

    /// All members that have a name, by number.
    pub(super) fn all(&mut self, view: &impl View, map: &MapRecord) -> &BTreeMap<MemberNo, Facts> {
        for (number, name) in (0..).zip(&map.members) {
            if !name.is_empty() {
                self.of(view, map, MemberNo(number));
            }
        }
        &self.facts
    }

    /// As `all`, once nothing else is asked.
    pub(super) fn into_all(
        mut self,
        view: &impl View,
        map: &MapRecord,
    ) -> BTreeMap<MemberNo, Facts> {
        self.all(view, map);
        self.facts
    }
}

fn look_up(view: &impl View, group: &str, name: &str) -> Facts {
    let live = view.node(&format!("{}/{name}", live_path(group)));
    let session = live.and_then(|node| node.stat.ephemeral_owner);
    let timeout_ms = session.and_then(|session| view.session(session));
    let mut facts = Facts {
        name: name.to_owned(),
        incarnation: live.map(|node| node.stat.czxid),
        timeout_ms: timeout_ms.map_or(0, |session| session.timeout_ms),
        ..Facts::default()
    };
    let Some(record) = view.node(&format!("{}/{name}", members_path(group))) else {
        return facts;
    };
    let record: MemberRecord = match serde_json::from_slice(record.data) {
        Ok(record) => record,
        Err(error) => panic!("{group}/{name} is written by the kernel alone, and: {error}"),
    };
    facts.draining = record.draining;
    facts.cordoned = record.suspect || !record.healthy;
    facts.offline_until = record.offline_until;
    facts.fenced_until = record.fenced_until;
    facts.zone = record.zone;
    facts.capacity = record.capacity;
    facts
}
