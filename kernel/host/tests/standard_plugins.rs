//! The standard plugins' components are held to the same scenarios as their native code.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

#[path = "../../../plugins/counter/tests/scenarios/mod.rs"]
mod counter;
#[path = "../../../plugins/lock/tests/scenarios/mod.rs"]
mod lock;

use support::Wasm;

#[test]
fn the_lock_holds_its_scenarios_as_wasm() {
    lock::run_all(|| Wasm::of("lock"));
}

#[test]
fn the_counter_holds_its_scenarios_as_wasm() {
    counter::run_all(|| Wasm::of("counter"));
}
