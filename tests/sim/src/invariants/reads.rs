//! A read gives the tree as it was at the zxid that comes with it, and that is never older than what
//! it may be: what the session has seen and what it waits for, and, where it is linearizable, all
//! that anyone was told before it was asked (promise of reads; rule R20).

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Query, ReadOutcome, ReadRefusal, Stat};

use crate::oracle::Oracle;
use crate::oracle::tree::NodeAt;
use crate::violation::{Checked, Violation};

/// A read was answered at `zxid`, which may not be before `floor`.
pub(crate) fn check(
    oracle: &Oracle,
    query: &Query,
    (floor, zxid): (Zxid, Zxid),
    result: &Result<ReadOutcome, ReadRefusal>,
) -> Checked {
    let wrong = |what: String| {
        Err(Violation::new(
            "reads",
            format!("{query:?} is answered {result:?} at zxid {zxid}, but {what}"),
        ))
    };
    if zxid < floor {
        return wrong(format!("zxid {floor} was seen before it was asked"));
    }
    if zxid > oracle.zxid {
        return wrong(format!("only {} is committed", oracle.zxid));
    }
    let fits = match (query, result) {
        (Query::Get { path }, Ok(ReadOutcome::Node { data, stat })) => oracle
            .tree
            .at(path, zxid)
            .is_some_and(|node| node.data == *data && same(node, stat)),
        (Query::Get { path }, Err(ReadRefusal::NoNode { .. })) => {
            oracle.tree.at(path, zxid).is_none()
        }
        (Query::Exists { path }, Ok(ReadOutcome::Exists(stat))) => {
            match (oracle.tree.at(path, zxid), stat) {
                (Some(node), Some(stat)) => same(node, stat),
                (node, stat) => node.is_none() && stat.is_none(),
            }
        }
        (Query::Children { path, .. }, Ok(ReadOutcome::Children { names, more, .. })) => {
            let expected = oracle.tree.children_at(path, zxid);
            match more {
                true => expected.starts_with(names),
                false => expected == *names,
            }
        }
        (Query::Children { path, .. }, Err(ReadRefusal::NoNode { .. })) => {
            oracle.tree.at(path, zxid).is_none()
        }
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => wrong("the tree was another".to_owned()),
    }
}

fn same(node: &NodeAt, stat: &Stat) -> bool {
    node.czxid == stat.czxid
        && node.mzxid == stat.mzxid
        && node.version == stat.version
        && node.owner == stat.ephemeral_owner
}
