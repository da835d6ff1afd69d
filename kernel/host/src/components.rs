//! The compiled components: in memory for the runtime, and on disk, so that a restart need not
//! compile them again.
//!
//! On disk a component is two files, `DIGEST-ENGINE.cwasm` and `DIGEST-ENGINE.sum`: machine code as
//! wasmtime writes it, and the SHA-256 of that file in hexadecimal digits. `DIGEST` is the
//! component's digest, `ENGINE` names what decides the code: wasmtime's version, the processor, the
//! engine's configuration. A pair that does not match is compiled again. The folder belongs to this
//! user alone.

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
use crate::runtime::Guests;

/// Compiled components, shared by the runtime, which calls them, and the service, which makes them.
#[derive(Debug)]
pub struct Components {
    sandbox: Sandbox,
    compiler: Compiler,
    folder: Option<Folder>,
    compiled: Mutex<BTreeMap<Digest, Component>>,
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

    /// A component, if it is ready to be called.
    #[must_use]
    pub fn compiled(&self, digest: Digest) -> Option<Component> {
        self.lock().get(&digest).cloned()
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
    ) -> Result<Component, CompileError> {
        if let Some(component) = self.compiled(digest) {
            return Ok(component);
        }
        // The code is kept under the digest: other bytes would be run in this component's place.
        let actual = Digest::of(bytes);
        assert_eq!(actual, digest, "the bytes are those that the digest names");
        let component = match &self.folder {
            Some(folder) => self.prepare_in(folder, digest, bytes, stop)?,
            None => Component::new(self.sandbox.engine(), bytes).map_err(refused)?,
        };
        self.lock().insert(digest, component.clone());
        Ok(component)
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
        gate(bytes, bytes_max)?;
        if Digest::of(bytes) != digest {
            return Err(ExamineError::OtherBytes);
        }
        let component = self.prepare(digest, bytes, stop)?;
        let limits = CallLimits::for_examination();
        let _ticks = self.sandbox.tick_during_call();
        let mut guests = Guests::<TxnView>::new(self.sandbox.clone(), limits);
        guests.link(&component)?;
        let description = guests
            .instantiate(digest, &component)
            .and_then(|mut instance| instance.describe(&limits))
            .map_err(ExamineError::Describe)?;
        Manifest::parse(description)
    }

    /// Drops a component that is no longer needed, on disk too.
    pub fn forget(&self, digest: Digest) {
        self.lock().remove(&digest);
        if let Some(folder) = &self.folder {
            folder.remove(digest);
        }
    }

    fn prepare_in(
        &self,
        folder: &Folder,
        digest: Digest,
        bytes: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<Component, CompileError> {
        let loaded = folder.load(self.sandbox.engine(), digest);
        if let Some(Ok(component)) = loaded {
            return Ok(component);
        }
        folder.compile(&self.compiler, digest, bytes, stop)?;
        match folder.load(self.sandbox.engine(), digest) {
            Some(Ok(component)) => Ok(component),
            // An engine without a pool takes it: it needs more than the pool gives one instance.
            Some(Err(error)) if folder.is_code(digest) => Err(refused(error)),
            _ => Err(CompileError::Child {
                reason: "what it wrote is not code for this process: is it another version?"
                    .to_owned(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Component>> {
        // A map of finished components is whole whatever a thread that held it did.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of compiled components.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    engine: u64,
}

impl Folder {
    fn open(sandbox: &Sandbox, path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        // It may have been there before. Whoever can write to it can have this process run code.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        let compatibility = sandbox.engine().precompile_compatibility_hash();
        compatibility.hash(&mut hasher);
        Ok(Self {
            path: path.to_path_buf(),
            engine: hasher.finish(),
        })
    }

    fn file(&self, digest: Digest, extension: &str) -> PathBuf {
        self.path
            .join(format!("{digest}-{:016x}.{extension}", self.engine))
    }

    /// The component, if its code is there and whole, or why `engine` does not take it.
    fn load(&self, engine: &Engine, digest: Digest) -> Option<wasmtime::Result<Component>> {
        let code = self.file(digest, "cwasm");
        let sum = fs::read_to_string(self.file(digest, "sum")).ok()?;
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
    fn is_code(&self, digest: Digest) -> bool {
        compiling_engine().is_ok_and(|engine| matches!(self.load(&engine, digest), Some(Ok(_))))
    }

    /// Writes the code, then its checksum: a pair that was not finished does not match.
    fn compile(
        &self,
        compiler: &Compiler,
        digest: Digest,
        bytes: &[u8],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), CompileError> {
        let (code, sum) = (self.file(digest, "cwasm"), self.file(digest, "sum"));
        let fresh = self.file(digest, "cwasm.new");
        match compiler {
            Compiler::Here => compile::write(&fresh, &compile::compile(bytes)?)?,
            Compiler::Child { program, arguments } => {
                let input = self.file(digest, "wasm");
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

    fn remove(&self, digest: Digest) {
        for extension in ["sum", "cwasm"] {
            let file = self.file(digest, extension);
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
