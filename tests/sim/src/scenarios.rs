//! Short scripts for rules that a whole cluster shows too seldom, or not at all: each is a few steps
//! of one machine, and says what is wrong if its rule does not hold.

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub run: fn() -> Result<(), String>,
}

/// All of them.
pub const ALL: &[Scenario] = &[];
