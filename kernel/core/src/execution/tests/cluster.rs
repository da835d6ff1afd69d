//! A cluster in one thread: real execution machines, and a log that does what the test says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::client::{ControlReply, ServerFrame};
use folkmoot_proto::entry::{Entry, EntryKind};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::{ClusterId, Digest, LogIndex, MemberId, Now, Term, Tick, WallTime, Zxid};

use super::plugins::TestPlugins;
use crate::consensus::{ProposeRefused, ProposedBatch};
use crate::execution::{
    ConnectionId, ConsensusEvent, Execution, ExecutionAction, ExecutionConfig, Progress, StreamId,
};
use crate::state::{State, View};

/// What the fake consensus does with proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proposals {
    /// Each is appended and committed at once.
    Commit,
    /// They wait for the test to commit or refuse them.
    Hold,
}

pub(super) struct Member {
    pub(super) execution: Execution,
    pub(super) plugins: TestPlugins,
    /// Entries of the log that were handed to it.
    handed: usize,
    /// Nothing committed is handed to it while set.
    pub(super) lags: bool,
    /// Messages to and from it are lost while set.
    pub(super) cut_off: bool,
}

pub(super) struct Cluster {
    members: BTreeMap<MemberId, Member>,
    pub(super) log: Vec<Entry>,
    pub(super) leader: Option<MemberId>,
    term: Term,
    pub(super) proposals: Proposals,
    pub(super) proposed: VecDeque<ProposedBatch>,
    /// Read barriers that are not answered while `hold_barriers` is set.
    pub(super) barriers: VecDeque<(MemberId, ReadContext)>,
    pub(super) hold_barriers: bool,
    /// Examinations that are asked for are forgotten while set.
    pub(super) hold_examinations: bool,
    messages: VecDeque<(MemberId, MemberId, ExecutionMessage)>,
    pub(super) frames: BTreeMap<StreamId, VecDeque<ServerFrame>>,
    pub(super) controls: Vec<(MemberId, ConnectionId, ControlReply)>,
    pub(super) closed: BTreeSet<StreamId>,
    pub(super) others: Vec<(MemberId, ExecutionAction)>,
    pub(super) now: Tick,
    pub(super) streams: u64,
    pub(super) secrets: u8,
}

pub(super) fn member(id: u64) -> MemberId {
    MemberId(id)
}

impl Cluster {
    /// A cluster of `members` members, led by the first.
    pub(super) fn new(members: u64) -> Self {
        Self::with_limits(members, Limits::default())
    }

    pub(super) fn with_limits(members: u64, limits: Limits) -> Self {
        let bootstrap = Bootstrap {
            cluster: ClusterId([7; 16]),
            created: WallTime(1),
            members: (1..=members)
                .map(|id| BootstrapMember {
                    id: MemberId(id),
                    peer_address: String::new(),
                    client_address: String::new(),
                })
                .collect(),
            limits,
        };
        let bootstrap = Bytes::from(bootstrap.to_bytes());
        let now = Tick(1_000_000_000);
        let start = |id| {
            let state = State::new(bootstrap.clone()).expect("a bootstrap entry");
            let config = ExecutionConfig::new(MemberId(id), 1);
            let member = Member {
                execution: Execution::new(config, state, id, at(now)),
                plugins: TestPlugins::default(),
                handed: 0,
                lags: false,
                cut_off: false,
            };
            (MemberId(id), member)
        };
        let entry = Entry {
            index: LogIndex(1),
            term: Term(1),
            last_zxid: Zxid::ZERO,
            kind: EntryKind::Bootstrap,
            payload: bootstrap.clone(),
        };
        let mut cluster = Self {
            members: (1..=members).map(start).collect(),
            log: vec![entry],
            leader: None,
            term: Term(1),
            proposals: Proposals::Commit,
            proposed: VecDeque::new(),
            barriers: VecDeque::new(),
            hold_barriers: false,
            hold_examinations: false,
            messages: VecDeque::new(),
            frames: BTreeMap::new(),
            controls: Vec::new(),
            closed: BTreeSet::new(),
            others: Vec::new(),
            now,
            streams: 0,
            secrets: 0,
        };
        cluster.elect(MemberId(1));
        cluster.run();
        cluster
    }

    pub(super) fn member(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    /// What each member knows of its streams, for a failure's message.
    pub(super) fn streams_of_all(&self) -> Vec<String> {
        let streams = |member: &Member| format!("{:?}", member.execution.streams);
        self.members.values().map(streams).collect()
    }

    pub(super) fn state(&self, id: MemberId) -> &State {
        self.members[&id].execution.state()
    }

    pub(super) fn now(&self) -> Now {
        at(self.now)
    }

    /// Time passes, in steps short enough not to look like a stall.
    pub(super) fn pass_ms(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while self.now < end {
            self.now = self.now.plus_millis(20).min(end);
            self.run();
        }
    }

    /// Time passes, and one member takes one turn.
    pub(super) fn turn_after(&mut self, millis: u64, id: MemberId) {
        self.now = self.now.plus_millis(millis);
        self.step(id);
    }

    // What consensus does.

    /// Ends the leader's term: everybody knows of no leader.
    pub(super) fn depose(&mut self) {
        self.proposed.clear();
        for (owner, context) in core::mem::take(&mut self.barriers) {
            self.consensus(owner, ConsensusEvent::ReadLost { context });
        }
        if let Some(leader) = self.leader.take() {
            let term = self.term;
            self.consensus(leader, ConsensusEvent::Deposed { term });
        }
        self.tell_leader();
    }

    /// A new term begins under `leader`, with a no-op.
    pub(super) fn elect(&mut self, leader: MemberId) {
        if self.leader.is_some() {
            self.depose();
        }
        self.term = self.term.next();
        self.leader = Some(leader);
        let first_index = LogIndex(self.log.len() as u64 + 1);
        let term = self.term;
        self.append(EntryKind::NoOp, self.last_zxid(), Bytes::new());
        self.consensus(leader, ConsensusEvent::Elected { term, first_index });
        self.tell_leader();
    }

    fn tell_leader(&mut self) {
        let (term, leader) = (self.term, self.leader);
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.consensus(id, ConsensusEvent::LeaderChanged { term, leader });
        }
    }

    pub(super) fn last_zxid(&self) -> Zxid {
        self.log.last().map_or(Zxid::ZERO, |entry| entry.last_zxid)
    }

    fn append(&mut self, kind: EntryKind, last_zxid: Zxid, payload: Bytes) {
        self.log.push(Entry {
            index: LogIndex(self.log.len() as u64 + 1),
            term: self.term,
            last_zxid,
            kind,
            payload,
        });
    }

    /// Appends and commits the oldest held batch.
    pub(super) fn commit_one(&mut self) {
        let batch = self.proposed.pop_front().expect("a proposed batch");
        self.take_batch(batch);
        self.run();
    }

    /// Refuses the oldest held batch, and with it those behind it.
    pub(super) fn refuse_one(&mut self) {
        self.proposed.pop_front().expect("a proposed batch");
        self.refuse(ProposeRefused::Full);
        self.run();
    }

    /// Takes the held batches in their order: one that follows a refused one is refused, too.
    pub(super) fn take_all(&mut self) {
        while let Some(batch) = self.proposed.pop_front() {
            self.take_batch(batch);
        }
    }

    fn take_batch(&mut self, batch: ProposedBatch) {
        if batch.term != self.term || self.leader.is_none() {
            return;
        }
        if batch.base_zxid != self.last_zxid()
            && !crate::mutation::is_on(crate::mutation::Mutation::AppendUnchained)
        {
            let (base, last) = (batch.base_zxid, self.last_zxid());
            return self.refuse(ProposeRefused::Chain { base, last });
        }
        self.append(EntryKind::Batch, batch.last_zxid, batch.payload);
    }

    fn refuse(&mut self, reason: ProposeRefused) {
        let (term, last_appended) = (self.term, LogIndex(self.log.len() as u64));
        if let Some(leader) = self.leader {
            let event = ConsensusEvent::ProposeRefused {
                reason,
                term,
                last_appended,
            };
            self.consensus(leader, event);
        }
    }

    pub(super) fn consensus(&mut self, id: MemberId, event: ConsensusEvent) {
        let now = self.now();
        self.member(id).execution.handle_consensus(now, event);
    }

    /// Everything happens that can happen without time passing.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                busy |= self.hand_committed(id);
                busy |= self.step(id);
            }
            busy |= self.deliver();
            if !busy {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn hand_committed(&mut self, id: MemberId) -> bool {
        let member = &self.members[&id];
        if member.lags || member.handed == self.log.len() {
            return false;
        }
        let entries = self.log[member.handed..].to_vec();
        self.member(id).handed += entries.len();
        self.consensus(id, ConsensusEvent::Committed { entries });
        true
    }

    fn step(&mut self, id: MemberId) -> bool {
        let now = self.now();
        let Member {
            execution, plugins, ..
        } = self.member(id);
        let mut busy = execution.step(now, plugins) == Progress::More;
        let mut actions = Vec::new();
        while let Some(action) = execution.poll_action() {
            actions.push(action);
        }
        for action in actions {
            busy = true;
            self.carry_out(id, action);
        }
        busy
    }

    fn carry_out(&mut self, id: MemberId, action: ExecutionAction) {
        match action {
            ExecutionAction::ToStream { stream, frame } => {
                self.frames.entry(stream).or_default().push_back(frame);
            }
            ExecutionAction::CloseStream { stream } => {
                self.closed.insert(stream);
            }
            ExecutionAction::ToControl { connection, reply } => {
                self.controls.push((id, connection, reply));
            }
            ExecutionAction::ToPeer { to, message } => self.messages.push_back((id, to, message)),
            ExecutionAction::Propose { batch } if self.leader == Some(id) => {
                self.proposed.push_back(batch);
                if self.proposals == Proposals::Commit {
                    self.take_all();
                }
            }
            ExecutionAction::Propose { batch } => {
                let term = batch.term;
                let event = ConsensusEvent::ProposeRefused {
                    reason: ProposeRefused::NotLeading { term },
                    term,
                    last_appended: LogIndex(self.log.len() as u64),
                };
                self.consensus(id, event);
            }
            ExecutionAction::ReadBarrier { context } => {
                self.barriers.push_back((id, context));
                if !self.hold_barriers {
                    self.answer_barriers();
                }
            }
            ExecutionAction::ExamineComponent { .. } if self.hold_examinations => {}
            ExecutionAction::ExamineComponent { digest, bytes } => {
                let name = String::from_utf8_lossy(&bytes);
                let version = name.rsplit('-').next().and_then(|last| last.parse().ok());
                let version: u64 = version.unwrap_or(1);
                let result = if bytes.starts_with(b"bad") || Digest::of(&bytes) != digest {
                    Err("it is bad".to_owned())
                } else if name.starts_with("rebalancer-by-load") {
                    let needs = "[\"members.key\",\"partitions.load\"]";
                    Ok(format!("{{\"world\":\"rebalancer\",\"needs\":{needs}}}"))
                } else if name.starts_with("rebalancer") {
                    Ok("{\"world\":\"rebalancer\"}".to_owned())
                } else if name.starts_with("failure-detector") {
                    Ok("{\"world\":\"failure-detector\"}".to_owned())
                } else {
                    Ok(format!("{{\"state_version\":{version}}}"))
                };
                let now = self.now();
                self.member(id)
                    .execution
                    .handle_examined(now, digest, result);
            }
            ExecutionAction::CompileComponent { digest, bytes } => {
                let now = self.now();
                let member = self.member(id);
                member.plugins.compile(digest, &bytes);
                member.execution.component_ready(now, digest);
            }
            ExecutionAction::ToAllControls { .. } => {}
            other => self.others.push((id, other)),
        }
    }

    /// Answers the read barriers that wait: they hold at the end of the log.
    pub(super) fn answer_barriers(&mut self) {
        let index = LogIndex(self.log.len() as u64);
        for (id, context) in core::mem::take(&mut self.barriers) {
            let is_cut_off = self.members[&id].cut_off;
            let event = if self.leader.is_some() && !is_cut_off {
                ConsensusEvent::ReadReady { context, index }
            } else {
                ConsensusEvent::ReadLost { context }
            };
            self.consensus(id, event);
        }
    }

    fn deliver(&mut self) -> bool {
        let messages = core::mem::take(&mut self.messages);
        let any = !messages.is_empty();
        for (from, to, message) in messages {
            if !self.members[&from].cut_off && !self.members[&to].cut_off {
                let now = self.now();
                self.member(to).execution.handle_peer(now, from, message);
            }
        }
        any
    }

    /// A member's state is replaced by a snapshot of the same position.
    pub(super) fn replace_machine(&mut self, id: MemberId) {
        let (meta, records) = {
            let state = self.member(id).execution.state_mut();
            let view = state
                .open_view(crate::state::Span::Everything)
                .expect("a view");
            let read = state.read_view(view, usize::MAX);
            state.close_view(view);
            (state.meta(), read.records)
        };
        let state = State::from_records(&meta, records).expect("a state");
        let config = ExecutionConfig::new(id, 1);
        let now = self.now();
        let member = self.member(id);
        let mut machine = Execution::new(config, state, 1, now);
        machine.take_over_from(&member.execution);
        member.execution = machine;
    }

    /// The ordered stream between two members breaks; both hear of it.
    pub(super) fn lose_stream(&mut self, one: MemberId, other: MemberId) {
        let now = self.now();
        self.member(one).execution.peer_stream_lost(now, other);
        self.member(other).execution.peer_stream_lost(now, one);
        self.run();
    }
}

fn at(tick: Tick) -> Now {
    Now {
        tick,
        wall: WallTime(1_700_000_000_000 + tick.0 / 1000),
    }
}

/// All members that have applied as much have the same state.
pub(super) fn assert_same_state(cluster: &Cluster) {
    let first = cluster.state(MemberId(1));
    for (id, member) in &cluster.members {
        let state = member.execution.state();
        assert_eq!(state.position(), first.position(), "member {id}");
        let counters = state.counters();
        assert_eq!(counters, first.counters(), "member {id}");
    }
}
