//! What clients and workers say to each other: one JSON document a line over TCP.

use folkmoot_client::Zxid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// What a client asks. `layout` is that of the map by which it found the owner: a worker that has
/// another one answers that the key has moved.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Get {
        key: String,
        layout: Zxid,
    },
    /// Only if the key has this version; none: if there is no such key.
    Put {
        key: String,
        value: String,
        expected: Option<u64>,
        layout: Zxid,
    },
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Value(Option<Versioned>),
    Written {
        version: u64,
    },
    /// The key has another version.
    Conflict,
    /// This worker does not own the key's partition, or not yet: nothing was done.
    Moved,
}

/// A value, and how often it was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versioned {
    pub(crate) value: String,
    pub(crate) version: u64,
}

/// Lines of JSON on a connection.
pub(crate) struct Lines(BufReader<TcpStream>);

impl Lines {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line).await
    }

    /// The next message; none once the other side has closed the connection.
    pub(crate) async fn receive<T: for<'a> Deserialize<'a>>(
        &mut self,
    ) -> std::io::Result<Option<T>> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }
}
