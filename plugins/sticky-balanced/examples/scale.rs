//! Prints how long plans for 1,000 members and 100,000 partitions take, tables in and out included:
//! the first, for which memory is new, and the quickest of those after it.

use std::time::Instant;

use folkmoot_sdk::rebalancer::{Input, Plan, Rebalancer};
use folkmoot_sdk::testing::TestCluster;
use folkmoot_sticky_balanced::StickyBalanced;

/// Plans of which the quickest counts: others use the machine too.
const RUNS: usize = 9;

fn main() {
    for copies in [1, 3] {
        let vacant = TestCluster::vacant(1000, 100_000).copies(copies);
        let vacant = vacant.zones(&["x", "y", "z"]);
        time(copies, "all vacant", &vacant);
        let placed = vacant.check(&StickyBalanced::default());
        time(copies, "nothing to do", &placed);
        time(copies, "a member lost", &placed.clone().lose("b"));
        time(copies, "a member joins", &placed.join("new", "x"));
    }
}

fn time(copies: u32, what: &str, cluster: &TestCluster) {
    let tables = cluster.input().to_tables();
    let plan = || {
        let start = Instant::now();
        let tables = Input::from_tables(&tables).map(|input| {
            let plan = StickyBalanced::default().plan(&input);
            plan.map(Plan::into_tables)
        });
        assert!(matches!(tables, Ok(Ok(_))), "there is a plan");
        start.elapsed().as_secs_f64() * 1e3
    };
    let first = plan();
    let then = (1..RUNS).map(|_| plan()).fold(f64::MAX, f64::min);
    println!("{copies} replicas, {what}: first {first:.1} ms, then {then:.1} ms");
}
