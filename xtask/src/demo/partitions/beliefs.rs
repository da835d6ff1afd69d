//! What the workers say of the partitions that they own, and whether two ever owned one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::demo::worker::Report;

/// What a worker that owns partitions did.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Happened {
    /// It is a member.
    Ready,
    /// It owns a partition.
    Gained,
    /// It is to give a partition up.
    LetGo,
    /// A partition was taken from it.
    Lost,
    /// A write for a partition, guarded by its token, took effect.
    Wrote {
        partition: u32,
        token: u64,
        zxid: u64,
    },
    /// Such a write was refused: the partition was another's by then.
    Refused,
    /// It believed to own a partition from the one time to the other.
    Believed {
        partition: u32,
        token: u64,
        from_us: u64,
        to_us: u64,
    },
    /// Its session is over.
    SessionLost,
    /// It ended as it was asked to.
    Finished,
}

/// What all workers said.
#[derive(Debug, Default)]
pub(super) struct Beliefs {
    ready: BTreeSet<String>,
    lost_sessions: BTreeSet<String>,
    /// By partition, token and worker, from when to when it was believed in.
    intervals: BTreeMap<(u32, u64, String), (u64, u64)>,
    /// By partition, the tokens of the writes that took effect, in the cluster's order.
    writes: BTreeMap<u32, BTreeMap<u64, u64>>,
    pub(super) refused: u64,
}

impl Beliefs {
    pub(super) fn add(&mut self, report: Report<Happened>) {
        let Report {
            worker, happened, ..
        } = report;
        match happened {
            Happened::Ready => {
                self.ready.insert(worker);
            }
            Happened::SessionLost => {
                self.lost_sessions.insert(worker);
            }
            Happened::Wrote {
                partition,
                token,
                zxid,
            } => {
                let writes = self.writes.entry(partition).or_default();
                writes.insert(zxid, token);
            }
            Happened::Refused => self.refused += 1,
            Happened::Believed {
                partition,
                token,
                from_us,
                to_us,
            } => {
                let key = (partition, token, worker);
                let known = self.intervals.entry(key).or_insert((from_us, to_us));
                known.1 = known.1.max(to_us);
            }
            Happened::Gained | Happened::LetGo | Happened::Lost | Happened::Finished => {}
        }
    }

    pub(super) fn is_ready(&self, worker: &str) -> bool {
        self.ready.contains(worker)
    }

    pub(super) fn has_lost_its_session(&self, worker: &str) -> bool {
        self.lost_sessions.contains(worker)
    }

    pub(super) fn intervals(&self) -> usize {
        self.intervals.len()
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.values().map(BTreeMap::len).sum()
    }

    /// How often two workers believed in one partition at the same time.
    pub(super) fn double_owners(&self) -> usize {
        let mut by_partition: BTreeMap<u32, Vec<(u64, u64, &str)>> = BTreeMap::new();
        for ((partition, _, worker), (from, to)) in &self.intervals {
            // Seen once, it has no length: nothing can be within it.
            if from < to {
                let intervals = by_partition.entry(*partition).or_default();
                intervals.push((*from, *to, worker));
            }
        }
        by_partition.values_mut().map(|of| overlaps(of)).sum()
    }

    /// Writes that took effect under an older token than one before them.
    pub(super) fn writes_out_of_turn(&self) -> usize {
        let out_of_turn = |writes: &BTreeMap<u64, u64>| {
            let mut newest = 0;
            let older = writes.values().filter(|token| {
                let is_older = **token < newest;
                newest = newest.max(**token);
                is_older
            });
            older.count()
        };
        self.writes.values().map(out_of_turn).sum()
    }
}

/// Pairs of intervals of different workers that overlap, of one partition.
fn overlaps(intervals: &mut [(u64, u64, &str)]) -> usize {
    intervals.sort_unstable();
    let mut pairs = 0;
    for (place, (_, to, worker)) in intervals.iter().enumerate() {
        let later = intervals.iter().skip(place + 1);
        let within = later.take_while(|(from, _, _)| from < to);
        pairs += within.filter(|(_, _, other)| other != worker).count();
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn told(reports: &[(&str, Happened)]) -> Beliefs {
        let mut beliefs = Beliefs::default();
        for (worker, happened) in reports {
            beliefs.add(Report {
                worker: (*worker).to_owned(),
                at: Instant::now(),
                happened: happened.clone(),
            });
        }
        beliefs
    }

    fn believed(partition: u32, token: u64, from_us: u64, to_us: u64) -> Happened {
        Happened::Believed {
            partition,
            token,
            from_us,
            to_us,
        }
    }

    #[test]
    fn two_who_believe_at_once_are_counted() {
        let in_turn = [
            ("a", believed(1, 5, 0, 10)),
            ("b", believed(1, 6, 10, 20)),
            ("b", believed(2, 7, 0, 30)),
        ];
        assert_eq!(told(&in_turn).double_owners(), 0);
        let mut at_once = in_turn.to_vec();
        // Told again, an interval has become longer.
        at_once.push(("a", believed(1, 5, 0, 11)));
        let beliefs = told(&at_once);
        assert_eq!((beliefs.intervals(), beliefs.double_owners()), (3, 1));
    }

    #[test]
    fn a_write_under_an_older_token_is_counted() {
        let wrote = |token, zxid| Happened::Wrote {
            partition: 1,
            token,
            zxid,
        };
        let reports = [
            ("b", wrote(6, 30)),
            ("a", wrote(5, 20)),
            ("b", wrote(6, 40)),
        ];
        assert_eq!(told(&reports).writes_out_of_turn(), 0);
        let late = [("b", wrote(6, 30)), ("a", wrote(5, 35))];
        assert_eq!(told(&late).writes_out_of_turn(), 1);
    }
}
