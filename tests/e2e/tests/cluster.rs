//! Members that are killed and paused, and what their clients see of it.

#![cfg(test)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use folkmoot_e2e::{Cli, Cluster, Process, Ran, Signal, wait_until};
use serde_json::Value;

/// A user who creates nodes one after the other, until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<std::sync::Mutex<Written>>,
    thread: JoinHandle<()>,
}

/// What became of the writes.
#[derive(Clone, Debug, Default)]
struct Written {
    /// In order.
    acknowledged: Vec<String>,
    /// They may be there.
    unknown: BTreeSet<String>,
}

impl Writer {
    fn start(cli: Cli, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(std::sync::Mutex::new(Written::default()));
        let name = name.to_owned();
        let thread = std::thread::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let node = format!("{name}-{number}");
                    let ran = cli.run(&["create", &format!("/writes/{node}"), "x"]);
                    let mut done = done.lock().unwrap();
                    match ran.code {
                        Some(0) => done.acknowledged.push(node),
                        Some(4) => {
                            done.unknown.insert(node);
                        }
                        // Nothing was sent.
                        Some(3) => {}
                        _ => panic!("{ran}"),
                    }
                }
            }
        });
        Self { stop, done, thread }
    }

    fn acknowledged(&self) -> usize {
        self.done.lock().unwrap().acknowledged.len()
    }

    /// Waits until so many more writes are acknowledged.
    fn wait_for_more(&self, more: usize) {
        let goal = self.acknowledged() + more;
        wait_until(
            "acknowledged writes",
            || (self.acknowledged() >= goal).then_some(()),
            || format!("{:?}", self.done.lock().unwrap()),
        );
    }

    fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.done.lock().unwrap().clone()
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_the_leader_is_killed() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    cli.tell(&["create", "/writes"]);
    let leader = cluster.leader();
    // Through the leader, so that the watch has to move as well.
    let watcher = cluster
        .cli_of(leader)
        .start(&["watch", "/writes", "--children"]);
    watcher.note("the watch's begin", |line| line.contains("watching"));
    let writers: Vec<_> = ["a", "b"]
        .map(|name| Writer::start(cli.clone(), name))
        .into();
    writers.iter().for_each(|writer| writer.wait_for_more(5));

    cluster.kill(leader);
    writers.iter().for_each(|writer| writer.wait_for_more(5));
    assert_ne!(cluster.leader_of(2), leader);
    cluster.start_member(leader);
    cluster.leader_of(3);
    writers.iter().for_each(|writer| writer.wait_for_more(2));

    let written: Vec<_> = writers.into_iter().map(Writer::stop).collect();
    cli.tell(&["delete", "/writes/a-0"]);
    cluster.wait_for_agreement();
    let seen = watched(watcher, "/writes/a-0");
    for member in 1..=3 {
        let there: BTreeSet<_> = cluster
            .cli_of(member)
            .children("/writes")
            .into_iter()
            .collect();
        for written in &written {
            let acknowledged = written.acknowledged.iter().filter(|node| *node != "a-0");
            for node in acknowledged {
                assert!(there.contains(node), "{node} is lost on member {member}");
            }
        }
        assert!(!there.contains("a-0"));
        // The watch saw each once, and nothing that is not there.
        let created: Vec<_> = seen.iter().filter(|node| *node != "a-0").collect();
        let once: BTreeSet<_> = created.iter().map(|node| node.to_string()).collect();
        assert_eq!(created.len(), once.len(), "{created:?}");
        assert_eq!(once, there);
    }
    for written in &written {
        // One user's writes are seen in the order in which they were made.
        let mut seen = seen.iter();
        let in_order = written
            .acknowledged
            .iter()
            .all(|node| seen.any(|one| one == node));
        assert!(in_order, "{written:?} is not the order of {seen:?}");
    }

    every_member_is_killed(&mut cluster);
}

/// The names of the nodes that a watch saw created, up to the deletion of `last`.
fn watched(mut watcher: Process, last: &str) -> Vec<String> {
    watcher.document("the deletion", |transaction| {
        let mut changes = transaction["changes"].as_array()?.iter();
        changes.find(|change| change["path"] == last && change["change"] == "deleted")?;
        Some(())
    });
    watcher.signal(Signal::INT);
    let ran = watcher.end();
    assert_eq!(ran.code, Some(130), "{ran}");
    let transactions: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let zxids: Vec<_> = transactions
        .iter()
        .map(|transaction| transaction["zxid"].as_u64().unwrap())
        .collect();
    assert!(zxids.is_sorted_by(|one, next| one < next), "{zxids:?}");
    let changes = transactions
        .iter()
        .flat_map(|transaction| transaction["changes"].as_array().unwrap());
    let created = changes.filter(|change| change["change"] == "created");
    created
        .map(|change| {
            let path = change["path"].as_str().unwrap();
            path.trim_start_matches("/writes/").to_owned()
        })
        .collect()
}

/// Whoever talked to a process that was killed hears of it from the next one, and need not wait
/// until the connection times out.
#[test]
fn a_member_that_is_back_at_once_is_heard_at_once() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    let leader = cluster.leader();
    let (down, other) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    cluster.kill(down);
    cluster.kill(leader);
    cluster.start_member(leader);
    cluster
        .process(other)
        .note("a connection that was reset", |line| {
            line.contains("is lost") && line.contains("reset by peer")
        });
    cluster.leader_of(2);
    cli.tell(&["create", "/afterwards"]);
}

/// As when the power fails.
fn every_member_is_killed(cluster: &mut Cluster) {
    let cli = cluster.cli();
    let before = cli.children("/writes");
    for member in 1..=3 {
        cluster.kill(member);
    }
    for member in 1..=3 {
        cluster.start_member(member);
    }
    cluster.leader_of(3);
    assert_eq!(cli.children("/writes"), before);
    cli.tell(&["create", "/afterwards", "x"]);
    cluster.wait_for_agreement();
}

fn lock(cli: &Cli, arguments: &[&str], script: &str) -> Process {
    let command = ["--", "sh", "-c", script];
    cli.start(&[&["lock", "/locks/l"], arguments, &command].concat())
}

fn token(line: &str) -> u64 {
    line.trim_start_matches("token ").trim().parse().unwrap()
}

const SAY_TOKEN: &str = "echo token $FOLKMOOT_FENCING_TOKEN";

#[test]
fn a_lock_is_held_for_a_command_and_no_longer() {
    let mut cluster = Cluster::start(3);
    let cli = cluster.cli();
    cli.install_standard_plugins();

    let ended = |ran: Ran, code| {
        assert_eq!(ran.code, Some(code), "{ran}");
        token(&ran.stdout)
    };
    let first = ended(lock(&cli, &[], SAY_TOKEN).end(), 0);
    let second = ended(
        lock(&cli, &["--wait", "0"], &format!("{SAY_TOKEN}; exit 7")).end(),
        7,
    );
    assert!(second > first);

    // The guard of a holder holds, and its lock is nobody else's meanwhile.
    cli.tell(&["create", "/guarded", "0"]);
    let script = "echo $FOLKMOOT_GUARD; sleep 60";
    let mut holder = lock(&cli, &[], script);
    let guard = holder.line("the guard", |line| line.starts_with("/locks/holders/l="));
    cli.tell(&["set", "/guarded", "1", "--guard", &guard]);
    lock(&cli, &["--wait", "0"], "true")
        .end()
        .failed(75, "held", "/locks/l is held by another");
    let next = lock(&cli, &[], SAY_TOKEN);

    // Ctrl-C reaches the command, and then the lock is the next one's.
    holder.signal(Signal::INT);
    assert_eq!(holder.end().code, Some(130));
    assert!(ended(next.end(), 0) > second);
    cli.run(&["set", "/guarded", "2", "--guard", &guard])
        .failed(1, "guard-failed", "does not hold");
    assert_eq!(cli.value("/guarded"), "1");

    a_command_is_paused_and_killed_with_its_lock(&cluster);
    a_command_is_stopped_in_jeopardy(&mut cluster);
    what_an_expired_session_owned_is_gone(&cluster);
}

/// The state that `/proc` shows: `T` is stopped; none if the process is gone.
fn state(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    Some(behind_name.split_whitespace().next()?.to_owned())
}

fn wait_for_state(process: u32, wanted: &[Option<&str>]) {
    wait_until(
        "the state of a process",
        || wanted.contains(&state(process).as_deref()).then_some(()),
        || {
            format!(
                "process {process} is in {:?}, not {wanted:?}",
                state(process)
            )
        },
    );
}

/// Whoever does not renew the lock must not leave its command running.
fn a_command_is_paused_and_killed_with_its_lock(cluster: &Cluster) {
    let cli = cluster.cli();
    let work = cluster.folder().join("work");
    let script = format!(
        "echo $$; while :; do echo x >> {}; sleep 0.05; done",
        work.display()
    );
    let begin = || {
        let holder = lock(&cli, &["--session-timeout", "2"], &script);
        let command: u32 = holder.line("its number", |_| true).parse().unwrap();
        (holder, command)
    };
    let done = || std::fs::metadata(&work).map_or(0, |file| file.len());
    let wait_for_work = || {
        let before = done();
        let more = || (done() > before).then_some(());
        wait_until("work of the command", more, || format!("{before} bytes"));
    };

    // Ctrl-Z, and back before the session is over.
    let (mut holder, command) = begin();
    wait_for_work();
    holder.signal(Signal::TSTP);
    wait_for_state(command, &[Some("T")]);
    wait_for_state(holder.id(), &[Some("T")]);
    holder.signal(Signal::CONT);
    wait_for_work();
    // And once more, until the lock is another's.
    holder.signal(Signal::TSTP);
    wait_for_state(command, &[Some("T")]);
    let before = done();
    let _ = lock(&cli, &["--wait", "30"], SAY_TOKEN).end().succeeded();
    holder.signal(Signal::CONT);
    let ran = holder.end();
    assert_eq!(ran.code, Some(75), "{ran}");
    wait_for_state(command, &[None]);
    assert_eq!(done(), before);

    let (holder, command) = begin();
    wait_for_work();
    holder.kill();
    // Its new parent may not have taken note yet.
    wait_for_state(command, &[None, Some("Z")]);
}

/// A cluster that does not answer may give the lock away.
fn a_command_is_stopped_in_jeopardy(cluster: &mut Cluster) {
    let cli = cluster.cli();
    let script = "trap 'echo stopped; exit 0' TERM; echo held; while :; do sleep 0.1; done";
    let holder = lock(&cli, &["--session-timeout", "2"], script);
    holder.line("the lock", |line| line == "held");
    for member in 1..=3 {
        cluster.process(member).signal(Signal::STOP);
    }
    holder.line("the command's end", |line| line == "stopped");
    for member in 1..=3 {
        cluster.process(member).signal(Signal::CONT);
    }
    let ran = holder.end();
    assert_eq!(ran.code, Some(75), "{ran}");
    assert_eq!(ran.error()["error"], "lock-lost", "{ran}");
    cluster.leader_of(3);
    let _ = lock(&cli, &[], SAY_TOKEN).end().succeeded();
}

fn what_an_expired_session_owned_is_gone(cluster: &Cluster) {
    let cli = cluster.cli();
    let owner = cli.start(&["create", "--ephemeral", "--session-timeout", "1", "/mine"]);
    owner.line("the node", |line| line.contains("/mine"));
    let holder = lock(
        &cli,
        &["--session-timeout", "1"],
        "echo held; exec sleep 5 >/dev/null 2>&1",
    );
    holder.line("the lock", |line| line == "held");
    assert_eq!(cli.value("/mine"), "");
    let mut paused = cli.start(&["create", "--ephemeral", "--session-timeout", "1", "/paused"]);
    paused.line("the node", |line| line.contains("/paused"));
    paused.signal(Signal::STOP);
    owner.kill();
    holder.kill();
    let _ = lock(&cli, &["--wait", "30"], SAY_TOKEN).end().succeeded();
    for node in ["/mine", "/paused"] {
        wait_until(
            "the end of an ephemeral node",
            || (cli.run(&["stat", "--linearizable", node]).code == Some(1)).then_some(()),
            || format!("{node} is still there"),
        );
    }
    paused.signal(Signal::CONT);
    let ran = paused.end();
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(ran.error()["error"], "session-ended", "{ran}");
}

#[test]
fn a_member_alone_starts_again_on_its_data() {
    let mut cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.install_standard_plugins();
    cli.tell(&["call", "/counter", "add", r#"{"amount": 41}"#]);
    cluster.kill(1);
    cluster.start_member(1);
    assert_eq!(
        cli.ask(&["call", "/counter", "add", r#"{"amount": 1}"#])["total"],
        42
    );
    assert_eq!(cluster.stop(1).code, Some(0));
    cluster.start_member(1);
    assert_eq!(cli.ask(&["call", "/counter", "read"])["total"], 42);
}
