//! The tree as the committed effects make it, at every zxid.

use std::collections::BTreeMap;

use folkmoot_proto::{SessionId, Zxid};

/// A node at some zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAt {
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) version: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) owner: Option<SessionId>,
}

/// What a path was from `since` on.
#[derive(Clone, Debug)]
struct Span {
    since: Zxid,
    node: Option<NodeAt>,
}

/// All that paths ever were. The kernel's own nodes are not in it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    paths: BTreeMap<String, Vec<Span>>,
}

/// Whether only the kernel writes `path`.
pub(crate) fn is_kernels(path: &str) -> bool {
    path == "/folkmoot" || path.starts_with("/folkmoot/")
}

impl Tree {
    /// The node at `path` as it is.
    pub(crate) fn now(&self, path: &str) -> Option<&NodeAt> {
        self.paths.get(path)?.last()?.node.as_ref()
    }

    /// The node at `path` as it was once `zxid` was applied.
    pub(crate) fn at(&self, path: &str, zxid: Zxid) -> Option<&NodeAt> {
        let spans = self.paths.get(path)?;
        let after = spans.partition_point(|span| span.since <= zxid);
        spans.get(after.checked_sub(1)?)?.node.as_ref()
    }

    /// Whether a node is at `path` as it is; the root always is.
    pub(crate) fn exists(&self, path: &str) -> bool {
        path == "/" || self.now(path).is_some()
    }

    /// Names of the children of `path` once `zxid` was applied, sorted.
    pub(crate) fn children_at(&self, path: &str, zxid: Zxid) -> Vec<String> {
        let children = self.below(path).filter(|(name, _)| !name.contains('/'));
        children
            .filter(|(_, path)| self.at(path, zxid).is_some())
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Whether anything is below `path`.
    pub(crate) fn has_children(&self, path: &str) -> bool {
        self.below(path).any(|(_, path)| self.now(path).is_some())
    }

    /// Paths that are now owned by `session`.
    pub(crate) fn owned_by(&self, session: SessionId) -> Option<&str> {
        let owned = self.paths.iter().find(|(_, spans)| {
            let node = spans.last().and_then(|span| span.node.as_ref());
            node.is_some_and(|node| node.owner == Some(session))
        });
        owned.map(|(path, _)| path.as_str())
    }

    pub(crate) fn put(&mut self, zxid: Zxid, path: &str, node: Option<NodeAt>) {
        let spans = match self.paths.get_mut(path) {
            Some(spans) => spans,
            None => self.paths.entry(path.to_owned()).or_default(),
        };
        match spans.last_mut() {
            Some(last) if last.since == zxid => last.node = node,
            _ => spans.push(Span { since: zxid, node }),
        }
    }

    fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = match path {
            "/" => "/".to_owned(),
            path => format!("{path}/"),
        };
        let range = self.paths.range(prefix.clone()..);
        range.map_while(move |(path, _)| Some((path.strip_prefix(&prefix)?, path.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(zxid: u64) -> NodeAt {
        NodeAt {
            czxid: Zxid(zxid),
            mzxid: Zxid(zxid),
            version: 0,
            data: Vec::new(),
            owner: None,
        }
    }

    #[test]
    fn remembers_what_was_when() {
        let mut tree = Tree::default();
        tree.put(Zxid(2), "/a", Some(node(2)));
        tree.put(Zxid(3), "/a/b", Some(node(3)));
        tree.put(Zxid(5), "/a/b", None);
        assert!(tree.at("/a", Zxid(1)).is_none());
        assert!(tree.at("/a", Zxid(9)).is_some());
        assert_eq!(tree.children_at("/a", Zxid(4)), ["b"]);
        assert!(tree.children_at("/a", Zxid(5)).is_empty());
        assert!(!tree.has_children("/a"));
        assert!(tree.has_children("/"));
    }
}
