//! Tests of the machine: whole clusters of execution machines over a consensus that commits what is
//! proposed, or refuses it, or deposes the leader, as the test says.

#[allow(dead_code, reason = "the rules' tests use it as they come")]
mod cluster;
mod plugins;

mod r01_r05_log;
