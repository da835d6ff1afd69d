//! Whether bytes are a component that can be a plugin here, before it is installed (rule R31).
//!
//! What a component could do is decided by what it imports, so that is looked at first, without
//! compiling anything: a few dozen microseconds. Then it is compiled, which validates the rest, and
//! asked to describe itself.

use core::fmt;

use folkmoot_core::plugin::PluginFault;
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};

use crate::compile::CompileError;
use crate::contents::Contents;
use crate::limits::DESCRIPTION_BYTES_MAX;
use crate::runtime::WrongWorld;

/// The package whose interfaces a plugin may import.
const PACKAGE: &str = "folkmoot:plugin";
/// Its interfaces.
const IMPORTS: [&str; 7] = [
    "types", "tree", "sessions", "waits", "timers", "random", "log",
];
/// The interface that a recipe exports.
const EXPORT: &str = "folkmoot:plugin/guest";
/// The version of the package that this host knows.
const VERSION: &str = "0.1.0";
/// Bytes of a plugin's name.
const NAME_BYTES_MAX: usize = 64;

/// Why bytes can not be a plugin here.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// More bytes than a component may have.
    #[error("it has {bytes} bytes, allowed are {bytes_max}")]
    TooBig {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The digest is of other bytes.
    #[error("its bytes do not have the digest that it was uploaded under: upload it again")]
    OtherBytes,
    /// Not WebAssembly at all, or damaged.
    #[error("it is not WebAssembly: {reason}")]
    NotWasm {
        /// What is wrong, and where.
        reason: String,
    },
    /// A core module instead of a component.
    #[error(
        "it is a core module, not a component: encode it first, as `cargo xtask guests` or \
         `wasm-tools component new` does"
    )]
    CoreModule,
    /// It is made of more than an instance of it may need.
    #[error("it has {count} {what}, allowed are {count_max}")]
    TooMuch {
        /// What there is too much of, what is nested included.
        what: &'static str,
        /// How many were counted until then.
        count: u32,
        /// The limit.
        count_max: u32,
    },
    /// It imports WASI, which no plugin gets.
    #[error(
        "it imports {import}, and plugins get no WASI: build it for wasm32-unknown-unknown, or \
         without the parts that need it"
    )]
    WasiImport {
        /// The import.
        import: String,
    },
    /// It imports something that is not of the plugins' package.
    #[error("it imports {import}, which is not part of {PACKAGE}@{VERSION}")]
    UnknownImport {
        /// The import.
        import: String,
    },
    /// It does not export what a recipe must.
    #[error("it does not export {EXPORT}@{VERSION}: it is of another world")]
    MissingExport,
    /// Its imports or exports have other types than the world says.
    #[error(transparent)]
    WrongWorld(#[from] WrongWorld),
    /// It can not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It does not describe itself within the limits of a call.
    #[error("it does not describe itself: {0}")]
    Describe(PluginFault),
    /// What it says of itself is not understood.
    #[error("what it says of itself is not understood: {reason}")]
    BadDescription {
        /// What is wrong with it.
        reason: String,
    },
}

impl ExamineError {
    /// Whether it says nothing of the component: another attempt on this machine may succeed.
    #[must_use]
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Compile(error) if error.is_of_the_machine())
    }
}

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of its layout of the tree.
    pub state_version: u64,
    /// Its operations.
    pub operations: Vec<OperationManifest>,
    /// The description as the component gave it: what the cluster keeps.
    #[serde(skip)]
    pub json: String,
}

/// What a component says of an operation. There may be more in the JSON, such as schemas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationManifest {
    /// Its name.
    pub name: String,
    /// What it does, for people.
    #[serde(default)]
    pub summary: String,
}

impl Manifest {
    /// Reads a description.
    ///
    /// # Errors
    ///
    /// [`ExamineError::BadDescription`].
    pub fn parse(json: String) -> Result<Self, ExamineError> {
        let bad = |reason: &dyn fmt::Display| ExamineError::BadDescription {
            reason: reason.to_string(),
        };
        if json.len() > DESCRIPTION_BYTES_MAX {
            let limit = format_args!("more than {DESCRIPTION_BYTES_MAX} bytes").to_string();
            return Err(bad(&limit));
        }
        let mut manifest: Self = serde_json::from_str(&json).map_err(|error| bad(&error))?;
        if manifest.name.is_empty() || manifest.name.len() > NAME_BYTES_MAX {
            return Err(bad(&"the name has 1 to 64 bytes"));
        }
        manifest.json = json;
        Ok(manifest)
    }
}

/// Looks at a component without compiling it: its size, what it is made of, its imports and its
/// exports. Exports beside that of the world are no harm, since the host calls none of them.
///
/// # Errors
///
/// The first thing that is wrong, of [`ExamineError::TooBig`], `NotWasm`, `CoreModule`, `TooMuch`,
/// `WasiImport`, `UnknownImport` and `MissingExport`.
pub fn gate(bytes: &[u8], bytes_max: usize) -> Result<(), ExamineError> {
    if bytes.len() > bytes_max {
        return Err(ExamineError::TooBig {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    let mut exports_guest = false;
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(not_wasm)?;
        contents.add(&payload)?;
        // What is nested imports from what is around it, and exports to it.
        if contents.is_nested() {
            continue;
        }
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => return Err(ExamineError::CoreModule),
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    check_import(import.map_err(not_wasm)?.name.name)?;
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    exports_guest |= is_of(export.map_err(not_wasm)?.name.name, EXPORT);
                }
            }
            _ => {}
        }
    }
    if exports_guest {
        Ok(())
    } else {
        Err(ExamineError::MissingExport)
    }
}

fn check_import(import: &str) -> Result<(), ExamineError> {
    let known = IMPORTS
        .iter()
        .any(|interface| is_of(import, &format!("{PACKAGE}/{interface}")));
    if known {
        Ok(())
    } else if import.starts_with("wasi:") || import.starts_with("wasi_") {
        Err(ExamineError::WasiImport {
            import: import.to_owned(),
        })
    } else {
        Err(ExamineError::UnknownImport {
            import: import.to_owned(),
        })
    }
}

/// Whether a name is that of an interface in the version that this host knows.
fn is_of(name: &str, interface: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|version| version.strip_prefix('@'))
        == Some(VERSION)
}

pub(crate) fn not_wasm(error: wasmparser::BinaryReaderError) -> ExamineError {
    ExamineError::NotWasm {
        reason: error.to_string(),
    }
}
