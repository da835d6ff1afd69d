//! A standard failure detector that is chosen for a group, over processes that fall silent.

#![cfg(test)]

use folkmoot_e2e::{Cli, Cluster, Process, Signal, guest, wait_until};

/// A member whose session outlives any silence of this test.
fn member(cli: &Cli, id: &str) -> Process {
    let process = cli.start(&[
        "member",
        "join",
        "workers",
        "--id",
        id,
        "--session-timeout",
        "30",
        "--",
        "sh",
        "-c",
        "echo joined; exec sleep 1000",
    ]);
    process.line("a member that has joined", |line| line == "joined");
    process
}

fn wait_for_state(cli: &Cli, id: &str, expected: &str) {
    wait_until(
        "a member's state",
        || {
            let members = cli.ask(&["member", "list", "workers"]);
            let mut members = members.as_array().expect("a list").iter();
            let member = members.find(|member| member["id"] == id)?;
            (member["state"] == expected).then_some(())
        },
        || {
            format!(
                "{expected}; last seen: {}",
                cli.ask(&["member", "list", "workers"])
            )
        },
    );
}

#[test]
fn who_is_silent_is_suspect_long_before_its_session_ends() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    let detector = guest("policies/fixed-timeout");
    cli.tell(&["plugin", "install", &detector.to_string_lossy()]);
    let configuration = cluster.folder().join("detector.json");
    std::fs::write(&configuration, "{\"suspect-after\": 0.3}").expect("a file");
    let configuration = configuration.to_string_lossy();
    let choice = ["detector", "use", "workers", "fixed-timeout", "--configure"];
    // What it does not take is not chosen.
    let nonsense = cluster.folder().join("nonsense.json");
    std::fs::write(&nonsense, "{\"suspect-after\": \"late\"}").expect("a file");
    let nonsense = nonsense.to_string_lossy();
    cli.run(&[choice.as_slice(), &[&*nonsense]].concat())
        .failed(1, "bad-configuration", "expected f64");
    assert_eq!(cli.ask(&["detector", "show"]), serde_json::json!([]));
    cli.tell(&[choice.as_slice(), &[&*configuration]].concat());
    let _lives = member(&cli, "w1");
    let mut silent = member(&cli, "w2");
    silent.signal(Signal::STOP);
    wait_for_state(&cli, "w2", "suspect");
    let shown = cli.ask(&["detector", "show"]);
    assert_eq!(shown[0]["faults"], 0, "{shown}");
    assert!(shown[0]["answered_ms"].is_u64(), "it has answered: {shown}");
    wait_for_state(&cli, "w1", "alive");
    silent.signal(Signal::CONT);
    wait_for_state(&cli, "w2", "alive");

    // The next leader asks it, too.
    silent.signal(Signal::STOP);
    let leader = cluster.leader();
    cluster.kill(leader);
    let cli = cluster.cli_of(if leader == 1 { 2 } else { 1 });
    wait_for_state(&cli, "w2", "suspect");
    silent.signal(Signal::CONT);
    wait_for_state(&cli, "w2", "alive");
}
