//! How the command fails: an exit code, a name for programs, and words for people.

use folkmoot_client::{
    CallError, ConnectError, InstallError, LockError, MapError, ReadError, ReadRefusal, Unanswered,
    WatchEnd, WatchError, WriteError,
};

/// A typed "no", or a server that ended by itself.
pub(crate) const REFUSED: u8 = 1;
/// Usage or configuration.
pub(crate) const CONFIGURATION: u8 = 2;
/// No member answers, or there is no leader.
pub(crate) const NO_CLUSTER: u8 = 3;
/// The request may have taken effect.
pub(crate) const UNKNOWN: u8 = 4;
/// `lock` did not get its lock in time, or lost it (`EX_TEMPFAIL`).
pub(crate) const NO_LOCK: u8 = 75;
/// Whoever read the output is gone (SIGPIPE), as shells have it.
pub(crate) const BROKEN_PIPE: u8 = 141;
/// The error's name where no member answers.
pub(crate) const NO_MEMBER_ANSWERS: &str = "no-member-answers";
/// Interrupted, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why the command does not end with 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    /// The refusal's code, or a name of the same kind.
    pub(crate) code: String,
    /// Empty where there is nothing to say.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: u8, code: &str, message: impl std::fmt::Display) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.to_string(),
        }
    }

    pub(crate) fn configuration(message: impl std::fmt::Display) -> Self {
        Self::new(CONFIGURATION, "configuration", message)
    }

    /// A file that can not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::configuration(format!("{}: {error}", path.display()))
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(INTERRUPTED, "interrupted", "")
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let (exit, code) = match &error {
            ConnectError::Config(_) => (CONFIGURATION, "configuration"),
            ConnectError::NoMemberAnswers { .. } => (NO_CLUSTER, NO_MEMBER_ANSWERS),
            ConnectError::NoLeader { .. } => (NO_CLUSTER, "no-leader"),
            ConnectError::Refused(_) => (REFUSED, "session-refused"),
        };
        Self::new(exit, code, error)
    }
}

impl From<folkmoot_client::ConfigError> for Failure {
    fn from(error: folkmoot_client::ConfigError) -> Self {
        ConnectError::from(error).into()
    }
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        if error.outcome_is_unknown() {
            Self::new(UNKNOWN, "outcome-unknown", error)
        } else {
            Self::new(NO_CLUSTER, "session-ended", error)
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => {
                let code = match &refusal {
                    folkmoot_client::Refusal::Rejected { code, .. } => code.clone(),
                    refusal => refusal.code().to_owned(),
                };
                Self::new(REFUSED, &code, refusal)
            }
            WriteError::Unanswered(unanswered) => unanswered.into(),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected {
                code,
                message,
                details,
            } => {
                let details: Vec<_> = details
                    .iter()
                    .map(|(key, value)| format!(" {key}={value}"))
                    .collect();
                let text = format!("{code}: {message}{}", details.concat());
                Self::new(REFUSED, &code, text)
            }
            CallError::Fault { .. } => Self::new(REFUSED, "plugin-fault", error),
            CallError::Refused(refusal) => WriteError::Refused(refusal).into(),
            // It may well have done what was asked for.
            CallError::BadReply { .. } => Self::new(UNKNOWN, "bad-reply", error),
            CallError::Unanswered(unanswered) => unanswered.into(),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let (exit, code) = match &error {
            ReadError::Refused(ReadRefusal::NoNode { .. }) => (REFUSED, "no-node"),
            ReadError::Refused(ReadRefusal::BadPath { .. }) => (REFUSED, "bad-path"),
            ReadError::Refused(ReadRefusal::TooManyViews) => (REFUSED, "too-many-views"),
            ReadError::Refused(ReadRefusal::TooManyReads) => (REFUSED, "too-many-reads"),
            ReadError::Refused(ReadRefusal::NoLeader) => (NO_CLUSTER, "no-leader"),
            // A read has no effect, so nothing of it is unknown.
            ReadError::Unanswered(_) => (NO_CLUSTER, "no-answer"),
        };
        Self::new(exit, code, error)
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        let (exit, code) = match &error {
            WatchError::Compacted { .. } => (REFUSED, "compacted"),
            WatchError::Ended(WatchEnd::BadPath { .. }) => (REFUSED, "bad-path"),
            WatchError::Ended(_) | WatchError::NotTaken { .. } => (REFUSED, "watch-ended"),
            WatchError::SessionEnded { .. } | WatchError::TaskGone => (NO_CLUSTER, "session-ended"),
        };
        Self::new(exit, code, error)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        let (exit, code) = match error {
            MapError::Members(error) => return error.into(),
            MapError::Refused { .. } => (REFUSED, "map-refused"),
            MapError::NoMap { .. } => (REFUSED, "unknown-map"),
            MapError::NoPartition { .. } => (REFUSED, "unknown-partition"),
            MapError::Left { .. } => (REFUSED, "member-left"),
            MapError::TimedOut { .. } => (NO_CLUSTER, "no-answer"),
            MapError::SessionEnded { .. } | MapError::TaskGone => (NO_CLUSTER, "session-ended"),
        };
        Self::new(exit, code, error)
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::TooLarge { .. } => Self::new(REFUSED, "too-large", error),
            InstallError::Write(error) => error.into(),
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::NotHeld { .. } => Self::new(NO_LOCK, "lock-lost", error),
            LockError::Call(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use folkmoot_client::Refusal;

    #[test]
    fn exit_codes_tell_a_refusal_from_an_unknown_outcome() {
        let refused = WriteError::Refused(Refusal::NotEmpty {
            path: "/a".to_owned(),
        });
        assert_eq!(
            Failure::from(refused),
            Failure::new(REFUSED, "not-empty", "/a has children: delete them first")
        );
        let sent = Unanswered::SessionEnded {
            expired: true,
            sent: true,
        };
        assert_eq!(Failure::from(WriteError::Unanswered(sent)).exit, UNKNOWN);
        let unsent = Unanswered::SessionEnded {
            expired: true,
            sent: false,
        };
        assert_eq!(
            Failure::from(WriteError::Unanswered(unsent)).exit,
            NO_CLUSTER
        );
        let unreadable = CallError::BadReply {
            reason: "it is no JSON".to_owned(),
        };
        assert!(unreadable.outcome_is_unknown());
        assert_eq!(Failure::from(unreadable).exit, UNKNOWN);
    }
}
