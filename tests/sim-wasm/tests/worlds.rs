//! Worlds in which the plugins are Wasm.

#![allow(
    clippy::expect_used,
    reason = "a test that meets what it does not expect fails"
)]

use folkmoot_sim::{Event, Layers, Options, Seen, run_seed};
use folkmoot_sim_wasm::make_guests;

const NATIVE: Options = Options {
    seconds: 60,
    layers: Layers::Whole,
    verbose: false,
    guests: None,
};

/// The world compares each call with what the native code does. That both worlds are the same to
/// the last event says besides that the host keeps instances, and drops them, as the rules want.
#[test]
fn plugins_as_wasm_make_the_same_worlds() {
    let mut seen = Seen::default();
    for seed in 0..12 {
        let native = run_seed(seed, &NATIVE);
        let guests = Some(make_guests as folkmoot_sim::MakeGuests);
        let wasm = run_seed(seed, &Options { guests, ..NATIVE });
        assert_eq!(wasm.violation, None, "seed {seed}");
        assert_eq!(wasm.trace_hash, native.trace_hash, "seed {seed}");
        seen.add(&wasm.seen);
    }
    for event in [
        Event::InstanceDropped,
        Event::PluginFault,
        Event::OverlayDropped,
        Event::SessionExpired,
    ] {
        assert!(seen.of(event) > 0, "no {}:\n{seen}", event.name());
    }
}
