//! Members of a group, each a process, and what others see of them.

#![cfg(test)]

use folkmoot_e2e::{Cli, Cluster, Process, Signal, wait_until};
use serde_json::Value;

/// A member that says who it is, and sleeps until it is ended.
fn worker(cli: &Cli, id: &str, zone: &str, timeout: &str) -> Process {
    let script = "echo \"$FOLKMOOT_GROUP $FOLKMOOT_MEMBER $FOLKMOOT_GUARD\"; exec sleep 1000";
    let process = cli.start(&[
        "member",
        "join",
        "workers",
        "--id",
        id,
        "--address",
        "10.0.0.1:80",
        "--zone",
        zone,
        "--meta",
        "role=db",
        "--session-timeout",
        timeout,
        "--",
        "sh",
        "-c",
        script,
    ]);
    let begins = format!("workers {id} /folkmoot/groups/workers/live/{id}=");
    process.line("what the member was told", |line| line.starts_with(&begins));
    process
}

/// A member's state and why, as another client sees it.
fn state(cli: &Cli, id: &str) -> (String, String) {
    let members = cli.ask(&["member", "list", "workers"]);
    let members = members.as_array().expect("a list");
    let member = members.iter().find(|member| member["id"] == id);
    let text = |field: &str| member.map_or("", |member| member[field].as_str().unwrap_or(""));
    (text("state").to_owned(), text("why").to_owned())
}

fn wait_for_state(cli: &Cli, id: &str, is: (&str, &str)) {
    wait_until(
        "a member's state",
        || {
            let (state, why) = state(cli, id);
            ((state.as_str(), why.as_str()) == is).then_some(())
        },
        || format!("{:?}", cli.ask(&["member", "list", "workers"])),
    );
}

/// Waits until a watch tells this of a member.
fn sees(watcher: &Process, id: &str, state: &str) {
    watcher.document("a member's state", |document| {
        let member = &document["member"];
        (member["id"] == id && member["state"] == state).then_some(())
    });
}

#[test]
fn members_come_and_go_and_everybody_sees_it() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    assert_eq!(
        cli.ask(&["member", "list", "workers"]),
        Value::Array(Vec::new())
    );
    // The one expires soon, the other outlives an election on the slowest machine.
    let killed = worker(&cli, "w1", "a", "2");
    let mut stopped = worker(&cli, "w2", "b", "30");
    let watcher = cluster.cli_of(1).start(&["member", "watch", "workers"]);
    sees(&watcher, "w2", "alive");

    // A second process of that id is refused, and the first one's session stays.
    let again = cli.run(&["member", "join", "workers", "--id", "w1", "--", "true"]);
    again.failed(1, "member-lives", "lives with another session");

    cli.tell(&["member", "drain", "workers", "w2"]);
    sees(&watcher, "w2", "draining");

    let leader = cluster.leader();
    cluster.kill(leader);
    killed.kill();
    wait_for_state(
        &cluster_cli(&cluster, leader),
        "w1",
        ("gone", "session-expired"),
    );
    cluster.start_member(leader);
    cluster.leader_of(3);

    stopped.signal(Signal::TERM);
    let ended = stopped.end();
    assert_eq!(ended.code, Some(128 + 15), "{ended}");
    wait_for_state(&cli, "w2", ("gone", "session-closed"));
    cli.tell(&["member", "forget", "workers", "w2"]);
    assert_eq!(state(&cli, "w2"), (String::new(), String::new()));
    cli.run(&["member", "undrain", "workers", "w2"]).failed(
        1,
        "unknown-member",
        "has no member w2",
    );
    cluster.wait_for_agreement();
}

/// A command line that asks a member which is not `dead`.
fn cluster_cli(cluster: &Cluster, dead: u64) -> Cli {
    cluster.cli_of(if dead == 1 { 2 } else { 1 })
}

#[test]
fn what_a_member_says_of_itself_is_checked() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    let join = |options: &[&str]| {
        let mut arguments = vec!["member", "join", "workers", "--id", "w1"];
        arguments.extend(options);
        arguments.extend(["--", "true"]);
        cli.run(&arguments)
    };
    join(&["--capacity", "0"]).failed(1, "bad-member", "at least 1");
    join(&["--capacity", "1,1,1,1,1"]).failed(1, "bad-member", "at most 4");
    join(&["--zone", "a//b"]).failed(1, "bad-member", "is no zone");
    join(&["--meta", &format!("k={}", "v".repeat(100_000))]).failed(1, "bad-member", "16384");
    let twice = join(&["--meta", "a=1", "--meta", "a=2"]);
    twice.failed(2, "configuration", "given twice");
    cli.run(&["member", "join", "a/b", "--id", "w1", "--", "true"])
        .failed(1, "bad-member", "is no group");
    assert_eq!(cli.children("/folkmoot/groups"), Vec::<String>::new());
}

/// A restart is announced when the command has ended, and not before: a worker that is killed is
/// waited for no longer than others.
#[test]
fn a_restart_is_announced_when_the_command_ends() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    let mut join = vec!["member", "join", "workers", "--id", "w1"];
    join.extend([
        "--restart-delay",
        "3600",
        "--",
        "sh",
        "-c",
        "echo joined; exec sleep 1000",
    ]);
    let mut worker = cli.start(&join);
    worker.line("a member that has joined", |line| line == "joined");
    let member = || cli.ask(&["member", "list", "workers"])[0].clone();
    assert_eq!(member()["restart_delay_ms"], Value::Null, "{}", member());
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().code, Some(128 + 15));
    wait_for_state(&cli, "w1", ("gone", "session-closed"));
    assert_eq!(member()["restart_delay_ms"], 3_600_000, "{}", member());
}
