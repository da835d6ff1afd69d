//! A partition map in memory, so that a rebalancer's unit test reads well.

use std::collections::BTreeMap;

use super::invariants::violations;
use crate::rebalancer::{
    Input, Intent, Liveness, Load, Member, MemberRow, PartitionRow, PartitionSpec, Plan,
    Rebalancer, Replica, Request, Role, Row,
};

/// Members and partitions, and what happens to them.
///
/// A story is told from the left to the right: each `check` asks the policy, holds what it plans
/// against the kernel's invariants, and goes on with the plan carried out.
#[derive(Clone, Debug)]
pub struct TestCluster {
    members: Vec<Member>,
    partitions: Vec<PartitionSpec>,
    replicas: Vec<Vec<Replica>>,
    allowed: Vec<Vec<MemberRow>>,
    /// Why and how the policy is asked.
    pub request: Request,
    moves: usize,
    leader_moves: usize,
    plan: Plan,
}

impl TestCluster {
    /// Members `a`, `b`, `c` and so on, each a zone of its own, and partitions of one replica and
    /// weight 1 that are dealt out to them in turn.
    #[must_use]
    pub fn new(members: usize, partitions: usize) -> Self {
        let mut cluster = Self::vacant(members, partitions);
        for (place, replicas) in cluster.replicas.iter_mut().enumerate() {
            if let Some(member) = place.checked_rem(members) {
                replicas.push(replica(MemberRow::at(member), Role::Leader));
            }
        }
        cluster
    }

    /// The same, but that no partition is anywhere.
    #[must_use]
    pub fn vacant(members: usize, partitions: usize) -> Self {
        let member = |place| {
            let name = name_of(place);
            let key = hash(&name);
            Member::new(name, key)
        };
        let spec = |place: usize| {
            let key = hash(&format!("partition {place}"));
            PartitionSpec::new(place as u64, key, 1)
        };
        Self {
            members: (0..members).map(member).collect(),
            partitions: (0..partitions).map(spec).collect(),
            replicas: vec![Vec::new(); partitions],
            allowed: vec![Vec::new(); partitions],
            request: Request::default(),
            moves: 0,
            leader_moves: 0,
            plan: Plan::new(),
        }
    }

    /// Every partition should have so many replicas.
    #[must_use]
    pub fn copies(mut self, copies: u32) -> Self {
        for spec in &mut self.partitions {
            spec.copies = copies;
        }
        self
    }

    /// Deals the members out to zones in turn.
    #[must_use]
    pub fn zones(mut self, zones: &[&str]) -> Self {
        for (member, zone) in self.members.iter_mut().zip(zones.iter().cycle()) {
            (*zone).clone_into(&mut member.topology);
        }
        self
    }

    /// A member joins, in a zone.
    #[must_use]
    pub fn join(mut self, name: &str, topology: &str) -> Self {
        let mut member = Member::new(name, hash(name));
        topology.clone_into(&mut member.topology);
        self.members.push(member);
        self
    }

    /// A member is gone for good, and its replicas with it.
    #[must_use]
    pub fn lose(mut self, name: &str) -> Self {
        let row = self.row(name);
        self.member(name).liveness = Liveness::Gone;
        for replicas in &mut self.replicas {
            replicas.retain(|replica| replica.member != row);
        }
        self
    }

    /// A member is absent, and waited for.
    #[must_use]
    pub fn away(mut self, name: &str) -> Self {
        self.member(name).liveness = Liveness::Away;
        self
    }

    /// A member lives.
    #[must_use]
    pub fn back(mut self, name: &str) -> Self {
        self.member(name).liveness = Liveness::Live;
        self
    }

    /// A member should give away what it has.
    #[must_use]
    pub fn drain(mut self, name: &str) -> Self {
        self.member(name).intent = Intent::Drain;
        self
    }

    /// A member should get nothing.
    #[must_use]
    pub fn cordon(mut self, name: &str) -> Self {
        self.member(name).intent = Intent::Cordon;
        self
    }

    /// Changes a member.
    #[must_use]
    pub fn with_member(mut self, name: &str, change: impl FnOnce(&mut Member)) -> Self {
        change(self.member(name));
        self
    }

    /// Changes a partition.
    #[must_use]
    pub fn with_partition(
        mut self,
        partition: usize,
        change: impl FnOnce(&mut PartitionSpec),
    ) -> Self {
        change(self.spec(partition));
        self
    }

    /// A partition is measured just now.
    #[must_use]
    pub fn load(mut self, partition: usize, value: f64) -> Self {
        self.spec(partition).load = Some(Load { value, age_ms: 0 });
        self
    }

    /// A partition may be led by this member alone.
    #[must_use]
    pub fn pin(mut self, partition: usize, name: &str) -> Self {
        self.spec(partition).pin = Some(self.row(name));
        self
    }

    /// A partition may be at these members alone.
    #[must_use]
    pub fn allow(mut self, partition: usize, names: &[&str]) -> Self {
        let mut rows: Vec<MemberRow> = names.iter().map(|name| self.row(name)).collect();
        rows.sort_unstable();
        if let Some(allowed) = self.allowed.get_mut(partition) {
            *allowed = rows;
        }
        self
    }

    /// What a policy sees of it.
    #[must_use]
    pub fn input(&self) -> Input {
        let mut input = Input::new(self.members.clone(), self.partitions.clone())
            .with_replicas(self.replicas.iter().map(Vec::as_slice))
            .with_allowed(self.allowed.iter().map(Vec::as_slice));
        input.request = self.request.clone();
        input
    }

    /// Asks the policy, through the tables as the kernel would, and carries out what it plans.
    ///
    /// # Panics
    ///
    /// If the policy rejects, if it answers the same question differently, or if the plan breaks an
    /// invariant.
    #[track_caller]
    pub fn check<R: Rebalancer>(mut self, policy: &R) -> Self {
        let input = self.input();
        let read = Input::from_tables(&input.to_tables());
        assert_eq!(read.as_ref(), Ok(&input), "the tables keep the input");
        let plan = match policy.plan(&input) {
            Ok(plan) => plan,
            Err(rejection) => panic!("the policy rejects: {rejection}"),
        };
        assert_eq!(
            policy.plan(&input).as_ref(),
            Ok(&plan),
            "the same input gives the same plan"
        );
        let read = Plan::from_tables(&plan.clone().into_tables(), &input);
        assert_eq!(read.as_ref(), Ok(&plan), "the tables keep the plan");
        let broken = violations(&input, &plan);
        assert!(broken.is_empty(), "the plan is illegal: {broken:#?}");
        self.carry_out(plan);
        self
    }

    /// How many replicas the last plan put where there was none.
    #[must_use]
    pub fn moves(&self) -> usize {
        self.moves
    }

    /// How many partitions the last plan gave another leader.
    #[must_use]
    pub fn leader_moves(&self) -> usize {
        self.leader_moves
    }

    /// The last plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many replicas each member has, by its name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        self.tally(|_| true)
    }

    /// How many partitions each member leads, by its name.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<&str, usize> {
        self.tally(|replica| replica.role == Role::Leader)
    }

    /// The names of the members that have the partition; the first leads.
    #[must_use]
    pub fn members_of(&self, partition: usize) -> Vec<&str> {
        let replicas = self.replicas.get(partition).map(Vec::as_slice);
        let replicas = replicas.unwrap_or_default().iter();
        replicas.map(|replica| self.name(replica.member)).collect()
    }

    fn carry_out(&mut self, plan: Plan) {
        (self.moves, self.leader_moves) = (0, 0);
        for assignment in plan.assignments() {
            let Some(replicas) = self.replicas.get_mut(assignment.partition.place()) else {
                continue;
            };
            let had = |member| replicas.iter().any(|replica| replica.member == member);
            self.moves += assignment.members.iter().filter(|it| !had(**it)).count();
            let leader = replicas.first().map(|replica| replica.member);
            self.leader_moves += usize::from(leader != assignment.members.first().copied());
            let members = assignment.members.iter().enumerate();
            *replicas = members
                .map(|(place, member)| {
                    let leads = place == 0;
                    replica(*member, if leads { Role::Leader } else { Role::Follower })
                })
                .collect();
        }
        self.plan = plan;
    }

    fn tally(&self, counts: impl Fn(&Replica) -> bool) -> BTreeMap<&str, usize> {
        let members = self.members.iter();
        let mut tally: BTreeMap<&str, usize> =
            members.map(|member| (member.name.as_str(), 0)).collect();
        for replica in self.replicas.iter().flatten().filter(|it| counts(it)) {
            *tally.entry(self.name(replica.member)).or_default() += 1;
        }
        tally
    }

    fn name(&self, row: MemberRow) -> &str {
        self.members
            .get(row.place())
            .map_or("", |member| &member.name)
    }

    #[track_caller]
    fn row(&self, name: &str) -> MemberRow {
        let place = self.members.iter().position(|member| member.name == name);
        match place {
            Some(place) => MemberRow::at(place),
            None => panic!("there is no member {name}"),
        }
    }

    #[track_caller]
    fn member(&mut self, name: &str) -> &mut Member {
        match self.members.iter_mut().find(|member| member.name == name) {
            Some(member) => member,
            None => panic!("there is no member {name}"),
        }
    }

    #[track_caller]
    fn spec(&mut self, partition: usize) -> &mut PartitionSpec {
        match self.partitions.get_mut(PartitionRow::at(partition).place()) {
            Some(spec) => spec,
            None => panic!("there is no partition {partition}"),
        }
    }
}

fn replica(member: MemberRow, role: Role) -> Replica {
    Replica {
        member,
        role,
        ready: true,
    }
}

/// `a` to `z`, then `aa`, `ab` and so on.
fn name_of(place: usize) -> String {
    let letter = |place: usize| char::from(b'a' + u8::try_from(place % 26).unwrap_or_default());
    match place / 26 {
        0 => letter(place).to_string(),
        more => name_of(more - 1) + &letter(place).to_string(),
    }
}

/// FNV-1a, mixed: the same for ever, as the kernel's hashes are.
fn hash(text: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    super::view::splitmix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}
