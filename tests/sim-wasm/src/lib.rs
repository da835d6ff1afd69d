//! The plugin host in simulated worlds: the standard plugins run as Wasm, by the runtime that
//! servers have. A crate of its own, so that the simulator's everyday form links no wasmtime.

#[path = "../../../xtask/src/guests.rs"]
mod guests;

use std::sync::{Arc, OnceLock};

use folkmoot_core::plugin::{CallResult, Discard, GuestCall, InstanceKey, PluginRuntime, TxnView};
use folkmoot_host::{Components, Sandbox, WasmRuntime};
use folkmoot_proto::Digest;
use folkmoot_sim::standard_plugins;

/// A runtime of the standard plugins, for [`folkmoot_sim::Options::guests`]. Their components are
/// built and compiled once in a process.
///
/// # Panics
///
/// If they can not be built or compiled.
#[must_use]
pub fn make_guests() -> Box<dyn PluginRuntime> {
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    let compiled = COMPILED.get_or_init(Compiled::read);
    Box::new(Wasm {
        runtime: WasmRuntime::without_clock(Arc::clone(&compiled.components)),
        digests: compiled.digests,
    })
}

struct Compiled {
    components: Arc<Components>,
    /// What stands for a component in a world, and its digest.
    digests: [(Digest, Digest); 2],
}

impl Compiled {
    fn read() -> Self {
        let sandbox = Sandbox::new().unwrap_or_else(|error| panic!("no sandbox: {error}"));
        let components = Components::in_memory(sandbox);
        let folder = guests::build_guests().unwrap_or_else(|error| panic!("{error}"));
        let digests = standard_plugins().map(|(name, stands_for)| {
            let path = folder.join(format!("{name}.wasm"));
            let bytes =
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let digest = Digest::of(&bytes);
            let prepared = components.prepare(digest, &bytes, &|| false);
            assert!(prepared.is_ok(), "{name} does not compile: {prepared:?}");
            (stands_for, digest)
        });
        Self {
            components: Arc::new(components),
            digests,
        }
    }
}

struct Wasm {
    runtime: WasmRuntime,
    digests: [(Digest, Digest); 2],
}

impl Wasm {
    fn digest(&self, stands_for: Digest) -> Digest {
        let known = self.digests.iter().find(|(known, _)| *known == stands_for);
        known.map_or(stands_for, |(_, digest)| *digest)
    }
}

impl PluginRuntime for Wasm {
    fn is_ready(&self, digest: Digest) -> bool {
        self.runtime.is_ready(self.digest(digest))
    }

    fn call(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        view: TxnView,
    ) -> (TxnView, CallResult) {
        let digest = self.digest(key.digest);
        let key = InstanceKey { digest, ..key };
        self.runtime.call(key, config, call, view)
    }

    fn discard(&mut self, which: Discard) {
        self.runtime.discard(which);
    }
}
