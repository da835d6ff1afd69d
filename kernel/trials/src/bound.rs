//! The least that has to be moved, from the policy's own state to one as even as what it planned.
//!
//! How even a plan is, is how far above and below their shares it leaves members, at the worst. The
//! bound asks for no more: every member must come between that far below its share and that far
//! above it.
//!
//! - Unit weights, one replica: counted. What has no place must be placed, what is above must go,
//!   what is below must come; one move can do two of these.
//! - Unit weights, several replicas: the cheapest flow from partitions over their zones to members,
//!   where a place that is kept costs nothing and a new one costs 1.
//! - Weights: the same count in weight, with partitions divisible at will: for one replica and no
//!   zones this is the optimum of the linear relaxation, since any surplus can be cut to fit.

use folkmoot_sdk::rebalancer::prelude::*;

use crate::flow::Graph;

/// Below this a difference is an error of rounding.
const EPSILON: f64 = 1e-6;
/// More costly than any number of moves.
const MUST: i64 = 1 << 40;
/// Above this number of partitions times members the cheapest flow takes too long, and the count,
/// which is lower, stands in.
const FLOW_MAX: usize = 20_000;

/// Where each partition is to be.
pub type Target = Each<PartitionRow, Vec<MemberRow>>;

/// What a plan moves, and the least that would have led to the same evenness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Moved, in replicas or in weight.
    pub moved: f64,
    /// The lower bound of that.
    pub bound: f64,
    /// The greatest load of a member as a part of its share.
    pub imbalance: f64,
}

/// Judges a target against the state that the input shows.
#[must_use]
pub fn judge(input: &Input, target: &Target) -> Judged {
    let weighs = Weighs::of(input);
    let shares = shares(input, weighs);
    let takers: Vec<MemberRow> = takers(input);
    let after = sums(input, weighs, |partition| target[partition.row].clone());
    let off = |row: &MemberRow| after[*row] - shares[*row];
    let above = takers.iter().map(off).fold(0.0, f64::max);
    let below = takers.iter().map(off).fold(0.0, f64::min);
    let band = Each::of(
        shares
            .values()
            .iter()
            .map(|share| weighs.rounded(share + below, share + above))
            .collect(),
    );
    let small = input.partitions().len() * input.members().len() <= FLOW_MAX;
    let several = input.partitions().any(|partition| partition.copies > 1);
    let bound = if several && small && weighs == Weighs::Replicas {
        cheapest(input, &band)
    } else {
        counted(input, weighs, &band)
    };
    let ratio = |row: &MemberRow| after[*row] / shares[*row].max(EPSILON);
    Judged {
        moved: moved(input, weighs, target),
        bound,
        imbalance: takers.iter().map(ratio).fold(0.0, f64::max),
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weighs {
    Replicas,
    Weight,
}

impl Weighs {
    fn of(input: &Input) -> Self {
        let mut weights = input.partitions().map(|partition| partition.weights[0]);
        let first = weights.next();
        if weights.all(|weight| Some(weight) == first) {
            Self::Replicas
        } else {
            Self::Weight
        }
    }

    fn weight(self, partition: &Partition) -> f64 {
        match self {
            Self::Replicas => 1.0,
            Self::Weight => partition.weights[0] as f64,
        }
    }

    /// The whole numbers within a band.
    fn rounded(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            Self::Replicas => ((low - EPSILON).ceil().max(0.0), (high + EPSILON).floor()),
            Self::Weight => (low, high),
        }
    }
}

fn moved(input: &Input, weighs: Weighs, target: &Target) -> f64 {
    let partitions = input.partitions();
    let moved = partitions.map(|partition| {
        let had = |row: &&MemberRow| partition.replicas.iter().any(|it| it.member == **row);
        let new = target[partition.row].iter().filter(|row| !had(row)).count();
        new as f64 * weighs.weight(&partition)
    });
    moved.sum()
}

/// What may stay: nothing with who is gone or drains.
fn kept(input: &Input, partition: &Partition) -> Vec<MemberRow> {
    let rows = partition.replicas.iter().map(|replica| replica.member);
    rows.filter(|row| stays(&input.members()[*row])).collect()
}

fn counted(input: &Input, weighs: Weighs, band: &Each<MemberRow, (f64, f64)>) -> f64 {
    let kept_sums = sums(input, weighs, |partition| kept(input, partition));
    let vacant: f64 = input
        .partitions()
        .map(|partition| {
            let kept = kept(input, &partition).len().min(partition.copies as usize);
            (partition.copies as usize - kept) as f64 * weighs.weight(&partition)
        })
        .sum();
    let over = |row: &MemberRow| (kept_sums[*row] - band[*row].1).max(0.0);
    let under = |row: &MemberRow| (band[*row].0 - kept_sums[*row]).max(0.0);
    let takers = takers(input);
    let must_go: f64 = takers.iter().map(over).sum();
    let must_come: f64 = takers.iter().map(under).sum();
    (vacant + must_go).max(must_come)
}

/// Nodes: the source, partitions, their zones, members, the sink.
fn cheapest(input: &Input, band: &Each<MemberRow, (f64, f64)>) -> f64 {
    let (partitions, zones) = (input.partitions().len(), input.zone_count());
    let members = input.members().len();
    let zone_node =
        |row: PartitionRow, zone: ZoneRow| 1 + partitions + row.place() * zones + zone.place();
    let member_node = |row: MemberRow| 1 + partitions * (1 + zones) + row.place();
    let sink = member_node(MemberRow::at(members));
    let mut graph = Graph::new(sink + 1);
    let rules = Draft::from_scratch(input);
    for partition in input.partitions() {
        let node = 1 + partition.row.place();
        graph.arc(0, node, i64::from(partition.copies), 0);
        let limit = i64::try_from(rules.zone_limit(&partition)).unwrap_or(i64::MAX);
        for zone in (0..zones).map(ZoneRow::at) {
            graph.arc(node, zone_node(partition.row, zone), limit, 0);
        }
        let kept = kept(input, &partition);
        for (row, member) in input.members().iter() {
            let from = zone_node(partition.row, input.zone(row));
            if kept.contains(&row) {
                graph.arc(from, member_node(row), 1, 0);
            } else if member.takes() && partition.allows(row) {
                graph.arc(from, member_node(row), 1, 1);
            }
        }
    }
    let mut least = 0;
    for (row, member) in input.members().iter() {
        let (low, high) = if member.takes() {
            band[row]
        } else {
            (0.0, f64::from(u32::MAX))
        };
        let (low, high) = (low as i64, high as i64);
        // What must come pays for itself, so that it comes first.
        graph.arc(member_node(row), sink, low, -MUST);
        graph.arc(member_node(row), sink, high - low, 0);
        least += low;
    }
    let cost = graph.cheapest(0, sink);
    (cost + least * MUST).rem_euclid(MUST) as f64
}

fn sums(
    input: &Input,
    weighs: Weighs,
    members: impl Fn(&Partition) -> Vec<MemberRow>,
) -> Each<MemberRow, f64> {
    let mut sums = Each::filled(input.members().len(), 0.0);
    for partition in input.partitions() {
        for row in members(&partition) {
            sums[row] += weighs.weight(&partition);
        }
    }
    sums
}

/// Equal parts of what is not with those that are away, but no zone gets more than one part of each
/// partition that it may have.
fn shares(input: &Input, weighs: Weighs) -> Each<MemberRow, f64> {
    let rules = Draft::from_scratch(input);
    let (mut total, mut zone_most) = (0.0, 0.0);
    for partition in input.partitions() {
        let weight = weighs.weight(&partition);
        total += weight * f64::from(partition.copies);
        zone_most += weight * rules.zone_limit(&partition).min(partition.copies as usize) as f64;
    }
    let mut room = Each::filled(input.zone_count(), zone_most);
    let mut count = Each::filled(input.zone_count(), 0.0);
    let kept_sums = sums(input, weighs, |partition| kept(input, partition));
    for (row, member) in input.members().iter() {
        if member.takes() {
            count[input.zone(row)] += 1.0;
        } else {
            total -= kept_sums[row];
            room[input.zone(row)] -= kept_sums[row];
        }
    }
    let at = |level: f64, zone: ZoneRow| f64::min(level * count[zone], room[zone].max(0.0));
    let filled = |level: f64| room.rows().map(|zone| at(level, zone)).sum::<f64>();
    let (mut low, mut high) = (0.0, total.max(1.0));
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if filled(middle) < total {
            low = middle
        } else {
            high = middle
        }
    }
    let share = |(row, member): (MemberRow, &Member)| {
        let zone = input.zone(row);
        if member.takes() {
            at(high, zone) / count[zone]
        } else {
            kept_sums[row]
        }
    };
    Each::of(input.members().iter().map(share).collect())
}

fn takers(input: &Input) -> Vec<MemberRow> {
    let members = input.members().iter();
    members
        .filter(|(_, it)| it.takes())
        .map(|(row, _)| row)
        .collect()
}

fn stays(member: &Member) -> bool {
    member.liveness != Liveness::Gone && member.intent != Intent::Drain
}

#[cfg(test)]
mod tests {
    use folkmoot_sdk::testing::TestCluster;

    use super::*;

    fn judged(cluster: &TestCluster, policy: crate::models::Policy) -> Judged {
        let input = cluster.input();
        let mut target = Each::of(
            input
                .partitions()
                .map(|it| it.replicas.iter().map(|replica| replica.member).collect())
                .collect(),
        );
        for assignment in policy(&input).unwrap().assignments() {
            target[assignment.partition] = assignment.members.to_vec();
        }
        judge(&input, &target)
    }

    #[test]
    fn sticky_balanced_moves_the_bound() {
        let sticky = crate::models::policy("sticky-balanced").unwrap();
        let cluster = TestCluster::new(7, 100).lose("b");
        let Judged { moved, bound, .. } = judged(&cluster, sticky);
        assert_eq!((moved, bound), (15.0, 15.0));
        let joined = TestCluster::new(7, 100).join("new", "");
        let Judged { moved, bound, .. } = judged(&joined, sticky);
        assert_eq!((moved, bound), (12.0, 12.0));
    }

    #[test]
    fn to_move_nothing_has_the_bound_0() {
        let orphans = crate::models::policy("orphans-only").unwrap();
        let joined = TestCluster::new(7, 100).join("new", "");
        let Judged { moved, bound, .. } = judged(&joined, orphans);
        assert_eq!((moved, bound), (0.0, 0.0));
    }

    /// The flow sees what a count can not: that zones force a move.
    #[test]
    fn the_flow_counts_what_zones_force() {
        let sticky = crate::models::policy("sticky-balanced").unwrap();
        let cluster = TestCluster::vacant(6, 30).copies(2).zones(&["x", "y", "z"]);
        let Judged { moved, bound, .. } = judged(&cluster, sticky);
        assert_eq!((moved, bound), (60.0, 60.0));
    }
}
