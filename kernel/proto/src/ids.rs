//! Positions and names as types.

use core::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
            serde::Serialize, serde::Deserialize,
        )]
        #[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before the first.
            pub const ZERO: Self = Self(0);

            /// The next value.
            ///
            /// # Panics
            ///
            /// When 2^64 − 1 values were used, which no cluster reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64 bits of positions do not run out"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

position!(
    /// A term of office (Raft §5.1).
    Term
);
position!(
    /// A place in the replicated log, from 1 (Raft §5.3). Entry 1 is the bootstrap entry.
    LogIndex
);
position!(
    /// The place of a transaction in the total order of writes, from 1. No-op and bootstrap
    /// entries take none.
    Zxid
);
position!(
    /// A member of the cluster, from 1.
    MemberId
);
position!(
    /// A session: the zxid of the transaction that opened it.
    SessionId
);
position!(
    /// A write-class request of one session, from 1, without gaps (rule R2).
    RequestId
);
position!(
    /// Counts a session's attachments; requests of an older one are refused (rule R15).
    ConnEpoch
);
position!(
    /// Identifies one life of a member's data folder; a wiped folder has another (rule R21).
    Incarnation
);
position!(
    /// Names a watch within its session; chosen by the client.
    WatchId
);
position!(
    /// Names a read within its session; chosen by the client.
    ReadId
);
position!(
    /// A wait: the zxid of the transaction that began it (rule R11).
    Ticket
);
position!(
    /// A mount: the zxid of the transaction that made it. A changed mount keeps it.
    MountId
);
position!(
    /// A partition map: the zxid of the transaction that made it.
    MapId
);
position!(
    /// Milliseconds on the log clock, which only moves while the cluster has a leader (rule R9).
    LogTime
);
position!(
    /// Milliseconds since the Unix epoch, for `ctime` and `mtime` only; never for a duration.
    WallTime
);
position!(
    /// Microseconds on one process's monotonic clock (one that counts suspend). Comparable only
    /// within that process.
    Tick
);

impl Tick {
    /// The instant `millis` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Whole milliseconds from `earlier` to this instant, 0 if it is not earlier.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

impl LogTime {
    /// Milliseconds since an earlier time; 0 if that is not earlier.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `millis` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl Ticket {
    /// The zxid of the transaction that began the wait.
    #[must_use]
    pub const fn zxid(self) -> Zxid {
        Zxid(self.0)
    }
}

/// Both clocks of a process, read after the input was dequeued (rule R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub tick: Tick,
    /// The wall clock.
    pub wall: WallTime,
}

macro_rules! bytes_name {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
        )]
        #[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0; $len];
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(NotHex { digits: 2 * $len });
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = core::str::from_utf8(pair).map_err(|_| NotHex { digits: 2 * $len })?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| NotHex { digits: 2 * $len })?;
                }
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes_name!(
    /// Names a cluster; made once by `folkmoot init`.
    ClusterId,
    16
);
bytes_name!(
    /// The SHA-256 of a component's bytes.
    Digest,
    32
);
bytes_name!(
    /// The SHA-256 of a session's secret, which is what the log keeps of it (rule R10).
    SecretHash,
    32
);

/// The 32 bytes that a client makes for a session: its secret, and the nonce by which a retried
/// open gets the same session (rule R10). Not shown when printed.
#[derive(Clone, Copy, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SessionSecret(pub [u8; 32]);

impl SessionSecret {
    /// What the log keeps of this secret.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        use sha2::Digest as _;
        SecretHash(sha2::Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// A text that should have been hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hexadecimal digits")]
pub struct NotHex {
    /// How many digits the name has.
    pub digits: usize,
}
