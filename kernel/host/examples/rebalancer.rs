//! Prints how long the component of a rebalancer takes for plans for 1,000 members and 100,000
//! partitions, tables in and out included: the first plan of a fresh instance, and the second, since
//! the server keeps instances. `cargo run --profile guest -p folkmoot-sticky-balanced --example
//! scale` prints the same natively.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use folkmoot_sdk::table::{Data, Table};
use folkmoot_sdk::testing::TestCluster;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, Store};

mod generated {
    #![allow(
        missing_docs,
        unsafe_code,
        unreachable_pub,
        clippy::all,
        reason = "generated"
    )]
    wasmtime::component::bindgen!({ path: "../../wit", world: "rebalancer" });
}

use generated::folkmoot::plugin::{log, tables, types};

/// Instances of which the quickest counts: others use the machine too.
const RUNS: usize = 9;

struct State;

impl log::Host for State {
    fn write(&mut self, message: String) {
        eprintln!("{message}");
    }
}

impl tables::Host for State {}
impl types::Host for State {}

fn main() -> wasmtime::Result<()> {
    let file = std::env::args().nth(1).map_or_else(
        || PathBuf::from("target/guests/policies/sticky-balanced.wasm"),
        PathBuf::from,
    );
    let mut config = Config::new();
    // As policies run: stopped by time, without fuel, and without checks of what they access.
    config
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .memory_reservation(4 * 1024 * 1024 * 1024)
        .memory_may_move(false)
        .concurrency_support(false);
    let engine = Engine::new(&config)?;
    let component = Component::from_file(&engine, file)?;
    let mut linker = Linker::new(&engine);
    generated::Rebalancer::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    let vacant = TestCluster::vacant(1000, 100_000).zones(&["x", "y", "z"]);
    for copies in [1, 3] {
        let cluster = vacant.clone().copies(copies);
        let input: Vec<tables::Table> =
            cluster.input().to_tables().into_iter().map(given).collect();
        let mut quickest = [Duration::MAX; 2];
        for _ in 0..RUNS {
            let mut store = Store::new(&engine, State);
            store.set_epoch_deadline(u64::MAX / 2);
            let policy = generated::Rebalancer::instantiate(&mut store, &component, &linker)?;
            let planner = policy.folkmoot_plugin_planner();
            let configured = planner.call_configure(&mut store, &[])?;
            assert!(configured.is_ok(), "the policy needs no configuration");
            for quickest in &mut quickest {
                let start = Instant::now();
                let plan = planner.call_plan(&mut store, &input)?;
                *quickest = start.elapsed().min(*quickest);
                assert!(plan.is_ok(), "there is a plan");
            }
        }
        let [first, second] = quickest.map(|time| time.as_secs_f64() * 1e3);
        println!("{copies} replicas, all vacant: first {first:.1} ms, then {second:.1} ms");
    }
    Ok(())
}

fn given(table: Table) -> tables::Table {
    let column = |column: folkmoot_sdk::table::Column| tables::Column {
        name: column.name,
        data: match column.data {
            Data::U32s(cells) => tables::Data::U32s(cells),
            Data::U64s(cells) => tables::Data::U64s(cells),
            Data::F64s(cells) => tables::Data::F64s(cells),
            Data::Strings(cells) => tables::Data::Strings(cells),
            Data::Other(bytes) => tables::Data::Other(bytes),
        },
    };
    tables::Table {
        name: table.name,
        rows: table.rows,
        columns: table.columns.into_iter().map(column).collect(),
    }
}
