//! The lock's scenarios, run natively.

mod scenarios;

use folkmoot_lock::Lock;
use folkmoot_sdk::testing::Native;

#[test]
fn scenarios_hold_natively() {
    scenarios::run_all(Native::of::<Lock>);
}
