//! How large a request is, wherever it waits or travels.

use folkmoot_proto::client::{Operation, Request, SubOperation};
use folkmoot_proto::limits::{FRAME_BYTES_MAX, FRAME_ENVELOPE_BYTES};

/// Bytes of a request: it fits a frame between members with its envelope.
pub(super) const REQUEST_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_ENVELOPE_BYTES;
/// What a request, and each of its guards and operations, takes beside its texts and values.
const FIXED_BYTES: usize = 128;

/// An upper bound of a request's bytes in a frame.
pub(super) fn request_bytes(request: &Request) -> usize {
    let guards = request.guards.iter();
    let guards: usize = guards.map(|guard| FIXED_BYTES + guard.path.len()).sum();
    FIXED_BYTES + guards + operation_bytes(&request.operation)
}

fn operation_bytes(operation: &Operation) -> usize {
    match operation {
        Operation::Create { path, data, .. } | Operation::Set { path, data, .. } => {
            path.len() + data.len()
        }
        Operation::Delete { path, .. } | Operation::Unmount { path } => path.len(),
        Operation::Multi { operations } => operations.iter().map(sub_operation_bytes).sum(),
        Operation::Invoke {
            mount,
            operation,
            payload,
        } => mount.len() + operation.len() + payload.len(),
        Operation::AcknowledgeCompletions { tickets } => tickets.len() * size_of::<u64>(),
        Operation::UploadChunk { data, .. } => data.len(),
        Operation::Install { name, .. } => name.len(),
        Operation::Mount { path, config, .. } => path.len() + config.len(),
        Operation::Group {
            group,
            member,
            operation,
        } => group.len() + member.len() + operation.text_bytes(),
        Operation::Map { group, operation } => group.len() + operation.text_bytes(),
        Operation::ChooseDetector { group, choice } => {
            let choice = choice.as_ref();
            group.len() + choice.map_or(0, |choice| choice.configuration.len())
        }
        Operation::TryPolicy { choice } => choice.configuration.len(),
        Operation::Sync
        | Operation::CancelWait { .. }
        | Operation::CloseSession
        | Operation::RemoveComponent { .. } => 0,
    }
}

fn sub_operation_bytes(operation: &SubOperation) -> usize {
    let variable = match operation {
        SubOperation::Create { path, data, .. } | SubOperation::Set { path, data, .. } => {
            path.len() + data.len()
        }
        SubOperation::Check { path, .. } | SubOperation::Delete { path, .. } => path.len(),
    };
    FIXED_BYTES + variable
}
