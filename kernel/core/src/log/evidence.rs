//! What is readable behind the end of a chain of runs.

use bytes::Bytes;
use folkmoot_proto::{Incarnation, LogIndex, MemberId, Term};

use super::format::{DurableMark, Run, RunHeader, SegmentHeader, StoredRecord};
use super::tail::Tail;
use super::{BLOCK_BYTES, LogConfig, LogRecord, SegmentNumber};

/// What is readable behind the chain's end says how far the log was known durable, and the vote.
#[derive(Default)]
pub(crate) struct Evidence {
    pub(crate) found: bool,
    pub(crate) durable_run: u64,
    /// The highest entry that is spoken of.
    last: LogIndex,
    /// The newest statement of term and vote, with its run.
    hard_state: (u64, Term, Option<MemberId>),
}

impl Evidence {
    pub(crate) fn search(
        &mut self,
        number: SegmentNumber,
        content: &Bytes,
        from: usize,
        incarnation: Incarnation,
    ) {
        for offset in (from..content.len()).step_by(BLOCK_BYTES) {
            if let Some(run) = run_at(number, content, offset as u64, incarnation) {
                self.run(&run.header);
            }
        }
    }

    fn run(&mut self, header: &RunHeader) {
        self.take(
            header.durable,
            header.last,
            (header.run, header.term, header.vote),
        );
    }

    pub(crate) fn header(&mut self, header: &SegmentHeader) {
        self.take(
            header.durable,
            header.last,
            (header.last_run, header.term, header.vote),
        );
    }

    fn take(
        &mut self,
        durable: DurableMark,
        last: LogIndex,
        hard_state: (u64, Term, Option<MemberId>),
    ) {
        self.found = true;
        self.durable_run = self.durable_run.max(durable.run);
        self.last = self.last.max(durable.last).max(last);
        if hard_state.0 >= self.hard_state.0 {
            self.hard_state = hard_state;
        }
    }

    /// Ends the log with a run that notes the loss, and the newest vote that is known.
    pub(crate) fn note_loss(
        &self,
        config: &LogConfig,
        tail: &mut Tail,
        segment: SegmentNumber,
        chain: u64,
        data: &mut Vec<u8>,
    ) {
        let offset = data.len() as u64;
        let start = Run::begin(data);
        let mut records = vec![StoredRecord::Damaged {
            up_to: self.last.max(tail.last),
        }];
        let (_, term, vote) = self.hard_state;
        if term >= tail.term {
            records.push(StoredRecord::Asked(LogRecord::HardState { term, vote }));
        }
        for record in &records {
            record.encode(data);
            if let Err(error) = tail.apply(record) {
                panic!("a loss can not be noted: {error}");
            }
        }
        let durable = DurableMark {
            run: tail.run,
            last: tail.last,
        };
        tail.run += 1;
        let header = tail.run_header(segment, offset, chain, durable);
        tail.hash = Run::finish(&header, config.incarnation, start, data);
    }
}

/// The run that begins at `offset` of a segment's bytes, if a valid one does.
pub(crate) fn run_at(
    segment: SegmentNumber,
    content: &Bytes,
    offset: u64,
    incarnation: Incarnation,
) -> Option<Run> {
    let start = usize::try_from(offset)
        .ok()
        .filter(|start| *start < content.len())?;
    Run::decode(segment, offset, &content.slice(start..), incarnation)
}
