//! Guests on the execution thread, policies on theirs, and the service that examines and compiles
//! components.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use folkmoot_core::plugin::TxnView;
use folkmoot_host::{
    CallLimits, Compiler, Completion, Components, PluginService, Retries, Sandbox, WasmRuntime,
};

use crate::StartError;
use crate::execution::{ExecutionInput, ExecutionQueue};
use crate::fatal::Fatal;
use crate::policies::PolicyThreads;

/// What the execution thread has of the plugin host.
#[derive(Debug)]
pub(crate) struct Plugins {
    pub(crate) runtime: WasmRuntime<TxnView>,
    pub(crate) service: PluginService,
    pub(crate) policies: PolicyThreads,
}

impl Plugins {
    /// Starts the host, and answers the handles of its policies' threads. Compiled components are kept
    /// in `folder`.
    pub(crate) fn start(
        folder: &Path,
        compiler: Compiler,
        component_bytes_max: usize,
        queue: ExecutionQueue,
        fatal: &Fatal,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StartError> {
        let failed = |reason: String| StartError::PluginHost { reason };
        let sandbox = Sandbox::new().map_err(|error| failed(error.to_string()))?;
        let components = Components::in_folder(sandbox, compiler, folder)
            .map_err(|error| failed(error.to_string()))?;
        let components = Arc::new(components);
        let (policies, threads) = PolicyThreads::start(&components, &queue, fatal)?;
        let runtime = WasmRuntime::new(components.clone(), CallLimits::default());
        // Dropped with the closure, when the service's thread ends.
        let guard = fatal.guard("plugin-compiler");
        let on_done = move |completion| {
            let _guard = &guard;
            queue.send(input(completion).into_iter().collect());
        };
        let service =
            PluginService::start(components, component_bytes_max, Retries::default(), on_done)
                .map_err(|error| failed(error.to_string()))?;
        let plugins = Self {
            runtime,
            service,
            policies,
        };
        Ok((plugins, threads))
    }
}

/// What execution hears of a completion.
fn input(completion: Completion) -> Option<ExecutionInput> {
    match completion {
        Completion::Examined { digest, result } => {
            let result = result
                .map(|manifest| manifest.json)
                .map_err(|error| error.to_string());
            Some(ExecutionInput::Examined(digest, result))
        }
        Completion::Compiled {
            digest,
            result: Ok(()),
        } => Some(ExecutionInput::ComponentReady(digest)),
        Completion::Compiled {
            digest,
            result: Err(error),
        } => {
            tracing::error!(%digest, %error, "a component can not be called on this member");
            None
        }
    }
}
