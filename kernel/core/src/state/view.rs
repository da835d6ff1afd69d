//! Reading a state: the committed one, or the one that a leader executes on.

use core::ops::ControlFlow;

use folkmoot_proto::bootstrap::Bootstrap;
use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::group::live_path;
use folkmoot_proto::limits::{Limits, UPLOAD_IDLE_MS_MAX};
use folkmoot_proto::partition::{
    MapLedger, MapRecord, MemberNo, PartitionId, PartitionRecord, partition_of_owner_path,
};
use folkmoot_proto::{
    Digest, LogTime, MapId, MountId, RequestId, SecretHash, SessionId, Ticket, Zxid, split_last,
};

use super::key::{Key, PathKey};
use super::value::{
    Component, Counters, EventQueue, Mount, Node, Session, StoredCompletion, StoredReply, Timer,
    Upload, Value, Wait,
};

/// What can be read of a state. Everything that a transaction rests on is read through this, so
/// that the leader's overlay is seen wherever the committed state is.
pub trait View {
    /// The last transaction that is seen.
    fn zxid(&self) -> Zxid;

    /// The log time of that transaction (rule R9).
    fn log_time(&self) -> LogTime;

    /// The cluster as it was made (rule R21).
    fn bootstrap(&self) -> &Bootstrap;

    /// How much of what there is.
    fn counters(&self) -> Counters;

    /// The value of a key of any table but the nodes'.
    fn value(&self, key: &Key) -> Option<&Value>;

    /// Visits keys of any table but the nodes', rising from `from` on, until told to stop.
    fn scan<'a>(&'a self, from: &Key, visit: &mut dyn FnMut(&'a Key, &'a Value) -> ControlFlow<()>);

    /// The node at a valid path.
    fn node(&self, path: &str) -> Option<Node<'_>>;

    /// Names of children, sorted, after `after`, at most `limit`; empty if there is no node.
    fn children(&self, path: &str, after: Option<&str>, limit: usize) -> Vec<String>;

    /// The caps of this cluster.
    fn limits(&self) -> &Limits {
        &self.bootstrap().limits
    }

    /// An open session.
    fn session(&self, id: SessionId) -> Option<&Session> {
        match self.value(&Key::Session(id))? {
            Value::Session(session) => Some(session),
            _ => None,
        }
    }

    /// The open session that was opened with a secret (rule R10).
    fn session_by_secret(&self, secret: SecretHash) -> Option<SessionId> {
        match self.value(&Key::SessionBySecret(secret))? {
            Value::SessionId(session) => Some(*session),
            _ => None,
        }
    }

    /// All open sessions, rising.
    fn sessions(&self) -> Vec<SessionId> {
        let mut found = Vec::new();
        self.scan(&Key::Session(SessionId::ZERO), &mut |key, _| {
            let &Key::Session(session) = key else {
                return ControlFlow::Break(());
            };
            found.push(session);
            ControlFlow::Continue(())
        });
        found
    }

    /// The answer that a request got, while it is not acknowledged.
    fn reply(&self, session: SessionId, request: RequestId) -> Option<&StoredReply> {
        match self.value(&Key::Reply(session, request))? {
            Value::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// A wait's outcome, while it is not acknowledged.
    fn completion(&self, session: SessionId, ticket: Ticket) -> Option<&StoredCompletion> {
        match self.value(&Key::Completion(session, ticket))? {
            Value::Completion(completion) => Some(completion),
            _ => None,
        }
    }

    /// The outcomes that a session has not acknowledged, by rising ticket.
    fn completions(&self, session: SessionId) -> Vec<(Ticket, &StoredCompletion)> {
        let mut found = Vec::new();
        let from = Key::Completion(session, Ticket::ZERO);
        self.scan(&from, &mut |key, value| match (key, value) {
            (&Key::Completion(of, ticket), Value::Completion(stored)) if of == session => {
                found.push((ticket, &**stored));
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// The paths of a session's ephemeral nodes, in the order of [`PathKey`].
    fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let mut found = Vec::new();
        let from = Key::EphemeralOf(session, PathKey::new("/"));
        self.scan(&from, &mut |key, _| match key {
            Key::EphemeralOf(of, path) if *of == session => {
                found.push(path.as_str().to_owned());
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// A wait that is not over.
    fn wait(&self, ticket: Ticket) -> Option<&Wait> {
        match self.value(&Key::Wait(ticket))? {
            Value::Wait(wait) => Some(wait),
            _ => None,
        }
    }

    /// The waits of a session, oldest first.
    fn waits_of_session(&self, session: SessionId) -> Vec<Ticket> {
        let mut found = Vec::new();
        self.scan(
            &Key::WaitOf(session, Ticket::ZERO),
            &mut |key, _| match key {
                &Key::WaitOf(of, ticket) if of == session => {
                    found.push(ticket);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The wait that a request of a session began, if it is not over.
    fn wait_of_request(&self, session: SessionId, request: RequestId) -> Option<&Wait> {
        let waits = self.waits_of_session(session).into_iter();
        let mut waits = waits.filter_map(|ticket| self.wait(ticket));
        waits.find(|wait| wait.request == request)
    }

    /// The waits of a mount, oldest first.
    fn waits_of_mount(&self, mount: MountId) -> Vec<Ticket> {
        let mut found = Vec::new();
        self.scan(&Key::WaitAt(mount, Ticket::ZERO), &mut |key, _| match key {
            &Key::WaitAt(at, ticket) if at == mount => {
                found.push(ticket);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// Waits whose deadline is at or before `now`, earliest first, at most `limit`.
    fn due_waits(&self, now: LogTime, limit: usize) -> Vec<Ticket> {
        let mut found = Vec::new();
        let from = Key::WaitDue(LogTime::ZERO, Ticket::ZERO);
        self.scan(&from, &mut |key, _| match key {
            &Key::WaitDue(due, ticket) if due <= now && found.len() < limit => {
                found.push(ticket);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// The earliest deadline of a wait or an upload, or due time of a timer.
    fn next_due(&self) -> Option<LogTime> {
        let mut earliest: Option<LogTime> = None;
        let from = Key::WaitDue(LogTime::ZERO, Ticket::ZERO);
        self.scan(&from, &mut |key, _| {
            if let &Key::WaitDue(due, _) = key {
                earliest = Some(due);
            }
            ControlFlow::Break(())
        });
        let from = Key::TimerDue(LogTime::ZERO, MountId::ZERO, String::new());
        self.scan(&from, &mut |key, _| {
            if let &Key::TimerDue(due, ..) = key {
                earliest = Some(earliest.map_or(due, |other| other.min(due)));
            }
            ControlFlow::Break(())
        });
        let uploads = self.uploads().into_iter();
        let uploads = uploads.filter_map(|(_, upload)| self.upload_due(upload));
        earliest.into_iter().chain(uploads).min()
    }

    /// A mount.
    fn mount(&self, id: MountId) -> Option<&Mount> {
        match self.value(&Key::Mount(id))? {
            Value::Mount(mount) => Some(mount),
            _ => None,
        }
    }

    /// The mount at exactly this path.
    fn mount_at(&self, path: &str) -> Option<&Mount> {
        match self.value(&Key::MountAt(PathKey::new(path)))? {
            Value::MountId(id) => self.mount(*id),
            _ => None,
        }
    }

    /// The mount at this path or above it.
    fn mount_covering(&self, path: &str) -> Option<&Mount> {
        if self.counters().mounts == 0 {
            return None;
        }
        let mut at = path;
        loop {
            if let Some(mount) = self.mount_at(at) {
                return Some(mount);
            }
            at = split_last(at)?.0;
        }
    }

    /// A mount at this path or below it.
    fn mount_within(&self, path: &str) -> Option<&Mount> {
        let mut found = None;
        self.scan(&Key::MountAt(PathKey::new(path)), &mut |key, value| {
            if let (Key::MountAt(at), Value::MountId(id)) = (key, value)
                && at.is_within(path)
            {
                found = Some(*id);
            }
            ControlFlow::Break(())
        });
        self.mount(found?)
    }

    /// All mounts, by rising id.
    fn mounts(&self) -> Vec<&Mount> {
        let mut found = Vec::new();
        self.scan(&Key::Mount(MountId::ZERO), &mut |_, value| {
            let Value::Mount(mount) = value else {
                return ControlFlow::Break(());
            };
            found.push(&**mount);
            ControlFlow::Continue(())
        });
        found
    }

    /// A timer of a mount.
    fn timer(&self, mount: MountId, name: &str) -> Option<&Timer> {
        match self.value(&Key::Timer(mount, name.to_owned()))? {
            Value::Timer(timer) => Some(timer),
            _ => None,
        }
    }

    /// The names of a mount's timers, sorted, at most `limit`.
    fn timers_of_mount(&self, mount: MountId, limit: usize) -> Vec<String> {
        let mut found = Vec::new();
        self.scan(&Key::Timer(mount, String::new()), &mut |key, _| match key {
            Key::Timer(of, name) if *of == mount && found.len() < limit => {
                found.push(name.clone());
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// Timers that are due at or before `now`, earliest first, at most `limit`.
    fn due_timers(&self, now: LogTime, limit: usize) -> Vec<(MountId, String)> {
        let mut found = Vec::new();
        let from = Key::TimerDue(LogTime::ZERO, MountId::ZERO, String::new());
        self.scan(&from, &mut |key, _| match key {
            Key::TimerDue(due, mount, name) if *due <= now && found.len() < limit => {
                found.push((*mount, name.clone()));
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// The numbers of a mount's queued events.
    fn event_queue(&self, mount: MountId) -> EventQueue {
        match self.value(&Key::EventQueue(mount)) {
            Some(Value::EventQueue(queue)) => *queue,
            _ => EventQueue::default(),
        }
    }

    /// The oldest event of a mount's queue.
    fn first_event(&self, mount: MountId) -> Option<&MountEvent> {
        match self.value(&Key::Event(mount, self.event_queue(mount).first))? {
            Value::Event(event) => Some(event),
            _ => None,
        }
    }

    /// Mounts whose queue has events, by rising id, after `after`, at most `limit`.
    fn mounts_with_events(&self, after: MountId, limit: usize) -> Vec<MountId> {
        let mut found = Vec::new();
        self.scan(
            &Key::EventQueue(after.next()),
            &mut |key, value| match (key, value) {
                (&Key::EventQueue(mount), Value::EventQueue(queue)) if found.len() < limit => {
                    if queue.count() > 0 {
                        found.push(mount);
                    }
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The mounts that want to hear of a session's end, by rising id.
    fn followers(&self, session: SessionId) -> Vec<MountId> {
        let mut found = Vec::new();
        self.scan(
            &Key::Follow(session, MountId::ZERO),
            &mut |key, _| match key {
                &Key::Follow(of, mount) if of == session => {
                    found.push(mount);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// Whether a mount wants to hear of a session's end.
    fn is_following(&self, mount: MountId, session: SessionId) -> bool {
        self.value(&Key::Follow(session, mount)).is_some()
    }

    /// The sessions that a mount follows, rising.
    fn followed_by(&self, mount: MountId) -> Vec<SessionId> {
        let mut found = Vec::new();
        let from = Key::FollowedBy(mount, SessionId::ZERO);
        self.scan(&from, &mut |key, _| match key {
            &Key::FollowedBy(by, session) if by == mount => {
                found.push(session);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// An upload that is no component yet.
    fn upload(&self, digest: Digest) -> Option<&Upload> {
        match self.value(&Key::Upload(digest))? {
            Value::Upload(upload) => Some(upload),
            _ => None,
        }
    }

    /// All uploads, by digest.
    fn uploads(&self) -> Vec<(Digest, &Upload)> {
        let mut found = Vec::new();
        self.scan(
            &Key::Upload(Digest([0; 32])),
            &mut |key, value| match (key, value) {
                (&Key::Upload(digest), Value::Upload(upload)) => {
                    found.push((digest, &**upload));
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The unfinished and unexamined uploads of a session.
    fn uploads_of_session(&self, session: SessionId) -> Vec<Digest> {
        let mut found = Vec::new();
        let from = Key::UploadOf(session, Digest([0; 32]));
        self.scan(&from, &mut |key, _| match key {
            &Key::UploadOf(of, digest) if of == session => {
                found.push(digest);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// When an upload is to be dropped, if nothing comes before: its next chunk, or its sealing, is
    /// late, or the wait for its examination is over. None while that wait goes on.
    fn upload_due(&self, upload: &Upload) -> Option<LogTime> {
        match &upload.sealed {
            None => Some(upload.touched.plus_millis(UPLOAD_IDLE_MS_MAX)),
            Some(sealed) if self.wait(sealed.ticket).is_none() => Some(LogTime::ZERO),
            Some(_) => None,
        }
    }

    /// Uploads that are to be dropped at `now` (rule R31).
    fn due_uploads(&self, now: LogTime) -> Vec<Digest> {
        let uploads = self.uploads().into_iter();
        let due = uploads.filter(|(_, upload)| self.upload_due(upload).is_some_and(|at| at <= now));
        due.map(|(digest, _)| digest).collect()
    }

    /// An installed component.
    fn component(&self, digest: Digest) -> Option<&Component> {
        match self.value(&Key::Component(digest))? {
            Value::Component(component) => Some(component),
            _ => None,
        }
    }

    /// All installed components, by digest.
    fn components(&self) -> Vec<(Digest, &Component)> {
        let mut found = Vec::new();
        self.scan(
            &Key::Component(Digest([0; 32])),
            &mut |key, value| match (key, value) {
                (&Key::Component(digest), Value::Component(component)) => {
                    found.push((digest, &**component));
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// Where the chunks of an upload or component begin, rising.
    fn chunk_offsets(&self, digest: Digest) -> Vec<u32> {
        let mut found = Vec::new();
        self.scan(&Key::Chunk(digest, 0), &mut |key, _| match key {
            &Key::Chunk(of, offset) if of == digest => {
                found.push(offset);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// The bytes of an upload or component, as far as they are there.
    fn component_bytes(&self, digest: Digest) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.scan(
            &Key::Chunk(digest, 0),
            &mut |key, value| match (key, value) {
                (Key::Chunk(of, _), Value::Chunk(chunk)) if *of == digest => {
                    bytes.extend_from_slice(chunk);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        bytes
    }

    /// A partition map.
    fn map(&self, map: MapId) -> Option<&MapRecord> {
        match self.value(&Key::Map(map))? {
            Value::Map(record) => Some(record),
            _ => None,
        }
    }

    /// The map of a group.
    fn map_of(&self, group: &str) -> Option<(MapId, &MapRecord)> {
        if self.counters().maps == 0 {
            return None;
        }
        match self.value(&Key::MapOf(group.to_owned()))? {
            Value::MapId(map) => Some((*map, self.map(*map)?)),
            _ => None,
        }
    }

    /// All maps, rising.
    fn maps(&self) -> Vec<MapId> {
        let mut found = Vec::new();
        self.scan(&Key::Map(MapId::ZERO), &mut |key, _| match key {
            &Key::Map(map) => {
                found.push(map);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// What of a map changes often.
    fn ledger(&self, map: MapId) -> MapLedger {
        match self.value(&Key::Ledger(map)) {
            Some(Value::Ledger(ledger)) => MapLedger::clone(ledger),
            _ => MapLedger::default(),
        }
    }

    /// The last transaction that had an owner of any map let go (rule R35).
    fn last_revoke(&self) -> Zxid {
        let mut last = Zxid::ZERO;
        self.scan(&Key::Ledger(MapId::ZERO), &mut |_, value| {
            let Value::Ledger(ledger) = value else {
                return ControlFlow::Break(());
            };
            last = last.max(ledger.last_revoke);
            ControlFlow::Continue(())
        });
        last
    }

    /// A partition of a map.
    fn partition(&self, map: MapId, partition: PartitionId) -> Option<&PartitionRecord> {
        match self.value(&Key::Partition(map, partition))? {
            Value::Partition(record) => Some(record),
            _ => None,
        }
    }

    /// The partitions of a map, rising.
    fn partitions(&self, map: MapId) -> Vec<PartitionId> {
        let mut found = Vec::new();
        self.scan(
            &Key::Partition(map, PartitionId(0)),
            &mut |key, _| match key {
                &Key::Partition(of, partition) if of == map => {
                    found.push(partition);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The partitions of a map that are moving, rising.
    fn moving(&self, map: MapId) -> Vec<PartitionId> {
        let mut found = Vec::new();
        self.scan(&Key::Moving(map, PartitionId(0)), &mut |key, _| match key {
            &Key::Moving(of, partition) if of == map => {
                found.push(partition);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        });
        found
    }

    /// The partitions that a member has or is to have, rising.
    fn held_by(&self, map: MapId, member: MemberNo) -> Vec<PartitionId> {
        let mut found = Vec::new();
        self.scan(
            &Key::HeldBy(map, member, PartitionId(0)),
            &mut |key, _| match key {
                &Key::HeldBy(of, by, partition) if (of, by) == (map, member) => {
                    found.push(partition);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The partitions of a map that were changed after `zxid`, in the order of their changes.
    fn changed_after(&self, map: MapId, zxid: Zxid) -> Vec<PartitionId> {
        let mut found = Vec::new();
        self.scan(
            &Key::ChangedAt(map, zxid.next(), PartitionId(0)),
            &mut |key, _| match key {
                &Key::ChangedAt(of, _, partition) if of == map => {
                    found.push(partition);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        );
        found
    }

    /// The incarnation in which a member of a group lives (rule R34).
    fn incarnation(&self, group: &str, member: &str) -> Option<Zxid> {
        let node = self.node(&format!("{}/{member}", live_path(group)));
        node.map(|node| node.stat.czxid)
    }

    /// What a guard's token must be for the guard to hold: the node's `czxid`; at an owner's path
    /// the token of its promotion, while the owner lives in the incarnation that was promoted (rules
    /// R13, R33).
    fn grant(&self, path: &str) -> Option<Zxid> {
        let Some((group, partition)) = partition_of_owner_path(path) else {
            return self.node(path).map(|node| node.stat.czxid);
        };
        let (map, record) = self.map_of(group)?;
        let owner = self.partition(map, partition)?.assignment.owner?;
        let member = record.members.get(owner.member.0 as usize)?;
        let lives = self.incarnation(group, member) == Some(owner.incarnation);
        lives.then_some(owner.token)
    }
}
