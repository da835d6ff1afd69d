//! Candidates of which one leads at a time: the others wait, and one of them takes over as soon as the
//! leader resigns, or once it is dead for as long as a session lives.
//!
//! ```text
//! cargo xtask dev                                          # in one terminal
//! cargo run -p example-leader-election -- reports alice    # in others, several at once
//! cargo run -p example-leader-election -- reports bob
//! ```
//!
//! Who leads is whoever holds a lock. What the leader decides is guarded by the lock's fencing token:
//! were it paused for so long that another one leads, the decision would be refused, whatever the paused
//! process believes.

use std::error::Error;
use std::time::Duration;

use folkmoot_client::{
    Client, ClientConfig, Lock, LockGuard, NodeKind, Refusal, Session, WriteError,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a dead leader is not replaced. A leader that is cut off stops within it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two decisions.
const PACE: Duration = Duration::from_millis(200);
/// Before another attempt to reach a cluster that is away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(election), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: leader-election ELECTION CANDIDATE".into());
    };
    let candidate = Candidate { election, name };
    // Where the cluster is comes from the environment, or from what `folkmoot dev` wrote.
    let config = ClientConfig::from_environment()?.session_timeout(SESSION_TIMEOUT);
    let client = Client::connect(config).await?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    loop {
        let stood = match client.open_session().await {
            Ok(session) => candidate.stand(&session, &mut interrupts).await,
            Err(error) => Err(error.into()),
        };
        match stood {
            Ok(()) => break,
            // The session is over, or there is none: with a new one it stands again.
            Err(error) => println!("{}: {error}", candidate.name),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    client.close().await;
    Ok(())
}

struct Candidate {
    election: String,
    name: String,
}

impl Candidate {
    /// Waits for its turn and leads, again and again, until Ctrl-C.
    async fn stand(
        &self,
        session: &Session,
        interrupts: &mut Signal,
    ) -> Result<(), Box<dyn Error>> {
        let decisions = format!("/{}-decisions", self.election);
        match session.create(&decisions, "", NodeKind::PERSISTENT).await {
            Ok(_) | Err(WriteError::Refused(Refusal::NodeExists { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        let office = Lock::new(session, "/locks", &self.election);
        loop {
            println!("{}: waits for its turn", self.name);
            let elected = tokio::select! {
                elected = office.acquire() => elected?,
                _ = interrupts.recv() => return resign(session).await,
            };
            println!("{}: leads with token {}", self.name, elected.token());
            tokio::select! {
                led = self.lead(&elected, &decisions) => led?,
                // In time: nobody else can lead before this lease is over.
                () = elected.jeopardy() => println!("{}: may be replaced, stops", self.name),
                _ = interrupts.recv() => return resign(session).await,
            }
            elected.release().await?;
        }
    }

    /// Decides, for as long as it may.
    async fn lead(&self, elected: &LockGuard, decisions: &str) -> Result<(), Box<dyn Error>> {
        for number in 1_u64.. {
            let decision = format!("{number} of {} under token {}", self.name, elected.token());
            // `elected.session()` puts the guard on every write.
            match elected.session().set(decisions, decision, None).await {
                Ok(_) => {}
                Err(WriteError::Refused(Refusal::GuardFailed { .. })) => {
                    println!("{}: is replaced, and decided nothing", self.name);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}

/// Closes the session, and with it the office: the next candidate leads at once.
async fn resign(session: &Session) -> Result<(), Box<dyn Error>> {
    session.close().await?;
    println!("resigned");
    Ok(())
}
