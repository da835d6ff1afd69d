//! What can be in no frame is refused before it has a place in the session's order: it would never
//! leave, nor would anything behind it.

use folkmoot_proto::PathError;
use folkmoot_proto::client::{Guard, Operation, Query, ReadRefusal, SubOperation, WatchEnd};
use folkmoot_proto::limits::{FRAME_BYTES_MAX, GUARDS_MAX, PATH_BYTES_MAX};
use folkmoot_proto::reply::Refusal;

use crate::error::WatchError;

/// What a frame has beside the values in it: the guards, paths, the envelope.
const FRAME_ENVELOPE_BYTES: usize = 64 * 1024;

/// What an operation of a `multi` has beside its path and value.
const SUB_OPERATION_BYTES: usize = 64;

/// Refuses a request that fits no frame.
pub(crate) fn request(operation: &Operation, guards: &[Guard]) -> Result<(), Refusal> {
    limited("guards of a request", guards.len(), GUARDS_MAX)?;
    let guarded = guards.iter().map(|guard| guard.path.as_str());
    for path in guarded.chain(path_of(operation)) {
        length(path).map_err(|(path, error)| Refusal::BadPath { path, error })?;
    }
    limited(
        "bytes of a request",
        bytes_of(operation),
        FRAME_BYTES_MAX - FRAME_ENVELOPE_BYTES,
    )
}

/// Refuses a read that fits no frame.
pub(crate) fn query(query: &Query) -> Result<(), ReadRefusal> {
    let (path, after) = match query {
        Query::Get { path } | Query::Exists { path } => (path, None),
        Query::Children { path, after, .. } => (path, after.as_deref()),
    };
    for text in [Some(path.as_str()), after].into_iter().flatten() {
        length(text).map_err(|(path, error)| ReadRefusal::BadPath { path, error })?;
    }
    Ok(())
}

/// Refuses a watch that fits no frame.
pub(crate) fn watch(path: &str) -> Result<(), WatchError> {
    length(path).map_err(|(_, error)| WatchError::Ended(WatchEnd::BadPath { error }))
}

/// The text is cut in the error: it may be a value that was given for a path by mistake.
fn length(path: &str) -> Result<(), (String, PathError)> {
    if path.len() <= PATH_BYTES_MAX {
        return Ok(());
    }
    let cut = path.floor_char_boundary(PATH_BYTES_MAX);
    let begin = path.get(..cut).unwrap_or_default();
    Err((format!("{begin}…"), PathError::TooLong))
}

fn limited(what: &str, actual: usize, limit: usize) -> Result<(), Refusal> {
    if actual <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge {
        what: what.to_owned(),
        limit: limit as u64,
        actual: actual as u64,
    })
}

/// The path of an operation. Those of a `multi` are left to the cluster, which says which one it
/// is.
fn path_of(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::Create { path, .. }
        | Operation::Set { path, .. }
        | Operation::Delete { path, .. }
        | Operation::Mount { path, .. }
        | Operation::Unmount { path }
        | Operation::Invoke { mount: path, .. } => Some(path),
        Operation::Multi { .. }
        | Operation::Install { .. }
        | Operation::RemoveComponent { .. }
        | Operation::Group { .. }
        | Operation::Map { .. }
        | Operation::ChooseDetector { .. }
        | Operation::TryPolicy { .. }
        | Operation::UploadChunk { .. }
        | Operation::Sync
        | Operation::CancelWait { .. }
        | Operation::AcknowledgeCompletions { .. }
        | Operation::CloseSession => None,
    }
}

/// What an operation's values take, beside its path.
fn bytes_of(operation: &Operation) -> usize {
    match operation {
        Operation::Create { data, .. } | Operation::Set { data, .. } => data.len(),
        Operation::Invoke {
            payload, operation, ..
        } => payload.len() + operation.len(),
        Operation::Mount { config, .. } => config.len(),
        Operation::UploadChunk { data, .. } => data.len(),
        Operation::Install { name, .. } => name.len(),
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
        Operation::Multi { operations } => operations
            .iter()
            .map(|operation| match operation {
                SubOperation::Check { path, .. } | SubOperation::Delete { path, .. } => path.len(),
                SubOperation::Create { path, data, .. } | SubOperation::Set { path, data, .. } => {
                    path.len() + data.len()
                }
            })
            .map(|bytes| bytes + SUB_OPERATION_BYTES)
            .sum(),
        Operation::Delete { .. }
        | Operation::Unmount { .. }
        | Operation::RemoveComponent { .. }
        | Operation::Sync
        | Operation::CancelWait { .. }
        | Operation::AcknowledgeCompletions { .. }
        | Operation::CloseSession => 0,
    }
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::client::{ClientFrame, NodeKind, Read, Request};
    use folkmoot_proto::{Digest, ReadId, RequestId, Zxid, frame};

    use super::*;

    const BYTES: usize = FRAME_BYTES_MAX - FRAME_ENVELOPE_BYTES;

    fn longest_path() -> String {
        format!("/{}", "p".repeat(PATH_BYTES_MAX - 1))
    }

    fn guards(count: usize) -> Vec<Guard> {
        let guard = Guard {
            path: longest_path(),
            token: Zxid(7),
        };
        vec![guard; count]
    }

    /// Each operation with values, as large as they may be or a byte over it.
    fn operations(bytes: usize) -> Vec<Operation> {
        let (path, data) = (longest_path(), vec![0; bytes]);
        let text = || "n".repeat(bytes);
        let digest = Digest::of(b"");
        let multi = |each: usize, operation: &dyn Fn(usize) -> SubOperation| {
            let count = bytes / (each + SUB_OPERATION_BYTES);
            let operations = (0..count).map(|_| operation(each)).collect();
            Operation::Multi { operations }
        };
        vec![
            Operation::Create {
                path: path.clone(),
                data: data.clone(),
                kind: NodeKind::PERSISTENT,
            },
            Operation::Set {
                path: path.clone(),
                data: data.clone(),
                expected: Some(1),
            },
            Operation::Invoke {
                mount: path.clone(),
                operation: String::new(),
                payload: data.clone(),
            },
            Operation::Invoke {
                mount: path.clone(),
                operation: text(),
                payload: Vec::new(),
            },
            Operation::Mount {
                path,
                digest,
                config: data.clone(),
            },
            Operation::Install {
                digest,
                name: text(),
            },
            Operation::UploadChunk {
                digest,
                size: 1,
                offset: 0,
                data,
            },
            multi(100, &|bytes| SubOperation::Check {
                path: "p".repeat(bytes),
                expected: Some(1),
            }),
            multi(1, &|bytes| SubOperation::Create {
                path: String::new(),
                data: vec![0; bytes],
                kind: NodeKind::PERSISTENT,
            }),
        ]
    }

    fn fits(frame: &ClientFrame) -> bool {
        frame::encode(frame, &mut Vec::new()).is_ok()
    }

    #[test]
    fn the_largest_requests_that_are_taken_fit_a_frame() {
        for operation in operations(BYTES) {
            let guards = guards(GUARDS_MAX);
            assert_eq!(request(&operation, &guards), Ok(()));
            assert!(fits(&ClientFrame::Request(Request {
                id: RequestId(u64::MAX),
                acked_up_to: RequestId(u64::MAX),
                guards,
                operation,
            })));
        }
        for operation in operations(BYTES + 200) {
            let refused = request(&operation, &[]);
            assert!(
                matches!(refused, Err(Refusal::TooLarge { limit, .. }) if limit == BYTES as u64),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn guards_and_paths_over_their_limits_are_refused() {
        let what = "guards of a request".to_owned();
        let (limit, actual) = (16, 17);
        assert_eq!(
            request(&Operation::Sync, &guards(GUARDS_MAX + 1)),
            Err(Refusal::TooLarge {
                what,
                limit,
                actual
            })
        );
        let long = || "é".repeat(3 << 20);
        let guard = Guard {
            path: long(),
            token: Zxid(7),
        };
        let mut refused = vec![request(&Operation::Sync, &[guard])];
        let (path, expected) = (long(), None);
        refused.push(request(&Operation::Delete { path, expected }, &[]));
        let path = format!("{}…", "é".repeat(PATH_BYTES_MAX / 2));
        let error = PathError::TooLong;
        for refused in refused {
            let (path, error) = (path.clone(), error.clone());
            assert_eq!(refused, Err(Refusal::BadPath { path, error }));
        }
        assert_eq!(
            watch(&long()),
            Err(WatchError::Ended(WatchEnd::BadPath { error }))
        );
    }

    #[test]
    fn reads_over_the_limit_of_a_path_are_refused_and_the_longest_fit_a_frame() {
        let children = |path: String, after: String| Query::Children {
            path,
            after: Some(after),
            limit: 0,
        };
        let longest = children(longest_path(), longest_path());
        assert_eq!(query(&longest), Ok(()));
        assert!(fits(&ClientFrame::Read(Read {
            id: ReadId(1),
            after: RequestId(1),
            linearizable: false,
            query: longest,
        })));
        let long = || "p".repeat(6 << 20);
        for read in [
            Query::Get { path: long() },
            Query::Exists { path: long() },
            children(long(), String::new()),
            children("/".to_owned(), long()),
        ] {
            let refused = query(&read);
            assert!(
                matches!(refused, Err(ReadRefusal::BadPath { .. })),
                "{refused:?}"
            );
        }
    }
}
