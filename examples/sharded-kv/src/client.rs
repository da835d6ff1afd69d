//! The client: finds the owner of a key, and asks it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use folkmoot_client::{Group, Router, Session, Zxid};
use tokio::net::TcpStream;

use crate::wire::{Answer, Lines, Request, Versioned};

/// A worker that does not answer may be paused, or cut off: the next owner is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A map that is behind what a worker knows changes soon.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A client of the store.
pub(crate) struct KvClient {
    router: Router,
    connections: HashMap<String, Lines>,
}

impl KvClient {
    pub(crate) async fn new(session: &Session, group: &str) -> Result<Self> {
        let router = Group::new(session, group).router().await?;
        if router.layout() == Zxid::ZERO {
            bail!("{group} has no partition map: see `folkmoot partition create`");
        }
        Ok(Self {
            router,
            connections: HashMap::new(),
        })
    }

    /// A key's value.
    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<Versioned>> {
        loop {
            let request = |layout| Request::Get {
                key: key.to_owned(),
                layout,
            };
            match self.ask(key, request).await? {
                Some(Answer::Value(value)) => return Ok(value),
                Some(other) => bail!("{other:?} in answer to a read"),
                // A read may be asked again.
                None => {}
            }
        }
    }

    /// Gives a key a value, where it has the version `expected`; gives its version after that.
    ///
    /// A write without an answer is sent again. It names the version that it replaces, so it takes
    /// effect once: if the first one did, the second is refused, and the value is the one that was
    /// to be written.
    pub(crate) async fn put(
        &mut self,
        key: &str,
        value: &str,
        expected: Option<u64>,
    ) -> Result<u64> {
        let mut sent_again = false;
        loop {
            let request = |layout| Request::Put {
                key: key.to_owned(),
                value: value.to_owned(),
                expected,
                layout,
            };
            match self.ask(key, request).await? {
                Some(Answer::Written { version }) => return Ok(version),
                Some(Answer::Conflict) => {
                    let next = expected.map_or(0, |expected| expected + 1);
                    let read = self.get(key).await?;
                    match read {
                        Some(read) if sent_again && read.version == next && read.value == value => {
                            return Ok(next);
                        }
                        read => bail!("{key} has not version {expected:?}: it is {read:?}"),
                    }
                }
                Some(other) => bail!("{other:?} in answer to a write"),
                None => sent_again = true,
            }
        }
    }

    /// Asks the owner of a key, whoever that is by then. None: it was asked, and has not answered.
    async fn ask(
        &mut self,
        key: &str,
        request: impl Fn(Zxid) -> Request,
    ) -> Result<Option<Answer>> {
        loop {
            let route = self.router.route(key);
            if let Some(route) = route
                && let Some(owner) = route.owner
            {
                match self.exchange(&owner.address, &request(route.layout)).await {
                    Ok(Answer::Moved) => {}
                    Ok(answer) => return Ok(Some(answer)),
                    Err(Lost::BeforeSending) => {}
                    Err(Lost::Sent) => return Ok(None),
                }
            }
            // The map changes, or the owner comes to know of it.
            if let Ok(changed) = tokio::time::timeout(AGAIN_AFTER, self.router.changed()).await {
                changed?;
            }
        }
    }

    async fn exchange(&mut self, address: &str, request: &Request) -> Result<Answer, Lost> {
        let mut lines = match self.connections.remove(address) {
            Some(lines) => lines,
            None => {
                let connecting = TcpStream::connect(address);
                let connected = tokio::time::timeout(ANSWER_WITHIN, connecting).await;
                let stream = connected
                    .map_err(|_| Lost::BeforeSending)?
                    .map_err(|_| Lost::BeforeSending)?;
                Lines::new(stream)
            }
        };
        let exchange = async {
            lines.send(request).await?;
            lines.receive().await
        };
        match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(Ok(Some(answer))) => {
                self.connections.insert(address.to_owned(), lines);
                Ok(answer)
            }
            _ => Err(Lost::Sent),
        }
    }
}

/// There is no answer.
enum Lost {
    BeforeSending,
    /// The worker may have done what was asked.
    Sent,
}
