//! `plugin` and `mount`.

use std::path::Path;

use folkmoot_client::{Digest, PluginInfo, PolicyChoice, Session};
use serde_json::json;

use crate::args;
use crate::failure::{Failure, REFUSED};
use crate::output::Output;

pub(crate) async fn plugin(
    session: &Session,
    command: args::Plugin,
    out: Output,
) -> Result<(), Failure> {
    match command {
        args::Plugin::Install { file, name } => {
            let name = name.unwrap_or_else(|| stem(&file));
            let component = read(&file)?;
            let digest = session.install(&component, &name).await?;
            out.print(
                &digest.to_string(),
                &json!({ "name": name, "digest": digest }),
            )
        }
        args::Plugin::Remove { plugin } => {
            let digest = find(&session.plugins().await?, &plugin)?;
            let zxid = session.remove_plugin(digest).await?;
            out.print(
                &format!("removed the plugin {plugin}"),
                &json!({ "digest": digest, "zxid": zxid }),
            )
        }
        args::Plugin::Check { plugin, config } => {
            let digest = find(&session.plugins().await?, &plugin)?;
            let choice = PolicyChoice {
                digest,
                configuration: config,
            };
            session.try_policy(choice).await?;
            out.print(
                &format!("{plugin} takes it"),
                &json!({ "plugin": plugin, "digest": digest }),
            )
        }
        args::Plugin::List => {
            let plugins = session.plugins().await?;
            let rows: Vec<_> = plugins
                .iter()
                .map(|plugin| {
                    vec![
                        plugin.name.clone(),
                        plugin.world(),
                        plugin.version().unwrap_or_else(|| "-".to_owned()),
                        plugin.size.to_string(),
                        plugin.digest.to_string(),
                    ]
                })
                .collect();
            let documents: Vec<_> = plugins
                .iter()
                .map(|plugin| {
                    let mut document = json!(plugin);
                    if let Some(fields) = document.as_object_mut() {
                        fields.insert("world".to_owned(), json!(plugin.world()));
                    }
                    document
                })
                .collect();
            let head = ["NAME", "WORLD", "VERSION", "BYTES", "DIGEST"];
            out.table(&head, &rows, &documents)
        }
    }
}

/// A component's bytes. The cluster examines them; of an empty file it would not even hear.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let component = std::fs::read(file).map_err(|error| Failure::file(file, &error))?;
    if component.is_empty() {
        let text = format!("{} is empty: it is no component", file.display());
        return Err(Failure::new(REFUSED, "component-refused", text));
    }
    Ok(component)
}

/// A file's name without its ending.
pub(crate) fn stem(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub(crate) async fn mount(
    session: &Session,
    command: args::Mount,
    out: Output,
) -> Result<(), Failure> {
    match command {
        args::Mount::Add {
            path,
            plugin,
            config,
        } => {
            let digest = find(&session.plugins().await?, &plugin)?;
            let zxid = session.mount(&path, digest, config).await?;
            let document = json!({ "path": path, "digest": digest, "zxid": zxid });
            out.print(&format!("mounted {plugin} at {path}"), &document)
        }
        args::Mount::Remove { path } => {
            let zxid = session.unmount(&path).await?;
            out.print(
                &format!("removed the mount at {path}"),
                &json!({ "path": path, "zxid": zxid }),
            )
        }
        args::Mount::List => {
            let (mounts, plugins) = (session.mounts().await?, session.plugins().await?);
            let name = |digest: Digest| {
                let plugin = plugins.iter().find(|plugin| plugin.digest == digest);
                plugin.map_or_else(String::new, |plugin| plugin.name.clone())
            };
            let rows: Vec<_> = mounts
                .iter()
                .map(|mount| {
                    let digest = mount.digest.to_string();
                    vec![
                        mount.path.clone(),
                        name(mount.digest),
                        digest,
                        mount.config.clone(),
                    ]
                })
                .collect();
            let documents: Vec<_> = mounts.iter().map(|mount| json!(mount)).collect();
            out.table(&["PATH", "PLUGIN", "DIGEST", "CONFIG"], &rows, &documents)
        }
    }
}

/// The component that a name or the first digits of a digest mean.
pub(crate) fn find(plugins: &[PluginInfo], said: &str) -> Result<Digest, Failure> {
    let named: Vec<_> = plugins
        .iter()
        .filter(|plugin| plugin.name == said)
        .collect();
    let meant = if named.is_empty() {
        let by_digest = |plugin: &&PluginInfo| plugin.digest.to_string().starts_with(said);
        plugins.iter().filter(by_digest).collect()
    } else {
        named
    };
    match meant.as_slice() {
        [one] => Ok(one.digest),
        [] => Err(Failure::new(
            REFUSED,
            "unknown-component",
            format!("no plugin {said:?} is installed: see `folkmoot plugin list`"),
        )),
        several => {
            let digests: Vec<_> = several
                .iter()
                .map(|plugin| format!("\n  {}", plugin.digest))
                .collect();
            Err(Failure::configuration(format!(
                "{said:?} may mean several plugins, give the digest:{}",
                digests.concat()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_found_by_name_or_by_the_first_digits_of_its_digest() {
        let plugin = |name: &str, bytes: &[u8]| PluginInfo {
            digest: Digest::of(bytes),
            name: name.to_owned(),
            size: 1,
            description: String::new(),
        };
        let plugins = [
            plugin("lock", b"1"),
            plugin("lock", b"2"),
            plugin("counter", b"3"),
        ];
        assert_eq!(find(&plugins, "counter"), Ok(Digest::of(b"3")));
        let digits = Digest::of(b"2").to_string();
        assert_eq!(find(&plugins, &digits[..12]), Ok(Digest::of(b"2")));
        assert!(
            find(&plugins, "lock")
                .unwrap_err()
                .message
                .contains(&digits)
        );
        assert_eq!(
            find(&plugins, "barrier").unwrap_err().code,
            "unknown-component"
        );
    }
}
