//! A small sharded store. Keys belong to the partitions of a group's map; each partition is owned by
//! one worker, which answers reads from its memory and fences its writes; clients find the owner of a
//! key with a router.
//!
//! ```text
//! cargo xtask dev                                              # in one terminal
//! folkmoot partition create shards --ranges 12 --policy sticky-balanced
//! cargo run --bin sharded-kv -- worker --id w1                 # in others, several at once
//! cargo run --bin sharded-kv -- put colour blue
//! cargo run --bin sharded-kv -- get colour
//! ```
//!
//! What makes its answers right while partitions move:
//!
//! - A write is one transaction that is guarded by the owner's token, so that one of a former owner,
//!   however late, is refused. The value is a node of the cluster; a worker's memory is a cache.
//! - A read is answered from memory only if the partition is owned *after* the value was looked up,
//!   by the same promotion for which it was loaded.
//! - A write names the version it replaces, so that one that is sent again is done once.

mod client;
mod wire;
mod worker;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use folkmoot_client::{Client, ClientConfig};
use tokio::io::AsyncReadExt as _;

use client::KvClient;
use worker::WorkerOptions;

/// A small sharded store on Folkmoot's partition maps.
#[derive(Parser)]
struct Arguments {
    /// The group, which has a map of ranges.
    #[arg(long, default_value = "shards", global = true)]
    group: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Own partitions and serve them, until interrupted.
    Worker(WorkerOptions),
    /// Print the value of a key.
    Get {
        /// The key.
        key: String,
    },
    /// Give a key a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Count in every key, and read each number back, until standard input is closed.
    Count {
        /// Keys.
        #[arg(long, default_value_t = 24)]
        keys: u32,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Where the cluster is comes from the environment, or from what `folkmoot dev` wrote.
    let mut config = ClientConfig::from_environment()?;
    if let Command::Worker(options) = &arguments.command {
        config = config.session_timeout(Duration::from_secs(options.session_timeout));
    }
    let client = Client::connect(config).await?;
    let session = client.open_session().await?;
    let group = &arguments.group;
    match arguments.command {
        Command::Worker(options) => worker::run(&session, group, options).await?,
        Command::Get { key } => {
            let read = KvClient::new(&session, group).await?.get(&key).await?;
            match read {
                Some(read) => println!("{}", read.value),
                None => bail!("there is no {key}"),
            }
        }
        Command::Put { key, value } => {
            let mut kv = KvClient::new(&session, group).await?;
            let read = kv.get(&key).await?;
            let version = kv.put(&key, &value, read.map(|read| read.version)).await?;
            println!("version {version}");
        }
        Command::Count { keys } => count(KvClient::new(&session, group).await?, keys).await?,
    }
    session.close().await?;
    client.close().await;
    Ok(())
}

/// Counts in every key, one number after the other, and reads each back. A number that was
/// acknowledged and is not there is a wrong answer, whoever owned the key meanwhile.
async fn count(mut kv: KvClient, keys: u32) -> Result<()> {
    let asked_to_end = asked_to_end();
    tokio::pin!(asked_to_end);
    let mut counted = 0_u64;
    let mut versions = vec![None; keys as usize];
    for number in 0_u64.. {
        for (key, version) in versions.iter_mut().enumerate() {
            let key = format!("counter-{key}");
            let one = async {
                let value = number.to_string();
                *version = Some(kv.put(&key, &value, *version).await?);
                let read = kv.get(&key).await?;
                if read.as_ref().is_none_or(|read| read.value != value) {
                    bail!("{key} was set to {value}, and {read:?} was read");
                }
                Ok(())
            };
            tokio::select! {
                done = one => done?,
                () = &mut asked_to_end => {
                    println!("done: {counted} writes acknowledged and read back");
                    return Ok(());
                }
            }
            counted += 1;
            println!("counted {counted}");
        }
    }
    Ok(())
}

/// Returns once standard input is closed.
async fn asked_to_end() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer).await, Ok(read) if read > 0) {}
}
