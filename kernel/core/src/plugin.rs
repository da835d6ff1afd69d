//! How execution calls a guest, whoever runs it: the Wasm host, or native code in the simulator.
//!
//! The transaction's view owns the state while the guest runs: it is moved into the runtime and
//! comes back, since a Wasm store's data must be `'static`.

use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::{Digest, LogTime, MountId, SessionId, Term, Zxid};

pub use crate::execution::view::{TreeError, TxnView};

/// The world of components that can be mounted, in the WIT and in their descriptions. The others are
/// [`PolicyWorld`](crate::policy::PolicyWorld)s.
pub const RECIPE: &str = "recipe";

/// The world of a component, as its description says: a recipe where it does not, as the
/// descriptions did not before there were policies.
#[must_use]
pub fn world_of(description: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Description {
        world: String,
    }
    let description = serde_json::from_str::<Description>(description);
    description.map_or_else(|_| RECIPE.to_owned(), |description| description.world)
}

/// Whether a policy says in its description that it can not do without a column, named
/// `table.column`.
pub(crate) fn needs_column(description: &str, column: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Description {
        needs: Vec<String>,
    }
    let description = serde_json::from_str::<Description>(description);
    description.is_ok_and(|of| of.needs.iter().any(|needed| needed == column))
}

/// Whose warm instance (rule R14): it belongs to one version of one mount in one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// The mount.
    pub mount: MountId,
    /// The version of the mount.
    pub version: Zxid,
    /// The term.
    pub term: Term,
    /// The component.
    pub digest: Digest,
}

/// The context of a call, as the WIT's `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// The session that calls; none for events.
    pub session: Option<SessionId>,
    /// The transaction's zxid.
    pub zxid: Zxid,
    /// Its log time.
    pub now: LogTime,
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestCall {
    /// The recipe's `invoke`.
    Invoke {
        /// The operation.
        operation: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The recipe's `on-event`.
    OnEvent {
        /// The event.
        event: MountEvent,
    },
    /// The recipe's `configure` with the mount's configuration, as the check at mount. A runtime
    /// configures each fresh instance by itself before its first call.
    Configure,
    /// The recipe's `migrate`, once configured, in the transaction that gives a mount a component
    /// with another state version. A rejected configuration is the call's rejection.
    Migrate {
        /// The state version of the component that the mount had.
        from_state_version: u64,
    },
}

/// What a guest answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestOutcome {
    /// The reply to an `invoke`.
    Reply(Vec<u8>),
    /// The `invoke` waits.
    Wait {
        /// When the kernel ends the wait.
        deadline: Option<LogTime>,
        /// What the guest hears then.
        memo: Vec<u8>,
    },
    /// An event was handled, or the configuration taken.
    Done,
}

/// The guest said no: a result of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The guest's code.
    pub code: String,
    /// The guest's message.
    pub message: String,
    /// The guest's details.
    pub details: Vec<(String, String)>,
}

/// The guest trapped, ran over a limit, or broke its contract. The transaction is rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct PluginFault {
    /// What happened.
    pub kind: FaultKind,
    /// What the host knows of it.
    pub message: String,
}

/// Kinds of plugin fault; their names are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// All fuel was used.
    OutOfFuel,
    /// The call took longer than its budget.
    Timeout,
    /// More memory was asked for than is granted, and the guest gave up.
    Memory,
    /// The guest panicked, or trapped otherwise.
    Trap,
    /// The reply, or the sum of writes, is too large.
    TooLarge,
    /// More host calls than are granted.
    HostCalls,
    /// The guest broke the contract otherwise.
    Contract,
}

impl FaultKind {
    /// The fault's name in replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfFuel => "out-of-fuel",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::TooLarge => "too-large",
            Self::HostCalls => "host-calls",
            Self::Contract => "contract",
        }
    }
}

/// What a call gives.
pub type CallResult = Result<Result<GuestOutcome, Rejection>, PluginFault>;

/// Runs guests. At most one call at a time; a call ends within its budget (rule R7).
pub trait PluginRuntime {
    /// Whether `digest` is compiled and can be called at once.
    fn is_ready(&self, digest: Digest) -> bool;

    /// Calls the warm instance of `key`, made and configured with `config` if there is none. The
    /// view comes back in any case. After a fault, and after a rejection in a call that wrote
    /// ([`TxnView::wrote`]), the runtime has dropped the instance (rule R14).
    fn call(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        view: TxnView,
    ) -> (TxnView, CallResult);

    /// Microseconds that the last call took, for the mounts' shares of time (rule R7). A runtime
    /// without a clock answers 0, and no mount is over its share.
    fn last_call_micros(&self) -> u64 {
        0
    }

    /// Drops warm instances (rule R14).
    fn discard(&mut self, which: Discard);
}

/// Which warm instances to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// All: leadership was lost, or the overlay was dropped.
    All,
    /// Those of one mount.
    Mount(MountId),
}
