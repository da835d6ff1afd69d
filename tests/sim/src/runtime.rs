//! A plugin runtime that runs recipes natively: the standard plugins, and a stateful one that shows
//! whether warm instances are dropped when they must be (rule R14). It drops instances at random,
//! and lets calls fault at random after they have written. What a warm instance does is compared
//! with what a fresh one would have done.
//!
//! The standard plugins can be run by another runtime, as Wasm; then what that does is compared with
//! what the native code does, call by call.

mod ledger;
mod view;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use folkmoot_core::plugin::{
    CallResult, Discard, FaultKind, GuestCall, GuestOutcome, InstanceKey, PluginFault,
    PluginRuntime, Rejection, TxnView,
};
use folkmoot_proto::batch::Completion;
use folkmoot_proto::client::Operation;
use folkmoot_proto::effect::{Effect, MountEvent};
use folkmoot_proto::{Digest, LogTime};
use folkmoot_sdk::instance::Instance;
use folkmoot_sdk::operation::Outcome;

use crate::MakeGuests;
use crate::dice::Dice;
use view::Host;

/// A recipe that the runtime knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Lock,
    Counter,
    Ledger,
}

impl Known {
    pub(crate) const ALL: [Self; 3] = [Self::Lock, Self::Counter, Self::Ledger];

    /// The bytes that stand for the component.
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lock => b"the lock recipe, natively",
            Self::Counter => b"the counter recipe, natively",
            Self::Ledger => b"the ledger recipe, natively",
        }
    }

    /// Where it is mounted.
    pub(crate) fn mount(self) -> &'static str {
        match self {
            Self::Lock => "/locks",
            Self::Counter => "/counter",
            Self::Ledger => "/ledger",
        }
    }

    pub(crate) fn digest(self) -> Digest {
        Digest::of(self.bytes())
    }

    fn is_standard(self) -> bool {
        self != Self::Ledger
    }

    fn of(digest: Digest) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.digest() == digest)
    }

    fn instance(self) -> Instance {
        match self {
            Self::Lock => Instance::of::<folkmoot_lock::Lock>(),
            Self::Counter => Instance::of::<folkmoot_counter::Counter>(),
            Self::Ledger => Instance::of::<ledger::Ledger>(),
        }
    }
}

/// What has a component installed: its one chunk, and the installation.
pub(crate) fn installation(bytes: &[u8], name: &str) -> [Operation; 2] {
    let digest = Digest::of(bytes);
    [
        Operation::UploadChunk {
            digest,
            size: bytes.len() as u32,
            offset: 0,
            data: bytes.to_vec(),
        },
        Operation::Install {
            digest,
            name: name.to_owned(),
        },
    ]
}

/// What an examination of a component's bytes finds.
pub(crate) fn examine(digest: Digest) -> Result<String, String> {
    match Known::of(digest) {
        Some(known) => Ok(known.instance().describe()),
        None => crate::policies::examine(digest)
            .ok_or_else(|| "not a component that this runtime knows".to_owned()),
    }
}

/// What fails whatever the dice say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Failing {
    #[default]
    No,
    /// Handlers of events.
    Events,
    /// All calls.
    Calls,
}

#[derive(Debug)]
pub(crate) struct NativeRuntime {
    dice: Dice,
    ready: BTreeSet<[u8; 32]>,
    warm: BTreeMap<InstanceKey, Instance>,
    last_call_micros: u64,
    /// Calls, in a thousand, that fault.
    faults_per_mille: u64,
    /// Calls, in a thousand, before which the warm instance is dropped.
    drops_per_mille: u64,
    pub(crate) failing: Failing,
    pub(crate) dropped: u64,
    pub(crate) faulted: u64,
    pub(crate) discarded: u64,
    pub(crate) resyncs: u64,
    /// A call in which a warm instance did not do what a fresh one does (rule R14).
    pub(crate) difference: Option<String>,
    guests: Option<Guests>,
}

/// What runs the standard plugins in place of their native code.
struct Guests(Box<dyn PluginRuntime>);

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guests")
    }
}

impl NativeRuntime {
    pub(crate) fn new(mut dice: Dice, guests: Option<MakeGuests>) -> Self {
        Self {
            faults_per_mille: dice.pick(&[0, 2, 10]).copied().unwrap_or(0),
            dice,
            ready: BTreeSet::new(),
            warm: BTreeMap::new(),
            last_call_micros: 0,
            drops_per_mille: 20,
            failing: Failing::No,
            dropped: 0,
            faulted: 0,
            discarded: 0,
            resyncs: 0,
            difference: None,
            guests: guests.map(|make| Guests(make())),
        }
    }

    /// One whose calls fault and whose instances go only as it is told.
    pub(crate) fn reliable() -> Self {
        Self {
            faults_per_mille: 0,
            drops_per_mille: 0,
            ..Self::new(Dice::new(0, "reliable"), None)
        }
    }

    /// A component is compiled.
    pub(crate) fn compiled(&mut self, digest: Digest) {
        self.ready.insert(digest.0);
    }

    /// No call faults from here on.
    pub(crate) fn heal(&mut self) {
        self.faults_per_mille = 0;
        self.failing = Failing::No;
    }

    /// Whether calls may fault at random.
    pub(crate) fn may_fail(&self) -> bool {
        self.faults_per_mille > 0
    }

    fn discard_guests(&mut self, which: Discard) {
        if let Some(Guests(guests)) = &mut self.guests {
            guests.discard(which);
        }
    }

    fn fails(&mut self, is_event: bool) -> bool {
        let fails = match self.failing {
            Failing::No => false,
            Failing::Events => is_event,
            Failing::Calls => true,
        };
        self.dice.chance(self.faults_per_mille) || fails
    }

    /// The instance of `key`, warm or made anew, and whether it is warm.
    fn instance<'a>(
        warm: &'a mut BTreeMap<InstanceKey, Instance>,
        key: InstanceKey,
        config: &[u8],
        known: Known,
    ) -> Result<(&'a Instance, bool), Rejection> {
        match warm.entry(key) {
            Entry::Occupied(place) => Ok((place.into_mut(), true)),
            Entry::Vacant(place) => Ok((place.insert(configured(known, config)?), false)),
        }
    }
}

impl PluginRuntime for NativeRuntime {
    fn is_ready(&self, digest: Digest) -> bool {
        self.ready.contains(&digest.0)
    }

    fn call(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        mut view: TxnView,
    ) -> (TxnView, CallResult) {
        let Some(known) = Known::of(key.digest) else {
            return (view, Err(fault(FaultKind::Contract, "no such component")));
        };
        assert!(
            self.is_ready(key.digest),
            "{known:?} is called and not compiled here (rule R31)"
        );
        if self.dice.chance(self.drops_per_mille) && self.warm.remove(&key).is_some() {
            self.dropped += 1;
            self.discard_guests(Discard::Mount(key.mount));
        }
        self.last_call_micros = self.dice.delay(10);
        let is_event = matches!(call, GuestCall::OnEvent { .. });
        let resync = GuestCall::OnEvent {
            event: MountEvent::Resync,
        };
        self.resyncs += u64::from(call == resync);
        let (instance, is_warm) = match Self::instance(&mut self.warm, key, config, known) {
            Ok(instance) => instance,
            Err(rejection) => return (view, Ok(Err(rejection))),
        };
        let fresh = is_warm.then(|| done_by_fresh(known, config, &call, &mut view));
        let mut result = match &mut self.guests {
            Some(Guests(guests)) if known.is_standard() => {
                let native = view.rehearse(|view| {
                    let result = run(instance, call.clone(), view);
                    Done::of(&result, view)
                });
                let result;
                (view, result) = guests.call(key, config, call, view);
                let guest = Done::of(&result, &view);
                if guest != native {
                    self.difference = Some(format!(
                        "{known:?} does {guest:?} as a guest, and natively {native:?}"
                    ));
                }
                result
            }
            _ => run(instance, call, &mut view),
        };
        let warm = Done::of(&result, &view);
        if let Some(fresh) = fresh.filter(|fresh| *fresh != warm) {
            self.difference = Some(format!(
                "a warm instance of {known:?} does {warm:?}, a fresh one {fresh:?}"
            ));
        }
        if self.fails(is_event) {
            self.faulted += 1;
            result = Err(fault(FaultKind::Trap, "simulated"));
        }
        let broken = match &result {
            Err(_) => true,
            Ok(Err(_)) => is_event || view.wrote(),
            Ok(Ok(_)) => false,
        };
        if broken && !keeps_broken(&result) {
            self.warm.remove(&key);
            self.discard_guests(Discard::Mount(key.mount));
        }
        (view, result)
    }

    fn last_call_micros(&self) -> u64 {
        self.last_call_micros
    }

    fn discard(&mut self, which: Discard) {
        self.discard_guests(which);
        match which {
            Discard::All => {
                self.discarded += 1;
                self.warm.clear();
            }
            Discard::Mount(mount) => self.warm.retain(|key, _| key.mount != mount),
        }
    }
}

/// What a call does: its result, and the transaction after it.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    result: CallResult,
    effects: Vec<Effect>,
    completions: Vec<Completion>,
}

impl Done {
    fn of(result: &CallResult, view: &TxnView) -> Self {
        let (effects, completions) = view.written();
        Self {
            result: result.clone(),
            effects: effects.to_vec(),
            completions: completions.to_vec(),
        }
    }
}

/// What an instance that remembers nothing would do in this call.
fn done_by_fresh(known: Known, config: &[u8], call: &GuestCall, view: &mut TxnView) -> Done {
    view.rehearse(|view| {
        let result = match configured(known, config) {
            Ok(instance) => run(&instance, call.clone(), view),
            Err(rejection) => Ok(Err(rejection)),
        };
        Done::of(&result, view)
    })
}

fn configured(known: Known, config: &[u8]) -> Result<Instance, Rejection> {
    let mut instance = known.instance();
    instance.configure(config).map_err(rejection)?;
    Ok(instance)
}

fn run(instance: &Instance, call: GuestCall, view: &mut TxnView) -> CallResult {
    let context = view::context(view.context());
    let mut host = Host { view };
    let result = match call {
        GuestCall::Configure => return Ok(Ok(GuestOutcome::Done)),
        GuestCall::Invoke { operation, payload } => instance
            .invoke(&mut host, context, &operation, &payload)
            .map(outcome),
        GuestCall::Migrate { from_state_version } => instance
            .migrate(&mut host, context, from_state_version)
            .map(|()| GuestOutcome::Done),
        GuestCall::OnEvent { event } => instance
            .on_event(&mut host, context, view::event(event))
            .map(|()| GuestOutcome::Done),
    };
    Ok(result.map_err(rejection))
}

/// The runtime's own part of rule R14, taken out.
fn keeps_broken(result: &CallResult) -> bool {
    use folkmoot_core::mutation::{Mutation, is_on};
    matches!(result, Ok(Err(_))) && is_on(Mutation::KeepInstanceAfterRejection)
}

fn outcome(outcome: Outcome) -> GuestOutcome {
    match outcome {
        Outcome::Reply(reply) => GuestOutcome::Reply(reply),
        Outcome::Wait { deadline, memo } => GuestOutcome::Wait {
            deadline: deadline.map(|due| LogTime(due.0)),
            memo,
        },
    }
}

fn rejection(rejection: folkmoot_sdk::rejection::Rejection) -> Rejection {
    Rejection {
        code: rejection.code,
        message: rejection.message,
        details: rejection.details,
    }
}

fn fault(kind: FaultKind, message: &str) -> PluginFault {
    PluginFault {
        kind,
        message: message.to_owned(),
    }
}
