//! Positions and names as types, as the WIT's `types`.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

position!(
    /// The place of a transaction in the cluster's total order of writes. A grant's fencing token
    /// is the zxid of the transaction that made it.
    Zxid
);
position!(
    /// A client's session.
    SessionId
);
position!(
    /// A request that waits: the zxid of the call that answered with a wait.
    Ticket
);
position!(
    /// Milliseconds on the cluster's log clock.
    LogTime
);

impl LogTime {
    /// The time `millis` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}
