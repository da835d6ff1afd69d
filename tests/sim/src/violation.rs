//! What a check says when something does not hold.

use std::fmt;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant: the name of its file, or `assertion` where the kernel stopped itself.
    pub invariant: &'static str,
    /// What was seen.
    pub facts: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, facts: impl Into<String>) -> Self {
        Self {
            invariant,
            facts: facts.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.facts)
    }
}

/// What a check gives.
pub(crate) type Checked = Result<(), Violation>;
