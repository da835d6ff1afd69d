//! Random schedules: clients that retry and move, a log that refuses, leaders that come and go,
//! members that lag and lose messages. Whatever happens, each request has one effect and one
//! outcome, in its session's order, and all members agree; and once it is calm, all are answered.

use std::collections::{BTreeMap, VecDeque};

use folkmoot_proto::batch::Batch;
use folkmoot_proto::client::{ClientFrame, NodeKind, Operation, Request, ServerFrame};
use folkmoot_proto::entry::EntryKind;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{ConnEpoch, MemberId, RequestId, SessionId, SessionSecret, Ticket, Zxid};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::clients::invoke;
use super::cluster::{Cluster, Proposals, member};
use crate::execution::{ExecutionAction, StreamId};
use crate::state::View;

const SEEDS: u64 = 60;
const STEPS: usize = 400;
const CLIENTS: usize = 4;

#[derive(Debug)]
struct Walker {
    secret: SessionSecret,
    at: MemberId,
    stream: Option<StreamId>,
    session: Option<SessionId>,
    epoch: ConnEpoch,
    attached: bool,
    answered: RequestId,
    to_send: RequestId,
    pending: VecDeque<Operation>,
    last_seen: Zxid,
    unacknowledged: Vec<Ticket>,
    waiting: Vec<RequestId>,
    over: bool,
}

struct Schedule {
    cluster: Cluster,
    dice: Pcg64,
    walkers: Vec<Walker>,
    outcomes: BTreeMap<(SessionId, RequestId), (Zxid, Reply)>,
    totals: BTreeMap<Zxid, u64>,
}

#[test]
fn random_schedules_keep_every_promise() {
    let seeds = std::env::var("FOLKMOOT_RANDOM_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let first = std::env::var("FOLKMOOT_RANDOM_FIRST").ok();
    let first = first.and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let mut schedule = Schedule::new(seed);
        for _ in 0..STEPS {
            schedule.step();
        }
        schedule.calm_down(seed);
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::new(3);
        let mut admin = cluster.open(member(1));
        cluster.install_and_mount(&mut admin, "lock", "/lock");
        cluster.install_and_mount(&mut admin, "memory", "/m");
        let walkers = (0..CLIENTS)
            .map(|_| Walker::new(cluster.new_secret()))
            .collect();
        Self {
            cluster,
            dice: Pcg64::seed_from_u64(seed),
            walkers,
            outcomes: BTreeMap::new(),
            totals: BTreeMap::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.dice.next_u64() % bound
    }

    fn any_member(&mut self) -> MemberId {
        member(1 + self.below(3))
    }

    fn step(&mut self) {
        match self.below(40) {
            0 => {
                let leader = self.any_member();
                self.cluster.elect(leader);
            }
            1 => self.cluster.depose(),
            2 | 3 => self.cluster.proposals = Proposals::Hold,
            4..=7 => {
                self.cluster.proposals = Proposals::Commit;
                self.cluster.take_all();
            }
            8 | 9 if !self.cluster.proposed.is_empty() => self.cluster.refuse_one(),
            10 | 11 if !self.cluster.proposed.is_empty() => self.cluster.commit_one(),
            12 | 13 => {
                let (id, on) = (self.any_member(), self.below(2) == 0);
                self.cluster.member(id).lags = on;
            }
            14 | 15 => {
                let (id, on) = (self.any_member(), self.below(3) == 0);
                let was = core::mem::replace(&mut self.cluster.member(id).cut_off, on);
                if was && !on {
                    for other in 1..=3 {
                        self.cluster.lose_stream(id, member(other));
                    }
                }
            }
            16 => self.cluster.hold_barriers = !self.cluster.hold_barriers,
            17 => self.cluster.answer_barriers(),
            18 | 19 => {
                let millis = self.below(1500);
                self.cluster.pass_ms(millis);
            }
            20 => {
                let walker = self.any_walker();
                self.move_on(walker);
            }
            _ => {
                let walker = self.any_walker();
                self.ask_something(walker);
            }
        }
        if self.below(3) > 0 {
            self.cluster.run();
        }
        self.look_around();
    }

    fn any_walker(&mut self) -> usize {
        usize::try_from(self.below(CLIENTS as u64)).expect("a small number")
    }

    fn ask_something(&mut self, walker: usize) {
        let choice = self.below(12);
        let of = &mut self.walkers[walker];
        let operation = match choice {
            0..=2 => Operation::Create {
                path: "/n".to_owned(),
                data: Vec::new(),
                kind: NodeKind {
                    ephemeral: choice == 0,
                    sequential: true,
                },
            },
            3 | 4 => invoke("/lock", "acquire"),
            5 | 6 => invoke("/lock", "release"),
            7 | 8 => invoke("/m", "add"),
            9 => invoke("/m", "reject"),
            10 => Operation::AcknowledgeCompletions {
                tickets: core::mem::take(&mut of.unacknowledged),
            },
            _ => match of.waiting.pop() {
                Some(request) => Operation::CancelWait { request },
                None => Operation::Sync,
            },
        };
        if of.pending.len() < 12 && !of.over {
            of.pending.push_back(operation);
        }
        self.send_pending(walker);
    }

    fn send_pending(&mut self, walker: usize) {
        let of = &mut self.walkers[walker];
        let (Some(stream), true) = (of.stream, of.attached) else {
            return;
        };
        while let Some(operation) = usize::try_from(of.to_send.0 - of.answered.0 - 1)
            .ok()
            .and_then(|place| of.pending.get(place))
        {
            let request = Request {
                id: of.to_send,
                acked_up_to: of.answered,
                guards: Vec::new(),
                operation: operation.clone(),
            };
            of.to_send = of.to_send.next();
            self.cluster
                .frame(of.at, stream, ClientFrame::Request(request));
        }
    }

    /// A client leaves its stream, if it has one, and goes to any member.
    fn move_on(&mut self, walker: usize) {
        let (at, stream) = (self.any_member(), self.cluster.new_stream());
        let of = &mut self.walkers[walker];
        if of.over {
            return;
        }
        if let Some(old) = of.stream {
            self.cluster.close_by_client(of.at, old);
        }
        let of = &mut self.walkers[walker];
        (of.at, of.stream, of.attached) = (at, Some(stream), false);
        let frame = match of.session {
            None => ClientFrame::Open {
                secret: of.secret,
                timeout_ms: 250_000,
            },
            Some(session) => ClientFrame::Resume {
                session,
                secret: of.secret,
                last_seen: of.last_seen,
            },
        };
        self.cluster.frame(at, stream, frame);
    }

    /// Clients see what they were told.
    fn look_around(&mut self) {
        for walker in 0..CLIENTS {
            let Some(stream) = self.walkers[walker].stream else {
                continue;
            };
            for frame in self.cluster.frames_of(stream) {
                self.told(walker, frame);
            }
            if self.cluster.closed.contains(&stream) {
                self.walkers[walker].stream = None;
                self.walkers[walker].attached = false;
            }
        }
    }

    fn told(&mut self, walker: usize, frame: ServerFrame) {
        let of = &mut self.walkers[walker];
        match frame {
            ServerFrame::Attached {
                session,
                epoch,
                last_id,
                zxid,
                ..
            } => {
                assert!(of.session.is_none_or(|known| known == session));
                assert!(zxid >= of.last_seen, "served from the past");
                assert!(last_id >= of.answered);
                of.session = Some(session);
                of.epoch = epoch;
                of.attached = true;
                of.to_send = of.answered.next();
                of.last_seen = zxid;
                let (at, stream) = (of.at, of.stream.expect("an attached stream"));
                self.cluster.frame(at, stream, ClientFrame::WatchesResumed);
                self.send_pending(walker);
            }
            ServerFrame::Reply { id, zxid, reply } => self.replied(walker, id, zxid, reply),
            ServerFrame::Completion {
                ticket, zxid, id, ..
            } => {
                of.last_seen = of.last_seen.max(zxid);
                of.waiting.retain(|waiting| *waiting != id);
                of.unacknowledged.push(ticket);
            }
            ServerFrame::Rewind { next } => {
                of.to_send = of.to_send.min(next).max(of.answered.next());
                self.send_pending(walker);
            }
            ServerFrame::NotAdmitted { id, .. } => {
                of.to_send = of.to_send.min(id).max(of.answered.next());
            }
            ServerFrame::SessionEnded { .. } => of.over = true,
            ServerFrame::AttachRefused(reason) => {
                let is_over = reason == folkmoot_proto::client::AttachRefused::UnknownSession;
                assert!(!is_over, "session {:?} was not ended", of.session);
            }
            ServerFrame::Closing { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn replied(&mut self, walker: usize, id: RequestId, zxid: Zxid, reply: Reply) {
        let of = &mut self.walkers[walker];
        let session = of.session.expect("a session");
        let told = self
            .outcomes
            .entry((session, id))
            .or_insert((zxid, reply.clone()));
        assert_eq!(*told, (zxid, reply.clone()), "request {id} of {session}");
        of.last_seen = of.last_seen.max(zxid);
        if id <= of.answered {
            return;
        }
        assert_eq!(
            id,
            of.answered.next(),
            "session {session} is answered out of order"
        );
        let operation = of.pending.pop_front().expect("a request that was made");
        of.answered = id;
        of.to_send = of.to_send.max(id.next());
        match (&operation, &reply) {
            (_, Ok(Outcome::Waiting(_))) => of.waiting.push(id),
            (Operation::Invoke { operation, .. }, Ok(Outcome::Invoked(total)))
                if operation == "add" =>
            {
                let total = total.as_slice().try_into().expect("a total");
                self.totals.insert(zxid, u64::from_be_bytes(total));
            }
            (_, Err(Refusal::PluginFault { .. })) => panic!("{operation:?}: {reply:?}"),
            _ => {}
        }
    }

    /// The faults end: everybody is answered, and what the log holds is what was told.
    fn calm_down(mut self, seed: u64) {
        self.cluster.hold_barriers = false;
        self.cluster.proposals = Proposals::Commit;
        self.cluster.take_all();
        for id in 1..=3 {
            let member = self.cluster.member(member(id));
            (member.lags, member.cut_off) = (false, false);
        }
        self.cluster.elect(member(1 + seed % 3));
        self.cluster.answer_barriers();
        for _ in 0..60 {
            for walker in 0..CLIENTS {
                if self.walkers[walker].stream.is_none() {
                    self.move_on(walker);
                }
                self.send_pending(walker);
            }
            self.cluster.pass_ms(500);
            self.look_around();
        }
        let stops = |action: &(MemberId, ExecutionAction)| {
            matches!(
                action.1,
                ExecutionAction::Stop { .. } | ExecutionAction::HashAlarm { .. }
            )
        };
        assert!(
            !self.cluster.others.iter().any(stops),
            "seed {seed}: {:?}",
            self.cluster.others
        );
        let leader = self.cluster.leader.expect("a leader");
        let led = format!("{leader} {:?}", self.cluster.streams_of_all());
        for of in &self.walkers {
            assert!(
                of.pending.is_empty(),
                "seed {seed}: {of:?} is not answered\n{:?}\n{:?}",
                self.cluster
                    .state(of.at)
                    .session(of.session.unwrap_or_default()),
                led,
            );
        }
        let hash = self.cluster.state(member(1)).state_hash();
        for id in 2..=3 {
            assert_eq!(
                self.cluster.state(member(id)).state_hash(),
                hash,
                "seed {seed}"
            );
        }
        self.check_log(seed);
        let told: Vec<_> = self.totals.values().copied().collect();
        assert!(told.is_sorted_by(|a, b| a < b), "seed {seed}: {told:?}");
    }

    /// Each session's requests are in the log once, in order, with the outcomes that were told.
    fn check_log(&self, seed: u64) {
        let mut last: BTreeMap<SessionId, RequestId> = BTreeMap::new();
        let mut adds = 0;
        for entry in self
            .cluster
            .log
            .iter()
            .filter(|entry| entry.kind == EntryKind::Batch)
        {
            let batch = Batch::decode(&entry.payload).expect("a batch");
            let mut zxid = batch.first_zxid;
            for txn in batch.txns {
                if let Some(origin) = txn.origin {
                    let before = last.entry(origin.session).or_default();
                    assert_eq!(origin.request, before.next(), "seed {seed}");
                    *before = origin.request;
                    let told = self.outcomes.get(&(origin.session, origin.request));
                    if let Some((at, reply)) = told {
                        assert_eq!((at, reply), (&zxid, &origin.reply), "seed {seed}");
                    }
                    adds += u64::from(self.totals.contains_key(&zxid));
                }
                zxid = zxid.next();
            }
        }
        let total = self.cluster.state(member(1)).node("/m/total");
        let total = total.map_or(0, |node| {
            u64::from_be_bytes(node.data.try_into().expect("a total"))
        });
        assert_eq!(total, adds, "seed {seed}");
    }
}

impl Walker {
    fn new(secret: SessionSecret) -> Self {
        Self {
            secret,
            at: member(1),
            stream: None,
            session: None,
            epoch: ConnEpoch(0),
            attached: false,
            answered: RequestId::ZERO,
            to_send: RequestId(1),
            pending: VecDeque::new(),
            last_seen: Zxid::ZERO,
            unacknowledged: Vec::new(),
            waiting: Vec::new(),
            over: false,
        }
    }
}
