//! Wasmtime's engines, configured, and the ticks by which calls are timed.
//!
//! There are two: recipes count fuel, so that a call's cost is the same on every machine, and
//! policies do not, since counting would make them three times as slow. What one compiles, the
//! other can not run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::contents;
use crate::limits::POLICY_MEMORY_BYTES_MAX;
use crate::policies::WARM_POLICIES_MAX;
use crate::world::World;

/// Wasm's part of a thread's stack.
const WASM_STACK_BYTES: usize = 256 * 1024;
/// The most that a linear memory of a recipe can be given; mounts are granted less.
const RECIPE_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Addresses that a memory of a policy reserves: so many that a 32-bit one can not leave them, and
/// its accesses need no check.
const POLICY_RESERVATION_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Unmapped addresses behind each memory.
const GUARD_BYTES: u64 = 32 * 1024 * 1024;
/// Instances of recipes at once: twice the warm ones of a runtime. Their memories reserve 48 GiB of
/// addresses.
const RECIPE_INSTANCES_MAX: u32 = 256;
/// Instances of policies at once: twice the warm ones of both worlds' threads. Their memories
/// reserve 64 GiB of addresses.
const POLICY_INSTANCES_MAX: u32 = 2 * 2 * WARM_POLICIES_MAX;
/// Entries of a table: Python's interpreter has about 10,000 functions in one.
const TABLE_ELEMENTS_MAX: usize = 40_000;
/// A tick. Shorter ones gain nothing: the scheduler is as late as this.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the ticking thread sleeps until the next one.
const IDLE_TICKS: u32 = 100;

/// The engines with their ticks. Clones share them.
#[derive(Clone)]
pub struct Sandbox {
    recipes: Engine,
    policies: Engine,
    ticker: Arc<Ticker>,
}

/// Why there is no sandbox on this machine.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An engine can not be made, as where 112 GiB of addresses can not be reserved.
    #[error("the WebAssembly engine can not be made: {0}")]
    Engine(#[source] wasmtime::Error),
    /// The thread that ticks can not be started.
    #[error("the thread that times plugins can not be started")]
    Thread(#[source] std::io::Error),
}

impl Sandbox {
    /// Makes the engines and starts their ticks. One is enough for a process.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn new() -> Result<Self, SandboxError> {
        let engine = |world, pool| {
            let mut config = config_of(world);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
            Engine::new(&config).map_err(SandboxError::Engine)
        };
        let recipes = pool(RECIPE_INSTANCES_MAX, RECIPE_MEMORY_BYTES_MAX);
        let recipes = engine(World::Recipe, recipes)?;
        let policies = pool(POLICY_INSTANCES_MAX, POLICY_MEMORY_BYTES_MAX);
        let policies = engine(World::Rebalancer, policies)?;
        let ticker = Ticker::start([recipes.clone(), policies.clone()]);
        Ok(Self {
            recipes,
            policies,
            ticker: Arc::new(ticker.map_err(SandboxError::Thread)?),
        })
    }

    /// The engine that components of a world are compiled for.
    #[must_use]
    pub fn engine(&self, world: World) -> &Engine {
        match world {
            World::Recipe => &self.recipes,
            World::Rebalancer | World::FailureDetector => &self.policies,
        }
    }

    /// Has the epoch tick for as long as the guard lives.
    #[must_use]
    pub(crate) fn tick_during_call(&self) -> TickGuard<'_> {
        self.ticker.begin_call();
        TickGuard(&self.ticker)
    }
}

impl core::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

/// An engine that makes the same code as a [`Sandbox`]'s for that world and runs none: it reserves
/// no addresses.
///
/// # Errors
///
/// Wasmtime's, for a machine that it has no code for.
pub(crate) fn compiling_engine(world: World) -> Result<Engine, wasmtime::Error> {
    let mut config = config_of(world);
    // One core: compilation is in nobody's way.
    config.parallel_compilation(false);
    Engine::new(&config)
}

/// What decides what code is made for a world.
fn config_of(world: World) -> Config {
    let (fuel, reservation) = match world {
        World::Recipe => (true, RECIPE_MEMORY_BYTES_MAX as u64),
        World::Rebalancer | World::FailureDetector => (false, POLICY_RESERVATION_BYTES),
    };
    let mut config = Config::new();
    config
        .consume_fuel(fuel)
        .epoch_interruption(true)
        // NaNs have one form on every machine, so that a recording replays on any.
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .memory_reservation(reservation)
        .memory_guard_size(GUARD_BYTES)
        .memory_may_move(false)
        .memory_init_cow(true)
        .native_unwind_info(false)
        // Names of functions in backtraces; lines where a component has kept them.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        // A crate that turns wasmtime's concurrency on would make host calls 2 to 3 times dearer.
        .concurrency_support(false);
    config
}

/// A pool in which each instance finds what one instance may have: a component that is larger is
/// refused when it is loaded, however it is made, and none finds the pool empty.
fn pool(instances_max: u32, memory_bytes_max: usize) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.max_core_instances_per_component(contents::MODULE_INSTANCES_MAX)
        .max_memories_per_component(contents::MEMORIES_MAX)
        .max_tables_per_component(contents::TABLES_MAX)
        .max_tables_per_module(contents::TABLES_MAX)
        .total_component_instances(instances_max)
        .total_core_instances(instances_max * contents::MODULE_INSTANCES_MAX)
        .total_memories(instances_max * contents::MEMORIES_MAX)
        .total_tables(instances_max * contents::TABLES_MAX)
        .max_memory_size(memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        // What an instance of a Rust component touches stays mapped for the next one.
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}

/// Moves the engines' epoch on once a tick while calls are made, on a thread of its own.
struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Calls that run.
    running: AtomicUsize,
    /// Calls ever begun.
    begun: AtomicU64,
    sleeping: AtomicBool,
    stop: AtomicBool,
}

pub(crate) struct TickGuard<'a>(&'a Ticker);

impl Drop for TickGuard<'_> {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    fn start(engines: [Engine; 2]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("plugin-ticks".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.tick(&engines)
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    fn begin_call(&self) {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
        // Sequentially consistent with `tick`: either this sees that it sleeps, or it sees the call.
        if self.shared.sleeping.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It can not have panicked: it only counts and sleeps.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tick(&self, engines: &[Engine]) {
        let (mut idle_ticks, mut begun_before) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            let begun = self.begun.load(Ordering::Relaxed);
            let idle = begun == begun_before && self.running.load(Ordering::SeqCst) == 0;
            idle_ticks = if idle { idle_ticks + 1 } else { 0 };
            begun_before = begun;
            if idle_ticks >= IDLE_TICKS {
                self.sleep_until_a_call();
                idle_ticks = 0;
            }
            thread::sleep(TICK);
            engines.iter().for_each(Engine::increment_epoch);
        }
    }

    fn sleep_until_a_call(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }
}
