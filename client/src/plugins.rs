//! Installing plugins, and mounting them.

use std::collections::VecDeque;

use folkmoot_proto::client::Operation;
use folkmoot_proto::limits::CHUNK_BYTES_MAX;
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{Digest, Zxid};

use crate::asked::Pending;
use crate::error::{InstallError, ReadError, WriteError};
use crate::session::{Session, misfit};

/// Chunks under way at once: 1 MiB, which fills a round trip and crowds out nobody.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A component's size is carried in 32 bits.
const COMPONENT_BYTES_MAX: usize = u32::MAX as usize;

/// Where the kernel lists installed components, by digest.
const PLUGINS: &str = "/folkmoot/plugins";
/// Where the kernel lists mounts, by id.
const MOUNTS: &str = "/folkmoot/mounts";

/// A component that is installed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PluginInfo {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its name for people.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it says of itself, in JSON: name, version, operations with their schemas.
    pub description: String,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MountInfo {
    /// Where.
    pub path: String,
    /// Its component.
    pub digest: Digest,
    /// What the plugin's `configure` got.
    pub config: String,
    /// The transaction that last put it.
    pub version: Zxid,
}

impl PluginInfo {
    /// What kind of plugin it is: `recipe`, which can be mounted, `rebalancer`, which plans partition
    /// maps, or `failure-detector`.
    #[must_use]
    pub fn world(&self) -> String {
        // Descriptions had no world while there were recipes alone.
        self.says("world").unwrap_or_else(|| "recipe".to_owned())
    }

    /// What the plugin says its version is.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        self.says("version")
    }

    fn says(&self, field: &str) -> Option<String> {
        let description: serde_json::Value = serde_json::from_str(&self.description).ok()?;
        Some(description.get(field)?.as_str()?.to_owned())
    }
}

#[derive(serde::Deserialize)]
struct PluginNode {
    name: String,
    size: u64,
    description: String,
}

#[derive(serde::Deserialize)]
struct MountNode {
    path: String,
    digest: Digest,
    config: String,
    version: Zxid,
}

impl Session {
    /// Installs a component under a name. It is sent in chunks, examined, and compiled by every
    /// member; a component that is there already is not sent again.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let digest = session.install(&std::fs::read("lock.wasm")?, "lock").await?;
    /// session.mount("/locks", digest, "").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// It is too large, or no component that can be a plugin: then the refusal says why.
    pub async fn install(&self, component: &[u8], name: &str) -> Result<Digest, InstallError> {
        let digest = Digest::of(component);
        let Ok(size) = u32::try_from(component.len()) else {
            let (bytes, limit) = (component.len(), COMPONENT_BYTES_MAX);
            return Err(InstallError::TooLarge { bytes, limit });
        };
        if matches!(
            self.exists(&format!("{PLUGINS}/{digest}")).await,
            Ok(Some(_))
        ) {
            return Ok(digest);
        }
        self.upload(digest, size, component).await?;
        let install = Operation::Install {
            digest,
            name: name.to_owned(),
        };
        match self.request(install).await? {
            (_, Outcome::Installed) => Ok(digest),
            (_, other) => Err(WriteError::from(misfit(&other)).into()),
        }
    }

    async fn upload(&self, digest: Digest, size: u32, component: &[u8]) -> Result<(), WriteError> {
        let mut under_way: VecDeque<Pending> = VecDeque::new();
        let mut offset: u32 = 0;
        for chunk in component.chunks(CHUNK_BYTES_MAX) {
            if under_way.len() >= CHUNKS_IN_FLIGHT
                && let Some(mut oldest) = under_way.pop_front()
            {
                oldest.reply(self.request_timeout()).await?;
            }
            let data = chunk.to_vec();
            let operation = Operation::UploadChunk {
                digest,
                size,
                offset,
                data,
            };
            under_way.push_back(self.submit(operation, Vec::new())?);
            offset = offset.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        }
        for mut rest in under_way {
            rest.reply(self.request_timeout()).await?;
        }
        Ok(())
    }

    /// Mounts an installed component at a path, or gives the mount that is there another component
    /// or configuration. A component that keeps its nodes in another way than the one before brings
    /// them to its own in the same transaction; the way back is another such call.
    ///
    /// # Errors
    ///
    /// The component is not installed, it refuses its configuration or has no way from the nodes
    /// that are there, or another mount is in the way. The mount is as it was.
    pub async fn mount(
        &self,
        path: &str,
        digest: Digest,
        config: impl Into<Vec<u8>>,
    ) -> Result<Zxid, WriteError> {
        let operation = Operation::Mount {
            path: path.to_owned(),
            digest,
            config: config.into(),
        };
        match self.request(operation).await? {
            (zxid, Outcome::Mounted) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Removes a mount; its waits end, its nodes stay.
    ///
    /// # Errors
    ///
    /// Nothing is mounted there.
    pub async fn unmount(&self, path: &str) -> Result<Zxid, WriteError> {
        match self
            .request(Operation::Unmount {
                path: path.to_owned(),
            })
            .await?
        {
            (zxid, Outcome::Unmounted) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Removes an installed component. A mount that had it before can not go back to it then,
    /// unless it is installed again.
    ///
    /// # Errors
    ///
    /// It is not installed, or a mount has it.
    pub async fn remove_plugin(&self, digest: Digest) -> Result<Zxid, WriteError> {
        match self.request(Operation::RemoveComponent { digest }).await? {
            (zxid, Outcome::ComponentRemoved) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// Asks an installed policy whether it takes a configuration, and changes nothing. A policy is pure:
    /// what it takes now, it takes once it is chosen.
    ///
    /// # Errors
    ///
    /// [`Refusal::Rejected`](crate::Refusal::Rejected) with what the policy says,
    /// [`Refusal::PluginFault`](crate::Refusal::PluginFault) if it faults or says nothing for 10 s; or the
    /// component is not installed, or no policy.
    pub async fn try_policy(&self, choice: PolicyChoice) -> Result<(), WriteError> {
        match self.request(Operation::TryPolicy { choice }).await? {
            (_, Outcome::PolicyTook) => Ok(()),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    /// The components that are installed, by name.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn plugins(&self) -> Result<Vec<PluginInfo>, ReadError> {
        let mut plugins = Vec::new();
        for (name, node) in self.kernel_nodes::<PluginNode>(PLUGINS).await? {
            let digest = name.parse().map_err(|_| misfit(&name))?;
            let PluginNode {
                name,
                size,
                description,
            } = node;
            plugins.push(PluginInfo {
                digest,
                name,
                size,
                description,
            });
        }
        plugins.sort_by(|one, other| (&one.name, one.digest).cmp(&(&other.name, other.digest)));
        Ok(plugins)
    }

    /// The mounts, by path.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn mounts(&self) -> Result<Vec<MountInfo>, ReadError> {
        let nodes = self.kernel_nodes::<MountNode>(MOUNTS).await?;
        let mut mounts: Vec<_> = nodes
            .into_iter()
            .map(
                |(
                    _,
                    MountNode {
                        path,
                        digest,
                        config,
                        version,
                    },
                )| MountInfo {
                    path,
                    digest,
                    config,
                    version,
                },
            )
            .collect();
        mounts.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(mounts)
    }

    /// The nodes that the kernel keeps in a directory of its own, read as JSON.
    async fn kernel_nodes<T: serde::de::DeserializeOwned>(
        &self,
        directory: &str,
    ) -> Result<Vec<(String, T)>, ReadError> {
        let mut nodes = Vec::new();
        for name in self.children(directory).await?.names {
            let node = match self.get(&format!("{directory}/{name}")).await {
                Ok(node) => node,
                // It went between the listing and this.
                Err(ReadError::Refused(crate::ReadRefusal::NoNode { .. })) => continue,
                Err(error) => return Err(error),
            };
            let parsed = serde_json::from_slice(&node.data).map_err(|error| misfit(&error))?;
            nodes.push((name, parsed));
        }
        Ok(nodes)
    }
}
