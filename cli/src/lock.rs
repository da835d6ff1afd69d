//! `lock`: runs a command while a lock is held.

use std::time::Duration;

use folkmoot_client::{LockError, Session};

use crate::args;
use crate::connect::{interrupt, patiently};
use crate::failure::{Failure, NO_LOCK};
use crate::output::note;
use crate::supervise::{Command, Signals, exit_code};

/// Runs the command, and gives its exit code.
pub(crate) async fn run(
    session: &Session,
    arguments: args::Lock,
    patience: Duration,
) -> Result<u8, Failure> {
    let Some((mount, name)) = arguments
        .lock
        .rsplit_once('/')
        .filter(|(mount, _)| !mount.is_empty())
    else {
        let text = format!("{:?} is not of the form MOUNT/NAME", arguments.lock);
        return Err(Failure::configuration(text));
    };
    let lock = folkmoot_client::Lock::new(session, mount, name);
    let acquire = async || match arguments.wait {
        None => lock.acquire().await.map(Some),
        Some(wait) => lock.acquire_within(Duration::from_secs_f64(wait)).await,
    };
    let guard = tokio::select! {
        guard = patiently(patience, LockError::is_retryable, acquire) => guard?,
        () = interrupt() => return Err(Failure::interrupted()),
    };
    let Some(guard) = guard else {
        let text = format!("{} is held by another", arguments.lock);
        return Err(Failure::new(NO_LOCK, "held", text));
    };
    let mut signals = Signals::listen()?;
    let of = guard.guard();
    let variables = [
        ("FOLKMOOT_FENCING_TOKEN", of.token.to_string()),
        ("FOLKMOOT_GUARD", format!("{}={}", of.path, of.token)),
    ];
    let mut command = Command::spawn(&arguments.command, &variables)?;
    let jeopardy = guard.jeopardy();
    match command
        .attend(&mut signals, jeopardy, || guard.is_safe())
        .await?
    {
        Some(status) => {
            if let Err(error) = guard.release().await {
                note(format!(
                    "the lock was not released, it goes with the session: {error}"
                ));
            }
            Ok(exit_code(status))
        }
        None => {
            note(format!(
                "the lock is in jeopardy ({:?}): the command is being stopped",
                session.standing()
            ));
            let grace = Duration::from_secs_f64(arguments.grace);
            command.stop(guard.lost(), grace).await;
            // Nobody may be there to hear of a release, so it is not waited for.
            drop(guard);
            let text = "the lock was lost, and the command was stopped";
            Err(Failure::new(NO_LOCK, "lock-lost", text))
        }
    }
}
