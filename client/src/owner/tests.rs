//! An owner whose member and cluster the test plays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use folkmoot_proto::client::{ClientFrame, Operation, ServerFrame};
use folkmoot_proto::codec::Compact as _;
use folkmoot_proto::partition::{
    Assignment, FullBody, MapDetail, MapOperation, MapUpdate, MemberNo, MovePhase, MoveReason,
    Movement, Owner, PartitionLoad, PartitionRecord, PartitionReport, PartitionSpec, Replica,
    RoutedMember,
};
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{ConnEpoch, LogTime, MemberId, RequestId, SessionId, SessionSecret};
use tokio::sync::Semaphore;

use super::*;
use crate::core::{Holder, MapKey, Output, OwnerEvent, SessionCore};
use crate::group::Group;

const KEY: Key = 1;
const INCARNATION: Zxid = Zxid(10);
const TIMEOUT_MS: u32 = 3_600_000;

/// Tells what it is called for, and waits or panics where it is told to.
struct Handler {
    calls: mpsc::UnboundedSender<String>,
    gates: BTreeMap<String, Semaphore>,
    panics: Mutex<BTreeSet<String>>,
}

impl Handler {
    async fn step(&self, call: &str, partition: PartitionId) {
        let call = format!("{call} {partition}");
        let dropped = Told {
            text: format!("dropped {call}"),
            calls: self.calls.clone(),
        };
        let _ = self.calls.send(call.clone());
        let panics = self.panics.lock().unwrap().remove(&call);
        assert!(!panics, "as it was told to");
        if let Some(gate) = self.gates.get(&call) {
            gate.acquire().await.unwrap().forget();
        }
        std::mem::forget(dropped);
    }
}

struct Told {
    text: String,
    calls: mpsc::UnboundedSender<String>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.calls.send(self.text.clone());
    }
}

impl PartitionHandler for Arc<Handler> {
    async fn prepare(&self, of: PartitionId, _: &PartitionKey) -> Result<(), PrepareError> {
        self.step("prepare", of).await;
        Ok(())
    }

    async fn gain(&self, grant: &Grant) {
        self.step("gain", grant.partition).await;
    }

    async fn revoke(&self, partition: PartitionId) {
        self.step("revoke", partition).await;
    }

    async fn lost(&self, partition: PartitionId) {
        self.step("lost", partition).await;
    }
}

/// An owner, and the member and the cluster that the test plays.
struct World {
    core: SessionCore,
    owner: PartitionOwner,
    handler: Arc<Handler>,
    calls: mpsc::UnboundedReceiver<String>,
    asked: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<OwnerEvent>,
    through: Zxid,
}

impl World {
    /// `gates` wait until they are opened; `panics` panic once.
    async fn new(gates: &[&str], panics: &[&str]) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let gate = |name: &&str| ((*name).to_owned(), Semaphore::new(0));
        let handler = Arc::new(Handler {
            calls: sender,
            gates: gates.iter().map(gate).collect(),
            panics: Mutex::new(panics.iter().map(|name| (*name).to_owned()).collect()),
        });
        let (session, mut asked) = crate::session::tests::unattended(None);
        let member = Member::of(Group::new(&session, "g"), "me", INCARNATION);
        let owning = tokio::spawn({
            let handler = Arc::clone(&handler);
            async move { member.partitions(handler).await }
        });
        let Some(Command::Hold { holding, .. }) = asked.recv().await else {
            panic!("nothing is to be held");
        };
        let core = open_session();
        let mut world = Self {
            core,
            events: holding.events.clone(),
            owner: {
                let _ = holding.events.send(OwnerEvent::Began);
                owning.await.unwrap().unwrap()
            },
            handler,
            calls,
            asked,
            through: Zxid(20),
        };
        let map = MapKey {
            group: "g".to_owned(),
            detail: MapDetail::Full,
        };
        world.core.submit_map(map);
        while world.core.poll_frame(clock::now()).is_some() {}
        let holder = Holder::new(holding.group, holding.member, INCARNATION, holding.table);
        world.core.hold(clock::now(), KEY, holder);
        let me = RoutedMember {
            member: MemberNo(1),
            id: "me".to_owned(),
            incarnation: Some(INCARNATION),
            address: String::new(),
            zone: String::new(),
        };
        world.tell(None, vec![me], Vec::new());
        let now = clock::now();
        world.core.handle_heartbeat_ack(now, now, Some(Zxid(1)));
        world.pass_on();
        world
    }

    fn tell(
        &mut self,
        base: Option<Zxid>,
        members: Vec<RoutedMember>,
        partitions: Vec<(PartitionId, PartitionRecord)>,
    ) {
        let body = FullBody {
            layout: Zxid(5),
            map: None,
            members,
            partitions,
        };
        let update = MapUpdate {
            group: "g".to_owned(),
            detail: MapDetail::Full,
            base,
            through: self.through,
            body: body.to_compact(),
        };
        hear(&mut self.core, ServerFrame::Map(update));
        self.pass_on();
    }

    fn change(&mut self, partition: u32, record: PartitionRecord) {
        let base = self.through;
        self.through = Zxid(base.0 + 1);
        self.tell(
            Some(base),
            Vec::new(),
            vec![(PartitionId(partition), record)],
        );
    }

    fn pass_on(&mut self) {
        while let Some(output) = self.core.poll_output() {
            if let Output::Owner(KEY, event) = output {
                let _ = self.events.send(event);
            }
        }
    }

    fn open(&self, call: &str) {
        self.handler.gates[call].add_permits(1);
    }

    async fn call(&mut self) -> String {
        self.calls.recv().await.unwrap()
    }

    /// What is reported next, which is taken in.
    async fn reported(&mut self) -> Vec<PartitionReport> {
        loop {
            let command = self.asked.recv().await.unwrap();
            if let Command::Request {
                operation: Operation::Map { operation, .. },
                asked,
                ..
            } = command
            {
                asked.answer(Ok((Zxid(1), Outcome::Reported { current: 1 })));
                let MapOperation::Report { member, reports } = operation else {
                    panic!("{operation:?}");
                };
                assert_eq!(member, "me");
                return reports;
            }
        }
    }
}

fn open_session() -> SessionCore {
    let mut core = SessionCore::new(SessionSecret([1; 32]), TIMEOUT_MS);
    core.handle_connected(clock::now(), Vec::new());
    while core.poll_frame(clock::now()).is_some() {}
    let attached = ServerFrame::Attached {
        session: SessionId(7),
        epoch: ConnEpoch(1),
        timeout_ms: TIMEOUT_MS,
        last_id: RequestId::ZERO,
        zxid: Zxid(7),
    };
    hear(&mut core, attached);
    core
}

fn hear(core: &mut SessionCore, frame: ServerFrame) {
    let heard = core.handle_frame(clock::now(), MemberId(1), frame);
    assert_eq!(heard, Ok(()));
}

fn record(token: Option<u64>, movement: Option<(u64, MovePhase)>) -> PartitionRecord {
    let (member, incarnation) = (MemberNo(1), INCARNATION);
    let movement = movement.map(|(id, phase)| Movement {
        id: Zxid(id),
        phase,
        target: vec![member],
        reason: MoveReason::Balance,
        deadline: LogTime(0),
    });
    let replica = Replica {
        member,
        incarnation,
        ready: token.is_some(),
    };
    PartitionRecord {
        key: PartitionKey::Name("p".to_owned()),
        spec: PartitionSpec::default(),
        assignment: Assignment {
            owner: token.map(|token| Owner {
                member,
                incarnation,
                token: Zxid(token),
            }),
            replicas: vec![replica],
            movement,
            since: LogTime(0),
            why: MoveReason::Balance,
        },
        created: Zxid(1),
        changed: Zxid(1),
    }
}

fn owned(token: u64) -> PartitionRecord {
    record(Some(token), None)
}

fn revoked(token: u64) -> PartitionRecord {
    record(Some(token), Some((50, MovePhase::Revoking)))
}

fn released(partition: u32, token: u64) -> PartitionReport {
    PartitionReport::Released {
        partition: PartitionId(partition),
        movement: Zxid(50),
        token: Zxid(token),
    }
}

#[tokio::test]
async fn a_partition_is_owned_until_its_revoke_has_returned_and_then_reported() {
    let mut world = World::new(&["revoke 1"], &[]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    let grant = world.owner.owns_key("p").expect("owned");
    assert_eq!(grant.token, Zxid(21));
    let guard = world.owner.guard(PartitionId(1)).expect("owned");
    assert_eq!(guard, grant.guard());
    assert_eq!(guard.path, "/folkmoot/groups/g/owners/1");
    world.change(1, revoked(21));
    assert_eq!(world.call().await, "revoke 1");
    assert!(world.owner.owns(PartitionId(1)), "it drains");
    world.open("revoke 1");
    assert_eq!(world.reported().await, [released(1, 21)]);
    assert!(!world.owner.owns(PartitionId(1)));
    assert_eq!(world.owner.guard(PartitionId(1)), None);
    assert_eq!(world.owner.owned(), []);
}

#[tokio::test]
async fn callbacks_of_a_partition_wait_for_each_other_and_for_no_other_partitions() {
    let mut world = World::new(&["gain 1"], &[]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    world.change(1, revoked(21));
    world.change(2, owned(23));
    assert_eq!(world.call().await, "gain 2");
    world.change(2, revoked(23));
    assert_eq!(world.call().await, "revoke 2");
    assert_eq!(world.reported().await, [released(2, 23)]);
    world.open("gain 1");
    assert_eq!(world.call().await, "revoke 1");
    assert_eq!(world.reported().await, [released(1, 21)]);
}

#[tokio::test]
async fn a_panic_in_a_callback_is_its_end_and_nothing_elses() {
    let mut world = World::new(&[], &["gain 1", "revoke 1", "prepare 2"]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    assert_eq!(world.call().await, "dropped gain 1");
    world.change(1, revoked(21));
    assert_eq!(world.call().await, "revoke 1");
    assert_eq!(world.reported().await, [released(1, 21)]);
    assert_eq!(world.call().await, "dropped revoke 1");
    world.change(2, record(None, Some((60, MovePhase::Preparing))));
    assert_eq!(world.call().await, "prepare 2");
    assert_eq!(world.call().await, "dropped prepare 2");
    assert_eq!(world.call().await, "prepare 2", "it is tried again");
    let ready = PartitionReport::Ready {
        partition: PartitionId(2),
        movement: Zxid(60),
    };
    loop {
        // What was said of partition 1 is said until the map shows it.
        let reports = world.reported().await;
        if reports != [released(1, 21)] {
            assert!(reports.contains(&ready), "{reports:?}");
            break;
        }
    }
}

#[tokio::test]
async fn what_is_lost_is_dropped_at_once() {
    let mut world = World::new(&["gain 1", "revoke 2"], &[]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    world.change(1, owned(22));
    assert!(world.owner.owns(PartitionId(1)), "by the new token");
    assert_eq!(world.call().await, "dropped gain 1");
    assert_eq!(world.call().await, "lost 1");
    assert_eq!(world.call().await, "gain 1");
    world.change(2, owned(24));
    assert_eq!(world.call().await, "gain 2");
    world.change(2, revoked(24));
    assert_eq!(world.call().await, "revoke 2");
    // Force: another one owns it.
    world.change(2, record(None, None));
    assert!(!world.owner.owns(PartitionId(2)));
    assert_eq!(world.call().await, "dropped revoke 2");
    assert_eq!(world.call().await, "lost 2");
    assert!(
        world.asked.try_recv().is_err(),
        "there is nothing to report"
    );
}

#[tokio::test]
async fn what_is_gained_again_while_it_is_being_lost_is_let_go_when_that_is_revoked() {
    let mut world = World::new(&["lost 1", "revoke 1"], &[]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    let later = clock::now().plus_millis(2 * u64::from(TIMEOUT_MS));
    world.core.handle_timeout(later);
    world.pass_on();
    assert_eq!(world.call().await, "lost 1");
    let position = Some(world.through);
    world.core.handle_heartbeat_ack(later, later, position);
    world.change(1, revoked(21));
    world.open("lost 1");
    assert_eq!(world.call().await, "gain 1");
    assert_eq!(world.call().await, "revoke 1");
    assert!(world.owner.owns(PartitionId(1)), "it drains");
    world.open("revoke 1");
    assert_eq!(world.reported().await, [released(1, 21)]);
    assert!(!world.owner.owns(PartitionId(1)));
}

#[tokio::test]
async fn a_preparation_that_is_not_wanted_any_more_is_dropped() {
    let mut world = World::new(&["prepare 1"], &[]).await;
    world.change(1, record(None, Some((60, MovePhase::Preparing))));
    assert_eq!(world.call().await, "prepare 1");
    world.change(1, record(None, None));
    assert_eq!(world.call().await, "dropped prepare 1");
    world.change(2, record(None, Some((61, MovePhase::Preparing))));
    assert_eq!(world.call().await, "prepare 2");
    let ready = PartitionReport::Ready {
        partition: PartitionId(2),
        movement: Zxid(61),
    };
    assert_eq!(world.reported().await, [ready]);
}

#[tokio::test]
async fn the_end_of_the_session_is_told_when_every_callback_has_returned() {
    let mut world = World::new(&["lost 1"], &[]).await;
    world.change(1, owned(21));
    assert_eq!(world.call().await, "gain 1");
    hear(&mut world.core, ServerFrame::SessionEnded { expired: true });
    world.pass_on();
    assert_eq!(world.call().await, "lost 1");
    assert!(!world.owner.owns(PartitionId(1)));
    world.open("lost 1");
    let ended = world.owner.ended().await;
    assert_eq!(ended, MapError::SessionEnded { expired: true });
}

#[tokio::test]
async fn the_first_load_of_what_is_owned_wakes_the_task() {
    let mut world = World::new(&[], &[]).await;
    world.owner.report_load(PartitionId(1), 6);
    assert!(world.asked.try_recv().is_err(), "it is not owned");
    world.change(1, owned(21));
    world.owner.report_load(PartitionId(1), 7);
    assert!(matches!(world.asked.try_recv(), Ok(Command::Wake)));
    world.owner.report_load(PartitionId(1), 8);
    assert!(world.asked.try_recv().is_err(), "it knows when to send");
    let loads = ClientFrame::Loads {
        group: "g".to_owned(),
        loads: vec![PartitionLoad {
            partition: PartitionId(1),
            token: Zxid(21),
            load: 8,
        }],
    };
    assert_eq!(world.core.poll_frame(clock::now()), Some(loads));
}

#[tokio::test]
async fn an_owner_that_is_dropped_is_told_to_the_task() {
    let World {
        owner, mut asked, ..
    } = World::new(&[], &[]).await;
    drop(owner.clone());
    assert!(asked.try_recv().is_err());
    drop(owner);
    assert!(matches!(asked.try_recv(), Ok(Command::EndHold { .. })));
}
