//! Three member processes on loopback and a load of writes, for measuring the shell itself:
//! `cargo run -p folkmoot-server --example load -- [apart|merged]`.
//!
//! The members sync every write. Figures are to be compared only within one run of the machine.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measurement stops at the first surprise"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod drive;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use folkmoot_server::tls::CLIENT_ALPN;
use folkmoot_server::{Server, ServerConfig, ServerOptions, ThreadLayout};
use support::client::{Client, endpoint};
use support::cluster::Cluster;

/// Sessions, each on a connection of its own, and requests outstanding in each.
const LOADS: [(usize, usize); 4] = [(1, 1), (64, 1), (8, 32), (64, 16)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [command, layout, config] if command == "member" => {
            member(layout_named(layout), Path::new(config));
        }
        [] => measure("apart"),
        [layout] => measure(layout),
        _ => eprintln!("usage: load [apart|merged]"),
    }
}

fn layout_named(name: &str) -> ThreadLayout {
    match name {
        "merged" => ThreadLayout::Merged,
        _ => ThreadLayout::Apart,
    }
}

fn member(layout: ThreadLayout, path: &Path) {
    let config = ServerConfig::from_file(path).expect("a configuration");
    let options = ServerOptions {
        layout,
        ..ServerOptions::default()
    };
    let server = Server::start(config, options).expect("the member starts");
    runtime()
        .block_on(server.run(std::future::pending()))
        .expect("the member ends well");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Member processes, killed when they are dropped.
struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn measure(layout: &str) {
    let cluster = Cluster::new(3);
    let members = Members(
        cluster
            .configs
            .iter()
            .map(|config| {
                let path = cluster
                    .folder
                    .path()
                    .join(format!("server-{}.toml", config.member));
                std::fs::write(&path, toml::to_string(config).expect("serializable"))
                    .expect("writable");
                Command::new(std::env::current_exe().expect("this program"))
                    .args(["member", layout])
                    .arg(path)
                    .spawn()
                    .expect("a member process")
            })
            .collect(),
    );
    runtime().block_on(async {
        let identity = cluster.authority.client();
        let endpoint = endpoint(&cluster.authority.pem(), &identity, CLIENT_ALPN);
        let leader = leader(&endpoint, &cluster).await;
        println!("{layout}: sessions x outstanding | writes/s | p50 ms | p99 ms | members' CPU us a write | busy cores");
        for (sessions, outstanding) in LOADS {
            let before = cpu_micros(&members);
            let begun = std::time::Instant::now();
            let load = drive::Load {
                sessions,
                outstanding,
                duration: Duration::from_secs(5),
            };
            let figures = load.run(&endpoint, leader).await;
            let cpu = cpu_micros(&members) - before;
            let cores = cpu as f64 / begun.elapsed().as_micros() as f64;
            println!(
                "{sessions:>3} x {outstanding:<3} | {:>8.0} | {:>6.2} | {:>6.2} | {:>6.1} | {cores:.2}",
                figures.per_second(),
                figures.quantile_ms(0.5),
                figures.quantile_ms(0.99),
                cpu as f64 / figures.count() as f64,
            );
        }
    });
}

/// The address at which clients reach the leader.
async fn leader(endpoint: &quinn::Endpoint, cluster: &Cluster) -> std::net::SocketAddr {
    let address = cluster.client_address(0);
    loop {
        // The processes need a moment to listen.
        let connecting = endpoint.connect(address, "member.folkmoot.internal");
        if connecting.expect("an address").await.is_ok() {
            break;
        }
    }
    let mut client = Client::connect(endpoint, address).await;
    let leader = client.leader().await;
    cluster.client_address(usize::try_from(leader.0 - 1).expect("small"))
}

/// User and system time of all members so far.
fn cpu_micros(members: &Members) -> u64 {
    const TICK_MICROS: u64 = 10_000;
    let ticks = |child: &Child| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("a number");
        number(11) + number(12)
    };
    members.0.iter().map(ticks).sum::<u64>() * TICK_MICROS
}
