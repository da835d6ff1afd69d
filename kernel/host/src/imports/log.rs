//! The interface `log`.

use crate::generated::folkmoot::plugin::log;
use crate::state::CallState;
use crate::view::CallView;

impl<V: CallView> log::Host for CallState<V> {
    fn write(&mut self, message: String) -> wasmtime::Result<()> {
        Ok(self.log(message)?)
    }
}
