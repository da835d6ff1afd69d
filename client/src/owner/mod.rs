//! The owner of partitions: a member that is told what it gains, and lets go what it is to lose.

mod engine;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use folkmoot_proto::client::Guard;
use folkmoot_proto::partition::{PartitionId, PartitionKey};
use folkmoot_proto::{Tick, Zxid};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use self::engine::Engine;
use crate::clock;
use crate::core::{Grant, LeaseView, SharedTable, Standing};
use crate::driver::{Command, Holding, Key};
use crate::error::MapError;
use crate::group::Member;
use crate::session::Session;

/// Why a replica could not catch up yet.
pub type PrepareError = Box<dyn std::error::Error + Send + Sync>;

/// What a program does with its partitions.
///
/// The callbacks of one partition are called one after the other; those of different partitions at
/// once, each in a task of its own. A callback that panics is over, and touches no other partition.
///
/// A replica is first prepared, where the map asks for that. A partition is then gained, and later
/// revoked or lost; it may be gained again after either.
pub trait PartitionHandler: Send + Sync + 'static {
    /// Brings a replica up to date, so that this member could own the partition. Once it returns
    /// `Ok` the member may be promoted; after an error it is called again, after a pause. The future
    /// is dropped when the replica is not wanted any more.
    fn prepare(
        &self,
        partition: PartitionId,
        key: &PartitionKey,
    ) -> impl Future<Output = Result<(), PrepareError>> + Send {
        let _ = (partition, key);
        async { Ok(()) }
    }

    /// The partition is owned, with this token: serve it, and fence what is written for it with
    /// [`PartitionOwner::guard`].
    fn gain(&self, grant: &Grant) -> impl Future<Output = ()> + Send;

    /// The partition is to go to another member: finish or refuse what is under way, and hand it
    /// over. When this returns, the partition is let go, and [`PartitionOwner::owns`] is false.
    /// The map's `revoke_timeout` and the lease bound the time.
    fn revoke(&self, partition: PartitionId) -> impl Future<Output = ()> + Send;

    /// The lease is over, or another one owns the partition: stop at once. A `gain` or `revoke` that
    /// was under way is dropped before.
    fn lost(&self, partition: PartitionId) -> impl Future<Output = ()> + Send;
}

/// The partitions that a member owns, by its own clock. Cheap to clone.
///
/// When the last clone is dropped, callbacks are dropped where they are, and nothing is owned any
/// more; the cluster gives the partitions to others only once the member drains, leaves, or its
/// session is over.
///
/// ```no_run
/// use folkmoot_client::{Grant, Group, MemberSpec, PartitionHandler, PartitionId};
///
/// struct Shards;
///
/// impl PartitionHandler for Shards {
///     async fn gain(&self, grant: &Grant) {
///         println!("serving {} with token {}", grant.partition, grant.token);
///     }
///     async fn revoke(&self, partition: PartitionId) {
///         println!("flushing {partition}");
///     }
///     async fn lost(&self, partition: PartitionId) {
///         println!("dropping {partition}");
///     }
/// }
///
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let me = Group::new(&session, "shards").join("w-1", MemberSpec::at("10.0.0.7:9000")).await?;
/// let owner = me.partitions(Shards).await?;
/// // Where a request for a key arrives:
/// if let Some(grant) = owner.owns_key("user:17") {
///     session.guarded_by(grant.guard()).set("/users/17", "fenced", None).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PartitionOwner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    key: Key,
    table: SharedTable,
    lease: watch::Receiver<LeaseView>,
    state: watch::Receiver<State>,
    engine: AbortHandle,
}

/// What the engine tells of itself.
#[derive(Clone, Debug, Default)]
struct State {
    began: bool,
    end: Option<MapError>,
}

impl Member {
    /// Owns partitions of the group's map as this member, in this incarnation: `handler` is told
    /// what is gained and what is to be let go. It returns once the map was told, whether the group
    /// has one yet or not. A member that has joined anew is another incarnation, and begins anew.
    ///
    /// # Errors
    ///
    /// The map is not told, not within the configuration's `request_timeout`, the member left, or
    /// the session is over.
    pub async fn partitions(
        &self,
        handler: impl PartitionHandler,
    ) -> Result<PartitionOwner, MapError> {
        let session = self.group().session().clone();
        let (table, key) = (SharedTable::default(), session.key());
        let (sender, events) = mpsc::unbounded_channel();
        session.command(Command::Hold {
            key,
            holding: Holding {
                group: self.group().name().to_owned(),
                member: self.id().to_owned(),
                incarnation: self.incarnation(),
                table: table.clone(),
                events: sender,
            },
        })?;
        let (said, mut state) = watch::channel(State::default());
        let engine = Engine::new(handler, self, table.clone(), said);
        let engine = tokio::spawn(engine.run(events)).abort_handle();
        let lease = session.lease();
        let owner = PartitionOwner {
            inner: Arc::new(Inner {
                session,
                key,
                table,
                lease,
                state: state.clone(),
                engine,
            }),
        };
        let began = state.wait_for(|state| state.began || state.end.is_some());
        let bound = owner.inner.session.request_timeout();
        let state = match bound {
            None => began.await,
            Some(after) => tokio::time::timeout(after, began)
                .await
                .map_err(|_| MapError::TimedOut { after })?,
        };
        match state.map_err(|_| MapError::TaskGone)?.end.clone() {
            Some(error) => Err(error),
            None => Ok(owner),
        }
    }
}

impl PartitionOwner {
    /// Whether this member certainly owns the partition now: no other one does, and none will before
    /// this is false. It asks nobody, and takes the time of looking it up. What follows it may be
    /// delayed, so fence writes with [`PartitionOwner::guard`].
    #[must_use]
    pub fn owns(&self, partition: PartitionId) -> bool {
        self.grant(partition).is_some()
    }

    /// The grant by which the partition is owned; none if it is not.
    #[must_use]
    pub fn grant(&self, partition: PartitionId) -> Option<Grant> {
        let now = self.safe_now()?;
        self.inner.table.read().owned(partition, now).cloned()
    }

    /// As [`PartitionOwner::grant`], for the partition that a key belongs to: by its hash in a map
    /// of ranges, by its name in one of names.
    #[must_use]
    pub fn owns_key(&self, key: impl AsRef<[u8]>) -> Option<Grant> {
        let now = self.safe_now()?;
        let table = self.inner.table.read();
        table.owned_key(key.as_ref(), now).cloned()
    }

    /// The fencing token of a partition that is owned.
    #[must_use]
    pub fn token(&self, partition: PartitionId) -> Option<Zxid> {
        Some(self.grant(partition)?.token)
    }

    /// A guard for the writes of a partition that is owned: they take effect only while this
    /// promotion is the current one (rules R13, R33).
    #[must_use]
    pub fn guard(&self, partition: PartitionId) -> Option<Guard> {
        Some(self.grant(partition)?.guard())
    }

    /// All that is owned now, in order of the partitions' ids.
    #[must_use]
    pub fn owned(&self) -> Vec<Grant> {
        let Some(now) = self.safe_now() else {
            return Vec::new();
        };
        self.inner.table.read().grants(now).cloned().collect()
    }

    /// Says how much work a partition is that is owned now: a whole number, in whatever unit the group
    /// has chosen for its members, such as requests per second. A policy that weighs partitions by
    /// what was measured of them, such as `load-aware`, sees the newest one; the kernel itself does
    /// nothing with it. Of a partition that is not owned it says nothing.
    ///
    /// The newest value of each partition is sent every 5 s, again and again for as long as the
    /// partition is owned with the same token, so that a new leader of the cluster knows it soon: call
    /// this when the value changes, or at an interval, and average over some seconds. It waits for
    /// nothing, and guarantees nothing: loads are not logged, they may be lost or come in another
    /// order than writes, and a policy is asked because of them every 10 s at most.
    ///
    /// As the load measurements that Slicer's assigner decides by (Adya and others, "Slicer:
    /// Auto-Sharding for Datacenter Applications", OSDI 2016).
    pub fn report_load(&self, partition: PartitionId, load: u64) {
        let Some(now) = self.safe_now() else { return };
        let is_first = self.inner.table.write().measured(partition, load, now);
        if is_first {
            // A session that is over sends nothing.
            let _ = self.inner.session.command(Command::Wake);
        }
    }

    /// The zxid of the map's layout, as far as it was told; zero while the group has no map. A
    /// request that carries another one is of another layout (rule R39).
    #[must_use]
    pub fn layout(&self) -> Zxid {
        self.inner.table.read().layout
    }

    /// Waits until nothing is gained any more, for good: the session is over or to be closed, the
    /// member left or is to leave, or the map is not told. Every callback that follows from it has returned then. Cancel safe.
    pub async fn ended(&self) -> MapError {
        let mut state = self.inner.state.clone();
        match state.wait_for(|state| state.end.is_some()).await {
            Ok(state) => state.end.clone().unwrap_or(MapError::TaskGone),
            Err(_) => MapError::TaskGone,
        }
    }

    /// Now, if the session certainly lives.
    fn safe_now(&self) -> Option<Tick> {
        let now = clock::now();
        let standing = self.inner.lease.borrow().standing_at(now);
        (standing < Standing::LeaseOver).then_some(now)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.abort();
        // A session that is over holds nothing.
        let _ = self.session.command(Command::EndHold { key: self.key });
    }
}
