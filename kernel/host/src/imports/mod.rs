//! What a guest can call. Numbers, paths and sizes that come from it are hostile: the view checks
//! what they mean, the store counts what they cost.

mod log;
mod random;
mod sessions;
mod timers;
mod tree;
mod waits;

use folkmoot_core::plugin::Rejection;
use wasmtime::component::{HasSelf, Linker};

use crate::generated::Recipe;
use crate::generated::folkmoot::plugin::types;
use crate::state::CallState;
use crate::view::CallView;

/// Offers every import of the world.
pub(crate) fn add_to_linker<V: CallView>(
    linker: &mut Linker<CallState<V>>,
) -> wasmtime::Result<()> {
    Recipe::add_to_linker::<_, HasSelf<CallState<V>>>(linker, |state| state)
}

impl<V: CallView> types::Host for CallState<V> {}

impl From<types::Rejection> for Rejection {
    fn from(rejection: types::Rejection) -> Self {
        Self {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details,
        }
    }
}

/// Bytes of a rejection.
pub(crate) fn rejection_bytes(rejection: &Rejection) -> usize {
    let details = rejection.details.iter();
    let details: usize = details.map(|(name, value)| name.len() + value.len()).sum();
    rejection.code.len() + rejection.message.len() + details
}
