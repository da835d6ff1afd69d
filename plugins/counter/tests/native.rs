//! The counter's scenarios, run natively.

mod scenarios;

use folkmoot_counter::Counter;
use folkmoot_sdk::testing::Native;

#[test]
fn scenarios_hold_natively() {
    scenarios::run_all(Native::of::<Counter>);
}
