//! Partition maps, as an operator sees them: who owns what, and what changes it.

#![cfg(test)]

use std::collections::BTreeMap;

use folkmoot_client::{Client, ContextChoice, Group, MemberSpec, Refusal, WriteError};
use folkmoot_e2e::{Cli, Cluster, Process, Signal, wait_until};
use serde_json::Value;

/// A member that does not speak of partitions: it owns what it is given, and lets go by force.
fn member(cli: &Cli, id: &str, zone: &str, timeout: &str) -> Process {
    let process = cli.start(&[
        "member",
        "join",
        "workers",
        "--id",
        id,
        "--zone",
        zone,
        "--address",
        "10.0.0.1:80",
        "--session-timeout",
        timeout,
        "--",
        "sh",
        "-c",
        "echo joined; exec sleep 1000",
    ]);
    process.line("a member that has joined", |line| line == "joined");
    process
}

fn map(cli: &Cli) -> Value {
    cli.ask(&["partition", "map", "workers"])
}

/// Partitions by the member that owns them, with their tokens.
fn owners(map: &Value) -> BTreeMap<String, Vec<(u64, u64)>> {
    let mut owners: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for partition in map["partitions"].as_array().expect("a list") {
        let owner = &partition["owner"];
        let member = match owner["lives"].as_bool() {
            Some(true) => owner["member"].as_str().expect("a name"),
            _ => "nobody",
        };
        let id = partition["partition"].as_u64().expect("a number");
        let token = owner["token"].as_u64().unwrap_or(0);
        owners
            .entry(member.to_owned())
            .or_default()
            .push((id, token));
    }
    owners
}

fn counts(cli: &Cli) -> Vec<(String, usize)> {
    let owners = owners(&map(cli)).into_iter();
    owners.map(|(member, of)| (member, of.len())).collect()
}

fn wait_for_counts(cli: &Cli, expected: &[(&str, usize)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(member, count)| ((*member).to_owned(), *count))
        .collect();
    wait_until(
        "these owners",
        || (counts(cli) == expected).then_some(()),
        || format!("{expected:?}; last seen: {}", map(cli)),
    );
}

fn owner_of(cli: &Cli, partition: u64) -> String {
    let owners = owners(&map(cli));
    let owns = |of: &Vec<(u64, u64)>| of.iter().any(|(id, _)| *id == partition);
    let owner = owners.iter().find(|(_, of)| owns(of));
    owner.map_or_else(String::new, |(member, _)| member.clone())
}

fn wait_for_owner(cli: &Cli, partition: u64, member: &str) {
    wait_until(
        "this owner",
        || (owner_of(cli, partition) == member).then_some(()),
        || format!("{member} of {partition}; last seen: {}", map(cli)),
    );
}

const CREATE: [&str; 11] = [
    "partition",
    "create",
    "workers",
    "--ranges",
    "12",
    "--readiness",
    "false",
    "--offline-delay",
    "0.5",
    "--revoke-timeout",
    "0",
];

#[test]
fn partitions_follow_members_that_come_drain_and_die() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    let (killed, drained, stays) = (
        // The one expires soon, the others outlive an election on a busy machine.
        member(&cli, "w1", "a", "3"),
        member(&cli, "w2", "b", "10"),
        member(&cli, "w3", "c", "10"),
    );
    let created = cli.ask(&CREATE);
    assert_eq!(created["partitions"], 12);
    wait_for_counts(&cli, &[("w1", 4), ("w2", 4), ("w3", 4)]);

    // A key's owner is its partition's.
    let routes = cli.ask(&["partition", "route", "workers", "user:17"]);
    let (partition, owner) = (&routes[0]["partition"], &routes[0]["owner"]);
    let owned_by = owner_of(&cli, partition.as_u64().unwrap());
    assert_eq!(owner["id"], owned_by.as_str());
    assert_eq!(owner["address"], "10.0.0.1:80");
    let explained = cli.ask(&["partition", "explain", "workers", &partition.to_string()]);
    let members = explained["members"].as_array().unwrap();
    let has = |id: &str| {
        let of = members.iter().find(|member| member["member"] == id);
        of.map(|of| (of["has"].clone(), of["not"].clone()))
    };
    let may = Value::Array(Vec::new());
    assert_eq!(has(&owned_by), Some(("owner".into(), may)));

    // Without a second replica nobody can stop.
    cli.run(&["member", "safe-to-stop", "workers", "w1"])
        .failed(1, "not-safe", "has no ready replica beside w1");

    killed.kill();
    wait_for_counts(&cli, &[("w2", 6), ("w3", 6)]);
    // Whoever leads, nothing moves.
    let before = owners(&map(&cli));
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.leader_of(2);
    let other = cluster.cli_of(if leader == 1 { 2 } else { 1 });
    assert_eq!(owners(&map(&other)), before);
    cluster.start_member(leader);
    cluster.leader_of(3);

    cli.tell(&["member", "drain", "workers", "w2"]);
    wait_for_counts(&cli, &[("w3", 12)]);
    cli.tell(&["member", "undrain", "workers", "w2"]);
    let summary = cli.ask(&["partition", "list"]);
    assert_eq!(summary[0]["group"], "workers");
    assert_eq!(summary[0]["live_members"], 2);
    assert_eq!(summary[0]["unowned"], 0);

    let watcher = cli.start(&["partition", "map", "workers", "--watch"]);
    cli.tell(&["partition", "move", "workers", "5", "w2"]);
    cli.run(&["partition", "cancel", "workers", "5"])
        .failed(1, "partition-busy", "no way back");
    wait_for_owner(&cli, 5, "w2");
    watcher.document("the move", |map| {
        let of = map["partitions"].as_array()?.get(5)?;
        (of["owner"]["member"] == "w2" && of["why"] == "request").then_some(())
    });

    // The members go, and the map with them.
    cli.run(&["partition", "remove", "workers"])
        .failed(1, "bad-map", "lives");
    for mut process in [drained, stays] {
        process.signal(Signal::TERM);
        let _ = process.end();
    }
    cli.tell(&["partition", "remove", "workers"]);
    assert_eq!(cli.ask(&["partition", "list"]), Value::Array(Vec::new()));
    cluster.wait_for_agreement();
}

#[test]
fn an_operator_says_what_stays_where_and_sees_it() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    let _members = [member(&cli, "w1", "a", "10"), member(&cli, "w2", "b", "10")];
    cli.tell(&CREATE);
    wait_for_counts(&cli, &[("w1", 6), ("w2", 6)]);
    let of = |id: u64| map(&cli)["partitions"][id as usize].clone();
    let other = |id: u64| {
        if owner_of(&cli, id) == "w1" {
            "w2"
        } else {
            "w1"
        }
    };

    cli.tell(&["partition", "freeze", "workers", "0-1"]);
    assert_eq!(of(1)["frozen"], true);
    cli.run(&["partition", "move", "workers", "1", other(1)])
        .failed(1, "partition-busy", "frozen");
    cli.tell(&["partition", "unfreeze", "workers", "0-1"]);
    cli.tell(&["partition", "freeze", "workers"]);
    assert_eq!(map(&cli)["frozen"], true);
    cli.tell(&["partition", "unfreeze", "workers"]);

    let pinned = owner_of(&cli, 2);
    cli.tell(&["partition", "pin", "workers", "2", "--to", &pinned]);
    assert_eq!(of(2)["pin"], pinned.as_str());
    cli.run(&["partition", "move", "workers", "2", other(2)])
        .failed(1, "partition-busy", "pinned");
    // Pins that contradict who may have it.
    cli.run(&["partition", "set", "workers", "2", "--allow", other(2)])
        .failed(1, "bad-map", "pinned to a member that may not have it");
    cli.tell(&["partition", "pin", "workers", "2"]);
    cli.tell(&["partition", "set", "workers", "2", "--allow", "w1,w2"]);
    cli.run(&["partition", "pin", "workers", "2", "--to", "w9"])
        .failed(1, "bad-map", "pinned to a member that may not have it");
    cli.tell(&["partition", "set", "workers", "2", "--allow-all"]);

    // Weights of nothing, at the limit and above it.
    for weight in ["0", "4398046511104", "0,0,0,4398046511104"] {
        cli.tell(&["partition", "set", "workers", "3", "--weight", weight]);
    }
    assert_eq!(
        of(3)["weights"],
        serde_json::json!([0, 0, 0, 4_398_046_511_104_u64])
    );
    for (weight, says) in [("4398046511105", "at most"), ("1,1,1,1,1", "1 to 4")] {
        cli.run(&["partition", "set", "workers", "3", "--weight", weight])
            .failed(1, "bad-map", says);
    }

    let token = of(4)["owner"]["token"].clone();
    cli.tell(&["partition", "split", "workers", "4"]);
    let partitions = map(&cli)["partitions"].as_array().unwrap().len();
    assert_eq!(partitions, 13);
    let explained = cli.ask(&["partition", "explain", "workers", "12"]);
    assert_ne!(explained["partition"]["owner"]["token"], token);
    assert_eq!(explained["partition"]["why"], "split");
    cli.run(&["partition", "explain", "workers", "4"]).failed(
        1,
        "unknown-partition",
        "no partition 4",
    );

    // A configuration keeps what is not named.
    cli.tell(&["partition", "configure", "workers", "--residence", "1.5"]);
    let config = map(&cli)["config"].clone();
    assert_eq!(config["residence_ms"], 1500);
    assert_eq!(config["revoke_timeout_ms"], 0);

    let file = cluster.folder().join("map.svg");
    let svg = file.to_string_lossy();
    let text = [
        "partition",
        "map",
        "workers",
        "--output",
        "text",
        "--svg",
        &svg,
    ];
    let drawn = Process::start(&mut cli.command(&text)).end().succeeded();
    assert!(
        drawn.stdout.contains("workers: 13 partitions, no policy"),
        "{drawn}"
    );
    assert!(drawn.stdout.contains("w1      alive"), "{drawn}");
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    let mut absent = text;
    absent[6] = "/nowhere/map.svg";
    let refused = Process::start(&mut cli.command(&absent)).end();
    assert_eq!(refused.code, Some(2), "{refused}");
}

#[test]
fn what_a_map_can_not_be_is_refused_with_a_code() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    let refused = |arguments: &str, (exit, code): (i32, &str), says: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        cli.run(&[&["partition"], words.as_slice()].concat())
            .failed(exit, code, says);
    };
    let bad_map = (1, "bad-map");
    for of_none in [
        "map g",
        "explain g 0",
        "route g key",
        "configure g --replicas 2",
    ] {
        refused(of_none, (1, "unknown-map"), "g has no partition map");
    }
    for of_none in [
        "move g 0 w1",
        "cancel g 0",
        "freeze g",
        "approve g",
        "split g 0",
        "remove g",
    ] {
        refused(of_none, (1, "unknown-map"), "g has no partition map");
    }
    refused("map a/b", (1, "map-refused"), "is no group");
    refused("create a/b --ranges 1", bad_map, "is no group");
    refused("create g --ranges 0", bad_map, "1 to 131072 partitions");
    refused(
        "create g --ranges 131073",
        bad_map,
        "1 to 131072 partitions",
    );
    refused("create g --name a --name a", bad_map, "named twice");
    refused("create g --name a/b", bad_map, "is no partition");
    for (option, says) in [
        ("--replicas 0", "replicas is between 1 and 7"),
        ("--replicas 8", "replicas is between 1 and 7"),
        ("--prepare-timeout 0", "prepare_timeout_ms is between 100"),
        ("--offline-delay 90000", "offline_delay_ms is between 0"),
        ("--moves 0", "moves_in_flight_max is between 1"),
        (
            "--recovery-per-minute 0",
            "recovery_per_minute is between 1",
        ),
        (
            "--approval-percent 101",
            "approval_percent is between 0 and 100",
        ),
    ] {
        refused(&format!("create g --ranges 1 {option}"), bad_map, says);
    }
    let unknown = (1, "unknown-component");
    refused("create g --ranges 1 --policy nobody", unknown, "no plugin");
    let without = (2, "configuration");
    refused(
        "create g --ranges 1 --policy-config {}",
        without,
        "name one",
    );
    // Usage is refused before anything is asked.
    for usage in [
        "create g",
        "set g 0",
        "pin g 3-1",
        "explain g x",
        "map g --count 1",
    ] {
        let words: Vec<&str> = usage.split(' ').collect();
        let ran = cli.run(&[&["partition"], words.as_slice()].concat());
        assert_eq!(ran.code, Some(2), "{ran}");
    }

    // An empty group has a map that nobody owns.
    cli.tell(&[
        "partition",
        "create",
        "g",
        "--ranges",
        "4",
        "--replicas",
        "3",
        "--readiness",
        "false",
    ]);
    refused(
        "create g --ranges 4",
        (1, "map-exists"),
        "g has a partition map already",
    );
    assert_eq!(cli.ask(&["partition", "list"])[0]["unowned"], 4);
    let routes = cli.ask(&["partition", "route", "g", "key"]);
    assert_eq!(routes[0]["owner"], Value::Null);
    // Without a policy it is the kernel's own plan, which has nobody to give them to.
    let plan = cli.ask(&["partition", "plan", "g"]);
    assert_eq!(plan["moves"], serde_json::json!([]), "{plan}");
    refused("plan g --policy nobody", unknown, "no plugin");
    refused("split g 0", (1, "partition-busy"), "no owner");
    cli.run(&["member", "safe-to-stop", "g", "w1"])
        .failed(1, "unknown-member", "no member w1");

    // More replicas than members: each partition has those that there are.
    let join = [
        "member",
        "join",
        "g",
        "--id",
        "w1",
        "--",
        "sh",
        "-c",
        "echo joined; exec sleep 1000",
    ];
    let worker = cli.start(&join);
    worker.line("a member that has joined", |line| line == "joined");
    let replicas = || {
        let map = cli.ask(&["partition", "map", "g"]);
        let partitions = map["partitions"].as_array()?.iter();
        let each = partitions.map(|of| {
            (
                of["owner"]["member"] == "w1",
                of["replicas"].as_array().map(Vec::len),
            )
        });
        Some(each.collect::<Vec<_>>())
    };
    wait_until(
        "an owner of every partition",
        || (replicas()? == vec![(true, Some(1)); 4]).then_some(()),
        || format!("last seen: {:?}", replicas()),
    );
    let missing = (1, "unknown-partition");
    refused("move g 9 w1", missing, "no partition 9");
    refused("pin g 2-9 --to w1", missing, "no partition 4");
    refused("cancel g 0", (1, "partition-busy"), "not moving");
    refused("move g 0 w2", (1, "unknown-member"), "no member w2");
    refused("move g 0 w1 w1", bad_map, "w1 is named twice");
    refused("move g 0 w1 w1 w1 w1", bad_map, "1 to 3 replicas");
    refused("set g 0 --allow a/b", bad_map, "is no member");
    refused("set g 0 --move-cost 4398046511105", bad_map, "at most");
    cli.run(&["member", "safe-to-stop", "g", "w1", "--for", "3601"])
        .failed(1, "too-large", "is limited to 3600000");
}

/// A command line has no room for it, and a program has.
#[test]
fn ten_megabytes_of_metadata_are_refused() {
    let cluster = Cluster::start(1);
    let choice = ContextChoice {
        context: Some(cluster.folder().join("context.toml")),
        ..ContextChoice::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(choice.resolve().unwrap()).await.unwrap();
        let session = client.open_session().await.unwrap();
        let mut spec = MemberSpec::at("10.0.0.1:80");
        spec.meta.insert("k".to_owned(), "v".repeat(10_000_000));
        let joined = Group::new(&session, "g").join("w1", spec).await;
        let Err(WriteError::Refused(refusal)) = joined else {
            panic!("{joined:?}");
        };
        let too_large = matches!(
            refusal,
            Refusal::BadMember { .. } | Refusal::TooLarge { .. }
        );
        assert!(too_large, "{refusal}");
        // The session works on.
        let small = MemberSpec::at("10.0.0.1:80");
        Group::new(&session, "g").join("w1", small).await.unwrap();
        session.close().await.unwrap();
        client.close().await;
    });
}
