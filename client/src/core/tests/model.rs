//! The machine against a small model of a member, over connections that are lost at random, with
//! refusals, rewinds and waits at random: each request has exactly one outcome, and was executed
//! exactly once, in order.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The program submits a request that is answered in place.
    Submit,
    /// The program submits a request that waits.
    SubmitWaiting,
    /// The program gives up a request.
    Abandon(u8),
    /// As many frames reach the member.
    Deliver(u8),
    /// As many frames reach the client.
    Hear(u8),
    /// The member completes the oldest wait.
    Complete,
    /// The member refuses to admit the next request, and all behind it.
    Refuse,
    /// The member's work was lost: what it had not logged is to be sent again.
    Rewind,
    /// The stream breaks, with all that was on its way; another is attached.
    Reconnect,
    /// Time passes.
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Submit),
        2 => Just(Step::SubmitWaiting),
        1 => any::<u8>().prop_map(Step::Abandon),
        5 => (1..6u8).prop_map(Step::Deliver),
        5 => (1..6u8).prop_map(Step::Hear),
        2 => Just(Step::Complete),
        1 => Just(Step::Refuse),
        1 => Just(Step::Rewind),
        2 => Just(Step::Reconnect),
        1 => (0..800u16).prop_map(Step::Pass),
    ]
}

/// What the cluster keeps of a session (rule R10), and one stream to it.
#[derive(Default)]
struct Model {
    zxid: u64,
    last_id: u64,
    /// Every execution: the request and its operation.
    executed: Vec<(u64, Operation)>,
    replies: BTreeMap<u64, (u64, Reply)>,
    waits: VecDeque<(u64, u64)>,
    /// By ticket: the request and the outcome. Kept until acknowledged.
    completions: BTreeMap<u64, (u64, Reply)>,
    acknowledged: Vec<u64>,
    refuse_next: bool,
    /// Whether this stream was greeted.
    attached: bool,
    to_client: VecDeque<ServerFrame>,
    to_member: VecDeque<ClientFrame>,
}

impl Model {
    fn handle(&mut self, frame: ClientFrame) {
        match frame {
            ClientFrame::Open { .. } | ClientFrame::Resume { .. } => {
                self.attached = true;
                self.to_client
                    .push_back(attached(1, self.last_id, self.zxid + 7));
                for (ticket, (id, reply)) in &self.completions {
                    self.to_client
                        .push_back(completion(*id, *ticket, reply.clone()));
                }
            }
            ClientFrame::Request(request) => self.handle_request(request),
            ClientFrame::WatchesResumed => {}
            other => panic!("the program asked for no {other:?}"),
        }
    }

    fn handle_request(&mut self, request: folkmoot_proto::client::Request) {
        let id = request.id.0;
        assert!(request.acked_up_to.0 < id);
        if id <= self.last_id {
            let (zxid, reply) = self
                .replies
                .get(&id)
                .expect("kept until acknowledged")
                .clone();
            self.answer(id, zxid, reply);
            return;
        }
        if id != self.last_id + 1 || std::mem::take(&mut self.refuse_next) {
            // It is behind one that was refused or lost.
            let reason = NotAdmitted::Overloaded;
            self.to_client.push_back(ServerFrame::NotAdmitted {
                id: RequestId(id),
                reason,
            });
            return;
        }
        self.replies.retain(|id, _| *id > request.acked_up_to.0);
        self.last_id = id;
        self.zxid += 1;
        let reply = match &request.operation {
            Operation::Invoke { .. } => {
                self.waits.push_back((self.zxid, id));
                Ok(Outcome::Waiting(Ticket(self.zxid)))
            }
            Operation::CancelWait { request } => self.cancel(request.0),
            Operation::AcknowledgeCompletions { tickets } => {
                for ticket in tickets {
                    self.acknowledged.push(ticket.0);
                    self.completions.remove(&ticket.0);
                }
                Ok(Outcome::Acknowledged)
            }
            _ => Ok(Outcome::Set { version: id }),
        };
        self.executed.push((id, request.operation));
        self.replies.insert(id, (self.zxid, reply.clone()));
        self.answer(id, self.zxid, reply);
    }

    fn cancel(&mut self, request: u64) -> Reply {
        let Some(place) = self.waits.iter().position(|(_, id)| *id == request) else {
            return Ok(Outcome::NothingToCancel);
        };
        let (ticket, id) = self.waits.remove(place).expect("found");
        self.complete(ticket, id, Err(Refusal::WaitCancelled));
        Ok(Outcome::Cancelled)
    }

    fn complete(&mut self, ticket: u64, id: u64, reply: Reply) {
        self.completions.insert(ticket, (id, reply.clone()));
        if self.attached {
            self.to_client.push_back(completion(id, ticket, reply));
        }
    }

    fn answer(&mut self, id: u64, zxid: u64, reply: Reply) {
        let (id, zxid) = (RequestId(id), Zxid(zxid));
        self.to_client
            .push_back(ServerFrame::Reply { id, zxid, reply });
    }
}

struct World {
    core: SessionCore,
    model: Model,
    now: Tick,
    /// What the program submitted, and the outcomes that it was given.
    submitted: Vec<u64>,
    outcomes: BTreeMap<u64, Reply>,
    in_place: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let core = SessionCore::new(SessionSecret([1; 32]), TIMEOUT_MS);
        let mut world = Self {
            core,
            model: Model::default(),
            now: at(0),
            submitted: Vec::new(),
            outcomes: BTreeMap::new(),
            in_place: Vec::new(),
        };
        world.reconnect();
        world
    }

    fn reconnect(&mut self) {
        self.core.handle_disconnected();
        self.model.to_client.clear();
        self.model.to_member.clear();
        self.model.attached = false;
        self.core.handle_connected(self.now, vec![member(1)]);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit => self.submit(Operation::Sync),
            Step::SubmitWaiting => self.submit(Operation::Invoke {
                mount: "/m".to_owned(),
                operation: "acquire".to_owned(),
                payload: Vec::new(),
            }),
            Step::Abandon(of) => {
                let count = self.submitted.len();
                if count > 0 {
                    self.core
                        .abandon(RequestId(self.submitted[usize::from(of) % count]));
                }
            }
            Step::Deliver(count) => {
                self.send();
                for _ in 0..count {
                    let Some(frame) = self.model.to_member.pop_front() else {
                        break;
                    };
                    self.model.handle(frame);
                }
            }
            Step::Hear(count) => self.hear(usize::from(count)),
            Step::Complete => {
                if let Some((ticket, id)) = self.model.waits.pop_front() {
                    let granted = Ok(Outcome::Invoked(vec![1]));
                    self.model.complete(ticket, id, granted);
                }
            }
            Step::Refuse => self.model.refuse_next = true,
            Step::Rewind => {
                // A retry of what was executed is answered by the member itself, and not lost.
                let next = RequestId(self.model.last_id + 1);
                self.model.to_member.retain(
                    |frame| !matches!(frame, ClientFrame::Request(request) if request.id >= next),
                );
                if self.core.is_attached() {
                    self.model.to_client.push_back(ServerFrame::Rewind { next });
                } else {
                    self.reconnect();
                }
            }
            Step::Reconnect => self.reconnect(),
            Step::Pass(millis) => {
                self.now = self.now.plus_millis(u64::from(millis));
                self.core.handle_timeout(self.now);
                self.take_outputs();
            }
        }
    }

    fn submit(&mut self, operation: Operation) {
        self.submitted
            .push(self.core.submit(operation, Vec::new()).0);
    }

    fn send(&mut self) {
        while let Some(frame) = self.core.poll_frame(self.now) {
            self.model.to_member.push_back(frame);
        }
    }

    fn hear(&mut self, count: usize) {
        for _ in 0..count {
            let Some(frame) = self.model.to_client.pop_front() else {
                break;
            };
            let heard = self.core.handle_frame(self.now, member(1), frame);
            assert_eq!(heard, Ok(()));
            self.take_outputs();
        }
    }

    fn take_outputs(&mut self) {
        let mut moved = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Answer(answer) => {
                    let id = answer.id.0;
                    if !matches!(answer.reply, Ok(Outcome::Invoked(_)) | Err(_)) {
                        self.in_place.push(id);
                    }
                    let before = self.outcomes.insert(id, answer.reply);
                    assert_eq!(before, None, "request {id} had an outcome already");
                }
                Output::Move { .. } => moved = true,
                Output::Unanswered { .. } | Output::Ended { .. } => panic!("it never ends"),
                _ => {}
            }
        }
        if moved {
            self.reconnect();
        }
    }

    /// The network heals: everything comes to its end.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now = self.now.plus_millis(400);
            self.core.handle_heartbeat_ack(self.now, self.now, None);
            self.core.handle_timeout(self.now);
            self.take_outputs();
            self.step(Step::Complete);
            self.step(Step::Deliver(u8::MAX));
            self.hear(usize::MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_request_has_one_outcome_and_one_execution_in_order(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        let executed: Vec<_> = world.model.executed.iter().map(|(id, _)| *id).collect();
        let all: Vec<_> = (1..=world.model.last_id).collect();
        prop_assert_eq!(&executed, &all, "each once, in order");
        for id in &world.submitted {
            prop_assert!(world.outcomes.contains_key(id), "request {} has no outcome", id);
        }
        prop_assert_eq!(world.outcomes.len(), world.submitted.len());
        let mut sorted = world.in_place.clone();
        sorted.sort_unstable();
        prop_assert_eq!(&world.in_place, &sorted, "answers in place come in order");
        prop_assert!(world.model.completions.is_empty(), "every completion is acknowledged");
    }
}
