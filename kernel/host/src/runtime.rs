//! Makes calls, and keeps warm instances between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use folkmoot_core::plugin::{
    CallContext, CallResult, Discard, FaultKind, GuestCall, GuestOutcome, InstanceKey, PluginFault,
    PluginRuntime, Rejection, TxnView,
};
use folkmoot_proto::effect::{MountEvent, WaitEndCause};
use folkmoot_proto::{Digest, LogTime};
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use crate::components::Components;
use crate::engine::Sandbox;
use crate::fault::{fault, fault_of};
use crate::generated::exports::folkmoot::plugin::guest;
use crate::generated::{Recipe, RecipePre};
use crate::imports;
use crate::imports::rejection_bytes;
use crate::limits::{CallLimits, HOSTCALL_BYTES_MAX};
use crate::meter;
use crate::state::CallState;
use crate::view::CallView;
use crate::world::{World, WrongWorld};

/// Warm instances kept at once; the one that was not called for the longest time goes. Half of the
/// pool's, so that there is always room for a fresh one.
const WARM_INSTANCES_MAX: usize = 128;

/// Runs guests in Wasm. One call at a time, on a thread with a stack of at least
/// [`crate::STACK_BYTES_MIN`].
pub struct WasmRuntime<V: CallView = TxnView> {
    guests: Guests<V>,
    components: Arc<Components>,
    warm: BTreeMap<InstanceKey, Warm<V>>,
    calls: u64,
    has_clock: bool,
    last_call_micros: u64,
}

/// Makes instances and calls them.
pub(crate) struct Guests<V: CallView> {
    sandbox: Sandbox,
    linker: Linker<CallState<V>>,
    linked: BTreeMap<Digest, RecipePre<CallState<V>>>,
    limits: CallLimits,
}

/// An instance that is configured.
struct Warm<V: CallView> {
    instance: Instance<V>,
    /// The call that used it last.
    used: u64,
}

/// An instance of a component in a store of its own.
pub(crate) struct Instance<V: CallView> {
    store: Store<CallState<V>>,
    recipe: Recipe,
}

impl<V: CallView> WasmRuntime<V> {
    /// A runtime for the compiled `components`.
    #[must_use]
    pub fn new(components: Arc<Components>, limits: CallLimits) -> Self {
        Self {
            guests: Guests::new(components.sandbox().clone(), limits),
            components,
            warm: BTreeMap::new(),
            calls: 0,
            has_clock: true,
            last_call_micros: 0,
        }
    }

    /// A runtime whose calls end by fuel alone, and which does not say how long they took: for
    /// simulators, where the same seed must give the same run however busy the machine is.
    #[must_use]
    pub fn without_clock(components: Arc<Components>) -> Self {
        Self {
            has_clock: false,
            ..Self::new(components, CallLimits::by_fuel_alone())
        }
    }

    /// Whether `digest` is compiled and can be called at once.
    #[must_use]
    pub fn has_compiled(&self, digest: Digest) -> bool {
        self.components.world(digest) == Some(World::Recipe)
    }

    /// As [`PluginRuntime::call`], for any view.
    pub fn call_guest(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        view: V,
    ) -> (V, CallResult) {
        let begun = self.has_clock.then(Instant::now);
        let answer = self.call_in_time(key, config, call, view);
        self.last_call_micros = begun.map_or(0, |begun| {
            u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
        });
        answer
    }

    fn call_in_time(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        view: V,
    ) -> (V, CallResult) {
        let sandbox = self.guests.sandbox.clone();
        let _ticks = sandbox.tick_during_call();
        self.calls += 1;
        let mut instance = match self.warm_or_fresh(key, config) {
            Ok(Ok(instance)) => instance,
            Ok(Err(rejection))
                if matches!(call, GuestCall::Configure | GuestCall::Migrate { .. }) =>
            {
                return (view, Ok(Err(rejection)));
            }
            Ok(Err(rejection)) => {
                let message = format!("its configuration was rejected: {}", rejection.message);
                return (view, Err(fault(FaultKind::Contract, message)));
            }
            Err(fault) => return (view, Err(fault)),
        };
        let (view, result) = match call {
            GuestCall::Configure => (view, Ok(Ok(GuestOutcome::Done))),
            call => instance.call(&self.guests.limits, call, view),
        };
        // What a rejected call has written is undone, and what the guest remembers of it is not
        // (rule R14). After a fault nothing that the guest remembers can be trusted.
        let keep = match &result {
            Ok(Ok(_)) => true,
            Ok(Err(_)) => !view.wrote(),
            Err(_) => false,
        };
        if keep {
            self.keep_warm(key, instance);
        }
        (view, result)
    }

    /// Drops warm instances (rule R14).
    pub fn discard_instances(&mut self, which: Discard) {
        match which {
            Discard::All => {
                self.warm.clear();
                // A component that was forgotten is not kept alive by what was linked of it.
                self.guests.linked.clear();
            }
            Discard::Mount(mount) => self.warm.retain(|key, _| key.mount != mount),
        }
    }

    fn warm_or_fresh(
        &mut self,
        key: InstanceKey,
        config: &[u8],
    ) -> Result<Result<Instance<V>, Rejection>, PluginFault> {
        if let Some(warm) = self.warm.remove(&key) {
            // The deadline is the whole call's; a fresh instance's begins before it is made.
            let mut instance = warm.instance;
            meter::begin_time(&mut instance.store);
            return Ok(Ok(instance));
        }
        let Some(component) = self.components.compiled(World::Recipe, key.digest) else {
            return Err(fault(
                FaultKind::Contract,
                "the component is not compiled here",
            ));
        };
        let mut instance = self.guests.instantiate(key.digest, &component)?;
        Ok(instance
            .configure(&self.guests.limits, config)?
            .map(|()| instance))
    }

    fn keep_warm(&mut self, key: InstanceKey, instance: Instance<V>) {
        if self.warm.len() >= WARM_INSTANCES_MAX
            && let Some(oldest) = self.warm.iter().min_by_key(|(_, warm)| warm.used)
        {
            let oldest = *oldest.0;
            self.warm.remove(&oldest);
        }
        let used = self.calls;
        self.warm.insert(key, Warm { instance, used });
    }
}

impl PluginRuntime for WasmRuntime<TxnView> {
    fn is_ready(&self, digest: Digest) -> bool {
        self.has_compiled(digest)
    }

    fn call(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        view: TxnView,
    ) -> (TxnView, CallResult) {
        self.call_guest(key, config, call, view)
    }

    fn last_call_micros(&self) -> u64 {
        self.last_call_micros
    }

    fn discard(&mut self, which: Discard) {
        self.discard_instances(which);
    }
}

impl<V: CallView> core::fmt::Debug for WasmRuntime<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WasmRuntime")
            .field("warm", &self.warm.keys())
            .finish_non_exhaustive()
    }
}

impl<V: CallView> Guests<V> {
    pub(crate) fn new(sandbox: Sandbox, limits: CallLimits) -> Self {
        let mut linker = Linker::new(sandbox.engine(World::Recipe));
        let offered = imports::add_to_linker(&mut linker);
        // It fails only for a name that is offered twice.
        assert!(offered.is_ok(), "the imports can be offered: {offered:?}");
        Self {
            sandbox,
            linker,
            linked: BTreeMap::new(),
            limits,
        }
    }

    /// Checks a component's imports and exports against the world.
    pub(crate) fn link(
        &self,
        component: &Component,
    ) -> Result<RecipePre<CallState<V>>, WrongWorld> {
        self.linker
            .instantiate_pre(component)
            .and_then(RecipePre::new)
            .map_err(|error| WrongWorld {
                world: World::Recipe,
                reason: format!("{error:#}"),
            })
    }

    /// Makes an instance, within the limits of a call.
    pub(crate) fn instantiate(
        &mut self,
        digest: Digest,
        component: &Component,
    ) -> Result<Instance<V>, PluginFault> {
        if !self.linked.contains_key(&digest) {
            let linked = self
                .link(component)
                .map_err(|error| fault(FaultKind::Contract, error.to_string()))?;
            self.linked.insert(digest, linked);
        }
        let Some(linked) = self.linked.get(&digest) else {
            return Err(fault(FaultKind::Contract, "the component is not linked"));
        };
        let mut store = Store::new(
            self.sandbox.engine(World::Recipe),
            CallState::new(self.limits),
        );
        meter::limit(&mut store, HOSTCALL_BYTES_MAX);
        set_fuel(&mut store, &self.limits);
        match linked.instantiate(&mut store) {
            Ok(recipe) => Ok(Instance { store, recipe }),
            Err(error) => Err(fault_of(&error, &store.data().meter)),
        }
    }
}

impl<V: CallView> Instance<V> {
    /// What the component says of itself.
    pub(crate) fn describe(&mut self, limits: &CallLimits) -> Result<String, PluginFault> {
        self.store.data_mut().begin(None);
        set_fuel(&mut self.store, limits);
        let guest = self.recipe.folkmoot_plugin_guest();
        let described = guest.call_describe(&mut self.store);
        described.map_err(|error| fault_of(&error, &self.store.data().meter))
    }

    fn configure(
        &mut self,
        limits: &CallLimits,
        config: &[u8],
    ) -> Result<Result<(), Rejection>, PluginFault> {
        self.store.data_mut().begin(None);
        set_fuel(&mut self.store, limits);
        let guest = self.recipe.folkmoot_plugin_guest();
        match guest.call_configure(&mut self.store, config) {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(rejection)) => checked_rejection(rejection.into(), limits).map(Err),
            Err(error) => Err(fault_of(&error, &self.store.data().meter)),
        }
    }

    /// Makes one call with the view in the store, and takes it out again.
    fn call(&mut self, limits: &CallLimits, call: GuestCall, view: V) -> (V, CallResult) {
        let context = guest_context(view.context());
        self.store.data_mut().begin(Some(view));
        set_fuel(&mut self.store, limits);
        let result = self.enter(limits, context, call);
        let Some(view) = self.store.data_mut().end() else {
            unreachable!("nothing takes the view out of the store during a call");
        };
        (view, result)
    }

    fn enter(
        &mut self,
        limits: &CallLimits,
        context: guest::Context,
        call: GuestCall,
    ) -> CallResult {
        let guest = self.recipe.folkmoot_plugin_guest();
        let store = &mut self.store;
        let outcome = match call {
            GuestCall::Configure => return Ok(Ok(GuestOutcome::Done)),
            GuestCall::Invoke { operation, payload } => {
                guest.call_invoke(&mut *store, context, &operation, &payload)
            }
            GuestCall::Migrate { from_state_version } => {
                return match guest.call_migrate(&mut *store, context, from_state_version) {
                    Ok(Ok(())) => Ok(Ok(GuestOutcome::Done)),
                    Ok(Err(rejection)) => checked_rejection(rejection.into(), limits).map(Err),
                    Err(error) => Err(fault_of(&error, &store.data().meter)),
                };
            }
            GuestCall::OnEvent { event } => {
                return match guest.call_on_event(&mut *store, context, &guest_event(event)) {
                    Ok(()) => Ok(Ok(GuestOutcome::Done)),
                    Err(error) => Err(fault_of(&error, &store.data().meter)),
                };
            }
        };
        match outcome {
            Ok(Ok(outcome)) => checked_outcome(outcome, limits).map(Ok),
            Ok(Err(rejection)) => checked_rejection(rejection.into(), limits).map(Err),
            Err(error) => Err(fault_of(&error, &store.data().meter)),
        }
    }
}

fn set_fuel<T>(store: &mut Store<T>, limits: &CallLimits) {
    let set = store.set_fuel(limits.fuel);
    // It fails only where the engine does not count fuel.
    assert!(set.is_ok(), "the engine counts fuel: {set:?}");
}

fn checked_outcome(
    outcome: guest::Outcome,
    limits: &CallLimits,
) -> Result<GuestOutcome, PluginFault> {
    let (what, bytes) = match &outcome {
        guest::Outcome::Reply(reply) => ("reply", reply.len()),
        guest::Outcome::Wait(wait) => ("memo", wait.memo.len()),
    };
    check_output(what, bytes, limits)?;
    Ok(match outcome {
        guest::Outcome::Reply(reply) => GuestOutcome::Reply(reply),
        guest::Outcome::Wait(wait) => GuestOutcome::Wait {
            deadline: wait.deadline.map(LogTime),
            memo: wait.memo,
        },
    })
}

fn checked_rejection(rejection: Rejection, limits: &CallLimits) -> Result<Rejection, PluginFault> {
    check_output("rejection", rejection_bytes(&rejection), limits)?;
    Ok(rejection)
}

fn check_output(what: &str, bytes: usize, limits: &CallLimits) -> Result<(), PluginFault> {
    if bytes <= limits.output_bytes {
        return Ok(());
    }
    let limit = limits.output_bytes;
    Err(fault(
        FaultKind::TooLarge,
        format!("the {what} has {bytes} bytes, allowed are {limit}"),
    ))
}

fn guest_context(context: CallContext) -> guest::Context {
    guest::Context {
        session: context.session.map(|session| session.0),
        zxid: context.zxid.0,
        now: context.now.0,
    }
}

fn guest_event(event: MountEvent) -> guest::Event {
    match event {
        MountEvent::SessionClosed { session, removed } => {
            guest::Event::SessionClosed(guest::SessionClosed {
                session: session.0,
                removed,
            })
        }
        MountEvent::WaitEnded {
            ticket,
            session,
            cause,
            memo,
        } => guest::Event::WaitEnded(guest::WaitEnded {
            ticket: ticket.0,
            session: session.0,
            cause: match cause {
                WaitEndCause::Deadline => guest::WaitEndCause::Deadline,
                WaitEndCause::SessionEnded => guest::WaitEndCause::SessionEnded,
                WaitEndCause::Cancelled => guest::WaitEndCause::Cancelled,
                WaitEndCause::MountRemoved => {
                    guest::WaitEndCause::Other("mount-removed".to_owned())
                }
            },
            memo,
        }),
        MountEvent::Timer { name, due, payload } => guest::Event::Timer(guest::Timer {
            name,
            due: due.0,
            payload,
        }),
        MountEvent::Resync => guest::Event::Resync,
    }
}
