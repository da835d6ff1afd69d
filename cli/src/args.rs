//! What the command takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::init::MemberSpec;
use crate::partition::args::Partition;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    refused: a typed \"no\", such as no-node, bad-version or a plugin's rejection;
       or a server that ended by itself
  2    usage or configuration
  3    no member answers, or there is no leader
  4    the outcome is unknown: the request may have taken effect, or its reply is not understood
  130  interrupted
  141  whoever read the output is gone
  `lock` passes COMMAND's own code on; 75 when the lock was not to be had in time, or was lost,
  126 or 127 when COMMAND can not be run. With --output json a failure of its own is told on stderr.

Data goes to stdout, everything else to stderr. With --output json an error is one line of JSON.";

/// Folkmoot: locks, leader election, membership and configuration for a distributed system.
#[derive(Debug, Parser)]
#[command(name = "folkmoot", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the cluster is, and how results are written.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Members' addresses for clients, HOST:PORT, separated by commas.
    #[arg(long, env = "FOLKMOOT_ENDPOINTS", global = true, value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// A context file: endpoints and certificates of one cluster.
    #[arg(long, env = "FOLKMOOT_CONTEXT", global = true, value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
    /// The certificate of the cluster's authority.
    #[arg(long, env = "FOLKMOOT_CA", global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate.
    #[arg(long, env = "FOLKMOOT_CERTIFICATE", global = true, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// The client's key.
    #[arg(long, env = "FOLKMOOT_KEY", global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How results are written.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Seconds until a request without an answer is given up, its outcome unknown.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// The session's timeout in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) session_timeout: f64,
    /// What happens inside, on stderr; twice for more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs; a stream is one document a line.
    Json,
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is no number of seconds"))?;
    if (0.0..=1e6).contains(&value) {
        Ok(value)
    } else {
        Err("seconds are between 0 and 1000000".to_owned())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the files of a new cluster: its authority, and a folder for each member.
    Init(Init),
    /// Run a member.
    Server {
        /// The member's server.toml.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a cluster of one member, for development.
    Dev(Dev),
    /// Print a node's value.
    Get {
        /// The node.
        path: String,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Set a node's value.
    Set {
        /// The node.
        path: String,
        #[command(flatten)]
        value: Value,
        /// Only if the node has this version.
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
        #[command(flatten)]
        guards: Guards,
    },
    /// Create a node, and print its path.
    Create(Create),
    /// Delete a node without children.
    Delete {
        /// The node.
        path: String,
        /// Only if the node has this version.
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
        #[command(flatten)]
        guards: Guards,
    },
    /// List the names of a node's children.
    Ls {
        /// The node.
        #[arg(default_value = "/")]
        path: String,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Print a node's stat.
    Stat {
        /// The node.
        path: String,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Print changes as they happen, until interrupted.
    Watch(Watch),
    /// Call a plugin's operation, and print its reply.
    Call {
        /// The path of the plugin's mount.
        mount: String,
        /// The operation.
        operation: String,
        /// What the operation takes, JSON by convention; `-` for stdin.
        #[arg(default_value = "{}")]
        payload: String,
        #[command(flatten)]
        guards: Guards,
    },
    /// Run a command while holding a lock.
    Lock(Lock),
    /// Install and list plugins.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Mount plugins, and list mounts.
    #[command(subcommand)]
    Mount(Mount),
    /// Join groups, and look at their members.
    #[command(subcommand)]
    Member(Member),
    /// Look at the cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Partition maps: which member of a group owns which partition.
    #[command(subcommand)]
    Partition(Partition),
    /// Choose failure detectors, and judge them.
    #[command(subcommand)]
    Detector(crate::detector::Detector),
    /// Measure a cluster with a closed loop of clients.
    Bench(crate::bench::Bench),
    /// Compile a component: what a member runs in a process of its own.
    #[command(hide = true)]
    CompileComponent {
        /// The component.
        component: PathBuf,
        /// Where the code goes.
        compiled: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The members: ID=HOST:PEERPORT/CLIENTPORT, separated by commas; 1, 3 or 5 of them.
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "ID=HOST:PEER/CLIENT"
    )]
    pub(crate) members: Vec<MemberSpec>,
    /// The folder to make. It must not be there, or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Bytes of a log segment.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    pub(crate) segment_bytes: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The folder of data and certificates; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./folkmoot-data")]
    pub(crate) data: PathBuf,
    /// A folder of components, and of more in a folder `policies` below it: each is installed, and
    /// `lock.wasm` is mounted at /locks, `counter.wasm` at /counter.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Option<PathBuf>,
    /// The port for clients, on 127.0.0.1; kept from the first start on.
    #[arg(long, default_value_t = 7201)]
    pub(crate) client_port: u16,
    /// The port for members, on 127.0.0.1; kept from the first start on.
    #[arg(long, default_value_t = 7101)]
    pub(crate) peer_port: u16,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ReadOptions {
    /// Reflect everything that was done anywhere before this command.
    #[arg(long)]
    pub(crate) linearizable: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Value {
    /// The value; `-` for stdin.
    #[arg(required_unless_present = "file")]
    pub(crate) value: Option<String>,
    /// Take the value from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Guards {
    /// Only while a node with this czxid (a fencing token) is at this path. May be repeated.
    #[arg(long = "guard", value_name = "PATH=TOKEN", value_parser = guard)]
    pub(crate) guards: Vec<folkmoot_client::Guard>,
}

fn guard(text: &str) -> Result<folkmoot_client::Guard, String> {
    let (path, token) = text.rsplit_once('=').ok_or("a guard is PATH=TOKEN")?;
    let token = token
        .parse()
        .map_err(|_| format!("{token:?} is no token"))?;
    Ok(folkmoot_client::Guard {
        path: path.to_owned(),
        token: folkmoot_client::Zxid(token),
    })
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The node; a sequential one gets a number behind this.
    pub(crate) path: String,
    /// The value; `-` for stdin.
    #[arg(default_value = "")]
    pub(crate) value: String,
    /// Append the parent's counter, in 20 digits.
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Bind the node to this command's session: it goes when the command is interrupted.
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Create missing parents, each in a transaction of its own.
    #[arg(long, short)]
    pub(crate) parents: bool,
    #[command(flatten)]
    pub(crate) guards: Guards,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The node.
    pub(crate) path: String,
    /// The node's children, too.
    #[arg(long, conflicts_with = "recursive")]
    pub(crate) children: bool,
    /// Everything below the node, too.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Changes after this zxid.
    #[arg(long, value_name = "ZXID", conflicts_with = "read")]
    pub(crate) from: Option<u64>,
    /// The nodes first, as of one zxid.
    #[arg(long)]
    pub(crate) read: bool,
    /// With the nodes' values.
    #[arg(long)]
    pub(crate) data: bool,
    /// End after as many transactions.
    #[arg(long, value_name = "TRANSACTIONS")]
    pub(crate) count: Option<u64>,
}

/// Runs COMMAND while the lock is held, with FOLKMOOT_FENCING_TOKEN and FOLKMOOT_GUARD (PATH=TOKEN)
/// in its environment.
///
/// When the session is in jeopardy, COMMAND gets SIGTERM, and SIGKILL after the grace or when the
/// lease ends, whichever is first: it does not run on without the lock. SIGINT, SIGTERM, SIGHUP and
/// SIGQUIT are passed on; SIGTSTP (Ctrl-Z) pauses both. If this process is killed, COMMAND is, too;
/// what COMMAND started is not. SIGSTOP can not be noticed: writes that carry FOLKMOOT_GUARD are safe
/// even then.
///
/// COMMAND has a process group of its own, unless stdin is a terminal, which it can then read.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The lock: the path of a mount of the lock plugin, a slash, and a name.
    #[arg(value_name = "MOUNT/NAME")]
    pub(crate) lock: String,
    /// Seconds to wait for the lock; for ever without it, not at all with 0.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait: Option<f64>,
    /// Seconds that COMMAND has between SIGTERM and SIGKILL.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) grace: f64,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Install a component, and print its digest.
    Install {
        /// The component.
        file: PathBuf,
        /// Its name; the file's without one.
        #[arg(long)]
        name: Option<String>,
    },
    /// List what is installed.
    List,
    /// Ask a policy whether it takes a configuration. Nothing is changed.
    Check {
        /// An installed policy: its name, or its digest (or the first digits of it).
        plugin: String,
        /// The configuration.
        #[arg(long, default_value = "", hide_default_value = true)]
        config: String,
    },
    /// Remove a plugin that no mount has.
    Remove {
        /// An installed plugin: its name, or its digest (or the first digits of it).
        plugin: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mount {
    /// Mount a plugin, or give a mount another plugin or configuration: its nodes are migrated in
    /// the same transaction, or nothing changes. The way back is the same, with the plugin before.
    Add {
        /// Where.
        path: String,
        /// An installed plugin: its name, or its digest (or the first digits of it).
        plugin: String,
        /// What the plugin is configured with.
        #[arg(long, default_value = "", hide_default_value = true)]
        config: String,
    },
    /// Remove a mount; its nodes stay.
    Remove {
        /// Where.
        path: String,
    },
    /// List mounts.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// A line for each member; it needs no leader.
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Run COMMAND as a member of a group: alive while this command's session lives.
    Join(Join),
    /// A line for each member of a group.
    List {
        /// The group.
        group: String,
        /// Only members that live.
        #[arg(long)]
        live: bool,
    },
    /// Print the members, and then what changes, until interrupted.
    Watch {
        /// The group.
        group: String,
        /// End after as many changes.
        #[arg(long, value_name = "CHANGES")]
        count: Option<u64>,
    },
    /// Have a member give up what it has, over its restarts, too.
    Drain(OneMember),
    /// Take `drain` back.
    Undrain(OneMember),
    /// Remove what is kept of a member that is gone.
    Forget(OneMember),
    /// Ask whether members may stop at once: a yes is a permit, which is counted when others ask.
    ///
    /// They may if each partition that they have keeps a ready replica on a member that stays. A no
    /// is told with its reasons, and the exit code is 1.
    #[command(after_help = "Example: folkmoot member safe-to-stop shards w1 w2 --for 120")]
    SafeToStop {
        /// The group, which has a partition map.
        group: String,
        /// The members.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Seconds that the permit holds; at most an hour.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
        ttl: f64,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct OneMember {
    /// The group.
    pub(crate) group: String,
    /// The member.
    pub(crate) id: String,
}

/// Runs COMMAND as a member of a group, with FOLKMOOT_GROUP, FOLKMOOT_MEMBER, FOLKMOOT_INCARNATION
/// and FOLKMOOT_GUARD (PATH=TOKEN, which holds while this incarnation lives) in its environment.
///
/// The member is there before COMMAND is started. When COMMAND ends, what it left in its process
/// group is ended, too, and the session is closed. When the lease of the session is over, so that the
/// cluster may say that the member is gone, COMMAND gets SIGTERM, and SIGKILL after the grace.
/// Signals are passed on as by `folkmoot lock`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The group; it is made if it is not there.
    pub(crate) group: String,
    /// The member's id.
    #[arg(long)]
    pub(crate) id: String,
    /// Where the member is reached, for those who look for it.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) address: String,
    /// Its place, from the outside in, such as zone/rack.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) zone: String,
    /// How much it can carry of what partitions weigh; up to four dimensions, separated by commas.
    /// Without it there is no limit.
    #[arg(long, value_delimiter = ',')]
    pub(crate) capacity: Vec<u64>,
    /// A fact to look for it by. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = fact)]
    pub(crate) meta: Vec<(String, String)>,
    /// Seconds that the member's work waits for it once COMMAND has ended, so that a restart moves
    /// nothing: it is announced then. Without it, as the group has it. At most a day.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) restart_delay: Option<f64>,
    /// Seconds that COMMAND has between SIGTERM and SIGKILL.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) grace: f64,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

fn fact(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a fact is KEY=VALUE")?;
    if key.is_empty() {
        return Err("a fact has a key".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}
