//! The consensus machine: rules as literal inputs and actions, stories as scripts over a small
//! cluster in memory, and random schedules with Raft's safety properties checked at every step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect fails"
)]
#![allow(dead_code, reason = "some tests are called by the other target")]
mod cluster;
mod disk;
mod figures;
mod fixtures;
mod random;
mod rules_disk;
mod rules_election;
mod rules_reads;
mod rules_replication;
mod schedule;
mod script;
mod stories;
