//! A worker that owns partitions, writes for each of them under its token, and says what it does:
//! one JSON object a line, until its standard input is closed.
//!
//! It also says when it believed to own what, by a clock that all processes of a machine share.
//! Whoever collects that from all workers can tell whether two ever believed in the same partition.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use folkmoot_client::{
    Client, ClientConfig, Grant, Group, MemberSpec, NodeKind, PartitionHandler, PartitionId,
    PartitionOwner, Refusal, Session, WriteError, Zxid,
};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

/// Between two looks at what is owned.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two rounds of writes, and between two reports of beliefs.
const WRITE_EVERY: Duration = Duration::from_millis(500);

/// What handing a partition over takes.
const HAND_OVER: Duration = Duration::from_millis(400);

/// A worker that owns partitions and writes for them.
#[derive(Parser)]
struct Arguments {
    /// Its id in the group.
    #[arg(long)]
    name: String,
    /// The group, which has a map.
    #[arg(long)]
    group: String,
    /// Its zone.
    #[arg(long, default_value = "")]
    zone: String,
    /// The node below which each partition has one that its owner writes. It must be there.
    #[arg(long)]
    values: String,
    /// The session's timeout in seconds: short, so that a demonstration need not wait long.
    #[arg(long, default_value_t = 3)]
    session_timeout: u64,
}

/// What the worker says.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Happened {
    Ready,
    Gained {
        partition: PartitionId,
        token: Zxid,
    },
    LetGo {
        partition: PartitionId,
    },
    Lost {
        partition: PartitionId,
    },
    /// A guarded write took effect.
    Wrote {
        partition: PartitionId,
        token: Zxid,
        zxid: Zxid,
    },
    /// A guarded write was refused: the partition was another's by then.
    Refused {
        partition: PartitionId,
        token: Zxid,
    },
    /// It believed to own the partition from the one time to the other, in microseconds.
    Believed {
        partition: PartitionId,
        token: Zxid,
        from_us: u64,
        to_us: u64,
    },
    SessionLost,
    Finished,
}

fn say(happened: &Happened) {
    if let Ok(line) = serde_json::to_string(happened) {
        // Nobody listens any more: it ends with its standard input.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// Microseconds of a clock that all processes of this machine share.
fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000 + part(time.tv_nsec) / 1000
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let timeout = Duration::from_secs(arguments.session_timeout);
    let config = ClientConfig::from_environment()?.session_timeout(timeout);
    let client = Client::connect(config).await?;
    let session = client.open_session().await?;
    let spec = MemberSpec {
        zone: arguments.zone.clone(),
        ..MemberSpec::at(format!("process-{}", std::process::id()))
    };
    let member = Group::new(&session, &arguments.group)
        .join(&arguments.name, spec)
        .await?;
    let owner = member.partitions(Tell).await?;
    say(&Happened::Ready);
    let believes = Mutex::new(Believed::default());
    let lost = tokio::select! {
        () = asked_to_end() => false,
        _ = owner.ended() => true,
        () = look(&owner, &believes) => false,
        () = write(&session, &owner, &believes, &arguments.values) => false,
    };
    tell(&believes);
    if lost {
        say(&Happened::SessionLost);
        return Ok(());
    }
    session.close().await?;
    client.close().await;
    say(&Happened::Finished);
    Ok(())
}

struct Tell;

impl PartitionHandler for Tell {
    async fn gain(&self, grant: &Grant) {
        let (partition, token) = (grant.partition, grant.token);
        say(&Happened::Gained { partition, token });
    }

    async fn revoke(&self, partition: PartitionId) {
        tokio::time::sleep(HAND_OVER).await;
        say(&Happened::LetGo { partition });
    }

    async fn lost(&self, partition: PartitionId) {
        say(&Happened::Lost { partition });
    }
}

/// By promotion, the first time after and the last time before which it was believed in.
type Believed = BTreeMap<(PartitionId, Zxid), (u64, u64)>;

/// Looks at what is owned again and again. What was owned between two readings of the clock was
/// believed in at some moment between them: so an interval from the later reading of the first look
/// to the earlier one of the last is never longer than the belief.
async fn look(owner: &PartitionOwner, believes: &Mutex<Believed>) {
    loop {
        let before = now_us();
        let owned = owner.owned();
        let after = now_us();
        note(believes, owned, (before, after));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn note(believes: &Mutex<Believed>, owned: Vec<Grant>, (before, after): (u64, u64)) {
    let mut believes = believes.lock().unwrap_or_else(PoisonError::into_inner);
    for grant in owned {
        let interval = believes
            .entry((grant.partition, grant.token))
            .or_insert((after, before));
        interval.1 = before;
    }
}

fn tell(believes: &Mutex<Believed>) {
    let believes = believes.lock().unwrap_or_else(PoisonError::into_inner);
    for (&(partition, token), &(from_us, to_us)) in &*believes {
        say(&Happened::Believed {
            partition,
            token,
            from_us,
            to_us,
        });
    }
}

/// Writes for each partition that is owned, under the token by which it is.
async fn write(
    session: &Session,
    owner: &PartitionOwner,
    believes: &Mutex<Believed>,
    values: &str,
) {
    let mut every = tokio::time::interval(WRITE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        for grant in owner.owned() {
            write_for(session, &grant, values).await;
        }
        tell(believes);
    }
}

async fn write_for(session: &Session, grant: &Grant, values: &str) {
    let (partition, token) = (grant.partition, grant.token);
    let session = session.guarded_by(grant.guard());
    let path = format!("{values}/{partition}");
    let value = token.to_string();
    let written = match session.set(&path, value.clone(), None).await {
        Err(WriteError::Refused(Refusal::NoNode { .. })) => {
            let created = session.create(&path, value, NodeKind::PERSISTENT).await;
            created.map(|created| created.zxid)
        }
        written => written.map(|written| written.zxid),
    };
    match written {
        Ok(zxid) => say(&Happened::Wrote {
            partition,
            token,
            zxid,
        }),
        Err(WriteError::Refused(Refusal::GuardFailed { .. })) => {
            say(&Happened::Refused { partition, token });
        }
        // The session is over, which is told apart.
        Err(_) => {}
    }
}

/// Returns once standard input is closed.
async fn asked_to_end() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer).await, Ok(read) if read > 0) {}
}
