//! Real `folkmoot` processes on loopback, driven through the command alone, as a user would.
//!
//! [`Cluster`] starts, kills and pauses members, [`Cli`] runs commands, [`Process`] is one that
//! runs on beside the test. Whatever is waited for is a condition with a bound, and every process
//! ends with what started it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod cli;
mod cluster;
mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use cli::Cli;
pub use cluster::{Cluster, Status, free_ports, server};
pub use process::{Process, Ran};
pub use rustix::process::Signal;

/// What is waited for comes within this, or the test fails: far more than it takes on a busy
/// machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` finds something; `say` describes what was seen instead.
///
/// # Panics
///
/// After [`PATIENCE`].
pub fn wait_until<T>(
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    say: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() > deadline {
            panic!(
                "no sign of {what} within {} s; {}",
                PATIENCE.as_secs(),
                say()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A program of the project, which cargo puts beside the folder of the test programs.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let program = profile_folder().join(name);
    assert!(
        program.is_file(),
        "{} is not there: run `cargo build --workspace --bins` first (`cargo xtask test` does)",
        program.display()
    );
    program
}

/// The component of a guest.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let folders = profile_folder()
        .ancestors()
        .map(|folder| folder.join("guests"))
        .find(|folder| folder.is_dir());
    let folder = folders.expect("no guests: run `cargo xtask guests` first");
    let file = folder.join(format!("{name}.wasm"));
    assert!(
        file.is_file(),
        "{} is not there: run `cargo xtask guests` first",
        file.display()
    );
    file
}

/// `target/debug`, or what takes its place.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test program has a path");
    let folder = test.parent().and_then(Path::parent);
    folder
        .expect("a test program is below target")
        .to_path_buf()
}
