//! `get`, `set`, `create`, `delete`, `ls`, `stat`, `call`: one operation, one result.

use std::io::Read;
use std::time::Duration;

use folkmoot_client::{CallError, Guard, NodeKind, Refusal, Session, Standing, WriteError};
use serde_json::{Value, json};

use crate::args;
use crate::connect::patiently;
use crate::failure::{Failure, NO_CLUSTER};
use crate::output::{self, Output};

pub(crate) async fn get(
    session: &Session,
    path: &str,
    read: args::ReadOptions,
    out: Output,
) -> Result<(), Failure> {
    let node = reader(session, read).get(path).await?;
    if out.format == args::Format::Text {
        out.bytes(&node.data)?;
        // A terminal's prompt belongs on a line of its own; a pipe gets the value alone.
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            out.bytes(b"\n")?;
        }
        return Ok(());
    }
    let (key, text) = output::value(&node.data);
    let stat = output::stat_document(path, &node.stat);
    out.print(
        "",
        &json!({ "path": path, key: text, "stat": stat, "zxid": node.zxid }),
    )
}

pub(crate) async fn set(
    session: &Session,
    path: &str,
    data: Vec<u8>,
    expect: Option<u64>,
    guards: &[Guard],
    out: Output,
) -> Result<(), Failure> {
    let written = writer(session, guards).set(path, data, expect).await?;
    let document = json!({ "path": path, "version": written.version, "zxid": written.zxid });
    out.print(&format!("version {}", written.version), &document)
}

pub(crate) async fn create(
    session: &Session,
    create: args::Create,
    data: Vec<u8>,
    out: Output,
) -> Result<(), Failure> {
    let kind = NodeKind {
        ephemeral: create.ephemeral,
        sequential: create.sequential,
    };
    if create.parents {
        create_parents(session, &create.path).await?;
    }
    let writer = writer(session, &create.guards.guards);
    let created = writer.create(&create.path, data, kind).await?;
    let document = json!({ "path": created.path, "zxid": created.zxid });
    out.print(&created.path, &document)?;
    if create.ephemeral {
        output::note("the node goes when this command is interrupted");
        let ended = Standing::Ended { expired: false };
        session.standing_changes().wait_for(ended).await;
        let text = format!("the session ended, and {} with it", created.path);
        return Err(Failure::new(NO_CLUSTER, "session-ended", text));
    }
    Ok(())
}

async fn create_parents(session: &Session, path: &str) -> Result<(), Failure> {
    for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
        let parent = path.get(..end).unwrap_or_default();
        match session
            .create(parent, Vec::new(), NodeKind::PERSISTENT)
            .await
        {
            Ok(_) | Err(WriteError::Refused(Refusal::NodeExists { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) async fn delete(
    session: &Session,
    path: &str,
    expect: Option<u64>,
    guards: &[Guard],
    out: Output,
) -> Result<(), Failure> {
    let zxid = writer(session, guards).delete(path, expect).await?;
    out.print(
        &format!("deleted {path}"),
        &json!({ "path": path, "zxid": zxid }),
    )
}

pub(crate) async fn list(
    session: &Session,
    path: &str,
    read: args::ReadOptions,
    out: Output,
) -> Result<(), Failure> {
    let children = reader(session, read).children(path).await?;
    if out.format == args::Format::Text {
        let lines: Vec<_> = children
            .names
            .iter()
            .map(|name| format!("{name}\n"))
            .collect();
        return out.bytes(lines.concat().as_bytes());
    }
    let document = json!({ "path": path, "children": children.names, "zxid": children.zxid });
    out.print("", &document)
}

pub(crate) async fn stat(
    session: &Session,
    path: &str,
    read: args::ReadOptions,
    out: Output,
) -> Result<(), Failure> {
    match reader(session, read).exists(path).await? {
        Some(stat) => out.print(
            &output::stat_text(&stat),
            &output::stat_document(path, &stat),
        ),
        None => {
            let refusal = folkmoot_client::ReadRefusal::NoNode {
                path: path.to_owned(),
            };
            Err(folkmoot_client::ReadError::Refused(refusal).into())
        }
    }
}

pub(crate) async fn call(
    session: &Session,
    (mount, operation): (&str, &str),
    payload: Vec<u8>,
    guards: &[Guard],
    patience: Duration,
    out: Output,
) -> Result<(), Failure> {
    let writer = writer(session, guards);
    let call = async || writer.call(mount, operation, payload.clone()).await;
    let reply = patiently(patience, CallError::is_retryable, call).await?;
    match out.format {
        args::Format::Text => {
            out.bytes(&reply)?;
            out.bytes(b"\n")
        }
        args::Format::Json => {
            let document = serde_json::from_slice::<Value>(&reply).unwrap_or_else(|_| {
                let (key, text) = output::value(&reply);
                json!({ key: text })
            });
            out.print("", &document)
        }
    }
}

fn reader(session: &Session, options: args::ReadOptions) -> Session {
    if options.linearizable {
        session.linearizable()
    } else {
        session.clone()
    }
}

fn writer(session: &Session, guards: &[Guard]) -> Session {
    guards.iter().fold(session.clone(), |session, guard| {
        session.guarded_by(guard.clone())
    })
}

/// The value or payload that a command names. It is read before there is a session: who types it
/// may take their time, and can give up.
pub(crate) fn input(command: &args::Command) -> Result<Vec<u8>, Failure> {
    let text = match command {
        args::Command::Set { value, .. } => {
            if let Some(file) = &value.file {
                return std::fs::read(file).map_err(|error| Failure::file(file, &error));
            }
            value.value.as_deref()
        }
        args::Command::Create(create) => Some(create.value.as_str()),
        args::Command::Call { payload, .. } => Some(payload.as_str()),
        _ => None,
    };
    let mut bytes = Vec::new();
    match text {
        Some("-") => {
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            let failed = |error| Failure::configuration(format!("can not read stdin: {error}"));
            read.map_err(failed)?;
        }
        text => bytes.extend_from_slice(text.unwrap_or_default().as_bytes()),
    }
    Ok(bytes)
}
