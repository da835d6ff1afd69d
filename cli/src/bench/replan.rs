//! `folkmoot bench replan`: what the writes of others feel while members of a large map go, one after
//! the other, and a policy plans anew for each.

use std::time::Duration;

use folkmoot_client::{
    Client, ClientConfig, Group, Layout, MapChanges, MapConfig, MemberSpec, PartitionMap,
    PolicyChoice, Session,
};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Bench, Latency};
use crate::failure::Failure;
use crate::plugin;

/// Zones of its members.
const ZONES: usize = 3;
/// Sessions that share a connection.
const SESSIONS_PER_CONNECTION: usize = 128;
/// A member's session: it lives as long as nobody ends it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came of it: times in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Replanned {
    members: usize,
    partitions: u32,
    /// Members that went while it was measured.
    lost: usize,
    latency: Option<Latency>,
    /// Its p99 by that of the writes before.
    p99_ratio: f64,
}

/// Members with sessions of their own, and the map of their group.
pub(super) struct Large {
    clients: Vec<Client>,
    members: Vec<Session>,
    map: PartitionMap,
    changes: MapChanges,
}

impl Large {
    /// Opens the sessions, joins them, creates the map, and waits until everything has an owner.
    pub(super) async fn begin(
        options: &Bench,
        config: &ClientConfig,
        admin: &Session,
    ) -> Result<Self, Failure> {
        let group = format!("bench-{}", std::process::id());
        let digest = plugin::find(&admin.plugins().await?, &options.policy)?;
        let config = config.clone().session_timeout(TIMEOUT);
        let mut clients = Vec::new();
        let mut joining = JoinSet::new();
        for number in 0..options.members {
            if number % SESSIONS_PER_CONNECTION == 0 {
                clients.push(Client::connect(config.clone()).await?);
            }
            let session = match clients.last() {
                Some(client) => client.open_session().await?,
                None => continue,
            };
            let group = Group::new(&session, &group);
            joining.spawn(async move {
                let id = format!("m{number}");
                let spec = MemberSpec {
                    zone: format!("z{}", number % ZONES),
                    ..MemberSpec::at(id.clone())
                };
                let joined = group.join(&id, spec).await;
                joined.map(|_| session)
            });
        }
        let mut members = Vec::new();
        while let Some(joined) = joining.join_next().await {
            members.push(joined.map_err(Failure::configuration)??);
        }
        let map = PartitionMap::new(admin, &group);
        let policy = Some(PolicyChoice {
            digest,
            configuration: String::new(),
        });
        let config = MapConfig {
            policy,
            readiness: false,
            offline_delay_ms: 0,
            recovery_per_minute: 1_000_000,
            ..MapConfig::default()
        };
        map.create(config, Layout::Ranges(options.partitions))
            .await?;
        let changes = map.follow().await?;
        let mut large = Self {
            clients,
            members,
            map,
            changes,
        };
        large.settle().await?;
        Ok(large)
    }

    /// Waits until everything has an owner who lives.
    async fn settle(&mut self) -> Result<(), Failure> {
        while self.orphans()? > 0 {
            self.changes.changed().await?;
        }
        Ok(())
    }

    fn orphans(&self) -> Result<usize, Failure> {
        let view = self.changes.view()?;
        let orphans = view.partitions.iter();
        Ok(orphans.filter(|of| of.live_owner().is_none()).count())
    }

    /// Ends a member's session now and again, with such a pause behind each, for so long. Answers how
    /// many.
    pub(super) async fn lose(
        &mut self,
        for_how_long: Duration,
        pause: Duration,
    ) -> Result<usize, Failure> {
        let mut lost = 0;
        let end = tokio::time::Instant::now() + for_how_long;
        while tokio::time::Instant::now() + pause <= end {
            if let Some(member) = self.members.pop() {
                member.close().await?;
                lost += 1;
            }
            tokio::time::sleep(pause).await;
        }
        Ok(lost)
    }

    /// Says how it went, once everything has an owner again, and leaves nothing behind.
    pub(super) async fn end(
        mut self,
        options: &Bench,
        lost: usize,
        (before, during): (Option<&Latency>, Option<Latency>),
    ) -> Result<Replanned, Failure> {
        self.settle().await?;
        let mut closing = JoinSet::new();
        for member in self.members {
            closing.spawn(async move { member.close().await });
        }
        while let Some(closed) = closing.join_next().await {
            closed.map_err(Failure::configuration)??;
        }
        self.map.remove().await?;
        for client in self.clients {
            client.close().await;
        }
        let p99 = |latency: &Latency| latency.p99 as f64;
        let before = before.map_or(f64::NAN, p99);
        Ok(Replanned {
            members: options.members,
            partitions: options.partitions,
            lost,
            p99_ratio: during.as_ref().map_or(f64::NAN, p99) / before,
            latency: during,
        })
    }
}

impl Replanned {
    /// For people.
    pub(super) fn to_text(&self) -> String {
        let latency = self.latency.as_ref().map(ToString::to_string);
        format!(
            "while {} of {} members went, each with its part of {} partitions:\n{}p99 {:.2} times \
             that of before\n",
            self.lost,
            self.members,
            self.partitions,
            latency.unwrap_or_default(),
            self.p99_ratio,
        )
    }
}
