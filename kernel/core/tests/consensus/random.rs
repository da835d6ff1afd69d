//! Raft's safety properties under random schedules, and progress after them.

use crate::schedule::Schedule;

/// How many schedules to run: `CONSENSUS_SEEDS` if it is set, for a long search.
fn seeds(default: u64) -> u64 {
    let asked = std::env::var("CONSENSUS_SEEDS").ok();
    asked
        .and_then(|count| count.parse().ok())
        .unwrap_or(default)
}

fn run(voters: u64, seeds: std::ops::Range<u64>) -> (usize, u64, u64, usize) {
    let mut seen = (0, 0, 0, 0);
    for seed in seeds {
        let mut schedule = Schedule::new(voters, seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            schedule.run();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} of {voters} voters");
            std::panic::resume_unwind(panic);
        }
        let cluster = schedule.cluster;
        seen.0 += cluster.elected.len();
        seen.1 += cluster.conflicts_repaired;
        seen.2 += cluster.snapshots_installed;
        seen.3 += cluster.answered.values().flatten().count();
    }
    seen
}

#[test]
fn three_members_stay_safe_and_recover() {
    let (elections, conflicts, snapshots, reads) = run(3, 0..seeds(600));
    assert!(
        elections > 300 && conflicts > 10 && snapshots > 10 && reads > 300,
        "too little happened: {elections} elections, {conflicts} conflicts repaired, \
         {snapshots} snapshots, {reads} reads"
    );
}

#[test]
fn five_members_stay_safe_and_recover() {
    let (elections, conflicts, ..) = run(5, 0..seeds(200));
    assert!(elections > 100 && conflicts > 0);
}
