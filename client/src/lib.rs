//! The client of Folkmoot: sessions that outlive connections, members and leaders.
//!
//! - [`Client`] connects to any of several members and opens sessions.
//! - [`Session`] has the typed operations. Each write has exactly one outcome, however often the
//!   connection is lost; reads are never older than what the session has seen or written.
//! - [`Watch`] is a stream of whole transactions that resumes by itself.
//! - [`Lock`] and [`Counter`] use the standard plugins; a [`LockGuard`] carries a fencing token,
//!   and says when to stop.
//! - [`cluster_status`] asks every member, leader or not.
//!
//! ```no_run
//! use folkmoot_client::{Client, ClientConfig, Lock};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::from_environment()?).await?;
//! let session = client.open_session().await?;
//!
//! let guard = Lock::new(&session, "/locks", "nightly-report").acquire().await?;
//! // Takes effect only while the lock is held, even if this program was paused meanwhile.
//! guard.session().set("/reports/last", "today", None).await?;
//! guard.release().await?;
//!
//! session.close().await?;
//! # Ok(()) }
//! ```

mod asked;
mod call;
mod check;
mod client;
mod clock;
mod config;
mod connector;
mod core;
mod counter;
mod detectors;
mod driver;
mod error;
mod following;
mod group;
mod link;
mod lock;
mod multi;
mod owner;
mod partition_map;
mod plugins;
mod router;
mod session;
mod standing;
mod stream;
mod tls;
mod watch;

pub use call::{Call, Cancelled};
pub use client::{Client, EndpointStatus, cluster_status};
pub use config::{ClientConfig, Context, ContextChoice, default_context, split_endpoints};
pub use core::{CLOCK_DRIFT_PERMILLE, Grant, Standing};
pub use counter::Counter;
pub use detectors::DetectorInfo;
pub use error::{
    Attempt, AttemptError, CallError, ConfigError, ConnectError, InstallError, MapError, ReadError,
    Unanswered, WatchError, WriteError,
};
pub use folkmoot_proto::client::{
    AttachRefused, Change, ChangeKind, DetectorStatus, Guard, MemberStatus, NodeKind, PeerStatus,
    ReadRefusal, SnapshotNode, Stat, WatchEnd, WatchScope,
};
pub use folkmoot_proto::group::{MemberRecord, MemberSpec, MemberState};
pub use folkmoot_proto::partition::{
    Layout, MapConfig, MovePhase, MoveReason, PartitionChange, PartitionId, PartitionKey,
    PolicyChoice, key_hash, owner_path,
};
pub use folkmoot_proto::reply::{Refusal, SubOutcome};
pub use folkmoot_proto::{
    ClusterId, Digest, LogIndex, LogTime, MemberId, NodePath, SessionId, Term, WallTime, Zxid,
};
pub use group::{Discovery, Group, GroupView, Member, MemberInfo};
pub use lock::{Lock, LockError, LockGuard};
pub use multi::{Multi, MultiDone};
pub use owner::{PartitionHandler, PartitionOwner, PrepareError};
pub use partition_map::{
    Candidate, Explanation, MapChanges, MapMember, MapView, MoveView, OwnerView, PartitionMap,
    PartitionView, ReplicaView, StopPermit,
};
pub use plugins::{MountInfo, PluginInfo};
pub use router::{Route, RouteMember, Router};
pub use session::{Children, Created, Node, Session, Written};
pub use standing::StandingChanges;
pub use watch::{Snapshot, Transaction, Watch, WatchOptions};
