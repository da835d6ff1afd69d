//! Requests that wait for a policy: what it would plan, or whether it takes a configuration.
//!
//! A wait keeps what is asked, so that a new leader asks again; nothing of a policy's answer is done.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot_proto::codec::Compact;
use folkmoot_proto::limits::POLICY_CONFIG_BYTES_MAX;
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::{Outcome, Refusal, Reply};
use folkmoot_proto::{Now, RequestId, SessionId, Tick, Ticket};

use super::components::world_of_policy;
use super::draft::{Draft, KERNEL_MOUNT};
use super::operations::check_count;
use super::partitions::Preview;
use crate::execution::Execution;
use crate::policy::{PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure};
use crate::state::View;

/// How long a policy may take for its answer, in milliseconds on the leader's clock.
const ANSWER_MS: u64 = 10_000;
/// Before a policy that is not compiled yet is asked again, in milliseconds.
const NOT_READY_MS: u64 = 250;
/// How long such a request may wait altogether, in milliseconds on the log clock: for its turn, and for
/// two leaders.
const WAIT_MS: u64 = 25_000;
/// Questions under way. The threads of policies have room for twice as many, so that a detector that
/// serves finds some.
const UNDER_WAY_MAX: usize = 4;
/// Requests that wait for policies, all sessions' together.
const WAITS_MAX: usize = 256;

/// What a wait for a policy keeps.
#[derive(Debug)]
enum Memo {
    /// What a policy would plan for a group's map.
    Preview {
        /// The group.
        group: String,
        /// The policy.
        choice: PolicyChoice,
    },
    /// Whether a policy takes a configuration.
    Try {
        /// Both.
        choice: PolicyChoice,
    },
}

folkmoot_proto::compact_enum!(Memo {
    1 = Preview { group, choice },
    2 = Try { choice },
});

/// The requests that wait for policies, in the memory of one term.
#[derive(Debug)]
pub(super) struct Asking {
    /// Those that waited for a former leader are not known yet.
    is_new: bool,
    /// Waits that may be for a policy, and have not had their turn.
    queue: BTreeSet<Ticket>,
    /// Those that have it.
    under_way: BTreeMap<Ticket, Waiting>,
}

/// One that has its turn.
#[derive(Debug)]
struct Waiting {
    /// Since when.
    since: Tick,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It is asked then.
    AskAt(Tick),
    /// It was asked.
    Asked(PolicyCallId, About),
    /// It was asked, and nobody waits any more: the policy is at it all the same.
    Left(PolicyCallId),
    /// There is an answer.
    Answered(About, PolicyAnswer),
}

/// What a question is about.
#[derive(Debug)]
enum About {
    Preview(Preview),
    Configuration,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            is_new: true,
            queue: BTreeSet::new(),
            under_way: BTreeMap::new(),
        }
    }
}

impl Asking {
    /// A request began to wait, for a policy or for something else.
    pub(super) fn began(&mut self, ticket: Ticket) {
        self.queue.insert(ticket);
    }

    /// A policy has answered, if it was asked here.
    pub(super) fn answered(&mut self, id: PolicyCallId, answer: PolicyAnswer) {
        self.under_way
            .retain(|_, of| !matches!(of.step, Step::Left(call) if call == id));
        let asked = |of: &&mut Waiting| matches!(of.step, Step::Asked(call, _) if call == id);
        if let Some(waiting) = self.under_way.values_mut().find(asked)
            && let Step::Asked(_, about) =
                core::mem::replace(&mut waiting.step, Step::AskAt(Tick::ZERO))
        {
            waiting.step = Step::Answered(about, answer);
        }
    }

    /// When something is due, if no answer comes before.
    pub(super) fn timeout(&self) -> Option<Tick> {
        let due = |waiting: &Waiting| match waiting.step {
            Step::AskAt(at) => at,
            Step::Asked(..) | Step::Left(_) => waiting.since.plus_millis(ANSWER_MS),
            Step::Answered(..) => Tick::ZERO,
        };
        self.under_way.values().map(due).min()
    }
}

/// Has a request wait for what a policy would plan for a group's map.
pub(super) fn begin_preview(
    draft: &mut Draft,
    of: (SessionId, RequestId),
    group: String,
    choice: PolicyChoice,
) -> Result<Outcome, Refusal> {
    begin(draft, of, &Memo::Preview { group, choice })
}

/// Has a request wait for whether a policy, of whichever world, takes a configuration.
pub(super) fn begin_try(
    draft: &mut Draft,
    of: (SessionId, RequestId),
    choice: PolicyChoice,
) -> Result<Outcome, Refusal> {
    world_of_policy(draft.view(), choice.digest)?;
    begin(draft, of, &Memo::Try { choice })
}

fn begin(
    draft: &mut Draft,
    (session, request): (SessionId, RequestId),
    memo: &Memo,
) -> Result<Outcome, Refusal> {
    let (Memo::Preview { choice, .. } | Memo::Try { choice }) = memo;
    let bytes = choice.configuration.len();
    let what = "bytes of a policy's configuration";
    check_count(what, bytes, POLICY_CONFIG_BYTES_MAX)?;
    let waits = draft.view().waits_of_mount(KERNEL_MOUNT).len() + 1;
    check_count("requests that wait for policies", waits, WAITS_MAX)?;
    let deadline = draft.stamp().log_time.plus_millis(WAIT_MS);
    let memo = memo.to_compact();
    draft.begin_wait(session, request, KERNEL_MOUNT, Some(deadline), memo)?;
    Ok(Outcome::Waiting(Ticket(draft.stamp().zxid.0)))
}

impl Execution {
    /// Asks for those whose turn it is, and completes those whose answers have come, or never will.
    pub(super) fn run_asking(&mut self, now: Now) {
        if !self.may_execute() {
            return;
        }
        let Some(leader) = &mut self.leader else {
            return;
        };
        if core::mem::take(&mut leader.asking.is_new) {
            let waits = self.speculative().waits_of_mount(KERNEL_MOUNT);
            if let Some(leader) = &mut self.leader {
                leader.asking.queue.extend(waits);
            }
        }
        let Some(leader) = &mut self.leader else {
            return;
        };
        let under_way = core::mem::take(&mut leader.asking.under_way);
        let step = |(ticket, of)| Some((ticket, self.step_of_wait(now, ticket, of)?));
        let mut under_way: BTreeMap<_, _> = under_way.into_iter().filter_map(step).collect();
        while under_way.len() < UNDER_WAY_MAX
            && let Some(ticket) = self.next_wait()
        {
            let waiting = Waiting {
                since: now.tick,
                step: Step::AskAt(now.tick),
            };
            let waiting = self.step_of_wait(now, ticket, waiting);
            under_way.extend(waiting.map(|waiting| (ticket, waiting)));
        }
        if let Some(leader) = &mut self.leader {
            leader.asking.under_way = under_way;
        }
    }

    fn next_wait(&mut self) -> Option<Ticket> {
        let leader = self.leader.as_mut()?;
        leader.asking.queue.pop_first()
    }

    /// The next step of one; none where it waits no more.
    fn step_of_wait(&mut self, now: Now, ticket: Ticket, waiting: Waiting) -> Option<Waiting> {
        if !self.may_execute() {
            return Some(waiting);
        }
        let Waiting { since, step } = waiting;
        let is_late = now.tick >= since.plus_millis(ANSWER_MS);
        let Some(memo) = self.memo_of(ticket) else {
            let (Step::Asked(id, _) | Step::Left(id)) = step else {
                return None;
            };
            let step = Step::Left(id);
            return (!is_late).then_some(Waiting { since, step });
        };
        let (about, answer) = match step {
            Step::AskAt(at) if now.tick < at => return Some(Waiting { since, step }),
            Step::AskAt(_) => match self.ask_for(now, memo) {
                Ok(step) => return Some(Waiting { since, step }),
                Err(refusal) => return self.complete_wait(now, ticket, Err(refusal)),
            },
            Step::Answered(_, Err(PolicyFailure::NotReady)) if !is_late => {
                let step = Step::AskAt(now.tick.plus_millis(NOT_READY_MS));
                return Some(Waiting { since, step });
            }
            Step::Asked(..) if !is_late => return Some(Waiting { since, step }),
            Step::Asked(_, about) => (about, Err(no_answer("there was no answer"))),
            Step::Answered(about, Err(PolicyFailure::NotReady)) => {
                (about, Err(no_answer("it is not compiled yet: try again")))
            }
            Step::Answered(about, answer) => (about, answer),
            // There is a wait of that ticket, and the one that was asked for is not.
            Step::Left(_) => return None,
        };
        let reply = match about {
            About::Preview(preview) => Ok(Outcome::Planned(self.describe(now, &preview, answer))),
            About::Configuration => took(answer),
        };
        self.complete_wait(now, ticket, reply)
    }

    /// What a wait keeps; none where it is no wait for a policy, or is none any more.
    fn memo_of(&self, ticket: Ticket) -> Option<Memo> {
        let wait = self.speculative().wait(ticket)?;
        let is_ours = wait.mount == KERNEL_MOUNT;
        is_ours.then(|| Memo::from_compact(&wait.memo).ok())?
    }

    /// It waits no more.
    fn complete_wait(&mut self, now: Now, ticket: Ticket, reply: Reply) -> Option<Waiting> {
        self.kernel_txn(now, |draft| {
            let Some(wait) = draft.view().wait(ticket).cloned() else {
                return Ok(());
            };
            draft.complete(&wait, reply)
        });
        None
    }

    /// Asks what a wait keeps.
    fn ask_for(&mut self, now: Now, memo: Memo) -> Result<Step, Refusal> {
        let (about, choice, tables) = match memo {
            Memo::Preview { group, choice } => {
                let active = self.active(now.tick);
                let Some((preview, tables)) = self.preview(now, active, &group) else {
                    return Err(Refusal::UnknownMap { group });
                };
                (About::Preview(preview), choice, Some(tables))
            }
            Memo::Try { choice } => (About::Configuration, choice, None),
        };
        let world = world_of_policy(self.speculative(), choice.digest)?;
        let id = self.ask_policy(PolicyCall {
            world,
            digest: choice.digest,
            configuration: choice.configuration.into_bytes(),
            tables,
        });
        Ok(Step::Asked(id, about))
    }
}

fn no_answer(message: &str) -> PolicyFailure {
    PolicyFailure::Fault {
        kind: "timeout".to_owned(),
        message: message.to_owned(),
    }
}

/// What a client is told of its configuration.
fn took(answer: PolicyAnswer) -> Reply {
    Err(match answer {
        Ok(_) => return Ok(Outcome::PolicyTook),
        Err(PolicyFailure::Rejected { code, message }) => Refusal::Rejected {
            code,
            message,
            details: Vec::new(),
        },
        Err(PolicyFailure::Fault { kind, message }) => Refusal::PluginFault { kind, message },
        Err(failure @ PolicyFailure::NotReady) => Refusal::PluginFault {
            kind: "timeout".to_owned(),
            message: failure.to_string(),
        },
    })
}
