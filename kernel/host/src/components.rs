//! The compiled components: in memory for the runtime, and on disk, so that a restart need not
//! compile them again.
//!
//! On disk a component is two files, `DIGEST-ENGINE.cwasm` and `DIGEST-ENGINE.sum`: machine code as
//! wasmtime writes it, and the SHA-256 of that file in hexadecimal digits. `DIGEST` is the
//! component's digest, `ENGINE` names what decides the code: wasmtime's version, the processor, the
//! configuration of the engine of its world. A pair that does not match is compiled again. The
//! folder belongs to this user alone.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use folkmoot_core::plugin::TxnView;
use folkmoot_proto::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile::{self, CompileError, Compiler};
use crate::engine::{Sandbox, compiling_engine};
use crate::examine::{ExamineError, Manifest, gate};
use crate::limits::CallLimits;
use crate::policies;
use crate::runtime::Guests;
use crate::world::World;

/// Compiled components, shared by the runtimes, which call them, and the service, which makes them.
#[derive(Debug)]
pub struct Components {
    sandbox: Sandbox,
    compiler: Compiler,
    folder: Option<Folder>,
    compiled: Mutex<BTreeMap<Digest, Compiled>>,
}

/// A compiled component: code for the engine of its world.
#[derive(Clone, Debug)]
struct Compiled {
    world: World,
    component: Component,
}

/// Why the folder can not be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder {folder} of compiled components can not be used: {source}", folder = folder.display())]
pub struct FolderError {
    folder: PathBuf,
    source: io::Error,
}

impl Components {
    /// Compiles with `compiler`, and keeps the code in `folder`, which is made if it is missing and
    /// taken away from other users.
    ///
    /// # Errors
    ///
    /// [`FolderError`].
    pub fn in_folder(
        sandbox: Sandbox,
        compiler: Compiler,
        folder: &Path,
    ) -> Result<Self, FolderError> {
        let folder = Folder::open(&sandbox, folder).map_err(|source| FolderError {
            folder: folder.to_path_buf(),
            source,
        })?;
        Ok(Self {
            sandbox,
            compiler,
            folder: Some(folder),
            compiled: Mutex::default(),
        })
    }

    /// Compiles in this process, and keeps nothing: for simulators and tests.
    #[must_use]
    pub fn in_memory(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            compiler: Compiler::Here,
            folder: None,
            compiled: Mutex::default(),
        }
    }

    /// The sandbox that the components are compiled for.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Whether a component is ready to be called.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.lock().contains_key(&digest)
    }

    /// The world of a component that is ready to be called.
    #[must_use]
    pub fn world(&self, digest: Digest) -> Option<World> {
        self.lock().get(&digest).map(|compiled| compiled.world)
    }

    /// A component of that world, if it is ready to be called.
    pub(crate) fn compiled(&self, world: World, digest: Digest) -> Option<Component> {
        let compiled = self.lock();
        let compiled = compiled.get(&digest).filter(|of| of.world == world);
        compiled.map(|of| of.component.clone())
    }

    /// Has a component ready: from memory, from disk, or compiled. `stop` is asked now and then, and
    /// ends a compilation.
    ///
    /// # Errors
    ///
    /// [`CompileError`].
    pub fn prepare(
        &self,
        digest: Digest,
        bytes: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), CompileError> {
        if self.has(digest) {
            return Ok(());
        }
        // The code is kept under the digest: other bytes would be run in this component's place.
        let actual = Digest::of(bytes);
        assert_eq!(actual, digest, "the bytes are those that the digest names");
        let world = compile::world_to_compile_for(bytes)?;
        let component = match &self.folder {
            Some(folder) => self.prepare_in(folder, (world, digest), bytes, stop)?,
            None => Component::new(self.sandbox.engine(world), bytes).map_err(refused)?,
        };
        let compiled = Compiled { world, component };
        self.lock().insert(digest, compiled);
        Ok(())
    }

    /// Whether `bytes` can be a plugin here: looks at it, has it ready, checks its types and has it
    /// describe itself, with no tree to see. Runs the guest: needs a stack of
    /// [`crate::STACK_BYTES_MIN`].
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn examine(
        &self,
        digest: Digest,
        bytes: &[u8],
        bytes_max: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Manifest, ExamineError> {
        let world = gate(bytes, bytes_max)?;
        if Digest::of(bytes) != digest {
            return Err(ExamineError::OtherBytes);
        }
        self.prepare(digest, bytes, stop)?;
        let Some(component) = self.compiled(world, digest) else {
            unreachable!("a component that is ready is of the world that its bytes say");
        };
        let _ticks = self.sandbox.tick_during_call();
        let description = match world.policy() {
            None => self.describe_recipe(digest, &component)?,
            Some(world) => policies::describe(&self.sandbox, world, &component)?,
        };
        Manifest::parse(world, &description)
    }

    fn describe_recipe(
        &self,
        digest: Digest,
        component: &Component,
    ) -> Result<String, ExamineError> {
        let limits = CallLimits::for_examination();
        let mut guests = Guests::<TxnView>::new(self.sandbox.clone(), limits);
        guests.link(component)?;
        guests
            .instantiate(digest, component)
            .and_then(|mut instance| instance.describe(&limits))
            .map_err(ExamineError::Describe)
    }

    /// Drops a component that is no longer needed, on disk too.
    pub fn forget(&self, digest: Digest) {
        self.lock().remove(&digest);
        if let Some(folder) = &self.folder {
            // Its bytes, which say the world, are not at hand.
            for world in World::ALL {
                folder.files(world, digest).remove();
            }
        }
    }

    fn prepare_in(
        &self,
        folder: &Folder,
        (world, digest): (World, Digest),
        bytes: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<Component, CompileError> {
        let files = folder.files(world, digest);
        let loaded = files.load(self.sandbox.engine(world));
        if let Some(Ok(component)) = loaded {
            return Ok(component);
        }
        files.compile(&self.compiler, bytes, stop)?;
        match files.load(self.sandbox.engine(world)) {
            Some(Ok(component)) => Ok(component),
            // An engine without a pool takes it: it needs more than the pool gives one instance.
            Some(Err(error)) if files.are_code(world) => Err(refused(error)),
            _ => Err(CompileError::Child {
                reason: "what it wrote is not code for this process: is it another version?"
                    .to_owned(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Compiled>> {
        // A map of finished components is whole whatever a thread that held it did.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of compiled components.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// What names the engine of recipes, and that of policies.
    recipes: u64,
    policies: u64,
}

impl Folder {
    fn open(sandbox: &Sandbox, path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        // It may have been there before. Whoever can write to it can have this process run code.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        let name = |world| {
            let mut hasher = DefaultHasher::new();
            let compatibility = sandbox.engine(world).precompile_compatibility_hash();
            compatibility.hash(&mut hasher);
            hasher.finish()
        };
        Ok(Self {
            path: path.to_path_buf(),
            recipes: name(World::Recipe),
            policies: name(World::Rebalancer),
        })
    }

    /// The files of a component.
    fn files(&self, world: World, digest: Digest) -> Files {
        let engine = match world {
            World::Recipe => self.recipes,
            World::Rebalancer | World::FailureDetector => self.policies,
        };
        Files {
            stem: self.path.join(format!("{digest}-{engine:016x}")),
            digest,
        }
    }
}

/// The files of one compiled component.
#[derive(Debug)]
struct Files {
    /// Their path without the ending.
    stem: PathBuf,
    digest: Digest,
}

impl Files {
    fn file(&self, extension: &str) -> PathBuf {
        self.stem.with_extension(extension)
    }

    /// The component, if its code is there and whole, or why `engine` does not take it.
    fn load(&self, engine: &Engine) -> Option<wasmtime::Result<Component>> {
        let (code, digest) = (self.file("cwasm"), self.digest);
        let sum = fs::read_to_string(self.file("sum")).ok()?;
        if sum.trim_end() != Digest::of(&fs::read(&code).ok()?).to_string() {
            tracing::warn!(%digest, "the code of a component is damaged and is compiled again");
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "the file is code that this user's process wrote for this very engine, in a \
                      folder that no other user can write to, and its checksum matches"
        )]
        let loaded = unsafe { Component::deserialize_file(engine, &code) };
        if let Err(error) = &loaded {
            tracing::warn!(%digest, "the code of a component can not be loaded: {error:#}");
        }
        Some(loaded)
    }

    /// Whether there is code of this version and for this machine.
    fn are_code(&self, world: World) -> bool {
        compiling_engine(world).is_ok_and(|engine| matches!(self.load(&engine), Some(Ok(_))))
    }

    /// Writes the code, then its checksum: a pair that was not finished does not match.
    fn compile(
        &self,
        compiler: &Compiler,
        bytes: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), CompileError> {
        let (code, sum) = (self.file("cwasm"), self.file("sum"));
        let fresh = self.file("cwasm.new");
        match compiler {
            Compiler::Here => compile::write(&fresh, &compile::compile(bytes)?)?,
            Compiler::Child { program, arguments } => {
                let input = self.file("wasm");
                compile::write(&input, bytes)?;
                let done = compile::compile_in_child(program, arguments, &input, &fresh, stop);
                // What is left over is written anew the next time.
                let _ = fs::remove_file(&input);
                done?;
            }
        }
        let file_error = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| CompileError::File { what, path, source }
        };
        let written = fs::read(&fresh).map_err(file_error("reading", &fresh))?;
        // A mapped file must never change: the old one is replaced, not overwritten.
        fs::rename(&fresh, &code).map_err(file_error("writing", &code))?;
        compile::write(&sum, Digest::of(&written).to_string().as_bytes())
    }

    fn remove(&self) {
        for extension in ["sum", "cwasm"] {
            let file = self.file(extension);
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} can not be removed: {error}", file.display());
            }
        }
    }
}

fn refused(error: wasmtime::Error) -> CompileError {
    CompileError::Refused {
        reason: format!("{error:#}"),
    }
}
