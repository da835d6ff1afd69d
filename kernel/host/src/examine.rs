//! Whether bytes are a component that can be a plugin here, before it is installed (rule R31).
//!
//! What a component could do is decided by what it imports, so that is looked at first, without
//! compiling anything: a few dozen microseconds. Then it is compiled, which validates the rest, and
//! asked to describe itself.

use core::fmt;

use folkmoot_core::plugin::PluginFault;
use serde::Deserialize;
use wasmparser::{Encoding, Parser, Payload};

use crate::compile::CompileError;
use crate::contents::Contents;
use crate::limits::DESCRIPTION_BYTES_MAX;
use crate::world::{World, WrongWorld};

/// The package whose interfaces a plugin may import.
const PACKAGE: &str = "folkmoot:plugin";
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
    /// It imports something that is not of the plugins' package, or not for plugins of its world.
    #[error("it imports {import}, which {PACKAGE}@{VERSION} does not have for a {world}")]
    UnknownImport {
        /// The import.
        import: String,
        /// What it is.
        world: World,
    },
    /// It exports what no world of this package does.
    #[error(
        "it exports none of guest, planner and detector of {PACKAGE}@{VERSION}: it is of another \
         world"
    )]
    MissingExport,
    /// It exports what belongs to two worlds, and a component is of one.
    #[error("it is a {one} and a {other}: a component is one of them")]
    TwoWorlds {
        /// One.
        one: World,
        /// The other.
        other: World,
    },
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
    /// It needs a column that this kernel does not give.
    #[error("it needs the column {column}, which this kernel does not give to a {world}")]
    MissingColumn {
        /// The column, as `table.column`.
        column: String,
        /// What it is.
        world: World,
    },
}

impl ExamineError {
    /// Whether it says nothing of the component: another attempt on this machine may succeed.
    #[must_use]
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Compile(error) if error.is_of_the_machine())
    }
}

/// What a component says of itself, and of which world it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its world.
    pub world: World,
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of a recipe's layout of the tree; 0 of a policy, which has none.
    pub state_version: u64,
    /// A recipe's operations.
    pub operations: Vec<OperationManifest>,
    /// Columns that a policy can not do without, as `table.column`.
    pub needs: Vec<String>,
    /// What the cluster keeps: the description as the component gave it, with the field `world`
    /// that the host has found out.
    pub json: String,
}

/// What a component says of an operation. There may be more in the JSON, such as schemas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OperationManifest {
    /// Its name.
    pub name: String,
    /// What it does, for people.
    #[serde(default)]
    pub summary: String,
}

/// What every component says of itself.
#[derive(Deserialize)]
struct Description {
    name: String,
    version: String,
}

/// What a recipe says beside it.
#[derive(Deserialize)]
struct RecipeDescription {
    state_version: u64,
    operations: Vec<OperationManifest>,
}

/// What a policy says beside it.
#[derive(Deserialize)]
struct PolicyDescription {
    #[serde(default)]
    needs: Vec<String>,
}

impl Manifest {
    /// Reads the description of a component of that world, and checks that the kernel has what it
    /// needs.
    ///
    /// # Errors
    ///
    /// [`ExamineError::BadDescription`] and [`ExamineError::MissingColumn`].
    pub fn parse(world: World, json: &str) -> Result<Self, ExamineError> {
        if json.len() > DESCRIPTION_BYTES_MAX {
            return Err(bad_description(format_args!(
                "more than {DESCRIPTION_BYTES_MAX} bytes"
            )));
        }
        let mut fields: serde_json::Map<String, serde_json::Value> = read(json)?;
        // Whatever it says there itself.
        fields.insert("world".to_owned(), world.name().into());
        let json = serde_json::Value::Object(fields).to_string();
        let Description { name, version } = read(&json)?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(bad_description("the name has 1 to 64 bytes"));
        }
        let mut manifest = Self {
            world,
            name,
            version,
            state_version: 0,
            operations: Vec::new(),
            needs: Vec::new(),
            json,
        };
        if let Some(policy) = world.policy() {
            manifest.needs = read::<PolicyDescription>(&manifest.json)?.needs;
            let missing = manifest.needs.iter().find(|need| !policy.has_column(need));
            if let Some(column) = missing.cloned() {
                return Err(ExamineError::MissingColumn { column, world });
            }
        } else {
            let recipe: RecipeDescription = read(&manifest.json)?;
            manifest.state_version = recipe.state_version;
            manifest.operations = recipe.operations;
        }
        Ok(manifest)
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, ExamineError> {
    serde_json::from_str(json).map_err(bad_description)
}

fn bad_description(reason: impl fmt::Display) -> ExamineError {
    ExamineError::BadDescription {
        reason: reason.to_string(),
    }
}

/// Looks at a component without compiling it: its size, what it is made of, its imports and its
/// exports. Answers its world. Exports that are of no world are no harm, since the host calls none
/// of them.
///
/// # Errors
///
/// The first thing that is wrong, of [`ExamineError::TooBig`], `NotWasm`, `CoreModule`, `TooMuch`,
/// `MissingExport`, `TwoWorlds`, `WasiImport` and `UnknownImport`.
pub fn gate(bytes: &[u8], bytes_max: usize) -> Result<World, ExamineError> {
    if bytes.len() > bytes_max {
        return Err(ExamineError::TooBig {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    let mut contents = Contents::default();
    let outside = outside(bytes, |payload| {
        contents.add(payload)?;
        // What is nested imports from what is around it, and exports to it.
        Ok(!contents.is_nested())
    })?;
    for import in &outside.imports {
        if import.starts_with("wasi:") || import.starts_with("wasi_") {
            return Err(ExamineError::WasiImport {
                import: (*import).to_owned(),
            });
        }
    }
    let world = outside.world()?;
    let unknown = outside.imports.iter().find(|import| {
        let known = |interface: &&str| is_of(import, interface);
        !world.imports().iter().any(known)
    });
    match unknown {
        None => Ok(world),
        Some(import) => Err(ExamineError::UnknownImport {
            import: (*import).to_owned(),
            world,
        }),
    }
}

/// The world of a component, by its exports alone.
///
/// # Errors
///
/// [`ExamineError::NotWasm`], `CoreModule`, `MissingExport` or `TwoWorlds`.
pub(crate) fn world_of(bytes: &[u8]) -> Result<World, ExamineError> {
    let mut depth = 0_u32;
    let outside = outside(bytes, |payload| {
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        Ok(depth <= 1)
    })?;
    outside.world()
}

/// What a component has to do with what is around it.
#[derive(Default)]
struct Outside<'a> {
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
}

impl Outside<'_> {
    fn world(&self) -> Result<World, ExamineError> {
        let mut worlds = World::ALL.into_iter().filter(|world| {
            let exports = &mut self.exports.iter();
            exports.any(|export| is_of(export, world.export()))
        });
        match (worlds.next(), worlds.next()) {
            (None, _) => Err(ExamineError::MissingExport),
            (Some(world), None) => Ok(world),
            (Some(one), Some(other)) => Err(ExamineError::TwoWorlds { one, other }),
        }
    }
}

/// Reads imports and exports. `is_outermost` sees each part, and says whether it is of the
/// component itself and not of something within it.
fn outside<'a>(
    bytes: &'a [u8],
    mut is_outermost: impl FnMut(&Payload<'a>) -> Result<bool, ExamineError>,
) -> Result<Outside<'a>, ExamineError> {
    let mut outside = Outside::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(not_wasm)?;
        if !is_outermost(&payload)? {
            continue;
        }
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => return Err(ExamineError::CoreModule),
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    outside.imports.push(import.map_err(not_wasm)?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    outside.exports.push(export.map_err(not_wasm)?.name.name);
                }
            }
            _ => {}
        }
    }
    Ok(outside)
}

/// Whether a name is that of an interface of the package, in the version that this host knows.
fn is_of(name: &str, interface: &str) -> bool {
    let name = name.strip_prefix(PACKAGE);
    name.and_then(|name| name.strip_prefix('/'))
        .and_then(|name| name.strip_prefix(interface))
        .and_then(|version| version.strip_prefix('@'))
        == Some(VERSION)
}

pub(crate) fn not_wasm(error: wasmparser::BinaryReaderError) -> ExamineError {
    ExamineError::NotWasm {
        reason: error.to_string(),
    }
}
