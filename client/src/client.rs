//! Connecting, and opening sessions.

use std::sync::Arc;

use folkmoot_proto::client::MemberStatus;
use folkmoot_proto::{MemberId, SessionSecret, Tick};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ClientConfig;
use crate::connector::{Connector, secure_bytes};
use crate::core::{LeaseView, SessionCore, Standing};
use crate::driver::Driver;
use crate::error::{AttemptError, ConfigError, ConnectError};
use crate::link;
use crate::session::Session;

/// A client of one cluster. Cheap to clone. Its sessions share one connection, and move to
/// another member by themselves when that is lost.
///
/// ```no_run
/// use folkmoot_client::{Client, ClientConfig, NodeKind};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(ClientConfig::from_environment()?).await?;
/// let session = client.open_session().await?;
/// session.create("/greeting", "hello", NodeKind::PERSISTENT).await?;
/// let node = session.get("/greeting").await?;
/// assert_eq!(node.data, b"hello");
/// session.close().await?;
/// client.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    connector: Arc<Connector>,
}

impl Client {
    /// Connects to any of the members that the configuration names.
    ///
    /// # Errors
    ///
    /// The configuration can not be used, or no member answers: then each endpoint is listed with
    /// its reason.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let connector = Arc::new(Connector::new(config)?);
        connector.link(None).await?;
        Ok(Self { connector })
    }

    /// Opens a session. It lives until it is closed, or until the cluster has accepted no
    /// heartbeat of it for its timeout.
    ///
    /// # Errors
    ///
    /// No member answers, no leader within the configuration's `connect_timeout`, or the cluster
    /// refuses: a timeout outside its limits, or as many sessions as it may have.
    pub async fn open_session(&self) -> Result<Session, ConnectError> {
        let config = self.connector.config();
        let asked = config.session_timeout.as_millis();
        let timeout_ms = u32::try_from(asked).unwrap_or(u32::MAX);
        let core = SessionCore::new(SessionSecret(secure_bytes()), timeout_ms);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (lease, lease_view) = watch::channel(LeaseView {
            standing: Standing::Safe,
            jeopardy_at: Tick::ZERO,
            over_at: Tick::ZERO,
        });
        let (opened, answer) = oneshot::channel();
        let driver = Driver::new(core, Arc::clone(&self.connector), inbox, lease, opened);
        tokio::spawn(driver.run());
        let after = config.connect_timeout;
        let no_leader = || ConnectError::NoLeader { after };
        let answer = tokio::time::timeout(after, answer)
            .await
            .map_err(|_| no_leader())?;
        let opened = answer.map_err(|_| no_leader())??;
        Ok(Session::new(
            opened,
            commands,
            lease_view,
            config.request_timeout,
        ))
    }

    /// Closes the client's connections, so that members need not wait for them to fall silent.
    /// Sessions that were not closed live on until they expire.
    pub async fn close(&self) {
        self.connector.close().await;
    }
}

/// What became of one endpoint's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The endpoint.
    pub endpoint: String,
    /// The member's status, or why there is none.
    pub status: Result<MemberStatus, AttemptError>,
}

/// Asks every endpoint for its status, each on a connection of its own, at once; and those that
/// members advertise beside the ones named. It needs no leader and no session.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = folkmoot_client::ClientConfig::from_environment()?;
/// for endpoint in folkmoot_client::cluster_status(config).await? {
///     match endpoint.status {
///         Ok(status) => println!("{}: {} at {}", endpoint.endpoint, status.role, status.applied_zxid),
///         Err(error) => println!("{}: {error}", endpoint.endpoint),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// The configuration can not be used. An endpoint that does not answer is a line of the result.
pub async fn cluster_status(config: ClientConfig) -> Result<Vec<EndpointStatus>, ConfigError> {
    let learn = config.learn_members;
    let connector = Arc::new(Connector::new(config)?);
    let named = ask_all(&connector, connector.endpoints().await).await;
    let answered: Vec<MemberId> = named
        .iter()
        .filter_map(|(_, answer)| member(answer))
        .collect();
    let mut others = Vec::new();
    for (_, answer) in &named {
        let Ok((welcome, _)) = answer else { continue };
        for (id, address) in &welcome.members {
            let new = !answered.contains(id)
                && !others.contains(address)
                && !named.iter().any(|(endpoint, _)| endpoint == address);
            if new && learn {
                others.push(address.clone());
            }
        }
    }
    let learned = ask_all(&connector, others).await;
    connector.close().await;
    let all = named.into_iter().chain(learned);
    Ok(all
        .map(|(endpoint, answer)| EndpointStatus {
            endpoint,
            status: answer.map(|(_, status)| status),
        })
        .collect())
}

type StatusAnswer = Result<(link::Welcome, MemberStatus), AttemptError>;

fn member(answer: &StatusAnswer) -> Option<MemberId> {
    answer.as_ref().ok().map(|(_, status)| status.member)
}

async fn ask_all(
    connector: &Arc<Connector>,
    endpoints: Vec<String>,
) -> Vec<(String, StatusAnswer)> {
    let asked: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| {
            let connector = Arc::clone(connector);
            let name = endpoint.clone();
            let task = tokio::spawn(async move {
                connector
                    .ask(&endpoint, async |connection| link::status(connection).await)
                    .await
            });
            (name, task)
        })
        .collect();
    let mut answers = Vec::new();
    for (endpoint, task) in asked {
        let gone = |error: tokio::task::JoinError| AttemptError::Failed {
            reason: error.to_string(),
        };
        answers.push((
            endpoint,
            task.await.unwrap_or_else(|error| Err(gone(error))),
        ));
    }
    answers
}
