//! The interface `random`.

use crate::generated::folkmoot::plugin::random;
use crate::state::CallState;
use crate::view::CallView;

impl<V: CallView> random::Host for CallState<V> {
    fn next(&mut self) -> wasmtime::Result<u64> {
        Ok(self.enter()?.random())
    }
}
