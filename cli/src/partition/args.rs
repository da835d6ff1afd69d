//! What `folkmoot partition` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use folkmoot_client::PartitionId;
use folkmoot_proto::limits::MAP_PARTITIONS_MAX;

use crate::args::seconds;

#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// Give a group a partition map; the group is made if it is not there.
    #[command(after_help = "Example: folkmoot partition create shards --ranges 96 --replicas 2")]
    Create(Create),
    /// List the groups that have a map.
    #[command(after_help = "Example: folkmoot partition list")]
    List,
    /// Draw a map: members by zone, what each has, and what is under way.
    #[command(after_help = "Example: folkmoot partition map shards --watch --svg shards.svg")]
    Map(Map),
    /// Show what a policy would move, why, and what that costs. Nothing of it is done.
    #[command(after_help = "Example: folkmoot partition plan shards --policy sticky-balanced")]
    Plan {
        /// The group.
        group: String,
        #[command(flatten)]
        policy: Policy,
    },
    /// Say why a partition is where it is, and which members may own it.
    #[command(after_help = "Example: folkmoot partition explain shards 17")]
    Explain {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
    },
    /// Begin to move a partition to members, of which the first is to own it: within the
    /// invariants, outside the budget.
    #[command(after_help = "Example: folkmoot partition move shards 17 w4 w5")]
    Move {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// Who is to have it.
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// End a move whose owner was not yet told to let go.
    #[command(after_help = "Example: folkmoot partition cancel shards 17")]
    Cancel(OnePartition),
    /// Have nothing moved for balance any more; with partitions: keep these where they are.
    #[command(after_help = "Example: folkmoot partition freeze shards")]
    Freeze(MapOrPartitions),
    /// Take `freeze` back.
    #[command(after_help = "Example: folkmoot partition unfreeze shards 0-7")]
    Unfreeze(MapOrPartitions),
    /// Let the plan that waits for approval be carried out, or ask a policy again that was not
    /// asked any more.
    #[command(after_help = "Example: folkmoot partition approve shards")]
    Approve {
        /// The group.
        group: String,
    },
    /// Split a range in two halves, which its owner gets with new tokens.
    #[command(after_help = "Example: folkmoot partition split shards 17")]
    Split(OnePartition),
    /// Let only one member own partitions, or take that back.
    #[command(after_help = "Example: folkmoot partition pin shards 0-3 --to w1")]
    Pin {
        /// The group.
        group: String,
        /// The partitions, as N or N-M.
        #[arg(required = true, value_name = "PARTITIONS", value_parser = span)]
        partitions: Vec<Span>,
        /// The member. Without it the pin is taken away.
        #[arg(long, value_name = "MEMBER")]
        to: Option<String>,
    },
    /// Say something of partitions: what they weigh, what moving them costs, who may have them.
    #[command(
        after_help = "Example: folkmoot partition set shards 0-3 --weight 4,100 --allow w1,w2"
    )]
    Set(Set),
    /// Keep a map differently: what is not named stays as it is.
    #[command(after_help = "Example: folkmoot partition configure shards --policy rendezvous")]
    Configure {
        /// The group.
        group: String,
        #[command(flatten)]
        options: Options,
    },
    /// Take a map away. Its members must be gone.
    #[command(after_help = "Example: folkmoot partition remove shards")]
    Remove {
        /// The group.
        group: String,
    },
    /// Say which member owns the partitions of keys.
    #[command(after_help = "Example: folkmoot partition route shards user:17 user:18")]
    Route {
        /// The group.
        group: String,
        /// The keys.
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Judge rebalancers offline: the same churn for each, what they move against the least that
    /// could have been moved, and how even it is afterwards. It asks no cluster.
    #[command(after_help = "Example: folkmoot partition simulate --churn zone-loss --svg pictures")]
    Simulate(Simulate),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The group.
    pub(crate) group: String,
    /// So many ranges of the hash of a key.
    #[arg(long, value_name = "COUNT", required_unless_present = "name")]
    pub(crate) ranges: Option<u32>,
    /// A partition of this name, in place of ranges. May be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "ranges")]
    pub(crate) name: Vec<String>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// How a map is kept.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Replicas of each partition, the owner's among them; 1 to 7. [new maps: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas: Option<u32>,
    #[command(flatten)]
    pub(crate) policy: Policy,
    /// Whether a replica says itself when it has caught up, and only then may own. Without that
    /// each is ready at once, as for processes that do not speak of partitions. [new maps: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) readiness: Option<bool>,
    /// Seconds that the work of a member that is gone waits for it. [new maps: 30]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) offline_delay: Option<f64>,
    /// Seconds that a replica may take to catch up; at least 0.1. [new maps: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) prepare_timeout: Option<f64>,
    /// Seconds that an owner may take to let go, while its lease lasts. [new maps: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) revoke_timeout: Option<f64>,
    /// Seconds that a partition stays with its owner before it is moved for balance. [new maps: 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) residence: Option<f64>,
    /// Moves under way in the map; 1 to 4096. [new maps: 256]
    #[arg(long, value_name = "COUNT")]
    pub(crate) moves: Option<u32>,
    /// Moves under way to or from one member; 1 to 4096. [new maps: 32]
    #[arg(long, value_name = "COUNT")]
    pub(crate) member_moves: Option<u32>,
    /// Moves for balance that begin in a minute; 0 to a million. [new maps: 1000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) balance_per_minute: Option<u32>,
    /// Moves of what has no owner that begin in a minute; 1 to a million. [new maps: 100000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) recovery_per_minute: Option<u32>,
    /// The first plan of another policy waits for approval if it moves more of the partitions than
    /// this; 0 to 100. [new maps: 30]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) approval_percent: Option<u32>,
}

/// Which policy.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// An installed rebalancer: its name, or its digest (or the first digits of it); `none` for the
    /// kernel's own, which only gives owners to what has none.
    #[arg(long)]
    pub(crate) policy: Option<String>,
    /// What the policy is configured with.
    #[arg(long, value_name = "JSON")]
    pub(crate) policy_config: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Map {
    /// The group.
    pub(crate) group: String,
    /// Draw it in this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Draw it again when it changes, until interrupted.
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch: end after as many changes.
    #[arg(long, value_name = "CHANGES", requires = "watch")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct OnePartition {
    /// The group.
    pub(crate) group: String,
    /// The partition.
    pub(crate) partition: u32,
}

#[derive(Debug, Args)]
pub(crate) struct MapOrPartitions {
    /// The group.
    pub(crate) group: String,
    /// Partitions, as N or N-M; without any it is the map.
    #[arg(value_name = "PARTITIONS", value_parser = span)]
    pub(crate) partitions: Vec<Span>,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Set {
    /// The group.
    pub(crate) group: String,
    /// The partitions, as N or N-M.
    #[arg(required = true, value_name = "PARTITIONS", value_parser = span)]
    pub(crate) partitions: Vec<Span>,
    /// What each replica weighs; up to four dimensions, separated by commas.
    #[arg(long, value_delimiter = ',', group = "what")]
    pub(crate) weight: Vec<u64>,
    /// What it costs to move a replica, in a unit of yours.
    #[arg(long, value_name = "COST", group = "what")]
    pub(crate) move_cost: Option<u64>,
    /// The only members that may have them, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "MEMBERS", group = "what")]
    pub(crate) allow: Vec<String>,
    /// Any member may have them.
    #[arg(long, conflicts_with = "allow", group = "what")]
    pub(crate) allow_all: bool,
}

/// Partitions that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    first: u32,
    last: u32,
}

fn span(text: &str) -> Result<Span, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok();
    let span = number(first).zip(number(last));
    let span = span.map(|(first, last)| Span { first, last });
    let most = u32::try_from(MAP_PARTITIONS_MAX).unwrap_or(u32::MAX);
    span.filter(|of| of.first <= of.last && of.last - of.first < most)
        .ok_or_else(|| format!("{text:?} is no partition, and no N-M with N <= M"))
}

/// All of them, in the order in which they were named.
pub(crate) fn partitions(spans: &[Span]) -> Vec<PartitionId> {
    let each = spans.iter().flat_map(|span| span.first..=span.last);
    each.map(PartitionId).collect()
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Members at the beginning.
    #[arg(long, default_value_t = 12, value_parser = simulated_members)]
    pub(crate) members: usize,
    /// Partitions.
    #[arg(long, default_value_t = 240, value_parser = simulated_partitions)]
    pub(crate) partitions: usize,
    /// What happens: the name of a trace, or all.
    #[arg(long, value_name = "TRACE", default_value = "all")]
    pub(crate) churn: String,
    /// A standard policy, a model of another system's, or all.
    #[arg(long, default_value = "all")]
    pub(crate) policy: String,
    /// What chance is made of.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A folder for pictures, one a trace: load over members, and moves so far.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) svg: Option<PathBuf>,
}

fn simulated_members(text: &str) -> Result<usize, String> {
    number(text, 2_000)
}

fn simulated_partitions(text: &str) -> Result<usize, String> {
    number(text, 200_000)
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{text:?} is no number between 1 and {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_one_by_one_or_from_one_to_another() {
        let spans = [span("7").unwrap(), span("0-2").unwrap()];
        let named: Vec<u32> = partitions(&spans).iter().map(|of| of.0).collect();
        assert_eq!(named, [7, 0, 1, 2]);
        for text in ["", "-", "x", "3-1", "1-", "-1", "0-4294967295"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
