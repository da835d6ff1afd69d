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
