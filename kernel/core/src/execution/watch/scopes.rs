//! Which watchers a change concerns.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::client::WatchScope;
use folkmoot_proto::split_last;

use super::WatcherKey;
use crate::state::is_within;

/// The watchers, by what they watch. To find those of a change costs as many look-ups as its path
/// has components, however many watches there are.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    by_path: BTreeMap<String, BTreeSet<(WatchScope, WatcherKey)>>,
}

impl Scopes {
    pub(super) fn insert(&mut self, path: &str, scope: WatchScope, watcher: WatcherKey) {
        let watchers = self.by_path.entry(path.to_owned()).or_default();
        watchers.insert((scope, watcher));
    }

    pub(super) fn remove(&mut self, path: &str, scope: WatchScope, watcher: WatcherKey) {
        if let Some(watchers) = self.by_path.get_mut(path) {
            watchers.remove(&(scope, watcher));
            if watchers.is_empty() {
                self.by_path.remove(path);
            }
        }
    }

    /// Calls `visit` for each watcher that a change at `path` concerns.
    pub(super) fn visit(&self, path: &str, mut visit: impl FnMut(WatcherKey)) {
        if self.by_path.is_empty() {
            return;
        }
        let mut at = path;
        loop {
            for &(scope, watcher) in self.by_path.get(at).into_iter().flatten() {
                if concerns(scope, at, path) {
                    visit(watcher);
                }
            }
            let Some((parent, _)) = split_last(at) else {
                return;
            };
            at = parent;
        }
    }
}

/// Whether a watch of `scope` at `watched` is told of a change at `changed`.
pub(super) fn concerns(scope: WatchScope, watched: &str, changed: &str) -> bool {
    let is_child = || split_last(changed).is_some_and(|(parent, _)| parent == watched);
    match scope {
        WatchScope::Node => watched == changed,
        WatchScope::Children => watched == changed || is_child(),
        WatchScope::Recursive => is_within(changed, watched),
    }
}
