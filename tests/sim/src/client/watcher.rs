//! A client's watches: what was told of each, and up to where.

use folkmoot_proto::client::{Change, SnapshotNode, Watch, WatchScope};
use folkmoot_proto::{ReadId, RequestId, WatchId, Zxid};

/// One watch of a session. It outlives streams: a new one takes it up from its position.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    pub(crate) path: String,
    pub(crate) scope: WatchScope,
    /// Everything up to here was told; none before the first snapshot came.
    pub(crate) position: Option<Zxid>,
    /// Where it was begun in the present stream, if it was: answers to what was asked after that
    /// may not overtake its events (rule R28).
    pub(crate) begun: Option<(RequestId, ReadId)>,
    /// It is resumed in the present stream, or was told of something there: nothing may overtake its
    /// events.
    pub(crate) in_place: bool,
    /// Changes of a transaction that was not told to its end, or nodes of a snapshot likewise.
    pub(crate) half: Half,
}

/// What a client throws away when the stream breaks (rule R29).
#[derive(Clone, Debug, Default)]
pub(crate) struct Half {
    pub(crate) changes: Vec<Change>,
    pub(crate) nodes: Vec<SnapshotNode>,
}

impl Watcher {
    pub(crate) fn new(path: String, scope: WatchScope, position: Option<Zxid>) -> Self {
        Self {
            path,
            scope,
            position,
            begun: None,
            in_place: false,
            half: Half::default(),
        }
    }

    /// The stream is gone.
    pub(crate) fn detach(&mut self) {
        self.begun = None;
        self.in_place = false;
        self.half = Half::default();
    }

    /// What begins it on a new stream.
    pub(crate) fn frame(&self, id: WatchId) -> Watch {
        Watch {
            id,
            path: self.path.clone(),
            scope: self.scope,
            from: self.position,
            with_snapshot: self.position.is_none(),
            with_data: true,
        }
    }

    /// Whether it is told of changes of a node.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let parent = folkmoot_proto::path::split_last(path).map(|(parent, _)| parent);
        match self.scope {
            WatchScope::Node => path == self.path,
            WatchScope::Children => path == self.path || parent == Some(self.path.as_str()),
            WatchScope::Recursive => {
                path == self.path
                    || path
                        .strip_prefix(&self.path)
                        .is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}
