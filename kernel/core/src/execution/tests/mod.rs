//! Tests of the machine: whole clusters of execution machines over a consensus that commits what is
//! proposed, or refuses it, or deposes the leader, as the test says.

mod clients;
mod cluster;
#[cfg(feature = "mutants")]
mod mutants;
mod plugins;

mod asking;
mod bounds;
mod groups;
mod partitions;
mod r01_r09_log;
mod r10_r13_waits;
mod r14_r16_sessions;
mod r15_attachments;
mod r16_expiry_under_load;
mod r20_r32_reads_components;
mod r28_streams;
mod r43_detectors;
mod random;
mod upgrades;
