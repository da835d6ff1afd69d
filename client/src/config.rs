//! How a client finds its cluster, and proves who it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigError;

/// Where the members are, and the certificates to talk to them.
///
/// ```
/// use std::time::Duration;
/// use folkmoot_client::ClientConfig;
///
/// # let (ca, certificate, key) = (Vec::new(), Vec::new(), Vec::new());
/// let config = ClientConfig::new(["10.0.0.1:7401", "10.0.0.2:7401"], ca, certificate, key)
///     .session_timeout(Duration::from_secs(6));
/// assert_eq!(config.endpoints.len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses of members, `HOST:PORT`. One that answers is enough: it names the others.
    pub endpoints: Vec<String>,
    /// The cluster's CA, in PEM.
    pub ca: Vec<u8>,
    /// This client's certificate, in PEM.
    pub certificate: Vec<u8>,
    /// Its key, in PEM.
    pub key: Vec<u8>,
    /// After this long without an accepted heartbeat the cluster may expire a session. The
    /// cluster may refuse what is too short or too long. 10 s unless set.
    pub session_timeout: Duration,
    /// How long connecting and opening a session may take in all. 10 s unless set.
    pub connect_timeout: Duration,
    /// After this long a request without an answer is an error, whose outcome is unknown. Without
    /// it a request waits as long as its session lives, which without a leader is without an end.
    /// A call that waits, as for a lock that another holds, is bounded by it until the cluster has
    /// said that the call waits; the wait itself is not.
    pub request_timeout: Option<Duration>,
    /// Whether to use members that `endpoints` does not name, as members advertise them. A
    /// benchmark that means one member turns it off.
    pub learn_members: bool,
}

impl ClientConfig {
    /// A configuration with default times.
    #[must_use]
    pub fn new<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        ca: impl Into<Vec<u8>>,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
            session_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            request_timeout: None,
            learn_members: true,
        }
    }

    /// A configuration from PEM files.
    ///
    /// # Errors
    ///
    /// A file that can not be read.
    pub fn from_files<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        ca: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, ConfigError> {
        Ok(Self::new(
            endpoints,
            read(ca)?,
            read(certificate)?,
            read(key)?,
        ))
    }

    /// The configuration that the `folkmoot` command would use, from the environment:
    /// `FOLKMOOT_ENDPOINTS` with `FOLKMOOT_CA`, `FOLKMOOT_CERTIFICATE` and `FOLKMOOT_KEY`, which
    /// may each be left to the context file; the context file is named by `FOLKMOOT_CONTEXT`, or
    /// is the one that `folkmoot dev` writes.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = folkmoot_client::ClientConfig::from_environment()?;
    /// let client = folkmoot_client::Client::connect(config).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing names a cluster, or a file can not be read.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        ContextChoice {
            endpoints: std::env::var("FOLKMOOT_ENDPOINTS")
                .map(|list| split_endpoints(&list))
                .unwrap_or_default(),
            context: path("FOLKMOOT_CONTEXT"),
            ca: path("FOLKMOOT_CA"),
            certificate: path("FOLKMOOT_CERTIFICATE"),
            key: path("FOLKMOOT_KEY"),
        }
        .resolve()
    }

    /// Sets [`ClientConfig::session_timeout`].
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Sets [`ClientConfig::request_timeout`].
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }
}

/// What a person said of the cluster; the rest comes from the context file.
///
/// ```no_run
/// # fn example() -> Result<(), folkmoot_client::ConfigError> {
/// use folkmoot_client::{ContextChoice, split_endpoints};
/// let config = ContextChoice {
///     endpoints: split_endpoints("10.0.0.1:7401,10.0.0.2:7401"),
///     ..ContextChoice::default()
/// }
/// .resolve()?;
/// println!("{:?}", config.endpoints);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ContextChoice {
    /// Members' addresses; empty for the context's.
    pub endpoints: Vec<String>,
    /// A context file, in place of [`default_context`].
    pub context: Option<PathBuf>,
    /// The CA's file.
    pub ca: Option<PathBuf>,
    /// The certificate's file.
    pub certificate: Option<PathBuf>,
    /// The key's file.
    pub key: Option<PathBuf>,
}

impl ContextChoice {
    /// The configuration: what was said, and the context file's for the rest.
    ///
    /// # Errors
    ///
    /// Nothing names a cluster, or a file can not be read.
    pub fn resolve(self) -> Result<ClientConfig, ConfigError> {
        let whole = !self.endpoints.is_empty()
            && self.ca.is_some()
            && self.certificate.is_some()
            && self.key.is_some();
        let context = if whole {
            None
        } else {
            Some(Context::load(self.context.as_deref())?)
        };
        let from_context = |said: Option<PathBuf>, of: fn(&Context) -> &PathBuf| {
            said.or_else(|| context.as_ref().map(|context| of(context).clone()))
                .unwrap_or_default()
        };
        let endpoints = match &context {
            Some(context) if self.endpoints.is_empty() => context.endpoints.clone(),
            _ => self.endpoints,
        };
        ClientConfig::from_files(
            endpoints,
            &from_context(self.ca, |context| &context.ca),
            &from_context(self.certificate, |context| &context.certificate),
            &from_context(self.key, |context| &context.key),
        )
    }
}

/// A context file: how to reach one cluster. Paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Members' addresses, `HOST:PORT`.
    pub endpoints: Vec<String>,
    /// The CA's file.
    pub ca: PathBuf,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

impl Context {
    /// Reads a context file: the one named, or [`default_context`].
    ///
    /// # Errors
    ///
    /// It is not there, or not a context file.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = default_context();
        let Some(file) = path.or(default.as_deref()) else {
            return Err(ConfigError::NoContext {
                default: "a context file".to_owned(),
            });
        };
        if path.is_none() && !file.exists() {
            return Err(ConfigError::NoContext {
                default: file.display().to_string(),
            });
        }
        let bytes = read(file)?;
        let refuse = |reason: String| ConfigError::Context {
            path: file.display().to_string(),
            reason,
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| refuse(error.to_string()))?;
        let context: Self =
            toml::from_str(text).map_err(|error| refuse(error.message().to_owned()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        Ok(Self {
            endpoints: context.endpoints,
            ca: folder.join(context.ca),
            certificate: folder.join(context.certificate),
            key: folder.join(context.key),
        })
    }
}

/// The user's context file: `$XDG_CONFIG_HOME/folkmoot/context.toml`, or that below
/// `$HOME/.config`; none if neither variable is set.
#[must_use]
pub fn default_context() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("folkmoot").join("context.toml"))
}

/// The endpoints of a list separated by commas, as `FOLKMOOT_ENDPOINTS` has it.
#[must_use]
pub fn split_endpoints(list: &str) -> Vec<String> {
    let trimmed = list.split(',').map(str::trim);
    trimmed
        .filter(|endpoint| !endpoint.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_of_a_context_is_refused() {
        let folder = std::env::temp_dir().join(format!("folkmoot-context-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("context.toml");
        let good = "endpoints = [\"a:1\"]\nca = \"ca.pem\"\ncertificate = \"c\"\nkey = \"k\"\n";
        std::fs::write(&file, good).unwrap();
        let context = Context::load(Some(&file)).unwrap();
        assert_eq!(context.ca, folder.join("ca.pem"));
        std::fs::write(&file, format!("{good}colour = 1\n")).unwrap();
        let error = Context::load(Some(&file)).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Context { reason, .. } if reason.contains("colour")),
            "{error}"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn endpoints_are_split_at_commas() {
        assert_eq!(split_endpoints("a:1, b:2,,"), ["a:1", "b:2"]);
    }
}
