//! What is refused is refused with an exit code, a name and words that say what to do, and leaves
//! everything as it was.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use folkmoot_e2e::{Cli, Cluster, Process, Signal, free_ports, guest, server, wait_until};
use serde_json::Value;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection, InstanceType, Module,
};

/// A command line, its exit code, the error's name, and what its message says.
type Case<'a> = (&'a [&'a str], i32, &'a str, &'a str);

fn refuse(cli: &Cli, cases: &[Case<'_>]) {
    for (arguments, exit, name, says) in cases {
        cli.run(arguments).failed(*exit, name, says);
    }
}

/// Every node that a user or a plugin made, with its value and stat; plugins and mounts.
fn everything(cli: &Cli) -> Vec<Value> {
    let mut seen = vec![cli.ask(&["plugin", "list"]), cli.ask(&["mount", "list"])];
    let mut left = vec!["/".to_owned()];
    while let Some(path) = left.pop() {
        let node = cli.ask(&["get", "--linearizable", &path]);
        seen.push(node["stat"].clone());
        seen.push(node["data"].clone());
        let parent = path.trim_end_matches('/');
        let children = cli.children(&path).into_iter();
        let ours = children.filter(|name| path != "/" || name != "folkmoot");
        left.extend(ours.map(|name| format!("{parent}/{name}")));
    }
    seen
}

fn assert_unchanged(cli: &Cli, before: &[Value]) {
    let after = everything(cli);
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .collect();
    assert!(changed.is_empty(), "before and after: {changed:#?}");
    assert_eq!(before.len(), after.len());
}

#[test]
fn operations_that_can_not_be_done_change_nothing() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.install_standard_plugins();
    cli.tell(&["create", "--parents", "/app/config/port", "80"]);
    cli.tell(&["set", "/app/config/port", "81", "--expect", "0"]);
    cli.tell(&["call", "/counter", "add", r#"{"amount": 5}"#]);
    let mut owner = cli.start(&["create", "--ephemeral", "/app/live"]);
    owner.line("the ephemeral node", |line| line.contains("/app/live"));
    let before = everything(&cli);

    refuse_paths_and_versions(&cli);
    refuse_what_is_too_large(&cli, &cluster.folder());
    refuse_calls(&cli);
    refuse_components(&cli, &cluster.folder());

    assert_unchanged(&cli, &before);
    owner.signal(Signal::INT);
    assert_eq!(owner.end().code, Some(130));
    cli.run(&["get", "/app/live"])
        .failed(1, "no-node", "no node at /app/live");

    // Nothing is asked of the cluster before the value is there, and one can give up.
    let set = cli.command(&["set", "/app/config/port", "-"]);
    let mut typing = Process::start_waiting(&mut { set });
    typing.signal(Signal::INT);
    assert_eq!(typing.end().code, None);
    let set = cli.command(&["set", "/app/config/port", "-"]);
    let mut typing = Process::start_waiting(&mut { set });
    typing.type_in("83");
    let _ = typing.end().succeeded();
    assert_eq!(cli.value("/app/config/port"), "83");

    // A lock is not kept for a command that can not be run.
    let (lock, says) = (["lock", "/locks/a", "--wait", "0", "--"], "./none: No such");
    cli.run(&[&lock[..], &["./none"]].concat())
        .failed(127, "command", says);
    cli.tell(&[&lock[..], &["true"]].concat());
}

fn refuse_paths_and_versions(cli: &Cli) {
    refuse(
        cli,
        &[
            (&["create", "app"], 1, "bad-path", "a path begins with '/'"),
            (&["create", "/a//b"], 1, "bad-path", "no empty component"),
            (&["set", "/a/../b", "x"], 1, "bad-path", "'.' or '..'"),
            (&["get", "app"], 1, "bad-path", "a path begins with '/'"),
            (&["watch", "app"], 1, "bad-path", "a path begins with '/'"),
            (&["get", "/none"], 1, "no-node", "no node at /none"),
            (&["stat", "/none"], 1, "no-node", "no node at /none"),
            (&["ls", "/none"], 1, "no-node", "no node at /none"),
            (&["set", "/none", "x"], 1, "no-node", "no node at /none"),
            (&["delete", "/none"], 1, "no-node", "no node at /none"),
            (
                &["create", "/none/child"],
                1,
                "no-parent",
                "no parent at /none: create it first",
            ),
            (&["create", "/app"], 1, "node-exists", "at /app already"),
            (
                &["delete", "/app/config"],
                1,
                "not-empty",
                "has children: delete them first",
            ),
            (&["delete", "/"], 1, "undeletable", "can not be deleted"),
            (
                &["set", "/folkmoot/limits", "x"],
                1,
                "reserved",
                "only the kernel writes",
            ),
            (
                &["set", "/app/config/port", "82", "--expect", "0"],
                1,
                "bad-version",
                "has version 1, not 0",
            ),
            (
                &["delete", "/app/config/port", "--expect", "7"],
                1,
                "bad-version",
                "has version 1, not 7",
            ),
            (
                &["set", "/app/config/port", "82", "--guard", "/app=1"],
                1,
                "guard-failed",
                "the guard on /app with token 1 does not hold",
            ),
            (
                &["create", "/app/live/child"],
                1,
                "ephemeral-parent",
                "is ephemeral and can have no children",
            ),
        ],
    );
}

fn refuse_what_is_too_large(cli: &Cli, folder: &Path) {
    for (bytes, says) in [
        (1024 * 1024 + 1, "limited to 1048576, this is 1048577"),
        (8 * 1024 * 1024, "bytes of a request is limited to"),
    ] {
        let file = folder.join("value");
        fs::write(&file, vec![b'x'; bytes]).unwrap();
        let file = file.to_string_lossy();
        cli.run(&["set", "/app/config/port", "--file", &file])
            .failed(1, "too-large", says);
    }
    let deep = "/a".repeat(33);
    refuse(cli, &[(&["create", &deep], 1, "bad-path", "32 components")]);
}

fn refuse_calls(cli: &Cli) {
    refuse(
        cli,
        &[
            (
                &["call", "/nowhere", "add"],
                1,
                "unknown-mount",
                "nothing is mounted at /nowhere",
            ),
            (
                &["call", "/counter", "multiply"],
                1,
                "unknown-operation",
                "there is no operation \"multiply\"",
            ),
            (
                &["call", "/counter", "add", r#"{"amount": "x"}"#],
                1,
                "bad-arguments",
                "expected i64",
            ),
            (
                &["call", "/counter", "add", r#"{"amount": 1, "more": 2}"#],
                1,
                "bad-arguments",
                "unknown field `more`",
            ),
            (
                &["call", "/counter", "add", r#"{"amount": 1"#],
                1,
                "bad-arguments",
                "EOF while parsing",
            ),
            (
                &["call", "/locks", "acquire", r#"{"name": "a/b"}"#],
                1,
                "bad-name",
                "a lock's name has",
            ),
            (
                &["call", "/locks", "release", r#"{"name": "a", "token": 1}"#],
                1,
                "not-holder",
                "does not hold the lock",
            ),
            (
                &["lock", "locks", "--", "true"],
                2,
                "configuration",
                "is not of the form MOUNT/NAME",
            ),
            (
                &["lock", "/nowhere/a", "--", "true"],
                1,
                "unknown-mount",
                "nothing is mounted at /nowhere",
            ),
            (
                &["get", "/app", "--session-timeout", "0.1"],
                1,
                "session-refused",
                "a session's timeout is between 1000 and 300000 ms",
            ),
        ],
    );
    assert_eq!(cli.run(&["get", "/app", "--no-such-flag"]).code, Some(2));
}

fn refuse_components(cli: &Cli, folder: &Path) {
    let components = [
        (
            "empty",
            Vec::new(),
            "empty.wasm is empty: it is no component",
        ),
        ("text", b"#!/bin/sh\n".to_vec(), "it is not WebAssembly"),
        (
            "module",
            Module::new().finish(),
            "it is a core module, not a component",
        ),
        (
            "wasi",
            importing("wasi:clocks/monotonic-clock@0.2.0"),
            "it imports wasi:clocks/monotonic-clock@0.2.0, and plugins get no WASI",
        ),
        (
            "unknown",
            importing("acme:telemetry/spans@1.0.0"),
            "it imports acme:telemetry/spans@1.0.0, which folkmoot:plugin@0.1.0 does not have for a recipe",
        ),
        (
            "world",
            exporting("wasi:http/incoming-handler@0.2.0"),
            "it is of another world",
        ),
    ];
    for (name, bytes, says) in components {
        let file = folder.join(format!("{name}.wasm"));
        fs::write(&file, bytes).unwrap();
        cli.run(&["plugin", "install", &file.to_string_lossy()])
            .failed(1, "component-refused", says);
    }
    let missing = folder.join("missing.wasm");
    refuse(
        cli,
        &[
            (
                &["plugin", "install", &missing.to_string_lossy()],
                2,
                "configuration",
                "missing.wasm: No such file",
            ),
            (
                &["mount", "add", "/barrier", "barrier"],
                1,
                "unknown-component",
                "see `folkmoot plugin list`",
            ),
            (
                &["mount", "add", "/counter/below", "lock"],
                1,
                "mount-exists",
                "a mount at /counter is in the way",
            ),
            (
                &["mount", "remove", "/app"],
                1,
                "unknown-mount",
                "nothing is mounted at /app",
            ),
        ],
    );
}

/// A component that imports an instance with one function.
fn importing(name: &str) -> Vec<u8> {
    let mut component = Component::new();
    let mut instance = InstanceType::new();
    instance
        .ty()
        .function()
        .params::<[(&str, wasm_encoder::ComponentValType); 0], _>([])
        .result(None);
    instance.export("write", ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&instance);
    component.section(&types);
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    component.section(&imports);
    export_empty(&mut component, "folkmoot:plugin/guest@0.1.0", 1);
    component.finish()
}

/// A component that exports an instance with nothing in it.
fn exporting(name: &str) -> Vec<u8> {
    let mut component = Component::new();
    export_empty(&mut component, name, 0);
    component.finish()
}

fn export_empty(component: &mut Component, name: &str, instance: u32) {
    let mut instances = ComponentInstanceSection::new();
    instances.export_items::<&str, _>([]);
    component.section(&instances);
    let mut exports = ComponentExportSection::new();
    exports.export(name, ComponentExportKind::Instance, instance, None);
    component.section(&exports);
}

#[test]
fn a_plugin_that_misbehaves_harms_nobody_else() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.install_standard_plugins();
    cli.tell(&["call", "/counter", "add", r#"{"amount": 5}"#]);
    let hostile = guest("for-tests/hostile");
    cli.tell(&["plugin", "install", &hostile.to_string_lossy()]);
    cli.tell(&["mount", "add", "/hostile", "hostile"]);
    let before = everything(&cli);

    for what in ["panic", "spin"] {
        let payload = format!(r#"{{"what": "{what}"}}"#);
        cli.run(&["call", "/hostile", "write-then", &payload])
            .failed(1, "plugin-fault", "plugin fault");
    }
    // What it wrote before is gone with the call.
    assert_unchanged(&cli, &before);
    let total = cli.ask(&["call", "/counter", "read"]);
    assert_eq!(total["total"], 5);
}

#[test]
fn clients_that_can_not_connect_are_told_why() {
    let cluster = Cluster::start(1);
    let other = Cluster::init(1);
    let home = Cli::at_home(&cluster.folder());
    home.run(&["get", "/"])
        .failed(2, "configuration", "no cluster is named: give --endpoints");
    home.run(&["get", "/", "--context", "no-such-file"]).failed(
        2,
        "configuration",
        "can not read no-such-file",
    );

    let cli = cluster.cli();
    refuse(
        &cli,
        &[
            (
                &["get", "/", "--endpoints", "localhost"],
                2,
                "configuration",
                "\"localhost\" is not an address of the form HOST:PORT",
            ),
            (
                &["get", "/", "--key", "ca.pem"],
                2,
                "configuration",
                "can not read ca.pem",
            ),
        ],
    );
    let [nobody] = free_ports(1).try_into().unwrap();
    let nobody = format!("127.0.0.1:{nobody}");
    for command in [["get", "/"], ["cluster", "status"]] {
        let ran = cli.run(&[&command[..], &["--timeout", "1", "--endpoints", &nobody]].concat());
        assert_eq!(ran.code, Some(3), "{ran}");
        assert_eq!(ran.error()["error"], "no-member-answers", "{ran}");
        assert!(ran.stderr.contains(&nobody), "{ran}");
    }

    home.run(&["get", "/", "--endpoints", &nobody]).failed(
        2,
        "configuration",
        "nothing says how to prove who you are: give --ca",
    );
    // Who did not type an address is told where it comes from.
    other.cli().run(&["get", "/", "--timeout", "1"]).failed(
        3,
        "no-member-answers",
        "cluster/context.toml",
    );

    // Another cluster's certificates: neither side takes the other's.
    let theirs = |name: &str| other.folder().join(name);
    let stranger = cli
        .clone()
        .with("FOLKMOOT_CERTIFICATE", theirs("client.pem"))
        .with("FOLKMOOT_KEY", theirs("client.key"));
    stranger.run(&["get", "/", "--timeout", "3"]).failed(
        3,
        "no-member-answers",
        "the member refuses this client's certificate",
    );
    let misled = cli.clone().with("FOLKMOOT_CA", theirs("ca.pem"));
    misled.run(&["get", "/", "--timeout", "3"]).failed(
        3,
        "no-member-answers",
        "not a member of this cluster",
    );
    // A member's certificate is none for a client, and the members' port does not speak to clients.
    let member = cluster.member_folder(1);
    let as_member = cli
        .clone()
        .with("FOLKMOOT_CERTIFICATE", member.join("member.pem"))
        .with("FOLKMOOT_KEY", member.join("member.key"));
    as_member.run(&["get", "/", "--timeout", "3"]).failed(
        3,
        "no-member-answers",
        "the member refuses this client's certificate",
    );
    let config = fs::read_to_string(member.join("server.toml")).unwrap();
    let peer = config
        .lines()
        .find_map(|line| line.strip_prefix("listen = "))
        .unwrap();
    let peer = peer.trim_matches('"');
    cli.run(&["get", "/", "--timeout", "3", "--endpoints", peer])
        .failed(
            3,
            "no-member-answers",
            "this port does not speak to clients",
        );
    // Nobody was harmed.
    assert_eq!(cli.ask(&["get", "/"])["path"], "/");
}

/// The files below a folder, and what is in them.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Asserts that both are the same, without printing megabytes.
fn assert_same_files(folder: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let after = files(folder);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

/// Writes a member's configuration with other words in it, beside the true one.
fn configuration(cluster: &Cluster, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let folder = cluster.member_folder(1);
    let mut text = fs::read_to_string(folder.join("server.toml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text = text.replace(from, to);
    }
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    file
}

/// A configuration that listens elsewhere.
fn elsewhere(cluster: &Cluster, name: &str) -> PathBuf {
    let folder = cluster.member_folder(1);
    let text = fs::read_to_string(folder.join("server.toml")).unwrap();
    let listens = text.lines().filter(|line| line.starts_with("listen"));
    let changes: Vec<_> = listens
        .zip(free_ports(2))
        .map(|(line, port)| (line, format!("listen = \"127.0.0.1:{port}\"")))
        .collect();
    let changes: Vec<_> = changes
        .iter()
        .map(|(from, to)| (*from, to.as_str()))
        .collect();
    configuration(cluster, name, &changes)
}

#[test]
fn members_that_can_not_start_say_why_and_touch_nothing() {
    let mut ours = Cluster::start(1);
    let cli = ours.cli();
    for number in 0..20 {
        cli.tell(&["create", &format!("/n{number}"), "value"]);
    }

    let unknown = configuration(
        &ours,
        "unknown",
        &[("member = 1", "member = 1\nmembre = 2")],
    );
    server(&unknown)
        .end()
        .failed(2, "configuration", "unknown field `membre`");
    server(&ours.folder().join("none.toml")).end().failed(
        2,
        "configuration",
        "can not read the configuration",
    );
    ours.run_server(1)
        .end()
        .failed(2, "port-taken", "stop what uses it, or configure another");
    let elsewhere = elsewhere(&ours, "elsewhere");
    server(&elsewhere).end().failed(
        2,
        "folder-in-use",
        "in use by another process: stop it first",
    );
    // The member that was there before serves on.
    assert_eq!(cli.value("/n7"), "value");
    assert_eq!(ours.stop(1).code, Some(0));

    let before = files(&ours.data(1));
    let strange = Cluster::init(3);
    let data = ours.data(1);
    let theirs = configuration(
        &strange,
        "theirs",
        &[("data = \"data\"", &format!("data = {data:?}"))],
    );
    server(&theirs)
        .end()
        .failed(2, "other-cluster", "belongs to cluster");
    let other_ca = strange.folder().join("ca.pem");
    let ca = configuration(
        &ours,
        "ca",
        &[("ca = \"ca.pem\"", &format!("ca = {other_ca:?}"))],
    );
    server(&ca).end().failed(2, "configuration", "member.pem");
    assert_same_files(&ours.data(1), &before);

    ours.start_member(1);
    ours.leader();
    assert_eq!(cli.value("/n7"), "value");
    damaged_log_is_left_alone(&mut ours);
}

/// One byte in the middle of what is in the log: it was acknowledged, and no other member has it.
fn damaged_log_is_left_alone(cluster: &mut Cluster) {
    let cli = cluster.cli();
    for number in 0..10 {
        cli.tell(&["set", "/n1", &format!("{number}")]);
    }
    cluster.kill(1);
    let segment = newest_segment(&cluster.data(1).join("log"));
    let whole = fs::read(&segment).unwrap();
    let mut damaged = whole.clone();
    let used = 1 + whole.iter().rposition(|byte| *byte != 0).unwrap();
    let runs: Vec<_> = (4096..used)
        .step_by(4096)
        .filter(|at| whole[*at + 8..].starts_with(b"FMRN"))
        .collect();
    damaged[runs[runs.len() / 2] + 100] ^= 1;
    fs::write(&segment, damaged).unwrap();

    let before = files(&cluster.data(1));
    cluster
        .run_server(1)
        .end()
        .failed(1, "damaged", "What to do: move the folder away");
    assert_same_files(&cluster.data(1), &before);

    // The same folder without the damage, as from a copy.
    fs::write(&segment, whole).unwrap();
    cluster.start_member(1);
    cluster.leader();
    assert_eq!(cli.value("/n1"), "9");
}

/// The segment with the most recent write.
fn newest_segment(log: &Path) -> PathBuf {
    let segments = files(log).into_iter();
    let used = segments.filter(|(_, bytes)| bytes.iter().skip(4096).any(|byte| *byte != 0));
    used.map(|(path, _)| path).max().unwrap()
}

/// Rule R21: a member that lost its promises does not vote.
#[test]
fn r21_a_wiped_member_says_so_and_does_not_vote() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    cli.tell(&["create", "/kept", "1"]);
    cluster.kill(3);
    fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.start_member(3);
    let said = cluster
        .process(3)
        .note("a word on the wiped data", |line| line.contains("was lost"));
    for word in ["neither vote", "one failure less", "put it back"] {
        assert!(said.contains(word), "{said}");
    }
    // The cluster goes on with two, and the third follows.
    cluster.leader_of(3);
    cli.tell(&["set", "/kept", "2"]);
    cluster.wait_for_agreement();
    assert_eq!(cluster.cli_of(3).value("/kept"), "2");

    // One of the two others is no quorum with it.
    cluster.kill(1);
    let ran = wait_until(
        "a cluster without a leader",
        || {
            let ran = cli.run(&["cluster", "status", "--timeout", "1"]);
            (ran.code == Some(3)).then_some(ran)
        },
        String::new,
    );
    assert_eq!(ran.error()["error"], "no-leader", "{ran}");
    let refused = cli.run(&["set", "/kept", "3", "--timeout", "3"]);
    assert!(matches!(refused.code, Some(3 | 4)), "{refused}");
    cluster.start_member(1);
    cluster.leader_of(3);
    cli.tell(&["set", "/kept", "4"]);
    cluster.wait_for_agreement();
}
