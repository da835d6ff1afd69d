//! Errors: one enum for each family of operations, each with its facts.
//!
//! Two questions matter to a caller: `is_retryable()`, whether the same call may succeed later
//! without anything else being done, and without harm if the first one took effect; and, of what
//! has effects, `outcome_is_unknown()`, whether the call may have taken effect although its answer
//! is not known.

#[cfg(test)]
mod tests;

use std::time::Duration;

use folkmoot_proto::client::{AttachRefused, ReadRefusal, WatchEnd};
use folkmoot_proto::partition::PartitionId;
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{ClusterId, Zxid};

/// A configuration that can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No endpoint is named.
    #[error("no endpoint is named: give at least one member's address, as HOST:PORT")]
    NoEndpoints,
    /// An endpoint is not of the form `HOST:PORT`.
    #[error("{endpoint:?} is not an address of the form HOST:PORT")]
    BadEndpoint {
        /// The text.
        endpoint: String,
    },
    /// A file can not be read.
    #[error("can not read {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// Something is not a certificate, or not a key, or they do not belong together.
    #[error("the {what} can not be used: {reason}")]
    Tls {
        /// `CA`, `certificate` or `key`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A context file is not what it should be.
    #[error("{path} is no context file: {reason}")]
    Context {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing says where the cluster is.
    #[error(
        "no cluster is named: give --endpoints with --ca, --certificate and --key (or FOLKMOOT_ENDPOINTS, FOLKMOOT_CA, FOLKMOOT_CERTIFICATE, FOLKMOOT_KEY), name a context file in FOLKMOOT_CONTEXT, or start `folkmoot dev`, which writes {default}"
    )]
    NoContext {
        /// The context file that would be read.
        default: String,
    },
}

/// Why one endpoint did not become a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// Its name has no address.
    #[error("can not resolve the name: {reason}")]
    Unresolved {
        /// What the resolver says.
        reason: String,
    },
    /// Nothing answered in time.
    #[error("no answer within {} ms", .after.as_millis())]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
    /// The other side's certificate is not of this CA, or not a member's.
    #[error("not a member of this cluster: {reason}")]
    NotTrusted {
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The member does not accept this client's certificate.
    #[error("the member refuses this client's certificate: {reason}")]
    CertificateRefused {
        /// What the member says.
        reason: String,
    },
    /// The member is of another cluster.
    #[error("a member of cluster {actual}, not of {expected}")]
    OtherCluster {
        /// The cluster that was connected to before.
        expected: ClusterId,
        /// The member's.
        actual: ClusterId,
    },
    /// The connection failed otherwise.
    #[error("the connection failed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

impl AttemptError {
    /// Whether the same endpoint may answer later without anything else being done. A certificate
    /// that is not accepted, and another cluster, are not got over by waiting.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unresolved { .. } | Self::NoAnswer { .. } | Self::Failed { .. } => true,
            Self::NotTrusted { .. }
            | Self::CertificateRefused { .. }
            | Self::OtherCluster { .. } => false,
        }
    }
}

/// An attempt on an endpoint, and how it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint.
    pub endpoint: String,
    /// How it failed.
    pub error: AttemptError,
}

fn list(attempts: &[Attempt]) -> String {
    let lines: Vec<_> = attempts
        .iter()
        .map(|attempt| format!("\n  {}: {}", attempt.endpoint, attempt.error))
        .collect();
    lines.concat()
}

/// Why there is no connection, or no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration can not be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No member answers.
    #[error("no member answers:{}", list(.attempts))]
    NoMemberAnswers {
        /// Each endpoint, and how it failed.
        attempts: Vec<Attempt>,
    },
    /// Members answer, but none could open the session in time: there is no leader, most likely.
    #[error(
        "members answer, but no session could be opened within {} ms: the cluster has no leader, it seems",
        .after.as_millis()
    )]
    NoLeader {
        /// How long was waited.
        after: Duration,
    },
    /// The cluster refuses the session.
    #[error("the cluster refuses the session: {0}")]
    Refused(#[from] AttachRefused),
}

impl ConnectError {
    /// Whether the same call may succeed later without anything else being done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Config(_) => false,
            Self::NoMemberAnswers { attempts } => {
                attempts.is_empty() || attempts.iter().any(|of| of.error.is_retryable())
            }
            Self::NoLeader { .. } => true,
            Self::Refused(refused) => match refused {
                AttachRefused::TooManySessions | AttachRefused::NoLeader => true,
                AttachRefused::UnknownSession
                | AttachRefused::WrongSecret
                | AttachRefused::BadTimeout { .. } => false,
            },
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The cluster ended the session before the answer arrived.
    #[error("the session {}{}", if *.expired { "expired" } else { "was closed" }, unknown(*.sent))]
    SessionEnded {
        /// Whether it expired; else it was closed.
        expired: bool,
        /// Whether the request had left the client: it may have taken effect.
        sent: bool,
    },
    /// No answer came within the time that the configuration allows. The request keeps its place,
    /// and takes effect if it can.
    #[error("no answer within {} ms{}", .after.as_millis(), unknown(true))]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The session's task is gone: its runtime was shut down.
    #[error("the session's task is gone{}", unknown(true))]
    TaskGone,
    /// A member answered what does not fit the request. This is a defect of the server or of the
    /// client.
    #[error("a reply that does not fit the request: {reply}")]
    Misfit {
        /// The reply.
        reply: String,
    },
}

fn unknown(sent: bool) -> &'static str {
    if sent {
        ": the outcome is unknown"
    } else {
        " before the request was sent"
    }
}

impl Unanswered {
    /// Whether the request may have taken effect.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::SessionEnded { sent, .. } => *sent,
            Self::TimedOut { .. } | Self::TaskGone | Self::Misfit { .. } => true,
        }
    }
}

/// Why a write had no effect, or may have had one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The cluster's typed "no". Nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl WriteError {
    /// Whether the same call may succeed later without anything else being done. Never where the
    /// outcome is unknown: it might take effect twice.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), folkmoot_client::WriteError> {
    /// if let Err(error) = session.set("/config", "new", Some(7)).await {
    ///     if error.outcome_is_unknown() {
    ///         println!("read /config to learn whether it is set: {error}");
    ///     } else if error.is_retryable() {
    ///         session.set("/config", "new", Some(7)).await?;
    ///     } else {
    ///         println!("not set: {error}");
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Unanswered(_) => false,
        }
    }

    /// Whether the write may have taken effect.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Unanswered(unanswered) => unanswered.outcome_is_unknown(),
        }
    }

    /// The refusal, if that is what it is.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unanswered(_) => None,
        }
    }
}

/// Why a plugin's operation has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin's own "no" (rule of two levels: this is a result, not a fault).
    #[error("{code}: {message}")]
    Rejected {
        /// The plugin's code.
        code: String,
        /// The plugin's message.
        message: String,
        /// The plugin's details.
        details: Vec<(String, String)>,
    },
    /// The plugin trapped, ran over a limit or broke its contract. Nothing of the call is left.
    #[error("plugin fault ({kind}): {message}")]
    Fault {
        /// The kind of fault.
        kind: String,
        /// What the host knows of it.
        message: String,
    },
    /// The kernel's typed "no".
    #[error(transparent)]
    Refused(Refusal),
    /// The reply is not the JSON that was expected.
    #[error("the plugin's reply is not of the expected form: {reason}")]
    BadReply {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl From<WriteError> for CallError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(Refusal::Rejected {
                code,
                message,
                details,
            }) => Self::Rejected {
                code,
                message,
                details,
            },
            WriteError::Refused(Refusal::PluginFault { kind, message }) => {
                Self::Fault { kind, message }
            }
            WriteError::Refused(refusal) => Self::Refused(refusal),
            WriteError::Unanswered(unanswered) => Self::Unanswered(unanswered),
        }
    }
}

impl CallError {
    /// Whether the same call may succeed later without anything else being done. Never where the
    /// outcome is unknown, and not after a rejection, of which only the caller knows what it means.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Rejected { .. }
            | Self::Fault { .. }
            | Self::BadReply { .. }
            | Self::Unanswered(_) => false,
        }
    }

    /// Whether the call may have taken effect. It may have if its reply could not be read.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Rejected { .. } | Self::Fault { .. } | Self::Refused(_) => false,
            Self::BadReply { .. } => true,
            Self::Unanswered(unanswered) => unanswered.outcome_is_unknown(),
        }
    }
}

/// Why a read has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The member's typed "no".
    #[error(transparent)]
    Refused(#[from] ReadRefusal),
    /// There is no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl ReadError {
    /// Whether the same call may succeed later without anything else being done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => match refusal {
                ReadRefusal::TooManyViews | ReadRefusal::TooManyReads | ReadRefusal::NoLeader => {
                    true
                }
                ReadRefusal::NoNode { .. } | ReadRefusal::BadPath { .. } => false,
            },
            Self::Unanswered(unanswered) => match unanswered {
                Unanswered::TimedOut { .. } => true,
                Unanswered::SessionEnded { .. }
                | Unanswered::TaskGone
                | Unanswered::Misfit { .. } => false,
            },
        }
    }

    /// Always `false`: a read has no effect.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        false
    }
}

/// Why a watch ended. What was delivered before is complete and in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History after the position is gone on every member that could be reached. Read the state
    /// anew ([`Session::watch_and_read`](crate::Session::watch_and_read)).
    #[error("history before zxid {floor} is gone on every member: read the state anew")]
    Compacted {
        /// The oldest zxid from which a watch could resume.
        floor: Zxid,
    },
    /// The member ended it.
    #[error(transparent)]
    Ended(WatchEnd),
    /// This program did not take the events, and `limit` bytes of them were waiting.
    #[error("the events were not taken: {limit} bytes of them were waiting")]
    NotTaken {
        /// The budget in bytes.
        limit: usize,
    },
    /// The session is over.
    #[error("the session {}", if *.expired { "expired" } else { "was closed" })]
    SessionEnded {
        /// Whether it expired; else it was closed.
        expired: bool,
    },
    /// The session's task is gone: its runtime was shut down.
    #[error("the session's task is gone")]
    TaskGone,
}

/// Why a partition map is not followed, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The member does not tell it.
    #[error("the partition map of {group} is not told: {reason}")]
    Refused {
        /// The group.
        group: String,
        /// Why, for a person.
        reason: String,
    },
    /// The group has no partition map.
    #[error("{group} has no partition map")]
    NoMap {
        /// The group.
        group: String,
    },
    /// The map has no such partition.
    #[error("{group} has no partition {partition}")]
    NoPartition {
        /// The group.
        group: String,
        /// The partition.
        partition: PartitionId,
    },
    /// The members of the group could not be read.
    #[error(transparent)]
    Members(#[from] WatchError),
    /// The member left the group, or is asked to: it owns nothing there.
    #[error("the member {member} left {group}")]
    Left {
        /// The group.
        group: String,
        /// The member's id.
        member: String,
    },
    /// It was not told within the time that the configuration allows.
    #[error("the partition map was not told within {} ms", .after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The session is over.
    #[error("the session {}", if *.expired { "expired" } else { "was closed" })]
    SessionEnded {
        /// Whether it expired; else it was closed.
        expired: bool,
    },
    /// The session's task is gone: its runtime was shut down.
    #[error("the session's task is gone")]
    TaskGone,
}

impl MapError {
    /// Whether the same may succeed later without anything else being done.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Members(error) => error.is_retryable(),
            Self::Refused { .. }
            | Self::NoMap { .. }
            | Self::NoPartition { .. }
            | Self::Left { .. }
            | Self::SessionEnded { .. }
            | Self::TaskGone => false,
        }
    }
}

impl From<Unanswered> for MapError {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::SessionEnded { expired, .. } => Self::SessionEnded { expired },
            Unanswered::TimedOut { after } => Self::TimedOut { after },
            Unanswered::TaskGone | Unanswered::Misfit { .. } => Self::TaskGone,
        }
    }
}

impl WatchError {
    /// Whether a watch from the last [`Watch::position`](crate::Watch::position) may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotTaken { .. } => true,
            Self::Ended(end) => match end {
                WatchEnd::TooSlow { .. } => true,
                WatchEnd::Unwatched
                | WatchEnd::Compacted { .. }
                | WatchEnd::BadPath { .. }
                | WatchEnd::TooMany
                | WatchEnd::SessionEnded => false,
            },
            Self::Compacted { .. } | Self::SessionEnded { .. } | Self::TaskGone => false,
        }
    }
}

/// Why a component was not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// It is over the largest size that any cluster takes; nothing was sent.
    #[error("the component has {bytes} bytes, a cluster takes at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The cluster refuses it, or there is no answer.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl InstallError {
    /// Whether the same call may succeed later without anything else being done. A component that
    /// is there already is not installed twice, so that time running out is no obstacle.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } => false,
            Self::Write(WriteError::Unanswered(Unanswered::TimedOut { .. })) => true,
            Self::Write(error) => error.is_retryable(),
        }
    }

    /// Whether the component may be installed.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::TooLarge { .. } => false,
            Self::Write(error) => error.outcome_is_unknown(),
        }
    }
}
