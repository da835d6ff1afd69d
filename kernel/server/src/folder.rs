//! A member's data folder: who owns it, and whether it is the one that it was.
//!
//! ```text
//! DATA/lock                      held (flock) by the process that uses the folder
//! DATA/identity.json             cluster, member, incarnation, and how the folder began
//! DATA/log/                      the write-ahead log
//! DATA/checkpoint/               the checkpoint
//! BOOTSTRAP.begun-by-MEMBER      beside the bootstrap file: this member has begun
//! ```
//!
//! The last file tells a first start from one on a folder that was lost: a member whose promises
//! are gone must not vote as if it had never made any (rule R21).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use folkmoot_proto::{ClusterId, Incarnation, MemberId};
use folkmoot_storage::make_private_folder;
use rustix::fs::{FlockOperation, flock};

use crate::StartError;

const IDENTITY: &str = "identity.json";
/// Permissions of a file that is its owner's alone.
const PRIVATE: u32 = 0o600;

/// An open data folder; locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
    identity: Identity,
}

/// How a folder began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// With its cluster.
    Bootstrap,
    /// In place of one that was lost.
    Wiped,
}

/// `identity.json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    cluster: ClusterId,
    member: MemberId,
    incarnation: Incarnation,
    origin: Origin,
    /// Whether its log was there once: then it must not be missing.
    begun: bool,
}

impl Folder {
    /// Opens the folder of `member`, or makes it.
    pub(crate) fn open(
        path: &Path,
        cluster: ClusterId,
        member: MemberId,
        bootstrap: &Path,
    ) -> Result<Self, StartError> {
        let unusable = |error: io::Error| StartError::Folder {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        make_private_folder(path).map_err(unusable)?;
        let lock = lock(path)?;
        let identity = match fs::read(path.join(IDENTITY)) {
            Ok(bytes) => owned(path, &bytes, cluster, member)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                begin(path, cluster, member, bootstrap)?
            }
            Err(error) => return Err(unusable(error)),
        };
        let mark = mark_path(bootstrap, member);
        if !mark.exists() {
            let text = format!("{}\n", identity.incarnation);
            write_durably(&mark, text.as_bytes())
                .map_err(|source| StartError::Mark { path: mark, source })?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            identity,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// Whether its log was never there.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.identity.begun
    }

    /// Its log is there.
    pub(crate) fn begun(&mut self) -> Result<(), StartError> {
        if self.identity.begun {
            return Ok(());
        }
        self.identity.begun = true;
        self.identity
            .write(&self.path)
            .map_err(|error| StartError::Folder {
                path: self.path.clone(),
                reason: error.to_string(),
            })
    }

    pub(crate) fn origin(&self) -> Origin {
        self.identity.origin
    }
}

fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join("lock");
    let unusable = |error: io::Error| StartError::Folder {
        path: folder.to_owned(),
        reason: format!("can not lock {}: {error}", path.display()),
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(&path)
        .map_err(unusable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::FolderInUse {
            path: folder.to_owned(),
        }),
        Err(error) => Err(unusable(error.into())),
    }
}

/// The identity of a folder that is there, which must be the configured one.
fn owned(
    path: &Path,
    bytes: &[u8],
    cluster: ClusterId,
    member: MemberId,
) -> Result<Identity, StartError> {
    let identity: Identity =
        serde_json::from_slice(bytes).map_err(|error| StartError::Damaged {
            path: path.to_owned(),
            reason: format!("identity.json: {error}"),
        })?;
    if identity.cluster != cluster {
        return Err(StartError::OtherCluster {
            path: path.to_owned(),
            folder: identity.cluster,
            configured: cluster,
        });
    }
    if identity.member != member {
        return Err(StartError::OtherMember {
            path: path.to_owned(),
            folder: identity.member,
            configured: member,
        });
    }
    Ok(identity)
}

/// Makes an empty folder this member's.
fn begin(
    path: &Path,
    cluster: ClusterId,
    member: MemberId,
    bootstrap: &Path,
) -> Result<Identity, StartError> {
    for part in ["log", "checkpoint"] {
        if path.join(part).exists() {
            return Err(StartError::Damaged {
                path: path.to_owned(),
                reason: format!("identity.json is missing beside {part}"),
            });
        }
    }
    let unusable = |error: io::Error| StartError::Folder {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let origin = match mark_path(bootstrap, member).exists() {
        true => Origin::Wiped,
        false => Origin::Bootstrap,
    };
    let identity = Identity {
        cluster,
        member,
        incarnation: Incarnation(random().map_err(unusable)?),
        origin,
        begun: false,
    };
    identity.write(path).map_err(unusable)?;
    Ok(identity)
}

impl Identity {
    fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        write_durably(&folder.join(IDENTITY), &bytes)
    }
}

fn mark_path(bootstrap: &Path, member: MemberId) -> PathBuf {
    let mut name = bootstrap.as_os_str().to_owned();
    name.push(format!(".begun-by-{member}"));
    name.into()
}

/// A file that is there whole or not at all, whatever happens.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(PRIVATE)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// 64 bits from the system.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([1; 16]);

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join("bootstrap.json"), b"{}").expect("writable");
            Self(folder)
        }

        fn data(&self) -> PathBuf {
            self.0.path().join("data")
        }

        fn open(&self, cluster: ClusterId, member: u64) -> Result<Folder, StartError> {
            let bootstrap = self.0.path().join("bootstrap.json");
            Folder::open(&self.data(), cluster, MemberId(member), &bootstrap)
        }
    }

    #[test]
    fn a_folder_keeps_its_incarnation() {
        let place = Place::new();
        let first = place.open(CLUSTER, 1).expect("made");
        assert_eq!(first.origin(), Origin::Bootstrap);
        let incarnation = first.incarnation();
        drop(first);
        let again = place.open(CLUSTER, 1).expect("opened");
        assert_eq!(again.incarnation(), incarnation);
        assert_eq!(again.origin(), Origin::Bootstrap);
    }

    /// Rule R21: a folder that was lost is not taken for a first start.
    #[test]
    fn r21_a_wiped_folder_is_told_from_a_new_one() {
        let place = Place::new();
        let first = place.open(CLUSTER, 1).expect("made").incarnation();
        fs::remove_dir_all(place.data()).expect("removable");
        let wiped = place.open(CLUSTER, 1).expect("made anew");
        assert_eq!(wiped.origin(), Origin::Wiped);
        assert_ne!(wiped.incarnation(), first);
        drop(wiped);
        assert_eq!(
            place.open(CLUSTER, 1).expect("opened").origin(),
            Origin::Wiped
        );
    }

    /// Sessions' secrets, and everything that clients wrote.
    #[test]
    fn what_is_made_is_its_owners_alone() {
        let place = Place::new();
        drop(place.open(CLUSTER, 1).expect("made"));
        let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(place.data()), 0o700);
        for file in ["lock", IDENTITY] {
            assert_eq!(mode(place.data().join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let place = Place::new();
        let _first = place.open(CLUSTER, 1).expect("made");
        assert!(matches!(
            place.open(CLUSTER, 1),
            Err(StartError::FolderInUse { .. })
        ));
    }

    #[test]
    fn another_clusters_or_members_folder_is_refused() {
        let place = Place::new();
        drop(place.open(CLUSTER, 1).expect("made"));
        assert!(matches!(
            place.open(ClusterId([2; 16]), 1),
            Err(StartError::OtherCluster { .. })
        ));
        assert!(matches!(
            place.open(CLUSTER, 2),
            Err(StartError::OtherMember { .. })
        ));
    }

    #[test]
    fn data_without_an_identity_is_refused_and_kept() {
        let place = Place::new();
        fs::create_dir_all(place.data().join("log")).expect("made");
        assert!(matches!(
            place.open(CLUSTER, 1),
            Err(StartError::Damaged { .. })
        ));
        assert!(!place.data().join("identity.json").exists());
    }
}
