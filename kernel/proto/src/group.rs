//! Groups and their members: who is alive, where it is, and in which state.
//!
//! A group's nodes are below [`GROUPS`], for every client to read and watch. A member has two of
//! them. `GROUP/live/ID` is ephemeral: it goes with the member's session, its value is the
//! [`MemberSpec`], and its `czxid` is the member's *incarnation*. `GROUP/members/ID` stays, and says
//! how the member is: a [`MemberRecord`]. Both are written in the same transaction (rules R33, R38).

use std::collections::BTreeMap;

use crate::limits::{
    GROUP_NAME_BYTES_MAX, MEMBER_CAPACITIES_MAX, MEMBER_META_BYTES_MAX, MEMBER_META_MAX,
    MEMBER_TEXT_BYTES_MAX,
};
use crate::{LogTime, SessionId, SessionSecret, WallTime, Zxid};

/// Where the groups are.
pub const GROUPS: &str = "/folkmoot/groups";

/// A group's own node.
#[must_use]
pub fn group_path(group: &str) -> String {
    format!("{GROUPS}/{group}")
}

/// The directory of a group's member records.
#[must_use]
pub fn members_path(group: &str) -> String {
    format!("{GROUPS}/{group}/members")
}

/// The directory of a group's live nodes.
#[must_use]
pub fn live_path(group: &str) -> String {
    format!("{GROUPS}/{group}/live")
}

/// The group and the member of a live node's path.
#[must_use]
pub fn member_of_live_path(path: &str) -> Option<(&str, &str)> {
    member_below(path, "live/")
}

/// The group and the member of the path of a member's record.
#[must_use]
pub fn member_of_record_path(path: &str) -> Option<(&str, &str)> {
    member_below(path, "members/")
}

fn member_below<'a>(path: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let below = path.strip_prefix(GROUPS)?.strip_prefix('/')?;
    let (group, rest) = below.split_once('/')?;
    let member = rest.strip_prefix(kind)?;
    (!member.contains('/')).then_some((group, member))
}

/// What a member says of itself when it joins.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct MemberSpec {
    /// Where it is reached; the group's users say what it means.
    pub address: String,
    /// Its place, from the outside in, such as `zone/rack`; empty where that does not matter.
    #[serde(default)]
    pub zone: String,
    /// How much it can carry, by dimension of weight; where nothing is said there is no limit.
    #[serde(default)]
    pub capacity: Vec<u64>,
    /// What its users look for it by.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
}

impl MemberSpec {
    /// A member at `address`, in no zone, without limits.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            zone: String::new(),
            capacity: Vec::new(),
            meta: BTreeMap::new(),
        }
    }

    /// Whether it keeps the limits.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        check_text("an address", &self.address)?;
        check_text("a zone", &self.zone)?;
        if !self.zone.is_empty() && self.zone.split('/').any(str::is_empty) {
            return Err(format!(
                "{:?} is no zone: it is NAME or NAME/NAME",
                self.zone
            ));
        }
        if self.capacity.len() > MEMBER_CAPACITIES_MAX {
            return Err(format!(
                "a member has at most {MEMBER_CAPACITIES_MAX} capacities"
            ));
        }
        if self.capacity.contains(&0) {
            return Err("a capacity is at least 1".to_owned());
        }
        if self.meta.len() > MEMBER_META_MAX {
            return Err(format!(
                "a member has at most {MEMBER_META_MAX} facts of meta"
            ));
        }
        let bytes: usize = self
            .meta
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > MEMBER_META_BYTES_MAX {
            return Err(format!(
                "a member's meta has at most {MEMBER_META_BYTES_MAX} bytes, this is {bytes}"
            ));
        }
        Ok(())
    }
}

/// Whether this may be the name of a group or the id of a member: letters, digits, `-`, `_`, `.`
/// and `:`, none of `.` and `..`.
///
/// # Errors
///
/// What is wrong with it, for a person.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || "-_.:".contains(char);
    let fits = (1..=GROUP_NAME_BYTES_MAX).contains(&name.len());
    if fits && name.chars().all(allowed) && name != "." && name != ".." {
        return Ok(());
    }
    let shown: String = name.chars().take(GROUP_NAME_BYTES_MAX).collect();
    Err(format!(
        "{shown:?} is no {what}: it has 1 to {GROUP_NAME_BYTES_MAX} letters, digits, '-', '_', '.' \
         and ':'"
    ))
}

fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.len() > MEMBER_TEXT_BYTES_MAX {
        return Err(format!("{what} has at most {MEMBER_TEXT_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{what} has no control characters"));
    }
    Ok(())
}

/// How a member is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// Its session lives.
    Alive,
    /// Its session lives, and the failure detector doubts it: it gets no new work, and keeps what
    /// it has (rule R41).
    Suspect,
    /// It lives, and is to give up what it has.
    Draining,
    /// Its session is over, or it left.
    Gone,
}

impl MemberState {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// What the cluster keeps of a member, whether it lives or not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemberRecord {
    /// Its state.
    pub state: MemberState,
    /// Since when, in wall time: for people, not for decisions.
    pub since: WallTime,
    /// Why, in kebab-case: `joined`, `left`, `session-closed`, `session-expired`, `drained`, …
    pub why: String,
    /// The transaction by which it joined last, while it lives.
    pub incarnation: Option<Zxid>,
    /// Its session, while it lives.
    pub session: Option<SessionId>,
    /// Whether it is to give up what it has. It stays so over restarts of the member.
    pub draining: bool,
    /// What it says of itself.
    pub healthy: bool,
    /// Whether the failure detector doubts it.
    pub suspect: bool,
    /// As in [`MemberSpec`].
    pub zone: String,
    /// As in [`MemberSpec`].
    pub capacity: Vec<u64>,
    /// How long it has announced to be away, in milliseconds, when it restarts.
    pub restart_delay_ms: Option<u64>,
    /// While it is gone: until when its work waits for it, on the log clock (rule R38).
    pub offline_until: Option<LogTime>,
    /// Until when a former incarnation, whose session another process closed, may believe in what it
    /// had, on the log clock: nobody else gets it before (rule R34).
    #[serde(default)]
    pub fenced_until: Option<LogTime>,
}

impl MemberRecord {
    /// A member that joins: `before` is what was kept of it, of which the wish that it be drained
    /// stays.
    #[must_use]
    pub fn joined(
        before: Option<&Self>,
        spec: &MemberSpec,
        session: SessionId,
        zxid: Zxid,
        now: WallTime,
    ) -> Self {
        let mut record = Self {
            state: MemberState::Alive,
            since: now,
            why: "joined".to_owned(),
            incarnation: Some(zxid),
            session: Some(session),
            draining: before.is_some_and(|before| before.draining),
            healthy: true,
            suspect: false,
            zone: spec.zone.clone(),
            capacity: spec.capacity.clone(),
            restart_delay_ms: None,
            offline_until: None,
            fenced_until: before.and_then(|before| before.fenced_until),
        };
        record.state = record.state_now();
        record
    }

    /// It is gone; its work waits for it until `offline_until`.
    pub fn end(&mut self, why: &str, offline_until: LogTime, now: WallTime) {
        self.incarnation = None;
        self.session = None;
        self.suspect = false;
        self.offline_until = Some(offline_until);
        self.tell(why, now);
    }

    /// Sets the state from the rest; since when and why, where it is another one.
    pub fn tell(&mut self, why: &str, now: WallTime) {
        let state = self.state_now();
        if state != self.state {
            self.state = state;
            self.since = now;
            why.clone_into(&mut self.why);
        }
    }

    fn state_now(&self) -> MemberState {
        if self.incarnation.is_none() {
            MemberState::Gone
        } else if self.suspect {
            MemberState::Suspect
        } else if self.draining {
            MemberState::Draining
        } else {
            MemberState::Alive
        }
    }
}

/// What a client asks of a group.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum GroupOperation {
    /// The session becomes the member, in a group that is made if it is not there; the reply's zxid
    /// is its incarnation. Asked again by the same session, it changes what the member said of
    /// itself.
    Join {
        /// What the member says of itself.
        spec: MemberSpec,
        /// The secret of the session with which the member lives: that session is closed first. A
        /// member that lives is not joined without it (rule R34).
        predecessor: Option<SessionSecret>,
    },
    /// The member is gone, and its work does not wait for it. Its own session asks.
    Leave,
    /// The member is to give up what it has, or no longer.
    Drain {
        /// Which of the two.
        drain: bool,
    },
    /// What the member says while it lives. Its own session asks.
    Report {
        /// Whether it can do its work.
        healthy: bool,
        /// How long its work waits for it if its session ends, in milliseconds; none: as the group
        /// has it.
        restart_delay_ms: Option<u64>,
    },
    /// What is kept of a member that is gone is removed.
    Forget,
}

impl GroupOperation {
    /// Bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Join { spec, .. } => {
                let meta = spec
                    .meta
                    .iter()
                    .map(|(key, value)| key.len() + value.len() + 16);
                spec.address.len() + spec.zone.len() + spec.capacity.len() * 8 + meta.sum::<usize>()
            }
            Self::Leave | Self::Drain { .. } | Self::Report { .. } | Self::Forget => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_nodes_path_names_group_and_member() {
        let path = format!("{}/w-1", live_path("workers"));
        assert_eq!(member_of_live_path(&path), Some(("workers", "w-1")));
        for other in [
            "/folkmoot/groups/g/members/a",
            "/folkmoot/groups/g/live",
            "/a/live/b",
        ] {
            assert_eq!(member_of_live_path(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_member_says_of_itself_is_checked() {
        let spec = MemberSpec::at("10.0.0.1:80");
        assert_eq!(spec.check(), Ok(()));
        let bad = [
            MemberSpec {
                capacity: vec![0],
                ..spec.clone()
            },
            MemberSpec {
                capacity: vec![1; 5],
                ..spec.clone()
            },
            MemberSpec {
                zone: "a//b".to_owned(),
                ..spec.clone()
            },
            MemberSpec {
                address: "x".repeat(1000),
                ..spec.clone()
            },
            MemberSpec {
                meta: [("k".to_owned(), "v".repeat(10_000_000))].into(),
                ..spec
            },
        ];
        for spec in bad {
            assert!(spec.check().is_err());
        }
        for name in ["", ".", "..", "a/b", "a b", &"n".repeat(200)] {
            assert!(check_name("group", name).is_err(), "{name:?}");
        }
        assert_eq!(check_name("group", "workers-1.eu:x"), Ok(()));
    }

    #[test]
    fn the_state_follows_from_the_rest() {
        let spec = MemberSpec::at("a");
        let (one, two) = (WallTime(1), WallTime(2));
        let mut record = MemberRecord::joined(None, &spec, SessionId(3), Zxid(4), one);
        assert_eq!(record.state, MemberState::Alive);
        record.draining = true;
        record.tell("drained", two);
        assert_eq!((record.state, record.since), (MemberState::Draining, two));
        record.end("session-expired", LogTime(5), WallTime(3));
        assert_eq!(
            (record.state, record.why.as_str()),
            (MemberState::Gone, "session-expired")
        );
        let again = MemberRecord::joined(Some(&record), &spec, SessionId(6), Zxid(7), one);
        assert_eq!(
            again.state,
            MemberState::Draining,
            "that it be drained is a wish that stays"
        );
    }
}
