//! `watch`: changes as they happen.

use folkmoot_client::{Session, Snapshot, Transaction, WatchOptions, Zxid};
use serde_json::{Value, json};

use crate::args;
use crate::failure::Failure;
use crate::output::{self, Output};

pub(crate) async fn run(
    session: &Session,
    arguments: args::Watch,
    out: Output,
) -> Result<(), Failure> {
    let mut options = if arguments.recursive {
        WatchOptions::recursive(&arguments.path)
    } else if arguments.children {
        WatchOptions::children(&arguments.path)
    } else {
        WatchOptions::node(&arguments.path)
    };
    options.from = arguments.from.map(Zxid);
    options.data = arguments.data;
    let mut watch = if arguments.read {
        let (snapshot, watch) = session.watch_and_read(options).await?;
        print_snapshot(&snapshot, arguments.data, out)?;
        watch
    } else {
        session.watch(options).await?
    };
    output::note(format!(
        "watching {} after zxid {}",
        arguments.path,
        watch.position()
    ));
    let mut left = arguments.count;
    while left != Some(0)
        && let Some(transaction) = watch.next().await
    {
        print_transaction(&transaction?, arguments.data, out)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn print_snapshot(snapshot: &Snapshot, with_data: bool, out: Output) -> Result<(), Failure> {
    for node in &snapshot.nodes {
        let mut document = json!({
            "zxid": snapshot.zxid,
            "path": node.path,
            "change": "is",
            "version": node.stat.version,
        });
        let (key, text) = output::value(&node.data);
        let mut line = format!("{} is {}", snapshot.zxid, node.path);
        if with_data {
            line = format!("{line} {text}");
            if let Some(fields) = document.as_object_mut() {
                fields.insert(key.to_owned(), Value::String(text));
            }
        }
        out.print(&line, &document)?;
    }
    Ok(())
}

fn print_transaction(
    transaction: &Transaction,
    with_data: bool,
    out: Output,
) -> Result<(), Failure> {
    if out.format == args::Format::Json {
        let changes: Vec<_> = transaction
            .changes
            .iter()
            .map(|change| output::change_document(change, with_data))
            .collect();
        return out.print("", &json!({ "zxid": transaction.zxid, "changes": changes }));
    }
    for change in &transaction.changes {
        let name = output::change_name(change.kind);
        let mut line = format!("{} {name} {}", transaction.zxid, change.path);
        if with_data {
            line = format!("{line} {}", output::value(&change.data).1);
        }
        out.bytes(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}
