//! Batches are chained: each stands on exactly the state that the one before it left (rule R3), in
//! the term in which it was executed, and its time is not before theirs (rule R9).

use folkmoot_proto::batch::Batch;
use folkmoot_proto::entry::Entry;

use crate::oracle::Oracle;
use crate::violation::{Checked, Violation};

/// The longest that the log clock may move ahead within one batch: a leader hands on what its own
/// clock has measured, and no fault of a world lasts longer.
const LOG_CLOCK_STEP_MS_MAX: u64 = 60_000;

/// `batch` is the payload of `entry` and comes after what the oracle knows.
pub(crate) fn check(oracle: &Oracle, entry: &Entry, batch: &Batch) -> Checked {
    let wrong = |facts: String| {
        Err(Violation::new(
            "chain",
            format!("entry {}: {facts}", entry.index),
        ))
    };
    if batch.term != entry.term {
        return wrong(format!(
            "executed in term {}, appended in {}",
            batch.term, entry.term
        ));
    }
    if batch.base_zxid != oracle.zxid || batch.first_zxid != batch.base_zxid.next() {
        return wrong(format!(
            "stands on zxid {} and begins with {}, the state is at {}",
            batch.base_zxid, batch.first_zxid, oracle.zxid
        ));
    }
    let last = batch.base_zxid.0 + batch.txns.len() as u64;
    if batch.txns.is_empty() || last != entry.last_zxid.0 {
        return wrong(format!(
            "{} transactions end at {}",
            batch.txns.len(),
            entry.last_zxid
        ));
    }
    if batch.log_time < oracle.log_time {
        return wrong(format!(
            "log time {} after {}",
            batch.log_time, oracle.log_time
        ));
    }
    if batch.log_time.0 > oracle.log_time.0 + LOG_CLOCK_STEP_MS_MAX {
        return wrong(format!(
            "log time {} leaps from {}",
            batch.log_time, oracle.log_time
        ));
    }
    Ok(())
}
