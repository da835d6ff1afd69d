//! Worlds of many seeds, as the tests run them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it does not expect fails"
)]

use folkmoot_core::mutation::Mutation;
use folkmoot_sim::{Event, Layers, Options, Seen, run_seed, run_seeds};

const WORLD: Options = Options {
    seconds: 60,
    layers: Layers::Whole,
    verbose: false,
    guests: None,
};

/// Lives the worlds of `seeds` and answers what was seen in all of them.
fn live(seeds: std::ops::Range<u64>, options: &Options) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut seen, mut failures) = (Seen::default(), Vec::new());
    run_seeds(seeds, options, threads, |report| {
        seen.add(&report.seen);
        if let Some(violation) = report.violation {
            let seed = report.seed;
            failures.push(format!(
                "{violation}\nreproduce: cargo xtask sim --seed {seed}"
            ));
        }
        true
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    seen
}

fn assert_happened(seen: &Seen, events: &[Event]) {
    for event in events {
        assert!(
            seen.of(*event) > 0,
            "no {} in all these worlds:\n{seen}",
            event.name()
        );
    }
}

#[test]
fn whole_clusters_keep_every_promise() {
    let seen = live(0..300, &WORLD);
    assert_happened(
        &seen,
        &[
            Event::Elected,
            Event::Deposed,
            Event::ConflictRepaired,
            Event::SnapshotInstalled,
            Event::SegmentDropped,
            Event::WritesLost,
            Event::WriteTorn,
            Event::BitRot,
            Event::DamageFound,
            Event::SyncFailed,
            Event::DiskFull,
            Event::Wiped,
            Event::RebuiltTold,
            Event::Pause,
            Event::Partition,
            Event::ProposeRefused,
            Event::OverlayDropped,
            Event::InstanceDropped,
            Event::PluginFault,
            Event::SessionOpened,
            Event::SessionMoved,
            Event::SessionExpired,
            Event::SessionClosed,
            Event::Rewind,
            Event::NotAdmitted,
            Event::Overloaded,
            Event::Retried,
            Event::Refused,
            Event::LinearizableRead,
            Event::LocalRead,
            Event::ReadRetried,
            Event::WaitBegun,
            Event::WaitCompleted,
            Event::WaitSurvived,
            Event::LockAcquired,
            Event::StaleTokenRefused,
            Event::Jeopardy,
            Event::WatchEvents,
            Event::WatchResumed,
            Event::WatchCompacted,
            Event::WatchTooSlow,
            Event::Resync,
            Event::CapReached,
            Event::MemberJoined,
            Event::MemberTakenOver,
            Event::MemberLeft,
            Event::MapUpdate,
            Event::PartitionGained,
            Event::PartitionReleased,
            Event::PartitionForced,
            Event::PartitionRecovered,
            Event::MovedForBalance,
            Event::LoadsShown,
            Event::Permitted,
            Event::ClockJump,
        ],
    );
}

#[test]
fn clusters_of_consensus_and_log_keep_raft_s_promises() {
    for layers in [Layers::Consensus, Layers::Log] {
        let seen = live(0..16, &Options { layers, ..WORLD });
        assert_happened(
            &seen,
            &[
                Event::Elected,
                Event::Deposed,
                Event::ConflictRepaired,
                Event::SnapshotInstalled,
                Event::WritesLost,
                Event::Partition,
                Event::ProposeRefused,
                Event::ReadRetried,
            ],
        );
    }
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    let corpus = include_str!("../corpus/seeds.txt");
    let lines = corpus
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines {
        let mut words = line.split_whitespace();
        let layers = match words.next() {
            Some("consensus") => Layers::Consensus,
            Some("log") => Layers::Log,
            Some("whole") => Layers::Whole,
            other => panic!("{other:?} in {line:?}"),
        };
        let seed: u64 = words
            .next()
            .and_then(|seed| seed.parse().ok())
            .expect("a seed");
        let report = run_seed(seed, &Options { layers, ..WORLD });
        assert_eq!(report.violation, None, "{line}");
    }
}

#[test]
fn scenarios_hold() {
    for scenario in folkmoot_sim::scenarios::ALL {
        assert_eq!((scenario.run)(), Ok(()), "{}", scenario.name);
    }
}

/// Each rule of the kernel has a part that can be taken out, and the page that says what notices it
/// has a row for each: `cargo xtask mutants` looks for them and writes it.
#[test]
fn every_rule_has_a_mutation_that_was_found() {
    let page = include_str!("../../../docs/mutants.md");
    for number in 1..=32 {
        let rule = format!("R{number}");
        let of_rule = Mutation::ALL.iter().filter(|it| it.rule() == rule);
        assert!(of_rule.count() > 0, "no mutation takes {rule} out");
    }
    for mutation in Mutation::ALL {
        let (rule, name) = (mutation.rule(), mutation.name());
        let is_its = |row: &&str| {
            row.starts_with(&format!("| {rule} |")) && row.contains(&format!("(`{name}`)"))
        };
        assert_eq!(page.lines().filter(is_its).count(), 1, "{rule} {name}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| R")).count();
    assert_eq!(rows, Mutation::ALL.len());
}

#[test]
fn one_seed_lives_one_way() {
    for seed in 0..3 {
        let (first, second) = (run_seed(seed, &WORLD), run_seed(seed, &WORLD));
        assert_eq!(
            first, second,
            "something in the world of seed {seed} is not of the seed"
        );
    }
}
