//! `folkmoot dev`: a cluster of one member that the command finds by itself.

#![cfg(test)]

use folkmoot_e2e::{Cli, Process, Ran, Signal, free_ports, guest};

/// Starts `folkmoot dev` and waits until it is ready.
fn dev(cli: &Cli, ports: &[u16]) -> Process {
    let plugins = guest("lock");
    let plugins = plugins.parent().unwrap().to_string_lossy();
    let (peer, client) = (ports[0].to_string(), ports[1].to_string());
    let all = [
        "dev",
        "--plugins",
        &plugins,
        "--peer-port",
        &peer,
        "--client-port",
        &client,
    ];
    let process = Process::start(&mut cli.command(&all));
    process.note("a cluster that is ready", |line| {
        line.contains("is ready on")
    });
    process
}

fn interrupt(mut process: Process) -> Ran {
    process.signal(Signal::INT);
    process.end().succeeded()
}

/// Runs a command as it is typed, with no flag, from a folder of its own.
fn typed(cli: &Cli, arguments: &[&str]) -> String {
    let mut command = cli.command(arguments);
    let elsewhere = tempfile::tempdir().unwrap();
    command.current_dir(elsewhere.path());
    Process::start(&mut command).end().succeeded().stdout
}

#[test]
fn dev_needs_no_flag_and_keeps_its_data() {
    let home = tempfile::tempdir().unwrap();
    let cli = Cli::at_home(home.path());
    let ports = free_ports(2);
    let running = dev(&cli, &ports);
    assert!(home.path().join("folkmoot-data").is_dir());
    assert!(home.path().join(".config/folkmoot/context.toml").is_file());

    assert_eq!(
        typed(&cli, &["create", "/greeting", "hello"]),
        "/greeting\n"
    );
    assert_eq!(
        typed(&cli, &["set", "/greeting", "good morning"]),
        "version 1\n"
    );
    assert_eq!(typed(&cli, &["get", "/greeting"]), "good morning");
    let add = ["call", "/counter", "add", r#"{"amount": 5}"#];
    assert_eq!(typed(&cli, &add), "{\"total\":5}\n");
    let script = "test $FOLKMOOT_FENCING_TOKEN -gt 0 && echo held";
    let lock = ["lock", "/locks/nightly", "--", "sh", "-c", script];
    assert_eq!(typed(&cli, &lock), "held\n");
    let plugins = typed(&cli, &["plugin", "list"]);
    for (name, world) in [
        ("lock", "recipe"),
        ("counter", "recipe"),
        ("sticky-balanced", "rebalancer"),
        ("rendezvous", "rebalancer"),
        ("bounded-load", "rebalancer"),
        ("load-aware", "rebalancer"),
        ("fixed-timeout", "failure-detector"),
        ("phi-accrual", "failure-detector"),
    ] {
        let is_listed = |line: &str| line.split_whitespace().take(2).eq([name, world]);
        assert!(plugins.lines().any(is_listed), "{name}: {plugins}");
    }
    let status = typed(&cli, &["cluster", "status"]);
    assert!(status.contains("leader"), "{status}");
    let ran = interrupt(running);
    assert!(ran.stderr.contains("Ctrl-C ends it"), "{ran}");

    // The ports are those of the first start.
    let running = dev(&cli, &[1, 2]);
    assert_eq!(typed(&cli, &["get", "/greeting"]), "good morning");
    assert_eq!(typed(&cli, &add), "{\"total\":10}\n");
    assert_eq!(typed(&cli, &lock), "held\n");
    interrupt(running);
}
