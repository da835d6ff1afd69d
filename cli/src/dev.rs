//! `dev`: a cluster of one member, ready to be used from any folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot_client::{Client, Context, ContextChoice, Session, default_context};
use folkmoot_proto::MemberId;
use folkmoot_server::ServerConfig;
use folkmoot_server::config::SEGMENT_BYTES_MIN;

use crate::args::Dev;
use crate::connect::interrupt;
use crate::failure::Failure;
use crate::init::{self, MemberSpec, Plan};
use crate::output::note;
use crate::plugin::{self, stem};
use crate::server;

/// Where the standard plugins are mounted.
const STANDARD_MOUNTS: [(&str, &str); 2] = [("lock", "/locks"), ("counter", "/counter")];

/// The folder, below that of the plugins, of those that are not mounted.
const POLICIES: &str = "policies";

/// The first line of a context file that `dev` wrote, and may write again.
const CONTEXT_MARK: &str = "# Written by `folkmoot dev`, which writes it again at each start.";

/// A member of one elects itself in less.
const READY_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn run(arguments: Dev) -> Result<(), Failure> {
    let folder = prepare(&arguments)?;
    let config = ServerConfig::from_file(&folder.join("member-1/server.toml"))
        .map_err(Failure::configuration)?;
    let server = server::start(config).await?;
    let address = server.client_address();
    let context = write_context(&folder)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = server.run(async {
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    let prepared = tokio::select! {
        ended = &mut serving => return ended.map_err(server::ended),
        () = interrupt() => Ok(false),
        prepared = set_up(&folder, arguments.plugins.as_deref()) => prepared.map(|()| true),
    };
    if matches!(prepared, Ok(true)) {
        note(format!(
            "a cluster of one member is ready on {address}, its data in {}.\n\
             {context}\n\
             Try `folkmoot create /greeting hello` in another terminal. Ctrl-C ends it.",
            arguments.data.display()
        ));
        tokio::select! {
            ended = &mut serving => return ended.map_err(server::ended),
            () = interrupt() => {}
        }
    }
    drop(stop);
    let ended = serving.await.map_err(server::ended);
    prepared.and(ended)
}

/// The folder with certificates and configuration, made at the first start; absolute.
fn prepare(arguments: &Dev) -> Result<PathBuf, Failure> {
    let folder = std::path::absolute(&arguments.data)
        .map_err(|error| Failure::file(&arguments.data, &error))?;
    if !folder.join("member-1/server.toml").exists() {
        let member = MemberSpec {
            id: MemberId(1),
            host: "127.0.0.1".to_owned(),
            peer_port: arguments.peer_port,
            client_port: arguments.client_port,
        };
        let plan = Plan {
            members: &[member],
            segment_bytes: SEGMENT_BYTES_MIN,
        };
        init::make(&plan, &folder)?;
        note(format!("made a new cluster in {}", folder.display()));
    }
    Ok(folder)
}

/// Writes the user's context file, unless it is one that a person wrote; says how the CLI finds
/// this cluster.
fn write_context(folder: &Path) -> Result<String, Failure> {
    let own = folder.join("context.toml");
    let by_name = format!("Reach it with `folkmoot --context {}`.", own.display());
    let Some(user) = default_context() else {
        return Ok(by_name);
    };
    if let Ok(text) = fs::read_to_string(&user)
        && !text.starts_with(CONTEXT_MARK)
    {
        return Ok(format!(
            "{} is of another cluster and was left alone. {by_name}",
            user.display()
        ));
    }
    let context = Context::load(Some(&own))?;
    let text = toml::to_string(&context).map_err(Failure::configuration)?;
    let parent = user.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|error| Failure::file(parent, &error))?;
    // Renamed into place, so that a command that runs meanwhile reads the old one or the new one.
    let partial = user.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, format!("{CONTEXT_MARK}\n{text}"))
        .and_then(|()| fs::rename(&partial, &user))
        .map_err(|error| Failure::file(&user, &error))?;
    Ok(format!(
        "The CLI finds it from any folder, by {}.",
        user.display()
    ))
}

/// Installs and mounts what is in the folder of plugins.
async fn set_up(folder: &Path, plugins: Option<&Path>) -> Result<(), Failure> {
    let choice = ContextChoice {
        context: Some(folder.join("context.toml")),
        ..Default::default()
    };
    let mut config = choice.resolve()?.request_timeout(READY_WITHIN);
    config.connect_timeout = READY_WITHIN;
    let client = Client::connect(config).await?;
    let session = client.open_session().await?;
    let result = match plugins {
        Some(plugins) => install_all(&session, plugins).await,
        None => Ok(()),
    };
    let _ = session.close().await;
    client.close().await;
    result
}

async fn install_all(session: &Session, plugins: &Path) -> Result<(), Failure> {
    let mut files = components_in(plugins)?;
    let policies = plugins.join(POLICIES);
    if policies.is_dir() {
        files.extend(components_in(&policies)?);
    }
    if files.is_empty() {
        let text = format!("{} has no component (*.wasm)", plugins.display());
        return Err(Failure::configuration(text));
    }
    let mounts = session.mounts().await?;
    let mut unmounted = Vec::new();
    for file in files {
        let name = stem(&file);
        let digest = session.install(&plugin::read(&file)?, &name).await?;
        let Some((_, path)) = STANDARD_MOUNTS.iter().find(|(plugin, _)| *plugin == name) else {
            unmounted.push(digest);
            continue;
        };
        if mounts
            .iter()
            .any(|mount| mount.path == *path && mount.digest == digest)
        {
            continue;
        }
        session.mount(path, digest, "").await?;
        note(format!("installed {name}, mounted at {path}"));
    }
    for plugin in session.plugins().await? {
        if unmounted.contains(&plugin.digest) {
            let name = &plugin.name;
            note(match plugin.world().as_str() {
                "recipe" => {
                    format!("installed {name}; mount it with `folkmoot mount add PATH {name}`")
                }
                world => format!("installed {name}, a {world}"),
            });
        }
    }
    Ok(())
}

/// The components of a folder, in the order of their names.
fn components_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::file(folder, &error))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wasm"))
        .collect();
    files.sort();
    Ok(files)
}
