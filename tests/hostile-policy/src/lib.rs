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
            _ => Ok(Vec::new()),
        }
    }
}

export_rebalancer_component!(Hostile with_types_in bindings);

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
