//! The figures of the Raft paper. Entry 1 is the bootstrap entry, so that its entry *n* is *n* + 1
//! here, and a new leader's no-op is an entry more.

use std::collections::BTreeMap;

use folkmoot_core::log::LogRecord;

use crate::cluster::Cluster;
use crate::disk::Disk;
use crate::fixtures::{entries, member, term};
use crate::script::run;

const LEADER: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

/// A cluster of members with these logs, all of them last in term `in_term`.
fn cluster(in_term: u64, logs: &[&[u64]]) -> Cluster {
    let voters = logs.len() as u64;
    let disk = |terms: &[u64]| {
        let mut records: Vec<LogRecord> = vec![LogRecord::HardState {
            term: term(in_term),
            vote: None,
        }];
        records.extend(entries(voters, terms).into_iter().map(LogRecord::Entry));
        Disk::of(records)
    };
    let disks = logs
        .iter()
        .zip(1..)
        .map(|(terms, id)| (member(id), disk(terms)));
    let disks: BTreeMap<_, _> = disks.collect();
    let mut cluster = Cluster::with_disks(voters, disks, 1, |config| config.append_bytes_max = 1);
    for id in 1..=voters {
        cluster.start(member(id));
    }
    cluster
}

/// Figure 7: a leader that comes to power brings a follower's log into agreement with its own.
fn figure_7(follower: &[u64]) {
    let mut cluster = cluster(7, &[LEADER, follower, LEADER]);
    run(
        &mut cluster,
        "elect 1
         leads 1 8
         pass 1000
         log 1 1 1 1 4 4 5 5 6 6 6 8
         log 2 1 1 1 4 4 5 5 6 6 6 8
         log 3 1 1 1 4 4 5 5 6 6 6 8
         all 12",
    );
}

#[test]
fn figure_7a_misses_an_entry() {
    figure_7(&[1, 1, 1, 4, 4, 5, 5, 6, 6]);
}

#[test]
fn figure_7b_misses_many_entries() {
    figure_7(&[1, 1, 1, 4]);
}

#[test]
fn figure_7c_has_an_entry_more() {
    figure_7(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]);
}

#[test]
fn figure_7d_has_entries_of_a_later_term() {
    figure_7(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]);
}

#[test]
fn figure_7e_misses_entries_and_has_others() {
    figure_7(&[1, 1, 1, 4, 4, 4, 4]);
}

#[test]
fn figure_7f_led_terms_that_nobody_saw() {
    figure_7(&[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]);
}

/// Figure 8: an entry of term 2 that is on a majority is not committed by counting, since a leader
/// with an entry of term 3 may still come.
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn figure_8_an_earlier_terms_entry_on_a_majority_is_not_committed() {
    let mut cluster = figure_8_c();
    run(
        &mut cluster,
        "crash 1
         lose-all
         start 5
         elect 5
         pass 1000
         log 2 1 3 6
         log 3 1 3 6
         log 4 1 3 6
         recover 1
         start 1
         pass 3000
         log 1 1 3 6
         all 4",
    );
}

/// Figure 8 (e): once an entry of term 4 is on a majority, both are committed, and the member with
/// the entry of term 3 can not win.
#[test]
fn figure_8_an_entry_of_the_own_term_commits_those_before_it() {
    let mut cluster = figure_8_c();
    run(
        &mut cluster,
        "deliver 1 3
         sync 3
         deliver 3 1
         deliver 1 4
         sync 4
         deliver 4 1
         commit 1 0
         recover 1
         sync 1
         commit 1 4
         crash 1
         lose-all
         start 5
         elect 5
         follows 5
         pass 5000
         start 1
         pass 3000",
    );
    let terms = [0, 1, 2, 4];
    for (at, in_term) in (1..).zip(terms) {
        let entry = &cluster.committed[&crate::fixtures::index(at)];
        assert_eq!(entry.term, term(in_term), "entry {at}");
    }
    assert!(cluster.elected.keys().all(|in_term| *in_term > term(3)));
}

/// Figure 8 (c): member 1 left an entry of term 2 with member 2, member 5 one of term 3 with nobody;
/// now member 1 leads term 4, and its entry of term 2 gets to members
/// 3 and 4, but none of term 4 does.
fn figure_8_c() -> Cluster {
    let mut cluster = cluster(3, &[&[1, 2], &[1, 2], &[1], &[1], &[1, 3]]);
    run(
        &mut cluster,
        "crash 5
         time-out 1
         deliver 1 2
         deliver 1 3
         deliver 2 1
         deliver 3 1
         sync 1
         deliver 1 2
         deliver 1 3
         sync 2
         sync 3
         deliver 2 1
         deliver 3 1
         leads 1 4
         stall 1
         lose 1 2
         deliver 1 3
         deliver 1 3
         deliver 3 1
         deliver 3 1
         deliver 1 3
         sync 3
         deliver 3 1
         deliver 1 4
         deliver 1 4
         deliver 1 4
         deliver 1 4
         sync 4
         deliver 4 1
         deliver 4 1
         deliver 4 1
         deliver 4 1
         deliver 1 4
         sync 4
         deliver 4 1
         log 1 1 2 4
         log 2 1 2
         log 3 1 2
         log 4 1 2
         commit 1 0",
    );
    cluster
}
