//! What a component is made of, counted before it is compiled.
//!
//! An instance of a component takes core instances, memories and tables from a pool. Without a
//! bound on each, one component could be accepted and find the pool too small, or take it from all
//! others. The counts are those of the text: what is instantiated more than once is counted by
//! wasmtime, with the same limits, when the component is loaded (see `engine::pool`).

use wasmparser::{ComponentInstance, Instance, Payload};

use crate::examine::{ExamineError, not_wasm};

/// Core modules. A Rust component has 4 or so, one of Python 38.
pub(crate) const MODULES_MAX: u32 = 64;
/// Core instances of one instance.
pub(crate) const MODULE_INSTANCES_MAX: u32 = 64;
/// Linear memories of one instance: one, and one of a component composed with it.
pub(crate) const MEMORIES_MAX: u32 = 2;
/// Tables of one instance: a Rust component has 2 or so.
pub(crate) const TABLES_MAX: u32 = 16;
/// Components within it. Tools make one for each exported interface; each can be instantiated by
/// all others, so that a few make many.
const COMPONENTS_MAX: u32 = 8;
/// Instances of components within it.
const COMPONENT_INSTANCES_MAX: u32 = 8;
/// Components within components, the outermost one and core modules included.
const DEPTH_MAX: u32 = 4;
/// Functions: Python's interpreter and its libraries have about 20,000.
const FUNCTIONS_MAX: u32 = 100_000;
/// Types, of core modules and of components.
const TYPES_MAX: u32 = 100_000;

/// Counts what is seen so far.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    depth: u32,
    modules: u32,
    module_instances: u32,
    memories: u32,
    tables: u32,
    components: u32,
    component_instances: u32,
    functions: u32,
    types: u32,
}

impl Contents {
    /// Whether what comes is part of something within the component.
    pub(crate) fn is_nested(&self) -> bool {
        self.depth > 1
    }

    /// Counts a section of the component or of what is within it.
    ///
    /// # Errors
    ///
    /// [`ExamineError::TooMuch`] or [`ExamineError::NotWasm`].
    pub(crate) fn add(&mut self, payload: &Payload<'_>) -> Result<(), ExamineError> {
        match payload {
            Payload::Version { .. } => add(&mut self.depth, 1, "levels", DEPTH_MAX),
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::ModuleSection { .. } => add(&mut self.modules, 1, "core modules", MODULES_MAX),
            Payload::ComponentSection { .. } => add(
                &mut self.components,
                1,
                "components within it",
                COMPONENTS_MAX,
            ),
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if matches!(instance.map_err(not_wasm)?, Instance::Instantiate { .. }) {
                        let count = &mut self.module_instances;
                        add(count, 1, "core instances", MODULE_INSTANCES_MAX)?;
                    }
                }
                Ok(())
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    let instance = instance.map_err(not_wasm)?;
                    if matches!(instance, ComponentInstance::Instantiate { .. }) {
                        let count = &mut self.component_instances;
                        add(count, 1, "instances of components", COMPONENT_INSTANCES_MAX)?;
                    }
                }
                Ok(())
            }
            Payload::MemorySection(of) => {
                add(&mut self.memories, of.count(), "memories", MEMORIES_MAX)
            }
            Payload::TableSection(of) => add(&mut self.tables, of.count(), "tables", TABLES_MAX),
            Payload::FunctionSection(of) => {
                add(&mut self.functions, of.count(), "functions", FUNCTIONS_MAX)
            }
            Payload::ComponentCanonicalSection(of) => {
                add(&mut self.functions, of.count(), "functions", FUNCTIONS_MAX)
            }
            Payload::TypeSection(of) => add(&mut self.types, of.count(), "types", TYPES_MAX),
            Payload::CoreTypeSection(of) => add(&mut self.types, of.count(), "types", TYPES_MAX),
            Payload::ComponentTypeSection(of) => {
                add(&mut self.types, of.count(), "types", TYPES_MAX)
            }
            _ => Ok(()),
        }
    }
}

fn add(count: &mut u32, more: u32, what: &'static str, count_max: u32) -> Result<(), ExamineError> {
    *count = count.saturating_add(more);
    if *count <= count_max {
        return Ok(());
    }
    Err(ExamineError::TooMuch {
        what,
        count: *count,
        count_max,
    })
}
