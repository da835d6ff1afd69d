//! The tree as one would write it down: a map of paths.

use std::collections::BTreeMap;

use folkmoot_core::state::{Speculative, Stamp, State, View, kernel_nodes};
use folkmoot_proto::batch::Txn;
use folkmoot_proto::client::Stat;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::split_last;
use proptest::prelude::*;

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelNode {
    data: Vec<u8>,
    stat: Stat,
    sequence: u64,
}

/// All nodes but the kernel's own.
pub(crate) struct Model {
    nodes: BTreeMap<String, ModelNode>,
}

impl Model {
    pub(crate) fn new(first: &State) -> Self {
        let Some(root) = first.node("/") else {
            panic!("a root");
        };
        let root = ModelNode {
            data: root.data.to_vec(),
            stat: root.stat,
            sequence: root.sequence,
        };
        Self {
            nodes: BTreeMap::from([("/".to_owned(), root)]),
        }
    }

    pub(crate) fn apply(&mut self, stamp: Stamp, txn: &Txn) {
        for effect in &txn.effects {
            match effect {
                Effect::CreateNode {
                    path,
                    data,
                    owner,
                    parent_sequence,
                    ..
                } => {
                    let stat = Stat {
                        czxid: stamp.zxid,
                        mzxid: stamp.zxid,
                        pzxid: stamp.zxid,
                        ctime: stamp.wall_time,
                        mtime: stamp.wall_time,
                        ephemeral_owner: *owner,
                        data_length: data.len() as u32,
                        ..Stat::default()
                    };
                    let node = ModelNode {
                        data: data.clone(),
                        stat,
                        sequence: 0,
                    };
                    self.nodes.insert(path.clone(), node);
                    let parent = self.parent(path);
                    parent.stat.num_children += 1;
                    parent.stat.cversion += 1;
                    parent.stat.pzxid = stamp.zxid;
                    parent.sequence += u64::from(parent_sequence.is_some());
                }
                Effect::SetNode { path, data, .. } => {
                    let node = self.nodes.entry(path.clone()).or_default();
                    node.data.clone_from(data);
                    node.stat.data_length = data.len() as u32;
                    node.stat.version += 1;
                    node.stat.mzxid = stamp.zxid;
                    node.stat.mtime = stamp.wall_time;
                }
                Effect::DeleteNode { path, .. } => {
                    self.nodes.remove(path);
                    let parent = self.parent(path);
                    parent.stat.num_children -= 1;
                    parent.stat.cversion += 1;
                    parent.stat.pzxid = stamp.zxid;
                }
                _ => {}
            }
        }
    }

    pub(crate) fn compare(&self, state: &Speculative) -> Result<(), TestCaseError> {
        for (path, node) in &self.nodes {
            let Some(read) = state.node(path) else {
                return Err(TestCaseError::fail(format!("no node at {path}")));
            };
            prop_assert_eq!(read.data, &node.data[..], "{}", path);
            prop_assert_eq!(read.stat, node.stat, "{}", path);
            prop_assert_eq!(read.sequence, node.sequence, "{}", path);
            let is_child =
                |other: &&String| split_last(other).is_some_and(|(parent, _)| parent == path);
            let names = self.nodes.keys().filter(is_child);
            let names = names.filter_map(|other| Some(split_last(other)?.1.to_owned()));
            let mut names: Vec<_> = names.collect();
            if path == "/" {
                names.push(kernel_nodes::ROOT[1..].to_owned());
            }
            names.sort();
            prop_assert_eq!(&state.children(path, None, usize::MAX), &names, "{}", path);
            for limit in 0..names.len() {
                let after = names.get(limit / 2).map(String::as_str);
                let rest: Vec<_> = names.iter().skip(limit / 2 + 1).take(limit).collect();
                let read = state.children(path, after, limit);
                prop_assert_eq!(read.iter().collect::<Vec<_>>(), rest);
            }
        }
        Ok(())
    }

    fn parent(&mut self, path: &str) -> &mut ModelNode {
        let parent = split_last(path).map_or("/", |(parent, _)| parent);
        self.nodes.entry(parent.to_owned()).or_default()
    }
}
