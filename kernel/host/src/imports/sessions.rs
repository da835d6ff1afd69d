//! The interface `sessions`.

use folkmoot_proto::SessionId;

use crate::generated::folkmoot::plugin::sessions;
use crate::state::CallState;
use crate::view::CallView;

impl<V: CallView> sessions::Host for CallState<V> {
    fn is_open(&mut self, session: u64) -> wasmtime::Result<bool> {
        Ok(self.enter()?.session_is_open(SessionId(session)))
    }

    fn follow(&mut self, session: u64) -> wasmtime::Result<bool> {
        Ok(self.enter()?.follow(SessionId(session)))
    }
}
