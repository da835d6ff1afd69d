//! A worker: owns partitions, and serves their keys.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use folkmoot_client::{
    Grant, Group, MemberSpec, NodeKind, PartitionHandler, PartitionId, PartitionKey,
    PartitionOwner, Refusal, Session, WriteError, Zxid, key_hash,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::wire::{Answer, Lines, Request, Versioned};

/// Where the values are: below one of 256 nodes, by the first byte of the key's hash, so that the
/// values of a range are found whatever its partition is called.
const ROOT: &str = "/sharded-kv";

/// How often a worker reports the loads of its partitions.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What a worker is started with.
#[derive(clap::Args)]
pub(crate) struct WorkerOptions {
    /// Its id in the group.
    #[arg(long)]
    id: String,
    /// Its zone.
    #[arg(long, default_value = "")]
    zone: String,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Seconds after which its partitions go to others if it is not heard of.
    #[arg(long, default_value_t = 10)]
    pub(crate) session_timeout: u64,
}

/// Joins the group, and serves until it is interrupted or its session is over.
pub(crate) async fn run(session: &Session, group: &str, options: WorkerOptions) -> Result<()> {
    make_folders(session).await?;
    let listener = TcpListener::bind(options.listen).await?;
    let spec = MemberSpec {
        zone: options.zone,
        ..MemberSpec::at(listener.local_addr()?.to_string())
    };
    let member = Group::new(session, group).join(&options.id, spec).await?;
    let shards = Arc::new(Shards {
        session: session.clone(),
        loaded: Mutex::default(),
    });
    let owner = member.partitions(Handler(Arc::clone(&shards))).await?;
    println!("{} serves", options.id);
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream, owner.clone(), Arc::clone(&shards)));
        }
    };
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        served = serving => served,
        never = report_loads(&owner, &shards) => match never {},
        ended = owner.ended() => Err(ended).context("this worker owns nothing any more"),
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Says how many requests each partition gets, for policies that even that out.
async fn report_loads(owner: &PartitionOwner, shards: &Shards) -> Infallible {
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        for (partition, of) in shards.loaded().iter_mut() {
            owner.report_load(*partition, std::mem::take(&mut of.served));
        }
    }
}

/// Makes the nodes that values are below, where they are not there yet.
async fn make_folders(session: &Session) -> Result<()> {
    let there = |created| match created {
        Ok(_) | Err(WriteError::Refused(Refusal::NodeExists { .. })) => Ok(()),
        Err(error) => Err(error),
    };
    there(session.create(ROOT, "", NodeKind::PERSISTENT).await)?;
    for byte in 0..=u8::MAX {
        let folder = format!("{ROOT}/{byte:02x}");
        if session.exists(&folder).await?.is_none() {
            there(session.create(&folder, "", NodeKind::PERSISTENT).await)?;
        }
    }
    Ok(())
}

/// A key's node. A name has no slash, and a key may.
fn path_of(key: &str) -> String {
    let name: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{ROOT}/{:02x}/k{name}", key_hash(key.as_bytes()) >> 56)
}

/// The key of a node's name.
fn key_of(name: &str) -> Option<String> {
    let digits = name.strip_prefix('k')?.as_bytes();
    let bytes = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// The values of the partitions that this worker owns.
struct Shards {
    session: Session,
    loaded: Mutex<HashMap<PartitionId, Loaded>>,
}

/// A partition's values, as they were loaded for one promotion and written since.
struct Loaded {
    token: Zxid,
    values: HashMap<String, Versioned>,
    /// Requests since its load was reported last.
    served: u64,
}

impl Shards {
    fn loaded(&self) -> MutexGuard<'_, HashMap<PartitionId, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what was loaded for a promotion; none if it is not there.
    fn look<T>(&self, grant: &Grant, at: impl FnOnce(&mut Loaded) -> T) -> Option<T> {
        let mut loaded = self.loaded();
        let of = loaded.get_mut(&grant.partition)?;
        (of.token == grant.token).then(|| at(of))
    }

    /// Reads the values of a partition.
    async fn load(&self, key: &PartitionKey) -> Result<HashMap<String, Versioned>> {
        let PartitionKey::Range { first, last } = *key else {
            anyhow::bail!("the map has names: this store needs ranges");
        };
        // What follows is not older than this, and so not older than the promotion.
        self.session.sync().await?;
        let mut values = HashMap::new();
        for byte in (first >> 56)..=(last >> 56) {
            let folder = format!("{ROOT}/{byte:02x}");
            for name in self.session.children(&folder).await?.names {
                let Some(key) = key_of(&name) else { continue };
                if !(first..=last).contains(&key_hash(key.as_bytes())) {
                    continue;
                }
                let node = self.session.get(&format!("{folder}/{name}")).await?;
                let value = Versioned {
                    value: String::from_utf8(node.data)?,
                    version: node.stat.version,
                };
                values.insert(key, value);
            }
        }
        Ok(values)
    }

    fn get(&self, owner: &PartitionOwner, key: &str) -> Answer {
        let Some(grant) = owner.owns_key(key) else {
            return Answer::Moved;
        };
        let value = self.look(&grant, |of| {
            of.served += 1;
            of.values.get(key).cloned()
        });
        let Some(value) = value else {
            return Answer::Moved;
        };
        // It was owned when the value was looked up: nobody else had written by then.
        if owner.token(grant.partition) == Some(grant.token) {
            Answer::Value(value)
        } else {
            Answer::Moved
        }
    }

    async fn put(
        &self,
        owner: &PartitionOwner,
        key: String,
        value: String,
        expected: Option<u64>,
    ) -> Result<Answer> {
        let Some(grant) = owner.owns_key(&key) else {
            return Ok(Answer::Moved);
        };
        // A write that is done while the values are loaded might be missing among them.
        if self.look(&grant, |of| of.served += 1).is_none() {
            return Ok(Answer::Moved);
        }
        // It takes effect only while this promotion is the current one, whatever happens to this
        // process between here and there.
        let session = self.session.guarded_by(grant.guard());
        let path = path_of(&key);
        let written = match expected {
            None => {
                let created = session.create(&path, value.clone(), NodeKind::PERSISTENT);
                created.await.map(|_| 0)
            }
            Some(expected) => {
                let set = session.set(&path, value.clone(), Some(expected));
                set.await.map(|written| written.version)
            }
        };
        let version = match written {
            Ok(version) => version,
            Err(WriteError::Refused(Refusal::GuardFailed { .. })) => return Ok(Answer::Moved),
            Err(WriteError::Refused(
                Refusal::NodeExists { .. } | Refusal::BadVersion { .. } | Refusal::NoNode { .. },
            )) => return Ok(Answer::Conflict),
            // Whether it took effect is not known: the client is not answered, and asks again.
            Err(error) => return Err(error.into()),
        };
        self.look(&grant, |Loaded { values, .. }| {
            if values.get(&key).is_none_or(|it| it.version < version) {
                values.insert(key, Versioned { value, version });
            }
        });
        Ok(Answer::Written { version })
    }
}

/// What is done when partitions come and go.
struct Handler(Arc<Shards>);

impl PartitionHandler for Handler {
    async fn gain(&self, grant: &Grant) {
        let (partition, token) = (grant.partition, grant.token);
        match self.0.load(&grant.key).await {
            Ok(values) => {
                println!(
                    "gained {partition} with token {token}: {} keys",
                    values.len()
                );
                let loaded = Loaded {
                    token,
                    values,
                    served: 0,
                };
                self.0.loaded().insert(partition, loaded);
            }
            // Its keys are answered with "moved"; the session is about to end.
            Err(error) => println!("partition {partition} can not be loaded: {error}"),
        }
    }

    async fn revoke(&self, partition: PartitionId) {
        // Writes under way are done before the next owner is promoted, or refused.
        self.0.loaded().remove(&partition);
        println!("let go {partition}");
    }

    async fn lost(&self, partition: PartitionId) {
        self.0.loaded().remove(&partition);
        println!("lost {partition}");
    }
}

/// Serves one client.
async fn serve(stream: TcpStream, owner: PartitionOwner, shards: Arc<Shards>) -> Result<()> {
    let mut lines = Lines::new(stream);
    while let Some(request) = lines.receive().await? {
        let answer = match request {
            Request::Get { layout, .. } | Request::Put { layout, .. }
                if layout != owner.layout() =>
            {
                Answer::Moved
            }
            Request::Get { key, .. } => shards.get(&owner, &key),
            Request::Put {
                key,
                value,
                expected,
                ..
            } => shards.put(&owner, key, value, expected).await?,
        };
        lines.send(&answer).await?;
    }
    Ok(())
}
