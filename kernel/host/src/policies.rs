//! Asks policies: tables in, tables out.
//!
//! A policy is pure, so an instance is kept for no other reason than that making one costs time. It
//! runs without fuel, ended by the time that it works, on a thread on which nobody waits.

mod tables;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folkmoot_core::plugin::{FaultKind, PluginFault};
use folkmoot_core::policy::{PolicyAnswer, PolicyCall, PolicyFailure, PolicyWorld, Table};
use folkmoot_proto::Digest;
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::components::Components;
use crate::engine::Sandbox;
use crate::examine::ExamineError;
use crate::fault::{fault, fault_of};
use crate::generated::failure_detector::{FailureDetector, FailureDetectorPre};
use crate::generated::folkmoot::plugin::types::Rejection;
use crate::generated::folkmoot::plugin::{log, types};
use crate::generated::rebalancer::folkmoot::plugin::tables::{Host as TablesHost, Table as Given};
use crate::generated::rebalancer::{Rebalancer, RebalancerPre};
use crate::limits::{FAULT_MESSAGE_BYTES_MAX, PolicyLimits};
use crate::meter::{self, Meter, Metered};
use crate::world::{World, WrongWorld};

/// Warm instances kept at once; the one that was not asked for the longest time goes.
pub(crate) const WARM_POLICIES_MAX: u32 = 4;
/// An instance with more memory than this is not kept: a question that needed so much is rare, and
/// would be paid for by the member for as long as it leads.
const WARM_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a rejection's code that are told.
const CODE_BYTES_MAX: usize = 64;

/// Runs policies. One call at a time, on a thread with a stack of at least
/// [`crate::STACK_BYTES_MIN`].
pub struct Policies {
    components: Arc<Components>,
    linker: Linker<PolicyState>,
    limits: PolicyLimits,
    stop: Arc<AtomicBool>,
    /// The one that was asked last is the last.
    warm: VecDeque<(Identity, Policy)>,
}

/// Instances of the same identity give the same answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    world: PolicyWorld,
    digest: Digest,
    configuration: Vec<u8>,
}

/// An instance of a component in a store of its own.
struct Policy {
    store: Store<PolicyState>,
    exports: Exports,
}

enum Exports {
    Rebalancer(Rebalancer),
    FailureDetector(FailureDetector),
}

/// The data of an instance's store.
struct PolicyState {
    meter: Meter,
    stop: Arc<AtomicBool>,
}

impl Policies {
    /// Runs the compiled `components`. Once `stop` is set, calls end at their next tick.
    #[must_use]
    pub fn new(components: Arc<Components>, limits: PolicyLimits, stop: Arc<AtomicBool>) -> Self {
        Self {
            linker: linker(components.sandbox()),
            components,
            limits,
            stop,
            warm: VecDeque::new(),
        }
    }

    /// Asks a policy: its warm instance, made and configured if there is none. What it answers is
    /// well-formed ([`PolicyWorld::check_output`]); without tables it is not asked more. After a fault the
    /// instance is dropped.
    ///
    /// # Errors
    ///
    /// As [`PolicyFailure`] says; a rejection of the configuration is one of the policy.
    pub fn ask(&mut self, call: PolicyCall) -> PolicyAnswer {
        let sandbox = self.components.sandbox().clone();
        let _ticks = sandbox.tick_during_call();
        let identity = Identity {
            world: call.world,
            digest: call.digest,
            configuration: call.configuration,
        };
        let mut policy = self.warm_or_fresh(&identity)?;
        let answer = call
            .tables
            .map_or_else(|| Ok(Vec::new()), |tables| policy.answer(tables));
        let faulted = matches!(answer, Err(PolicyFailure::Fault { .. }));
        if !faulted && policy.memory_bytes() <= WARM_BYTES_MAX {
            if self.warm.len() >= WARM_POLICIES_MAX as usize {
                self.warm.pop_front();
            }
            self.warm.push_back((identity, policy));
        }
        answer
    }

    /// Drops all warm instances and gives their memory back.
    pub fn cool_down(&mut self) {
        self.warm.clear();
    }

    /// Whether there are warm instances.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        !self.warm.is_empty()
    }

    fn warm_or_fresh(&mut self, identity: &Identity) -> Result<Policy, PolicyFailure> {
        // An instance does not outlive its component's removal by more than a call.
        self.warm.retain(|(of, _)| self.components.has(of.digest));
        let place = self.warm.iter().position(|(of, _)| of == identity);
        if let Some((_, mut policy)) = place.and_then(|place| self.warm.remove(place)) {
            meter::begin_time(&mut policy.store);
            return Ok(policy);
        }
        let world = World::from(identity.world);
        let Some(component) = self.components.compiled(world, identity.digest) else {
            return Err(match self.components.world(identity.digest) {
                None => PolicyFailure::NotReady,
                Some(other) => told(fault(
                    FaultKind::Contract,
                    format!("it is a {other}, not a {world}"),
                )),
            });
        };
        let stop = Arc::clone(&self.stop);
        let mut policy =
            Policy::instantiate(&self.linker, identity.world, &component, self.limits, stop)
                .map_err(told)?;
        policy.configure(&identity.configuration)?;
        Ok(policy)
    }
}

impl core::fmt::Debug for Policies {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let warm = self.warm.iter().map(|(identity, _)| identity);
        f.debug_struct("Policies")
            .field("warm", &warm.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What a policy's component says of itself, with its types checked first.
///
/// # Errors
///
/// [`ExamineError::WrongWorld`] or [`ExamineError::Describe`].
pub(crate) fn describe(
    sandbox: &Sandbox,
    world: PolicyWorld,
    component: &Component,
) -> Result<String, ExamineError> {
    let linker = linker(sandbox);
    check_types(&linker, world, component)?;
    let stop = Arc::default();
    Policy::instantiate(&linker, world, component, PolicyLimits::default(), stop)
        .and_then(|mut policy| policy.describe())
        .map_err(ExamineError::Describe)
}

/// Offers what policies may import: both worlds have the same.
fn linker(sandbox: &Sandbox) -> Linker<PolicyState> {
    let mut linker = Linker::new(sandbox.engine(World::Rebalancer));
    let offered = Rebalancer::add_to_linker::<_, HasSelf<PolicyState>>(&mut linker, |state| state);
    // It fails only for a name that is offered twice.
    assert!(offered.is_ok(), "the imports can be offered: {offered:?}");
    linker
}

fn check_types(
    linker: &Linker<PolicyState>,
    world: PolicyWorld,
    component: &Component,
) -> Result<(), WrongWorld> {
    let linked = linker.instantiate_pre(component);
    let checked = linked.and_then(|linked| match world {
        PolicyWorld::Rebalancer => RebalancerPre::new(linked).map(|_| ()),
        PolicyWorld::FailureDetector => FailureDetectorPre::new(linked).map(|_| ()),
    });
    checked.map_err(|error| WrongWorld {
        world: world.into(),
        reason: format!("{error:#}"),
    })
}

impl Policy {
    /// Makes an instance. The time of its first call begins.
    fn instantiate(
        linker: &Linker<PolicyState>,
        world: PolicyWorld,
        component: &Component,
        limits: PolicyLimits,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, PluginFault> {
        let meter = Meter::new(limits.millis, limits.memory_bytes, limits.log_lines);
        let mut store = Store::new(linker.engine(), PolicyState { meter, stop });
        meter::limit(&mut store, limits.output_bytes);
        let exports = match world {
            PolicyWorld::Rebalancer => {
                Rebalancer::instantiate(&mut store, component, linker).map(Exports::Rebalancer)
            }
            PolicyWorld::FailureDetector => {
                FailureDetector::instantiate(&mut store, component, linker)
                    .map(Exports::FailureDetector)
            }
        };
        match exports {
            Ok(exports) => Ok(Self { store, exports }),
            Err(error) => Err(fault_of(&error, &store.data().meter)),
        }
    }

    fn describe(&mut self) -> Result<String, PluginFault> {
        let store = &mut self.store;
        store.data_mut().meter.begin();
        let described = match &self.exports {
            Exports::Rebalancer(of) => of.folkmoot_plugin_planner().call_describe(store),
            Exports::FailureDetector(of) => of.folkmoot_plugin_detector().call_describe(store),
        };
        described.map_err(|error| fault_of(&error, &self.store.data().meter))
    }

    fn configure(&mut self, configuration: &[u8]) -> Result<(), PolicyFailure> {
        let store = &mut self.store;
        store.data_mut().meter.begin();
        let configured = match &self.exports {
            Exports::Rebalancer(of) => {
                let planner = of.folkmoot_plugin_planner();
                planner.call_configure(store, configuration)
            }
            Exports::FailureDetector(of) => {
                let detector = of.folkmoot_plugin_detector();
                detector.call_configure(store, configuration)
            }
        };
        self.outcome(configured)
    }

    fn answer(&mut self, tables: Vec<Table>) -> PolicyAnswer {
        // Columns move: what is copied is the cells, once, into the guest's memory.
        let input: Vec<Given> = tables.into_iter().map(Given::from).collect();
        let store = &mut self.store;
        store.data_mut().meter.begin();
        let (world, answer) = match &self.exports {
            Exports::Rebalancer(of) => {
                let planner = of.folkmoot_plugin_planner();
                (PolicyWorld::Rebalancer, planner.call_plan(store, &input))
            }
            Exports::FailureDetector(of) => {
                let detector = of.folkmoot_plugin_detector();
                let answer = detector.call_assess(store, &input);
                (PolicyWorld::FailureDetector, answer)
            }
        };
        let output = self.outcome(answer)?;
        let output: Vec<Table> = output.into_iter().map(Table::from).collect();
        match world.check_output(&output) {
            Ok(()) => Ok(output),
            Err(reason) => Err(told(fault(
                FaultKind::Contract,
                format!("it gave {reason}"),
            ))),
        }
    }

    fn outcome<T>(
        &self,
        outcome: wasmtime::Result<Result<T, Rejection>>,
    ) -> Result<T, PolicyFailure> {
        match outcome {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(rejection)) => Err(rejected(rejection)),
            Err(error) => Err(told(fault_of(&error, &self.store.data().meter))),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.store.data().meter.memory.bytes()
    }
}

fn rejected(mut rejection: Rejection) -> PolicyFailure {
    for (text, bytes_max) in [
        (&mut rejection.code, CODE_BYTES_MAX),
        (&mut rejection.message, FAULT_MESSAGE_BYTES_MAX),
    ] {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    PolicyFailure::Rejected {
        code: rejection.code,
        message: rejection.message,
    }
}

fn told(fault: PluginFault) -> PolicyFailure {
    PolicyFailure::Fault {
        kind: fault.kind.name().to_owned(),
        message: fault.message,
    }
}

impl Metered for PolicyState {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl log::Host for PolicyState {
    fn write(&mut self, message: String) -> wasmtime::Result<()> {
        let line = self.meter.take_line(message)?;
        tracing::info!(target: "folkmoot::plugin", "{line}");
        Ok(())
    }
}

impl types::Host for PolicyState {}
impl TablesHost for PolicyState {}
