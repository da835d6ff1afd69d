//! What a million nodes of 100 bytes take: memory a node, and time to apply, to read and to
//! restore them. `cargo run -p folkmoot-core --example tree_memory [NODES]`.

use std::time::Instant;

use bytes::Bytes;
use folkmoot_core::state::{State, View};
use folkmoot_proto::batch::{BatchHeader, Txn};
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::codec::Compact;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::{ClusterId, LogTime, MemberId, Term, WallTime, Zxid};

const DIRECTORY_NODES: u64 = 1_000;
const VALUE_BYTES: usize = 100;
const BATCH_TXNS: u64 = 1_000;

fn main() {
    let nodes = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let nodes: u64 = nodes.unwrap_or(1_000_000);
    let mut state = empty_state();
    let before = resident_bytes();
    let started = cpu_seconds();
    let mut longest = 0;
    for first in (0..nodes).step_by(BATCH_TXNS as usize) {
        let entry = entry(&state, first, nodes.min(first + BATCH_TXNS));
        let applied = Instant::now();
        if let Err(error) = state.apply_entry(&entry) {
            panic!("{error}");
        }
        longest = longest.max(applied.elapsed().as_micros());
        // A checkpoint's delta now and then, as a member takes it.
        if first % 100_000 == 0 {
            drop(state.take_delta());
        }
    }
    let took = cpu_seconds() - started;
    drop(state.take_delta());
    let grown = resident_bytes().saturating_sub(before);
    println!(
        "{} nodes: {} B a node, {} MiB; applied in {took:.2} s of CPU, longest batch {longest} µs",
        state.counters().nodes,
        grown / nodes,
        grown >> 20
    );
    let (meta, records) = whole(&mut state);
    println!("{} records read through a view", records.len());
    let hash = state.state_hash();
    drop(state);
    let started = cpu_seconds();
    match State::from_records(&meta, records) {
        Ok(state) => assert_eq!(state.state_hash(), hash),
        Err(error) => panic!("{error}"),
    }
    println!("restored in {:.2} s of CPU", cpu_seconds() - started);
}

fn empty_state() -> State {
    let bootstrap = Bootstrap {
        cluster: ClusterId([1; 16]),
        created: WallTime(1),
        members: vec![BootstrapMember {
            id: MemberId(1),
            peer_address: "localhost:1".into(),
            client_address: "localhost:2".into(),
        }],
        limits: Limits::default(),
    };
    match State::new(bootstrap.to_bytes().into()) {
        Ok(state) => state,
        Err(error) => panic!("{error}"),
    }
}

/// An entry that creates the nodes `first..end`, a thousand in each directory.
fn entry(state: &State, first: u64, end: u64) -> Entry {
    let position = state.position();
    let header = BatchHeader {
        term: Term(1),
        base_zxid: position.zxid,
        log_time: LogTime(1),
        wall_time: WallTime(2),
    };
    let root_cversion = state.node("/").map_or(0, |root| root.stat.cversion);
    let mut directories = 0;
    let txns: Vec<_> = (first..end)
        .map(|number| {
            let directory = number / DIRECTORY_NODES;
            let mut effects = Vec::new();
            if number % DIRECTORY_NODES == 0 {
                directories += 1;
                let parent_cversion = root_cversion + directories;
                effects.push(create(format!("/d{directory}"), 0, parent_cversion));
            }
            let path = format!("/d{directory}/node-{number:08}");
            effects.push(create(path, VALUE_BYTES, number % DIRECTORY_NODES + 1));
            let txn = Txn {
                effects,
                ..Txn::default()
            };
            txn.to_compact()
        })
        .collect();
    Entry {
        index: position.index.next(),
        term: Term(1),
        last_zxid: Zxid(position.zxid.0 + end - first),
        kind: EntryKind::Batch,
        payload: header.encode_with(&txns).into(),
    }
}

fn create(path: String, bytes: usize, parent_cversion: u64) -> Effect {
    Effect::CreateNode {
        path,
        data: vec![b'x'; bytes],
        owner: None,
        parent_cversion,
        parent_sequence: None,
    }
}

type Records = Vec<(Bytes, Bytes)>;

fn whole(state: &mut State) -> (folkmoot_proto::record::StateMeta, Records) {
    let started = cpu_seconds();
    let Ok(view) = state.open_view(folkmoot_core::state::Span::Everything) else {
        panic!("no view");
    };
    let mut records = Vec::new();
    loop {
        let chunk = state.read_view(view, 64 * 1024);
        records.extend(chunk.records);
        if chunk.last {
            break;
        }
    }
    state.close_view(view);
    println!(
        "whole state read in {:.2} s of CPU",
        cpu_seconds() - started
    );
    (state.meta(), records)
}

/// What the system counts as this process's memory; 0 where it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Time that this process has computed, as the system counts it; 0 where it does not say.
fn cpu_seconds() -> f64 {
    /// Of a second, in `/proc`.
    const TICK: f64 = 0.01;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() * TICK
}
