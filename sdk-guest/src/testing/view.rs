//! The tree, sessions, waits and timers of one mount, in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::context::CallContext;
use crate::host::{Created, HostCalls, Node, Stat, TreeError};
use crate::ids::{LogTime, SessionId, Ticket, Zxid};
use crate::rejection::Rejection;

/// Bytes of a node's value, as the kernel's default.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Children in one answer, as the kernel's.
const CHILDREN_MAX: usize = 1000;
/// Host calls of one call, as the kernel's default.
const HOST_CALLS_MAX: u32 = 1000;

/// What a call sees of a [`super::Mount`]; it moves into the runner and comes back.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) state: State,
    context: CallContext,
    wrote: bool,
    randoms: u64,
    host_calls: Cell<u32>,
}

/// Everything that a rejected call leaves as it was, and the log, which stays.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<String, StoredNode>,
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) follows: BTreeSet<SessionId>,
    pub(super) waits: BTreeMap<Ticket, StoredWait>,
    pub(super) completions: BTreeMap<Ticket, Result<Vec<u8>, Rejection>>,
    pub(super) timers: BTreeMap<String, (LogTime, Vec<u8>)>,
    pub(super) log: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct StoredNode {
    data: Vec<u8>,
    pub(super) stat: Stat,
    sequence: u64,
}

#[derive(Clone, Debug)]
pub(super) struct StoredWait {
    pub(super) session: SessionId,
    pub(super) deadline: Option<LogTime>,
    pub(super) memo: Vec<u8>,
}

impl State {
    /// The mount's own node and nothing else.
    pub(super) fn new() -> Self {
        let mut state = Self::default();
        state.nodes.insert(String::new(), StoredNode::default());
        state
    }

    /// Removes a node that has no children, and counts that in its parent.
    pub(super) fn remove(&mut self, path: &str, zxid: Zxid) {
        if self.nodes.remove(path).is_some()
            && let Some(parent) = self.nodes.get_mut(parent_of(path))
        {
            parent.stat.children -= 1;
            parent.stat.cversion += 1;
            parent.stat.pzxid = zxid;
        }
    }
}

impl View {
    /// An event's view of a mount without nodes and sessions.
    #[must_use]
    pub fn empty() -> Self {
        let context = CallContext {
            session: None,
            zxid: Zxid(1),
            now: LogTime(0),
        };
        Self::new(State::new(), context)
    }

    pub(super) fn new(state: State, context: CallContext) -> Self {
        Self {
            state,
            context,
            wrote: false,
            randoms: 0,
            host_calls: Cell::new(0),
        }
    }

    /// Counts a host call.
    #[track_caller]
    fn count(&self) {
        self.host_calls.set(self.host_calls.get() + 1);
        assert!(
            self.host_calls.get() <= HOST_CALLS_MAX,
            "the call makes more than {HOST_CALLS_MAX} host calls, which is a plugin fault"
        );
    }

    /// In which transaction the call is.
    #[must_use]
    pub fn context(&self) -> CallContext {
        self.context
    }

    /// Whether the call has written anything.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    fn create_node(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<Created, TreeError> {
        check_path(path)?;
        check_value(&data)?;
        if path.is_empty() {
            return Err(TreeError::NodeExists);
        }
        let parent = self
            .state
            .nodes
            .get_mut(parent_of(path))
            .ok_or(TreeError::NoParent)?;
        if parent.stat.owner.is_some() {
            return Err(TreeError::EphemeralParent);
        }
        let path = if sequential {
            format!("{path}{:020}", parent.sequence)
        } else {
            path.to_owned()
        };
        if self.state.nodes.contains_key(&path) {
            return Err(TreeError::NodeExists);
        }
        self.wrote = true;
        let zxid = self.context.zxid;
        if let Some(parent) = self.state.nodes.get_mut(parent_of(&path)) {
            parent.sequence += u64::from(sequential);
            parent.stat.children += 1;
            parent.stat.cversion += 1;
            parent.stat.pzxid = zxid;
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            owner,
            ..Stat::default()
        };
        let node = StoredNode {
            data,
            stat,
            sequence: 0,
        };
        self.state.nodes.insert(path, node);
        Ok(Created { zxid, name })
    }
}

impl HostCalls for View {
    fn read(&self, path: &str) -> Result<Node, TreeError> {
        self.count();
        check_path(path)?;
        let node = self.state.nodes.get(path).ok_or(TreeError::NoNode)?;
        Ok(Node {
            data: node.data.clone(),
            stat: node.stat,
        })
    }

    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        sequential: bool,
    ) -> Result<Created, TreeError> {
        self.count();
        self.create_node(path, data, None, sequential)
    }

    fn create_ephemeral(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: SessionId,
        sequential: bool,
    ) -> Result<Created, TreeError> {
        self.count();
        if !self.state.sessions.contains(&owner) {
            return Err(TreeError::OwnerNotOpen);
        }
        self.create_node(path, data, Some(owner), sequential)
    }

    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError> {
        self.count();
        check_path(path)?;
        check_value(&data)?;
        let zxid = self.context.zxid;
        let node = self.state.nodes.get_mut(path).ok_or(TreeError::NoNode)?;
        check_version(&node.stat, expected)?;
        node.data = data;
        node.stat.version += 1;
        node.stat.mzxid = zxid;
        self.wrote = true;
        Ok(node.stat.version)
    }

    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError> {
        self.count();
        check_path(path)?;
        if path.is_empty() {
            return Err(TreeError::BadPath);
        }
        let node = self.state.nodes.get(path).ok_or(TreeError::NoNode)?;
        check_version(&node.stat, expected)?;
        if node.stat.children > 0 {
            return Err(TreeError::NotEmpty);
        }
        self.wrote = true;
        self.state.remove(path, self.context.zxid);
        Ok(())
    }

    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        self.count();
        check_path(path)?;
        if !self.state.nodes.contains_key(path) {
            return Err(TreeError::NoNode);
        }
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let limit = usize::try_from(limit)
            .unwrap_or(CHILDREN_MAX)
            .min(CHILDREN_MAX);
        Ok(self
            .state
            .nodes
            .range(prefix.clone()..)
            .map_while(|(path, _)| path.strip_prefix(prefix.as_str()))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .filter(|name| after.is_none_or(|after| *name > after))
            .take(limit)
            .map(str::to_owned)
            .collect())
    }

    fn session_is_open(&self, session: SessionId) -> bool {
        self.count();
        self.state.sessions.contains(&session)
    }

    fn follow(&mut self, session: SessionId) -> bool {
        self.count();
        let open = self.state.sessions.contains(&session);
        if open {
            self.wrote |= self.state.follows.insert(session);
        }
        open
    }

    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool {
        self.count();
        let alive = self.state.waits.remove(&ticket).is_some();
        if alive {
            self.wrote = true;
            self.state.completions.insert(ticket, outcome);
        }
        alive
    }

    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError> {
        self.count();
        self.wrote = true;
        self.state.timers.insert(name.to_owned(), (due, payload));
        Ok(())
    }

    fn cancel_timer(&mut self, name: &str) -> bool {
        self.count();
        let there = self.state.timers.remove(name).is_some();
        self.wrote |= there;
        there
    }

    fn random(&mut self) -> u64 {
        self.count();
        self.randoms += 1;
        splitmix(self.context.zxid.0 ^ self.randoms << 48)
    }

    fn log(&mut self, message: &str) {
        self.count();
        self.state.log.push(message.to_owned());
    }
}

pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn check_path(path: &str) -> Result<(), TreeError> {
    let fine = |name: &str| {
        !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.chars().any(char::is_control)
    };
    if path.is_empty() || (path.len() <= 1024 && path.split('/').all(fine)) {
        Ok(())
    } else {
        Err(TreeError::BadPath)
    }
}

fn check_value(data: &[u8]) -> Result<(), TreeError> {
    if data.len() <= VALUE_BYTES_MAX {
        Ok(())
    } else {
        Err(TreeError::TooLarge {
            what: "value bytes".to_owned(),
        })
    }
}

fn check_version(stat: &Stat, expected: Option<u64>) -> Result<(), TreeError> {
    match expected {
        Some(expected) if expected != stat.version => Err(TreeError::BadVersion {
            actual: stat.version,
        }),
        _ => Ok(()),
    }
}

/// Steele, Lea and Flood's SplitMix64.
pub(super) fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
