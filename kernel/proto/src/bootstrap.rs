//! The first entry of every log: who the cluster is (rule R21).
//!
//! It is JSON, since an operator reads it: `folkmoot init` writes it once, every member is started
//! with the same file, and its bytes *are* the payload of entry 1.

use crate::limits::Limits;
use crate::{ClusterId, MemberId, WallTime};

/// The cluster as it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// When `folkmoot init` made it.
    pub created: WallTime,
    /// The voters: 1, 3 or 5.
    pub members: Vec<BootstrapMember>,
    /// The caps that this cluster sets.
    #[serde(default)]
    pub limits: Limits,
}

/// A member as the cluster was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapMember {
    /// Its id.
    pub id: MemberId,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
}

/// Why bytes are no bootstrap entry.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Not JSON, or not of this shape.
    #[error("not a bootstrap file: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A cluster has 1, 3 or 5 voters.
    #[error("a cluster has 1, 3 or 5 voters, this file names {0}")]
    Voters(usize),
    /// Two members have one id, or an id is 0.
    #[error("member ids are distinct and not 0")]
    MemberIds,
    /// A limit that the protocol can not keep.
    #[error("{0}")]
    Limits(#[from] crate::limits::BadLimit),
}

impl Bootstrap {
    /// The file's bytes, which are the entry's payload.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a bootstrap file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BootstrapError> {
        let bootstrap: Self = serde_json::from_slice(bytes)?;
        if ![1, 3, 5].contains(&bootstrap.members.len()) {
            return Err(BootstrapError::Voters(bootstrap.members.len()));
        }
        let mut ids: Vec<_> = bootstrap.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != bootstrap.members.len() || ids.first() == Some(&MemberId::ZERO) {
            return Err(BootstrapError::MemberIds);
        }
        bootstrap.limits.check()?;
        Ok(bootstrap)
    }

    /// The voters' ids, sorted.
    #[must_use]
    pub fn voters(&self) -> Vec<MemberId> {
        let mut voters: Vec<_> = self.members.iter().map(|member| member.id).collect();
        voters.sort_unstable();
        voters
    }
}
