//! What is told of a guest that traps or goes over a limit.

use core::fmt::Write as _;

use folkmoot_core::plugin::{FaultKind, PluginFault};
use wasmtime::{Trap, WasmBacktrace};

use crate::limits::FAULT_MESSAGE_BYTES_MAX;
use crate::meter::Meter;
use crate::state::Stop;

/// Frames of a backtrace that are told.
const FRAMES_MAX: usize = 8;

/// The fault that an error of a call is.
pub(crate) fn fault_of(error: &wasmtime::Error, meter: &Meter) -> PluginFault {
    let (kind, mut message) = cause_of(error, meter);
    if kind == FaultKind::Trap
        && let Some(line) = meter.last_line()
    {
        let _ = write!(message, ": {line}");
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        write_backtrace(&mut message, backtrace);
    }
    fault(kind, message)
}

/// A fault, its message cut to its limit.
pub(crate) fn fault(kind: FaultKind, message: impl Into<String>) -> PluginFault {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(FAULT_MESSAGE_BYTES_MAX));
    PluginFault { kind, message }
}

fn cause_of(error: &wasmtime::Error, meter: &Meter) -> (FaultKind, String) {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return (stop.kind(), stop.to_string());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => (FaultKind::OutOfFuel, "all fuel was used".to_owned()),
        Some(Trap::Interrupt) => (
            FaultKind::Timeout,
            "the call took longer than its time".to_owned(),
        ),
        // A guest that is denied memory panics or aborts, which looks like any other panic.
        Some(Trap::UnreachableCodeReached) if meter.memory.was_denied() => (
            FaultKind::Memory,
            "the guest gave up after it was denied memory".to_owned(),
        ),
        Some(Trap::UnreachableCodeReached) => (FaultKind::Trap, "the guest gave up".to_owned()),
        Some(trap) => (FaultKind::Trap, trap.to_string()),
        None => {
            let message = error.root_cause().to_string();
            (kind_without_trap(&message, meter), message)
        }
    }
}

/// Errors that wasmtime makes without a trap have no public types. A test holds their texts.
fn kind_without_trap(message: &str, meter: &Meter) -> FaultKind {
    if message.contains("fuel allocated for hostcalls has been exhausted") {
        FaultKind::TooLarge
    } else if meter.memory.was_denied() {
        FaultKind::Memory
    } else {
        FaultKind::Contract
    }
}

/// Names of functions, the innermost first, without those of the standard library's panic.
fn write_backtrace(message: &mut String, backtrace: &WasmBacktrace) {
    let names = backtrace.frames().iter().filter_map(|frame| {
        let name = name_of(frame)?;
        let machinery = [
            "std::", "core::", "__rust", "rust_", "<core::", "<std::", "<alloc::",
        ];
        (!machinery.iter().any(|prefix| name.starts_with(prefix))).then_some(name)
    });
    for (place, name) in names.take(FRAMES_MAX).enumerate() {
        message.push_str(if place == 0 { "; in " } else { " < " });
        message.push_str(&name);
    }
}

/// A frame's function, demangled.
fn name_of(frame: &wasmtime::FrameInfo) -> Option<String> {
    let symbol = frame.symbols().first().and_then(|symbol| symbol.name());
    let name = symbol.or_else(|| frame.func_name())?;
    // Without the hash that the compiler appends.
    Some(format!("{:#}", rustc_demangle::demangle(name)))
}
