//! What a checkpoint of a million records of 100 bytes costs: time, memory, bytes written.
//!
//! `cargo run -p folkmoot-storage --example million [FOLDER]`; the folder is made anew.
//! Each phase is a process of its own, so that its memory is its own.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use folkmoot_core::checkpoint::CheckpointStore;
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{ClusterId, LogIndex, LogTime, Term, Zxid};
use folkmoot_storage::FjallStore;

const RECORDS: u64 = 1_000_000;
/// Records of one delta: about 12 MB.
const DELTA_RECORDS: u64 = 100_000;
/// Records of one chunk of a snapshot: about 64 KiB.
const CHUNK_RECORDS: u64 = 500;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .unwrap_or_else(|| "target/million".to_owned());
    let folder = PathBuf::from(folder);
    if let Some(phase) = arguments.next() {
        return run(&phase, &folder);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    for phase in ["deltas", "load", "small", "load", "full", "install", "load"] {
        let this = std::env::current_exe()?;
        let status = Command::new(this).arg(&folder).arg(phase).status()?;
        if !status.success() {
            return Err(format!("{phase} ended with {status}").into());
        }
    }
    Ok(())
}

fn run(phase: &str, folder: &Path) -> Outcome {
    let start = Instant::now();
    let mut store = FjallStore::open(folder)?;
    let opened = start.elapsed();
    match phase {
        "deltas" => {
            for delta in 0..RECORDS / DELTA_RECORDS {
                let first = delta * DELTA_RECORDS;
                let changes = (first..first + DELTA_RECORDS)
                    .map(|key| record(key, 1))
                    .collect();
                store.write_delta(meta(delta + 1), changes)?;
            }
        }
        // A thousand records all over the state.
        "small" => {
            let changes = (0..1000).map(|key| record(key * 997, 2)).collect();
            store.write_delta(meta(100), changes)?;
        }
        "load" => {
            let (_, records) = store.load()?.ok_or("nothing is stored")?;
            let mut count = 0;
            for record in records {
                record?;
                count += 1;
            }
            if count != RECORDS {
                return Err(format!("{count} records were loaded").into());
            }
        }
        "full" => {
            let mut writer = store.begin_full(meta(200))?;
            for chunk in 0..RECORDS / CHUNK_RECORDS {
                let first = chunk * CHUNK_RECORDS;
                writer.write(
                    (first..first + CHUNK_RECORDS)
                        .map(|key| record(key, 3))
                        .collect(),
                )?;
            }
            writer.finish()?;
        }
        "install" => store.install_prepared()?,
        _ => return Err(format!("there is no phase {phase}").into()),
    }
    println!(
        "{phase:8} open {:>7.3} s, all {:>7.3} s, resident {:>4} MiB (peak {}), written {:>4} MiB",
        opened.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        status_kib("VmRSS:")? / 1024,
        status_kib("VmHWM:")? / 1024,
        field("/proc/self/io", "write_bytes:")? / 1024 / 1024,
    );
    Ok(())
}

fn record(key: u64, round: u64) -> RecordChange {
    let mut value = vec![0; 100];
    for (place, chunk) in value.chunks_mut(8).enumerate() {
        let word = (key ^ round << 40 ^ (place as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(word.to_le_bytes().get(..chunk.len()).unwrap_or_default());
    }
    RecordChange {
        key: Bytes::from(format!("/service/instance-{key:08}")),
        value: Some(value.into()),
    }
}

fn meta(index: u64) -> StateMeta {
    StateMeta {
        cluster: ClusterId([3; 16]),
        index: LogIndex(index),
        term: Term(1),
        zxid: Zxid(index),
        log_time: LogTime(index),
        state_hash: 0,
        feature_level: 1,
        bootstrap: Bytes::new(),
    }
}

fn status_kib(name: &str) -> Result<u64, Box<dyn Error>> {
    field("/proc/self/status", name)
}

fn field(file: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .ok_or("no such field")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}
