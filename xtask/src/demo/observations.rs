//! What was seen, and whether it is what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Row;
use super::worker::{Happened, Report};

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Observations {
    /// The longest pause in acknowledged writes after the leader's death.
    pub(crate) failover: Option<Duration>,
    /// How long the killed member took to catch up.
    pub(crate) caught_up: Option<Duration>,
    /// How long the lock of a killed worker took to move on.
    pub(crate) moved_on: Option<Duration>,
    /// The counter in the end.
    pub(crate) counter: Option<u64>,
    /// All members' zxid and state hash in the end.
    pub(crate) agreement: Option<(u64, String)>,
    grants: Vec<Grant>,
    acknowledged_at: Vec<Instant>,
    written: u64,
    stale: BTreeMap<u64, bool>,
    added: u64,
    /// Workers whose last addition has no answer yet.
    adding: BTreeSet<String>,
    unknown: u64,
    dead: BTreeSet<String>,
}

struct Grant {
    worker: String,
    token: u64,
    at: Instant,
}

impl Observations {
    /// Takes one report.
    pub(crate) fn add(&mut self, report: Report) {
        let Report {
            worker,
            at,
            happened,
        } = report;
        match happened {
            Happened::Acquired { token } => {
                self.acknowledged_at.push(at);
                self.grants.push(Grant { worker, token, at });
            }
            Happened::Wrote => {
                self.acknowledged_at.push(at);
                self.written += 1;
            }
            Happened::Adding => {
                if !self.adding.insert(worker) {
                    self.unknown += 1;
                }
            }
            Happened::Added => {
                self.acknowledged_at.push(at);
                self.adding.remove(&worker);
                self.added += 1;
            }
            Happened::AddRefused => {
                self.adding.remove(&worker);
            }
            Happened::StaleRefused { token } => {
                self.stale.insert(token, true);
            }
            Happened::StaleAccepted { token } => {
                self.stale.insert(token, false);
            }
            Happened::Ready
            | Happened::Released
            | Happened::Jeopardy
            | Happened::SessionLost
            | Happened::Finished => {}
        }
    }

    /// A worker was killed: nothing more will be heard of it.
    pub(crate) fn worker_killed(&mut self, worker: &str) {
        self.dead.insert(worker.to_owned());
    }

    /// Whether a worker was killed.
    pub(crate) fn is_dead(&self, worker: &str) -> bool {
        self.dead.contains(worker)
    }

    /// Grants of the lock so far.
    pub(crate) fn acquisitions(&self) -> usize {
        self.grants.len()
    }

    /// The first grant after `token` that went to another worker.
    pub(crate) fn last_acquisition_of_another(
        &self,
        worker: &str,
        token: u64,
    ) -> Option<(String, Instant)> {
        let next = self
            .grants
            .iter()
            .find(|grant| grant.token > token && grant.worker != worker)?;
        Some((next.worker.clone(), next.at))
    }

    /// Whether the write with a lost grant's token was refused, if it was answered.
    pub(crate) fn stale_answer(&self, token: u64) -> Option<bool> {
        self.stale.get(&token).copied()
    }

    /// The longest time without an acknowledged write since `since`.
    pub(crate) fn longest_pause_since(&self, since: Instant) -> Duration {
        let mut times: Vec<_> = self
            .acknowledged_at
            .iter()
            .copied()
            .filter(|at| *at > since)
            .collect();
        times.push(since);
        times.sort_unstable();
        times
            .windows(2)
            .filter_map(|pair| Some(pair.last()?.duration_since(*pair.first()?)))
            .max()
            .unwrap_or_default()
    }

    /// Additions whose outcome nobody was told.
    fn unknown_additions(&self) -> u64 {
        self.unknown + self.adding.len() as u64
    }

    fn tokens_are_unique(&self) -> bool {
        let tokens: BTreeSet<_> = self.grants.iter().map(|grant| grant.token).collect();
        tokens.len() == self.grants.len()
    }

    fn tokens_rise_for_each_worker(&self) -> bool {
        let mut last = BTreeMap::new();
        self.grants.iter().all(|grant| {
            last.insert(&grant.worker, grant.token)
                .is_none_or(|before| before < grant.token)
        })
    }

    fn counter_is_in_bounds(&self) -> bool {
        self.counter.is_some_and(|counter| {
            (self.added..=self.added + self.unknown_additions()).contains(&counter)
        })
    }

    /// What was promised, and what was seen of it.
    pub(super) fn rows(&self) -> Vec<Row> {
        let millis = |duration: Option<Duration>| {
            duration.map_or("not seen".to_owned(), |duration| {
                format!("{} ms", duration.as_millis())
            })
        };
        let refused = self.stale.values().filter(|refused| **refused).count();
        let rows = [
            (
                "leader killed: longest pause in acknowledged writes",
                millis(self.failover),
                self.failover.is_some(),
            ),
            (
                "killed member: back and caught up after",
                millis(self.caught_up),
                self.caught_up.is_some(),
            ),
            (
                "killed worker: the lock moved on after",
                millis(self.moved_on),
                self.moved_on.is_some(),
            ),
            (
                "acquisitions, all with tokens of their own, rising",
                format!("{} ({} guarded writes)", self.grants.len(), self.written),
                self.tokens_are_unique() && self.tokens_rise_for_each_worker(),
            ),
            (
                "writes with a lost grant's token: refused of tried",
                format!("{refused} of {}", self.stale.len()),
                refused > 0 && refused == self.stale.len(),
            ),
            (
                "counter: acknowledged ≤ value ≤ acknowledged + unknown",
                format!(
                    "{} ≤ {} ≤ {} + {}",
                    self.added,
                    self.counter
                        .map_or("?".to_owned(), |counter| counter.to_string()),
                    self.added,
                    self.unknown_additions()
                ),
                self.counter_is_in_bounds(),
            ),
            (
                "all members at one zxid with one state hash",
                self.agreement
                    .as_ref()
                    .map_or("not seen".to_owned(), |(zxid, hash)| {
                        format!("zxid {zxid}, hash {hash}")
                    }),
                self.agreement.is_some(),
            ),
        ];
        let rows = rows.into_iter();
        rows.map(|(what, seen, held)| Row { what, seen, held })
            .collect()
    }
}
