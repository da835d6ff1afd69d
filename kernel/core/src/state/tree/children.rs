//! The children of one node, sorted by name.

use super::NodeId;

/// Children of a run: 1 KiB, so that an insertion moves little and a million of them are few runs.
const RUN_MAX: usize = 256;

/// Ids sorted by name, in runs of limited length; no run is empty. The names are the tree's.
#[derive(Debug, Default)]
pub(super) struct Children {
    runs: Vec<Vec<NodeId>>,
    len: usize,
}

impl Children {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a child whose name none has.
    pub(super) fn insert<'a>(
        &mut self,
        name: &[u8],
        id: NodeId,
        name_of: impl Fn(NodeId) -> &'a [u8],
    ) {
        self.len += 1;
        let (run_at, at) = self.place(name, &name_of);
        if let Some(run) = self.runs.get_mut(run_at) {
            if run.len() < RUN_MAX {
                run.insert(at, id);
                return;
            }
            if at < RUN_MAX {
                let upper = run.split_off(RUN_MAX / 2);
                if at <= RUN_MAX / 2 {
                    run.insert(at, id);
                    self.runs.insert(run_at + 1, upper);
                } else {
                    self.runs.insert(run_at + 1, upper);
                    if let Some(run) = self.runs.get_mut(run_at + 1) {
                        run.insert(at - RUN_MAX / 2, id);
                    }
                }
                return;
            }
        }
        // Behind a full run: sequential names fill their runs.
        let next = (run_at + 1).min(self.runs.len());
        self.runs.insert(next, vec![id]);
    }

    /// Removes the child of that name.
    pub(super) fn remove<'a>(&mut self, name: &[u8], name_of: impl Fn(NodeId) -> &'a [u8]) {
        let (run_at, behind) = self.place(name, &name_of);
        let (Some(run), true) = (self.runs.get_mut(run_at), behind > 0) else {
            panic!("a child is not among its parent's");
        };
        let removed = run.remove(behind - 1);
        assert!(name_of(removed) == name, "another child has its place");
        self.len -= 1;
        if run.is_empty() {
            self.runs.remove(run_at);
        }
    }

    /// The children after `after`, sorted.
    pub(super) fn after<'a>(
        &self,
        after: Option<&[u8]>,
        name_of: impl Fn(NodeId) -> &'a [u8],
    ) -> impl Iterator<Item = NodeId> {
        let (run_at, at) = match after {
            Some(name) => self.place(name, &name_of),
            None => (0, 0),
        };
        let first = self.runs.get(run_at).and_then(|run| run.get(at..));
        let rest = self.runs.get(run_at + 1..).unwrap_or_default();
        let first = first.unwrap_or_default().iter();
        first.chain(rest.iter().flatten()).copied()
    }

    /// The run, and the place in it, behind all children whose names are `name` or before it. The
    /// place may be the run's end.
    fn place<'a>(&self, name: &[u8], name_of: &impl Fn(NodeId) -> &'a [u8]) -> (usize, usize) {
        let is_before = |id: NodeId| name_of(id) <= name;
        // Most children come with rising names.
        if let Some(last) = self.runs.last()
            && last.first().is_some_and(|&id| is_before(id))
        {
            let at = match last.last() {
                Some(&id) if is_before(id) => last.len(),
                _ => last.partition_point(|&id| is_before(id)),
            };
            return (self.runs.len() - 1, at);
        }
        let runs_before = self
            .runs
            .partition_point(|run| run.first().is_some_and(|&id| is_before(id)));
        let run_at = runs_before.saturating_sub(1);
        let at = self
            .runs
            .get(run_at)
            .map_or(0, |run| run.partition_point(|&id| is_before(id)));
        (run_at, at)
    }
}
