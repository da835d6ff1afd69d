//! What the tests of a member's shell share: certificates, clusters in one process, a raw client.

#![allow(dead_code, reason = "each test crate uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod cluster;
