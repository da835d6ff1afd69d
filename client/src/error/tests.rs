//! Every refusal has its error, and its words.

use folkmoot_proto::PathError;

use super::*;
use crate::LockError;

fn path() -> String {
    "/a".to_owned()
}

/// Every refusal, and whether it passes by itself.
fn refusals() -> Vec<(Refusal, bool)> {
    let (mount, reason, code) = (path, path, path);
    vec![
        (
            Refusal::BadPath {
                path: path(),
                error: PathError::TooLong,
            },
            false,
        ),
        (Refusal::Reserved { path: path() }, false),
        (Refusal::NoNode { path: path() }, false),
        (Refusal::NodeExists { path: path() }, false),
        (Refusal::NoParent { path: path() }, false),
        (Refusal::NotEmpty { path: path() }, false),
        (Refusal::Undeletable { path: path() }, false),
        (
            Refusal::BadVersion {
                path: path(),
                expected: 1,
                actual: 2,
            },
            false,
        ),
        (
            Refusal::GuardFailed {
                path: path(),
                token: Zxid(1),
                current: None,
            },
            false,
        ),
        (Refusal::EphemeralParent { path: path() }, false),
        (Refusal::OwnerNotOpen, false),
        (
            Refusal::TooLarge {
                what: path(),
                limit: 1,
                actual: 2,
            },
            false,
        ),
        (
            Refusal::MultiRefused {
                index: 0,
                reason: reason(),
                code: code(),
            },
            false,
        ),
        (Refusal::UnknownMount { mount: mount() }, false),
        (Refusal::MountExists { mount: mount() }, false),
        (Refusal::UnknownComponent { digest: path() }, false),
        (Refusal::ComponentInUse { by: mount() }, false),
        (Refusal::BadMember { reason: path() }, false),
        (
            Refusal::MemberLives {
                group: path(),
                member: path(),
            },
            false,
        ),
        (
            Refusal::UnknownMember {
                group: path(),
                member: path(),
            },
            false,
        ),
        (Refusal::ComponentRefused { reason: reason() }, false),
        (
            Refusal::Rejected {
                code: code(),
                message: path(),
                details: Vec::new(),
            },
            false,
        ),
        (
            Refusal::PluginFault {
                kind: path(),
                message: path(),
            },
            false,
        ),
        (Refusal::PluginLoading { mount: mount() }, true),
        (Refusal::MountThrottled { mount: mount() }, true),
        (Refusal::DeadlinePassed, false),
        (Refusal::WaitCancelled, false),
        (Refusal::MountRemoved, false),
        (Refusal::SessionEnded, false),
        (
            Refusal::BadTimeout {
                min_ms: 1,
                max_ms: 2,
            },
            false,
        ),
    ]
}

/// Every reason to have no answer: whether the outcome of a write is unknown, and whether a
/// read may be asked again.
fn unanswered() -> [(Unanswered, bool, bool); 5] {
    let ended = |sent| Unanswered::SessionEnded {
        expired: true,
        sent,
    };
    let after = Duration::from_secs(1);
    [
        (ended(true), true, false),
        (ended(false), false, false),
        (Unanswered::TimedOut { after }, true, true),
        (Unanswered::TaskGone, true, false),
        (Unanswered::Misfit { reply: path() }, true, false),
    ]
}

#[test]
fn writes_and_calls_and_locks_tell_whether_to_retry_and_whether_they_took_effect() {
    let mut codes: Vec<_> = refusals().iter().map(|(of, _)| of.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 30, "each refusal is in the table once");
    for (refusal, retryable) in refusals() {
        let write = WriteError::from(refusal);
        assert_eq!(write.is_retryable(), retryable, "{write:?}");
        assert!(!write.outcome_is_unknown(), "{write:?}");
        let call = CallError::from(write.clone());
        assert_eq!(call.is_retryable(), retryable, "{call:?}");
        assert!(!call.outcome_is_unknown(), "{call:?}");
        let lock = LockError::from(call);
        assert_eq!(lock.is_retryable(), retryable, "{lock:?}");
        assert!(!lock.outcome_is_unknown(), "{lock:?}");
        let install = InstallError::from(write);
        assert_eq!(install.is_retryable(), retryable, "{install:?}");
        assert!(!install.outcome_is_unknown(), "{install:?}");
    }
    for (unanswered, unknown, _) in unanswered() {
        assert_eq!(unanswered.outcome_is_unknown(), unknown, "{unanswered:?}");
        let timed_out = matches!(unanswered, Unanswered::TimedOut { .. });
        let write = WriteError::from(unanswered);
        assert!(!write.is_retryable(), "{write:?}");
        assert_eq!(write.outcome_is_unknown(), unknown, "{write:?}");
        let call = CallError::from(write.clone());
        assert!(!call.is_retryable(), "{call:?}");
        assert_eq!(call.outcome_is_unknown(), unknown, "{call:?}");
        let lock = LockError::from(call);
        assert!(!lock.is_retryable(), "{lock:?}");
        assert_eq!(lock.outcome_is_unknown(), unknown, "{lock:?}");
        let install = InstallError::from(write);
        assert_eq!(install.is_retryable(), timed_out, "{install:?}");
        assert_eq!(install.outcome_is_unknown(), unknown, "{install:?}");
    }
    let too_large = InstallError::TooLarge { bytes: 2, limit: 1 };
    assert!(!too_large.is_retryable() && !too_large.outcome_is_unknown());
    let bad_reply = CallError::BadReply { reason: path() };
    assert!(!bad_reply.is_retryable() && bad_reply.outcome_is_unknown());
    let not_held = LockError::NotHeld {
        mount: path(),
        name: path(),
        token: Zxid(1),
    };
    assert!(!not_held.is_retryable() && !not_held.outcome_is_unknown());
}

#[test]
fn reads_and_watches_tell_whether_to_retry() {
    let reads = [
        (ReadRefusal::NoNode { path: path() }, false),
        (
            ReadRefusal::BadPath {
                path: path(),
                error: PathError::TooLong,
            },
            false,
        ),
        (ReadRefusal::TooManyViews, true),
        (ReadRefusal::NoLeader, true),
    ];
    let refused = reads.map(|(refusal, retryable)| (ReadError::from(refusal), retryable));
    let unanswered = unanswered().map(|(of, _, retryable)| (ReadError::from(of), retryable));
    for (read, retryable) in refused.into_iter().chain(unanswered) {
        assert_eq!(read.is_retryable(), retryable, "{read:?}");
        assert!(!read.outcome_is_unknown(), "{read:?}");
    }
    let floor = Zxid(1);
    for (watch, retryable) in [
        (WatchError::Compacted { floor }, false),
        (WatchError::Ended(WatchEnd::Unwatched), false),
        (WatchError::Ended(WatchEnd::Compacted { floor }), false),
        (WatchError::Ended(WatchEnd::TooSlow { limit: 1 }), true),
        (
            WatchError::Ended(WatchEnd::BadPath {
                error: PathError::TooLong,
            }),
            false,
        ),
        (WatchError::Ended(WatchEnd::TooMany), false),
        (WatchError::Ended(WatchEnd::SessionEnded), false),
        (WatchError::NotTaken { limit: 1 }, true),
        (WatchError::SessionEnded { expired: true }, false),
        (WatchError::TaskGone, false),
    ] {
        assert_eq!(watch.is_retryable(), retryable, "{watch:?}");
    }
}

#[test]
fn connecting_tells_whether_to_retry() {
    let reason = path;
    let attempts = [
        (AttemptError::Unresolved { reason: reason() }, true),
        (
            AttemptError::NoAnswer {
                after: Duration::from_secs(1),
            },
            true,
        ),
        (AttemptError::NotTrusted { reason: reason() }, false),
        (AttemptError::CertificateRefused { reason: reason() }, false),
        (
            AttemptError::OtherCluster {
                expected: ClusterId([1; 16]),
                actual: ClusterId([2; 16]),
            },
            false,
        ),
        (AttemptError::Failed { reason: reason() }, true),
    ];
    let none = |errors: &[AttemptError]| {
        let attempt = |error: &AttemptError| Attempt {
            endpoint: "a:1".to_owned(),
            error: error.clone(),
        };
        let attempts = errors.iter().map(attempt).collect();
        ConnectError::NoMemberAnswers { attempts }
    };
    for (error, retryable) in &attempts {
        assert_eq!(error.is_retryable(), *retryable, "{error:?}");
        let alone = none(std::slice::from_ref(error));
        assert_eq!(alone.is_retryable(), *retryable, "{alone:?}");
        let beside_one_that_may = none(&[error.clone(), attempts[1].0.clone()]);
        assert!(beside_one_that_may.is_retryable());
    }
    let after = Duration::from_secs(1);
    for (error, retryable) in [
        (ConnectError::Config(ConfigError::NoEndpoints), false),
        (none(&[]), true),
        (ConnectError::NoLeader { after }, true),
        (AttachRefused::UnknownSession.into(), false),
        (AttachRefused::WrongSecret.into(), false),
        (
            AttachRefused::BadTimeout {
                min_ms: 1,
                max_ms: 2,
            }
            .into(),
            false,
        ),
        (AttachRefused::TooManySessions.into(), true),
        (AttachRefused::NoLeader.into(), true),
    ] {
        assert_eq!(error.is_retryable(), retryable, "{error:?}");
    }
}
