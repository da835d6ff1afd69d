//! What can not be a plugin is refused with the reason, before anything of it runs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use std::time::Instant;

use folkmoot_host::compile::CompileError;
use folkmoot_host::examine::gate;
use folkmoot_host::{CallLimits, Compiler, Components, ExamineError, Manifest, World};
use folkmoot_proto::Digest;
use support::{component, sandbox};
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection, ComponentValType,
    InstanceSection, InstanceType, MemorySection, MemoryType, Module, ModuleArg, ModuleSection,
    NestedComponentSection, PrimitiveValType, RefType, TableSection, TableType,
};

/// Far more than the guests of the tests have.
const BYTES_MAX: usize = 1024 * 1024;

fn examine(bytes: &[u8]) -> Result<Manifest, ExamineError> {
    Components::in_memory(sandbox()).examine(Digest::of(bytes), bytes, BYTES_MAX, &|| false)
}

/// A component that imports an instance with the function `write`, which takes a value of a type.
fn importing(name: &str, takes: PrimitiveValType) -> Vec<u8> {
    importing_into(name, takes, "folkmoot:plugin/guest@0.1.0")
}

/// The same, that exports an empty instance of this name.
fn importing_into(name: &str, takes: PrimitiveValType, export: &str) -> Vec<u8> {
    let mut component = Component::new();
    let mut instance = InstanceType::new();
    instance
        .ty()
        .function()
        .params([("message", ComponentValType::Primitive(takes))])
        .result(None);
    instance.export("write", ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&instance);
    component.section(&types);
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    component.section(&imports);
    export_empty(&mut component, export, 1);
    component.finish()
}

/// A component that exports an instance with nothing in it.
fn exporting(name: &str) -> Vec<u8> {
    let mut component = Component::new();
    export_empty(&mut component, name, 0);
    component.finish()
}

fn export_empty(component: &mut Component, name: &str, instance: u32) {
    let mut instances = ComponentInstanceSection::new();
    instances.export_items::<&str, _>([]);
    component.section(&instances);
    let mut exports = ComponentExportSection::new();
    exports.export(name, ComponentExportKind::Instance, instance, None);
    component.section(&exports);
}

#[test]
fn the_standard_plugins_describe_themselves() {
    let lock = examine(&component("lock")).expect("a plugin");
    assert_eq!((lock.name.as_str(), lock.state_version), ("lock", 1));
    let names = |manifest: Manifest| {
        let operations = manifest.operations.into_iter();
        operations
            .map(|operation| operation.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(lock), ["acquire", "release"]);
    let counter = examine(&component("counter")).expect("a plugin");
    assert_eq!(names(counter), ["add", "read", "reset"]);
}

#[test]
fn wasi_is_refused_by_name() {
    for import in [
        "wasi:clocks/monotonic-clock@0.2.0",
        "wasi:cli/environment@0.2.6",
    ] {
        let error = examine(&importing(import, PrimitiveValType::U64)).expect_err("WASI");
        assert!(
            matches!(&error, ExamineError::WasiImport { import: named } if named == import),
            "{error}"
        );
        assert!(error.to_string().contains("wasm32-unknown-unknown"));
    }
}

#[test]
fn an_unknown_import_is_refused_by_name() {
    for import in [
        "acme:telemetry/spans@1.0.0",
        "folkmoot:plugin/shell@0.1.0",
        "folkmoot:plugin/tree@0.2.0",
        "folkmoot:plugin/tree",
        "folkmoot:plugin-x/tree@0.1.0",
    ] {
        let error = examine(&importing(import, PrimitiveValType::U64)).expect_err(import);
        assert!(
            matches!(&error, ExamineError::UnknownImport { import: named, .. } if named == import),
            "{error}"
        );
    }
}

#[test]
fn another_world_is_refused() {
    for export in [
        "wasi:http/incoming-handler@0.2.0",
        "folkmoot:plugin/guest@0.9.0",
    ] {
        let error = examine(&exporting(export)).expect_err(export);
        assert!(matches!(error, ExamineError::MissingExport), "{error}");
    }
}

#[test]
fn the_world_with_other_types_is_refused() {
    let error = examine(&exporting("folkmoot:plugin/guest@0.1.0")).expect_err("no functions");
    assert!(matches!(error, ExamineError::WrongWorld(_)), "{error}");
    let log = "folkmoot:plugin/log@0.1.0";
    let error = examine(&importing(log, PrimitiveValType::U64)).expect_err("no text");
    assert!(matches!(error, ExamineError::WrongWorld(_)), "{error}");
    assert!(error.to_string().contains("write"), "{error}");
}

#[test]
fn what_is_no_component_is_refused() {
    for bytes in [&b""[..], b"\x7fELF and so on", b"\0asm", b"{}"] {
        let error = examine(bytes).expect_err("not WebAssembly");
        assert!(matches!(error, ExamineError::NotWasm { .. }), "{error}");
    }
    let module = wasm_encoder::Module::new().finish();
    let error = examine(&module).expect_err("a module");
    assert!(matches!(error, ExamineError::CoreModule), "{error}");
}

#[test]
fn a_component_that_was_cut_is_refused_wherever_it_was() {
    let whole = component("counter");
    for length in (0..whole.len()).step_by(997) {
        let error = gate(&whole[..length], BYTES_MAX).expect_err("a part");
        assert!(
            matches!(error, ExamineError::NotWasm { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn damaged_bytes_never_panic_the_gate() {
    let whole = component("counter");
    for place in (0..whole.len()).step_by(101) {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = value;
            // Whether it passes depends on the place; code is validated when it is compiled.
            let _ = gate(&damaged, BYTES_MAX);
        }
    }
}

#[test]
fn a_component_with_damaged_code_is_refused() {
    let mut damaged = component("counter");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let error = examine(&damaged).expect_err("damaged");
    assert!(
        matches!(
            error,
            ExamineError::NotWasm { .. } | ExamineError::Compile(_)
        ),
        "{error}"
    );
}

#[test]
fn the_limit_of_bytes_holds_at_the_cap_and_one_above() {
    let bytes = component("counter");
    assert!(gate(&bytes, bytes.len()).is_ok());
    let error = gate(&bytes, bytes.len() - 1).expect_err("too big");
    assert!(matches!(error, ExamineError::TooBig { .. }), "{error}");
}

#[test]
fn the_first_look_compiles_nothing() {
    let bytes = component("lock");
    let (begun, looks) = (Instant::now(), 100);
    for _ in 0..looks {
        gate(&bytes, BYTES_MAX).expect("a plugin");
    }
    let look = begun.elapsed() / looks;
    // 20 to 65 µs were measured; compilation takes a hundred milliseconds.
    assert!(look.as_millis() < 10, "a look took {look:?}");
}

#[test]
fn descriptions_that_are_not_understood_are_refused() {
    for json in [
        "",
        "[]",
        "{\"name\": \"x\"}",
        "{\"name\": \"\", \"version\": \"1\", \"state_version\": 1, \"operations\": []}",
    ] {
        let error = Manifest::parse(World::Recipe, json).expect_err(json);
        assert!(
            matches!(error, ExamineError::BadDescription { .. }),
            "{error}"
        );
    }
    let long = format!("{}{}", " ".repeat(64 * 1024), "{}");
    let error = Manifest::parse(World::Recipe, &long).expect_err("too long");
    assert!(error.to_string().contains("65536"), "{error}");
}

#[test]
fn the_standard_policies_describe_themselves() {
    for (name, world) in [
        ("sticky-balanced", World::Rebalancer),
        ("rendezvous", World::Rebalancer),
        ("bounded-load", World::Rebalancer),
        ("load-aware", World::Rebalancer),
        ("fixed-timeout", World::FailureDetector),
        ("phi-accrual", World::FailureDetector),
    ] {
        let policy = examine(&component(name)).expect("a policy");
        assert_eq!((policy.name.as_str(), policy.world), (name, world));
    }
}

/// The core tells recipes and policies apart by what the host says, not by what the guest says.
#[test]
fn a_description_says_the_world_that_the_host_found() {
    let world_of = |manifest: &Manifest| {
        let description: serde_json::Value =
            serde_json::from_str(&manifest.json).expect("a description");
        description["world"].as_str().map(str::to_owned)
    };
    let lock = examine(&component("lock")).expect("a plugin");
    assert_eq!(world_of(&lock).as_deref(), Some("recipe"));
    let hostile = examine(&component("hostile-policy")).expect("a policy");
    assert_eq!(world_of(&hostile).as_deref(), Some("rebalancer"));
    assert_eq!(hostile.needs, ["members.live"]);
}

#[test]
fn a_policy_that_needs_what_the_kernel_has_not_is_refused() {
    for needs in ["members.mood", "mood.name", "assign.partition", "members"] {
        let json = format!(r#"{{"name": "x", "version": "1", "needs": ["{needs}"]}}"#);
        let error = Manifest::parse(World::Rebalancer, &json).expect_err(needs);
        assert!(
            matches!(&error, ExamineError::MissingColumn { column, .. } if column == needs),
            "{error}"
        );
    }
    let json = r#"{"name": "x", "version": "1", "needs": ["members.live", "replicas.role"]}"#;
    assert!(Manifest::parse(World::Rebalancer, json).is_ok());
}

#[test]
fn a_policy_imports_nothing_but_the_log() {
    for (export, import) in [
        ("planner", "folkmoot:plugin/tree@0.1.0"),
        ("detector", "folkmoot:plugin/random@0.1.0"),
        ("guest", "folkmoot:plugin/tables@0.1.0"),
    ] {
        let export = format!("folkmoot:plugin/{export}@0.1.0");
        let error = examine(&importing_into(import, PrimitiveValType::U64, &export));
        let error = error.expect_err(import);
        assert!(
            matches!(&error, ExamineError::UnknownImport { import: named, .. } if named == import),
            "{error}"
        );
    }
}

#[test]
fn a_policy_of_other_types_is_refused() {
    for export in ["planner", "detector"] {
        let error = examine(&exporting(&format!("folkmoot:plugin/{export}@0.1.0")));
        let error = error.expect_err("no functions");
        assert!(matches!(error, ExamineError::WrongWorld(_)), "{error}");
    }
}

#[test]
fn a_component_is_of_one_world() {
    let mut both = Component::new();
    export_empty(&mut both, "folkmoot:plugin/guest@0.1.0", 0);
    export_empty(&mut both, "folkmoot:plugin/planner@0.1.0", 1);
    let error = examine(&both.finish()).expect_err("two worlds");
    assert!(matches!(error, ExamineError::TwoWorlds { .. }), "{error}");
}

/// A component of these modules and components, each instantiated so often.
fn made_of(modules: &[(Module, usize)], components: &[(Component, usize)]) -> Vec<u8> {
    let mut component = Component::new();
    for (index, (module, instances)) in (0..).zip(modules) {
        component.section(&ModuleSection(module));
        let mut section = InstanceSection::new();
        for _ in 0..*instances {
            section.instantiate::<[(&str, ModuleArg); 0], &str>(index, []);
        }
        component.section(&section);
    }
    let mut component_instances = 0;
    for (index, (nested, instances)) in (0..).zip(components) {
        component.section(&NestedComponentSection(nested));
        let mut section = ComponentInstanceSection::new();
        for _ in 0..*instances {
            section.instantiate::<[(&str, ComponentExportKind, u32); 0], &str>(index, []);
            component_instances += 1;
        }
        component.section(&section);
    }
    export_empty(
        &mut component,
        "folkmoot:plugin/guest@0.1.0",
        component_instances,
    );
    component.finish()
}

fn modules(count: usize, module: &Module, instances: usize) -> Vec<u8> {
    made_of(&vec![(module.clone(), instances); count], &[])
}

fn with_memories(count: usize) -> Module {
    let mut section = MemorySection::new();
    for _ in 0..count {
        section.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    let mut module = Module::new();
    module.section(&section);
    module
}

fn with_tables(count: usize) -> Module {
    let mut section = TableSection::new();
    for _ in 0..count {
        section.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 1,
            maximum: None,
            shared: false,
        });
    }
    let mut module = Module::new();
    module.section(&section);
    module
}

fn nested(depth: usize) -> Component {
    let mut component = Component::new();
    if depth > 1 {
        component.section(&NestedComponentSection(&nested(depth - 1)));
    }
    component
}

#[test]
fn what_a_component_is_made_of_is_bounded_at_the_cap_and_one_above() {
    type Made = fn(usize) -> Vec<u8>;
    let bounds: [(&str, usize, Made); 7] = [
        ("core modules", 64, |n| modules(n, &Module::new(), 0)),
        ("core instances", 64, |n| modules(1, &Module::new(), n)),
        ("memories", 2, |n| modules(n, &with_memories(1), 1)),
        ("tables", 16, |n| modules(1, &with_tables(n), 1)),
        ("components within it", 8, |n| {
            made_of(&[], &vec![(Component::new(), 0); n])
        }),
        ("instances of components", 8, |n| {
            made_of(&[], &[(Component::new(), n)])
        }),
        // The outermost one is a level, too.
        ("levels", 4, |n| made_of(&[], &[(nested(n - 1), 0)])),
    ];
    for (bounded, cap, made) in bounds {
        gate(&made(cap), BYTES_MAX).unwrap_or_else(|error| panic!("{bounded} at the cap: {error}"));
        let error = gate(&made(cap + 1), BYTES_MAX).expect_err(bounded);
        let above = u32::try_from(cap + 1).expect("small");
        assert!(
            matches!(error, ExamineError::TooMuch { what, count, .. } if what == bounded && count == above),
            "{bounded}: {error}"
        );
    }
}

/// The text has one memory, an instance of it has three.
#[test]
fn what_is_instantiated_often_counts_as_often() {
    let bytes = modules(1, &with_memories(1), 3);
    gate(&bytes, BYTES_MAX).expect("one memory");
    let folder = tempfile::tempdir().expect("a folder");
    let on_disk = Components::in_folder(sandbox(), Compiler::Here, folder.path());
    for components in [
        Components::in_memory(sandbox()),
        on_disk.expect("a folder that can be used"),
    ] {
        let error = components
            .examine(Digest::of(&bytes), &bytes, BYTES_MAX, &|| false)
            .expect_err("three memories");
        assert!(
            matches!(
                &error,
                ExamineError::Compile(CompileError::Refused { reason }) if reason.contains("memories")
            ),
            "{error}"
        );
        assert!(!error.is_of_the_machine());
    }
}

/// What is accepted with more than a call has could never be called.
#[test]
fn an_examination_gives_no_more_memory_than_a_call() {
    let (examination, call) = (CallLimits::for_examination(), CallLimits::default());
    assert_eq!(examination.memory_bytes, call.memory_bytes);
}
