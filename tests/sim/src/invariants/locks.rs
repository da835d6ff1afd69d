//! Never two current holders of a lock, nor two owners of a partition. At no simulated instant do two
//! clients believe that they have one, whatever their clocks show: a belief ends with the client's
//! own lease (rules R16, R35). And in the agreed history a grant is a node that is there alone (rule
//! R13).

use std::collections::BTreeMap;

use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::{SessionId, Zxid};

use crate::violation::{Checked, Violation};

/// What only one can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing<'a> {
    Lock(&'a str),
    Partition(PartitionId),
}

/// A client that believes that it has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Believer {
    pub(crate) session: SessionId,
    pub(crate) token: Zxid,
}

/// At one instant, these clients believe that they have these things.
pub(crate) fn check<'a>(believers: impl Iterator<Item = (Thing<'a>, Believer)>) -> Checked {
    let mut holders: BTreeMap<Thing<'a>, Believer> = BTreeMap::new();
    for (thing, believer) in believers {
        if let Some(other) = holders.insert(thing, believer)
            && other != believer
        {
            return Err(Violation::new(
                "one_holder",
                format!("{believer:?} and {other:?} both have {thing:?}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_two_believers() {
        let believer = |session| Believer {
            session: SessionId(session),
            token: Zxid(session),
        };
        let (a, b) = (Thing::Lock("a"), Thing::Partition(PartitionId(0)));
        assert!(check([(a, believer(1)), (b, believer(2))].into_iter()).is_ok());
        assert!(check([(a, believer(1)), (a, believer(2))].into_iter()).is_err());
    }
}
