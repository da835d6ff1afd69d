//! Read barriers (rule R20).

use folkmoot_core::consensus::{Action, READS_PENDING_MAX};
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};

use crate::fixtures::*;

fn request(in_term: u64, context: ReadContext) -> ConsensusMessage {
    ConsensusMessage::ReadRequest {
        term: term(in_term),
        context,
    }
}

fn reply(in_term: u64, context: ReadContext, at: Option<u64>) -> ConsensusMessage {
    ConsensusMessage::ReadReply {
        term: term(in_term),
        context,
        index: at.map(index),
    }
}

fn ready(context: ReadContext, at: u64) -> Action {
    Action::ReadReady {
        context,
        index: index(at),
    }
}

/// R20: a round that began before the read came does not serve it; the next one serves all that
/// came meanwhile.
#[test]
fn r20_a_read_needs_a_round_begun_after_it() {
    let mut machine = settled_leader(3, &[3]);
    let [first, second, third] = [context(1, 1), context(1, 2), context(1, 3)];
    machine.read_barrier(at(1010), first);
    let round = heartbeat(4, 3, 2);
    assert_eq!(sent(&drain(&mut machine)).first(), Some(&(2, round)));
    machine.read_barrier(at(1011), second);
    machine.read_barrier(at(1011), third);
    assert_eq!(drain(&mut machine), []);
    machine.handle_message(at(1012), member(2), heartbeat_reply(4, 1, 3));
    assert_eq!(drain(&mut machine), [], "an answer to the round before");
    machine.handle_message(at(1012), member(2), heartbeat_reply(4, 2, 3));
    let actions = drain(&mut machine);
    assert_eq!(actions[0], ready(first, 3));
    assert_eq!(sent(&actions).first(), Some(&(2, heartbeat(4, 3, 3))));
    machine.handle_message(at(1013), member(3), append_ok(4, 3, 2));
    let mut actions = drain(&mut machine);
    actions.retain(|action| matches!(action, Action::ReadReady { .. }));
    assert_eq!(actions, [ready(second, 3), ready(third, 3)]);
}

/// R20: a new leader may not know yet what its predecessor acknowledged.
#[test]
fn r20_a_read_needs_a_committed_entry_of_the_leaders_own_term() {
    let (mut machine, write) = leader(3, &[3]);
    let context = context(1, 1);
    machine.read_barrier(at(1000), context);
    machine.handle_message(at(1001), member(2), heartbeat_reply(4, 1, 2));
    drain(&mut machine);
    machine.handle_message(at(1001), member(2), heartbeat_reply(4, 2, 2));
    assert!(!drain(&mut machine).contains(&ready(context, 2)));
    machine.handle_message(at(1002), member(2), append_ok(4, 2, 3));
    machine.handle_durable(at(1003), write);
    assert!(drain(&mut machine).contains(&ready(context, 3)));
}

#[test]
fn r20_a_follower_asks_its_leader_and_asks_again() {
    let mut machine = follower(3, &[3]);
    let context = context(1, 1);
    machine.read_barrier(at(0), context);
    assert_eq!(
        drain(&mut machine),
        [Action::ReadLost { context }],
        "no leader is known"
    );
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    drain(&mut machine);
    let asked = (2, request(3, context));
    machine.read_barrier(at(0), context);
    assert_eq!(sent(&drain(&mut machine)), std::slice::from_ref(&asked));
    assert_eq!(machine.poll_timeout(), Some(at(200)));
    machine.handle_timeout(at(200));
    assert_eq!(sent(&drain(&mut machine)), [asked]);
    machine.handle_message(at(201), member(2), reply(3, context, Some(2)));
    assert_eq!(drain(&mut machine), [ready(context, 2)]);
    machine.handle_message(at(202), member(2), reply(3, context, Some(2)));
    assert_eq!(drain(&mut machine), [], "the second answer is to nobody");
}

#[test]
fn r20_reads_are_lost_with_the_leader() {
    let context = context(1, 1);
    let lost = Action::ReadLost { context };
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    machine.read_barrier(at(0), context);
    drain(&mut machine);
    machine.handle_message(at(1), member(3), heartbeat(4, 0, 1));
    assert!(drain(&mut machine).contains(&lost));
    // The old leader's answer comes too late to matter.
    machine.handle_message(at(2), member(2), reply(3, context, Some(2)));
    assert_eq!(drain(&mut machine), []);

    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    machine.read_barrier(at(0), context);
    drain(&mut machine);
    machine.handle_message(at(1), member(2), reply(3, context, None));
    assert_eq!(drain(&mut machine), std::slice::from_ref(&lost));

    let mut machine = settled_leader(3, &[3]);
    machine.read_barrier(at(1000), context);
    machine.handle_message(
        at(1000),
        member(3),
        request(4, super::fixtures::context(3, 9)),
    );
    drain(&mut machine);
    machine.handle_message(at(1001), member(3), heartbeat_reply(9, 0, 0));
    let actions = drain(&mut machine);
    assert!(actions.contains(&Action::Deposed { term: term(4) }));
    assert!(actions.contains(&lost));
    machine.handle_durable(at(1001), persist_id(&actions));
    let answer = reply(4, super::fixtures::context(3, 9), None);
    let told = [sent(&actions), sent(&drain(&mut machine))].concat();
    assert!(told.contains(&(3, answer)), "{told:?}");
}

#[test]
fn a_leader_serves_followers_and_others_refuse() {
    let context = context(3, 7);
    let mut machine = settled_leader(3, &[3]);
    machine.handle_message(at(1000), member(3), request(3, context));
    drain(&mut machine);
    machine.handle_message(at(1001), member(2), heartbeat_reply(4, 2, 3));
    assert_eq!(
        sent(&drain(&mut machine)),
        [(3, reply(4, context, Some(3)))]
    );
    let mut machine = follower(3, &[3]);
    machine.handle_message(at(0), member(3), request(3, context));
    assert_eq!(sent(&drain(&mut machine)), [(3, reply(3, context, None))]);
}

/// An answer that a deposed leader's append drew from this member in the higher term is no answer
/// to a round of this term.
#[test]
fn r20_an_answer_to_an_earlier_term_confirms_no_round() {
    // Member 2, in term 4, is reached by an append that member 1 sent when it led term 3.
    let mut second = recover(2, log(3, 4, &[3]));
    let mut late = append(3, (2, 3), 0, &[]);
    if let ConsensusMessage::Append { round, .. } = &mut late {
        *round = 2;
    }
    second.handle_message(at(0), member(1), late);
    let answers = sent(&drain(&mut second));
    // Member 1 leads term 4 and reads in round 2.
    let mut machine = settled_leader(3, &[3]);
    machine.read_barrier(at(1000), context(1, 1));
    drain(&mut machine);
    for (_, answer) in answers {
        machine.handle_message(at(1001), member(2), answer);
    }
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn reads_that_wait_have_a_cap() {
    let count = READS_PENDING_MAX as u64;
    let lost = |actions: Vec<Action>| {
        let is_lost = |action: &&Action| matches!(action, Action::ReadLost { .. });
        actions.iter().filter(is_lost).count()
    };
    let mut leader = settled_leader(3, &[3]);
    let mut follower = follower(3, &[3]);
    follower.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    for machine in [&mut leader, &mut follower] {
        let now = at(1000);
        for sequence in 0..count {
            machine.read_barrier(now, context(1, sequence));
        }
        assert_eq!(lost(drain(machine)), 0);
        machine.read_barrier(now, context(1, count));
        assert_eq!(lost(drain(machine)), 1);
    }
}

/// R16, R20: a member that may not vote notices as well that its leader is gone, and those who read
/// there hear of it.
#[test]
fn r20_a_wiped_member_loses_its_reads_with_the_leader() {
    let mut recovered = log(3, 3, &[3]);
    recovered.wiped = true;
    let mut machine = recover(1, recovered);
    machine.handle_message(at(0), member(2), heartbeat(3, 0, 1));
    drain(&mut machine);
    machine.read_barrier(at(1), context(1, 1));
    drain(&mut machine);
    let due = machine.poll_timeout().unwrap();
    assert!(due < at(1001), "{due:?}");
    machine.handle_timeout(at(1001));
    let actions = drain(&mut machine);
    let lost = Action::ReadLost {
        context: context(1, 1),
    };
    assert!(actions.contains(&lost), "{actions:?}");
    let leaderless = Action::LeaderChanged {
        term: term(3),
        leader: None,
    };
    assert!(actions.contains(&leaderless), "{actions:?}");
}
