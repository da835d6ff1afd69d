//! The configuration of one member: `server.toml`.
//!
//! ```toml
//! member = 1
//! data = "data"
//! bootstrap = "bootstrap.json"
//!
//! [peer]
//! listen = "0.0.0.0:7101"
//! advertise = "m1.example.net:7101"
//!
//! [client]
//! listen = "0.0.0.0:7201"
//! advertise = "m1.example.net:7201"
//!
//! [tls]
//! ca = "ca.pem"
//! certificate = "member.pem"
//! key = "member.key"
//! ```
//!
//! Paths are relative to the file. An unknown key is an error, so that a misspelt one is not
//! silently ignored. Who the members are is not configured here: it is in the log (rule R21).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use folkmoot_proto::MemberId;

/// Smallest segment of the log: a few transactions at their limit.
pub const SEGMENT_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Largest segment of the log: zeroing a larger one takes seconds on a slow disk.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// This member, as in the bootstrap file.
    pub member: MemberId,
    /// Its data folder. It is made if it is not there.
    pub data: PathBuf,
    /// The bootstrap file, which all members of a cluster share byte for byte.
    pub bootstrap: PathBuf,
    /// Where the other members reach it.
    pub peer: Endpoint,
    /// Where clients reach it.
    pub client: Endpoint,
    /// Its certificate and its cluster's authority.
    pub tls: Tls,
    /// The write-ahead log.
    #[serde(default)]
    pub log: Log,
}

/// An address to listen on, and the one that others use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The local address, `IP:PORT`.
    pub listen: SocketAddr,
    /// How others reach it, `HOST:PORT`: the same as in the bootstrap file.
    pub advertise: String,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate of the cluster's only authority.
    pub ca: PathBuf,
    /// The member's certificate.
    pub certificate: PathBuf,
    /// The member's private key.
    pub key: PathBuf,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes of one segment, between [`SEGMENT_BYTES_MIN`] and [`SEGMENT_BYTES_MAX`].
    #[serde(default = "default_segment_bytes")]
    pub segment_bytes: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            segment_bytes: default_segment_bytes(),
        }
    }
}

/// 64 MiB: rare changes of segment at tens of MiB a second, and two of them zeroed in a second.
const fn default_segment_bytes() -> u64 {
    64 * 1024 * 1024
}

/// Why a configuration can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can not be read.
    #[error("can not read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, not of this shape, or with a key that is not known. The text names the line.
    #[error("the configuration {} is not valid: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// Member ids begin with 1.
    #[error("member is 0 in the configuration {}: ids begin with 1", path.display())]
    MemberZero {
        /// The file.
        path: PathBuf,
    },
    /// The segments are too small or too large.
    #[error(
        "log.segment_bytes is {actual} in the configuration {}: \
         it must be between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX} and a multiple of 4096",
        path.display()
    )]
    SegmentBytes {
        /// The file.
        path: PathBuf,
        /// What it says.
        actual: u64,
    },
}

impl ServerConfig {
    /// Reads `server.toml`. Paths in it become relative to the working folder, or absolute.
    ///
    /// # Errors
    ///
    /// The file can not be read or is not valid.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::from_toml(&text, path)
    }

    /// Reads the text of the configuration file `path`, which need not be there.
    ///
    /// # Errors
    ///
    /// The text is not valid.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if config.member == MemberId::ZERO {
            return Err(ConfigError::MemberZero {
                path: path.to_owned(),
            });
        }
        let actual = config.log.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&actual)
            || !actual.is_multiple_of(4096)
        {
            return Err(ConfigError::SegmentBytes {
                path: path.to_owned(),
                actual,
            });
        }
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        for path in [
            &mut self.data,
            &mut self.bootstrap,
            &mut self.tls.ca,
            &mut self.tls.certificate,
            &mut self.tls.key,
        ] {
            // Joining an absolute path gives that path.
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
member = 2
data = "data"
bootstrap = "../bootstrap.json"
[peer]
listen = "127.0.0.1:7101"
advertise = "localhost:7101"
[client]
listen = "[::1]:7201"
advertise = "localhost:7201"
[tls]
ca = "/etc/folkmoot/ca.pem"
certificate = "member.pem"
key = "member.key"
"#;

    fn parse(text: &str) -> Result<ServerConfig, ConfigError> {
        ServerConfig::from_toml(text, Path::new("conf/server.toml"))
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = parse(TEXT).expect("valid");
        assert_eq!(config.member, MemberId(2));
        assert_eq!(config.data, Path::new("conf/data"));
        assert_eq!(config.bootstrap, Path::new("conf/../bootstrap.json"));
        assert_eq!(config.tls.ca, Path::new("/etc/folkmoot/ca.pem"));
        assert_eq!(config.log.segment_bytes, 64 * 1024 * 1024);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for text in [
            format!("dta = \"x\"\n{TEXT}"),
            format!("{TEXT}\n[log]\nsegment_byte = 8388608"),
            format!("{TEXT}\ncipher = \"none\""),
        ] {
            let error = parse(&text).expect_err("an unknown key");
            assert!(matches!(error, ConfigError::Malformed { .. }), "{error}");
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn segment_bytes_are_checked_at_the_caps() {
        let with = |bytes: u64| parse(&format!("{TEXT}\n[log]\nsegment_bytes = {bytes}"));
        assert!(with(SEGMENT_BYTES_MIN).is_ok());
        assert!(with(SEGMENT_BYTES_MAX).is_ok());
        for bytes in [
            SEGMENT_BYTES_MIN - 4096,
            SEGMENT_BYTES_MAX + 4096,
            SEGMENT_BYTES_MIN + 1,
        ] {
            let error = with(bytes).expect_err("beyond the caps");
            assert!(matches!(error, ConfigError::SegmentBytes { .. }), "{error}");
        }
    }

    #[test]
    fn a_written_configuration_reads_back() {
        let config = parse(TEXT).expect("valid");
        let text = toml::to_string(&config).expect("serializable");
        let back = ServerConfig::from_toml(&text, Path::new("server.toml")).expect("valid");
        assert_eq!(config, back);
    }
}
