//! The example `sharded-kv`: a store whose shards move while a client counts.

#![cfg(test)]

use folkmoot_e2e::{Cli, Cluster, Process, Signal, wait_until};
use serde_json::Value;

fn worker(cli: &Cli, id: &str, zone: &str, timeout: &str) -> Process {
    let mut arguments = vec!["worker", "--id", id, "--zone", zone];
    arguments.extend(["--session-timeout", timeout]);
    let process = Process::start(&mut cli.command_of("sharded-kv", &arguments));
    let serves = format!("{id} serves");
    process.line("a worker that serves", |line| line == serves);
    process
}

/// Waits until the client has counted so much more.
fn count_more(counter: &Process, more: u64) {
    let counted = |line: &str| line.strip_prefix("counted ")?.parse::<u64>().ok();
    let stdout = counter.stdout();
    let so_far = stdout.lines().filter_map(counted).max().unwrap_or(0);
    counter.line("more writes that are acknowledged and read back", |line| {
        counted(line) >= Some(so_far + more)
    });
}

fn partitions(cli: &Cli) -> Vec<Value> {
    let map = cli.ask(&["partition", "map", "shards"]);
    map["partitions"].as_array().expect("a list").clone()
}

/// The partitions that a member owns, which nothing is under way with.
fn settled_with(cli: &Cli, member: &str) -> Vec<u64> {
    let is = |of: &&Value| {
        of["owner"]["member"] == member && of["owner"]["lives"] == true && of["movement"].is_null()
    };
    let partitions = partitions(cli);
    let owned = partitions.iter().filter(is);
    owned.filter_map(|of| of["partition"].as_u64()).collect()
}

fn wait_for(cli: &Cli, what: &str, is: impl Fn() -> bool) {
    wait_until(
        what,
        || is().then_some(()),
        || format!("last seen: {:#?}", partitions(cli)),
    );
}

#[test]
fn no_acknowledged_write_is_lost_and_no_read_is_wrong_while_shards_move() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    // The one expires soon, the others outlive an election on a busy machine.
    let killed = worker(&cli, "w1", "a", "3");
    let _stays = worker(&cli, "w2", "b", "15");
    let mut drained = worker(&cli, "w3", "c", "15");
    cli.tell(&[
        "partition",
        "create",
        "shards",
        "--ranges",
        "12",
        "--offline-delay",
        "0.5",
    ]);
    wait_for(&cli, "four partitions each", || {
        ["w1", "w2", "w3"]
            .iter()
            .all(|id| settled_with(&cli, id).len() == 4)
    });
    let mut counter = Process::start_waiting(&mut cli.command_of("sharded-kv", &["count"]));
    count_more(&counter, 48);

    killed.kill();
    wait_for(&cli, "new owners", || {
        ["w2", "w3"]
            .iter()
            .all(|id| settled_with(&cli, id).len() == 6)
    });
    count_more(&counter, 48);

    // One is added, and gets shards whose owners hand them over.
    let _added = worker(&cli, "w4", "a", "15");
    let moved = [settled_with(&cli, "w2"), settled_with(&cli, "w3")].concat();
    for partition in moved.iter().step_by(2) {
        cli.tell(&["partition", "move", "shards", &partition.to_string(), "w4"]);
    }
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.leader_of(2);
    let other = cluster.cli_of(if leader == 1 { 2 } else { 1 });
    wait_for(&other, "shards that were handed over", || {
        settled_with(&other, "w4").len() == 6
    });
    count_more(&counter, 48);
    cluster.start_member(leader);

    cli.tell(&["member", "drain", "shards", "w3"]);
    wait_for(&cli, "a worker that has nothing", || {
        settled_with(&cli, "w2").len() + settled_with(&cli, "w4").len() == 12
    });
    drained.signal(Signal::TERM);
    let ended = drained.end().succeeded();
    assert!(ended.stdout.contains("let go"), "{ended}");
    count_more(&counter, 48);

    counter.type_in("");
    let counted = counter.end().succeeded();
    let last = counted.stdout.lines().last().unwrap_or_default();
    assert!(
        last.ends_with("writes acknowledged and read back"),
        "{counted}"
    );
    let arguments = ["get", "counter-0"];
    let read = Process::start(&mut cli.command_of("sharded-kv", &arguments)).end();
    let read: u64 = read.succeeded().stdout.trim().parse().expect("a number");
    assert!(read > 0);
    cluster.wait_for_agreement();
}
