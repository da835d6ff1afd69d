//! Builds the guests for `wasm32-unknown-unknown` and encodes them as components.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guests are built for.
const TARGET: &str = "wasm32-unknown-unknown";
/// The cargo profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "guest";
/// Packages of guests, and the names of their components. `folkmoot dev --plugins target/guests` installs
/// the recipes and the policies; examples, and what only tests install, have folders of their own.
const GUESTS: [(&str, &str); 11] = [
    ("folkmoot-lock", "lock"),
    ("folkmoot-counter", "counter"),
    ("folkmoot-fixed-timeout", "policies/fixed-timeout"),
    ("folkmoot-phi-accrual", "policies/phi-accrual"),
    ("folkmoot-guests", "for-tests/hostile"),
    ("folkmoot-hostile-policy", "for-tests/hostile-policy"),
    ("folkmoot-sticky-balanced", "policies/sticky-balanced"),
    ("folkmoot-rendezvous", "policies/rendezvous"),
    ("folkmoot-bounded-load", "policies/bounded-load"),
    ("folkmoot-load-aware", "policies/load-aware"),
    ("example-custom-rebalancer", "examples/custom-rebalancer"),
];

/// Why there are no guests. The text says what to do.
#[derive(Debug)]
pub(crate) struct GuestsError(String);

impl std::fmt::Display for GuestsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GuestsError {}

/// Builds every guest and writes its component to `target/guests/NAME.wasm`; answers that folder.
/// What is up to date is not built again. Several processes may do this at once: cargo makes them
/// wait for each other, and a component is replaced as a whole.
pub(crate) fn build_guests() -> Result<PathBuf, GuestsError> {
    let root = root()?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |target| root.join(target));
    add_target(&root)?;
    for (package, _) in GUESTS {
        // As a `cdylib` alone: together with a `rlib`, cargo does without the profile's `lto`.
        let mut build = Command::new(cargo());
        build
            .args(["rustc", "--quiet", "--target", TARGET, "--profile", PROFILE])
            .args(["--package", package, "--lib", "--crate-type", "cdylib"])
            .current_dir(&root);
        run(&mut build)?;
    }
    let folder = target.join("guests");
    for below in ["policies", "examples", "for-tests"] {
        let below = folder.join(below);
        fs::create_dir_all(&below).map_err(|error| file_error(&below, &error))?;
    }
    for (package, name) in GUESTS {
        let file = format!("{}.wasm", package.replace('-', "_"));
        let module = target.join(TARGET).join(PROFILE).join(file);
        encode(&module, &folder.join(format!("{name}.wasm")))?;
    }
    Ok(folder)
}

/// Makes a component of a core module.
fn encode(module: &Path, component: &Path) -> Result<(), GuestsError> {
    let core = fs::read(module).map_err(|error| file_error(module, &error))?;
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| {
            GuestsError(format!(
                "{} makes no component: {error:#}",
                module.display()
            ))
        })?;
    if fs::read(component).is_ok_and(|before| before == encoded) {
        return Ok(());
    }
    let fresh = component.with_extension(format!("{}.new", std::process::id()));
    fs::write(&fresh, encoded)
        .and_then(|()| fs::rename(&fresh, component))
        .map_err(|error| file_error(component, &error))
}

/// Adds the target where it is missing. Without rustup the compiler may have it all the same.
fn add_target(root: &Path) -> Result<(), GuestsError> {
    let libraries = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root)
        .output();
    if let Ok(output) = libraries
        && output.status.success()
        && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    {
        return Ok(());
    }
    let add = format!("rustup target add {TARGET}");
    run(Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root))
    .map_err(|error| {
        GuestsError(format!(
            "guests are built for {TARGET}, and this Rust does not have it ({error}).\nRun \
             `{add}` where there is a network; without rustup, install the package of your \
             distribution that has Rust's standard library for WebAssembly."
        ))
    })
}

fn run(command: &mut Command) -> Result<(), GuestsError> {
    let status = command
        .status()
        .map_err(|error| GuestsError(format!("{command:?} did not start: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(GuestsError(format!("{command:?} failed ({status})")))
    }
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The project's root: the nearest folder above this package that has the lock file.
fn root() -> Result<PathBuf, GuestsError> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| GuestsError("the project's folder has no Cargo.lock".to_owned()))
}

fn file_error(path: &Path, error: &std::io::Error) -> GuestsError {
    GuestsError(format!("{}: {error}", path.display()))
}
