//! The plugin host: runs components of the WIT package `folkmoot:plugin` and keeps them in bounds.
//! The only crate that knows wasmtime.
//!
//! - [`world`]: the three kinds of plugin.
//! - [`runtime`]: makes calls of recipes, keeps warm instances (rule R14).
//! - [`policies`]: asks policies.
//! - [`limits`]: what one call may use.
//! - [`imports`]: what a guest can call, one file for each WIT interface.
//! - [`fault`]: what is told of a guest that traps or goes over a limit.
//! - [`examine`]: whether bytes are a component that can be a plugin here, before it is installed.
//! - [`components`]: the compiled components, in memory and on disk.
//! - [`compile`]: compiles in a child process.
//! - [`service`]: examines and compiles off the hot path, on a thread of its own.
//! - [`encode`]: makes a component of a core module.
//!
//! A guest must be called on a thread with a stack of at least [`STACK_BYTES_MIN`]: Wasm uses up to
//! 256 KiB of it, and the host's own frames come on top. A smaller one aborts the process.

pub mod compile;
pub mod components;
pub mod encode;
pub mod engine;
pub mod examine;
pub mod fault;
pub mod imports;
pub mod limits;
pub mod policies;
pub mod runtime;
pub mod service;
pub mod view;
pub mod world;

mod contents;
mod generated;
mod meter;
mod state;

pub use compile::Compiler;
pub use components::Components;
pub use engine::Sandbox;
pub use examine::{ExamineError, Manifest};
pub use limits::{CallLimits, PolicyLimits};
pub use policies::Policies;
pub use runtime::WasmRuntime;
pub use service::{Completion, PluginService, Retries};
pub use world::World;

/// The stack that a thread needs to call guests.
pub const STACK_BYTES_MIN: usize = 1024 * 1024;
