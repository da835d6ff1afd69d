//! Writes take their places in an order that keeps to real time: what was asked after something
//! else was answered comes after it (linearizability of writes, by their zxids).

use folkmoot_proto::Zxid;

use crate::violation::{Checked, Violation};

/// The newest transaction that anyone was told of.
#[derive(Debug, Default)]
pub(crate) struct RealTime {
    told: Zxid,
}

impl RealTime {
    /// Whatever is asked now comes after this.
    pub(crate) fn floor(&self) -> Zxid {
        self.told
    }

    /// A write that was asked when `floor` was told is answered at `zxid`.
    pub(crate) fn written(&mut self, floor: Zxid, zxid: Zxid) -> Checked {
        self.seen(zxid);
        if zxid > floor {
            return Ok(());
        }
        Err(Violation::new(
            "real_time",
            format!("a write took zxid {zxid}, and was asked after zxid {floor} was told"),
        ))
    }

    /// Someone was shown the state at `zxid`.
    pub(crate) fn seen(&mut self, zxid: Zxid) {
        self.told = self.told.max(zxid);
    }
}
