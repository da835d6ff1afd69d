//! The changes of recent transactions, for watches that resume.

use std::collections::VecDeque;

use folkmoot_proto::Zxid;

use crate::state::{AppliedTxn, NodeChange};

/// What a kept transaction or change takes beside its texts and values.
const FIXED_BYTES: usize = 64;

/// A ring of transactions that changed nodes, with a limit of bytes.
#[derive(Debug)]
pub(super) struct History {
    txns: VecDeque<Recent>,
    bytes: usize,
    bytes_max: usize,
    floor: Zxid,
}

#[derive(Debug)]
struct Recent {
    zxid: Zxid,
    changes: Vec<NodeChange>,
    bytes: usize,
}

impl History {
    /// An empty history: everything up to `floor` is not in it.
    pub(super) fn new(floor: Zxid, bytes_max: usize) -> Self {
        Self {
            txns: VecDeque::new(),
            bytes: 0,
            bytes_max,
            floor,
        }
    }

    /// A watch can resume from this zxid (exclusive), and from none before it.
    pub(super) fn floor(&self) -> Zxid {
        self.floor
    }

    /// Keeps a transaction, and forgets the oldest beyond the limit.
    pub(super) fn push(&mut self, txn: &AppliedTxn) {
        if txn.changes.is_empty() {
            return;
        }
        let changes = txn.changes.iter();
        let bytes = changes.map(|change| FIXED_BYTES + change.path.len() + change.data.len());
        let bytes = FIXED_BYTES + bytes.sum::<usize>();
        self.bytes += bytes;
        self.txns.push_back(Recent {
            zxid: txn.zxid,
            changes: txn.changes.clone(),
            bytes,
        });
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.txns.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.floor = oldest.zxid;
        }
    }

    /// The first transaction after `zxid` that changed nodes.
    pub(super) fn after(&self, zxid: Zxid) -> Option<(Zxid, &[NodeChange])> {
        let at = self.txns.partition_point(|txn| txn.zxid <= zxid);
        let txn = self.txns.get(at)?;
        Some((txn.zxid, &txn.changes))
    }
}
