//! Random schedules: messages dropped, doubled and taken in any order, crashes that lose what was
//! not synced, stalled disks, snapshots. Safety is checked at every step; then all heals, and the
//! cluster must make progress.

use rand_core::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::cluster::{Cargo, Cluster};
use crate::fixtures::member;

const STEPS: u64 = 600;

pub(crate) struct Schedule {
    pub(crate) cluster: Cluster,
    dice: Pcg64Mcg,
    /// One disk is lost in part or whole in half of the schedules, and never two.
    disk_is_spared: bool,
    weights: [u64; 12],
}

/// How often things happen: the network, syncs, time, proposals, reads, reads of the log, crashes
/// and starts, compactions, transfers, cuts, isolated leaders, healing.
const WEIGHTS: [u64; 12] = [90, 50, 12, 20, 10, 6, 4, 2, 2, 2, 1, 3];

impl Schedule {
    pub(crate) fn new(voters: u64, seed: u64) -> Self {
        let mut cluster = Cluster::new(voters, seed, |config| {
            config.append_bytes_max = 200;
            config.inflight_bytes_max = 600;
            config.cache_bytes_max = 400;
            config.unapplied_bytes_max = 150;
        });
        let mut dice = Pcg64Mcg::seed_from_u64(seed);
        // Each schedule has things that happen much more often, and things that hardly do.
        let weights = WEIGHTS.map(|weight| weight * [0, 1, 1, 4][dice.next_u64() as usize % 4]);
        let mut weights = weights.map(|weight| weight.max(1));
        for node in cluster.nodes.values_mut() {
            node.clock_percent = [100, 100, 80, 40][dice.next_u64() as usize % 4];
        }
        weights[0] = weights[0].max(WEIGHTS[0]);
        Self {
            cluster,
            dice,
            disk_is_spared: seed.is_multiple_of(2),
            weights,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice.next_u64() % sides
    }

    fn anyone(&mut self) -> folkmoot_proto::MemberId {
        let voters = self.cluster.voters;
        member(1 + self.roll(voters))
    }

    /// The whole schedule: trouble, then healing.
    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
    }

    fn step(&mut self) {
        let total = self.weights.iter().sum();
        let mut roll = self.roll(total);
        let mut what = 0;
        while roll >= self.weights[what] {
            roll -= self.weights[what];
            what += 1;
        }
        let id = self.anyone();
        match what {
            0 => self.network(),
            1 => self.cluster.sync(id),
            2 => self.time_passes(),
            3 => {
                let leader = self.cluster.leader().unwrap_or(id);
                let text = format!("{}", self.roll(1000));
                self.cluster.propose(leader, &text);
            }
            4 => drop(self.cluster.read(id)),
            5 => self.cluster.answer_log_read(id),
            6 => self.crash_or_start(),
            7 => self.cluster.compact(id),
            8 => {
                let target = self.anyone();
                self.cluster.input(id, |machine, now| {
                    machine.transfer_leadership(now, Some(target));
                });
            }
            9 => {
                let other = self.anyone();
                self.cluster.cut.insert((id, other));
            }
            10 => {
                let leader = self.cluster.leader().unwrap_or(id);
                for other in self.cluster.ids() {
                    self.cluster.cut.insert((leader, other));
                    self.cluster.cut.insert((other, leader));
                }
            }
            _ => self.cluster.cut.clear(),
        }
    }

    fn network(&mut self) {
        let count = self.cluster.flights.len() as u64;
        if count == 0 {
            return self.time_passes();
        }
        // Mostly the oldest, now and then any.
        let place = match self.roll(4) {
            0 => self.roll(count) as usize,
            _ => 0,
        };
        match self.roll(20) {
            0 => self.cluster.lose(place),
            1 => {
                let copy = self.cluster.flights[place].clone();
                if matches!(copy.cargo, Cargo::Message(_)) {
                    self.cluster.flights.push_back(copy);
                }
                self.cluster.deliver(place);
            }
            _ => self.cluster.deliver(place),
        }
    }

    fn time_passes(&mut self) {
        let ms = match self.roll(10) {
            0 => self.roll(800),
            _ => self.roll(40),
        };
        self.cluster.now = self.cluster.now.plus_millis(ms);
        let id = self.anyone();
        self.cluster.time_out(id);
    }

    fn crash_or_start(&mut self) {
        let id = self.anyone();
        if self.cluster.nodes[&id].machine.is_none() {
            return self.cluster.start(id);
        }
        let pending = self.cluster.nodes[&id].disk.pending_records() as u64;
        let kept = self.roll(pending + 1);
        self.cluster.crash(id, kept as usize);
        if !self.disk_is_spared {
            self.disk_is_spared = true;
            let lost = 1 + self.roll(4) as usize;
            match self.roll(2) {
                0 => self.cluster.wipe(id),
                _ => self.cluster.damage(id, lost),
            }
        }
    }

    /// All members run and hear each other: one leads, and what is proposed is applied by all.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            if self.cluster.nodes[&id].machine.is_none() {
                self.cluster.start(id);
            }
        }
        for round in 0.. {
            assert!(
                round < 40,
                "no progress after {round} rounds of 2 s:\n{}",
                self.cluster.describe()
            );
            self.cluster.pass(2000);
            let Some(leader) = self.cluster.leader() else {
                continue;
            };
            let Some(Ok(index)) = self.cluster.propose(leader, "healed") else {
                continue;
            };
            self.cluster.pass(1000);
            if self
                .cluster
                .nodes
                .values()
                .all(|node| node.applied >= index)
            {
                return;
            }
        }
    }
}
