//! `folkmoot-sim mutants`: takes each rule out, one process for each, looks for the scenario or the
//! world that finds it, and writes the page that says so. What finds a rule's absence must hold with
//! the rule in place.

use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use folkmoot_core::mutation::{Mutation, switch_off, switch_on};
use folkmoot_sim::scenarios::{self, Scenario};
use folkmoot_sim::{Layers, Options, Violation, run_seed};

/// Seeds that are tried of each kind of world, in this order, for a rule of that number.
fn plan(rule: u32) -> &'static [(Layers, u64)] {
    match rule {
        17..=21 => &[(Layers::Consensus, 60), (Layers::Whole, 60)],
        22..=25 => &[(Layers::Log, 100), (Layers::Whole, 30)],
        _ => &[(Layers::Whole, 80), (Layers::Consensus, 20)],
    }
}

/// The longest that one mutation is looked for.
const TIME_MAX: Duration = Duration::from_secs(900);

/// How a mutation was found.
#[derive(Clone, Debug)]
struct Found {
    check: String,
    effort: String,
}

/// Runs every mutation and writes the page, which it does only if every one is found.
pub(crate) fn all(only: &[String]) -> ExitCode {
    for scenario in scenarios::ALL {
        if let Err(facts) = (scenario.run)() {
            eprintln!("{} does not hold: {facts}", scenario.name);
            return ExitCode::FAILURE;
        }
    }
    let is_wanted =
        |mutation: &Mutation| only.is_empty() || only.iter().any(|name| name == mutation.name());
    let mut mutations: Vec<Mutation> = Mutation::ALL.to_vec();
    mutations.retain(is_wanted);
    let rows = look_for(&mutations);
    let missed: Vec<_> = rows
        .iter()
        .filter(|(_, found)| found.is_none())
        .map(|(mutation, _)| mutation.name())
        .collect();
    if !missed.is_empty() || rows.is_empty() {
        eprintln!("of {} mutations not found: {missed:?}", rows.len());
        return ExitCode::FAILURE;
    }
    println!("{} mutations, all found", rows.len());
    if only.is_empty() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/mutants.md");
        if let Err(error) = std::fs::write(&path, page(&rows)) {
            eprintln!("{} can not be written: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("written to docs/mutants.md");
    }
    ExitCode::SUCCESS
}

/// Looks for each mutation in a process of its own, a few at a time; answers them by rule.
fn look_for(mutations: &[Mutation]) -> Vec<(Mutation, Option<Found>)> {
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(Mutation, Option<Found>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutation) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = in_its_own_process(*mutation);
                    eprintln!("{:<4} {:<28} {found:?}", mutation.rule(), mutation.name());
                    if let Ok(mut rows) = rows.lock() {
                        rows.push((*mutation, found));
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|(mutation, _)| (rule_number(*mutation), mutation.name()));
    rows
}

/// What the process of one mutation does: the first check that fails is printed.
pub(crate) fn one(name: &str) -> ExitCode {
    let Some(mutation) = Mutation::ALL
        .iter()
        .find(|mutation| mutation.name() == name)
    else {
        eprintln!("no mutation is named {name}");
        return ExitCode::FAILURE;
    };
    switch_on(*mutation);
    let (of_rule, others): (Vec<_>, Vec<_>) = scenarios::ALL
        .iter()
        .partition(|scenario| scenario.rule == mutation.rule());
    if by_scenario(&of_rule) {
        return ExitCode::SUCCESS;
    }
    for (layers, seeds) in plan(rule_number(*mutation)) {
        for seed in 0..*seeds {
            if let Some(Violation { invariant, facts }) = violation(*mutation, *layers, seed) {
                let worlds = match layers {
                    Layers::Consensus => "consensus alone",
                    Layers::Log => "consensus and log",
                    Layers::Whole => "whole cluster",
                };
                report(invariant, &format!("{} of {worlds}", seed + 1), &facts);
                return ExitCode::SUCCESS;
            }
        }
    }
    by_scenario(&others);
    ExitCode::SUCCESS
}

/// Whether one of these scenarios fails; the first that does is printed.
fn by_scenario(scenarios: &[&Scenario]) -> bool {
    for scenario in scenarios {
        let outcome = catch_unwind(scenario.run);
        let outcome = outcome.unwrap_or_else(|_| Err("an assertion failed".to_owned()));
        if let Err(facts) = outcome {
            report(scenario.name, "scenario", &facts);
            return true;
        }
    }
    false
}

/// What does not hold in the world of a seed with the mutation, and does without it.
fn violation(mutation: Mutation, layers: Layers, seed: u64) -> Option<Violation> {
    let options = Options {
        seconds: 60,
        layers,
        verbose: false,
        guests: None,
    };
    let violation = run_seed(seed, &options).violation?;
    switch_off();
    let without = run_seed(seed, &options).violation;
    switch_on(mutation);
    without.is_none().then_some(violation)
}

fn report(check: &str, effort: &str, facts: &str) {
    println!(
        "found\t{check}\t{effort}\t{}",
        facts.replace(['\n', '\t'], " ")
    );
}

fn in_its_own_process(mutation: Mutation) -> Option<Found> {
    let started = Instant::now();
    let program = std::env::current_exe().ok()?;
    let mut child = Command::new(program)
        .args(["mutants", "--mutation", mutation.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    while child.try_wait().ok()?.is_none() {
        if started.elapsed() > TIME_MAX {
            child.kill().ok()?;
            child.wait().ok()?;
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("found\t"))?;
    let mut fields = line.split('\t').skip(1);
    Some(Found {
        check: fields.next()?.to_owned(),
        effort: fields.next()?.to_owned(),
    })
}

fn rule_number(mutation: Mutation) -> u32 {
    mutation.rule().trim_start_matches('R').parse().unwrap_or(0)
}

fn page(rows: &[(Mutation, Option<Found>)]) -> String {
    let mut page = String::from(
        "# Rules, checks, and what it takes to find a missing one\n\n\
         Written by `cargo xtask mutants`; do not edit. Each row is one rule, or a part of one, \
         taken out by a switch in one build of the simulator. The check is the first that failed, \
         and it holds with the rule in place. *Seeds* counts the simulated worlds, of 60 s each, \
         until then; a *scenario* is a short script of one machine that needs no luck, and those \
         of the rule are tried before the worlds. A row shows that some check holds its rule, not \
         that every way to break it would be noticed. The command fails, and leaves this page as \
         it is, if a row is not found any more.\n\n\
         | rule | mutation | check that found it | seeds (or scenario) |\n|---|---|---|---|\n",
    );
    let describe = |mutation: &Mutation| {
        let description = mutation.description().trim_end_matches('.').to_owned();
        format!(
            "{} | {description} (`{}`)",
            mutation.rule(),
            mutation.name()
        )
    };
    for (mutation, found) in rows {
        if let Some(Found { check, effort }) = found {
            let _ = writeln!(page, "| {} | `{check}` | {effort} |", describe(mutation));
        }
    }
    page
}
