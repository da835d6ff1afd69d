//! `server`: runs a member.

use std::path::Path;

use folkmoot_server::{Compiler, RunError, Server, ServerConfig, ServerOptions, StartError};

use crate::connect::interrupt;
use crate::failure::{CONFIGURATION, Failure, REFUSED};
use crate::output::note;

pub(crate) async fn run(config: &Path) -> Result<(), Failure> {
    let config = ServerConfig::from_file(config).map_err(Failure::configuration)?;
    let server = start(config).await?;
    note(format!(
        "member {} serves clients on {} and members on {}",
        server.member(),
        server.client_address(),
        server.peer_address()
    ));
    server.run(interrupt()).await.map_err(ended)
}

/// Starts a member; loading its data may take a while.
pub(crate) async fn start(config: ServerConfig) -> Result<Server, Failure> {
    // A component is compiled in a child process of low priority, which is this program again.
    let program = std::env::current_exe()
        .map_err(|error| Failure::configuration(format!("this program has no path: {error}")))?;
    let arguments = vec!["compile-component".into()];
    let options = ServerOptions {
        compiler: Some(Compiler::Child { program, arguments }),
        ..ServerOptions::default()
    };
    let started = tokio::task::spawn_blocking(move || Server::start(config, options)).await;
    started
        .map_err(|error| Failure::new(REFUSED, "panicked", error))?
        .map_err(not_started)
}

fn not_started(error: StartError) -> Failure {
    let (exit, code) = match &error {
        StartError::PortTaken { .. } => (CONFIGURATION, "port-taken"),
        StartError::FolderInUse { .. } => (CONFIGURATION, "folder-in-use"),
        StartError::OtherCluster { .. } => (CONFIGURATION, "other-cluster"),
        StartError::OtherMember { .. } => (CONFIGURATION, "other-member"),
        StartError::Damaged { .. } => (REFUSED, "damaged"),
        StartError::Thread { .. } | StartError::PluginHost { .. } => (REFUSED, "not-started"),
        _ => (CONFIGURATION, "configuration"),
    };
    Failure::new(exit, code, error)
}

/// A member that ended by itself.
pub(crate) fn ended(error: RunError) -> Failure {
    Failure::new(REFUSED, "member-ended", error)
}
