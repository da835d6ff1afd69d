//! A leader in small: makes random transactions that hold on what it has executed so far.

use bytes::Bytes;
use folkmoot_core::state::{AppliedTxn, Speculative, Stamp, State, View};
use folkmoot_proto::batch::{BatchHeader, Completion, Origin, Txn};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::codec::Compact;
use folkmoot_proto::effect::{Effect, MountEvent};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{
    ClusterId, Digest, LogIndex, LogTime, MemberId, MountId, RequestId, SecretHash, SessionId,
    Term, Ticket, WallTime, Zxid, split_last,
};

/// Choices of a random history: each step is a kind and three numbers.
pub(crate) type Step = (u8, u8, u8, u8);

pub(crate) fn bootstrap() -> Bytes {
    let members = [1, 2, 3].map(|id| BootstrapMember {
        id: MemberId(id),
        peer_address: format!("host{id}:1"),
        client_address: format!("host{id}:2"),
    });
    let bootstrap = Bootstrap {
        cluster: ClusterId([7; 16]),
        created: WallTime(1_000),
        members: members.into(),
        limits: Limits {
            views_max: 7,
            ..Limits::default()
        },
    };
    bootstrap.to_bytes().into()
}

pub(crate) fn new_state() -> State {
    match State::new(bootstrap()) {
        Ok(state) => state,
        Err(error) => panic!("{error}"),
    }
}

/// A leader with what it has executed and not cut into a batch.
pub(crate) struct Leader {
    pub(crate) state: Speculative,
    pending: Vec<Txn>,
    header: BatchHeader,
    pub(crate) entries: Vec<Entry>,
    applied: usize,
}

impl Leader {
    pub(crate) fn new() -> Self {
        let entry = Entry {
            index: LogIndex(1),
            term: Term(1),
            last_zxid: Zxid::ZERO,
            kind: EntryKind::Bootstrap,
            payload: bootstrap(),
        };
        Self {
            state: Speculative::new(new_state()),
            pending: Vec::new(),
            header: BatchHeader {
                term: Term(1),
                base_zxid: Zxid::ZERO,
                log_time: LogTime(5),
                wall_time: WallTime(2_000),
            },
            entries: vec![entry],
            applied: 0,
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            zxid: self.state.zxid().next(),
            log_time: self.header.log_time,
            wall_time: self.header.wall_time,
        }
    }

    /// Makes an entry of what was executed.
    pub(crate) fn cut(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let txns: Vec<_> = self.pending.drain(..).map(|txn| txn.to_compact()).collect();
        let last = self.state.zxid();
        self.entries.push(Entry {
            index: LogIndex(self.entries.len() as u64 + 1),
            term: self.header.term,
            last_zxid: last,
            kind: EntryKind::Batch,
            payload: self.header.encode_with(&txns).into(),
        });
        self.header.base_zxid = last;
        self.header.log_time = LogTime(self.header.log_time.0 + 3);
        self.header.wall_time = WallTime(self.header.wall_time.0 + 2);
    }

    /// Applies the next entry to the leader's own base.
    pub(crate) fn apply_one(&mut self) -> Option<Vec<AppliedTxn>> {
        let entry = self.entries.get(self.applied)?;
        self.applied += 1;
        let applied = match self.state.base_mut().apply_entry(entry) {
            Ok(applied) => applied,
            Err(error) => panic!("{error} in {entry:?}"),
        };
        self.state.commit_through(entry.last_zxid);
        Some(applied)
    }

    pub(crate) fn apply_all(&mut self) {
        while self.apply_one().is_some() {}
    }

    /// Loses leadership: what is in no entry is gone.
    pub(crate) fn depose(&mut self) {
        self.apply_all();
        self.state.reset();
        self.pending.clear();
    }

    /// Executes a step, if it makes a transaction that holds.
    pub(crate) fn execute(&mut self, step: Step) {
        if let Some(txn) = self.transaction(step) {
            self.execute_txn(txn);
        }
    }

    pub(crate) fn execute_txn(&mut self, txn: Txn) {
        let stamp = self.stamp();
        match self.state.apply_txn(stamp, &txn) {
            Ok(()) => self.pending.push(txn),
            Err(error) => panic!("{error} in {txn:?}"),
        }
    }

    /// The next entry as a leader with another state would make it, of this transaction.
    pub(crate) fn forge(&self, txn: Txn) -> Entry {
        Entry {
            index: LogIndex(self.entries.len() as u64 + 1),
            term: self.header.term,
            last_zxid: self.state.zxid().next(),
            kind: EntryKind::Batch,
            payload: self.header.encode_with(&[txn.to_compact()]).into(),
        }
    }

    /// A transaction that holds on the state as it is executed.
    pub(crate) fn transaction(&self, step: Step) -> Option<Txn> {
        let (kind, a, b, c) = step;
        let session = self.session(c);
        let mut txn = Txn::default();
        match kind % 10 {
            0..=3 => {
                let effect = self.node_effect(kind, a, b, session)?;
                txn.effects.push(effect);
            }
            4 => txn.effects.push(self.session_effect(a, session)),
            5 => return self.close(session?),
            6 => self.wait_effects(a, session?, &mut txn)?,
            7 | 8 => txn.effects.push(self.mount_effect(a, b, c, session)?),
            _ => txn.effects.push(self.component_effect(a, b, session?)?),
        }
        if let Some(session) = session
            && b % 4 != 0
            && txn.origin.is_none()
        {
            txn.origin = self.origin(session, a);
        }
        Some(txn)
    }

    fn session(&self, choice: u8) -> Option<SessionId> {
        let sessions = self.state.sessions();
        let place = usize::from(choice) % (sessions.len() + 1);
        sessions.get(place).copied()
    }

    fn origin(&self, session: SessionId, choice: u8) -> Option<Origin> {
        let open = self.state.session(session)?;
        let unacknowledged = open.last_id.0 - open.acked_up_to.0;
        let acked = open.acked_up_to.0 + u64::from(choice) % (unacknowledged + 1);
        let reply = match choice % 3 {
            0 => Ok(Outcome::Invoked(vec![choice; usize::from(choice % 40)])),
            1 => Ok(Outcome::Synced),
            _ => Err(Refusal::NoNode { path: "/x".into() }),
        };
        Some(Origin {
            session,
            request: open.last_id.next(),
            acked_up_to: RequestId(acked),
            reply,
        })
    }

    fn node_effect(&self, kind: u8, a: u8, b: u8, owner: Option<SessionId>) -> Option<Effect> {
        let path = path_of(a, b);
        let data = vec![b; usize::from(b % 7) * 5];
        let node = self.state.node(&path);
        match (kind % 4, node) {
            (0 | 1, None) => {
                self.create(&path, data, if b.is_multiple_of(3) { owner } else { None })
            }
            (0 | 1, Some(node)) if a.is_multiple_of(5) && !node.is_ephemeral() => {
                let path = format!("{}/s{:020}", path.trim_end_matches('/'), node.sequence);
                self.create_sequential(&path, data)
            }
            (2, Some(node)) => Some(Effect::SetNode {
                path: path.clone(),
                data,
                version: node.stat.version + 1,
            }),
            (3, Some(node)) if node.stat.num_children == 0 && path != "/" => self.delete(&path),
            _ => None,
        }
    }

    fn create(&self, path: &str, data: Vec<u8>, owner: Option<SessionId>) -> Option<Effect> {
        let (parent, _) = split_last(path)?;
        let parent = self
            .state
            .node(parent)
            .filter(|node| !node.is_ephemeral())?;
        Some(Effect::CreateNode {
            path: path.to_owned(),
            data,
            owner,
            parent_cversion: parent.stat.cversion + 1,
            parent_sequence: None,
        })
    }

    fn create_sequential(&self, path: &str, data: Vec<u8>) -> Option<Effect> {
        let (parent, _) = split_last(path)?;
        let sequence = self.state.node(parent)?.sequence;
        match self.create(path, data, None)? {
            Effect::CreateNode {
                path,
                data,
                owner,
                parent_cversion,
                ..
            } => Some(Effect::CreateNode {
                path,
                data,
                owner,
                parent_cversion,
                parent_sequence: Some(sequence + 1),
            }),
            _ => None,
        }
    }

    fn delete(&self, path: &str) -> Option<Effect> {
        let (parent, _) = split_last(path)?;
        Some(Effect::DeleteNode {
            path: path.to_owned(),
            parent_cversion: self.state.node(parent)?.stat.cversion + 1,
        })
    }

    fn session_effect(&self, a: u8, session: Option<SessionId>) -> Effect {
        let open = session.and_then(|session| self.state.session(session));
        if let Some(open) = open
            && a.is_multiple_of(2)
        {
            return Effect::AttachSession {
                session: open.id,
                epoch: open.epoch.next(),
                member: MemberId(u64::from(a % 3) + 1),
            };
        }
        let mut secret = [a; 32];
        secret[..8].copy_from_slice(&self.stamp().zxid.0.to_le_bytes());
        Effect::OpenSession {
            secret: SecretHash(secret),
            timeout_ms: 1_000 + u32::from(a),
            member: MemberId(1),
        }
    }

    /// Closes a session with its nodes and waits. Deletions of one parent count up.
    fn close(&self, session: SessionId) -> Option<Txn> {
        let mut effects = Vec::new();
        let mut cversions = std::collections::BTreeMap::new();
        for path in self.state.ephemerals(session) {
            let (parent, _) = split_last(&path)?;
            let now = self.state.node(parent)?.stat.cversion;
            let cversion = cversions.entry(parent.to_owned()).or_insert(now);
            *cversion += 1;
            effects.push(Effect::DeleteNode {
                path: path.clone(),
                parent_cversion: *cversion,
            });
        }
        let mut completions = Vec::new();
        for ticket in self.state.waits_of_session(session) {
            effects.push(Effect::EndWait { ticket });
            completions.push(Completion {
                ticket,
                session,
                request: self.state.wait(ticket)?.request,
                reply: Err(Refusal::SessionEnded),
            });
        }
        for mount in self.state.followers(session) {
            let event = MountEvent::SessionClosed {
                session,
                removed: vec!["a".into()],
            };
            effects.push(Effect::QueueEvent { mount, event });
        }
        let expired = true;
        effects.push(Effect::CloseSession { session, expired });
        Some(Txn {
            origin: None,
            effects,
            completions,
        })
    }

    fn wait_effects(&self, a: u8, session: SessionId, txn: &mut Txn) -> Option<()> {
        let waits = self.state.waits_of_session(session);
        let completions = self.state.completions(session);
        match (a % 3, waits.first(), completions.first()) {
            (0, Some(&ticket), _) => {
                txn.effects.push(Effect::EndWait { ticket });
                txn.completions.push(Completion {
                    ticket,
                    session,
                    request: self.state.wait(ticket)?.request,
                    reply: Ok(Outcome::Invoked(vec![a; 9])),
                });
            }
            (1, _, Some(&(ticket, _))) => txn.effects.push(Effect::DropCompletions {
                session,
                tickets: vec![ticket],
            }),
            _ => {
                let origin = self.origin(session, a)?;
                let mounts = self.state.mounts();
                txn.effects.push(Effect::BeginWait {
                    session,
                    request: origin.request,
                    mount: mounts.first().map_or(MountId::ZERO, |mount| mount.id),
                    deadline: a.is_multiple_of(2).then_some(LogTime(u64::from(a))),
                    memo: vec![a; 3],
                });
                let ticket = Ticket(self.stamp().zxid.0);
                let reply = Ok(Outcome::Waiting(ticket));
                txn.origin = Some(Origin { reply, ..origin });
            }
        }
        Some(())
    }

    fn mount_effect(&self, a: u8, b: u8, c: u8, session: Option<SessionId>) -> Option<Effect> {
        let zxid = self.stamp().zxid;
        let mounts = self.state.mounts();
        let choice = usize::from(b) % (mounts.len() + 1);
        let Some(&mount) = mounts.get(choice) else {
            let components = self.state.components();
            let path = path_of(a, b);
            let free = self.state.mount_covering(&path).is_none()
                && self.state.mount_within(&path).is_none();
            return free.then_some(Effect::PutMount {
                mount: MountId(zxid.0),
                path,
                digest: components.first()?.0,
                config: vec![b'{', b'}'],
                version: zxid,
            });
        };
        let id = mount.id;
        let name = format!("t{}", c % 3);
        Some(match a % 7 {
            0 => Effect::PutMount {
                mount: id,
                path: mount.path.clone(),
                digest: mount.digest,
                config: vec![c],
                version: zxid,
            },
            1 if self.state.waits_of_mount(id).is_empty() => Effect::RemoveMount { mount: id },
            2 => Effect::FollowSession {
                mount: id,
                session: session?,
            },
            3 if self.state.timer(id, &name).is_some() => Effect::CancelTimer { mount: id, name },
            4 if self.state.event_queue(id).count() > 0 => Effect::DequeueEvents {
                mount: id,
                count: u32::from(c) % (self.state.event_queue(id).count() as u32) + 1,
            },
            5 => Effect::QueueEvent {
                mount: id,
                event: MountEvent::Resync,
            },
            _ => Effect::SetTimer {
                mount: id,
                name,
                due: LogTime(u64::from(c)),
                payload: vec![c],
            },
        })
    }

    fn component_effect(&self, a: u8, b: u8, session: SessionId) -> Option<Effect> {
        let digest = Digest([b % 4; 32]);
        if self.state.component(digest).is_some() {
            let mut mounts = self.state.mounts().into_iter();
            let is_free = mounts.all(|mount| mount.digest != digest);
            return (is_free && a.is_multiple_of(4)).then_some(Effect::RemoveComponent { digest });
        }
        let Some(upload) = self.state.upload(digest) else {
            return Some(Effect::PutChunk {
                digest,
                session,
                size: 8,
                offset: 0,
                data: vec![a; 4],
            });
        };
        if upload.sealed.is_some() {
            return Some(Effect::PutComponent {
                digest,
                description: format!("{{\"a\":{a}}}"),
            });
        }
        if a.is_multiple_of(8) {
            return Some(Effect::DropUpload { digest });
        }
        if upload.received == upload.size {
            return Some(Effect::SealUpload {
                digest,
                name: "p".into(),
                ticket: Ticket(1),
            });
        }
        Some(Effect::PutChunk {
            digest,
            session: upload.session,
            size: upload.size,
            offset: upload.received,
            data: vec![a; 4],
        })
    }
}

/// Few paths, some deep, some whose order differs from that of their bytes.
pub(crate) fn path_of(a: u8, b: u8) -> String {
    let top = match a % 5 {
        0 => "a",
        1 => "a-b",
        2 => "b",
        3 => "a b",
        _ => "z",
    };
    match b % 3 {
        0 => format!("/{top}"),
        1 => format!("/{top}/{}", b % 5),
        _ => format!("/{top}/{}/x{}", b % 5, a % 3),
    }
}
