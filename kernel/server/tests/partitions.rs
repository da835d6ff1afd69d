//! Partition maps whose policies are components, on real members.

#![cfg(test)]

mod support;

#[path = "../../../xtask/src/guests.rs"]
mod guests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use folkmoot_client::{
    Client, ClientConfig, Digest, Grant, Group, Layout, MapChanges, MapConfig, MapView, Member,
    MemberSpec, NodeKind, PartitionHandler, PartitionId, PartitionMap, PartitionOwner,
    PolicyChoice, Session,
};
use support::client::within;
use support::cluster::Cluster;

const GROUP: &str = "shards";
const PARTITIONS: u32 = 24;

/// The component of a guest, built on demand.
fn component(name: &str) -> Vec<u8> {
    static FOLDER: OnceLock<std::path::PathBuf> = OnceLock::new();
    let folder: &Path = FOLDER.get_or_init(|| guests::build_guests().expect("the guests"));
    std::fs::read(folder.join(format!("{name}.wasm"))).expect("a component")
}

async fn connect(cluster: &Cluster, index: usize) -> Session {
    let identity = cluster.authority.client();
    let config = ClientConfig::new(
        [cluster.client_address(index).to_string()],
        cluster.authority.pem(),
        identity.certificate,
        identity.key,
    );
    let client = within(Client::connect(config)).await.expect("a connection");
    within(client.open_session()).await.expect("a session")
}

/// Who serves what, as the workers themselves know it, and how often two did.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<(BTreeMap<PartitionId, String>, u32)>>);

impl Served {
    fn twice(&self) -> u32 {
        self.0.lock().unwrap().1
    }
}

/// A worker's part in it.
struct Worker {
    name: String,
    served: Served,
}

impl Worker {
    fn ends(&self, partition: PartitionId) {
        let (served, _) = &mut *self.served.0.lock().unwrap();
        if served.get(&partition) == Some(&self.name) {
            served.remove(&partition);
        }
    }
}

impl PartitionHandler for Worker {
    async fn gain(&self, grant: &Grant) {
        let (served, twice) = &mut *self.served.0.lock().unwrap();
        let other = served.insert(grant.partition, self.name.clone());
        *twice += u32::from(other.is_some());
    }

    async fn revoke(&self, partition: PartitionId) {
        self.ends(partition);
    }

    async fn lost(&self, partition: PartitionId) {
        self.ends(partition);
    }
}

/// A member of the group that serves what it is given.
struct Working {
    member: Member,
    _owner: PartitionOwner,
}

async fn work(session: &Session, name: &str, served: &Served) -> Working {
    let group = Group::new(session, GROUP);
    let joined = group.join(name, MemberSpec::at(format!("{name}:1")));
    let member = within(joined).await.expect("joined");
    let worker = Worker {
        name: name.to_owned(),
        served: served.clone(),
    };
    let owner = within(member.partitions(worker))
        .await
        .expect("told the map");
    Working {
        member,
        _owner: owner,
    }
}

async fn config(session: &Session, policy: &str, configuration: &str) -> MapConfig {
    let bytes = component(policy);
    let digest = within(session.install(&bytes, policy)).await;
    assert_eq!(digest, Ok(Digest::of(&bytes)));
    MapConfig {
        policy: Some(PolicyChoice {
            digest: Digest::of(&bytes),
            configuration: configuration.to_owned(),
        }),
        offline_delay_ms: 0,
        ..MapConfig::default()
    }
}

/// Follows the map until it is as wanted.
async fn until(changes: &mut MapChanges, done: impl Fn(&MapView) -> bool) -> MapView {
    loop {
        let view = changes.view().expect("a map");
        if done(&view) {
            return view;
        }
        within(changes.changed()).await.expect("it is told");
    }
}

/// Who owns what, if everything has an owner and nothing is moving.
fn owners(view: &MapView) -> Option<BTreeMap<PartitionId, String>> {
    let owner = |of: &folkmoot_client::PartitionView| {
        let owner = of.owner.as_ref().filter(|owner| owner.lives)?;
        let rests = of.movement.is_none();
        rests.then(|| (of.partition, owner.member.clone()))
    };
    view.partitions.iter().map(owner).collect()
}

fn counts(owners: &BTreeMap<PartitionId, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in owners.values() {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// What the map's policy would move now.
async fn would_move(map: &PartitionMap) -> usize {
    let plan = within(map.plan(None)).await.expect("a preview");
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    plan["moves"].as_array().map_or(usize::MAX, Vec::len)
}

#[tokio::test]
async fn a_map_is_planned_by_a_component_and_by_another_one_while_it_is_used() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let admin = connect(&cluster, 0).await;
    let served = Served::default();
    let mut workers = BTreeMap::new();
    for (place, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let session = connect(&cluster, place % 3).await;
        workers.insert(name, work(&session, name, &served).await);
    }
    let map = PartitionMap::new(&admin, GROUP);
    let sticky = config(&admin, "policies/sticky-balanced", "").await;
    let created = map.create(sticky.clone(), Layout::Ranges(PARTITIONS));
    within(created).await.expect("created");
    let mut changes = within(map.follow()).await.expect("told");
    let view = until(&mut changes, |view| owners(view).is_some()).await;
    let balanced = owners(&view).expect("all are owned");
    let even: BTreeSet<usize> = counts(&balanced).into_values().collect();
    assert_eq!(even, [6].into());
    assert_eq!((view.breaker, would_move(&map).await), (None, 0));

    // Another policy wants it quite otherwise, and waits for somebody to say yes.
    let rendezvous = config(&admin, "policies/rendezvous", "").await;
    within(map.configure(rendezvous)).await.expect("configured");
    let view = until(&mut changes, |view| view.breaker.is_some()).await;
    let breaker = view.breaker.as_deref().unwrap_or_default();
    assert!(breaker.contains("approve it"), "{breaker}");
    assert_eq!(owners(&view).as_ref(), Some(&balanced), "nothing has moved");
    let wanted = would_move(&map).await;
    assert!(wanted > 0);
    within(map.approve()).await.expect("approved");
    let view = until(&mut changes, |view| {
        owners(view).is_some_and(|owners| owners != balanced)
    })
    .await;
    let hashed = owners(&view).expect("all are owned");
    let moved = hashed
        .iter()
        .filter(|(of, name)| balanced.get(*of) != Some(*name));
    assert_eq!(moved.count(), wanted, "what the preview said");
    assert_eq!((view.breaker, would_move(&map).await), (None, 0));
    assert_eq!(served.twice(), 0, "a partition had two owners");

    // What a worker had that leaves goes to the others, and nothing else moves.
    let gone = workers.remove("b").expect("it works");
    within(gone.member.leave()).await.expect("left");
    let view = until(&mut changes, |view| {
        owners(view).is_some_and(|owners| !counts(&owners).contains_key("b"))
    })
    .await;
    let after = owners(&view).expect("all are owned");
    for (partition, name) in hashed.iter().filter(|(_, name)| *name != "b") {
        assert_eq!(after.get(partition), Some(name));
    }
}

/// Rule R37: the kernel never waits for a policy.
#[tokio::test]
async fn r37_a_policy_that_loops_holds_nothing_up() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let admin = connect(&cluster, 0).await;
    let served = Served::default();
    let session = connect(&cluster, 0).await;
    let _worker = work(&session, "a", &served).await;
    let map = PartitionMap::new(&admin, GROUP);
    let spins = config(&admin, "for-tests/hostile-policy", "spin").await;
    let created = map.create(spins, Layout::Ranges(PARTITIONS));
    within(created).await.expect("created");
    let mut changes = within(map.follow()).await.expect("told");

    // Until the policy has run out of time nobody owns anything; others go on as ever.
    within(admin.create("/written", "", NodeKind::PERSISTENT))
        .await
        .expect("created");
    let mut writes = 0;
    let is_waited_for = |changes: &MapChanges| {
        let view = changes.view().expect("a map");
        view.partitions
            .iter()
            .all(|partition| partition.owner.is_none())
    };
    while is_waited_for(&changes) {
        within(admin.set("/written", "", None))
            .await
            .expect("written");
        writes += 1;
    }
    assert!(writes > 10, "only {writes} writes while the policy looped");
    let view = until(&mut changes, |view| view.breaker.is_some()).await;
    let breaker = view.breaker.as_deref().unwrap_or_default();
    assert!(breaker.contains("policy fault (timeout)"), "{breaker}");
    until(&mut changes, |view| owners(view).is_some()).await;

    // Asked once more, it loops again, and the member stops all the same.
    within(map.approve()).await.expect("approved");
    cluster.stop(0);
}

/// What a member has compiled may be lost: it plans on once it has compiled it anew.
#[tokio::test]
async fn a_policy_whose_code_is_lost_plans_on_after_the_next_start() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    let admin = connect(&cluster, 0).await;
    let served = Served::default();
    let session = connect(&cluster, 0).await;
    let _first = work(&session, "a", &served).await;
    let map = PartitionMap::new(&admin, GROUP);
    let sticky = config(&admin, "policies/sticky-balanced", "").await;
    let created = map.create(sticky, Layout::Ranges(PARTITIONS));
    within(created).await.expect("created");
    let mut changes = within(map.follow()).await.expect("told");
    until(&mut changes, |view| owners(view).is_some()).await;

    cluster.stop(0);
    let compiled = cluster.configs[0].data.join("compiled");
    std::fs::remove_dir_all(compiled).expect("it was there");
    cluster.start(0).expect("it starts without");
    let session = connect(&cluster, 0).await;
    let _second = work(&session, "b", &served).await;
    // The kernel's own plan would leave everything where it is.
    let view = until(&mut changes, |view| {
        owners(view).is_some_and(|owners| counts(&owners).get("b") == Some(&12))
    })
    .await;
    assert_eq!((view.breaker, served.twice()), (None, 0));
}
