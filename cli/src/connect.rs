//! A session for the length of a command.

use std::time::Duration;

use folkmoot_client::{Client, ClientConfig, ContextChoice, Session, default_context};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::args::Global;
use crate::failure::{Failure, INTERRUPTED, NO_MEMBER_ANSWERS};

/// Closing a session at the end may take as long; then it expires by itself.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How to reach the cluster, by flags, environment and context file.
pub(crate) fn config(global: &Global) -> Result<ClientConfig, Failure> {
    let endpoints_alone = !global.endpoints.is_empty()
        && global.context.is_none()
        && [&global.ca, &global.certificate, &global.key] == [&None, &None, &None];
    if endpoints_alone && !default_context().is_some_and(|file| file.exists()) {
        return Err(Failure::configuration(
            "the endpoints say where the cluster is, and nothing says how to prove who you are: \
             give --ca, --certificate and --key as well, or --context with the context.toml that \
             `folkmoot init` made",
        ));
    }
    let choice = ContextChoice {
        endpoints: global.endpoints.clone(),
        context: global.context.clone(),
        ca: global.ca.clone(),
        certificate: global.certificate.clone(),
        key: global.key.clone(),
    };
    let timeout = patience(global);
    let mut config = choice
        .resolve()?
        .session_timeout(Duration::from_secs_f64(global.session_timeout))
        .request_timeout(timeout);
    config.connect_timeout = timeout;
    Ok(config)
}

/// How long a request may take.
pub(crate) fn patience(global: &Global) -> Duration {
    Duration::from_secs_f64(global.timeout)
}

/// Who hears SIGINT and SIGTERM while a command has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// They end the command, once its session is closed.
    End,
    /// The command sees to them itself.
    AreTheBodys,
}

/// Runs `body` with a session of its own, and closes the session whatever happens.
pub(crate) async fn with_session<T>(
    global: &Global,
    interrupts: Interrupts,
    body: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = config(global)?;
    if interrupts == Interrupts::End {
        tokio::spawn(end_at_last());
    }
    let (client, session) = tokio::select! {
        opened = async {
            let client = Client::connect(config).await?;
            let session = client.open_session().await?;
            Ok::<_, Failure>((client, session))
        } => opened.map_err(|failure| name_source(global, failure))?,
        () = interrupt() => return Err(Failure::interrupted()),
    };
    let result = tokio::select! {
        result = body(&session) => result,
        () = interrupt(), if interrupts == Interrupts::End => Err(Failure::interrupted()),
    };
    // The result stands whether or not the session's end is heard of.
    let _ = tokio::time::timeout(CLOSE_WITHIN, session.close()).await;
    client.close().await;
    result
}

/// Ends a process that was asked to and does not, since nobody takes what it writes.
async fn end_at_last() {
    interrupt().await;
    tokio::time::sleep(2 * CLOSE_WITHIN).await;
    std::process::exit(INTERRUPTED.into());
}

/// Says where the addresses come from at which nobody answers, if nobody has just typed them.
pub(crate) fn name_source(global: &Global, mut failure: Failure) -> Failure {
    if failure.code == NO_MEMBER_ANSWERS && global.endpoints.is_empty() {
        let (file, advice) = match (&global.context, default_context()) {
            (Some(file), _) => (file.clone(), ""),
            (None, Some(file)) => (
                file,
                ": start `folkmoot dev` again, or name another cluster with --context",
            ),
            (None, None) => return failure,
        };
        failure.message += &format!("\nThe addresses are those of {}{advice}", file.display());
    }
    failure
}

/// Between two attempts at what is refused for now, at first and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(500);

/// Asks again while the answer is that the same may work soon: after a restart a plugin is loading
/// for a moment, and that is nothing to trouble a person with.
pub(crate) async fn patiently<T, E>(
    patience: Duration,
    may_work_soon: impl Fn(&E) -> bool,
    ask: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let until = Instant::now() + patience;
    let mut pause = AGAIN_AFTER;
    loop {
        match ask().await {
            Err(error) if may_work_soon(&error) && Instant::now() + pause < until => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AFTER_MAX);
            }
            result => return result,
        }
    }
}

/// Returns when the process is asked to end.
pub(crate) async fn interrupt() {
    let asked = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupted), Ok(mut terminated)) = asked else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_may_work_soon_is_asked_again_within_the_patience() {
        let asked = Cell::new(0);
        let soon = async || {
            asked.set(asked.get() + 1);
            if asked.get() < 5 { Err("soon") } else { Ok(()) }
        };
        let patience = Duration::from_millis(700);
        assert_eq!(patiently(patience, |_| true, soon).await, Ok(()));
        assert_eq!(asked.get(), 5);

        asked.set(0);
        let never = async || {
            asked.set(asked.get() + 1);
            Err::<(), _>("never")
        };
        assert_eq!(patiently(patience, |_| false, never).await, Err("never"));
        assert_eq!(asked.get(), 1);
        assert_eq!(patiently(patience, |_| true, never).await, Err("never"));
        assert!(asked.get() > 3);
    }
}
