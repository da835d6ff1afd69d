//! Every cap, with its reason. Clients read them from `/folkmoot/limits`; `docs/limits.md` lists
//! them. What a cluster may set differently is in [`Limits`]; the rest is part of the protocol.

/// Bytes of a path, for keys that fit one page of an index.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one component of a path.
pub const NAME_BYTES_MAX: usize = 255;
/// Components of a path.
pub const PATH_DEPTH_MAX: usize = 32;
/// Operations of one `multi`.
pub const MULTI_OPERATIONS_MAX: usize = 1024;
/// Guards of one request.
pub const GUARDS_MAX: usize = 16;
/// Payload of one batch, in bytes, beyond which it is cut (a larger transaction travels alone).
pub const BATCH_BYTES_TARGET: usize = 256 * 1024;
/// Transactions of one batch.
pub const BATCH_TXNS_MAX: usize = 4096;
/// One frame on any stream, in bytes: a transaction at its limit and its envelope.
pub const FRAME_BYTES_MAX: usize = 5 * 1024 * 1024;
/// What is left of a frame for all that is beside a transaction or a request in it.
pub const FRAME_ENVELOPE_BYTES: usize = 256 * 1024;
/// Bytes of one chunk of a view, a snapshot or an upload.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an operation's name in a call to a plugin.
pub const OPERATION_NAME_BYTES_MAX: usize = 128;
/// Effects of one transaction: what a closing session may take with it, and more (rule R32).
pub const TXN_EFFECTS_MAX: usize = 32 * 1024;

/// Uploads of one session that are not installed: an operator installs a few plugins at a time.
pub const SESSION_UPLOADS_MAX: usize = 8;
/// Uploads of all sessions.
pub const UPLOADS_MAX: usize = 64;
/// Bytes of a chunk of an upload at least, save its last one, so that what a component takes in
/// memory is about its size.
pub const UPLOAD_CHUNK_BYTES_MIN: usize = 4096;
/// How long an upload is kept after its last chunk, on the log clock, in milliseconds: a chunk
/// takes a round trip, and a client that is cut off comes back within a session's timeout.
pub const UPLOAD_IDLE_MS_MAX: u64 = 60_000;

/// Groups of the cluster.
pub const GROUPS_MAX: usize = 1024;
/// Members of a group, those that are gone and not forgotten among them.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Bytes of a group's name and of a member's id.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Groups that one session is a member of, so that its end fits a transaction with what it writes of
/// each (rule R32).
pub const SESSION_MEMBERSHIPS_MAX: usize = 16;
/// Bytes of a member's address and of its zone.
pub const MEMBER_TEXT_BYTES_MAX: usize = 128;
/// Dimensions of weight.
pub const MEMBER_CAPACITIES_MAX: usize = 4;
/// Facts of a member's meta.
pub const MEMBER_META_MAX: usize = 64;
/// Bytes of a member's meta.
pub const MEMBER_META_BYTES_MAX: usize = 16 * 1024;
/// What is written of a member beside its path when its session ends, in bytes at most.
pub const MEMBER_RECORD_BYTES_MAX: usize = 1024;
/// The longest that a member may ask its work to wait for it, in milliseconds: a day.
pub const RESTART_DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Partitions of a map: a policy plans for as many within a second.
pub const MAP_PARTITIONS_MAX: usize = 128 * 1024;
/// Replicas of a partition.
pub const MAP_REPLICAS_MAX: usize = 7;
/// Moves under way in the cluster.
pub const MOVES_IN_FLIGHT_MAX: u32 = 4096;
/// Bytes of what a policy's `configure` gets.
pub const POLICY_CONFIG_BYTES_MAX: usize = 16 * 1024;
/// Failure detectors that are chosen, the default among them.
pub const DETECTORS_MAX: usize = 64;
/// Permits of a map that hold at once.
pub const MAP_PERMITS_MAX: usize = 64;
/// Members of one permit.
pub const PERMIT_MEMBERS_MAX: usize = 1024;
/// How long a permit may hold, in milliseconds: an hour.
pub const PERMIT_MS_MAX: u64 = 60 * 60 * 1000;
/// Partitions that one request of an operator, report of a member or frame of loads names.
pub const MAP_NAMED_MAX: usize = 4096;
/// Members that may have a partition, where they are listed.
pub const PARTITION_ALLOWED_MAX: usize = 64;
/// Maps that one stream is told of.
pub const STREAM_MAPS_MAX: usize = 16;

/// The caps that a cluster may set differently; the same for client and server.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one node's value. ZooKeeper's default (`jute.maxbuffer`) is as large.
    pub value_bytes_max: u32,
    /// Bytes of one transaction.
    pub txn_bytes_max: u32,
    /// Unacknowledged replies kept for one session (rule R10).
    pub session_replies_max: u32,
    /// Bytes of unacknowledged replies kept for one session.
    pub session_reply_bytes_max: u32,
    /// Ephemeral nodes of one session (rule R32).
    pub session_ephemerals_max: u32,
    /// Waits of one session.
    pub session_waits_max: u32,
    /// Watches of one session.
    pub session_watches_max: u32,
    /// Sessions of the cluster.
    pub sessions_max: u32,
    /// Shortest session timeout, in milliseconds: 20 touch rounds.
    pub session_timeout_min_ms: u32,
    /// Longest session timeout, in milliseconds.
    pub session_timeout_max_ms: u32,
    /// Views open at once on one member.
    pub views_max: u32,
    /// Bytes queued for one watcher, beyond which it is cancelled.
    pub watcher_bytes_max: u32,
    /// Bytes of recent changes kept in memory for watches that resume.
    pub watch_history_bytes_max: u32,
    /// Bytes of one component.
    pub component_bytes_max: u32,
    /// Bytes of all components.
    pub components_bytes_max: u64,
    /// Mounts of the cluster.
    pub mounts_max: u32,
    /// Events queued for one mount, beyond which they become one `resync` (rule R12).
    pub mount_events_max: u32,
    /// Timers of one mount.
    pub mount_timers_max: u32,
}

/// A limit that can not be kept, or that would keep the cluster from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit {name} is {actual}, and is between {min} and {max}")]
pub struct BadLimit {
    /// The limit's name.
    pub name: &'static str,
    /// What it is.
    pub actual: u64,
    /// The least that works.
    pub min: u64,
    /// The most that works.
    pub max: u64,
}

impl Limits {
    /// Whether the protocol can keep these limits, and a cluster works with them: a transaction fits
    /// a frame with its envelope and the frames of other entries behind it, a value fits a
    /// transaction, a component fits among all, and there is room for one of each.
    ///
    /// # Errors
    ///
    /// The first limit that it can not keep.
    pub fn check(&self) -> Result<(), BadLimit> {
        let txn_max = (FRAME_BYTES_MAX - FRAME_ENVELOPE_BYTES) as u64;
        let txn = self.txn_bytes_max;
        let timeout_max = self.session_timeout_max_ms;
        let bounded = |name, actual: u32, min, max| (name, u64::from(actual), min, max);
        let some = |name, actual: u32| bounded(name, actual, 1, u64::from(u32::MAX));
        let known = [
            bounded("txn_bytes_max", txn, 16 * 1024, txn_max),
            bounded("value_bytes_max", self.value_bytes_max, 1, u64::from(txn)),
            some("session_timeout_max_ms", timeout_max),
            bounded(
                "session_timeout_min_ms",
                self.session_timeout_min_ms,
                1,
                u64::from(timeout_max),
            ),
            some("session_replies_max", self.session_replies_max),
            some("session_reply_bytes_max", self.session_reply_bytes_max),
            some("session_ephemerals_max", self.session_ephemerals_max),
            some("session_waits_max", self.session_waits_max),
            some("session_watches_max", self.session_watches_max),
            some("sessions_max", self.sessions_max),
            some("views_max", self.views_max),
            some("watcher_bytes_max", self.watcher_bytes_max),
            some("watch_history_bytes_max", self.watch_history_bytes_max),
            bounded(
                "component_bytes_max",
                self.component_bytes_max,
                1,
                self.components_bytes_max,
            ),
            some("mounts_max", self.mounts_max),
            some("mount_events_max", self.mount_events_max),
            some("mount_timers_max", self.mount_timers_max),
        ];
        for (name, actual, min, max) in known {
            if actual < min || actual > max {
                return Err(BadLimit {
                    name,
                    actual,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes_max: 1024 * 1024,
            txn_bytes_max: 4 * 1024 * 1024,
            session_replies_max: 4096,
            session_reply_bytes_max: 8 * 1024 * 1024,
            session_ephemerals_max: 10_000,
            session_waits_max: 1024,
            session_watches_max: 1024,
            sessions_max: 100_000,
            session_timeout_min_ms: 1000,
            session_timeout_max_ms: 300_000,
            views_max: 64,
            watcher_bytes_max: 4 * 1024 * 1024,
            watch_history_bytes_max: 16 * 1024 * 1024,
            component_bytes_max: 32 * 1024 * 1024,
            components_bytes_max: 256 * 1024 * 1024,
            mounts_max: 1024,
            mount_events_max: 10_000,
            mount_timers_max: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_kept() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    /// A limit of 0 would turn everything of its kind away, each limit in its turn.
    #[test]
    fn a_limit_of_nothing_is_refused() {
        let limits = serde_json::to_value(Limits::default()).expect("plain numbers");
        let names = limits.as_object().expect("an object").keys();
        for name in names {
            let mut limits = limits.clone();
            limits[name] = 0.into();
            let limits: Limits = serde_json::from_value(limits).expect("plain numbers");
            let refused = limits.check().expect_err(name);
            // That a component does not fit among none is said of the component.
            assert_eq!(
                refused.name.replace("component_", "components_"),
                name.replace("component_", "components_")
            );
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let refused = |limits: Limits| limits.check().map_err(|refused| refused.name);
        let limits = Limits {
            session_timeout_min_ms: 300_001,
            ..Limits::default()
        };
        assert_eq!(refused(limits), Err("session_timeout_min_ms"));
        let limits = Limits {
            components_bytes_max: 1024,
            ..Limits::default()
        };
        assert_eq!(refused(limits), Err("component_bytes_max"));
        let limits = Limits {
            value_bytes_max: 4 * 1024 * 1024 + 1,
            ..Limits::default()
        };
        assert_eq!(refused(limits), Err("value_bytes_max"));
    }
}
