//! Measured load: what owners report has the policy `load-aware` move partitions.

#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use folkmoot_client::{
    Client, ContextChoice, Grant, Group, MemberSpec, PartitionHandler, PartitionId, PartitionOwner,
};
use folkmoot_e2e::{Cluster, guest};

/// Nothing is to be done for a partition.
struct Nothing;

impl PartitionHandler for Nothing {
    async fn gain(&self, _: &Grant) {}
    async fn revoke(&self, _: PartitionId) {}
    async fn lost(&self, _: PartitionId) {}
}

fn owned(owner: &PartitionOwner) -> BTreeSet<PartitionId> {
    let grants = owner.owned().into_iter();
    grants.map(|grant| grant.partition).collect()
}

/// Reports what each owner measures, again and again, until it is as wanted.
async fn until(owners: &[PartitionOwner], hot: &BTreeSet<PartitionId>, wanted: usize) {
    let measured = async {
        while owners
            .iter()
            .any(|owner| owned(owner).intersection(hot).count() != wanted)
        {
            for owner in owners {
                for partition in owned(owner) {
                    let load = if hot.contains(&partition) { 100 } else { 1 };
                    owner.report_load(partition, load);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let bounded = tokio::time::timeout(Duration::from_secs(60), measured).await;
    let owned: Vec<_> = owners.iter().map(owned).collect();
    assert!(bounded.is_ok(), "{hot:?} are hot, {owned:?} are owned");
}

#[test]
fn a_member_with_too_much_measured_load_gives_some_away() {
    let cluster = Cluster::start(3);
    let cli = cluster.cli();
    let policy = guest("policies/load-aware");
    cli.tell(&["plugin", "install", &policy.to_string_lossy()]);
    let choice = ContextChoice {
        context: Some(cluster.folder().join("context.toml")),
        ..ContextChoice::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (client, members) = runtime.block_on(async {
        let client = Client::connect(choice.resolve().unwrap()).await.unwrap();
        let mut members = Vec::new();
        for id in ["w1", "w2"] {
            let session = client.open_session().await.unwrap();
            let group = Group::new(&session, "shards");
            let member = group.join(id, MemberSpec::at("10.0.0.1:80")).await.unwrap();
            members.push(member.partitions(Nothing).await.unwrap());
        }
        (client, members)
    });
    let create = "partition create shards --ranges 4 --policy load-aware --approval-percent 100";
    cli.tell(&create.split(' ').collect::<Vec<_>>());
    runtime.block_on(async {
        let all: BTreeSet<PartitionId> = (0..4).map(PartitionId).collect();
        until(&members, &all, 2).await;
        // Both partitions of one of them become hot.
        let hot = owned(&members[0]);
        until(&members, &hot, 1).await;
        drop(members);
        client.close().await;
    });
}
