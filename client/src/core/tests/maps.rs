//! Partition maps and the leases of partitions: what is told, what is acknowledged, what is owned.

use folkmoot_proto::LogTime;
use folkmoot_proto::codec::Compact as _;
use folkmoot_proto::group::GroupOperation;
use folkmoot_proto::limits::MAP_NAMED_MAX;
use folkmoot_proto::partition::{
    Assignment, FullBody, MapDetail, MapUpdate, MemberNo, MovePhase, MoveReason, Movement, Owner,
    PartitionKey, PartitionLoad, PartitionRecord, PartitionReport, PartitionSpec, Replica,
    RoutedMember, RoutedPartition, RoutingBody,
};

use super::super::copies::MapCopy;
use super::*;

const ME: Zxid = Zxid(10);
const MY_NUMBER: MemberNo = MemberNo(1);
const OTHER: MemberNo = MemberNo(2);
const P: PartitionId = PartitionId(4);
const HOLDER: HolderKey = 77;

/// A machine with a member that holds partitions of the map of `g`.
struct Owning {
    script: Script,
    table: SharedTable,
}

fn full() -> MapKey {
    MapKey {
        group: "g".to_owned(),
        detail: MapDetail::Full,
    }
}

fn members() -> Vec<RoutedMember> {
    let member = |number: MemberNo, id: &str, incarnation| RoutedMember {
        member: number,
        id: id.to_owned(),
        incarnation: Some(incarnation),
        address: String::new(),
        zone: String::new(),
    };
    vec![
        member(MY_NUMBER, "me", ME),
        member(OTHER, "other", Zxid(11)),
    ]
}

fn owned_by(member: MemberNo, incarnation: Zxid, token: u64) -> PartitionRecord {
    let owner = Owner {
        member,
        incarnation,
        token: Zxid(token),
    };
    record(Some(owner), Vec::new(), None)
}

fn record(
    owner: Option<Owner>,
    replicas: Vec<Replica>,
    movement: Option<Movement>,
) -> PartitionRecord {
    PartitionRecord {
        key: PartitionKey::Name("p".to_owned()),
        spec: PartitionSpec::default(),
        assignment: Assignment {
            owner,
            replicas,
            movement,
            since: LogTime(0),
            why: MoveReason::Balance,
        },
        created: Zxid(1),
        changed: Zxid(1),
    }
}

fn mine(token: u64) -> PartitionRecord {
    owned_by(MY_NUMBER, ME, token)
}

fn movement(id: u64, phase: MovePhase) -> Movement {
    Movement {
        id: Zxid(id),
        phase,
        target: vec![OTHER],
        reason: MoveReason::Balance,
        deadline: LogTime(0),
    }
}

fn revoked(token: u64, move_id: u64) -> PartitionRecord {
    let mut record = mine(token);
    record.assignment.movement = Some(movement(move_id, MovePhase::Revoking));
    record
}

fn caught_up(ready: bool) -> PartitionRecord {
    let replica = Replica {
        member: MY_NUMBER,
        incarnation: ME,
        ready,
    };
    let movement = movement(30, MovePhase::Preparing);
    record(None, vec![replica], Some(movement))
}

fn update(base: Option<u64>, through: u64, body: &FullBody) -> ServerFrame {
    ServerFrame::Map(MapUpdate {
        group: "g".to_owned(),
        detail: MapDetail::Full,
        base: base.map(Zxid),
        through: Zxid(through),
        body: body.to_compact(),
    })
}

fn body(members: Vec<RoutedMember>, partitions: &[(PartitionId, PartitionRecord)]) -> FullBody {
    FullBody {
        layout: Zxid(5),
        map: None,
        members,
        partitions: partitions.to_vec(),
    }
}

fn gain(token: u64) -> OwnerEvent {
    OwnerEvent::Gain(Grant {
        group: "g".into(),
        partition: P,
        key: PartitionKey::Name("p".to_owned()),
        token: Zxid(token),
    })
}

fn lost(token: u64) -> OwnerEvent {
    OwnerEvent::Lost {
        partition: P,
        token: Zxid(token),
        gains: 1,
    }
}

fn revoke(token: u64) -> OwnerEvent {
    OwnerEvent::Revoke {
        partition: P,
        token: Zxid(token),
        gains: 1,
    }
}

impl Owning {
    /// The map was told through 20, and nothing of it is mine.
    fn begin() -> Self {
        let mut owning = Self::unknown();
        owning.everything(20, &[]);
        assert_eq!(owning.events(), [OwnerEvent::Began]);
        owning
    }

    /// Nothing was told yet.
    fn unknown() -> Self {
        let mut script = Script::open();
        script.core.submit_map(full());
        let table = SharedTable::default();
        let holder = Holder::new("g".to_owned(), "me".to_owned(), ME, table.clone());
        let now = script.now;
        script.core.hold(now, HOLDER, holder);
        let since = None;
        assert_eq!(script.sent(), [watch_map(since)]);
        Self { script, table }
    }

    /// The lease is extended, and `P` is owned with token 25.
    fn with_partition() -> Self {
        let mut owning = Self::begin();
        owning.acknowledge(0, 20);
        owning.change(20, 25, &[(P, mine(25))]);
        assert_eq!(owning.events(), [gain(25)]);
        owning
    }

    fn everything(&mut self, through: u64, partitions: &[(PartitionId, PartitionRecord)]) {
        let body = body(members(), partitions);
        self.script.hear(update(None, through, &body));
    }

    fn change(&mut self, base: u64, through: u64, partitions: &[(PartitionId, PartitionRecord)]) {
        let body = body(Vec::new(), partitions);
        self.script.hear(update(Some(base), through, &body));
    }

    /// A heartbeat that was sent at so many milliseconds is acknowledged now.
    fn acknowledge(&mut self, sent: u64, position: u64) {
        let now = self.script.now;
        let position = Some(Zxid(position));
        self.script
            .core
            .handle_heartbeat_ack(now, at(sent), position);
    }

    fn events(&mut self) -> Vec<OwnerEvent> {
        let event = |output| match output {
            Output::Owner(HOLDER, event) => Some(event),
            _ => None,
        };
        let outputs = self.script.outputs();
        outputs.into_iter().filter_map(event).collect()
    }

    fn owns(&self) -> bool {
        self.owns_at(self.script.now)
    }

    fn owns_at(&self, now: Tick) -> bool {
        self.table.read().owned(P, now).is_some()
    }

    fn reports(&mut self) -> Vec<PartitionReport> {
        self.table.write().take_reports(self.script.now, 10)
    }
}

fn watch_map(since: Option<u64>) -> ClientFrame {
    ClientFrame::WatchMap {
        group: "g".to_owned(),
        detail: MapDetail::Full,
        since: since.map(Zxid),
    }
}

/// As long as the lease is, in milliseconds.
const LEASE: u64 = 9_900;

#[test]
fn a_partition_is_owned_as_long_as_the_lease_and_no_longer() {
    let owning = Owning::with_partition();
    assert!(owning.owns());
    assert!(owning.owns_at(at(LEASE - 1)));
    assert!(!owning.owns_at(at(LEASE)));
    assert_eq!(
        owning
            .table
            .read()
            .owned_key(b"p", at(0))
            .map(|of| of.token),
        Some(Zxid(25))
    );
}

#[test]
fn nothing_is_owned_before_an_acknowledgement_names_a_position() {
    let mut owning = Owning::begin();
    owning.change(20, 25, &[(P, mine(25))]);
    let now = owning.script.now;
    owning.script.core.handle_heartbeat_ack(now, at(0), None);
    assert_eq!(owning.events(), []);
    assert!(!owning.owns());
    owning.acknowledge(0, 25);
    assert_eq!(owning.events(), [gain(25)]);
    assert!(owning.owns());
}

/// Rule R35: an acknowledgement without a position extends nothing.
#[test]
fn an_acknowledgement_without_a_position_does_not_extend_a_partitions_lease() {
    let mut owning = Owning::with_partition();
    owning.script.pass(5000);
    let now = owning.script.now;
    owning.script.core.handle_heartbeat_ack(now, at(5000), None);
    owning.script.pass(LEASE - 5000);
    assert!(!owning.owns());
    assert_eq!(owning.events(), [lost(25)]);
}

/// Rule R35: the acknowledgement comes on another stream than the map, and may come first.
#[test]
fn an_acknowledgement_is_kept_until_the_map_is_taken_in_through_its_position() {
    let mut owning = Owning::with_partition();
    owning.script.pass(5000);
    owning.acknowledge(5000, 40);
    assert!(!owning.owns_at(at(LEASE)), "40 was not taken in");
    owning.change(25, 39, &[]);
    assert!(!owning.owns_at(at(LEASE)), "nor was it by 39");
    owning.change(39, 40, &[]);
    assert!(owning.owns_at(at(LEASE)));
    assert!(owning.owns_at(at(5000 + LEASE - 1)));
    assert!(!owning.owns_at(at(5000 + LEASE)));
}

/// Rule R35: the revoke sits on a blocked stream, and heartbeats go on.
#[test]
fn a_revoke_that_does_not_arrive_ends_the_lease_all_the_same() {
    let mut owning = Owning::with_partition();
    for second in 1..=9 {
        owning.script.pass(1000);
        owning.acknowledge(second * 1000, 30);
    }
    assert!(owning.owns());
    owning.script.pass(LEASE - 9000);
    assert!(!owning.owns());
    assert_eq!(owning.events(), [lost(25)]);
    // The revoke arrives: what was lost is let go, and the kept acknowledgements extend nothing.
    owning.change(25, 30, &[(P, revoked(25, 30))]);
    assert!(!owning.owns());
    let let_go = OwnerEvent::LetGo {
        partition: P,
        token: Zxid(25),
        gains: 1,
    };
    assert_eq!(owning.events(), [let_go]);
}

/// Rule R35: the lease of what is revoked is not extended, that of the rest is.
#[test]
fn a_lease_is_not_extended_once_the_revoke_was_taken_in() {
    let mut owning = Owning::with_partition();
    let rest = PartitionId(9);
    let mut other = mine(26);
    other.key = PartitionKey::Name("rest".to_owned());
    owning.change(25, 26, &[(rest, other)]);
    owning.script.pass(5000);
    owning.acknowledge(5000, 30);
    owning.change(26, 30, &[(P, revoked(25, 30))]);
    let events = owning.events();
    assert!(events.contains(&revoke(25)), "{events:?}");
    assert!(owning.owns(), "until it has let go");
    owning.script.pass(1000);
    owning.acknowledge(6000, 30);
    owning.script.pass(LEASE - 6000);
    assert!(!owning.owns());
    let now = owning.script.now;
    assert!(owning.table.read().owned(rest, now).is_some());
    assert_eq!(owning.events(), [lost(25)]);
}

#[test]
fn what_was_let_go_is_owned_no_more_and_is_reported_until_the_map_shows_it() {
    let mut owning = Owning::with_partition();
    owning.change(25, 30, &[(P, revoked(25, 30))]);
    assert_eq!(owning.events(), [revoke(25)]);
    assert_eq!(owning.reports(), []);
    owning.table.write().let_go(P, Zxid(25), 1);
    assert!(!owning.owns());
    let released = PartitionReport::Released {
        partition: P,
        movement: Zxid(30),
        token: Zxid(25),
    };
    assert_eq!(owning.reports(), [released]);
    assert_eq!(owning.reports(), [], "it is under way");
    owning.script.pass(1000);
    assert_eq!(owning.reports(), [released]);
    owning.script.pass(1000);
    owning.change(30, 31, &[(P, owned_by(OTHER, Zxid(11), 31))]);
    assert_eq!(owning.reports(), []);
    assert_eq!(owning.events(), [], "it is not lost, it was let go");
}

#[test]
fn what_is_not_to_be_let_go_is_not_reported_as_such() {
    let mut owning = Owning::with_partition();
    owning.table.write().let_go(P, Zxid(25), 1);
    assert_eq!(owning.reports(), []);
    assert!(owning.owns());
}

/// Rule R36: what is said names the move that it is said of.
#[test]
fn a_replica_catches_up_for_each_move_anew() {
    let mut owning = Owning::begin();
    owning.change(20, 30, &[(P, caught_up(false))]);
    let prepare = |movement| OwnerEvent::Prepare {
        partition: P,
        key: PartitionKey::Name("p".to_owned()),
        movement: Zxid(movement),
    };
    assert_eq!(owning.events(), [prepare(30)]);
    owning.table.write().prepared(P, Zxid(30));
    let ready = PartitionReport::Ready {
        partition: P,
        movement: Zxid(30),
    };
    assert_eq!(owning.reports(), [ready]);
    // That move was cancelled, and there is another one.
    let mut another = caught_up(false);
    another.assignment.movement = Some(movement(32, MovePhase::Preparing));
    owning.change(30, 32, &[(P, another)]);
    let unprepare = OwnerEvent::Unprepare { partition: P };
    assert_eq!(owning.events(), [unprepare.clone(), prepare(32)]);
    owning.script.pass(1000);
    assert_eq!(
        owning.reports(),
        [],
        "what was said of the other move is void"
    );
    owning.change(32, 33, &[(P, caught_up(true))]);
    assert_eq!(owning.events(), [unprepare]);
}

/// Whoever catches up for nothing is told so: else its work would never end.
#[test]
fn what_catches_up_ends_with_its_membership() {
    let mut owning = Owning::begin();
    owning.change(20, 30, &[(P, caught_up(false))]);
    assert_eq!(owning.events().len(), 1);
    owning.script.core.submit(leave("me"), Vec::new());
    let over = OwnerEvent::Over(HolderEnd::Left);
    let unprepare = OwnerEvent::Unprepare { partition: P };
    assert_eq!(owning.events(), [unprepare, over]);
}

/// Rule R34: another incarnation's promotion is none of this one's.
#[test]
fn what_another_incarnation_owns_is_not_owned() {
    let mut owning = Owning::begin();
    owning.acknowledge(0, 20);
    owning.change(20, 25, &[(P, owned_by(MY_NUMBER, Zxid(9), 25))]);
    assert_eq!(owning.events(), []);
    assert!(!owning.owns());
    owning.change(25, 26, &[(P, mine(26))]);
    assert_eq!(owning.events(), [gain(26)]);
    // The member came back with another session.
    let mut members = members();
    members[0].incarnation = Some(Zxid(27));
    let body = body(members, &[]);
    owning.script.hear(update(Some(26), 27, &body));
    assert_eq!(owning.events(), [lost(26)]);
    assert!(!owning.owns());
}

#[test]
fn another_token_is_another_grant() {
    let mut owning = Owning::with_partition();
    owning.change(25, 31, &[(P, mine(31))]);
    assert_eq!(owning.events(), [lost(25), gain(31)]);
    owning.change(31, 40, &[(P, owned_by(OTHER, Zxid(11), 40))]);
    assert_eq!(owning.events(), [lost(31)]);
    assert!(!owning.owns());
}

/// Rule R39: the parent's token dies, and the same member gets the parts.
#[test]
fn a_split_takes_the_parent_and_gives_the_parts() {
    let mut owning = Owning::with_partition();
    let range = |first, last, token| {
        let mut record = mine(token);
        record.key = PartitionKey::Range { first, last };
        record
    };
    let parts = [
        (PartitionId(7), range(0, u64::MAX / 2, 50)),
        (PartitionId(8), range(u64::MAX / 2 + 1, u64::MAX, 50)),
    ];
    let mut body = body(members(), &parts);
    body.layout = Zxid(50);
    owning.script.hear(update(None, 50, &body));
    let events = owning.events();
    assert_eq!(events.first(), Some(&lost(25)));
    assert_eq!(events.len(), 3, "{events:?}");
    let table = owning.table.read();
    assert_eq!(table.layout, Zxid(50));
    assert!(table.owned_key(b"any", owning.script.now).is_some());
    assert_eq!(
        table.owned_key(b"p", at(0)).map(|of| of.token),
        Some(Zxid(50))
    );
}

#[test]
fn a_lease_that_was_over_and_goes_on_after_all_is_a_gain() {
    let mut owning = Owning::with_partition();
    owning.script.pass(LEASE);
    assert_eq!(owning.events(), [lost(25)]);
    assert!(!owning.owns());
    let now = owning.script.now.0 / 1000;
    owning.acknowledge(now, 25);
    assert_eq!(owning.events(), [gain(25)]);
    assert!(owning.owns());
}

/// What was lost has stopped, and its owner may not have heard yet that it was gained again.
#[test]
fn a_gain_after_a_loss_is_let_go_only_by_what_follows_it() {
    let mut owning = Owning::with_partition();
    owning.script.pass(LEASE);
    assert_eq!(owning.events(), [lost(25)]);
    owning.acknowledge(LEASE, 25);
    owning.change(25, 30, &[(P, revoked(25, 30))]);
    let revoke = OwnerEvent::Revoke {
        partition: P,
        token: Zxid(25),
        gains: 2,
    };
    assert_eq!(owning.events(), [gain(25), revoke]);
    owning.table.write().let_go(P, Zxid(25), 1);
    assert_eq!(owning.reports(), []);
    assert!(owning.owns());
    owning.table.write().let_go(P, Zxid(25), 2);
    assert_eq!(owning.reports().len(), 1);
    assert!(!owning.owns());
}

#[test]
fn the_end_of_the_session_is_the_end_of_what_is_owned() {
    let mut owning = Owning::with_partition();
    owning
        .script
        .hear(ServerFrame::SessionEnded { expired: true });
    let over = OwnerEvent::Over(HolderEnd::Session { expired: true });
    assert_eq!(owning.events(), [lost(25), over]);
    assert!(!owning.owns());
}

fn leave(member: &str) -> Operation {
    Operation::Group {
        group: "g".to_owned(),
        member: member.to_owned(),
        operation: GroupOperation::Leave,
    }
}

impl Owning {
    /// The member is held once more, as of an incarnation.
    fn hold(&mut self, incarnation: Zxid) {
        let (group, member) = ("g".to_owned(), "me".to_owned());
        let holder = Holder::new(group, member, incarnation, self.table.clone());
        self.script.core.hold(self.script.now, HOLDER, holder);
    }
}

/// Who is promoted in its place does not wait for its lease.
#[test]
fn what_a_member_owns_is_lost_before_its_leave_is_sent() {
    let mut owning = Owning::with_partition();
    let id = owning.script.core.submit(leave("other"), Vec::new());
    assert!(owning.owns(), "another one leaves");
    owning.script.core.submit(leave("me"), Vec::new());
    assert!(!owning.owns());
    let over = OwnerEvent::Over(HolderEnd::Left);
    assert_eq!(owning.events(), [lost(25), over]);
    assert_eq!(owning.script.sent_ids(), [id.0, id.0 + 1]);
    // The map that shows it is not there yet, and heartbeats go on.
    owning.acknowledge(0, 25);
    assert!(!owning.owns());
}

#[test]
fn what_a_session_owns_is_lost_before_its_close_is_sent() {
    let mut owning = Owning::with_partition();
    let id = owning
        .script
        .core
        .submit(Operation::CloseSession, Vec::new());
    assert!(!owning.owns());
    let over = OwnerEvent::Over(HolderEnd::Session { expired: false });
    assert_eq!(owning.events(), [lost(25), over.clone()]);
    assert_eq!(owning.script.sent_ids(), [id.0]);
    owning.hold(ME);
    owning.acknowledge(0, 25);
    assert_eq!(owning.events(), [over]);
    assert!(!owning.owns());
}

/// The map that is known still says that it owns.
#[test]
fn a_member_that_left_is_held_again_only_by_another_incarnation() {
    let mut owning = Owning::with_partition();
    let id = owning.script.core.submit(leave("me"), Vec::new());
    owning.events();
    owning.script.sent();
    let over = OwnerEvent::Over(HolderEnd::Left);
    owning.hold(ME);
    owning.acknowledge(0, 25);
    assert_eq!(owning.events(), std::slice::from_ref(&over));
    // At zxid 101.
    owning.script.hear(reply(id.0, Ok(Outcome::GroupChanged)));
    assert_eq!(id.0, 1);
    owning.hold(ME);
    owning.acknowledge(0, 25);
    assert_eq!(owning.events(), [over]);
    assert!(!owning.owns());
    owning.hold(Zxid(102));
    assert_eq!(owning.events(), [OwnerEvent::Began]);
}

#[test]
fn a_leave_that_was_refused_lets_the_member_be_held_again() {
    let mut owning = Owning::with_partition();
    let id = owning.script.core.submit(leave("me"), Vec::new());
    owning.events();
    owning.script.sent();
    let refused = Refusal::GuardFailed {
        path: "/lock".to_owned(),
        token: Zxid(3),
        current: None,
    };
    owning.script.hear(reply(id.0, Err(refused)));
    owning.hold(ME);
    owning.acknowledge(0, 25);
    assert_eq!(owning.events(), [OwnerEvent::Began, gain(25)]);
    assert!(owning.owns());
}

#[test]
fn a_map_is_asked_for_again_from_where_it_is_before_all_watches_are_resumed() {
    let mut owning = Owning::with_partition();
    let sent = owning.script.reconnect(2, 25, 0);
    assert_eq!(sent, [watch_map(Some(25))]);
    // The member of the new stream has told nothing yet.
    owning.script.pass(5000);
    owning.acknowledge(5000, 60);
    assert!(!owning.owns_at(at(LEASE)));
    owning.change(25, 70, &[]);
    assert!(owning.owns_at(at(LEASE)));
    assert!(owning.owns());
}

/// A part of a large map says nothing of what is in the others.
#[test]
fn a_map_in_parts_is_taken_in_when_it_is_whole() {
    let mut owning = Owning::with_partition();
    owning.script.reconnect(2, 25, 0);
    let rest = PartitionId(9);
    let mut other = mine(26);
    other.key = PartitionKey::Name("rest".to_owned());
    owning.everything(0, &[(rest, other)]);
    assert_eq!(owning.events(), []);
    assert!(owning.owns(), "what was taken in before stands");
    owning.script.pass(5000);
    owning.acknowledge(5000, 30);
    owning.change(0, 0, &[(PartitionId(10), owned_by(OTHER, Zxid(11), 8))]);
    assert_eq!(owning.events(), []);
    owning.change(0, 30, &[(P, mine(25))]);
    let events = owning.events();
    assert!(
        matches!(&events[..], [OwnerEvent::Gain(grant)] if grant.partition == rest),
        "{events:?}"
    );
    assert!(owning.owns_at(at(LEASE)), "30 is taken in");
    // What is in no part is gone.
    owning.script.reconnect(3, 30, 0);
    owning.everything(0, &[]);
    owning.change(0, 40, &[]);
    assert!(!owning.owns());
}

/// A change in parts brings the client no further than it was, but for the last.
#[test]
fn a_change_in_parts_is_taken_in_through_its_last() {
    let mut owning = Owning::with_partition();
    owning.script.pass(5000);
    owning.acknowledge(5000, 40);
    owning.change(25, 25, &[(PartitionId(9), owned_by(OTHER, Zxid(11), 8))]);
    assert!(!owning.owns_at(at(LEASE)));
    owning.change(25, 40, &[(P, revoked(25, 40))]);
    assert!(!owning.owns_at(at(LEASE)), "it is revoked");
    assert_eq!(owning.events(), [revoke(25)]);
}

#[test]
fn what_was_missed_is_seen_from_everything() {
    let mut owning = Owning::with_partition();
    owning.script.reconnect(2, 25, 0);
    owning.everything(90, &[(P, mine(80))]);
    assert_eq!(owning.events(), [lost(25), gain(80)]);
    owning.script.reconnect(3, 90, 0);
    owning.everything(95, &[]);
    assert_eq!(owning.events(), [lost(80)]);
}

fn hear(script: &mut Script, frame: ServerFrame) -> Result<(), Violation> {
    let (now, member) = (script.now, script.member);
    script.core.handle_frame(now, member, frame)
}

#[test]
fn an_update_that_does_not_follow_is_a_violation() {
    let mut owning = Owning::begin();
    let empty = body(Vec::new(), &[]);
    for (base, through) in [(Some(19), 30), (Some(21), 30), (Some(20), 19), (None, 19)] {
        let heard = hear(&mut owning.script, update(base, through, &empty));
        assert!(
            matches!(heard, Err(Violation::MapOutOfOrder { .. })),
            "{base:?} {through}: {heard:?}"
        );
    }
    let mut another = empty.clone();
    another.layout = Zxid(6);
    let heard = hear(&mut owning.script, update(Some(20), 30, &another));
    assert!(matches!(heard, Err(Violation::OtherLayout { .. })));
    let ServerFrame::Map(mut broken) = update(None, 30, &empty) else {
        panic!("a map");
    };
    broken.body.push(0);
    let heard = hear(&mut owning.script, ServerFrame::Map(broken));
    assert!(matches!(heard, Err(Violation::BadMap { .. })), "{heard:?}");
}

#[test]
fn a_refused_map_ends_its_holder() {
    let mut owning = Owning::unknown();
    owning.script.hear(ServerFrame::MapRefused {
        group: "g".to_owned(),
        detail: MapDetail::Full,
        reason: "too many".to_owned(),
    });
    let reason = "too many".to_owned();
    let over = OwnerEvent::Over(HolderEnd::Refused { reason });
    assert_eq!(owning.events(), [over]);
}

#[test]
fn a_map_that_nobody_looks_at_is_not_told_any_more() {
    let mut owning = Owning::begin();
    owning.script.core.end_hold(HOLDER);
    owning.script.core.end_map(&full());
    let unwatch = ClientFrame::UnwatchMap {
        group: "g".to_owned(),
        detail: MapDetail::Full,
    };
    assert_eq!(owning.script.sent(), [unwatch]);
    // What crossed it does nothing.
    owning.change(20, 25, &[(P, mine(25))]);
    assert_eq!(owning.events(), []);
}

#[test]
fn a_router_is_told_its_map_beside_an_owners() {
    let mut owning = Owning::begin();
    let routing = MapKey {
        group: "g".to_owned(),
        detail: MapDetail::Routing,
    };
    let (copy, through) = owning.script.core.submit_map(routing.clone());
    assert_eq!(through, None);
    owning.script.sent();
    let partition = |key: Option<&str>, owner| RoutedPartition {
        partition: P,
        key: key.map(|name| PartitionKey::Name(name.to_owned())),
        owner,
        followers: Vec::new(),
    };
    let told = |base: Option<u64>, through, partition| {
        let body = RoutingBody {
            layout: Zxid(5),
            members: Vec::new(),
            partitions: vec![partition],
        };
        ServerFrame::Map(MapUpdate {
            group: "g".to_owned(),
            detail: MapDetail::Routing,
            base: base.map(Zxid),
            through: Zxid(through),
            body: body.to_compact(),
        })
    };
    owning
        .script
        .hear(told(None, 20, partition(Some("p"), Some(OTHER))));
    owning
        .script
        .hear(told(Some(20), 21, partition(None, Some(MY_NUMBER))));
    let owner = |copy: &MapCopy| {
        let map = copy.routing().expect("a router's");
        map.partition_of(b"p").and_then(|(_, of)| of.owner)
    };
    assert_eq!(owner(&copy.read()), Some(MY_NUMBER));
    let unknown = RoutedPartition {
        partition: PartitionId(5),
        ..partition(None, None)
    };
    let heard = hear(&mut owning.script, told(Some(21), 22, unknown));
    assert!(matches!(heard, Err(Violation::UnknownPartition { .. })));
}

impl Owning {
    fn measure(&mut self, partition: PartitionId, load: u64) -> bool {
        let now = self.script.now;
        self.table.write().measured(partition, load, now)
    }
}

fn loads(loads: &[(PartitionId, u64, u64)]) -> ClientFrame {
    let load = |&(partition, token, load): &(PartitionId, u64, u64)| PartitionLoad {
        partition,
        token: Zxid(token),
        load,
    };
    ClientFrame::Loads {
        group: "g".to_owned(),
        loads: loads.iter().map(load).collect(),
    }
}

#[test]
fn the_newest_load_of_what_is_owned_is_sent_again_and_again() {
    let mut owning = Owning::with_partition();
    assert_eq!(owning.script.sent(), []);
    assert!(owning.measure(P, 1), "the task does not know of it yet");
    assert!(!owning.measure(P, 2));
    assert_eq!(owning.script.sent(), [loads(&[(P, 25, 2)])]);
    assert!(!owning.measure(P, 3));
    owning.script.pass(4999);
    assert_eq!(owning.script.sent(), []);
    let next = owning.script.core.poll_timeout(owning.script.now);
    assert_eq!(next, Some(at(5000)));
    owning.acknowledge(4999, 25);
    for _ in 0..2 {
        owning.script.pass(1);
        assert_eq!(owning.script.sent(), [loads(&[(P, 25, 3)])]);
        owning.script.pass(4999);
        assert_eq!(owning.script.sent(), []);
    }
}

#[test]
fn what_is_not_owned_any_more_has_no_load() {
    let mut owning = Owning::begin();
    owning.acknowledge(0, 20);
    assert!(!owning.measure(P, 1), "it is not owned yet");
    let (lost, rest) = (PartitionId(8), PartitionId(9));
    owning.change(20, 25, &[(P, mine(25)), (lost, mine(25)), (rest, mine(25))]);
    assert_eq!(owning.script.sent(), []);
    for partition in [P, lost, rest] {
        owning.measure(partition, 4);
    }
    let all = loads(&[(P, 25, 4), (lost, 25, 4), (rest, 25, 4)]);
    assert_eq!(owning.script.sent(), [all]);
    // One is let go, one is another one's, and one is owned anew.
    owning.change(
        25,
        30,
        &[(P, revoked(25, 30)), (lost, owned_by(OTHER, Zxid(11), 30))],
    );
    owning.table.write().let_go(P, Zxid(25), 1);
    owning.script.pass(5000);
    assert_eq!(owning.script.sent(), [loads(&[(rest, 25, 4)])]);
    owning.change(30, 31, &[(rest, mine(31))]);
    owning.script.pass(4000);
    let now = owning.script.now;
    assert!(owning.table.read().owned(rest, now).is_some());
    owning.script.pass(1000);
    assert_eq!(owning.script.sent(), [], "nobody has measured it since");
    owning.script.core.submit(leave("me"), Vec::new());
    owning.script.sent();
    assert!(!owning.measure(rest, 5));
    owning.script.pass(5000);
    assert_eq!(owning.script.sent(), []);
}

#[test]
fn loads_are_sent_to_the_next_member_too_and_not_between_two() {
    let mut owning = Owning::with_partition();
    owning.measure(P, 6);
    assert_eq!(owning.script.sent(), [loads(&[(P, 25, 6)])]);
    owning.script.core.handle_disconnected();
    owning.script.pass(5000);
    assert_eq!(owning.script.sent(), []);
    let sent = owning.script.reconnect(2, 25, 0);
    assert_eq!(sent, [watch_map(Some(25))]);
    assert_eq!(owning.script.sent(), [loads(&[(P, 25, 6)])]);
}

#[test]
fn many_loads_are_sent_in_frames_that_a_member_takes() {
    let mut owning = Owning::begin();
    owning.acknowledge(0, 20);
    let count = u32::try_from(MAP_NAMED_MAX).expect("few") + 1;
    let partitions: Vec<_> = (0..count).map(|id| (PartitionId(id), mine(25))).collect();
    owning.change(20, 25, &partitions);
    for (partition, _) in &partitions {
        owning.measure(*partition, 1);
    }
    for _ in 0..2 {
        let frames = owning.script.sent();
        let first = |frame: &ClientFrame| match frame {
            ClientFrame::Loads { loads, .. } => (loads[0].partition, loads.len()),
            other => panic!("{other:?}"),
        };
        let frames: Vec<_> = frames.iter().map(first).collect();
        let last = PartitionId(count - 1);
        assert_eq!(frames, [(PartitionId(0), MAP_NAMED_MAX), (last, 1)]);
        assert_eq!(owning.script.sent(), []);
        owning.script.pass(5000);
    }
}
