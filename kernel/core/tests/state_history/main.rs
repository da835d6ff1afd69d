//! Random histories of the state: what a leader executes, what replicas apply, what a plain model
//! says, what a checkpoint brings back, and what consistent views see are the same.

#![allow(missing_docs, reason = "a test")]

mod leader;
mod model;
mod strict;
mod watches;

use std::collections::BTreeMap;

use bytes::Bytes;
use folkmoot_core::state::{Key, PathKey, Span, State, View};
use folkmoot_proto::record::RecordChange;
use leader::{Leader, Step, new_state};
use model::Model;
use proptest::collection::vec;
use proptest::prelude::*;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<Step>(), 1..120)
}

/// All records of a state.
fn records(state: &mut State) -> BTreeMap<Bytes, Bytes> {
    let Ok(view) = state.open_view(Span::Everything) else {
        panic!("no view");
    };
    let mut records = BTreeMap::new();
    loop {
        let chunk = state.read_view(view, 500);
        records.extend(chunk.records);
        if chunk.last {
            break;
        }
    }
    state.close_view(view);
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Executing through the overlay and applying the same entries elsewhere give the same state,
    /// whenever the entries are cut and applied (rule R5).
    #[test]
    fn overlay_and_replica_agree(steps in steps()) {
        let mut leader = Leader::new();
        let mut replica = new_state();
        for step in steps {
            leader.execute(step);
            match step.0 % 16 {
                15 => leader.cut(),
                14 => drop(leader.apply_one()),
                13 if step.1 % 8 == 0 => leader.depose(),
                _ => {}
            }
        }
        let seen = Seen::of(&leader.state);
        leader.cut();
        leader.apply_all();
        for entry in &leader.entries {
            replica.apply_entry(entry).expect("it applies");
        }
        prop_assert_eq!(leader.state.overlay_txns(), 0);
        prop_assert_eq!(leader.state.base().state_hash(), replica.state_hash());
        prop_assert_eq!(seen, Seen::of(&replica));
        prop_assert_eq!(Seen::of(&leader.state), Seen::of(&replica));
    }

    /// The tree is what a plain model of it says, listings and stats included.
    #[test]
    fn the_tree_is_that_of_a_plain_model(steps in steps()) {
        let mut leader = Leader::new();
        let mut model = Model::new(leader.state.base());
        for step in steps {
            if let Some(txn) = leader.transaction(step) {
                model.apply(leader.stamp(), &txn);
            }
            leader.execute(step);
            if step.0 % 16 == 15 {
                leader.cut();
                leader.apply_all();
            }
            model.compare(&leader.state)?;
        }
    }

    /// A rollback leaves nothing: reads are as before, and so is what is executed after it.
    #[test]
    fn a_rollback_leaves_nothing(before in steps(), inside in steps(), after in steps()) {
        let mut leader = Leader::new();
        let mut plain = Leader::new();
        for (at, &step) in before.iter().enumerate() {
            leader.execute(step);
            plain.execute(step);
            if at % 20 == 19 {
                leader.cut();
                leader.apply_all();
                plain.cut();
                plain.apply_all();
            }
        }
        let seen = Seen::of(&leader.state);
        let savepoint = leader.state.savepoint();
        for &step in &inside {
            if let Some(txn) = leader.transaction(step) {
                let stamp = leader.stamp();
                prop_assert_eq!(leader.state.apply_txn(stamp, &txn), Ok(()));
            }
        }
        leader.state.rollback(savepoint);
        prop_assert_eq!(seen, Seen::of(&leader.state));
        for &step in &after {
            leader.execute(step);
            plain.execute(step);
        }
        for leader in [&mut leader, &mut plain] {
            leader.cut();
            leader.apply_all();
        }
        prop_assert_eq!(leader.state.base().state_hash(), plain.state.base().state_hash());
    }

    /// Deltas, put one over the other, are the whole state: what is restored from them reads,
    /// hashes and goes on as the one they were taken from (rule R26).
    #[test]
    fn deltas_bring_everything_back(before in steps(), after in steps()) {
        let mut leader = Leader::new();
        let mut stored = BTreeMap::new();
        for (at, &step) in before.iter().enumerate() {
            leader.execute(step);
            if at % 7 == 6 {
                leader.cut();
                leader.apply_all();
            }
            if at % 21 == 20 {
                store(&mut stored, leader.state.base_mut());
            }
        }
        leader.cut();
        leader.apply_all();
        let meta = store(&mut stored, leader.state.base_mut());
        prop_assert_eq!(&stored, &records(leader.state.base_mut()));
        let mut restored = State::from_records(&meta, stored.clone()).expect("it is whole");
        prop_assert_eq!(restored.state_hash(), leader.state.base().state_hash());
        prop_assert_eq!(restored.position(), leader.state.base().position());
        prop_assert_eq!(Seen::of(&restored), Seen::of(leader.state.base()));
        let base = leader.entries.len();
        for &step in &after {
            leader.execute(step);
        }
        leader.cut();
        leader.apply_all();
        for entry in &leader.entries[base..] {
            restored.apply_entry(entry).expect("it applies");
        }
        prop_assert_eq!(restored.state_hash(), leader.state.base().state_hash());
        store(&mut stored, &mut restored);
        prop_assert_eq!(&stored, &records(&mut restored));
        prop_assert_eq!(stored, records(leader.state.base_mut()));
    }

    /// A record that is missing, changed or too many is found at load.
    #[test]
    fn a_damaged_checkpoint_is_refused(
        before in steps(),
        place in any::<proptest::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut leader = Leader::new();
        for &step in &before {
            leader.execute(step);
        }
        leader.cut();
        leader.apply_all();
        let mut stored = BTreeMap::new();
        let meta = store(&mut stored, leader.state.base_mut());
        let (key, value) = stored.iter().nth(place.index(stored.len())).expect("a record");
        let (key, value) = (key.clone(), value.clone());
        let mut missing = stored.clone();
        missing.remove(&key);
        prop_assert!(State::from_records(&meta, missing).is_err());
        let mut changed = value.to_vec();
        if changed.is_empty() {
            changed.push(flip);
        } else {
            let at = place.index(changed.len());
            changed[at] ^= flip;
        }
        stored.insert(key, changed.into());
        prop_assert!(State::from_records(&meta, stored).is_err());
    }

    /// Views see the state as it was when they were opened, whatever changes meanwhile and however
    /// they are read.
    #[test]
    fn views_stand_still(before in steps(), during in steps(), top in 0..5_u8) {
        let mut leader = Leader::new();
        for &step in &before {
            leader.execute(step);
        }
        leader.cut();
        leader.apply_all();
        let state = leader.state.base_mut();
        let top = leader::path_of(top, 0);
        let spans = [
            Span::Everything,
            Span::Node(top.clone()),
            Span::Subtree(top.clone()),
            Span::Subtree("/".into()),
            Span::Children(top),
            Span::Children("/".into()),
            Span::ChildrenAfter("/".into(), Some("a".into())),
        ];
        let mut views = Vec::new();
        for span in spans {
            let expected = expected_of(state, &span);
            views.push((state.open_view(span).expect("a view"), expected, BTreeMap::new()));
        }
        let meta = state.meta();
        for &step in &during {
            leader.execute(step);
            leader.cut();
            leader.apply_all();
            let reader = usize::from(step.1) % (views.len() * 2);
            if let Some((view, _, got)) = views.get_mut(reader) {
                let chunk = leader.state.base_mut().read_view(*view, usize::from(step.2));
                got.extend(chunk.records);
            }
        }
        for (view, expected, mut got) in views {
            let state = leader.state.base_mut();
            prop_assert_eq!(state.view_meta(view), Some(&meta));
            loop {
                let chunk = state.read_view(view, 64);
                got.extend(chunk.records);
                if chunk.last {
                    break;
                }
            }
            state.close_view(view);
            prop_assert_eq!(expected, got);
        }
    }

    /// The bytes of keys sort as the keys do, and come back.
    #[test]
    fn keys_and_their_bytes_have_one_order(
        a in "(/[a-c! -]{1,3}){1,3}",
        b in "(/[a-c! -]{1,3}){1,3}",
    ) {
        let bytes = |path: &str| {
            let mut bytes = Vec::new();
            Key::Node(PathKey::new(path)).encode(&mut bytes);
            bytes
        };
        prop_assert_eq!(PathKey::new(&a).cmp(&PathKey::new(&b)), bytes(&a).cmp(&bytes(&b)));
        prop_assert_eq!(Key::decode(&bytes(&a)), Ok(Key::Node(PathKey::new(&a))));
    }
}

/// Writes a delta over what is stored.
fn store(
    stored: &mut BTreeMap<Bytes, Bytes>,
    state: &mut State,
) -> folkmoot_proto::record::StateMeta {
    let delta = state.take_delta();
    for RecordChange { key, value } in delta.changes {
        match value {
            Some(value) => stored.insert(key, value),
            None => stored.remove(&key),
        };
    }
    delta.meta
}

fn expected_of(state: &mut State, span: &Span) -> BTreeMap<Bytes, Bytes> {
    let mut expected = records(state);
    expected.retain(|key, _| {
        let Ok(key) = Key::decode(key) else {
            panic!("a key");
        };
        let path = match (&key, span) {
            (_, Span::Everything) => return true,
            (Key::Node(path), _) => path,
            _ => return false,
        };
        let parent = path.split_last().map(|(parent, _)| parent);
        match span {
            Span::Everything => true,
            Span::Node(at) => path.as_str() == at,
            Span::Subtree(top) => path.is_within(top),
            Span::Children(top) => path.as_str() == top || parent == Some(top),
            Span::ChildrenAfter(top, after) => {
                parent == Some(top) && after.as_deref().is_none_or(|after| path.name() > after)
            }
        }
    });
    expected
}

/// Everything that can be read of a state.
#[derive(Debug, PartialEq)]
struct Seen(Vec<String>);

impl Seen {
    fn of(state: &impl View) -> Self {
        let mut seen = vec![
            format!("{:?} {:?}", state.zxid(), state.log_time()),
            format!("{:?}", state.counters()),
            format!("{:?}", state.next_due()),
        ];
        let mut paths = vec!["/".to_owned()];
        while let Some(path) = paths.pop() {
            seen.push(format!("{path} {:?}", state.node(&path)));
            for name in state.children(&path, None, usize::MAX) {
                paths.push(format!("{}/{name}", path.trim_end_matches('/')));
            }
            seen.push(format!("{:?}", state.mount_covering(&path)));
            seen.push(format!("{:?}", state.mount_within(&path)));
        }
        for session in state.sessions() {
            seen.push(format!("{:?}", state.session(session)));
            seen.push(format!("{:?}", state.ephemerals(session)));
            seen.push(format!("{:?}", state.waits_of_session(session)));
            seen.push(format!("{:?}", state.completions(session)));
            seen.push(format!("{:?}", state.followers(session)));
            seen.push(format!("{:?}", state.uploads_of_session(session)));
            if let Some(open) = state.session(session) {
                seen.push(format!("{:?}", state.session_by_secret(open.secret)));
                for request in 0..=open.last_id.0 + 1 {
                    let request = folkmoot_proto::RequestId(request);
                    seen.push(format!("{:?}", state.reply(session, request)));
                }
            }
        }
        let far = folkmoot_proto::LogTime(u64::MAX);
        for ticket in state.due_waits(far, usize::MAX) {
            seen.push(format!("{:?}", state.wait(ticket)));
        }
        seen.push(format!("{:?}", state.due_timers(far, usize::MAX)));
        for mount in state.mounts() {
            seen.push(format!("{mount:?} {:?}", state.event_queue(mount.id)));
            seen.push(format!("{:?}", state.first_event(mount.id)));
            seen.push(format!("{:?}", state.waits_of_mount(mount.id)));
            seen.push(format!("{:?}", state.followed_by(mount.id)));
            for name in state.timers_of_mount(mount.id, usize::MAX) {
                seen.push(format!("{:?}", state.timer(mount.id, &name)));
            }
        }
        seen.push(format!("{:?}", state.uploads()));
        seen.push(format!("{:?}", state.components()));
        for (digest, _) in state.components() {
            seen.push(format!("{:?}", state.component_bytes(digest)));
        }
        Self(seen)
    }
}
