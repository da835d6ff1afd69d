//! What consensus asks the log to keep.

use folkmoot_proto::entry::Entry;
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// The term, and the vote in it.
    HardState {
        /// The term.
        term: Term,
        /// The vote.
        vote: Option<MemberId>,
    },
    /// An entry behind the last one.
    Entry(Entry),
    /// The entries after `last` are gone (rule R24: a record, never an overwrite).
    Truncate {
        /// The last entry that stays.
        last: LogIndex,
    },
    /// From here on the log continues a snapshot whose folder is durable (rule R25).
    SnapshotInstalled {
        /// Where the snapshot stands.
        meta: StateMeta,
    },
    /// What was damaged is repaired: entries up to here may be trusted again (rule R23).
    Repaired {
        /// The last entry that may be trusted.
        up_to: LogIndex,
    },
    /// The others know no other life of this folder: the member may vote (rule R21).
    Admitted,
    /// A peer has told which life of its folder it is in; another one is not admitted (rule R21).
    PeerMet {
        /// The peer.
        member: MemberId,
        /// The life.
        incarnation: Incarnation,
    },
}
