//! A session for the length of a command.

use std::time::Duration;

use folkmoot_client::{Client, ClientConfig, ContextChoice, Session};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Global;
use crate::failure::Failure;

/// Closing a session at the end may take as long; then it expires by itself.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How to reach the cluster, by flags, environment and context file.
pub(crate) fn config(global: &Global) -> Result<ClientConfig, Failure> {
    let choice = ContextChoice {
        endpoints: global.endpoints.clone(),
        context: global.context.clone(),
        ca: global.ca.clone(),
        certificate: global.certificate.clone(),
        key: global.key.clone(),
    };
    let timeout = Duration::from_secs_f64(global.timeout);
    let mut config = choice
        .resolve()?
        .session_timeout(Duration::from_secs_f64(global.session_timeout))
        .request_timeout(timeout);
    config.connect_timeout = timeout;
    Ok(config)
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
    let (client, session) = tokio::select! {
        opened = async {
            let client = Client::connect(config).await?;
            let session = client.open_session().await?;
            Ok::<_, Failure>((client, session))
        } => opened?,
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
