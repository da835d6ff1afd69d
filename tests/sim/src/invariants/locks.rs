//! Never two current holders of a lock. At no simulated instant do two clients believe that they
//! hold one, whatever their clocks show: a belief ends with the client's own lease (rule R16). And
//! in the agreed history a grant is a node that is there alone (rule R13).

use std::collections::BTreeMap;

use folkmoot_proto::{SessionId, Zxid};

use crate::violation::{Checked, Violation};

/// A client that believes that it holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Believer {
    pub(crate) session: SessionId,
    pub(crate) token: Zxid,
}

/// At one instant, these clients believe that they hold these locks.
pub(crate) fn check<'a>(believers: impl Iterator<Item = (&'a str, Believer)>) -> Checked {
    let mut holders: BTreeMap<&str, Believer> = BTreeMap::new();
    for (lock, believer) in believers {
        if let Some(other) = holders.insert(lock, believer)
            && other != believer
        {
            return Err(Violation::new(
                "one_holder",
                format!("{believer:?} and {other:?} both hold lock {lock}"),
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
        assert!(check([("a", believer(1)), ("b", believer(2))].into_iter()).is_ok());
        assert!(check([("a", believer(1)), ("a", believer(2))].into_iter()).is_err());
    }
}
