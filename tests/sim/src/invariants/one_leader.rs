//! Election safety: at most one leader in a term (Raft §5.2, Figure 3).

use std::collections::BTreeMap;

use folkmoot_proto::{MemberId, Term};

use crate::violation::{Checked, Violation};

#[derive(Debug, Default)]
pub(crate) struct OneLeader {
    leaders: BTreeMap<Term, MemberId>,
}

impl OneLeader {
    /// `member` was elected in `term`. A member is elected once in a term, whatever it forgets.
    pub(crate) fn elected(&mut self, member: MemberId, term: Term) -> Checked {
        match self.leaders.insert(term, member) {
            None => Ok(()),
            Some(before) => Err(Violation::new(
                "one_leader",
                format!("member {member} was elected in term {term}, as member {before} was"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_two_leaders_of_a_term() {
        let mut check = OneLeader::default();
        assert!(check.elected(MemberId(1), Term(1)).is_ok());
        assert!(check.elected(MemberId(2), Term(2)).is_ok());
        assert!(check.elected(MemberId(1), Term(2)).is_err());
    }
}
