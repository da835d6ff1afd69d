//! The compact encoding of batches: round trips, malformed bytes, size, and golden files.

#![allow(missing_docs, reason = "a test")]

mod strategies;

use std::path::PathBuf;

use folkmoot_proto::batch::{Batch, Completion, Origin, Txn};
use folkmoot_proto::codec::{Compact, DecodeError};
use folkmoot_proto::effect::{Effect, MountEvent, WaitEndCause};
use folkmoot_proto::reply::{Outcome, Refusal, Reply, SubOutcome};
use folkmoot_proto::{
    ConnEpoch, Digest, LogTime, MemberId, MountId, PathError, RequestId, SecretHash, SessionId,
    Term, Ticket, WallTime, Zxid,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_batch_comes_back_as_it_was(batch in strategies::batch()) {
        let bytes = batch.encode();
        prop_assert_eq!(Batch::decode(&bytes), Ok(batch));
    }

    #[test]
    fn a_transaction_can_be_decoded_alone(txn in strategies::txn()) {
        prop_assert_eq!(Txn::from_compact(&txn.to_compact()), Ok(txn));
    }

    /// One value has one encoding: whatever decodes is what its value encodes to.
    #[test]
    fn changed_bytes_are_an_error_or_another_batch(
        batch in strategies::batch(),
        place in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = batch.encode();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(decoded) = Batch::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }

    #[test]
    fn a_batch_cut_short_or_with_bytes_behind_it_is_an_error(
        batch in strategies::batch(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = batch.encode();
        let cut = cut.index(bytes.len());
        prop_assert!(Batch::decode(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert_eq!(Batch::decode(&bytes), Err(DecodeError::Trailing { bytes: 1 }));
    }

    #[test]
    fn noise_is_an_error_or_its_own_encoding(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Some(format) = bytes.first_mut() {
            *format = folkmoot_proto::batch::FORMAT;
        }
        if let Ok(decoded) = Batch::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }
}

/// Bytes to disk a write are a promise: one 128-byte value under a path of 20 bytes, its reply and
/// the batch's header, in a cluster that has run for a while.
#[test]
fn a_set_of_128_bytes_takes_185_bytes_at_most() {
    let set = Effect::SetNode {
        path: "/services/frontend-7".into(),
        data: vec![7; 128],
        version: 12_345,
    };
    let txn = Txn {
        origin: Some(Origin {
            session: SessionId(1_000_000),
            request: RequestId(100_000),
            acked_up_to: RequestId(99_990),
            reply: Ok(Outcome::Set { version: 12_345 }),
        }),
        effects: vec![set],
        completions: vec![],
    };
    let bytes = batch(vec![txn.clone()]).encode().len();
    assert!(bytes <= 185, "{bytes} bytes");
    let alone = txn.to_compact().len();
    assert!(alone <= 170, "{alone} bytes in a larger batch");
}

#[test]
fn an_empty_batch_and_another_format_are_refused() {
    let empty = batch(vec![]).encode();
    let what = "the count of transactions";
    assert_eq!(
        Batch::decode(&empty),
        Err(DecodeError::Contradiction { what })
    );
    let mut other = batch(vec![Txn::default()]).encode();
    other[0] = 2;
    let error = DecodeError::UnknownTag {
        what: "batch",
        tag: 2,
    };
    assert_eq!(Batch::decode(&other), Err(error));
}

#[test]
fn zxids_do_not_run_over() {
    let mut last = batch(vec![Txn::default()]);
    last.base_zxid = Zxid(u64::MAX);
    assert!(Batch::decode(&last.encode()).is_err());
}

/// The bytes of every effect, event and reply, one a line. A line that changes breaks every log
/// that was written; a new kind adds a line.
#[test]
fn golden_encodings() {
    let mut lines = Vec::new();
    for effect in every_effect() {
        lines.push(line(&format!("{effect:?}"), &effect.to_compact()));
        assert_eq!(Effect::from_compact(&effect.to_compact()), Ok(effect));
    }
    for reply in every_reply() {
        lines.push(line(&format!("{reply:?}"), &reply.to_compact()));
        assert_eq!(Reply::from_compact(&reply.to_compact()), Ok(reply));
    }
    let whole = golden_batch();
    lines.push(line("the batch", &whole.encode()));
    assert_eq!(Batch::decode(&whole.encode()), Ok(whole));
    compare_with_golden("batch-1.txt", &(lines.join("\n") + "\n"));
}

fn line(name: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}  {name}")
}

/// With `FOLKMOOT_GOLDEN=write` in the environment, writes the file instead.
fn compare_with_golden(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    if std::env::var_os("FOLKMOOT_GOLDEN").is_some_and(|value| value == "write") {
        let written = std::fs::write(&path, text);
        assert!(written.is_ok(), "{path:?}: {written:?}");
    }
    let Ok(golden) = std::fs::read_to_string(&path) else {
        panic!("{path:?} is not there");
    };
    for (line, (golden, now)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(golden, now, "line {} of {file}", line + 1);
    }
    assert_eq!(
        golden.lines().count(),
        text.lines().count(),
        "lines of {file}"
    );
}

fn batch(txns: Vec<Txn>) -> Batch {
    Batch {
        term: Term(3),
        base_zxid: Zxid(5_000_000),
        first_zxid: Zxid(5_000_001),
        log_time: LogTime(900_000_000),
        wall_time: WallTime(1_795_000_000_000),
        txns,
    }
}

fn golden_batch() -> Batch {
    let answered = Txn {
        origin: Some(Origin {
            session: SessionId(9),
            request: RequestId(4),
            acked_up_to: RequestId(2),
            reply: Ok(Outcome::Waiting(Ticket(5_000_001))),
        }),
        effects: vec![Effect::EndWait { ticket: Ticket(70) }],
        completions: vec![Completion {
            ticket: Ticket(70),
            session: SessionId(8),
            request: RequestId(1),
            reply: Err(Refusal::DeadlinePassed),
        }],
    };
    let many = Txn {
        origin: None,
        effects: vec![Effect::EndWait { ticket: Ticket(1) }; 7],
        completions: vec![],
    };
    batch(vec![answered, many])
}

fn every_effect() -> Vec<Effect> {
    let digest = Digest([0xd1; 32]);
    let (session, mount, ticket) = (SessionId(300), MountId(40), Ticket(500));
    let path = || "/a/b".to_owned();
    let mut effects = vec![
        Effect::CreateNode {
            path: path(),
            data: vec![1, 2],
            owner: Some(session),
            parent_cversion: 7,
            parent_sequence: Some(8),
        },
        Effect::CreateNode {
            path: path(),
            data: vec![],
            owner: None,
            parent_cversion: 128,
            parent_sequence: None,
        },
        Effect::SetNode {
            path: path(),
            data: vec![3],
            version: 9,
        },
        Effect::DeleteNode {
            path: path(),
            parent_cversion: 10,
        },
        Effect::OpenSession {
            secret: SecretHash([0x5e; 32]),
            timeout_ms: 10_000,
            member: MemberId(2),
        },
        Effect::AttachSession {
            session,
            epoch: ConnEpoch(2),
            member: MemberId(3),
        },
        Effect::CloseSession {
            session,
            expired: true,
        },
        Effect::DropCompletions {
            session,
            tickets: vec![ticket, Ticket(501)],
        },
        Effect::BeginWait {
            session,
            request: RequestId(11),
            mount,
            deadline: Some(LogTime(12)),
            memo: vec![4],
        },
        Effect::EndWait { ticket },
        Effect::FollowSession { mount, session },
        Effect::SetTimer {
            mount,
            name: "t".into(),
            due: LogTime(13),
            payload: vec![5],
        },
        Effect::CancelTimer {
            mount,
            name: "t".into(),
        },
        Effect::DequeueEvents { mount, count: 14 },
        Effect::PutMount {
            mount,
            path: path(),
            digest,
            config: b"{}".to_vec(),
            version: Zxid(15),
        },
        Effect::RemoveMount { mount },
        Effect::PutChunk {
            digest,
            session,
            size: 16,
            offset: 17,
            data: vec![6],
        },
        Effect::SealUpload {
            digest,
            name: "lock".into(),
            ticket,
        },
        Effect::DropUpload { digest },
        Effect::PutComponent {
            digest,
            description: "{}".into(),
        },
        Effect::RemoveComponent { digest },
    ];
    effects.extend(every_event().map(|event| Effect::QueueEvent { mount, event }));
    effects
}

fn every_event() -> impl Iterator<Item = MountEvent> {
    let causes = [
        WaitEndCause::Deadline,
        WaitEndCause::SessionEnded,
        WaitEndCause::Cancelled,
        WaitEndCause::MountRemoved,
    ];
    let ended = causes.map(|cause| MountEvent::WaitEnded {
        ticket: Ticket(500),
        session: SessionId(300),
        cause,
        memo: vec![7],
    });
    let others = [
        MountEvent::SessionClosed {
            session: SessionId(300),
            removed: vec!["holders/1".into()],
        },
        MountEvent::Timer {
            name: "t".into(),
            due: LogTime(13),
            payload: vec![8],
        },
        MountEvent::Resync,
    ];
    ended.into_iter().chain(others)
}

fn every_reply() -> Vec<Reply> {
    let outcomes = [
        Outcome::Created { sequence: None },
        Outcome::Created { sequence: Some(1) },
        Outcome::Set { version: 2 },
        Outcome::Deleted,
        Outcome::Checked,
        Outcome::Multi(vec![
            SubOutcome::Created { sequence: Some(3) },
            SubOutcome::Set { version: 4 },
            SubOutcome::Deleted,
            SubOutcome::Checked,
        ]),
        Outcome::Synced,
        Outcome::Invoked(b"{}".to_vec()),
        Outcome::Waiting(Ticket(5)),
        Outcome::Cancelled,
        Outcome::NothingToCancel,
        Outcome::Acknowledged,
        Outcome::SessionClosed,
        Outcome::ChunkTaken,
        Outcome::Installed,
        Outcome::Mounted,
        Outcome::Unmounted,
        Outcome::ComponentRemoved,
        Outcome::GroupChanged,
    ];
    let mut replies: Vec<Reply> = outcomes.into_iter().map(Ok).collect();
    replies.extend(every_refusal().into_iter().map(Err));
    replies
}

fn every_refusal() -> Vec<Refusal> {
    let path = || "/a".to_owned();
    let text = || "x".to_owned();
    let mut refusals: Vec<_> = [
        PathError::NotAbsolute,
        PathError::EmptyComponent,
        PathError::RelativeComponent,
        PathError::ControlCharacter,
        PathError::TooLong,
    ]
    .map(|error| Refusal::BadPath {
        path: path(),
        error,
    })
    .into();
    refusals.extend([
        Refusal::Reserved { path: path() },
        Refusal::NoNode { path: path() },
        Refusal::NodeExists { path: path() },
        Refusal::NoParent { path: path() },
        Refusal::NotEmpty { path: path() },
        Refusal::Undeletable { path: path() },
        Refusal::BadVersion {
            path: path(),
            expected: 1,
            actual: 2,
        },
        Refusal::GuardFailed {
            path: path(),
            token: Zxid(3),
            current: Some(Zxid(4)),
        },
        Refusal::EphemeralParent { path: path() },
        Refusal::OwnerNotOpen,
        Refusal::TooLarge {
            what: text(),
            limit: 5,
            actual: 6,
        },
        Refusal::MultiRefused {
            index: 7,
            reason: text(),
            code: text(),
        },
        Refusal::UnknownMount { mount: path() },
        Refusal::MountExists { mount: path() },
        Refusal::UnknownComponent { digest: text() },
        Refusal::ComponentRefused { reason: text() },
        Refusal::Rejected {
            code: text(),
            message: text(),
            details: vec![(text(), text())],
        },
        Refusal::PluginFault {
            kind: text(),
            message: text(),
        },
        Refusal::PluginLoading { mount: path() },
        Refusal::MountThrottled { mount: path() },
        Refusal::DeadlinePassed,
        Refusal::WaitCancelled,
        Refusal::MountRemoved,
        Refusal::SessionEnded,
        Refusal::BadTimeout {
            min_ms: 8,
            max_ms: 9,
        },
        Refusal::ComponentInUse { by: path() },
        Refusal::BadMember { reason: text() },
        Refusal::MemberLives {
            group: text(),
            member: text(),
        },
        Refusal::UnknownMember {
            group: text(),
            member: text(),
        },
    ]);
    refusals
}
