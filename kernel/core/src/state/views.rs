//! Consistent views: a part of the committed state as it was when the view was opened, read a chunk
//! at a time while the state goes on.
//!
//! An open view costs what changes while it is open: the old value of a record that changes is kept
//! until the view has passed it.

use core::ops::Bound;
use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_proto::record::StateMeta;

use super::committed::State;
use super::key::{Key, PathKey};
use super::record::{encode_node, encode_value};
use super::tree::NodeId;
use super::value::{Node, Value};
use super::view::View;

/// Names an open view; never used twice by one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(u64);

/// What a view is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// All records: a snapshot.
    Everything,
    /// The node at a path alone.
    Node(String),
    /// The node at a path, and all below it.
    Subtree(String),
    /// The node at a path, and its children.
    Children(String),
    /// The children of the node at a path that come after a name.
    ChildrenAfter(String, Option<String>),
}

/// As many views are open as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} views are open already")]
pub struct TooManyViews {
    /// The limit.
    pub limit: usize,
}

/// Records of a view, by rising key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewRecords {
    /// Keys and values.
    pub records: Vec<(Bytes, Bytes)>,
    /// Whether these are the last.
    pub last: bool,
}

/// The views that are open on a state.
#[derive(Debug)]
pub(super) struct Views {
    open: BTreeMap<ViewId, OpenView>,
    next: u64,
    limit: usize,
}

#[derive(Debug)]
struct OpenView {
    span: Span,
    meta: StateMeta,
    /// The last key that was read.
    passed: Option<Key>,
    /// What records were that have changed since the view was opened, and were not passed.
    kept: BTreeMap<Key, Option<Value>>,
}

impl Views {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            next: 1,
            limit,
        }
    }

    pub(super) fn any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Keeps what a record is, before it changes, for each view that has yet to read it.
    pub(super) fn keep(&mut self, key: &Key, before: impl Fn() -> Option<Value>) {
        for view in self.open.values_mut() {
            let is_ahead = view.passed.as_ref().is_none_or(|passed| passed < key);
            if is_ahead && view.span.has(key) && !view.kept.contains_key(key) {
                view.kept.insert(key.clone(), before());
            }
        }
    }
}

impl Span {
    /// Whether a record of this key is in it.
    fn has(&self, key: &Key) -> bool {
        let path = match (self, key) {
            (Self::Everything, _) => return key.is_record(),
            (_, Key::Node(path)) => path,
            _ => return false,
        };
        let is_child_of = |parent: &str| path.split_last().is_some_and(|(of, _)| of == parent);
        match self {
            Self::Everything => true,
            Self::Node(at) => path.as_str() == at,
            Self::Subtree(top) => path.is_within(top),
            Self::Children(parent) => path.as_str() == parent || is_child_of(parent),
            Self::ChildrenAfter(parent, after) => {
                is_child_of(parent) && after.as_deref().is_none_or(|after| path.name() > after)
            }
        }
    }
}

impl State {
    /// Opens a view of what is there now.
    ///
    /// # Errors
    ///
    /// If the cluster's limit of open views is reached.
    pub fn open_view(&mut self, span: Span) -> Result<ViewId, TooManyViews> {
        let limit = self.views.limit;
        if self.views.open.len() >= limit {
            return Err(TooManyViews { limit });
        }
        let id = ViewId(self.views.next);
        self.views.next += 1;
        let view = OpenView {
            span,
            meta: self.meta(),
            passed: None,
            kept: BTreeMap::new(),
        };
        self.views.open.insert(id, view);
        Ok(id)
    }

    /// Where the state stood when the view was opened; none if the view is not open.
    #[must_use]
    pub fn view_meta(&self, view: ViewId) -> Option<&StateMeta> {
        self.views.open.get(&view).map(|view| &view.meta)
    }

    /// Closes a view; nothing happens if it is not open.
    pub fn close_view(&mut self, view: ViewId) {
        self.views.open.remove(&view);
    }

    /// Reads the next records of a view: at least one if there is one, and then as many as fit
    /// `bytes_max`. A view that is not open has none.
    pub fn read_view(&mut self, view: ViewId, bytes_max: usize) -> ViewRecords {
        let mut records = Vec::new();
        let mut bytes = 0;
        let last = self.walk_view(view, &mut |key, value| {
            let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
            key.encode(&mut key_bytes);
            match value {
                Found::Node(node) => encode_node(&node, &mut value_bytes),
                Found::Value(value) => encode_value(value, &mut value_bytes),
            }
            bytes += key_bytes.len() + value_bytes.len();
            records.push((key_bytes.into(), value_bytes.into()));
            bytes < bytes_max
        });
        ViewRecords { records, last }
    }

    /// Visits the next nodes of a view, in the order of [`PathKey`], until `visit` says that this
    /// one was enough. True at the view's end. A view that is not open has none.
    pub fn read_view_nodes(
        &mut self,
        view: ViewId,
        visit: &mut dyn FnMut(&str, Node<'_>) -> bool,
    ) -> bool {
        self.walk_view(view, &mut |key, value| match (key, value) {
            (Key::Node(path), Found::Node(node)) => visit(path.as_str(), node),
            _ => true,
        })
    }

    fn walk_view(&mut self, id: ViewId, visit: &mut dyn FnMut(&Key, Found<'_>) -> bool) -> bool {
        // Out of its place while the state is read; nothing changes meanwhile.
        let Some(mut view) = self.views.open.remove(&id) else {
            return true;
        };
        let mut base = self.first_of(&view);
        let at_end = loop {
            let base_key = base.key(self);
            let kept_first = match (&base_key, view.kept.first_key_value()) {
                (None, None) => break true,
                (Some(base_key), Some((kept, _))) => kept <= base_key,
                (base_key, _) => base_key.is_none(),
            };
            let mut more = true;
            let passed = if kept_first && let Some((key, value)) = view.kept.pop_first() {
                match &value {
                    Some(Value::Node(node)) => more = visit(&key, Found::Node(node.as_node())),
                    Some(value) => more = visit(&key, Found::Value(value)),
                    None => {}
                }
                if base_key.as_ref() == Some(&key) {
                    base = base.next(self, &view.span);
                }
                key
            } else if let Some(key) = base_key {
                if let Some(found) = base.found(self, &key) {
                    more = visit(&key, found);
                }
                base = base.next(self, &view.span);
                key
            } else {
                break true;
            };
            view.passed = Some(passed);
            if !more {
                break view.kept.is_empty() && matches!(base, Base::End);
            }
        };
        self.views.open.insert(id, view);
        at_end
    }

    /// The first record of the present state that a view has not passed.
    fn first_of(&self, view: &OpenView) -> Base {
        let passed = view.passed.as_ref();
        let node = match (&view.span, passed) {
            (Span::Everything | Span::Subtree(_), Some(Key::Node(path))) => {
                self.tree.first_after(path.as_str())
            }
            (Span::Everything, Some(_)) => None,
            (Span::Everything, None) => self.tree.find("/"),
            (Span::Subtree(top), _) => self.tree.find(top).or_else(|| self.tree.first_after(top)),
            (Span::Node(at) | Span::Children(at), None) => self.tree.find(at),
            (Span::Children(parent), Some(Key::Node(path))) => {
                let after = (path.as_str() != parent).then(|| path.name());
                self.child_after(parent, after)
            }
            (Span::ChildrenAfter(parent, after), None) => {
                self.child_after(parent, after.as_deref())
            }
            (Span::ChildrenAfter(parent, _), Some(Key::Node(path))) => {
                self.child_after(parent, Some(path.name()))
            }
            (Span::Node(_) | Span::Children(_) | Span::ChildrenAfter(..), Some(_)) => None,
        };
        match (node, &view.span) {
            (Some(id), span) => Base::node(self, id, span),
            (None, Span::Everything) => {
                let after = passed.filter(|key| !matches!(key, Key::Node(_)));
                Base::record_after(self, after)
            }
            (None, _) => Base::End,
        }
    }

    fn child_after(&self, parent: &str, after: Option<&str>) -> Option<NodeId> {
        self.tree.child_after(self.tree.find(parent)?, after)
    }
}

/// What a walk finds under a key.
enum Found<'a> {
    Node(Node<'a>),
    Value(&'a Value),
}

/// Where a walk stands in the present state.
enum Base {
    Node(NodeId),
    Record(Key),
    End,
}

impl Base {
    fn node(state: &State, id: NodeId, span: &Span) -> Self {
        let is_inside = match span {
            Span::Subtree(top) => PathKey::new(&state.tree.path(id)).is_within(top),
            _ => true,
        };
        if is_inside { Self::Node(id) } else { Self::End }
    }

    fn record_after(state: &State, after: Option<&Key>) -> Self {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut records = state.records.range((from, Bound::Unbounded));
        match records.next() {
            Some((key, _)) if key.is_record() => Self::Record(key.clone()),
            _ => Self::End,
        }
    }

    fn key(&self, state: &State) -> Option<Key> {
        match self {
            Self::Node(id) => Some(Key::Node(PathKey::new(&state.tree.path(*id)))),
            Self::Record(key) => Some(key.clone()),
            Self::End => None,
        }
    }

    fn found<'a>(&self, state: &'a State, key: &Key) -> Option<Found<'a>> {
        match self {
            Self::Node(id) => Some(Found::Node(state.tree.node(*id))),
            Self::Record(_) => state.value(key).map(Found::Value),
            Self::End => None,
        }
    }

    fn next(&self, state: &State, span: &Span) -> Self {
        match (self, span) {
            (Self::Node(id), Span::Everything) => match state.tree.next(*id) {
                Some(id) => Self::Node(id),
                None => Self::record_after(state, None),
            },
            (Self::Node(id), Span::Subtree(_)) => match state.tree.next(*id) {
                Some(id) => Self::node(state, id, span),
                None => Self::End,
            },
            (Self::Node(id), Span::Children(parent)) if state.tree.find(parent) == Some(*id) => {
                state
                    .tree
                    .child_after(*id, None)
                    .map_or(Self::End, Self::Node)
            }
            (Self::Node(id), Span::Children(_) | Span::ChildrenAfter(..)) => {
                state.tree.next_sibling(*id).map_or(Self::End, Self::Node)
            }
            (Self::Node(_), Span::Node(_)) | (Self::End, _) => Self::End,
            (Self::Record(key), _) => Self::record_after(state, Some(key)),
        }
    }
}
