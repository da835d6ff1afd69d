//! An execution that only proposes numbered batches and hashes what is committed: with it whole
//! clusters of consensus alone run fast. It keeps to rules R3 and R4 as the real one does.

use bytes::{Buf, Bytes};
use folkmoot_core::consensus::ProposedBatch;
use folkmoot_core::execution::{ConsensusEvent, ExecutionAction};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::peer::ReadContext;
use folkmoot_proto::record::{RecordChange, StateMeta};
use folkmoot_proto::{ClusterId, LogIndex, LogTime, MemberId, Term, Tick, Zxid};
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::dice::Dice;

/// Bytes in front of a batch's filling: its base zxid.
const HEADER_BYTES: usize = 8;

#[derive(Debug)]
pub(crate) struct PlainEngine {
    dice: Dice,
    member: MemberId,
    run: u64,
    meta: StateMeta,
    /// The term in which this member leads, and the entry that it must apply first.
    office: Option<(Term, LogIndex)>,
    /// The last zxid proposed, or applied if none is under way.
    proposed: Zxid,
    next_proposal: Option<Tick>,
    reads: BTreeMap<u64, Tick>,
    sequence: u64,
    interval_micros: u64,
    actions: VecDeque<ExecutionAction>,
    /// Read barriers that hold, for the checks: the context's sequence and the index.
    pub(crate) ready: Vec<(ReadContext, LogIndex)>,
    pub(crate) lost: u64,
    pub(crate) dropped: u64,
}

impl PlainEngine {
    pub(crate) fn new(seed: u64, member: MemberId, run: u64, meta: StateMeta) -> Self {
        let mut dice = Dice::new(seed, &format!("plain {member} {run}"));
        Self {
            interval_micros: dice
                .pick(&[2_000, 10_000, 40_000])
                .copied()
                .unwrap_or(10_000),
            dice,
            member,
            run,
            proposed: meta.zxid,
            meta,
            office: None,
            next_proposal: None,
            reads: BTreeMap::new(),
            sequence: 0,
            actions: VecDeque::new(),
            ready: Vec::new(),
            lost: 0,
            dropped: 0,
        }
    }

    /// The state before entry 1.
    pub(crate) fn empty_meta() -> StateMeta {
        StateMeta {
            cluster: ClusterId([0; 16]),
            index: LogIndex::ZERO,
            term: Term::ZERO,
            zxid: Zxid::ZERO,
            log_time: LogTime::ZERO,
            state_hash: 0,
            feature_level: 1,
            bootstrap: Bytes::new(),
        }
    }

    /// Where the state stands.
    pub(crate) fn meta(&self) -> &StateMeta {
        &self.meta
    }

    /// The whole state as records; one is enough here.
    pub(crate) fn records(&self) -> Vec<RecordChange> {
        vec![RecordChange {
            key: Bytes::from_static(b"hash"),
            value: Some(Bytes::copy_from_slice(&self.meta.state_hash.to_le_bytes())),
        }]
    }

    pub(crate) fn handle_consensus(
        &mut self,
        now: Tick,
        event: ConsensusEvent,
    ) -> Result<(), String> {
        match event {
            ConsensusEvent::Committed { entries } => {
                for entry in entries {
                    self.apply(&entry)?;
                }
            }
            ConsensusEvent::Elected { term, first_index } => {
                self.office = Some((term, first_index));
                self.next_proposal = Some(now);
            }
            ConsensusEvent::Deposed { term } => {
                if self.office.is_some_and(|(held, _)| held == term) {
                    self.dropped += u64::from(self.proposed > self.meta.zxid);
                    self.office = None;
                    self.next_proposal = None;
                    self.proposed = self.meta.zxid;
                }
            }
            ConsensusEvent::ProposeRefused {
                term,
                last_appended,
                ..
            } => {
                if self.office.is_some_and(|(held, _)| held == term) {
                    self.dropped += 1;
                    self.proposed = Zxid::ZERO;
                    self.office = Some((term, last_appended));
                }
            }
            ConsensusEvent::ReadReady { context, index } => {
                if self.reads.remove(&context.sequence).is_some() {
                    self.ready.push((context, index));
                }
            }
            ConsensusEvent::ReadLost { context } => {
                self.lost += u64::from(self.reads.remove(&context.sequence).is_some());
            }
            ConsensusEvent::LeaderChanged { .. } => {}
        }
        Ok(())
    }

    /// Proposes a batch if one is due, and now and then asks for a read barrier.
    pub(crate) fn step(&mut self, now: Tick) {
        if self.dice.chance(20) {
            self.sequence += 1;
            let context = ReadContext {
                member: self.member,
                run: self.run,
                sequence: self.sequence,
            };
            self.reads.insert(self.sequence, now);
            self.actions
                .push_back(ExecutionAction::ReadBarrier { context });
        }
        let Some((term, first)) = self.office else {
            return;
        };
        if self.meta.index < first || self.next_proposal.is_none_or(|due| due > now) {
            return;
        }
        self.proposed = self.proposed.max(self.meta.zxid);
        for _ in 0..self.dice.between(1, 3) {
            self.propose(term);
        }
        let wait = self.dice.between(0, 2 * self.interval_micros);
        self.next_proposal = Some(Tick(now.0 + wait));
    }

    pub(crate) fn poll_action(&mut self) -> Option<ExecutionAction> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        let (_, first) = self.office?;
        self.next_proposal.filter(|_| self.meta.index >= first)
    }

    fn propose(&mut self, term: Term) {
        let base_zxid = self.proposed;
        let last_zxid = Zxid(base_zxid.0 + self.dice.between(1, 5));
        let mut payload = base_zxid.0.to_le_bytes().to_vec();
        let filling = self.dice.between(8, 600) as usize;
        payload.resize(HEADER_BYTES + filling, self.dice.bits() as u8);
        self.proposed = last_zxid;
        self.actions.push_back(ExecutionAction::Propose {
            batch: ProposedBatch {
                term,
                base_zxid,
                last_zxid,
                payload: payload.into(),
            },
        });
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.index != self.meta.index.next() {
            return Err(format!(
                "entry {} follows entry {}",
                entry.index, self.meta.index
            ));
        }
        if entry.kind == EntryKind::Batch {
            let base = entry.payload.clone().get_u64_le();
            if Zxid(base) != self.meta.zxid {
                return Err(format!(
                    "the batch of entry {} stands on zxid {base}, the state is at {}",
                    entry.index, self.meta.zxid
                ));
            }
        }
        if entry.kind == EntryKind::Bootstrap {
            self.meta.bootstrap = entry.payload.clone();
        }
        let payload = xxh3_64(&entry.payload);
        self.meta.state_hash = xxh3_64_with_seed(&payload.to_le_bytes(), self.meta.state_hash);
        self.meta.index = entry.index;
        self.meta.term = entry.term;
        self.meta.zxid = entry.last_zxid;
        self.meta.log_time = LogTime(self.meta.log_time.0 + 1);
        Ok(())
    }
}
