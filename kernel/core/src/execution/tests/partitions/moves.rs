//! Moves: who has a partition, and from when on.

use folkmoot_proto::client::Guard;
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::partition::{
    MapConfig, MapOperation, MovePhase, MoveReason, PartitionId, PartitionKey, PartitionReport,
    owner_path,
};
use folkmoot_proto::reply::{Outcome, Refusal};

use super::super::clients::create;
use super::super::cluster::{Proposals, assert_same_state, member};
use super::{GROUP, Shards, config, refused_as};
use crate::state::View;

fn move_to(partition: u32, names: &[&str]) -> MapOperation {
    MapOperation::Move {
        partition: PartitionId(partition),
        members: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// Two workers, one partition, which `a` owns; `a` is told to let go and does not hear of it.
fn revoking() -> Shards {
    revoking_with(config())
}

fn revoking_with(config: MapConfig) -> Shards {
    let mut shards = Shards::new(config, 1, 1);
    shards.pass(500);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
    shards.join("b");
    shards.obedient = false;
    assert_eq!(shards.ask(move_to(0, &["b"])), Ok(Outcome::MapChanged));
    shards
}

#[test]
fn partitions_are_given_to_who_has_the_fewest() {
    let mut shards = Shards::new(config(), 12, 3);
    shards.pass(1_000);
    assert_eq!(shards.counts().into_values().collect::<Vec<_>>(), [4, 4, 4]);
    assert_same_state(&shards.cluster);
}

#[test]
pub(in crate::execution::tests) fn r33_a_write_of_a_former_owner_is_refused() {
    let mut shards = revoking();
    let former = shards.token(0);
    let guard = |token| Guard {
        path: owner_path(GROUP, PartitionId(0)),
        token,
    };
    let write = |shards: &mut Shards, path: &str, token| {
        let guards = vec![guard(token)];
        shards
            .cluster
            .call_guarded(&mut shards.admin, guards, create(path))
    };
    assert!(write(&mut shards, "/one", former).is_ok());
    shards.obedient = true;
    shards.pass(100);
    assert_eq!(shards.owner_name(0).as_deref(), Some("b"));
    let current = shards.token(0);
    assert!(current > former, "a promotion has a token of its own");
    let refused = write(&mut shards, "/two", former);
    assert!(refused_as(&refused, "guard-failed"), "{refused:?}");
    assert!(write(&mut shards, "/two", current).is_ok());
    shards.close("b");
    let refused = write(&mut shards, "/three", current);
    assert!(refused_as(&refused, "guard-failed"), "its session is over");
}

#[test]
pub(in crate::execution::tests) fn r34_a_returning_id_gets_its_partitions_anew() {
    let mut shards = Shards::new(config(), 4, 2);
    shards.pass(500);
    let mine: Vec<u32> = (0..4)
        .filter(|it| shards.owner_name(*it).as_deref() == Some("a"))
        .collect();
    let former = shards.token(mine[0]);
    shards.close("a");
    shards.pass(500);
    assert_eq!(shards.owner_name(mine[0]), None, "it is waited for");
    shards.join("a");
    shards.pass(500);
    for partition in &mine {
        assert_eq!(shards.owner_name(*partition).as_deref(), Some("a"));
    }
    assert!(shards.token(mine[0]) > former, "of another incarnation");
}

/// A member whose session another process closed may believe in its lease for one timeout.
#[test]
fn r34_what_was_taken_over_waits_for_the_lease_of_who_had_it() {
    let mut shards = Shards::new(config(), 1, 1);
    shards.pass(500);
    let paused = shards.workers.remove("a").expect("a worker");
    let successor = shards.cluster.open(member(3));
    shards.workers.insert("a".to_owned(), successor);
    let join = GroupOperation::Join {
        spec: folkmoot_proto::group::MemberSpec::at("a"),
        predecessor: Some(paused.secret),
    };
    assert_eq!(shards.group("a", join), Ok(Outcome::GroupChanged));
    shards.pass(9_000);
    assert_eq!(
        shards.owner_name(0),
        None,
        "the paused one may believe in its lease"
    );
    shards.pass(1_500);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
}

/// A batch that waits for the disk has the time at which it was begun. What is executed in it later
/// is not older for that: the lease of whoever was taken over may have gone on until then.
#[test]
fn r34_a_fence_counts_from_its_execution() {
    let mut shards = Shards::new(config(), 1, 1);
    shards.pass(500);
    let paused = shards.workers.remove("a").expect("a worker");
    let mut successor = shards.cluster.open(member(3));
    let mut admin = shards.admin.clone();
    shards.cluster.proposals = Proposals::Hold;
    // As many as may be under way, and one that stays open.
    for path in ["/one", "/two", "/three"] {
        shards.cluster.send(&mut admin, create(path));
        shards.cluster.run();
    }
    shards.cluster.pass_ms(4_000);
    let join = folkmoot_proto::client::Operation::Group {
        group: GROUP.to_owned(),
        member: "a".to_owned(),
        operation: GroupOperation::Join {
            spec: folkmoot_proto::group::MemberSpec::at("a"),
            predecessor: Some(paused.secret),
        },
    };
    shards.cluster.send(&mut successor, join);
    shards.cluster.run();
    shards.cluster.proposals = Proposals::Commit;
    shards.cluster.take_all();
    shards.cluster.run();
    shards.admin = admin;
    shards.workers.insert("a".to_owned(), successor);
    shards.pass(9_000);
    assert_eq!(
        shards.owner_name(0),
        None,
        "its last heartbeat may be of just before the join"
    );
    shards.pass(2_000);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
}

/// All that the closed session was a member of waits, for the longest that anybody may believe; and
/// nobody can have it forgotten meanwhile.
#[test]
fn r34_a_take_over_fences_all_that_its_session_had() {
    let mut shards = Shards::new(
        MapConfig {
            offline_delay_ms: 0,
            ..config()
        },
        2,
        2,
    );
    // One session is both members.
    let both = shards.cluster.open_for(member(2), 10_000);
    for name in ["a", "b"] {
        shards.close(name);
    }
    shards.workers.insert("a".to_owned(), both);
    for name in ["a", "b"] {
        let join = GroupOperation::Join {
            spec: folkmoot_proto::group::MemberSpec::at(name),
            predecessor: None,
        };
        if name == "b" {
            let one = shards.workers.remove("a").expect("a worker");
            shards.workers.insert("b".to_owned(), one);
        }
        assert_eq!(shards.group(name, join), Ok(Outcome::GroupChanged));
    }
    shards.pass(500);
    assert_eq!(shards.owned(), 2);
    let paused = shards.workers.remove("b").expect("a worker");
    // Taken over with a short timeout, and again: the first one's lease is the longest.
    let mut secret = paused.secret;
    for _ in 0..2 {
        let successor = shards.cluster.open_for(member(3), 2_000);
        let known = core::mem::replace(&mut secret, successor.secret);
        shards.workers.insert("a".to_owned(), successor);
        let join = GroupOperation::Join {
            spec: folkmoot_proto::group::MemberSpec::at("a"),
            predecessor: Some(known),
        };
        assert_eq!(shards.group("a", join), Ok(Outcome::GroupChanged));
    }
    shards.pass(9_000);
    assert_eq!(shards.owned(), 0, "whoever was both may believe in both");
    let forgotten = shards.ask_group("b", GroupOperation::Forget);
    assert!(refused_as(&forgotten, "bad-member"), "{forgotten:?}");
    shards.pass(2_000);
    assert_eq!(
        shards.counts().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), 2)]
    );
}

#[test]
pub(in crate::execution::tests) fn r35_an_owner_loses_by_force_only_what_its_lease_can_not_hold() {
    // The owner's timeout is 10 s; the log clock stands still while nobody writes.
    let mut shards = revoking_with(MapConfig {
        revoke_timeout_ms: 3_000,
        ..config()
    });
    shards.pass(6_000);
    shards.elect(member(2));
    shards.pass(7_000);
    assert_eq!(
        shards.owner_name(0).as_deref(),
        Some("a"),
        "late, but its lease goes on"
    );
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert_eq!(movement.phase, MovePhase::Revoking);
    shards.pass(4_000);
    let (name, owner) = shards.owner(0).expect("an owner");
    assert_eq!(
        name, "b",
        "one timeout after the present leader applied the revoke"
    );
    assert!(owner.token > movement.id);
}

#[test]
fn r35_an_owner_whose_session_ends_is_followed_in_that_turn() {
    let mut shards = revoking();
    shards.close("a");
    shards.cluster.run();
    assert_eq!(
        shards.owner_name(0).as_deref(),
        Some("b"),
        "no delay holds it (rule R36)"
    );
}

#[test]
pub(in crate::execution::tests) fn r36_what_is_said_of_an_older_move_does_nothing() {
    let mut shards = revoking();
    let first = shards
        .assignment(PartitionId(0))
        .movement
        .expect("a move")
        .id;
    let token = shards.token(0);
    // The target is gone: once it lets go, the owner gets it back with a new token.
    shards.close("b");
    shards.obedient = true;
    shards.pass(500);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
    assert!(
        shards.token(0) > token,
        "there is no way back to the old token"
    );
    shards.obedient = false;
    shards.join("c");
    assert_eq!(shards.ask(move_to(0, &["c"])), Ok(Outcome::MapChanged));
    let token = shards.token(0);
    let late = PartitionReport::Released {
        partition: PartitionId(0),
        movement: first,
        token,
    };
    assert_eq!(shards.report("a", vec![late]), 0);
    assert_eq!(shards.owner_name(0).as_deref(), Some("a"));
}

#[test]
pub(in crate::execution::tests) fn r36_a_move_that_revokes_can_not_be_cancelled() {
    let mut shards = revoking();
    let cancel = MapOperation::CancelMove {
        partition: PartitionId(0),
    };
    let refused = shards.ask(cancel);
    assert!(refused_as(&refused, "partition-busy"), "{refused:?}");
    assert_eq!(
        shards
            .assignment(PartitionId(0))
            .movement
            .map(|it| it.phase),
        Some(MovePhase::Revoking)
    );
}

#[test]
fn a_move_that_prepares_is_cancelled() {
    let mut shards = Shards::new(MapConfig::default(), 1, 2);
    shards.pass(500);
    let (name, owner) = shards.owner(0).expect("an owner");
    let other = if name == "a" { "b" } else { "a" };
    shards.obedient = false;
    assert_eq!(shards.ask(move_to(0, &[other])), Ok(Outcome::MapChanged));
    let cancel = MapOperation::CancelMove {
        partition: PartitionId(0),
    };
    assert_eq!(shards.ask(cancel), Ok(Outcome::MapChanged));
    let after = shards.assignment(PartitionId(0));
    assert_eq!((after.movement, after.owner), (None, Some(owner)));
    assert_eq!(after.replicas.len(), 1);
}

#[test]
pub(in crate::execution::tests) fn r38_a_member_that_is_back_in_time_gets_the_same_partitions() {
    let mut shards = Shards::new(config(), 6, 3);
    shards.pass(500);
    let before: Vec<_> = (0..6).map(|it| shards.owner_name(it)).collect();
    shards.close("b");
    // A new leader sees it absent, too, and moves nothing.
    shards.elect(member(2));
    shards.pass(20_000);
    assert_eq!(shards.owned(), 4, "nobody else has its partitions");
    shards.join("b");
    shards.pass(1_000);
    let after: Vec<_> = (0..6).map(|it| shards.owner_name(it)).collect();
    assert_eq!(after, before);
}

#[test]
fn r38_a_member_that_stays_away_is_replaced() {
    let mut shards = Shards::new(config(), 6, 3);
    shards.pass(500);
    shards.close("b");
    shards.pass(31_000);
    assert_eq!(shards.owned(), 6);
    assert_eq!(shards.counts().into_values().collect::<Vec<_>>(), [3, 3]);
}

/// Steps that were taken in an overlay which is thrown away are taken again (rule R3).
#[test]
fn r03_a_refused_step_is_taken_again() {
    let mut shards = Shards::new(config(), 6, 3);
    shards.pass(500);
    shards.close("b");
    shards.pass(29_000);
    assert_eq!(shards.owned(), 4);
    shards.cluster.proposals = Proposals::Hold;
    shards.cluster.pass_ms(2_000);
    assert!(!shards.cluster.proposed.is_empty(), "they are recovered");
    // What follows it is refused, too, and what is proposed anew is not.
    shards.cluster.proposals = Proposals::Commit;
    shards.cluster.proposed.truncate(1);
    shards.cluster.refuse_one();
    shards.pass(1_000);
    assert_eq!(shards.owned(), 6);
}

#[test]
fn r38_a_ready_follower_leads_at_once() {
    let replicas = MapConfig {
        replicas: 2,
        ..config()
    };
    let mut shards = Shards::new(replicas, 3, 3);
    shards.pass(1_000);
    let (name, _) = shards.owner(0).expect("an owner");
    shards.close(&name);
    shards.cluster.run();
    let after = shards
        .owner_name(0)
        .expect("no delay holds the leader's role");
    assert_ne!(after, name);
    shards.pass(31_000);
    assert_eq!(shards.assignment(PartitionId(0)).replicas.len(), 2);
}

#[test]
fn a_draining_member_gives_up_what_it_has() {
    let mut shards = Shards::new(config(), 6, 3);
    shards.pass(500);
    let drain = GroupOperation::Drain { drain: true };
    assert_eq!(shards.group("a", drain), Ok(Outcome::GroupChanged));
    shards.pass(1_000);
    assert_eq!(shards.counts().get("a"), None);
    assert_eq!(shards.owned(), 6);
    assert_eq!(shards.assignment(PartitionId(0)).movement, None);
}

#[test]
pub(in crate::execution::tests) fn r39_the_parts_of_a_split_have_a_token_of_their_own() {
    let mut shards = Shards::new(config(), 2, 2);
    shards.pass(500);
    let (name, former) = shards.owner(0).expect("an owner");
    let layout = shards.map().1.layout;
    let split = MapOperation::Split {
        partition: PartitionId(0),
    };
    assert_eq!(shards.ask(split), Ok(Outcome::MapChanged));
    let (map, record) = shards.map();
    assert!(record.layout > layout);
    assert_eq!(shards.view().partitions(map), [1, 2, 3].map(PartitionId));
    let guard = Guard {
        path: owner_path(GROUP, PartitionId(0)),
        token: former.token,
    };
    let refused = shards
        .cluster
        .call_guarded(&mut shards.admin, vec![guard], create("/x"));
    assert!(
        refused_as(&refused, "guard-failed"),
        "the parent's token dies"
    );
    for part in [2, 3] {
        let (owner, of) = shards.owner(part).expect("the same owner");
        assert_eq!(owner, name);
        assert!(of.token > former.token);
    }
    let keys = [2, 3].map(|part| shards.partition(PartitionId(part)).key);
    let middle = 1 << 62;
    let expected = [(0, middle - 1), (middle, (1 << 63) - 1)];
    assert_eq!(
        keys,
        expected.map(|(first, last)| PartitionKey::Range { first, last })
    );
    // One that is moving is not split.
    shards.obedient = false;
    let other = if name == "a" { "b" } else { "a" };
    assert!(shards.ask(move_to(2, &[other])).is_ok());
    let refused = shards.ask(MapOperation::Split {
        partition: PartitionId(2),
    });
    assert!(refused_as(&refused, "partition-busy"), "{refused:?}");
}

#[test]
pub(in crate::execution::tests) fn r40_only_a_replica_that_has_caught_up_is_promoted() {
    let mut shards = Shards::new(MapConfig::default(), 1, 2);
    shards.obedient = false;
    shards.pass(2_000);
    assert_eq!(shards.owner_name(0), None, "nobody is ready");
    shards.obedient = true;
    shards.pass(500);
    let (name, _) = shards.owner(0).expect("an owner");
    // It comes back in another incarnation: that has to catch up anew.
    shards.obedient = false;
    shards.close(&name);
    shards.join(&name);
    shards.pass(2_000);
    assert_eq!(shards.owner_name(0), None);
    shards.obedient = true;
    shards.pass(500);
    let (again, _) = shards.owner(0).expect("an owner");
    assert_eq!(again, name);
    assert_eq!(shards.assignment(PartitionId(0)).why, MoveReason::Return);
}

#[test]
fn a_replica_that_does_not_catch_up_is_given_up() {
    let mut shards = Shards::new(MapConfig::default(), 1, 2);
    shards.pass(500);
    let (name, owner) = shards.owner(0).expect("an owner");
    let other = if name == "a" { "b" } else { "a" };
    shards.obedient = false;
    assert!(shards.ask(move_to(0, &[other])).is_ok());
    shards.pass(61_000);
    let after = shards.assignment(PartitionId(0));
    assert_eq!((after.movement, after.owner), (None, Some(owner)));
}

/// Whoever is back and never says that it is ready does not keep a partition from the others.
#[test]
fn r40_a_returning_member_that_does_not_catch_up_gives_way() {
    let mut shards = Shards::new(MapConfig::default(), 1, 2);
    shards.pass(500);
    let (name, _) = shards.owner(0).expect("an owner");
    shards.close(&name);
    shards.obedient = false;
    shards.join(&name);
    shards.pass(1_000);
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert_eq!(movement.reason, MoveReason::Return);
    shards.pass(60_500);
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert_eq!(movement.reason, MoveReason::Recovery);
    shards.obedient = true;
    shards.pass(500);
    assert_eq!(shards.owned(), 1);
}

/// A follower that is gone for a while keeps its place, also when another move ends.
#[test]
fn r38_a_follower_that_is_waited_for_keeps_its_place() {
    let replicas = MapConfig {
        replicas: 2,
        ..config()
    };
    let mut shards = Shards::new(replicas, 1, 3);
    shards.pass(1_000);
    let of = |shards: &Shards| {
        let mut members: Vec<_> = shards
            .assignment(PartitionId(0))
            .replicas
            .iter()
            .map(|replica| replica.member)
            .collect();
        members.sort_unstable();
        members
    };
    let before = of(&shards);
    let (owner, _) = shards.owner(0).expect("an owner");
    let (_, record) = shards.map();
    let name = |member: &folkmoot_proto::partition::MemberNo| &record.members[member.0 as usize];
    let follower = before.iter().map(name).find(|name| **name != owner);
    let follower = follower.expect("a follower").clone();
    shards.close(&follower);
    shards.pass(5_000);
    assert_eq!(of(&shards), before);
    shards.join(&follower);
    shards.pass(1_000);
    assert_eq!(of(&shards), before);
}

/// A partition that is pinned to a member that takes nothing waits, and asks for no plan meanwhile.
#[test]
fn a_pin_to_a_member_that_takes_nothing_is_no_endless_plan() {
    let mut shards = Shards::new(config(), 1, 2);
    shards.pass(500);
    let (owner, _) = shards.owner(0).expect("an owner");
    let other = if owner == "a" { "b" } else { "a" };
    let drain = GroupOperation::Drain { drain: true };
    assert!(shards.group(other, drain).is_ok());
    let pin = MapOperation::Change {
        partitions: vec![PartitionId(0)],
        change: folkmoot_proto::partition::PartitionChange {
            pin: Some(Some(other.to_owned())),
            ..Default::default()
        },
    };
    assert_eq!(shards.ask(pin), Ok(Outcome::MapChanged));
    shards.pass(2_000);
    let leader = shards.cluster.leader.expect("a leader");
    let now = shards.cluster.now();
    let due = shards.cluster.member(leader).execution.maps_timeout();
    assert!(
        due.is_none_or(|due| due > now.tick.plus_millis(200)),
        "{due:?}"
    );
    assert_eq!(shards.owner_name(0), Some(owner));
}

#[test]
pub(in crate::execution::tests) fn r42_two_permits_are_counted_together() {
    let replicas = MapConfig {
        replicas: 2,
        ..config()
    };
    let mut shards = Shards::new(replicas, 1, 2);
    shards.pass(1_000);
    let permit = |name: &str| MapOperation::Permit {
        members: vec![name.to_owned()],
        ttl_ms: 5_000,
    };
    let first = shards.ask(permit("a"));
    assert!(matches!(first, Ok(Outcome::Permitted { .. })), "{first:?}");
    let second = shards.ask(permit("b"));
    assert!(
        matches!(&second, Err(Refusal::NotSafe { reasons }) if reasons.len() == 1),
        "{second:?}"
    );
    shards.pass(6_000);
    let later = shards.ask(permit("b"));
    assert!(
        matches!(later, Ok(Outcome::Permitted { .. })),
        "it has passed: {later:?}"
    );
}

#[test]
fn moves_survive_a_change_of_leader() {
    let mut shards = revoking();
    let before = shards
        .assignment(PartitionId(0))
        .movement
        .expect("a move")
        .id;
    shards.elect(member(3));
    shards.pass(500);
    let movement = shards.assignment(PartitionId(0)).movement.expect("a move");
    assert_eq!(movement.id, before, "it goes on where it was");
    shards.obedient = true;
    shards.pass(500);
    assert_eq!(shards.owner_name(0).as_deref(), Some("b"));
    assert_same_state(&shards.cluster);
}

#[test]
fn what_is_asked_of_a_map_is_checked() {
    let mut shards = Shards::new(config(), 2, 2);
    shards.pass(500);
    let unknown = shards.ask(move_to(0, &["nobody"]));
    assert!(refused_as(&unknown, "unknown-member"), "{unknown:?}");
    let too_many = shards.ask(move_to(0, &["a", "b"]));
    assert!(refused_as(&too_many, "bad-map"), "{too_many:?}");
    let missing = shards.ask(move_to(9, &["a"]));
    assert!(refused_as(&missing, "unknown-partition"), "{missing:?}");
    let again = shards.ask(MapOperation::Create {
        config: config(),
        layout: folkmoot_proto::partition::Layout::Ranges(1),
    });
    assert!(refused_as(&again, "map-exists"), "{again:?}");
    let lives = shards.ask(MapOperation::Remove);
    assert!(refused_as(&lives, "bad-map"), "its members live: {lives:?}");
    for name in ["a", "b"] {
        shards.close(name);
    }
    assert_eq!(shards.ask(MapOperation::Remove), Ok(Outcome::MapChanged));
    let gone = shards.ask(MapOperation::Approve);
    assert!(refused_as(&gone, "unknown-map"), "{gone:?}");
}
