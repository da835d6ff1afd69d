//! The examples do what they say they do.

#![cfg(test)]

use folkmoot_e2e::{Cli, Cluster, Process, Signal, wait_until};

fn example(cli: &Cli, name: &str, arguments: &[&str]) -> Process {
    Process::start(&mut cli.command_of(name, arguments))
}

/// The token at the end of a line.
fn token(line: &str) -> u64 {
    let last = line.rsplit(' ').next();
    last.and_then(|token| token.parse().ok())
        .unwrap_or_else(|| panic!("no token in {line:?}"))
}

#[test]
fn a_lock_service_does_one_thing_at_a_time() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.install_standard_plugins();
    let services = [(); 2].map(|()| example(&cli, "example-lock-service", &["nightly", "2"]));
    for service in services {
        let ran = service.end().succeeded();
        for round in 1..=2 {
            let wrote = format!("round {round}: wrote version ");
            assert!(ran.stdout.contains(&wrote), "{ran}");
        }
    }
    let report = cli.ask(&["get", "--linearizable", "/nightly-report"]);
    assert_eq!(report["stat"]["version"], 4, "{report}");
}

#[test]
fn a_candidate_leads_until_it_is_dead_or_resigns() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.install_standard_plugins();
    let stands = |name: &str| example(&cli, "leader-election", &["reports", name]);
    let leads = |candidate: &Process, name: &str| {
        let begins = format!("{name}: leads with token ");
        let line = candidate.line("the one that leads", |line| line.starts_with(&begins));
        let token = token(&line);
        let decided = format!("of {name} under token {token}");
        wait_until(
            "its decisions",
            || {
                cli.value("/reports-decisions")
                    .ends_with(&decided)
                    .then_some(())
            },
            || cli.value("/reports-decisions"),
        );
        token
    };
    let waits = |candidate: &Process, name: &str| {
        let waits = format!("{name}: waits for its turn");
        candidate.line("a candidate that waits", |line| line == waits);
    };
    let alice = stands("alice");
    let first = leads(&alice, "alice");
    let mut bob = stands("bob");
    waits(&bob, "bob");
    alice.kill();
    let second = leads(&bob, "bob");
    assert!(second > first);
    let carol = stands("carol");
    waits(&carol, "carol");
    bob.signal(Signal::INT);
    assert!(bob.end().succeeded().stdout.ends_with("resigned\n"));
    assert!(leads(&carol, "carol") > second);
}

#[test]
fn services_are_found_by_what_they_are_even_while_the_cluster_is_away() {
    let mut cluster = Cluster::start(1);
    let cli = cluster.cli();
    let serve = |id: &str, address: &str, role: &str| {
        let service = example(
            &cli,
            "service-discovery",
            &["serve", "shop", id, address, role],
        );
        let begins = format!("{id}: serves");
        service.line("a service", |line| line.starts_with(&begins));
        service
    };
    let mut first = serve("db-1", "10.0.0.1:5432", "role=db");
    let _second = serve("db-2", "10.0.0.2:5432", "role=db");
    let _other = serve("web-1", "10.0.0.3:80", "role=web");
    let finder = example(&cli, "service-discovery", &["find", "shop", "role=db"]);
    let finds = |found: &str| {
        finder.line("what is found", |line| line == format!("found {found}"));
    };
    finds("db-1 at 10.0.0.1:5432, db-2 at 10.0.0.2:5432");
    first.signal(Signal::INT);
    let _ = first.end().succeeded();
    finds("db-2 at 10.0.0.2:5432");
    let _ = cluster.kill(1);
    finder.line("how old the view is", |line| {
        line.starts_with("found db-2 at 10.0.0.2:5432, ") && line.ends_with(" s ago")
    });
    cluster.start_member(1);
    let _third = serve("db-3", "10.0.0.4:5432", "role=db");
    finder.line("what is new", |line| line.contains("db-3 at 10.0.0.4:5432"));
}
