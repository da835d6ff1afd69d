//! The interface `waits`.

use folkmoot_core::plugin::Rejection;
use folkmoot_proto::Ticket;

use super::rejection_bytes;
use crate::generated::folkmoot::plugin::{types, waits};
use crate::state::CallState;
use crate::view::CallView;

impl<V: CallView> waits::Host for CallState<V> {
    fn complete(
        &mut self,
        ticket: u64,
        outcome: Result<Vec<u8>, types::Rejection>,
    ) -> wasmtime::Result<bool> {
        let outcome = outcome.map_err(Rejection::from);
        let bytes = match &outcome {
            Ok(reply) => reply.len(),
            Err(rejection) => rejection_bytes(rejection),
        };
        Ok(self
            .enter_to_write(bytes)?
            .complete(Ticket(ticket), outcome))
    }
}
