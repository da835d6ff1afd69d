//! `partition list` and `partition map`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use folkmoot_client::{
    Group, MapError, MapView, MemberInfo, PartitionMap, PartitionView, PluginInfo, ReadError,
    ReadRefusal, Session,
};
use folkmoot_proto::group::GROUPS;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::Map;
use super::picture::Picture;
use super::{svg, terminal};
use crate::args::Format;
use crate::failure::Failure;
use crate::output::Output;

/// A map that changes all the time is drawn as often.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How old a map is, is drawn as often while the cluster is away.
const AGE_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn list(session: &Session, out: Output) -> Result<(), Failure> {
    let groups = match session.children(GROUPS).await {
        Ok(children) => children.names,
        Err(ReadError::Refused(ReadRefusal::NoNode { .. })) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let plugins = session.plugins().await?;
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for group in groups {
        let view = match PartitionMap::new(session, &group).view().await {
            Ok(view) => view,
            Err(MapError::NoMap { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let (row, document) = summary(&view, &plugins);
        rows.push(row);
        documents.push(document);
    }
    let headings = [
        "GROUP",
        "PARTITIONS",
        "REPLICAS",
        "MEMBERS",
        "UNOWNED",
        "MOVING",
        "POLICY",
    ];
    out.table(&headings, &rows, &documents)
}

fn summary(view: &MapView, plugins: &[PluginInfo]) -> (Vec<String>, Value) {
    let live = view.members.iter().filter(|of| of.incarnation.is_some());
    let live = live.count();
    let count = |is: fn(&&PartitionView) -> bool| view.partitions.iter().filter(is).count();
    let unowned = count(|of| of.live_owner().is_none());
    let moving = count(|of| of.movement.is_some());
    let (partitions, replicas) = (view.partitions.len(), view.config.replicas);
    let policy = policy_name(view, plugins);
    let document = json!({
        "group": view.group,
        "partitions": partitions,
        "replicas": replicas,
        "live_members": live,
        "unowned": unowned,
        "moving": moving,
        "policy": policy,
        "frozen": view.frozen,
        "breaker": view.breaker,
    });
    let row = vec![
        view.group.clone(),
        partitions.to_string(),
        replicas.to_string(),
        live.to_string(),
        unowned.to_string(),
        moving.to_string(),
        policy,
    ];
    (row, document)
}

/// The policy's name, or its digest where it is not installed any more.
fn policy_name(view: &MapView, plugins: &[PluginInfo]) -> String {
    let Some(choice) = &view.config.policy else {
        return "no policy".to_owned();
    };
    let plugin = plugins.iter().find(|plugin| plugin.digest == choice.digest);
    plugin.map_or_else(|| choice.digest.to_string(), |plugin| plugin.name.clone())
}

/// Draws a map, and again when it changes if that is asked for.
pub(super) async fn map(session: &Session, arguments: &Map, out: Output) -> Result<(), Failure> {
    let mut changes = PartitionMap::new(session, &arguments.group)
        .follow()
        .await?;
    // Before the rest is asked for: a group without a map has no more to say.
    changes.view()?;
    let mut members = Group::new(session, &arguments.group).discover().await?;
    let mut told = 0;
    let mut again = false;
    loop {
        let view = changes.view()?;
        let plugins = match view.config.policy {
            Some(_) => session.plugins().await?,
            None => Vec::new(),
        };
        let known = members.view().members;
        let drawing = Drawing {
            members: &known,
            policy: policy_name(&view, &plugins),
            age: changes.age(),
            view,
        };
        drawing.show(arguments, again, out)?;
        if !arguments.watch || arguments.count.is_some_and(|count| told >= count) {
            return Ok(());
        }
        again = true;
        let shown = Instant::now();
        loop {
            let changed = tokio::select! {
                changed = changes.changed() => { changed?; true }
                changed = members.changed() => { changed?; true }
                () = tokio::time::sleep(AGE_EVERY) => false,
            };
            told += u64::from(changed);
            if changed || changes.age() > Duration::ZERO {
                break;
            }
        }
        tokio::time::sleep_until(shown + DRAW_EVERY).await;
    }
}

struct Drawing<'a> {
    view: MapView,
    members: &'a [MemberInfo],
    policy: String,
    age: Duration,
}

impl Drawing<'_> {
    fn show(&self, arguments: &Map, again: bool, out: Output) -> Result<(), Failure> {
        if let Some(file) = &arguments.svg {
            let drawn = svg::draw(&self.picture(svg::COLUMNS));
            replace(file, &drawn).map_err(|error| Failure::file(file, &error))?;
        }
        if out.format == Format::Json {
            return out.print("", &self.document());
        }
        let text = terminal::draw(&self.picture(terminal::COLUMNS));
        if arguments.watch && std::io::stdout().is_terminal() {
            // In the place of the one before.
            out.bytes(b"\x1b[H\x1b[2J")?;
        } else if again {
            out.bytes(b"\n")?;
        }
        out.bytes(format!("{text}\n").as_bytes())
    }

    fn picture(&self, columns: usize) -> Picture {
        Picture::of(&self.view, self.members, &self.policy, self.age, columns)
    }

    fn document(&self) -> Value {
        let mut document = json!(self.view);
        if let Some(fields) = document.as_object_mut() {
            let age = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
            fields.insert("age_ms".to_owned(), json!(age));
            fields.insert("policy_name".to_owned(), json!(self.policy));
        }
        let members = document.get_mut("members").and_then(Value::as_array_mut);
        for member in members.into_iter().flatten() {
            let id = member.get("id").and_then(Value::as_str);
            let known = self.members.iter().find(|of| Some(of.id.as_str()) == id);
            let state = known.map(|of| of.record.state);
            if let Some(fields) = member.as_object_mut() {
                fields.insert("state".to_owned(), json!(state));
            }
        }
        document
    }
}

/// Writes a file as a whole: whoever looks at it while it is watched sees no half.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, file)
}
