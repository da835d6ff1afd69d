//! The deterministic heart of a member, sans-IO: two machines with bounded queues between them
//! (rule R7), and the log's encoding.
//!
//! - [`consensus`]: term, vote, log, peers. Knows nothing of trees or plugins.
//! - [`log`]: how consensus' records become bytes of segments, and how they are recovered.
//! - [`checkpoint`]: the port behind which a member keeps its state between restarts.
//! - [`detection`]: how sessions' touches arrive, for failure detectors.
//! - [`execution`]: sessions, the tree, waits, watches, mounts.
//! - [`state`]: what is replicated, the overlay over it, and how effects are applied.
//! - [`mutation`]: switches that take a rule out, so that its check is seen to fail.
//! - [`plugin`]: how execution calls a guest, whoever runs it.
//! - [`policy`]: how execution asks a policy, whoever runs it.
//!
//! Time, seeds and bytes come in as arguments; work goes out as actions. Nothing here reads a
//! clock, draws randomness, starts a thread, does I/O, or iterates in hash order.

pub mod checkpoint;
pub mod consensus;
pub mod detection;
pub mod execution;
pub mod log;
pub mod mutation;
pub mod plugin;
pub mod policy;
pub mod state;
