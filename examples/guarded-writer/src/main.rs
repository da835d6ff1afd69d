//! A worker that contends for a lock and, while it holds it, writes a guarded value and adds to a
//! counter. It says what it does, one JSON object a line, until its standard input is closed.
//!
//! When it loses its session, and with it the lock, it does on purpose what a careless program
//! would do: it writes with the token of the lost grant, through a fresh session. The guard
//! refuses that write.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use folkmoot_client::{
    Client, ClientConfig, Counter, Guard, Lock, LockGuard, Refusal, Session, WriteError,
};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

/// How long the lock is held: what a small piece of work takes.
const HOLD: Duration = Duration::from_millis(100);

/// Short, so that a demonstration need not wait long for a session to expire.
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker that contends for a lock and writes a guarded value.
#[derive(Parser)]
struct Arguments {
    /// The worker's name, which it writes.
    #[arg(long)]
    name: String,
    /// Where the plugin `lock` is mounted.
    #[arg(long, default_value = "/locks")]
    locks: String,
    /// Where the plugin `counter` is mounted.
    #[arg(long, default_value = "/counter")]
    counter: String,
    /// The node that is written. It must be there.
    #[arg(long, default_value = "/demo/value")]
    value: String,
}

/// What the worker says.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Happened {
    Ready,
    Acquired { token: u64 },
    Wrote { token: u64 },
    Adding,
    Added { total: i64 },
    AddRefused,
    Released { token: u64 },
    SessionLost { token: u64, why: String },
    StaleRefused { token: u64 },
    StaleAccepted { token: u64 },
    Finished,
}

fn say(happened: &Happened) -> Result<()> {
    let line = serde_json::to_string(happened)?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let config = ClientConfig::from_environment()?.session_timeout(SESSION_TIMEOUT);
    let client = Client::connect(config).await?;
    let mut session = client.open_session().await?;
    say(&Happened::Ready)?;
    let asked_to_end = asked_to_end();
    tokio::pin!(asked_to_end);
    loop {
        let lock = Lock::new(&session, &arguments.locks, "demo");
        let guard = tokio::select! {
            () = &mut asked_to_end => break,
            guard = lock.acquire() => guard,
        };
        let Ok(guard) = guard else {
            session = client.open_session().await?;
            continue;
        };
        let stale = guard.guard();
        if let Err(error) = work(&session, guard, &arguments).await {
            let (token, why) = (stale.token.0, error.to_string());
            say(&Happened::SessionLost { token, why })?;
            session = client.open_session().await?;
            write_with_lost_grant(&session, stale, &arguments).await?;
        }
    }
    session.close().await?;
    client.close().await;
    say(&Happened::Finished)
}

/// The piece of work for which the lock is held.
async fn work(session: &Session, guard: LockGuard, arguments: &Arguments) -> Result<()> {
    let token = guard.token().0;
    say(&Happened::Acquired { token })?;
    let value = format!("{} {token}", arguments.name);
    guard
        .session()
        .set(&arguments.value, value.clone(), None)
        .await?;
    say(&Happened::Wrote { token })?;
    tokio::time::sleep(HOLD).await;
    guard.session().set(&arguments.value, value, None).await?;
    say(&Happened::Wrote { token })?;
    add(session, arguments).await?;
    guard.release().await?;
    say(&Happened::Released { token })
}

async fn add(session: &Session, arguments: &Arguments) -> Result<()> {
    say(&Happened::Adding)?;
    match Counter::new(session, &arguments.counter).add(1).await {
        Ok(total) => say(&Happened::Added { total }),
        Err(error) => {
            if !error.outcome_is_unknown() {
                say(&Happened::AddRefused)?;
            }
            Err(error.into())
        }
    }
}

async fn write_with_lost_grant(
    session: &Session,
    stale: Guard,
    arguments: &Arguments,
) -> Result<()> {
    let token = stale.token.0;
    let value = format!("{} {token}, too late", arguments.name);
    match session
        .guarded_by(stale)
        .set(&arguments.value, value, None)
        .await
    {
        Err(WriteError::Refused(Refusal::GuardFailed { .. })) => {
            say(&Happened::StaleRefused { token })
        }
        Err(error) => Err(error.into()),
        Ok(_) => say(&Happened::StaleAccepted { token }),
    }
}

/// Returns once standard input is closed.
async fn asked_to_end() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer).await, Ok(read) if read > 0) {}
}
