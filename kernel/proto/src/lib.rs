//! Every byte that outlives a process: what clients and members say to each other, what the log
//! and the checkpoint hold.
//!
//! - [`ids`]: positions and names as types; no bare `u64` crosses a function.
//! - [`client`]: the frames of a session's stream and of a connection's control stream.
//! - [`peer`]: the frames between members.
//! - [`effect`] and [`batch`]: what one log entry holds, in a compact encoding of its own.
//! - [`group`]: members of groups.
//! - [`partition`]: partition maps.
//! - [`codec`]: what the compact encodings share.
//! - [`record`]: what a checkpoint holds.
//! - [`limits`]: every cap, with its reason.
//!
//! Client and peer frames are rkyv, validated with bytecheck before anything reads them.

#![allow(
    missing_docs,
    reason = "rkyv's derive makes undocumented items in enums"
)]

pub mod batch;
pub mod bootstrap;
pub mod client;
pub mod codec;
pub mod detector;
pub mod effect;
pub mod entry;
pub mod frame;
pub mod group;
pub mod ids;
pub mod limits;
pub mod partition;
pub mod path;
pub mod peer;
pub mod record;
pub mod reply;

pub use ids::*;
pub use path::{NodePath, PathError, split_last};
