//! Batches on their way from execution to the log (rules R3, R5).

use std::collections::VecDeque;

use bytes::Bytes;
use folkmoot_proto::batch::{Batch, Txn};
use folkmoot_proto::limits::{BATCH_BYTES_TARGET, BATCH_TXNS_MAX};
use folkmoot_proto::{LogTime, Term, WallTime, Zxid};

use crate::consensus::ProposedBatch;
use crate::mutation::{self, Mutation};

/// The batch that is being filled, and those that are proposed and not yet applied.
#[derive(Debug)]
pub(super) struct Batches {
    term: Term,
    open: Option<OpenBatch>,
    /// Batches before it that are full, and wait to be proposed.
    full: VecDeque<OpenBatch>,
    /// What was proposed and stands: the last zxid and the bytes of each.
    in_flight: VecDeque<(Zxid, Bytes)>,
    /// Proposals that were neither applied nor refused, those that were thrown away among them.
    unanswered: usize,
    in_flight_max: usize,
}

#[derive(Debug)]
struct OpenBatch {
    base_zxid: Zxid,
    log_time: LogTime,
    wall_time: WallTime,
    txns: Vec<Txn>,
    bytes: usize,
}

impl Batches {
    /// No batches of `term`, of which `in_flight_max` may be in flight at once.
    pub(super) fn new(term: Term, in_flight_max: usize) -> Self {
        Self {
            term,
            open: None,
            full: VecDeque::new(),
            in_flight: VecDeque::new(),
            unanswered: 0,
            in_flight_max: in_flight_max.max(1),
        }
    }

    /// How many batches may be in flight at once.
    pub(super) fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    /// The times of the batch that is being filled: they are those of its next transaction, too.
    pub(super) fn times(&self) -> Option<(LogTime, WallTime)> {
        let open = self.open.as_ref()?;
        Some((open.log_time, open.wall_time))
    }

    /// Whether one more transaction may be executed: else a batch must be committed first.
    pub(super) fn has_room(&self) -> bool {
        let fits =
            |open: &OpenBatch| open.bytes < BATCH_BYTES_TARGET && open.txns.len() < BATCH_TXNS_MAX;
        self.full.is_empty() && self.open.as_ref().is_none_or(fits)
    }

    /// Whether one more request may be executed: the rest of a batch is for what clients do not ask
    /// for, so that their requests leave room for it however many there are.
    pub(super) fn has_room_for_requests(&self) -> bool {
        let fits = |open: &OpenBatch| {
            open.bytes < BATCH_BYTES_TARGET / 8 * 7 && open.txns.len() < BATCH_TXNS_MAX / 8 * 7
        };
        self.open.as_ref().is_none_or(fits)
    }

    /// Adds the transaction after `base_zxid`; the first one of a batch gives it its times. One that
    /// does not fit what there is begins another batch: a large one travels alone, so that every
    /// batch fits a frame.
    pub(super) fn push(
        &mut self,
        base_zxid: Zxid,
        times: (LogTime, WallTime),
        txn: Txn,
        bytes: usize,
    ) {
        let fits = |open: &mut OpenBatch| open.bytes + bytes <= BATCH_BYTES_TARGET;
        if let Some(full) = self.open.take_if(|open| !fits(open)) {
            self.full.push_back(full);
        }
        let open = self.open.get_or_insert_with(|| OpenBatch {
            base_zxid,
            log_time: times.0,
            wall_time: times.1,
            txns: Vec::new(),
            bytes: 0,
        });
        open.txns.push(txn);
        open.bytes += bytes;
    }

    /// Cuts what there is into a batch, if fewer than the most are in flight.
    pub(super) fn cut(&mut self) -> Option<ProposedBatch> {
        if self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let open = self.full.pop_front().or_else(|| self.open.take())?;
        let batch = Batch {
            term: self.term,
            base_zxid: open.base_zxid,
            first_zxid: open.base_zxid.next(),
            log_time: open.log_time,
            wall_time: open.wall_time,
            txns: open.txns,
        };
        let last_zxid = batch.last_zxid();
        let payload = encode_checked(&batch);
        self.in_flight.push_back((last_zxid, payload.clone()));
        self.unanswered += 1;
        Some(ProposedBatch {
            term: self.term,
            base_zxid: batch.base_zxid,
            last_zxid,
            payload,
        })
    }

    /// A batch of this term was applied. If it was not thrown away, it is the oldest in flight, byte
    /// for byte: else what was executed after it stands on another state (rule R3).
    pub(super) fn applied(&mut self, zxid: Zxid, payload: &Bytes) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some((last_zxid, proposed)) = self.in_flight.pop_front() {
            assert!(
                last_zxid == zxid && proposed == payload,
                "the batch applied at {zxid} is not the one that was proposed at {last_zxid}"
            );
        }
    }

    /// A batch was refused.
    pub(super) fn refused(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Whether every proposal was applied or refused.
    pub(super) fn all_answered(&self) -> bool {
        self.unanswered == 0
    }

    /// All of them were thrown away with the overlay.
    pub(super) fn drop_all(&mut self) {
        self.open = None;
        self.full.clear();
        self.in_flight.clear();
    }
}

/// The batch's final bytes. They decode to exactly what was applied to the overlay, or this leader
/// stops here: a log with a transaction that no replica can read would stop them all, at each start
/// (rule R5).
fn encode_checked(batch: &Batch) -> Bytes {
    let mut payload = batch.encode();
    if mutation::is_on(Mutation::ProposeUnchecked) {
        payload.pop();
        return payload.into();
    }
    let decoded = Batch::decode(&payload);
    assert!(
        decoded.as_ref() == Ok(batch),
        "the batch at {} does not decode to itself: {decoded:?}",
        batch.first_zxid
    );
    payload.into()
}
