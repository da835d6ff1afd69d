//! The half of execution that every member has: it serves the clients attached here, from what is
//! applied here alone.

mod attach;
mod forward;
mod hashes;
mod heartbeats;
mod listings;
mod loads;
mod maps;
mod publish;
mod reads;
mod streams;
mod watching;

pub(super) use hashes::Hashes;
pub(super) use heartbeats::Heartbeats;
pub(super) use listings::Listings;
pub(super) use maps::MapWatches;
pub(super) use reads::Reads;
pub(super) use streams::Streams;
