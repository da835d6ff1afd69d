//! Who owns the partition of a key.

use std::time::Duration;

use folkmoot_proto::Zxid;
use folkmoot_proto::partition::{MapDetail, PartitionId, PartitionKey};

use crate::core::{MapCopy, Routed, RoutingMap, SharedCopy};
use crate::error::MapError;
use crate::following::Following;
use crate::group::Group;
use crate::session::Session;

/// A member that has a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RouteMember {
    /// Its id.
    pub id: String,
    /// Where it is reached.
    pub address: String,
    /// Its zone.
    pub zone: String,
}

/// Where the requests for a key go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Route {
    /// The key's partition.
    pub partition: PartitionId,
    /// What the partition is.
    pub key: PartitionKey,
    /// The owner; none while there is none.
    pub owner: Option<RouteMember>,
    /// The other replicas that live and are ready.
    pub followers: Vec<RouteMember>,
    /// The zxid of the layout: a request carries it, and an owner of another layout answers that
    /// the key has moved (rule R39).
    pub layout: Zxid,
}

/// Routes keys by a copy of the group's partition map that is kept current, until it is dropped.
///
/// It goes on with the last map it had while the cluster is away, and says how old that is. A route
/// may be out of date all the same: the one who is asked must know that it owns the partition
/// ([`PartitionOwner::owns`]), and answer that it does not.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::Group;
/// let router = Group::new(&session, "shards").router().await?;
/// match router.route("user:17").and_then(|route| route.owner) {
///     Some(owner) => println!("{} at {}", owner.id, owner.address),
///     None => println!("nobody, for now; the map is {:?} old", router.age()),
/// }
/// # Ok(()) }
/// ```
///
/// [`PartitionOwner::owns`]: crate::PartitionOwner::owns
#[derive(Debug)]
pub struct Router {
    session: Session,
    following: Following,
    copy: SharedCopy,
}

impl Group {
    /// Follows the group's partition map, to route by it. It returns once the map was told, whether
    /// the group has one yet or not.
    ///
    /// # Errors
    ///
    /// The map is not told, not within the configuration's `request_timeout`, or the session is
    /// over.
    pub async fn router(&self) -> Result<Router, MapError> {
        let (following, copy) =
            Following::begin(self.session(), self.name(), MapDetail::Routing).await?;
        Ok(Router {
            session: self.session().clone(),
            following,
            copy,
        })
    }
}

impl Router {
    /// Where the requests for a key go; none if no partition has it. In a map of ranges a key
    /// belongs to the range of its hash ([`key_hash`](crate::key_hash)), in one of names to the
    /// partition of that name. It asks nobody.
    #[must_use]
    pub fn route(&self, key: impl AsRef<[u8]>) -> Option<Route> {
        self.look(|map| Some(route(map, map.partition_of(key.as_ref())?)))
            .flatten()
    }

    /// Every partition with its owner, in order of the partitions' ids.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.look(|map| map.partitions().map(|of| route(map, of)).collect())
            .unwrap_or_default()
    }

    /// The zxid of the map's layout; zero while the group has no map.
    #[must_use]
    pub fn layout(&self) -> Zxid {
        self.look(|map| map.layout).unwrap_or_default()
    }

    /// Every change of the map up to here is in it.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.look(|map| map.through).unwrap_or_default()
    }

    /// How old the map may be: nothing while the cluster acknowledges the session's heartbeats,
    /// else the time since the last one that it acknowledged was sent.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.session.unacknowledged_for()
    }

    /// Waits for a change of the map since this was asked last. Cancel safe.
    ///
    /// # Errors
    ///
    /// The session is over, or the map is not told any more: the last one stays, and nothing
    /// follows.
    pub async fn changed(&mut self) -> Result<(), MapError> {
        self.following.changed().await
    }

    fn look<T>(&self, at: impl FnOnce(&RoutingMap) -> T) -> Option<T> {
        let copy = self.copy.read();
        MapCopy::routing(&copy).map(at)
    }
}

fn route(map: &RoutingMap, (partition, of): (PartitionId, &Routed)) -> Route {
    let member = |number| {
        let member = map.members.get(number)?;
        // An owner of another incarnation owns nothing.
        member.incarnation?;
        Some(RouteMember {
            id: member.id.clone(),
            address: member.address.clone(),
            zone: member.zone.clone(),
        })
    };
    Route {
        partition,
        key: of.key.clone(),
        owner: of.owner.as_ref().and_then(member),
        followers: of.followers.iter().filter_map(member).collect(),
        layout: map.layout,
    }
}
