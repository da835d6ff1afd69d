//! Runs cargo, and finds what it built.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// The folder that cargo builds in.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs cargo at the root and passes its output through.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    run_with(arguments, &[])
}

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .with_context(|| format!("cargo {} did not start", arguments.join(" ")))?;
    if !status.success() {
        bail!("cargo {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

/// Builds the project's programs and answers the folder that has them. All at once, since cargo
/// unifies features over what is built together: one by one, dependencies would be built anew.
pub(crate) fn build_programs() -> Result<PathBuf> {
    run(&["build", "--workspace", "--bins"])?;
    Ok(target_dir().join("debug"))
}

/// Builds the project's programs as a release has them, and answers the folder that has them. It is
/// the profile of every day with the project's own crates optimised too, so that dependencies, which
/// are optimised in both, are not built twice.
pub(crate) fn build_programs_optimised() -> Result<PathBuf> {
    let optimised = [
        ("CARGO_PROFILE_DEV_OPT_LEVEL", "3"),
        ("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false"),
        ("CARGO_INCREMENTAL", "0"),
    ];
    run_with(&["build", "--workspace", "--bins"], &optimised)?;
    Ok(target_dir().join("debug"))
}

/// Becomes `folkmoot SUBCOMMAND --plugins DIR …`, so that signals reach it alone.
pub(crate) fn replace_with(
    folkmoot: &Path,
    subcommand: &str,
    plugins: &Path,
    arguments: &[String],
) -> Result<ExitCode> {
    let error = Command::new(folkmoot)
        .arg(subcommand)
        .arg("--plugins")
        .arg(plugins)
        .args(arguments)
        .exec();
    Err(error).with_context(|| format!("{} did not start", folkmoot.display()))
}
