//! The worlds of plugins: what each may import, and what it exports.

use core::fmt;

use folkmoot_core::plugin::RECIPE;
use folkmoot_core::policy::PolicyWorld;

/// What kind of plugin a component is. Which one is decided by what it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum World {
    /// Mounted at a path, run inside the transaction.
    Recipe,
    /// A policy: which members should have which partitions.
    Rebalancer,
    /// A policy: whom to suspect, and whose expiry to put off.
    FailureDetector,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Recipe, Self::Rebalancer, Self::FailureDetector];

    /// Its name in the WIT, and in the description of a component.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recipe => RECIPE,
            Self::Rebalancer => PolicyWorld::Rebalancer.name(),
            Self::FailureDetector => PolicyWorld::FailureDetector.name(),
        }
    }

    /// The interface that a component of it exports.
    pub(crate) const fn export(self) -> &'static str {
        match self {
            Self::Recipe => "guest",
            Self::Rebalancer => "planner",
            Self::FailureDetector => "detector",
        }
    }

    /// The interfaces that a component of it may import.
    pub(crate) const fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Recipe => &[
                "types", "tree", "sessions", "waits", "timers", "random", "log",
            ],
            Self::Rebalancer | Self::FailureDetector => &["types", "tables", "log"],
        }
    }

    /// Which policies these are; none for recipes.
    #[must_use]
    pub const fn policy(self) -> Option<PolicyWorld> {
        match self {
            Self::Recipe => None,
            Self::Rebalancer => Some(PolicyWorld::Rebalancer),
            Self::FailureDetector => Some(PolicyWorld::FailureDetector),
        }
    }
}

/// A component whose imports or exports are not of the types that its world says.
#[derive(Debug, thiserror::Error)]
#[error("it does not fit the world folkmoot:plugin/{world}: {reason}")]
pub struct WrongWorld {
    /// The world.
    pub world: World,
    /// What does not fit, with all causes.
    pub reason: String,
}

impl From<PolicyWorld> for World {
    fn from(world: PolicyWorld) -> Self {
        match world {
            PolicyWorld::Rebalancer => Self::Rebalancer,
            PolicyWorld::FailureDetector => Self::FailureDetector,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
