//! What is replicated, the overlay over it, and how effects are applied.
//!
//! - [`State`] is the committed state; [`Speculative`] is what a leader executes on: a state and an
//!   overlay of what was executed and is not applied yet.
//! - [`View`] reads either; everything that a transaction rests on is read through it.
//! - [`ApplyError`]: effects are applied by one code for both (rule R5), strictly (rule R6).

mod applied;
mod apply;
mod checkpoint;
mod committed;
mod entry;
pub mod kernel_nodes;
mod key;
mod record;
mod slots;
mod speculative;
mod store;
mod tree;
mod value;
mod view;
mod views;

pub use applied::{AppliedTxn, NodeChange, Notice};
pub use apply::{ApplyError, NodeProblem, Stamp, ephemeral_bytes};
pub use checkpoint::{Delta, FEATURE_LEVEL};
pub use committed::{Position, State};
pub use key::{BadKey, Key, PathKey, compare_paths, is_within};
pub use record::RestoreError;
pub use speculative::{Savepoint, Speculative};
pub use value::{
    Component, Counters, Directory, EventQueue, Mount, Node, NodeFixed, NodeRecord, SealedUpload,
    Session, StoredCompletion, StoredReply, Timer, Upload, Value, Wait, reply_bytes,
};
pub use view::View;
pub use views::{Span, TooManyViews, ViewId, ViewRecords};
