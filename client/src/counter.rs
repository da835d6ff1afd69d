//! Counters, by the standard plugin `counter`.

use crate::error::CallError;
use crate::lock::{json, parse};
use crate::session::Session;

/// A mount of the `counter` plugin: one number. Additions of many clients need no lock and no
/// retry, and each counts exactly once.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let visits = folkmoot_client::Counter::new(&session, "/counter");
/// println!("visit number {}", visits.add(1).await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    session: Session,
    mount: String,
}

#[derive(serde::Serialize)]
struct Add {
    amount: i64,
}

#[derive(serde::Deserialize)]
struct Total {
    total: i64,
}

impl Counter {
    /// Names a counter; nothing is asked of the cluster yet.
    #[must_use]
    pub fn new(session: &Session, mount: &str) -> Self {
        Self {
            session: session.clone(),
            mount: mount.to_owned(),
        }
    }

    /// Adds to the number, and returns the sum.
    ///
    /// # Errors
    ///
    /// The sum would not fit 64 bits, or no `counter` plugin is mounted there.
    pub async fn add(&self, amount: i64) -> Result<i64, CallError> {
        self.ask("add", json(&Add { amount })).await
    }

    /// The number, after everything that was added anywhere before this was asked.
    ///
    /// # Errors
    ///
    /// No `counter` plugin is mounted there.
    pub async fn read(&self) -> Result<i64, CallError> {
        self.ask("read", b"{}".to_vec()).await
    }

    /// Sets the number to 0, and returns what it was.
    ///
    /// # Errors
    ///
    /// No `counter` plugin is mounted there.
    pub async fn reset(&self) -> Result<i64, CallError> {
        self.ask("reset", b"{}".to_vec()).await
    }

    async fn ask(&self, operation: &str, payload: Vec<u8>) -> Result<i64, CallError> {
        let reply = self.session.call(&self.mount, operation, payload).await?;
        Ok(parse::<Total>(&reply)?.total)
    }
}
