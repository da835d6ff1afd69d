//! Compiles components, in a child process of low priority with limits: a large one takes half a
//! minute and hundreds of megabytes, and a compiler's bug must not take a member with it.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use crate::engine::compiling_engine;
use crate::examine::world_of;
use crate::world::World;

/// How long a child may take: four times what the largest component known took (30 s for one of
/// JavaScript).
const CHILD_TIME_MAX: Duration = Duration::from_secs(120);
/// Addresses that a child may use: ten times what the largest component known took (430 MB).
const CHILD_ADDRESS_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// How much lower than its parent's a child's priority is.
const CHILD_NICE: i32 = 10;
/// Between two looks at a child.
const POLL: Duration = Duration::from_millis(5);
/// Bytes of a child's complaint that are told.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// How components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In a child process. Two more arguments are appended: the component's file and the file to
    /// write. The command ends in [`compile_main`].
    Child {
        /// The program, as a rule this one: `std::env::current_exe()`.
        program: PathBuf,
        /// What makes it end in [`compile_main`], such as a hidden subcommand.
        arguments: Vec<OsString>,
    },
    /// In this process and on the calling thread: for simulators and tests.
    Here,
}

/// Why a component is not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is not valid, or needs what this host does not offer.
    #[error("it can not be compiled: {reason}")]
    Refused {
        /// What the compiler says.
        reason: String,
    },
    /// It took too long, or the service was stopped.
    #[error("its compilation was stopped after {seconds} s")]
    Stopped {
        /// For how long it had run.
        seconds: u64,
    },
    /// The child process could not be started or read, or ended by a signal (as when it runs out of
    /// memory).
    #[error("the compiling process failed: {reason}")]
    Child {
        /// What is known.
        reason: String,
    },
    /// A file could not be written or read.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CompileError {
    /// Whether it says nothing of the component: another attempt on this machine may succeed.
    #[must_use]
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::Stopped { .. } | Self::Child { .. } | Self::File { .. } => true,
        }
    }
}

/// Compiles in this process.
pub(crate) fn compile(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let world = world_to_compile_for(component)?;
    compiling_engine(world)
        .and_then(|engine| engine.precompile_component(component))
        .map_err(|error| CompileError::Refused {
            reason: format!("{error:#}"),
        })
}

/// The world of a component, which decides the engine.
pub(crate) fn world_to_compile_for(component: &[u8]) -> Result<World, CompileError> {
    world_of(component).map_err(|error| CompileError::Refused {
        reason: error.to_string(),
    })
}

/// What the child process does: compiles the component in the file `input` into the file `output`,
/// within limits that it sets itself. Complaints go to stderr.
#[must_use]
pub fn compile_main(input: &Path, output: &Path) -> ExitCode {
    limit_this_process();
    let compiled = read(input)
        .and_then(|component| compile(&component))
        .and_then(|code| write(output, &code));
    match compiled {
        Ok(()) => ExitCode::SUCCESS,
        Err(CompileError::Refused { reason }) => {
            eprintln!("{reason}");
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The exit status that says that the component is at fault.
const REFUSED: u8 = 3;

fn limit_this_process() {
    // A limit that can not be set is one less; the parent's watch over the time stays.
    let _ = rustix::process::nice(CHILD_NICE);
    let limit = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let _ = rustix::process::setrlimit(Resource::As, limit(CHILD_ADDRESS_BYTES_MAX));
    let _ = rustix::process::setrlimit(Resource::Cpu, limit(CHILD_TIME_MAX.as_secs()));
    let _ = rustix::process::setrlimit(Resource::Core, limit(0));
}

/// Compiles `input` into `output` in a child process, which is killed when it takes too long or
/// `stop` says so.
pub(crate) fn compile_in_child(
    program: &Path,
    arguments: &[OsString],
    input: &Path,
    output: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<(), CompileError> {
    let mut child = Command::new(program)
        .args(arguments)
        .arg(input)
        .arg(output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| CompileError::Child {
            reason: format!("{} can not be started: {error}", program.display()),
        })?;
    let ended = watch(&mut child, stop);
    let complaint = complaint_of(&mut child);
    match ended? {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(REFUSED) => {
            Err(CompileError::Refused { reason: complaint })
        }
        code => Err(CompileError::Child {
            reason: match code {
                Some(code) => format!("it ended with status {code}: {complaint}"),
                None => {
                    "it was ended by a signal, as when it runs out of memory or time".to_owned()
                }
            },
        }),
    }
}

/// Waits for the child; answers its exit code, none if a signal ended it.
fn watch(child: &mut Child, stop: &dyn Fn() -> bool) -> Result<Option<i32>, CompileError> {
    let begun = Instant::now();
    loop {
        let status = child.try_wait().map_err(|error| CompileError::Child {
            reason: error.to_string(),
        })?;
        if let Some(status) = status {
            return Ok(status.code());
        }
        if begun.elapsed() > CHILD_TIME_MAX || stop() {
            // Both fail only for a child that has ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(CompileError::Stopped {
                seconds: begun.elapsed().as_secs(),
            });
        }
        thread::sleep(POLL);
    }
}

/// What the child has written to stderr. A complaint larger than the pipe makes the child wait and
/// be stopped; ours are not.
fn complaint_of(child: &mut Child) -> String {
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
    }
    String::from_utf8_lossy(&complaint).trim_end().to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, CompileError> {
    std::fs::read(path).map_err(|source| CompileError::File {
        what: "reading",
        path: path.to_path_buf(),
        source,
    })
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), CompileError> {
    let written = std::fs::File::create(path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|source| CompileError::File {
        what: "writing",
        path: path.to_path_buf(),
        source,
    })
}
