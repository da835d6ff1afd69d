//! What a Folkmoot plugin is written with.
//!
//! A plugin is a struct, a trait and one line. The same file runs natively, in a unit test or in
//! the simulator, and as a Wasm component in the cluster:
//!
//! ```
//! use folkmoot_sdk::prelude::*;
//!
//! /// A counter under its mount: `add` replies with the new total.
//! #[derive(Default)]
//! struct Counter;
//!
//! impl Recipe for Counter {
//!     fn describe() -> Description {
//!         Description::new("counter", "0.1.0").operation("add", "Adds `amount`.")
//!     }
//!
//!     fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
//!         let total = cx.tree().read_u64("total")? + operation.argument::<u64>("amount")?;
//!         cx.tree_mut().write_u64("total", total)?;
//!         Outcome::reply(&total)
//!     }
//! }
//! folkmoot_sdk::export!(Counter);
//!
//! // And its test:
//! use folkmoot_sdk::testing::Mount;
//! use serde_json::json;
//!
//! let mut mount = Mount::of::<Counter>();
//! let session = mount.open_session();
//! assert_eq!(mount.call(session, "add", json!({"amount": 2})), json!(2));
//! assert_eq!(mount.call(session, "add", json!({"amount": 3})), json!(5));
//! ```
//!
//! What a plugin must remember is in the tree below its mount, which it reaches through the
//! [`Context`]. Its struct holds its configuration and nothing else: an instance may be thrown
//! away at any moment, and what a rejected call did is undone in the tree, but not in memory.
//!
//! The contract with the kernel is the WIT package `folkmoot:plugin`, in `wit/`.

pub mod context;
pub mod description;
pub mod detector;
pub mod event;
pub mod host;
pub mod ids;
pub mod instance;
pub mod operation;
pub mod policy;
pub mod rebalancer;
pub mod recipe;
pub mod rejection;
pub mod table;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm_detector;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm_rebalancer;

/// What a plugin's file begins with.
pub mod prelude {
    pub use crate::context::Context;
    pub use crate::description::Description;
    pub use crate::event::{Event, WaitEndCause};
    pub use crate::host::{Node, Stat, TreeError};
    pub use crate::ids::{LogTime, SessionId, Ticket, Zxid};
    pub use crate::operation::{Operation, Outcome};
    pub use crate::recipe::Recipe;
    pub use crate::rejection::Rejection;
}

/// Makes a recipe the component's export. Natively it says nothing.
///
/// One crate exports one recipe, and is built as a `cdylib` for `wasm32-unknown-unknown`.
#[macro_export]
macro_rules! export {
    ($recipe:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::wasm::Component<$recipe>;
    $crate::wasm::export_component!(Component with_types_in $crate::wasm::bindings);
        };
    };
}

/// Makes a [`rebalancer::Rebalancer`] the component's export. Natively it says nothing.
///
/// One crate exports one policy, and is built as a `cdylib` for `wasm32-unknown-unknown`.
#[macro_export]
macro_rules! export_rebalancer {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::wasm_rebalancer::Component<$policy>;
            $crate::wasm_rebalancer::export_rebalancer_component!(
                Component with_types_in $crate::wasm_rebalancer::bindings
            );
        };
    };
}

/// Makes a [`detector::FailureDetector`] the component's export. Natively it says nothing.
///
/// One crate exports one policy, and is built as a `cdylib` for `wasm32-unknown-unknown`.
#[macro_export]
macro_rules! export_failure_detector {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::wasm_detector::Component<$policy>;
            $crate::wasm_detector::export_detector_component!(
                Component with_types_in $crate::wasm_detector::bindings
            );
        };
    };
}
