//! What wasmtime's `bindgen!` makes of the WIT.
#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "recipe",
    imports: { default: trappable },
});

/// The world `rebalancer`, and what both policies' worlds have in common.
pub mod rebalancer {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "rebalancer",
        imports: { default: trappable },
        with: {
            "folkmoot:plugin/types@0.1.0": super::folkmoot::plugin::types,
            "folkmoot:plugin/log@0.1.0": super::folkmoot::plugin::log,
        },
    });
}

/// The world `failure-detector`.
pub mod failure_detector {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "failure-detector",
        imports: { default: trappable },
        with: {
            "folkmoot:plugin/types@0.1.0": super::folkmoot::plugin::types,
            "folkmoot:plugin/log@0.1.0": super::folkmoot::plugin::log,
            "folkmoot:plugin/tables@0.1.0": super::rebalancer::folkmoot::plugin::tables,
        },
    });
}
