//! Partitions in the demo: workers that own them, and what moves them.

mod beliefs;
mod map;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Row;
use super::worker::{Report, Worker};
use crate::cargo;
use crate::cluster::Cluster;
use beliefs::{Beliefs, Happened};
use map::Map;

/// What must happen, happens within this on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at the map.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So many looks in a row find the map settled before it is taken to be.
const SETTLED_LOOKS: u32 = 4;
const GROUP: &str = "shards";
const VALUES: &str = "/shards";
const ZONES: [&str; 3] = ["a", "b", "c"];

/// The act at length, on a cluster of its own. What was seen is told even where it came to no end.
pub(super) fn tell(
    programs: &Path,
    guests: &Path,
    folder: &Path,
) -> Result<(Vec<Row>, Result<()>)> {
    let mut cluster = Cluster::start(&programs.join("folkmoot"), folder)?;
    let pictures = cargo::target_dir().join("demo");
    fs::create_dir_all(&pictures)?;
    let mut act = Act::new(&mut cluster, programs, Some(pictures));
    act.say("three members started on loopback, with a CA of their own");
    let outcome = act.at_length(guests);
    Ok((act.seen.rows(&act.beliefs), outcome))
}

/// The act in short, on a cluster that is there.
pub(super) fn tell_in_short(
    programs: &Path,
    guests: &Path,
    cluster: &mut Cluster,
) -> (Vec<Row>, Result<()>) {
    let mut act = Act::new(cluster, programs, None);
    let outcome = act.in_short(guests);
    (act.seen.rows(&act.beliefs), outcome)
}

/// What was seen beside what the workers said.
#[derive(Debug, Default)]
struct Seen {
    partitions: usize,
    /// After each step.
    steps: Vec<(&'static str, usize, Duration)>,
    /// Partitions with an owner in the end.
    owned: Option<usize>,
    /// Handoffs that were under way when the leader was killed.
    interrupted: Option<usize>,
    /// The most and the fewest that a worker owned, by the one policy and by the other.
    even: Option<[(usize, usize); 2]>,
}

impl Seen {
    fn rows(&self, beliefs: &Beliefs) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .steps
            .iter()
            .map(|(what, moved, took)| Row {
                what,
                seen: format!("{moved} moved in {:.1} s", took.as_secs_f64()),
                held: true,
            })
            .collect();
        if let Some(interrupted) = self.interrupted {
            rows.push(Row {
                what: "handoffs under way when the leader was killed, all resumed",
                seen: interrupted.to_string(),
                held: interrupted > 0,
            });
        }
        if let Some([before, after]) = self.even {
            rows.push(Row {
                what: "most and fewest of a worker: rendezvous, then sticky-balanced",
                seen: format!(
                    "{} and {}, then {} and {}",
                    before.0, before.1, after.0, after.1
                ),
                held: after.0 - after.1 <= 1,
            });
        }
        let double = beliefs.double_owners();
        rows.push(Row {
            what: "double owners, counted by the workers",
            seen: format!("{double} in {} ownerships", beliefs.intervals()),
            held: double == 0 && beliefs.intervals() >= self.partitions,
        });
        let late = beliefs.writes_out_of_turn();
        rows.push(Row {
            what: "guarded writes under an older token than one before",
            seen: format!(
                "{late} of {} ({} refused by the guard)",
                beliefs.writes(),
                beliefs.refused
            ),
            held: late == 0 && beliefs.writes() > 0,
        });
        rows.push(Row {
            what: "partitions with an owner in the end",
            seen: match self.owned {
                Some(owned) => format!("{owned} of {}", self.partitions),
                None => "not seen".to_owned(),
            },
            held: self.owned == Some(self.partitions),
        });
        rows
    }
}

struct Act<'a> {
    began: Instant,
    cluster: &'a mut Cluster,
    program: PathBuf,
    pictures: Option<PathBuf>,
    drawn: u32,
    workers: Vec<Worker>,
    reports: Receiver<Report<Happened>>,
    reporter: Sender<Report<Happened>>,
    beliefs: Beliefs,
    seen: Seen,
}

impl<'a> Act<'a> {
    fn new(cluster: &'a mut Cluster, programs: &Path, pictures: Option<PathBuf>) -> Self {
        let (reporter, reports) = mpsc::channel();
        Self {
            began: Instant::now(),
            cluster,
            program: programs.join("partition-worker"),
            pictures,
            drawn: 0,
            workers: Vec::new(),
            reports,
            reporter,
            beliefs: Beliefs::default(),
            seen: Seen::default(),
        }
    }

    fn at_length(&mut self, guests: &Path) -> Result<()> {
        self.install(guests, &["rendezvous", "sticky-balanced"])?;
        self.begin(12, 96, "rendezvous")?;
        self.step("a worker killed with -9", |act| {
            act.worker("w05")?.kill()?;
            act.say("w05 killed with -9: its partitions wait for it, and then go to others");
            Ok("w05")
        })?;
        self.step("a worker drained", |act| {
            act.cluster.folkmoot(&["member", "drain", GROUP, "w08"])?;
            act.say("w08 is draining: it hands over what it has");
            Ok("w08")
        })?;
        self.add_worker()?;
        self.swap_policy()?;
        self.kill_leader_in_a_handoff()?;
        self.pause_worker()?;
        self.finish()
    }

    fn in_short(&mut self, guests: &Path) -> Result<()> {
        self.install(guests, &["sticky-balanced"])?;
        self.begin(4, 24, "sticky-balanced")?;
        self.step("a worker of a partition map killed with -9", |act| {
            act.worker("w02")?.kill()?;
            act.say("w02 killed with -9: its partitions wait for it, and then go to others");
            Ok("w02")
        })?;
        self.finish()
    }

    fn install(&mut self, guests: &Path, policies: &[&str]) -> Result<()> {
        self.cluster.wait_for_leader(3)?;
        for name in policies {
            let component = guests.join(format!("policies/{name}.wasm"));
            let component = component.to_str().context("a guest's path is not UTF-8")?;
            let install = ["plugin", "install", component, "--name", name];
            self.cluster.folkmoot(&install)?;
        }
        self.cluster.folkmoot(&["create", VALUES, ""])?;
        self.say(&format!("installed: {}", policies.join(", ")));
        Ok(())
    }

    fn begin(&mut self, workers: usize, partitions: usize, policy: &str) -> Result<()> {
        for number in 1..=workers {
            self.start_worker(number)?;
        }
        self.say(&format!(
            "{workers} workers joined {GROUP}, in {} zones",
            ZONES.len()
        ));
        let create = format!(
            "partition create {GROUP} --ranges {partitions} --policy {policy} --offline-delay 1 \
             --revoke-timeout 5"
        );
        let create: Vec<&str> = create.split(' ').collect();
        self.cluster.folkmoot(&create)?;
        self.seen.partitions = partitions;
        self.settle("an owner of every partition", |map| {
            map.owned() == partitions
        })?;
        self.say(&format!("{partitions} partitions, planned by {policy}"));
        self.draw("the beginning")
    }

    fn start_worker(&mut self, number: usize) -> Result<String> {
        let name = format!("w{number:02}");
        let zone = ZONES.get(number % ZONES.len()).copied().unwrap_or_default();
        let member = u64::try_from(number % 3)? + 1;
        let arguments = [
            ["--group", GROUP],
            ["--zone", zone],
            ["--values", VALUES],
            ["--session-timeout", "5"],
        ];
        let worker = Worker::start(
            self.cluster,
            (&self.program, arguments.as_flattened()),
            &name,
            member,
            self.reporter.clone(),
        )?;
        self.workers.push(worker);
        let deadline = Instant::now() + PATIENCE;
        while !self.beliefs.is_ready(&name) {
            self.listen_until(deadline, "a worker that joins")?;
        }
        Ok(name)
    }

    /// Does something to a worker, after which it owns nothing, and waits until all has an owner.
    fn step(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&mut Self) -> Result<&'static str>,
    ) -> Result<()> {
        let (before, began) = (self.map()?, Instant::now());
        let member = act(self)?;
        let all = self.seen.partitions;
        let after = self.settle("owners of what it had", |map| {
            map.owned_by(member).is_empty() && map.owned() == all
        })?;
        self.moved(what, &before, &after, began)
    }

    fn moved(
        &mut self,
        what: &'static str,
        before: &Map,
        after: &Map,
        began: Instant,
    ) -> Result<()> {
        let (moved, lines) = after.moved_since(before);
        self.seen.steps.push((what, moved, began.elapsed()));
        self.say(&format!("{moved} partitions have another owner"));
        for line in lines {
            println!("             {line}");
        }
        self.draw(what)
    }

    fn add_worker(&mut self) -> Result<()> {
        let (before, began) = (self.map()?, Instant::now());
        let name = self.start_worker(13)?;
        self.say(&format!("{name} is added"));
        let after = self.settle("partitions of the new worker", |map| {
            !map.owned_by(&name).is_empty()
        })?;
        self.moved("a worker added", &before, &after, began)
    }

    fn swap_policy(&mut self) -> Result<()> {
        let (before, began) = (self.map()?, Instant::now());
        let plan = ["partition", "plan", GROUP, "--policy", "sticky-balanced"];
        let plan = self.cluster.folkmoot_text(&plan)?;
        let sum = plan.lines().last().unwrap_or_default();
        self.say(&format!("sticky-balanced would do this: {sum}"));
        let swap = [
            "partition",
            "configure",
            GROUP,
            "--policy",
            "sticky-balanced",
        ];
        self.cluster.folkmoot(&swap)?;
        self.say("the policy is swapped from rendezvous to sticky-balanced");
        let is_even = |map: &Map| {
            let (most, fewest) = map.most_and_fewest();
            most - fewest <= 1
        };
        let after = self.settle("an even map, or a plan that waits", |map| {
            is_even(map) || map.breaker.is_some()
        })?;
        let after = match &after.breaker {
            None => after,
            Some(breaker) => {
                self.say(&format!("the plan waits: {breaker}"));
                self.cluster.folkmoot(&["partition", "approve", GROUP])?;
                self.say("it is approved");
                self.settle("an even map", is_even)?
            }
        };
        self.seen.even = Some([before.most_and_fewest(), after.most_and_fewest()]);
        self.moved("the policy swapped", &before, &after, began)
    }

    fn kill_leader_in_a_handoff(&mut self) -> Result<()> {
        let (before, began) = (self.map()?, Instant::now());
        let leader = self.cluster.wait_for_leader(3)?;
        // As many there as back, so that the policy has nothing to add.
        let moving: Vec<(u32, &str)> = [("w01", "w13"), ("w13", "w01")]
            .into_iter()
            .flat_map(|(from, to)| {
                let some = before.owned_by(from).into_iter().take(2);
                some.map(move |partition| (partition, to))
            })
            .collect();
        for (partition, to) in &moving {
            let partition = partition.to_string();
            self.cluster
                .folkmoot(&["partition", "move", GROUP, &partition, to])?;
        }
        let under_way = self.map()?.revoking();
        self.cluster.kill_member(leader)?;
        self.seen.interrupted = Some(under_way);
        self.say(&format!(
            "member {leader}, the leader, killed with -9 while {under_way} partitions are handed over"
        ));
        let new = self.cluster.wait_for_leader(2)?;
        let after = self.settle("handoffs that are over", |map| {
            let done = |(partition, to): &(u32, &str)| map.owned_by(to).contains(partition);
            moving.iter().all(done)
        })?;
        self.say(&format!(
            "member {new} leads, and has taken them to their end"
        ));
        self.cluster.start_member(leader)?;
        self.cluster.wait_for_leader(3)?;
        self.moved("the leader killed in handoffs", &before, &after, began)
    }

    fn pause_worker(&mut self) -> Result<()> {
        self.step("a worker paused with SIGSTOP", |act| {
            act.worker("w03")?.pause()?;
            act.say("w03 paused with SIGSTOP, and not told of anything");
            Ok("w03")
        })?;
        self.worker("w03")?.resume()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.beliefs.has_lost_its_session("w03") {
            self.listen_until(deadline, "a worker that knows that its session is over")?;
        }
        self.say("w03 goes on, and knows that it owns nothing");
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.seen.owned = Some(self.map()?.owned());
        for mut worker in std::mem::take(&mut self.workers) {
            if !worker.has_ended()? {
                worker.finish()?;
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.beliefs.add(report);
        }
        let (zxid, hash) = self.cluster.wait_for_agreement()?;
        self.say(&format!(
            "the workers ended; the members agree on zxid {zxid}, hash {hash}"
        ));
        Ok(())
    }

    fn map(&self) -> Result<Map> {
        let map = self.cluster.folkmoot(&["partition", "map", GROUP])?;
        serde_json::from_slice(&map).context("the map is not what was expected")
    }

    /// Waits until nothing is under way, everything has an owner, and `is` holds.
    fn settle(&mut self, what: &str, is: impl Fn(&Map) -> bool) -> Result<Map> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = 0;
        loop {
            let map = self.map()?;
            looks = if map.is_settled() && is(&map) {
                looks + 1
            } else {
                0
            };
            if looks == SETTLED_LOOKS {
                return Ok(map);
            }
            let next = Instant::now() + LOOK_EVERY;
            if next > deadline {
                let drawn = self.cluster.folkmoot_text(&["partition", "map", GROUP])?;
                bail!(
                    "no sign of {what} within {} s:\n{drawn}",
                    PATIENCE.as_secs()
                );
            }
            self.listen(next);
        }
    }

    /// Takes what the workers say until `until`.
    fn listen(&mut self, until: Instant) {
        while let Ok(report) = self
            .reports
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.beliefs.add(report);
        }
    }

    fn listen_until(&mut self, deadline: Instant, what: &str) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.reports.recv_timeout(left) {
            Ok(report) => {
                self.beliefs.add(report);
                Ok(())
            }
            Err(_) => bail!("no sign of {what} within {} s", PATIENCE.as_secs()),
        }
    }

    fn worker(&mut self, name: &str) -> Result<&mut Worker> {
        let worker = self.workers.iter_mut().find(|worker| worker.name == name);
        worker.with_context(|| format!("there is no worker {name}"))
    }

    /// Draws the map in the terminal, and as a picture.
    fn draw(&mut self, what: &str) -> Result<()> {
        let mut arguments = vec!["partition", "map", GROUP];
        let file = self.pictures.as_ref().map(|folder| {
            let what = what.replace(' ', "-");
            folder.join(format!("partitions-{}-{what}.svg", self.drawn))
        });
        self.drawn += 1;
        if let Some(file) = &file {
            let file = file.to_str().context("a picture's path is not UTF-8")?;
            arguments.extend(["--svg", file]);
        }
        let drawn = self.cluster.folkmoot_text(&arguments)?;
        println!("\n{drawn}");
        if let Some(file) = file {
            println!("  {}\n", file.display());
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        println!("[{:6.2} s] {text}", self.began.elapsed().as_secs_f64());
    }
}
