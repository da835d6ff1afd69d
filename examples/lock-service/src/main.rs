//! A service that does one thing at a time in the whole cluster: it waits for a lock, writes while
//! it holds it, and gives it back.
//!
//! ```text
//! cargo xtask dev                                     # in one terminal
//! cargo run -p example-lock-service -- nightly 3      # in others, several at once
//! ```
//!
//! The write is guarded by the lock's fencing token. Were this process paused for longer than its
//! session lives, the lock would be another's by then, and the write would be refused: no timer in
//! this program has to be right for that.

use std::error::Error;
use std::time::Duration;

use folkmoot_client::{Client, ClientConfig, Lock, LockGuard, NodeKind, Refusal, WriteError};

/// What a piece of work takes.
const WORK: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "example".to_owned());
    let rounds: u32 = arguments.next().map_or(Ok(1), |text| text.parse())?;

    // Where the cluster is comes from the environment, or from what `folkmoot dev` wrote.
    let client = Client::connect(ClientConfig::from_environment()?).await?;
    let session = client.open_session().await?;

    let report = format!("/{name}-report");
    match session
        .create(&report, "nothing yet", NodeKind::PERSISTENT)
        .await
    {
        Ok(_) | Err(WriteError::Refused(Refusal::NodeExists { .. })) => {}
        Err(error) => return Err(error.into()),
    }

    let lock = Lock::new(&session, "/locks", &name);
    for round in 1..=rounds {
        println!("round {round}: waiting for {name}");
        let guard = lock.acquire().await?;
        println!("round {round}: holding it with token {}", guard.token());
        write_report(&guard, &report, round).await?;
        guard.release().await?;
    }

    session.close().await?;
    client.close().await;
    Ok(())
}

/// Works while the lock is held, and stops when it may be lost.
async fn write_report(guard: &LockGuard, path: &str, round: u32) -> Result<(), Box<dyn Error>> {
    let work = async {
        tokio::time::sleep(WORK).await;
        let text = format!("round {round} under token {}", guard.token());
        // `guard.session()` puts the guard on every write.
        guard.session().set(path, text, None).await
    };
    tokio::select! {
        written = work => match written {
            Ok(written) => println!("round {round}: wrote version {}", written.version),
            Err(WriteError::Refused(Refusal::GuardFailed { .. })) => {
                println!("round {round}: the lock was another's by then, nothing was written");
            }
            Err(error) => return Err(error.into()),
        },
        () = guard.jeopardy() => println!("round {round}: the lock is in jeopardy, stopping"),
    }
    Ok(())
}
