//! Why a connection is closed, in words for a person and a code for a program.

use folkmoot_proto::{ClusterId, MemberId};
use quinn::VarInt;

/// A reason to close a connection. Nothing else is touched by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Close {
    /// The other side closed it, or it was lost.
    #[error("the connection is gone")]
    Gone,
    /// A frame is malformed or truncated.
    #[error("malformed frame: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The first frame is no hello, or none came in time.
    #[error("the first frame must be a hello")]
    NoHello,
    /// Another version of the protocol.
    #[error(
        "this member speaks version {} of the protocol, not {version}",
        folkmoot_proto::client::PROTOCOL_VERSION
    )]
    Version {
        /// The other side's.
        version: u32,
    },
    /// The other side is of another cluster.
    #[error("this member is of cluster {ours}, not of {theirs}")]
    OtherCluster {
        /// The other side's.
        theirs: ClusterId,
        /// This member's.
        ours: ClusterId,
    },
    /// The hello names another member than the certificate, or none of the cluster.
    #[error("the certificate is not that of member {member} of this cluster")]
    NotThatMember {
        /// The member that the hello names.
        member: MemberId,
    },
    /// The other side does not read what it is sent.
    #[error("the client does not read what it is sent")]
    TooSlow,
    /// The other side begins frames and does not finish them.
    #[error("{bytes} bytes of frames that are not finished wait, allowed are {bytes_max}")]
    Unfinished {
        /// The bytes that wait.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A peer's messages come faster than they can be handled.
    #[error("too much is waiting to be handled")]
    Overloaded,
}

impl Close {
    /// The code on the wire; part of the protocol.
    fn code(&self) -> u32 {
        match self {
            Self::Gone => 0,
            Self::Malformed { .. } => 1,
            Self::NoHello => 2,
            Self::Version { .. } => 3,
            Self::OtherCluster { .. } => 4,
            Self::NotThatMember { .. } => 5,
            Self::TooSlow => 6,
            Self::Overloaded => 7,
            Self::Unfinished { .. } => 8,
        }
    }
}

/// Closes the connection and says why, to the other side and to the operator.
pub(crate) fn close(connection: &quinn::Connection, reason: Close) {
    let text = reason.to_string();
    if reason != Close::Gone {
        let from = connection.remote_address();
        tracing::warn!(%from, reason = text, "a connection is closed");
    }
    connection.close(VarInt::from_u32(reason.code()), text.as_bytes());
}
