//! The threads on which policies run: one for each world, so that a plan that takes its time keeps no
//! verdict waiting.
//!
//! Nobody waits for them (rules R37, R43): execution asks and goes on, and the answer comes to it as an
//! input. What a thread has no room for is answered at once, by "not ready".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use folkmoot_core::policy::{PolicyAnswer, PolicyCall, PolicyCallId, PolicyFailure, PolicyWorld};
use folkmoot_host::{Components, Policies, PolicyLimits};

use crate::StartError;
use crate::execution::{ExecutionInput, ExecutionQueue, STACK_BYTES};
use crate::fatal::Fatal;
use crate::threads::spawn;

/// Questions that may wait for a thread. The tables of one, at 100,000 partitions, are some 10 MB.
const QUESTIONS_MAX: usize = 8;
/// After so long without a question, a thread gives back the memory of its warm instances: those of
/// a member that does not lead any more are of no use.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// How much lower than other threads' the priority is. A policy that loops on a busy machine still
/// gets a quarter of a core, so that its 2 s of work end within the 10 s that its answer is waited for.
const NICE: i32 = 5;

type Question = (PolicyCallId, PolicyCall);

/// The way to the policy threads. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct PolicyThreads {
    rebalancers: Sender<Question>,
    detectors: Sender<Question>,
    answers: ExecutionQueue,
    stop: Arc<AtomicBool>,
}

impl PolicyThreads {
    /// Starts the threads, which run the compiled `components` and send what comes of it to
    /// execution.
    pub(crate) fn start(
        components: &Arc<Components>,
        answers: &ExecutionQueue,
        fatal: &Fatal,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |name| {
            let components = Arc::clone(components);
            let mut policies =
                Policies::new(components, PolicyLimits::default(), Arc::clone(&stop));
            let (asked, questions) = crossbeam_channel::bounded(QUESTIONS_MAX);
            let answers = answers.clone();
            let handle = spawn(name, STACK_BYTES, fatal, move || {
                give_way();
                serve(&mut policies, &questions, &answers, COOL_DOWN);
            })?;
            Ok::<_, StartError>((asked, handle))
        };
        let (rebalancers, rebalancing) = start("rebalancer")?;
        let (detectors, detecting) = start("failure-detector")?;
        let threads = Self {
            rebalancers,
            detectors,
            answers: answers.clone(),
            stop,
        };
        Ok((threads, vec![rebalancing, detecting]))
    }

    /// Asks a policy; what comes of it goes to execution.
    pub(crate) fn ask(&self, id: PolicyCallId, call: PolicyCall) {
        let thread = match call.world {
            PolicyWorld::Rebalancer => &self.rebalancers,
            PolicyWorld::FailureDetector => &self.detectors,
        };
        match thread.try_send((id, call)) {
            // A thread that is gone has said why, and the member ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.answers.send(answer(id, Err(PolicyFailure::NotReady)));
            }
        }
    }
}

impl Drop for PolicyThreads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What runs policies: the plugin host, or a test.
trait Asked {
    fn ask(&mut self, call: PolicyCall) -> PolicyAnswer;
    fn cool_down(&mut self);
}

impl Asked for Policies {
    fn ask(&mut self, call: PolicyCall) -> PolicyAnswer {
        Policies::ask(self, call)
    }

    fn cool_down(&mut self) {
        Policies::cool_down(self);
    }
}

/// Answers questions in their order until nobody can ask any more.
fn serve(
    policies: &mut impl Asked,
    questions: &Receiver<Question>,
    answers: &ExecutionQueue,
    cool_down: Duration,
) {
    loop {
        match questions.recv_timeout(cool_down) {
            Ok((id, call)) => answers.send(answer(id, policies.ask(call))),
            Err(RecvTimeoutError::Timeout) => policies.cool_down(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn answer(id: PolicyCallId, answer: PolicyAnswer) -> Vec<ExecutionInput> {
    vec![ExecutionInput::Policy(id, answer)]
}

/// Lets every other thread go first. Linux counts niceness by thread, whatever POSIX says.
fn give_way() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!("policies run at the priority of other threads: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use folkmoot_core::policy::Table;
    use folkmoot_proto::Digest;

    /// Echoes, and lets go of what it has when it cools down.
    struct Echo(Option<Sender<Question>>);

    impl Asked for Echo {
        fn ask(&mut self, call: PolicyCall) -> PolicyAnswer {
            Ok(call.tables.unwrap_or_default())
        }

        fn cool_down(&mut self) {
            self.0 = None;
        }
    }

    fn call(world: PolicyWorld, rows: usize) -> PolicyCall {
        PolicyCall {
            world,
            digest: Digest([1; 32]),
            configuration: Vec::new(),
            tables: Some(vec![Table::new("again", rows)]),
        }
    }

    /// Threads whose questions nobody takes yet, and what comes to execution.
    struct Idle {
        threads: PolicyThreads,
        rebalancers: Receiver<Question>,
        detectors: Receiver<Question>,
        execution: Receiver<Vec<ExecutionInput>>,
    }

    impl Idle {
        fn new() -> Self {
            let (answers, execution) = ExecutionQueue::new();
            let (to_rebalancers, rebalancers) = crossbeam_channel::bounded(QUESTIONS_MAX);
            let (to_detectors, detectors) = crossbeam_channel::bounded(QUESTIONS_MAX);
            let threads = PolicyThreads {
                rebalancers: to_rebalancers,
                detectors: to_detectors,
                answers,
                stop: Arc::default(),
            };
            Self {
                threads,
                rebalancers,
                detectors,
                execution,
            }
        }
    }

    /// What came to execution.
    fn answers_to(execution: &Receiver<Vec<ExecutionInput>>) -> Vec<(PolicyCallId, PolicyAnswer)> {
        let answer = |input| match input {
            ExecutionInput::Policy(id, answer) => (id, answer),
            other => panic!("{other:?}"),
        };
        execution.try_iter().flatten().map(answer).collect()
    }

    #[test]
    fn r37_a_question_beyond_the_queue_is_not_waited_for() {
        let idle = Idle::new();
        let ask = |id| {
            let plan = call(PolicyWorld::Rebalancer, 0);
            idle.threads.ask(PolicyCallId(id), plan);
        };
        (0..QUESTIONS_MAX as u64).for_each(ask);
        assert_eq!(
            answers_to(&idle.execution),
            [],
            "there is room for as many as its limit"
        );
        ask(99);
        let not_ready = (PolicyCallId(99), Err(PolicyFailure::NotReady));
        assert_eq!(answers_to(&idle.execution), [not_ready]);
    }

    #[test]
    fn r43_plans_keep_no_verdict_waiting() {
        let idle = Idle::new();
        for id in 0..2 * QUESTIONS_MAX as u64 {
            let plan = call(PolicyWorld::Rebalancer, 0);
            idle.threads.ask(PolicyCallId(id), plan);
        }
        let verdict = call(PolicyWorld::FailureDetector, 0);
        idle.threads.ask(PolicyCallId(100), verdict.clone());
        let asked: Vec<_> = idle.detectors.try_iter().collect();
        assert_eq!(asked, [(PolicyCallId(100), verdict)]);
        assert_eq!(idle.rebalancers.len(), QUESTIONS_MAX);
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let idle = Idle::new();
        for (id, rows) in [(1, 1), (2, 2), (3, 3)] {
            let plan = call(PolicyWorld::Rebalancer, rows);
            idle.threads.ask(PolicyCallId(id), plan);
        }
        let answers = idle.threads.answers.clone();
        drop(idle.threads);
        serve(&mut Echo(None), &idle.rebalancers, &answers, COOL_DOWN);
        let answer = |id, rows| (PolicyCallId(id), Ok(vec![Table::new("again", rows)]));
        assert_eq!(
            answers_to(&idle.execution),
            [answer(1, 1), answer(2, 2), answer(3, 3)]
        );
    }

    #[test]
    fn a_thread_that_nobody_asks_gives_its_memory_back() {
        let (asked, questions) = crossbeam_channel::bounded(1);
        let (answers, _execution) = ExecutionQueue::new();
        // It serves until nobody can ask any more, and so until it lets go of its own way to ask.
        let mut policies = Echo(Some(asked));
        serve(
            &mut policies,
            &questions,
            &answers,
            Duration::from_millis(1),
        );
        assert!(policies.0.is_none());
    }

    /// A member that stops does not wait for what its policies are at.
    #[test]
    fn the_threads_end_with_whoever_asks_them() {
        let idle = Idle::new();
        let stop = Arc::clone(&idle.threads.stop);
        drop(idle.threads);
        assert!(stop.load(Ordering::Relaxed));
        assert!(idle.rebalancers.recv().is_err());
        assert!(idle.detectors.recv().is_err());
    }
}
