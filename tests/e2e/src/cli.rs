//! The command as a user runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Process, Ran, program};

/// A user at a terminal: a home of their own, and perhaps a cluster that they named.
#[derive(Clone, Debug)]
pub struct Cli {
    home: PathBuf,
    settings: Vec<(&'static str, PathBuf)>,
}

impl Cli {
    /// A user with this home and nothing set.
    #[must_use]
    pub fn at_home(home: &Path) -> Self {
        Self {
            home: home.to_path_buf(),
            settings: Vec::new(),
        }
    }

    /// The same user with a variable of the environment set.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.settings.retain(|(set, _)| *set != name);
        self.settings.push((name, value.into()));
        self
    }

    /// `folkmoot ARGUMENTS`, in the user's home.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("folkmoot", arguments)
    }

    /// As [`Cli::command`], of another program of the project.
    #[must_use]
    pub fn command_of(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        for (name, _) in std::env::vars_os() {
            let ours = |name: &OsStr| name.to_string_lossy().starts_with("FOLKMOOT_");
            if ours(&name) {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(&self.home)
            .env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts `folkmoot --output json ARGUMENTS`.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Process {
        let all = [&["--output", "json"], arguments].concat();
        Process::start(&mut self.command(&all))
    }

    /// Runs `folkmoot --output json ARGUMENTS` to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).end()
    }

    /// Runs a command that must succeed, and gives what it answers.
    #[must_use]
    pub fn ask(&self, arguments: &[&str]) -> Value {
        self.run(arguments).succeeded().json()
    }

    /// Runs a command that must succeed.
    pub fn tell(&self, arguments: &[&str]) {
        let _ = self.run(arguments).succeeded();
    }

    /// A node's value.
    #[must_use]
    pub fn value(&self, path: &str) -> String {
        let node = self.ask(&["get", "--linearizable", path]);
        node["data"].as_str().unwrap_or_default().to_owned()
    }

    /// The names of a node's children.
    #[must_use]
    pub fn children(&self, path: &str) -> Vec<String> {
        let listed = self.ask(&["ls", "--linearizable", path]);
        let names = listed["children"].as_array().into_iter().flatten();
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }

    /// Installs and mounts the standard plugins.
    pub fn install_standard_plugins(&self) {
        for (name, mount) in [("lock", "/locks"), ("counter", "/counter")] {
            let component = crate::guest(name);
            self.tell(&["plugin", "install", &component.to_string_lossy()]);
            self.tell(&["mount", "add", mount, name]);
        }
    }
}
