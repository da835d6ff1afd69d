//! Execution: requests, sessions, waits, watches, mounts; on every member it applies what is
//! committed.
//!
//! - `leader`: admits requests, executes them once on an overlay, and proposes what they did.
//! - `member`: serves the clients attached here, from what is applied here alone.
//! - `apply`: takes what consensus says, in its one order.
//! - [`view`]: what a guest sees of its transaction.
//! - [`Watches`]: the watches of the clients attached here.

mod action;
mod apply;
mod clock;
mod leader;
mod member;
mod request;
#[cfg(test)]
mod tests;
pub mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use folkmoot_proto::client::{ClientFrame, ServerFrame};
use folkmoot_proto::peer::{ExecutionMessage, ReadContext};
use folkmoot_proto::{Digest, LogIndex, MemberId, Now, SessionId, Tick};

use self::leader::{Arrival, Asked, Leader};
use self::member::{Hashes, Heartbeats, Listings, MapWatches, Reads, Streams};
use self::request::{REQUEST_BYTES_MAX, request_bytes};
use crate::plugin::{Discard, PluginRuntime};
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId};
use crate::state::{Speculative, State, View};

pub use action::{
    ClientEvent, ConnectionId, ConsensusEvent, DetectorStanding, ExecutionAction, ExecutionConfig,
    ExecutionStatus, Progress, StreamId,
};
use watch::HeldTooMuch;
pub use watch::Watches;

/// The execution machine of one member, sans-IO: input through `handle_*`, work through
/// [`Execution::step`], results through [`Execution::poll_action`].
///
/// Every member applies what is committed, and only from that come replies, completions and watch
/// events. On the leader it also executes requests ahead of commit, against an overlay.
#[derive(Debug)]
pub struct Execution {
    config: ExecutionConfig,
    /// None while a transaction or a guest owns it.
    speculative: Option<Box<Speculative>>,
    leader: Option<Leader>,
    /// The leader that this member follows, itself included.
    known_leader: Option<MemberId>,
    streams: Streams,
    reads: Reads,
    listings: Listings,
    watches: Watches,
    maps: MapWatches,
    heartbeats: Heartbeats,
    hashes: Hashes,
    /// Components that are being compiled.
    not_ready: BTreeSet<Digest>,
    /// Warm instances that the next step drops.
    discards: Vec<Discard>,
    /// Bytes of the requests in the message to the leader that was begun last.
    joined_bytes: usize,
    /// Counts read barriers, so that no two have one name (rule R20).
    contexts: u64,
    /// Counts questions to policies.
    policy_calls: u64,
    /// As [`Execution::observe_log_write`].
    log_write_ms: u64,
    /// Questions to failure detectors that are under way.
    asked: BTreeMap<PolicyCallId, Asked>,
    /// When the member's own timers are looked at.
    next_round: Tick,
    last_tick: Tick,
    /// Set once the state is known to be wrong: nothing is done any more.
    stopped: bool,
    actions: VecDeque<ExecutionAction>,
}

impl Execution {
    /// A machine on `state`, which is a checkpoint's, a snapshot's, or an empty one. `seed` feeds
    /// what may differ between members and never reaches the replicated state.
    #[must_use]
    pub fn new(config: ExecutionConfig, state: State, seed: u64, now: Now) -> Self {
        let _ = seed;
        let watches = Watches::new(state.limits(), state.zxid());
        let mut execution = Self {
            config,
            speculative: Some(Box::new(Speculative::new(state))),
            leader: None,
            known_leader: None,
            streams: Streams::default(),
            reads: Reads::default(),
            listings: Listings::default(),
            watches,
            maps: MapWatches::default(),
            heartbeats: Heartbeats::default(),
            hashes: Hashes::default(),
            not_ready: BTreeSet::new(),
            discards: Vec::new(),
            joined_bytes: 0,
            contexts: 0,
            policy_calls: 0,
            log_write_ms: 0,
            asked: BTreeMap::new(),
            next_round: now.tick,
            last_tick: now.tick,
            stopped: false,
            actions: VecDeque::new(),
        };
        let components = execution.state().components().into_iter();
        for digest in components.map(|(digest, _)| digest).collect::<Vec<_>>() {
            execution.compile(digest);
        }
        execution
    }

    /// Takes the place of `former`, whose state a snapshot has replaced, in the same run: knows the
    /// leader that it knew, takes up an office that it had not begun to fill, and uses none of its
    /// names for read barriers (rule R20). The streams that `former` served are to be closed, and
    /// consensus' events go on in their one order.
    pub fn take_over_from(&mut self, former: &Self) {
        self.known_leader = former.known_leader;
        self.contexts = former.contexts;
        self.policy_calls = former.policy_calls;
        self.leader = former
            .leader
            .as_ref()
            .and_then(|leader| leader.anew(self.last_tick));
    }

    /// Takes what a client attached to this member did. Events of one stream come in order.
    pub fn handle_client(&mut self, now: Now, event: ClientEvent) {
        self.look(now);
        if self.stopped {
            return;
        }
        match event {
            ClientEvent::Frame {
                connection,
                stream,
                frame,
            } => self.handle_frame(now, connection, stream, frame),
            ClientEvent::StreamClosed { stream, by_client } => self.stream_ended(stream, by_client),
            ClientEvent::Drained { stream, bytes } => {
                self.watches.drained(stream, bytes);
                self.maps_drained(stream, bytes);
            }
            ClientEvent::Heartbeat {
                connection,
                sequence,
                arrived,
                rtt_micros,
                sessions,
            } => self.heartbeat(
                now,
                (connection, sequence),
                (arrived, rtt_micros),
                &sessions,
            ),
            ClientEvent::ConnectionClosed { connection } => {
                self.heartbeats.forget(connection);
                for stream in self.streams.of_connection(connection) {
                    self.stream_ended(stream, false);
                }
            }
        }
    }

    /// Takes a message of another member. Messages of one peer's stream come in order.
    pub fn handle_peer(&mut self, now: Now, from: MemberId, message: ExecutionMessage) {
        self.look(now);
        if !self.stopped {
            self.take_message(now, from, message);
        }
    }

    /// The ordered stream to or from `peer` broke: what was under way in it may be lost (rule R2).
    pub fn peer_stream_lost(&mut self, now: Now, peer: MemberId) {
        self.look(now);
        if let Some(leader) = &mut self.leader {
            leader.forget_gaps();
        }
        if !self.stopped && self.known_leader == Some(peer) && peer != self.config.member {
            self.heartbeats.clear();
            self.rewind_all(now);
            self.ask_again();
        }
    }

    /// How long the last write to this member's log took, its sync included, or the one under way takes
    /// already, in milliseconds. Failure detectors see the leader's.
    pub fn observe_log_write(&mut self, millis: u64) {
        self.log_write_ms = millis;
    }

    /// Takes an event of this member's consensus machine; they come through one FIFO.
    pub fn handle_consensus(&mut self, now: Now, event: ConsensusEvent) {
        self.look(now);
        if !self.stopped {
            self.take_consensus(now, event);
        }
    }

    /// Answers an `ExamineComponent`: the description (JSON) that the component gave of itself, or
    /// why it can not be a plugin here.
    pub fn handle_examined(&mut self, now: Now, digest: Digest, result: Result<String, String>) {
        self.look(now);
        self.lead_examined(digest, result);
    }

    /// Answers an `AskPolicy`. An answer that nobody waits for any more does nothing.
    pub fn handle_policy(&mut self, now: Now, id: PolicyCallId, answer: PolicyAnswer) {
        self.look(now);
        if !self.assessed(now, id, &answer) {
            self.planned(id, answer);
        }
    }

    /// A component that was to be compiled can be called from here on: what waits for it goes on.
    pub fn component_ready(&mut self, now: Now, digest: Digest) {
        self.look(now);
        self.not_ready.remove(&digest);
    }

    /// Does what is due, with at most one guest call (rule R7), and proposes what was executed.
    pub fn step(&mut self, now: Now, plugins: &mut dyn PluginRuntime) -> Progress {
        self.look(now);
        for which in self.discards.drain(..) {
            plugins.discard(which);
        }
        if self.stopped {
            return Progress::Idle;
        }
        self.member_round(now);
        let told_all = !self.pump_watches();
        match self.lead(now, plugins) {
            Progress::Idle if told_all => Progress::Idle,
            _ => Progress::More,
        }
    }

    /// The next thing to be done, in order.
    pub fn poll_action(&mut self) -> Option<ExecutionAction> {
        self.actions.pop_front()
    }

    /// When [`Execution::step`] must be called next, if nothing comes in before. A moment that has
    /// passed means at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        if self.stopped {
            return None;
        }
        let member = (!self.streams.is_empty()).then_some(self.next_round);
        let leader = self.leader_timeout();
        member.into_iter().chain(leader).min()
    }

    /// The committed state.
    #[must_use]
    pub fn state(&self) -> &State {
        self.speculative().base()
    }

    /// The committed state, for its consistent views and its checkpoints' deltas. Entries are
    /// applied by the machine alone.
    pub fn state_mut(&mut self) -> &mut State {
        self.speculative_mut().base_mut()
    }

    /// The last entry that is applied, for consensus' `handle_applied`. None as long as the next
    /// checkpoint would have too much to write (rule R26): what is committed waits in the log then,
    /// and is not lost from there.
    #[must_use]
    pub fn has_room_behind(&self) -> Option<LogIndex> {
        let has_room = self.state().dirty_bytes() < self.config.dirty_bytes_max;
        has_room.then_some(self.state().position().index)
    }

    /// What it knows, for operators and invariants.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        let counters = self.state().counters();
        ExecutionStatus {
            applied_index: self.state().position().index,
            applied_zxid: self.state().position().zxid,
            state_hash: self.state_hash(),
            sessions: counters.sessions,
            nodes: counters.nodes,
            watches: u64::try_from(self.watches.len()).unwrap_or(u64::MAX),
            overlay_txns: u64::try_from(self.speculative().overlay_txns()).unwrap_or(u64::MAX),
            next_timeout: self.poll_timeout(),
            detectors: self.detector_standings(),
        }
    }

    /// This member.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.config.member
    }
}

/// What the two halves share.
impl Execution {
    fn handle_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        stream: StreamId,
        frame: ClientFrame,
    ) {
        let session = match self.streams.stream(stream) {
            Some(known) => known.session(),
            None => return self.first_frame(connection, stream, frame),
        };
        let Some(session) = session else {
            return self.close_stream(stream, "requests come after the session is attached");
        };
        match frame {
            ClientFrame::Open { .. } | ClientFrame::Resume { .. } => {
                self.close_stream(stream, "a stream carries one session");
            }
            ClientFrame::Request(request) if request_bytes(&request) > REQUEST_BYTES_MAX => {
                self.close_stream(stream, "the request is larger than any that is taken");
            }
            ClientFrame::Request(request) => self.take_request(now, session, request),
            ClientFrame::Read(read) => self.read(stream, session, read),
            ClientFrame::Watch(watch) => self.watch(stream, &watch),
            ClientFrame::Unwatch { watch } => self.unwatch(stream, watch),
            ClientFrame::More { read } => self.more(stream, read),
            ClientFrame::WatchMap {
                group,
                detail,
                since,
            } => self.watch_map(stream, group, detail, since),
            ClientFrame::UnwatchMap { group, detail } => self.unwatch_map(stream, &group, detail),
            ClientFrame::WatchesResumed => self.watches_resumed(stream),
            ClientFrame::Loads { group, loads } => {
                self.report_loads(now, (stream, session), group, loads);
            }
        }
    }

    fn first_frame(&mut self, connection: ConnectionId, stream: StreamId, frame: ClientFrame) {
        match frame {
            ClientFrame::Open { secret, timeout_ms } => {
                self.open_stream(connection, stream, secret.hash(), timeout_ms);
            }
            ClientFrame::Resume {
                session,
                secret,
                last_seen,
            } => self.resume_stream(connection, stream, (session, secret.hash()), last_seen),
            _ => self.close_stream(stream, "a stream begins by opening or resuming a session"),
        }
    }

    fn take_message(&mut self, now: Now, from: MemberId, message: ExecutionMessage) {
        match message {
            ExecutionMessage::OpenSession {
                secret,
                timeout_ms,
                attempt,
            } => self.lead_open((from, attempt), secret, timeout_ms),
            ExecutionMessage::AttachSession {
                session,
                secret,
                attempt,
            } => self.lead_attach((from, attempt), session, secret),
            ExecutionMessage::Requests {
                session,
                epoch,
                requests,
            } => {
                for request in requests {
                    self.lead_request(from, session, epoch, request);
                }
            }
            ExecutionMessage::Touch {
                sequence,
                arrived,
                rtt_micros,
                sessions,
            } => {
                let arrival = Arrival {
                    member: from,
                    at: arrived,
                    rtt_micros,
                };
                self.lead_touch(now.tick, sequence, arrival, sessions);
            }
            ExecutionMessage::StreamEnded {
                session,
                epoch,
                by_client,
            } => self.lead_stream_ended(session, epoch, by_client),
            ExecutionMessage::OpenRefused { secret, reason } => {
                self.open_refused(secret, &reason);
            }
            ExecutionMessage::AttachRefused {
                session,
                secret,
                reason,
                ..
            } => self.attach_hearsay(session, secret, &reason),
            ExecutionMessage::NotAdmitted {
                session,
                epoch,
                id,
                reason,
            } => self.not_admitted(session, epoch, id, reason),
            ExecutionMessage::Rewind {
                session,
                epoch,
                next,
            } => self.rewound(now, session, epoch, next),
            ExecutionMessage::TouchAck {
                sequence,
                sessions,
                revoked,
            } => self.touched(sequence, sessions, revoked),
            ExecutionMessage::Loads {
                session,
                group,
                loads,
            } => self.lead_loads(now.tick, session, &group, loads),
            ExecutionMessage::StateHash { index, zxid, hash } => {
                self.hash_told(from, index, zxid, hash);
            }
        }
    }

    /// Tells a member something; this one at once.
    fn tell(&mut self, to: MemberId, message: ExecutionMessage) {
        if to == self.config.member {
            let now = Now {
                tick: self.last_tick,
                wall: folkmoot_proto::WallTime::ZERO,
            };
            self.take_message(now, to, message);
        } else {
            self.act(ExecutionAction::ToPeer { to, message });
        }
    }

    /// A client's stream ended, which the leader is told of where it served a session.
    fn stream_ended(&mut self, stream: StreamId, by_client: bool) {
        if let Some(attachment) = self.streams.served_by(stream)
            && let Some(leader) = self.known_leader
        {
            let (session, epoch) = (attachment.session, attachment.epoch);
            if leader == self.config.member {
                self.lead_stream_ended(session, epoch, by_client);
            } else {
                let ended = ExecutionMessage::StreamEnded {
                    session,
                    epoch,
                    by_client,
                };
                self.tell(leader, ended);
            }
        }
        self.forget_stream(stream);
    }

    /// A stream ended: its session lives.
    fn forget_stream(&mut self, stream: StreamId) {
        self.streams.remove(stream);
        self.reads.forget(stream);
        self.forget_listings(stream);
        self.forget_watches(stream);
        self.forget_maps(stream);
    }

    fn act(&mut self, action: ExecutionAction) {
        self.actions.push_back(action);
    }

    fn send(&mut self, stream: StreamId, frame: ServerFrame) {
        self.act(ExecutionAction::ToStream { stream, frame });
    }

    /// Sends on a session's stream, behind the events of watches that have not caught up
    /// (rule R28).
    fn send_to_session(&mut self, session: SessionId, frame: ServerFrame) {
        let Some(stream) = self.streams.serving(session) else {
            return;
        };
        match self.watches.hold_back(stream, frame) {
            Ok(Some(frame)) => self.send(stream, frame),
            Ok(None) => {}
            Err(HeldTooMuch) => self.close_stream(stream, "its watches do not catch up"),
        }
    }

    /// This member's state is wrong, or its log holds what it can not apply.
    fn stop(&mut self, reason: String) {
        self.stopped = true;
        self.act(ExecutionAction::Stop { reason });
    }

    /// Asks a policy; its answer comes to [`Execution::handle_policy`], or never.
    fn ask_policy(&mut self, call: PolicyCall) -> PolicyCallId {
        self.policy_calls += 1;
        let id = PolicyCallId(self.policy_calls);
        let call = Box::new(call);
        self.act(ExecutionAction::AskPolicy { id, call });
        id
    }

    fn next_context(&mut self) -> ReadContext {
        self.contexts += 1;
        ReadContext {
            member: self.config.member,
            run: self.config.run,
            sequence: self.contexts,
        }
    }

    /// Looks at the clock: it never goes back.
    fn look(&mut self, now: Now) {
        self.last_tick = self.last_tick.max(now.tick);
        if let Some(leader) = &mut self.leader {
            leader.look(now.tick);
        }
    }

    fn state_hash(&self) -> u64 {
        self.state().state_hash()
    }

    fn speculative(&self) -> &Speculative {
        let Some(speculative) = &self.speculative else {
            panic!("a transaction owns the state");
        };
        speculative
    }

    fn speculative_mut(&mut self) -> &mut Speculative {
        let Some(speculative) = &mut self.speculative else {
            panic!("a transaction owns the state");
        };
        speculative
    }

    fn take_speculative(&mut self) -> Box<Speculative> {
        let Some(speculative) = self.speculative.take() else {
            panic!("a transaction owns the state");
        };
        speculative
    }

    fn return_speculative(&mut self, speculative: Box<Speculative>) {
        self.speculative = Some(speculative);
    }
}
