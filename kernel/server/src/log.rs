//! The way to the log thread, and what its end means.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use folkmoot_core::consensus::PersistId;
use folkmoot_core::log::LogRecord;
use folkmoot_proto::LogIndex;
use folkmoot_storage::{LogCommand, LogDone, LogService};
use tokio::sync::mpsc;

use crate::RunError;
use crate::checkpoint::Growth;
use crate::fatal::Fatal;
use crate::network::{ConsensusInput, LogReadRequest, NetworkEvent};

/// The way to the log thread; cheap to clone. What it is asked for after it has ended is dropped:
/// then the member ends.
#[derive(Clone, Debug)]
pub(crate) struct LogLink {
    commands: Sender<LogCommand>,
    growth: Arc<Growth>,
}

impl LogLink {
    /// The link, and its end for the log thread.
    pub(crate) fn new(growth: Arc<Growth>) -> (Self, Receiver<LogCommand>) {
        let (commands, inbox) = crossbeam_channel::unbounded();
        (Self { commands, growth }, inbox)
    }

    pub(crate) fn persist(&self, id: PersistId, records: Vec<LogRecord>) {
        let bytes: u64 = records.iter().map(record_bytes).sum();
        self.growth.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tell(LogCommand::Append { id, records });
    }

    pub(crate) fn read(&self, read: LogReadRequest) {
        self.tell(LogCommand::Read {
            id: read.id,
            from: read.from,
            to: read.to,
            bytes_max: read.bytes_max,
        });
    }

    pub(crate) fn compact(&self, up_to: LogIndex) {
        self.tell(LogCommand::Compact { up_to });
    }

    fn tell(&self, command: LogCommand) {
        let _ = self.commands.send(command);
    }
}

/// Runs the log until nobody can ask it for anything any more.
pub(crate) fn run(
    service: LogService,
    inbox: &Receiver<LogCommand>,
    events: &mpsc::UnboundedSender<NetworkEvent>,
    fatal: &Fatal,
) {
    let stopped = service.run(inbox, |done| {
        let input = match done {
            LogDone::Durable(id) => ConsensusInput::Durable(id),
            LogDone::Read(read) => ConsensusInput::LogRead(read),
        };
        // The network thread is gone only when the member stops.
        let _ = events.send(NetworkEvent::Consensus(input));
    });
    if let Err(error) = stopped {
        fatal.report(RunError::Disk {
            reason: error.to_string(),
        });
    }
}

fn record_bytes(record: &LogRecord) -> u64 {
    match record {
        LogRecord::Entry(entry) => entry.payload.len() as u64,
        _ => 0,
    }
}
