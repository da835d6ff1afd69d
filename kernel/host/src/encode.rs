//! Makes a component of a core module.

/// Why a core module makes no component.
#[derive(Debug, thiserror::Error)]
#[error("the module can not be made a component: {reason}")]
pub struct EncodeError {
    /// Why, with all causes.
    pub reason: String,
}

/// Encodes a core module that was built for `wasm32-unknown-unknown` with `folkmoot-sdk` (or
/// another wit-bindgen guest of the package `folkmoot:plugin`) as a component. The module carries
/// its world in a section; no adapter is needed, since there is no WASI.
///
/// # Errors
///
/// [`EncodeError`], as for a module without a world, or one that imports something else.
pub fn component(core_module: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let encoder = wit_component::ComponentEncoder::default().validate(true);
    encoder
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| EncodeError {
            reason: format!("{error:#}"),
        })
}
