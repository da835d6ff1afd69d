//! What happens to clusters, as scripts.

use crate::cluster::Cluster;
use crate::script::run;

fn three(script: &str) -> Cluster {
    let mut cluster = Cluster::new(3, 1, |_| {});
    run(&mut cluster, "settle");
    run(&mut cluster, script);
    cluster
}

#[test]
fn a_new_cluster_elects_and_commits() {
    three(
        "elect 1
         leads 1 1
         propose 1 a
         propose 1 b
         settle
         all 4
         log 3 1 1 1",
    );
}

#[test]
fn a_cluster_elects_by_itself() {
    let cluster = three("pass 3000");
    assert!(cluster.leader().is_some());
    assert_eq!(cluster.elected.len(), 1, "and stays with its leader");
}

/// R19: the leader that is cut off steps down; what it appended is replaced.
#[test]
fn r19_a_stale_leader_steps_down_and_takes_the_new_log() {
    three(
        "elect 1
         isolate 1
         propose 1 lost
         elect 2
         leads 2 2
         follows 1
         propose 2 kept
         settle
         heal
         pass 1000
         log 1 1 2 2
         all 4",
    );
}

/// With pre-vote a member that comes back does not depose the leader.
#[test]
fn a_member_that_was_cut_off_comes_back_quietly() {
    three(
        "elect 1
         pass 500
         isolate 3
         pass 5000
         propose 1 a
         settle
         heal
         pass 1000
         leads 1 1
         all 3",
    );
}

/// One-way: the member hears nobody and is heard.
#[test]
fn a_deaf_member_deposes_nobody() {
    three(
        "elect 1
         pass 500
         cut 1 3
         cut 2 3
         pass 5000
         leads 1 1
         heal
         propose 1 a
         pass 1000
         leads 1 1
         all 3",
    );
}

/// One-way: the leader is heard and hears nobody; it must not keep them loyal.
#[test]
fn r19_a_deaf_leader_leaves_office() {
    let cluster = three(
        "elect 1
         cut 2 1
         cut 3 1
         pass 5000
         follows 1",
    );
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader.0, 1);
}

#[test]
fn leadership_is_transferred_without_waiting() {
    three(
        "elect 1
         pass 100
         propose 1 a
         transfer 1 3
         settle
         leads 3 2
         follows 1
         propose 3 b
         pass 500
         all 5",
    );
}

#[test]
fn r19_a_leader_with_a_stalled_disk_hands_over() {
    let cluster = three(
        "elect 1
         pass 2000
         stall 1
         propose 1 a
         pass 1000
         follows 1",
    );
    assert_ne!(cluster.leader().expect("another leads").0, 1);
}

/// A stream breaks and takes appends with it.
#[test]
fn lost_appends_are_repaired() {
    three(
        "elect 1
         pass 100
         propose 1 a
         propose 1 b
         lose 1 2
         lose 1 3
         propose 1 c
         lose 1 3
         pass 500
         all 5",
    );
}

#[test]
fn a_lost_acknowledgement_is_repaired() {
    three(
        "elect 1
         pass 100
         propose 1 a
         deliver 1 2
         sync 2
         lose 2 1
         deliver 1 3
         sync 3
         lose 3 1
         pass 500
         all 3",
    );
}

/// R18: the newer append comes before the older one, which then truncates nothing.
#[test]
fn r18_streams_overtake_each_other() {
    three(
        "elect 1
         pass 100
         propose 1 a
         propose 1 b
         newest 1 3
         newest 1 3
         deliver 1 2
         deliver 1 2
         sync 2
         sync 1
         deliver 2 1
         deliver 2 1
         commit 1 4
         commit 3 2
         pass 500
         all 4",
    );
}

/// R17: what was not synced is gone, and was never acknowledged.
#[test]
fn r17_a_crash_loses_what_was_not_synced() {
    three(
        "elect 1
         pass 100
         stall 2
         propose 1 a
         deliver 1 2
         deliver 1 3
         crash 2
         log 2 1
         settle
         commit 1 3
         recover 2
         start 2
         pass 1000
         all 3",
    );
}

/// A follower that starts again knows no commit index until it has verified its log; without new
/// entries, too.
#[test]
fn a_restarted_follower_catches_up_in_an_idle_cluster() {
    three(
        "elect 1
         propose 1 a
         pass 500
         crash 2
         start 2
         applied 2 0
         pass 1000
         leads 1 1
         all 3",
    );
}

#[test]
fn the_whole_cluster_goes_down_and_comes_back() {
    three(
        "elect 1
         propose 1 a
         pass 100
         crash 1
         crash 2
         crash 3
         start 1
         start 2
         start 3
         elect 3
         leads 3 2
         pass 500
         all 4",
    );
}

#[test]
fn a_member_far_behind_gets_a_snapshot_and_then_the_log() {
    let cluster = three(
        "elect 1
         pass 100
         crash 3
         lose-all
         propose 1 a
         propose 1 b
         settle
         compact 1
         propose 1 c
         settle
         start 3
         pass 1000
         all 5
         log 3
         propose 1 d
         settle
         log 3 1
         crash 3
         start 3
         pass 1000
         all 6",
    );
    assert_eq!(cluster.snapshots_installed, 1);
}

/// R21: a wiped member takes part in nothing but receiving.
#[test]
fn r21_a_wiped_member_is_filled_and_does_not_count() {
    three(
        "elect 1
         propose 1 a
         pass 100
         crash 3
         wipe 3
         start 3
         pass 1000
         all 3
         votes 3 false
         crash 2
         propose 1 b
         pass 3000
         commit 3 3
         follows 1
         start 2
         pass 3000
         all 5",
    );
}

/// R21: a machine that is set up again has forgotten what it acknowledged, and elects nobody who
/// lacks it.
#[test]
fn r21_a_rebuilt_member_elects_nobody() {
    three(
        "elect 1
         pass 100
         isolate 2
         lose-all
         propose 1 a
         pass 400
         commit 1 3
         crash 3
         rebuild 3
         crash 1
         lose-all
         heal
         start 3
         pass 5000
         follows 2
         votes 3 false
         start 1
         pass 3000
         votes 3 false
         propose 1 b
         pass 1000
         all 5",
    );
}

/// R21: with a leader that no longer has entry 1, the members come with the snapshot.
#[test]
fn r21_a_wiped_member_learns_the_members_from_a_snapshot() {
    three(
        "elect 1
         propose 1 a
         pass 100
         compact 1
         compact 2
         crash 3
         wipe 3
         start 3
         pass 1000
         all 3
         votes 3 false",
    );
}

/// R23: the damaged member makes the others elect anew, is repaired, and counts again.
#[test]
fn r23_a_damaged_member_is_repaired_by_a_new_leader() {
    let cluster = three(
        "elect 1
         propose 1 a
         propose 1 b
         pass 100
         crash 3
         damage 3 2
         start 3
         votes 3 false
         pass 4000
         votes 3 true
         crash 2
         lose-all
         pass 3000",
    );
    let leader = cluster
        .leader()
        .expect("the repaired member is a quorum with member 1");
    let mut cluster = cluster;
    let proposed = cluster.propose(leader, "c").unwrap().unwrap();
    cluster.pass(500);
    assert!(cluster.committed.contains_key(&proposed));
}

/// R23: while it is damaged it does not help to elect a leader that lacks what it acknowledged.
#[test]
fn r23_a_damaged_member_elects_nobody() {
    three(
        "elect 1
         pass 100
         isolate 2
         propose 1 acknowledged
         settle
         commit 1 3
         crash 3
         damage 3 1
         isolate 1
         heal
         isolate 1
         start 3
         pass 5000
         follows 2
         follows 3
         heal
         pass 5000
         log 2 1 1 2
         votes 3 true",
    );
}

#[test]
fn r20_reads_work_everywhere_and_are_lost_with_the_leader() {
    three(
        "elect 1
         propose 1 a
         read 1
         read 2
         read 3
         settle
         pass 100
         reads 3 0
         isolate 1
         read 1
         read 2
         pass 2000
         reads 3 2",
    );
}

/// R20: a transfer elects a leader while the former one has good reason to believe in itself.
#[cfg_attr(not(feature = "mutants"), test)]
pub(crate) fn r20_a_leader_that_is_no_longer_one_answers_no_read() {
    three(
        "elect 1
         pass 100
         transfer 1 3
         deliver 1 3
         isolate 1
         settle
         leads 3 2
         leads 1 1
         propose 3 new
         settle
         commit 3 4
         read 1
         settle
         reads 0 0
         pass 600
         reads 0 1",
    );
}

#[test]
fn five_members_live_with_three() {
    let mut cluster = Cluster::new(5, 1, |_| {});
    run(
        &mut cluster,
        "settle
         elect 1
         crash 4
         crash 5
         propose 1 a
         pass 500
         leads 1 1
         commit 1 3
         crash 3
         pass 3000
         follows 1
         start 3
         start 4
         start 5
         pass 3000
         all 4",
    );
}

#[test]
fn a_single_voter_starts_again_on_its_log() {
    let mut cluster = Cluster::new(1, 1, |_| {});
    run(
        &mut cluster,
        "pass 0
         leads 1 1
         propose 1 a
         read 1
         settle
         all 3
         reads 1 0
         crash 1
         start 1
         pass 0
         leads 1 2
         all 4",
    );
}
