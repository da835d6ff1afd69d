//! One turn of the network thread, as a plain function: inputs into the consensus machine, and
//! what it wants done sorted by who does it.

use folkmoot_core::consensus::{
    Action, Consensus, LogRead, LogReadId, PersistId, ProposedBatch, Stall,
};
use folkmoot_core::execution::ConsensusEvent;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::peer::{ConsensusMessage, ReadContext};
use folkmoot_proto::record::StateMeta;
use folkmoot_proto::{LogIndex, MemberId, Term, Tick};

/// What the consensus machine is told.
#[derive(Debug)]
pub(crate) enum ConsensusInput {
    /// A peer's message.
    Message(MemberId, ConsensusMessage),
    /// Everything persisted up to here is on disk.
    Durable(PersistId),
    /// Entries read back.
    LogRead(LogRead),
    /// Execution proposes.
    Propose(ProposedBatch),
    /// Execution asks for a read barrier.
    ReadBarrier(ReadContext),
    /// A snapshot that a leader offered in a term is complete and durable here.
    SnapshotPrepared(Term, StateMeta),
    /// A peer got its snapshot.
    SnapshotSent(MemberId),
    /// A peer's snapshot ended early.
    SnapshotFailed(MemberId),
    /// Execution has applied the entries up to here.
    Applied(LogIndex),
    /// The log's entries up to here are covered by a checkpoint.
    LogCompacted(LogIndex),
    /// Something in this process stalls (rule R19).
    Stall(Stall),
    /// Hand leadership over before the member stops.
    TransferLeadership,
}

/// What a turn wants done. Orders within one list matter, orders between lists do not: consensus
/// sends nothing whose ground must be durable before `Durable` has said so (rule R17).
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// For the log thread: first, since its sync takes longest.
    pub(crate) persist: Vec<(PersistId, Vec<LogRecord>)>,
    /// For the log's reader.
    pub(crate) reads: Vec<LogReadRequest>,
    /// For the peers.
    pub(crate) sends: Vec<(MemberId, ConsensusMessage)>,
    /// For execution: the one FIFO.
    pub(crate) events: Vec<FifoItem>,
    /// Peers that need a snapshot.
    pub(crate) snapshots: Vec<MemberId>,
    /// Prepared snapshots that the log does not take.
    pub(crate) discarded: Vec<StateMeta>,
}

/// Entries that consensus needs back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogReadRequest {
    pub(crate) id: LogReadId,
    pub(crate) from: LogIndex,
    pub(crate) to: LogIndex,
    pub(crate) bytes_max: usize,
}

/// What goes to execution in consensus' order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FifoItem {
    /// An event for the execution machine.
    Event(ConsensusEvent),
    /// The execution machine is replaced by one that is built from the prepared snapshot (rule
    /// R25). Events after this one are for the new machine.
    Replace(StateMeta),
}

/// Feeds `inbox` to the machine and drains its actions. `now` was read after the inbox was filled
/// (rule R8).
pub(crate) fn network_turn(
    consensus: &mut Consensus,
    now: Tick,
    inbox: &mut Vec<ConsensusInput>,
    outbox: &mut Outbox,
) {
    for input in inbox.drain(..) {
        match input {
            ConsensusInput::Message(from, message) => consensus.handle_message(now, from, message),
            ConsensusInput::Durable(id) => consensus.handle_durable(now, id),
            ConsensusInput::LogRead(read) => consensus.handle_log_read(now, read),
            ConsensusInput::Propose(batch) => propose(consensus, now, batch, outbox),
            ConsensusInput::ReadBarrier(context) => consensus.read_barrier(now, context),
            ConsensusInput::SnapshotPrepared(term, meta) => {
                let index = meta.index;
                if !consensus.snapshot_installed(now, term, meta.clone()) {
                    tracing::info!(%index, "a snapshot came too late: the log is as far already");
                    outbox.discarded.push(meta);
                }
            }
            ConsensusInput::SnapshotSent(peer) => consensus.snapshot_sent(now, peer),
            ConsensusInput::SnapshotFailed(peer) => consensus.snapshot_failed(now, peer),
            ConsensusInput::Applied(index) => consensus.handle_applied(now, index),
            ConsensusInput::LogCompacted(up_to) => consensus.log_compacted(now, up_to),
            ConsensusInput::Stall(stall) => consensus.report_stall(now, stall),
            ConsensusInput::TransferLeadership => consensus.transfer_leadership(now, None),
        }
        drain(consensus, outbox);
    }
    if consensus.poll_timeout().is_some_and(|due| due <= now) {
        consensus.handle_timeout(now);
        drain(consensus, outbox);
    }
}

/// A refusal goes back through the FIFO, behind what was committed before it (rule R3).
fn propose(consensus: &mut Consensus, now: Tick, batch: ProposedBatch, outbox: &mut Outbox) {
    let term = batch.term;
    if let Err(reason) = consensus.propose(now, batch) {
        drain(consensus, outbox);
        outbox
            .events
            .push(FifoItem::Event(ConsensusEvent::ProposeRefused {
                reason,
                term,
                last_appended: consensus.last_appended(),
            }));
    }
}

fn drain(consensus: &mut Consensus, outbox: &mut Outbox) {
    while let Some(action) = consensus.poll_action() {
        let event = match action {
            Action::Send { to, message } => {
                outbox.sends.push((to, message));
                continue;
            }
            Action::Persist { id, records } => {
                outbox.persist.push((id, records));
                continue;
            }
            Action::ReadLog {
                id,
                from,
                to,
                bytes_max,
            } => {
                outbox.reads.push(LogReadRequest {
                    id,
                    from,
                    to,
                    bytes_max,
                });
                continue;
            }
            Action::SnapshotNeeded { to } => {
                outbox.snapshots.push(to);
                continue;
            }
            Action::NotAdmitted { by } => {
                tracing::error!(
                    %by,
                    "another life of this member's data folder is known to a peer: this one \
                     follows, and can neither vote nor count for a quorum"
                );
                continue;
            }
            Action::SnapshotInstalled { meta } => {
                outbox.events.push(FifoItem::Replace(meta));
                continue;
            }
            Action::Committed { entries } => ConsensusEvent::Committed { entries },
            Action::Elected { term, first_index } => ConsensusEvent::Elected { term, first_index },
            Action::Deposed { term } => ConsensusEvent::Deposed { term },
            Action::LeaderChanged { term, leader } => {
                ConsensusEvent::LeaderChanged { term, leader }
            }
            Action::ReadReady { context, index } => ConsensusEvent::ReadReady { context, index },
            Action::ReadLost { context } => ConsensusEvent::ReadLost { context },
        };
        outbox.events.push(FifoItem::Event(event));
    }
}
