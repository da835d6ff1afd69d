//! Who votes.

use folkmoot_proto::MemberId;
use folkmoot_proto::bootstrap::Bootstrap;

/// The voters of the cluster. All counting of votes, acknowledgements and rounds goes through
/// [`Configuration::has_quorum`] and [`Configuration::quorum_value`], so that a joint configuration
/// (Raft §6), which asks for both of its majorities, has this one place to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Sorted; empty while a wiped member has no entry 1.
    voters: Vec<MemberId>,
}

impl Configuration {
    /// The members that the bootstrap entry names.
    pub(super) fn from_bootstrap(bootstrap: &Bootstrap) -> Self {
        Self {
            voters: bootstrap.voters(),
        }
    }

    /// The voters, sorted.
    pub(super) fn voters(&self) -> &[MemberId] {
        &self.voters
    }

    /// Whether nothing is known of the members.
    pub(super) fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether `member` is a voter.
    pub(super) fn is_voter(&self, member: MemberId) -> bool {
        self.voters.binary_search(&member).is_ok()
    }

    /// Whether `member` is the only voter, so that nobody else is asked.
    pub(super) fn is_alone(&self, member: MemberId) -> bool {
        self.voters == [member]
    }

    /// Whether those for which `agrees` holds are a quorum.
    pub(super) fn has_quorum(&self, agrees: impl Fn(MemberId) -> bool) -> bool {
        let votes = self.voters.iter().filter(|voter| agrees(**voter)).count();
        votes >= self.majority()
    }

    /// The greatest value that a quorum has reached; none if no quorum has any.
    pub(super) fn quorum_value<T: Ord>(&self, value: impl Fn(MemberId) -> Option<T>) -> Option<T> {
        let mut values: Vec<T> = self
            .voters
            .iter()
            .filter_map(|voter| value(*voter))
            .collect();
        values.sort_unstable_by(|left, right| right.cmp(left));
        values.into_iter().nth(self.majority() - 1)
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: u64) -> Configuration {
        Configuration {
            voters: (1..=voters).map(MemberId).collect(),
        }
    }

    #[test]
    fn a_majority_is_a_quorum() {
        for (voters, enough) in [(1, 1), (3, 2), (5, 3)] {
            let configuration = of(voters);
            assert!(configuration.has_quorum(|member| member.0 <= enough));
            assert!(!configuration.has_quorum(|member| member.0 < enough));
        }
    }

    #[test]
    fn nobody_is_no_quorum() {
        assert!(!of(0).has_quorum(|_| true));
        assert_eq!(of(0).quorum_value(|member| Some(member.0)), None);
    }

    #[test]
    fn the_quorum_value_is_what_a_majority_has_reached() {
        assert_eq!(of(1).quorum_value(|_| Some(7)), Some(7));
        assert_eq!(of(3).quorum_value(|member| Some(member.0 * 10)), Some(20));
        assert_eq!(of(5).quorum_value(|member| Some(member.0 * 10)), Some(30));
        let two_of_five = of(5).quorum_value(|member| (member.0 <= 2).then_some(9));
        assert_eq!(two_of_five, None);
    }
}
