//! The tree of nodes in memory.
//!
//! A node is a slot of 72 bytes in a chunk and one allocation with its name and value. What only
//! directories and ephemeral nodes have is in a side table. Nodes are found by (parent, name) in
//! hash tables that are never iterated; each directory keeps its children sorted.

mod children;
mod index;

use folkmoot_proto::client::Stat;
use folkmoot_proto::{SessionId, WallTime, Zxid, split_last};

use self::children::Children;
use self::index::Index;
use super::apply::Stamp;
use super::value::{Directory, Node, NodeFixed, NodeRecord};

/// Slots of a chunk: large enough that a million nodes are few chunks, small enough that adding one
/// is no pause.
const CHUNK_SLOTS: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 12;

/// A node of a tree, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

const ROOT: NodeId = NodeId(0);

/// In place of a row of the side table: there is none.
const NO_EXTRA: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Tree {
    chunks: Vec<Vec<Slot>>,
    free_slots: Vec<NodeId>,
    extras: Vec<Extra>,
    free_extras: Vec<u32>,
    index: Index,
    nodes: u64,
    /// The directory that was written in last: what is written next is often beside it.
    recent: Option<(String, NodeId)>,
    /// Slots of nodes that the next checkpoint writes.
    dirty: Vec<NodeId>,
}

#[derive(Debug)]
struct Slot {
    /// The name, then the value.
    bytes: Box<[u8]>,
    czxid: Zxid,
    mzxid: Zxid,
    ctime: WallTime,
    mtime: WallTime,
    version: u64,
    parent: NodeId,
    /// The row in the side table.
    extra: u32,
    name_len: u8,
    /// Whether it is among what the next checkpoint writes.
    dirty: bool,
}

const _: () = assert!(size_of::<Slot>() == 72, "memory per node is a promise");

#[derive(Debug)]
enum Extra {
    Free,
    Owner(SessionId),
    Directory(Box<DirectoryExtra>),
}

#[derive(Debug)]
struct DirectoryExtra {
    pzxid: Zxid,
    cversion: u64,
    sequence: u64,
    /// How many children the record says. A child is added or removed before it is counted.
    count: u64,
    children: Children,
}

impl Slot {
    fn name(&self) -> &[u8] {
        self.bytes.split_at(usize::from(self.name_len)).0
    }

    fn data(&self) -> &[u8] {
        self.bytes.split_at(usize::from(self.name_len)).1
    }
}

impl Tree {
    /// The node at a path.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        if self.nodes == 0 {
            return None;
        }
        if let Some((recent, id)) = &self.recent {
            if recent == path {
                return Some(*id);
            }
            if let Some((parent, name)) = split_last(path)
                && recent == parent
            {
                return self.child(*id, name.as_bytes());
            }
        }
        let names = path.split('/').filter(|name| !name.is_empty());
        let mut at = ROOT;
        for name in names {
            at = self.child(at, name.as_bytes())?;
        }
        Some(at)
    }

    /// Notes that something is written in the directory at `path`.
    fn note_recent(&mut self, path: &str, id: NodeId) {
        match &mut self.recent {
            Some((recent, _)) if recent == path => {}
            Some((recent, recent_id)) => {
                recent.clear();
                recent.push_str(path);
                *recent_id = id;
            }
            None => self.recent = Some((path.to_owned(), id)),
        }
    }

    /// The node at a path, to be written.
    pub(super) fn find_to_change(&mut self, path: &str) -> Option<NodeId> {
        let id = self.find(path)?;
        if let Some((parent, _)) = split_last(path) {
            self.note_recent(parent, self.slot(id).parent);
        }
        Some(id)
    }

    /// A node's value and stat.
    pub(super) fn node(&self, id: NodeId) -> Node<'_> {
        let slot = self.slot(id);
        let mut stat = Stat {
            czxid: slot.czxid,
            mzxid: slot.mzxid,
            pzxid: slot.czxid,
            ctime: slot.ctime,
            mtime: slot.mtime,
            version: slot.version,
            data_length: u32::try_from(slot.data().len()).unwrap_or(u32::MAX),
            ..Stat::default()
        };
        let mut sequence = 0;
        match self.extra(slot) {
            Some(Extra::Directory(directory)) => {
                stat.pzxid = directory.pzxid;
                stat.cversion = directory.cversion;
                stat.num_children = directory.count;
                sequence = directory.sequence;
            }
            Some(Extra::Owner(owner)) => stat.ephemeral_owner = Some(*owner),
            Some(Extra::Free) | None => {}
        }
        Node {
            data: slot.data(),
            stat,
            sequence,
        }
    }

    /// A node's last component.
    pub(super) fn name(&self, id: NodeId) -> &str {
        match core::str::from_utf8(self.slot(id).name()) {
            Ok(name) => name,
            Err(error) => panic!("a name is text: {error}"),
        }
    }

    /// A node's path.
    pub(super) fn path(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            names.push(self.name(at));
            at = self.slot(at).parent;
        }
        if names.is_empty() {
            return "/".to_owned();
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Adds a node without children. Its parent is there and it is not.
    pub(super) fn insert(&mut self, path: &str, fixed: NodeFixed, data: &[u8]) -> NodeId {
        let Some((parent_path, name)) = split_last(path) else {
            assert!(self.nodes == 0, "the root is there already");
            return self.add_slot(ROOT, "", fixed, data);
        };
        let Some(parent) = self.find(parent_path) else {
            panic!("{path} has no parent");
        };
        self.note_recent(parent_path, parent);
        self.insert_child(parent, name, fixed, data)
    }

    /// Adds a child without children to a node that is there and has none of that name.
    fn insert_child(
        &mut self,
        parent: NodeId,
        name: &str,
        fixed: NodeFixed,
        data: &[u8],
    ) -> NodeId {
        let id = self.add_slot(parent, name, fixed, data);
        let chunks = &self.chunks;
        let (parents, names) = (
            |id: NodeId| slot_of(chunks, id).parent,
            |id: NodeId| slot_of(chunks, id).name(),
        );
        self.index
            .insert(parent, name.as_bytes(), id, parents, names);
        let directory = directory_mut(
            &mut self.chunks,
            &mut self.extras,
            &mut self.free_extras,
            parent,
        );
        let mut children = core::mem::take(&mut directory.children);
        children.insert(name.as_bytes(), id, |id| self.slot(id).name());
        self.directory_of(parent).children = children;
        id
    }

    /// Sets a node's value.
    pub(super) fn set_data(&mut self, id: NodeId, data: &[u8], version: u64, stamp: Stamp) {
        let slot = self.slot_mut(id);
        let name_len = usize::from(slot.name_len);
        if slot.bytes.len() == name_len + data.len() {
            slot.bytes.split_at_mut(name_len).1.copy_from_slice(data);
        } else {
            slot.bytes = [slot.name(), data].concat().into();
        }
        slot.version = version;
        slot.mzxid = stamp.zxid;
        slot.mtime = stamp.wall_time;
    }

    /// Sets what a node's children change in it. `children` must be how many there are.
    pub(super) fn set_directory(&mut self, id: NodeId, directory: Directory) {
        let extra = self.directory_of(id);
        assert!(
            extra.children.len() as u64 == directory.children,
            "a node has {} children and not {}",
            extra.children.len(),
            directory.children
        );
        extra.pzxid = directory.pzxid;
        extra.cversion = directory.cversion;
        extra.sequence = directory.sequence;
        extra.count = directory.children;
    }

    /// Adds a node as a checkpoint has it, before its children. False, and nothing added, if its
    /// parent is not there or can have no children.
    pub(super) fn restore(&mut self, path: &str, record: &NodeRecord, data: &[u8]) -> bool {
        let Directory {
            pzxid,
            cversion,
            sequence,
            children,
        } = record.directory;
        let is_directory = pzxid != record.fixed.czxid || cversion + sequence + children > 0;
        if is_directory && record.fixed.owner.is_some() {
            return false;
        }
        let parent = split_last(path).map(|(parent, _)| self.find(parent));
        let fits = match parent {
            None => self.nodes == 0,
            Some(None) => false,
            Some(Some(parent)) => !matches!(self.extra(self.slot(parent)), Some(Extra::Owner(_))),
        };
        if !fits {
            return false;
        }
        let id = self.insert(path, record.fixed, data);
        let slot = self.slot_mut(id);
        slot.mzxid = record.mzxid;
        slot.mtime = record.mtime;
        slot.version = record.version;
        if is_directory {
            let directory = self.directory_of(id);
            directory.pzxid = pzxid;
            directory.cversion = cversion;
            directory.sequence = sequence;
            directory.count = children;
        }
        true
    }

    /// A node that has another number of children than its record says.
    pub(super) fn miscounted(&self) -> Option<NodeId> {
        let ids = self
            .chunks
            .iter()
            .zip(0_u32..)
            .flat_map(|(chunk, chunk_at)| {
                let first = chunk_at << CHUNK_BITS;
                (first..).take(chunk.len()).map(NodeId)
            });
        { ids }.find(|&id| match self.extra(self.slot(id)) {
            Some(Extra::Directory(directory)) => directory.count != directory.children.len() as u64,
            _ => false,
        })
    }

    /// Removes a node without children that is not the root.
    pub(super) fn remove(&mut self, id: NodeId) {
        assert!(id != ROOT, "the root stays");
        let slot = self.slot(id);
        let (parent, extra) = (slot.parent, slot.extra);
        if let Some(Extra::Directory(directory)) = self.extra(slot) {
            assert!(
                directory.children.len() == 0,
                "a removed node has no children"
            );
        }
        let chunks = &self.chunks;
        let name_of = |id: NodeId| slot_of(chunks, id).name();
        self.index.remove(parent, name_of(id), id);
        let mut children = core::mem::take(&mut self.directory_of(parent).children);
        children.remove(self.slot(id).name(), |id| self.slot(id).name());
        self.directory_of(parent).children = children;
        if let Some(row) = self.extras.get_mut(extra as usize) {
            *row = Extra::Free;
            self.free_extras.push(extra);
        }
        if self
            .recent
            .as_ref()
            .is_some_and(|(_, recent)| *recent == id)
        {
            self.recent = None;
        }
        let slot = self.slot_mut(id);
        slot.bytes = Box::default();
        slot.name_len = 0;
        slot.extra = NO_EXTRA;
        slot.dirty = false;
        self.free_slots.push(id);
        self.nodes -= 1;
    }

    /// The first child whose name is after `after`.
    pub(super) fn child_after(&self, id: NodeId, after: Option<&str>) -> Option<NodeId> {
        let children = self.children(id)?;
        let after = after.map(str::as_bytes);
        children.after(after, |id| self.slot(id).name()).next()
    }

    /// The children whose names are after `after`, by name.
    pub(super) fn children_after(
        &self,
        id: NodeId,
        after: Option<&str>,
    ) -> impl Iterator<Item = NodeId> {
        let children = self.children(id).into_iter();
        let after = after.map(str::as_bytes);
        children.flat_map(move |children| children.after(after, |id| self.slot(id).name()))
    }

    /// The node that a walk in the order of [`PathKey`](super::key::PathKey) visits after this one.
    pub(super) fn next(&self, id: NodeId) -> Option<NodeId> {
        self.child_after(id, None).or_else(|| self.next_outside(id))
    }

    /// The node that the walk visits after this one's subtree.
    pub(super) fn next_outside(&self, mut id: NodeId) -> Option<NodeId> {
        while id != ROOT {
            if let Some(sibling) = self.next_sibling(id) {
                return Some(sibling);
            }
            id = self.slot(id).parent;
        }
        None
    }

    /// The child of the same parent with the next name.
    pub(super) fn next_sibling(&self, id: NodeId) -> Option<NodeId> {
        if id == ROOT {
            return None;
        }
        self.child_after(self.slot(id).parent, Some(self.name(id)))
    }

    /// The first node whose path is after `path` in the walk, whether `path` is there or not.
    pub(super) fn first_after(&self, path: &str) -> Option<NodeId> {
        if self.nodes == 0 {
            return None;
        }
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.child(at, name.as_bytes()) {
                Some(child) => at = child,
                None => {
                    let sibling = self.child_after(at, Some(name));
                    return sibling.or_else(|| self.next_outside(at));
                }
            }
        }
        self.next(at)
    }

    /// Notes that a node is to be written; whether it was not noted before.
    pub(super) fn mark_dirty(&mut self, id: NodeId) -> bool {
        let was_dirty = core::mem::replace(&mut self.slot_mut(id).dirty, true);
        if !was_dirty {
            self.dirty.push(id);
        }
        !was_dirty
    }

    /// Takes the nodes that are there and to be written, in no particular order.
    pub(super) fn take_dirty(&mut self) -> Vec<NodeId> {
        let mut dirty = core::mem::take(&mut self.dirty);
        // A slot that was freed is clean, and one that was used again may be here twice.
        dirty.retain(|&id| core::mem::take(&mut self.slot_mut(id).dirty));
        dirty
    }

    /// A child by its name.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.index.find(parent, name, |id| {
            let slot = self.slot(id);
            slot.parent == parent && slot.name() == name
        })
    }

    fn children(&self, id: NodeId) -> Option<&Children> {
        match self.extra(self.slot(id))? {
            Extra::Directory(directory) => Some(&directory.children),
            _ => None,
        }
    }

    fn slot(&self, id: NodeId) -> &Slot {
        slot_of(&self.chunks, id)
    }

    fn slot_mut(&mut self, id: NodeId) -> &mut Slot {
        slot_of_mut(&mut self.chunks, id)
    }

    fn extra(&self, slot: &Slot) -> Option<&Extra> {
        self.extras.get(slot.extra as usize)
    }

    fn directory_of(&mut self, id: NodeId) -> &mut DirectoryExtra {
        directory_mut(
            &mut self.chunks,
            &mut self.extras,
            &mut self.free_extras,
            id,
        )
    }

    fn add_slot(&mut self, parent: NodeId, name: &str, fixed: NodeFixed, data: &[u8]) -> NodeId {
        let Ok(name_len) = u8::try_from(name.len()) else {
            panic!("a name has at most 255 bytes, {name:?} has {}", name.len());
        };
        let extra = match fixed.owner {
            Some(owner) => add_extra(&mut self.extras, &mut self.free_extras, Extra::Owner(owner)),
            None => NO_EXTRA,
        };
        let slot = Slot {
            bytes: [name.as_bytes(), data].concat().into(),
            czxid: fixed.czxid,
            mzxid: fixed.czxid,
            ctime: fixed.ctime,
            mtime: fixed.ctime,
            version: 0,
            parent,
            extra,
            name_len,
            dirty: false,
        };
        self.nodes += 1;
        if let Some(id) = self.free_slots.pop() {
            *self.slot_mut(id) = slot;
            return id;
        }
        // Without a free slot all are taken: the next one's number is how many there were.
        let Ok(id) = u32::try_from(self.nodes - 1) else {
            panic!("a tree has fewer than 2^32 nodes");
        };
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_SLOTS => chunk.push(slot),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_SLOTS);
                chunk.push(slot);
                self.chunks.push(chunk);
            }
        }
        NodeId(id)
    }
}

fn slot_of(chunks: &[Vec<Slot>], id: NodeId) -> &Slot {
    let chunk = chunks.get((id.0 >> CHUNK_BITS) as usize);
    let slot = chunk.and_then(|chunk| chunk.get(id.0 as usize & (CHUNK_SLOTS - 1)));
    let Some(slot) = slot else {
        panic!("no slot {}", id.0);
    };
    slot
}

fn slot_of_mut(chunks: &mut [Vec<Slot>], id: NodeId) -> &mut Slot {
    let chunk = chunks.get_mut((id.0 >> CHUNK_BITS) as usize);
    let slot = chunk.and_then(|chunk| chunk.get_mut(id.0 as usize & (CHUNK_SLOTS - 1)));
    let Some(slot) = slot else {
        panic!("no slot {}", id.0);
    };
    slot
}

fn add_extra(extras: &mut Vec<Extra>, free: &mut Vec<u32>, extra: Extra) -> u32 {
    if let Some(row) = free.pop()
        && let Some(place) = extras.get_mut(row as usize)
    {
        *place = extra;
        return row;
    }
    extras.push(extra);
    match u32::try_from(extras.len() - 1) {
        Ok(row) => row,
        Err(_) => panic!("a side table has fewer than 2^32 rows"),
    }
}

/// The directory's row of a node; it gets one if it has none.
fn directory_mut<'a>(
    chunks: &mut [Vec<Slot>],
    extras: &'a mut Vec<Extra>,
    free: &mut Vec<u32>,
    id: NodeId,
) -> &'a mut DirectoryExtra {
    let slot = slot_of_mut(chunks, id);
    if slot.extra == NO_EXTRA {
        let directory = DirectoryExtra {
            pzxid: slot.czxid,
            cversion: 0,
            sequence: 0,
            count: 0,
            children: Children::default(),
        };
        slot.extra = add_extra(extras, free, Extra::Directory(Box::new(directory)));
    }
    match extras.get_mut(slot.extra as usize) {
        Some(Extra::Directory(directory)) => directory,
        _ => panic!("an ephemeral node has no children"),
    }
}
