//! Why a member does not start, and why it ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use folkmoot_proto::bootstrap::BootstrapError;
use folkmoot_proto::{ClusterId, MemberId};

use crate::tls::CertificateError;
use crate::transport::EndpointError;

/// Why a member does not start. Nothing was changed on disk, unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bootstrap file can not be read.
    #[error("can not read the bootstrap file {}: {source}", path.display())]
    BootstrapUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bootstrap file is not valid.
    #[error("the bootstrap file {} can not be used: {source}", path.display())]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BootstrapError,
    },
    /// The cluster has no such member.
    #[error("the cluster has no member {member}: see {}", path.display())]
    NotAMember {
        /// The configured member.
        member: MemberId,
        /// The bootstrap file.
        path: PathBuf,
    },
    /// The other members and the clients were told another address.
    #[error(
        "{what}.advertise is {configured}, but the cluster was made with {bootstrapped} \
         for member {member}: correct the configuration"
    )]
    Advertised {
        /// `peer` or `client`.
        what: &'static str,
        /// The member.
        member: MemberId,
        /// The configured address.
        configured: String,
        /// The address in the bootstrap file.
        bootstrapped: String,
    },
    /// Certificates or keys can not be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Another process listens there.
    #[error(
        "the port of {what}.listen = {address} is taken: \
         stop what uses it, or configure another one"
    )]
    PortTaken {
        /// `peer` or `client`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address can not be listened on.
    #[error("can not listen on {what}.listen = {address}: {source}")]
    Listen {
        /// `peer` or `client`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An endpoint can not be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Another process uses the data folder.
    #[error("the data folder {} is in use by another process: stop it first", path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder is another cluster's.
    #[error(
        "the data folder {} belongs to cluster {folder}, not to {configured}: \
         configure another folder, or the bootstrap file of that cluster",
        path.display()
    )]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// Its cluster.
        folder: ClusterId,
        /// The cluster of the bootstrap file.
        configured: ClusterId,
    },
    /// The data folder is another member's.
    #[error(
        "the data folder {} belongs to member {folder}, not to {configured}: \
         two members must never share a folder",
        path.display()
    )]
    OtherMember {
        /// The folder.
        path: PathBuf,
        /// Its member.
        folder: MemberId,
        /// The configured member.
        configured: MemberId,
    },
    /// The log or the checkpoint is damaged beyond what a member may repair by itself.
    #[error(
        "the data in {} is damaged: {reason}. Nothing was changed. What to do: move the folder away and \
         keep it. If a majority of the cluster's members is well without this one, start it again: it \
         makes a new folder, is filled from the others, and follows without a vote. If not, or if it \
         is the only member, put a copy of the folder back",
        path.display()
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is damaged.
        reason: String,
    },
    /// The data folder can not be used.
    #[error("can not use the data folder {}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The mark that this member has begun can not be written (rule R21).
    #[error(
        "can not write {}: {source}. It tells a first start from one on a lost folder: \
         keep the bootstrap file where this member may write",
        path.display()
    )]
    Mark {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or a runtime could not be made.
    #[error("can not start the {what}: {source}")]
    Thread {
        /// What.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The plugin host could not be started.
    #[error("can not start the plugin host: {reason}")]
    PluginHost {
        /// What is wrong.
        reason: String,
    },
}

/// Why a member ended by itself. It must not be started again before someone has looked, except
/// after [`RunError::Disk`] once the disk is well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The disk failed. What was acknowledged is on the disks of a majority (rule R22).
    #[error("the disk failed and the member stopped: {reason}")]
    Disk {
        /// What the disk said.
        reason: String,
    },
    /// This member's state is not what the log says (rules R3, R5, R27).
    #[error("this member's state is wrong and it stopped: {reason}")]
    WrongState {
        /// What was found.
        reason: String,
    },
    /// Something did not end in time after the member was told to stop.
    #[error("the member did not stop in time: a write to its disk is stuck")]
    Stuck,
    /// An endpoint accepts nobody any more, though nobody closed it.
    #[error("the socket for {what} failed and the member stopped; the log says how")]
    Socket {
        /// `peers` or `clients`.
        what: &'static str,
    },
    /// A thread ended with a panic; its text is in the log.
    #[error("the {thread} thread ended with a panic: this is a defect, please report it")]
    Panicked {
        /// The thread.
        thread: &'static str,
    },
    /// A thread ended and no other had said why.
    #[error("the {thread} thread ended by itself: this is a defect, please report it")]
    Ended {
        /// The thread.
        thread: &'static str,
    },
}
