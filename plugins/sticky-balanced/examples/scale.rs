//! Prints how long plans for 1,000 members and 100,000 partitions take, tables in and out included.

use std::time::Instant;

use folkmoot_sdk::rebalancer::{Input, Plan, Rebalancer};
use folkmoot_sdk::testing::TestCluster;
use folkmoot_sticky_balanced::StickyBalanced;

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
    let start = Instant::now();
    let moved = Input::from_tables(&tables).map(|input| {
        let plan = StickyBalanced::default().plan(&input);
        plan.map(Plan::into_tables).map(|tables| tables.len())
    });
    let ms = start.elapsed().as_millis();
    println!("{copies} replicas, {what}: {ms} ms ({})", moved.is_ok());
}
