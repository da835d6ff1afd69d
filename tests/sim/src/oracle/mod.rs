//! What the cluster has agreed on, worked out a second time from the committed log alone: the tree
//! at every zxid, sessions and their replies, waits, and the changes of each transaction. Members
//! and clients are held against it.

pub(crate) mod maps;
pub(crate) mod tree;

use std::collections::BTreeMap;

use folkmoot_proto::batch::{Batch, Txn};
use folkmoot_proto::client::ChangeKind;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::reply::Reply;
use folkmoot_proto::{
    ConnEpoch, LogTime, MountId, RequestId, SecretHash, SessionId, Term, Ticket, Zxid,
};

use crate::violation::{Checked, Violation};
use tree::{NodeAt, Tree, is_kernels};

/// A change of one node by one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) path: String,
    pub(crate) kind: ChangeKind,
    pub(crate) data: Vec<u8>,
    pub(crate) version: u64,
}

/// A session's life.
#[derive(Clone, Debug)]
pub(crate) struct SessionLife {
    pub(crate) secret: SecretHash,
    pub(crate) timeout_ms: u32,
    pub(crate) epoch: ConnEpoch,
    pub(crate) last_id: RequestId,
    pub(crate) replies: BTreeMap<RequestId, (Zxid, Reply)>,
    /// When it was over, and whether it expired.
    pub(crate) over: Option<(Zxid, bool)>,
}

/// A wait's life.
#[derive(Clone, Debug)]
pub(crate) struct WaitLife {
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
    pub(crate) mount: MountId,
    pub(crate) begun_in: Term,
    /// The transaction that ended it, and with what.
    pub(crate) over: Option<(Zxid, Term, Reply)>,
}

/// The agreed history.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) zxid: Zxid,
    pub(crate) log_time: LogTime,
    pub(crate) tree: Tree,
    pub(crate) sessions: BTreeMap<SessionId, SessionLife>,
    pub(crate) waits: BTreeMap<Ticket, WaitLife>,
    pub(crate) maps: maps::Maps,
    /// Changes by transaction, those that changed a node.
    changes: BTreeMap<Zxid, Vec<Changed>>,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) zxid: Zxid,
    pub(crate) term: Term,
}

impl Oracle {
    /// The transactions after `from` and up to `to` that changed nodes, with their changes.
    pub(crate) fn changes(&self, from: Zxid, to: Zxid) -> impl Iterator<Item = (Zxid, &[Changed])> {
        let range = self.changes.range(from.next()..=to.max(from.next()));
        range
            .filter(move |(zxid, _)| **zxid <= to)
            .map(|(zxid, changes)| (*zxid, changes.as_slice()))
    }

    /// The clock moves to a batch's time.
    pub(crate) fn begin_batch(&mut self, batch: &Batch) {
        self.log_time = batch.log_time;
    }

    /// Takes a transaction. Effects are strict (rule R6): what they rest on is checked here.
    pub(crate) fn apply(&mut self, place: Place, txn: &Txn) -> Checked {
        self.zxid = place.zxid;
        let mut changes = Vec::new();
        for effect in &txn.effects {
            self.effect(place, effect, &mut changes)
                .map_err(|what| strict(place, effect, &what))?;
        }
        for completion in &txn.completions {
            let Some(wait) = self.waits.get_mut(&completion.ticket) else {
                return Err(Violation::new(
                    "waits",
                    format!(
                        "zxid {} completes a wait that never began: {completion:?}",
                        place.zxid
                    ),
                ));
            };
            wait.over = Some((place.zxid, place.term, completion.reply.clone()));
        }
        if let Some(origin) = &txn.origin
            && let Some(session) = self.sessions.get_mut(&origin.session)
        {
            session.last_id = origin.request;
            let answer = (place.zxid, origin.reply.clone());
            session.replies.insert(origin.request, answer);
        }
        if !changes.is_empty() {
            self.changes.insert(place.zxid, changes);
        }
        Ok(())
    }

    fn effect(
        &mut self,
        place: Place,
        effect: &Effect,
        changes: &mut Vec<Changed>,
    ) -> Result<(), String> {
        self.maps.membership(place.zxid, effect);
        match effect {
            Effect::CreateNode {
                path, data, owner, ..
            } => {
                self.create(place.zxid, path, data, *owner)?;
                changes.push(changed(path, ChangeKind::Created, data, 0));
            }
            Effect::SetNode {
                path,
                data,
                version,
            } => {
                self.set(place.zxid, path, data, *version)?;
                changes.push(changed(path, ChangeKind::Set, data, *version));
            }
            Effect::DeleteNode { path, .. } => {
                self.delete(place.zxid, path)?;
                changes.push(changed(path, ChangeKind::Deleted, &[], 0));
            }
            Effect::OpenSession {
                secret, timeout_ms, ..
            } => {
                self.open_session(place.zxid, *secret, *timeout_ms)?;
            }
            Effect::AttachSession { session, epoch, .. } => {
                let life = self.open_mut(*session)?;
                if *epoch != life.epoch.next() {
                    return Err(format!("the epoch before is {}", life.epoch));
                }
                life.epoch = *epoch;
            }
            Effect::CloseSession { session, expired } => {
                self.open_mut(*session)?.over = Some((place.zxid, *expired));
            }
            Effect::BeginWait {
                session,
                request,
                mount,
                ..
            } => {
                self.open_mut(*session)?;
                let wait = WaitLife {
                    session: *session,
                    request: *request,
                    mount: *mount,
                    begun_in: place.term,
                    over: None,
                };
                self.waits.insert(Ticket(place.zxid.0), wait);
            }
            Effect::EndWait { ticket } => {
                let wait = self.waits.get(ticket).ok_or("there is no such wait")?;
                if let Some((zxid, _, _)) = &wait.over {
                    return Err(format!("the wait is over since zxid {zxid}"));
                }
            }
            other => self.maps.effect(place.zxid, other)?,
        }
        Ok(())
    }

    fn create(
        &mut self,
        zxid: Zxid,
        path: &str,
        data: &[u8],
        owner: Option<SessionId>,
    ) -> Result<(), String> {
        if self.tree.now(path).is_some() {
            return Err("a node is there".to_owned());
        }
        let parent = folkmoot_proto::path::split_last(path).map_or("/", |(parent, _)| parent);
        if !self.tree.exists(parent) && !is_kernels(parent) {
            return Err("the parent is missing".to_owned());
        }
        if self
            .tree
            .now(parent)
            .is_some_and(|parent| parent.owner.is_some())
        {
            return Err("the parent is ephemeral".to_owned());
        }
        if let Some(owner) = owner {
            self.open_mut(owner)?;
        }
        let node = NodeAt {
            czxid: zxid,
            mzxid: zxid,
            version: 0,
            data: data.to_vec(),
            owner,
        };
        self.tree.put(zxid, path, Some(node));
        Ok(())
    }

    fn set(&mut self, zxid: Zxid, path: &str, data: &[u8], version: u64) -> Result<(), String> {
        let before = self.tree.now(path).ok_or("no node is there")?;
        if version != before.version + 1 {
            return Err(format!("the version before is {}", before.version));
        }
        let node = NodeAt {
            mzxid: zxid,
            version,
            data: data.to_vec(),
            ..before.clone()
        };
        self.tree.put(zxid, path, Some(node));
        Ok(())
    }

    fn delete(&mut self, zxid: Zxid, path: &str) -> Result<(), String> {
        if self.tree.now(path).is_none() {
            return Err("no node is there".to_owned());
        }
        if self.tree.has_children(path) {
            return Err("the node has children".to_owned());
        }
        self.tree.put(zxid, path, None);
        Ok(())
    }

    fn open_session(
        &mut self,
        zxid: Zxid,
        secret: SecretHash,
        timeout_ms: u32,
    ) -> Result<(), String> {
        let twin = self
            .sessions
            .iter()
            .find(|(_, life)| life.secret == secret && life.over.is_none());
        if let Some((session, _)) = twin {
            return Err(format!("session {session} has that secret and is open"));
        }
        let life = SessionLife {
            secret,
            timeout_ms,
            epoch: ConnEpoch(1),
            last_id: RequestId::ZERO,
            replies: BTreeMap::new(),
            over: None,
        };
        self.sessions.insert(SessionId(zxid.0), life);
        Ok(())
    }

    fn open_mut(&mut self, session: SessionId) -> Result<&mut SessionLife, String> {
        let life = self.sessions.get_mut(&session).ok_or("no such session")?;
        match life.over {
            None => Ok(life),
            Some((zxid, _)) => Err(format!("session {session} is over since zxid {zxid}")),
        }
    }
}

fn changed(path: &str, kind: ChangeKind, data: &[u8], version: u64) -> Changed {
    Changed {
        path: path.to_owned(),
        kind,
        data: data.to_vec(),
        version,
    }
}

fn strict(place: Place, effect: &Effect, what: &str) -> Violation {
    Violation::new(
        "strict_effects",
        format!("zxid {}: {effect:?}, but {what}", place.zxid),
    )
}
