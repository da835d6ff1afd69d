//! The standard policy `rendezvous`: weighted highest-random-weight hashing.
//!
//! Each partition goes to the members for which a hash of both is the highest (Thaler and
//! Ravishankar 1998), weighted by capacity with the logarithmic method (Mosko, Schinnar). So where a
//! partition is depends on who is there and on nothing else: anybody can compute it, and a member
//! that joins or leaves moves only its own share. Loads are as even as chance makes them.

use core::cmp::Ordering;

use folkmoot_sdk::rebalancer::prelude::*;

/// Weighted highest-random-weight hashing. It takes no configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendezvous;

impl Rebalancer for Rendezvous {
    fn describe() -> PolicyDescription {
        let summary = "Each partition goes where a hash of it and the member is the highest.";
        PolicyDescription::new("rendezvous", env!("CARGO_PKG_VERSION"), summary)
            .needs("partitions.key")
            .needs("members.key")
    }

    fn plan(&self, input: &Input) -> Result<Plan, Rejection> {
        let mut draft = match input.request.mode {
            Mode::Full => Draft::from_scratch(input),
            Mode::Place => Draft::keep(input),
        };
        let ranking = Ranking::new(input);
        let mut scores = Vec::new();
        for partition in input.partitions() {
            if draft.lacks(partition.row) {
                ranking.score(&partition, &mut scores);
                place(&mut draft, partition.row, &scores);
                draft.settle_leader(partition.row);
            }
        }
        Ok(draft.into_plan("its hash is the highest there"))
    }
}

folkmoot_sdk::export_rebalancer!(Rendezvous);

/// A member and its score for some partition.
type Scored = (f64, MemberRow);

/// Members that can have partitions, and their weights.
struct Ranking {
    members: Vec<(MemberRow, u64, f64)>,
    weighted: bool,
}

impl Ranking {
    fn new(input: &Input) -> Self {
        let present =
            |member: &Member| member.liveness != Liveness::Gone && member.intent != Intent::Drain;
        let members: Vec<(MemberRow, &Member)> = input
            .members()
            .iter()
            .filter(|(_, it)| present(it))
            .collect();
        let weighted = members.iter().all(|(_, it)| it.capacity[0] != u64::MAX);
        let weight = |member: &Member| {
            if weighted {
                member.capacity[0] as f64
            } else {
                1.0
            }
        };
        let members = members.iter().filter(|(_, member)| weight(member) > 0.0);
        Self {
            members: members
                .map(|(row, member)| (*row, member.key, weight(member)))
                .collect(),
            weighted,
        }
    }

    /// The score of each member, the higher the better.
    fn score(&self, partition: &Partition, scores: &mut Vec<Scored>) {
        scores.clear();
        scores.extend(self.members.iter().map(|(row, key, weight)| {
            // 53 bits above 0 and below 1.
            let hash = ((mix(partition.key, *key) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = if self.weighted {
                -weight / hash.ln()
            } else {
                hash
            };
            (score, *row)
        }));
    }
}

/// Puts the partition on the members with the highest scores that can have it. Who is away, or gets
/// nothing, keeps it.
fn place(draft: &mut Draft, partition: PartitionRow, scores: &[Scored]) {
    let mut after: Option<Scored> = None;
    while draft.lacks(partition) {
        let left = scores
            .iter()
            .filter(|it| after.is_none_or(|after| order(it, &after).is_lt()));
        let Some(best) = left.max_by(|a, b| order(a, b)).copied() else {
            return;
        };
        if draft.can_place(partition, best.1) {
            draft.place(partition, best.1);
        } else {
            draft.retain(partition, best.1);
        }
        after = Some(best);
    }
}

fn order(a: &Scored, b: &Scored) -> Ordering {
    a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))
}
