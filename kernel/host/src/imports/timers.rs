//! The interface `timers`.

use folkmoot_proto::LogTime;

use crate::generated::folkmoot::plugin::{timers, tree};
use crate::state::CallState;
use crate::view::CallView;

impl<V: CallView> timers::Host for CallState<V> {
    fn set(
        &mut self,
        name: String,
        due: u64,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), tree::TreeError>> {
        let view = self.enter_to_write(name.len() + payload.len())?;
        Ok(view
            .set_timer(&name, LogTime(due), payload)
            .map_err(tree::TreeError::from))
    }

    fn cancel(&mut self, name: String) -> wasmtime::Result<bool> {
        Ok(self.enter()?.cancel_timer(&name))
    }
}
