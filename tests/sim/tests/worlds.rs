//! Worlds of many seeds, as the tests run them.

use folkmoot_sim::{Event, Layers, Options, Seen, run_seed, run_seeds};

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
fn clusters_of_consensus_alone_keep_raft_s_promises() {
    let options = Options {
        seconds: 60,
        layers: Layers::Consensus,
        verbose: false,
    };
    let seen = live(0..24, &options);
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

#[test]
fn one_seed_lives_one_way() {
    let options = Options {
        seconds: 20,
        layers: Layers::Consensus,
        verbose: false,
    };
    for seed in 0..3 {
        let (first, second) = (run_seed(seed, &options), run_seed(seed, &options));
        assert_eq!(
            first, second,
            "something in the world of seed {seed} is not of the seed"
        );
    }
}
