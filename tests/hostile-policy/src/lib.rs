//! A rebalancer that misbehaves in every way that the host must withstand: its configuration says in
//! which. It is written against the WIT, since the SDK lets nobody give such tables.
#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use folkmoot_sdk::wasm_rebalancer::{bindings, export_rebalancer_component};

use bindings::exports::folkmoot::plugin::planner::Guest;
use bindings::folkmoot::plugin::log;
use bindings::folkmoot::plugin::tables::{Column, Data, Table};
use bindings::folkmoot::plugin::types::Rejection;

/// Calls of this instance.
static CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WHAT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A policy that misbehaves.
#[derive(Debug)]
pub struct Hostile;

impl Guest for Hostile {
    fn describe() -> String {
        // It claims another world; the host knows better.
        r#"{"name": "hostile", "version": "1", "world": "recipe", "needs": ["members.live"]}"#
            .into()
    }

    fn configure(configuration: Vec<u8>) -> Result<(), Rejection> {
        let what = String::from_utf8_lossy(&configuration).into_owned();
        match what.as_str() {
            "refused" => return Err(rejection("bad-configuration", "it says no".to_owned())),
            "configured-forever" => spin(),
            _ => WHAT.set(what),
        }
        Ok(())
    }

    fn plan(input: Vec<Table>) -> Result<Vec<Table>, Rejection> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match WHAT.with_borrow(String::clone).as_str() {
            "calls" => Ok(vec![again(calls)]),
            "echo" => Ok(input),
            "grow" => {
                black_box(vec![1_u8; 100 * 1024 * 1024]);
                Ok(vec![again(calls)])
            }
            "spin" => spin(),
            "panic" => {
                // The SDK would log the text of a panic.
                log::write("it was asked to panic");
                panic!()
            }
            "overflow-stack" => Ok(vec![again(recurse(1))]),
            "allocate" => allocate(),
            "log-forever" => loop {
                log::write("again");
            },
            "reject" => Err(rejection("unfit", "these members will not do".to_owned())),
            "reject-at-length" => Err(rejection(&"c".repeat(1000), "n".repeat(100_000))),
            "huge" => {
                let cells = vec![0; 10 * 1024 * 1024];
                Ok(vec![table("later", 0, "cells", Data::U32s(cells))])
            }
            "many-texts" => {
                let texts = vec![String::new(); 2 * 1024 * 1024];
                Ok(vec![table("reasons", 0, "text", Data::Strings(texts))])
            }
            "rows" => Ok(vec![table("later", u32::MAX, "none", Data::U32s(vec![]))]),
            "short" => Ok(vec![table("reasons", 2, "text", texts(1))]),
            "nan" => {
                let data = Data::F64s(vec![f64::NAN]);
                Ok(vec![table("scores", 1, "before", data)])
            }
            "mistyped" => Ok(vec![table("again", 1, "after", texts(1))]),
            "twice" => Ok(vec![again(1), again(2)]),
            what => Ok(foolish(what, &input, calls)),
        }
    }
}

export_rebalancer_component!(Hostile with_types_in bindings);

/// Plans that no sound policy makes; none for what is not known.
fn foolish(what: &str, input: &[Table], calls: u64) -> Vec<Table> {
    let partitions = rows(input, "partitions");
    let members = rows(input, "members");
    let live = live(input);
    let one = |place: u64| live[place as usize % live.len()];
    // Those that change, each with its members.
    let plan: Vec<(u32, Vec<u32>)> = match what {
        _ if live.is_empty() => Vec::new(),
        "everything-on-one" | "surplus" => (0..partitions).map(|row| (row, vec![one(0)])).collect(),
        "flip-flop" => (0..partitions).map(|row| (row, vec![one(calls)])).collect(),
        "random" => {
            let mut dice = calls;
            let mut roll = || {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                dice >> 33
            };
            (0..partitions)
                .map(|row| (row, vec![one(roll())]))
                .collect()
        }
        "unknown-member" => vec![(0, vec![members])],
        "unknown-partition" => vec![(partitions, vec![one(0)])],
        "partition-twice" => vec![(0, vec![one(0)]), (0, vec![one(1)])],
        "member-twice" => vec![(0, vec![one(0), one(0)])],
        "too-many" => vec![(0, live.clone())],
        "nobody" => vec![(0, Vec::new())],
        "gone" => (0..members)
            .filter(|row| !live.contains(row))
            .map(|row| (0, vec![row]))
            .collect(),
        "missing" => return vec![table("assign", 1, "partition", Data::U32s(vec![0]))],
        "nan-scores" => {
            let scores = table("scores", 1, "after", Data::F64s(vec![f64::NAN]));
            return vec![assign(&[(0, vec![one(0)])]), scores];
        }
        _ => return Vec::new(),
    };
    let mut tables = vec![assign(&plan)];
    if what == "surplus" {
        let later = Data::Other(b"of a later version".to_vec());
        tables[0].columns.push(Column {
            name: "mood".to_owned(),
            data: later,
        });
        tables.push(table("poems", 1, "line", texts(1)));
    }
    tables
}

fn assign(plan: &[(u32, Vec<u32>)]) -> Table {
    let mut ends = vec![0];
    let mut members = Vec::new();
    for (_, of) in plan {
        members.extend_from_slice(of);
        ends.push(members.len() as u32);
    }
    let partitions = plan.iter().map(|(row, _)| *row).collect();
    let mut table = table(
        "assign",
        plan.len() as u32,
        "partition",
        Data::U32s(partitions),
    );
    for (name, cells) in [("members", members), ("members.offsets", ends)] {
        let data = Data::U32s(cells);
        table.columns.push(Column {
            name: name.to_owned(),
            data,
        });
    }
    table
}

fn rows(input: &[Table], name: &str) -> u32 {
    let table = input.iter().find(|table| table.name == name);
    table.map_or(0, |table| table.rows)
}

/// Rows of the members that live.
fn live(input: &[Table]) -> Vec<u32> {
    let members = input.iter().find(|table| table.name == "members");
    let mut columns = members
        .map(|table| table.columns.iter())
        .into_iter()
        .flatten();
    match columns
        .find(|column| column.name == "live")
        .map(|column| &column.data)
    {
        Some(Data::U32s(cells)) => (0..)
            .zip(cells)
            .filter(|(_, live)| **live == 1)
            .map(|(row, _)| row)
            .collect(),
        _ => Vec::new(),
    }
}

fn again(after: u64) -> Table {
    table("again", 1, "after", Data::U64s(vec![after]))
}

fn texts(count: usize) -> Data {
    Data::Strings(vec!["text".to_owned(); count])
}

fn table(name: &str, rows: u32, column: &str, data: Data) -> Table {
    Table {
        name: name.to_owned(),
        rows,
        columns: vec![Column {
            name: column.to_owned(),
            data,
        }],
    }
}

fn rejection(code: &str, message: String) -> Rejection {
    Rejection {
        code: code.to_owned(),
        message,
        details: Vec::new(),
    }
}

fn spin() -> ! {
    let mut steps = 0_u64;
    loop {
        steps = black_box(steps.wrapping_add(1));
    }
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        return 0;
    }
    recurse(depth + 1) + depth
}

fn allocate() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}
