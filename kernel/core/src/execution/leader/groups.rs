//! Groups: members join with their session, and what is kept of them says how they are.
//!
//! A member's live node is ephemeral and its `czxid` is the member's incarnation; its record stays
//! (rules R33, R34, R38). Both are ordinary nodes, written by ordinary effects, which only this file
//! makes.

use folkmoot_proto::effect::Effect;
use folkmoot_proto::group::{
    GROUPS, GroupOperation, MemberRecord, MemberSpec, check_name, group_path, live_path,
    member_of_live_path, members_path,
};
use folkmoot_proto::limits::{
    GROUP_MEMBERS_MAX, GROUPS_MAX, MEMBER_RECORD_BYTES_MAX, RESTART_DELAY_MS_MAX,
    SESSION_MEMBERSHIPS_MAX,
};
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{SessionId, SessionSecret, split_last};

use super::draft::Draft;
use super::operations::{check_count, check_limit, check_owner, check_value, delete_unchecked};
use super::partitions::{member_forgotten, member_joined};
use super::sessions::end_session;
use crate::state::View;

/// How long the work of a member that is gone waits for it, in milliseconds, where it has announced
/// nothing else: a process that is started anew is back within it.
const OFFLINE_DELAY_MS: u64 = 30_000;

/// Executes what a client asks of a group. After a refusal the caller rolls the draft back.
pub(super) fn execute(
    draft: &mut Draft,
    session: SessionId,
    (group, member): (&str, &str),
    operation: GroupOperation,
) -> Result<Outcome, Refusal> {
    check_name("group", group).map_err(bad_member)?;
    check_name("member", member).map_err(bad_member)?;
    let of = Member::new(group, member);
    match operation {
        GroupOperation::Join { spec, predecessor } => {
            of.join(draft, session, &spec, predecessor)?
        }
        GroupOperation::Leave => of.leave(draft, session)?,
        GroupOperation::Drain { drain } => of.drain(draft, drain)?,
        GroupOperation::Report {
            healthy,
            restart_delay_ms,
        } => of.report(draft, session, healthy, restart_delay_ms)?,
        GroupOperation::Forget => of.forget(draft)?,
    }
    Ok(Outcome::GroupChanged)
}

/// Says of a member whose live node went with its session that it is gone.
pub(super) fn live_node_removed(
    draft: &mut Draft,
    path: &str,
    expired: bool,
) -> Result<(), Refusal> {
    let Some((group, member)) = member_of_live_path(path) else {
        return Ok(());
    };
    let of = Member::new(group, member);
    let Some(mut record) = of.record(draft) else {
        panic!("{path} was live, and has no record");
    };
    let stamp = draft.stamp();
    let of_map = draft.view().map_of(group);
    let of_group = of_map.map_or(OFFLINE_DELAY_MS, |(_, map)| map.config.offline_delay_ms);
    let delay_ms = record.restart_delay_ms.unwrap_or(of_group);
    let until = stamp.log_time.plus_millis(delay_ms);
    let why = if expired {
        "session-expired"
    } else {
        "session-closed"
    };
    record.end(why, until, stamp.wall_time);
    of.put_record(draft, &record)
}

/// Says of a member that lives with this session whether it is suspected (rule R41). One that lives
/// with another, or of which that is said already, stays as it is.
pub(super) fn set_suspect(
    draft: &mut Draft,
    (group, member): (&str, &str),
    session: SessionId,
    suspect: bool,
    why: &str,
) -> Result<(), Refusal> {
    let of = Member::new(group, member);
    let Some(mut record) = of.record(draft) else {
        return Ok(());
    };
    if record.session != Some(session) || record.suspect == suspect {
        return Ok(());
    }
    record.suspect = suspect;
    record.tell(why, draft.stamp().wall_time);
    of.put_record(draft, &record)
}

/// One member of one group.
struct Member<'a> {
    group: &'a str,
    id: &'a str,
    live: String,
    record: String,
}

impl<'a> Member<'a> {
    fn new(group: &'a str, id: &'a str) -> Self {
        Self {
            group,
            id,
            live: format!("{}/{id}", live_path(group)),
            record: format!("{}/{id}", members_path(group)),
        }
    }

    fn join(
        &self,
        draft: &mut Draft,
        session: SessionId,
        spec: &MemberSpec,
        predecessor: Option<SessionSecret>,
    ) -> Result<(), Refusal> {
        spec.check().map_err(bad_member)?;
        if self.lives_with(draft) == Some(session) {
            return self.change(draft, spec);
        }
        self.end_predecessor(draft, predecessor)?;
        make_group(draft, self.group)?;
        if draft.view().node(&self.record).is_none() {
            check_children(
                "members of a group",
                draft,
                &members_path(self.group),
                GROUP_MEMBERS_MAX,
            )?;
        }
        let is_membership = |path: &String| member_of_live_path(path).is_some();
        let ephemerals = draft.view().ephemerals(session);
        let memberships = ephemerals.iter().filter(|path| is_membership(path)).count() + 1;
        check_count(
            "memberships of a session",
            memberships,
            SESSION_MEMBERSHIPS_MAX,
        )?;
        check_owner(draft, session, &self.live)?;
        self.put_spec(draft, spec, Some(session))?;
        let stamp = draft.stamp();
        let before = self.record(draft);
        let record =
            MemberRecord::joined(before.as_ref(), spec, session, stamp.zxid, stamp.wall_time);
        self.put_record(draft, &record)?;
        member_joined(draft, self.group, self.id)
    }

    /// The member says something else of itself; it stays the same incarnation.
    fn change(&self, draft: &mut Draft, spec: &MemberSpec) -> Result<(), Refusal> {
        self.put_spec(draft, spec, None)?;
        let mut record = self.known(draft)?;
        record.zone.clone_from(&spec.zone);
        record.capacity.clone_from(&spec.capacity);
        self.put_record(draft, &record)
    }

    /// Closes the session with which the member lives, if the caller knows its secret. That session's
    /// client may believe in its lease for a timeout yet: until then nobody else gets what it had,
    /// as this member or as any other (rule R34).
    fn end_predecessor(
        &self,
        draft: &mut Draft,
        predecessor: Option<SessionSecret>,
    ) -> Result<(), Refusal> {
        let Some(owner) = self.lives_with(draft) else {
            return Ok(());
        };
        let session = draft.view().session(owner);
        let timeout_ms = session.map_or(0, |session| session.timeout_ms);
        let secret = session.map(|owner| owner.secret);
        let knows = secret.is_some() && predecessor.map(|known| known.hash()) == secret;
        if !knows {
            return Err(self.lives());
        }
        let fenced_until = draft.clock().plus_millis(u64::from(timeout_ms));
        let memberships = draft.view().ephemerals(owner);
        end_session(draft, owner, false)?;
        for path in &memberships {
            let Some((group, member)) = member_of_live_path(path) else {
                continue;
            };
            let of = Member::new(group, member);
            let mut record = of.known(draft)?;
            record.fenced_until = record.fenced_until.max(Some(fenced_until));
            of.put_record(draft, &record)?;
        }
        Ok(())
    }

    fn leave(&self, draft: &mut Draft, session: SessionId) -> Result<(), Refusal> {
        self.check_own(draft, session)?;
        delete_unchecked(draft, &self.live)?;
        let mut record = self.known(draft)?;
        let stamp = draft.stamp();
        record.end("left", stamp.log_time, stamp.wall_time);
        self.put_record(draft, &record)
    }

    fn drain(&self, draft: &mut Draft, drain: bool) -> Result<(), Refusal> {
        let mut record = self.known(draft)?;
        record.draining = drain;
        let why = if drain { "drained" } else { "undrained" };
        record.tell(why, draft.stamp().wall_time);
        self.put_record(draft, &record)
    }

    fn report(
        &self,
        draft: &mut Draft,
        session: SessionId,
        healthy: bool,
        restart_delay_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        self.check_own(draft, session)?;
        check_limit(
            "milliseconds that a member is awaited",
            restart_delay_ms.unwrap_or_default(),
            RESTART_DELAY_MS_MAX,
        )?;
        let mut record = self.known(draft)?;
        record.healthy = healthy;
        record.restart_delay_ms = restart_delay_ms;
        self.put_record(draft, &record)
    }

    fn forget(&self, draft: &mut Draft) -> Result<(), Refusal> {
        self.known(draft)?;
        if self.lives_with(draft).is_some() {
            return Err(self.lives());
        }
        if is_fenced(&self.known(draft)?, draft) {
            return Err(bad_member(format!(
                "{} was taken over, and whoever it was may believe to be it for a while",
                self.id
            )));
        }
        delete_unchecked(draft, &self.record)?;
        member_forgotten(draft, self.group, self.id)
    }

    /// The session with which it lives.
    fn lives_with(&self, draft: &Draft) -> Option<SessionId> {
        draft.view().node(&self.live)?.stat.ephemeral_owner
    }

    fn check_own(&self, draft: &Draft, session: SessionId) -> Result<(), Refusal> {
        match self.lives_with(draft) {
            Some(owner) if owner == session => Ok(()),
            Some(_) => Err(self.lives()),
            None => Err(self.unknown()),
        }
    }

    fn known(&self, draft: &Draft) -> Result<MemberRecord, Refusal> {
        self.record(draft).ok_or_else(|| self.unknown())
    }

    fn lives(&self) -> Refusal {
        Refusal::MemberLives {
            group: self.group.to_owned(),
            member: self.id.to_owned(),
        }
    }

    fn unknown(&self) -> Refusal {
        Refusal::UnknownMember {
            group: self.group.to_owned(),
            member: self.id.to_owned(),
        }
    }

    fn record(&self, draft: &Draft) -> Option<MemberRecord> {
        let node = draft.view().node(&self.record)?;
        match serde_json::from_slice(node.data) {
            Ok(record) => Some(record),
            Err(error) => panic!(
                "{} is written by the kernel alone, and: {error}",
                self.record
            ),
        }
    }

    /// It is the client's, and so has the limit of a value.
    fn put_spec(
        &self,
        draft: &mut Draft,
        spec: &MemberSpec,
        owner: Option<SessionId>,
    ) -> Result<(), Refusal> {
        let bytes = json(spec);
        check_value(draft, &bytes)?;
        put(draft, &self.live, bytes, owner)
    }

    fn put_record(&self, draft: &mut Draft, record: &MemberRecord) -> Result<(), Refusal> {
        let bytes = json(record);
        assert!(
            bytes.len() <= MEMBER_RECORD_BYTES_MAX,
            "{record:?} takes {} bytes",
            bytes.len()
        );
        put(draft, &self.record, bytes, None)
    }
}

/// Makes a group's own nodes, where they are not there.
pub(super) fn make_group(draft: &mut Draft, group: &str) -> Result<(), Refusal> {
    let root = group_path(group);
    if draft.view().node(&root).is_some() {
        return Ok(());
    }
    check_children("groups of the cluster", draft, GROUPS, GROUPS_MAX)?;
    for path in [root, members_path(group), live_path(group)] {
        put(draft, &path, Vec::new(), None)?;
    }
    Ok(())
}

pub(super) fn check_children(
    what: &str,
    draft: &Draft,
    path: &str,
    max: usize,
) -> Result<(), Refusal> {
    let children = draft
        .view()
        .node(path)
        .map_or(0, |node| node.stat.num_children);
    check_limit(what, children + 1, max as u64)
}

/// Whether a former incarnation of a member may believe in what it had (rule R34).
pub(super) fn is_fenced(record: &MemberRecord, draft: &Draft) -> bool {
    let now = draft.stamp().log_time;
    record.fenced_until.is_some_and(|until| until > now)
}

pub(super) fn bad_member(reason: String) -> Refusal {
    Refusal::BadMember { reason }
}

pub(super) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("plain values have JSON: {error}"),
    }
}

/// Sets a node's value, or creates it with that owner.
pub(super) fn put(
    draft: &mut Draft,
    path: &str,
    data: Vec<u8>,
    owner: Option<SessionId>,
) -> Result<(), Refusal> {
    if let Some(node) = draft.view().node(path) {
        let version = node.stat.version + 1;
        return draft.effect(Effect::SetNode {
            path: path.to_owned(),
            data,
            version,
        });
    }
    let parent = split_last(path).and_then(|(parent, _)| draft.view().node(parent));
    let Some(parent_cversion) = parent.map(|parent| parent.stat.cversion + 1) else {
        panic!("{path} has no parent");
    };
    draft.effect(Effect::CreateNode {
        path: path.to_owned(),
        data,
        owner,
        parent_cversion,
        parent_sequence: None,
    })
}
